//! Blocks in the object store.

use std::{
    collections::HashSet,
    ops::RangeInclusive,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tempo_api::job::{JobError, TraceParts};
use tempo_backend::{
    Backend, BlockMeta, Blocklist, ReadStats, Timestamp, TraceLookup, cache::Cache,
};
use tempo_block::read::{BlockReader, find_trace};
use tempo_model::TraceId;
use tempo_proto::tempopb::backend::v1 as proto;
use tempo_table::{SpanTable, TableError};
use uuid::Uuid;

use crate::{BlockSource, Config, NowNanos, limits::Budget, merge::FoundTrace, querier::blocking};

/// Blocks of other formats that were told of; of further ones nothing is told.
const MAX_TOLD_BLOCKS: usize = 10_000;

/// Opens blocks and finds traces in them.
#[derive(Clone)]
pub(crate) struct Blocks {
    backend: Backend,
    blocklist: Blocklist,
    max_list_age: Duration,
    cache: Cache,
    now_nanos: NowNanos,
    compacted_lookback: Duration,
    concurrent_lookups: usize,
    /// Blocks that cannot be read, which the log has told of.
    told: Arc<Mutex<HashSet<Uuid>>>,
}

/// Some row groups of a block.
pub(crate) struct BlockPart {
    meta: Arc<BlockMeta>,
    first: usize,
    count: usize,
}

impl BlockPart {
    pub(crate) fn new(
        meta: &proto::BlockMeta,
        first_row_group: u32,
        row_groups: u32,
    ) -> Result<Self, JobError> {
        let meta = BlockMeta::from_proto(meta)
            .map_err(|error| JobError::Failed(format!("job with an unusable block: {error}")))?;
        Ok(Self {
            meta: Arc::new(meta),
            first: first_row_group as usize,
            count: row_groups as usize,
        })
    }

    /// How many bytes of the block belong to these row groups, about.
    pub(crate) fn bytes(&self) -> u64 {
        let all = u64::from(self.meta.total_records.max(1));
        self.meta.size / all * (self.count as u64).min(all)
    }
}

impl Blocks {
    pub(crate) fn new(config: &Config, source: BlockSource) -> Self {
        Self {
            backend: source.backend,
            blocklist: source.blocklist,
            max_list_age: source.max_list_age,
            cache: source.cache,
            now_nanos: source.now_nanos,
            compacted_lookback: config.compacted_block_lookback,
            concurrent_lookups: config.trace_lookup_concurrent_blocks,
            told: Arc::default(),
        }
    }

    /// The row groups as tables, made when asked for; none for a block of a format that cannot be
    /// read. Blocks.
    pub(crate) fn tables(
        &self,
        part: &BlockPart,
    ) -> Result<impl Iterator<Item = Arc<dyn SpanTable>> + use<>, JobError> {
        let meta = Arc::clone(&part.meta);
        let opened = BlockReader::open(&self.backend, &self.cache, meta, ReadStats::new());
        let reader = self.skip_unsupported(opened)?;
        let wanted = part.first..part.first.saturating_add(part.count);
        Ok(reader.into_iter().flat_map(move |reader| {
            let groups = wanted.start..wanted.end.min(reader.row_groups());
            groups.filter_map(move |group| {
                let table = reader.table(group, ReadStats::new())?;
                Some(Arc::new(table) as Arc<dyn SpanTable>)
            })
        }))
    }

    /// Looks for a trace in the blocks with ids in `block_ids` that may hold it: in all of them,
    /// unless what they have is more than `found` takes.
    pub(crate) async fn find_trace(
        &self,
        budget: &Budget,
        tenant: &str,
        trace_id: TraceId,
        block_ids: RangeInclusive<[u8; 16]>,
        range: Option<(i64, i64)>,
        mut found: FoundTrace,
    ) -> Result<TraceParts, JobError> {
        let listed = self.blocklist.tenant_age(tenant);
        if listed.unwrap_or(Duration::MAX) > self.max_list_age {
            return Err(JobError::outdated_list(listed));
        }
        let second = Timestamp::from_unix_seconds;
        let now = Timestamp::from_unix_nanos((self.now_nanos)());
        let lookup = TraceLookup {
            block_ids: Uuid::from_bytes(*block_ids.start())..=Uuid::from_bytes(*block_ids.end()),
            time: range.map(|(start, end)| (second(start), second(end))),
            compacted_since: now.saturating_sub(self.compacted_lookback),
        };
        let lookups = self
            .blocklist
            .blocks_for_trace(tenant, &lookup)
            .into_iter()
            .map(|meta| self.find_in_block(budget, meta, trace_id));
        let mut lookups = stream::iter(lookups).buffer_unordered(self.concurrent_lookups);
        while let Some(one) = lookups.try_next().await? {
            found.add(one)?;
            if found.is_complete() {
                break;
            }
        }
        Ok(found.finish())
    }

    async fn find_in_block(
        &self,
        budget: &Budget,
        meta: Arc<BlockMeta>,
        trace_id: TraceId,
    ) -> Result<TraceParts, JobError> {
        let share = budget.share(0).await;
        let blocks = self.clone();
        blocking(share, move |_| {
            let stats = ReadStats::new();
            let found = find_trace(&blocks.backend, &blocks.cache, &meta, &trace_id, &stats);
            let found = blocks.skip_unsupported(found)?.flatten();
            Ok(TraceParts {
                parts: found.into_iter().collect(),
                inspected_bytes: stats.bytes(),
            })
        })
        .await
    }

    /// A block of a format that cannot be read holds nothing for anyone; the log tells of it once.
    fn skip_unsupported<T>(
        &self,
        read: Result<T, tempo_block::Error>,
    ) -> Result<Option<T>, JobError> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(error @ tempo_block::Error::Unsupported { block, .. }) => {
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                if told.len() < MAX_TOLD_BLOCKS && told.insert(block) {
                    tracing::warn!(%error, "block skipped");
                }
                Ok(None)
            }
            Err(tempo_block::Error::Data(error)) => Err(table_error(&error)),
        }
    }
}

/// What a job does about an error of a table.
pub(crate) fn table_error(error: &TableError) -> JobError {
    match error {
        TableError::Read { .. } => JobError::Unavailable(error.to_string()),
        TableError::Corrupt { .. } => JobError::Failed(error.to_string()),
        TableError::Cancelled => JobError::Cancelled,
    }
}
