//! Protobuf JSON of an `AnyValue` back into protobuf bytes.
//!
//! Source of the form: the JSON mapping of protobuf; both spellings of names are read, integers as
//! text or number, bytes in either base64 alphabet. No tree is built: what is parsed is appended.

use std::{borrow::Cow, fmt, marker::PhantomData, str::FromStr};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor},
};
use tempo_model::otlp::{MAX_VALUE_NESTING_DEPTH, write_len_prefixed, write_message, write_varint};

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Appends the content of the `AnyValue` that `json` stands for. What cannot be parsed becomes a
/// string value of the text as it is, so that nothing is lost.
pub(super) fn write(json: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    if parse(json, out).is_err() {
        out.truncate(start);
        write_len_prefixed(out, 1, json);
    }
}

fn parse(json: &[u8], out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    // Every level of a value takes several of JSON; the depth of values is limited here.
    deserializer.disable_recursion_limit();
    Any { out, depth: 0 }.deserialize(&mut deserializer)?;
    deserializer.end()
}

/// An `AnyValue`.
struct Any<'o> {
    out: &'o mut Vec<u8>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Any<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.depth > MAX_VALUE_NESTING_DEPTH {
            return Err(D::Error::custom("value is nested too deep"));
        }
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Any<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an AnyValue")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { out, depth } = self;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match key.as_ref() {
                "stringValue" | "string_value" => {
                    write_len_prefixed(out, 1, map.next_value::<Cow<'de, str>>()?.as_bytes());
                }
                "boolValue" | "bool_value" => {
                    out.extend([2 << 3, u8::from(map.next_value::<bool>()?)]);
                }
                "intValue" | "int_value" => {
                    let value = map.next_value::<Number<i64>>()?.0;
                    out.push(3 << 3);
                    write_varint(out, value as u64);
                }
                "doubleValue" | "double_value" => {
                    let value = map.next_value::<Number<f64>>()?.0;
                    out.push(4 << 3 | 1);
                    out.extend_from_slice(&value.to_le_bytes());
                }
                "arrayValue" | "array_value" => write_message(out, 5, |out| {
                    map.next_value_seed(List {
                        out,
                        depth,
                        of_pairs: false,
                    })
                })?,
                "kvlistValue" | "kvlist_value" => write_message(out, 6, |out| {
                    map.next_value_seed(List {
                        out,
                        depth,
                        of_pairs: true,
                    })
                })?,
                "bytesValue" | "bytes_value" => {
                    let text = map.next_value::<Cow<'de, str>>()?;
                    let bytes = STANDARD
                        .decode(text.as_bytes())
                        .or_else(|_| URL_SAFE.decode(text.as_bytes()))
                        .map_err(A::Error::custom)?;
                    write_len_prefixed(out, 7, &bytes);
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// An `ArrayValue` or a `KeyValueList`: an object whose `values` are listed.
struct List<'o> {
    out: &'o mut Vec<u8>,
    depth: usize,
    of_pairs: bool,
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key == "values" {
                map.next_value_seed(Elements {
                    out: self.out,
                    depth: self.depth,
                    of_pairs: self.of_pairs,
                })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct Elements<'o> {
    out: &'o mut Vec<u8>,
    depth: usize,
    of_pairs: bool,
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let depth = self.depth + 1;
        loop {
            let start = self.out.len();
            let mut more = false;
            write_message(self.out, 1, |out| {
                more = if self.of_pairs {
                    seq.next_element_seed(Pair { out, depth })?.is_some()
                } else {
                    seq.next_element_seed(Any { out, depth })?.is_some()
                };
                Ok(())
            })?;
            if !more {
                self.out.truncate(start);
                return Ok(());
            }
        }
    }
}

/// A `KeyValue`.
struct Pair<'o> {
    out: &'o mut Vec<u8>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Pair<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Pair<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key and a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { out, depth } = self;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match key.as_ref() {
                "key" => {
                    write_len_prefixed(out, 1, map.next_value::<Cow<'de, str>>()?.as_bytes());
                }
                "value" => {
                    write_message(out, 2, |out| map.next_value_seed(Any { out, depth }))?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// A number, as such or as text. Read by a visitor of its own and not as one of several types: for
/// those serde keeps the value meanwhile, recursing over whatever stands in the number's place.
struct Number<T>(T);

/// A type of numbers, `None` where a number is not one of it.
trait JsonNumber: FromStr {
    fn from_i64(number: i64) -> Option<Self>;
    fn from_u64(number: u64) -> Option<Self>;
    fn from_f64(number: f64) -> Option<Self>;
}

impl JsonNumber for i64 {
    fn from_i64(number: i64) -> Option<Self> {
        Some(number)
    }

    fn from_u64(number: u64) -> Option<Self> {
        number.try_into().ok()
    }

    fn from_f64(_: f64) -> Option<Self> {
        None
    }
}

impl JsonNumber for f64 {
    fn from_i64(number: i64) -> Option<Self> {
        Some(number as f64)
    }

    fn from_u64(number: u64) -> Option<Self> {
        Some(number as f64)
    }

    fn from_f64(number: f64) -> Option<Self> {
        Some(number)
    }
}

impl<'de, T: JsonNumber> Deserialize<'de> for Number<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor(PhantomData))
    }
}

