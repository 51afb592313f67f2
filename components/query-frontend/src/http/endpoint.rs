//! One function per endpoint: parameters in, answer out.

use bytes::Bytes;
use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use prost::Message as _;
use tempo_api::{
    BadRequest, Encoding,
    combine::{CombinedTrace, TagNamesCombiner, TagValuesCombiner, with_span_set},
    convert,
    job::JobError,
    json,
    params::{
        QueryParams, TraceByIdParams, TraceDiffRequest, TraceFilterParams, parse_query_instant,
        parse_query_range, parse_search, parse_tag_values, parse_tags_request, parse_trace_id,
    },
};
use tempo_model::{TraceId, otlp::WireError};
use tempo_proto::tempopb::QueryRangeResponse;

use super::{Answer, TAG_VALUES_SUFFIX};
use crate::{
    error::QueryError, frontend::Frontend, metrics::Op, tags::Version, tenants::Tenants,
    trace_filter::TraceFilter,
};

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/protobuf";
const LLM: &str = "application/vnd.grafana.llm";
const LLM_JSON: &str = "application/vnd.grafana.llm+json";

/// The endpoints that ask for data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    TraceV1,
    TraceV2,
    TraceDiff,
    Search,
    TagNamesV1,
    TagNamesV2,
    TagValuesV1,
    TagValuesV2,
    MetricsRange,
    MetricsInstant,
}

/// A request.
pub(super) struct Asked<'a> {
    /// Still escaped; without the API prefix.
    pub(super) path: &'a str,
    /// Still escaped.
    pub(super) query: &'a str,
    pub(super) url: &'a str,
    pub(super) method: &'a Method,
    pub(super) encoding: Encoding,
    /// Empty unless it is a `POST` of a trace diff.
    pub(super) body: Bytes,
}

type Answered = Result<Answer, QueryError>;

impl Endpoint {
    pub(super) async fn answer(
        self,
        frontend: &Frontend,
        tenants: &Tenants,
        asked: &Asked<'_>,
    ) -> Answered {
        match self {
            Self::TraceV1 => trace_v1(frontend, tenants, asked).await,
            Self::TraceV2 => trace_v2(frontend, tenants, asked).await,
            Self::TraceDiff => trace_diff(frontend, tenants, asked).await,
            Self::Search => search(frontend, tenants, asked).await,
            Self::TagNamesV1 => tag_names(frontend, tenants, asked, Version::V1).await,
            Self::TagNamesV2 => tag_names(frontend, tenants, asked, Version::V2).await,
            Self::TagValuesV1 => tag_values(frontend, tenants, asked, Version::V1).await,
            Self::TagValuesV2 => tag_values(frontend, tenants, asked, Version::V2).await,
            Self::MetricsRange => metrics_range(frontend, tenants, asked).await,
            Self::MetricsInstant => metrics_instant(frontend, tenants, asked).await,
        }
    }
}

/// The trace id at the end of the path.
fn trace_id(path: &str) -> Result<TraceId, BadRequest> {
    let text = path.rsplit('/').next().unwrap_or_default();
    parse_trace_id(&percent_decode_str(text).decode_utf8_lossy())
}

fn unreadable(error: WireError) -> QueryError {
    QueryError::Job(JobError::Failed(format!(
        "stored trace is not readable: {error}"
    )))
}

async fn trace_v1(frontend: &Frontend, tenants: &Tenants, asked: &Asked<'_>) -> Answered {
    let accounting = frontend.account(tenants, Op::Traces);
    let result = async {
        let id = trace_id(asked.path)?;
        let params = TraceByIdParams::parse(&QueryParams::parse(asked.query))?;
        let found = frontend
            .find_trace(tenants, id, params, false, asked.url)
            .await?;
        let Some(found) = found else {
            return Ok((Answer::text(StatusCode::NOT_FOUND, ""), 0));
        };
        let answer = match asked.encoding {
            Encoding::Protobuf => Answer::ok(PROTOBUF, found.trace),
            Encoding::Json => Answer::ok(JSON, json::trace_v1(&found.trace).map_err(unreadable)?),
            Encoding::Llm => Answer::ok(LLM, json::trace_v1(&found.trace).map_err(unreadable)?),
        };
        Ok((answer, found.inspected_bytes))
    }
    .await;
    accounting.end(result.as_ref().map(|(_, bytes)| *bytes));
    result.map(|(answer, _)| answer)
}

