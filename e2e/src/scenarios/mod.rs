//! The scenarios, as a table.

mod broken_off;
mod certificates;
mod changes;
mod chart;
mod cluster_only;
mod faults;
mod identity;
mod lifecycle;
mod microservices;
mod migration;
mod minimal;
mod refusals;
mod scaling;
mod secure;
mod volumes;

use std::time::Duration;

use crate::{
    Outcome,
    context::{Capability, Context},
};

/// One scenario.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name, also that of its namespace.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// What it needs of its surroundings.
    pub needs: &'static [Capability],
    /// Others must not play meanwhile: it stops or replaces the operator, or counts what it does.
    pub alone: bool,
    /// Plays it.
    pub play: fn(&Context<'_>) -> Outcome,
}

/// Time for what the operator does at once: undo a change, remove an object, tell of an error.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(30);
/// Time for a changed ConfigMap to reach a pod and be read there: up to the kubelet's minute, and
/// the program's ten seconds.
pub(crate) const RELOAD_LIMIT: Duration = Duration::from_secs(90);
/// Time for a rollout of one or few pods.
pub(crate) const ROLLOUT_LIMIT: Duration = Duration::from_secs(120);
/// Time within which what was acknowledged must be found: by default, searches end 30 s before now.
pub(crate) const FIND_LIMIT: Duration = Duration::from_secs(60);

