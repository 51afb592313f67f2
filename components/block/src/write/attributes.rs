//! Generic attributes of one scope (resource, instrumentation scope, span, event or link).

use tempo_model::otlp::{AnyValueRef, ArrayRef, WireError};

use super::{interner::Interner, lanes::ByteLane, unsupported};

/// How the value of an attribute is stored; with [`ARRAY`], how those of its elements are.
pub(super) mod kind {
    /// No attribute: the entry stands for an owner that has none.
    pub(in super::super) const NONE: u8 = 0;
    pub(in super::super) const STRING: u8 = 1;
    pub(in super::super) const INT: u8 = 2;
    pub(in super::super) const DOUBLE: u8 = 3;
    pub(in super::super) const BOOL: u8 = 4;
    pub(in super::super) const UNSUPPORTED: u8 = 5;
    /// An array without elements.
    pub(in super::super) const EMPTY: u8 = 6;
    /// Set beside the others when the value was an array.
    pub(in super::super) const ARRAY: u8 = 8;
    /// What remains of a kind without [`ARRAY`].
    pub(in super::super) const LANE: u8 = 7;
}

/// Attributes in order, their values by type.
#[derive(Debug, Default)]
pub(super) struct AttributeLanes {
    /// One per attribute (and, in a stripe, per owner without any).
    pub(super) kinds: Vec<u8>,
    /// Code of each attribute's key.
    pub(super) keys: Vec<u32>,
    /// Codes of text values.
    pub(super) strings: Vec<u32>,
    pub(super) ints: Vec<i64>,
    pub(super) doubles: Vec<f64>,
    pub(super) bools: Vec<bool>,
    /// Protobuf JSON of the other values.
    pub(super) unsupported: ByteLane,
    /// Elements of each array, empty ones included.
    pub(super) array_lengths: Vec<u32>,
    /// Bit per kind: whether an array of it has more than one element.
    pub(super) long_arrays: u8,
}

impl AttributeLanes {
    /// Appends an attribute.
    #[inline]
    pub(super) fn push(
        &mut self,
        key: u32,
        value: AnyValueRef<'_>,
        values: &mut Interner,
    ) -> Result<(), WireError> {
        let kind = match value {
            AnyValueRef::String(text) => {
                self.strings.push(values.intern_of(key, text));
                kind::STRING
            }
            AnyValueRef::Int(number) => {
                self.ints.push(number);
                kind::INT
            }
            AnyValueRef::Double(number) => {
                self.doubles.push(number);
                kind::DOUBLE
            }
            AnyValueRef::Bool(flag) => {
                self.bools.push(flag);
                kind::BOOL
            }
            other => self.push_other(other, values)?,
        };
        self.kinds.push(kind);
        self.keys.push(key);
        Ok(())
    }

    /// Appends an attribute whose value is a text that has a code.
    #[inline]
    pub(super) fn push_text(&mut self, key: u32, code: u32) {
        self.strings.push(code);
        self.kinds.push(kind::STRING);
        self.keys.push(key);
    }

    #[cold]
    fn push_other(
        &mut self,
        value: AnyValueRef<'_>,
        values: &mut Interner,
    ) -> Result<u8, WireError> {
        if let AnyValueRef::Array(array) = value
            && let Some((lane, length)) = uniform_array(array)?
        {
            for element in array.iter() {
                match element? {
                    AnyValueRef::String(text) => self.strings.push(values.intern(text)),
                    AnyValueRef::Int(number) => self.ints.push(number),
                    AnyValueRef::Double(number) => self.doubles.push(number),
                    AnyValueRef::Bool(flag) => self.bools.push(flag),
                    _ => {}
                }
            }
            self.array_lengths.push(length);
            if length > 1 {
                self.long_arrays |= 1 << lane;
            }
            return Ok(lane | kind::ARRAY);
        }
        let json = unsupported::to_json(value)?;
        self.unsupported.push(json.as_bytes());
        Ok(kind::UNSUPPORTED)
    }

    /// Appends attributes that were gathered elsewhere, with the same dictionaries.
    pub(super) fn extend(&mut self, other: &Self) {
        self.kinds.extend_from_slice(&other.kinds);
        self.keys.extend_from_slice(&other.keys);
        self.strings.extend_from_slice(&other.strings);
        self.ints.extend_from_slice(&other.ints);
        self.doubles.extend_from_slice(&other.doubles);
        self.bools.extend_from_slice(&other.bools);
        self.unsupported.extend(&other.unsupported);
        self.array_lengths.extend_from_slice(&other.array_lengths);
        self.long_arrays |= other.long_arrays;
    }

