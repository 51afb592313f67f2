//! The handle that answers, and the service that keeps it current.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;
use tempo_config::{
    blocks::{overrides::Overrides as OverridesBlock, user_overrides::UserOverrides},
    render_runtime_overrides,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Check, Error, Expand, LimitsSource, TenantLimits, TenantOverrides, UserConfigurable,
    file::RuntimeFile,
    metrics::Metrics,
    user::{self, UserStore},
};

/// The entry of the runtime file for tenants without their own.
const WILDCARD: &str = "*";

/// Entries of the runtime file by tenant; [`WILDCARD`] is one of them.
pub(crate) type RuntimeTable = BTreeMap<String, Arc<TenantOverrides>>;

/// Settings of the overrides.
#[derive(Clone)]
pub struct Config {
    /// `overrides.defaults`.
    pub defaults: TenantOverrides,
    /// Path of the runtime file; empty: there is none.
    pub runtime_file: String,
    /// Time between two looks at the runtime file.
    pub reload_period: Duration,
    /// Whether the runtime file may be in the flat form of Tempo 1.
    pub allow_legacy: bool,
    /// Applied to the text of the runtime file before it is parsed.
    pub expand: Option<Expand>,
    /// Checks each entry beyond the rules that hold everywhere.
    pub check: Option<Check>,
    /// Where tenants keep what they set themselves; none: they cannot.
    pub user_configurable: Option<UserConfigurable>,
}

impl Default for Config {
    fn default() -> Self {
        Self::from(&OverridesBlock::default())
    }
}

impl From<&OverridesBlock> for Config {
    /// What the block says by itself; the store of user-configurable overrides is opened by the
    /// caller.
    fn from(block: &OverridesBlock) -> Self {
        Self {
            defaults: block.defaults.clone(),
            runtime_file: block.per_tenant_override_config.clone(),
            reload_period: block.per_tenant_override_period.0,
            allow_legacy: block.enable_legacy_overrides,
            expand: None,
            check: None,
            user_configurable: None,
        }
    }
}

/// Answers which limits count for a tenant. Below are its own entry of the runtime file, else the
/// entry `*`, else the defaults, always one of them as a whole; above, key by key, what the tenant
/// has set itself. Cheap to clone.
#[derive(Clone)]
pub struct Overrides {
    inner: Arc<Inner>,
}

struct Inner {
    defaults: Arc<TenantOverrides>,
    layers: RwLock<Layers>,
    /// None when tenants cannot set anything themselves.
    user_store: Option<UserStore>,
}

#[derive(Default)]
struct Layers {
    /// None when there is no runtime file.
    runtime: Option<RuntimeTable>,
    /// What tenants have set themselves.
    user: BTreeMap<String, Arc<UserOverrides>>,
    /// Of each tenant in `user`: what counts for it.
    merged: BTreeMap<String, Arc<TenantOverrides>>,
}

impl Layers {
    fn runtime_of(
        &self,
        tenant: &str,
        defaults: &Arc<TenantOverrides>,
    ) -> (Arc<TenantOverrides>, LimitsSource) {
        let entry = |name: &str| self.runtime.as_ref()?.get(name).cloned();
        if let Some(own) = entry(tenant) {
            (own, LimitsSource::Tenant)
        } else if let Some(wildcard) = entry(WILDCARD) {
            (wildcard, LimitsSource::Wildcard)
        } else {
            (Arc::clone(defaults), LimitsSource::Defaults)
        }
    }

    fn merge(&mut self, tenant: &str, defaults: &Arc<TenantOverrides>) {
        match self.user.get(tenant) {
            Some(user) => {
                let (below, _) = self.runtime_of(tenant, defaults);
                let mut merged = TenantOverrides::clone(&below);
                user::put_over(&mut merged, user);
                self.merged.insert(tenant.to_owned(), Arc::new(merged));
            }
            None => {
                self.merged.remove(tenant);
            }
        }
    }
}

/// Reads the runtime file, and what tenants set themselves, again and again. See
/// [`Overrides::build`].
pub struct Service {
    overrides: Overrides,
    file: Option<RuntimeFile>,
    period: Duration,
    /// The bytes that were last looked at, good or bad.
    last_bytes: Vec<u8>,
    metrics: Metrics,
    user_poll: Option<user::Poll>,
}