/// All scenarios, the quickest to tell that something is wrong first.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "chart",
        about: "Helm installs, upgrades, rolls back and removes; stacks outlive it",
        needs: &[Capability::Pods],
        alone: true,
        play: chart::chart,
    },
    Scenario {
        name: "minimal",
        about: "ten lines become a backend: spans in by gRPC and HTTP, traces out",
        needs: &[Capability::Pods],
        alone: false,
        play: minimal::minimal,
    },
    Scenario {
        name: "invalid-spec",
        about: "the API server refuses what cannot work, and says what to do",
        needs: &[],
        alone: false,
        play: refusals::invalid_spec,
    },
    Scenario {
        name: "samples",
        about: "the API server takes the samples that people copy",
        needs: &[],
        alone: false,
        play: refusals::samples,
    },
    Scenario {
        name: "restricted",
        about: "every pod meets the standard `restricted`, with a read-only root",
        needs: &[],
        alone: false,
        play: minimal::restricted,
    },
    Scenario {
        name: "drift",
        about: "what others change or delete is put back; what is theirs stays",
        needs: &[],
        alone: false,
        play: faults::drift,
    },
    Scenario {
        name: "prune",
        about: "what the spec no longer asks for goes",
        needs: &[],
        alone: false,
        play: changes::prune,
    },
    Scenario {
        name: "edit-config",
        about: "a limit works without a restart, a static key rolls the pods",
        needs: &[Capability::Pods],
        alone: false,
        play: changes::edit_config,
    },
    Scenario {
        name: "secret-missing",
        about: "a missing Secret is told, and its coming is noticed",
        needs: &[Capability::Store],
        alone: false,
        play: refusals::secret_missing,
    },
    Scenario {
        name: "secret-bad",
        about: "a Secret without the key is told, and running pods go on",
        needs: &[Capability::Store],
        alone: false,
        play: refusals::secret_bad,
    },
    Scenario {
        name: "secret-rotate",
        about: "a changed Secret rolls the pods once",
        needs: &[Capability::Store],
        alone: false,
        play: changes::secret_rotate,
    },
    Scenario {
        name: "delete",
        about: "all objects go with the stack, volumes stay, also with the operator down",
        needs: &[],
        alone: true,
        play: lifecycle::delete,
    },
    Scenario {
        name: "pause",
        about: "paused: no writes but status; stopped: no pods, volumes stay",
        needs: &[],
        alone: false,
        play: lifecycle::pause_and_stop,
    },
    Scenario {
        name: "operator-down",
        about: "spans and queries do not need the operator",
        needs: &[Capability::Pods],
        alone: true,
        play: lifecycle::operator_down,
    },
    Scenario {
        name: "ha",
        about: "with two replicas one works, and the other takes over",
        needs: &[Capability::Pods],
        alone: true,
        play: lifecycle::high_availability,
    },
    Scenario {
        name: "microservices",
        about: "Kafka and S3: partitions with owners in two zones, blocks in the bucket",
        needs: &[Capability::Neighbours],
        alone: false,
        play: microservices::microservices,
    },
    Scenario {
        name: "edit-replicas",
        about: "a component's replicas touch that component alone",
        needs: &[Capability::Neighbours],
        alone: false,
        play: microservices::edit_replicas,
    },
    Scenario {
        name: "kafka-bad",
        about: "an unreachable Kafka is told, and no pod crashes for it",
        needs: &[Capability::Neighbours],
        alone: false,
        play: refusals::kafka_bad,
    },
    Scenario {
        name: "namespaced",
        about: "an operator with a Role in one namespace leaves others alone",
        needs: &[Capability::Pods],
        alone: true,
        play: lifecycle::namespaced,
    },
    Scenario {
        name: "two-stacks",
        about: "two stacks in a namespace share nothing",
        needs: &[Capability::Pods],
        alone: false,
        play: lifecycle::two_stacks,
    },
    Scenario {
        name: "tenants",
        about: "tenants are apart, and one tenant's limit leaves its others at their defaults",
        needs: &[Capability::Pods],
        alone: false,
        play: changes::tenants,
    },
    Scenario {
        name: "reconcile-economy",
        about: "an idle stack costs no write",
        needs: &[Capability::AuditLog],
        alone: true,
        play: faults::reconcile_economy,
    },
    Scenario {
        name: "hundred-stacks",
        about: "a hundred stacks settle within a minute, in 50 MiB of operator",
        needs: &[],
        alone: true,
        play: faults::hundred_stacks,
    },
    Scenario {
        name: "broken-off",
        about: "the operator dies at one request after another, and the end is the same",
        needs: &[Capability::OperatorBinary],
        alone: true,
        play: broken_off::broken_off,
    },
    Scenario {
        name: "render",
        about: "what `render` prints is what is applied",
        needs: &[Capability::OperatorBinary],
        alone: false,
        play: identity::render,
    },
    Scenario {
        name: "long-name",
        about: "a name of 28 letters has room for every hash and number",
        needs: &[Capability::Neighbours],
        alone: false,
        play: identity::long_name,
    },
    Scenario {
        name: "scale",
        about: "kubectl scale grows the topic first, and drains before it shrinks",
        needs: &[Capability::Neighbours],
        alone: false,
        play: microservices::scale,
    },
    Scenario {
        name: "stable-endpoints",
        about: "a change of mode keeps Services, their ids, and every trace",
        needs: &[Capability::Neighbours],
        alone: false,
        play: identity::stable_endpoints,
    },
    Scenario {
        name: "migrate-up",
        about: "Monolithic becomes Microservices under load: nothing lost, nothing twice",
        needs: &[Capability::Neighbours],
        alone: false,
        play: migration::up,
    },
    Scenario {
        name: "migrate-down",
        about: "Microservices becomes Monolithic under load; the topic stays",
        needs: &[Capability::Neighbours],
        alone: false,
        play: migration::down,
    },
    Scenario {
        name: "migrate-restart",
        about: "the operator is killed in each phase of a change of mode",
        needs: &[Capability::Neighbours],
        alone: true,
        play: migration::restart,
    },
    Scenario {
        name: "migrate-revert",
        about: "the mode is edited back before and after spans have moved",
        needs: &[Capability::Neighbours],
        alone: false,
        play: migration::revert,
    },
    Scenario {
        name: "migrate-blocked",
        about: "a change of mode without Kafka touches nothing, and says why",
        needs: &[Capability::Neighbours],
        alone: false,
        play: migration::blocked,
    },
    Scenario {
        name: "migrate-source-crash",
        about: "the monolith is killed while its traces become blocks",
        needs: &[Capability::Neighbours],
        alone: false,
        play: migration::source_crash,
    },
    Scenario {
        name: "scale-up",
        about: "more live-stores under load: first the topic, then they",
        needs: &[Capability::Neighbours],
        alone: false,
        play: scaling::up,
    },
    Scenario {
        name: "scale-down-load",
        about: "fewer live-stores under load: drained before they go",
        needs: &[Capability::Neighbours],
        alone: false,
        play: scaling::down,
    },
    Scenario {
        name: "scale-down-cancel",
        about: "a drain that is cancelled leaves all as it was",
        needs: &[Capability::Neighbours],
        alone: false,
        play: scaling::cancel,
    },
    Scenario {
        name: "scale-down-restart",
        about: "the operator is killed in each step of a drain, which goes on",
        needs: &[Capability::Neighbours],
        alone: true,
        play: scaling::restart,
    },
    Scenario {
        name: "scale-back",
        about: "live-stores that went come back, and their partitions with them",
        needs: &[Capability::Neighbours],
        alone: false,
        play: scaling::back,
    },
    Scenario {
        name: "zone-rolling",
        about: "new live-stores zone by zone: every partition keeps an owner",
        needs: &[Capability::Neighbours],
        alone: false,
        play: scaling::zones,
    },
    Scenario {
        name: "upgrade",
        about: "a new version reaches readers before writers, under load",
        needs: &[Capability::Neighbours, Capability::NextImage],
        alone: false,
        play: scaling::upgrade,
    },
    Scenario {
        name: "internal-tls",
        about: "components and the operator talk over TLS, and a new certificate needs no new pod",
        needs: &[Capability::Neighbours],
        alone: false,
        play: secure::internal_tls,
    },
    Scenario {
        name: "certificates",
        about: "cert-manager is asked for certificates, and new ones make no new pods",
        needs: &[Capability::NoPods],
        alone: true,
        play: certificates::by_cert_manager,
    },
    Scenario {
        name: "volume-claims",
        about: "larger volumes are asked for without a new pod; who can't have them is told",
        needs: &[Capability::NoPods],
        alone: false,
        play: volumes::claims,
    },
    Scenario {
        name: "volume-resize",
        about: "volumes grow without a restart, and never shrink",
        needs: &[Capability::ExpandableVolumes],
        alone: false,
        play: volumes::resize,
    },
    Scenario {
        name: "node-drain",
        about: "a node is drained while spans go in and queries are answered",
        needs: &[Capability::Neighbours, Capability::SeveralNodes],
        alone: false,
        play: cluster_only::node_drain,
    },
    Scenario {
        name: "network-policy",
        about: "strangers are kept out, and whom the spec names is let in",
        needs: &[Capability::NetworkPolicies],
        alone: false,
        play: cluster_only::network_policy,
    },
];
