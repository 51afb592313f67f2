//! `storage`: where traces are kept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{at_most_one, exactly_one, rules};
use super::schema::{ConfigMapKey, Duration, NameRef, SecretKey};

/// Where traces are kept; exactly one of `s3`, `gcs`, `azure` and `local`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("(has(self.s3) ? 1 : 0) + (has(self.gcs) ? 1 : 0) + (has(self.azure) ? 1 : 0) + (has(self.local) ? 1 : 0) == 1",
     "set exactly one of storage.s3, storage.gcs, storage.azure and storage.local"),
    ("self.allowChange || (has(self.s3) == has(oldSelf.s3) && has(self.gcs) == has(oldSelf.gcs) && has(self.azure) == has(oldSelf.azure) && has(self.local) == has(oldSelf.local))",
     "the kind of storage can't be changed: traces stay in the old one; set storage.allowChange: true if that is meant"),
    ("self.allowChange || self.prefix == oldSelf.prefix",
     "storage.prefix can't be changed: traces stay under the old one; set storage.allowChange: true if that is meant"),
    ("self.allowChange || !has(self.s3) || !has(oldSelf.s3) || self.s3.bucket == oldSelf.s3.bucket",
     "storage.s3.bucket can't be changed: traces stay in the old one; set storage.allowChange: true if that is meant"),
    ("self.allowChange || !has(self.gcs) || !has(oldSelf.gcs) || self.gcs.bucket == oldSelf.gcs.bucket",
     "storage.gcs.bucket can't be changed: traces stay in the old one; set storage.allowChange: true if that is meant"),
    ("self.allowChange || !has(self.azure) || !has(oldSelf.azure) || self.azure.container == oldSelf.azure.container",
     "storage.azure.container can't be changed: traces stay in the old one; set storage.allowChange: true if that is meant"),
])))]
pub struct Storage {
    /// Amazon S3, or a store that speaks its protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
    /// Google Cloud Storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gcs: Option<Gcs>,
    /// Azure Blob Storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub azure: Option<Azure>,
    /// A volume of the one pod; only with mode Monolithic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<Local>,
    /// Put before the key of every object, so that several stacks can share a bucket.
    #[serde(default)]
    #[schemars(length(max = 253), regex(pattern = "^([A-Za-z0-9._/-]*)$"))]
    pub prefix: String,
    /// How long traces are kept.
    #[serde(default = "two_weeks")]
    pub retention: Duration,
    /// TLS to the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<StorageTls>,
    /// Let the kind of storage, its bucket or its prefix be changed; traces are not moved.
    #[serde(default)]
    pub allow_change: bool,
}

fn two_weeks() -> Duration {
    Duration::from("336h")
}

/// Amazon S3, or a store that speaks its protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!has(self.endpoint) || !self.endpoint.startsWith('https://') || !self.insecure",
     "storage.s3.endpoint begins with https://, but insecure is true: drop one of them"),
    ("has(self.endpoint) || has(self.region)",
     "set storage.s3.region for Amazon S3, or storage.s3.endpoint for another store"),
])))]
pub struct S3 {
    /// Bucket; it must exist.
    #[schemars(length(min = 1, max = 255))]
    pub bucket: String,
    /// Host and port of the store, with or without `https://` or `http://`; unset means Amazon's
    /// for the region.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 512),
        regex(pattern = "^(https?://)?[^/?#@ ]+/?$")
    )]
    pub endpoint: Option<String>,
    /// Region.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub region: Option<String>,
    /// Name the bucket in the path rather than in the host name.
    #[serde(default)]
    pub force_path_style: bool,
    /// Talk without TLS; `http://` before the endpoint means the same.
    #[serde(default)]
    pub insecure: bool,
    /// How to log in; unset means what the pod's surroundings give.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<S3Credentials>,
}

/// How to log in to S3.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = exactly_one(&["secretRef", "workloadIdentity"],
    "set exactly one of credentials.secretRef and credentials.workloadIdentity")))]
pub struct S3Credentials {
    /// Access keys in a Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<S3Secret>,
    /// A role that the pods' ServiceAccount may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_identity: Option<S3Identity>,
}

/// Access keys in a Secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Secret {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the access key's id.
    #[serde(default = "access_key_id")]
    #[schemars(length(min = 1, max = 253))]
    pub access_key_id_key: String,
    /// Key of the secret access key.
    #[serde(default = "access_key_secret")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_access_key_key: String,
}

