//! What can be wrong with a query.

use std::fmt;

/// Why a query was refused. All variants are the user's to fix (HTTP 400).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is longer than allowed.
    #[error(transparent)]
    TooLarge(#[from] QueryTooLarge),
    /// The text is no query.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The query makes no sense.
    #[error(transparent)]
    Invalid(#[from] ValidationError),
}

/// The text is longer than allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "TraceQL expression exceeds the configured maximum size of {max_bytes} bytes, reduce the query expression size or contact your system administrator"
)]
pub struct QueryTooLarge {
    /// The limit.
    pub max_bytes: usize,
}

/// The text is no query. The display form is Tempo's, which clients match on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    message: String,
    line: u32,
    column: u32,
}

impl ParseError {
    pub(crate) fn new(message: impl Into<String>, line: u32, column: u32) -> Self {
        Self {
            message: message.into(),
            line,
            column,
        }
    }

    /// What is wrong, without the position.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Line from 1; 0 when the token was completed rune by rune (a quirk of Tempo's lexer).
    pub fn line(&self) -> u32 {
        self.line
    }

    /// Column in characters from 1; 0 for an empty text.
    pub fn column(&self) -> u32 {
        self.column
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            message,
            line,
            column,
        } = self;
        if *line == 0 && *column == 0 {
            write!(f, "parse error : {message}")
        } else {
            write!(f, "parse error at line {line}, col {column}: {message}")
        }
    }
}

impl std::error::Error for ParseError {}

/// The query makes no sense. The text is Tempo's, which clients match on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValidationError(pub(crate) String);

/// `parse_identifier` was given something else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse identifier {text}: {reason}")]
pub struct IdentifierError {
    pub(crate) text: String,
    pub(crate) reason: String,
}

/// A query for tags has too many alternatives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "maximum condition groups reached (limit: {max_groups}). Reduce the number of OR conditions in the query"
)]
pub struct TooManyConditionGroups {
    /// The limit.
    pub max_groups: usize,
}
