//! Certificates: in a Secret that someone fills, or made by cert-manager.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::exactly_one;
use super::schema::{Duration, NameRef};

/// TLS between components, and of queries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = exactly_one(
    &["secretRef", "certManager"],
    "set exactly one of security.internalTLS.secretRef and certManager: where does the certificate come from?",
)))]
pub struct InternalTls {
    /// Secret of type `kubernetes.io/tls`: `tls.crt`, `tls.key` and `ca.crt`. The certificate is
    /// shown by every pod, and must be valid for `serverName`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameRef>,
    /// Let cert-manager make it and make it anew in time; pods read it again by themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_manager: Option<CertManager>,
    /// Name by which components know each other, whichever address they have; unset means
    /// `tempo-<name>-query-frontend.<namespace>.svc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
}

/// A certificate that cert-manager makes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertManager {
    /// Who signs it.
    pub issuer_ref: IssuerRef,
    /// How long it is valid; unset means cert-manager's own, 90 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
    /// How long before its end a new one is made; unset means cert-manager's own, a third of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renew_before: Option<Duration>,
    /// Further names that it is valid for, besides those of the Services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    pub dns_names: Vec<String>,
}

/// An issuer of cert-manager, or one of its kind. One that signs with an authority of its own: a
/// public one signs no names within a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its kind: `Issuer`, `ClusterIssuer`, or that of another controller.
    #[serde(default = "issuer")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Group of its kind.
    #[serde(default = "group")]
    #[schemars(length(min = 1, max = 253))]
    pub group: String,
}

fn issuer() -> String {
    "Issuer".to_owned()
}
fn group() -> String {
    "cert-manager.io".to_owned()
}
