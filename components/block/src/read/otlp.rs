//! Stored traces as OTLP bytes.
//!
//! Owns the rules by which Tempo gives a row back (`ParquetTraceToTempopbTrace`): the order of
//! attributes, what an absent value means, end times. The answer is a serialized `tempopb.Trace`;
//! no message objects are built.

use std::convert::Infallible;

use tempo_model::otlp::{write_len_prefixed, write_message, write_varint};

use super::{
    any_json,
    records::{Attributes, GenericAttributes, OwnAttribute, OwnValues, Records},
    structure::span_of,
    view::SERVICE_NAME,
};

/// Appends a message whose content `write` appends.
fn message(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let Ok(()) = write_message(out, number, |out| {
        write(out);
        Ok::<(), Infallible>(())
    });
}

/// Appends text or bytes unless empty.
fn bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    if !value.is_empty() {
        write_len_prefixed(out, number, value);
    }
}

/// Appends an integer unless it is 0.
fn varint(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        write_varint(out, u64::from(number) << 3);
        write_varint(out, value);
    }
}

fn fixed64(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        write_varint(out, u64::from(number) << 3 | 1);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// A value of an attribute.
enum Value<'a> {
    Text(&'a [u8]),
    Int(i64),
    Double(f64),
    Bool(bool),
}

impl Value<'_> {
    /// Appends the content of an `AnyValue`: the field is there even for empty text or 0.
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => write_len_prefixed(out, 1, text),
            Self::Bool(value) => out.extend([2 << 3, u8::from(*value)]),
            Self::Int(value) => {
                out.push(3 << 3);
                write_varint(out, *value as u64);
            }
            Self::Double(value) => {
                out.push(4 << 3 | 1);
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
    }
}

/// Appends the content of an `AnyValue` that is an array.
fn write_array<'a>(out: &mut Vec<u8>, elements: impl Iterator<Item = Value<'a>>) {
    message(out, 5, |out| {
        for element in elements {
            message(out, 1, |out| element.write(out));
        }
    });
}

fn key_value(out: &mut Vec<u8>, number: u32, key: &[u8], value: impl FnOnce(&mut Vec<u8>)) {
    message(out, number, |out| {
        bytes(out, 1, key);
        message(out, 2, value);
    });
}

impl GenericAttributes {
    /// Appends the attributes of an owner.
    fn write(&self, out: &mut Vec<u8>, number: u32, owner: usize, keeps_empty: bool) {
        for at in self.owned.of(owner) {
            let Some(&slot) = self.owned.values.get(at) else {
                continue;
            };
            let key = self.name(slot);
            if self.is_array(slot) {
                key_value(out, number, key, |out| self.write_array(out, at));
            } else if let Some(value) = self.scalar(at) {
                key_value(out, number, key, |out| value.write(out));
            } else if let Some(json) = self.unsupported.of(at).next() {
                let json = self.unsupported.values.get(json);
                key_value(out, number, key, |out| any_json::write(json, out));
            } else if keeps_empty {
                key_value(out, number, key, |_| {});
            }
        }
    }

    fn scalar(&self, at: usize) -> Option<Value<'_>> {
        if let Some(value) = self.strings.of(at).next() {
            return Some(Value::Text(self.strings.values.get(value)));
        }
        if let Some(&value) = self
            .ints
            .values
            .get(self.ints.of(at))
            .and_then(<[_]>::first)
        {
            return Some(Value::Int(value));
        }
        let doubles = self.doubles.values.get(self.doubles.of(at));
        if let Some(&bits) = doubles.and_then(<[_]>::first) {
            return Some(Value::Double(f64::from_bits(bits as u64)));
        }
        let bools = self.bools.values.get(self.bools.of(at));
        bools
            .and_then(<[_]>::first)
            .map(|&value| Value::Bool(value))
    }

    /// Appends the elements of the first leaf that has any.
    fn write_array(&self, out: &mut Vec<u8>, at: usize) {
        let strings = self.strings.of(at);
        let ints = self.ints.values.get(self.ints.of(at)).unwrap_or_default();
        let doubles = self
            .doubles
            .values
            .get(self.doubles.of(at))
            .unwrap_or_default();
        let bools = self.bools.values.get(self.bools.of(at)).unwrap_or_default();
        if !strings.is_empty() {
            let texts = &self.strings.values;
            write_array(out, strings.map(|value| Value::Text(texts.get(value))));
        } else if !ints.is_empty() {
            write_array(out, ints.iter().map(|&value| Value::Int(value)));
        } else if !doubles.is_empty() {
            let doubles = doubles.iter().map(|&bits| f64::from_bits(bits as u64));
            write_array(out, doubles.map(Value::Double));
        } else {
            write_array(out, bools.iter().map(|&value| Value::Bool(value)));
        }
    }
}

