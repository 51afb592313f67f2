//! Files as they come from Tempo start unchanged.

use std::time::Duration;

use tempo_config::blocks::overrides::TenantOverrides;
use tempo_config::blocks::receivers::Receivers;
use tempo_config::blocks::server::LogFormat;
use tempo_config::blocks::storage::{BackendKind, DedicatedScope};
use tempo_config::{
    CommandLine, Config, Target, parse_runtime_overrides, parse_runtime_overrides_with,
    render_runtime_overrides,
};

use crate::{load, loaded};

const MONOLITH: &str = include_str!("../../testdata/monolith-s3.yaml");

fn monolith() -> Config {
    let flags = CommandLine::parse(["-config.expand-env=true"]).unwrap();
    let variable = |name: &str| match name {
        "S3_ACCESS_KEY" => Some("key".to_owned()),
        "S3_SECRET_KEY" => Some("hidden".to_owned()),
        _ => None,
    };
    Config::load(Some(MONOLITH), &flags, &variable).unwrap()
}

#[test]
fn a_monolith_with_s3() {
    let config = monolith();
    assert_eq!(config.target, Target::All);
    assert!(config.multitenancy());
    assert_eq!(config.server.log_format, LogFormat::Json);
    assert_eq!(
        *config.server.http_server_read_timeout,
        Duration::from_secs(120)
    );
    assert_eq!(config.distributor.max_attribute_bytes, 2048);
    let trace = &config.storage.trace;
    assert_eq!(trace.backend, BackendKind::S3);
    assert_eq!(trace.s3.bucket, "tempo-traces");
    assert_eq!(trace.s3.access_key, "key");
    assert_eq!(trace.s3.secret_key.reveal(), "hidden");
    assert_eq!(trace.s3.tags["team"], "observability");
    assert_eq!(*trace.s3.hedge_requests_at, Duration::from_millis(500));
    assert_eq!(trace.s3.tls.tls_min_version, "VersionTLS12");
    assert_eq!(trace.block.version, "vParquet4");
    assert_eq!(trace.block.parquet_dedicated_columns.len(), 2);
    assert_eq!(
        trace.block.parquet_dedicated_columns[0].scope,
        DedicatedScope::Resource
    );
    assert_eq!(config.cache.caches[0].roles.len(), 3);
    assert_eq!(
        config.metrics_generator.registry.external_labels["cluster"],
        "production"
    );
    let defaults = &config.overrides.defaults;
    assert_eq!(*defaults.ingestion.rate_limit_bytes, 15_000_000);
    assert_eq!(*defaults.global.max_bytes_per_trace, 10 << 20);
    assert_eq!(
        *defaults.compaction.block_retention,
        Duration::from_secs(14 * 86_400)
    );
    // What the file does not name keeps Tempo's default, also beside what it names.
    assert_eq!(defaults.ingestion.retry_info_enabled, Some(true));
    assert_eq!(defaults.read.max_condition_groups_per_tag_query, 100);
    assert_eq!(config.memberlist.join_members[0], "tempo-gossip-ring");
    assert_eq!(config.warnings(), []);
}

#[test]
fn receivers_that_are_named_are_on() {
    let config = monolith();
    let receivers = config.distributor.receivers.effective();
    let otlp = receivers.otlp.as_ref().unwrap();
    let grpc = otlp.protocols.grpc.as_ref().unwrap();
    assert_eq!(grpc.endpoint, "0.0.0.0:4317");
    assert_eq!(grpc.max_recv_msg_size_mib, 16);
    let http = otlp.protocols.http.as_ref().unwrap();
    assert_eq!(http.traces_url_path, "/v1/traces");
    let jaeger = receivers.jaeger.as_ref().unwrap();
    assert!(jaeger.protocols.thrift_http.is_some());
    assert!(jaeger.protocols.thrift_binary.is_none());
    assert_eq!(
        receivers.zipkin.as_ref().unwrap().endpoint,
        "localhost:9411"
    );
    assert!(receivers.kafka.is_none());
}

