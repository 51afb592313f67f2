//! What values must be, beyond their types.
//!
//! The texts are Tempo's, since clients of its API show and match them. Must never know where a
//! value comes from: the runtime file, or a tenant.

use std::collections::{BTreeMap, BTreeSet};

use tempo_config::{
    Problem, Scalar,
    blocks::{
        metrics_generator::{
            DimensionMapping, FilterPolicy, MatchType, PolicyAttribute, PolicyMatch,
        },
        overrides::{HistogramMethod, SpanNameSanitization, TenantOverrides},
        user_overrides::{UserOverrides, UserSpanMetrics},
    },
};
use tempo_traceql::{Attribute, Intrinsic, Pattern, Scope, parse_identifier};

const PROCESSORS: [&str; 9] = [
    "service-graphs",
    "service-graphs-request",
    "service-graphs-latency",
    "service-graphs-connection-info",
    "span-metrics",
    "span-metrics-count",
    "span-metrics-latency",
    "span-metrics-size",
    "host-info",
];
const INTRINSIC_DIMENSIONS: [&str; 5] = [
    "service",
    "span_name",
    "span_kind",
    "status_code",
    "status_message",
];
const KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];
const STATUSES: [&str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];
const COLLECTION_INTERVAL_SECONDS: std::ops::RangeInclusive<u64> = 15..=300;
const MAX_INGESTION_SLACK_HOURS: u64 = 12;

const SERVICE_GRAPHS_BUCKETS: &str = "metrics_generator.processor.service_graphs.histogram_buckets";
const SPAN_METRICS_BUCKETS: &str = "metrics_generator.processor.span_metrics.histogram_buckets";
const BUCKET_FACTOR: &str = "metrics_generator.native_histogram_bucket_factor";
const COST_DIMENSIONS: &str = "cost_attribution.dimensions";

/// What is wrong with an entry of the runtime file.
pub(crate) fn entry_problems(entry: &TenantOverrides) -> Vec<Problem> {
    let generator = &entry.metrics_generator;
    let factor = generator.native_histogram_bucket_factor;
    let service_graphs = &generator.processor.service_graphs.histogram_buckets;
    let span_metrics = &generator.processor.span_metrics.histogram_buckets;
    let checked = [
        (
            BUCKET_FACTOR,
            if factor == 0.0 {
                Ok(())
            } else {
                bucket_factor(factor)
            },
        ),
        (
            SERVICE_GRAPHS_BUCKETS,
            buckets(SERVICE_GRAPHS_BUCKETS, service_graphs.as_deref()),
        ),
        (
            SPAN_METRICS_BUCKETS,
            buckets(SPAN_METRICS_BUCKETS, span_metrics.as_deref()),
        ),
        (
            COST_DIMENSIONS,
            cost_dimensions(&entry.cost_attribution.dimensions),
        ),
    ];
    checked
        .into_iter()
        .filter_map(|(path, outcome)| {
            let text = outcome.err()?;
            // The path stands before the text already.
            let text = text.strip_prefix(path).unwrap_or(&text).trim_start();
            Some((path.to_owned(), text.to_owned()))
        })
        .collect()
}

