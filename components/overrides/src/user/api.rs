//! `/api/overrides`: a tenant reads, writes, patches and removes its own document.
//!
//! Paths, parameters, status codes and texts are Tempo's. Unlike there, a write carries its
//! condition to the store, local folders have versions too, and a patch that lost a race is tried
//! again.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::Value;
use tempo_backend::ObjectVersion;
use tempo_config::blocks::user_overrides::UserOverrides;
use tempo_model::tenant::{self, ORG_ID_HEADER, SINGLE_TENANT, TenantError};

use super::{
    UserStore, merge,
    store::{MAX_DOCUMENT_BYTES, Stored, problems},
};
use crate::{Error, Overrides, rules};

/// How often a patch is put on the document anew, when someone else has changed it meanwhile.
const MAX_PATCH_ATTEMPTS: usize = 5;

/// Settings of the API.
#[derive(Debug, Clone, Default)]
pub struct ApiConfig {
    /// `http_api_prefix`.
    pub http_api_prefix: String,
    /// `multitenancy_enabled`: whether requests name their tenant.
    pub multitenancy_enabled: bool,
    /// `overrides.user_configurable_overrides.api.check_for_conflicting_runtime_overrides`.
    pub check_for_conflicting_runtime_overrides: bool,
    /// Names of `distributor.forwarders`.
    pub forwarders: BTreeSet<String>,
}

struct Api {
    overrides: Overrides,
    store: UserStore,
    config: ApiConfig,
}

impl Overrides {
    /// The API by which tenants set overrides themselves; none where they cannot.
    pub fn api(&self, config: ApiConfig) -> Option<Router> {
        let store = self.user_store()?.clone();
        let prefix = config.http_api_prefix.trim_matches('/');
        let path = match prefix {
            "" => "/api/overrides".to_owned(),
            prefix => format!("/{prefix}/api/overrides"),
        };
        let methods = get(read).post(write).patch(patch).delete(remove);
        let api = Arc::new(Api {
            overrides: self.clone(),
            store,
            config,
        });
        let routes = Router::new().route(&path, methods);
        Some(
            routes
                .layer(DefaultBodyLimit::max(MAX_DOCUMENT_BYTES))
                .with_state(api),
        )
    }
}

/// An answer other than success.
enum Refusal {
    /// Nothing is stored; the body is empty.
    NothingStored,
    /// With this text.
    Because(StatusCode, String),
}

impl Refusal {
    fn bad(text: impl Into<String>) -> Self {
        Self::Because(StatusCode::BAD_REQUEST, text.into())
    }

    fn version_mismatch() -> Self {
        let text = "version does not match".to_owned();
        Self::Because(StatusCode::PRECONDITION_FAILED, text)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        tracing::error!(%error, "request for user-configurable overrides failed");
        Self::Because(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::NothingStored => StatusCode::NOT_FOUND.into_response(),
            Self::Because(status, text) => (status, format!("{text}\n")).into_response(),
        }
    }
}

type Answer = Result<Response, Refusal>;

type Parameters = Query<Vec<(String, String)>>;

/// The first value of a parameter.
fn parameter<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a str> {
    let mut all = parameters.iter();
    all.find_map(|(found, value)| (found == name).then_some(value.as_str()))
}

async fn read(State(api): State<Arc<Api>>, parameters: Parameters, headers: HeaderMap) -> Answer {
    let tenant = api.tenant(&headers)?;
    let is_merged = match parameter(&parameters, "scope") {
        None | Some("api") => false,
        Some("merged") => true,
        Some(other) => {
            return Err(Refusal::bad(format!(
                "unknown scope \"{other}\", valid options are api and merged"
            )));
        }
    };
    let stored = api.store.get(&tenant).await?;
    let Stored { document, version } = stored.ok_or(Refusal::NothingStored)?;
    let document = if is_merged {
        merge::merged_document(&api.overrides.tenant(&tenant))
    } else {
        document
    };
    Ok(document_answer(&document, &version))
}

async fn write(
    State(api): State<Arc<Api>>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let tenant = api.tenant(&headers)?;
    let expected = expected_version(&headers)?;
    let skip_check = skips_check(&parameters)?;
    let document = parse(&parse_json(&body)?)?;
    let _exclusive = api.store.exclusive().await;
    let version = match api
        .set(&tenant, document, expected.as_ref(), skip_check)
        .await?
    {
        Some(version) => version,
        None => return Err(Refusal::version_mismatch()),
    };
    Ok(([(header::ETAG, etag(&version))], ()).into_response())
}

async fn patch(
    State(api): State<Arc<Api>>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let tenant = api.tenant(&headers)?;
    let skip_check = skips_check(&parameters)?;
    let patch = parse_json(&body)?;
    let _exclusive = api.store.exclusive().await;
    for _ in 0..MAX_PATCH_ATTEMPTS {
        let (mut json, expected) = match api.store.get(&tenant).await? {
            Some(Stored { document, version }) => {
                (parse_json(document.to_json().as_bytes())?, Some(version))
            }
            None => (Value::Null, None),
        };
        merge_patch(&mut json, &patch);
        let document = parse(&json)?;
        let set = api.set(&tenant, document.clone(), expected.as_ref(), skip_check);
        if let Some(version) = set.await? {
            return Ok(document_answer(&document, &version));
        }
    }
    Err(Refusal::Because(
        StatusCode::INTERNAL_SERVER_ERROR,
        "overrides have been modified during request processing, try again".to_owned(),
    ))
}

