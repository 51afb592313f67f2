//! `metrics_generator`: which metrics are made of a tenant's spans.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize, Serializer};

use super::{InvalidLimit, is_default, number};
use crate::GoDuration;

/// `metrics_generator`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsGeneratorLimits {
    /// Without effect, as in Tempo.
    #[serde(deserialize_with = "number::whole", skip_serializing_if = "is_default")]
    pub ring_size: u64,
    /// Names of the processors; none: no metrics are generated.
    #[serde(skip_serializing_if = "is_default")]
    pub processors: BTreeSet<String>,
    /// Series at once; 0: any number.
    #[serde(deserialize_with = "number::whole", skip_serializing_if = "is_default")]
    pub max_active_series: u64,
    /// Entities at once; 0: any number.
    #[serde(deserialize_with = "number::whole", skip_serializing_if = "is_default")]
    pub max_active_entities: u64,
    /// Values of one label; 0: any number.
    #[serde(deserialize_with = "number::whole", skip_serializing_if = "is_default")]
    pub max_cardinality_per_label: u64,
    /// Time between two collections; 0: the generator's own setting.
    #[serde(skip_serializing_if = "is_default")]
    pub collection_interval: GoDuration,
    /// Count, and send nothing.
    #[serde(skip_serializing_if = "is_default")]
    pub disable_collection: bool,
    /// Oldest end of a span that counts; 0: the generator's own setting.
    #[serde(skip_serializing_if = "is_default")]
    pub ingestion_time_range_slack: GoDuration,
    /// Which kind of histograms; none: classic.
    #[serde(skip_serializing_if = "is_default")]
    pub generate_native_histograms: Option<HistogramMethod>,
    /// Growth of native buckets, above 1; 0: from the defaults.
    #[serde(skip_serializing_if = "is_default")]
    pub native_histogram_bucket_factor: f64,
    /// Native buckets at most; 0: from the defaults.
    #[serde(deserialize_with = "number::whole", skip_serializing_if = "is_default")]
    pub native_histogram_max_bucket_number: u64,
    /// Time between two resets of a native histogram; 0: from the defaults.
    #[serde(skip_serializing_if = "is_default")]
    pub native_histogram_min_reset_duration: GoDuration,
    /// Whether span names that differ in numbers alone count as one; none: from the defaults.
    #[serde(skip_serializing_if = "is_default")]
    pub span_name_sanitization: Option<SpanNameSanitization>,
    /// Label of the trace id in exemplars; empty: `traceID`.
    #[serde(skip_serializing_if = "is_default")]
    pub trace_id_label_name: String,
    /// Headers that are sent with the metrics.
    #[serde(skip_serializing_if = "is_default")]
    pub remote_write_headers: BTreeMap<String, SecretHeader>,
    /// The queue from the distributor.
    #[serde(skip_serializing_if = "is_default")]
    pub forwarder: ForwarderLimits,
    /// Settings of the processors.
    #[serde(skip_serializing_if = "is_default")]
    pub processor: ProcessorLimits,
}

/// Which kind of histograms are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HistogramMethod {
    /// With fixed buckets.
    #[serde(alias = "")]
    Classic,
    /// With exponential buckets.
    Native,
    /// Both.
    Both,
}

/// Whether span names that differ in numbers alone count as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpanNameSanitization {
    /// No.
    #[serde(rename = "")]
    Disabled,
    /// No, but it is counted what would be saved.
    #[serde(rename = "dry_run")]
    DryRun,
    /// Yes.
    #[serde(rename = "enabled")]
    Enabled,
}

/// The value of a header, which is not printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretHeader(String);

impl SecretHeader {
    /// The value itself, for whoever must send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl Serialize for SecretHeader {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("<secret>")
    }
}

/// `metrics_generator.forwarder`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ForwarderLimits {
    /// Pushes that wait; 0: 100.
    #[serde(deserialize_with = "number::whole", skip_serializing_if = "is_default")]
    pub queue_size: u64,
    /// Workers that take from the queue; 0: 2.
    #[serde(deserialize_with = "number::whole", skip_serializing_if = "is_default")]
    pub workers: u64,
}

/// `metrics_generator.processor`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessorLimits {
    /// Who calls whom.
    #[serde(skip_serializing_if = "is_default")]
    pub service_graphs: ServiceGraphsLimits,
    /// Rate, errors and durations.
    #[serde(skip_serializing_if = "is_default")]
    pub span_metrics: SpanMetricsLimits,
    /// Which hosts there are.
    #[serde(skip_serializing_if = "is_default")]
    pub host_info: HostInfoLimits,
}

