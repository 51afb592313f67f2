//! Which group each span belongs to.
//!
//! Spans are split by one attribute after the other: a group and a value make a new group, found by
//! index as long as there are not too many pairs of them, else by hash.

use hashbrown::HashMap;
use tempo_table::ABSENT;

use super::{
    encode::{Encoded, Values},
    selected::Selected,
};
use crate::{error::EngineError, value::Value};

/// The group of spans that belong to none.
pub(crate) const NO_GROUP: u32 = u32::MAX;

/// Up to so many pairs of group and value are found by index.
const MAX_INDEXED_PAIRS: usize = 1 << 21;

/// What becomes of spans without a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nil {
    /// They are a group.
    Counts,
    /// They belong to no group.
    Drops,
}

/// The selected spans in groups.
pub(crate) struct Groups {
    /// Per span; all in group 0 when `None`.
    ids: Option<Vec<u32>>,
    len: usize,
    splits: Vec<Split>,
    /// There were more groups than there may be.
    pub(crate) is_truncated: bool,
}

/// How groups were split.
struct Split {
    values: Values,
    /// For each group the one it was part of, and its value.
    pairs: Vec<(u32, u32)>,
}

/// Numbers pairs in the order in which they are first seen.
enum PairNumbers {
    Indexed { numbers: Vec<u32>, width: usize },
    Hashed(HashMap<(u32, u32), u32, foldhash::fast::RandomState>),
}

impl PairNumbers {
    fn slot(&mut self, group: u32, code: u32) -> &mut u32 {
        match self {
            Self::Indexed { numbers, width } => {
                // The last column is for spans without a value.
                &mut numbers[group as usize * *width + (code as usize).min(*width - 1)]
            }
            Self::Hashed(numbers) => numbers.entry((group, code)).or_insert(NO_GROUP),
        }
    }
}

impl Groups {
    /// All spans in one group.
    pub(crate) fn one() -> Self {
        Self {
            ids: None,
            len: 1,
            splits: Vec::new(),
            is_truncated: false,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The group of each span, [`NO_GROUP`] for those without; `None` when all are in group 0.
    pub(crate) fn ids(&self) -> Option<&[u32]> {
        self.ids.as_deref()
    }

    /// The group of a span.
    pub(crate) fn of(&self, number: usize) -> Option<usize> {
        match &self.ids {
            None => Some(0),
            Some(ids) => Some(ids[number])
                .filter(|&id| id != NO_GROUP)
                .map(|id| id as usize),
        }
    }

    /// Splits every group by value, into `max_groups` at most.
    pub(crate) fn split(
        &mut self,
        selected: &Selected<'_>,
        by: Encoded,
        nil: Nil,
        max_groups: usize,
    ) -> Result<(), EngineError> {
        let width = by.values.len() + 1;
        let mut numbers = match self.len.checked_mul(width) {
            Some(pairs) if pairs <= MAX_INDEXED_PAIRS => PairNumbers::Indexed {
                numbers: vec![NO_GROUP; pairs],
                width,
            },
            _ => PairNumbers::Hashed(HashMap::default()),
        };
        let mut pairs: Vec<(u32, u32)> = Vec::new();
        let mut truncated = false;
        let mut number = |group: u32, code: u32| {
            if code == ABSENT && nil == Nil::Drops {
                return NO_GROUP;
            }
            let slot = numbers.slot(group, code);
            if *slot == NO_GROUP {
                if pairs.len() >= max_groups {
                    truncated = true;
                    return NO_GROUP;
                }
                *slot = pairs.len() as u32;
                pairs.push((group, code));
            }
            *slot
        };
        match &mut self.ids {
            Some(ids) => by.for_each(selected, |at, code| {
                if ids[at] != NO_GROUP {
                    ids[at] = number(ids[at], code);
                }
            })?,
            None => {
                let mut ids = Vec::with_capacity(selected.len());
                by.for_each(selected, |_, code| ids.push(number(0, code)))?;
                self.ids = Some(ids);
            }
        }
        self.len = pairs.len();
        self.is_truncated |= truncated;
        self.splits.push(Split {
            values: by.values,
            pairs,
        });
        Ok(())
    }

    /// The values that make a group, in the order of the splits.
    pub(crate) fn values(&self, group: usize) -> Vec<Value> {
        let mut values = Vec::with_capacity(self.splits.len());
        let mut group = group as u32;
        for split in self.splits.iter().rev() {
            let (parent, code) = split.pairs[group as usize];
            values.push(split.values.get(code));
            group = parent;
        }
        values.reverse();
        values
    }

    /// The number of a group's last value.
    pub(crate) fn last_code(&self, group: usize) -> Option<u32> {
        Some(self.splits.last()?.pairs.get(group)?.1)
    }
}
