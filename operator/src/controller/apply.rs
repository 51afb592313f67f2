//! Writing objects: by server-side apply, only when something differs, and taking away what is
//! not wanted any more.

use std::collections::BTreeSet;

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::observe::Seen;
use super::{Context, volumes};
use crate::api::{GROUP, TempoStack, VERSION};
use crate::manifests::MANAGER;
use crate::references::hash_text;

/// Manager of a number that is handed to an autoscaler: it owns it until that one changes it.
const HANDOVER: &str = "tempo-operator-handover";

/// An object as it was after it was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Applied {
    desired: String,
    live: String,
}

/// An object that Kubernetes does not take, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejected {
    pub(super) object: String,
    pub(super) reason: String,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Objects that were written or taken away.
    pub(super) changes: u32,
    /// Objects that Kubernetes does not take.
    pub(super) rejected: Vec<Rejected>,
    /// StatefulSets whose volumes can't have the size that was asked for; they keep theirs.
    pub(super) held_volumes: Vec<Rejected>,
}

/// Brings all objects to what they shall be.
///
/// # Errors
/// What may pass by itself; what Kubernetes does not take is part of the outcome.
pub(super) async fn all(
    context: &Context,
    stack: &TempoStack,
    objects: Vec<Value>,
    seen: &Seen,
) -> Result<Outcome, kube::Error> {
    let mut outcome = Outcome::default();
    let mut wanted = BTreeSet::new();
    for mut object in objects {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        let name = object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        object["metadata"]["ownerReferences"] = json!([owner(stack)]);
        wanted.insert((kind.clone(), name.clone()));
        if let Some(live) = seen.objects.get(&(kind.clone(), name.clone()))
            && let Some(reason) = volumes::grow(context, stack, &object, live).await?
        {
            volumes::keep(&mut object, live);
            outcome.held_volumes.push(Rejected {
                object: name.clone(),
                reason,
            });
        }
        match one(context, stack, &object, seen).await {
            Ok(changed) => outcome.changes += u32::from(changed),
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
                outcome.rejected.push(Rejected {
                    object: format!("{kind} {name}"),
                    reason: status.message.clone(),
                });
            }
            Err(error) => {
                if matches!(&error, kube::Error::Api(status) if status.code == 409) {
                    context.metrics.apply_conflicts.inc();
                }
                return Err(error);
            }
        }
    }
    // Nothing is taken away while something else could not be put in its place.
    if outcome.rejected.is_empty() {
        outcome.changes += prune(context, stack, &wanted, seen).await?;
    }
    Ok(outcome)
}

fn owner(stack: &TempoStack) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "TempoStack",
        "name": stack.name_any(),
        "uid": stack.metadata.uid,
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// What of an object others do not change all the time.
fn essence(object: &Value) -> String {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        for field in ["status", "apiVersion", "kind"] {
            fields.shift_remove(field);
        }
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in ["resourceVersion", "managedFields", "generation"] {
            metadata.shift_remove(field);
        }
    }
    hash_text(&object.to_string())
}

async fn one(
    context: &Context,
    stack: &TempoStack,
    object: &Value,
    seen: &Seen,
) -> Result<bool, kube::Error> {
    let kind = object["kind"].as_str().unwrap_or_default();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let namespace = stack.namespace().unwrap_or_default();
    let Some(resource) = context.kinds.of(object) else {
        return Ok(false);
    };
    let api: Api<DynamicObject> =
        Api::namespaced_with(context.client.clone(), &namespace, resource);
    let live = seen.objects.get(&(kind.to_owned(), name.to_owned()));
    let id = format!("{kind}/{name}");
    let desired = hash_text(&object.to_string());
    let stack_key = super::key(stack);
    if let Some(live) = live {
        let now = Applied {
            desired: desired.clone(),
            live: essence(live),
        };
        let memory = context.memory.lock();
        let before = memory
            .get(&stack_key)
            .and_then(|memory| memory.applied.get(&id));
        if before == Some(&now) {
            return Ok(false);
        }
    }
    if let Some(live) = live {
        hand_over_replicas(&api, name, object, live).await?;
    }
    let params = PatchParams::apply(MANAGER).force().validation_strict();
    let applied = api.patch(name, &params, &Patch::Apply(object)).await?;
    context.metrics.applied.with_label_values(&[kind]).inc();
    let live = serde_json::to_value(&applied).unwrap_or_default();
    let is_new = seen
        .objects
        .get(&(kind.to_owned(), name.to_owned()))
        .is_none_or(|before| essence(before) != essence(&live));
    if is_new {
        tracing::info!(stack = stack_key, object = id, "applied");
    }
    let now = Applied {
        desired,
        live: essence(&live),
    };
    context
        .memory
        .lock()
        .entry(stack_key)
        .or_default()
        .applied
        .insert(id, now);
    Ok(is_new)
}

/// Before the number of pods is left to an autoscaler, another manager takes it over: a field that
/// its only owner leaves out is reset.
async fn hand_over_replicas(
    api: &Api<DynamicObject>,
    name: &str,
    object: &Value,
    live: &Value,
) -> Result<(), kube::Error> {
    if !object["spec"]["template"].is_object() || object["spec"].get("replicas").is_some() {
        return Ok(());
    }
    let owned = live["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|entry| {
            entry["manager"] == MANAGER && entry["fieldsV1"]["f:spec"].get("f:replicas").is_some()
        });
    if !owned {
        return Ok(());
    }
    // An autoscaler leaves alone what has no pods.
    let replicas = live["spec"]["replicas"].as_u64().unwrap_or(0).max(1);
    let number = json!({
        "apiVersion": object["apiVersion"],
        "kind": object["kind"],
        "metadata": {"name": name},
        "spec": {"replicas": replicas},
    });
    api.patch(
        name,
        &PatchParams::apply(HANDOVER).force(),
        &Patch::Apply(number),
    )
    .await
    .map(drop)
}

/// Takes away what was made for the stack and is not wanted any more.
async fn prune(
    context: &Context,
    stack: &TempoStack,
    wanted: &BTreeSet<(String, String)>,
    seen: &Seen,
) -> Result<u32, kube::Error> {
    let namespace = stack.namespace().unwrap_or_default();
    let mut changes = 0;
    for ((kind, name), object) in &seen.objects {
        let is_ours = object["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|owner| {
                owner["uid"].as_str() == stack.metadata.uid.as_deref()
                    && owner["kind"] == "TempoStack"
            });
        let leaves = object["metadata"]["deletionTimestamp"].is_string();
        if wanted.contains(&(kind.clone(), name.clone())) || !is_ours || leaves {
            continue;
        }
        let Some(resource) = context.kinds.of(object) else {
            continue;
        };
        let api: Api<DynamicObject> =
            Api::namespaced_with(context.client.clone(), &namespace, resource);
        match api.delete(name, &DeleteParams::background()).await {
            Ok(_) => {
                changes += 1;
                tracing::info!(
                    stack = super::key(stack),
                    object = format!("{kind}/{name}"),
                    "taken away"
                );
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
        if let Some(memory) = context.memory.lock().get_mut(&super::key(stack)) {
            memory.applied.remove(&format!("{kind}/{name}"));
        }
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_all_the_time_is_no_difference() {
        let before = json!({"metadata": {"name": "a", "resourceVersion": "1", "generation": 1}, "spec": 1, "status": 1});
        let after = json!({"metadata": {"name": "a", "resourceVersion": "2", "generation": 2}, "spec": 1, "status": 2});
        let other = json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": 1});
        assert_eq!(essence(&before), essence(&after));
        assert_ne!(essence(&before), essence(&other));
    }
}
