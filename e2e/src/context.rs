//! What every scenario is given.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::Rng;
use serde_json::Value;

use crate::{
    Outcome, cluster::Cluster, neighbours::Neighbours, operator::Operator, stack::Stack,
    traces::Sdk,
};

/// Time for all pods of a scenario to end.
const PODS_GONE_LIMIT: Duration = Duration::from_secs(120);

/// What a scenario may need of its surroundings. A scenario without what it needs is skipped, and
/// the table says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// A node that runs pods.
    Pods,
    /// No node: nothing that pods would do is needed.
    NoPods,
    /// An S3 store can be started where pods reach it, if there are pods.
    Store,
    /// Kafka and an S3 store can be started where pods reach them.
    Neighbours,
    /// Two nodes or more that can run pods.
    SeveralNodes,
    /// The default StorageClass can make volumes larger.
    ExpandableVolumes,
    /// NetworkPolicies have an effect.
    NetworkPolicies,
    /// The API server's audit log can be read.
    AuditLog,
    /// The operator's program runs here, too.
    OperatorBinary,
    /// There is an image of Tempo of another version.
    NextImage,
}

impl Capability {
    /// For the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pods => "a node",
            Self::NoPods => "a control plane alone",
            Self::Store => "S3 within reach of pods",
            Self::Neighbours => "Kafka and S3 within reach of pods",
            Self::SeveralNodes => "several nodes",
            Self::ExpandableVolumes => "volumes that grow",
            Self::NetworkPolicies => "enforced NetworkPolicies",
            Self::AuditLog => "an audit log",
            Self::OperatorBinary => "the operator's program",
            Self::NextImage => "an image of another version",
        }
    }
}

/// The surroundings of all scenarios of a run.
#[derive(Debug)]
pub struct World {
    /// The cluster.
    pub cluster: Cluster,
    /// The operator in it.
    pub operator: Operator,
    /// Sends traces.
    pub sdk: Sdk,
    /// Kafka and S3.
    pub neighbours: Neighbours,
    /// The repository, with samples and the operator's own commands.
    pub repository: PathBuf,
    /// The audit log, where there is one.
    pub audit_log: Option<PathBuf>,
    /// The operator's program, where it is at hand.
    pub operator_binary: Option<PathBuf>,
    /// Tag of another image of Tempo, to upgrade to.
    pub next_tag: Option<String>,
    /// What the surroundings can do.
    pub capabilities: BTreeSet<Capability>,
}

impl World {
    /// What the cluster can do, as far as it tells.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn discover(cluster: &Cluster) -> Outcome<BTreeSet<Capability>> {
        let mut found = BTreeSet::new();
        let nodes = cluster.list("", "nodes", "")?;
        found.insert(if nodes.is_empty() {
            Capability::NoPods
        } else {
            Capability::Pods
        });
        let workers = nodes
            .values()
            .filter(|node| {
                node["spec"]["taints"]
                    .as_array()
                    .is_none_or(|taints| taints.iter().all(|taint| taint["effect"] != "NoSchedule"))
            })
            .count();
        if workers > 1 {
            found.insert(Capability::SeveralNodes);
        }
        let grows = cluster
            .list("", "storageclasses", "")?
            .values()
            .any(|class| {
                class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"]
                    == "true"
                    && class["allowVolumeExpansion"] == true
            });
        if grows {
            found.insert(Capability::ExpandableVolumes);
        }
        let agents = cluster.kubectl(&["get", "daemonsets", "-A", "-o", "name"])?;
        if ["calico", "cilium", "antrea"]
            .iter()
            .any(|agent| agents.contains(agent))
        {
            found.insert(Capability::NetworkPolicies);
        }
        Ok(found)
    }
}

/// What a scenario has to tell besides how it ended. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Told(Arc<Mutex<String>>);

