use super::*;
use crate::{HistogramMethod, RateStrategy, SpanNameSanitization};

fn block(yaml: &str) -> Result<OverridesBlock, Error> {
    OverridesBlock::from_yaml(serde_yaml::from_str(yaml).unwrap(), false)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>, path: &str, problem: &str) {
    let Error::Invalid {
        path: at,
        problem: why,
    } = outcome.unwrap_err()
    else {
        panic!("another error");
    };
    assert_eq!(at, path);
    assert!(why.contains(problem), "{why}");
}

#[test]
fn an_empty_block_has_tempos_defaults() {
    for yaml in ["", "{}", "defaults:", "defaults: {ingestion: }"] {
        let parsed = block(yaml).unwrap();
        assert_eq!(parsed, OverridesBlock::default(), "{yaml}");
    }
    let defaults = Limits::tempo_defaults();
    assert_eq!(defaults.ingestion.rate_strategy, Some(RateStrategy::Local));
    assert_eq!(defaults.ingestion.rate_limit_bytes, 30_000_000);
    assert_eq!(defaults.ingestion.burst_size_bytes, 30_000_000);
    assert_eq!(defaults.ingestion.max_traces_per_user, 10_000);
    assert_eq!(defaults.read.max_bytes_per_tag_values_query, 1_000_000);
    assert_eq!(defaults.global.max_bytes_per_trace, 5_000_000);
    assert_eq!(
        OverridesBlock::default()
            .per_tenant_override_period
            .as_secs(),
        10
    );
}

#[test]
fn written_defaults_replace_tempos_key_by_key() {
    let parsed = block(
        "
        per_tenant_override_config: /conf/overrides.yaml
        per_tenant_override_period: 1m30s
        user_configurable_overrides: {enabled: false}
        defaults:
          ingestion: {rate_strategy: global, burst_size_bytes: 40e6, max_traces_per_user: 0}
          read: {max_search_duration: 1d, unsafe_query_hints: true}
          compaction: {block_retention: 2w, compaction_disabled: true}
          storage:
            parquet_dedicated_columns:
              - {scope: span, name: a, type: string, options: [blob]}
        ",
    )
    .unwrap();
    assert_eq!(parsed.per_tenant_override_config, "/conf/overrides.yaml");
    assert_eq!(parsed.per_tenant_override_period.as_secs(), 90);
    let limits = parsed.defaults;
    assert_eq!(limits.ingestion.rate_strategy, Some(RateStrategy::Global));
    assert_eq!(limits.ingestion.rate_limit_bytes, 30_000_000);
    assert_eq!(limits.ingestion.burst_size_bytes, 40_000_000);
    assert_eq!(limits.ingestion.max_traces_per_user, 0);
    assert_eq!(limits.ingestion.retry_info_enabled, Some(true));
    assert_eq!(limits.read.max_search_duration.0.as_secs(), 86_400);
    assert_eq!(limits.read.max_bytes_per_tag_values_query, 1_000_000);
    assert_eq!(limits.compaction.block_retention.0.as_secs(), 14 * 86_400);
    assert!(limits.compaction.compaction_disabled);
    let columns = limits.storage.parquet_dedicated_columns.unwrap();
    assert_eq!((&*columns[0].name, &*columns[0].options[0]), ("a", "blob"));
}

#[test]
fn what_is_wrong_is_named_by_its_path() {
    for (yaml, path, problem) in [
        ("default: {}", "overrides.default", "known are defaults"),
        (
            "ingestion: {rate_limit_bytes: 1}",
            "overrides.ingestion",
            "overrides.defaults",
        ),
        (
            "defaults: {ingestion: {rate_limit: 1}}",
            "overrides.defaults.ingestion.rate_limit",
            "rate_limit_bytes",
        ),
        (
            "defaults: {ingestion: {rate_limit_bytes: -1}}",
            "overrides.defaults.ingestion.rate_limit_bytes",
            "not negative",
        ),
        (
            "defaults: {ingestion: {rate_limit_bytes: 1.5}}",
            "overrides.defaults.ingestion.rate_limit_bytes",
            "whole number",
        ),
        (
            "defaults: {metrics_generator: {collection_interval: 1d}}",
            "overrides.defaults.metrics_generator.collection_interval",
            "there is no day",
        ),
        (
            "defaults: {compaction: {block_retention: 5}}",
            "overrides.defaults.compaction.block_retention",
            "units are",
        ),
        (
            "per_tenant_override_period: 0s",
            "overrides.per_tenant_override_period",
            "longer than 0",
        ),
        (
            "user_configurable_overrides: {enabled: true}",
            "overrides.user_configurable_overrides.enabled",
            "not supported",
        ),
        ("[]", "overrides", "mapping"),
    ] {
        refused(block(yaml), path, problem);
    }
}

