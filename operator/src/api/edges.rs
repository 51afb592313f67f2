//! What the stack offers to the outside, and who may come in.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::certificates::CertManager;
use super::rules::{exactly_one, rules};
use super::schema::{Duration, Items, NameRef, SecretKey};

/// Protocols of spans that are received.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Receivers {
    /// OpenTelemetry's.
    pub otlp: OtlpReceiver,
    /// Jaeger's: gRPC on port 14250 and Thrift over HTTP on port 14268.
    pub jaeger: Toggle,
    /// Zipkin's, on port 9411.
    pub zipkin: Toggle,
}

/// OpenTelemetry's protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.grpc || self.http", "receivers.otlp needs grpc or http: a stack that receives nothing is of no use"),
])))]
pub struct OtlpReceiver {
    /// Over gRPC, on port 4317.
    #[serde(default = "yes")]
    pub grpc: bool,
    /// Over HTTP, on port 4318.
    #[serde(default = "yes")]
    pub http: bool,
    /// TLS of both; unset means none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFiles>,
    /// Age at which connections are closed, so that clients spread anew and follow a change of
    /// mode; those of queries to a monolith, too.
    #[serde(default = "half_a_minute")]
    pub max_connection_age: Duration,
}

fn yes() -> bool {
    true
}
fn half_a_minute() -> Duration {
    Duration::from("30s")
}

impl Default for OtlpReceiver {
    fn default() -> Self {
        Self {
            grpc: true,
            http: true,
            tls: None,
            max_connection_age: half_a_minute(),
        }
    }
}

/// TLS of receivers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = exactly_one(
    &["secretRef", "certManager"],
    "set exactly one of receivers.otlp.tls.secretRef and certManager: where does the certificate come from?",
)))]
pub struct TlsFiles {
    /// Secret of type `kubernetes.io/tls`: `tls.crt`, `tls.key`, and `ca.crt` for clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameRef>,
    /// Let cert-manager make it, for the names of the distributor's Service and `dnsNames`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_manager: Option<CertManager>,
    /// Let in only clients with a certificate of `ca.crt`.
    #[serde(default)]
    pub require_client_certificate: bool,
}

/// Something that is on or off.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Toggle {
    /// Whether it is on.
    pub enabled: bool,
}

/// How others reach the stack.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exposure {
    /// An Ingress for the query API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,
    /// Routes of the Gateway API, for queries and spans.
    #[serde(rename = "gatewayAPI", skip_serializing_if = "Option::is_none")]
    pub gateway_api: Option<GatewayApi>,
    /// The Services of distributor and query-frontend.
    #[serde(default)]
    pub service: ServiceExposure,
}

/// An Ingress for the query API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// Class; unset means the cluster's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,
    /// Host name.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// Secret with the certificate; unset means no TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub tls_secret_name: Option<String>,
    /// Annotations, for the controller that carries it out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64), inner(length(max = 4096)))]
    pub annotations: BTreeMap<String, String>,
}

/// Routes of the Gateway API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayApi {
    /// Gateways, as in a route.
    pub parent_refs: Items,
    /// Host names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub hostnames: Vec<String>,
}

/// The Services of distributor and query-frontend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceExposure {
    /// Kind of Service.
    #[serde(rename = "type")]
    pub kind: ServiceType,
    /// Annotations, for a cloud's load balancer.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64), inner(length(max = 4096)))]
    pub annotations: BTreeMap<String, String>,
    /// `IPv4`, `IPv6` or both, of all Services of the stack; empty means the cluster's choice.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), inner(length(max = 4), regex(pattern = "^IPv[46]$")))]
    pub ip_families: Vec<String>,
}

/// Kind of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// An address within the cluster.
    #[default]
    ClusterIP,
    /// A port of every node.
    NodePort,
    /// A load balancer of the cloud.
    LoadBalancer,
}

/// Lets in those who may: an nginx in front of receivers and queries that asks who comes, and names
/// the tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!self.enabled || has(self.auth)", "gateway.enabled needs gateway.auth: who may come in?"),
])))]
pub struct GatewaySpec {
    /// Whether there is one.
    pub enabled: bool,
    /// Who may come in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<GatewayAuth>,
    /// Secret of type `kubernetes.io/tls` for its port; unset means no TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_secret_ref: Option<NameRef>,
}

/// Who may come in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = exactly_one(
    &["staticSecretRef", "oidc"],
    "set exactly one of gateway.auth.staticSecretRef and gateway.auth.oidc: who may come in?",
)))]
pub struct GatewayAuth {
    /// Secret with `htpasswd`: a line `tenant:hash` for each tenant, as `htpasswd -B` writes it.
    /// The user's name is the tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub static_secret_ref: Option<NameRef>,
    /// Whoever shows a token of an OpenID provider, or has signed in there, by way of oauth2-proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc: Option<Oidc>,
}

/// An OpenID provider that knows who belongs to which tenant.
///
/// Senders and Grafana show its tokens (`Authorization: Bearer`). A browser signs in at
/// `/oauth2/start`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Oidc {
    /// Address of the provider, as its tokens name it in `iss`.
    #[serde(rename = "issuerURL")]
    #[schemars(length(max = 512), regex(pattern = "^https?://[^\\s]+$"))]
    pub issuer_url: String,
    /// Who the gateway is to the provider; tokens must be made for it (`aud`).
    #[serde(rename = "clientID")]
    #[schemars(length(min = 1, max = 253))]
    pub client_id: String,
    /// Others that tokens may be made for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 253), regex(pattern = "^[^\\s,]+$"))
    )]
    pub extra_audiences: Vec<String>,
    /// Secret with `client_secret`, and with `cookie_secret`: 16, 24 or 32 random characters, by
    /// which cookies of browsers are sealed.
    pub client_secret_ref: NameRef,
    /// Claim of tokens that holds the tenant, or a list of tenants, of which the client names one in
    /// `X-Scope-OrgID`.
    #[serde(default = "tenant")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9_.:/-]+$"))]
    pub tenant_claim: String,
    /// Where the provider sends browsers back to, such as `https://tempo.example/oauth2/callback`;
    /// unset means the host that the browser asked for.
    #[serde(rename = "redirectURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = "^https?://[^\\s]+$"))]
    pub redirect_url: Option<String>,
    /// Certificates to trust (PEM) when talking to the provider; unset means those of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKey>,
}

fn tenant() -> String {
    "tenant".to_owned()
}

/// Who may talk to the stack's pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicySpec {
    /// Whether others than these are kept out.
    pub enabled: bool,
    /// Peers that may send spans, query and scrape, as in a NetworkPolicy; empty means all.
    #[serde(skip_serializing_if = "Items::is_empty")]
    pub ingress_from: Items,
    /// Further peers that pods may talk to, as in a NetworkPolicy; without any, pods may talk to
    /// everyone, since stores and brokers are anywhere.
    #[serde(skip_serializing_if = "Items::is_empty")]
    pub egress_to: Items,
}
