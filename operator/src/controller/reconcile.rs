//! One look at a stack: fetch, check, plan, write, act, tell.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::runtime::controller::Action as Requeue;
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::status::{self, Findings};
use super::{Context, Memory, apply, key, kinds, observe, pods};
use crate::api::{GROUP, TempoStack, TempoStackStatus, VERSION};
use crate::certificates;
use crate::manifests::{self, MANAGER};
use crate::plan::{self, Action, Note, Plan};
use crate::references;
use crate::topology::Names;

/// Name of the claim for a component's data.
pub(super) const DATA_CLAIM: &str = "data";
/// Time between looks at a stack that can't be used: what it names is watched.
const BROKEN_SECS: u64 = 600;
/// How long an event is not told again.
const EVENT_SECS: i64 = 3600;
/// Events that are remembered of a stack.
const MAX_TOLD: usize = 256;

/// A look failed, and may succeed the next time.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The API of Kubernetes does not answer, or refuses for now.
    #[error("the API of Kubernetes: {0}")]
    Kubernetes(#[from] kube::Error),
}

/// Looks at a stack once.
pub(super) async fn reconcile(
    stack: Arc<TempoStack>,
    context: Arc<Context>,
) -> Result<Requeue, Error> {
    let timer = context.metrics.reconcile_duration_seconds.start_timer();
    if stack.metadata.deletion_timestamp.is_some() {
        // What was made for it goes by its owner references.
        context.memory.lock().remove(&key(&stack));
        context.kafka.forget(&stack);
        context.pods.forget(&key(&stack));
        context
            .metrics
            .forget(&stack.namespace().unwrap_or_default(), &stack.name_any());
        return Ok(Requeue::await_change());
    }
    let after = look(&stack, &context).await?;
    timer.observe_duration();
    context.metrics.reconciled("success");
    let mut memory = context.memory.lock();
    let memory = memory.entry(key(&stack)).or_default();
    memory.failures = 0;
    memory.generation = stack.metadata.generation;
    Ok(Requeue::requeue(Duration::from_secs(after)))
}

/// What came of a look, for the status.
struct Look<'a> {
    context: &'a Context,
    stack: &'a TempoStack,
    seen: observe::Seen,
    missing_kinds: Vec<&'static str>,
    awaited_certificates: Vec<String>,
}

/// One look; how many seconds until the next.
async fn look(stack: &TempoStack, context: &Context) -> Result<u64, Error> {
    begin_anew_after_edit(stack, context);
    let namespace = stack.namespace().unwrap_or_default();
    let references = references::of(stack);
    let found = observe::references(context, &namespace, &references).await?;
    let pods = context
        .pods
        .of(&key(stack), internal_authority(stack, &found));
    let seen = observe::stack(context, stack, &found, pods).await?;
    let look = Look {
        context,
        stack,
        seen,
        missing_kinds: context.kinds.capabilities.missing(stack),
        awaited_certificates: references
            .iter()
            .filter(|reference| reference.issued)
            .map(|reference| reference.name.clone())
            .filter(|name| !found.contains_key(&(references::Kind::Secret, name.clone())))
            .collect(),
    };
    let problem = references::problem(&references, &found)
        .or_else(|| context.kinds.capabilities.problem(stack));
    if let Some(problem) = problem {
        return look.cannot_use(problem.reason, problem.message).await;
    }
    let plan = plan::plan(stack, &look.seen.observed);
    let hash = references::hash(&references, &found);
    let objects = manifests::all(&manifests::Context {
        stack,
        names: Names::of(stack),
        topology: &plan.topology,
        references_hash: &hash,
        capabilities: context.kinds.capabilities,
        defaults: &context.config.defaults,
    });
    let objects = match objects {
        Ok(objects) => objects,
        Err(error) => return look.cannot_use("InvalidExtraConfig", error.0).await,
    };
    if stack.spec.paused {
        look.tell(Some(&plan), None, None, None).await?;
        return Ok(BROKEN_SECS);
    }
    // A step of a long operation is written down before it is carried out.
    let before = stack.status.clone().unwrap_or_default();
    let drain_before = before
        .live_store
        .as_ref()
        .and_then(|live| live.drain.as_ref());
    if before.migration != plan.migration
        || drain_before != plan.drain.as_ref()
        || before.mode != Some(plan.mode)
    {
        look.note(&plan).await?;
    }
    let outcome = apply::all(context, stack, objects, &look.seen).await?;
    let failed = act(context, stack, &look.seen, &found, &plan.actions).await?;
    look.tell(Some(&plan), Some(&outcome), None, failed).await?;
    for note in &plan.notes {
        tell_event(context, stack, note).await;
    }
    let busy = outcome.changes > 0 || !outcome.rejected.is_empty();
    Ok(if busy {
        plan.look_again_secs.min(30)
    } else {
        plan.look_again_secs
    })
}

