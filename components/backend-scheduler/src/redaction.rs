//! Requests for the removal of traces, and when they are done.
//!
//! Pure decisions; the scheduler keeps the batches. A request becomes one job per live block.
//! Blocks that are being merged when it comes are looked through afterwards: what became of them.

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
}

/// Decides about a batch; `job` finds a job by its id, `open` tells whether it has jobs that are
/// not ended.
pub(crate) fn step<'j>(
    batch: &RedactionBatch,
    job: impl Fn(&str) -> Option<&'j Job>,
    open: bool,
    config: &Config,
    now: Timestamp,
) -> Step {
    let mut next = batch.clone();
    let nanos = now.unix_nanos();
    if !batch.skipped_compaction_job_ids.is_empty() {
        if nanos < batch.rescan_after_unix_nano {
            return Step::Wait;
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
    if open {
        return Step::Wait;
    }
    if !is_apply(batch) {
        return Step::Remove;
    }
    if batch.quiesce_until_unix_nano == 0 {
        let until = now.saturating_add(config.maintenance_interval * 2);
        next.quiesce_until_unix_nano = until.unix_nanos();
        return Step::Keep(next, Vec::new());
    }
    if nanos < batch.quiesce_until_unix_nano {
        return Step::Wait;
    }
    Step::Remove
}
