//! Limits per tenant: the defaults, the runtime file that overrides them, and who gets which.
//!
//! Owns the `overrides` block of the configuration ([`OverridesBlock`]), the limits ([`Limits`]),
//! the handle that answers ([`Overrides`]) and its status pages. Must never enforce a limit: that
//! is done where the work is done.

mod duration;
mod error;
mod file;
mod legacy;
mod limits;
mod metrics;
mod overrides;
mod parse;
mod status;
mod tenant;

pub use duration::{GoDuration, ParseDurationError, PrometheusDuration};
pub use error::Error;
pub use file::{Check, Expand};
pub use limits::{
    CompactionLimits, CostAttributionLimits, DedicatedColumnLimit, DimensionMapping, FilterPolicy,
    FilterPolicyAttribute, FilterPolicyMatch, ForwarderLimits, GlobalLimits, HistogramMethod,
    HostInfoLimits, IngestionLimits, InvalidLimit, Limits, MetricsGeneratorLimits, ProcessorLimits,
    RateStrategy, ReadLimits, SecretHeader, ServiceGraphsLimits, SpanMetricsLimits,
    SpanNameSanitization, StorageLimits,
};
pub use overrides::{Config, Overrides, Service};
pub use parse::OverridesBlock;
pub use status::{TenantPage, TenantsPage, TenantsPageEntry};
pub use tenant::{LimitsSource, TenantLimits};