async fn remove(State(api): State<Arc<Api>>, headers: HeaderMap) -> Answer {
    let tenant = api.tenant(&headers)?;
    // "0", the version of what does not exist, is none of what does.
    let expected = expected_version(&headers)?.unwrap_or_else(|| ObjectVersion::new("0"));
    let _exclusive = api.store.exclusive().await;
    match api.store.delete(&tenant, &expected).await {
        Ok(()) => {}
        Err(tempo_backend::Error::VersionMismatch { .. }) => {
            return Err(Refusal::version_mismatch());
        }
        Err(error) => return Err(Error::from(error).into()),
    }
    tracing::info!(tenant, "user-configurable overrides removed");
    api.overrides.set_user_overrides(&tenant, None);
    Ok(StatusCode::OK.into_response())
}

impl Api {
    /// The one tenant that a request names.
    fn tenant(&self, headers: &HeaderMap) -> Result<String, Refusal> {
        if !self.config.multitenancy_enabled {
            return Ok(SINGLE_TENANT.to_owned());
        }
        let named = headers
            .get(ORG_ID_HEADER)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| {
                let text = TenantError::Missing.to_string();
                Refusal::Because(StatusCode::UNAUTHORIZED, text)
            })?;
        let named = String::from_utf8_lossy(named.as_bytes());
        tenant::parse_single(&named).map_err(|error| Refusal::bad(error.to_string()))
    }

    /// Checks a document and writes it; none when the stored version is another than expected.
    /// From then on it counts in this process; in others from their next look.
    async fn set(
        &self,
        tenant: &str,
        document: UserOverrides,
        expected: Option<&ObjectVersion>,
        skip_check: bool,
    ) -> Result<Option<ObjectVersion>, Refusal> {
        rules::check_document(&document, &self.config.forwarders).map_err(Refusal::bad)?;
        if self.config.check_for_conflicting_runtime_overrides
            && !skip_check
            && self.store.get(tenant).await?.is_none()
            && merge::conflicts(&self.overrides.runtime_of(tenant).0)
        {
            return Err(Refusal::bad(
                "tenant has conflicting overrides set in runtime config, contact your system administrator to perform changes through the API",
            ));
        }
        match self.store.set(tenant, &document, expected).await {
            Ok(version) => {
                tracing::info!(
                    tenant,
                    version = version.as_str(),
                    overrides = document.to_json(),
                    "user-configurable overrides stored"
                );
                self.overrides.set_user_overrides(tenant, Some(document));
                Ok(Some(version))
            }
            Err(tempo_backend::Error::VersionMismatch { .. }) => Ok(None),
            Err(error) => Err(Error::from(error).into()),
        }
    }
}

/// What the client has seen, by `If-Match`: a version, or "0" for nothing.
fn expected_version(headers: &HeaderMap) -> Result<Option<ObjectVersion>, Refusal> {
    let missing = || {
        let text = "must specify If-Match header".to_owned();
        Refusal::Because(StatusCode::PRECONDITION_REQUIRED, text)
    };
    let value = headers
        .get(header::IF_MATCH)
        .filter(|value| !value.is_empty())
        .ok_or_else(missing)?;
    let version = ObjectVersion::new(&String::from_utf8_lossy(value.as_bytes()));
    Ok((version.as_str() != "0").then_some(version))
}

fn skips_check(parameters: &Parameters) -> Result<bool, Refusal> {
    match parameter(parameters, "skip-conflicting-overrides-check") {
        None | Some("0" | "f" | "F" | "false" | "False" | "FALSE") => Ok(false),
        Some("1" | "t" | "T" | "true" | "True" | "TRUE") => Ok(true),
        Some(_) => Err(Refusal::bad(
            "could not parse skip-conflicting-overrides-check, must be a boolean value",
        )),
    }
}

fn parse_json(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::bad(format!("the body is not JSON: {error}")))
}

fn parse(json: &Value) -> Result<UserOverrides, Refusal> {
    UserOverrides::from_json(&json.to_string()).map_err(|error| Refusal::bad(problems(&error)))
}

/// RFC 7386.
fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge_patch(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

fn document_answer(document: &UserOverrides, version: &ObjectVersion) -> Response {
    let json = HeaderValue::from_static("application/json");
    let headers = [(header::ETAG, etag(version)), (header::CONTENT_TYPE, json)];
    (headers, document.to_json()).into_response()
}

/// Without quotes, as Tempo sends it.
fn etag(version: &ObjectVersion) -> HeaderValue {
    HeaderValue::from_str(version.as_str()).unwrap_or(HeaderValue::from_static("0"))
}

#[cfg(test)]
mod tests;