#[test]
fn an_entry_of_the_runtime_file_is_zero_where_it_says_nothing() {
    let table = runtime_file(
        "
        overrides:
          user1:
            ingestion: {rate_limit_bytes: 100}
            metrics_generator:
              processors: [span-metrics, service-graphs]
              generate_native_histograms: both
              span_name_sanitization: dry_run
              remote_write_headers: {Authorization: secret}
              processor:
                span_metrics:
                  dimensions: []
                  intrinsic_dimensions: {span_kind: false}
                  dimension_mappings: [{name: a, source_labels: [b, c], join: /}]
                  filter_policies:
                    - include: {match_type: strict, attributes: [{key: kind, value: SPAN_KIND_SERVER}]}
          7: {}
          \"*\": {read: {max_search_duration: 16s}}
          nobody:
        ",
        false,
    )
    .unwrap();
    assert_eq!(table.keys().collect::<Vec<_>>(), ["*", "7", "user1"]);
    let user1 = &table["user1"];
    assert_eq!(user1.ingestion.rate_limit_bytes, 100);
    assert_eq!(user1.ingestion.burst_size_bytes, 0);
    assert_eq!(user1.global.max_bytes_per_trace, 0);
    let generator = &user1.metrics_generator;
    assert!(generator.processors.contains("span-metrics"));
    assert_eq!(
        generator.generate_native_histograms,
        Some(HistogramMethod::Both)
    );
    assert_eq!(
        generator.span_name_sanitization,
        Some(SpanNameSanitization::DryRun)
    );
    let span_metrics = &generator.processor.span_metrics;
    assert_eq!(span_metrics.dimensions, Some(vec![]));
    assert_eq!(span_metrics.histogram_buckets, None);
    assert_eq!(*table["7"], Limits::default());
    let written = render_table(&table);
    assert!(!written.contains("secret\n"), "{written}");
    assert!(written.contains("<secret>"));
    assert_eq!(
        generator.remote_write_headers["Authorization"].expose(),
        "secret"
    );
}

#[test]
fn merge_keys_and_anchors_work() {
    let table = runtime_file(
        "
        overrides:
          a: &base
            ingestion: {rate_limit_bytes: 5}
          b:
            <<: *base
            forwarders: [f]
        ",
        false,
    )
    .unwrap();
    assert_eq!(table["b"].ingestion.rate_limit_bytes, 5);
    assert_eq!(table["b"].forwarders, ["f"]);
}

#[test]
fn the_runtime_file_is_refused_by_path() {
    for (yaml, path, problem) in [
        ("override: {}", "override", "'overrides'"),
        ("overrides: []", "overrides", "entry per tenant"),
        ("overrides: {t: 5}", "overrides.t", "invalid type"),
        ("{", "overrides", "not YAML"),
        (
            "overrides: {t: {read: {max_searches: 1}}}",
            "overrides.t.read.max_searches",
            "unknown field",
        ),
        (
            "overrides: {t: {extension: {}}}",
            "overrides.t.extension",
            "unknown field",
        ),
        (
            "overrides: {t: {metrics_generator: {native_histogram_bucket_factor: 1.0}}}",
            "overrides.t.metrics_generator.native_histogram_bucket_factor",
            "not greater than 1",
        ),
        (
            "overrides: {t: {metrics_generator: {processor: {span_metrics: {histogram_buckets: [1, 1]}}}}}",
            "overrides.t.metrics_generator.processor.span_metrics.histogram_buckets",
            "increase",
        ),
        (
            "overrides: {t: {metrics_generator: {generate_native_histograms: some}}}",
            "overrides.t.metrics_generator.generate_native_histograms",
            "unknown variant",
        ),
        (
            "overrides: {t: {cost_attribution: {dimensions: {\"\": x}}}}",
            "overrides.t.cost_attribution.dimensions",
            "empty",
        ),
    ] {
        refused(runtime_file(yaml, false), path, problem);
    }
    for yaml in ["", "overrides:", "overrides: {}"] {
        assert!(runtime_file(yaml, false).unwrap().is_empty(), "{yaml}");
    }
}

