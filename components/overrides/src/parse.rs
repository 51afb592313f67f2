//! From YAML to limits: the scoped format, the flat one of Tempo 2, and what surrounds them.
//!
//! Owns the `overrides` block of the configuration and the runtime file. Must never read a file.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::de::DeserializeOwned;
use serde_yaml::{Mapping, Value};

use crate::{Error, Limits, PrometheusDuration, legacy};

/// The `overrides` block of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct OverridesBlock {
    /// `defaults`: what holds for tenants without an entry.
    pub defaults: Limits,
    /// `per_tenant_override_config`: path of the runtime file; empty: there is none.
    pub per_tenant_override_config: String,
    /// `per_tenant_override_period`: time between two looks at the file.
    pub per_tenant_override_period: Duration,
    /// `enable_legacy_overrides`: whether the flat format of Tempo 2 is accepted.
    pub enable_legacy_overrides: bool,
}

/// `per_tenant_override_period` when it is not set.
const DEFAULT_PERIOD: Duration = Duration::from_secs(10);

impl Default for OverridesBlock {
    fn default() -> Self {
        Self {
            defaults: Limits::tempo_defaults(),
            per_tenant_override_config: String::new(),
            per_tenant_override_period: DEFAULT_PERIOD,
            enable_legacy_overrides: false,
        }
    }
}

/// Keys of the block beside the limits.
const BLOCK_KEYS: [&str; 5] = [
    "defaults",
    "per_tenant_override_config",
    "per_tenant_override_period",
    "enable_legacy_overrides",
    "user_configurable_overrides",
];

impl OverridesBlock {
    /// Reads the value of the key `overrides` of the configuration. `allow_legacy` is the flag
    /// `-config.enable-legacy-overrides`, which the key `enable_legacy_overrides` also sets.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the path of the key.
    pub fn from_yaml(block: Value, allow_legacy: bool) -> Result<Self, Error> {
        let Prepared::Mapping(mut block) = prepare("overrides", block)? else {
            return Ok(Self {
                enable_legacy_overrides: allow_legacy,
                ..Self::default()
            });
        };
        let mut parsed = Self::default();
        if let Some(value) = block.remove("enable_legacy_overrides") {
            parsed.enable_legacy_overrides = decode("overrides.enable_legacy_overrides", value)?;
        }
        parsed.enable_legacy_overrides |= allow_legacy;
        if let Some(value) = block.remove("per_tenant_override_config") {
            parsed.per_tenant_override_config =
                decode("overrides.per_tenant_override_config", value)?;
        }
        if let Some(value) = block.remove("per_tenant_override_period") {
            let path = "overrides.per_tenant_override_period";
            let period: PrometheusDuration = decode(path, value)?;
            if period.0.is_zero() {
                return Err(Error::invalid(path, "it must be longer than 0"));
            }
            parsed.per_tenant_override_period = period.0;
        }
        if let Some(value) = block.remove("user_configurable_overrides") {
            check_user_configurable(&value)?;
        }
        let defaults = block.remove("defaults");
        let flat = block;
        parsed.defaults = match defaults {
            Some(defaults) => {
                if let Some(key) = flat.keys().next() {
                    return Err(unknown_block_key(key));
                }
                limits_over("overrides.defaults", Limits::tempo_defaults(), defaults)?
            }
            None if flat.is_empty() => Limits::tempo_defaults(),
            None if legacy::is_legacy(&flat) => {
                legacy::check_allowed("overrides", parsed.enable_legacy_overrides)?;
                let scoped = legacy::to_scoped("overrides", flat)?;
                limits_over(
                    "overrides",
                    Limits::tempo_defaults(),
                    Value::Mapping(scoped),
                )?
            }
            None => {
                return Err(flat.keys().next().map_or_else(
                    || Error::invalid("overrides", "it is empty"),
                    unknown_block_key,
                ));
            }
        };
        Ok(parsed)
    }
}

/// Limits that users set themselves are not built; a section that does not enable them is fine.
fn check_user_configurable(section: &Value) -> Result<(), Error> {
    let path = "overrides.user_configurable_overrides";
    if !section.is_mapping() {
        return Err(Error::invalid(
            path,
            "it must be a mapping of keys to values",
        ));
    }
    let enabled = match section.get("enabled") {
        Some(enabled) => decode::<bool>(&format!("{path}.enabled"), enabled.clone())?,
        None => false,
    };
    if enabled {
        return Err(Error::invalid(
            format!("{path}.enabled"),
            "overrides that users set themselves are not supported; set limits in \
             per_tenant_override_config",
        ));
    }
    Ok(())
}