/// `metrics_generator.processor.service_graphs`; none: the generator's own setting.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceGraphsLimits {
    /// Upper bounds in seconds, strictly increasing.
    #[serde(skip_serializing_if = "is_default")]
    pub histogram_buckets: Option<Vec<f64>>,
    /// Attributes that become labels.
    #[serde(skip_serializing_if = "is_default")]
    pub dimensions: Option<Vec<String>>,
    /// Attributes that name the other side, in order of preference.
    #[serde(skip_serializing_if = "is_default")]
    pub peer_attributes: Option<Vec<String>>,
    /// Which spans count.
    #[serde(skip_serializing_if = "is_default")]
    pub filter_policies: Option<Vec<FilterPolicy>>,
    /// Whether labels tell client from server; can only be switched on.
    #[serde(skip_serializing_if = "is_default")]
    pub enable_client_server_prefix: Option<bool>,
    /// Whether the time in a messaging system is measured.
    #[serde(skip_serializing_if = "is_default")]
    pub enable_messaging_system_latency_histogram: Option<bool>,
    /// Whether invented nodes are labelled.
    #[serde(skip_serializing_if = "is_default")]
    pub enable_virtual_node_label: Option<bool>,
    /// Attribute that holds the sampling ratio.
    #[serde(skip_serializing_if = "is_default")]
    pub span_multiplier_key: String,
    /// Whether the sampling threshold in the trace state counts.
    #[serde(skip_serializing_if = "is_default")]
    pub enable_tracestate_span_multiplier: Option<bool>,
}

/// `metrics_generator.processor.span_metrics`; none: the generator's own setting.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpanMetricsLimits {
    /// Upper bounds in seconds, strictly increasing.
    #[serde(skip_serializing_if = "is_default")]
    pub histogram_buckets: Option<Vec<f64>>,
    /// Attributes that become labels.
    #[serde(skip_serializing_if = "is_default")]
    pub dimensions: Option<Vec<String>>,
    /// Which of the span's own fields become labels; the others stay as the generator has them.
    #[serde(skip_serializing_if = "is_default")]
    pub intrinsic_dimensions: BTreeMap<String, bool>,
    /// Which spans count.
    #[serde(skip_serializing_if = "is_default")]
    pub filter_policies: Option<Vec<FilterPolicy>>,
    /// Labels made of several attributes.
    #[serde(skip_serializing_if = "is_default")]
    pub dimension_mappings: Option<Vec<DimensionMapping>>,
    /// Whether `traces_target_info` is made.
    #[serde(skip_serializing_if = "is_default")]
    pub enable_target_info: Option<bool>,
    /// Resource attributes that are no label of it.
    #[serde(skip_serializing_if = "is_default")]
    pub target_info_excluded_dimensions: Option<Vec<String>>,
    /// Whether there is a label `instance`.
    #[serde(skip_serializing_if = "is_default")]
    pub enable_instance_label: Option<bool>,
    /// Attribute that holds the sampling ratio.
    #[serde(skip_serializing_if = "is_default")]
    pub span_multiplier_key: String,
    /// Whether the sampling threshold in the trace state counts.
    #[serde(skip_serializing_if = "is_default")]
    pub enable_tracestate_span_multiplier: Option<bool>,
}

/// `metrics_generator.processor.host_info`; none: the generator's own setting.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostInfoLimits {
    /// Resource attributes that name the host, in order of preference.
    #[serde(skip_serializing_if = "is_default")]
    pub host_identifiers: Option<Vec<String>>,
    /// Name of the metric.
    #[serde(skip_serializing_if = "is_default")]
    pub metric_name: String,
}

/// A label made of several attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DimensionMapping {
    /// The label.
    pub name: String,
    /// The attributes, in order.
    #[serde(rename = "source_labels")]
    pub source_attributes: Vec<String>,
    /// What stands between their values.
    pub join: String,
}

/// Which spans count.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilterPolicy {
    /// All of these must match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include: Option<FilterPolicyMatch>,
    /// One of these suffices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_any: Option<FilterPolicyMatch>,
    /// None of these may match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude: Option<FilterPolicyMatch>,
}

/// A match on attributes, all of which must agree.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilterPolicyMatch {
    /// `strict` or `regex`.
    pub match_type: String,
    /// The attributes.
    pub attributes: Vec<FilterPolicyAttribute>,
}

/// An attribute and its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterPolicyAttribute {
    /// `resource.…`, `span.…`, `kind`, `name` or `status`.
    pub key: String,
    /// A string, number or boolean.
    pub value: serde_yaml::Value,
}

impl MetricsGeneratorLimits {
    pub(super) fn tempo_defaults() -> Self {
        Self {
            generate_native_histograms: Some(HistogramMethod::Classic),
            native_histogram_bucket_factor: 1.1,
            native_histogram_max_bucket_number: 100,
            native_histogram_min_reset_duration: GoDuration(std::time::Duration::from_secs(900)),
            ..Self::default()
        }
    }

    pub(super) fn validate(&self) -> Result<(), InvalidLimit> {
        let factor = self.native_histogram_bucket_factor;
        if factor != 0.0 && (factor.is_nan() || factor <= 1.0) {
            return Err(InvalidLimit::new(
                "metrics_generator.native_histogram_bucket_factor",
                format!("{factor} is not greater than 1"),
            ));
        }
        let processor = &self.processor;
        for (name, buckets) in [
            (
                "service_graphs",
                &processor.service_graphs.histogram_buckets,
            ),
            ("span_metrics", &processor.span_metrics.histogram_buckets),
        ] {
            let increasing = |buckets: &Vec<f64>| buckets.windows(2).all(|pair| pair[0] < pair[1]);
            if !buckets.as_ref().is_none_or(increasing) {
                return Err(InvalidLimit::new(
                    format!("metrics_generator.processor.{name}.histogram_buckets"),
                    "bounds must increase strictly",
                ));
            }
        }
        Ok(())
    }
}
