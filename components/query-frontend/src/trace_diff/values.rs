//! Attribute values: as JSON, and whether two differ.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value as Json};
use tempo_proto::opentelemetry::proto::common::v1::{AnyValue, KeyValue, any_value::Value};

/// Durations that differ by less than this share of the larger one and one millisecond are taken
/// for equal: two runs of one operation never take the same time.
const DURATION_TOLERANCE: f64 = 0.20;
const DURATION_TOLERANCE_NANOS: f64 = 1_000_000.0;

/// The same for attributes that tell an amount.
const AMOUNT_TOLERANCE: f64 = 0.05;

/// Attributes of the semantic conventions, current and former, that tell an amount.
const AMOUNTS: [&str; 24] = [
    "app.jank.period",
    "file.size",
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.completion_tokens",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.prompt_tokens",
    "gen_ai.usage.reasoning.output_tokens",
    "http.request.body.size",
    "http.request.size",
    "http.request_content_length",
    "http.request_content_length_uncompressed",
    "http.response.body.size",
    "http.response.size",
    "http.response_content_length",
    "http.response_content_length_uncompressed",
    "message.compressed_size",
    "message.uncompressed_size",
    "messaging.message.body.size",
    "messaging.message.envelope.size",
    "rpc.message.compressed_size",
    "rpc.message.uncompressed_size",
];

/// Attributes by key; of several with one key the last counts.
pub(super) fn by_key(attributes: &[KeyValue]) -> BTreeMap<&str, Option<&Value>> {
    attributes
        .iter()
        .map(|entry| (entry.key.as_str(), value_of(entry.value.as_ref())))
        .collect()
}

fn value_of(value: Option<&AnyValue>) -> Option<&Value> {
    value?.value.as_ref()
}

/// A value as documents show it: bytes in base64, numbers that JSON lacks as texts.
pub(super) fn json(value: Option<&Value>) -> Json {
    match value {
        // An index into a table that traces do not have.
        None | Some(Value::StringValueStrindex(_)) => Json::Null,
        Some(Value::StringValue(text)) => Json::from(text.as_str()),
        Some(Value::BoolValue(truth)) => Json::from(*truth),
        Some(Value::IntValue(number)) => Json::from(*number),
        Some(Value::DoubleValue(number)) if number.is_nan() => Json::from("NaN"),
        Some(Value::DoubleValue(number)) if number.is_infinite() => {
            Json::from(if *number > 0.0 { "+Inf" } else { "-Inf" })
        }
        Some(Value::DoubleValue(number)) => Json::from(*number),
        Some(Value::ArrayValue(array)) => {
            let items = array.values.iter();
            Json::Array(items.map(|item| json(item.value.as_ref())).collect())
        }
        Some(Value::KvlistValue(list)) => {
            let entries = by_key(&list.values).into_iter();
            let entries = entries.map(|(key, value)| (key.to_owned(), json(value)));
            Json::Object(entries.collect::<Map<_, _>>())
        }
        Some(Value::BytesValue(bytes)) => Json::from(STANDARD.encode(bytes)),
    }
}

/// Whether two values of an attribute differ.
pub(super) fn differ(key: &str, before: Option<&Value>, after: Option<&Value>) -> bool {
    if AMOUNTS.binary_search(&key).is_ok()
        && let (Some(before), Some(after)) = (number(before), number(after))
    {
        return !close(before, after, AMOUNT_TOLERANCE, 0.0);
    }
    !equal(before, after)
}

/// Whether two durations in nanoseconds differ.
pub(super) fn durations_differ(before: Option<i64>, after: Option<i64>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => !close(
            before as f64,
            after as f64,
            DURATION_TOLERANCE,
            DURATION_TOLERANCE_NANOS,
        ),
        _ => before != after,
    }
}

fn close(a: f64, b: f64, share: f64, floor: f64) -> bool {
    if !a.is_finite() || !b.is_finite() {
        return a == b || (a.is_nan() && b.is_nan());
    }
    (a - b).abs() <= floor + share * a.abs().max(b.abs())
}

fn number(value: Option<&Value>) -> Option<f64> {
    match value? {
        Value::IntValue(number) => Some(*number as f64),
        Value::DoubleValue(number) => Some(*number),
        _ => None,
    }
}

/// Not a number equals itself here: it did not change.
fn equal(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (Some(Value::IntValue(a)), Some(Value::IntValue(b))) => a == b,
        (Some(Value::ArrayValue(a)), Some(Value::ArrayValue(b))) => {
            a.values.len() == b.values.len()
                && a.values
                    .iter()
                    .zip(&b.values)
                    .all(|(a, b)| equal(a.value.as_ref(), b.value.as_ref()))
        }
        (Some(Value::KvlistValue(a)), Some(Value::KvlistValue(b))) => {
            let (a, b) = (by_key(&a.values), by_key(&b.values));
            a.len() == b.len()
                && a.into_iter()
                    .all(|(key, a)| b.get(key).is_some_and(|&b| equal(a, b)))
        }
        _ => match (number(a), number(b)) {
            (Some(a), Some(b)) => a == b || (a.is_nan() && b.is_nan()),
            _ => a == b,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_amounts_are_sorted() {
        assert!(AMOUNTS.is_sorted());
    }

    #[test]
    fn values_are_equal_as_numbers_and_deeply() {
        let int = Value::IntValue;
        let double = Value::DoubleValue;
        let changed = |a: Value, b: Value| differ("a", Some(&a), Some(&b));
        assert!(!changed(int(1), double(1.0)));
        assert!(changed(int(i64::MAX), int(i64::MAX - 1)), "not as doubles");
        assert!(!changed(double(f64::NAN), double(f64::NAN)));
        assert!(changed(int(1), Value::StringValue("1".into())));
        assert!(differ("a", None, Some(&int(0))));
        assert!(!differ("file.size", Some(&int(100)), Some(&int(105))));
        assert!(differ("file.size", Some(&int(100)), Some(&int(106))));
        assert!(differ("other.size", Some(&int(100)), Some(&int(101))));
    }

    #[test]
    fn durations_have_a_share_and_a_floor() {
        assert!(!durations_differ(Some(1), Some(1_000_000)));
        assert!(!durations_differ(Some(80_000_000), Some(100_000_000)));
        assert!(durations_differ(Some(70_000_000), Some(100_000_000)));
        assert!(durations_differ(None, Some(1)));
        assert!(!durations_differ(None, None));
    }

    #[test]
    fn json_shows_every_value() {
        assert_eq!(json(Some(&Value::DoubleValue(f64::NEG_INFINITY))), "-Inf");
        assert_eq!(json(Some(&Value::BytesValue(vec![1, 2]))), "AQI=");
        assert_eq!(json(None), Json::Null);
    }
}
