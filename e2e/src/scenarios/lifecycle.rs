//! The beginning and end of stacks and of the operator itself.

use std::time::Duration;

use serde_json::json;

use super::{AT_ONCE, FIND_LIMIT, ROLLOUT_LIMIT, minimal};
use crate::{
    Failure, Outcome,
    context::{Context, make_namespace},
    ensure,
    operator::{self, pod_is_ready},
    stack::{READY_LIMIT, Stack, condition, quick, uids},
    traces::Protocol,
};

/// Kinds that a stack may consist of, volumes excepted.
const OWNED: &str = "statefulsets,deployments,services,configmaps,secrets,serviceaccounts,pods,\
                     poddisruptionbudgets,networkpolicies,ingresses,horizontalpodautoscalers";
/// Time for all of a stack to go.
const GONE_LIMIT: Duration = Duration::from_secs(60);

pub(super) fn delete(context: &Context<'_>) -> Outcome {
    let stack = minimal::ready(context)?;
    delete_stack(context, &stack)?;

    // Also when the operator is not there to help.
    context.apply(&quick("demo"))?;
    stack.wait_ready(READY_LIMIT)?;
    let result = context
        .world
        .operator
        .scale(0)
        .and_then(|()| delete_stack(context, &stack));
    context.world.operator.scale(1)?;
    result
}

fn delete_stack(context: &Context<'_>, stack: &Stack<'_>) -> Outcome {
    let cluster = context.cluster();
    let claims = uids(&cluster.list(&context.namespace, "persistentvolumeclaims", "")?);
    cluster.kubectl(&[
        "-n",
        &context.namespace,
        "delete",
        &stack.object(),
        "--timeout=60s",
    ])?;
    for kind in OWNED.split(',') {
        cluster.wait_gone(&context.namespace, kind, &stack.selector(), GONE_LIMIT)?;
    }
    let kept = uids(&cluster.list(&context.namespace, "persistentvolumeclaims", "")?);
    ensure(!claims.is_empty() && kept == claims, || {
        format!("volumes must stay: {claims:?} became {kept:?}")
    })
}

pub(super) fn pause_and_stop(context: &Context<'_>) -> Outcome {
    let cluster = context.cluster();
    let stack = minimal::ready(context)?;
    let sent = if context.has_pods() {
        minimal::send_and_find(context, &stack)?
    } else {
        Vec::new()
    };
    let patch = |spec| {
        cluster.patch(
            &context.namespace,
            "tempostack/demo",
            &json!({"spec": spec}),
        )
    };

    // Paused: a change is seen, told and not carried out; what is deleted stays deleted.
    patch(json!({"paused": true}))?;
    stack.wait_condition("Paused", "True", "", AT_ONCE)?;
    let generations = |stack: &Stack<'_>| {
        Ok::<_, Failure>(
            stack
                .owned("statefulsets,services")?
                .iter()
                .map(|(name, object)| (name.clone(), object["metadata"]["resourceVersion"].clone()))
                .collect::<Vec<_>>(),
        )
    };
    cluster.kubectl(&[
        "-n",
        &context.namespace,
        "delete",
        "service/tempo-demo-distributor",
    ])?;
    let before = generations(&stack)?;
    patch(json!({"extraConfig": {"query_frontend": {"max_outstanding_per_tenant": 5}}}))?;
    let seen = stack.wait(AT_ONCE, "the change is seen", |_| true)?;
    ensure(
        condition(&seen, "Paused").is_some_and(|paused| paused["status"] == "True"),
        || "the stack must still be paused".to_owned(),
    )?;
    ensure(generations(&stack)? == before, || {
        "a paused stack was written to".to_owned()
    })?;
    patch(json!({"paused": false, "extraConfig": null}))?;
    stack.wait_owned("services", AT_ONCE, "the Service is back", |services| {
        services.contains_key("tempo-demo-distributor")
    })?;
    stack.wait_ready(ROLLOUT_LIMIT)?;

    // Stopped: no pod, the volume stays, and with it what was acknowledged.
    let claims = uids(&cluster.list(&context.namespace, "persistentvolumeclaims", "")?);
    patch(json!({"stopped": true}))?;
    cluster.wait_gone(&context.namespace, "pods", &stack.selector(), GONE_LIMIT)?;
    stack.wait(AT_ONCE, "the phase is Stopped", |stack| {
        stack["status"]["phase"] == "Stopped"
    })?;
    let kept = uids(&cluster.list(&context.namespace, "persistentvolumeclaims", "")?);
    ensure(kept == claims, || "the volume must stay".to_owned())?;
    patch(json!({"stopped": false}))?;
    stack.wait_ready(READY_LIMIT)?;
    if sent.is_empty() {
        return Ok(());
    }
    let (_way, query) = stack.query(None)?;
    query.wait_by_id(&sent, FIND_LIMIT)
}

pub(super) fn operator_down(context: &Context<'_>) -> Outcome {
    let stack = minimal::ready(context)?;
    let operator = &context.world.operator;
    operator.scale(0)?;
    let result = minimal::send_and_find(context, &stack).and_then(|sent| {
        // Kubernetes replaces the pod; nobody else is needed.
        context.cluster().kubectl(&[
            "-n",
            &context.namespace,
            "delete",
            "pods",
            "-l",
            &stack.selector(),
        ])?;
        stack.wait_owned("pods", READY_LIMIT, "the pod is ready again", |pods| {
            !pods.is_empty() && pods.values().all(pod_is_ready)
        })?;
        let (_way, query) = stack.query(None)?;
        query.wait_by_id(&sent, FIND_LIMIT)
    });
    operator.scale(1)?;
    result?;
    stack.wait_ready(READY_LIMIT).map(drop)
}

