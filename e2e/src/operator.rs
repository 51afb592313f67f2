//! The operator, installed by Helm only.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{Outcome, cluster::Cluster, command, ensure};

/// Longest time for one call of `helm`, which waits until pods are ready.
const HELM_LIMIT: Duration = Duration::from_secs(180);

/// Name of the release that all scenarios share.
pub const RELEASE: &str = "tempo-operator";
/// Its namespace.
pub const NAMESPACE: &str = "tempo-operator-system";
/// Labels of the operator's pods.
pub const PODS: &str = "app.kubernetes.io/name=tempo-operator";

/// An image by its parts.
#[derive(Debug, Clone)]
pub struct Image {
    /// Registry and repository.
    pub repository: String,
    /// Tag.
    pub tag: String,
}

/// How the operator is installed.
#[derive(Debug, Clone)]
pub struct Operator {
    cluster: Cluster,
    helm: PathBuf,
    chart: PathBuf,
    image: Image,
    tempo: Image,
}

impl Operator {
    /// The chart `chart`, run by `helm`, with these images.
    pub fn new(cluster: &Cluster, helm: &Path, chart: &Path, image: Image, tempo: Image) -> Self {
        Self {
            cluster: cluster.clone(),
            helm: helm.to_owned(),
            chart: chart.to_owned(),
            image,
            tempo,
        }
    }

    /// Runs `helm`, which must succeed; its standard output.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn helm(&self, arguments: &[&str]) -> Outcome<String> {
        let said = command::run(
            Command::new(&self.helm)
                .env("KUBECONFIG", self.cluster.kubeconfig())
                .args(arguments),
            "",
            HELM_LIMIT,
        )?;
        ensure(said.success, || {
            format!("helm {}: {}", arguments.join(" "), said.stderr.trim())
        })?;
        Ok(said.stdout)
    }

    /// Installs or upgrades a release and waits until its pods are ready. `settings` are `key=value`
    /// as `--set` takes them.
    ///
    /// # Errors
    /// When Helm fails or the operator does not become ready.
    pub fn install(&self, release: &str, namespace: &str, settings: &[&str]) -> Outcome<String> {
        let chart = self.chart.display().to_string();
        let images = [
            format!("image.repository={}", self.image.repository),
            format!("image.tag={}", self.image.tag),
            format!("tempoImage.repository={}", self.tempo.repository),
            format!("tempoImage.tag={}", self.tempo.tag),
        ];
        let mut arguments = vec![
            "upgrade",
            "--install",
            release,
            &chart,
            "--namespace",
            namespace,
            "--create-namespace",
            "--wait",
            "--timeout=150s",
        ];
        for setting in images
            .iter()
            .map(String::as_str)
            .chain(settings.iter().copied())
        {
            arguments.extend(["--set", setting]);
        }
        self.helm(&arguments)
    }

    /// Installs the release that all scenarios share.
    ///
    /// # Errors
    /// See [`Operator::install`].
    pub fn install_shared(&self) -> Outcome<String> {
        self.install(RELEASE, NAMESPACE, &["log.level=debug"])
    }

    /// Sets the number of its pods and waits until it is so.
    ///
    /// # Errors
    /// When it is not within two minutes.
    pub fn scale(&self, replicas: usize) -> Outcome {
        self.cluster.kubectl(&[
            "-n",
            NAMESPACE,
            "scale",
            &format!("deployment/{RELEASE}"),
            &format!("--replicas={replicas}"),
        ])?;
        self.cluster
            .wait(
                NAMESPACE,
                "pods",
                PODS,
                Duration::from_secs(120),
                &format!("{replicas} ready operator pods"),
                |pods| pods.len() == replicas && pods.values().all(pod_is_ready),
            )
            .map(drop)
    }
}

/// Whether a pod is ready.
pub fn pod_is_ready(pod: &serde_json::Value) -> bool {
    pod["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}
