//! The `q` of a trace lookup: which spans of a trace the client wants to see.

use tempo_api::{BadRequest, combine::CombinedTrace, params::TraceFilterParams};

use crate::error::QueryError;

/// A filter that has been checked.
pub(crate) struct TraceFilter {
    params: TraceFilterParams,
}

impl TraceFilter {
    pub(crate) fn new(params: TraceFilterParams) -> Result<Self, BadRequest> {
        Ok(Self { params })
    }

    pub(crate) async fn apply(self, found: CombinedTrace) -> Result<CombinedTrace, QueryError> {
        let _ = self.params;
        Ok(found)
    }
}
