//! `overrides`: limits and switches per tenant.

use std::collections::BTreeMap;

use crate::block::block;
use crate::blocks::metrics_generator::{DimensionMapping, FilterPolicy};
use crate::blocks::storage::{Azure, BackendKind, DedicatedColumn, Gcs, Local, S3};
use crate::units::{ByteSize, GoDuration, PrometheusDuration, Secret, choice};

choice! {
    /// How the rate of a tenant is shared among distributors.
    pub enum RateStrategy {
        /// As `local`, in an entry of a tenant, where it is not read.
        #[default]
        Unset = "",
        /// Each distributor allows the whole rate.
        Local = "local",
        /// Distributors share the rate.
        Global = "global",
    }
}

choice! {
    /// Which kind of histograms are made of spans.
    pub enum HistogramMethod {
        /// As `classic`.
        #[default]
        Unset = "",
        /// With fixed buckets.
        Classic = "classic",
        /// With exponential buckets.
        Native = "native",
        /// Both.
        Both = "both",
    }
}

choice! {
    /// Whether names of spans that differ in numbers alone count as one.
    pub enum SpanNameSanitization {
        /// As in the defaults; there, no.
        #[default]
        Unset = "",
        /// No, but it is counted what would be saved.
        DryRun = "dry_run",
        /// Yes.
        Enabled = "enabled",
    }
}

block! {
    /// Receiving spans.
    pub struct IngestionOverrides {
        /// Whether each distributor grants the rate (`local`) or all together (`global`); read from
        /// the defaults only.
        used rate_strategy: RateStrategy = RateStrategy::Unset,
        /// Bytes per second.
        used rate_limit_bytes: ByteSize = ByteSize(0),
        /// Bytes at once above the rate.
        used burst_size_bytes: ByteSize = ByteSize(0),
        /// Live traces; 0 means any number.
        used max_traces_per_user: u64 = 0u64,
        /// Live traces of all live-stores together; not enforced, only shown.
        ignored max_global_traces_per_user: u64 = 0u64,
        /// Partitions that the tenant is spread over; 0 means all.
        used tenant_shard_size: u32 = 0u32,
        /// Longest attribute value; 0 means `distributor.max_attribute_bytes`.
        used max_attribute_bytes: u64 = 0u64,
        /// Answer not before this time; unset means `distributor.artificial_delay`.
        used artificial_delay: Option<GoDuration> = None,
        /// Tell clients when to try again; unset means as in the defaults.
        used retry_info_enabled: Option<bool> = None,
    }
}

block! {
    /// Queries.
    pub struct ReadOverrides {
        /// Bytes of tag names or values in an answer; 0 means any.
        used max_bytes_per_tag_values_query: ByteSize = ByteSize(0),
        /// Not enforced.
        ignored max_blocks_per_tag_values_query: u64 = 0u64,
        /// Alternatives in a query for tags; read from the defaults only.
        used max_condition_groups_per_tag_query: u64 = 0u64,
        /// Longest time range of a search; 0 means that of the query-frontend.
        used max_search_duration: PrometheusDuration = PrometheusDuration::ZERO,
        /// Longest time range of a metrics query; 0 means that of the query-frontend.
        used max_metrics_duration: PrometheusDuration = PrometheusDuration::ZERO,
        /// Honour all hints of queries.
        used unsafe_query_hints: bool = false,
        /// Write trace ids with all 32 digits in answers of searches.
        used left_pad_trace_ids: bool = false,
        /// Read spans without their traces in metrics queries, where that is enough.
        later metrics_spanonly_fetch: Option<bool> = None,
        /// Know that spans have been left out.
        later span_pruning_awareness: bool = false,
        /// Count bytes that the engine looked at; unset means as in the defaults.
        later engine_bytes_tracking: Option<bool> = None,
        /// Leave out spans that say little.
        later span_pruning_enabled: Option<bool> = None,
    }
}

block! {
    /// Joining and forgetting blocks.
    pub struct CompactionOverrides {
        /// Age at which blocks are removed; 0 means `backend_worker.compaction.block_retention`.
        used block_retention: PrometheusDuration = PrometheusDuration::ZERO,
        /// Blocks of one such span of time are joined; 0 means that of the scheduler.
        used compaction_window: PrometheusDuration = PrometheusDuration::ZERO,
        /// Join no blocks.
        used compaction_disabled: bool = false,
    }
}

block! {
    /// The way from the distributor to the metrics-generator.
    pub struct ForwarderOverrides {
        /// Requests that wait; 0 means 100.
        later queue_size: u32 = 0u32,
        /// Threads; 0 means 2.
        later workers: u32 = 0u32,
    }
}

