//! The bound on the memory of requests at work.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use prometheus::IntGauge;

/// Bytes that all requests of a process may hold at once.
#[derive(Debug)]
pub struct InflightBudget {
    used: AtomicUsize,
    max_bytes: usize,
    gauge: IntGauge,
}

/// The budget has no room for these bytes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "requests in flight would hold more than max_inflight_request_bytes ({max_bytes} bytes); \
     try again later"
)]
pub struct Overloaded {
    max_bytes: usize,
}

impl InflightBudget {
    /// A budget of `max_bytes` that shows its use in `gauge`.
    pub fn new(max_bytes: usize, gauge: IntGauge) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            max_bytes,
            gauge,
        })
    }

    /// A permit that holds nothing yet.
    pub fn open(self: &Arc<Self>) -> InflightPermit {
        InflightPermit {
            budget: Arc::clone(self),
            bytes: 0,
        }
    }
}

/// The bytes that one request holds. Given back when dropped.
#[derive(Debug)]
pub struct InflightPermit {
    budget: Arc<InflightBudget>,
    bytes: usize,
}

impl InflightPermit {
    /// Takes `bytes` more.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Overloaded> {
        let taken = self
            .budget
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes)
                    .filter(|&used| used <= self.budget.max_bytes)
            });
        if taken.is_err() {
            return Err(Overloaded {
                max_bytes: self.budget.max_bytes,
            });
        }
        self.bytes += bytes;
        self.budget.gauge.add(bytes as i64);
        Ok(())
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let freed = self.bytes.saturating_sub(bytes);
        self.bytes -= freed;
        self.budget.used.fetch_sub(freed, Ordering::Relaxed);
        self.budget.gauge.sub(freed as i64);
    }

    /// How many bytes it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for InflightPermit {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_bounded_and_given_back() {
        let gauge = IntGauge::new("used", "used").unwrap();
        let budget = InflightBudget::new(100, gauge.clone());
        let mut first = budget.open();
        first.grow(60).unwrap();
        let mut second = budget.open();
        assert_eq!(second.grow(41), Err(Overloaded { max_bytes: 100 }));
        second.grow(40).unwrap();
        assert_eq!(second.grow(usize::MAX), Err(Overloaded { max_bytes: 100 }));
        first.shrink_to(10);
        assert_eq!((first.bytes(), gauge.get()), (10, 50));
        drop(first);
        drop(second);
        assert_eq!(gauge.get(), 0);
        budget.open().grow(100).unwrap();
    }
}
