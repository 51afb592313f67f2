//! Removing traces from a block.

use std::sync::Arc;

use tempo_backend::{BlockMeta, ReadStats};
use tempo_block::read::find_trace;
use tempo_model::TraceId;
use tempo_proto::tempopb::{RedactionDetail, RedactionMode};
use uuid::Uuid;

use crate::{
    JobError, block_id::output_id, compact::Replacement, running::Running, worker::Worker,
};

impl Worker {
    /// Removes the traces of a redaction from its block. Returns how many it has of them.
    pub(crate) async fn redact(
        &self,
        tenant: &str,
        batch: &str,
        detail: &RedactionDetail,
        running: &Running,
    ) -> Result<usize, JobError> {
        let block = Uuid::try_parse(&detail.block_id)
            .map_err(|error| JobError::Bad(format!("block '{}': {error}", detail.block_id)))?;
        if detail.query.is_some() {
            return Err(JobError::Bad(
                "redaction by query is not part of this version".to_owned(),
            ));
        }
        let meta = match self.backend().read_meta(tenant, block).await {
            Ok(meta) => Arc::new(meta),
            Err(error) if error.is_not_found() => {
                self.metrics()
                    .block_missing
                    .with_label_values(&[tenant])
                    .inc();
                return Ok(0);
            }
            Err(error) => return Err(error.into()),
        };
        let wanted = detail.trace_ids.iter().map(|id| TraceId::from_padded(id));
        let mut wanted: Vec<TraceId> = wanted.collect();
        wanted.sort_unstable();
        wanted.dedup();
        let found = self.find(&meta, wanted, running).await?;
        let count = found.len();
        if found.is_empty() || detail.mode() == RedactionMode::DryRun {
            return Ok(count);
        }
        let replacement = Replacement {
            tenant,
            inputs: &[block],
            output: output_id(tenant, &[block], batch),
            dropped: found,
            max_trace_bytes: 0,
        };
        self.replace(replacement, running).await?;
        Ok(count)
    }

    /// Those of `wanted` that the block has.
    async fn find(
        &self,
        meta: &Arc<BlockMeta>,
        wanted: Vec<TraceId>,
        running: &Running,
    ) -> Result<Vec<TraceId>, JobError> {
        let (backend, cache, meta) = (
            self.backend().clone(),
            self.cache().clone(),
            Arc::clone(meta),
        );
        let abandon = running.abandon.clone();
        let finding = move || {
            let stats = ReadStats::new();
            let mut found = Vec::new();
            for id in wanted {
                if abandon.is_set() {
                    return Err(JobError::Abandoned);
                }
                if find_trace(&backend, &cache, &meta, &id, &stats)?.is_some() {
                    found.push(id);
                }
            }
            Ok(found)
        };
        match tokio::task::spawn_blocking(finding).await {
            Ok(found) => found,
            Err(stopped) => match stopped.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_cancelled) => Err(JobError::Abandoned),
            },
        }
    }
}
