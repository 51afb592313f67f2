//! One page of a column chunk: header, levels, compressed values.
//!
//! Owns page headers, checksums and decompression. What a header claims is checked against the
//! bytes that are there and against the chunk before memory is reserved.

use bytes::Bytes;

use super::{
    Malformed,
    bits::Bits,
    footer::{Chunk, Compression, FileLeaf, MAX_CHUNK_ENTRIES},
    hybrid::Levels,
    thrift::{Kind, Thrift},
};

/// Largest page after decompression, in bytes. Tempo lets dictionaries grow to 1 GiB.
const MAX_PAGE_BYTES: u64 = 1 << 30;

/// Most bytes that Snappy makes of one byte: a copy of 64 bytes takes at least 2.
const MAX_SNAPPY_EXPANSION: usize = 64;

/// How values are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Plain,
    Rle,
    Delta,
    DeltaLength,
    DeltaPrefix,
    Dictionary,
    /// One that blocks do not use.
    Other(i64),
}

fn encoding(number: i64) -> Encoding {
    match number {
        0 => Encoding::Plain,
        3 => Encoding::Rle,
        5 => Encoding::Delta,
        6 => Encoding::DeltaLength,
        7 => Encoding::DeltaPrefix,
        2 | 8 => Encoding::Dictionary,
        other => Encoding::Other(other),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Layout {
    #[default]
    Dictionary,
    V1,
    V2,
}

/// A page header.
#[derive(Debug, Clone, Default)]
pub(crate) struct Header {
    layout: Layout,
    /// Bytes of the header itself.
    len: usize,
    uncompressed: u64,
    compressed: u64,
    checksum: Option<u32>,
    pub(crate) entries: u64,
    encoding: i64,
    levels_encoded_otherwise: bool,
    nulls: Option<u64>,
    /// Traces that begin in the page, if the header tells.
    pub(crate) rows: Option<u64>,
    rep_len: u64,
    def_len: u64,
    values_compressed: bool,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut header = Self {
            values_compressed: true,
            ..Self::default()
        };
        let mut kind = -1;
        let mut thrift = Thrift::new(bytes);
        thrift.fields(|thrift, field| {
            match field.id {
                1 => kind = thrift.int(field.kind)?,
                2 => header.uncompressed = thrift.size(field.kind)?,
                3 => header.compressed = thrift.size(field.kind)?,
                4 => header.checksum = Some(thrift.int(field.kind)? as u32),
                5 | 7 if field.kind == Kind::Struct => {
                    header.layout = if field.id == 5 {
                        Layout::V1
                    } else {
                        Layout::Dictionary
                    };
                    header.counted(thrift)?;
                }
                8 if field.kind == Kind::Struct => {
                    header.layout = Layout::V2;
                    header.v2(thrift)?;
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        header.len = thrift.position();
        let matches = match header.layout {
            Layout::V1 => kind == 0,
            Layout::V2 => kind == 3,
            Layout::Dictionary => kind == 2,
        };
        if !matches {
            return Err(Malformed("page header of unknown type"));
        }
        if header.entries > MAX_CHUNK_ENTRIES || header.uncompressed > MAX_PAGE_BYTES {
            return Err(Malformed("page is too large"));
        }
        Ok(header)
    }

    fn counted(&mut self, thrift: &mut Thrift<'_>) -> Result<(), Malformed> {
        thrift.fields(|thrift, field| {
            match field.id {
                1 => self.entries = thrift.size(field.kind)?,
                2 => self.encoding = thrift.int(field.kind)?,
                3 | 4 if field.kind == Kind::I32 => {
                    self.levels_encoded_otherwise |=
                        encoding(thrift.int(field.kind)?) != Encoding::Rle;
                }
                _ => return Ok(false),
            }
            Ok(true)
        })
    }

    fn v2(&mut self, thrift: &mut Thrift<'_>) -> Result<(), Malformed> {
        thrift.fields(|thrift, field| {
            match field.id {
                1 => self.entries = thrift.size(field.kind)?,
                2 => self.nulls = Some(thrift.size(field.kind)?),
                3 => self.rows = Some(thrift.size(field.kind)?),
                4 => self.encoding = thrift.int(field.kind)?,
                5 => self.def_len = thrift.size(field.kind)?,
                6 => self.rep_len = thrift.size(field.kind)?,
                7 => self.values_compressed = field.bool()?,
                _ => return Ok(false),
            }
            Ok(true)
        })
    }

    pub(crate) fn is_dictionary(&self) -> bool {
        self.layout == Layout::Dictionary
    }

    /// Bytes of header and content together.
    pub(crate) fn page_len(&self) -> Result<usize, Malformed> {
        usize::try_from(self.compressed)
            .ok()
            .and_then(|content| self.len.checked_add(content))
            .ok_or(Malformed("page length"))
    }
}

/// A page whose values are still compressed. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    /// Values and placeholders of missing ones.
    pub(crate) entries: usize,
    pub(crate) encoding: Encoding,
    nulls: Option<usize>,
    max_rep: u8,
    max_def: u8,
    rep: Bytes,
    def: Bytes,
    values: Bytes,
    compression: Compression,
    values_len: usize,
}

impl Page {
    /// Reads the data page at the start of `bytes`, a part of `chunk`.
    pub(crate) fn parse(bytes: &Bytes, leaf: &FileLeaf, chunk: &Chunk) -> Result<Self, Malformed> {
        let header = Header::parse(bytes)?;
        if header.is_dictionary() {
            return Err(Malformed("dictionary page among data pages"));
        }
        Self::with_header(&header, bytes, leaf, chunk)
    }

    /// Reads the dictionary page at the start of `bytes`, a part of `chunk`.
    pub(crate) fn parse_dictionary(
        bytes: &Bytes,
        leaf: &FileLeaf,
        chunk: &Chunk,
    ) -> Result<Self, Malformed> {
        let header = Header::parse(bytes)?;
        if !header.is_dictionary() {
            return Err(Malformed("data page where the dictionary belongs"));
        }
        Self::with_header(&header, bytes, leaf, chunk)
    }

    fn with_header(
        header: &Header,
        bytes: &Bytes,
        leaf: &FileLeaf,
        chunk: &Chunk,
    ) -> Result<Self, Malformed> {
        let end = header.page_len()?;
        if end > bytes.len() {
            return Err(Malformed("page is cut"));
        }
        let content = bytes.slice(header.len..end);
        if let Some(checksum) = header.checksum
            && crc32fast::hash(&content) != checksum
        {
            return Err(Malformed("page does not match its checksum"));
        }
        if header.uncompressed > chunk.uncompressed {
            return Err(Malformed("page is larger than its column chunk"));
        }
        // A dictionary may hold more than rows have.
        if !header.is_dictionary() && header.entries > u64::from(chunk.entries) {
            return Err(Malformed("page has more values than its column chunk"));
        }
        let (max_rep, max_def) = match header.layout {
            Layout::Dictionary => (0, 0),
            _ => (leaf.max_rep, leaf.max_def),
        };
        let mut page = Self {
            entries: header.entries as usize,
            encoding: encoding(header.encoding),
            nulls: None,
            max_rep,
            max_def,
            rep: Bytes::new(),
            def: Bytes::new(),
            values: content,
            compression: chunk.compression,
            values_len: header.uncompressed as usize,
        };
        match header.layout {
            Layout::Dictionary => page.nulls = Some(0),
            Layout::V1 => page.split_v1(header)?,
            Layout::V2 => page.split_v2(header)?,
        }
        if max_def == 0 {
            page.nulls = Some(0);
        }
        if page.nulls.is_some_and(|nulls| nulls > page.entries) {
            return Err(Malformed("page has more missing values than values"));
        }
        Ok(page)
    }

    /// Version 1: everything is compressed together, and levels begin with their length.
    fn split_v1(&mut self, header: &Header) -> Result<(), Malformed> {
        if header.levels_encoded_otherwise && self.max_def > 0 {
            return Err(Malformed("levels are not run-length encoded"));
        }
        let mut content = Vec::new();
        let len = decompress(
            self.compression,
            &self.values,
            self.values_len,
            &mut content,
        )?
        .len();
        let mut rest = if self.compression == Compression::None {
            self.values.slice(..len)
        } else {
            content.truncate(len);
            Bytes::from(content)
        };
        for (max, levels) in [(self.max_rep, &mut self.rep), (self.max_def, &mut self.def)] {
            if max == 0 {
                continue;
            }
            let prefix = rest
                .get(..4)
                .and_then(|prefix| prefix.try_into().ok())
                .ok_or(Malformed("levels are cut"))?;
            let len = u32::from_le_bytes(prefix) as usize;
            if len > rest.len() - 4 {
                return Err(Malformed("levels are cut"));
            }
            *levels = rest.slice(4..4 + len);
            rest = rest.slice(4 + len..);
        }
        self.compression = Compression::None;
        self.values_len = rest.len();
        self.values = rest;
        Ok(())
    }

    /// Version 2: levels come first and are not compressed.
    fn split_v2(&mut self, header: &Header) -> Result<(), Malformed> {
        let levels = header
            .rep_len
            .checked_add(header.def_len)
            .filter(|&levels| levels <= self.values.len() as u64 && levels <= header.uncompressed)
            .ok_or(Malformed("levels are longer than their page"))?;
        let (rep_len, levels) = (header.rep_len as usize, levels as usize);
        self.rep = self.values.slice(..rep_len);
        self.def = self.values.slice(rep_len..levels);
        self.values = self.values.slice(levels..);
        self.values_len -= levels;
        if !header.values_compressed {
            self.compression = Compression::None;
        }
        self.nulls = header.nulls.map(|nulls| nulls as usize);
        Ok(())
    }

    pub(crate) fn rep(&self) -> Levels<'_> {
        Levels {
            bytes: &self.rep,
            max: self.max_rep,
            count: self.entries,
        }
    }

    pub(crate) fn def(&self) -> Levels<'_> {
        Levels {
            bytes: &self.def,
            max: self.max_def,
            count: self.entries,
        }
    }

    /// How many values there are, placeholders not counted.
    pub(crate) fn value_count(&self, scratch: &mut Bits) -> Result<usize, Malformed> {
        match self.nulls {
            Some(nulls) => Ok(self.entries - nulls),
            None => self.def().count_at_least(self.max_def, scratch),
        }
    }

    /// Whether the header tells that no value is missing.
    pub(crate) fn is_dense(&self) -> bool {
        self.nulls == Some(0)
    }

    /// The encoded values, decompressed into `scratch` when they are compressed.
    pub(crate) fn body<'s>(&'s self, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], Malformed> {
        decompress(self.compression, &self.values, self.values_len, scratch)
    }
}

impl Page {
    /// The encoded values, decompressed, as the content of `out`.
    pub(crate) fn body_into(&self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        if self.compression == Compression::None {
            let body = self.values.get(..self.values_len);
            out.clear();
            out.extend_from_slice(body.ok_or(Malformed("page is cut"))?);
            return Ok(());
        }
        let len = self.body(out)?.len();
        out.truncate(len);
        Ok(())
    }
}

/// `compressed` as `len` bytes.
fn decompress<'s>(
    compression: Compression,
    compressed: &'s [u8],
    len: usize,
    scratch: &'s mut Vec<u8>,
) -> Result<&'s [u8], Malformed> {
    // Some writers leave empty values out instead of compressing nothing.
    if len == 0 {
        return Ok(&[]);
    }
    match compression {
        Compression::None => compressed.get(..len).ok_or(Malformed("page is cut")),
        Compression::Snappy => {
            if len > compressed.len().saturating_mul(MAX_SNAPPY_EXPANSION) {
                return Err(Malformed("page claims more bytes than Snappy can make"));
            }
            if scratch.len() < len {
                scratch.resize(len, 0);
            }
            let out = &mut scratch[..len];
            let written = snap::raw::Decoder::new()
                .decompress(compressed, out)
                .map_err(|_| Malformed("page is not valid Snappy"))?;
            if written != len {
                return Err(Malformed("page has another length than its header says"));
            }
            Ok(out)
        }
        Compression::Zstd => {
            use std::io::Read;
            let malformed = |_| Malformed("page is not valid Zstandard");
            // Grows with what really comes out, however much the header claims.
            scratch.clear();
            zstd::stream::read::Decoder::with_buffer(compressed)
                .map_err(malformed)?
                .take(len as u64)
                .read_to_end(scratch)
                .map_err(malformed)?;
            if scratch.len() != len {
                return Err(Malformed("page has another length than its header says"));
            }
            Ok(scratch)
        }
        Compression::Other(_) => Err(Malformed("compression codec is not supported")),
    }
}
