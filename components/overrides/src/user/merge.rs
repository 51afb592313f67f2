//! A tenant's document and the limits below it: one put over the other, and one seen as the other.

use tempo_config::{
    DurationOrNanos, GoDuration,
    blocks::{
        overrides::{HistogramMethod, SpanNameSanitization, TenantOverrides},
        user_overrides::{
            UserCostAttribution, UserHostInfo, UserMetricsGenerator, UserOverrides, UserProcessor,
            UserServiceGraphs, UserSpanMetrics,
        },
    },
};

use crate::TenantLimits;

/// Puts what is set in a document over the limits below, key by key; a list or map as a whole.
pub(crate) fn put_over(limits: &mut TenantOverrides, user: &UserOverrides) {
    fn put<T: Clone>(limit: &mut T, set: &Option<T>) {
        if let Some(value) = set {
            limit.clone_from(value);
        }
    }
    fn put_some<T: Clone>(limit: &mut Option<T>, set: &Option<T>) {
        if set.is_some() {
            limit.clone_from(set);
        }
    }
    fn put_time(limit: &mut GoDuration, set: Option<DurationOrNanos>) {
        if let Some(time) = set {
            *limit = GoDuration(time.0);
        }
    }

    put(&mut limits.forwarders, &user.forwarders);
    put(
        &mut limits.cost_attribution.dimensions,
        &user.cost_attribution.dimensions,
    );
    let (limit, set) = (&mut limits.metrics_generator, &user.metrics_generator);
    put(&mut limit.processors, &set.processors);
    put(&mut limit.disable_collection, &set.disable_collection);
    put_time(&mut limit.collection_interval, set.collection_interval);
    put(&mut limit.trace_id_label_name, &set.trace_id_label_name);
    put_time(
        &mut limit.ingestion_time_range_slack,
        set.ingestion_time_range_slack,
    );
    let method = set.generate_native_histograms.as_deref();
    put(
        &mut limit.generate_native_histograms,
        &method.and_then(HistogramMethod::from_text),
    );
    put(
        &mut limit.native_histogram_max_bucket_number,
        &set.native_histogram_max_bucket_number
            .filter(|number| *number > 0),
    );
    put(
        &mut limit.native_histogram_bucket_factor,
        &set.native_histogram_bucket_factor,
    );
    put_time(
        &mut limit.native_histogram_min_reset_duration,
        set.native_histogram_min_reset_duration,
    );
    let mode = set.span_name_sanitization.as_deref();
    put(
        &mut limit.span_name_sanitization,
        &mode.and_then(SpanNameSanitization::from_text),
    );

    let (limit, set) = (
        &mut limits.metrics_generator.processor.service_graphs,
        &user.metrics_generator.processor.service_graphs,
    );
    put_some(&mut limit.dimensions, &set.dimensions);
    put_some(
        &mut limit.enable_client_server_prefix,
        &set.enable_client_server_prefix,
    );
    put_some(
        &mut limit.enable_messaging_system_latency_histogram,
        &set.enable_messaging_system_latency_histogram,
    );
    put_some(
        &mut limit.enable_virtual_node_label,
        &set.enable_virtual_node_label,
    );
    put_some(&mut limit.peer_attributes, &set.peer_attributes);
    put_some(&mut limit.filter_policies, &set.filter_policies);
    put_some(&mut limit.histogram_buckets, &set.histogram_buckets);
    put(&mut limit.span_multiplier_key, &set.span_multiplier_key);
    put_some(
        &mut limit.enable_tracestate_span_multiplier,
        &set.enable_tracestate_span_multiplier,
    );

    let (limit, set) = (
        &mut limits.metrics_generator.processor.span_metrics,
        &user.metrics_generator.processor.span_metrics,
    );
    put_some(&mut limit.dimensions, &set.dimensions);
    put(&mut limit.intrinsic_dimensions, &set.intrinsic_dimensions);
    put_some(&mut limit.dimension_mappings, &set.dimension_mappings);
    put_some(&mut limit.enable_target_info, &set.enable_target_info);
    put_some(&mut limit.filter_policies, &set.filter_policies);
    put_some(&mut limit.histogram_buckets, &set.histogram_buckets);
    put_some(
        &mut limit.target_info_excluded_dimensions,
        &set.target_info_excluded_dimensions,
    );
    put_some(&mut limit.enable_instance_label, &set.enable_instance_label);
    put(&mut limit.span_multiplier_key, &set.span_multiplier_key);
    put_some(
        &mut limit.enable_tracestate_span_multiplier,
        &set.enable_tracestate_span_multiplier,
    );

    let (limit, set) = (
        &mut limits.metrics_generator.processor.host_info,
        &user.metrics_generator.processor.host_info,
    );
    put_some(&mut limit.host_identifiers, &set.host_identifiers);
    put(&mut limit.metric_name, &set.metric_name);
}