async fn trace_v2(frontend: &Frontend, tenants: &Tenants, asked: &Asked<'_>) -> Answered {
    let accounting = frontend.account(tenants, Op::Traces);
    let result = async {
        let id = trace_id(asked.path)?;
        let params = QueryParams::parse(asked.query);
        let lookup = TraceByIdParams::parse(&params)?;
        let filter = match TraceFilterParams::parse(&params)? {
            Some(filter) => {
                frontend.check_query_size(&filter.query)?;
                Some(TraceFilter::new(filter)?)
            }
            None => None,
        };
        let mut found = frontend
            .find_trace(tenants, id, lookup, true, asked.url)
            .await?
            .unwrap_or_default();
        if let Some(filter) = filter {
            found = filter.apply(found).await?;
        }
        let answer = encode_trace_v2(&found, asked.encoding)?;
        Ok((answer, found.inspected_bytes))
    }
    .await;
    accounting.end(result.as_ref().map(|(_, bytes)| *bytes));
    result.map(|(answer, _)| answer)
}

fn encode_trace_v2(found: &CombinedTrace, encoding: Encoding) -> Answered {
    Ok(match encoding {
        Encoding::Protobuf => Answer::ok(PROTOBUF, found.to_response()),
        Encoding::Json => Answer::ok(JSON, json::trace_v2(found).map_err(unreadable)?),
        Encoding::Llm => Answer::ok(LLM_JSON, json::trace_llm(found).map_err(unreadable)?),
    })
}

async fn trace_diff(frontend: &Frontend, tenants: &Tenants, asked: &Asked<'_>) -> Answered {
    if asked.method != Method::POST {
        return Ok(Answer::text(
            StatusCode::METHOD_NOT_ALLOWED,
            "Method Not Allowed",
        ));
    }
    let accounting = frontend.account(tenants, Op::Traces);
    let result = async {
        let request = TraceDiffRequest::parse(&asked.body)?;
        frontend.diff_traces(tenants, request, asked.url).await
    }
    .await;
    accounting.end(result.as_ref().map(|(_, bytes)| *bytes));
    result.map(|(document, _)| Answer::ok(JSON, document))
}

async fn search(frontend: &Frontend, tenants: &Tenants, asked: &Asked<'_>) -> Answered {
    let accounting = frontend.account(tenants, Op::Search);
    let result = async {
        let params = QueryParams::parse(asked.query);
        frontend.check_query_size(params.get("q").unwrap_or_default())?;
        let request = parse_search(&params, frontend.config.search.default_spans_per_span_set)?;
        let query = frontend.search(tenants, request, &params, asked.url)?;
        Ok::<_, QueryError>(query.finish().await?.found.into_found())
    }
    .await;
    accounting.end(result.as_ref().map(|response| {
        response
            .metrics
            .as_ref()
            .map_or(0, |metrics| metrics.inspected_bytes)
    }));
    result.map(|response| match asked.encoding {
        Encoding::Protobuf => Answer::ok(PROTOBUF, with_span_set(response).encode_to_vec()),
        Encoding::Json | Encoding::Llm => Answer::ok(JSON, json::search(&response)),
    })
}

async fn tag_names(
    frontend: &Frontend,
    tenants: &Tenants,
    asked: &Asked<'_>,
    version: Version,
) -> Answered {
    let accounting = frontend.account(tenants, Op::Metadata);
    let result = async {
        let params = QueryParams::parse(asked.query);
        let request = parse_tags_request(&params)?;
        let query = frontend.tag_names(tenants, request, &params, asked.url, version)?;
        Ok::<_, QueryError>(query.finish().await?.finish())
    }
    .await;
    accounting.end(result.as_ref().map(|response| {
        response
            .metrics
            .as_ref()
            .map_or(0, |metrics| metrics.inspected_bytes)
    }));
    let response = result?;
    Ok(match (version, asked.encoding) {
        (Version::V1, encoding) => {
            let response = TagNamesCombiner::flatten(response);
            if encoding == Encoding::Protobuf {
                Answer::ok(PROTOBUF, response.encode_to_vec())
            } else {
                Answer::ok(JSON, json::tag_names_v1(&response))
            }
        }
        (Version::V2, Encoding::Protobuf) => Answer::ok(PROTOBUF, response.encode_to_vec()),
        (Version::V2, _) => Answer::ok(JSON, json::tag_names_v2(&response)),
    })
}

