//! What can go wrong while a block is written.

use std::io;

use parquet::errors::ParquetError;
use tempo_model::{TraceId, otlp::WireError};

use super::encode::PageTooLarge;

/// Why a trace or a block could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The bytes of a trace are not OTLP. Nothing of the trace was stored: leave it out and go on
    /// with the next.
    #[error("trace {trace} is not valid OTLP and is left out: {source}")]
    Trace {
        /// The trace.
        trace: TraceId,
        /// What is wrong with its bytes.
        source: WireError,
    },
    /// A trace beyond [`MAX_TRACE_BYTES`](super::MAX_TRACE_BYTES). Nothing of it was stored: leave
    /// it out and go on with the next, or limit the size of traces on their way in.
    #[error("trace {trace} has {bytes} bytes and is left out: a row holds at most {limit}")]
    TraceTooLarge {
        /// The trace.
        trace: TraceId,
        /// Its serialized bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Traces must come in ascending order of their ids, each once; a defect of the caller.
    #[error("trace {trace} was pushed after {previous}: push traces by ascending id, each once")]
    Order {
        /// The trace.
        trace: TraceId,
        /// The one before it.
        previous: TraceId,
    },
    /// A column of the traces in one page exceeds what the format can hold. The block is lost.
    #[error("column '{column}': a page would exceed 2 GiB; limit the size of traces")]
    PageTooLarge {
        /// Path of the column.
        column: String,
    },
    /// The sink did not take the bytes. The block is lost.
    #[error("writing data.parquet: {0}")]
    Sink(#[from] io::Error),
    /// The footer could not be made. The block is lost.
    #[error("footer of data.parquet: {0}")]
    Footer(#[from] ParquetError),
    /// The builder was used after an error that lost the block.
    #[error("the block was given up after an earlier error")]
    GivenUp,
}

impl WriteError {
    /// Whether only the trace was refused and the block can go on.
    pub fn leaves_block_intact(&self) -> bool {
        matches!(
            self,
            Self::Trace { .. } | Self::TraceTooLarge { .. } | Self::Order { .. }
        )
    }

    /// Names the column of a page that is too large.
    pub(crate) fn in_column(self, path: &str) -> Self {
        match self {
            Self::PageTooLarge { .. } => Self::PageTooLarge {
                column: path.to_owned(),
            },
            other => other,
        }
    }
}

impl From<PageTooLarge> for WriteError {
    fn from(PageTooLarge: PageTooLarge) -> Self {
        Self::PageTooLarge {
            column: String::new(),
        }
    }
}
