//! `status`: how a stack is, and what to do.

use std::process::ExitCode;

use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use tempo_operator::api::{DrainPhase, MigrationPhase, TempoStack};

use super::{Error, Status, say};

pub(super) async fn run(options: &Status) -> Result<ExitCode, Error> {
    let client = Client::try_default().await?;
    let namespace = options
        .namespace
        .clone()
        .unwrap_or_else(|| client.default_namespace().to_owned());
    let api: Api<TempoStack> = Api::namespaced(client, &namespace);
    let stacks = match &options.name {
        Some(name) => vec![api.get(name).await?],
        None => api.list(&ListParams::default()).await?.items,
    };
    if stacks.is_empty() {
        say(format_args!("no TempoStack in namespace {namespace}\n"))?;
    }
    for stack in stacks {
        say(text(&stack))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(stack: &TempoStack) -> String {
    let mut lines = Vec::new();
    let name = stack.name_any();
    let Some(status) = &stack.status else {
        return format!("{name}: no operator has looked at it yet; is one running?\n");
    };
    let phase = status
        .phase
        .map(|phase| format!("{phase:?}"))
        .unwrap_or_default();
    let mode = status.mode.map(|mode| mode.name()).unwrap_or_default();
    lines.push(format!(
        "{name}: {phase}, {mode}, Tempo {}",
        status.version.tempo
    ));
    if status.observed_generation != stack.metadata.generation {
        lines.push("  the operator has not seen the last change of the spec yet".to_owned());
    }
    if !status.message.is_empty() {
        lines.push(format!("  {}", status.message));
    }
    for (component, pods) in &status.components {
        lines.push(format!(
            "  {component}: {}/{} ready",
            pods.ready, pods.desired
        ));
    }
    if let Some(live) = &status.live_store {
        lines.push(format!(
            "  partitions: {} active, {} pending, {} inactive",
            live.partitions.active, live.partitions.pending, live.partitions.inactive
        ));
        if let Some(drain) = &live.drain {
            lines.push(format!(
                "  drain of partitions {} to {}, {:?}: {}",
                drain.target,
                drain.from.saturating_sub(1),
                drain.phase,
                drain.message
            ));
            if drain.phase < DrainPhase::Shrink {
                lines.push(format!(
                    "    to cancel it: kubectl scale tempostack {name} --replicas={}",
                    drain.from
                ));
            }
        }
    }
    if let Some(migration) = status
        .migration
        .as_ref()
        .filter(|migration| migration.phase != MigrationPhase::Completed)
    {
        lines.push(format!(
            "  change from {} to {}, {:?} since {}: {}",
            migration.from.name(),
            migration.to.name(),
            migration.phase,
            migration.phase_started_at,
            migration.message
        ));
        let is_handed_over = matches!(
            migration.phase,
            MigrationPhase::CompactionHandover | MigrationPhase::Retire
        );
        if !is_handed_over {
            lines.push(format!(
                "    to turn back: set spec.mode to {}",
                migration.from.name()
            ));
        }
    }
    for condition in status
        .conditions
        .iter()
        .filter(|condition| !condition.message.is_empty())
    {
        lines.push(format!(
            "  {} {} ({}): {}",
            condition.kind, condition.status, condition.reason, condition.message
        ));
    }
    if let Some(endpoints) = &status.endpoints {
        lines.push(format!(
            "  spans to {} or {}, queries to {}",
            endpoints.otlp_grpc, endpoints.otlp_http, endpoints.query
        ));
    }
    lines.push(String::new());
    lines.join("\n")
}
