//! The names of the flags.

/// The address that `-health` asks when none is given.
pub const DEFAULT_HEALTH_URL: &str = "http://localhost:3200/ready";

/// Flags with a name of their own: group, flag, key, what it does.
pub(super) const NAMED: &[(&str, &str, &str, &str)] = &[
    (
        "Components",
        "target",
        "target",
        "Which components this process runs.",
    ),
    (
        "Server",
        "server.http-listen-port",
        "server.http_listen_port",
        "Port of the HTTP listener.",
    ),
    (
        "Server",
        "server.grpc-listen-port",
        "server.grpc_listen_port",
        "Port of the gRPC listener.",
    ),
    (
        "Server",
        "http-api-prefix",
        "http_api_prefix",
        "Prefix of the paths of the HTTP API.",
    ),
    (
        "Server",
        "multitenancy.enabled",
        "multitenancy_enabled",
        "Take the tenant of every request from X-Scope-OrgID.",
    ),
    (
        "Server",
        "auth.enabled",
        "auth_enabled",
        "Deprecated for -multitenancy.enabled.",
    ),
    (
        "Server",
        "shutdown-delay",
        "shutdown_delay",
        "How long to go on serving, but not ready, before stopping.",
    ),
    (
        "Server",
        "log.level",
        "server.log_level",
        "Least important lines that are logged: debug, info, warn, error.",
    ),
    (
        "Storage",
        "storage.trace.backend",
        "storage.trace.backend",
        "Kind of object store: local, s3, gcs, azure.",
    ),
    (
        "Storage",
        "storage.trace.local.path",
        "storage.trace.local.path",
        "Folder of the blocks, for the local store.",
    ),
    (
        "Storage",
        "storage.trace.s3.bucket",
        "storage.trace.s3.bucket",
        "Bucket, for S3.",
    ),
    (
        "Storage",
        "storage.trace.s3.endpoint",
        "storage.trace.s3.endpoint",
        "Host and port, for S3.",
    ),
    (
        "Limits",
        "config.per-user-override-config",
        "overrides.per_tenant_override_config",
        "File with limits of tenants.",
    ),
    (
        "Limits",
        "config.per-user-override-period",
        "overrides.per_tenant_override_period",
        "Time between looks for changes of that file.",
    ),
    (
        "Limits",
        "config.enable-legacy-overrides",
        "overrides.enable_legacy_overrides",
        "Accept the flat form of overrides.",
    ),
    (
        "Limits",
        "distributor.rate-limit-strategy",
        "overrides.defaults.ingestion.rate_strategy",
        "How the rate of a tenant is shared: local, global.",
    ),
    (
        "Limits",
        "distributor.ingestion-rate-limit-bytes",
        "overrides.defaults.ingestion.rate_limit_bytes",
        "Bytes per second and tenant.",
    ),
    (
        "Limits",
        "distributor.ingestion-burst-size-bytes",
        "overrides.defaults.ingestion.burst_size_bytes",
        "Bytes at once and tenant.",
    ),
    (
        "Limits",
        "ingester.max-traces-per-user",
        "overrides.defaults.ingestion.max_traces_per_user",
        "Live traces per tenant.",
    ),
    (
        "Limits",
        "ingester.max-global-traces-per-user",
        "overrides.defaults.ingestion.max_global_traces_per_user",
        "Not enforced.",
    ),
    (
        "Limits",
        "ingester.max-bytes-per-trace",
        "overrides.defaults.global.max_bytes_per_trace",
        "Size of a trace.",
    ),
    (
        "Limits",
        "querier.max-bytes-per-tag-values-query",
        "overrides.defaults.read.max_bytes_per_tag_values_query",
        "Bytes of tag values in an answer.",
    ),
    (
        "Limits",
        "querier.max-blocks-per-tag-values-query",
        "overrides.defaults.read.max_blocks_per_tag_values_query",
        "Not enforced.",
    ),
    (
        "Limits",
        "querier.max-condition-groups-per-tag-query",
        "overrides.defaults.read.max_condition_groups_per_tag_query",
        "Alternatives in a query for tags.",
    ),
    (
        "Limits",
        "metrics-generator.native-histogram-bucket-factor",
        "overrides.defaults.metrics_generator.native_histogram_bucket_factor",
        "Growth of buckets.",
    ),
    (
        "Limits",
        "metrics-generator.native-histogram-max-bucket-number",
        "overrides.defaults.metrics_generator.native_histogram_max_bucket_number",
        "Number of buckets.",
    ),
    (
        "Limits",
        "metrics-generator.native-histogram-min-reset-duration",
        "overrides.defaults.metrics_generator.native_histogram_min_reset_duration",
        "Time between resets.",
    ),
    (
        "Finding faults",
        "distributor.log-received-spans.enabled",
        "distributor.log_received_spans.enabled",
        "Log received spans.",
    ),
    (
        "Finding faults",
        "distributor.log-received-spans.include-attributes",
        "distributor.log_received_spans.include_all_attributes",
        "Log their attributes, too.",
    ),
    (
        "Finding faults",
        "distributor.log-received-spans.filter-by-status-error",
        "distributor.log_received_spans.filter_by_status_error",
        "Log only spans with an error.",
    ),
    (
        "Cluster",
        "memberlist.host-port",
        "memberlist.join_members",
        "Member to begin with; may be repeated.",
    ),
    (
        "Cluster",
        "memberlist.bind-port",
        "memberlist.bind_port",
        "Port of the gossip.",
    ),
    (
        "Cluster",
        "memberlist.message-history-buffer-bytes",
        "memberlist.message_history_buffer_bytes",
        "Messages to remember.",
    ),
    (
        "Cluster",
        "live-store.instance-availability-zone",
        "live_store.ring.instance_zone",
        "Availability zone of a live-store.",
    ),
    (
        "Cluster",
        "block-builder.max-bytes-per-cycle",
        "block_builder.max_consuming_bytes",
        "Bytes of a round of the block-builder.",
    ),
    (
        "Cluster",
        "generator.instance-id",
        "metrics_generator.instance_id",
        "Name of a metrics-generator.",
    ),
    (
        "Cluster",
        "generator.leave-consumer-group-on-shutdown",
        "metrics_generator.leave_consumer_group_on_shutdown",
        "Leave the consumer group at the end.",
    ),
    (
        "Cluster",
        "generator.skip-stale-backlog-on-startup",
        "metrics_generator.skip_stale_backlog_on_startup",
        "Begin with new records.",
    ),
    (
        "Cluster",
        "generatorstore",
        "metrics_generator.ring.kvstore.store",
        "Store of the ring; the dot is missing in Tempo, too.",
    ),
    (
        "Cluster",
        "live-storestore",
        "live_store.ring.kvstore.store",
        "Store of the ring; the dot is missing in Tempo, too.",
    ),
    (
        "Other",
        "query-frontend.mcp-server.enabled",
        "query_frontend.mcp_server.enabled",
        "A server for language models.",
    ),
    (
        "Other",
        "reporting.enabled",
        "usage_report.reporting_enabled",
        "Has no effect; reports are never sent.",
    ),
    (
        "Other",
        "enable-go-runtime-metrics",
        "enable_go_runtime_metrics",
        "Has no effect.",
    ),
    (
        "Other",
        "span-profiling",
        "span_profiling",
        "Has no effect.",
    ),
];