block! {
    /// Edges between services; what is unset is as in `metrics_generator.processor.service_graphs`.
    pub struct ServiceGraphsOverrides {
        /// Upper bounds of the histograms, in seconds.
        later histogram_buckets: Option<Vec<f64>> = None,
        /// Attributes that become labels.
        later dimensions: Option<Vec<String>> = None,
        /// Attributes that name the other side.
        later peer_attributes: Option<Vec<String>> = None,
        /// Filters of spans.
        later filter_policies: Option<Vec<FilterPolicy>> = None,
        /// Prefix labels with client_ and server_.
        later enable_client_server_prefix: Option<bool> = None,
        /// Measure the time in messaging systems.
        later enable_messaging_system_latency_histogram: Option<bool> = None,
        /// Label edges whose other side is only guessed.
        later enable_virtual_node_label: Option<bool> = None,
        /// Attribute with the number of spans that one stands for.
        later span_multiplier_key: String = "",
        /// Take that number from the trace state.
        later enable_tracestate_span_multiplier: Option<bool> = None,
    }
}

block! {
    /// Rate, errors and duration of spans; what is unset is as in `metrics_generator.processor.span_metrics`.
    pub struct SpanMetricsOverrides {
        /// Upper bounds of the histogram, in seconds.
        later histogram_buckets: Option<Vec<f64>> = None,
        /// Attributes that become labels.
        later dimensions: Option<Vec<String>> = None,
        /// Labels that every span has, by name.
        later intrinsic_dimensions: BTreeMap<String, bool> = BTreeMap::new(),
        /// Filters of spans.
        later filter_policies: Option<Vec<FilterPolicy>> = None,
        /// Labels made of several attributes.
        later dimension_mappings: Option<Vec<DimensionMapping>> = None,
        /// Write traces_target_info.
        later enable_target_info: Option<bool> = None,
        /// Attributes of the resource that traces_target_info leaves out.
        later target_info_excluded_dimensions: Option<Vec<String>> = None,
        /// Label the instance.
        later enable_instance_label: Option<bool> = None,
        /// Attribute with the number of spans that one stands for.
        later span_multiplier_key: String = "",
        /// Take that number from the trace state.
        later enable_tracestate_span_multiplier: Option<bool> = None,
    }
}

block! {
    /// Hosts that send spans; what is unset is as in `metrics_generator.processor.host_info`.
    pub struct HostInfoOverrides {
        /// Attributes that name the host.
        later host_identifiers: Option<Vec<String>> = None,
        /// Name of the metric.
        later metric_name: String = "",
    }
}

block! {
    /// What is made of spans.
    pub struct ProcessorOverrides {
        /// Edges between services.
        later service_graphs: ServiceGraphsOverrides = ServiceGraphsOverrides::default(),
        /// Rate, errors and duration of spans.
        later span_metrics: SpanMetricsOverrides = SpanMetricsOverrides::default(),
        /// Hosts that send spans.
        later host_info: HostInfoOverrides = HostInfoOverrides::default(),
    }
}

block! {
    /// Metrics from spans.
    pub struct MetricsGeneratorOverrides {
        /// Not read.
        ignored ring_size: u32 = 0u32,
        /// What is made of spans: span-metrics, service-graphs, host-info and their parts.
        later processors: Vec<String> = [""; 0],
        /// Series; 0 means any number.
        later max_active_series: u32 = 0u32,
        /// Combinations of resource attributes; 0 means any number.
        later max_active_entities: u32 = 0u32,
        /// Time between writes; 0 means `metrics_generator.registry.collection_interval`.
        later collection_interval: GoDuration = GoDuration::ZERO,
        /// Make metrics but do not write them.
        later disable_collection: bool = false,
        /// classic, native or both.
        later generate_native_histograms: HistogramMethod = HistogramMethod::Unset,
        /// Label with the trace id in exemplars; empty means traceID.
        later trace_id_label_name: String = "",
        /// Headers of writes.
        later remote_write_headers: BTreeMap<String, Secret> = BTreeMap::new(),
        /// The way from the distributor to the metrics-generator.
        later forwarder: ForwarderOverrides = ForwarderOverrides::default(),
        /// What is made of spans.
        later processor: ProcessorOverrides = ProcessorOverrides::default(),
        /// How far a span may end from now to count; 0 means the static value.
        later ingestion_time_range_slack: GoDuration = GoDuration::ZERO,
        /// Growth of buckets of native histograms; 0 means as in the defaults.
        later native_histogram_bucket_factor: f64 = 0.0,
        /// Buckets of a native histogram; 0 means as in the defaults.
        later native_histogram_max_bucket_number: u32 = 0u32,
        /// Shortest time between resets of a native histogram; 0 means as in the defaults.
        later native_histogram_min_reset_duration: GoDuration = GoDuration::ZERO,
        /// How names of spans are made fewer; empty means as in the defaults.
        later span_name_sanitization: SpanNameSanitization = SpanNameSanitization::Unset,
        /// Values of a label; 0 means any number.
        later max_cardinality_per_label: u64 = 0u64,
    }
}

