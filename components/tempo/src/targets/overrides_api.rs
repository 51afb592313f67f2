//! `-target=overrides-api`: the API by which tenants set overrides themselves, and nothing else. The
//! query-frontend and the monolith serve it, too.

use axum::Router;
use tempo_config::Config;

use crate::{
    process::{Assembly, Base},
    settings,
};

pub(super) fn open(base: &Base, config: &Config) -> Assembly {
    Assembly {
        http: router(base, config),
        ..Assembly::default()
    }
}

/// The routes; none where tenants cannot set anything themselves.
pub(super) fn router(base: &Base, config: &Config) -> Router {
    let api = base.limits.overrides.api(settings::overrides_api(config));
    api.unwrap_or_default()
}
