//! The tree of Tempo's configuration, by component: each has what it reads and nothing else, so
//! that a change of one component's settings starts only its pods anew.

use serde_json::{Value, json};

use super::{
    AZURE_ACCOUNT_KEY, DATA_DIR, FILES_DIR, KAFKA_PASSWORD, KAFKA_TOKEN, KAFKA_USERNAME,
    OVERRIDES_DIR, OVERRIDES_FILE, gossip_address,
};
use crate::api::{Kafka, RemoteWrite, SaslMechanism, Storage, TempoStack};
use crate::certificates;
use crate::references::{Kind, Reference};
use crate::topology::{Component, Names};

/// Longest time between forgetting a drained partition and the end of its drain.
const FORGET_EARLIER_SECS: u64 = 300;

pub(super) fn tree(stack: &TempoStack, component: Component) -> Value {
    let names = Names::of(stack);
    let spec = &stack.spec;
    let mut tree = json!({
        "multitenancy_enabled": spec.tenancy.enabled,
        "stream_over_http_enabled": true,
        "shutdown_delay": shutdown_delay(component),
        "server": server(stack, component),
        "overrides": {
            "per_tenant_override_config": format!("{OVERRIDES_DIR}/{OVERRIDES_FILE}"),
            "per_tenant_override_period": "10s",
        },
        "usage_report": {"reporting_enabled": false},
    });
    let has = |components: &[Component]| {
        component == Component::Monolith || components.contains(&component)
    };
    use Component as C;
    tree["memberlist"] = memberlist(&names);
    if has(&[
        C::LiveStore,
        C::BlockBuilder,
        C::Querier,
        C::QueryFrontend,
        C::BackendScheduler,
        C::BackendWorker,
    ]) {
        tree["storage"] = json!({"trace": storage(stack)});
    }
    if spec.caches.memcached.enabled && has(&[C::Querier, C::QueryFrontend]) {
        tree["cache"] = caches(stack, &names);
    }
    if has(&[C::Distributor]) {
        tree["distributor"] = json!({"receivers": receivers(stack)});
    }
    if let Some(kafka) = &spec.kafka
        && matches!(
            component,
            C::Distributor | C::LiveStore | C::BlockBuilder | C::MetricsGenerator
        )
    {
        tree["ingest"] = json!({"kafka": ingest(stack, &names, kafka)});
    }
    if has(&[C::LiveStore]) {
        tree["live_store"] = live_store(stack, component);
    }
    if component == C::BlockBuilder {
        tree["block_builder"] = json!({
            "consume_cycle_duration": spec.timings.consume_cycle,
            "partitions_per_instance": spec.components.block_builder.partitions_per_instance,
        });
    }
    if has(&[C::QueryFrontend]) {
        tree["query_frontend"] = query_frontend(stack);
    }
    if component == C::Querier {
        let address = format!(
            "{}:9095",
            names.host(&names.with("query-frontend-discovery"))
        );
        tree["querier"] = json!({"frontend_worker": {
            "frontend_address": address,
            "grpc_client_config": grpc_client(stack),
        }});
        tree["live_store_client"] = json!({"grpc_client_config": grpc_client(stack)});
        // It has to know when a partition that is no longer written to need not be asked for.
        let after = &spec.timings.query_backend_after;
        tree["query_frontend"] = json!({
            "search": {"query_backend_after": after},
            "metrics": {"query_backend_after": after},
        });
    }
    if has(&[C::BackendScheduler]) {
        tree["backend_scheduler"] = backend_scheduler(stack);
    }
    if has(&[C::BackendWorker]) {
        tree["backend_worker"] = json!({
            "compaction": {"block_retention": spec.storage.retention},
        });
    }
    if component == C::BackendWorker {
        let address = format!("{}:9095", names.host(&names.component(C::BackendScheduler)));
        tree["backend_worker"]["backend_scheduler_addr"] = json!(address);
        tree["backend_scheduler_client"] = json!({"grpc_client_config": grpc_client(stack)});
    }
    if spec.metrics_generator.enabled && has(&[C::MetricsGenerator]) {
        tree["metrics_generator"] = metrics_generator(stack);
    }
    tree
}

fn shutdown_delay(component: Component) -> Option<&'static str> {
    // What takes requests goes on for as long as others may not know that it leaves.
    matches!(component, Component::Distributor | Component::QueryFrontend).then_some("10s")
}

