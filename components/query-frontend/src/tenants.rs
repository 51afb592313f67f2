//! Whose data a request asks for.

use std::sync::Arc;

use tempo_api::BadRequest;
use tempo_model::tenant::{self, SINGLE_TENANT, TenantError};

use crate::{Config, error::QueryError};

/// The tenants of one request, sorted and distinct; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tenants(Vec<Arc<str>>);

impl Tenants {
    /// Reads the tenant header or metadata value.
    pub(crate) fn of_header(value: Option<&[u8]>, config: &Config) -> Result<Self, QueryError> {
        if !config.multitenancy_enabled {
            return Ok(Self(vec![Arc::from(SINGLE_TENANT)]));
        }
        let value = value.ok_or(QueryError::NoTenant)?;
        let value = String::from_utf8_lossy(value);
        if value.is_empty() {
            return Err(QueryError::NoTenant);
        }
        let refused = |text: String| QueryError::Bad(BadRequest(text));
        if value.split('|').any(str::is_empty) {
            return Err(refused(TenantError::Missing.to_string()));
        }
        let names = tenant::parse_header(&value).map_err(|error| refused(error.to_string()))?;
        if names.len() > 1 && !config.multi_tenant_queries_enabled {
            return Err(refused("multi-tenant query unsupported".to_owned()));
        }
        Ok(Self(names.into_iter().map(Arc::from).collect()))
    }

    pub(crate) fn names(&self) -> &[Arc<str>] {
        &self.0
    }

    /// The tenants as one name, under which limits of the whole request are looked up.
    pub(crate) fn joined(&self) -> String {
        self.0.join("|")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_or_several_tenants_or_a_clear_refusal() {
        let tenants = |value: Option<&str>, multitenancy, multi_tenant_queries| {
            let config = Config {
                multitenancy_enabled: multitenancy,
                multi_tenant_queries_enabled: multi_tenant_queries,
                ..Config::default()
            };
            Tenants::of_header(value.map(str::as_bytes), &config)
                .map(|tenants| tenants.joined())
                .map_err(|error| (error.status().as_u16(), error.body()))
        };
        assert_eq!(
            tenants(Some("ignored"), false, true),
            Ok("single-tenant".to_owned())
        );
        assert_eq!(tenants(Some("b|a|b"), true, true), Ok("a|b".to_owned()));
        assert_eq!(tenants(Some("a:meta=1"), true, false), Ok("a".to_owned()));
        assert_eq!(
            tenants(None, true, true),
            Err((401, "no org id\n".to_owned()))
        );
        assert_eq!(
            tenants(Some("a||b"), true, true),
            Err((400, "no org id".to_owned()))
        );
        assert_eq!(
            tenants(Some("a|b"), true, false),
            Err((400, "multi-tenant query unsupported".to_owned()))
        );
        assert_eq!(
            tenants(Some("a/b"), true, false),
            Err((
                400,
                "tenant ID 'a/b' contains unsupported character '/'".to_owned()
            ))
        );
    }
}