/// The tag name between the route and its suffix, unescaped once. It may hold slashes.
fn tag_name(path: &str, version: Version) -> Option<String> {
    let route = match version {
        Version::V1 => "/api/search/tag/",
        Version::V2 => "/api/v2/search/tag/",
    };
    let name = path.strip_prefix(route)?.strip_suffix(TAG_VALUES_SUFFIX)?;
    Some(percent_decode_str(name).decode_utf8_lossy().into_owned())
}

async fn tag_values(
    frontend: &Frontend,
    tenants: &Tenants,
    asked: &Asked<'_>,
    version: Version,
) -> Answered {
    let Some(name) = tag_name(asked.path, version) else {
        return Ok(Answer::text(StatusCode::NOT_FOUND, "404 page not found\n"));
    };
    let accounting = frontend.account(tenants, Op::Metadata);
    let result = async {
        let params = QueryParams::parse(asked.query);
        let request = parse_tag_values(&name, &params)?;
        let query = frontend.tag_values(tenants, request, &params, asked.url, version)?;
        Ok::<_, QueryError>(query.finish().await?.finish())
    }
    .await;
    accounting.end(result.as_ref().map(|response| {
        response
            .metrics
            .as_ref()
            .map_or(0, |metrics| metrics.inspected_bytes)
    }));
    let response = result?;
    Ok(match (version, asked.encoding) {
        (Version::V1, encoding) => {
            let response = TagValuesCombiner::flatten(response);
            if encoding == Encoding::Protobuf {
                Answer::ok(PROTOBUF, response.encode_to_vec())
            } else {
                Answer::ok(JSON, json::tag_values_v1(&response))
            }
        }
        (Version::V2, Encoding::Protobuf) => Answer::ok(PROTOBUF, response.encode_to_vec()),
        (Version::V2, Encoding::Json) => Answer::ok(JSON, json::tag_values_v2(&response)),
        (Version::V2, Encoding::Llm) => Answer::ok(LLM_JSON, json::tag_values_llm(&response)),
    })
}

async fn metrics_range(frontend: &Frontend, tenants: &Tenants, asked: &Asked<'_>) -> Answered {
    let accounting = frontend.account(tenants, Op::Metrics);
    let result = async {
        let params = QueryParams::parse(asked.query);
        let request = parse_query_range(&params, frontend.now_nanos())?;
        let query = frontend.query_range(tenants, request, asked.url)?;
        Ok::<_, QueryError>(query.finish().await?.finish())
    }
    .await;
    accounting.end(result.as_ref().map(inspected_by_range));
    result.map(|response| Answer::ok(JSON, json::query_range(&response)))
}

async fn metrics_instant(frontend: &Frontend, tenants: &Tenants, asked: &Asked<'_>) -> Answered {
    let accounting = frontend.account(tenants, Op::Metrics);
    let result = async {
        let params = QueryParams::parse(asked.query);
        let request = parse_query_instant(&params, frontend.now_nanos())?;
        let query = frontend.query_instant(tenants, request, asked.url)?;
        Ok::<_, QueryError>(query.finish().await?.finish())
    }
    .await;
    accounting.end(result.as_ref().map(inspected_by_range));
    result.map(|response| {
        let response = convert::instant_response(response);
        Answer::ok(JSON, json::query_instant(&response))
    })
}

fn inspected_by_range(response: &QueryRangeResponse) -> u64 {
    response
        .metrics
        .as_ref()
        .map_or(0, |metrics| metrics.inspected_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_names_are_unescaped_once_and_may_hold_slashes() {
        for (path, want) in [
            ("/api/v2/search/tag/span.a/values", Some("span.a")),
            ("/api/v2/search/tag/a/b/values", Some("a/b")),
            ("/api/v2/search/tag/a%2Fb%2541/values", Some("a/b%41")),
            ("/api/v2/search/tag/values/values", Some("values")),
            ("/api/v2/search/tag/a", None),
        ] {
            assert_eq!(tag_name(path, Version::V2).as_deref(), want, "{path}");
        }
    }

    #[test]
    fn trace_ids_are_the_last_part_of_the_path() {
        assert_eq!(trace_id("/api/traces/0A"), Ok(TraceId::from_padded(&[10])));
        assert!(trace_id("/api/v2/traces/xyz").is_err());
    }
}
