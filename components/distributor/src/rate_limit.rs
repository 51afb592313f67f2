//! How many bytes per second a tenant may send: a token bucket.

use tokio::time::Instant;

use crate::limits::TenantLimits;

/// Bytes that a tenant may send at once, refilled at its rate. Begins full.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    /// `None` before the first take: full, however large.
    state: Option<State>,
}

#[derive(Debug)]
struct State {
    tokens: f64,
    updated: Instant,
}

impl TokenBucket {
    pub(crate) const fn full() -> Self {
        Self { state: None }
    }

    /// Takes `bytes` if they are there. The limits are those of this moment: they may have changed
    /// since the last call.
    pub(crate) fn take(&mut self, bytes: u64, limits: &TenantLimits, now: Instant) -> bool {
        let burst = limits.burst_size_bytes as f64;
        let tokens = match &self.state {
            None => burst,
            Some(state) => {
                let passed = now.saturating_duration_since(state.updated).as_secs_f64();
                (state.tokens + passed * limits.rate_limit_bytes as f64).min(burst)
            }
        };
        let left = tokens - bytes as f64;
        let taken = left >= 0.0 && bytes <= limits.burst_size_bytes;
        self.state = Some(State {
            tokens: if taken { left } else { tokens },
            updated: now,
        });
        taken
    }
}

/// What a tenant is told whose push of `bytes` was refused.
pub(crate) fn refusal_text(bytes: u64, limits: &TenantLimits, tenant: &str) -> String {
    let TenantLimits {
        rate_limit_bytes: local,
        global_rate_limit_bytes: global,
        burst_size_bytes: burst,
        ..
    } = limits;
    if bytes > *local && bytes > *burst {
        format!(
            "RATE_LIMITED: batch size ({bytes} bytes) exceeds ingestion limit (local: {local} \
             bytes/s, global: {global} bytes/s, burst: {burst} bytes) while adding {bytes} bytes \
             for user {tenant}. consider reducing batch size or increasing rate limit."
        )
    } else {
        format!(
            "RATE_LIMITED: ingestion rate limit (local: {local} bytes/s, global: {global} \
             bytes/s, burst: {burst} bytes) exceeded while adding {bytes} bytes for user {tenant}. \
             consider increasing the limit or reducing ingestion rate."
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits(rate_limit_bytes: u64, burst_size_bytes: u64) -> TenantLimits {
        TenantLimits {
            rate_limit_bytes,
            burst_size_bytes,
            ..TenantLimits::default()
        }
    }

    #[test]
    fn the_first_push_is_bounded_by_the_burst() {
        // Rate, burst, size; the beginning of the refusal.
        let cases = [
            (500, 500, 500, None),
            (200, 500, 500, None),
            (500, 1500, 1100, None),
            (
                500,
                500,
                1100,
                Some("RATE_LIMITED: batch size (1100 bytes)"),
            ),
            (500, 200, 500, Some("RATE_LIMITED: ingestion rate limit")),
            (0, 0, 1, Some("RATE_LIMITED: batch size (1 bytes)")),
        ];
        for (rate, burst, bytes, want) in cases {
            let limits = limits(rate, burst);
            let taken = TokenBucket::full().take(bytes, &limits, Instant::now());
            assert_eq!(taken, want.is_none(), "{rate} {burst} {bytes}");
            if let Some(want) = want {
                let text = refusal_text(bytes, &limits, "a");
                assert!(text.starts_with(want), "{text}");
            }
        }
    }

    #[test]
    fn tokens_come_back_with_time_and_never_beyond_the_burst() {
        let limits = limits(100, 1_000);
        let start = Instant::now();
        let mut bucket = TokenBucket::full();
        assert!(bucket.take(1_000, &limits, start));
        assert!(!bucket.take(1, &limits, start));
        let later = start + Duration::from_secs(2);
        assert!(!bucket.take(201, &limits, later));
        assert!(bucket.take(200, &limits, later));
        let much_later = later + Duration::from_secs(1_000);
        assert!(!bucket.take(1_001, &limits, much_later));
        assert!(bucket.take(1_000, &limits, much_later));
    }

    #[test]
    fn changed_limits_count_at_once() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full();
        assert!(bucket.take(100, &limits(100, 100), start));
        assert!(!bucket.take(150, &limits(100, 200), start));
        let later = start + Duration::from_secs(1);
        assert!(bucket.take(200, &limits(200, 200), later));
    }

    #[test]
    fn texts_are_exact() {
        assert_eq!(
            refusal_text(1_100, &limits(500, 500), "t1"),
            "RATE_LIMITED: batch size (1100 bytes) exceeds ingestion limit (local: 500 bytes/s, \
             global: 0 bytes/s, burst: 500 bytes) while adding 1100 bytes for user t1. consider \
             reducing batch size or increasing rate limit."
        );
        let global = TenantLimits {
            global_rate_limit_bytes: 1_500,
            ..limits(500, 200)
        };
        assert_eq!(
            refusal_text(500, &global, "t1"),
            "RATE_LIMITED: ingestion rate limit (local: 500 bytes/s, global: 1500 bytes/s, burst: \
             200 bytes) exceeded while adding 500 bytes for user t1. consider increasing the limit \
             or reducing ingestion rate."
        );
    }
}
