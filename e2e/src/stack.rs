//! One `TempoStack`, as its user sees it.

use std::time::Duration;

use serde_json::Value;

use crate::{
    Failure, Outcome,
    access::Access,
    cluster::{Cluster, Objects},
    traces::Query,
    watcher::Watcher,
};

/// Ten lines: what the guides begin with.
pub const MINIMAL: &str = "
apiVersion: tempostack.io/v1alpha1
kind: TempoStack
metadata:
  name: demo
spec:
  mode: Monolithic
  storage:
    local:
      size: 10Gi
";

/// The same for scenarios that need not wait: searches see what has just come.
pub fn quick(name: &str) -> String {
    MINIMAL.replace("name: demo", &format!("name: {name}")) + "  timings: {queryEndCutoff: 0s}\n"
}

/// Time within which a small stack must be ready.
pub const READY_LIMIT: Duration = Duration::from_secs(90);

/// A stack in a namespace.
#[derive(Debug, Clone)]
pub struct Stack<'a> {
    cluster: &'a Cluster,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl<'a> Stack<'a> {
    /// The stack `name`, which need not exist yet.
    pub fn new(cluster: &'a Cluster, namespace: &str, name: &str) -> Self {
        Self {
            cluster,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// As `kubectl` names it.
    pub fn object(&self) -> String {
        format!("tempostack/{}", self.name)
    }

    /// Labels of all that belongs to it.
    pub fn selector(&self) -> String {
        format!("app.kubernetes.io/instance={}", self.name)
    }

    /// The resource as it is now.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn get(&self) -> Outcome<Value> {
        self.cluster.must_get(&self.namespace, &self.object())
    }

    /// Waits until its status satisfies `holds`, for the generation that is wanted now.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub fn wait(
        &self,
        limit: Duration,
        wanted: &str,
        mut holds: impl FnMut(&Value) -> bool,
    ) -> Outcome<Value> {
        self.cluster.wait_for(
            &self.namespace,
            "tempostacks.tempostack.io",
            &self.name,
            limit,
            wanted,
            |stack| {
                stack["status"]["observedGeneration"] == stack["metadata"]["generation"]
                    && holds(stack)
            },
        )
    }

    /// Waits until a condition has this status, and this reason unless that is empty.
    ///
    /// # Errors
    /// When it has not within `limit`.
    pub fn wait_condition(
        &self,
        kind: &str,
        status: &str,
        reason: &str,
        limit: Duration,
    ) -> Outcome<Value> {
        self.wait(
            limit,
            &format!("condition {kind} is {status} {reason}"),
            |stack| {
                condition(stack, kind).is_some_and(|condition| {
                    condition["status"] == status
                        && (reason.is_empty() || condition["reason"] == reason)
                })
            },
        )
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// When it is not within `limit`.
    pub fn wait_ready(&self, limit: Duration) -> Outcome<Value> {
        self.wait_condition("Ready", "True", "", limit)
    }

    /// Its objects of a kind.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub fn owned(&self, kind: &str) -> Outcome<Objects> {
        self.cluster.list(&self.namespace, kind, &self.selector())
    }

    /// Waits until its objects of a kind satisfy `holds`.
    ///
    /// # Errors
    /// When they do not within `limit`.
    pub fn wait_owned(
        &self,
        kind: &str,
        limit: Duration,
        wanted: &str,
        holds: impl FnMut(&Objects) -> bool,
    ) -> Outcome<Objects> {
        self.cluster.wait(
            &self.namespace,
            kind,
            &self.selector(),
            limit,
            wanted,
            holds,
        )
    }

    /// Looks on what pods it has, until it is ended.
    pub fn watch_pods(&self, holds: impl FnMut(&Objects) -> Outcome + Send + 'static) -> Watcher {
        Watcher::over_pods(self.cluster, &self.namespace, &self.selector(), holds)
    }

    /// The way in for spans: port 4317 (gRPC) or 4318 (HTTP).
    ///
    /// # Errors
    /// When the Service does not answer.
    pub fn receiver(&self, port: u16) -> Outcome<Access> {
        let service = format!("tempo-{}-distributor", self.name);
        Access::open(self.cluster, &self.namespace, &service, port)
    }

    /// The query API, through its Service.
    ///
    /// # Errors
    /// When the Service does not answer.
    pub fn query(&self, tenant: Option<&str>) -> Outcome<(Access, Query)> {
        let service = format!("tempo-{}-query-frontend", self.name);
        let access = Access::open(self.cluster, &self.namespace, &service, 3200)?;
        let query = Query::new(&access.address, tenant);
        Ok((access, query))
    }
}

/// A condition of a resource by its type.
pub fn condition<'v>(resource: &'v Value, kind: &str) -> Option<&'v Value> {
    resource["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind)
}

/// Unique ids of objects, by name: equal as long as none was made anew.
pub fn uids(objects: &Objects) -> Vec<(String, String)> {
    objects
        .iter()
        .map(|(name, object)| {
            let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
            (name.clone(), uid.to_owned())
        })
        .collect()
}

/// The only object there is.
///
/// # Errors
/// When there are none or several.
pub fn only<'o>(objects: &'o Objects, what: &str) -> Outcome<(&'o String, &'o Value)> {
    let mut all = objects.iter();
    match (all.next(), all.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(Failure::new(format!(
            "there must be one {what}, not: {:?}",
            objects.keys().collect::<Vec<_>>()
        ))),
    }
}