#[test]
fn receivers_by_default() {
    for text in ["", "distributor:\n", "distributor: {receivers: {}}"] {
        let receivers = loaded(text).distributor.receivers.effective();
        let otlp = receivers.otlp.as_ref().unwrap();
        assert_eq!(
            otlp.protocols.grpc.as_ref().unwrap().endpoint,
            "localhost:4317"
        );
        assert!(otlp.protocols.http.is_none());
        let jaeger = receivers.jaeger.as_ref().unwrap();
        assert!(jaeger.protocols.grpc.is_some() && jaeger.protocols.thrift_http.is_some());
        assert!(receivers.zipkin.is_none());
    }
    // A receiver without protocols opens nothing.
    let receivers = loaded("distributor: {receivers: {otlp: }}")
        .distributor
        .receivers
        .effective();
    assert!(receivers.otlp.as_ref().unwrap().protocols.grpc.is_none());
    assert_eq!(
        Receivers::default().effective(),
        Receivers::default().effective().effective()
    );
}

#[test]
fn keys_without_effect_are_listed() {
    let config = monolith();
    let keys = config.ineffective_keys();
    for key in [
        "storage.trace.pool.max_workers",
        "storage.trace.wal.path",
        "metrics_generator.storage.remote_write",
        "overrides.defaults.metrics_generator.collection_interval",
        "usage_report.reporting_enabled",
    ] {
        assert!(
            keys.contains(&key.to_owned()),
            "{key} is missing in {keys:#?}"
        );
    }
    for key in keys {
        for used in [
            "target",
            "storage.trace.s3",
            "live_store.wal",
            "cache.caches",
            "querier.frontend_worker",
            "overrides.defaults.ingestion",
        ] {
            assert!(!key.starts_with(used), "{key}");
        }
    }
    assert_eq!(loaded("").ineffective_keys(), Vec::<String>::new());
}

#[test]
fn the_monolith_forces_its_rings() {
    let all = loaded("").render(tempo_config::RenderMode::Effective);
    let rest = loaded("target: querier").render(tempo_config::RenderMode::Effective);
    assert!(all.contains("inmemory") && all.contains("127.0.0.1"));
    assert!(!rest.contains("inmemory"));
}

#[test]
fn limits_of_tenants() {
    let tenants = parse_runtime_overrides(
        "overrides:\n\
         \x20 team-a:\n\
         \x20   ingestion:\n\
         \x20     rate_limit_bytes: 5000000\n\
         \x20     artificial_delay: 0s\n\
         \x20   metrics_generator:\n\
         \x20     processors: [span-metrics]\n\
         \x20     processor: {span_metrics: {dimensions: []}}\n\
         \x20 \"*\":\n\
         \x20   compaction: {block_retention: 1d}\n\
         \x20 team-b:\n",
        false,
    )
    .unwrap();
    assert_eq!(tenants.keys().collect::<Vec<_>>(), ["*", "team-a"]);
    let team = &tenants["team-a"];
    assert_eq!(*team.ingestion.rate_limit_bytes, 5_000_000);
    assert_eq!(
        team.ingestion.artificial_delay.map(|d| *d),
        Some(Duration::ZERO)
    );
    // An entry replaces the defaults as a whole.
    assert_eq!(*team.ingestion.burst_size_bytes, 0);
    assert_eq!(*team.global.max_bytes_per_trace, 0);
    assert_eq!(team.ingestion.retry_info_enabled, None);
    let dimensions = &team.metrics_generator.processor.span_metrics.dimensions;
    assert_eq!(dimensions.as_deref(), Some(&[][..]));
    assert!(parse_runtime_overrides("", false).unwrap().is_empty());
    let error = parse_runtime_overrides("overrides:\n  a:\n    ingestion:\n      rate: 1\n", false);
    assert_eq!(
        error.unwrap_err().to_string(),
        "line 4, column 7: overrides.a.ingestion.rate: unknown key; known here: rate_strategy, rate_limit_bytes, burst_size_bytes, max_traces_per_user, max_global_traces_per_user, tenant_shard_size, max_attribute_bytes, artificial_delay, retry_info_enabled"
    );
}

