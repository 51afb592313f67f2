//! Overrides that a tenant sets itself: the keys of [`TenantOverrides`] that are permitted, each
//! set or not.
//!
//! The document is JSON and lies in the object store; its format is Tempo's, so that either can
//! read what the other wrote.
//!
//! [`TenantOverrides`]: crate::blocks::overrides::TenantOverrides

use std::collections::BTreeMap;

use crate::block::block;
use crate::blocks::metrics_generator::{DimensionMapping, FilterPolicy};
use crate::document;
use crate::error::Error;
use crate::units::DurationOrNanos;
use crate::value::{Decoder, Value};

block! {
    /// Received bytes by attributes.
    pub struct UserCostAttribution {
        /// Attributes and the labels that they become.
        later dimensions: Option<BTreeMap<String, String>> = None,
    }
}

block! {
    /// Edges between services.
    pub struct UserServiceGraphs {
        /// Attributes that become labels.
        later dimensions: Option<Vec<String>> = None,
        /// Prefix labels with client_ and server_.
        later enable_client_server_prefix: Option<bool> = None,
        /// Measure the time in messaging systems.
        later enable_messaging_system_latency_histogram: Option<bool> = None,
        /// Label edges whose other side is only guessed.
        later enable_virtual_node_label: Option<bool> = None,
        /// Attributes that name the other side.
        later peer_attributes: Option<Vec<String>> = None,
        /// Filters of spans.
        later filter_policies: Option<Vec<FilterPolicy>> = None,
        /// Upper bounds of the histograms, in seconds.
        later histogram_buckets: Option<Vec<f64>> = None,
        /// Attribute with the number of spans that one stands for.
        later span_multiplier_key: Option<String> = None,
        /// Take that number from the trace state.
        later enable_tracestate_span_multiplier: Option<bool> = None,
    }
}

block! {
    /// Rate, errors and duration of spans.
    pub struct UserSpanMetrics {
        /// Attributes that become labels.
        later dimensions: Option<Vec<String>> = None,
        /// Labels that every span has, by name.
        later intrinsic_dimensions: Option<BTreeMap<String, bool>> = None,
        /// Labels made of several attributes.
        later dimension_mappings: Option<Vec<DimensionMapping>> = None,
        /// Write traces_target_info.
        later enable_target_info: Option<bool> = None,
        /// Filters of spans.
        later filter_policies: Option<Vec<FilterPolicy>> = None,
        /// Upper bounds of the histogram, in seconds.
        later histogram_buckets: Option<Vec<f64>> = None,
        /// Attributes of the resource that traces_target_info leaves out.
        later target_info_excluded_dimensions: Option<Vec<String>> = None,
        /// Label the instance.
        later enable_instance_label: Option<bool> = None,
        /// Attribute with the number of spans that one stands for.
        later span_multiplier_key: Option<String> = None,
        /// Take that number from the trace state.
        later enable_tracestate_span_multiplier: Option<bool> = None,
    }
}

block! {
    /// Hosts that send spans.
    pub struct UserHostInfo {
        /// Attributes that name the host.
        later host_identifiers: Option<Vec<String>> = None,
        /// Name of the metric.
        later metric_name: Option<String> = None,
    }
}

block! {
    /// What is made of spans.
    pub struct UserProcessor {
        /// Edges between services.
        later service_graphs: UserServiceGraphs = UserServiceGraphs::default(),
        /// Rate, errors and duration of spans.
        later span_metrics: UserSpanMetrics = UserSpanMetrics::default(),
        /// Hosts that send spans.
        later host_info: UserHostInfo = UserHostInfo::default(),
    }
}

block! {
    /// Metrics from spans.
    pub struct UserMetricsGenerator {
        /// What is made of spans: span-metrics, service-graphs, host-info and their parts.
        later processors: Option<Vec<String>> = None,
        /// Make metrics but do not write them.
        later disable_collection: Option<bool> = None,
        /// Time between writes.
        later collection_interval: Option<DurationOrNanos> = None,
        /// Label with the trace id in exemplars.
        later trace_id_label_name: Option<String> = None,
        /// How far a span may end from now to count.
        later ingestion_time_range_slack: Option<DurationOrNanos> = None,
        /// classic, native or both.
        later generate_native_histograms: Option<String> = None,
        /// Buckets of a native histogram; 0 is as unset.
        later native_histogram_max_bucket_number: Option<u32> = None,
        /// Growth of buckets of native histograms.
        later native_histogram_bucket_factor: Option<f64> = None,
        /// Shortest time between resets of a native histogram.
        later native_histogram_min_reset_duration: Option<DurationOrNanos> = None,
        /// How names of spans are made fewer.
        later span_name_sanitization: Option<String> = None,
        /// What is made of spans.
        later processor: UserProcessor = UserProcessor::default(),
    }
}

block! {
    /// Overrides that a tenant has set itself.
    pub struct UserOverrides {
        /// Names of `distributor.forwarders` that get the tenant's spans.
        later forwarders: Option<Vec<String>> = None,
        /// Received bytes by attributes.
        later cost_attribution: UserCostAttribution = UserCostAttribution::default(),
        /// Metrics from spans.
        later metrics_generator: UserMetricsGenerator = UserMetricsGenerator::default(),
    }
}

impl UserOverrides {
    /// Reads a document, which the caller has found to be JSON. An unknown key is an error.
    ///
    /// # Errors
    /// [`Error::Issues`] with the path of each key.
    pub fn from_json(json: &str) -> Result<Self, Error> {
        Self::decode(json, Decoder::new(None)).map(|(overrides, _)| overrides)
    }

    /// Reads a document that was stored, maybe by a later version: keys that are not known here
    /// are left out, and told by their paths.
    ///
    /// # Errors
    /// [`Error::Issues`] with the path of each key whose value can't be used.
    pub fn from_stored_json(json: &str) -> Result<(Self, Vec<String>), Error> {
        Self::decode(json, Decoder::lenient())
    }

    fn decode(json: &str, mut decoder: Decoder<'_>) -> Result<(Self, Vec<String>), Error> {
        let root = document::parse(json).map_err(|issue| Error::Issues(vec![issue]))?;
        let mut overrides = Self::default();
        overrides.merge(&root, &mut decoder);
        if decoder.issues.is_empty() {
            Ok((overrides, decoder.left_out))
        } else {
            Err(Error::Issues(decoder.issues))
        }
    }

    /// The document; what is not set is left out.
    pub fn to_json(&self) -> String {
        self.render().without_nulls().to_json()
    }

    /// The document as YAML, without what is not set.
    pub fn to_yaml(&self) -> String {
        self.render().without_nulls().to_yaml()
    }
}
