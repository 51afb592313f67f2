//! The configuration of Tempo that a stack asks for, checked by the parser that the binary uses.
//!
//! Secrets are never in it: it names environment variables, which pods fill from Secrets.

mod overrides;
mod tempo;

use std::fmt;

use serde_json::Value;
use tempo_config::{CommandLine, Config};

use crate::api::TempoStack;
use crate::merge;
use crate::topology::{Component, Names};

pub use overrides::render as overrides;

/// Folder of the configuration in a pod.
pub const CONFIG_DIR: &str = "/etc/tempo";
/// Folder of the tenants' limits in a pod; reloaded without a restart.
pub const OVERRIDES_DIR: &str = "/etc/tempo-overrides";
/// File of the tenants' limits.
pub const OVERRIDES_FILE: &str = "overrides.yaml";
/// Folder of Secrets and ConfigMaps in a pod, each under its name.
pub const FILES_DIR: &str = "/etc/tempo-files";
/// Folder of data in a pod.
pub const DATA_DIR: &str = "/var/tempo";

/// Environment variables that hold secrets, and that the configuration takes in.
pub const KAFKA_USERNAME: &str = "TEMPO_KAFKA_USERNAME";
/// Password for Kafka.
pub const KAFKA_PASSWORD: &str = "TEMPO_KAFKA_PASSWORD";
/// Bearer token for Kafka.
pub const KAFKA_TOKEN: &str = "TEMPO_KAFKA_TOKEN";
/// Key of an Azure account.
pub const AZURE_ACCOUNT_KEY: &str = "TEMPO_AZURE_ACCOUNT_KEY";

/// Keys that the operator answers for: `extraConfig` may not set them.
const RESERVED: &[&str] = &[
    "target",
    "server.http_listen_port",
    "server.grpc_listen_port",
    "memberlist.join_members",
    "memberlist.cluster_label",
    "memberlist.cluster_label_verification_disabled",
    "memberlist.bind_port",
    "storage.trace.backend",
    "ingest.kafka",
    "live_store.ring",
    "live_store.partition_ring",
    "live_store.shutdown_marker_dir",
    "block_builder.instance_id",
    "block_builder.assigned_partitions",
    "block_builder.partitions_per_instance",
    "overrides.per_tenant_override_config",
    "querier.frontend_worker.frontend_address",
    "backend_worker.backend_scheduler_addr",
];

/// The configuration can't be made, or Tempo would not take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// The configuration of a component's pods as YAML.
///
/// # Errors
/// When `extraConfig` sets what the operator answers for, or Tempo's parser refuses the result.
pub fn render(stack: &TempoStack, component: Component) -> Result<String, ConfigError> {
    let mut tree = tempo::tree(stack, component);
    let extra = stack.spec.extra_config.value();
    if let Some(key) = RESERVED.iter().find(|key| is_set(&extra, key)) {
        return Err(ConfigError(format!(
            "spec.extraConfig.{key} is set, but the operator answers for it; remove it"
        )));
    }
    merge::prune(&mut tree);
    merge::deep(&mut tree, &extra);
    let text = yaml(&tree)?;
    verify(&text, component)?;
    Ok(text)
}

/// Whether Tempo's own parser takes this text.
fn verify(text: &str, component: Component) -> Result<(), ConfigError> {
    let line = CommandLine::parse(arguments(component))
        .map_err(|error| ConfigError(format!("arguments of {}: {error}", component.target())))?;
    // What a variable holds is not known here, and can't be wrong: it stands between quotes.
    Config::load(Some(text), &line, &|_| Some("x".to_owned()))
        .map(drop)
        .map_err(|error| {
            ConfigError(format!(
                "the configuration of {} is wrong, most likely by spec.extraConfig: {error}",
                component.target()
            ))
        })
}

/// The arguments of a component's process, without those of a zone.
pub fn arguments(component: Component) -> Vec<String> {
    vec![
        format!("-target={}", component.target()),
        format!("-config.file={CONFIG_DIR}/{}", file_name(component)),
        "-config.expand-env=true".to_owned(),
    ]
}