/// What is wrong with a tenant's own document, in one text. `forwarders` are those that exist.
pub(crate) fn check_document(
    document: &UserOverrides,
    forwarders: &BTreeSet<String>,
) -> Result<(), String> {
    for name in document.forwarders.iter().flatten() {
        if !forwarders.contains(name) {
            return Err(format!(
                "forwarder \"{name}\" is not a known forwarder, contact your system administrator"
            ));
        }
    }
    let generator = &document.metrics_generator;
    let (service_graphs, span_metrics) = (
        &generator.processor.service_graphs,
        &generator.processor.span_metrics,
    );
    for name in generator.processors.iter().flatten() {
        one_of(
            &format!("metrics_generator.processor \"{name}\" is not a known processor"),
            name,
            &PROCESSORS,
        )?;
    }
    for policies in [
        &span_metrics.filter_policies,
        &service_graphs.filter_policies,
    ] {
        for policy in policies.iter().flatten() {
            filter_policy(policy)?;
        }
    }
    if let Some(interval) = &generator.collection_interval {
        let seconds = interval.as_secs_f64();
        let (least, most) = (
            *COLLECTION_INTERVAL_SECONDS.start() as f64,
            *COLLECTION_INTERVAL_SECONDS.end() as f64,
        );
        if !(least..=most).contains(&seconds) {
            return Err(format!(
                "metrics_generator.collection_interval \"{interval}\" is outside acceptable range of 15s to 5m"
            ));
        }
    }
    if let Some(name) = &generator.trace_id_label_name
        && *name != label(name)
    {
        return Err(format!(
            "trace_id_label_name \"{name}\" is not a valid Prometheus label name"
        ));
    }
    if let Some(slack) = &generator.ingestion_time_range_slack
        && slack.as_secs_f64() > (MAX_INGESTION_SLACK_HOURS * 3600) as f64
    {
        return Err(format!(
            "metrics_generator.ingestion_time_range_slack \"{slack}\" is outside acceptable range of 0s to 12h"
        ));
    }
    if let Some(factor) = generator.native_histogram_bucket_factor {
        bucket_factor(factor)?;
    }
    buckets(
        SERVICE_GRAPHS_BUCKETS,
        service_graphs.histogram_buckets.as_deref(),
    )?;
    buckets(
        SPAN_METRICS_BUCKETS,
        span_metrics.histogram_buckets.as_deref(),
    )?;
    if let Some(dimensions) = &document.cost_attribution.dimensions {
        cost_dimensions(dimensions)?;
    }
    for name in span_metrics
        .intrinsic_dimensions
        .iter()
        .flat_map(BTreeMap::keys)
    {
        one_of(
            &format!("intrinsic dimension \"{name}\" is not supported"),
            name,
            &INTRINSIC_DIMENSIONS,
        )?;
    }
    if let Some(method) = &generator.generate_native_histograms
        && (method.is_empty() || HistogramMethod::from_text(method).is_none())
    {
        return Err(format!(
            "metrics_generator.generate_native_histograms \"{method}\" is not a valid value, valid values: classic, native, both"
        ));
    }
    if let Some(mode) = &generator.span_name_sanitization
        && SpanNameSanitization::from_text(mode).is_none()
    {
        return Err(format!(
            "span_name_sanitization \"{mode}\" is not valid, valid values: [{}]",
            SpanNameSanitization::TEXTS.join(" ")
        ));
    }
    if generator.processor.host_info.metric_name.as_deref() == Some("") {
        return Err("metric_name is invalid".to_owned());
    }
    for mapping in span_metrics.dimension_mappings.iter().flatten() {
        dimension_mapping(mapping)?;
    }
    labels_are_distinct(span_metrics)
}

fn one_of(problem: &str, name: &str, known: &[&str]) -> Result<(), String> {
    if known.contains(&name) {
        Ok(())
    } else {
        Err(format!("{problem}, valid values: [{}]", known.join(" ")))
    }
}

fn bucket_factor(factor: f64) -> Result<(), String> {
    if factor > 1.0 {
        Ok(())
    } else {
        Err(format!("{BUCKET_FACTOR} must be greater than 1"))
    }
}

fn buckets(path: &str, bounds: Option<&[f64]>) -> Result<(), String> {
    for (index, pair) in bounds.unwrap_or_default().windows(2).enumerate() {
        if let [before, bound] = pair
            && bound <= before
        {
            return Err(format!(
                "{path} must be strictly increasing: bucket[{}]={bound} is <= bucket[{index}]={before}",
                index + 1
            ));
        }
    }
    Ok(())
}

/// Attributes become labels, each of them once.
fn cost_dimensions(dimensions: &BTreeMap<String, String>) -> Result<(), String> {
    let mut attributes: BTreeMap<String, &str> = BTreeMap::new();
    for (attribute, label) in dimensions {
        let bare = attribute
            .strip_prefix("resource.")
            .or_else(|| attribute.strip_prefix("span."))
            .unwrap_or(attribute);
        let name = full_label(if label.is_empty() { bare } else { label });
        if let Some(other) = attributes.get(&name) {
            return Err(format!(
                "{COST_DIMENSIONS} has duplicate label name: '{name}', both '{other}' and '{attribute}' map to it"
            ));
        }
        // Prometheus keeps these for itself.
        if name.starts_with("__") {
            return Err(format!(
                "{COST_DIMENSIONS} config has invalid label name: '{name}'"
            ));
        }
        attributes.insert(name, attribute);
    }
    Ok(())
}

/// A name with everything but letters, digits and `_` replaced.
fn label(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect()
}

/// [`label`] that Prometheus takes: not empty, and no digit first.
fn full_label(name: &str) -> String {
    let label = label(name);
    match label.chars().next() {
        None => "_".to_owned(),
        Some(first) if first.is_ascii_digit() => format!("_{}", &label[1..]),
        Some(_) => label,
    }
}