#[test]
fn flat_limits_are_read_where_enabled() {
    let yaml = "
        overrides:
          t:
            ingestion_rate_limit_bytes: 7
            max_traces_per_user: 8
            max_bytes_per_trace: 9
            block_retention: 1d
            max_search_duration: 1h
            forwarders: [f]
            cost_attribution: {max_cardinality: 3}
            parquet_dedicated_columns: [{scope: span, name: a, type: string}]
            metrics_generator_processors: [span-metrics]
            metrics_generator_forwarder_workers: 4
            metrics_generator_processor_span_metrics_dimensions: [x]
            metrics_generator_processor_service_graphs_span_multiplier_key: y
            metrics_generator_processor_host_info_metric_name: z
        ";
    refused(
        runtime_file(yaml, false),
        "overrides.t",
        "enable_legacy_overrides",
    );
    let table = runtime_file(yaml, true).unwrap();
    let limits = &table["t"];
    assert_eq!(limits.ingestion.rate_limit_bytes, 7);
    assert_eq!(limits.ingestion.max_traces_per_user, 8);
    assert_eq!(limits.global.max_bytes_per_trace, 9);
    assert_eq!(limits.compaction.block_retention.0.as_secs(), 86_400);
    assert_eq!(limits.read.max_search_duration.0.as_secs(), 3600);
    assert_eq!(limits.forwarders, ["f"]);
    assert_eq!(limits.cost_attribution.max_cardinality, 3);
    assert!(limits.storage.parquet_dedicated_columns.is_some());
    let generator = &limits.metrics_generator;
    assert!(generator.processors.contains("span-metrics"));
    assert_eq!(generator.forwarder.workers, 4);
    assert_eq!(
        generator.processor.span_metrics.dimensions,
        Some(vec!["x".to_owned()])
    );
    assert_eq!(generator.processor.service_graphs.span_multiplier_key, "y");
    assert_eq!(generator.processor.host_info.metric_name, "z");
}

#[test]
fn flat_defaults_stand_in_the_block_itself() {
    let yaml = "
        ingestion_burst_size_bytes: 7
        per_tenant_override_config: /x
        ";
    refused(block(yaml), "overrides", "enable_legacy_overrides");
    let enabled = format!("{yaml}enable_legacy_overrides: true");
    let parsed = block(&enabled).unwrap();
    assert_eq!(parsed.defaults.ingestion.burst_size_bytes, 7);
    assert_eq!(parsed.defaults.ingestion.rate_limit_bytes, 30_000_000);
    assert_eq!(parsed.per_tenant_override_config, "/x");
    let by_flag = OverridesBlock::from_yaml(serde_yaml::from_str(yaml).unwrap(), true);
    assert!(by_flag.unwrap().enable_legacy_overrides);
}

#[test]
fn flat_and_scoped_limits_are_not_mixed_and_removed_ones_are_told() {
    for (key, problem) in [
        ("ingestion: {rate_limit_bytes: 1}", "cannot be mixed"),
        (
            "metrics_generator_processor_local_blocks_max_live_traces: 1",
            "does not exist any more",
        ),
    ] {
        let yaml = format!("overrides:\n  t:\n    max_bytes_per_trace: 1\n    {key}\n");
        let name = key.split(':').next().unwrap();
        refused(
            runtime_file(&yaml, true),
            &format!("overrides.t.{name}"),
            problem,
        );
    }
}

#[test]
fn every_limit_survives_being_written_and_read() {
    let limits = Limits::tempo_defaults();
    let text = serde_yaml::to_string(&limits).unwrap();
    assert_eq!(serde_yaml::from_str::<Limits>(&text).unwrap(), limits);
    assert_eq!(serde_yaml::to_string(&Limits::default()).unwrap(), "{}\n");
}
