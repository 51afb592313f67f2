//! The parameters of the tag name and tag value endpoints.

use tempo_proto::tempopb::{SearchTagValuesRequest, SearchTagsRequest};

use super::QueryParams;
use crate::{BadRequest, go::parse_uint};

/// Which names a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagScope {
    /// Every scope, and the intrinsics.
    All,
    /// No attributes at all: traces have none.
    Trace,
    /// `resource.` attributes.
    Resource,
    /// `span.` attributes.
    Span,
    /// `event.` attributes.
    Event,
    /// `link.` attributes.
    Link,
    /// `instrumentation.` attributes.
    Instrumentation,
    /// The fixed names that every span has.
    Intrinsic,
}

impl TagScope {
    /// Reads the `scope` parameter; empty and `none` mean all scopes.
    pub fn parse(scope: &str) -> Result<Self, BadRequest> {
        Ok(match scope {
            "" | "none" => Self::All,
            "trace" => Self::Trace,
            "resource" => Self::Resource,
            "span" => Self::Span,
            "event" => Self::Event,
            "link" => Self::Link,
            "instrumentation" => Self::Instrumentation,
            "intrinsic" => Self::Intrinsic,
            _ => return Err(BadRequest::new(format!("invalid scope: {scope}"))),
        })
    }
}

/// Reads a request for tag names. Limits that are no numbers count as none, as in Tempo; the range
/// is left for the clamp.
pub fn parse_tags_request(params: &QueryParams) -> Result<SearchTagsRequest, BadRequest> {
    let scope = params.get("scope").unwrap_or_default();
    TagScope::parse(scope)?;
    let lenient = |name: &str| {
        params
            .get(name)
            .and_then(|text| parse_uint(text, 32).ok())
            .unwrap_or(0) as u32
    };
    Ok(SearchTagsRequest {
        scope: scope.to_owned(),
        query: params.get("q").unwrap_or_default().to_owned(),
        max_tags_per_scope: lenient("limit"),
        stale_values_threshold: lenient("maxStaleValues"),
        ..SearchTagsRequest::default()
    })
}

/// Reads a request for the values of `tag_name`, which comes from the path; the range is left for
/// the clamp. Whether the name is one that TraceQL knows is the caller's to check.
pub fn parse_tag_values(
    tag_name: &str,
    params: &QueryParams,
) -> Result<SearchTagValuesRequest, BadRequest> {
    if tag_name.is_empty() {
        return Err(BadRequest::new("please provide a non-empty tagName"));
    }
    let strict = |name: &str| match params.get(name) {
        Some(text) => parse_uint(text, 32)
            .map(|value| value as u32)
            .map_err(|error| BadRequest::new(format!("invalid {name}: {error}"))),
        None => Ok(0),
    };
    Ok(SearchTagValuesRequest {
        tag_name: tag_name.to_owned(),
        query: params.get("q").unwrap_or_default().to_owned(),
        max_tag_values: strict("limit")?,
        stale_value_threshold: strict("maxStaleValues")?,
        ..SearchTagValuesRequest::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_take_a_known_scope_and_lenient_limits() {
        let request = parse_tags_request(&QueryParams::parse("scope=span&q={}&limit=x")).unwrap();
        assert_eq!(
            (
                request.scope.as_str(),
                request.query.as_str(),
                request.max_tags_per_scope
            ),
            ("span", "{}", 0)
        );
        assert_eq!(
            parse_tags_request(&QueryParams::parse("scope=parent")),
            Err(BadRequest("invalid scope: parent".to_owned()))
        );
    }

    #[test]
    fn values_take_a_name_and_strict_limits() {
        let parse = |name: &str, query: &str| parse_tag_values(name, &QueryParams::parse(query));
        let request = parse("service.name", "limit=5000&tag=x&maxStaleValues=7").unwrap();
        assert_eq!(
            (request.max_tag_values, request.stale_value_threshold),
            (5000, 7)
        );
        assert_eq!(
            parse("", ""),
            Err(BadRequest("please provide a non-empty tagName".to_owned()))
        );
        assert_eq!(
            parse("a", "limit=x"),
            Err(BadRequest(
                "invalid limit: strconv.ParseUint: parsing \"x\": invalid syntax".to_owned()
            ))
        );
    }
}
