//! The handle that answers, and the service that keeps it current.

use std::{sync::Arc, time::Duration};

use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use crate::{
    Check, Error, Expand, Limits, LimitsSource, OverridesBlock, TenantLimits,
    file::RuntimeFile,
    metrics::Metrics,
    parse::{TenantLimitsTable, render_table},
};

/// The entry of the runtime file for tenants without their own.
const WILDCARD: &str = "*";

/// Settings of the overrides.
#[derive(Clone)]
pub struct Config {
    /// `overrides.defaults`.
    pub defaults: Limits,
    /// Path of the runtime file; empty: there is none.
    pub runtime_file: String,
    /// Time between two looks at the runtime file.
    pub reload_period: Duration,
    /// Whether the runtime file may be in the flat format of Tempo 2.
    pub allow_legacy: bool,
    /// Applied to the text of the runtime file before it is parsed.
    pub expand: Option<Expand>,
    /// Checks each tenant's limits beyond their own rules.
    pub check: Option<Check>,
}

impl Default for Config {
    fn default() -> Self {
        Self::from(OverridesBlock::default())
    }
}

impl From<OverridesBlock> for Config {
    fn from(block: OverridesBlock) -> Self {
        Self {
            defaults: block.defaults,
            runtime_file: block.per_tenant_override_config,
            reload_period: block.per_tenant_override_period,
            allow_legacy: block.enable_legacy_overrides,
            expand: None,
            check: None,
        }
    }
}

/// Answers which limits count for a tenant: its own entry of the runtime file, else the entry
/// `*`, else the defaults; always one of them as a whole. Cheap to clone.
#[derive(Clone)]
pub struct Overrides {
    inner: Arc<Inner>,
}

struct Inner {
    defaults: Arc<Limits>,
    /// None when there is no runtime file.
    table: RwLock<Option<Arc<TenantLimitsTable>>>,
}

/// Reads the runtime file again and again. See [`Overrides::build`].
pub struct Service {
    overrides: Overrides,
    file: Option<RuntimeFile>,
    period: Duration,
    /// The bytes that were last looked at, good or bad.
    last_bytes: Vec<u8>,
    metrics: Metrics,
}

impl Overrides {
    /// Reads the runtime file, which must be good, and hands out the handle and the service that
    /// reads it again.
    ///
    /// Metrics go to `registry`: `tempo_limits_defaults`, `tempo_limits_overrides` and
    /// `tempo_runtime_config_last_reload_successful`.
    ///
    /// # Errors
    /// When the runtime file cannot be read or is not good.
    pub async fn build(
        config: Config,
        registry: &prometheus::Registry,
    ) -> Result<(Self, Service), Error> {
        let metrics = Metrics::register(registry, &config.defaults)?;
        let overrides = Self::fixed(config.defaults);
        let mut service = Service {
            overrides: overrides.clone(),
            file: (!config.runtime_file.is_empty()).then_some(RuntimeFile {
                path: config.runtime_file,
                allow_legacy: config.allow_legacy,
                expand: config.expand,
                check: config.check,
            }),
            period: config.reload_period,
            last_bytes: Vec::new(),
            metrics,
        };
        service.reload().await?;
        Ok((overrides, service))
    }

    /// The same limits for every tenant, for ever.
    pub fn fixed(defaults: Limits) -> Self {
        Self {
            inner: Arc::new(Inner {
                defaults: Arc::new(defaults),
                table: RwLock::new(None),
            }),
        }
    }

    /// The limits that count for a tenant now.
    pub fn tenant(&self, tenant: &str) -> TenantLimits {
        let defaults = Arc::clone(&self.inner.defaults);
        let table = self.inner.table.read();
        let found = table.as_ref().and_then(|table| {
            let own = table
                .get(tenant)
                .map(|limits| (limits, LimitsSource::Tenant));
            own.or_else(|| {
                let wildcard = table.get(WILDCARD)?;
                Some((wildcard, LimitsSource::Wildcard))
            })
        });
        match found {
            Some((limits, source)) => TenantLimits::new(Arc::clone(limits), defaults, source),
            None => TenantLimits::new(Arc::clone(&defaults), defaults, LimitsSource::Defaults),
        }
    }

    /// `overrides.defaults`.
    pub fn defaults(&self) -> &Limits {
        &self.inner.defaults
    }

    /// Tenants with an entry in the runtime file, sorted; `*` is one of them.
    pub fn tenants_with_entry(&self) -> Vec<String> {
        let table = self.inner.table.read();
        table
            .iter()
            .flat_map(|table| table.keys().cloned())
            .collect()
    }

    /// The runtime file as it counts now, as YAML; empty without one.
    pub fn runtime_yaml(&self) -> String {
        let table = self.inner.table.read().clone();
        table.map_or_else(String::new, |table| render_table(&table))
    }
}

impl Service {
    /// Reads the runtime file at every period until shut down. A file that is not good is logged
    /// and counted, and what was good before goes on to count.
    pub async fn run(mut self, shutdown: CancellationToken) {
        if self.file.is_none() {
            shutdown.cancelled().await;
            return;
        }
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(self.period) => {}
            }
            if let Err(error) = self.reload().await {
                tracing::error!(%error, "overrides not reloaded, the previous ones stay");
            }
        }
    }

    /// Looks at the file; does nothing when it has not changed since the last look.
    async fn reload(&mut self) -> Result<(), Error> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let read = file.read().await;
        let outcome = match read {
            Ok(bytes) if self.overrides.has_table() && bytes == self.last_bytes => return Ok(()),
            Ok(bytes) => {
                let parsed = file.parse(&bytes);
                self.last_bytes = bytes;
                parsed
            }
            Err(error) => {
                // The same bytes may come back; they must be looked at then.
                self.last_bytes.clear();
                Err(error)
            }
        };
        match outcome {
            Ok(table) => {
                tracing::info!(tenants = table.len(), "overrides loaded");
                self.metrics.show(&table);
                self.metrics.last_reload_successful.set(1);
                *self.overrides.inner.table.write() = Some(Arc::new(table));
                Ok(())
            }
            Err(error) => {
                self.metrics.last_reload_successful.set(0);
                Err(error)
            }
        }
    }
}

impl Overrides {
    fn has_table(&self) -> bool {
        self.inner.table.read().is_some()
    }
}

#[cfg(test)]
mod tests;
