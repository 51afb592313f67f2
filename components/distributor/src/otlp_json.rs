//! OTLP/JSON to OTLP protobuf, without an object tree in between.
//!
//! The messages are tables; one visitor follows them and appends protobuf as it reads. Ids are
//! hexadecimal, bytes are base64, 64-bit integers are strings or numbers, enums are numbers or
//! names, unknown fields are ignored, and `snake_case` names are taken for `lowerCamelCase` ones.

use std::fmt;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tempo_model::otlp::{write_len_prefixed, write_message, write_varint};

/// Replaces `out` by the protobuf form of `json`, an `ExportTraceServiceRequest`.
///
/// # Errors
/// When `json` is not that; the message names line and column.
pub fn to_protobuf(json: &[u8], out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    out.clear();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    MessageSeed {
        message: &REQUEST,
        out,
    }
    .deserialize(&mut deserializer)?;
    deserializer.end()
}

struct Message {
    fields: &'static [Field],
}

struct Field {
    name: &'static str,
    number: u32,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    RepeatedText,
    Hex,
    Base64,
    Bool,
    /// `int64` and `uint32`: varints.
    Integer,
    Fixed32,
    Fixed64,
    Double,
    /// Names by number.
    Enum(&'static [&'static str]),
    Message(&'static Message),
    Repeated(&'static Message),
}

const fn field(name: &'static str, number: u32, kind: Kind) -> Field {
    Field { name, number, kind }
}

static REQUEST: Message = Message {
    fields: &[field("resourceSpans", 1, Kind::Repeated(&RESOURCE_SPANS))],
};

static RESOURCE_SPANS: Message = Message {
    fields: &[
        field("resource", 1, Kind::Message(&RESOURCE)),
        field("scopeSpans", 2, Kind::Repeated(&SCOPE_SPANS)),
        field("schemaUrl", 3, Kind::Text),
    ],
};

static RESOURCE: Message = Message {
    fields: &[
        field("attributes", 1, Kind::Repeated(&KEY_VALUE)),
        field("droppedAttributesCount", 2, Kind::Integer),
        field("entityRefs", 3, Kind::Repeated(&ENTITY_REF)),
    ],
};

static ENTITY_REF: Message = Message {
    fields: &[
        field("schemaUrl", 1, Kind::Text),
        field("type", 2, Kind::Text),
        field("idKeys", 3, Kind::RepeatedText),
        field("descriptionKeys", 4, Kind::RepeatedText),
    ],
};

static SCOPE_SPANS: Message = Message {
    fields: &[
        field("scope", 1, Kind::Message(&SCOPE)),
        field("spans", 2, Kind::Repeated(&SPAN)),
        field("schemaUrl", 3, Kind::Text),
    ],
};

static SCOPE: Message = Message {
    fields: &[
        field("name", 1, Kind::Text),
        field("version", 2, Kind::Text),
        field("attributes", 3, Kind::Repeated(&KEY_VALUE)),
        field("droppedAttributesCount", 4, Kind::Integer),
    ],
};

static SPAN: Message = Message {
    fields: &[
        field("traceId", 1, Kind::Hex),
        field("spanId", 2, Kind::Hex),
        field("traceState", 3, Kind::Text),
        field("parentSpanId", 4, Kind::Hex),
        field("name", 5, Kind::Text),
        field("kind", 6, Kind::Enum(SPAN_KINDS)),
        field("startTimeUnixNano", 7, Kind::Fixed64),
        field("endTimeUnixNano", 8, Kind::Fixed64),
        field("attributes", 9, Kind::Repeated(&KEY_VALUE)),
        field("droppedAttributesCount", 10, Kind::Integer),
        field("events", 11, Kind::Repeated(&EVENT)),
        field("droppedEventsCount", 12, Kind::Integer),
        field("links", 13, Kind::Repeated(&LINK)),
        field("droppedLinksCount", 14, Kind::Integer),
        field("status", 15, Kind::Message(&STATUS)),
        field("flags", 16, Kind::Fixed32),
    ],
};

static EVENT: Message = Message {
    fields: &[
        field("timeUnixNano", 1, Kind::Fixed64),
        field("name", 2, Kind::Text),
        field("attributes", 3, Kind::Repeated(&KEY_VALUE)),
        field("droppedAttributesCount", 4, Kind::Integer),
    ],
};

static LINK: Message = Message {
    fields: &[
        field("traceId", 1, Kind::Hex),
        field("spanId", 2, Kind::Hex),
        field("traceState", 3, Kind::Text),
        field("attributes", 4, Kind::Repeated(&KEY_VALUE)),
        field("droppedAttributesCount", 5, Kind::Integer),
        field("flags", 6, Kind::Fixed32),
    ],
};

static STATUS: Message = Message {
    fields: &[
        field("message", 2, Kind::Text),
        field("code", 3, Kind::Enum(STATUS_CODES)),
    ],
};

static KEY_VALUE: Message = Message {
    fields: &[
        field("key", 1, Kind::Text),
        field("value", 2, Kind::Message(&ANY_VALUE)),
    ],
};

static ANY_VALUE: Message = Message {
    fields: &[
        field("stringValue", 1, Kind::Text),
        field("boolValue", 2, Kind::Bool),
        field("intValue", 3, Kind::Integer),
        field("doubleValue", 4, Kind::Double),
        field("arrayValue", 5, Kind::Message(&ARRAY_VALUE)),
        field("kvlistValue", 6, Kind::Message(&KEY_VALUE_LIST)),
        field("bytesValue", 7, Kind::Base64),
    ],
};

static ARRAY_VALUE: Message = Message {
    fields: &[field("values", 1, Kind::Repeated(&ANY_VALUE))],
};

static KEY_VALUE_LIST: Message = Message {
    fields: &[field("values", 1, Kind::Repeated(&KEY_VALUE))],
};

/// Names of `Span.SpanKind` by number.
pub(crate) const SPAN_KINDS: &[&str] = &[
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

/// Names of `Status.StatusCode` by number.
pub(crate) const STATUS_CODES: &[&str] =
    &["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Message {
    fn field(&self, key: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.is_named(key))
    }
}

impl Field {
    /// Whether `key` is this field's name in `lowerCamelCase` or `snake_case`.
    fn is_named(&self, key: &str) -> bool {
        if key == self.name {
            return true;
        }
        let mut rest = self.name.chars();
        let mut word_begins = false;
        for letter in key.chars() {
            if letter == '_' {
                word_begins = true;
            } else {
                let want = if word_begins {
                    letter.to_ascii_uppercase()
                } else {
                    letter
                };
                if rest.next() != Some(want) {
                    return false;
                }
                word_begins = false;
            }
        }
        rest.next().is_none()
    }

    fn write_varint(&self, out: &mut Vec<u8>, value: u64) {
        write_varint(out, u64::from(self.number) << 3);
        write_varint(out, value);
    }

    fn write_fixed64(&self, out: &mut Vec<u8>, value: u64) {
        write_varint(out, u64::from(self.number) << 3 | 1);
        out.extend_from_slice(&value.to_le_bytes());
    }

    fn write_fixed32(&self, out: &mut Vec<u8>, value: u32) {
        write_varint(out, u64::from(self.number) << 3 | 5);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// Appends the fields of a message, without the frame around it.
struct MessageSeed<'a> {
    message: &'static Message,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key_seed(KeySeed(self.message))? {
            match field {
                Some(field) => map.next_value_seed(FieldSeed {
                    field,
                    out: &mut *self.out,
                })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Finds the field that a key names.
struct KeySeed(&'static Message);

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Option<&'static Field>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = Option<&'static Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.field(key))
    }
}

/// One element of a repeated message.
struct ElementSeed<'a> {
    number: u32,
    message: &'static Message,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for ElementSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        write_message(self.out, self.number, |out| {
            let message = self.message;
            MessageSeed { message, out }.deserialize(deserializer)
        })
    }
}

