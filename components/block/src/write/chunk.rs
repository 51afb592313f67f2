//! One column of a row group while it is filled: finished pages and running statistics.

use parquet::{
    basic::{CompressionCodec, Encoding, PageType},
    data_type::ByteArray,
    file::{metadata::PageEncodingStats, statistics::Statistics},
};

use super::{
    encode::{Compressor, DataPage, Encoded, PageTooLarge, dictionary_page},
    lanes::ByteLane,
};
use crate::{
    hints::DictionaryHint,
    schema::{Codec, Leaf, LeafEncoding, LeafType},
};

/// Longest text that becomes a bound. Without bounds nothing is pruned wrongly; a cut bound would
/// have to be rounded up, and no one prunes by texts of this length.
const MAX_BOUND_BYTES: usize = 256;

/// The smallest and the largest value so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Bounds {
    /// No value yet, or none that can be compared.
    #[default]
    Unknown,
    /// Signed integers.
    Signed(i64, i64),
    /// Unsigned integers.
    Unsigned(u64, u64),
    /// Doubles.
    Double(f64, f64),
    /// Doubles of which one is not a number.
    Unordered,
    /// Booleans.
    Bool(bool, bool),
    /// Byte strings.
    Bytes(Vec<u8>, Vec<u8>),
}

impl Bounds {
    pub(crate) fn signed(&mut self, values: impl Iterator<Item = i64>) {
        let (low, high) = extremes(values, i64::MAX, i64::MIN);
        if low <= high {
            *self = match self {
                Self::Signed(min, max) => Self::Signed(low.min(*min), high.max(*max)),
                _ => Self::Signed(low, high),
            };
        }
    }

    pub(crate) fn unsigned(&mut self, values: impl Iterator<Item = u64>) {
        let (low, high) = extremes(values, u64::MAX, u64::MIN);
        if low <= high {
            *self = match self {
                Self::Unsigned(min, max) => Self::Unsigned(low.min(*min), high.max(*max)),
                _ => Self::Unsigned(low, high),
            };
        }
    }

    pub(crate) fn doubles(&mut self, values: &[f64]) {
        for &value in values {
            *self = match self {
                Self::Unordered => Self::Unordered,
                _ if value.is_nan() => Self::Unordered,
                Self::Double(min, max) => Self::Double(value.min(*min), value.max(*max)),
                _ => Self::Double(value, value),
            };
        }
    }

    pub(crate) fn bools(&mut self, values: &[bool]) {
        for &value in values {
            *self = match self {
                Self::Bool(min, max) => Self::Bool(*min && value, *max || value),
                _ => Self::Bool(value, value),
            };
        }
    }

    pub(crate) fn bytes<'a>(&mut self, mut values: impl Iterator<Item = &'a [u8]>) {
        let Some(first) = values.next() else {
            return;
        };
        let (low, high) = values.fold((first, first), |(low, high), value| {
            if value < low {
                (value, high)
            } else if value > high {
                (low, value)
            } else {
                (low, high)
            }
        });
        self.widen_bytes(low, high);
    }

    /// As [`Bounds::bytes`] for strings one after another; quick for ids of eight bytes and for
    /// empty texts, which are nearly all.
    pub(crate) fn lane(&mut self, lane: &ByteLane) {
        let ids = lane.lengths.iter().filter(|&&length| length == 8).count();
        let empty = lane.lengths.iter().filter(|&&length| length == 0).count();
        if ids + empty < lane.len() {
            let texts = lane.iter().filter(|text| !text.is_empty());
            self.bytes(texts);
        } else if ids > 0 {
            let ids = lane.bytes.as_chunks::<8>().0.iter();
            let (low, high) = extremes(ids.map(|&id| u64::from_be_bytes(id)), u64::MAX, 0);
            self.widen_bytes(&low.to_be_bytes(), &high.to_be_bytes());
        }
        if empty > 0 {
            self.widen_bytes(&[], &[]);
        }
    }

    fn widen_bytes(&mut self, low: &[u8], high: &[u8]) {
        let Self::Bytes(min, max) = self else {
            *self = Self::Bytes(low.to_vec(), high.to_vec());
            return;
        };
        if low < min.as_slice() {
            *min = low.to_vec();
        }
        if high > max.as_slice() {
            *max = high.to_vec();
        }
    }
}

#[inline]
fn extremes<T: Copy + Ord>(values: impl Iterator<Item = T>, top: T, bottom: T) -> (T, T) {
    values.fold((top, bottom), |(low, high), value| {
        (low.min(value), high.max(value))
    })
}

/// A finished data page.
#[derive(Debug)]
pub(crate) struct StoredPage {
    /// Header and content.
    pub(crate) bytes: Vec<u8>,
    /// Rows that begin in it.
    pub(crate) rows: usize,
}

/// The pages of one column.
#[derive(Debug, Default)]
pub(crate) struct ColumnChunk {
    pages: Vec<StoredPage>,
    entries: u64,
    nulls: u64,
    uncompressed: u64,
    stored: u64,
    pub(crate) bounds: Bounds,
}

/// A column that is complete.
#[derive(Debug)]
pub(crate) struct FinishedColumn {
    /// Stands before the data pages.
    pub(crate) dictionary: Option<Vec<u8>>,
    /// What to tell of it.
    pub(crate) hint: Option<DictionaryHint>,
    pub(crate) pages: Vec<StoredPage>,
    pub(crate) entries: u64,
    pub(crate) uncompressed_bytes: u64,
    pub(crate) codec: CompressionCodec,
    pub(crate) statistics: Statistics,
    pub(crate) encodings: Vec<Encoding>,
    pub(crate) page_encodings: Vec<PageEncodingStats>,
}