impl Told {
    /// Tells this from now on.
    pub fn tell(&self, what: String) {
        eprintln!("e2e: {what}");
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// What was told last; nothing is empty.
    pub fn text(&self) -> String {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// One scenario's own: a namespace that admits only restricted pods.
#[derive(Debug)]
pub struct Context<'w> {
    /// The surroundings.
    pub world: &'w World,
    /// The namespace, made for this scenario alone.
    pub namespace: String,
    /// For the table.
    pub told: Told,
}

impl<'w> Context<'w> {
    /// Makes the namespace.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub fn new(world: &'w World, scenario: &str) -> Outcome<Self> {
        let namespace = format!(
            "e2e-{scenario}-{:05x}",
            rand::rng().random_range(0..0x10_0000)
        );
        make_namespace(&world.cluster, &namespace)?;
        Ok(Self {
            world,
            namespace,
            told: Told::default(),
        })
    }

    /// The cluster.
    pub fn cluster(&self) -> &'w Cluster {
        &self.world.cluster
    }

    /// Whether pods run, and with them whatever answers to spans and queries.
    pub fn has_pods(&self) -> bool {
        self.world.capabilities.contains(&Capability::Pods)
    }

    /// Applies manifests in the namespace.
    ///
    /// # Errors
    /// When they are refused.
    pub fn apply(&self, yaml: &str) -> Outcome {
        self.cluster().apply(&self.namespace, yaml)
    }

    /// The stack `name` in the namespace.
    pub fn stack(&self, name: &str) -> Stack<'w> {
        Stack::new(self.cluster(), &self.namespace, name)
    }

    /// Kills the program of a pod as a kernel without memory does, where the node is this machine;
    /// elsewhere the pod is deleted without a time to end. Kubernetes starts it again.
    ///
    /// # Errors
    /// When it can't be.
    pub fn kill(&self, name: &str, pod: &Value) -> Outcome {
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        let mut killed = false;
        for process in fs::read_dir("/proc")?.flatten() {
            let of_pod = fs::read_to_string(process.path().join("cgroup"))
                .is_ok_and(|groups| !uid.is_empty() && groups.contains(uid));
            let is_tempo = fs::read_to_string(process.path().join("comm"))
                .is_ok_and(|command| command.trim() == "tempo");
            if of_pod && is_tempo {
                let id = process.file_name().to_string_lossy().into_owned();
                killed |= Command::new("kill").args(["-9", &id]).status()?.success();
            }
        }
        if killed {
            return Ok(());
        }
        self.cluster()
            .kubectl(&[
                "-n",
                &self.namespace,
                "delete",
                "pod",
                name,
                "--grace-period=0",
                "--force",
                "--wait=false",
            ])
            .map(drop)
    }

    /// Removes the stacks and the namespace, and waits until they are gone.
    ///
    /// # Errors
    /// When something in it cannot be removed.
    pub fn remove(&self) -> Outcome {
        // Kubernetes waits half the longest time that a pod may take to end before it looks again
        // at a namespace: ten minutes for a live-store that ends in seconds. So pods go first.
        let stacks = ["tempostacks.tempostack.io", "--all", "--ignore-not-found"];
        let in_namespace = ["-n", &self.namespace, "delete", "--timeout=60s"];
        self.cluster()
            .attempt(&[&in_namespace[..], &stacks[..]].concat(), "")?;
        self.cluster().wait(
            &self.namespace,
            "pods",
            "app.kubernetes.io/managed-by=tempo-operator",
            PODS_GONE_LIMIT,
            "the pods are gone",
            BTreeMap::is_empty,
        )?;
        self.cluster().kubectl(&[
            "delete",
            "namespace",
            &self.namespace,
            "--ignore-not-found",
            "--timeout=110s",
        ])?;
        Ok(())
    }
}

/// A namespace that admits only pods of the standard `restricted`.
///
/// # Errors
/// When the cluster refuses.
pub fn make_namespace(cluster: &Cluster, name: &str) -> Outcome {
    cluster.apply(
        "default",
        &format!(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels:\n    \
             pod-security.kubernetes.io/enforce: restricted\n    tempostack.io/e2e: \"true\"\n"
        ),
    )?;
    cluster
        .wait_for(
            name,
            "serviceaccounts",
            "default",
            Duration::from_secs(30),
            "the namespace has its service account",
            |_| true,
        )
        .map(drop)
}
