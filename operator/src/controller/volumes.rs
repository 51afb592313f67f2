//! Volumes that grow: claims grow in place, and a StatefulSet, whose template for claims can't change,
//! is made anew around its running pods.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::{Context, kinds};
use crate::api::TempoStack;

/// Looks whether a deleted StatefulSet is gone.
const GONE_LOOKS: u32 = 50;
/// Time between these looks.
const GONE_EVERY: Duration = Duration::from_millis(200);
/// How long claims are not asked again to grow when Kubernetes has refused: only someone who changes
/// the class of their storage makes a difference.
const ASK_AGAIN_SECS: i64 = 600;

/// A size that Kubernetes has refused.
pub(super) struct Refused {
    wanted: String,
    reason: String,
    at: i64,
}

const SIZE: &str = "/spec/volumeClaimTemplates/0/spec/resources/requests/storage";

fn claim_size(object: &Value) -> Option<&str> {
    object.pointer(SIZE)?.as_str()
}

/// Leaves the size of claims as it is.
pub(super) fn keep(object: &mut Value, live: &Value) {
    if let (Some(size), Some(present)) = (object.pointer_mut(SIZE), live.pointer(SIZE)) {
        *size = present.clone();
    }
}

/// Lets the claims of a StatefulSet grow to the size that it asks for; why they can't, if so. Whatever
/// it is broken off at, it goes on the next time: the StatefulSet goes when all claims are asked,
/// and whoever finds none makes it.
///
/// # Errors
/// What may pass by itself.
pub(super) async fn grow(
    context: &Context,
    stack: &TempoStack,
    object: &Value,
    live: &Value,
) -> Result<Option<String>, kube::Error> {
    let (Some(wanted), Some(present)) = (claim_size(object), claim_size(live)) else {
        return Ok(None);
    };
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let key = super::key(stack);
    if wanted == present {
        if let Some(memory) = context.memory.lock().get_mut(&key) {
            memory.refused_sizes.remove(name);
        }
        return Ok(None);
    }
    let now = Timestamp::now().as_second();
    if let Some(refused) = context
        .memory
        .lock()
        .get(&key)
        .and_then(|memory| memory.refused_sizes.get(name))
        .filter(|refused| refused.wanted == wanted && now - refused.at < ASK_AGAIN_SECS)
    {
        return Ok(Some(refused.reason.clone()));
    }
    if let Some(refusal) = ask(context, stack, name, wanted).await? {
        let reason = format!("{present} can't become {wanted}: {refusal}");
        tracing::warn!(stack = key, object = name, reason, "volumes can't grow");
        let refused = Refused {
            wanted: wanted.to_owned(),
            reason: reason.clone(),
            at: now,
        };
        context
            .memory
            .lock()
            .entry(key)
            .or_default()
            .refused_sizes
            .insert(name.to_owned(), refused);
        return Ok(Some(reason));
    }
    tracing::info!(
        stack = key,
        object = name,
        from = present,
        to = wanted,
        "volumes grow"
    );
    let Some(resource) = context.kinds.of(object) else {
        return Ok(None);
    };
    let namespace = stack.namespace().unwrap_or_default();
    let sets: Api<DynamicObject> =
        Api::namespaced_with(context.client.clone(), &namespace, resource);
    match sets.delete(name, &DeleteParams::orphan()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error),
    }
    for _ in 0..GONE_LOOKS {
        if sets.get_metadata_opt(name).await?.is_none() {
            break;
        }
        tokio::time::sleep(GONE_EVERY).await;
    }
    Ok(None)
}

/// Asks for larger volumes; why Kubernetes refuses, if it does.
async fn ask(
    context: &Context,
    stack: &TempoStack,
    set: &str,
    wanted: &str,
) -> Result<Option<String>, kube::Error> {
    let namespace = stack.namespace().unwrap_or_default();
    let claims: Api<DynamicObject> =
        Api::namespaced_with(context.client.clone(), &namespace, &kinds::claims());
    let prefix = format!("{}-{set}-", super::reconcile::DATA_CLAIM);
    for claim in claims.list(&ListParams::default()).await? {
        let name = claim.name_any();
        let is_of_set = name
            .strip_prefix(&prefix)
            .is_some_and(|rest| rest.parse::<u32>().is_ok());
        if !is_of_set || claim.data["spec"]["resources"]["requests"]["storage"] == wanted {
            continue;
        }
        let patch = json!({"spec": {"resources": {"requests": {"storage": wanted}}}});
        let asked = claims
            .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        match asked {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 422) => {
                return Ok(Some(status.message.clone()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_is_refused_leaves_the_rest_as_it_is_wanted() {
        let set = |size: &str, image: &str| {
            json!({"spec": {
                "template": {"image": image},
                "volumeClaimTemplates": [{"spec": {"resources": {"requests": {"storage": size}}}}],
            }})
        };
        let mut wanted = set("20Gi", "new");
        keep(&mut wanted, &set("10Gi", "old"));
        assert_eq!(wanted, set("10Gi", "new"));
        let mut without = json!({"spec": {}});
        keep(&mut without, &set("10Gi", "old"));
        assert_eq!(without, json!({"spec": {}}));
    }
}
