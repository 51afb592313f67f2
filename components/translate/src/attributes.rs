//! Attributes while they are put together.

use indexmap::IndexMap;
use tempo_proto::opentelemetry::proto::common::v1::{AnyValue, KeyValue, any_value::Value};

/// Attributes in the order in which their keys came first; of several values of a key the last
/// counts.
#[derive(Debug, Default)]
pub(crate) struct Attributes(IndexMap<String, Value>);

impl Attributes {
    pub(crate) fn put(&mut self, key: impl Into<String>, value: Value) {
        self.0.insert(key.into(), value);
    }

    pub(crate) fn put_text(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.put(key, Value::StringValue(text.into()));
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// The text of a key; `None` also where the value is something else.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::StringValue(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        self.0.shift_remove(key)
    }

    /// Takes a key whose value is to be a text; another value goes and is nothing.
    pub(crate) fn take_text(&mut self, key: &str) -> Option<String> {
        self.take(key).map(|value| match value {
            Value::StringValue(text) => text,
            _ => String::new(),
        })
    }

    pub(crate) fn into_key_values(self) -> Vec<KeyValue> {
        let pairs = self.0.into_iter();
        pairs
            .map(|(key, value)| KeyValue {
                key,
                value: Some(AnyValue { value: Some(value) }),
                ..KeyValue::default()
            })
            .collect()
    }
}
