//! Parquet's DELTA_BINARY_PACKED (5): integers as packed differences.
//!
//! Source of the format: the Parquet specification. Sums wrap, so that 32-bit columns come out
//! right when cut to their width.

use super::{
    Malformed,
    bitpack::{GROUP, MAX_GROUP_BYTES, group_at, unpack_group, unpack_group_wide},
};

/// Most miniblocks of one block; writers use 4.
const MAX_MINIBLOCKS: u64 = 1 << 12;

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes
            .split_first()
            .ok_or(Malformed("packed differences are cut"))?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed("integer is longer than 64 bits"))
}

fn zigzag(bytes: &mut &[u8]) -> Result<i64, Malformed> {
    varint(bytes).map(|raw| (raw >> 1) as i64 ^ -((raw & 1) as i64))
}

/// Reads as many integers as `out` has room for; the stream must hold exactly that many. Returns
/// what follows the stream.
pub(super) fn decode<'a>(body: &'a [u8], out: &mut [i64]) -> Result<&'a [u8], Malformed> {
    let mut rest = body;
    let block_len = varint(&mut rest)?;
    let miniblocks = varint(&mut rest)?;
    let total = varint(&mut rest)?;
    if total != out.len() as u64 {
        return Err(Malformed("page announces another count of integers"));
    }
    let mut last = zigzag(&mut rest)?;
    if miniblocks == 0 || miniblocks > MAX_MINIBLOCKS || !block_len.is_multiple_of(miniblocks) {
        return Err(Malformed("layout of packed differences"));
    }
    let per_miniblock = block_len / miniblocks;
    if per_miniblock == 0 || !per_miniblock.is_multiple_of(GROUP as u64) {
        return Err(Malformed("layout of packed differences"));
    }
    let Some((first, mut out)) = out.split_first_mut() else {
        return Ok(rest);
    };
    *first = last;
    let mut padded = [0; MAX_GROUP_BYTES];
    while !out.is_empty() {
        let smallest = zigzag(&mut rest)?;
        let (widths, packed) = rest
            .split_at_checked(miniblocks as usize)
            .ok_or(Malformed("packed differences are cut"))?;
        rest = packed;
        for &width in widths {
            if out.is_empty() {
                // The widths of miniblocks that hold nothing are arbitrary.
                break;
            }
            if width > 64 {
                return Err(Malformed("packed differences are wider than 64 bits"));
            }
            let len = usize::try_from(per_miniblock)
                .map_or(out.len(), |per_miniblock| per_miniblock.min(out.len()));
            let (values, later) = out.split_at_mut(len);
            out = later;
            // A miniblock is padded to its whole length, but a cut file may end before.
            let size = per_miniblock
                .checked_mul(u64::from(width))
                .and_then(|bits| usize::try_from(bits / 8).ok())
                .ok_or(Malformed("layout of packed differences"))?;
            let need = (len * usize::from(width)).div_ceil(8);
            let size = size.min(rest.len());
            if size < need {
                return Err(Malformed("packed differences are cut"));
            }
            // What follows a miniblock may be loaded with it.
            last = miniblock(rest, width, smallest, last, values, &mut padded);
            rest = &rest[size..];
        }
    }
    Ok(rest)
}

