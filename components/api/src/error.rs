//! The one thing that can be wrong with a request.

/// The request cannot be answered as it stands; the text tells the client why.
///
/// Answered with status 400 (`InvalidArgument` over gRPC) and exactly this text as the body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRequest(pub String);

impl BadRequest {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}