impl Overrides {
    /// Reads the runtime file, which must be good, and what tenants have set themselves, and hands
    /// out the handle and the service that reads both again.
    ///
    /// Metrics go to `registry`: `tempo_limits_defaults`, `tempo_limits_overrides`,
    /// `tempo_runtime_config_last_reload_successful`, and where tenants can set limits themselves
    /// `tempo_overrides_user_configurable_overrides_*`.
    ///
    /// # Errors
    /// When the runtime file cannot be read or is not good, or a tenant's document is not. A store
    /// that does not answer is no error: it is asked again.
    pub async fn build(
        config: Config,
        registry: &prometheus::Registry,
    ) -> Result<(Self, Service), Error> {
        let metrics = Metrics::register(registry, &config.defaults)?;
        let user_store = match &config.user_configurable {
            Some(settings) => Some(UserStore::new(settings.backend.clone(), registry)?),
            None => None,
        };
        let overrides = Self {
            inner: Arc::new(Inner {
                defaults: Arc::new(config.defaults),
                layers: RwLock::default(),
                user_store: user_store.clone(),
            }),
        };
        let user_poll = match (config.user_configurable, user_store) {
            (Some(settings), Some(store)) => {
                Some(user::Poll::begin(overrides.clone(), store, settings.poll_interval).await?)
            }
            _ => None,
        };
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
            user_poll,
        };
        service.reload().await?;
        Ok((overrides, service))
    }

    /// The same limits for every tenant, for ever.
    pub fn fixed(defaults: TenantOverrides) -> Self {
        Self {
            inner: Arc::new(Inner {
                defaults: Arc::new(defaults),
                layers: RwLock::default(),
                user_store: None,
            }),
        }
    }

    /// The limits that count for a tenant now.
    pub fn tenant(&self, tenant: &str) -> TenantLimits {
        let defaults = &self.inner.defaults;
        let layers = self.inner.layers.read();
        let (runtime, source) = layers.runtime_of(tenant, defaults);
        let limits = layers.merged.get(tenant).cloned().unwrap_or(runtime);
        TenantLimits::new(limits, Arc::clone(defaults), source)
    }

    /// The limits that would count for a tenant if it had set nothing itself.
    pub(crate) fn runtime_of(&self, tenant: &str) -> (Arc<TenantOverrides>, LimitsSource) {
        let layers = self.inner.layers.read();
        layers.runtime_of(tenant, &self.inner.defaults)
    }

    /// What a tenant has set itself, as of the last look.
    pub(crate) fn user_overrides_of(&self, tenant: &str) -> Option<Arc<UserOverrides>> {
        self.inner.layers.read().user.get(tenant).cloned()
    }

    pub(crate) fn user_store(&self) -> Option<&UserStore> {
        self.inner.user_store.as_ref()
    }

    /// From now on this counts as what the tenant has set itself.
    pub(crate) fn set_user_overrides(&self, tenant: &str, user: Option<UserOverrides>) {
        let mut layers = self.inner.layers.write();
        match user {
            Some(user) => layers.user.insert(tenant.to_owned(), Arc::new(user)),
            None => layers.user.remove(tenant),
        };
        layers.merge(tenant, &self.inner.defaults);
    }

    fn set_runtime(&self, table: RuntimeTable) {
        let mut layers = self.inner.layers.write();
        layers.runtime = Some(table);
        let tenants: Vec<String> = layers.user.keys().cloned().collect();
        for tenant in tenants {
            layers.merge(&tenant, &self.inner.defaults);
        }
    }

    /// Tenants with an entry in the runtime file; `*` is one of them.
    pub(crate) fn tenants_with_entry(&self) -> BTreeSet<String> {
        let layers = self.inner.layers.read();
        let tables = layers.runtime.iter();
        tables.flat_map(|table| table.keys().cloned()).collect()
    }

    /// Tenants that have set something themselves.
    pub(crate) fn tenants_with_user_overrides(&self) -> BTreeSet<String> {
        self.inner.layers.read().user.keys().cloned().collect()
    }

    /// The runtime file as it counts now, as YAML; empty without one.
    pub fn runtime_yaml(&self) -> String {
        let layers = self.inner.layers.read();
        layers.runtime.as_ref().map_or_else(String::new, |table| {
            let entries = table.iter();
            render_runtime_overrides(entries.map(|(tenant, entry)| (tenant.as_str(), &**entry)))
        })
    }

    fn has_runtime(&self) -> bool {
        self.inner.layers.read().runtime.is_some()
    }
}

impl Service {
    /// Reads the runtime file and the tenants' own documents, each at its period, until shut down.
    /// What is not good is logged and counted, and what was good before goes on to count.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let user_poll = self.user_poll.take();
        let poll_user_overrides = async {
            if let Some(poll) = user_poll {
                poll.run().await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.reload_again_and_again() => {}
            () = poll_user_overrides => {}
        }
    }

    async fn reload_again_and_again(&mut self) {
        if self.file.is_none() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(self.period).await;
            if let Err(error) = self.reload().await {
                tracing::error!(%error, "overrides not reloaded, the previous ones stay");
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn user_poll(&mut self) -> &mut user::Poll {
        self.user_poll
            .as_mut()
            .expect("user-configurable overrides are enabled")
    }

    /// Looks at the file; does nothing when it has not changed since the last look.
    pub(crate) async fn reload(&mut self) -> Result<(), Error> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let read = file.read().await;
        let outcome = match read {
            Ok(bytes) if self.overrides.has_runtime() && bytes == self.last_bytes => return Ok(()),
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
                self.overrides.set_runtime(table);
                Ok(())
            }
            Err(error) => {
                self.metrics.last_reload_successful.set(0);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests;
