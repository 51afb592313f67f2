//! Why a query has no answer.

use tempo_table::TableError;
use tempo_traceql::PatternError;

/// Why a query cannot be planned. The text of the query is to blame: a client error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The query is not one of spans.
    #[error("{0} not supported")]
    NotSupported(&'static str),
    /// A query for traces where one over time is needed.
    #[error("not a metrics query")]
    NotAMetricsQuery,
    /// Regular expressions that take much memory together.
    #[error(
        "the regular expressions of the query take more than {limit_bytes} bytes when compiled; use fewer, repeat less, or classes with fewer characters"
    )]
    TooManyPatterns {
        /// What they may take.
        limit_bytes: usize,
    },
    /// A regular expression that does not compile.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

/// Why a query failed on a table.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The table cannot be read, or the one who asked is gone.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The query asks for something that a span's values do not allow: division by zero, `!` on
    /// a text. The query is to blame.
    #[error("{0}")]
    Evaluation(String),
    /// The query needs more memory than it may have.
    #[error(
        "the query needs columns of {needed_bytes} bytes at once, more than the {limit_bytes} it may hold; ask for less time or fewer attributes"
    )]
    OverBudget {
        /// What is held and the column that was too much.
        needed_bytes: usize,
        /// [`crate::Limits::max_column_bytes`].
        limit_bytes: usize,
    },
    /// A search finds more sets of spans than it may show.
    #[error(
        "the span sets of the traces found take more than {limit_bytes} bytes; ask for fewer traces (limit) or spans (spss), or group by attributes with fewer values"
    )]
    TooManySpanSets {
        /// [`crate::Limits::max_column_bytes`].
        limit_bytes: usize,
    },
    /// Partial series are not of the query with whose series they are merged.
    #[error("series of another query; all processes must understand a query alike, upgrade them")]
    OtherSeries,
    /// A query over time has more series, or more intervals, than it may.
    #[error(
        "the series of the query take {needed_bytes} bytes, more than the {limit_bytes} they may; group by attributes with fewer values, or ask for less time or a longer step"
    )]
    TooManySeries {
        /// What the series would take.
        needed_bytes: usize,
        /// What they may take.
        limit_bytes: usize,
    },
}

impl EngineError {
    pub(crate) fn cancelled() -> Self {
        Self::Table(TableError::Cancelled)
    }
}

/// Why an expression has no value for a span; small, since every value comes with room for it.
#[derive(Debug)]
pub(crate) struct RowError(pub(crate) Box<str>);

impl From<RowError> for EngineError {
    fn from(error: RowError) -> Self {
        Self::Evaluation(error.0.into())
    }
}
