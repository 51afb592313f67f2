//! `data.parquet` of unknown origin.

use std::sync::Arc;

use tempo_backend::{BlockFormat, ObjectKey, ReadStats};
use tempo_model::TraceId;

use crate::{
    check::read_all,
    store::{BLOCK, TENANT, bare_meta, with_store},
};

/// Row groups that are read.
const MAX_ROW_GROUPS: usize = 8;

/// Traces that are read, of all row groups together.
const MAX_TRACES: usize = 20_000;

/// Opens a block and reads all of it. The first byte says what the block claims to be, `5` for
/// vParquet5 and anything else for vParquet4; the file follows.
pub fn parquet(data: &[u8]) {
    let Some((&version, file)) = data.split_first() else {
        return;
    };
    let format = match version {
        b'5' => BlockFormat::VParquet5,
        _ => BlockFormat::VParquet4,
    };
    let meta = Arc::new(bare_meta(format, file.len()));
    with_store(|store| {
        let content = bytes::Bytes::copy_from_slice(file);
        store.put(&ObjectKey::data(TENANT, BLOCK), content);
        let Ok(reader) = store.open(&meta) else {
            return;
        };
        for group in 0..reader.row_groups().min(MAX_ROW_GROUPS) {
            if let Some(table) = reader.table(group, ReadStats::new()) {
                let _ = read_all(&table);
            }
        }
        let mut last: Option<TraceId> = None;
        for trace in reader.traces(ReadStats::new()).take(MAX_TRACES) {
            let Ok((id, _)) = trace else { break };
            last = Some(id);
        }
        // There is no bloom filter, so a search ends there; the footer is enough for the rest.
        let id = last.unwrap_or(TraceId::from_padded(&[7]));
        let found = tempo_block::read::find_trace(
            store.backend(),
            &store.cache(),
            &meta,
            &id,
            &ReadStats::new(),
        );
        let _ = found;
    });
}
