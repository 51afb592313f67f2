//! Short cuts over the wire for the shapes that senders nearly always use.

use tempo_model::otlp::{AnyValueRef, KeyValueRef, SpanRef, WireError};

/// Tags of the fields of `KeyValue` and `AnyValue`.
mod tag {
    pub(super) const KEY: u8 = 1 << 3 | 2;
    pub(super) const VALUE: u8 = 2 << 3 | 2;
    pub(super) const STRING: u8 = 1 << 3 | 2;
    pub(super) const BOOL: u8 = 2 << 3;
    pub(super) const INT: u8 = 3 << 3;
    pub(super) const DOUBLE: u8 = 4 << 3 | 1;
}

/// Tags of the fields of `Span` and `Status`.
pub(super) mod span_tag {
    pub(in super::super) const ATTRIBUTE: u8 = 9 << 3 | 2;
    pub(super) const TRACE_ID: u8 = 1 << 3 | 2;
    pub(super) const SPAN_ID: u8 = 2 << 3 | 2;
    pub(super) const TRACE_STATE: u8 = 3 << 3 | 2;
    pub(super) const PARENT_SPAN_ID: u8 = 4 << 3 | 2;
    pub(super) const NAME: u8 = 5 << 3 | 2;
    pub(super) const KIND: u8 = 6 << 3;
    pub(super) const START: u8 = 7 << 3 | 1;
    pub(super) const END: u8 = 8 << 3 | 1;
    pub(super) const EVENT: u8 = 11 << 3 | 2;
    pub(super) const LINK: u8 = 13 << 3 | 2;
    pub(super) const STATUS: u8 = 15 << 3 | 2;
    pub(super) const STATUS_MESSAGE: u8 = 2 << 3 | 2;
    pub(super) const STATUS_CODE: u8 = 3 << 3;
    /// `Span.flags`: field 16, fixed32; the tag takes two bytes.
    pub(super) const FLAGS: [u8; 2] = [0x85, 1];
}

/// A span and where its repeated fields are to be looked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ScannedSpan<'a> {
    pub(super) span: SpanRef<'a>,
    /// The part of the message that holds all attributes.
    pub(super) attributes: &'a [u8],
    /// `false` only if there is none.
    pub(super) has_events: bool,
    /// `false` only if there is none.
    pub(super) has_links: bool,
}

impl<'a> ScannedSpan<'a> {
    /// Reads a `Span` message: quickly when it is in canonical form, else as [`SpanRef::parse`]
    /// does.
    #[inline]
    pub(super) fn read(raw: &'a [u8]) -> Result<Self, WireError> {
        match canonical_span(raw) {
            Some(scanned) => Ok(scanned),
            None => Ok(Self {
                span: SpanRef::parse(raw)?,
                attributes: raw,
                has_events: true,
                has_links: true,
            }),
        }
    }
}

fn canonical_span(raw: &[u8]) -> Option<ScannedSpan<'_>> {
    let mut span = SpanRef {
        raw,
        ..SpanRef::default()
    };
    let (mut has_events, mut has_links) = (false, false);
    let (mut first, mut last) = (raw.len(), 0);
    let mut rest = raw;
    while let Some(&tag) = rest.first() {
        rest = match tag {
            span_tag::ATTRIBUTE => {
                let (_, tail) = field(tag, rest)?;
                first = first.min(raw.len() - rest.len());
                last = raw.len() - tail.len();
                tail
            }
            span_tag::TRACE_ID => take(tag, rest, &mut span.trace_id)?,
            span_tag::SPAN_ID => take(tag, rest, &mut span.span_id)?,
            span_tag::TRACE_STATE => take(tag, rest, &mut span.trace_state)?,
            span_tag::PARENT_SPAN_ID => take(tag, rest, &mut span.parent_span_id)?,
            span_tag::NAME => take(tag, rest, &mut span.name)?,
            span_tag::KIND => {
                span.kind = i32::from(small(rest)?);
                &rest[2..]
            }
            span_tag::START => fixed64(rest, &mut span.start_time_unix_nano)?,
            span_tag::END => fixed64(rest, &mut span.end_time_unix_nano)?,
            span_tag::EVENT => {
                has_events = true;
                field(tag, rest)?.1
            }
            span_tag::LINK => {
                has_links = true;
                field(tag, rest)?.1
            }
            span_tag::STATUS => {
                let (mut status, tail) = field(tag, rest)?;
                while let Some(&tag) = status.first() {
                    status = match tag {
                        span_tag::STATUS_MESSAGE => take(tag, status, &mut span.status_message)?,
                        span_tag::STATUS_CODE => {
                            span.status_code = i32::from(small(status)?);
                            &status[2..]
                        }
                        _ => return None,
                    };
                }
                tail
            }
            _ => {
                let flags = rest.strip_prefix(&span_tag::FLAGS)?;
                let (bits, tail) = flags.split_first_chunk()?;
                span.flags = u32::from_le_bytes(*bits);
                tail
            }
        };
    }
    Some(ScannedSpan {
        span,
        attributes: raw.get(first..last).unwrap_or_default(),
        has_events,
        has_links,
    })
}

/// Reads a length-delimited field and returns what follows.
#[inline]
fn take<'a>(tag: u8, message: &'a [u8], into: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (bytes, rest) = field(tag, message)?;
    *into = bytes;
    Some(rest)
}

