//! Damaged files are refused, whatever is damaged.

use bytes::Bytes;
use tempo_backend::{BlockFormat, ReadStats};
use tempo_table::SpanTable;

use super::{
    BLOCKS, keys, meta_and_file,
    rewritten::{rewrite, variants},
};
use crate::{Error, read::BlockReader};

/// Reads everything there is; only that it ends, without a panic, counts.
fn read_all(meta: &tempo_backend::BlockMeta, file: Bytes) -> Result<(), String> {
    let reader = BlockReader::in_memory(meta.clone(), file).map_err(|error| error.to_string())?;
    for group in 0..reader.row_groups() {
        let table = reader.table(group, ReadStats::new()).unwrap();
        let mut first = None;
        for scope in super::SCOPES {
            if let Err(error) = table.attribute_names(scope, None) {
                first.get_or_insert(error.to_string());
            }
        }
        if first.is_none() {
            for key in keys(&table) {
                if let Err(error) = table.column(&key, None) {
                    first.get_or_insert(error.to_string());
                }
                let rows = table.rows(key.level()).unwrap_or(0);
                let some: Vec<u32> = (0..rows as u32).filter(|row| row % 50 == 7).collect();
                let _ = table.gather(&key, &some);
            }
        }
        if let Some(error) = first {
            return Err(error);
        }
    }
    for trace in reader.traces(ReadStats::new()) {
        trace.map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn noise(seed: &mut u64) -> u64 {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

/// Without checksums the decoders themselves must withstand damage.
#[test]
fn damage_without_checksums_never_panics() {
    let mut seed = 11;
    let (mut refused, mut total) = (0, 0);
    for block in BLOCKS {
        let (meta, file) = meta_and_file(block);
        for (_, properties) in variants() {
            let file = rewrite(&file, properties);
            for _ in 0..8 {
                let mut damaged = file.to_vec();
                for _ in 0..1 + noise(&mut seed) % 4 {
                    let at = noise(&mut seed) as usize % damaged.len();
                    damaged[at] = noise(&mut seed) as u8;
                }
                total += 1;
                refused += usize::from(read_all(&meta, Bytes::from(damaged)).is_err());
            }
        }
    }
    assert!(refused > total / 10, "{refused} of {total}");
}

#[test]
fn any_damaged_byte_is_noticed_or_harmless() {
    let mut seed = 7;
    let (mut refused, mut total) = (0, 0);
    for block in BLOCKS {
        let (meta, file) = meta_and_file(block);
        read_all(&meta, file.clone()).unwrap();
        for _ in 0..40 {
            let mut damaged = file.to_vec();
            let at = noise(&mut seed) as usize % damaged.len();
            damaged[at] ^= 1 << (noise(&mut seed) % 8);
            total += 1;
            refused += usize::from(read_all(&meta, Bytes::from(damaged)).is_err());
        }
        for _ in 0..6 {
            let cut = noise(&mut seed) as usize % file.len();
            assert!(read_all(&meta, file.slice(..cut)).is_err());
        }
    }
    // Checksums cover all pages, but not column indexes and unread statistics.
    assert!(refused * 2 > total, "{refused} of {total}");
}

#[test]
fn other_formats_are_told_apart() {
    let (mut meta, file) = meta_and_file(BLOCKS[0]);
    for format in ["vParquet3", "vParquet5-preview5", ""] {
        meta.format = BlockFormat::from(format);
        match BlockReader::in_memory(meta.clone(), file.clone()) {
            Err(Error::Unsupported { format: named, .. }) => assert_eq!(named, format),
            other => panic!("{other:?}"),
        }
    }
    // The right bytes under the wrong name.
    meta.format = BlockFormat::VParquet5;
    let error = BlockReader::in_memory(meta, file).unwrap_err().to_string();
    assert!(error.contains("is missing"), "{error}");
}
