//! The API: what a person writes into a `TempoStack`, and what the operator answers in its status.
//!
//! Owns the types, their defaults and their limits. From them come the CRD ([`crd`]), the field
//! reference and the checks without a cluster ([`check`]). Must never know how a field is carried
//! out.

mod caches;
mod certificates;
pub mod check;
mod components;
pub mod crd;
mod edges;
mod kafka;
mod observability;
pub mod reference;
mod rules;
mod schema;
mod stack;
mod status;
mod storage;
mod tenancy;

pub use caches::{Caches, Memcached};
pub use certificates::{CertManager, InternalTls, IssuerRef};
pub use components::{
    Autoscaling, BlockBuilder, Component, ComponentStorage, Components, Gateway as GatewayPods,
    LiveStore, Memcached as MemcachedPods, QueryFrontend, Resources, RetentionPolicy, Singleton,
    VolumeRetention,
};
pub use edges::{
    Exposure, GatewayApi, GatewayAuth, GatewaySpec, Ingress, NetworkPolicySpec, Oidc, OtlpReceiver,
    Receivers, ServiceExposure, ServiceType, TlsFiles, Toggle,
};
pub use kafka::{Compression, Kafka, KafkaTls, Sasl, SaslMechanism, Topic, TopicManagement};
pub use observability::{Datasource, MonitorSpec, Observability, RuleSpec, SelfTracing};
pub use schema::{Anything, ConfigMapKey, Duration, Items, NameRef, SecretKey};
pub use stack::{
    Image, Migration, MigrationStrategy, Mode, PullPolicy, Security, ServiceAccount, Size,
    TempoStack, TempoStackSpec, Timings, UpdateStrategy, Zones,
};
pub use status::{
    At, ComponentStatus, Condition, Drain, DrainPhase, Endpoints, KafkaStatus, LiveStoreStatus,
    MigrationPhase, MigrationStatus, Partitions, Phase, TempoStackStatus, Versions,
};
pub use storage::{
    Azure, AzureCredentials, AzureIdentity, CaReference, Gcs, GcsCredentials, GcsIdentity, Local,
    S3, S3Credentials, S3Identity, S3Secret, Storage, StorageSecret, StorageTls,
};
pub use tenancy::{
    IngestionLimits, Limits, MetricsGenerator, QueryLimits, RemoteWrite, SecretName, Tenancy,
    Tenant,
};

/// Group of the API.
pub const GROUP: &str = "tempostack.io";
/// Version of the API.
pub const VERSION: &str = "v1alpha1";
/// Longest name of a stack: the longest name made from it, that of a live-store's StatefulSet,
/// must fit a label together with the hash that Kubernetes appends.
pub const MAX_NAME_LENGTH: usize = 28;