/// The one-byte varint after a tag.
#[inline]
fn small(message: &[u8]) -> Option<u8> {
    message.get(1).copied().filter(|&byte| byte < 0x80)
}

#[inline]
fn fixed64<'a>(message: &'a [u8], into: &mut u64) -> Option<&'a [u8]> {
    let (bytes, rest) = message.get(1..)?.split_first_chunk()?;
    *into = u64::from_le_bytes(*bytes);
    Some(rest)
}

/// The attribute with which the fields of a span begin, and what follows: `None` unless it is a key and a
/// scalar in canonical form.
#[inline]
pub(super) fn canonical_attribute(fields: &[u8]) -> Option<(KeyValueRef<'_>, &[u8])> {
    let (message, rest) = field(span_tag::ATTRIBUTE, fields)?;
    Some((canonical(message)?, rest))
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
pub(super) fn field(tag: u8, message: &[u8]) -> Option<(&[u8], &[u8])> {
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
    let value = head.iter().rev().fold(u64::from(*last), |value, byte| {
        value << 7 | u64::from(byte & 0x7f)
    });
    Some(value)
}

/// Equality of short byte strings without a call.
#[inline]
pub(super) fn is_same(one: &[u8], other: &[u8]) -> bool {
    let length = one.len();
    if length != other.len() {
        return false;
    }
    // Pairs of words that overlap in the middle cover every length.
    match length {
        0 => true,
        1..4 => {
            one[0] == other[0]
                && one[length / 2] == other[length / 2]
                && one[length - 1] == other[length - 1]
        }
        4..8 => head::<4>(one) == head(other) && tail::<4>(one) == tail(other),
        8..=16 => head::<8>(one) == head(other) && tail::<8>(one) == tail(other),
        17..=32 => head::<16>(one) == head(other) && tail::<16>(one) == tail(other),
        _ => one == other,
    }
}

#[inline]
fn head<const N: usize>(bytes: &[u8]) -> Option<&[u8; N]> {
    bytes.first_chunk()
}

#[inline]
fn tail<const N: usize>(bytes: &[u8]) -> Option<&[u8; N]> {
    bytes.last_chunk()
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
            let mut field = vec![span_tag::ATTRIBUTE];
            tempo_model::otlp::write_varint(&mut field, message.len() as u64);
            field.extend_from_slice(&message);
            field.push(span_tag::START);
            if let Some((short, rest)) = canonical_attribute(&field) {
                quick += 1;
                assert_eq!(format!("{short:?}"), format!("{slow:?}"));
                assert_eq!(rest, [span_tag::START]);
            }
            for cut in 0..message.len() {
                let slow = KeyValueRef::parse(&message[..cut]);
                if let Some(short) = canonical(&message[..cut]) {
                    assert_eq!(
                        format!("{short:?}"),
                        format!("{:?}", slow.unwrap()),
                        "cut at {cut}"
                    );
                }
            }
        }
        assert_eq!(quick, 9);
    }

    #[test]
    fn spans_are_read_as_the_long_way_reads_them() {
        use tempo_proto::opentelemetry::proto::trace::v1::{Span, Status, span};
        let attribute = KeyValue {
            key: "key".to_owned(),
            value: Some(AnyValue {
                value: Some(Value::IntValue(7)),
            }),
            ..Default::default()
        };
        let plain = Span {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            parent_span_id: vec![3; 8],
            trace_state: "a=b".to_owned(),
            name: "n".repeat(300),
            kind: 3,
            start_time_unix_nano: u64::MAX,
            end_time_unix_nano: 1,
            attributes: vec![attribute.clone(), attribute.clone()],
            events: vec![span::Event::default()],
            links: vec![span::Link::default()],
            status: Some(Status {
                message: "m".to_owned(),
                code: 2,
            }),
            flags: 0x8000_0101,
            ..Default::default()
        };
        let dropped = Span {
            dropped_events_count: 300,
            ..plain.clone()
        };
        let huge = Span {
            name: "n".repeat(20_000),
            ..plain.clone()
        };
        let strange_kind = Span {
            kind: -1,
            ..plain.clone()
        };
        let spans = [Span::default(), plain, dropped, huge, strange_kind];
        let quick = [true, true, false, false, false];
        for (span, quick) in spans.into_iter().zip(quick) {
            let raw = span.encode_to_vec();
            assert_eq!(canonical_span(&raw).is_some(), quick);
            let slow = SpanRef::parse(&raw).unwrap();
            let got = ScannedSpan::read(&raw).unwrap();
            assert_eq!(format!("{:?}", got.span), format!("{slow:?}"));
            let keys = tempo_model::otlp::Fields::new(got.attributes)
                .filter(|field| field.is_ok_and(|field| field.number == 9))
                .count();
            assert_eq!(keys, span.attributes.len());
            assert!(got.has_events || span.events.is_empty());
            assert!(got.has_links || span.links.is_empty());
            for cut in 0..raw.len().min(500) {
                let slow = SpanRef::parse(&raw[..cut]).map(|span| format!("{span:?}"));
                let got = ScannedSpan::read(&raw[..cut]).map(|got| format!("{:?}", got.span));
                assert_eq!(got, slow, "cut at {cut}");
            }
        }
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
