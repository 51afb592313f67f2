//! The HTTP side of the query API.

mod answer;
mod endpoint;
mod mcp;

use std::{future::Future, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
    routing::any,
};
use bytes::Bytes;
use http::{Method, StatusCode, header, request::Parts};
use tempo_api::Encoding;

use crate::{error::QueryError, frontend::Frontend, tenants::Tenants};
use answer::Answer;
use endpoint::{Asked, Endpoint};

const TAG_VALUES_SUFFIX: &str = "/values";

/// The body of a request that has one: two trace ids, and where to look for them.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// The routes. They take any method, as Tempo's do; parameters are read from the URL only.
pub(crate) fn router(frontend: Arc<Frontend>) -> Router {
    let prefix = frontend.config.http_api_prefix.trim_matches('/').to_owned();
    let route = |endpoint: Endpoint| {
        any(
            move |State(frontend): State<Arc<Frontend>>, request: Request| {
                serve(frontend, endpoint, request)
            },
        )
    };
    let routes = Router::new()
        .route("/api/traces/{trace_id}", route(Endpoint::TraceV1))
        .route("/api/v2/traces/diff", route(Endpoint::TraceDiff))
        .route("/api/v2/traces/{trace_id}", route(Endpoint::TraceV2))
        .route("/api/search", route(Endpoint::Search))
        .route("/api/search/tags", route(Endpoint::TagNamesV1))
        .route("/api/v2/search/tags", route(Endpoint::TagNamesV2))
        .route("/api/search/tag/{*name}", route(Endpoint::TagValuesV1))
        .route("/api/v2/search/tag/{*name}", route(Endpoint::TagValuesV2))
        .route("/api/metrics/query_range", route(Endpoint::MetricsRange))
        .route("/api/metrics/query", route(Endpoint::MetricsInstant))
        .route("/api/echo", any(async || "echo\n"))
        .with_state(frontend.clone());
    let routes = if frontend.config.mcp_server_enabled {
        routes.merge(mcp::routes(frontend))
    } else {
        routes
    };
    if prefix.is_empty() {
        routes
    } else {
        Router::new().nest(&format!("/{prefix}"), routes)
    }
}

async fn serve(frontend: Arc<Frontend>, endpoint: Endpoint, request: Request) -> Response {
    let (request, body) = request.into_parts();
    let accept = request
        .headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let accepts_gzip = request
        .headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("gzip"));
    let tenant = request
        .headers
        .get(tempo_model::tenant::ORG_ID_HEADER)
        .map(http::HeaderValue::as_bytes);
    let tenants = match Tenants::of_header(tenant, &frontend.config) {
        Ok(tenants) => tenants,
        Err(error) => return Answer::error(&error).into_response(false),
    };
    // With the API prefix, which the router has cut off: as the client wrote it, and as it stands in
    // the deny list.
    let path_and_query = request.uri.path_and_query();
    let url = frontend.api_path(path_and_query.map_or("/", |path| path.as_str()));
    log_request(&frontend, &request, &url, &tenants);
    let body = match endpoint {
        Endpoint::TraceDiff if request.method == Method::POST => {
            match axum::body::to_bytes(body, MAX_BODY_BYTES).await {
                Ok(body) => body,
                Err(_) => {
                    let text = "http: request body too large";
                    return Answer::text(StatusCode::PAYLOAD_TOO_LARGE, text).into_response(false);
                }
            }
        }
        _ => Bytes::new(),
    };
    let asked = Asked {
        path: request.uri.path(),
        query: request.uri.query().unwrap_or_default(),
        url: &url,
        method: &request.method,
        encoding: Encoding::from_accept(accept),
        body,
    };
    let answered = endpoint.answer(&frontend, &tenants, &asked);
    match within_timeout(&frontend, answered).await {
        Ok(answer) => answer.into_response(accepts_gzip),
        Err(error) => {
            if error.status() == StatusCode::INTERNAL_SERVER_ERROR {
                tracing::error!(tenant = tenants.joined(), url = asked.url, %error, "query failed");
            }
            Answer::error(&error).into_response(accepts_gzip)
        }
    }
}

/// Gives up an answer that takes longer than requests may.
async fn within_timeout<T>(
    frontend: &Frontend,
    answered: impl Future<Output = Result<T, QueryError>>,
) -> Result<T, QueryError> {
    match frontend.config.api_timeout {
        Some(timeout) => tokio::time::timeout(timeout, answered)
            .await
            .unwrap_or(Err(QueryError::ApiTimeout)),
        None => answered.await,
    }
}

fn log_request(frontend: &Frontend, request: &Parts, url: &str, tenants: &Tenants) {
    if frontend.config.log_query_request_headers.is_empty() {
        return;
    }
    let shown: Vec<String> = frontend
        .config
        .log_query_request_headers
        .iter()
        .filter_map(|name| {
            let value = request.headers.get(name)?.to_str().ok()?;
            let name = name.to_ascii_lowercase().replace('-', "_");
            Some(format!("header_{name}={value}"))
        })
        .collect();
    tracing::info!(
        tenant = tenants.joined(),
        url,
        headers = shown.join(" "),
        "query request"
    );
}
