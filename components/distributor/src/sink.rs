//! Where regrouped traces go.

use std::time::Duration;

use tempo_model::TraceBatch;

/// Keeps the spans of a push: a live-store in the same process, or a log.
#[async_trait::async_trait]
pub trait TraceSink: Send + Sync + 'static {
    /// Takes a batch of one tenant. `Ok` is a promise: the client is then told that its spans are
    /// safe, but for those that are named as left out, so it may only be given once they are
    /// durable.
    ///
    /// The call ends without an answer (the future is dropped) when the client goes away; whether
    /// the batch was kept is then of no consequence.
    async fn push(&self, tenant: &str, batch: TraceBatch) -> Result<PartialSuccess, SinkError>;
}

/// What a sink left out of a batch that it took; nothing by default. OTLP's term: the client is
/// told, and must not send it again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartialSuccess {
    /// Spans that were left out.
    pub rejected_spans: u64,
    /// Why; empty when none were.
    pub error_message: String,
}

/// Why a sink did not take a batch, by what the client is to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// It could not for now, such as for a full disk: the client is to send the batch again.
    #[error("{message}")]
    Unavailable {
        /// What is wrong and where.
        message: String,
    },
    /// It would not for now, because a limit is reached: the client is to send again, later.
    #[error("{message}")]
    ResourceExhausted {
        /// Which limit.
        message: String,
        /// When to try again; without it the distributor's own setting counts.
        retry_after: Option<Duration>,
    },
    /// It never will: the client is to drop the batch.
    #[error("{message}")]
    InvalidArgument {
        /// What is wrong with the batch.
        message: String,
    },
}
