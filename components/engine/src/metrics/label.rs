//! What tells series apart.

use std::{cmp::Ordering, sync::Arc};

use tempo_table::ArrayValue;
use tempo_traceql::{Attribute, Intrinsic, duration::GoDuration, is_attribute_rune};

use crate::{pipeline::write_key, value::Value};

/// The function that made a series without any other label.
pub(crate) const NAME: &str = "__name__";
/// The upper end of a histogram's bucket.
pub(crate) const BUCKET: &str = "__bucket";
/// Which quantile a series is.
pub(crate) const QUANTILE: &str = "p";
/// What a series of `compare()` counts.
pub(crate) const META_TYPE: &str = "__meta_type";

/// A name and a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// An attribute as queries write it, or a name that begins with two underscores.
    pub name: Arc<str>,
    /// Of its own type.
    pub value: Value,
}

impl Label {
    pub(crate) fn new(name: impl Into<Arc<str>>, value: Value) -> Self {
        Self {
            name: name.into(),
            value,
        }
    }

    pub(crate) fn text(name: &str, value: &str) -> Self {
        Self::new(name, Value::String(Arc::from(value)))
    }
}

/// The name under which the values of an attribute are shown: its canonical text, but with quotes
/// only where Tempo sets them.
pub(crate) fn label_name(attribute: &Attribute) -> Arc<str> {
    match attribute {
        Attribute::Intrinsic(intrinsic) => intrinsic.name().into(),
        Attribute::Named {
            parent: false,
            scope,
            name,
        } if name.chars().all(is_attribute_rune) => {
            format!("{}.{name}", scope.map_or("", |scope| scope.name())).into()
        }
        attribute => attribute.to_string().into(),
    }
}

/// Whether `compare()` leaves out an intrinsic that the query has loaded.
pub(crate) fn is_never_compared(intrinsic: Intrinsic) -> bool {
    matches!(
        intrinsic,
        Intrinsic::TraceId
            | Intrinsic::ParentId
            | Intrinsic::NestedSetLeft
            | Intrinsic::NestedSetRight
            | Intrinsic::NestedSetParent
            | Intrinsic::Duration
            | Intrinsic::TraceDuration
            | Intrinsic::EventTimeSinceStart
    )
}

/// Labels as bytes: equal for equal series, whose `__name__` does not count.
pub(crate) fn series_key(labels: &[Label]) -> Vec<u8> {
    let mut key = Vec::new();
    for label in labels.iter().filter(|label| &*label.name != NAME) {
        write_sized(&mut key, |key| key.extend_from_slice(label.name.as_bytes()));
        write_sized(&mut key, |key| write_key(key, label.value.borrowed()));
    }
    key
}

/// Appends something and, in front of it, its length.
fn write_sized(key: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = key.len();
    key.extend_from_slice(&[0; 4]);
    write(key);
    let len = (key.len() - start - 4) as u32;
    key[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

/// What series of an answer are ordered by: few labels first, then the names and texts of the
/// labels, each text behind the name of its type.
pub(crate) fn answer_key(labels: &[Label]) -> (usize, Vec<(Arc<str>, String)>) {
    let texts = labels
        .iter()
        .map(|label| (Arc::clone(&label.name), answer_text(&label.value)));
    (labels.len(), texts.collect())
}

fn answer_text(value: &Value) -> String {
    match value {
        Value::Array(array) => format!("array {array:?}"),
        Value::Bool(value) => format!("bool {value}"),
        Value::Float(value) => format!("double {value}"),
        Value::Int(value) => format!("int {value}"),
        Value::String(text) => format!("string {text}"),
        Value::Nil => "string nil".to_owned(),
        Value::Duration(nanos) => format!("string {}", GoDuration { nanos: *nanos }),
        Value::Status(status) => format!("string {}", status.name()),
        Value::Kind(kind) => format!("string {}", kind.name()),
    }
}

/// The order of values: by type, then as their type orders them.
pub(crate) fn value_order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) | (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        (Value::Float(a), Value::Float(b)) => a.total_cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Status(a), Value::Status(b)) => a.name().cmp(b.name()),
        (Value::Kind(a), Value::Kind(b)) => a.name().cmp(b.name()),
        (Value::Array(a), Value::Array(b)) => array_order(a, b),
        (a, b) => type_rank(a).cmp(&type_rank(b)),
    }
}