fn access_key_id() -> String {
    "access_key_id".to_owned()
}
fn access_key_secret() -> String {
    "access_key_secret".to_owned()
}

/// A role of Amazon's identity management.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Identity {
    /// Name of the role (ARN).
    #[schemars(length(min = 1, max = 2048), regex(pattern = "^arn:"))]
    pub role_arn: String,
    /// Audience of the ServiceAccount's token.
    #[serde(default = "sts_audience")]
    #[schemars(length(min = 1, max = 253))]
    pub audience: String,
}

fn sts_audience() -> String {
    "sts.amazonaws.com".to_owned()
}

/// Google Cloud Storage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gcs {
    /// Bucket; it must exist.
    #[schemars(length(min = 1, max = 255))]
    pub bucket: String,
    /// Address of the store, for one that is not Google's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub endpoint: Option<String>,
    /// Talk without TLS and without login.
    #[serde(default)]
    pub insecure: bool,
    /// How to log in; unset means what the pod's surroundings give.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<GcsCredentials>,
}

/// How to log in to Google Cloud Storage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = exactly_one(&["secretRef", "workloadIdentity"],
    "set exactly one of credentials.secretRef and credentials.workloadIdentity")))]
pub struct GcsCredentials {
    /// A service account's key file in a Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<StorageSecret>,
    /// A Google service account that the pods' ServiceAccount may act for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_identity: Option<GcsIdentity>,
}

/// A Google service account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GcsIdentity {
    /// E-mail address of the Google service account.
    #[schemars(length(min = 1, max = 253))]
    pub service_account: String,
}

/// A Secret with one value that storage needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageSecret {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the Secret; unset means `key.json` for GCS and `account_key` for Azure.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

/// Azure Blob Storage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Azure {
    /// Container; it must exist.
    #[schemars(length(min = 1, max = 63))]
    pub container: String,
    /// Storage account.
    #[schemars(length(min = 1, max = 63))]
    pub account_name: String,
    /// What follows the account in host names.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub endpoint_suffix: Option<String>,
    /// How to log in; unset means what the pod's surroundings give.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<AzureCredentials>,
}

/// How to log in to Azure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = exactly_one(&["secretRef", "workloadIdentity"],
    "set exactly one of credentials.secretRef and credentials.workloadIdentity")))]
pub struct AzureCredentials {
    /// The account's key in a Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<StorageSecret>,
    /// An application that the pods' ServiceAccount may act for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_identity: Option<AzureIdentity>,
}

/// An application of Microsoft Entra.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AzureIdentity {
    /// Client id.
    #[schemars(length(min = 1, max = 64))]
    pub client_id: String,
    /// Tenant id.
    #[schemars(length(min = 1, max = 64))]
    pub tenant_id: String,
}

/// A volume of the one pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
     "storage.local.size can't shrink: volumes of Kubernetes only grow"),
])))]
pub struct Local {
    /// Size of the volume.
    #[serde(default = "ten_gibibytes")]
    #[schemars(length(min = 1, max = 32), regex(pattern = QUANTITY))]
    pub size: String,
    /// Class of the volume; unset means the cluster's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// Use a volume that goes with the pod: for trials, traces do not survive it.
    #[serde(default)]
    pub ephemeral: bool,
}

impl Default for Local {
    fn default() -> Self {
        Self {
            size: ten_gibibytes(),
            storage_class_name: None,
            ephemeral: false,
        }
    }
}

/// Amounts as Kubernetes writes them, without signs.
pub(crate) const QUANTITY: &str = "^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$";

pub(crate) fn ten_gibibytes() -> String {
    "10Gi".to_owned()
}

/// TLS to the store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageTls {
    /// Certificates to trust (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaReference>,
    /// Secret with a client certificate in `tls.crt` and its key in `tls.key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_secret_ref: Option<NameRef>,
    /// Oldest version of TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^(VersionTLS12|VersionTLS13)$"), length(max = 16))]
    pub min_version: Option<String>,
    /// Trust any certificate: for trials.
    #[serde(default)]
    pub insecure_skip_verify: bool,
}

/// Certificates to trust, in a ConfigMap or a Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = at_most_one(&["configMap", "secret"],
    "set only one of caRef.configMap and caRef.secret")))]
pub struct CaReference {
    /// A key of a ConfigMap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapKey>,
    /// A key of a Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretKey>,
}
