//! Building a complete block from what the log holds.

use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering};

use tempo_backend::{BlockMeta, Timestamp};
use tempo_block::write::{
    BlockBuilder, BlockOptions, FinishedBlock, PublishError, WriteError, publish, write_data,
};

use crate::{
    clock::nanos,
    live::{CutBlock, CutTrace, Tenant},
    store::Shared,
    wal::{ChunkReader, ReadChunkError},
};

/// Why a block is not complete. Everything is as before, and it can be tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// The log or the writer.
    #[error(transparent)]
    Write(#[from] PublishError<FeedError>),
    /// The folder.
    #[error("completing block: {source}")]
    Commit {
        /// The system's error.
        source: std::io::Error,
    },
    /// The process is about to end.
    #[error("stopped")]
    Stopped,
}

/// Why traces cannot be delivered to the writer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FeedError {
    /// The log does not answer.
    #[error(transparent)]
    Read(#[from] ReadChunkError),
    /// The process is about to end.
    #[error("stopped")]
    Stopped,
}

/// A built block, not complete yet.
pub(crate) struct BuiltBlock {
    /// `None` when no trace could be stored at all.
    pub(crate) meta: Option<BlockMeta>,
    /// Spans that the log gave back damaged.
    pub(crate) lost_spans: u64,
}

/// Builds `cut` in the folder of unfinished blocks.
pub(crate) async fn build(
    shared: &Arc<Shared>,
    tenant: &Tenant,
    cut: &Arc<CutBlock>,
) -> Result<BuiltBlock, BuildError> {
    let settings = &shared.config.block;
    let options = BlockOptions {
        dedicated_columns: shared.limits.dedicated_columns(&tenant.name),
        row_group_size_bytes: settings.row_group_size_bytes,
        bloom_false_positive: settings.bloom_false_positive,
        bloom_shard_size_bytes: settings.bloom_shard_size_bytes,
        ..BlockOptions::new(
            settings.version,
            Arc::clone(&tenant.name),
            cut.id,
            cut.traces().len() as u64,
        )
    };
    let lost = Arc::new(AtomicU64::new(0));
    let last_append = cut
        .traces()
        .iter()
        .map(|(_, trace)| trace.age.last_append)
        .max()
        .unwrap_or(0);
    let feed = {
        let (shared, cut, lost) = (Arc::clone(shared), Arc::clone(cut), Arc::clone(&lost));
        let tenant = Arc::clone(&tenant.name);
        move |builder: &mut BlockBuilder<_>| -> Result<(), PublishError<FeedError>> {
            let traces = cut.sorted();
            let reader = shared
                .wal
                .reader(traces.iter().flat_map(|trace| &trace.chunks));
            let mut feeder = Feeder {
                tenant: &tenant,
                reader,
                buffer: Vec::new(),
                lost_spans: 0,
            };
            for trace in &traces {
                if shared.stop_completing.is_cancelled() {
                    return Err(PublishError::Traces(FeedError::Stopped));
                }
                feeder.push(trace, |slices| {
                    builder.push_trace(trace.id, slices).map(drop)
                })?;
            }
            lost.store(feeder.lost_spans, Ordering::Release);
            Ok(())
        }
    };
    let building = shared.local.building();
    let mut block = match write_data(building, options, feed).await {
        Err(PublishError::Traces(FeedError::Stopped) | PublishError::Cancelled) => {
            return Err(BuildError::Stopped);
        }
        built => built?,
    };
    let lost_spans = lost.load(Ordering::Acquire);
    if block.meta.total_objects == 0 {
        return Ok(BuiltBlock {
            meta: None,
            lost_spans,
        });
    }
    bound_times(
        &mut block,
        last_append,
        nanos(shared.config.ingestion_time_range_slack),
    );
    publish(building, &block, false)
        .await
        .map_err(PublishError::from)?;
    Ok(BuiltBlock {
        meta: Some(block.meta),
        lost_spans,
    })
}