/// Unpacks one miniblock and sums up; returns the last value.
#[inline]
fn miniblock(
    packed: &[u8],
    width: u8,
    smallest: i64,
    mut last: i64,
    values: &mut [i64],
    padded: &mut [u8; MAX_GROUP_BYTES],
) -> i64 {
    if width == 0 {
        for value in values {
            last = last.wrapping_add(smallest);
            *value = last;
        }
        return last;
    }
    let step = 4 * usize::from(width);
    for (index, values) in values.chunks_mut(GROUP).enumerate() {
        let group = group_at(packed, index * step, width, padded);
        if width <= 32 {
            let mut differences = [0_u32; GROUP];
            unpack_group(group, width, &mut differences);
            for (value, difference) in values.iter_mut().zip(differences) {
                last = last.wrapping_add(smallest.wrapping_add(i64::from(difference)));
                *value = last;
            }
        } else {
            let mut differences = [0_u64; GROUP];
            unpack_group_wide(group, width, &mut differences);
            for (value, difference) in values.iter_mut().zip(differences) {
                last = last.wrapping_add(smallest.wrapping_add(difference as i64));
                *value = last;
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use parquet::{
        basic::{Encoding, Type},
        column::writer::ColumnWriter,
        data_type::Int64Type,
        file::{
            properties::{WriterProperties, WriterVersion},
            writer::SerializedFileWriter,
        },
        schema::types::Type as Schema,
    };

    use super::*;

    /// The body of a page that the parquet library wrote.
    fn written(values: &[i64]) -> Vec<u8> {
        let leaf = Schema::primitive_type_builder("x", Type::INT64)
            .with_repetition(parquet::basic::Repetition::REQUIRED)
            .build()
            .unwrap();
        let root = Schema::group_type_builder("root")
            .with_fields(vec![leaf.into()])
            .build()
            .unwrap();
        let properties = WriterProperties::builder()
            .set_dictionary_enabled(false)
            .set_encoding(Encoding::DELTA_BINARY_PACKED)
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .set_data_page_row_count_limit(usize::MAX)
            .build();
        let mut bytes = Vec::new();
        let mut file =
            SerializedFileWriter::new(&mut bytes, root.into(), properties.into()).unwrap();
        let mut group = file.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let ColumnWriter::Int64ColumnWriter(writer) = column.untyped() else {
            panic!("an integer column")
        };
        let writer: &mut parquet::column::writer::ColumnWriterImpl<'_, Int64Type> = writer;
        writer.write_batch(values, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        file.close().unwrap();
        let reader =
            parquet::file::serialized_reader::SerializedFileReader::new(bytes::Bytes::from(bytes))
                .unwrap();
        use parquet::file::reader::FileReader;
        let group = reader.get_row_group(0).unwrap();
        let mut pages = group.get_column_page_reader(0).unwrap();
        let page = pages.get_next_page().unwrap().unwrap();
        assert!(pages.get_next_page().unwrap().is_none());
        page.buffer().to_vec()
    }

    #[test]
    fn agrees_with_the_parquet_library() {
        let mut noise = 1_u64;
        let mut next = || {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            noise as i64
        };
        for (count, shift) in [
            (1, 0),
            (2, 3),
            (33, 7),
            (128, 20),
            (129, 31),
            (130, 32),
            (500, 33),
            (1000, 63),
            (1, 1),
        ] {
            let values: Vec<i64> = (0..count).map(|_| next() >> shift).collect();
            let body = written(&values);
            let mut out = vec![0; values.len()];
            let rest = decode(&body, &mut out).unwrap();
            assert_eq!(out, values, "{count} values shifted by {shift}");
            assert!(rest.is_empty());
            assert!(decode(&body, &mut vec![0; count + 1]).is_err());
            // Padding may be cut off, values may not.
            let mut cuts = 0;
            for cut in 0..body.len() {
                match decode(&body[..cut], &mut out) {
                    Ok(_) => assert_eq!(out, values, "{cut} of {} bytes", body.len()),
                    Err(_) => cuts += 1,
                }
            }
            assert!(cuts >= body.len() / 4, "{cuts} of {} cuts fail", body.len());
        }
        let steady = vec![7; 1000];
        let mut out = vec![0; 1000];
        decode(&written(&steady), &mut out).unwrap();
        assert_eq!(out, steady);
    }

    #[test]
    fn absurd_layouts_are_refused() {
        let mut out = [0; 3];
        for body in [
            &[0, 0, 3, 0][..],
            &[128, 1, 0, 3, 0],
            &[0, 4, 3, 0],
            &[33, 1, 3, 0],
            &[128, 1, 4, 3, 0, 0, 65, 0, 0, 0],
            &[],
        ] {
            assert!(decode(body, &mut out).is_err(), "{body:?}");
        }
    }
}