/// Whom pods' certificates must come from, and which name they must have, where there is TLS.
fn internal_authority<'a>(
    stack: &TempoStack,
    found: &'a references::Found,
) -> Option<pods::Authority<'a>> {
    let certificate = certificates::internal(stack)?;
    let server_name = certificate.server_name().to_owned();
    let secret = found.get(&(references::Kind::Secret, certificate.secret));
    Some(pods::Authority {
        // Without any nobody is trusted, until there is one.
        pem: secret
            .and_then(|content| content.get("ca.crt"))
            .map_or(&[][..], Vec::as_slice),
        server_name,
    })
}

/// After a change of the spec nothing is waited for that belonged to the old one.
fn begin_anew_after_edit(stack: &TempoStack, context: &Context) {
    let mut memory = context.memory.lock();
    let memory: &mut Memory = memory.entry(key(stack)).or_default();
    if memory.generation != stack.metadata.generation {
        memory.failures = 0;
        memory.refused_sizes.clear();
    }
}

impl Look<'_> {
    /// The spec can't be carried out as it is: pods go on as they are.
    async fn cannot_use(&self, reason: &'static str, message: String) -> Result<u64, Error> {
        let note = Note {
            warning: true,
            reason,
            message: message.clone(),
        };
        self.tell(None, None, Some((reason, message)), None).await?;
        tell_event(self.context, self.stack, &note).await;
        Ok(BROKEN_SECS)
    }

    /// Writes down what is about to be done. What the spec asks for is not observed before it is.
    async fn note(&self, plan: &Plan) -> Result<(), Error> {
        let mut status = self.status(Some(plan), None, None, None);
        status.observed_generation = self
            .stack
            .status
            .as_ref()
            .and_then(|before| before.observed_generation);
        self.write(status).await
    }

    /// Writes the status if it differs.
    async fn tell(
        &self,
        plan: Option<&Plan>,
        applied: Option<&apply::Outcome>,
        config: Option<(&'static str, String)>,
        failed_action: Option<String>,
    ) -> Result<(), Error> {
        self.write(self.status(plan, applied, config, failed_action))
            .await
    }

    fn status(
        &self,
        plan: Option<&Plan>,
        applied: Option<&apply::Outcome>,
        config: Option<(&'static str, String)>,
        failed_action: Option<String>,
    ) -> TempoStackStatus {
        status::status(&Findings {
            stack: self.stack,
            observed: &self.seen.observed,
            plan,
            config,
            rejected: applied.map_or(&[], |applied| &applied.rejected),
            held_volumes: applied.map_or(&[], |applied| &applied.held_volumes),
            awaited_certificates: &self.awaited_certificates,
            missing_kinds: &self.missing_kinds,
            failed_action,
        })
    }

    async fn write(&self, status: TempoStackStatus) -> Result<(), Error> {
        let mut shown = self.stack.clone();
        shown.status = Some(status.clone());
        self.context.metrics.show(&shown, self.seen.observed.now);
        if self.stack.status.as_ref() == Some(&status) {
            return Ok(());
        }
        write_status(self.context, self.stack, &status).await?;
        Ok(())
    }
}

async fn write_status(
    context: &Context,
    stack: &TempoStack,
    status: &TempoStackStatus,
) -> Result<(), kube::Error> {
    let api: Api<TempoStack> = Api::namespaced(
        context.client.clone(),
        &stack.namespace().unwrap_or_default(),
    );
    let patch = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "TempoStack",
        "metadata": {"name": stack.name_any()},
        "status": status,
    });
    let params = PatchParams::apply(MANAGER).force();
    api.patch_status(&stack.name_any(), &params, &Patch::Apply(patch))
        .await
        .map(drop)
}