fn array_order(a: &ArrayValue, b: &ArrayValue) -> Ordering {
    match (a, b) {
        (ArrayValue::Strings(a), ArrayValue::Strings(b)) => a.cmp(b),
        (ArrayValue::Ints(a), ArrayValue::Ints(b)) => a.cmp(b),
        (ArrayValue::Bools(a), ArrayValue::Bools(b)) => a.cmp(b),
        (ArrayValue::Floats(a), ArrayValue::Floats(b)) => a
            .iter()
            .zip(b)
            .map(|(a, b)| a.total_cmp(b))
            .find(|order| order.is_ne())
            .unwrap_or_else(|| a.len().cmp(&b.len())),
        (a, b) => array_rank(a).cmp(&array_rank(b)),
    }
}

fn array_rank(array: &ArrayValue) -> u8 {
    match array {
        ArrayValue::Empty => 0,
        ArrayValue::Bools(_) => 1,
        ArrayValue::Floats(_) => 2,
        ArrayValue::Ints(_) => 3,
        ArrayValue::Strings(_) => 4,
    }
}

fn type_rank(value: &Value) -> u8 {
    match value {
        Value::Array(_) => 0,
        Value::Bool(_) => 1,
        Value::Float(_) => 2,
        Value::Int(_) => 3,
        Value::String(_) => 4,
        Value::Nil => 5,
        Value::Duration(_) => 6,
        Value::Status(_) => 7,
        Value::Kind(_) => 8,
    }
}

/// Which of two series goes first when their values are equal: Tempo's rule, which orders texts
/// by the alphabet but all other values from the highest down.
pub(crate) fn tie_order(a: &[Label], b: &[Label]) -> Ordering {
    let of_pair = |(a, b): (&Label, &Label)| {
        let by_value = match (&a.value, &b.value) {
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (a, b) => tie_rank(b).cmp(&tie_rank(a)),
        };
        by_value.then_with(|| a.name.cmp(&b.name))
    };
    a.iter()
        .zip(b)
        .map(of_pair)
        .find(|order| order.is_ne())
        .unwrap_or_else(|| a.len().cmp(&b.len()))
}

/// The number of the type in Tempo, and the value as 64 bits.
fn tie_rank(value: &Value) -> (u8, i64) {
    match value {
        Value::Nil => (2, 0),
        Value::Int(value) => (3, *value),
        Value::Float(value) => (4, value.to_bits() as i64),
        Value::String(_) => (5, 0),
        Value::Bool(value) => (6, i64::from(*value)),
        Value::Array(array) => (7 + array_rank(array), 0),
        Value::Duration(nanos) => (12, *nanos),
        Value::Status(status) => (13, *status as i64),
        Value::Kind(kind) => (14, *kind as i64),
    }
}

#[cfg(test)]
mod tests {
    use tempo_traceql::{Scope, parse_identifier};

    use super::*;

    #[test]
    fn attributes_are_named_as_in_recorded_answers() {
        for (scope, name, want) in [
            (Some(Scope::Span), "a\"b", "span.a\"b"),
            (
                Some(Scope::Span),
                "key with space",
                "span.\"key with space\"",
            ),
            (
                Some(Scope::Resource),
                "k8s.pod.name",
                "resource.k8s.pod.name",
            ),
            (None, "foo", ".foo"),
            (None, "1", ".1"),
        ] {
            let attribute = Attribute::Named {
                parent: false,
                scope,
                name: name.into(),
            };
            assert_eq!(&*label_name(&attribute), want);
        }
        let of = |text: &str| label_name(&parse_identifier(text).unwrap());
        assert_eq!(&*of("span:name"), "name");
        assert_eq!(&*of("span:childCount"), "span:childCount");
    }

    #[test]
    fn keys_differ_for_different_labels_only() {
        let label = |name: &str, value| Label::new(name, value);
        let a = [Label::text("a", "x"), Label::text("b", "y")];
        assert_ne!(series_key(&a), series_key(&[Label::text("a", "x")]));
        assert_ne!(
            series_key(&[label("a", Value::Int(1))]),
            series_key(&[label("a", Value::Float(1.0))])
        );
        assert_ne!(
            series_key(&[Label::text("a", "1")]),
            series_key(&[label("a", Value::Int(1))])
        );
        assert_eq!(
            series_key(&[Label::text(NAME, "rate"), Label::text("a", "x")]),
            series_key(&[Label::text("a", "x")])
        );
        assert_eq!(series_key(&[Label::text(NAME, "rate")]), [0_u8; 0]);
    }
}
