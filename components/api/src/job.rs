//! The pieces of a query: what a query-frontend hands out and a querier answers.
//!
//! Jobs hold plain values only, so that they can travel between processes as well as within one.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tempo_engine::metrics::{MetricsPartial, Window};
use tempo_model::TraceId;
use tempo_proto::tempopb::{
    QueryRangeRequest, SearchRequest, SearchResponse, SearchTagValuesRequest,
    SearchTagValuesV2Response, SearchTagsRequest, SearchTagsV2Response, backend::v1::BlockMeta,
};

/// Most intervals of a query over time, whatever the settings.
pub const MAX_INTERVALS: u64 = 1_000_000;

/// One piece of a query.
#[derive(Debug, Clone)]
pub enum Job {
    /// Look for a trace.
    FindTrace {
        /// Which one.
        trace_id: TraceId,
        /// Looking ends when more of the trace is found than this; 0 means never.
        max_bytes: u64,
        /// Where to look.
        place: TracePlace,
    },
    /// Search for traces. Times of the request are whole seconds and, for blocks, those of the
    /// whole query.
    Search {
        /// What to look for. An old `tags` search has been translated and has a query.
        request: Arc<SearchRequest>,
        /// Where to look.
        place: DataPlace,
    },
    /// Collect tag names by scope.
    TagNames {
        /// What to collect.
        request: Arc<SearchTagsRequest>,
        /// Collecting ends before the names take more bytes than this; 0 means never.
        max_bytes: u64,
        /// Where to look.
        place: DataPlace,
    },
    /// Collect the values of one tag.
    TagValues {
        /// What to collect. The name is one that TraceQL knows.
        request: Arc<SearchTagValuesRequest>,
        /// Collecting ends before types and values take more bytes than this; 0 means never.
        max_bytes: u64,
        /// Where to look.
        place: DataPlace,
    },
    /// Count spans over time.
    QueryRange {
        /// What to count. Its time and its number of exemplars are those of the whole query.
        request: Arc<QueryRangeRequest>,
        /// The time of this piece.
        window: Window,
        /// Exemplars that this piece may bring.
        max_exemplars: u32,
        /// Where to look.
        place: DataPlace,
    },
}

impl Job {
    /// Whether it is about data that is not (only) in the object store yet.
    pub fn is_recent(&self) -> bool {
        match self {
            Self::FindTrace { place, .. } => *place == TracePlace::Recent,
            Self::Search { place, .. }
            | Self::TagNames { place, .. }
            | Self::TagValues { place, .. }
            | Self::QueryRange { place, .. } => matches!(place, DataPlace::Recent { .. }),
        }
    }
}

/// Where to look for a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TracePlace {
    /// Data that is not (only) in the object store yet.
    Recent,
    /// The blocks with these ids, both ends included.
    Blocks {
        /// Lowest block id.
        first: [u8; 16],
        /// Highest block id.
        last: [u8; 16],
        /// Unix seconds; only blocks that start before the end and end after the start count.
        range: Option<(i64, i64)>,
    },
}

/// Where to look for spans.
#[derive(Debug, Clone)]
pub enum DataPlace {
    /// Data that is not (only) in the object store yet, within these unix seconds.
    Recent {
        /// First second.
        start: u32,
        /// Last second.
        end: u32,
    },
    /// A part of a block.
    Block {
        /// The block. Shared by the jobs of one block.
        meta: Arc<BlockMeta>,
        /// The first row group to read.
        first_row_group: u32,
        /// How many row groups to read.
        row_groups: u32,
    },
}

/// What a job found.
#[derive(Debug, Clone)]
pub enum JobOutput {
    /// Of [`Job::FindTrace`].
    Trace(TraceParts),
    /// Of [`Job::Search`].
    Search(SearchResponse),
    /// Of [`Job::TagNames`].
    TagNames(SearchTagsV2Response),
    /// Of [`Job::TagValues`].
    TagValues(SearchTagValuesV2Response),
    /// Of [`Job::QueryRange`].
    QueryRange(CountedSpans),
}

/// What was counted of the spans of one place.
#[derive(Debug, Clone)]
pub struct CountedSpans {
    /// Series as they are before the last stage.
    pub series: MetricsPartial,
    /// Bytes read from storage.
    pub inspected_bytes: u64,
}

/// What was found of one trace in one place.
#[derive(Debug, Clone, Default)]
pub struct TraceParts {
    /// Serialized `Trace` messages, which may overlap; none when nothing was found.
    pub parts: Vec<Bytes>,
    /// Bytes read from storage to find them.
    pub inspected_bytes: u64,
}

/// Why a job has no answer. What to do about it is in the variant, the rest in the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// The trace is larger than the tenant may read.
    #[error("{0}")]
    TraceTooLarge(String),
    /// The query needs more memory than it may have.
    #[error("{0}")]
    OverBudget(String),
    /// There is too much to do; the client may try again later.
    #[error("{0}")]
    Busy(String),
    /// Something did not answer; the same job may succeed if it is run again.
    #[error("{0}")]
    Unavailable(String),
    /// The job cannot be done, now or later.
    #[error("{0}")]
    Failed(String),
    /// The job took longer than it may.
    #[error("context deadline exceeded")]
    TimedOut,
    /// The one who asked is gone.
    #[error("context canceled")]
    Cancelled,
}

impl JobError {
    /// The list of blocks is too old for a complete answer: blocks were last listed so long ago, or
    /// never.
    pub fn outdated_list(listed: Option<Duration>) -> Self {
        let when = listed.map_or("were not listed yet".to_owned(), |age| {
            format!("were last listed {} s ago", age.as_secs())
        });
        Self::Unavailable(format!(
            "blocks {when}, and there may be others by now: the object store was not read in time, \
             or this process stood still; see tempodb_blocklist_poll_errors_total"
        ))
    }

    /// Whether the same job may succeed at the next attempt.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// The HTTP status of a query that ends with this error.
    pub fn status(&self) -> u16 {
        match self {
            Self::TraceTooLarge(_) | Self::OverBudget(_) => 422,
            Self::Busy(_) => 429,
            Self::Unavailable(_) | Self::Failed(_) => 500,
            Self::TimedOut => 504,
            Self::Cancelled => 499,
        }
    }
}

/// Names by which a request leaves out the rewrites of its query.
const SKIP_REWRITES: [&str; 2] = ["or_to_in", "all"];

/// Parses the query of a job, without the rewrites that are named. Who hands out a job and who runs
/// it have to understand its query alike.
pub fn parse_query(
    text: &str,
    skipped_rewrites: &[String],
) -> Result<tempo_traceql::Query, tempo_traceql::Error> {
    let options = tempo_traceql::ParseOptions {
        // The frontend knows the limit.
        max_query_bytes: 0,
        allow_unsafe_hints: false,
        skip_rewrites: skipped_rewrites
            .iter()
            .any(|name| SKIP_REWRITES.contains(&name.as_str())),
    };
    tempo_traceql::parse_with(text, &options)
}

/// What a job comes to.
pub type JobResult = Result<JobOutput, JobError>;
