//! The parameters of `/api/search`, and what an old `tags` search means in TraceQL.

use std::collections::BTreeMap;

use tempo_proto::tempopb::SearchRequest;
use tempo_traceql::duration;

use super::{QueryParams, parse_tags};
use crate::{
    BadRequest,
    go::{parse_uint, quote},
};

/// Reads a search. A limit that is not given is 0; start and end are as written (0 when absent)
/// and still to be clamped.
///
/// Tempo also reads unknown parameters as tags, but only of requests without a range, and none
/// reaches its search without one: they restrict nothing, there as here.
pub fn parse_search(
    params: &QueryParams,
    default_spans_per_span_set: u32,
) -> Result<SearchRequest, BadRequest> {
    let number = |name: &str| {
        params
            .get(name)
            .map(|text| {
                parse_uint(text, 32)
                    .map(|value| value as u32)
                    .map_err(|error| BadRequest::new(format!("invalid {name}: {error}")))
            })
            .transpose()
    };
    let mut request = SearchRequest {
        start: number("start")?.unwrap_or(0),
        end: number("end")?.unwrap_or(0),
        query: params.get("q").unwrap_or_default().to_owned(),
        ..SearchRequest::default()
    };
    if let Some(tags) = params.get("tags") {
        if !request.query.is_empty() {
            return Err(BadRequest::new(
                "invalid request: can't specify tags and q in the same query",
            ));
        }
        request.tags = parse_tags(tags)?;
    }
    if let Some(text) = params.get("minDuration") {
        request.min_duration_ms = duration_ms("minDuration", text)?;
    }
    if let Some(text) = params.get("maxDuration") {
        request.max_duration_ms = duration_ms("maxDuration", text)?;
        if request.min_duration_ms != 0 && request.min_duration_ms > request.max_duration_ms {
            return Err(BadRequest::new(
                "invalid maxDuration: must be greater than minDuration",
            ));
        }
    }
    if let Some(limit) = number("limit")? {
        if limit == 0 {
            return Err(BadRequest::new("invalid limit: must be a positive number"));
        }
        request.limit = limit;
    }
    request.spans_per_span_set = number("spss")?.unwrap_or(default_spans_per_span_set);
    request.skip_ast_transformations = comma_separated(params.get("skip_ast_transformations"));
    if (request.start, request.end) != (0, 0) && request.end <= request.start {
        return Err(BadRequest::new(format!(
            "http parameter start must be before end. received start={} end={}",
            request.start, request.end
        )));
    }
    Ok(request)
}

/// A Go duration in whole milliseconds, in the width of the message field.
fn duration_ms(name: &str, text: &str) -> Result<u32, BadRequest> {
    let nanos = duration::parse_go(text)
        .map_err(|error| BadRequest::new(format!("invalid {name}: {error}")))?;
    u32::try_from(nanos / 1_000_000).map_err(|_| {
        BadRequest::new(format!(
            "invalid {name}: {text} is not between 0 and {}ms",
            u32::MAX
        ))
    })
}

