//! What connects the components of one process: each declares what it needs as a trait, and here
//! another component's handle is made to fit.

use async_trait::async_trait;
use prometheus::IntCounterVec;
use tempo_api::job::TraceParts;
use tempo_distributor::{PartialSuccess, SinkError, TraceSink};
use tempo_live_store::{LiveStore, Operation, PushError, PushErrorKind, ReadError};
use tempo_model::{TraceBatch, TraceId};
use tempo_querier::{RecentError, RecentOperation, RecentTraces, RecentView};

/// The distributor's spans go to the live-store of this process.
pub(crate) struct LiveStoreSink {
    pub(crate) live: LiveStore,
    /// `tempo_discarded_spans_total`.
    pub(crate) discarded: IntCounterVec,
}

impl LiveStoreSink {
    fn discard(&self, reason: &str, tenant: &str, spans: u64) {
        if spans > 0 {
            self.discarded
                .with_label_values(&[reason, tenant])
                .inc_by(spans);
        }
    }
}

#[async_trait]
impl TraceSink for LiveStoreSink {
    async fn push(&self, tenant: &str, batch: TraceBatch) -> Result<PartialSuccess, SinkError> {
        let spans = batch.span_count();
        match self.live.push(tenant, batch).await {
            Ok(outcome) => {
                let rejected_spans = outcome.too_large_spans;
                self.discard("trace_too_large", tenant, rejected_spans);
                if rejected_spans == 0 {
                    return Ok(PartialSuccess::default());
                }
                Ok(PartialSuccess {
                    rejected_spans,
                    error_message: format!(
                        "{rejected_spans} spans were left out: with them a trace of tenant {tenant} would be larger than max_bytes_per_trace"
                    ),
                })
            }
            Err(error) => {
                if matches!(error, PushError::LiveTraces { .. }) {
                    self.discard("live_traces_exceeded", tenant, spans);
                }
                let message = format!("failed to push spans to local live-store: {error}");
                Err(match error.kind() {
                    PushErrorKind::ResourceExhausted => SinkError::ResourceExhausted {
                        message,
                        retry_after: None,
                    },
                    PushErrorKind::Unavailable => SinkError::Unavailable { message },
                    PushErrorKind::InvalidArgument => SinkError::InvalidArgument { message },
                })
            }
        }
    }
}

/// The querier's recent data is that of the live-store of this process.
pub(crate) struct LiveStoreRecent(pub(crate) LiveStore);

impl RecentTraces for LiveStoreRecent {
    fn view(
        &self,
        tenant: &str,
        start_unix_nanos: u64,
        end_unix_nanos: u64,
        operation: RecentOperation,
    ) -> Result<RecentView, RecentError> {
        let operation = match operation {
            RecentOperation::Search => Operation::Search,
            RecentOperation::TagNames => Operation::SearchTags,
            RecentOperation::TagValues => Operation::SearchTagValues,
            RecentOperation::QueryRange => Operation::QueryRange,
        };
        let view = self
            .0
            .view(tenant, start_unix_nanos, end_unix_nanos, operation)
            .map_err(recent_error)?;
        Ok(RecentView {
            tables: view.tables().to_vec(),
            hold: Box::new(view),
        })
    }

    fn find_trace(&self, tenant: &str, trace_id: TraceId) -> Result<TraceParts, RecentError> {
        let found = self.0.find_trace(tenant, &trace_id).map_err(recent_error)?;
        Ok(TraceParts {
            inspected_bytes: found.as_ref().map_or(0, |found| found.inspected_bytes),
            parts: found.map(|found| found.trace).into_iter().collect(),
        })
    }
}

fn recent_error(error: ReadError) -> RecentError {
    match error {
        // Another zone may have read further.
        ReadError::NotRunning(_) | ReadError::Lagging | ReadError::Forgotten => {
            RecentError::Unavailable(error.to_string())
        }
        _ => RecentError::Failed(error.to_string()),
    }
}