/// Name of a component's file of configuration.
pub fn file_name(component: Component) -> String {
    format!("{}.yaml", component.target())
}

fn is_set(value: &Value, path: &str) -> bool {
    path.split('.')
        .try_fold(value, |value, key| value.get(key))
        .is_some()
}

/// YAML in which references to variables stand between single quotes, so that no value of a
/// variable is taken for YAML.
fn yaml(tree: &Value) -> Result<String, ConfigError> {
    let text = serde_yaml::to_string(tree).map_err(|error| ConfigError(error.to_string()))?;
    Ok(text
        .lines()
        .map(|line| match line.split_once(": ${") {
            Some((key, variable)) if variable.ends_with('}') => {
                format!("{key}: '${{{variable}'\n")
            }
            _ => format!("{line}\n"),
        })
        .collect())
}

/// The addresses by which members of the stack find each other.
pub(crate) use tempo::{folder, is_mounted, remote_write_variables};

pub(crate) fn gossip_address(names: &Names) -> String {
    format!("dns+{}:7946", names.host(&names.with("gossip-ring")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::check;

    const SAMPLES: &[&str] = &[
        include_str!("../../../crds/samples/minimal.yaml"),
        include_str!("../../../crds/samples/production.yaml"),
        include_str!("../../../crds/samples/all-fields.yaml"),
        include_str!("../../../crds/samples/secure.yaml"),
    ];

    #[test]
    fn tempo_takes_the_configuration_of_every_sample() {
        for sample in SAMPLES {
            let stack = check::load(sample).unwrap().remove(0);
            for component in Component::UPGRADE_ORDER
                .into_iter()
                .chain([Component::Monolith])
            {
                let text = render(&stack, component).unwrap();
                let line = CommandLine::parse(arguments(component)).unwrap();
                let config =
                    Config::load(Some(&text), &line, &|name| Some(name.to_owned())).unwrap();
                assert_eq!(config.target.name(), component.target());
                let warnings = config.warnings();
                assert!(
                    warnings
                        .iter()
                        .all(|warning| warning.message.contains("mcp_server")
                            || warning.message.contains("backend is local")),
                    "{warnings:?}"
                );
            }
            let tenants =
                tempo_config::parse_runtime_overrides(&overrides(&stack, true).unwrap(), false)
                    .unwrap();
            // And everyone else's.
            assert_eq!(tenants.len(), stack.spec.tenancy.tenants.len() + 1);
        }
    }

    #[test]
    fn a_tenants_other_limits_are_those_of_all() {
        let stack = check::load(SAMPLES[1]).unwrap().remove(0);
        let text = overrides(&stack, true).unwrap();
        let tenants = tempo_config::parse_runtime_overrides(&text, false).unwrap();
        let team = &tenants["team-a"];
        assert_eq!(*team.ingestion.rate_limit_bytes, 5_000_000);
        assert_eq!(*team.ingestion.burst_size_bytes, 40_000_000);
        assert_eq!(team.ingestion.max_traces_per_user, 50_000);
        assert_eq!(*team.global.max_bytes_per_trace, 5_000_000);
        let everyone = &tenants["*"];
        assert_eq!(*everyone.ingestion.rate_limit_bytes, 30_000_000);
        assert_eq!(everyone.ingestion.max_traces_per_user, 50_000);
        assert!(!everyone.compaction.compaction_disabled);
        let handed_over =
            tempo_config::parse_runtime_overrides(&overrides(&stack, false).unwrap(), false)
                .unwrap();
        assert!(
            handed_over
                .values()
                .all(|limits| limits.compaction.compaction_disabled)
        );
        assert_eq!(*team.read.max_bytes_per_tag_values_query, 1_000_000);
        assert_eq!(team.compaction.block_retention.0.as_secs(), 72 * 3600);
        assert_eq!(
            team.metrics_generator.processors,
            ["service-graphs", "span-metrics"]
        );
    }

    #[test]
    fn secrets_stand_between_quotes_and_out_of_the_text() {
        let stack = check::load(SAMPLES[1]).unwrap().remove(0);
        let text = render(&stack, Component::Distributor).unwrap();
        assert!(
            text.contains("sasl_password: '${TEMPO_KAFKA_PASSWORD}'"),
            "{text}"
        );
        let line = CommandLine::parse(arguments(Component::Distributor)).unwrap();
        let config =
            Config::load(Some(&text), &line, &|_| Some("a: \"b\" # {c}".to_owned())).unwrap();
        assert_eq!(config.ingest.kafka.sasl_password.reveal(), "a: \"b\" # {c}");
    }

    #[test]
    fn extra_configuration_is_laid_over_but_not_over_what_the_operator_answers_for() {
        let mut stack = check::load(SAMPLES[2]).unwrap().remove(0);
        let text = render(&stack, Component::Monolith).unwrap();
        assert!(text.contains("concurrent_jobs: 500"), "{text}");
        let set = |stack: &mut TempoStack, value: Value| {
            stack.spec.extra_config = serde_json::from_value(value).unwrap();
        };
        set(
            &mut stack,
            serde_json::json!({"ingest": {"kafka": {"topic": "x"}}}),
        );
        let refused = render(&stack, Component::Monolith).unwrap_err();
        assert!(
            refused.0.contains("spec.extraConfig.ingest.kafka"),
            "{refused}"
        );
        set(
            &mut stack,
            serde_json::json!({"query_frontend": {"serch": {}}}),
        );
        let refused = render(&stack, Component::Monolith).unwrap_err();
        assert!(refused.0.contains("query_frontend.serch"), "{refused}");
    }

    /// Pods are known by their addresses: clients expect the name of a Service whichever they ask.
    #[test]
    fn clients_within_a_stack_expect_one_name() {
        let stack = check::load(SAMPLES[3]).unwrap().remove(0);
        let name = "tempo-secure-query-frontend.tracing.svc";
        let authority = format!("{FILES_DIR}/secret-tempo-secure-internal-tls/ca.crt");
        for component in Component::UPGRADE_ORDER {
            let text = render(&stack, component).unwrap();
            let line = CommandLine::parse(arguments(component)).unwrap();
            let config = Config::load(Some(&text), &line, &|_| Some("x".to_owned())).unwrap();
            assert!(
                config
                    .server
                    .http_tls_config
                    .cert_file
                    .ends_with("/tls.crt")
            );
            assert!(config.server.grpc_tls_config.key_file.ends_with("/tls.key"));
            let clients = match component {
                Component::Querier => vec![
                    &config.querier.frontend_worker.grpc_client_config,
                    &config.live_store_client.grpc_client_config,
                ],
                Component::BackendWorker => {
                    vec![&config.backend_scheduler_client.grpc_client_config]
                }
                _ => continue,
            };
            for client in clients {
                assert!(client.tls_enabled);
                assert_eq!(client.tls.tls_server_name, name);
                assert_eq!(client.tls.tls_ca_path, authority);
            }
        }
    }

    /// I7: a drained partition must be forgotten when its owners go.
    #[test]
    fn partitions_are_forgotten_before_their_owners_go() {
        let mut stack = check::load(SAMPLES[1]).unwrap().remove(0);
        for (wait, poll) in [("35m", "5m"), ("30s", "5s"), ("25m", "5m")] {
            stack.spec.update_strategy.drain_wait = wait.into();
            stack.spec.timings.blocklist_poll = poll.into();
            let text = render(&stack, Component::LiveStore).unwrap();
            let line = CommandLine::parse(arguments(Component::LiveStore)).unwrap();
            let config = Config::load(Some(&text), &line, &|_| None).unwrap();
            let forgotten = config
                .live_store
                .partition_ring
                .delete_inactive_partition_after
                .0;
            assert!(forgotten <= stack.spec.update_strategy.drain_wait.get().unwrap());
            assert!(!forgotten.is_zero());
        }
    }
}
