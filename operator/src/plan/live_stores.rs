//! Live-stores and their partitions: adding, draining, cancelling.
//!
//! A partition that takes no spans any more still answers queries and still must become blocks:
//! its live-store goes only when block-builders have read it and queries have turned to blocks.

use crate::api::{At, Drain, DrainPhase, TempoStack};
use crate::topology::{Component, Names, block_builder_replicas, live_store_replicas, zone_count};

use super::observed::{Observed, PartitionState, Pod};
use super::{Action, Note, Plan, has_passed, usable_partitions};

/// Time for members to forget a partition after its owners went; later, something is wrong.
const FORGET_SECS: u64 = 120;

/// Plans the live-stores and what depends on their number.
pub(super) fn plan(stack: &TempoStack, observed: &Observed, plan: &mut Plan) {
    let planner = Planner {
        stack,
        observed,
        names: Names::of(stack),
        zones: zone_count(stack),
        wanted: live_store_replicas(stack),
        leaves: super::migration::leaves_cluster(stack, plan.migration.as_ref()),
    };
    let shape = planner.shape(plan);
    plan.live_stores = shape.iter().copied().max().unwrap_or(0);
    let builders = planner.block_builders(plan.live_stores);
    if let Some(cluster) = &mut plan.topology.cluster {
        cluster.live_stores = shape;
        cluster.block_builders = builders;
        let runs = planner.observed.workloads.values().any(|workload| {
            workload.component == Some(Component::Querier) && workload.replicas > 0
        });
        if plan.live_stores == 0 && !runs {
            // Without a topic every process would only fail, and hide the reason.
            cluster.block_builders = 0;
            cluster.schedulers = 0;
            cluster.workers = false;
            cluster.others = false;
        }
    }
}

struct Planner<'a> {
    stack: &'a TempoStack,
    observed: &'a Observed,
    names: Names,
    zones: usize,
    wanted: u32,
    /// Whether the whole cluster is on its way out.
    leaves: bool,
}

