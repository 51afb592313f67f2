//! `metrics_generator`: Prometheus metrics from spans.

use std::collections::BTreeMap;

use crate::block::block;
use crate::blocks::clients::Ring;
use crate::units::{Anything, ByteSize, GoDuration, Scalar, choice};

choice! {
    /// How a value of a filter is compared.
    pub enum MatchType {
        /// Equal.
        #[default]
        Strict = "strict",
        /// By a pattern.
        Regex = "regex",
    }
}

block! {
    /// One attribute of a filter.
    pub struct PolicyAttribute {
        /// TraceQL name: resource.x, span.x, name, kind or status.
        later key: String = "",
        /// Value or pattern.
        later value: Scalar = Scalar::default(),
    }
}

block! {
    /// Attributes that must all match.
    pub struct PolicyMatch {
        /// How values are compared.
        later match_type: MatchType = MatchType::Strict,
        /// The attributes.
        later attributes: Vec<PolicyAttribute> = Vec::new(),
    }
}

block! {
    /// A filter of spans.
    pub struct FilterPolicy {
        /// Spans must match.
        later include: Option<PolicyMatch> = None,
        /// Spans that match are taken.
        later include_any: Option<PolicyMatch> = None,
        /// Spans that match are left out.
        later exclude: Option<PolicyMatch> = None,
    }
}

block! {
    /// A label made of several attributes.
    pub struct DimensionMapping {
        /// The label.
        later name: String = "",
        /// The attributes.
        later source_labels: Vec<String> = [""; 0],
        /// Text between values.
        later join: String = "",
    }
}

block! {
    /// Edges between services.
    pub struct ServiceGraphs {
        /// Time to wait for the other side of an edge.
        later wait: GoDuration = GoDuration::seconds(10),
        /// Edges that wait.
        later max_items: u32 = 10_000u32,
        /// Threads.
        later workers: u32 = 10u32,
        /// Upper bounds of the histograms, in seconds.
        later histogram_buckets: Vec<f64> = vec![0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8],
        /// Attributes that become labels.
        later dimensions: Vec<String> = [""; 0],
        /// Prefix labels with client_ and server_.
        later enable_client_server_prefix: bool = false,
        /// Measure the time in messaging systems.
        later enable_messaging_system_latency_histogram: bool = false,
        /// Attributes that name the other side.
        later peer_attributes: Vec<String> = ["peer.service", "db.name", "db.system", "db.system.name"],
        /// Attribute with the number of spans that one stands for.
        later span_multiplier_key: String = "",
        /// Take that number from the trace state.
        later enable_tracestate_span_multiplier: bool = false,
        /// Label edges whose other side is only guessed.
        later enable_virtual_node_label: bool = false,
        /// Attributes that name a database.
        later database_name_attributes: Vec<String> = ["db.namespace", "db.name", "db.system", "db.system.name"],
        /// Filters of spans.
        later filter_policies: Vec<FilterPolicy> = Vec::new(),
    }
}

block! {
    /// Labels that every span has.
    pub struct IntrinsicDimensions {
        /// Name of the service.
        later service: bool = true,
        /// Name of the span.
        later span_name: bool = true,
        /// Kind of the span.
        later span_kind: bool = true,
        /// Status of the span.
        later status_code: bool = true,
        /// Status message of the span.
        later status_message: bool = false,
    }
}

block! {
    /// Rate, errors and duration of spans.
    pub struct SpanMetrics {
        /// Upper bounds of the histogram, in seconds.
        later histogram_buckets: Vec<f64> = vec![
            0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096,
            8.192, 16.384,
        ],
        /// Labels that every span has.
        later intrinsic_dimensions: IntrinsicDimensions = IntrinsicDimensions::default(),
        /// Attributes that become labels.
        later dimensions: Vec<String> = [""; 0],
        /// Labels made of several attributes.
        later dimension_mappings: Vec<DimensionMapping> = Vec::new(),
        /// Write traces_target_info.
        later enable_target_info: bool = false,
        /// Attribute with the number of spans that one stands for.
        later span_multiplier_key: String = "",
        /// Take that number from the trace state.
        later enable_tracestate_span_multiplier: bool = false,
        /// Filters of spans.
        later filter_policies: Vec<FilterPolicy> = Vec::new(),
        /// Attributes of the resource that traces_target_info leaves out.
        later target_info_excluded_dimensions: Vec<String> = [""; 0],
        /// Label the instance.
        later enable_instance_label: bool = true,
    }
}

