//! Why a client's request was not taken, in the words of its protocol.

use std::time::Duration;

use crate::{inflight::Overloaded, sink::SinkError};

/// A request that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What the client is to make of it.
    pub kind: RefusalKind,
    /// What was wrong, where, and what to do.
    pub message: String,
    /// When to try again, if the client is to be told.
    pub retry_after: Option<Duration>,
}

/// The kinds of refusal that receivers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// Never to be sent again.
    InvalidArgument,
    /// Over a limit: to be sent again if told when.
    ResourceExhausted,
    /// To be sent again.
    Unavailable,
    /// The client's own deadline has passed.
    DeadlineExceeded,
    /// No such method or encoding.
    Unimplemented,
    /// The transport was misused.
    Internal,
}

impl RefusalKind {
    /// The number of the gRPC status.
    pub const fn grpc_code(self) -> i32 {
        match self {
            Self::InvalidArgument => 3,
            Self::DeadlineExceeded => 4,
            Self::ResourceExhausted => 8,
            Self::Unimplemented => 12,
            Self::Internal => 13,
            Self::Unavailable => 14,
        }
    }

    /// The status of an OTLP/HTTP answer.
    pub const fn http_status(self) -> http::StatusCode {
        match self {
            Self::InvalidArgument => http::StatusCode::BAD_REQUEST,
            Self::ResourceExhausted => http::StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable | Self::DeadlineExceeded => http::StatusCode::SERVICE_UNAVAILABLE,
            Self::Unimplemented => http::StatusCode::NOT_FOUND,
            Self::Internal => http::StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Refusal {
    /// A refusal without advice on when to try again.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            retry_after: None,
        }
    }

    /// The request breaks the protocol or a rule; sending it again is pointless.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(RefusalKind::InvalidArgument, message)
    }

    /// Not now; sending it again is right.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Unavailable, message)
    }

    /// The refusal of a sink. `retry_after` is for a sink that names no time itself.
    pub(crate) fn from_sink(error: SinkError, default_retry_after: Option<Duration>) -> Self {
        match error {
            SinkError::Unavailable { message } => Self::unavailable(message),
            SinkError::InvalidArgument { message } => Self::invalid(message),
            SinkError::ResourceExhausted {
                message,
                retry_after,
            } => Self {
                kind: RefusalKind::ResourceExhausted,
                message,
                retry_after: retry_after.or(default_retry_after),
            },
        }
    }
}

impl From<Overloaded> for Refusal {
    fn from(overloaded: Overloaded) -> Self {
        Self::unavailable(overloaded.to_string())
    }
}
