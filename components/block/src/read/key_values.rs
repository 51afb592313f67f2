//! The key-value metadata of a Parquet file, of which one entry is known.

use super::{
    Malformed,
    thrift::{Field, Thrift},
};
use crate::hints::{self, GroupHints};

/// What the key-value metadata of a file with so many row groups tells of dictionaries.
pub(super) fn key_values(
    thrift: &mut Thrift<'_>,
    field: Field,
    row_groups: usize,
) -> Result<Vec<GroupHints>, Malformed> {
    let (_, len) = thrift.list(field.kind)?;
    let mut told = None;
    for _ in 0..len {
        let (mut key, mut value) = (&[][..], &[][..]);
        thrift.fields(|thrift, field| {
            match field.id {
                1 => key = thrift.binary(field.kind)?,
                2 => value = thrift.binary(field.kind)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if key == hints::KEY.as_bytes() {
            told = hints::decode(value, row_groups);
        }
    }
    Ok(told.unwrap_or_default())
}
