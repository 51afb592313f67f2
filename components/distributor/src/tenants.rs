//! What is kept per tenant: its rate and its counters. Bounded, since anybody can invent tenants.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::{
    limits::TenantLimits,
    metrics::{Metrics, TenantMetrics},
    rate_limit::TokenBucket,
};

/// One tenant.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) name: String,
    pub(crate) metrics: TenantMetrics,
    bucket: Mutex<TokenBucket>,
    /// Milliseconds after [`Tenants::started`].
    last_used: AtomicU64,
}

impl Tenant {
    /// Takes `bytes` from the tenant's rate.
    pub(crate) fn take(&self, bytes: u64, limits: &TenantLimits, now: Instant) -> bool {
        self.bucket.lock().take(bytes, limits, now)
    }
}

/// The tenants seen of late.
#[derive(Debug)]
pub(crate) struct Tenants {
    known: RwLock<HashMap<String, Arc<Tenant>>>,
    max_tenants: usize,
    started: Instant,
}

impl Tenants {
    pub(crate) fn new(max_tenants: usize) -> Self {
        Self {
            known: RwLock::default(),
            max_tenants: max_tenants.max(1),
            started: Instant::now(),
        }
    }

    /// The tenant of that name; a new one if it is not known.
    pub(crate) fn get(&self, name: &str, metrics: &Metrics, now: Instant) -> Arc<Tenant> {
        let now = now.saturating_duration_since(self.started).as_millis() as u64;
        if let Some(tenant) = self.known.read().get(name) {
            tenant.last_used.store(now, Ordering::Relaxed);
            return Arc::clone(tenant);
        }
        let mut known = self.known.write();
        if known.len() >= self.max_tenants && !known.contains_key(name) {
            self.forget_idle(&mut known, metrics);
        }
        let tenant = known.entry_ref(name).or_insert_with(|| {
            Arc::new(Tenant {
                name: name.to_owned(),
                metrics: metrics.tenant(name),
                bucket: Mutex::new(TokenBucket::full()),
                last_used: AtomicU64::new(now),
            })
        });
        let tenant = Arc::clone(tenant);
        metrics.tracked_tenants.set(known.len() as i64);
        tenant
    }

    /// Forgets the eighth that is idle longest, so that the search for it is paid for by many.
    fn forget_idle(&self, known: &mut HashMap<String, Arc<Tenant>>, metrics: &Metrics) {
        let mut by_use: Vec<_> = known.values().cloned().collect();
        by_use.sort_unstable_by_key(|tenant| tenant.last_used.load(Ordering::Relaxed));
        by_use.truncate(self.max_tenants.div_ceil(8));
        for tenant in by_use {
            known.remove(&tenant.name);
            metrics.forget_tenant(&tenant.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::Registry;

    use super::*;
    use crate::metrics::discarded_spans_counter;

    #[test]
    fn invented_tenants_push_out_idle_ones_only() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry, discarded_spans_counter().unwrap()).unwrap();
        let tenants = Tenants::new(16);
        let start = Instant::now();
        let busy = tenants.get("busy", &metrics, start);
        for number in 0..100_u64 {
            let now = start + Duration::from_secs(number);
            tenants.get(&format!("invented-{number}"), &metrics, now);
            assert!(Arc::ptr_eq(&busy, &tenants.get("busy", &metrics, now)));
        }
        assert!(metrics.tracked_tenants.get() <= 16);
        let series = registry
            .gather()
            .iter()
            .find(|family| family.name() == "tempo_distributor_spans_received_total")
            .map(|family| family.get_metric().len());
        assert_eq!(series, Some(metrics.tracked_tenants.get() as usize));
    }
}
