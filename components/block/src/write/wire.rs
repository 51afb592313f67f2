//! Short cuts over the wire for the shapes that senders nearly always use.

use tempo_model::otlp::{AnyValueRef, KeyValueRef, WireError};

/// Tags of the fields of `KeyValue` and `AnyValue`.
mod tag {
    pub(super) const KEY: u8 = 1 << 3 | 2;
    pub(super) const VALUE: u8 = 2 << 3 | 2;
    pub(super) const STRING: u8 = 1 << 3 | 2;
    pub(super) const BOOL: u8 = 2 << 3;
    pub(super) const INT: u8 = 3 << 3;
    pub(super) const DOUBLE: u8 = 4 << 3 | 1;
}

/// Reads a `KeyValue` message: quickly when it is a key and a scalar in canonical form, else as
/// [`KeyValueRef::parse`] does.
#[inline]
pub(super) fn key_value(message: &[u8]) -> Result<KeyValueRef<'_>, WireError> {
    match canonical(message) {
        Some(attribute) => Ok(attribute),
        None => KeyValueRef::parse(message),
    }
}

#[inline]
fn canonical(message: &[u8]) -> Option<KeyValueRef<'_>> {
    let (key, rest) = field(tag::KEY, message)?;
    let (value, rest) = field(tag::VALUE, rest)?;
    if !rest.is_empty() {
        return None;
    }
    let value = match *value.first()? {
        tag::STRING => {
            let (text, rest) = field(tag::STRING, value)?;
            if !rest.is_empty() {
                return None;
            }
            AnyValueRef::String(text)
        }
        tag::INT => AnyValueRef::Int(last_varint(&value[1..])? as i64),
        tag::BOOL if value.len() == 2 && value[1] < 0x80 => AnyValueRef::Bool(value[1] != 0),
        tag::DOUBLE => {
            let bits = value[1..].try_into().ok().map(u64::from_le_bytes)?;
            AnyValueRef::Double(f64::from_bits(bits))
        }
        _ => return None,
    };
    Some(KeyValueRef { key, value })
}

/// The payload of a length-delimited field at the beginning of `message`, and what follows. Only
/// lengths of one or two bytes.
#[inline]
fn field(tag: u8, message: &[u8]) -> Option<(&[u8], &[u8])> {
    match *message {
        [found, length, ref rest @ ..] if found == tag && length < 0x80 => {
            rest.split_at_checked(usize::from(length))
        }
        [found, low, high, ref rest @ ..] if found == tag && high < 0x80 => {
            rest.split_at_checked(usize::from(low & 0x7f) | usize::from(high) << 7)
        }
        _ => None,
    }
}

/// A varint that takes all of `bytes`; at most nine of them.
#[inline]
fn last_varint(bytes: &[u8]) -> Option<u64> {
    let (last, head) = bytes.split_last()?;
    if *last >= 0x80 || head.len() > 8 || head.iter().any(|&byte| byte < 0x80) {
        return None;
    }
    let value = head
        .iter()
        .rev()
        .fold(u64::from(*last), |value, byte| value << 7 | u64::from(byte & 0x7f));
    Some(value)
}

/// Equality of short byte strings without a call.
#[inline]
pub(super) fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let word = |bytes: &[u8], at: usize| -> Option<u64> {
        let bytes = bytes.get(at..at + 8)?;
        bytes.try_into().ok().map(u64::from_ne_bytes)
    };
    let length = one.len();
    match length {
        0 => true,
        1..8 => one.iter().zip(other).all(|(one, other)| one == other),
        // The last word may overlap the one before.
        8..=32 => (0..length / 8)
            .map(|index| index * 8)
            .chain([length - 8])
            .all(|at| word(one, at) == word(other, at)),
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use tempo_proto::opentelemetry::proto::common::v1::{AnyValue, KeyValue, any_value::Value};

    use super::*;

    #[test]
    fn the_short_cut_reads_what_the_long_way_reads() {
        let long = "x".repeat(20_000);
        let values = [
            Value::StringValue(String::new()),
            Value::StringValue("y".repeat(127)),
            Value::StringValue("y".repeat(128)),
            Value::StringValue(long),
            Value::BoolValue(true),
            Value::BoolValue(false),
            Value::IntValue(0),
            Value::IntValue(300),
            Value::IntValue(i64::MAX),
            Value::IntValue(-1),
            Value::DoubleValue(-0.5),
            Value::BytesValue(vec![1]),
        ];
        let mut quick = 0;
        for value in values {
            let message = KeyValue {
                key: "key".to_owned(),
                value: Some(AnyValue { value: Some(value) }),
                ..Default::default()
            }
            .encode_to_vec();
            let slow = KeyValueRef::parse(&message).unwrap();
            let got = key_value(&message).unwrap();
            assert_eq!(format!("{got:?}"), format!("{slow:?}"));
            if let Some(short) = canonical(&message) {
                quick += 1;
                assert_eq!(format!("{short:?}"), format!("{slow:?}"));
            }
            for cut in 0..message.len() {
                let slow = KeyValueRef::parse(&message[..cut]);
                let got = key_value(&message[..cut]);
                assert_eq!(format!("{got:?}"), format!("{slow:?}"), "cut at {cut}");
            }
        }
        assert_eq!(quick, 9);
    }

    #[test]
    fn equality_looks_at_every_byte() {
        for length in 0..40_usize {
            let one: Vec<u8> = (0..length as u8).collect();
            assert!(is_same(&one, &one));
            assert!(!is_same(&one, &[one.as_slice(), &[0]].concat()));
            for at in 0..length {
                let mut other = one.clone();
                other[at] ^= 0x80;
                assert!(!is_same(&one, &other), "{length} {at}");
            }
        }
    }
}
