//! Where the values of one leaf gather before they become a page.

use crate::{
    schema::{Leaf, LeafEncoding, LeafType},
    write::{interner::Interner, lanes::ByteLane, values::Values},
};

/// Values of one leaf, in the form of its type. Reused from leaf to leaf.
#[derive(Debug, Default)]
pub(super) struct Lane {
    numbers: Vec<i64>,
    bools: Vec<bool>,
    bytes: ByteLane,
    codes: Vec<u32>,
    unsigned: Vec<u64>,
    doubles: Vec<f64>,
    narrow: Vec<i32>,
    narrow_unsigned: Vec<u32>,
}

/// Takes the values of a leaf.
pub(super) enum Sink<'a> {
    /// Integers, and doubles as their bits.
    Numbers(&'a mut Vec<i64>),
    Bools(&'a mut Vec<bool>),
    Bytes(&'a mut ByteLane),
    Codes {
        codes: &'a mut Vec<u32>,
        dict: &'a mut Interner,
        /// Number of the row group that the dictionary belongs to.
        row_group: u64,
    },
}

impl Lane {
    pub(super) fn clear(&mut self) {
        self.numbers.clear();
        self.bools.clear();
        self.bytes.clear();
        self.codes.clear();
    }

    /// What takes the values of a leaf.
    pub(super) fn sink<'a>(
        &'a mut self,
        leaf: &Leaf,
        dict: &'a mut Interner,
        row_group: u64,
    ) -> Sink<'a> {
        match leaf.value_type {
            LeafType::Text | LeafType::Bytes if leaf.encoding == LeafEncoding::Dictionary => {
                Sink::Codes {
                    codes: &mut self.codes,
                    dict,
                    row_group,
                }
            }
            LeafType::Text | LeafType::Bytes => Sink::Bytes(&mut self.bytes),
            LeafType::Bool => Sink::Bools(&mut self.bools),
            _ => Sink::Numbers(&mut self.numbers),
        }
    }

    /// The values that were taken, as the writer wants them.
    pub(super) fn values<'a>(&'a mut self, leaf: &Leaf, dict: &'a Interner) -> Values<'a> {
        let numbers = self.numbers.iter();
        match leaf.value_type {
            LeafType::Text | LeafType::Bytes if leaf.encoding == LeafEncoding::Dictionary => {
                Values::Codes(&self.codes, dict)
            }
            LeafType::Text | LeafType::Bytes => Values::Bytes(&self.bytes),
            LeafType::Bool => Values::Bool(&self.bools),
            LeafType::I64 => Values::I64(&self.numbers),
            LeafType::U64 => {
                self.unsigned.clear();
                self.unsigned.extend(numbers.map(|&value| value as u64));
                Values::U64(&self.unsigned)
            }
            LeafType::F64 => {
                self.doubles.clear();
                self.doubles
                    .extend(numbers.map(|&bits| f64::from_bits(bits as u64)));
                Values::F64(&self.doubles)
            }
            LeafType::I32 => {
                self.narrow.clear();
                self.narrow.extend(numbers.map(|&value| value as i32));
                Values::I32(&self.narrow)
            }
            LeafType::U32 => {
                self.narrow_unsigned.clear();
                self.narrow_unsigned
                    .extend(numbers.map(|&value| value as u32));
                Values::U32(&self.narrow_unsigned)
            }
        }
    }
}