/// Does what is to be done beside writing objects; what did not work is told and tried again.
async fn act(
    context: &Context,
    stack: &TempoStack,
    seen: &observe::Seen,
    found: &references::Found,
    actions: &[Action],
) -> Result<Option<String>, Error> {
    let mut failed = None;
    for action in actions {
        tracing::info!(stack = key(stack), ?action, "acting");
        if let Err(reason) = carry_out(context, stack, seen, found, action).await? {
            tracing::warn!(stack = key(stack), ?action, reason, "did not work");
            failed.get_or_insert(reason);
        }
    }
    Ok(failed)
}

async fn carry_out(
    context: &Context,
    stack: &TempoStack,
    seen: &observe::Seen,
    found: &references::Found,
    action: &Action,
) -> Result<Result<(), String>, Error> {
    let ip = |pod: &str| {
        seen.ips
            .get(pod)
            .cloned()
            .ok_or_else(|| format!("pod {pod} has no address yet"))
    };
    let pods = &seen.pods;
    Ok(match action {
        Action::CreateTopic { partitions } => context.kafka.create(stack, found, *partitions).await,
        Action::GrowTopic { partitions } => context.kafka.grow(stack, found, *partitions).await,
        Action::Deactivate { pod } => match ip(pod) {
            Ok(ip) => pods
                .deactivate(&ip)
                .await
                .map_err(|error| error.to_string()),
            Err(reason) => Err(reason),
        },
        Action::Reactivate { pod } => match ip(pod) {
            Ok(ip) => pods
                .reactivate(&ip)
                .await
                .map_err(|error| error.to_string()),
            Err(reason) => Err(reason),
        },
        Action::PrepareDownscale { pod } => match ip(pod) {
            Ok(ip) => pods
                .prepare_downscale(&ip)
                .await
                .map_err(|error| error.to_string()),
            Err(reason) => Err(reason),
        },
        Action::CancelDownscale { pod } => match ip(pod) {
            Ok(ip) => pods
                .cancel_downscale(&ip)
                .await
                .map_err(|error| error.to_string()),
            Err(reason) => Err(reason),
        },
        Action::Flush { pod } => match ip(pod) {
            Ok(ip) => {
                let flushed = pods.flush(&ip).await.map_err(|error| error.to_string());
                if flushed.is_ok() {
                    let now = Timestamp::now().as_second();
                    context
                        .memory
                        .lock()
                        .entry(key(stack))
                        .or_default()
                        .flushed_at = Some(now);
                }
                flushed
            }
            Err(reason) => Err(reason),
        },
        Action::DeletePod { pod } => {
            let namespace = stack.namespace().unwrap_or_default();
            let api: Api<DynamicObject> =
                Api::namespaced_with(context.client.clone(), &namespace, &kinds::pods());
            match api.delete(pod, &DeleteParams::default()).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    })
}

/// Tells an event, once an hour at most.
async fn tell_event(context: &Context, stack: &TempoStack, note: &Note) {
    let now = Timestamp::now().as_second();
    {
        let mut memory = context.memory.lock();
        let memory = memory.entry(key(stack)).or_default();
        let id = format!("{} {}", note.reason, note.message);
        if memory.told.len() >= MAX_TOLD {
            memory.told.retain(|_, told| now - *told < EVENT_SECS);
        }
        if memory
            .told
            .get(&id)
            .is_some_and(|told| now - told < EVENT_SECS)
        {
            return;
        }
        if memory.told.len() < MAX_TOLD {
            memory.told.insert(id, now);
        }
    }
    let event = Event {
        type_: if note.warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: note.reason.to_owned(),
        note: Some(crate::text::cut(&note.message, 1000).to_owned()),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    if let Err(error) = context
        .recorder
        .publish(&event, &stack.object_ref(&()))
        .await
    {
        tracing::warn!(stack = key(stack), %error, "event could not be told");
    }
}
