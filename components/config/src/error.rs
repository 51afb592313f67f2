//! What can be wrong with a configuration, and how it is told.

use std::fmt;

use crate::document::Mark;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// The key, from the top: `storage.trace.s3.bucket`; empty for the text as a whole.
    pub path: String,
    /// Where it stands.
    pub place: Place,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A place in the text, counted from 1.
    Text {
        /// Line.
        line: usize,
        /// Column in characters.
        column: usize,
    },
    /// A command line flag, without its dash.
    Flag(String),
}

impl Issue {
    pub(crate) fn of_key(path: String, mark: Mark, message: String) -> Self {
        Self {
            path,
            ..Self::at(mark, message)
        }
    }

    pub(crate) fn at(mark: Mark, message: String) -> Self {
        Self {
            path: String::new(),
            place: Place::Text {
                line: mark.line,
                column: mark.column,
            },
            message,
        }
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Text { line, column } => write!(f, "line {line}, column {column}: ")?,
            Place::Flag(name) => write!(f, "flag -{name}: ")?,
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Why a configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `${…}` in the text can't be expanded.
    #[error("{0}")]
    Expansion(Issue),
    /// The text or the flags are wrong; never empty.
    #[error("{}", list(.0))]
    Issues(Vec<Issue>),
    /// The values do not fit together; never empty.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
}

fn list(issues: &[Issue]) -> String {
    let lines: Vec<String> = issues.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