pub(super) fn high_availability(context: &Context<'_>) -> Outcome {
    let operator = &context.world.operator;
    operator.scale(2)?;
    let result = take_over(context);
    operator.scale(1)?;
    result
}

fn take_over(context: &Context<'_>) -> Outcome {
    let cluster = context.cluster();
    let holder = || {
        let leases = cluster.list(operator::NAMESPACE, "leases", "")?;
        leases
            .values()
            .find_map(|lease| lease["spec"]["holderIdentity"].as_str())
            .filter(|holder| !holder.is_empty())
            .map(str::to_owned)
            .ok_or_else(|| Failure::new("nobody holds the operator's lease"))
    };
    let first = holder()?;
    let pods = cluster.list(operator::NAMESPACE, "pods", operator::PODS)?;
    let pod = pods
        .keys()
        .find(|pod| first.contains(pod.as_str()))
        .ok_or_else(|| Failure::new(format!("the lease's holder {first} is no pod of {pods:?}")))?;
    // Without a word of farewell, as when a node dies.
    cluster.kubectl(&[
        "-n",
        operator::NAMESPACE,
        "delete",
        "pod",
        pod,
        "--grace-period=0",
        "--force",
    ])?;
    context.apply(&quick("demo"))?;
    // The lease lasts 30 s at most.
    let stack = context.stack("demo");
    stack.wait_ready(READY_LIMIT + Duration::from_secs(30))?;
    let second = holder()?;
    ensure(second != first, || {
        format!("the lease is still held by {first}, whose pod is gone")
    })
}

pub(super) fn namespaced(context: &Context<'_>) -> Outcome {
    const RELEASE: &str = "narrow";
    let cluster = context.cluster();
    let operator = &context.world.operator;
    let other = format!("{}-other", context.namespace);
    make_namespace(cluster, &other)?;
    // One operator at a time, so that it is clear who did what.
    operator.scale(0)?;
    let played = operator
        .install(
            RELEASE,
            &context.namespace,
            &[
                &format!("watchNamespace={}", context.namespace),
                "crds.install=false",
                "fullnameOverride=narrow",
            ],
        )
        .and_then(|_| {
            let stack = minimal::ready(context)?;
            minimal::send_and_find(context, &stack)?;
            cluster.apply(&other, &quick("demo"))?;
            // A second stack of its own shows that it had the time to see the other.
            context.apply(&quick("second"))?;
            context.stack("second").wait_ready(READY_LIMIT)?;
            let foreign = Stack::new(cluster, &other, "demo");
            ensure(foreign.get()?["status"].is_null(), || {
                "it looks after a stack of another namespace".to_owned()
            })?;
            let log = cluster.kubectl(&[
                "-n",
                &context.namespace,
                "logs",
                "deployment/narrow",
                "--tail=-1",
            ])?;
            ensure(!log.to_lowercase().contains("forbidden"), || {
                format!("it was refused something: {log}")
            })
        });
    let removed = operator.helm(&[
        "uninstall",
        RELEASE,
        "--namespace",
        &context.namespace,
        "--ignore-not-found",
    ]);
    let gone = cluster.kubectl(&["delete", "namespace", &other, "--timeout=60s"]);
    operator.scale(1)?;
    played?;
    removed?;
    gone.map(drop)
}

pub(super) fn two_stacks(context: &Context<'_>) -> Outcome {
    let one = minimal::ready(context)?;
    context.apply(&quick("other"))?;
    let two = context.stack("other");
    two.wait_ready(READY_LIMIT)?;
    let mut sent = Vec::new();
    for stack in [&one, &two] {
        let way = stack.receiver(4317)?;
        sent.push(
            context
                .world
                .sdk
                .send(Protocol::Grpc, &way.address, None, &stack.name, 5)?,
        );
    }
    for (stack, own) in [&one, &two].into_iter().zip(&sent) {
        let (_way, query) = stack.query(None)?;
        query.wait_by_id(own, FIND_LIMIT)?;
        query.wait_search("{ name = \"checkout\" }", own, FIND_LIMIT)?;
    }
    let names = |stack: &Stack<'_>| {
        Ok::<_, Failure>(uids(&stack.owned("services,statefulsets,configmaps,pods")?))
    };
    let (ones, twos) = (names(&one)?, names(&two)?);
    ensure(
        !ones.is_empty() && ones.iter().all(|object| !twos.contains(object)),
        || format!("both own the same objects: {ones:?} and {twos:?}"),
    )?;
    // The end of one is not felt by the other.
    context
        .cluster()
        .kubectl(&["-n", &context.namespace, "delete", &one.object()])?;
    context
        .cluster()
        .wait_gone(&context.namespace, "pods", &one.selector(), GONE_LIMIT)?;
    let (_way, query) = two.query(None)?;
    query.wait_by_id(&sent[1], FIND_LIMIT)
}