/// The names of a comma-separated list, trimmed, without empty ones.
pub(super) fn comma_separated(list: Option<&str>) -> Vec<String> {
    list.unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The limit that counts: the default for 0, an error above `max` (which is off when 0).
pub fn resolve_limit(limit: u32, default: u32, max: u32) -> Result<u32, BadRequest> {
    match limit {
        0 => Ok(default),
        _ if max != 0 && limit > max => Err(BadRequest::new(format!(
            "limit {limit} exceeds max limit {max}"
        ))),
        _ => Ok(limit),
    }
}

/// How an old search matches a tag.
enum TagMatch {
    /// A column that it matches by a part of the text, as the TraceQL name.
    Contains(&'static str),
    /// The status.
    Status,
    /// An integer if the value is one.
    HttpStatusCode,
    /// A resource or span attribute with exactly this text.
    Attribute,
}

fn tag_match(tag: &str) -> TagMatch {
    TagMatch::Contains(match tag {
        "root.service.name" => "rootServiceName",
        "root.name" => "rootName",
        "name" => "name",
        "service.name" => "resource.service.name",
        "cluster" => "resource.cluster",
        "namespace" => "resource.namespace",
        "pod" => "resource.pod",
        "container" => "resource.container",
        "k8s.cluster.name" => "resource.k8s.cluster.name",
        "k8s.namespace.name" => "resource.k8s.namespace.name",
        "k8s.pod.name" => "resource.k8s.pod.name",
        "k8s.container.name" => "resource.k8s.container.name",
        "http.method" => "span.http.method",
        "http.url" => "span.http.url",
        "http.status_code" => return TagMatch::HttpStatusCode,
        "status.code" => return TagMatch::Status,
        _ => return TagMatch::Attribute,
    })
}

/// The TraceQL of a search: its own query, or what its tags and durations mean.
///
/// An old search finds traces in which every tag is satisfied somewhere, not necessarily by the
/// same span, hence one spanset filter per tag. Its answers carry no span sets.
pub fn trace_query(request: &SearchRequest) -> String {
    if !request.query.is_empty() {
        return request.query.clone();
    }
    let sorted: BTreeMap<_, _> = request.tags.iter().collect();
    let mut filters: Vec<String> = sorted
        .into_iter()
        .map(|(tag, value)| tag_filter(tag, value))
        .collect();
    if request.min_duration_ms > 0 {
        filters.push(format!(
            "{{ traceDuration >= {}ms }}",
            request.min_duration_ms
        ));
    }
    if request.max_duration_ms > 0 {
        filters.push(format!(
            "{{ traceDuration <= {}ms }}",
            request.max_duration_ms
        ));
    }
    if filters.is_empty() {
        filters.push("{ }".to_owned());
    }
    filters.join(" && ")
}

fn tag_filter(tag: &str, value: &str) -> String {
    match tag_match(tag) {
        TagMatch::Contains(name) => {
            let pattern = format!("(?s).*{}.*", escape_pattern(value));
            format!("{{ {name} =~ {} }}", quote(&pattern))
        }
        TagMatch::Status => {
            let status = match value {
                "ok" | "error" => value,
                _ => "unset",
            };
            format!("{{ status = {status} }}")
        }
        TagMatch::HttpStatusCode if value.parse::<i64>().is_ok() => {
            format!("{{ span.http.status_code = {value} }}")
        }
        TagMatch::HttpStatusCode | TagMatch::Attribute => {
            let (tag, value) = (quote(tag), quote(value));
            format!("{{ span.{tag} = {value} || resource.{tag} = {value} }}")
        }
    }
}

/// Escapes what has a meaning in a regular expression.
fn escape_pattern(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<SearchRequest, String> {
        parse_search(&QueryParams::parse(query), 3).map_err(|error| error.0)
    }

    #[test]
    fn searches_are_read() {
        let plain = SearchRequest {
            spans_per_span_set: 3,
            ..SearchRequest::default()
        };
        let foo = [("service.name".to_owned(), "foo".to_owned())];
        let cases = [
            ("", plain.clone()),
            ("start=0&end=0", plain.clone()),
            (
                "limit=10",
                SearchRequest {
                    limit: 10,
                    ..plain.clone()
                },
            ),
            (
                "minDuration=10s&maxDuration=10s",
                SearchRequest {
                    min_duration_ms: 10_000,
                    max_duration_ms: 10_000,
                    ..plain.clone()
                },
            ),
            (
                "q=%7B%20.foo%3D%22bar%22%20%7D&spss=7",
                SearchRequest {
                    query: "{ .foo=\"bar\" }".to_owned(),
                    spans_per_span_set: 7,
                    ..plain.clone()
                },
            ),
            (
                "service.name=bar&tags=service.name%3Dfoo&start=10&end=20",
                SearchRequest {
                    tags: foo.into(),
                    start: 10,
                    end: 20,
                    ..plain.clone()
                },
            ),
            (
                "spss=0&skip_ast_transformations=b,%20a,,",
                SearchRequest {
                    spans_per_span_set: 0,
                    skip_ast_transformations: vec!["b".to_owned(), "a".to_owned()],
                    ..plain
                },
            ),
        ];
        for (query, want) in cases {
            assert_eq!(parse(query), Ok(want), "{query}");
        }
    }

    #[test]
    fn bad_searches_are_refused_with_tempos_words() {
        for (query, want) in [
            ("limit=0", "invalid limit: must be a positive number"),
            (
                "limit=-5",
                "invalid limit: strconv.ParseUint: parsing \"-5\": invalid syntax",
            ),
            (
                "limit=4294967298",
                "invalid limit: strconv.ParseUint: parsing \"4294967298\": value out of range",
            ),
            (
                "start=20&end=10",
                "http parameter start must be before end. received start=20 end=10",
            ),
            (
                "start=10",
                "http parameter start must be before end. received start=10 end=0",
            ),
            (
                "start=1571332130000000000&end=2",
                "invalid start: strconv.ParseUint: parsing \"1571332130000000000\": value out of range",
            ),
            (
                "minDuration=10seconds",
                "invalid minDuration: time: unknown unit \"seconds\" in duration \"10seconds\"",
            ),
            (
                "minDuration=20s&maxDuration=5s",
                "invalid maxDuration: must be greater than minDuration",
            ),
            (
                "minDuration=-1s",
                "invalid minDuration: -1s is not between 0 and 4294967295ms",
            ),
            (
                "q={}&tags=a=b",
                "invalid request: can't specify tags and q in the same query",
            ),
            (
                "tags=service.name%3D%22foo%20bar",
                "invalid tags: unterminated quoted value at pos 22",
            ),
            (
                "spss=four",
                "invalid spss: strconv.ParseUint: parsing \"four\": invalid syntax",
            ),
        ] {
            assert_eq!(parse(query), Err(want.to_owned()), "{query}");
        }
    }

    #[test]
    fn limits_have_a_default_and_a_ceiling() {
        assert_eq!(resolve_limit(0, 20, 100), Ok(20));
        assert_eq!(resolve_limit(100, 20, 100), Ok(100));
        assert_eq!(resolve_limit(500, 20, 0), Ok(500));
        assert_eq!(
            resolve_limit(101, 20, 100),
            Err(BadRequest("limit 101 exceeds max limit 100".to_owned()))
        );
    }

    #[test]
    fn old_searches_become_traceql() {
        let request = |tags: &[(&str, &str)], min, max| SearchRequest {
            tags: tags
                .iter()
                .map(|(tag, value)| ((*tag).to_owned(), (*value).to_owned()))
                .collect(),
            min_duration_ms: min,
            max_duration_ms: max,
            ..SearchRequest::default()
        };
        for (request, want) in [
            (request(&[], 0, 0), "{ }"),
            (
                request(&[("service.name", "a.b")], 0, 0),
                r#"{ resource.service.name =~ "(?s).*a\\.b.*" }"#,
            ),
            (
                request(&[("foo", "b\"r"), ("status.code", "error")], 100, 2_000),
                "{ span.\"foo\" = \"b\\\"r\" || resource.\"foo\" = \"b\\\"r\" } && \
                 { status = error } && { traceDuration >= 100ms } && { traceDuration <= 2000ms }",
            ),
            (
                request(&[("http.status_code", "500")], 0, 0),
                "{ span.http.status_code = 500 }",
            ),
        ] {
            assert_eq!(trace_query(&request), want);
        }
    }
}