/// The value of a field. `null` is as good as absent.
struct FieldSeed<'a> {
    field: &'static Field,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl FieldSeed<'_> {
    fn refuse<E: de::Error>(&self, found: de::Unexpected<'_>) -> E {
        E::invalid_type(found, self)
    }

    fn integer<E: de::Error>(self, value: i128, found: de::Unexpected<'_>) -> Result<(), E> {
        let out_of_range = |seed: &Self| E::invalid_value(found, seed);
        match self.field.kind {
            Kind::Integer | Kind::Enum(_) => {
                let value = i64::try_from(value)
                    .map(|value| value as u64)
                    .map_err(|_| out_of_range(&self))?;
                self.field.write_varint(self.out, value);
            }
            Kind::Fixed64 => {
                let value = u64::try_from(value).map_err(|_| out_of_range(&self))?;
                self.field.write_fixed64(self.out, value);
            }
            Kind::Fixed32 => {
                let value = u32::try_from(value).map_err(|_| out_of_range(&self))?;
                self.field.write_fixed32(self.out, value);
            }
            Kind::Double => {
                self.field.write_fixed64(self.out, (value as f64).to_bits());
            }
            _ => return Err(self.refuse(found)),
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.field.kind {
            Kind::Text => "text",
            Kind::RepeatedText => "an array of texts",
            Kind::Hex => "hexadecimal digits, two per byte",
            Kind::Base64 => "base64 text",
            Kind::Bool => "true or false",
            Kind::Integer => "a 64-bit integer or its decimal text",
            Kind::Fixed64 => "an unsigned 64-bit integer or its decimal text",
            Kind::Fixed32 => "an unsigned 32-bit integer or its decimal text",
            Kind::Double => "a number",
            Kind::Enum(_) => "an enum's number or name",
            Kind::Message(_) => "an object",
            Kind::Repeated(_) => "an array of objects",
        };
        write!(f, "{what} for `{}`", self.field.name)
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        match self.field.kind {
            Kind::Bool => {
                self.field.write_varint(self.out, u64::from(value));
                Ok(())
            }
            _ => Err(self.refuse(de::Unexpected::Bool(value))),
        }
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.integer(i128::from(value), de::Unexpected::Unsigned(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.integer(i128::from(value), de::Unexpected::Signed(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double => {
                self.field.write_fixed64(self.out, value.to_bits());
                Ok(())
            }
            // 1e3 is an integer too.
            _ if value.fract() == 0.0 => self.integer(value as i128, de::Unexpected::Float(value)),
            _ => Err(self.refuse(de::Unexpected::Float(value))),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        let unexpected = de::Unexpected::Str(text);
        let Self { field, out } = self;
        let invalid = |out| E::invalid_value(unexpected, &FieldSeed { field, out });
        match field.kind {
            Kind::Text => write_len_prefixed(out, field.number, text.as_bytes()),
            Kind::Hex => {
                let written = write_message(out, field.number, |out| push_hex(out, text));
                if written.is_err() {
                    return Err(invalid(out));
                }
            }
            Kind::Base64 => {
                let standard = text.replace('-', "+").replace('_', "/");
                match BASE64.decode(standard) {
                    Ok(bytes) => write_len_prefixed(out, field.number, &bytes),
                    Err(_) => return Err(invalid(out)),
                }
            }
            Kind::Enum(names) if let Some(number) = names.iter().position(|name| *name == text) => {
                field.write_varint(out, number as u64);
            }
            Kind::Integer | Kind::Fixed32 | Kind::Fixed64 | Kind::Enum(_) => {
                match text.parse::<i128>() {
                    Ok(value) => return FieldSeed { field, out }.integer(value, unexpected),
                    Err(_) => return Err(invalid(out)),
                }
            }
            Kind::Double => {
                let value = match text {
                    "NaN" => Ok(f64::NAN),
                    "Infinity" => Ok(f64::INFINITY),
                    "-Infinity" => Ok(f64::NEG_INFINITY),
                    _ => text.parse(),
                };
                match value {
                    Ok(value) => field.write_fixed64(out, value.to_bits()),
                    Err(_) => return Err(invalid(out)),
                }
            }
            _ => return Err(FieldSeed { field, out }.refuse(unexpected)),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let number = self.field.number;
        match self.field.kind {
            Kind::Repeated(message) => {
                while elements
                    .next_element_seed(ElementSeed {
                        number,
                        message,
                        out: &mut *self.out,
                    })?
                    .is_some()
                {}
            }
            Kind::RepeatedText => {
                while let Some(text) = elements.next_element::<String>()? {
                    write_len_prefixed(self.out, number, text.as_bytes());
                }
            }
            _ => return Err(self.refuse(de::Unexpected::Seq)),
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        match self.field.kind {
            Kind::Message(message) => write_message(self.out, self.field.number, |out| {
                MessageSeed { message, out }.visit_map(map)
            }),
            _ => Err(self.refuse(de::Unexpected::Map)),
        }
    }
}

/// The text is not hexadecimal.
struct NotHex;

fn push_hex(out: &mut Vec<u8>, text: &str) -> Result<(), NotHex> {
    let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(NotHex);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return Err(NotHex);
    }
    for &[high, low] in pairs {
        out.push((digit(high)? << 4 | digit(low)?) as u8);
    }
    Ok(())
}