fn unknown_block_key(key: &Value) -> Error {
    let key = key_text(key);
    let known = BLOCK_KEYS.join(", ");
    let remedy = if legacy::SCOPES.contains(&key.as_str()) {
        format!("put it under overrides.defaults; the block itself has {known}")
    } else {
        format!("unknown key, known are {known}")
    };
    Error::invalid(format!("overrides.{key}"), remedy)
}

/// Limits by tenant, as the runtime file has them; `*` is every tenant without an entry.
pub(crate) type TenantLimitsTable = BTreeMap<String, Arc<Limits>>;

/// Reads the runtime file: `overrides:` with an entry per tenant. An entry without content is
/// none. Each entry is checked.
///
/// # Errors
/// [`Error::Invalid`] with the path of the key.
pub(crate) fn runtime_file(text: &str, allow_legacy: bool) -> Result<TenantLimitsTable, Error> {
    let document: Value = serde_yaml::from_str(text)
        .map_err(|error| Error::invalid("overrides", format!("it is not YAML: {error}")))?;
    let Prepared::Mapping(mut document) = prepare("", document)? else {
        return Ok(TenantLimitsTable::new());
    };
    let tenants = document.remove("overrides");
    if let Some(key) = document.keys().next() {
        return Err(Error::invalid(
            key_text(key),
            "unknown key; the file has one, 'overrides', with an entry per tenant",
        ));
    }
    let tenants = match tenants {
        None => return Ok(TenantLimitsTable::new()),
        Some(Value::Mapping(tenants)) => tenants,
        Some(_) => {
            return Err(Error::invalid(
                "overrides",
                "it must have an entry per tenant",
            ));
        }
    };
    let mut table = TenantLimitsTable::new();
    for (tenant, entry) in tenants {
        let tenant = key_text(&tenant);
        let path = format!("overrides.{tenant}");
        let entry = match entry {
            Value::Mapping(entry) if legacy::is_legacy(&entry) => {
                legacy::check_allowed(&path, allow_legacy)?;
                Value::Mapping(legacy::to_scoped(&path, entry)?)
            }
            entry => entry,
        };
        let limits: Limits = decode(&path, entry)?;
        limits
            .validate()
            .map_err(|error| Error::invalid(format!("{path}.{}", error.path), error.problem))?;
        table.insert(tenant, Arc::new(limits));
    }
    Ok(table)
}

/// The file as it would be written for these limits.
pub(crate) fn render_table(table: &TenantLimitsTable) -> String {
    let entries: BTreeMap<&str, &Limits> = table
        .iter()
        .map(|(tenant, limits)| (tenant.as_str(), &**limits))
        .collect();
    let document = BTreeMap::from([("overrides", entries)]);
    serde_yaml::to_string(&document).unwrap_or_default()
}

enum Prepared {
    Nothing,
    Mapping(Mapping),
}

/// Resolves merge keys and drops keys without a value, which mean the same as no key.
fn prepare(path: &str, mut value: Value) -> Result<Prepared, Error> {
    value
        .apply_merge()
        .map_err(|error| Error::invalid(path, error.to_string()))?;
    drop_nulls(&mut value);
    match value {
        Value::Null => Ok(Prepared::Nothing),
        Value::Mapping(mapping) => Ok(Prepared::Mapping(mapping)),
        _ => Err(Error::invalid(
            path,
            "it must be a mapping of keys to values",
        )),
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Mapping(mapping) => {
            mapping.retain(|_, value| {
                drop_nulls(value);
                !value.is_null()
            });
        }
        Value::Sequence(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// The limits that `written` makes of `base`: keys that are written replace, key by key.
fn limits_over(path: &str, base: Limits, written: Value) -> Result<Limits, Error> {
    // Decoded alone first: only so are the paths of errors those that were written.
    decode::<Limits>(path, written.clone())?;
    let mut merged =
        serde_yaml::to_value(&base).map_err(|error| Error::invalid(path, error.to_string()))?;
    merge(&mut merged, written);
    decode(path, merged)
}

fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Mapping(base), Value::Mapping(over)) => {
            for (key, value) in over {
                match base.get_mut(&key) {
                    Some(existing) => merge(existing, value),
                    None => {
                        base.insert(key, value);
                    }
                }
            }
        }
        (base, over) => *base = over,
    }
}

fn decode<T: DeserializeOwned>(path: &str, value: Value) -> Result<T, Error> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let inner = error.path().to_string();
        let path = match inner.as_str() {
            "." => path.to_owned(),
            inner => format!("{path}.{inner}"),
        };
        Error::invalid(path, error.into_inner().to_string())
    })
}

/// Keys may be numbers, as a tenant called 1.
fn key_text(key: &Value) -> String {
    match key {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        other => serde_yaml::to_string(other)
            .unwrap_or_default()
            .trim()
            .to_owned(),
    }
}

#[cfg(test)]
mod tests;
