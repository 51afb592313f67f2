//! The runtime file (`overrides.per_tenant_override_config`): entries of tenants, read and shown.

use std::collections::BTreeMap;

use crate::blocks::legacy_overrides::to_scoped;
use crate::blocks::overrides::TenantOverrides;
use crate::document::{self, Content, Entry, Mark, Node};
use crate::error::{Error, Issue};
use crate::render::Rendered;
use crate::value::{Decoder, Status, Value};

/// What is wrong with the values of an entry: the path of the key below the tenant, and why.
pub type Problem = (String, String);

/// The entries of a runtime file by tenant; `*` is for tenants without an entry of their own, and
/// a tenant without settings has none.
///
/// What an entry does not set is zero: it replaces `overrides.defaults` as a whole.
///
/// # Errors
/// [`Error::Issues`] with the place and path of each key.
pub fn parse_runtime_overrides(
    text: &str,
    allow_legacy: bool,
) -> Result<BTreeMap<String, TenantOverrides>, Error> {
    parse_runtime_overrides_with(text, allow_legacy, &|_| Vec::new())
}

/// [`parse_runtime_overrides`], with a check of each entry whose problems are told with their
/// places.
///
/// # Errors
/// [`Error::Issues`] with the place and path of each key.
pub fn parse_runtime_overrides_with(
    text: &str,
    allow_legacy: bool,
    check: &dyn Fn(&TenantOverrides) -> Vec<Problem>,
) -> Result<BTreeMap<String, TenantOverrides>, Error> {
    let root = document::parse(text).map_err(|issue| Error::Issues(vec![issue]))?;
    let mut issues = Vec::new();
    let mut tenants = BTreeMap::new();
    let entries = match root.content {
        Content::Map(entries) => entries,
        Content::Null => Vec::new(),
        other => {
            let message = format!("expected a map of settings, found {}", other.kind());
            return Err(Error::Issues(vec![Issue::at(root.mark, message)]));
        }
    };
    for entry in entries {
        if entry.key != "overrides" {
            let message = "unknown key; known here: overrides".to_owned();
            issues.push(Issue::of_key(entry.key, entry.mark, message));
            continue;
        }
        match entry.value.content {
            Content::Null => {}
            Content::Map(by_tenant) => {
                for tenant in by_tenant {
                    let name = tenant.key.clone();
                    if let Some(overrides) = tenant_entry(tenant, allow_legacy, check, &mut issues)
                    {
                        tenants.insert(name, overrides);
                    }
                }
            }
            other => {
                let message = format!("expected a map of tenants, found {}", other.kind());
                issues.push(Issue::of_key(
                    "overrides".to_owned(),
                    entry.value.mark,
                    message,
                ));
            }
        }
    }
    if issues.is_empty() {
        Ok(tenants)
    } else {
        Err(Error::Issues(issues))
    }
}

fn tenant_entry(
    entry: Entry,
    allow_legacy: bool,
    check: &dyn Fn(&TenantOverrides) -> Vec<Problem>,
    issues: &mut Vec<Issue>,
) -> Option<TenantOverrides> {
    let mut node = entry.value;
    match &mut node.content {
        Content::Null => return None,
        Content::Map(settings) => {
            let (scoped, legacy) = to_scoped(std::mem::take(settings), None);
            *settings = scoped;
            if !allow_legacy {
                issues.extend(legacy.iter().map(|key| {
                    Issue::of_key(
                        format!("overrides.{}.{}", entry.key, key.key),
                        key.mark,
                        format!(
                            "the flat form of Tempo 1; write {}, or set overrides.enable_legacy_overrides for the time being",
                            key.scoped
                        ),
                    )
                }));
            }
        }
        _ => {}
    }
    let mut decoder = Decoder::new(None);
    let mut overrides = TenantOverrides::default();
    decoder.within("overrides", Status::Used, |decoder| {
        decoder.within(&entry.key, Status::Used, |decoder| {
            overrides.merge(&node, decoder);
        });
    });
    // What is not understood makes no sense to check.
    if decoder.issues.is_empty() {
        issues.extend(check(&overrides).into_iter().map(|(path, problem)| {
            let mark = place(&node, &path);
            Issue::of_key(format!("overrides.{}.{path}", entry.key), mark, problem)
        }));
    }
    issues.append(&mut decoder.issues);
    Some(overrides)
}

/// Where the value of a path stands, or what of it there is.
fn place(node: &Node, path: &str) -> Mark {
    let (key, rest) = path.split_once('.').unwrap_or((path, ""));
    let below = match &node.content {
        Content::Map(entries) => entries.iter().find(|entry| entry.key == key),
        _ => None,
    };
    match below {
        Some(entry) if rest.is_empty() => entry.value.mark,
        Some(entry) => place(&entry.value, rest),
        None => node.mark,
    }
}

/// A runtime file with these entries; what is zero is left out, secrets are masked.
pub fn render_runtime_overrides<'a>(
    tenants: impl IntoIterator<Item = (&'a str, &'a TenantOverrides)>,
) -> String {
    let entries = tenants
        .into_iter()
        .map(|(tenant, overrides)| (tenant.to_owned(), written(overrides)))
        .collect();
    Rendered::Map(vec![("overrides".to_owned(), Rendered::Map(entries))]).to_yaml()
}

impl TenantOverrides {
    /// The entry as YAML; what is zero is left out, secrets are masked.
    pub fn to_yaml(&self) -> String {
        written(self).to_yaml()
    }
}

fn written(overrides: &TenantOverrides) -> Rendered {
    overrides
        .render()
        .difference(&TenantOverrides::default().render())
        .unwrap_or(Rendered::Map(Vec::new()))
}