/// The number of the encoding in the format.
pub(crate) fn encoding_of(leaf: &Leaf) -> Encoding {
    match leaf.encoding {
        LeafEncoding::Plain => Encoding::PLAIN,
        LeafEncoding::DeltaBinaryPacked => Encoding::DELTA_BINARY_PACKED,
        LeafEncoding::DeltaLength => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        LeafEncoding::Dictionary => Encoding::RLE_DICTIONARY,
    }
}

impl ColumnChunk {
    /// Compresses a page and keeps it.
    pub(crate) fn push(
        &mut self,
        leaf: &Leaf,
        page: &DataPage<'_>,
        compressor: &mut Compressor,
    ) -> Result<(), PageTooLarge> {
        let Encoded {
            bytes,
            uncompressed,
        } = page.encode(leaf.codec, compressor)?;
        self.entries += page.entries as u64;
        self.nulls += page.nulls as u64;
        self.uncompressed += uncompressed as u64;
        self.stored += bytes.len() as u64;
        self.pages.push(StoredPage {
            bytes,
            rows: page.rows,
        });
        Ok(())
    }

    /// Bytes held.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.stored
    }

    /// Takes what was gathered and begins anew. `dictionary`: the PLAIN values and their number.
    pub(crate) fn finish(
        &mut self,
        leaf: &Leaf,
        dictionary: Option<(&[u8], usize)>,
        compressor: &mut Compressor,
    ) -> Result<FinishedColumn, PageTooLarge> {
        let mut chunk = std::mem::take(self);
        let mut encodings = vec![encoding_of(leaf)];
        let mut page_encodings = Vec::new();
        let (dictionary, hint) = match dictionary {
            Some((plain, entries)) => {
                let (page, hint) = dictionary_page(plain, entries, leaf.codec, compressor)?;
                chunk.uncompressed += page.uncompressed as u64;
                encodings.push(Encoding::PLAIN);
                page_encodings.push(PageEncodingStats {
                    page_type: PageType::DICTIONARY_PAGE,
                    encoding: Encoding::PLAIN,
                    count: 1,
                });
                (Some(page.bytes), hint)
            }
            None => (None, None),
        };
        if leaf.max_def > 0 {
            encodings.push(Encoding::RLE);
        }
        page_encodings.push(PageEncodingStats {
            page_type: PageType::DATA_PAGE_V2,
            encoding: encoding_of(leaf),
            count: chunk.pages.len() as i32,
        });
        Ok(FinishedColumn {
            statistics: statistics(leaf, &chunk.bounds, chunk.nulls),
            dictionary,
            hint,
            pages: chunk.pages,
            entries: chunk.entries,
            uncompressed_bytes: chunk.uncompressed,
            codec: match leaf.codec {
                Codec::Uncompressed => CompressionCodec::UNCOMPRESSED,
                Codec::Snappy => CompressionCodec::SNAPPY,
                Codec::Zstd => CompressionCodec::ZSTD,
            },
            encodings,
            page_encodings,
        })
    }
}

/// What the footer says about the values. Both bounds or none: some readers take a missing bound
/// for an empty one.
fn statistics(leaf: &Leaf, bounds: &Bounds, nulls: u64) -> Statistics {
    let nulls = Some(nulls);
    let bounds = if leaf.blob { &Bounds::Unknown } else { bounds };
    match leaf.value_type {
        LeafType::I32 | LeafType::U32 => {
            let (min, max) = match *bounds {
                Bounds::Signed(min, max) => (Some(min as i32), Some(max as i32)),
                Bounds::Unsigned(min, max) => (Some(min as i32), Some(max as i32)),
                _ => (None, None),
            };
            Statistics::int32(min, max, None, nulls, false)
        }
        LeafType::I64 | LeafType::U64 => {
            let (min, max) = match *bounds {
                Bounds::Signed(min, max) => (Some(min), Some(max)),
                Bounds::Unsigned(min, max) => (Some(min as i64), Some(max as i64)),
                _ => (None, None),
            };
            Statistics::int64(min, max, None, nulls, false)
        }
        LeafType::F64 => {
            let (min, max) = match *bounds {
                // The sign of zero is not to be trusted in a bound.
                Bounds::Double(min, max) => (
                    Some(if min == 0.0 { -0.0 } else { min }),
                    Some(if max == 0.0 { 0.0 } else { max }),
                ),
                _ => (None, None),
            };
            Statistics::double(min, max, None, nulls, false)
        }
        LeafType::Bool => {
            let (min, max) = match *bounds {
                Bounds::Bool(min, max) => (Some(min), Some(max)),
                _ => (None, None),
            };
            Statistics::boolean(min, max, None, nulls, false)
        }
        LeafType::Text | LeafType::Bytes => {
            let (min, max) = match bounds {
                Bounds::Bytes(min, max) if min.len().max(max.len()) <= MAX_BOUND_BYTES => (
                    Some(ByteArray::from(min.clone())),
                    Some(ByteArray::from(max.clone())),
                ),
                _ => (None, None),
            };
            Statistics::byte_array(min, max, None, nulls, false)
        }
    }
}
