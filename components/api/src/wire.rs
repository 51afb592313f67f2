//! Jobs and their results as messages between processes.
//!
//! A message of a newer version may hold what this one does not know: fields that are not known are
//! ignored, and a job, place or output of a kind that is not known is refused for good with a text
//! that says what to upgrade. Never tried again: every process of this version would refuse it.

use std::{sync::Arc, time::Duration};

use prost::Message;
use tempo_engine::metrics::{MetricsPartial, Window, WireError};
use tempo_model::TraceId;
use tempo_proto::tempostack::query::v1 as wire;

use crate::job::{
    CountedSpans, DataPlace, Job, JobError, JobOutput, JobResult, MAX_INTERVALS, TraceParts,
    TracePlace,
};

/// Largest result that travels. The series of a query over time may take more in memory: they are
/// sent without what is empty.
pub const MAX_RESULT_BYTES: usize = 256 * 1024 * 1024;

/// Intervals that a job may have more than its query: those begun at both ends, and those before the
/// first one that make it whole.
const ALIGNING_INTERVALS: u64 = 8;

/// How often a querier says that it is alive, whether it has a job or waits for one.
pub const ALIVE_INTERVAL: Duration = Duration::from_secs(2);

/// A querier that has said nothing for so long is given no job: it may be lost.
pub const DOUBT_TIMEOUT: Duration = Duration::from_secs(5);

/// A querier that has said nothing for so long counts as lost, and its job is given to another.
pub const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);

/// The job as a message.
pub fn encode_job(job: &Job) -> wire::Job {
    use wire::job::Kind;
    let kind = match job {
        Job::FindTrace {
            trace_id,
            max_bytes,
            place,
        } => Kind::FindTrace(wire::FindTraceJob {
            trace_id: trace_id.as_bytes().to_vec(),
            max_bytes: *max_bytes,
            place: Some(encode_trace_place(place)),
        }),
        Job::Search { request, place } => Kind::Search(wire::SearchJob {
            request: Some(request.as_ref().clone()),
            place: Some(encode_place(place)),
        }),
        Job::TagNames {
            request,
            max_bytes,
            place,
        } => Kind::TagNames(wire::TagNamesJob {
            request: Some(request.as_ref().clone()),
            max_bytes: *max_bytes,
            place: Some(encode_place(place)),
        }),
        Job::TagValues {
            request,
            max_bytes,
            place,
        } => Kind::TagValues(wire::TagValuesJob {
            request: Some(request.as_ref().clone()),
            max_bytes: *max_bytes,
            place: Some(encode_place(place)),
        }),
        Job::QueryRange {
            request,
            window,
            max_exemplars,
            place,
        } => Kind::QueryRange(wire::QueryRangeJob {
            request: Some(request.as_ref().clone()),
            window: Some(wire::Window {
                start_nano: window.start_nano,
                end_nano: window.end_nano,
                step_nano: window.step_nano,
                is_instant: window.is_instant,
            }),
            max_exemplars: *max_exemplars,
            place: Some(encode_place(place)),
        }),
    };
    wire::Job { kind: Some(kind) }
}

fn encode_trace_place(place: &TracePlace) -> wire::find_trace_job::Place {
    use wire::find_trace_job::Place;
    match place {
        TracePlace::Recent => Place::Recent(wire::RecentTrace {}),
        TracePlace::Blocks { first, last, range } => Place::Blocks(wire::BlockRange {
            first: first.to_vec(),
            last: last.to_vec(),
            range: range.map(|(start, end)| wire::SecondsRange { start, end }),
        }),
    }
}

fn encode_place(place: &DataPlace) -> wire::DataPlace {
    use wire::data_place::Place;
    let place = match place {
        DataPlace::Recent { start, end } => Place::Recent(wire::RecentSpans {
            start: *start,
            end: *end,
        }),
        DataPlace::Block {
            meta,
            first_row_group,
            row_groups,
        } => Place::Block(wire::BlockPart {
            meta: Some(meta.as_ref().clone()),
            first_row_group: *first_row_group,
            row_groups: *row_groups,
        }),
    };
    wire::DataPlace { place: Some(place) }
}

