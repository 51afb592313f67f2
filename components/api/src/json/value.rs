//! Attributes, from the wire and from messages.

use tempo_model::otlp::{AnyValueRef, Fields, KeyValueRef, MAX_VALUE_NESTING_DEPTH, WireError};
use tempo_proto::opentelemetry::proto::common::v1::{AnyValue, KeyValue, any_value::Value};

use super::writer::{Object, Separator, base64, double, list, quoted_integer, text};

/// Appends an attribute.
pub(super) fn wire_key_value(
    out: &mut Vec<u8>,
    attribute: &KeyValueRef<'_>,
    depth: usize,
) -> Result<(), WireError> {
    let mut object = Object::open(out);
    object.text("key", attribute.key);
    wire_value(object.member("value"), attribute.value, depth)?;
    object.close();
    Ok(())
}

fn wire_value(out: &mut Vec<u8>, value: AnyValueRef<'_>, depth: usize) -> Result<(), WireError> {
    if depth >= MAX_VALUE_NESTING_DEPTH {
        return Err(WireError::TooDeep);
    }
    let mut object = Object::open(out);
    match value {
        AnyValueRef::Empty => {}
        AnyValueRef::String(value) => text(object.member("stringValue"), value),
        AnyValueRef::Bool(value) => boolean(object.member("boolValue"), value),
        AnyValueRef::Int(value) => quoted_integer(object.member("intValue"), value),
        AnyValueRef::Double(value) => double(object.member("doubleValue"), value),
        AnyValueRef::Bytes(value) => base64(object.member("bytesValue"), value),
        AnyValueRef::Array(array) => {
            wire_values(object.member("arrayValue"), array.iter(), |out, value| {
                wire_value(out, value, depth + 1)
            })?
        }
        AnyValueRef::KvList(message) => wire_values(
            object.member("kvlistValue"),
            key_values(message),
            |out, pair| wire_key_value(out, &pair, depth + 1),
        )?,
    }
    object.close();
    Ok(())
}

/// The pairs of a `KeyValueList` message.
pub(super) fn key_values(
    message: &[u8],
) -> impl Iterator<Item = Result<KeyValueRef<'_>, WireError>> {
    Fields::new(message).filter_map(|field| match field {
        Ok(field) if field.number == 1 => Some(field.message().and_then(KeyValueRef::parse)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })
}

/// Appends `{"values":[…]}`, or `{}` when there is none.
fn wire_values<T>(
    out: &mut Vec<u8>,
    values: impl Iterator<Item = Result<T, WireError>>,
    mut write: impl FnMut(&mut Vec<u8>, T) -> Result<(), WireError>,
) -> Result<(), WireError> {
    out.push(b'{');
    let mut separator = Separator::new();
    let mut any = false;
    for value in values {
        if !std::mem::replace(&mut any, true) {
            out.extend_from_slice(b"\"values\":[");
        }
        separator.next(out);
        write(out, value?)?;
    }
    out.extend_from_slice(if any { b"]}" } else { b"}" });
    Ok(())
}

pub(super) fn boolean(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// Appends an attribute of a message. The depth is bounded by what built the message.
pub(super) fn key_value(out: &mut Vec<u8>, attribute: &KeyValue) {
    let mut object = Object::open(out);
    object.text("key", attribute.key.as_bytes());
    if let Some(value) = &attribute.value {
        any_value(object.member("value"), value);
    }
    object.close();
}

fn any_value(out: &mut Vec<u8>, value: &AnyValue) {
    let mut object = Object::open(out);
    match &value.value {
        None => {}
        Some(Value::StringValue(value)) => text(object.member("stringValue"), value.as_bytes()),
        Some(Value::BoolValue(value)) => boolean(object.member("boolValue"), *value),
        Some(Value::IntValue(value)) => quoted_integer(object.member("intValue"), *value),
        Some(Value::DoubleValue(value)) => double(object.member("doubleValue"), *value),
        Some(Value::BytesValue(value)) => base64(object.member("bytesValue"), value),
        Some(Value::ArrayValue(array)) => {
            let mut inner = Object::open(object.member("arrayValue"));
            if !array.values.is_empty() {
                list(inner.member("values"), &array.values, any_value);
            }
            inner.close();
        }
        Some(Value::KvlistValue(pairs)) => {
            let mut inner = Object::open(object.member("kvlistValue"));
            if !pairs.values.is_empty() {
                list(inner.member("values"), &pairs.values, key_value);
            }
            inner.close();
        }
        // Belongs to profiles; traces have no table to look it up in.
        Some(Value::StringValueStrindex(_)) => {}
    }
    object.close();
}