/// Beginnings of flags that follow the YAML, and the beginnings of the keys.
pub(super) const FAMILIES: &[(&str, &str)] = &[
    ("storage.trace.", "storage.trace."),
    ("live-store.", "live_store."),
    ("distributor.", "distributor."),
    ("querier.", "querier."),
    ("query-frontend.", "query_frontend."),
    ("ingest.", "ingest.kafka."),
    ("block-builder.", "block_builder."),
    ("backend-scheduler.", "backend_scheduler."),
    ("backend-worker.", "backend_worker."),
    ("generator.", "metrics_generator."),
    ("memberlist.", "memberlist."),
    ("server.", "server."),
];

/// Flags of Tempo that are taken and mean nothing here.
pub(super) const WITHOUT_EFFECT: &[&str] = &["mutex-profile-fraction", "block-profile-threshold"];

/// Flags that are no settings: name, whether a value follows, what it does.
pub(super) const ACTIONS: &[(&str, bool, &str)] = &[
    ("config.file", true, "File with the configuration (YAML)."),
    (
        "config.expand-env",
        false,
        "Replace ${VAR} in the configuration by variables of the environment.",
    ),
    (
        "config.verify",
        false,
        "Check the configuration and stop; fails on warnings, too.",
    ),
    ("version", false, "Print the version and stop."),
    (
        "health",
        false,
        "Ask a running process whether it is ready and stop.",
    ),
    ("health.url", true, "Address to ask."),
    ("help", false, "Print this text and stop."),
    ("h", false, "The same."),
];