/// The job of a message.
///
/// # Errors
/// [`JobError::Failed`] when the message is malformed or of a newer version.
pub fn decode_job(job: wire::Job) -> Result<Job, JobError> {
    use wire::job::Kind;
    Ok(match job.kind {
        None => return Err(unknown("job")),
        Some(Kind::FindTrace(job)) => Job::FindTrace {
            trace_id: TraceId::from_bytes(id(&job.trace_id)?),
            max_bytes: job.max_bytes,
            place: decode_trace_place(job.place)?,
        },
        Some(Kind::Search(job)) => Job::Search {
            request: request(job.request)?,
            place: decode_place(job.place)?,
        },
        Some(Kind::TagNames(job)) => Job::TagNames {
            request: request(job.request)?,
            max_bytes: job.max_bytes,
            place: decode_place(job.place)?,
        },
        Some(Kind::TagValues(job)) => Job::TagValues {
            request: request(job.request)?,
            max_bytes: job.max_bytes,
            place: decode_place(job.place)?,
        },
        Some(Kind::QueryRange(job)) => Job::QueryRange {
            request: request(job.request)?,
            window: decode_window(job.window)?,
            max_exemplars: job.max_exemplars,
            place: decode_place(job.place)?,
        },
    })
}

fn unknown(what: &str) -> JobError {
    JobError::Failed(format!(
        "a {what} of a kind that this version does not know; upgrade live-stores first, then \
         queriers, then query-frontends"
    ))
}

fn malformed(problem: &str) -> JobError {
    JobError::Failed(format!("malformed job: {problem}"))
}

fn id(bytes: &[u8]) -> Result<[u8; 16], JobError> {
    bytes
        .try_into()
        .map_err(|_| malformed("an id that is not 16 bytes long"))
}

fn request<T>(request: Option<T>) -> Result<Arc<T>, JobError> {
    request.map(Arc::new).ok_or_else(|| malformed("no request"))
}

/// Each series takes room for every interval, even for one span: there must not be any number.
fn decode_window(window: Option<wire::Window>) -> Result<Window, JobError> {
    let window = window.ok_or_else(|| malformed("no window"))?;
    let window = Window {
        start_nano: window.start_nano,
        end_nano: window.end_nano,
        step_nano: window.step_nano,
        is_instant: window.is_instant,
    };
    if window.step_nano == 0 && !window.is_instant {
        return Err(malformed("a step of 0"));
    }
    if window.grid().len() as u64 > MAX_INTERVALS + ALIGNING_INTERVALS {
        return Err(malformed("a window of more intervals than there may be"));
    }
    Ok(window)
}

fn decode_trace_place(place: Option<wire::find_trace_job::Place>) -> Result<TracePlace, JobError> {
    use wire::find_trace_job::Place;
    Ok(match place {
        None => return Err(unknown("place")),
        Some(Place::Recent(wire::RecentTrace {})) => TracePlace::Recent,
        Some(Place::Blocks(blocks)) => TracePlace::Blocks {
            first: id(&blocks.first)?,
            last: id(&blocks.last)?,
            range: blocks.range.map(|range| (range.start, range.end)),
        },
    })
}

fn decode_place(place: Option<wire::DataPlace>) -> Result<DataPlace, JobError> {
    use wire::data_place::Place;
    Ok(match place.and_then(|place| place.place) {
        None => return Err(unknown("place")),
        Some(Place::Recent(seconds)) => DataPlace::Recent {
            start: seconds.start,
            end: seconds.end,
        },
        Some(Place::Block(part)) => DataPlace::Block {
            meta: Arc::new(part.meta.ok_or_else(|| malformed("no block"))?),
            first_row_group: part.first_row_group,
            row_groups: part.row_groups,
        },
    })
}

/// The output as a message.
pub fn encode_output(output: JobOutput) -> wire::JobOutput {
    use wire::job_output::Kind;
    let kind = match output {
        JobOutput::Trace(found) => Kind::Trace(wire::TraceParts {
            parts: found.parts,
            inspected_bytes: found.inspected_bytes,
        }),
        JobOutput::Search(found) => Kind::Search(found),
        JobOutput::TagNames(found) => Kind::TagNames(found),
        JobOutput::TagValues(found) => Kind::TagValues(found),
        JobOutput::QueryRange(counted) => Kind::QueryRange(wire::CountedSpans {
            series: Some(counted.series.to_wire()),
            inspected_bytes: counted.inspected_bytes,
        }),
    };
    wire::JobOutput { kind: Some(kind) }
}

/// The bytes of [`encode_output`]'s message, without a copy of what was found; `None` when they are
/// more than `max_bytes`.
pub fn output_bytes(output: &JobOutput, max_bytes: usize) -> Option<Vec<u8>> {
    match output {
        JobOutput::Search(found) => field_bytes(2, found, max_bytes),
        JobOutput::TagNames(found) => field_bytes(3, found, max_bytes),
        JobOutput::TagValues(found) => field_bytes(4, found, max_bytes),
        JobOutput::Trace(_) | JobOutput::QueryRange(_) => {
            let message = encode_output(output.clone());
            (message.encoded_len() <= max_bytes).then(|| message.encode_to_vec())
        }
    }
}