fn server(stack: &TempoStack, component: Component) -> Value {
    let mut server = json!({
        "http_listen_port": 3200,
        "grpc_listen_port": 9095,
        "log_format": "logfmt",
    });
    let is_left_for_the_other_mode = match component {
        Component::Monolith => stack.spec.storage.local.is_none(),
        component => component == Component::QueryFrontend,
    };
    if is_left_for_the_other_mode {
        // A change of the mode takes queries elsewhere: who keeps a connection must follow.
        let age = json!(stack.spec.receivers.otlp.max_connection_age);
        server["http_server_max_connection_age"] = age.clone();
        if component == Component::Monolith {
            server["grpc_server_max_connection_age"] = age;
        }
    }
    if let Some(certificate) = certificates::internal(stack) {
        let tls = json!({
            "cert_file": file(Kind::Secret, &certificate.secret, "tls.crt"),
            "key_file": file(Kind::Secret, &certificate.secret, "tls.key"),
        });
        server["http_tls_config"] = tls.clone();
        server["grpc_tls_config"] = tls;
    }
    server
}

fn grpc_client(stack: &TempoStack) -> Value {
    certificates::internal(stack).map_or(Value::Null, |certificate| {
        json!({
            "tls_enabled": true,
            "tls_ca_path": file(Kind::Secret, &certificate.secret, "ca.crt"),
            // Live-stores are known by their addresses, which no certificate has.
            "tls_server_name": certificate.server_name(),
        })
    })
}

fn memberlist(names: &Names) -> Value {
    json!({
        "join_members": [gossip_address(names)],
        "cluster_label": names.cluster_label(),
        "abort_if_cluster_join_fails": false,
        "rejoin_interval": "1m",
    })
}

/// Path of a referenced object's key in a pod.
pub(super) fn file(kind: Kind, name: &str, key: &str) -> String {
    format!("{}/{key}", folder(kind, name))
}

/// Folder of a referenced object in a pod.
pub(crate) fn folder(kind: Kind, name: &str) -> String {
    format!("{FILES_DIR}/{}-{name}", kind.name().to_lowercase())
}

/// Whether a pod needs a referenced object as files.
pub(crate) fn is_mounted(reference: &Reference) -> bool {
    !reference.expanded
        && reference.field != "storage.s3.credentials.secretRef"
        && !reference.field.starts_with("gateway.")
}

fn storage(stack: &TempoStack) -> Value {
    let storage = &stack.spec.storage;
    let mut trace = json!({"blocklist_poll": stack.spec.timings.blocklist_poll});
    if let Some(s3) = &storage.s3 {
        let endpoint = s3.endpoint.as_deref().unwrap_or_default();
        let host = endpoint
            .trim_start_matches("https://")
            .trim_start_matches("http://")
            .trim_end_matches('/');
        let amazon = s3
            .region
            .as_ref()
            .map(|region| format!("s3.{region}.amazonaws.com"));
        let host = if host.is_empty() {
            amazon.unwrap_or_default()
        } else {
            host.to_owned()
        };
        let mut settings = json!({
            "bucket": s3.bucket,
            "prefix": storage.prefix,
            "endpoint": host,
            "region": s3.region,
            "forcepathstyle": s3.force_path_style,
            "insecure": s3.insecure || endpoint.starts_with("http://"),
        });
        crate::merge::deep(&mut settings, &client_tls(storage));
        trace["backend"] = json!("s3");
        trace["s3"] = settings;
    } else if let Some(gcs) = &storage.gcs {
        trace["backend"] = json!("gcs");
        trace["gcs"] = json!({
            "bucket_name": gcs.bucket,
            "prefix": storage.prefix,
            "endpoint": gcs.endpoint,
            "insecure": gcs.insecure,
        });
    } else if let Some(azure) = &storage.azure {
        let credentials = azure.credentials.as_ref();
        trace["backend"] = json!("azure");
        trace["azure"] = json!({
            "container_name": azure.container,
            "prefix": storage.prefix,
            "storage_account_name": azure.account_name,
            "endpoint_suffix": azure.endpoint_suffix,
            "storage_account_key": credentials
                .and_then(|credentials| credentials.secret_ref.as_ref())
                .map(|_| format!("${{{AZURE_ACCOUNT_KEY}}}")),
            "use_federated_token": credentials
                .and_then(|credentials| credentials.workload_identity.as_ref())
                .map(|_| true),
        });
    } else {
        trace["backend"] = json!("local");
        trace["local"] = json!({"path": format!("{DATA_DIR}/blocks")});
    }
    trace
}

