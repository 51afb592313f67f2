//! What could be merged next, over all tenants.
//!
//! Owns the order of tenants and the pause of blocks that cannot be merged now. Must never hand out
//! a job: the scheduler does.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tempo_backend::{Blocklist, Timestamp};
use uuid::Uuid;

use crate::{
    Config, Limits,
    metrics::Metrics,
    select::{SelectionConfig, select},
};

/// Blocks of a tenant that could be merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) tenant: Arc<str>,
    pub(crate) blocks: Vec<Uuid>,
    /// Those that may still be hidden from compaction by who wrote them.
    pub(crate) fresh: Vec<Uuid>,
}

/// What is looked at to plan.
pub(crate) struct Scene<'a> {
    pub(crate) blocklist: &'a Blocklist,
    /// Blocks that jobs have.
    pub(crate) busy: &'a HashSet<Uuid>,
    /// Tenants whose blocks are not to be merged now.
    pub(crate) barred: &'a dyn Fn(&str) -> bool,
    pub(crate) limits: &'a dyn Limits,
    pub(crate) config: &'a Config,
    pub(crate) metrics: &'a Metrics,
    pub(crate) now: Timestamp,
}

/// First pause of a block that could not be merged; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, Copy)]
struct Pause {
    times: u32,
    until: Timestamp,
}

/// What could be merged next.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    queue: VecDeque<Candidate>,
    planned: Option<Timestamp>,
    paused: HashMap<Uuid, Pause>,
}

impl Plan {
    /// The next candidate none of whose blocks is busy. Looks at the block list again at the
    /// earliest `min_cycle_interval` after the last time.
    pub(crate) fn next(&mut self, scene: &Scene<'_>) -> Option<Candidate> {
        loop {
            while let Some(candidate) = self.queue.pop_front() {
                let blocks = scene.blocklist.tenant(&candidate.tenant);
                let is_free = |block: &Uuid| {
                    !scene.busy.contains(block)
                        && !self.is_paused(block, scene.now)
                        && blocks.live_block(*block).is_some()
                };
                if !(scene.barred)(&candidate.tenant) && candidate.blocks.iter().all(is_free) {
                    return Some(candidate);
                }
            }
            if let Some(planned) = self.planned
                && scene.now.saturating_since(planned) < scene.config.min_cycle_interval
            {
                return None;
            }
            self.planned = Some(scene.now);
            self.fill(scene);
            if self.queue.is_empty() {
                scene.metrics.empty_cycles.inc();
                return None;
            }
        }
    }

    fn is_paused(&self, block: &Uuid, now: Timestamp) -> bool {
        self.paused
            .get(block)
            .is_some_and(|pause| pause.until > now)
    }

    fn fill(&mut self, scene: &Scene<'_>) {
        let Scene {
            blocklist,
            busy,
            barred,
            limits,
            config,
            metrics,
            now,
        } = *scene;
        let mut tenants = Vec::new();
        let mut paused = HashSet::new();
        metrics.outstanding_blocks.reset();
        for tenant in blocklist.tenants() {
            let blocks = blocklist.tenant(&tenant);
            let known = |block: &Uuid| blocks.live_block(*block).is_some();
            paused.extend(self.paused.keys().copied().filter(known));
            if limits.compaction_disabled(&tenant) {
                continue;
            }
            let window = limits.compaction_window(&tenant);
            let selection = SelectionConfig {
                window: window.unwrap_or(config.selection.window),
                ..config.selection
            };
            let mut excluded = busy.clone();
            let waiting = self
                .paused
                .keys()
                .filter(|block| self.is_paused(block, now));
            excluded.extend(waiting.copied());
            let selected = select(blocks.live(), &excluded, &selection, now);
            let outstanding: usize = selected.iter().map(|choice| choice.blocks.len()).sum();
            metrics
                .outstanding_blocks
                .with_label_values(&[&*tenant])
                .set(outstanding as i64);
            if outstanding > 0 && !barred(&tenant) {
                tenants.push((blocks.live().len() + outstanding, tenant, selected));
            }
        }
        // What is gone from the list needs no pause.
        self.paused.retain(|block, _| paused.contains(block));
        tenants.sort_by(|one, other| (other.0, &one.1).cmp(&(one.0, &other.1)));
        for (_, tenant, selected) in tenants {
            for choice in selected.into_iter().take(config.max_jobs_per_tenant) {
                let fresh = choice
                    .blocks
                    .iter()
                    .filter(|meta| meta.compaction_level == 0);
                self.queue.push_back(Candidate {
                    tenant: Arc::clone(&tenant),
                    fresh: fresh.map(|meta| meta.block_id).collect(),
                    blocks: choice.blocks.iter().map(|meta| meta.block_id).collect(),
                });
            }
        }
    }

    /// Leaves blocks alone for a while, longer each time: what has kept them from being merged
    /// would do so again, and as long as they are chosen their neighbours are not merged either.
    pub(crate) fn pause(&mut self, blocks: impl IntoIterator<Item = Uuid>, now: Timestamp) {
        for block in blocks {
            let times = self.paused.get(&block).map_or(0, |pause| pause.times);
            let pause = FIRST_PAUSE
                .saturating_mul(1 << times.min(16))
                .min(MAX_PAUSE);
            self.paused.insert(
                block,
                Pause {
                    times: times + 1,
                    until: now.saturating_add(pause),
                },
            );
        }
    }

    /// Looks at the block list at once the next time.
    pub(crate) fn refresh(&mut self) {
        self.planned = None;
        self.queue.clear();
    }
}