    /// Keeps the first `entries` kinds and what belongs to them.
    fn truncate(&mut self, entries: usize) {
        self.kinds.truncate(entries);
        let mut counts = [0_usize; 8];
        let (mut attributes, mut arrays) = (0, 0);
        for &kind in &self.kinds {
            let elements = if kind & kind::ARRAY != 0 {
                arrays += 1;
                self.array_lengths[arrays - 1] as usize
            } else {
                1
            };
            counts[usize::from(kind & kind::LANE)] += elements;
            attributes += usize::from(kind != kind::NONE);
        }
        self.keys.truncate(attributes);
        self.strings.truncate(counts[usize::from(kind::STRING)]);
        self.ints.truncate(counts[usize::from(kind::INT)]);
        self.doubles.truncate(counts[usize::from(kind::DOUBLE)]);
        self.bools.truncate(counts[usize::from(kind::BOOL)]);
        self.unsupported
            .truncate(counts[usize::from(kind::UNSUPPORTED)]);
        self.array_lengths.truncate(arrays);
    }

    fn clear(&mut self) {
        self.kinds.clear();
        self.keys.clear();
        self.strings.clear();
        self.ints.clear();
        self.doubles.clear();
        self.bools.clear();
        self.unsupported.clear();
        self.array_lengths.clear();
        self.long_arrays = 0;
    }

    pub(super) fn heap_bytes(&self) -> u64 {
        let bytes = self.kinds.capacity()
            + self.keys.capacity() * 4
            + self.strings.capacity() * 4
            + self.ints.capacity() * 8
            + self.doubles.capacity() * 8
            + self.bools.capacity()
            + self.array_lengths.capacity() * 4;
        bytes as u64 + self.unsupported.heap_bytes()
    }
}

/// The kind of an array's elements and their number, if they are scalars of one type.
pub(super) fn uniform_array(array: ArrayRef<'_>) -> Result<Option<(u8, u32)>, WireError> {
    let mut lane = kind::EMPTY;
    let mut length = 0;
    for element in array.iter() {
        let kind = match element? {
            AnyValueRef::String(_) => kind::STRING,
            AnyValueRef::Int(_) => kind::INT,
            AnyValueRef::Double(_) => kind::DOUBLE,
            AnyValueRef::Bool(_) => kind::BOOL,
            _ => return Ok(None),
        };
        if length > 0 && kind != lane {
            return Ok(None);
        }
        lane = kind;
        length += 1;
    }
    Ok(Some((lane, length)))
}

/// The attributes of a stripe, with the levels of its keys.
#[derive(Debug)]
pub(super) struct AttributeColumns {
    pub(super) lanes: AttributeLanes,
    /// Repetition level of each entry.
    pub(super) reps: Vec<u8>,
    /// Definition level of each entry, as far as the key goes.
    pub(super) defs: Vec<u8>,
    /// Texts of values; lives as long as the row group.
    pub(super) values: Interner,
    /// Levels of an owner; its attributes are one deeper.
    owner_level: u8,
}

impl AttributeColumns {
    pub(super) fn new(owner_level: u8) -> Self {
        Self {
            lanes: AttributeLanes::default(),
            reps: Vec::new(),
            defs: Vec::new(),
            values: Interner::default(),
            owner_level,
        }
    }

    /// An entry for an owner without attributes, or (`def` below the owner's level) for an owner
    /// that does not exist.
    #[inline]
    pub(super) fn push_none(&mut self, rep: u8, def: u8) {
        self.lanes.kinds.push(kind::NONE);
        self.reps.push(rep);
        self.defs.push(def);
    }

    /// Appends the levels of an owner whose attributes were pushed to the lanes since they had
    /// `before` entries.
    #[inline]
    pub(super) fn close_owner(&mut self, rep: u8, before: usize) {
        let count = self.lanes.kinds.len() - before;
        if count == 0 {
            self.push_none(rep, self.owner_level);
            return;
        }
        let level = self.owner_level + 1;
        self.reps.push(rep);
        self.reps.resize(self.reps.len() + count - 1, level);
        self.defs.resize(self.defs.len() + count, level);
    }

    /// Appends an owner with attributes that were gathered before.
    pub(super) fn push_owner(&mut self, rep: u8, attributes: &AttributeLanes) {
        let before = self.lanes.kinds.len();
        self.lanes.extend(attributes);
        self.close_owner(rep, before);
    }

    pub(super) fn entries(&self) -> usize {
        self.lanes.kinds.len()
    }

    pub(super) fn truncate(&mut self, entries: usize) {
        self.lanes.truncate(entries);
        self.reps.truncate(entries);
        self.defs.truncate(entries);
    }

    pub(super) fn clear_stripe(&mut self) {
        self.lanes.clear();
        self.reps.clear();
        self.defs.clear();
    }

    /// Bytes that the largest page will have before compression, roughly.
    pub(super) fn largest_page_bytes(&self) -> usize {
        let lanes = &self.lanes;
        [
            lanes.keys.len() * 3 / 2,
            lanes.strings.len() * 3,
            lanes.ints.len() * 8,
            lanes.doubles.len() * 8,
            lanes.unsupported.bytes.len(),
        ]
        .into_iter()
        .max()
        .unwrap_or(0)
            + lanes.kinds.len()
    }

    pub(super) fn heap_bytes(&self) -> u64 {
        self.lanes.heap_bytes()
            + self.values.heap_bytes()
            + (self.reps.capacity() + self.defs.capacity()) as u64
    }
}
