//! What can go wrong when the frontend is built, and how a query can end.

use http::StatusCode;
use tempo_api::{BadRequest, job::JobError};

/// Why the query-frontend cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that cannot work.
    #[error("{setting}: {problem}")]
    Setting {
        /// Its path in the configuration.
        setting: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A metric could not be registered.
    #[error("registering metrics of the query-frontend: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Why a query has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueryError {
    /// The request is wrong.
    #[error(transparent)]
    Bad(#[from] BadRequest),
    /// The request does not say whose data it asks for.
    #[error("no org id")]
    NoTenant,
    /// A job failed, and the query with it.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The answer was too slow for the configured timeout.
    #[error("unable to process request in the configured timeout")]
    ApiTimeout,
    /// There is no such trace.
    #[error("Not Found")]
    NotFound,
    /// What was found cannot be worked with.
    #[error("{0}")]
    Unprocessable(String),
    /// What was found is more than the tenant's limit.
    #[error("{0}")]
    OverLimit(String),
}

impl QueryError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::NoTenant => StatusCode::UNAUTHORIZED,
            Self::Job(error) => {
                StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Self::ApiTimeout => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Unprocessable(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::OverLimit(_) => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// The text of the answer's body.
    pub(crate) fn body(&self) -> String {
        match self {
            // Tempo's tenant check writes a line, everything behind it a bare text.
            Self::NoTenant => format!("{self}\n"),
            _ => self.to_string(),
        }
    }
}
