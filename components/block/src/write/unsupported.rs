//! Values that have no column of their own, as protobuf JSON.
//!
//! The text is that of Go's JSON encoder over `opentelemetry.proto.common.v1.AnyValue`: names in
//! camel case, 64-bit integers as strings, bytes in base64, empty lists left out.

use base64::{Engine, engine::general_purpose::STANDARD};
use tempo_model::otlp::{AnyValueRef, Fields, KeyValueRef, MAX_VALUE_NESTING_DEPTH, WireError};

/// Field number of the values in `KeyValueList`.
const LIST_VALUES: u32 = 1;

/// The JSON of a value.
pub(super) fn to_json(value: AnyValueRef<'_>) -> Result<String, WireError> {
    let mut out = String::new();
    write_value(value, 0, &mut out)?;
    Ok(out)
}

fn write_value(value: AnyValueRef<'_>, depth: usize, out: &mut String) -> Result<(), WireError> {
    if depth > MAX_VALUE_NESTING_DEPTH {
        return Err(WireError::TooDeep);
    }
    out.push('{');
    match value {
        AnyValueRef::Empty => {}
        AnyValueRef::String(text) => {
            out.push_str("\"stringValue\":");
            write_text(text, out);
        }
        AnyValueRef::Bool(flag) => {
            out.push_str(if flag {
                "\"boolValue\":true"
            } else {
                "\"boolValue\":false"
            });
        }
        AnyValueRef::Int(number) => {
            out.push_str(&format!("\"intValue\":\"{number}\""));
        }
        AnyValueRef::Double(number) => {
            out.push_str("\"doubleValue\":");
            write_double(number, out);
        }
        AnyValueRef::Bytes(bytes) => {
            out.push_str("\"bytesValue\":\"");
            STANDARD.encode_string(bytes, out);
            out.push('"');
        }
        AnyValueRef::Array(array) => {
            out.push_str("\"arrayValue\":{");
            let mut opened = false;
            for element in array.iter() {
                open_list(&mut opened, out);
                write_value(element?, depth + 1, out)?;
            }
            close_list(opened, out);
        }
        AnyValueRef::KvList(list) => {
            out.push_str("\"kvlistValue\":{");
            let mut opened = false;
            for field in Fields::new(list) {
                let field = field?;
                if field.number != LIST_VALUES {
                    continue;
                }
                let pair = KeyValueRef::parse(field.message()?)?;
                open_list(&mut opened, out);
                out.push('{');
                if !pair.key.is_empty() {
                    out.push_str("\"key\":");
                    write_text(pair.key, out);
                    out.push(',');
                }
                out.push_str("\"value\":");
                write_value(pair.value, depth + 1, out)?;
                out.push('}');
            }
            close_list(opened, out);
        }
    }
    out.push('}');
    Ok(())
}

fn open_list(opened: &mut bool, out: &mut String) {
    out.push_str(if *opened { "," } else { "\"values\":[" });
    *opened = true;
}

fn close_list(opened: bool, out: &mut String) {
    out.push_str(if opened { "]}" } else { "}" });
}

/// Doubles outside this range are written with an exponent.
const PLAIN_DOUBLES: std::ops::Range<f64> = 1e-6..1e21;

fn write_double(number: f64, out: &mut String) {
    if number.is_nan() {
        out.push_str("\"NaN\"");
    } else if number.is_infinite() {
        out.push_str(if number > 0.0 {
            "\"Infinity\""
        } else {
            "\"-Infinity\""
        });
    } else if number == 0.0 || PLAIN_DOUBLES.contains(&number.abs()) {
        out.push_str(&number.to_string());
    } else {
        let text = format!("{number:e}");
        // Exponents carry their sign.
        match text.split_once('e') {
            Some((digits, power)) if !power.starts_with('-') => {
                out.push_str(&format!("{digits}e+{power}"));
            }
            _ => out.push_str(&text),
        }
    }
}

fn write_text(text: &[u8], out: &mut String) {
    out.push('"');
    for character in String::from_utf8_lossy(text).chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            // What a browser might take for markup or a line's end.
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", character as u32));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use tempo_proto::opentelemetry::proto::common::v1::{
        AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value,
    };

    use super::*;

    fn any(value: Value) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    fn json(value: &AnyValue) -> Result<String, WireError> {
        let bytes = value.encode_to_vec();
        to_json(AnyValueRef::parse(&bytes)?)
    }

    fn pair(key: &str, value: Value) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: Some(any(value)),
            ..Default::default()
        }
    }

    #[test]
    fn values_are_written_as_tempo_writes_them() {
        let array = |values| any(Value::ArrayValue(ArrayValue { values }));
        let list = |values| any(Value::KvlistValue(KeyValueList { values }));
        let text = |text: &str| any(Value::StringValue(text.to_owned()));
        let cases = [
            (AnyValue { value: None }, "{}"),
            (
                any(Value::BytesValue(vec![1, 2, 255])),
                r#"{"bytesValue":"AQL/"}"#,
            ),
            (
                array(vec![text("a"), any(Value::IntValue(1))]),
                r#"{"arrayValue":{"values":[{"stringValue":"a"},{"intValue":"1"}]}}"#,
            ),
            (
                list(vec![
                    pair("x", Value::StringValue("y".to_owned())),
                    pair("n", Value::IntValue(7)),
                ]),
                r#"{"kvlistValue":{"values":[{"key":"x","value":{"stringValue":"y"}},{"key":"n","value":{"intValue":"7"}}]}}"#,
            ),
            (list(Vec::new()), r#"{"kvlistValue":{}}"#),
            (
                array(vec![AnyValue { value: None }, any(Value::BoolValue(true))]),
                r#"{"arrayValue":{"values":[{},{"boolValue":true}]}}"#,
            ),
            (
                array(vec![text("a\"<\n\u{1}é"), array(Vec::new())]),
                r#"{"arrayValue":{"values":[{"stringValue":"a\"\u003c\n\u0001é"},{"arrayValue":{}}]}}"#,
            ),
        ];
        for (value, want) in cases {
            assert_eq!(json(&value).unwrap(), want);
        }
        for (number, want) in [
            (1.5, "1.5"),
            (-2.0, "-2"),
            (0.0, "0"),
            (1e21, "1e+21"),
            (1e-7, "1e-7"),
            (1e20, "100000000000000000000"),
            (f64::NAN, "\"NaN\""),
            (f64::NEG_INFINITY, "\"-Infinity\""),
        ] {
            let value = any(Value::DoubleValue(number));
            assert_eq!(json(&value).unwrap(), format!("{{\"doubleValue\":{want}}}"));
        }
    }

    #[test]
    fn endless_nesting_is_refused() {
        let mut value = any(Value::IntValue(1));
        for _ in 0..=MAX_VALUE_NESTING_DEPTH {
            value = any(Value::ArrayValue(ArrayValue {
                values: vec![value],
            }));
        }
        assert_eq!(json(&value), Err(WireError::TooDeep));
    }
}