/// Keeps a block's time range from following wrong clocks.
///
/// The end decides how long the block is kept, and that counts from the last arrival: a span from
/// the future moves it at most `slack` beyond, and where all spans are old it is raised to `slack`
/// before, or the next retention job would take what was just sent. The start stays that of the
/// earliest span, however old: Tempo raises it to `slack` before the arrival, and then does not find
/// what was sent late. A block whose spans have no time at all gets that of its arrival.
fn bound_times(block: &mut FinishedBlock, last_append: u64, slack: u64) {
    let at = |nanos: u64| Timestamp::from_unix_nanos(i64::try_from(nanos).unwrap_or(i64::MAX));
    let meta = &mut block.meta;
    if meta.start_time.is_zero() && meta.end_time.is_zero() {
        meta.start_time = at(last_append);
        meta.end_time = at(last_append);
        return;
    }
    meta.end_time = meta
        .end_time
        .min(at(last_append.saturating_add(slack)))
        .max(at(last_append.saturating_sub(slack)))
        .max(meta.start_time);
}

struct Feeder<'a> {
    tenant: &'a str,
    reader: ChunkReader,
    buffer: Vec<u8>,
    lost_spans: u64,
}

impl Feeder<'_> {
    /// Reads a trace's chunks and hands them over. What is damaged for good is counted and left
    /// out: waiting would not bring it back, and would hold up everything else.
    fn push(
        &mut self,
        trace: &CutTrace,
        push: impl FnOnce(&[&[u8]]) -> Result<(), WriteError>,
    ) -> Result<(), PublishError<FeedError>> {
        self.buffer.clear();
        let mut ends = Vec::with_capacity(trace.chunks.len());
        let mut spans = 0;
        for chunk in &trace.chunks {
            match self.reader.read(chunk, &mut self.buffer) {
                Ok(()) => {
                    ends.push(self.buffer.len());
                    spans += u64::from(chunk.spans);
                }
                Err(error @ ReadChunkError::Corrupt { .. }) => {
                    tracing::error!(tenant = self.tenant, trace_id = %trace.id, lost_spans = chunk.spans, %error, "spans lost");
                    self.lost_spans += u64::from(chunk.spans);
                }
                Err(error) => return Err(PublishError::Traces(error.into())),
            }
        }
        let mut start = 0;
        let slices: Vec<&[u8]> = ends
            .into_iter()
            .map(|end| {
                let slice = &self.buffer[start..end];
                start = end;
                slice
            })
            .collect();
        match push(&slices) {
            Err(error) if error.leaves_block_intact() => {
                tracing::error!(tenant = self.tenant, trace_id = %trace.id, lost_spans = spans, %error, "spans lost");
                self.lost_spans += spans;
                Ok(())
            }
            pushed => pushed.map_err(PublishError::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn bounded(start: i64, end: i64) -> (i64, i64) {
        let mut meta = BlockMeta::default();
        if (start, end) != (0, 0) {
            meta.start_time = Timestamp::from_unix_nanos(start * SECOND);
            meta.end_time = Timestamp::from_unix_nanos(end * SECOND);
        }
        let mut block = FinishedBlock {
            meta,
            blooms: Vec::new(),
            index: Bytes::new(),
            spans: 1,
        };
        bound_times(&mut block, (1000 * SECOND) as u64, (120 * SECOND) as u64);
        (
            block.meta.start_time.unix_seconds(),
            block.meta.end_time.unix_seconds(),
        )
    }

    #[test]
    fn a_block_covers_old_spans_but_does_not_follow_future_ones() {
        assert_eq!(bounded(880, 1120), (880, 1120));
        assert_eq!(
            bounded(10, 20),
            (10, 880),
            "sent late, found all the same, and kept from its arrival on"
        );
        assert_eq!(bounded(990, 5000), (990, 1120));
        assert_eq!(
            bounded(5000, 6000),
            (5000, 5000),
            "never ends before it starts"
        );
        assert_eq!(bounded(0, 0), (1000, 1000));
    }
}
