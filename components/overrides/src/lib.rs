//! Overrides per tenant: the defaults, the runtime file, what tenants set themselves, and what of
//! all that counts for whom.
//!
//! Owns the handle that answers ([`Overrides`]), the rules that values must keep, the documents in
//! the object store with the API that changes them ([`Overrides::api`]), and the status pages. The
//! keys are `tempo-config`'s. Must never enforce a limit: that is done where the work is done.

mod error;
mod file;
mod metrics;
mod overrides;
mod rules;
mod status;
mod tenant;
mod user;

pub use error::Error;
pub use file::{Check, Expand};
pub use overrides::{Config, Overrides, Service};
pub use status::{TenantPage, TenantsPage, TenantsPageEntry};
pub use tempo_config::blocks::overrides::{RateStrategy, TenantOverrides};
pub use tenant::{LimitsSource, TenantLimits};
pub use user::{ApiConfig, UserConfigurable};