fn client_tls(storage: &Storage) -> Value {
    let Some(tls) = &storage.tls else {
        return json!({});
    };
    let ca = tls.ca_ref.as_ref().and_then(|ca| {
        ca.config_map
            .as_ref()
            .map(|reference| file(Kind::ConfigMap, &reference.name, &reference.key))
            .or_else(|| {
                ca.secret
                    .as_ref()
                    .map(|reference| file(Kind::Secret, &reference.name, &reference.key))
            })
    });
    let mut settings = json!({
        "tls_ca_path": ca,
        "tls_min_version": tls.min_version,
        "tls_insecure_skip_verify": tls.insecure_skip_verify,
    });
    if let Some(secret) = &tls.cert_secret_ref {
        settings["tls_cert_path"] = json!(file(Kind::Secret, &secret.name, "tls.crt"));
        settings["tls_key_path"] = json!(file(Kind::Secret, &secret.name, "tls.key"));
    }
    crate::merge::prune(&mut settings);
    settings
}

fn receivers(stack: &TempoStack) -> Value {
    let receivers = &stack.spec.receivers;
    let tls = receivers.otlp.tls.as_ref().map(|tls| {
        let name = &certificates::receivers(stack).map_or_else(String::new, |own| own.secret);
        json!({
            "cert_file": file(Kind::Secret, name, "tls.crt"),
            "key_file": file(Kind::Secret, name, "tls.key"),
            "client_ca_file": tls
                .require_client_certificate
                .then(|| file(Kind::Secret, name, "ca.crt")),
        })
    });
    let mut protocols = json!({});
    if receivers.otlp.grpc {
        protocols["grpc"] = json!({
            "endpoint": "0.0.0.0:4317",
            "tls": tls,
            "keepalive": {"server_parameters": {
                "max_connection_age": receivers.otlp.max_connection_age,
                "max_connection_age_grace": "10s",
            }},
        });
    }
    if receivers.otlp.http {
        protocols["http"] = json!({
            "endpoint": "0.0.0.0:4318",
            "tls": tls,
            "max_connection_age": receivers.otlp.max_connection_age,
        });
    }
    let mut all = json!({"otlp": {"protocols": protocols}});
    if receivers.jaeger.enabled {
        all["jaeger"] = json!({"protocols": {
            "grpc": {"endpoint": "0.0.0.0:14250"},
            "thrift_http": {"endpoint": "0.0.0.0:14268"},
        }});
    }
    if receivers.zipkin.enabled {
        all["zipkin"] = json!({"endpoint": "0.0.0.0:9411"});
    }
    all
}

fn ingest(stack: &TempoStack, names: &Names, kafka: &Kafka) -> Value {
    let mut settings = json!({
        "address": kafka.bootstrap_servers.join(","),
        "topic": names.topic(stack),
        "client_id": kafka.client_id.as_deref().unwrap_or("tempo"),
        // The operator, or a person, creates the topic; left on, this changes the brokers' own
        // number of partitions.
        "auto_create_topic_enabled": false,
        "producer_max_record_size_bytes": kafka.producer_max_record_size,
        "producer_compression": kafka.compression,
    });
    if let Some(tls) = &kafka.tls {
        settings["tls_enabled"] = json!(true);
        settings["tls_server_name"] = json!(tls.server_name);
        settings["tls_insecure_skip_verify"] = json!(tls.insecure_skip_verify);
        if let Some(ca) = &tls.ca_secret_ref {
            settings["tls_ca_path"] = json!(file(Kind::Secret, &ca.name, &ca.key));
        }
        if let Some(cert) = &tls.cert_secret_ref {
            settings["tls_cert_path"] = json!(file(Kind::Secret, &cert.name, "tls.crt"));
            settings["tls_key_path"] = json!(file(Kind::Secret, &cert.name, "tls.key"));
        }
    }
    if let Some(sasl) = &kafka.sasl {
        let variable = |set: bool, name: &str| set.then(|| format!("${{{name}}}"));
        let username = variable(sasl.username_secret_ref.is_some(), KAFKA_USERNAME);
        let password = variable(sasl.password_secret_ref.is_some(), KAFKA_PASSWORD);
        settings["sasl_mechanism"] = json!(sasl.mechanism.name());
        match sasl.mechanism {
            SaslMechanism::AwsMskIam => {
                settings["sasl_msk_iam_access_key"] = json!(username);
                settings["sasl_msk_iam_secret_key"] = json!(password);
            }
            SaslMechanism::OauthBearer => {
                settings["sasl_oauthbearer_token"] =
                    json!(variable(sasl.token_secret_ref.is_some(), KAFKA_TOKEN));
            }
            _ => {
                settings["sasl_username"] = json!(username);
                settings["sasl_password"] = json!(password);
            }
        }
    }
    settings
}

