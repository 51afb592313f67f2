//! Types that Kubernetes has words for: durations, references, and objects passed on as they are.

use std::{borrow::Cow, fmt, time};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A span of time as Go writes it: `30s`, `5m`, `336h`, `1h30m`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Duration(pub String);

const UNITS_IN_NANOS: &[(&str, u128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl Duration {
    /// The span, or `None` for text that the schema refuses.
    pub fn get(&self) -> Option<time::Duration> {
        let mut rest = self.0.as_str();
        let mut nanos: u128 = 0;
        if rest == "0" {
            return Some(time::Duration::ZERO);
        }
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            let count: u128 = rest.get(..digits)?.parse().ok()?;
            rest = rest.get(digits..)?;
            let unit = rest
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(rest.len());
            let name = rest.get(..unit)?;
            let (_, scale) = UNITS_IN_NANOS.iter().find(|(known, _)| *known == name)?;
            nanos = nanos.checked_add(count.checked_mul(*scale)?)?;
            rest = rest.get(unit..)?;
        }
        u64::try_from(nanos).ok().map(time::Duration::from_nanos)
    }

    /// Whole seconds; what the schema refuses counts as none.
    pub fn seconds(&self) -> u64 {
        self.get().unwrap_or_default().as_secs()
    }
}

impl From<&str> for Duration {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(0|([0-9]{1,9}(ns|us|ms|s|m|h))+)$",
            "maxLength": 32,
        })
    }
}

/// An object of Kubernetes that is passed on as it is; its server checks it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Anything(pub Map<String, Value>);

impl Anything {
    /// Nothing is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// As a value.
    pub fn value(&self) -> Value {
        Value::Object(self.0.clone())
    }
}

impl JsonSchema for Anything {
    fn schema_name() -> Cow<'static, str> {
        "Anything".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
    }
}

/// A list of such objects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Items(pub Vec<Anything>);

impl Items {
    /// Nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// The objects.
    pub fn values(&self) -> impl Iterator<Item = Value> + '_ {
        self.0.iter().map(Anything::value)
    }
}

impl JsonSchema for Items {
    fn schema_name() -> Cow<'static, str> {
        "Items".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "array",
            "maxItems": 64,
            "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        })
    }
}

/// The name of an object in the namespace of the stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NameRef {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A key of a Secret in the namespace of the stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A key of a ConfigMap in the namespace of the stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKey {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, seconds) in [
            ("0", 0),
            ("30s", 30),
            ("1h30m", 5400),
            ("336h", 1_209_600),
            ("1500ms", 1),
        ] {
            assert_eq!(
                Duration::from(text).get().map(|d| d.as_secs()),
                Some(seconds),
                "{text}"
            );
        }
        for text in ["", "5", "5d", "s", "-5s", "5 s", "99999999999999999999h"] {
            assert_eq!(Duration::from(text).get(), None, "{text:?}");
        }
    }
}
