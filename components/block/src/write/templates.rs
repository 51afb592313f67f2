//! Resources and instrumentation scopes, read once per row group.
//!
//! A few hundred of them stand over all spans, so each message is looked up by its bytes, and what
//! it means for the columns is kept: codes and values, ready to be appended.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use tempo_model::otlp::{AnyValueRef, Fields, KeyValueRef, WireError};

use super::{
    attributes::AttributeLanes,
    columns::{ResourceColumns, ScopeColumns},
    interner::Interner,
    keys::{Cursor, Keys, Route},
    spare::SpareValue,
};

/// Templates are forgotten between traces when they hold more than this: senders with endless
/// resources must not fill the memory.
const MAX_TEMPLATE_BYTES: usize = 16 << 20;

/// A resource or scope, ready to be appended.
#[derive(Debug)]
pub(super) struct Template {
    /// Templates with equal content share it; only valid within a trace.
    pub(super) identity: u32,
    pub(super) dropped_attributes: i32,
    /// Attributes sorted by key.
    pub(super) sorted: AttributeLanes,
    /// Attributes as they were sent, when that differs and matters.
    pub(super) as_sent: Option<AttributeLanes>,
    /// Service name of a resource, name of a scope.
    pub(super) name: u32,
    /// Version of a scope.
    pub(super) version: u32,
    /// Values of the columns of their own, in their order.
    pub(super) spare: Vec<SpareValue>,
}

/// The templates of one kind of message.
#[derive(Debug, Default)]
pub(super) struct Templates {
    by_bytes: HashTable<u32>,
    by_content: HashTable<u32>,
    messages: Arena,
    contents: Arena,
    templates: Vec<Template>,
    hasher: RandomState,
    bytes: usize,
}

/// Byte strings by number.
#[derive(Debug, Default)]
struct Arena {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Arena {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
    }

    #[inline]
    fn get(&self, number: u32) -> &[u8] {
        let number = number as usize;
        let start = match number {
            0 => 0,
            _ => self.ends[number - 1],
        };
        &self.bytes[start..self.ends[number]]
    }
}

impl Templates {
    #[inline]
    pub(super) fn get(&self, template: u32) -> &Template {
        &self.templates[template as usize]
    }

    /// The template of a message that was read before.
    #[inline]
    fn find(&self, hash: u64, message: &[u8]) -> Option<u32> {
        self.by_bytes
            .find(hash, |&other| self.messages.get(other) == message)
            .copied()
    }

    fn add(&mut self, hash: u64, message: &[u8], mut template: Template) -> u32 {
        let Self {
            by_bytes,
            by_content,
            messages,
            contents,
            hasher,
            ..
        } = self;
        let number = self.templates.len() as u32;
        let content = content_of(&template);
        let content_hash = hasher.hash_one(content.as_slice());
        let first = by_content.find(content_hash, |&other| contents.get(other) == content);
        template.identity = first.copied().unwrap_or(number);
        messages.push(message);
        contents.push(&content);
        by_bytes.insert_unique(hash, number, |&other| hasher.hash_one(messages.get(other)));
        if template.identity == number {
            by_content.insert_unique(content_hash, number, |&other| {
                hasher.hash_one(contents.get(other))
            });
        }
        self.bytes += message.len() + 3 * content.len() + size_of::<Template>();
        self.templates.push(template);
        number
    }