block! {
    /// Hosts that send spans.
    pub struct HostInfo {
        /// Attributes that name the host, the first one wins.
        later host_identifiers: Vec<String> = ["k8s.node.name", "host.id"],
        /// Name of the metric.
        later metric_name: String = "traces_host_info",
    }
}

block! {
    /// What is made of spans.
    pub struct Processors {
        /// Edges between services.
        later service_graphs: ServiceGraphs = ServiceGraphs::default(),
        /// Rate, errors and duration of spans.
        later span_metrics: SpanMetrics = SpanMetrics::default(),
        /// Hosts that send spans.
        later host_info: HostInfo = HostInfo::default(),
    }
}

block! {
    /// Series in memory.
    pub struct Registry {
        /// Time between writes.
        later collection_interval: GoDuration = GoDuration::seconds(15),
        /// Silence after which a series is forgotten.
        later stale_duration: GoDuration = GoDuration::minutes(15),
        /// Labels of every series.
        later external_labels: BTreeMap<String, String> = BTreeMap::new(),
        /// Label with the tenant; empty means none.
        later inject_tenant_id_as: String = "",
        /// Longest label name.
        later max_label_name_length: u32 = 1024u32,
        /// Longest label value.
        later max_label_value_length: u32 = 2048u32,
    }
}

block! {
    /// Write-ahead log of Prometheus.
    pub struct GeneratorWal {
        /// Size of a file.
        later wal_segment_size: ByteSize = ByteSize(134_217_728),
        /// none, snappy or zstd.
        later wal_compression: String = "none",
        /// Parts of the series table.
        later stripe_size: u32 = 16_384u32,
        /// Time between looks for old data.
        later truncate_frequency: GoDuration = GoDuration::hours(2),
        /// Shortest time that data stays, in milliseconds.
        later min_wal_time: i64 = 300_000,
        /// Longest time that data stays, in milliseconds.
        later max_wal_time: i64 = 14_400_000,
        /// Do without a lock file.
        later no_lockfile: bool = false,
    }
}

block! {
    /// Where series go.
    pub struct GeneratorStorage {
        /// Folder; empty switches the generator off.
        later path: String = "",
        /// Write-ahead log of Prometheus.
        later wal: GeneratorWal = GeneratorWal::default(),
        /// Longest time to write at the end.
        later remote_write_flush_deadline: GoDuration = GoDuration::minutes(1),
        /// Send the tenant as X-Scope-OrgID.
        later remote_write_add_org_id_header: bool = true,
        /// Servers to write to, in Prometheus' words.
        later remote_write: Anything = Anything::default(),
    }
}

block! {
    /// Prometheus metrics from spans.
    pub struct MetricsGenerator {
        /// How generators find each other.
        later ring: Ring = Ring::default(),
        /// What is made of spans.
        later processor: Processors = Processors::default(),
        /// Series in memory.
        later registry: Registry = Registry::default(),
        /// Where series go.
        later storage: GeneratorStorage = GeneratorStorage::default(),
        /// How far a span may end from now to count.
        later metrics_ingestion_time_range_slack: GoDuration = GoDuration::seconds(30),
        /// Key of the ring in its store.
        ignored override_ring_key: String = "metrics-generator",
        /// partition or generator.
        later ring_mode: String = "partition",
        /// push-bytes or otlp.
        later codec: String = "push-bytes",
        /// series or entity.
        later limiter_type: String = "series",
        /// Records at once.
        later ingest_concurrency: u32 = 16u32,
        /// Name of this process; the host name when empty.
        later instance_id: String = "",
        /// Leave the consumer group at the end.
        later leave_consumer_group_on_shutdown: bool = false,
        /// Begin with new records.
        later skip_stale_backlog_on_startup: bool = false,
    }
}
