//! The body of `POST /api/v2/traces/diff`.

use serde::Deserialize;
use tempo_model::TraceId;

use super::{TraceByIdParams, parse_trace_id};
use crate::BadRequest;

/// Which document is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffFormat {
    /// Every change.
    Patch,
    /// Sums per trace and service.
    Summary,
    /// Both, if the patch is small.
    Composed,
}

impl DiffFormat {
    /// As requests and documents name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Patch => "trace-patch-v0",
            Self::Summary => "trace-summary-v0-native",
            Self::Composed => "trace-summary-v0-composed",
        }
    }

    fn parse(name: &str) -> Result<Self, BadRequest> {
        // Empty is the default.
        if name.is_empty() {
            return Ok(Self::Patch);
        }
        let all = [Self::Composed, Self::Patch, Self::Summary];
        let found = all.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| {
            let [composed, patch, summary] = all.map(Self::name);
            BadRequest::new(format!(
                "invalid format {name:?}: must be one of {composed:?}, {patch:?}, {summary:?}"
            ))
        })
    }
}

/// A trace to compare, and where to look for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceToDiff {
    /// Its id.
    pub id: TraceId,
    /// The time it lies in, if that is known.
    pub lookup: TraceByIdParams,
}

/// What is to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceDiffRequest {
    /// What it is compared with.
    pub base: TraceToDiff,
    /// What is compared.
    pub compare: TraceToDiff,
    /// The document to make.
    pub format: DiffFormat,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Body {
    base: BodyTrace,
    compare: BodyTrace,
    format: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct BodyTrace {
    trace_id: String,
    /// Unix seconds.
    start: Option<i64>,
    /// Unix seconds.
    end: Option<i64>,
}

impl TraceDiffRequest {
    /// Reads and checks the body of a request.
    ///
    /// # Errors
    /// When it is not what it should be, in Tempo's words.
    pub fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        let body: Body = serde_json::from_slice(body).map_err(|error| {
            BadRequest::new(format!("invalid trace diff request body: {error}"))
        })?;
        Ok(Self {
            format: DiffFormat::parse(&body.format)?,
            base: body.base.check("base")?,
            compare: body.compare.check("compare")?,
        })
    }
}

impl BodyTrace {
    fn check(self, side: &str) -> Result<TraceToDiff, BadRequest> {
        if self.trace_id.is_empty() {
            return Err(BadRequest::new(format!("{side}.traceId is required")));
        }
        let id = parse_trace_id(&self.trace_id)
            .map_err(|error| BadRequest::new(format!("invalid {side}.traceId: {error}")))?;
        let (start, end) = (self.start, self.end);
        if let (Some(start), Some(end)) = (start, end)
            && end <= start
        {
            return Err(BadRequest::new(format!(
                "{side}.start must be before {side}.end. received start={start} end={end}"
            )));
        }
        Ok(TraceToDiff {
            id,
            lookup: TraceByIdParams { start, end },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_checked_in_tempos_words() {
        for (body, want) in [
            ("{}", "base.traceId is required"),
            (
                r#"{"base":{"traceId":"1"},"compare":{}}"#,
                "compare.traceId is required",
            ),
            (
                r#"{"base":{"traceId":"1","start":10,"end":10},"compare":{"traceId":"2"}}"#,
                "base.start must be before base.end. received start=10 end=10",
            ),
            (
                r#"{"format":"x"}"#,
                r#"invalid format "x": must be one of "trace-summary-v0-composed", "trace-patch-v0", "trace-summary-v0-native""#,
            ),
        ] {
            let error = TraceDiffRequest::parse(body.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), want, "{body}");
        }
        for (body, want) in [
            ("[1", "invalid trace diff request body: "),
            (r#"{"base":{"traceId":"xyz"}}"#, "invalid base.traceId: "),
        ] {
            let error = TraceDiffRequest::parse(body.as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with(want), "{error}");
        }
    }

    #[test]
    fn the_patch_is_the_default_and_times_narrow_the_lookup() {
        let body =
            br#"{"base":{"traceId":"0A","start":1,"end":2},"compare":{"traceId":"b"},"more":1}"#;
        let request = TraceDiffRequest::parse(body).unwrap();
        assert_eq!(request.format, DiffFormat::Patch);
        assert_eq!(request.base.id, TraceId::from_padded(&[10]));
        assert_eq!(request.base.lookup.range(), Some((1, 2)));
        assert_eq!(request.compare.lookup.range(), None);
    }
}