    /// To be called between traces.
    pub(super) fn trim(&mut self) {
        if self.bytes > MAX_TEMPLATE_BYTES {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self {
            hasher: std::mem::take(&mut self.hasher),
            ..Self::default()
        };
    }

    pub(super) fn heap_bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// The template of a `Resource` message.
    pub(super) fn resource(
        &mut self,
        message: &[u8],
        columns: &mut ResourceColumns,
    ) -> Result<u32, WireError> {
        let hash = self.hasher.hash_one(message);
        if let Some(known) = self.find(hash, message) {
            return Ok(known);
        }
        let template = read_resource(message, columns).inspect_err(|_| {
            for column in &mut columns.spare {
                column.forget_open();
            }
        })?;
        Ok(self.add(hash, message, template))
    }

    /// The template of an `InstrumentationScope` message.
    pub(super) fn scope(
        &mut self,
        message: &[u8],
        columns: &mut ScopeColumns,
    ) -> Result<u32, WireError> {
        let hash = self.hasher.hash_one(message);
        if let Some(known) = self.find(hash, message) {
            return Ok(known);
        }
        let template = read_scope(message, columns)?;
        Ok(self.add(hash, message, template))
    }
}

/// All that makes two resources or scopes equal, as bytes. Dropped counts do not.
fn content_of(template: &Template) -> Vec<u8> {
    let mut content = Vec::new();
    let mut number = |value: u64| content.extend_from_slice(&value.to_le_bytes());
    number(u64::from(template.name));
    number(u64::from(template.version));
    for value in &template.spare {
        number((value.codes.len() + value.ints.len()) as u64);
        value.codes.iter().for_each(|&code| number(u64::from(code)));
        value.ints.iter().for_each(|&int| number(int as u64));
    }
    let lanes = &template.sorted;
    number(lanes.keys.len() as u64);
    // Keys and kinds tell where in each lane the values of an attribute stand.
    lanes.keys.iter().for_each(|&key| number(u64::from(key)));
    lanes.kinds.iter().for_each(|&kind| number(u64::from(kind)));
    lanes
        .array_lengths
        .iter()
        .for_each(|&n| number(u64::from(n)));
    lanes
        .strings
        .iter()
        .for_each(|&code| number(u64::from(code)));
    lanes.ints.iter().for_each(|&int| number(int as u64));
    lanes
        .doubles
        .iter()
        .for_each(|&double| number(double.to_bits()));
    lanes.bools.iter().for_each(|&flag| number(u64::from(flag)));
    lanes
        .unsupported
        .lengths
        .iter()
        .for_each(|&length| number(length as u64));
    content.extend_from_slice(&lanes.unsupported.bytes);
    content
}

fn read_resource(message: &[u8], columns: &mut ResourceColumns) -> Result<Template, WireError> {
    let mut dropped_attributes = 0;
    let mut service: &[u8] = &[];
    let mut generic: Vec<(u32, KeyValueRef<'_>)> = Vec::new();
    let mut cursor = Cursor::START;
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => {
                let attribute = KeyValueRef::parse(field.message()?)?;
                let key = columns.keys.find(attribute.key, &mut cursor);
                let taken = match (columns.keys.route(key), attribute.value) {
                    (Route::ServiceName, AnyValueRef::String(text)) => {
                        service = text;
                        true
                    }
                    (Route::Dedicated(at), value) => columns.spare[usize::from(at)].offer(value)?,
                    _ => false,
                };
                if !taken {
                    generic.push((key, attribute));
                }
            }
            2 => dropped_attributes = field.varint()? as i32,
            _ => {}
        }
    }
    generic.sort_by_key(|(_, attribute)| attribute.key);
    let sorted = gather(&generic, &mut columns.keys, &mut columns.attributes.values)?;
    Ok(Template {
        identity: 0,
        dropped_attributes,
        sorted,
        as_sent: None,
        name: columns.services.dict.intern(service),
        version: 0,
        spare: columns
            .spare
            .iter_mut()
            .map(|column| column.take_open())
            .collect(),
    })
}

fn read_scope(message: &[u8], columns: &mut ScopeColumns) -> Result<Template, WireError> {
    let mut dropped_attributes = 0;
    let (mut name, mut version): (&[u8], &[u8]) = (&[], &[]);
    let mut generic: Vec<(u32, KeyValueRef<'_>)> = Vec::new();
    let mut cursor = Cursor::START;
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => name = field.message()?,
            2 => version = field.message()?,
            3 => {
                let attribute = KeyValueRef::parse(field.message()?)?;
                let key = columns.keys.find(attribute.key, &mut cursor);
                generic.push((key, attribute));
            }
            4 => dropped_attributes = field.varint()? as i32,
            _ => {}
        }
    }
    let values = &mut columns.attributes.values;
    let as_sent = if generic.is_sorted_by_key(|(_, attribute)| attribute.key) {
        None
    } else {
        Some(gather(&generic, &mut columns.keys, values)?)
    };
    generic.sort_by_key(|(_, attribute)| attribute.key);
    let sorted = gather(&generic, &mut columns.keys, values)?;
    Ok(Template {
        identity: 0,
        dropped_attributes,
        sorted,
        as_sent,
        name: columns.names.dict.intern(name),
        version: columns.versions.dict.intern(version),
        spare: Vec::new(),
    })
}

fn gather(
    attributes: &[(u32, KeyValueRef<'_>)],
    keys: &mut Keys,
    values: &mut Interner,
) -> Result<AttributeLanes, WireError> {
    let mut lanes = AttributeLanes::default();
    for (key, attribute) in attributes {
        lanes.push(keys.generic_code(*key), attribute.value, values)?;
    }
    Ok(lanes)
}