/// When members forget a partition that takes no more spans: before its owners go (I7), and not
/// long before, since its data is read from them until then.
fn forget_after_secs(stack: &TempoStack) -> u64 {
    let wait = stack.spec.update_strategy.drain_wait.seconds();
    wait.saturating_sub(FORGET_EARLIER_SECS.min(wait / 3))
        .max(1)
}

fn live_store(stack: &TempoStack, component: Component) -> Value {
    let timings = &stack.spec.timings;
    let mut settings = json!({"complete_block_timeout": timings.complete_block_timeout});
    if component == Component::Monolith && stack.spec.storage.local.is_none() {
        // Always, so that a change of the mode finds a monolith that can be bridged without a
        // restart.
        settings["partition_ring"] = json!({"partition_id": crate::plan::BRIDGE_PARTITION_ID});
    }
    if component == Component::LiveStore {
        settings["readiness_target_lag"] = json!(timings.readiness_target_lag);
        settings["readiness_max_wait"] = json!(timings.readiness_max_wait);
        settings["shutdown_marker_dir"] = json!(format!("{DATA_DIR}/live-store/shutdown-marker"));
        settings["partition_ring"] = json!({
            "min_partition_owners_count": stack.spec.zones.count,
            "min_partition_owners_duration": timings.min_partition_owners_duration,
            "delete_inactive_partition_after": format!("{}s", forget_after_secs(stack)),
        });
    }
    settings
}

/// What queries read again and again: small parts of blocks, and answers of jobs.
const CACHED: &[&str] = &[
    "bloom",
    "trace-id-index",
    "parquet-footer",
    "parquet-offset-idx",
    "parquet-page",
    "frontend-search",
];

fn caches(stack: &TempoStack, names: &Names) -> Value {
    json!({"caches": [{
        "roles": CACHED,
        "memcached": {
            "host": names.host(&names.component(Component::Memcached)),
            "consistent_hash": true,
            "timeout": stack.spec.caches.memcached.timeout,
        },
    }]})
}

fn query_frontend(stack: &TempoStack) -> Value {
    let frontend = &stack.spec.components.query_frontend;
    let timings = &stack.spec.timings;
    json!({
        "query_end_cutoff": timings.query_end_cutoff,
        "search": {
            "default_result_limit": frontend.default_search_limit,
            "max_duration": frontend.max_search_duration,
            "query_backend_after": timings.query_backend_after,
        },
        "metrics": {"query_backend_after": timings.query_backend_after},
        "mcp_server": {"enabled": frontend.mcp_server},
    })
}

fn backend_scheduler(stack: &TempoStack) -> Value {
    json!({
        "local_work_path": DATA_DIR,
        "provider": {"compaction": {"compaction": {
            "block_retention": stack.spec.storage.retention,
        }}},
    })
}

fn metrics_generator(stack: &TempoStack) -> Value {
    let generator = &stack.spec.metrics_generator;
    let remotes: Vec<Value> = generator
        .remote_write
        .iter()
        .enumerate()
        .map(|(index, remote)| remote_write(index, remote))
        .collect();
    json!({
        "registry": {"external_labels": generator.external_labels},
        "storage": {
            "path": format!("{DATA_DIR}/generator/wal"),
            "remote_write": remotes,
        },
    })
}

/// Environment variables with the login of the remote write of this number.
pub(crate) fn remote_write_variables(index: usize) -> (String, String, String) {
    (
        format!("TEMPO_REMOTE_WRITE_{index}_USERNAME"),
        format!("TEMPO_REMOTE_WRITE_{index}_PASSWORD"),
        format!("TEMPO_REMOTE_WRITE_{index}_TOKEN"),
    )
}

fn remote_write(index: usize, remote: &RemoteWrite) -> Value {
    let (username, password, token) = remote_write_variables(index);
    let mut settings = json!({"url": remote.url, "headers": remote.headers});
    if remote.basic_auth_secret_ref.is_some() {
        settings["basic_auth"] = json!({
            "username": format!("${{{username}}}"),
            "password": format!("${{{password}}}"),
        });
    }
    if remote.bearer_token_secret_ref.is_some() {
        settings["authorization"] = json!({"credentials": format!("${{{token}}}")});
    }
    if let Some(ca) = &remote.ca_secret_ref {
        settings["tls_config"] = json!({"ca_file": file(Kind::Secret, &ca.name, &ca.key)});
    }
    settings
}
