//! A cluster, as `kubectl` shows it.

use std::{
    collections::BTreeMap,
    io::BufReader,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Failure, Outcome,
    command::{self, Said, Watchdog},
    ensure,
};

/// Longest time for one call of `kubectl`.
const CALL_LIMIT: Duration = Duration::from_secs(120);
/// A watch is begun anew after this, from a fresh list, so that a missed deletion heals.
const WATCH_SLICE: Duration = Duration::from_secs(15);

/// How to reach a cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    kubectl: PathBuf,
    kubeconfig: PathBuf,
}

/// Objects by name.
pub type Objects = BTreeMap<String, Value>;

impl Cluster {
    /// The cluster of `kubeconfig`.
    pub fn new(kubectl: &Path, kubeconfig: &Path) -> Self {
        Self {
            kubectl: kubectl.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
        }
    }

    /// Where its kubeconfig is.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A `kubectl` to be given arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command
    }

    /// Runs `kubectl`, whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be run or hangs.
    pub fn attempt(&self, arguments: &[&str], input: &str) -> Outcome<Said> {
        command::run(self.command().args(arguments), input, CALL_LIMIT)
    }

    /// Runs `kubectl`, which must succeed; its standard output.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn kubectl(&self, arguments: &[&str]) -> Outcome<String> {
        self.kubectl_with(arguments, "")
    }

    fn kubectl_with(&self, arguments: &[&str], input: &str) -> Outcome<String> {
        let said = self.attempt(arguments, input)?;
        ensure(said.success, || {
            format!("kubectl {}: {}", arguments.join(" "), said.stderr.trim())
        })?;
        Ok(said.stdout)
    }

    /// Applies manifests, as a person does.
    ///
    /// # Errors
    /// When the API server refuses them.
    pub fn apply(&self, namespace: &str, yaml: &str) -> Outcome {
        self.kubectl_with(&["-n", namespace, "apply", "-f", "-"], yaml)
            .map(drop)
    }

    /// Applies manifests that must be refused; what the API server said.
    ///
    /// # Errors
    /// When it took them.
    pub fn refused(&self, namespace: &str, yaml: &str) -> Outcome<String> {
        let said = self.attempt(&["-n", namespace, "apply", "-f", "-"], yaml)?;
        ensure(!said.success, || {
            format!("was accepted, though it must be refused:\n{yaml}")
        })?;
        Ok(said.stderr)
    }

    /// Changes an object by a JSON merge patch.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn patch(&self, namespace: &str, object: &str, patch: &Value) -> Outcome {
        let patch = patch.to_string();
        self.kubectl(&[
            "-n",
            namespace,
            "patch",
            object,
            "--type=merge",
            "-p",
            &patch,
        ])
        .map(drop)
    }

    /// One object, if it exists. `object` is `kind/name`.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub fn get(&self, namespace: &str, object: &str) -> Outcome<Option<Value>> {
        let text = self.kubectl(&[
            "-n",
            namespace,
            "get",
            object,
            "--ignore-not-found",
            "--show-managed-fields",
            "-o",
            "json",
        ])?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&text)?))
    }

    /// One object that must exist.
    ///
    /// # Errors
    /// When it does not.
    pub fn must_get(&self, namespace: &str, object: &str) -> Outcome<Value> {
        self.get(namespace, object)?
            .ok_or_else(|| Failure::new(format!("there is no {object} in {namespace}")))
    }

    /// Objects of a kind (or several, by commas) with these labels; an empty selector means all.
    /// Names are `kind/name` where there are several kinds.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub fn list(&self, namespace: &str, kind: &str, selector: &str) -> Outcome<Objects> {
        let text = self.kubectl(&["-n", namespace, "get", kind, "-l", selector, "-o", "json"])?;
        let list: Value = serde_json::from_str(&text)?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let several = kind.contains(',');
        Ok(items
            .into_iter()
            .map(|item| (key(&item, several), item))
            .collect())
    }

    /// Waits until the objects of one kind satisfy `holds`; returns them.
    ///
    /// # Errors
    /// When they do not within `limit`; with what `wanted` and how they were last.
    pub fn wait(
        &self,
        namespace: &str,
        kind: &str,
        selector: &str,
        limit: Duration,
        wanted: &str,
        mut holds: impl FnMut(&Objects) -> bool,
    ) -> Outcome<Objects> {
        let deadline = Instant::now() + limit;
        loop {
            let mut objects = self.list(namespace, kind, selector)?;
            if holds(&objects) {
                return Ok(objects);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::new(format!(
                    "{wanted}: not within {} s; {}",
                    limit.as_secs(),
                    summary(&objects)
                )));
            }
            if self.watch(
                namespace,
                kind,
                selector,
                left.min(WATCH_SLICE),
                &mut objects,
                &mut holds,
            )? {
                return Ok(objects);
            }
        }
    }

    /// Follows changes for a while; whether `holds` became true.
    fn watch(
        &self,
        namespace: &str,
        kind: &str,
        selector: &str,
        limit: Duration,
        objects: &mut Objects,
        holds: &mut impl FnMut(&Objects) -> bool,
    ) -> Outcome<bool> {
        let mut child = self
            .command()
            .args(["-n", namespace, "get", kind, "-l", selector, "-o", "json"])
            .args(["--watch", "--output-watch-events"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let guard = Watchdog::over(&child, limit);
        let mut reached = false;
        if let Some(stdout) = child.stdout.take() {
            let events =
                serde_json::Deserializer::from_reader(BufReader::new(stdout)).into_iter::<Value>();
            // The end of the time shows as a cut event.
            for event in events.map_while(Result::ok) {
                let object = &event["object"];
                let name = key(object, false);
                if event["type"] == "DELETED" {
                    objects.remove(&name);
                } else {
                    objects.insert(name, object.clone());
                }
                if holds(objects) {
                    reached = true;
                    break;
                }
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        let _ = guard.disarm();
        Ok(reached)
    }

    /// Waits until one object satisfies `holds`; returns it.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub fn wait_for(
        &self,
        namespace: &str,
        kind: &str,
        name: &str,
        limit: Duration,
        wanted: &str,
        mut holds: impl FnMut(&Value) -> bool,
    ) -> Outcome<Value> {
        let mut objects = self.wait(namespace, kind, "", limit, wanted, |objects| {
            objects.get(name).is_some_and(&mut holds)
        })?;
        objects
            .remove(name)
            .ok_or_else(|| Failure::new(format!("{kind}/{name} is gone")))
    }

    /// Waits until there is no such object.
    ///
    /// # Errors
    /// When it is still there after `limit`.
    pub fn wait_gone(
        &self,
        namespace: &str,
        kind: &str,
        selector: &str,
        limit: Duration,
    ) -> Outcome {
        let wanted = format!("no {kind} left");
        self.wait(namespace, kind, selector, limit, &wanted, |objects| {
            objects.is_empty()
        })
        .map(drop)
    }
}

fn key(object: &Value, with_kind: bool) -> String {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if with_kind {
        let kind = object["kind"].as_str().unwrap_or_default();
        format!("{kind}/{name}")
    } else {
        name.to_owned()
    }
}

/// What a person wants to see of objects that are not as they should be.
fn summary(objects: &Objects) -> String {
    if objects.is_empty() {
        return "there is none".to_owned();
    }
    objects
        .iter()
        .map(|(name, object)| {
            let status = &object["status"];
            let told = ["phase", "message", "conditions"]
                .iter()
                .filter(|field| !status[**field].is_null())
                .map(|field| format!("{field} {}", status[*field]))
                .collect::<Vec<_>>()
                .join(", ");
            format!("{name} has {told}")
        })
        .collect::<Vec<_>>()
        .join("; ")
}
