//! Trace lookups.

use tempo_api::{
    combine::{CombinedTrace, TraceCombiner},
    job::{Job, JobError, JobOutput},
    params::{TraceByIdParams, TraceDiffRequest, TraceToDiff},
};
use tempo_model::TraceId;

use crate::{
    error::QueryError,
    frontend::Frontend,
    metrics::Op,
    run::{Combine, Origin, PlannedJob, Query, unexpected_output},
    shard::{plan_trace, trace_block_shards},
    tenants::Tenants,
    trace_diff::{DiffError, diff},
    weight::Weighed,
};

impl Frontend {
    /// Looks for a trace; `None` when nobody has it. With `allow_partial` a trace that is too
    /// large is cut instead of refused.
    pub(crate) async fn find_trace(
        &self,
        tenants: &Tenants,
        trace_id: TraceId,
        params: TraceByIdParams,
        allow_partial: bool,
        url: &str,
    ) -> Result<Option<CombinedTrace>, QueryError> {
        self.check_url(url)?;
        let limits = self.limits.read_limits(&tenants.joined());
        let jobs: Vec<PlannedJob> = tenants
            .names()
            .iter()
            .enumerate()
            .flat_map(|(index, tenant)| {
                let places = plan_trace(self.block_shards(tenant, params), params.range());
                places.into_iter().map(move |place| PlannedJob {
                    tenant: index,
                    shard: 0,
                    job: Job::FindTrace {
                        trace_id,
                        max_bytes: limits.max_bytes_per_trace as u64,
                        place,
                    },
                })
            })
            .collect();
        self.count_jobs(Op::Traces, jobs.len());
        let concurrent = match self.config.trace_by_id.concurrent_shards {
            0 => jobs.len(),
            concurrent => concurrent,
        };
        let query = Query {
            combiner: TraceCombiner::new(limits.max_bytes_per_trace, allow_partial),
            jobs: self
                .runner
                .start(tenants.names(), jobs, Weighed::TraceById, concurrent),
        };
        let found = query.finish().await?;
        Ok((!found.is_empty()).then(|| found.finish()))
    }

    /// The document that tells how two traces differ, and the bytes read to find them.
    pub(crate) async fn diff_traces(
        &self,
        tenants: &Tenants,
        request: TraceDiffRequest,
        url: &str,
    ) -> Result<(Vec<u8>, u64), QueryError> {
        let (base, compare) = tokio::try_join!(
            self.whole_trace(tenants, request.base, "base", url),
            self.whole_trace(tenants, request.compare, "compare", url),
        )?;
        // One limit for both: they are in memory at the same time.
        let limit = self
            .limits
            .read_limits(&tenants.joined())
            .max_bytes_per_trace;
        let size = base.trace.len() + compare.trace.len();
        if limit > 0 && size > limit {
            return Err(QueryError::OverLimit(format!(
                "trace diff input too large: combined trace size {size} bytes exceeds limit {limit} bytes"
            )));
        }
        let inspected_bytes = base.inspected_bytes + compare.inspected_bytes;
        let comparing = move || diff(request.format, &base.trace, &compare.trace);
        let document = tokio::task::spawn_blocking(comparing)
            .await
            .map_err(|error| JobError::Failed(format!("comparing two traces: {error}")))?;
        match document {
            Ok(document) => Ok((document, inspected_bytes)),
            Err(error @ DiffError::TooDeep { .. }) => {
                Err(QueryError::Unprocessable(error.to_string()))
            }
            Err(error) => Err(JobError::Failed(error.to_string()).into()),
        }
    }

    async fn whole_trace(
        &self,
        tenants: &Tenants,
        trace: TraceToDiff,
        side: &str,
        url: &str,
    ) -> Result<CombinedTrace, QueryError> {
        let found = self
            .find_trace(tenants, trace.id, trace.lookup, true, url)
            .await?
            .filter(|found| !found.trace.is_empty())
            .ok_or(QueryError::NotFound)?;
        if found.message.is_empty() {
            Ok(found)
        } else {
            Err(QueryError::Unprocessable(format!(
                "{side} trace {}: partial traces cannot be diffed: {}",
                trace.id, found.message
            )))
        }
    }

    /// How many block jobs the lookup has. The blocks are counted here and looked up again by the
    /// querier, which may see others.
    fn block_shards(&self, tenant: &str, params: TraceByIdParams) -> u32 {
        let blocks = match params.range() {
            Some((start, end)) => {
                let second = tempo_backend::Timestamp::from_unix_seconds;
                self.blocklist
                    .blocks_in_range(tenant, second(start), second(end))
                    .len()
            }
            None => self.blocklist.tenant(tenant).live().len(),
        };
        trace_block_shards(
            blocks,
            self.config.trace_by_id.blocks_per_shard,
            self.config.trace_by_id.query_shards,
            self.config.max_outstanding_jobs_per_tenant,
        )
    }
}

impl Combine for TraceCombiner {
    fn add(&mut self, output: JobOutput, _: Origin) -> Result<(), JobError> {
        let JobOutput::Trace(found) = output else {
            return Err(unexpected_output());
        };
        self.add(found)
    }

    /// Spans may be anywhere.
    fn is_complete(&self) -> bool {
        false
    }
}
