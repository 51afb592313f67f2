//! Replacing pods: live-stores zone by zone, the scheduler never beside itself, images first to
//! who is asked.

use crate::api::TempoStack;
use crate::topology::{Component, Names};

use super::observed::{Observed, Pod};
use super::{Action, Note, Plan};

/// Plans which pods are replaced, and which components must wait with a new image.
pub(super) fn plan(stack: &TempoStack, observed: &Observed, plan: &mut Plan) {
    if plan.topology.cluster.is_none() {
        return;
    }
    hold_images(stack, observed, plan);
    replace_scheduler(stack, observed, plan);
    let is_shrinking = plan
        .drain
        .as_ref()
        .is_some_and(|drain| drain.phase >= crate::api::DrainPhase::Prepare);
    if !is_shrinking {
        replace_live_stores(stack, observed, plan);
    }
}

/// A component gets a new image when all before it run on theirs.
fn hold_images(stack: &TempoStack, observed: &Observed, plan: &mut Plan) {
    let names = Names::of(stack);
    let mut waiting_for: Option<Component> = None;
    for component in Component::UPGRADE_ORDER {
        let workloads: Vec<_> = observed
            .workloads
            .values()
            .filter(|workload| workload.component == Some(component))
            .collect();
        if let Some(before) = waiting_for {
            let old = workloads
                .iter()
                .find(|workload| workload.image != observed.image)
                .map(|workload| workload.image.clone());
            if let Some(old) = old {
                plan.topology.held_images.insert(component, old);
                plan.progress.get_or_insert_with(|| {
                    (
                        "RollingOut",
                        format!(
                            "{} waits for {} to run on {}",
                            names.component(component),
                            before.target(),
                            observed.image
                        ),
                    )
                });
            }
            continue;
        }
        let done = workloads
            .iter()
            .all(|workload| workload.image == observed.image && workload.is_rolled_out());
        let is_upgrade = workloads
            .iter()
            .any(|workload| workload.image != observed.image)
            || upgrade_is_under_way(observed, component);
        if !done && is_upgrade {
            waiting_for = Some(component);
        }
    }
}

/// Whether a component behind this one still has an old image.
fn upgrade_is_under_way(observed: &Observed, component: Component) -> bool {
    Component::UPGRADE_ORDER
        .into_iter()
        .skip_while(|other| *other != component)
        .skip(1)
        .any(|other| {
            observed.workloads.values().any(|workload| {
                workload.component == Some(other) && workload.image != observed.image
            })
        })
}

fn is_outdated(pod: &Pod, revision: &str) -> bool {
    !revision.is_empty() && !pod.revision.is_empty() && pod.revision != revision
}

/// The old one goes first, the new one comes after.
fn replace_scheduler(stack: &TempoStack, observed: &Observed, plan: &mut Plan) {
    let name = Names::of(stack).component(Component::BackendScheduler);
    let Some(workload) = observed
        .workloads
        .get(&name)
        .filter(|workload| workload.current)
    else {
        return;
    };
    let outdated = observed.pods.iter().filter(|pod| {
        pod.component == Some(Component::BackendScheduler)
            && !pod.terminating
            && is_outdated(pod, &workload.revision)
    });
    plan.actions.extend(outdated.map(|pod| Action::DeletePod {
        pod: pod.name.clone(),
    }));
}

/// Pods of one zone that may be down at once.
fn max_unavailable(stack: &TempoStack, replicas: u32) -> u32 {
    let text = &stack.spec.update_strategy.live_store_max_unavailable;
    let number = match text.strip_suffix('%') {
        Some(share) => share
            .parse::<u32>()
            .map(|share| replicas * share.min(100) / 100)
            .unwrap_or(1),
        None => text.parse().unwrap_or(1),
    };
    number.max(1)
}

fn replace_live_stores(stack: &TempoStack, observed: &Observed, plan: &mut Plan) {
    let names = Names::of(stack);
    let zones: Vec<usize> = (0..crate::topology::ZONE_LETTERS.len())
        .filter(|zone| observed.workloads.contains_key(&names.live_store(*zone)))
        .collect();
    for zone in &zones {
        let Some(workload) = observed.workloads.get(&names.live_store(*zone)) else {
            continue;
        };
        let pods: Vec<&Pod> = observed
            .live_stores()
            .filter(|pod| pod.zone == Some(*zone))
            .collect();
        let outdated: Vec<&&Pod> = pods
            .iter()
            .filter(|pod| !pod.terminating && is_outdated(pod, &workload.revision))
            .collect();
        if outdated.is_empty() {
            continue;
        }
        plan.progress.get_or_insert_with(|| {
            (
                "RollingOut",
                format!(
                    "{} live-stores of {} are to be replaced",
                    outdated.len(),
                    names.live_store(*zone)
                ),
            )
        });
        // I4: while a zone has pods down, no pod of another goes.
        let others_are_well = zones
            .iter()
            .filter(|other| *other != zone)
            .all(|other| is_zone_well(observed, &names, *other));
        if !workload.current || !others_are_well {
            return;
        }
        // One that is down anyway costs nothing to replace; it may be down for what was wrong.
        let broken = outdated.iter().filter(|pod| !pod.ready);
        let mut victims: Vec<&str> = broken.map(|pod| pod.name.as_str()).collect();
        if victims.is_empty() {
            let down = pods
                .iter()
                .filter(|pod| !pod.ready || pod.terminating)
                .count();
            let missing = (workload.replicas as usize).saturating_sub(pods.len());
            let spare =
                (max_unavailable(stack, workload.replicas) as usize).saturating_sub(down + missing);
            let mut ready: Vec<&&&Pod> = outdated.iter().filter(|pod| pod.ready).collect();
            ready.sort_by_key(|pod| std::cmp::Reverse(pod.ordinal));
            victims.extend(ready.iter().take(spare).map(|pod| pod.name.as_str()));
            if !victims.is_empty() && zones.len() == 1 {
                plan.notes.push(Note::warning(
                    "RecentQueriesInterrupted",
                    "live-stores of the only zone are replaced: recent queries fail until they are back; with zones.count: 2 they would not".to_owned(),
                ));
            }
        }
        plan.actions
            .extend(victims.into_iter().map(|pod| Action::DeletePod {
                pod: pod.to_owned(),
            }));
        // One zone at a time.
        return;
    }
}

fn is_zone_well(observed: &Observed, names: &Names, zone: usize) -> bool {
    let Some(workload) = observed.workloads.get(&names.live_store(zone)) else {
        return true;
    };
    let well = observed
        .live_stores()
        .filter(|pod| pod.zone == Some(zone) && pod.ready && !pod.terminating)
        .count();
    well >= workload.replicas as usize
}
