//! Requests for the removal of traces, and when they are done.
//!
//! Pure decisions; the scheduler keeps the batches. A request becomes one job per live block.
//! Blocks that are being merged when it comes are looked through afterwards: what became of them.
//! A request that left blocks as they were is kept for people to see, until it is made again.

use tempo_backend::Timestamp;
use tempo_proto::tempopb::{
    RedactionBatch, RedactionMode, SubmitRedactionRequest, submit_redaction_request::Selector,
};

use crate::{Config, Job, JobStatus, SubmitError};

/// Most trace ids of one request.
const MAX_TRACE_IDS: usize = 100_000;

/// How often a block is tried before its redaction has failed.
pub(crate) const MAX_ATTEMPTS: u32 = 3;

/// What a request asks for, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) trace_ids: Vec<Vec<u8>>,
    pub(crate) mode: RedactionMode,
}

pub(crate) fn check(request: SubmitRedactionRequest) -> Result<Request, SubmitError> {
    let invalid = |problem: &str| Err(SubmitError::Invalid(problem.to_owned()));
    match (&request.selector, request.trace_ids.is_empty()) {
        (Some(Selector::Query(_)), false) => {
            return invalid("trace_ids and query cannot be given together");
        }
        (Some(Selector::Query(_)), true) => {
            return invalid(
                "redaction by query is not part of this version; search for the traces and give \
                 their trace_ids",
            );
        }
        (None, true) => return invalid("one of trace_ids and query must be given"),
        (None, false) => {}
    }
    let Ok(mode) = RedactionMode::try_from(request.mode) else {
        return invalid("unknown redaction mode");
    };
    if request.start_time_unix_nano != 0 || request.end_time_unix_nano != 0 {
        return invalid("a time window cannot be given with trace_ids");
    }
    if request.trace_ids.len() > MAX_TRACE_IDS {
        return Err(SubmitError::Invalid(format!(
            "more than {MAX_TRACE_IDS} trace_ids: split the request"
        )));
    }
    let mut trace_ids = Vec::with_capacity(request.trace_ids.len());
    for id in &request.trace_ids {
        if id.is_empty() || id.len() > 16 {
            return invalid("a trace id must have 1 to 16 bytes");
        }
        trace_ids.push(tempo_model::TraceId::from_padded(id).as_bytes().to_vec());
    }
    trace_ids.sort_unstable();
    trace_ids.dedup();
    Ok(Request { trace_ids, mode })
}

pub(crate) fn is_apply(batch: &RedactionBatch) -> bool {
    batch.mode == i32::from(RedactionMode::Apply)
}

/// What to do about a batch now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing yet.
    Wait,
    /// The batch as it is to be kept, and blocks to be looked through for it.
    Keep(RedactionBatch, Vec<String>),
    /// It is done.
    Remove,
    /// It has ended, and some of its blocks still have the traces: the batch as it is to be kept.
    Fail(RedactionBatch),
}

/// How far the jobs of a batch are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Whether some are not ended.
    pub(crate) open: bool,
    /// Blocks of those that failed for good.
    pub(crate) failed: Vec<String>,
}

/// Most failed batches that are kept of a tenant; of more the oldest is forgotten.
pub(crate) const MAX_FAILED_BATCHES: usize = 10;

/// Whether a new batch does what an old one failed to do.
pub(crate) fn makes_up_for(new: &RedactionBatch, old: &RedactionBatch) -> bool {
    let asks_as_much = || {
        is_apply(new)
            && old
                .trace_ids
                .iter()
                .all(|id| new.trace_ids.binary_search(id).is_ok())
    };
    old.failed_at_unix_nano != 0
        && old.tenant_id == new.tenant_id
        && (!is_apply(old) || asks_as_much())
}

/// Decides about a batch; `job` finds a job by its id.
pub(crate) fn step<'j>(
    batch: &RedactionBatch,
    job: impl Fn(&str) -> Option<&'j Job>,
    progress: Progress,
    config: &Config,
    now: Timestamp,
) -> Step {
    if batch.failed_at_unix_nano != 0 {
        return Step::Wait;
    }
    let mut next = batch.clone();
    // Jobs are forgotten in time, their failure is not.
    for block in progress.failed {
        if !next.failed_blocks.contains(&block) {
            next.failed_blocks.push(block);
        }
    }
    let wait = |next: RedactionBatch| match next == *batch {
        true => Step::Wait,
        false => Step::Keep(next, Vec::new()),
    };
    let nanos = now.unix_nanos();
    if !batch.skipped_compaction_job_ids.is_empty() {
        if nanos < batch.rescan_after_unix_nano {
            return wait(next);
        }
        let mut blocks = Vec::new();
        next.skipped_compaction_job_ids.clear();
        for id in &batch.skipped_compaction_job_ids {
            let Some(job) = job(id) else { continue };
            let detail = job.detail.compaction.as_ref();
            match job.status {
                JobStatus::Pending | JobStatus::Running => {
                    next.skipped_compaction_job_ids.push(id.clone());
                }
                JobStatus::Succeeded => {
                    blocks.extend(detail.iter().flat_map(|detail| detail.output.clone()));
                }
                JobStatus::Failed => {
                    // The output may be there all the same, and hide the inputs.
                    blocks.extend(detail.iter().flat_map(|detail| detail.input.clone()));
                    blocks.extend(detail.iter().flat_map(|detail| detail.output.clone()));
                }
            }
        }
        next.rescan_after_unix_nano = now.saturating_add(config.rescan_delay).unix_nanos();
        return Step::Keep(next, blocks);
    }
    if progress.open {
        return wait(next);
    }
    if is_apply(batch) {
        if batch.quiesce_until_unix_nano == 0 {
            let until = now.saturating_add(config.maintenance_interval * 2);
            next.quiesce_until_unix_nano = until.unix_nanos();
            return Step::Keep(next, Vec::new());
        }
        if nanos < batch.quiesce_until_unix_nano {
            return wait(next);
        }
    }
    if next.failed_blocks.is_empty() {
        return Step::Remove;
    }
    next.failed_at_unix_nano = nanos;
    Step::Fail(next)
}