struct NumberVisitor<T>(PhantomData<T>);

impl<T: JsonNumber> Visitor<'_> for NumberVisitor<T> {
    type Value = Number<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, as such or as text")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        let misfit = || E::invalid_type(Unexpected::Signed(number), &self);
        T::from_i64(number).map(Number).ok_or_else(misfit)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        let misfit = || E::invalid_type(Unexpected::Unsigned(number), &self);
        T::from_u64(number).map(Number).ok_or_else(misfit)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        let misfit = || E::invalid_type(Unexpected::Float(number), &self);
        T::from_f64(number).map(Number).ok_or_else(misfit)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let misfit = |_| E::invalid_value(Unexpected::Str(text), &self);
        text.parse().map(Number).map_err(misfit)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use tempo_proto::opentelemetry::proto::common::v1::{
        AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value,
    };

    use super::*;

    fn read(json: &str) -> Option<Value> {
        let mut out = Vec::new();
        write(json.as_bytes(), &mut out);
        AnyValue::decode(out.as_slice()).unwrap().value
    }

    fn any(value: Value) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    #[test]
    fn every_kind_of_value() {
        assert_eq!(read("{}"), None);
        assert_eq!(
            read(r#"{"bytesValue":"AQL/"}"#),
            Some(Value::BytesValue(vec![1, 2, 255]))
        );
        assert_eq!(
            read(r#"{"bytesValue":"AQL_"}"#),
            Some(Value::BytesValue(vec![1, 2, 255]))
        );
        for (json, want) in [
            (r#"{"doubleValue":"-Infinity"}"#, f64::NEG_INFINITY),
            (r#"{"double_value":1.5e3}"#, 1500.0),
            (r#"{"doubleValue":7}"#, 7.0),
        ] {
            assert_eq!(read(json), Some(Value::DoubleValue(want)));
        }
        let text = |text: &str| any(Value::StringValue(text.to_owned()));
        assert_eq!(
            read(
                r#"{"arrayValue":{"values":[{"stringValue":"a\"\u00e9"},{"intValue":"1"},{"intValue":-2},{"boolValue":true},{}]}}"#
            ),
            Some(Value::ArrayValue(ArrayValue {
                values: vec![
                    text("a\"é"),
                    any(Value::IntValue(1)),
                    any(Value::IntValue(-2)),
                    any(Value::BoolValue(true)),
                    AnyValue { value: None },
                ]
            }))
        );
        assert_eq!(
            read(
                r#"{"kvlistValue":{"values":[{"key":"x","value":{"stringValue":"y"}},{"value":{"intValue":"7"}}]}}"#
            ),
            Some(Value::KvlistValue(KeyValueList {
                values: vec![
                    KeyValue {
                        key: "x".to_owned(),
                        value: Some(text("y")),
                        ..Default::default()
                    },
                    KeyValue {
                        value: Some(any(Value::IntValue(7))),
                        ..Default::default()
                    },
                ]
            }))
        );
        assert_eq!(
            read(r#"{"arrayValue":{}}"#),
            Some(Value::ArrayValue(ArrayValue::default()))
        );
    }

    #[test]
    fn what_is_not_such_json_is_kept_as_text() {
        for json in [
            "",
            "null",
            "{",
            r#"{"intValue":"x"}"#,
            r#"{"intValue":1.5}"#,
            r#"{"intValue":9223372036854775808}"#,
            r#"{"intValue":null}"#,
            r#"{"intValue":[1]}"#,
            r#"{"doubleValue":{"x":1}}"#,
            r#"{"bytesValue":"?"}"#,
            r#"{"stringValue":"a"} tail"#,
            r#"{"arrayValue":{"values":[{"stringValue":"a"},7]}}"#,
        ] {
            assert_eq!(read(json), Some(Value::StringValue(json.to_owned())));
        }
    }

    #[test]
    fn depth_where_no_value_may_stand_is_no_recursion() {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), ("[", ""), (r#"{"a":"#, "")] {
            for key in ["intValue", "doubleValue", "boolValue", "stringValue", "x"] {
                let (open, close) = (open.repeat(50_000), close.repeat(50_000));
                let json = format!(r#"{{"{key}":{open}0{close}}}"#);
                let want = if key == "x" && !close.is_empty() {
                    None
                } else {
                    Some(Value::StringValue(json.clone()))
                };
                assert_eq!(read(&json), want, "{key}");
            }
        }
    }

    #[test]
    fn values_may_be_as_deep_as_senders_may_nest_them() {
        let nested = |depth: usize| {
            let open = r#"{"kvlistValue":{"values":[{"key":"k","value":"#.repeat(depth);
            let close = "}]}}".repeat(depth);
            format!(r#"{open}{{"intValue":"5"}}{close}"#)
        };
        assert!(matches!(
            read(&nested(MAX_VALUE_NESTING_DEPTH)),
            Some(Value::KvlistValue(_))
        ));
        let deeper = nested(MAX_VALUE_NESTING_DEPTH + 1);
        assert_eq!(read(&deeper), Some(Value::StringValue(deeper)));
    }
}
