//! How much memory the series of all queries take together.
//!
//! Each query has a bound of its own; this one is for many large queries at once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The memory of all queries.
#[derive(Clone)]
pub(crate) struct SeriesMemory {
    max_bytes: usize,
    used_bytes: Arc<AtomicUsize>,
}

/// What one query takes of it; given back when dropped.
pub(crate) struct SeriesShare {
    memory: SeriesMemory,
    bytes: usize,
}

impl SeriesMemory {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            used_bytes: Arc::default(),
        }
    }

    /// A share of nothing yet.
    pub(crate) fn share(&self) -> SeriesShare {
        SeriesShare {
            memory: self.clone(),
            bytes: 0,
        }
    }
}

impl SeriesShare {
    /// Up to how many bytes the share may grow, as things are.
    pub(crate) fn available_bytes(&self) -> usize {
        let used = self.memory.used_bytes.load(Ordering::Relaxed);
        let by_others = used.saturating_sub(self.bytes);
        self.memory.max_bytes.saturating_sub(by_others)
    }

    /// The query takes so many bytes now.
    pub(crate) fn set(&mut self, bytes: usize) {
        let used = &self.memory.used_bytes;
        if bytes >= self.bytes {
            used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for SeriesShare {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_takes_others_have_not() {
        let memory = SeriesMemory::new(100);
        let mut one = memory.share();
        let mut other = memory.share();
        one.set(60);
        assert_eq!((one.available_bytes(), other.available_bytes()), (100, 40));
        other.set(40);
        assert_eq!(one.available_bytes(), 60);
        one.set(10);
        assert_eq!(other.available_bytes(), 90);
        drop(other);
        assert_eq!(one.available_bytes(), 100);
    }
}
