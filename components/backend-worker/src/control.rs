//! How a running merge is told what to leave out, and when to stop.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tempo_block::merge::MergeControl;
use tempo_model::TraceId;

/// Tells a job to stop. Clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Abandon(Arc<AtomicBool>);

impl Abandon {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Leaves traces out.
pub(crate) struct Control {
    pub(crate) abandon: Abandon,
    /// Sorted.
    pub(crate) dropped: Vec<TraceId>,
}

impl MergeControl for Control {
    fn drops(&self, id: &TraceId) -> bool {
        self.dropped.binary_search(id).is_ok()
    }

    fn is_cancelled(&self) -> bool {
        self.abandon.is_set()
    }
}
