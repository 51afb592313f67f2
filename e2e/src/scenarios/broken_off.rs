//! The operator dies at one request to the API server after another; what comes of it is always the
//! same.

use std::{env, fs, path::Path, thread};

use serde_json::{Value, json};

use super::{AT_ONCE, ROLLOUT_LIMIT};
use crate::{
    Failure, Outcome,
    breaking::Breaking,
    context::Context,
    ensure,
    operator::environment,
    process::{Process, write_kubeconfig},
    stack::{MINIMAL, Stack},
};

/// Kinds that the life of a stack leaves, besides itself.
const KINDS: &str = "statefulsets,services,configmaps,serviceaccounts,networkpolicies,ingresses";
/// Every so many requests are looked at, unless `E2E_LONG` is set; no multiple of two, so that both
/// kinds of break come at either end of everything.
const STRIDE: usize = 5;

pub(super) fn broken_off(context: &Context<'_>) -> Outcome {
    let operator = &context.world.operator;
    operator.scale(0)?;
    let played = play(context);
    operator.scale(1)?;
    played
}

fn play(context: &Context<'_>) -> Outcome {
    let program = context
        .world
        .operator_binary
        .clone()
        .ok_or_else(|| Failure::new("the operator's program is not at hand"))?;
    let breaking = Breaking::before(context.cluster())?;
    let folder = env::temp_dir().join(&context.namespace);
    fs::create_dir_all(&folder)?;
    let played = break_off(context, &program, &breaking, &folder);
    fs::remove_dir_all(&folder)?;
    played
}

fn break_off(context: &Context<'_>, program: &Path, breaking: &Breaking, folder: &Path) -> Outcome {
    let kubeconfig = folder.join("kubeconfig");
    let server = json!({"server": format!("http://{}", breaking.address)});
    write_kubeconfig(&kubeconfig, &server, &json!({}))?;
    let local = Process::new(
        program,
        &kubeconfig,
        &[
            "--no-leader-election",
            &format!("--watch-namespace={}", context.namespace),
        ],
        &environment(&context.world.operator),
        &folder.join("operator.log"),
    )?;
    breaking.break_at(usize::MAX, false);
    local.start()?;
    let wanted = life(context)?;
    let requests = breaking.mend();
    end(context, &local)?;
    ensure(requests > 20, || {
        format!("only {requests} requests went through the proxy")
    })?;
    let stride = if env::var_os("E2E_LONG").is_some() {
        1
    } else {
        STRIDE
    };
    for number in (1..=requests).step_by(stride) {
        let is_carried_out = number % 2 == 0;
        breaking.break_at(number, is_carried_out);
        let found = thread::scope(|scope| {
            local.start()?;
            let heir = scope.spawn(|| {
                if breaking.has_broken(ROLLOUT_LIMIT) {
                    local.kill();
                    return local.start();
                }
                Ok(())
            });
            let found = life(context);
            breaking.mend();
            heir.join()
                .map_err(|_| Failure::new("who starts the operator again has panicked"))??;
            found
        })
        .map_err(|failure| failure.during(&format!("after a break at request {number}")))?;
        if let Some(difference) = difference("", &found, &wanted) {
            return Err(Failure::new(format!(
                "after a break at request {number} it ends in another state: {difference}"
            )));
        }
        end(context, &local)?;
    }
    eprintln!("e2e: broken off at every {stride}. of {requests} requests");
    Ok(())
}

/// A stack is made and edited; what there is in the end. It has no pods: what they do takes time,
/// and is for other scenarios.
fn life(context: &Context<'_>) -> Outcome<Value> {
    let stack = context.stack("demo");
    context.apply(&(MINIMAL.to_owned() + "  stopped: true\n  networkPolicy: {enabled: true}\n"))?;
    settled(&stack)?;
    context.cluster().patch(
        &context.namespace,
        "tempostack/demo",
        &json!({"spec": {
            "networkPolicy": null,
            "limits": {"ingestion": {"rateLimitBytes": 12345}},
            "exposure": {"ingress": {"host": "tempo.example"}},
        }}),
    )?;
    let status = settled(&stack)?;
    let mut objects: Vec<Value> = stack.owned(KINDS)?.into_values().collect();
    objects.push(status);
    objects.iter_mut().for_each(essence);
    Ok(Value::Array(objects))
}

/// All that was asked for is there; the stack.
fn settled(stack: &Stack<'_>) -> Outcome<Value> {
    let resource = stack.wait(ROLLOUT_LIMIT, "the stack is looked after", |stack| {
        stack["status"]["phase"] == "Stopped"
    })?;
    for (kind, wanted) in [
        (
            "networkpolicies",
            !resource["spec"]["networkPolicy"]["enabled"].is_null()
                && resource["spec"]["networkPolicy"]["enabled"] == true,
        ),
        (
            "ingresses",
            resource["spec"]["exposure"]["ingress"].is_object(),
        ),
    ] {
        let what = format!("{kind} are as the spec says");
        stack.wait_owned(kind, AT_ONCE, &what, |found| found.is_empty() != wanted)?;
    }
    Ok(resource)
}

/// What does not tell one life from another.
fn essence(object: &mut Value) {
    if object["kind"] != "TempoStack" {
        object["status"] = Value::Null;
    }
    let metadata = &mut object["metadata"];
    for field in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "managedFields",
    ] {
        metadata[field] = Value::Null;
    }
    // The stack itself has no owner.
    if let Some(owner) = object.pointer_mut("/metadata/ownerReferences/0/uid") {
        *owner = Value::Null;
    }
    for field in ["clusterIP", "clusterIPs"] {
        if !object["spec"][field].is_null() {
            object["spec"][field] = Value::Null;
        }
    }
    if let Some(conditions) = object["status"]["conditions"].as_array_mut() {
        for condition in conditions {
            condition["lastTransitionTime"] = Value::Null;
        }
    }
}

/// Where two values differ first, and how.
fn difference(path: &str, found: &Value, wanted: &Value) -> Option<String> {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            found.keys().chain(wanted.keys()).find_map(|key| {
                let of = |fields: &serde_json::Map<String, Value>| {
                    fields.get(key).cloned().unwrap_or(Value::Null)
                };
                difference(&format!("{path}.{key}"), &of(found), &of(wanted))
            })
        }
        (Value::Array(found), Value::Array(wanted)) if found.len() == wanted.len() => found
            .iter()
            .zip(wanted)
            .enumerate()
            .find_map(|(at, (found, wanted))| difference(&format!("{path}[{at}]"), found, wanted)),
        _ => (found != wanted).then(|| format!("{path} is {found}, and not {wanted}")),
    }
}

/// Removes the stack and the operator.
fn end(context: &Context<'_>, local: &Process) -> Outcome {
    let stack = context.stack("demo");
    context.cluster().kubectl(&[
        "-n",
        &context.namespace,
        "delete",
        &stack.object(),
        "--timeout=60s",
    ])?;
    for kind in KINDS.split(',') {
        context
            .cluster()
            .wait_gone(&context.namespace, kind, &stack.selector(), ROLLOUT_LIMIT)?;
    }
    local.kill();
    Ok(())
}
