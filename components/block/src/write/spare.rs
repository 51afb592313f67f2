//! Columns that belong to one attribute each: dedicated ones, and vParquet4's well-known ones.

use tempo_model::otlp::{AnyValueRef, ArrayRef, WireError};

use super::{
    attributes::{kind, uniform_array},
    interner::Interner,
    wire::is_same,
};

/// One such column of a stripe.
#[derive(Debug)]
pub(super) struct SpareColumn {
    /// Position of its leaf in the schema.
    pub(super) leaf: usize,
    /// Whether it holds integers; the others hold text.
    pub(super) is_int: bool,
    /// Whether an owner may have several values.
    takes_arrays: bool,
    /// Whether texts go to the data pages themselves, not to a dictionary.
    pub(super) blob: bool,
    /// Texts; of a column without dictionary, only those of the stripe.
    pub(super) dict: Interner,
    /// Values of each owner.
    pub(super) counts: Vec<u32>,
    /// Codes of all texts.
    pub(super) codes: Vec<u32>,
    /// All integers.
    pub(super) ints: Vec<i64>,
    /// Whether an owner has more than one value.
    pub(super) repeats: bool,
    /// Values of the owner that is being read.
    pending: SpareValue,
}

/// What one owner has in one column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct SpareValue {
    pub(super) codes: Vec<u32>,
    pub(super) ints: Vec<i64>,
}

impl SpareColumn {
    pub(super) fn new(leaf: usize, is_int: bool, takes_arrays: bool, blob: bool) -> Self {
        Self {
            leaf,
            is_int,
            takes_arrays,
            blob,
            dict: Interner::default(),
            counts: Vec::new(),
            codes: Vec::new(),
            ints: Vec::new(),
            repeats: false,
            pending: SpareValue::default(),
        }
    }

    /// Takes a value of the owner that is being read, in place of an earlier one. `false` when the
    /// type does not fit: then it is a generic attribute.
    #[inline]
    pub(super) fn offer(&mut self, value: AnyValueRef<'_>) -> Result<bool, WireError> {
        match value {
            AnyValueRef::String(text) if !self.is_int => {
                self.pending.codes.clear();
                let code = match self.codes.last() {
                    Some(&last) if is_same(self.dict.bytes(last), text) => last,
                    _ => self.dict.intern(text),
                };
                self.pending.codes.push(code);
                Ok(true)
            }
            AnyValueRef::Int(number) if self.is_int => {
                self.pending.ints.clear();
                self.pending.ints.push(number);
                Ok(true)
            }
            AnyValueRef::Array(array) if self.takes_arrays => self.offer_array(array),
            _ => Ok(false),
        }
    }

    /// Arrays of the column's type are taken as their elements; an empty one leaves nothing.
    #[cold]
    fn offer_array(&mut self, array: ArrayRef<'_>) -> Result<bool, WireError> {
        let wanted = if self.is_int { kind::INT } else { kind::STRING };
        match uniform_array(array)? {
            Some((lane, _)) if lane == wanted || lane == kind::EMPTY => {}
            _ => return Ok(false),
        }
        self.pending.codes.clear();
        self.pending.ints.clear();
        for element in array.iter() {
            match element? {
                AnyValueRef::String(text) => self.pending.codes.push(self.dict.intern(text)),
                AnyValueRef::Int(number) => self.pending.ints.push(number),
                _ => {}
            }
        }
        Ok(true)
    }

    /// Ends the owner that is being read.
    #[inline]
    pub(super) fn commit(&mut self) {
        let count = self.pending.codes.len() + self.pending.ints.len();
        self.counts.push(count as u32);
        if count > 0 {
            self.codes.append(&mut self.pending.codes);
            self.ints.append(&mut self.pending.ints);
            self.repeats |= count > 1;
        }
    }

    /// An owner without a value.
    pub(super) fn push_none(&mut self) {
        self.counts.push(0);
    }

    /// An owner whose value was gathered before.
    pub(super) fn push(&mut self, value: &SpareValue) {
        let count = value.codes.len() + value.ints.len();
        self.counts.push(count as u32);
        self.codes.extend_from_slice(&value.codes);
        self.ints.extend_from_slice(&value.ints);
        self.repeats |= count > 1;
    }

    /// Takes the value of the owner that is being read, without ending it.
    pub(super) fn take_pending(&mut self) -> SpareValue {
        std::mem::take(&mut self.pending)
    }

    pub(super) fn truncate(&mut self, owners: usize) {
        self.pending = SpareValue::default();
        self.counts.truncate(owners);
        let values = self.counts.iter().map(|&count| count as usize).sum();
        self.codes.truncate(values);
        self.ints.truncate(values);
    }

    pub(super) fn clear_stripe(&mut self) {
        self.counts.clear();
        self.codes.clear();
        self.ints.clear();
        self.repeats = false;
    }

    /// Bytes that the next page will have before compression, roughly.
    pub(super) fn page_bytes(&self) -> usize {
        let texts = if self.blob {
            self.dict.plain().len()
        } else {
            self.codes.len() * 3
        };
        texts.max(self.ints.len() * 8)
    }

    pub(super) fn heap_bytes(&self) -> u64 {
        let lanes = self.counts.capacity() * 4 + self.codes.capacity() * 4;
        (lanes + self.ints.capacity() * 8) as u64 + self.dict.heap_bytes()
    }
}