/// The document that sets what these limits set, and nothing else.
fn seen_as_document(limits: &TenantOverrides) -> UserOverrides {
    fn set<T: Clone + Default + PartialEq>(limit: &T) -> Option<T> {
        (*limit != T::default()).then(|| limit.clone())
    }
    fn set_time(limit: GoDuration) -> Option<DurationOrNanos> {
        (!limit.is_zero()).then_some(DurationOrNanos(limit.0))
    }
    let generator = &limits.metrics_generator;
    let service_graphs = &generator.processor.service_graphs;
    let span_metrics = &generator.processor.span_metrics;
    let host_info = &generator.processor.host_info;
    UserOverrides {
        forwarders: set(&limits.forwarders),
        cost_attribution: UserCostAttribution {
            dimensions: set(&limits.cost_attribution.dimensions),
        },
        metrics_generator: UserMetricsGenerator {
            processors: set(&generator.processors),
            disable_collection: set(&generator.disable_collection),
            collection_interval: set_time(generator.collection_interval),
            trace_id_label_name: set(&generator.trace_id_label_name),
            ingestion_time_range_slack: set_time(generator.ingestion_time_range_slack),
            generate_native_histograms: set(&generator
                .generate_native_histograms
                .text()
                .to_owned()),
            native_histogram_max_bucket_number: set(&generator.native_histogram_max_bucket_number),
            native_histogram_bucket_factor: set(&generator.native_histogram_bucket_factor),
            native_histogram_min_reset_duration: set_time(
                generator.native_histogram_min_reset_duration,
            ),
            span_name_sanitization: set(&generator.span_name_sanitization.text().to_owned()),
            processor: UserProcessor {
                service_graphs: UserServiceGraphs {
                    dimensions: service_graphs.dimensions.clone(),
                    enable_client_server_prefix: service_graphs.enable_client_server_prefix,
                    enable_messaging_system_latency_histogram: service_graphs
                        .enable_messaging_system_latency_histogram,
                    enable_virtual_node_label: service_graphs.enable_virtual_node_label,
                    peer_attributes: service_graphs.peer_attributes.clone(),
                    filter_policies: service_graphs.filter_policies.clone(),
                    histogram_buckets: service_graphs.histogram_buckets.clone(),
                    span_multiplier_key: set(&service_graphs.span_multiplier_key),
                    enable_tracestate_span_multiplier: service_graphs
                        .enable_tracestate_span_multiplier,
                },
                span_metrics: UserSpanMetrics {
                    dimensions: span_metrics.dimensions.clone(),
                    intrinsic_dimensions: set(&span_metrics.intrinsic_dimensions),
                    dimension_mappings: span_metrics.dimension_mappings.clone(),
                    enable_target_info: span_metrics.enable_target_info,
                    filter_policies: span_metrics.filter_policies.clone(),
                    histogram_buckets: span_metrics.histogram_buckets.clone(),
                    target_info_excluded_dimensions: span_metrics
                        .target_info_excluded_dimensions
                        .clone(),
                    enable_instance_label: span_metrics.enable_instance_label,
                    span_multiplier_key: set(&span_metrics.span_multiplier_key),
                    enable_tracestate_span_multiplier: span_metrics
                        .enable_tracestate_span_multiplier,
                },
                host_info: UserHostInfo {
                    host_identifiers: host_info.host_identifiers.clone(),
                    metric_name: set(&host_info.metric_name),
                },
            },
        },
    }
}

/// What counts for a tenant, seen as a document: what is not set anywhere is shown as what it
/// means, where that is one value.
pub(super) fn merged_document(limits: &TenantLimits) -> UserOverrides {
    let written = limits.as_written();
    let mut document = seen_as_document(written);
    let generator = &mut document.metrics_generator;
    document.forwarders.get_or_insert_default();
    generator.processors.get_or_insert_default();
    generator.disable_collection.get_or_insert(false);
    generator.collection_interval.get_or_insert_default();
    generator.trace_id_label_name.get_or_insert_default();
    generator.ingestion_time_range_slack.get_or_insert_default();
    generator.generate_native_histograms.get_or_insert_default();
    generator.native_histogram_max_bucket_number =
        Some(limits.native_histogram_max_bucket_number());
    generator.native_histogram_bucket_factor = Some(limits.native_histogram_bucket_factor());
    generator.native_histogram_min_reset_duration = Some(DurationOrNanos(
        limits.native_histogram_min_reset_duration(),
    ));
    let mode = limits.span_name_sanitization();
    generator.span_name_sanitization =
        (mode != SpanNameSanitization::Unset).then(|| mode.text().to_owned());
    let processor = &mut generator.processor;
    let service_graphs = &mut processor.service_graphs;
    service_graphs
        .enable_client_server_prefix
        .get_or_insert(false);
    processor
        .span_metrics
        .enable_target_info
        .get_or_insert(false);
    processor
        .span_metrics
        .enable_instance_label
        .get_or_insert(true);
    processor.host_info.metric_name.get_or_insert_default();
    document
}

