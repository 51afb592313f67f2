//! Texts, labels and values.

use std::sync::Arc;

use hashbrown::HashMap;
use tempo_proto::tempostack::query::v1 as wire;
use tempo_table::ArrayValue;

use super::{super::label::Label, WireError};
use crate::value::{Value, kind_number, kind_of, status_code, status_of};

/// Collects texts.
#[derive(Default)]
pub(super) struct Writer {
    numbers: HashMap<Arc<str>, u32, foldhash::fast::RandomState>,
    texts: Vec<String>,
}

impl Writer {
    pub(super) fn text(&mut self, text: &Arc<str>) -> u32 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.texts.len() as u32;
        self.texts.push(text.to_string());
        self.numbers.insert(Arc::clone(text), number);
        number
    }

    pub(super) fn labels(&mut self, labels: &[Label]) -> Vec<wire::Label> {
        labels
            .iter()
            .map(|label| wire::Label {
                name: self.text(&label.name),
                value: self.value(&label.value),
            })
            .collect()
    }

    pub(super) fn value(&mut self, value: &Value) -> Option<wire::Value> {
        use wire::value::Kind;
        let kind = match value {
            Value::Nil => return None,
            Value::String(text) => Kind::Text(self.text(text)),
            Value::Int(value) => Kind::Int(*value),
            Value::Float(value) => Kind::Float(*value),
            Value::Bool(value) => Kind::Bool(*value),
            Value::Duration(nanos) => Kind::Duration(*nanos),
            Value::Status(status) => Kind::Status(status_code(*status) as u32),
            Value::Kind(kind) => Kind::SpanKind(kind_number(*kind) as u32),
            Value::Array(array) => Kind::Array(self.array(array)),
        };
        Some(wire::Value { kind: Some(kind) })
    }

    fn array(&mut self, array: &ArrayValue) -> wire::Array {
        use wire::array::Type;
        let mut written = wire::Array::default();
        let of_type = match array {
            ArrayValue::Empty => Type::Empty,
            ArrayValue::Strings(texts) => {
                written.texts = texts.iter().map(|text| self.text(text)).collect();
                Type::Texts
            }
            ArrayValue::Ints(ints) => {
                written.ints.clone_from(ints);
                Type::Ints
            }
            ArrayValue::Floats(floats) => {
                written.floats.clone_from(floats);
                Type::Floats
            }
            ArrayValue::Bools(bools) => {
                written.bools.clone_from(bools);
                Type::Bools
            }
        };
        written.set_type(of_type);
        written
    }

    pub(super) fn into_texts(self) -> Vec<String> {
        self.texts
    }
}

/// Knows the texts and the intervals, and counts memory.
pub(super) struct Reader {
    texts: Vec<Arc<str>>,
    intervals: usize,
    left_bytes: usize,
    limit_bytes: usize,
}

impl Reader {
    pub(super) fn new(
        texts: Vec<String>,
        intervals: usize,
        limit_bytes: usize,
    ) -> Result<Self, WireError> {
        let mut reader = Self {
            texts: Vec::new(),
            intervals,
            left_bytes: limit_bytes,
            limit_bytes,
        };
        reader.take(texts.iter().map(|text| text.len() + 32).sum())?;
        reader.texts = texts.into_iter().map(Arc::from).collect();
        Ok(reader)
    }

    pub(super) fn intervals(&self) -> usize {
        self.intervals
    }

    /// Accounts for memory before it is taken.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), WireError> {
        self.left_bytes = self
            .left_bytes
            .checked_sub(bytes)
            .ok_or(WireError::TooLarge {
                limit_bytes: self.limit_bytes,
            })?;
        Ok(())
    }

    pub(super) fn text(&self, number: u32) -> Result<Arc<str>, WireError> {
        self.texts
            .get(number as usize)
            .cloned()
            .ok_or(WireError::Malformed("a text that was not sent"))
    }

    pub(super) fn labels(&mut self, labels: Vec<wire::Label>) -> Result<Arc<[Label]>, WireError> {
        self.take(labels.len().saturating_mul(std::mem::size_of::<Label>()))?;
        labels
            .into_iter()
            .map(|label| {
                Ok(Label {
                    name: self.text(label.name)?,
                    value: self.value(label.value)?,
                })
            })
            .collect()
    }

    pub(super) fn value(&self, value: Option<wire::Value>) -> Result<Value, WireError> {
        use wire::value::Kind;
        let Some(value) = value else {
            return Ok(Value::Nil);
        };
        Ok(match value.kind {
            None => return Err(WireError::Malformed("a value of a type that is not known")),
            Some(Kind::Text(number)) => Value::String(self.text(number)?),
            Some(Kind::Int(value)) => Value::Int(value),
            Some(Kind::Float(value)) => Value::Float(value),
            Some(Kind::Bool(value)) => Value::Bool(value),
            Some(Kind::Duration(nanos)) => Value::Duration(nanos),
            Some(Kind::Status(code)) => Value::Status(status_of(code.into())),
            Some(Kind::SpanKind(number)) => Value::Kind(kind_of(number.into())),
            Some(Kind::Array(array)) => Value::Array(self.array(array)?),
        })
    }

    fn array(&self, array: wire::Array) -> Result<ArrayValue, WireError> {
        use wire::array::Type;
        let of_type = Type::try_from(array.r#type)
            .map_err(|_| WireError::Malformed("an array of a type that is not known"))?;
        Ok(match of_type {
            Type::Empty => ArrayValue::Empty,
            Type::Texts => ArrayValue::Strings(
                array
                    .texts
                    .into_iter()
                    .map(|number| self.text(number))
                    .collect::<Result<_, _>>()?,
            ),
            Type::Ints => ArrayValue::Ints(array.ints),
            Type::Floats => ArrayValue::Floats(array.floats),
            Type::Bools => ArrayValue::Bools(array.bools),
        })
    }
}