impl OwnAttribute {
    /// Appends the attribute of an owner: no value is no attribute, several are an array.
    fn write(&self, out: &mut Vec<u8>, number: u32, owner: usize) {
        let value = |at| match &self.values {
            OwnValues::Texts(texts) => Value::Text(texts.values.get(at)),
            OwnValues::Ints(ints) => Value::Int(ints.values.get(at).copied().unwrap_or(0)),
        };
        let values = match &self.values {
            OwnValues::Texts(texts) => texts.of(owner),
            OwnValues::Ints(ints) => ints.of(owner),
        };
        match values.len() {
            0 => {}
            1 => key_value(out, number, self.name.as_bytes(), |out| {
                value(values.start).write(out);
            }),
            _ => key_value(out, number, self.name.as_bytes(), |out| {
                write_array(out, values.map(value));
            }),
        }
    }
}

impl Attributes {
    fn write(
        &self,
        out: &mut Vec<u8>,
        number: u32,
        owner: usize,
        service_name: &[u8],
        keeps_empty: bool,
    ) {
        if let Some(generic) = &self.generic {
            generic.write(out, number, owner, keeps_empty);
        }
        for attribute in &self.dedicated {
            attribute.write(out, number, owner);
        }
        if !service_name.is_empty() {
            key_value(out, number, SERVICE_NAME.as_bytes(), |out| {
                Value::Text(service_name).write(out);
            });
        }
        for attribute in &self.well_known {
            attribute.write(out, number, owner);
        }
    }

    fn dropped(&self, owner: usize) -> u64 {
        u64::from(self.dropped.get(owner).copied().unwrap_or(0) as u32)
    }
}

/// One of a leaf's integers, as the unsigned number that was stored.
fn number(values: &[i64], row: usize) -> u64 {
    values.get(row).copied().unwrap_or(0) as u64
}

impl Records {
    /// The stored id of a trace.
    pub(crate) fn trace_id(&self, trace: usize) -> tempo_model::TraceId {
        tempo_model::TraceId::from_padded(self.trace_ids.get(trace))
    }

    /// Appends a trace as a serialized `tempopb.Trace`.
    pub(crate) fn write(&self, trace: usize, out: &mut Vec<u8>) {
        let id = self.trace_id(trace);
        for resource in span_of(&self.structure.trace_resources, trace) {
            message(out, 1, |out| {
                message(out, 1, |out| self.write_resource(resource, out));
                for scope in span_of(&self.structure.resource_scopes, resource) {
                    message(out, 2, |out| {
                        message(out, 1, |out| self.write_scope(scope, out));
                        for span in span_of(&self.structure.scope_spans, scope) {
                            message(out, 2, |out| self.write_span(span, id.as_bytes(), out));
                        }
                    });
                }
            });
        }
    }

    fn write_resource(&self, row: usize, out: &mut Vec<u8>) {
        let service = self.service_names.get(row);
        let keeps_empty = self.keeps_empty_attributes;
        self.resources.write(out, 1, row, service, keeps_empty);
        varint(out, 2, self.resources.dropped(row));
    }

    fn write_scope(&self, row: usize, out: &mut Vec<u8>) {
        bytes(out, 1, self.scope_names.get(row));
        bytes(out, 2, self.scope_versions.get(row));
        self.scopes
            .write(out, 3, row, &[], self.keeps_empty_attributes);
        varint(out, 4, self.scopes.dropped(row));
    }

    fn write_span(&self, row: usize, trace_id: &[u8], out: &mut Vec<u8>) {
        let start = number(&self.starts, row);
        bytes(out, 1, trace_id);
        bytes(out, 2, self.span_ids.get(row));
        bytes(out, 3, self.trace_states.get(row));
        bytes(out, 4, self.parent_ids.get(row));
        bytes(out, 5, self.span_names.get(row));
        varint(out, 6, number(&self.kinds, row));
        fixed64(out, 7, start);
        fixed64(out, 8, start.wrapping_add(number(&self.durations, row)));
        self.spans
            .write(out, 9, row, &[], self.keeps_empty_attributes);
        varint(out, 10, self.spans.dropped(row));
        for event in span_of(&self.events, row) {
            message(out, 11, |out| self.write_event(event, start, out));
        }
        varint(out, 12, u64::from(number(&self.dropped_events, row) as u32));
        for link in span_of(&self.links, row) {
            message(out, 13, |out| self.write_link(link, out));
        }
        varint(out, 14, u64::from(number(&self.dropped_links, row) as u32));
        message(out, 15, |out| {
            bytes(out, 2, self.status_messages.get(row));
            varint(out, 3, number(&self.status_codes, row));
        });
    }

    fn write_event(&self, row: usize, span_start: u64, out: &mut Vec<u8>) {
        let time = span_start.wrapping_add(number(&self.event_offsets, row));
        fixed64(out, 1, time);
        bytes(out, 2, self.event_names.get(row));
        self.event_attributes
            .write(out, 3, row, &[], self.keeps_empty_attributes);
        varint(out, 4, self.event_attributes.dropped(row));
    }

    fn write_link(&self, row: usize, out: &mut Vec<u8>) {
        bytes(out, 1, self.link_trace_ids.get(row));
        bytes(out, 2, self.link_span_ids.get(row));
        bytes(out, 3, self.link_trace_states.get(row));
        self.link_attributes
            .write(out, 4, row, &[], self.keeps_empty_attributes);
        varint(out, 5, self.link_attributes.dropped(row));
    }
}
