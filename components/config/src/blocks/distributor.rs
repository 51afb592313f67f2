//! `distributor`: receiving spans.

use crate::block::block;
use crate::blocks::clients::Ring;
use crate::blocks::ingest::Kafka;
use crate::blocks::receivers::Receivers;
use crate::units::{GoDuration, TextList};

block! {
    /// Logging of every span, to find faults.
    pub struct LogSpans {
        /// Log a line for each span.
        used enabled: bool = false,
        /// Log attributes, too.
        used include_all_attributes: bool = false,
        /// Log only spans with an error.
        used filter_by_status_error: bool = false,
    }
}

block! {
    /// Counting of every span by name, to find faults.
    pub struct MetricReceivedSpans {
        /// Count spans by tenant, service and name.
        used enabled: bool = false,
        /// Count root spans only.
        used root_only: bool = false,
    }
}

block! {
    /// Received bytes by attributes that the tenant names.
    pub struct CostAttribution {
        /// Count bytes at /usage_metrics.
        later enabled: bool = false,
        /// Combinations of values per tenant; what is beyond is counted together.
        later max_cardinality: u64 = 10_000u64,
        /// Time after which a silent combination is forgotten.
        later stale_duration: GoDuration = GoDuration::minutes(15),
    }
}

block! {
    /// Who causes how much.
    pub struct Usage {
        /// Received bytes by attributes that the tenant names.
        used cost_attribution: CostAttribution = CostAttribution::default(),
    }
}

block! {
    /// TLS of a forwarder.
    pub struct ForwarderTls {
        /// Send without TLS.
        later insecure: bool = false,
        /// File of the certificates to trust (PEM).
        later cert_file: String = "",
    }
}

block! {
    /// OTLP over gRPC to others.
    pub struct ForwarderOtlp {
        /// Hosts and ports; each gets every request.
        later endpoints: TextList = TextList::default(),
        /// TLS.
        later tls: ForwarderTls = ForwarderTls::default(),
    }
}

block! {
    /// Conditions under which spans are not forwarded, in OTTL.
    pub struct TraceFilters {
        /// On spans.
        later span: Vec<String> = [""; 0],
        /// On events of spans.
        later spanevent: Vec<String> = [""; 0],
    }
}

block! {
    /// What is not forwarded.
    pub struct ForwarderFilter {
        /// Conditions.
        later traces: TraceFilters = TraceFilters::default(),
    }
}

block! {
    /// A copy of received spans to others, switched on per tenant by the override `forwarders`.
    pub struct Forwarder {
        /// Name that overrides use.
        later name: String = "",
        /// Kind; only otlpgrpc exists.
        later backend: String = "",
        /// Where to send.
        later otlpgrpc: ForwarderOtlp = ForwarderOtlp::default(),
        /// What is not forwarded.
        later filter: ForwarderFilter = ForwarderFilter::default(),
    }
}

block! {
    /// Receiving spans.
    pub struct Distributor {
        /// How distributors count each other, for the rate strategy `global`.
        later ring: Ring = Ring {
            heartbeat_timeout: GoDuration::minutes(5),
            ..Ring::default()
        },
        /// Receivers to open.
        used receivers: Receivers = Receivers::default(),
        /// Key of the ring in its store.
        ignored override_ring_key: String = "distributor",
        /// Copies of received spans to others.
        later forwarders: Vec<Forwarder> = Vec::new(),
        /// Log received spans.
        used log_received_spans: LogSpans = LogSpans::default(),
        /// Log spans that are refused for their ids.
        used log_discarded_spans: LogSpans = LogSpans::default(),
        /// Count received spans.
        used metric_received_spans: MetricReceivedSpans = MetricReceivedSpans::default(),
        /// Who causes how much.
        used usage: Usage = Usage::default(),
        /// Kafka; overwritten by `ingest.kafka`.
        ignored kafka_config: Kafka = Kafka::zero(),
        /// Time after which clients may try again when a limit is hit; 0 means no hint.
        used retry_after_on_resource_exhausted: GoDuration = GoDuration::seconds(5),
        /// Longest attribute value; longer ones are cut. 0 means any length.
        used max_attribute_bytes: u64 = 2048u64,
        /// Answer not before this time, to look like a slower system.
        used artificial_delay: GoDuration = GoDuration::ZERO,
    }
}