#[test]
fn entries_of_tenants_are_checked_and_shown() {
    let text = "overrides:\n\
                \x20 a:\n\
                \x20   metrics_generator:\n\
                \x20     remote_write_headers: {Authorization: topsecret}\n\
                \x20     generate_native_histograms: both\n\
                \x20     native_histogram_bucket_factor: 0.5\n\
                \x20     processor: {span_metrics: {filter_policies: [{exclude: {match_type: regex, attributes: [{key: name, value: a.*}]}}]}}\n";
    let check = |overrides: &TenantOverrides| {
        let factor = overrides.metrics_generator.native_histogram_bucket_factor;
        let path = "metrics_generator.native_histogram_bucket_factor".to_owned();
        vec![(path, format!("{factor} is too small"))]
    };
    assert_eq!(
        parse_runtime_overrides_with(text, false, &check)
            .unwrap_err()
            .to_string(),
        "line 6, column 39: overrides.a.metrics_generator.native_histogram_bucket_factor: 0.5 is too small"
    );
    let tenants = parse_runtime_overrides(text, false).unwrap();
    let entries = tenants
        .iter()
        .map(|(tenant, entry)| (tenant.as_str(), entry));
    let shown = render_runtime_overrides(entries);
    assert_eq!(
        shown,
        "overrides:\n    \
             a:\n        \
                 metrics_generator:\n            \
                     generate_native_histograms: both\n            \
                     remote_write_headers:\n                \
                         Authorization: \"<secret>\"\n            \
                     processor:\n                \
                         span_metrics:\n                    \
                             filter_policies:\n                        \
                                 - include: null\n                          \
                                   include_any: null\n                          \
                                   exclude:\n                              \
                                       match_type: regex\n                              \
                                       attributes:\n                                  \
                                           - key: name\n                                    \
                                             value: \"a.*\"\n            \
                     native_histogram_bucket_factor: 0.5\n"
    );
    let again = parse_runtime_overrides(&shown, false).unwrap();
    assert_eq!(
        again["a"].metrics_generator.processor,
        tenants["a"].metrics_generator.processor
    );
    let misspelt = text.replace("both", "boht");
    assert!(parse_runtime_overrides(&misspelt, false).unwrap_err().to_string().ends_with(
        "expected one of \"\", classic, native, both, found \"boht\"; did you mean \"both\"?"
    ));
}

#[test]
fn flat_overrides_of_tempo_1() {
    let flat = "overrides:\n\
                \x20 ingestion_rate_limit_bytes: 1000\n\
                \x20 max_bytes_per_trace: 2000\n\
                \x20 metrics_generator_processors: [span-metrics]\n\
                \x20 metrics_generator_processor_service_graphs_dimensions: [a]\n\
                \x20 per_tenant_override_config: /x.yaml\n";
    assert_eq!(
        load(flat).unwrap_err().to_string().lines().next().unwrap(),
        "line 2, column 3: overrides.ingestion_rate_limit_bytes: the flat form of Tempo 1; write defaults.ingestion.rate_limit_bytes, or set overrides.enable_legacy_overrides for the time being"
    );
    for config in [
        loaded(&format!("{flat}  enable_legacy_overrides: true\n")),
        crate::loaded_with(flat, &["-config.enable-legacy-overrides=true"]),
    ] {
        let defaults = &config.overrides.defaults;
        assert_eq!(*defaults.ingestion.rate_limit_bytes, 1000);
        assert_eq!(*defaults.global.max_bytes_per_trace, 2000);
        assert_eq!(defaults.metrics_generator.processors, ["span-metrics"]);
        assert_eq!(
            defaults
                .metrics_generator
                .processor
                .service_graphs
                .dimensions,
            Some(vec!["a".to_owned()])
        );
        assert_eq!(config.overrides.per_tenant_override_config, "/x.yaml");
        assert!(config.warnings()[0].message.contains("flat form"));
    }
    let tenants = parse_runtime_overrides("overrides: {a: {max_bytes_per_trace: 7}}", true);
    assert_eq!(*tenants.unwrap()["a"].global.max_bytes_per_trace, 7);
    assert!(parse_runtime_overrides("overrides: {a: {max_bytes_per_trace: 7}}", false).is_err());
}

#[test]
fn anchors_and_merge_keys() {
    let config = loaded(
        "server: &server {log_level: warn, http_listen_port: 1}\n\
         internal_server: {<<: *server, enable: true, http_listen_port: 2}\n",
    );
    assert_eq!(config.internal_server.server.http_listen_port, 2);
    assert_eq!(config.internal_server.server.log_level.text(), "warn");
    assert!(config.internal_server.enable);
    // Defaults of the second listener are its own.
    assert_eq!(config.internal_server.server.grpc_listen_port, 0);
}
