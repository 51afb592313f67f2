//! The operator, installed by Helm only.

use std::{
    fs,
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

    /// The chart's folder.
    pub fn chart(&self) -> &Path {
        &self.chart
    }

    /// The same from a chart whose CRD is another, as it was in another release.
    ///
    /// # Errors
    /// When the chart cannot be copied, or the CRD is as before.
    pub fn with_changed_crd(&self, change: impl Fn(&str) -> String) -> Outcome<Self> {
        const CRD: &str = "files/crds/tempostack.io_tempostacks.yaml";
        let folder = std::env::temp_dir().join(format!("tempo-e2e-chart-{}", std::process::id()));
        copy_folder(&self.chart, &folder)?;
        let text = fs::read_to_string(folder.join(CRD))?;
        let changed = change(&text);
        ensure(changed != text, || "the CRD is as before".to_owned())?;
        fs::write(folder.join(CRD), changed)?;
        Ok(Self {
            chart: folder,
            ..self.clone()
        })
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

    /// Ends its pods at once, without a word of farewell; Kubernetes makes others.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub fn kill(&self) -> Outcome {
        self.cluster
            .kubectl(&[
                "-n",
                NAMESPACE,
                "delete",
                "pods",
                "-l",
                PODS,
                "--grace-period=0",
                "--force",
                "--wait=false",
            ])
            .map(drop)
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

/// What tells the operator's program, when it runs here, the same as the chart does in the cluster.
pub fn environment(operator: &Operator) -> [(&'static str, String); 2] {
    [
        ("TEMPO_IMAGE_REPOSITORY", operator.tempo.repository.clone()),
        ("TEMPO_IMAGE_TAG", operator.tempo.tag.clone()),
    ]
}

fn copy_folder(from: &Path, to: &Path) -> Outcome {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Whether a pod is ready.
pub fn pod_is_ready(pod: &serde_json::Value) -> bool {
    pod["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}
