//! Parquet encodings, from plain slices to the bytes of pages.
//!
//! Owns RLE/bit-packed levels and codes, delta encodings, page assembly with headers, compression
//! and checksums. The parquet library's own column writer takes a value object and a 16-bit level
//! per entry; a block has five level entries for every value, nearly all of them in long runs or
//! shared between columns, so here they are encoded once and by runs. The library stays the oracle
//! of the tests. Must never know which column it encodes.

mod bits;
mod delta;
mod hybrid;
mod page;
pub(super) mod thrift;

pub(crate) use delta::{delta_i32, delta_i64, delta_length};
pub(crate) use hybrid::{encode_codes, encode_levels};
pub(crate) use page::{Compressor, DataPage, Encoded, PageTooLarge, dictionary_page};

/// Appends booleans, one bit each, the first in the lowest bit.
pub(crate) fn plain_bools(values: &[bool], out: &mut Vec<u8>) {
    out.extend(values.chunks(8).map(|eight| {
        eight
            .iter()
            .rev()
            .fold(0, |byte, &bit| byte << 1 | u8::from(bit))
    }));
}

#[cfg(test)]
mod tests;
