//! Columns that belong to one attribute each: dedicated ones, and vParquet4's well-known ones.

use tempo_model::otlp::{AnyValueRef, ArrayRef, WireError};

use super::{
    attributes::{kind, uniform_array},
    interner::{Interner, NO_GROUP},
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
    /// Values of the owner that is being read; they are the last of the lanes.
    open: usize,
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
            open: 0,
        }
    }

    /// Whether the owner that is being read has a value.
    #[inline]
    pub(super) fn has_value(&self) -> bool {
        self.open > 0
    }

    /// Whether a text would be the owner's first value.
    #[inline]
    pub(super) fn awaits_text(&self) -> bool {
        !self.is_int && !self.has_value()
    }

    /// Takes the code of the owner's first text.
    #[inline]
    pub(super) fn push_first_code(&mut self, code: u32) {
        self.codes.push(code);
        self.open = 1;
    }

    /// Takes a value of the owner that is being read, in place of an earlier one. `false` when the
    /// type does not fit: then it is a generic attribute.
    #[inline]
    pub(super) fn offer(&mut self, value: AnyValueRef<'_>) -> Result<bool, WireError> {
        match value {
            AnyValueRef::String(text) if !self.is_int => {
                let code = self.dict.intern_of(NO_GROUP, text);
                self.drop_open();
                self.codes.push(code);
                self.open = 1;
                Ok(true)
            }
            AnyValueRef::Int(number) if self.is_int => {
                self.drop_open();
                self.ints.push(number);
                self.open = 1;
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
        let length = match uniform_array(array)? {
            Some((lane, length)) if lane == wanted || lane == kind::EMPTY => length,
            _ => return Ok(false),
        };
        self.drop_open();
        for element in array.iter() {
            match element? {
                AnyValueRef::String(text) => self.codes.push(self.dict.intern(text)),
                AnyValueRef::Int(number) => self.ints.push(number),
                _ => {}
            }
        }
        self.open = length as usize;
        Ok(true)
    }

    #[inline]
    fn drop_open(&mut self) {
        if self.open > 0 {
            self.forget_open();
        }
    }

    /// Forgets the owner that is being read.
    #[cold]
    pub(super) fn forget_open(&mut self) {
        if self.is_int {
            self.ints.truncate(self.ints.len() - self.open);
        } else {
            self.codes.truncate(self.codes.len() - self.open);
        }
        self.open = 0;
    }

    /// Ends the owner that is being read.
    #[inline]
    pub(super) fn commit(&mut self) {
        self.counts.push(self.open as u32);
        self.repeats |= self.open > 1;
        self.open = 0;
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
    pub(super) fn take_open(&mut self) -> SpareValue {
        let open = std::mem::take(&mut self.open);
        let mut value = SpareValue::default();
        if self.is_int {
            value.ints = self.ints.split_off(self.ints.len() - open);
        } else {
            value.codes = self.codes.split_off(self.codes.len() - open);
        }
        value
    }

    pub(super) fn truncate(&mut self, owners: usize) {
        self.open = 0;
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
