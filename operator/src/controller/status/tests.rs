//! What a status tells of a stack.

use super::*;
use crate::api::{At, Phase, check};
use crate::plan::{Pod, Workload, plan};

fn stack() -> TempoStack {
    check::load(include_str!("../../../../crds/samples/minimal.yaml"))
        .unwrap()
        .remove(0)
}

fn observed(stack: &TempoStack, ready: bool, trouble: Option<&str>) -> Observed {
    let name = Names::of(stack).component(Component::Monolith);
    let mut observed = Observed {
        now: At(1000),
        image: "tempo:1".to_owned(),
        ..Observed::default()
    };
    observed.pods.push(Pod {
        name: format!("{name}-0"),
        component: Some(Component::Monolith),
        ordinal: Some(0),
        ready,
        is_tempo: true,
        trouble: trouble.map(ToOwned::to_owned),
        ..Pod::default()
    });
    observed.workloads.insert(
        name,
        Workload {
            component: Some(Component::Monolith),
            replicas: 1,
            ready: u32::from(ready),
            updated: 1,
            current: true,
            image: "tempo:1".to_owned(),
            ..Workload::default()
        },
    );
    observed
}

fn make(
    stack: &TempoStack,
    observed: &Observed,
    config: Option<(&'static str, String)>,
) -> TempoStackStatus {
    let plan = plan(stack, observed);
    status(&Findings {
        stack,
        observed,
        plan: config.is_none().then_some(&plan),
        config,
        rejected: &[],
        held_volumes: &[],
        awaited_certificates: &[],
        missing_kinds: &[],
        failed_action: None,
    })
}

fn condition<'a>(status: &'a TempoStackStatus, kind: &str) -> (&'a str, &'a str) {
    let found = status
        .conditions
        .iter()
        .find(|condition| condition.kind == kind)
        .unwrap();
    (&found.status, &found.reason)
}

#[test]
fn ready_means_that_pods_are() {
    let stack = stack();
    let none = make(&stack, &Observed::default(), None);
    assert_eq!(none.phase, Some(Phase::Pending));
    assert_eq!(condition(&none, "Ready"), ("False", "MissingComponents"));
    let starting = make(&stack, &observed(&stack, false, None), None);
    assert_eq!(starting.phase, Some(Phase::Pending));
    let ready = make(&stack, &observed(&stack, true, None), None);
    assert_eq!(ready.phase, Some(Phase::Ready));
    assert_eq!(condition(&ready, "Ready"), ("True", "AllComponentsReady"));
    assert_eq!(ready.version.tempo, "1");
    assert!(
        ready
            .conditions
            .iter()
            .all(|condition| condition.kind != "KafkaReady")
    );
}

#[test]
fn why_pods_fail_is_told() {
    let stack = stack();
    let crashing = make(
        &stack,
        &observed(&stack, false, Some("CrashLoopBackOff: AccessDenied: no")),
        None,
    );
    assert_eq!(crashing.phase, Some(Phase::Failed));
    assert_eq!(
        condition(&crashing, "StorageReady"),
        ("False", "AccessDenied")
    );
    assert!(
        crashing.message.contains("AccessDenied"),
        "{}",
        crashing.message
    );
    let waiting = make(
        &stack,
        &observed(&stack, false, Some("Unschedulable: no nodes")),
        None,
    );
    assert_eq!(waiting.phase, Some(Phase::Pending));
}

#[test]
fn old_pods_go_on_under_a_broken_spec() {
    let stack = stack();
    let broken = Some(("SecretNotFound", "Secret \"a\" does not exist".to_owned()));
    let running = make(&stack, &observed(&stack, true, None), broken.clone());
    assert_eq!(running.phase, Some(Phase::Degraded));
    assert_eq!(
        condition(&running, "ConfigValid"),
        ("False", "SecretNotFound")
    );
    assert_eq!(condition(&running, "Ready"), ("False", "OldSpecRuns"));
    let fresh = make(&stack, &Observed::default(), broken);
    assert_eq!(fresh.phase, Some(Phase::Failed));
}

#[test]
fn conditions_keep_the_time_of_their_last_change() {
    let mut stack = stack();
    let mut seen = observed(&stack, true, None);
    stack.status = Some(make(&stack, &seen, None));
    seen.now = At(5000);
    let again = make(&stack, &seen, None);
    assert_eq!(
        Some(&again),
        stack.status.as_ref(),
        "nothing changed, so nothing is written"
    );
    seen.pods[0].ready = false;
    seen.workloads
        .values_mut()
        .for_each(|workload| workload.ready = 0);
    let later = make(&stack, &seen, None);
    let ready = later
        .conditions
        .iter()
        .find(|condition| condition.kind == "Ready")
        .unwrap();
    assert_eq!(ready.last_transition_time, At(5000));
}

#[test]
fn paused_and_stopped_are_told() {
    let mut stack = stack();
    stack.spec.stopped = true;
    assert_eq!(
        make(&stack, &Observed::default(), None).phase,
        Some(Phase::Stopped)
    );
    stack.spec.paused = true;
    let paused = make(&stack, &Observed::default(), None);
    assert_eq!(paused.phase, Some(Phase::Paused));
    assert_eq!(condition(&paused, "Paused").0, "True");
}

#[test]
fn what_is_waited_for_beside_pods_is_told() {
    let stack = stack();
    let observed = observed(&stack, true, None);
    let plan = plan(&stack, &observed);
    let status = status(&Findings {
        stack: &stack,
        observed: &observed,
        plan: Some(&plan),
        config: None,
        rejected: &[],
        held_volumes: &[Rejected {
            object: "tempo-demo-monolith".to_owned(),
            reason: "10Gi can't become 20Gi: only classes that allow it".to_owned(),
        }],
        awaited_certificates: &["tempo-demo-internal-tls".to_owned()],
        missing_kinds: &[],
        failed_action: None,
    });
    assert_eq!(condition(&status, "VolumesGrown"), ("False", "CannotGrow"));
    assert_eq!(
        condition(&status, "IntegrationsReady"),
        ("False", "CertificateNotReady")
    );
    // Serving goes on, and the one sentence says what is amiss.
    assert_eq!(condition(&status, "Ready"), ("True", "AllComponentsReady"));
    assert!(
        status.message.contains("allowVolumeExpansion"),
        "{}",
        status.message
    );
}
