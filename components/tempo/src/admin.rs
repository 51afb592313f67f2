//! The endpoints that every process has beside its components': readiness, metrics, status pages,
//! build information, and the flush of what a live-store holds.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::{any, get, post},
};
use futures::future::BoxFuture;
use prometheus::Registry;
use serde_json::json;
use tempo_backend::Timestamp;
use tempo_overrides::Overrides;
use tempo_runtime::{health::Board, metrics};

use crate::version::{REVISION, VERSION};

/// Flushes everything that is held; `Err` says what is left and why.
pub(crate) type Flush = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What the endpoints show.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) board: Board,
    pub(crate) registry: Registry,
    /// The configuration in force, without secrets.
    pub(crate) config: Arc<ConfigPages>,
    pub(crate) overrides: Overrides,
    /// Present where a live-store runs.
    pub(crate) flush: Option<Flush>,
    /// `http_api_prefix`, without a slash at its end.
    pub(crate) prefix: String,
}

/// The three modes of `/status/config`.
pub(crate) struct ConfigPages {
    pub(crate) current: String,
    pub(crate) diff: String,
    pub(crate) defaults: String,
}

/// Paths and what they are for, as `/status/endpoints` lists them.
const ENDPOINTS: &[(&str, &str)] = &[
    ("/ready", "200 when this process can do its work"),
    ("/metrics", "Prometheus metrics"),
    (
        "/flush",
        "POST: complete and upload all that is held; answers when the store has it",
    ),
    ("/status", "all status pages, one after another"),
    ("/status/version", "version"),
    ("/status/services", "components and their states"),
    ("/status/endpoints", "this list"),
    (
        "/status/config",
        "configuration in force; ?mode=diff or ?mode=defaults",
    ),
    ("/status/runtime_config", "the file of limits per tenant"),
    ("/status/overrides", "tenants with limits of their own"),
    ("/status/overrides/{tenant}", "limits of a tenant"),
    (
        "/partition-ring",
        "partitions, states and owners; POST changes a state (processes that gossip)",
    ),
    ("/memberlist", "who gossips (processes that gossip)"),
    (
        "/live-store/prepare-partition-downscale",
        "GET, POST, DELETE: take the partition of a live-store out of use, or back",
    ),
    (
        "/live-store/prepare-downscale",
        "GET, POST, DELETE: say that a live-store will not come back",
    ),
    ("/api/status/buildinfo", "version as JSON"),
    ("/api/echo", "answers echo"),
    (
        "/api/overrides",
        "GET, POST, PATCH, DELETE: what a tenant sets itself (query-frontend, overrides-api)",
    ),
    ("/api/traces/{traceID}", "trace by id"),
    ("/api/v2/traces/{traceID}", "trace by id, with status"),
    ("/api/search", "search with TraceQL or tags"),
    ("/api/search/tags", "tag names"),
    ("/api/v2/search/tags", "tag names by scope"),
    ("/api/search/tag/{tagName}/values", "tag values"),
    (
        "/api/v2/search/tag/{tagName}/values",
        "tag values with types",
    ),
];

/// The routes; mounted beside those of the components.
pub(crate) fn router(admin: Admin) -> Router {
    let buildinfo = format!("{}/api/status/buildinfo", admin.prefix);
    Router::new()
        .route("/ready", any(ready))
        .route("/metrics", any(metrics_page))
        .route("/flush", post(flush))
        .route("/status", get(all_pages))
        .route("/status/overrides", get(tenants_page))
        .route("/status/overrides/{tenant}", get(tenant_page))
        .route("/status/{page}", get(page))
        .route(&buildinfo, get(build_info))
        .with_state(admin)
}

fn text(status: StatusCode, body: String) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        body,
    )
        .into_response()
}

async fn ready(State(admin): State<Admin>) -> Response {
    match admin.board.ready() {
        Ok(()) => text(StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn metrics_page(State(admin): State<Admin>) -> Response {
    match metrics::render(&admin.registry) {
        Ok(page) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], page).into_response(),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

async fn flush(State(admin): State<Admin>) -> Response {
    let Some(flush) = &admin.flush else {
        return text(
            StatusCode::NOT_FOUND,
            "no live-store runs in this process\n".to_owned(),
        );
    };
    match flush().await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(reason) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}\n")),
    }
}

async fn build_info() -> Response {
    Json(json!({
        "version": VERSION,
        "revision": REVISION,
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    }))
    .into_response()
}

#[derive(serde::Deserialize)]
struct Mode {
    #[serde(default)]
    mode: String,
}

async fn page(
    State(admin): State<Admin>,
    Path(page): Path<String>,
    Query(Mode { mode }): Query<Mode>,
) -> Response {
    match render(&admin, &page, &mode) {
        Some(Ok(body)) => text(StatusCode::OK, body),
        Some(Err(reason)) => text(StatusCode::INTERNAL_SERVER_ERROR, reason),
        None => text(StatusCode::NOT_FOUND, format!("no page /status/{page}\n")),
    }
}

fn now() -> String {
    Timestamp::now().to_string()
}

fn wants_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"))
}

async fn tenants_page(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let page = admin.overrides.tenants_page(now());
    if wants_json(&headers) {
        Json(page).into_response()
    } else {
        Html(page.to_html()).into_response()
    }
}

async fn tenant_page(
    State(admin): State<Admin>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
) -> Response {
    let page = admin.overrides.tenant_page(&tenant, now());
    if wants_json(&headers) {
        Json(page).into_response()
    } else {
        Html(page.to_html()).into_response()
    }
}

async fn all_pages(State(admin): State<Admin>) -> Response {
    let mut body = String::new();
    for page in [
        "version",
        "services",
        "endpoints",
        "runtime_config",
        "config",
    ] {
        if let Some(Ok(content)) = render(&admin, page, "") {
            body.push_str(&format!("GET /status/{page}\n{content}\n"));
        }
    }
    text(StatusCode::OK, body)
}

fn render(admin: &Admin, page: &str, mode: &str) -> Option<Result<String, String>> {
    Some(match page {
        "version" => Ok(format!("{}\n", crate::version::text())),
        "services" => Ok(table(
            &["service", "status"],
            admin
                .board
                .services()
                .into_iter()
                .map(|(name, state)| [name, state.to_string()]),
        )),
        "endpoints" => Ok(table(
            &["endpoint", "purpose"],
            ENDPOINTS.iter().map(|(path, purpose)| {
                let prefix = if path.starts_with("/api") {
                    admin.prefix.as_str()
                } else {
                    ""
                };
                [format!("{prefix}{path}"), (*purpose).to_owned()]
            }),
        )),
        "config" => match mode {
            "" => Ok(format!("---\n{}", admin.config.current)),
            "diff" => Ok(format!("---\n{}", admin.config.diff)),
            "defaults" => Ok(format!("---\n{}", admin.config.defaults)),
            other => Err(format!("unknown value for mode query parameter: {other}")),
        },
        "runtime_config" => Ok(format!("---\n{}", admin.overrides.runtime_yaml())),
        _ => return None,
    })
}

fn table(head: &[&str; 2], rows: impl Iterator<Item = [String; 2]>) -> String {
    let rows: Vec<[String; 2]> = rows.collect();
    let width = rows
        .iter()
        .map(|row| row[0].len())
        .chain([head[0].len()])
        .max()
        .unwrap_or(0);
    let mut out = format!("{:width$}  {}\n", head[0], head[1]);
    for [first, second] in rows {
        out.push_str(&format!("{first:width$}  {second}\n"));
    }
    out
}
