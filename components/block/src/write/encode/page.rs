//! Pages: levels and values, compressed, behind their header.

use tempo_model::otlp::{varint_len, write_varint};

use super::thrift::Thrift;
use crate::{
    hints::{DictionaryHint, FRAGMENT_BYTES},
    schema::Codec,
};

/// A page beyond the 2 GiB that the format can describe.
#[derive(Debug)]
pub(crate) struct PageTooLarge;

/// Level of ZSTD compression; what Tempo's own writer uses by default.
const ZSTD_LEVEL: i32 = 3;

const DATA_PAGE_V2: i32 = 3;
const DICTIONARY_PAGE: i32 = 2;
const PLAIN: i32 = 0;

/// Compresses values; keeps its tables and buffer from page to page.
pub(crate) struct Compressor {
    snappy: snap::raw::Encoder,
    buffer: Vec<u8>,
    /// Where the fragments of what was compressed last begin.
    fragment_starts: Vec<usize>,
}

impl Compressor {
    pub(crate) fn new() -> Self {
        Self {
            snappy: snap::raw::Encoder::new(),
            buffer: Vec::new(),
            fragment_starts: Vec::new(),
        }
    }

    /// Gives back what a large dictionary needed.
    pub(crate) fn trim(&mut self) {
        const KEPT_BYTES: usize = 1 << 20;
        if self.buffer.capacity() > KEPT_BYTES {
            self.buffer = Vec::new();
        }
    }

    /// The compressed bytes; `None` without a codec.
    fn compress(&mut self, codec: Codec, bytes: &[u8]) -> Result<Option<&[u8]>, PageTooLarge> {
        let length = match codec {
            Codec::Uncompressed => return Ok(None),
            Codec::Snappy => {
                let room = snap::raw::max_compress_len(bytes.len());
                if self.buffer.len() < room {
                    self.buffer.resize(room, 0);
                }
                self.snappy
                    .compress(bytes, &mut self.buffer)
                    .map_err(|_| PageTooLarge)?
            }
            Codec::Zstd => {
                self.buffer = zstd::bulk::compress(bytes, ZSTD_LEVEL).map_err(|_| PageTooLarge)?;
                self.buffer.len()
            }
        };
        Ok(Some(&self.buffer[..length]))
    }

    /// The same, fragment by fragment, which is what Snappy does by itself.
    fn compress_fragments(
        &mut self,
        codec: Codec,
        bytes: &[u8],
    ) -> Result<Option<&[u8]>, PageTooLarge> {
        self.fragment_starts.clear();
        if codec != Codec::Snappy || bytes.len() <= FRAGMENT_BYTES {
            return self.compress(codec, bytes);
        }
        let room = snap::raw::max_compress_len(FRAGMENT_BYTES);
        self.buffer.clear();
        write_varint(&mut self.buffer, bytes.len() as u64);
        for fragment in bytes.chunks(FRAGMENT_BYTES) {
            let start = self.buffer.len();
            self.fragment_starts.push(start);
            self.buffer.resize(start + room, 0);
            let length = self
                .snappy
                .compress(fragment, &mut self.buffer[start..])
                .map_err(|_| PageTooLarge)?;
            // Its own length, which only the whole has.
            let prefix = varint_len(fragment.len() as u64);
            self.buffer
                .copy_within(start + prefix..start + length, start);
            self.buffer.truncate(start + length - prefix);
        }
        Ok(Some(&self.buffer))
    }
}

/// A data page of version 2, before compression.
pub(crate) struct DataPage<'a> {
    /// Encoded repetition levels; empty when the column has none.
    pub(crate) rep_levels: &'a [u8],
    /// Encoded definition levels; empty when the column has none.
    pub(crate) def_levels: &'a [u8],
    /// Encoded values.
    pub(crate) values: &'a [u8],
    /// Number of the encoding in the format.
    pub(crate) encoding: i32,
    /// Level entries, nulls included.
    pub(crate) entries: usize,
    /// Entries without a value.
    pub(crate) nulls: usize,
    /// Rows that begin in the page; it begins with one.
    pub(crate) rows: usize,
}

/// A finished page and what its column's metadata adds up.
pub(crate) struct Encoded {
    /// Header and content.
    pub(crate) bytes: Vec<u8>,
    /// Header and content as if not compressed.
    pub(crate) uncompressed: usize,
}

impl DataPage<'_> {
    pub(crate) fn encode(
        &self,
        codec: Codec,
        compressor: &mut Compressor,
    ) -> Result<Encoded, PageTooLarge> {
        let levels = self.rep_levels.len() + self.def_levels.len();
        let (values, is_compressed) = match compressor.compress(codec, self.values)? {
            Some(compressed) if compressed.len() < self.values.len() => (compressed, true),
            _ => (self.values, false),
        };
        let mut checksum = crc32fast::Hasher::new();
        for part in [self.rep_levels, self.def_levels, values] {
            checksum.update(part);
        }
        let mut header = Vec::with_capacity(48);
        let mut thrift = Thrift::new(&mut header);
        thrift.i32(1, DATA_PAGE_V2);
        thrift.i32(2, size(levels + self.values.len())?);
        thrift.i32(3, size(levels + values.len())?);
        thrift.i32(4, checksum.finalize() as i32);
        let counts = [
            size(self.entries)?,
            size(self.nulls)?,
            size(self.rows)?,
            self.encoding,
            size(self.def_levels.len())?,
            size(self.rep_levels.len())?,
        ];
        thrift.structure(8, |page| {
            for (id, count) in (1..).zip(counts) {
                page.i32(id, count);
            }
            page.bool(7, is_compressed);
        });
        thrift.end();
        let mut bytes = Vec::with_capacity(header.len() + levels + values.len());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(self.rep_levels);
        bytes.extend_from_slice(self.def_levels);
        bytes.extend_from_slice(values);
        Ok(Encoded {
            uncompressed: header.len() + levels + self.values.len(),
            bytes,
        })
    }
}

/// The dictionary page of `entries` values that are already laid out PLAIN, and what to tell of it.
/// Unlike data pages it cannot opt out of its column's compression.
pub(crate) fn dictionary_page(
    plain: &[u8],
    entries: usize,
    codec: Codec,
    compressor: &mut Compressor,
) -> Result<(Encoded, Option<DictionaryHint>), PageTooLarge> {
    let content = compressor.compress_fragments(codec, plain)?;
    let content = content.unwrap_or(plain);
    let mut bytes = Vec::with_capacity(32 + content.len());
    let mut thrift = Thrift::new(&mut bytes);
    thrift.i32(1, DICTIONARY_PAGE);
    thrift.i32(2, size(plain.len())?);
    thrift.i32(3, size(content.len())?);
    thrift.i32(4, crc32fast::hash(content) as i32);
    let count = size(entries)?;
    thrift.structure(7, |page| {
        page.i32(1, count);
        page.i32(2, PLAIN);
    });
    thrift.end();
    let header = bytes.len();
    bytes.extend_from_slice(content);
    let page = Encoded {
        uncompressed: header + plain.len(),
        bytes,
    };
    let starts = compressor.fragment_starts.iter_mut();
    starts.for_each(|start| *start += header);
    let starts = &compressor.fragment_starts;
    let hint = DictionaryHint::of(plain, entries, &page.bytes, starts);
    Ok((page, hint))
}

fn size(bytes: usize) -> Result<i32, PageTooLarge> {
    i32::try_from(bytes).map_err(|_| PageTooLarge)
}
