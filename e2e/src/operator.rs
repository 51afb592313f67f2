//! The operator, installed by Helm only. Where no node runs its pod, Helm installs everything else,
//! and the same program runs here with the rights that the chart gives it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tempo_testkit::http_client;

use crate::{
    Failure, Outcome,
    access::Access,
    cluster::Cluster,
    command, ensure,
    process::{Process, write_kubeconfig},
};

/// Longest time for one call of `helm`, which waits until pods are ready.
const HELM_LIMIT: Duration = Duration::from_secs(180);

/// Name of the release that all scenarios share.
pub const RELEASE: &str = "tempo-operator";
/// Its namespace.
pub const NAMESPACE: &str = "tempo-operator-system";
/// File with the way in of an operator that runs here.
const KUBECONFIG: &str = "operator.kubeconfig";
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
    /// The program, where it runs here.
    here: Option<Arc<Process>>,
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
            here: None,
        }
    }

    /// The same as the program `program` of this machine, which keeps its kubeconfig and its log in
    /// `folder`.
    ///
    /// # Errors
    /// When there is no port for its pages.
    #[must_use = "it is another one"]
    pub fn running_here(self, program: &Path, folder: &Path) -> Outcome<Self> {
        let mut environment = environment(&self).to_vec();
        environment.extend([
            ("POD_NAMESPACE", NAMESPACE.to_owned()),
            ("LEASE_NAME", RELEASE.to_owned()),
            ("LOG_LEVEL", "debug".to_owned()),
        ]);
        let process = Process::new(
            program,
            &folder.join(KUBECONFIG),
            &[],
            &environment,
            &folder.join("operator.log"),
        )?;
        Ok(Self {
            here: Some(Arc::new(process)),
            ..self
        })
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

    /// Installs the release that all scenarios share, and waits until the operator works.
    ///
    /// # Errors
    /// See [`Operator::install`].
    pub fn install_shared(&self) -> Outcome {
        let Some(here) = &self.here else {
            return self
                .install(RELEASE, NAMESPACE, &["log.level=debug"])
                .map(drop);
        };
        self.install(RELEASE, NAMESPACE, &["replicas=0"])?;
        self.write_kubeconfig(&here.kubeconfig)?;
        here.start()?;
        here.wait_ready()
    }

    /// The way in with the rights of the ServiceAccount that the chart made.
    fn write_kubeconfig(&self, path: &Path) -> Outcome {
        let token = self.cluster.kubectl(&[
            "-n",
            NAMESPACE,
            "create",
            "token",
            RELEASE,
            "--duration=24h",
        ])?;
        let text = self.cluster.kubectl(&[
            "config",
            "view",
            "--raw",
            "--minify",
            "--flatten",
            "-o",
            "json",
        ])?;
        let config: Value = serde_json::from_str(&text)?;
        write_kubeconfig(
            path,
            &config["clusters"][0]["cluster"],
            &json!({"token": token.trim()}),
        )
    }

    /// Ends its pods at once, without a word of farewell; Kubernetes makes others.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub fn kill(&self) -> Outcome {
        if let Some(here) = &self.here {
            here.kill();
            return here.start();
        }
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

    /// Sets the number of its pods and waits until it is so. One that was asked to end leaves nobody
    /// waiting for its lease to run out.
    ///
    /// # Errors
    /// When it is not within two minutes, or the lease was not given back.
    pub fn scale(&self, replicas: usize) -> Outcome {
        let running = self.running()?;
        self.set_replicas(replicas)?;
        match replicas {
            0 => self.none_holds_the_lease(&running),
            _ => Ok(()),
        }
    }

    /// By what names those that run hold the lease.
    fn running(&self) -> Outcome<Vec<String>> {
        match &self.here {
            Some(here) => Ok(here
                .id()
                .map(|id| format!("{RELEASE}-{id}"))
                .into_iter()
                .collect()),
            None => {
                let pods = self.cluster.list(NAMESPACE, "pods", PODS)?;
                Ok(pods.into_keys().collect())
            }
        }
    }

    fn set_replicas(&self, replicas: usize) -> Outcome {
        if let Some(here) = &self.here {
            return match replicas {
                0 => here.stop(),
                1 => here.start().and_then(|()| here.wait_ready()),
                _ => Err(Failure::new("here it runs once at most")),
            };
        }
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

    /// One that was killed before may hold it until it runs out; those that were asked to end may not.
    fn none_holds_the_lease(&self, ended: &[String]) -> Outcome {
        let lease = self
            .cluster
            .must_get(NAMESPACE, &format!("lease/{RELEASE}"))?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        ensure(ended.iter().all(|name| name != holder), || {
            format!("{holder} has ended and did not give the lease back")
        })
    }
}

impl Operator {
    /// Its metrics.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self) -> Outcome<String> {
        if let Some(here) = &self.here {
            return Ok(http_client::get(&here.address, "/metrics")?.text());
        }
        let service = format!("{RELEASE}-metrics");
        let way = Access::open(&self.cluster, NAMESPACE, &service, 8080)?;
        Ok(http_client::get(&way.address, "/metrics")?.text())
    }

    /// Resident memory in bytes; of its largest pod as its node counts it.
    ///
    /// # Errors
    /// When nobody tells.
    pub fn memory(&self) -> Outcome<u64> {
        if let Some(here) = &self.here {
            return here.memory();
        }
        let pods = self.cluster.list(NAMESPACE, "pods", PODS)?;
        let mut largest = None;
        for (name, pod) in &pods {
            let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
            let summary: Value = serde_json::from_str(&self.cluster.kubectl(&[
                "get",
                "--raw",
                &format!("/api/v1/nodes/{node}/proxy/stats/summary"),
            ])?)?;
            let told = summary["pods"].as_array().into_iter().flatten();
            largest = told
                .filter(|told| told["podRef"]["name"] == **name)
                .filter_map(|told| told["containers"][0]["memory"]["rssBytes"].as_u64())
                .max()
                .max(largest);
        }
        largest.ok_or_else(|| Failure::new("no node tells how much memory the operator has"))
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
