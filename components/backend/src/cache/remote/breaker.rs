//! When a server that fails is left alone.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Closed while a server answers. After some failures in a row it opens, and no request is sent;
/// after a pause one request is let through to find out.
pub(super) struct Breaker {
    max_failures: u32,
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    failures: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    pub(super) fn new(max_failures: u32, pause: Duration) -> Self {
        Self {
            max_failures,
            pause,
            state: Mutex::default(),
        }
    }

    /// Whether a request may be sent at `now`. The one that is let through after a pause takes the
    /// chance for another pause's time.
    pub(super) fn allows(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        match state.open_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                state.open_until = Some(now + self.pause);
                true
            }
        }
    }

    pub(super) fn succeeded(&self) {
        *self.state.lock() = State::default();
    }

    /// Tells whether it has just opened.
    pub(super) fn failed(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        state.failures = state.failures.saturating_add(1);
        if state.failures < self.max_failures {
            return false;
        }
        let was_closed = state.open_until.is_none();
        state.open_until = Some(now + self.pause);
        was_closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_failures_in_a_row_and_tries_again_after_a_pause() {
        let second = Duration::from_secs(1);
        let breaker = Breaker::new(2, 10 * second);
        let now = Instant::now();
        assert!(!breaker.failed(now));
        breaker.succeeded();
        assert!(!breaker.failed(now));
        assert!(breaker.allows(now));
        assert!(breaker.failed(now));
        assert!(!breaker.failed(now));
        assert!(!breaker.allows(now + 9 * second));
        // One finds out; the others wait for it.
        assert!(breaker.allows(now + 10 * second));
        assert!(!breaker.allows(now + 10 * second));
        breaker.succeeded();
        assert!(breaker.allows(now + 10 * second));
    }
}