block! {
    /// All components.
    pub struct GlobalOverrides {
        /// Size of a trace; 0 means any.
        used max_bytes_per_trace: ByteSize = ByteSize(0),
    }
}

block! {
    /// How blocks are written.
    pub struct StorageOverrides {
        /// Attributes with a column of their own; empty means those of `storage.trace.block`.
        used parquet_dedicated_columns: Vec<DedicatedColumn> = Vec::new(),
    }
}

block! {
    /// Received bytes by attributes.
    pub struct CostAttributionOverrides {
        /// Combinations of values; 0 means `distributor.usage.cost_attribution.max_cardinality`.
        later max_cardinality: u64 = 0u64,
        /// Attributes and the labels that they become.
        later dimensions: BTreeMap<String, String> = BTreeMap::new(),
    }
}

block! {
    /// Limits and switches of a tenant. An entry of a tenant replaces the defaults as a whole.
    pub struct TenantOverrides {
        /// Receiving spans.
        used ingestion: IngestionOverrides = IngestionOverrides::default(),
        /// Queries.
        used read: ReadOverrides = ReadOverrides::default(),
        /// Joining and forgetting blocks.
        used compaction: CompactionOverrides = CompactionOverrides::default(),
        /// Metrics from spans.
        used metrics_generator: MetricsGeneratorOverrides = MetricsGeneratorOverrides::default(),
        /// Names of `distributor.forwarders` that get the tenant's spans.
        later forwarders: Vec<String> = [""; 0],
        /// All components.
        used global: GlobalOverrides = GlobalOverrides::default(),
        /// How blocks are written.
        used storage: StorageOverrides = StorageOverrides::default(),
        /// Received bytes by attributes.
        used cost_attribution: CostAttributionOverrides = CostAttributionOverrides::default(),
    }
}

impl TenantOverrides {
    /// Tempo's own limits, for tenants without an entry.
    pub fn tempo_defaults() -> Self {
        Self {
            ingestion: IngestionOverrides {
                rate_strategy: RateStrategy::Local,
                rate_limit_bytes: ByteSize(30_000_000),
                burst_size_bytes: ByteSize(30_000_000),
                max_traces_per_user: 10_000,
                retry_info_enabled: Some(true),
                ..IngestionOverrides::default()
            },
            read: ReadOverrides {
                max_bytes_per_tag_values_query: ByteSize(1_000_000),
                max_condition_groups_per_tag_query: 100,
                ..ReadOverrides::default()
            },
            metrics_generator: MetricsGeneratorOverrides {
                generate_native_histograms: HistogramMethod::Classic,
                native_histogram_bucket_factor: 1.1,
                native_histogram_max_bucket_number: 100,
                native_histogram_min_reset_duration: GoDuration::minutes(15),
                ..MetricsGeneratorOverrides::default()
            },
            global: GlobalOverrides {
                max_bytes_per_trace: ByteSize(5_000_000),
            },
            ..Self::default()
        }
    }
}

block! {
    /// Where user-configurable overrides are kept.
    pub struct UserConfigurableClient {
        /// Kind of object store.
        used backend: BackendKind = BackendKind::None,
        /// Not needed: writes here carry their condition to the store, whether or not it keeps versions.
        ignored confirm_versioning: bool = true,
        /// A folder, when it is the store.
        used local: Local = Local::default(),
        /// Google Cloud Storage, when it is the store.
        used gcs: Gcs = Gcs::default(),
        /// Amazon S3, when it is the store.
        used s3: S3 = S3::default(),
        /// Azure Blob Storage, when it is the store.
        used azure: Azure = Azure::default(),
    }
}

block! {
    /// The API of user-configurable overrides.
    pub struct UserConfigurableApi {
        /// Refuse the first write of a tenant whose limits are set in the runtime file.
        used check_for_conflicting_runtime_overrides: bool = false,
    }
}

block! {
    /// Limits that tenants set themselves.
    pub struct UserConfigurable {
        /// Switch them on.
        used enabled: bool = false,
        /// Time between looks for changes.
        used poll_interval: GoDuration = GoDuration::minutes(1),
        /// Where they are kept.
        used client: UserConfigurableClient = UserConfigurableClient::default(),
        /// The API.
        used api: UserConfigurableApi = UserConfigurableApi::default(),
    }
}

block! {
    /// Limits and switches per tenant.
    pub struct Overrides {
        /// For tenants without an entry.
        used defaults: TenantOverrides = TenantOverrides::tempo_defaults(),
        /// File with entries of tenants, read again when it changes.
        used per_tenant_override_config: String = "",
        /// Time between looks for changes of the file.
        used per_tenant_override_period: PrometheusDuration = PrometheusDuration::seconds(10),
        /// Limits that tenants set themselves.
        used user_configurable_overrides: UserConfigurable = UserConfigurable::default(),
        /// Accept the flat form of Tempo 1 (`ingestion_rate_limit_bytes`).
        used enable_legacy_overrides: bool = false,
    }
}