/// The label of a dimension or mapping; what is called like an intrinsic gets a prefix.
fn dimension_label(name: &str) -> String {
    let label = label(name);
    if INTRINSIC_DIMENSIONS.contains(&label.as_str()) {
        format!("__{label}")
    } else {
        label
    }
}

fn dimension_mapping(mapping: &DimensionMapping) -> Result<(), String> {
    if mapping.name.is_empty() {
        return Err("dimension_mappings: name cannot be empty".to_owned());
    }
    if mapping.source_labels.is_empty() {
        return Err(format!(
            "dimension_mappings: source_labels cannot be empty for mapping with name {:?}",
            mapping.name
        ));
    }
    Ok(())
}

/// Dimensions may share a label, the last one wins; a mapping may not.
fn labels_are_distinct(span_metrics: &UserSpanMetrics) -> Result<(), String> {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for (name, _) in span_metrics
        .intrinsic_dimensions
        .iter()
        .flatten()
        .filter(|(_, enabled)| **enabled)
    {
        seen.insert(name.clone(), format!("intrinsic dimension {name:?}"));
    }
    for name in span_metrics.dimensions.iter().flatten() {
        seen.insert(dimension_label(name), format!("dimension {name:?}"));
    }
    for mapping in span_metrics.dimension_mappings.iter().flatten() {
        let (name, label) = (&mapping.name, dimension_label(&mapping.name));
        if let Some(source) = seen.get(&label) {
            return Err(format!(
                "dimension_mapping {name:?} produces label {label:?} which collides with {source}"
            ));
        }
        seen.insert(label, format!("dimension_mapping {name:?}"));
    }
    Ok(())
}

fn filter_policy(policy: &FilterPolicy) -> Result<(), String> {
    let parts = [
        ("include", &policy.include),
        ("includeAny", &policy.include_any),
        ("exclude", &policy.exclude),
    ];
    if parts.iter().all(|(_, part)| part.is_none()) {
        return Err(
            "invalid filter policy; policies must have at least an `include`, `includeAny` or `exclude`: {<nil> <nil> <nil>}"
                .to_owned(),
        );
    }
    for (name, part) in parts {
        if let Some(part) = part {
            policy_match(part).map_err(|problem| format!("invalid {name} policy: {problem}"))?;
        }
    }
    Ok(())
}

fn policy_match(part: &PolicyMatch) -> Result<(), String> {
    for attribute in &part.attributes {
        let PolicyAttribute { key, value } = attribute;
        if key.is_empty() {
            return Err("invalid attribute: its key is empty".to_owned());
        }
        let text = match value {
            Scalar::Text(text) => Some(text.as_str()),
            Scalar::Literal(_) => None,
        };
        let shown = match value {
            Scalar::Text(text) | Scalar::Literal(text) => text,
        };
        let intrinsic = match parse_identifier(key).map_err(|error| error.to_string())? {
            Attribute::Intrinsic(
                intrinsic @ (Intrinsic::Kind | Intrinsic::Name | Intrinsic::Status),
            ) => Some(intrinsic),
            Attribute::Named {
                parent: false,
                scope: Some(Scope::Resource | Scope::Span),
                ..
            } => None,
            Attribute::Named { .. } => {
                return Err(format!(
                    "invalid or unsupported attribute scope: {key}; write resource. or span."
                ));
            }
            Attribute::Intrinsic(_) => {
                return Err(format!(
                    "unsupported intrinsic: {key}; supported intrinsics: [kind name status]"
                ));
            }
        };
        if part.match_type == MatchType::Regex {
            let text =
                text.ok_or_else(|| format!("invalid attribute filter regexp value: {shown}"))?;
            Pattern::new(text)
                .map_err(|error| format!("invalid attribute filter regexp: {error}"))?;
            continue;
        }
        let (kind, known): (_, &[&str]) = match intrinsic {
            None => continue,
            Some(Intrinsic::Kind) => ("kind", &KINDS),
            Some(Intrinsic::Status) => ("status", &STATUSES),
            Some(_) if text.is_some() => continue,
            Some(_) => return Err(format!("unsupported name intrinsic value: {shown}")),
        };
        match text {
            Some(text) if known.contains(&text) => {}
            Some(text) => return Err(format!("unsupported {kind} intrinsic string value: {text}")),
            None => return Err(format!("invalid {kind} intrinsic value: {shown}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
