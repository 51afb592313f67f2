//! Why a scenario did not pass.

use std::{fmt, io};

/// What a scenario ends with.
pub type Outcome<T = ()> = Result<T, Failure>;

/// What was expected and what was there instead, for a person to read.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// A failure with this explanation.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// The same, with what was being done before it.
    #[must_use]
    pub fn during(self, what: &str) -> Self {
        Self(format!("{what}: {}", self.0))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self(format!("not the JSON that was expected: {error}"))
    }
}

/// Fails with `message` unless `holds`.
///
/// # Errors
/// When it does not hold.
pub fn ensure(holds: bool, message: impl FnOnce() -> String) -> Outcome {
    if holds {
        Ok(())
    } else {
        Err(Failure(message()))
    }
}
