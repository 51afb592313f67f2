//! What `/status/overrides` shows, as JSON and as HTML.

use serde::Serialize;

use crate::{LimitsSource, Overrides};

/// In place of user-configurable overrides, where there cannot be any.
const NOT_ENABLED: &str = "User-configurable overrides are not enabled";
/// In place of user-configurable overrides of a tenant that has none.
const NONE_SET: &str = "No user-configurable overrides set";

/// `/status/overrides`: who has limits of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantsPage {
    /// The time of the answer, RFC 3339.
    pub now: String,
    /// Tenants with limits of their own, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<TenantsPageEntry>,
}

/// One line of [`TenantsPage`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantsPageEntry {
    /// The tenant.
    pub name: String,
    /// Whether it has an entry in the runtime file.
    pub has_runtime_overrides: bool,
    /// Whether it has set limits itself.
    pub has_user_configurable_overrides: bool,
}

/// `/status/overrides/{tenant}`: which limits count for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantPage {
    /// The time of the answer, RFC 3339.
    pub now: String,
    /// The tenant.
    pub tenant: String,
    /// What it has set itself, as YAML.
    pub user_configurable_overrides: String,
    /// What would count without that, as YAML.
    pub runtime_overrides: String,
    /// Where that comes from: the tenant's name, `*` or `default overrides`.
    pub using_default_or_wildcard_runtime_overrides: String,
}

impl Overrides {
    /// The page of all tenants at time `now`.
    pub fn tenants_page(&self, now: String) -> TenantsPage {
        let runtime = self.tenants_with_entry();
        let user = self.tenants_with_user_overrides();
        let tenants = runtime
            .union(&user)
            .map(|name| TenantsPageEntry {
                name: name.clone(),
                has_runtime_overrides: runtime.contains(name),
                has_user_configurable_overrides: user.contains(name),
            })
            .collect();
        TenantsPage { now, tenants }
    }

    /// The page of one tenant at time `now`.
    pub fn tenant_page(&self, tenant: &str, now: String) -> TenantPage {
        let (runtime, source) = self.runtime_of(tenant);
        let source = match source {
            LimitsSource::Tenant => tenant,
            LimitsSource::Wildcard => "*",
            LimitsSource::Defaults => "default overrides",
        };
        let user = match self.user_overrides_of(tenant) {
            Some(user) => user.to_yaml(),
            None if self.user_store().is_some() => NONE_SET.to_owned(),
            None => NOT_ENABLED.to_owned(),
        };
        TenantPage {
            now,
            tenant: tenant.to_owned(),
            user_configurable_overrides: user,
            runtime_overrides: runtime.to_yaml(),
            using_default_or_wildcard_runtime_overrides: source.to_owned(),
        }
    }
}

impl TenantsPage {
    /// The page for a browser.
    pub fn to_html(&self) -> String {
        let yes_no = |flag| if flag { "yes" } else { "no" };
        let rows: String = self
            .tenants
            .iter()
            .map(|tenant| {
                let name = escape(&tenant.name);
                format!(
                    "<tr><td><a href=\"overrides/{name}\">{name}</a></td><td>{}</td><td>{}</td></tr>\n",
                    yes_no(tenant.has_runtime_overrides),
                    yes_no(tenant.has_user_configurable_overrides),
                )
            })
            .collect();
        page(
            "Overrides",
            &self.now,
            &format!(
                "<table>\n<tr><th>Tenant</th><th>Runtime overrides</th>\
                 <th>User-configurable overrides</th></tr>\n{rows}</table>\n"
            ),
        )
    }
}

impl TenantPage {
    /// The page for a browser.
    pub fn to_html(&self) -> String {
        page(
            &format!("Overrides of tenant {}", escape(&self.tenant)),
            &self.now,
            &format!(
                "<h2>User-configurable overrides</h2>\n<pre>{}</pre>\n\
                 <h2>Runtime overrides: {}</h2>\n<pre>{}</pre>\n",
                escape(&self.user_configurable_overrides),
                escape(&self.using_default_or_wildcard_runtime_overrides),
                escape(&self.runtime_overrides),
            ),
        )
    }
}

fn page(title: &str, now: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html>\n<head><meta charset=\"utf-8\"><title>{title}</title></head>\n\
         <body>\n<h1>{title}</h1>\n<p>Current time: {}</p>\n{body}</body>\n</html>\n",
        escape(now)
    )
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