/// Whether the operator of the installation has set any key that tenants may set, so that a tenant
/// would work against it. The list of processors is for tenants to replace, and what Tempo sets
/// for everyone was set by nobody.
pub(super) fn conflicts(runtime: &TenantOverrides) -> bool {
    let mut set = seen_as_document(runtime);
    set.metrics_generator.processors = None;
    set != UserOverrides::default() && set != seen_as_document(&TenantOverrides::tempo_defaults())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A document that sets every key, to something that no default is.
    const ALL: &str = r#"{"forwarders":["f"],"cost_attribution":{"dimensions":{"a":"b"}},"metrics_generator":{"processors":["host-info"],"disable_collection":true,"collection_interval":"30s","trace_id_label_name":"t","ingestion_time_range_slack":"45s","generate_native_histograms":"both","native_histogram_max_bucket_number":7,"native_histogram_bucket_factor":2,"native_histogram_min_reset_duration":"1m0s","span_name_sanitization":"dry_run","processor":{"service_graphs":{"dimensions":["a"],"enable_client_server_prefix":true,"enable_messaging_system_latency_histogram":true,"enable_virtual_node_label":true,"peer_attributes":["p"],"filter_policies":[],"histogram_buckets":[1],"span_multiplier_key":"k","enable_tracestate_span_multiplier":true},"span_metrics":{"dimensions":["d"],"intrinsic_dimensions":{"service":false},"dimension_mappings":[{"name":"n","source_labels":["s"],"join":"/"}],"enable_target_info":true,"filter_policies":[],"histogram_buckets":[2],"target_info_excluded_dimensions":["x"],"enable_instance_label":false,"span_multiplier_key":"k","enable_tracestate_span_multiplier":true},"host_info":{"host_identifiers":["h"],"metric_name":"m"}}}}"#;

    #[test]
    fn every_key_of_a_document_is_put_over_the_limits() {
        let document = UserOverrides::from_json(ALL).unwrap();
        assert_eq!(document.to_json(), ALL);
        for mut limits in [
            TenantOverrides::default(),
            TenantOverrides::tempo_defaults(),
        ] {
            put_over(&mut limits, &document);
            assert_eq!(seen_as_document(&limits), document);
        }
    }

    #[test]
    fn what_a_document_does_not_set_stays() {
        let mut limits = TenantOverrides::tempo_defaults();
        let all = UserOverrides::from_json(ALL).unwrap();
        put_over(&mut limits, &all);
        let before = limits.clone();
        put_over(&mut limits, &UserOverrides::default());
        assert_eq!(limits, before);
        // An empty list is a value; no buckets are none.
        let some = r#"{"metrics_generator":{"processors":[],"native_histogram_max_bucket_number":0,"processor":{"span_metrics":{"dimensions":[],"intrinsic_dimensions":{"span_kind":true}}}}}"#;
        put_over(&mut limits, &UserOverrides::from_json(some).unwrap());
        let generator = &limits.metrics_generator;
        assert!(generator.processors.is_empty());
        assert_eq!(generator.native_histogram_max_bucket_number, 7);
        let span_metrics = &generator.processor.span_metrics;
        assert_eq!(span_metrics.dimensions, Some(vec![]));
        let names: Vec<&String> = span_metrics.intrinsic_dimensions.keys().collect();
        assert_eq!(names, ["span_kind"]);
        assert_eq!(span_metrics.histogram_buckets, Some(vec![2.0]));
    }

    #[test]
    fn only_what_tenants_may_set_conflicts() {
        let mut limits = TenantOverrides::tempo_defaults();
        limits.ingestion.max_traces_per_user = 5;
        limits.metrics_generator.max_active_series = 5;
        limits.metrics_generator.processors = vec!["span-metrics".to_owned()];
        assert!(!conflicts(&limits));
        limits.forwarders = vec!["f".to_owned()];
        assert!(conflicts(&limits));
        let mut entry = TenantOverrides::default();
        assert!(!conflicts(&entry));
        entry.metrics_generator.collection_interval = GoDuration::seconds(20);
        assert!(conflicts(&entry));
    }
}