impl Planner<'_> {
    /// Live-stores of a zone that there are by now.
    fn present(&self, zone: usize) -> u32 {
        self.observed
            .workloads
            .get(&self.names.live_store(zone))
            .map_or(0, |workload| workload.replicas)
    }

    /// Live-stores of each zone that there shall be.
    fn shape(&self, plan: &mut Plan) -> Vec<u32> {
        let present = (0..self.zones)
            .map(|zone| self.present(zone))
            .max()
            .unwrap_or(0);
        let orphaned = self.orphaned(present);
        let mut shape = match plan.drain.take() {
            Some(drain) => self.go_on(drain, plan),
            None if orphaned > present.max(self.wanted) && !self.leaves => {
                self.adopt(orphaned, present, plan)
            }
            None if self.wanted < present && !self.leaves => self.begin(present, plan),
            None => {
                let replicas = if self.leaves {
                    present
                } else {
                    let replicas = self.grow(present, plan);
                    self.keep_active(replicas, plan);
                    replicas
                };
                vec![replicas; self.zones]
            }
        };
        self.retire_zones(&mut shape, plan);
        shape
    }

    /// Live-stores that it would take for every partition that takes spans, or waits to, to have
    /// an owner.
    fn orphaned(&self, present: u32) -> u32 {
        self.observed
            .partitions()
            .filter(|partition| {
                partition.state != PartitionState::Inactive && partition.id >= present
            })
            .map(|partition| partition.id + 1)
            .max()
            .unwrap_or(0)
    }

    /// Partitions without live-stores, left by something that broke off, fail recent queries and
    /// are never forgotten: they get live-stores back, and are drained after that.
    fn adopt(&self, orphaned: u32, present: u32, plan: &mut Plan) -> Vec<u32> {
        let usable = usable_partitions(self.stack, self.observed, plan).unwrap_or(0);
        let replicas = orphaned.min(usable).max(present);
        plan.notes.push(Note::warning(
            "PartitionWithoutLiveStore",
            format!("partitions up to {} take spans and have no live-store; they get one, and are drained after that", orphaned - 1),
        ));
        plan.progress = Some((
            "ScalingUp",
            format!("live-stores grow to {replicas} in each zone, for partitions that were left"),
        ));
        self.keep_active(replicas, plan);
        vec![replicas; self.zones]
    }

    /// Up to the number wanted, as far as the topic has partitions (I2).
    fn grow(&self, present: u32, plan: &mut Plan) -> u32 {
        let usable = usable_partitions(self.stack, self.observed, plan);
        let replicas = match usable {
            Some(partitions) => self.wanted.min(partitions).max(present),
            // Nobody knows: what is there stays, and nothing is started that would only fail.
            None => present,
        };
        if replicas > present && present > 0 {
            plan.progress = Some((
                "ScalingUp",
                format!("live-stores grow from {present} to {replicas} in each zone"),
            ));
        } else if replicas > 0 && self.observed.ring.is_some() {
            let active = self.active(replicas);
            if active < replicas {
                plan.progress = Some((
                    "ScalingUp",
                    format!("{active} of {replicas} partitions are active"),
                ));
            }
        }
        replicas
    }

    fn active(&self, replicas: u32) -> u32 {
        let active = self
            .observed
            .partitions()
            .filter(|partition| {
                partition.id < replicas && partition.state == PartitionState::Active
            })
            .count();
        u32::try_from(active).unwrap_or(u32::MAX)
    }

    /// A partition that takes no spans never takes them again by itself: after a drain was
    /// cancelled or undone, its live-store is told.
    fn keep_active(&self, replicas: u32, plan: &mut Plan) {
        let inactive: Vec<u32> = self
            .observed
            .partitions()
            .filter(|partition| {
                partition.id < replicas && partition.state == PartitionState::Inactive
            })
            .map(|partition| partition.id)
            .collect();
        for id in inactive {
            self.reactivate(id, plan);
        }
        for pod in self.observed.live_stores() {
            let stays = pod.ordinal.is_some_and(|ordinal| ordinal < replicas);
            if stays && self.observed.leaving.get(&pod.name) == Some(&true) {
                plan.actions.push(Action::CancelDownscale {
                    pod: pod.name.clone(),
                });
            }
        }
    }

    fn reactivate(&self, id: u32, plan: &mut Plan) {
        if let Some(pod) = self.speaker(id) {
            plan.actions.push(Action::Reactivate {
                pod: pod.name.clone(),
            });
        }
    }

    /// The live-store to speak to about a partition: the state is the partition's, one is enough.
    fn speaker(&self, id: u32) -> Option<&Pod> {
        self.observed
            .owners_of(id)
            .max_by_key(|pod| (pod.ready, pod.zone.map(std::cmp::Reverse)))
    }

    fn begin(&self, present: u32, plan: &mut Plan) -> Vec<u32> {
        let ready = self
            .observed
            .live_stores()
            .filter(|pod| pod.ready && !pod.terminating)
            .count();
        let all = present as usize * self.zones;
        if ready < all || super::migration::is_under_way(plan.migration.as_ref()) {
            plan.progress = Some((
                "DrainingPartitions",
                format!(
                    "live-stores shall shrink from {present} to {}; it begins when all are ready ({ready} of {all} are) and no change of mode is under way",
                    self.wanted
                ),
            ));
            self.keep_active(present, plan);
            return vec![present; self.zones];
        }
        plan.notes.push(Note::normal(
            "DrainStarted",
            format!(
                "partitions {} to {} take no more spans, and go when all is in blocks",
                self.wanted,
                present - 1
            ),
        ));
        self.go_on(
            Drain {
                from: present,
                target: self.wanted,
                phase: DrainPhase::Deactivate,
                phase_started_at: self.observed.now,
                started_at: None,
                caught_up_at: None,
                message: String::new(),
            },
            plan,
        )
    }

    /// The spec may have changed since the drain began.
    fn follow_spec(&self, drain: &mut Drain, plan: &mut Plan) {
        let settled = matches!(
            drain.phase,
            DrainPhase::Shrink | DrainPhase::Forget | DrainPhase::Cancel
        );
        if settled || self.wanted == drain.target {
            return;
        }
        if self.wanted >= drain.from {
            self.enter(drain, DrainPhase::Cancel, plan);
            plan.notes.push(Note::normal(
                "DrainCancelled",
                format!(
                    "live-stores shall be {} again; partitions take spans again",
                    self.wanted
                ),
            ));
            return;
        }
        // Those between the old and the new target stay after all.
        for id in drain.target..self.wanted {
            self.reactivate(id, plan);
            self.stay(id, plan);
        }
        drain.target = self.wanted;
        drain.started_at = None;
        drain.caught_up_at = None;
        self.enter(drain, DrainPhase::Deactivate, plan);
    }

    fn stay(&self, id: u32, plan: &mut Plan) {
        for pod in self.observed.owners_of(id) {
            if self.observed.leaving.get(&pod.name) != Some(&false) {
                plan.actions.push(Action::CancelDownscale {
                    pod: pod.name.clone(),
                });
            }
        }
    }

    fn enter(&self, drain: &mut Drain, phase: DrainPhase, _: &mut Plan) {
        if drain.phase != phase {
            drain.phase = phase;
            drain.phase_started_at = self.observed.now;
        }
    }

    /// One look at a drain under way.
    fn go_on(&self, mut drain: Drain, plan: &mut Plan) -> Vec<u32> {
        self.follow_spec(&mut drain, plan);
        self.keep_active(drain.target, plan);
        let done = match drain.phase {
            DrainPhase::Deactivate => self.deactivate(&mut drain, plan),
            DrainPhase::Wait => self.wait(&mut drain, plan),
            DrainPhase::Prepare => self.prepare(&mut drain, plan),
            DrainPhase::Shrink => self.shrink(&mut drain, plan),
            DrainPhase::Forget => self.forget(&mut drain, plan),
            DrainPhase::Cancel => self.cancel(&mut drain, plan),
        };
        let shape = self.shape_of(&drain);
        if done {
            let (reason, message) = match drain.phase {
                DrainPhase::Cancel => (
                    "DrainCancelled",
                    "all partitions take spans again".to_owned(),
                ),
                _ => (
                    "DrainCompleted",
                    format!("partitions {} to {} are gone", drain.target, drain.from - 1),
                ),
            };
            // The spec may ask for another number by now: that is for the next look, soon.
            plan.progress = Some(("DrainingPartitions", message.clone()));
            plan.notes.push(Note::normal(reason, message));
        } else {
            plan.progress = Some((
                "DrainingPartitions",
                format!("{:?}: {}", drain.phase, drain.message),
            ));
            plan.drain = Some(drain);
        }
        shape
    }

    /// Replicas of each zone at this step: zones go one after another.
    fn shape_of(&self, drain: &Drain) -> Vec<u32> {
        match drain.phase {
            // Without news of partitions no further live-store goes.
            DrainPhase::Shrink if self.observed.ring.is_none() => (0..self.zones)
                .map(|zone| self.present(zone).clamp(drain.target, drain.from))
                .collect(),
            DrainPhase::Shrink => {
                let mut shape = vec![drain.from; self.zones];
                for (zone, replicas) in shape.iter_mut().enumerate() {
                    *replicas = drain.target;
                    if !self.has_shrunk(zone, drain.target) {
                        break;
                    }
                }
                shape
            }
            DrainPhase::Forget => vec![drain.target; self.zones],
            _ => vec![drain.from; self.zones],
        }
    }

    fn has_shrunk(&self, zone: usize, target: u32) -> bool {
        self.present(zone) <= target
            && !self
                .observed
                .live_stores()
                .any(|pod| pod.zone == Some(zone) && pod.ordinal.is_some_and(|o| o >= target))
    }

    fn leaving_ids(drain: &Drain) -> std::ops::Range<u32> {
        drain.target..drain.from
    }

    /// When the last of the partitions became inactive; `None` while one is not. What members
    /// have forgotten needs no telling.
    fn inactive_since(&self, drain: &Drain) -> Option<At> {
        self.observed.ring.as_ref()?;
        let mut latest = At(0);
        for id in Self::leaving_ids(drain) {
            if let Some(partition) = self.observed.partition(id) {
                if partition.state != PartitionState::Inactive {
                    return None;
                }
                latest = latest.max(partition.since);
            }
        }
        Some(if latest == At(0) {
            drain.phase_started_at
        } else {
            latest
        })
    }

    fn deactivate(&self, drain: &mut Drain, plan: &mut Plan) -> bool {
        let Some(since) = self.inactive_since(drain) else {
            "partitions are told to take no more spans".clone_into(&mut drain.message);
            for id in Self::leaving_ids(drain) {
                let state = self.observed.partition(id).map(|partition| partition.state);
                if state.is_some_and(|state| state != PartitionState::Inactive) {
                    plan.actions.extend(self.observed.owners_of(id).map(|pod| {
                        Action::Deactivate {
                            pod: pod.name.clone(),
                        }
                    }));
                }
            }
            return false;
        };
        drain.started_at = Some(since);
        self.enter(drain, DrainPhase::Wait, plan);
        "spans become blocks".clone_into(&mut drain.message);
        false
    }

    /// Whether someone told a partition to take spans again.
    fn was_undone(&self, drain: &mut Drain, plan: &mut Plan) -> bool {
        if self.observed.ring.is_none() || self.inactive_since(drain).is_some() {
            return false;
        }
        plan.notes.push(Note::warning(
            "DrainUndone",
            "a partition that is drained takes spans again; the drain begins anew. To cancel it, raise components.liveStore.replicas".to_owned(),
        ));
        drain.started_at = None;
        drain.caught_up_at = None;
        self.enter(drain, DrainPhase::Deactivate, plan);
        true
    }

    fn wait(&self, drain: &mut Drain, plan: &mut Plan) -> bool {
        if self.was_undone(drain, plan) {
            return false;
        }
        let now = self.observed.now;
        let wait = self.stack.spec.update_strategy.drain_wait.seconds();
        let lag = self.lag(drain);
        match lag {
            Some(0) => {
                drain.caught_up_at.get_or_insert(now);
            }
            _ => drain.caught_up_at = None,
        }
        let poll = self.stack.spec.timings.blocklist_poll.seconds();
        let has_waited = has_passed(now, drain.started_at, wait);
        if has_waited && has_passed(now, drain.caught_up_at, poll) && self.observed.ring.is_some() {
            self.enter(drain, DrainPhase::Prepare, plan);
            return self.prepare(drain, plan);
        }
        drain.message = match lag {
            None => "lag of block-builders is not known: Kafka does not answer".to_owned(),
            Some(0) => {
                let left = wait.saturating_sub(now.seconds_since(drain.started_at.unwrap_or(now)));
                format!("all records are read; queries turn to blocks in {left}s")
            }
            Some(lag) => format!("{lag} records are to be read by block-builders"),
        };
        false
    }

    /// Records of the partitions that consumers have not read.
    fn lag(&self, drain: &Drain) -> Option<u64> {
        let kafka = self
            .observed
            .kafka
            .as_ref()
            .filter(|kafka| kafka.problem.is_none())?;
        Self::leaving_ids(drain)
            .map(|id| kafka.lag.get(&id).copied())
            .sum()
    }

    fn prepare(&self, drain: &mut Drain, plan: &mut Plan) -> bool {
        if self.was_undone(drain, plan) {
            return false;
        }
        if self.observed.ring.is_none() {
            "no member tells of partitions".clone_into(&mut drain.message);
            return false;
        }
        let pods: Vec<&Pod> = Self::leaving_ids(drain)
            .flat_map(|id| self.observed.owners_of(id))
            .collect();
        let unprepared: Vec<&Pod> = pods
            .into_iter()
            .filter(|pod| self.observed.leaving.get(&pod.name) != Some(&true))
            .collect();
        // A partition that is forgotten by now has nobody to leave.
        let nobody = Self::leaving_ids(drain).all(|id| self.observed.partition(id).is_none());
        if unprepared.is_empty() || nobody {
            self.enter(drain, DrainPhase::Shrink, plan);
            "pods go, one zone after another".clone_into(&mut drain.message);
            return false;
        }
        drain.message = format!(
            "{} live-stores are told to leave for good",
            unprepared.len()
        );
        plan.actions
            .extend(unprepared.into_iter().map(|pod| Action::PrepareDownscale {
                pod: pod.name.clone(),
            }));
        false
    }

    fn shrink(&self, drain: &mut Drain, plan: &mut Plan) -> bool {
        if (0..self.zones).all(|zone| self.has_shrunk(zone, drain.target)) {
            self.enter(drain, DrainPhase::Forget, plan);
            return self.forget(drain, plan);
        }
        // One that started anew may have made its partition again.
        if self.was_undone(drain, plan) {
            return false;
        }
        "pods go, one zone after another".clone_into(&mut drain.message);
        false
    }

    fn forget(&self, drain: &mut Drain, plan: &mut Plan) -> bool {
        let left: Vec<String> = Self::leaving_ids(drain)
            .filter(|id| self.observed.partition(*id).is_some())
            .map(|id| id.to_string())
            .collect();
        if self.observed.ring.is_some() && left.is_empty() {
            return true;
        }
        drain.message = format!("members forget partitions {}", left.join(", "));
        if !left.is_empty()
            && has_passed(self.observed.now, Some(drain.phase_started_at), FORGET_SECS)
        {
            let remedy = format!(
                "partitions {} have no live-store and are not forgotten: recent queries fail now. Set components.liveStore.replicas to {}, and look at live_store.partition_ring.delete_inactive_partition_after",
                left.join(", "),
                drain.from
            );
            plan.notes
                .push(Note::warning("PartitionNotForgotten", remedy.clone()));
            plan.recent_reads = Some(remedy);
            // Asked back, they come back: the remedy must not wait for itself.
            if self.wanted >= drain.from {
                return true;
            }
        }
        false
    }

    fn cancel(&self, drain: &mut Drain, plan: &mut Plan) -> bool {
        let mut waiting = 0;
        for id in Self::leaving_ids(drain) {
            match self.observed.partition(id).map(|partition| partition.state) {
                Some(PartitionState::Inactive) => {
                    self.reactivate(id, plan);
                    waiting += 1;
                }
                Some(PartitionState::Active) => {}
                Some(PartitionState::Pending) | None => waiting += 1,
            }
            for pod in self.observed.owners_of(id) {
                if self.observed.leaving.get(&pod.name) != Some(&false) {
                    waiting += 1;
                    plan.actions.push(Action::CancelDownscale {
                        pod: pod.name.clone(),
                    });
                }
            }
        }
        drain.message = format!("{waiting} partitions and live-stores are told to stay");
        waiting == 0
    }

    /// Zones beyond those of the spec: their live-stores own partitions that others own, too, so
    /// they may go when the others are well.
    fn retire_zones(&self, shape: &mut Vec<u32>, plan: &mut Plan) {
        for zone in self.zones..crate::topology::ZONE_LETTERS.len() {
            let name = self.names.live_store(zone);
            let Some(workload) = self.observed.workloads.get(&name) else {
                continue;
            };
            let has_pods = self
                .observed
                .live_stores()
                .any(|pod| pod.zone == Some(zone));
            if workload.replicas == 0 && !has_pods {
                continue;
            }
            let wanted = shape.first().copied().unwrap_or(0);
            let others_are_well = (0..self.zones).all(|zone| self.ready_in(zone) >= wanted);
            let replicas = if others_are_well && plan.drain.is_none() {
                0
            } else {
                workload.replicas
            };
            shape.resize(zone, 0);
            shape.push(replicas);
            plan.progress = Some((
                "RetiringZone",
                format!("live-stores of {name} go when those of the other zones are ready"),
            ));
        }
    }

    fn ready_in(&self, zone: usize) -> u32 {
        let ready = self
            .observed
            .live_stores()
            .filter(|pod| pod.zone == Some(zone) && pod.ready && !pod.terminating)
            .count();
        u32::try_from(ready).unwrap_or(u32::MAX)
    }

    /// By the partitions that hold data, not by the spec (I3): those that are drained keep their
    /// reader. Without news of partitions there are never fewer than now.
    fn block_builders(&self, live_stores: u32) -> u32 {
        let present = self
            .observed
            .workloads
            .get(&self.names.component(Component::BlockBuilder))
            .map_or(0, |workload| workload.replicas);
        let by_spec = block_builder_replicas(self.stack, live_stores);
        match self.observed.ring_size() {
            Some(partitions) => by_spec.max(block_builder_replicas(self.stack, partitions)),
            None => by_spec.max(present),
        }
    }
}