/// A message that has one field, of a number below 16, which is a message.
fn field_bytes(number: u8, field: &impl Message, max_bytes: usize) -> Option<Vec<u8>> {
    const LENGTH_DELIMITED: u8 = 2;
    let len = field.encoded_len();
    let head = 1 + prost::length_delimiter_len(len);
    if head + len > max_bytes {
        return None;
    }
    let mut bytes = Vec::with_capacity(head + len);
    bytes.push(number << 3 | LENGTH_DELIMITED);
    prost::encode_length_delimiter(len, &mut bytes).ok()?;
    field.encode(&mut bytes).ok()?;
    Some(bytes)
}

/// The output of a message. Series may take `max_series_bytes`.
///
/// # Errors
/// [`JobError::Failed`] when the message is malformed or of a newer version,
/// [`JobError::OverBudget`] when it holds too much.
pub fn decode_output(
    output: wire::JobOutput,
    max_series_bytes: usize,
) -> Result<JobOutput, JobError> {
    use wire::job_output::Kind;
    Ok(match output.kind {
        None => return Err(unknown("job output")),
        Some(Kind::Trace(found)) => JobOutput::Trace(TraceParts {
            parts: found.parts,
            inspected_bytes: found.inspected_bytes,
        }),
        Some(Kind::Search(found)) => JobOutput::Search(found),
        Some(Kind::TagNames(found)) => JobOutput::TagNames(found),
        Some(Kind::TagValues(found)) => JobOutput::TagValues(found),
        Some(Kind::QueryRange(counted)) => {
            let series = counted.series.unwrap_or_default();
            let series =
                MetricsPartial::from_wire(series, max_series_bytes).map_err(
                    |error| match error {
                        WireError::Malformed(_) => JobError::Failed(error.to_string()),
                        WireError::TooLarge { .. } => JobError::OverBudget(error.to_string()),
                    },
                )?;
            JobOutput::QueryRange(CountedSpans {
                series,
                inspected_bytes: counted.inspected_bytes,
            })
        }
    })
}

/// What a job came to, as a message.
pub fn encode_result(result: JobResult) -> wire::JobResult {
    use wire::{job_error::Kind, job_result::Result};
    let error = |kind: Kind, text: String| {
        Result::Error(wire::JobError {
            kind: kind.into(),
            text,
        })
    };
    let result = match result {
        Ok(output) => Result::Output(encode_output(output)),
        Err(JobError::TraceTooLarge(text)) => error(Kind::TraceTooLarge, text),
        Err(JobError::OverBudget(text)) => error(Kind::OverBudget, text),
        Err(JobError::Busy(text)) => error(Kind::Busy, text),
        Err(JobError::Unavailable(text)) => error(Kind::Unavailable, text),
        Err(JobError::Failed(text)) => error(Kind::Failed, text),
        Err(JobError::TimedOut) => error(Kind::TimedOut, String::new()),
        Err(JobError::Cancelled) => error(Kind::Cancelled, String::new()),
    };
    wire::JobResult {
        result: Some(result),
    }
}

/// The same, but an error in place of a result that is too large to be sent.
pub fn encode_result_within_limit(result: JobResult) -> wire::JobResult {
    let message = encode_result(result);
    let bytes = message.encoded_len();
    if bytes < MAX_RESULT_BYTES {
        return message;
    }
    encode_result(Err(JobError::OverBudget(format!(
        "response larger than the max ({bytes} vs {MAX_RESULT_BYTES}); ask for less time or fewer \
         series"
    ))))
}

/// What a job came to. Series may take `max_series_bytes`.
pub fn decode_result(result: wire::JobResult, max_series_bytes: usize) -> JobResult {
    use wire::{job_error::Kind, job_result::Result};
    match result.result {
        None => Err(unknown("job result")),
        Some(Result::Output(output)) => decode_output(output, max_series_bytes),
        Some(Result::Error(error)) => {
            let kind = error.kind();
            let text = error.text;
            Err(match kind {
                Kind::Failed => JobError::Failed(text),
                Kind::TraceTooLarge => JobError::TraceTooLarge(text),
                Kind::OverBudget => JobError::OverBudget(text),
                Kind::Busy => JobError::Busy(text),
                Kind::Unavailable => JobError::Unavailable(text),
                Kind::TimedOut => JobError::TimedOut,
                Kind::Cancelled => JobError::Cancelled,
            })
        }
    }
}

#[cfg(test)]
mod tests;
