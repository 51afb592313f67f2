//! The query API as an MCP server: `/api/mcp`, for language models that look into traces.
//!
//! Owns the tools and documents that models are offered; the protocol is that of the `rmcp` crate,
//! without sessions, so that any query-frontend can answer any request. Must never answer a query in
//! a way of its own: a tool asks the endpoint of the HTTP API that a person would ask, for the tenant
//! that the request's header names.

mod documents;
mod tools;

use std::{collections::HashMap, sync::Arc};

use axum::Router;
use http::request::Parts;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
        ListResourcesResult, ListToolsResult, MetaObject, PaginatedRequestParams,
        ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, Resource,
        ResourceContents, ServerCapabilities, ServerConfig, Tool,
    },
    service::RequestContext,
    transport::{
        StreamableHttpServerConfig, StreamableHttpService,
        streamable_http_server::session::never::NeverSessionManager,
    },
};
use serde_json::{Map, Value};

use crate::{frontend::Frontend, tenants::Tenants};

/// What the server calls itself, as Tempo does.
const NAME: &str = "tempo";
const VERSION: &str = "0.1.0";

const INSTRUCTIONS: &str = "Finds and measures distributed traces with TraceQL. Look up which \
    attributes exist before you filter by one, and read docs-traceql before you write more than a \
    simple filter.";

/// The body of a request: a query, and what the protocol puts around it.
const MAX_REQUEST_BODY_BYTES: usize = 256 * 1024;

/// The route, relative to the API prefix.
pub(super) fn routes(frontend: Arc<Frontend>) -> Router {
    let server = Server {
        tools: tools::all().map(tools::Offer::describe).collect(),
        frontend,
    };
    // Whom a Host or Origin header names is for the proxy to check that authenticates, as for the
    // whole API.
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(MAX_REQUEST_BODY_BYTES)
        .disable_allowed_hosts();
    let service = StreamableHttpService::new(
        move || Ok(server.clone()),
        Arc::new(NeverSessionManager::default()),
        config,
    );
    Router::new().route_service("/api/mcp", service)
}

#[derive(Clone)]
struct Server {
    frontend: Arc<Frontend>,
    tools: Arc<[Tool]>,
}

impl Server {
    /// Whose data the request asks for.
    fn tenants(&self, context: &RequestContext<RoleServer>) -> Result<Tenants, String> {
        let header = context
            .extensions
            .get::<Parts>()
            .and_then(|request| request.headers.get(tempo_model::tenant::ORG_ID_HEADER));
        Tenants::of_header(
            header.map(http::HeaderValue::as_bytes),
            &self.frontend.config,
        )
        .map_err(|error| error.to_string())
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new(NAME, VERSION))
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools.to_vec()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(offer) = tools::all().find(|offer| offer.name == request.name) else {
            let text = format!("tool '{}' not found", request.name);
            return Err(ErrorData::invalid_params(text, None));
        };
        self.frontend.metrics.mcp_call(offer.name);
        let arguments = request.arguments.unwrap_or_default();
        // Errors of a tool are results, so that the model reads them and tries again.
        let called = async {
            let arguments = offer.read(&arguments)?;
            let tenants = self.tenants(&context)?;
            tools::call(offer, &self.frontend, &tenants, &arguments).await
        }
        .await;
        Ok(match called {
            Ok(text) => {
                CallToolResult::success(vec![ContentBlock::text(text)]).with_meta(Some(meta(offer)))
            }
            Err(error) => CallToolResult::error(vec![ContentBlock::text(error)]),
        }
        .into())
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let resources = documents::all().map(|document| {
            Resource::new(document.uri, document.title)
                .with_description(document.about)
                .with_mime_type(documents::MIME_TYPE)
        });
        Ok(ListResourcesResult::with_all_items(resources.collect()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let Some(document) = documents::all().find(|document| document.uri == request.uri) else {
            let text = format!("resource '{}' not found", request.uri);
            return Err(ErrorData::resource_not_found(text, None));
        };
        let contents = ResourceContents::text(document.text, document.uri)
            .with_mime_type(documents::MIME_TYPE);
        Ok(ReadResourceResult::new(vec![contents]).into())
    }
}

/// What a result is, for programs that read it.
fn meta(offer: &tools::Offer) -> MetaObject {
    let fields = [
        ("type", offer.result.kind),
        ("encoding", offer.result.encoding),
        ("version", offer.result.version),
    ];
    let fields = fields.map(|(key, value)| (key.to_owned(), Value::from(value)));
    MetaObject(Map::from_iter(fields))
}

/// Arguments of a call, checked against what the tool takes.
type Arguments = HashMap<&'static str, String>;
