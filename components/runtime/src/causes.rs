//! Errors with what caused them: "transport error" alone tells nothing.

use std::error::Error;

/// A text, and after it the causes of the error it stands for that it does not tell already.
pub fn with_causes(text: &str, error: &dyn Error) -> String {
    let mut text = text.to_owned();
    let mut cause = error.source();
    while let Some(error) = cause {
        let error_text = error.to_string();
        if !text.contains(&error_text) {
            text = format!("{text}: {error_text}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("inner")]
    struct Inner(#[source] io::Error);

    #[test]
    fn each_cause_is_told_once() {
        let error = Outer(Inner(io::Error::other("disk")));
        assert_eq!(with_causes("failed", &error), "failed: inner: disk");
        assert_eq!(with_causes("failed: inner", &error), "failed: inner: disk");
    }
}
