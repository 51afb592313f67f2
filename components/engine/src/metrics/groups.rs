//! Which group each span belongs to.
//!
//! Spans are split by one attribute after the other: a group and a value make a new group. While
//! groups and values are few, every pair of them is one; of more pairs those are groups that occur,
//! found by index or, of very many, by hash.

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

/// Up to so many counters all pairs are groups, and nothing needs to be found: they fit a cache near
/// the core.
const MAX_CHEAP_CELLS: usize = 1 << 19;

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

    /// Splits every group by value, into `max_groups` at most. There will be `cells_per_group`
    /// counters for each group.
    pub(crate) fn split(
        &mut self,
        selected: &Selected<'_>,
        by: Encoded,
        nil: Nil,
        max_groups: usize,
        cells_per_group: usize,
    ) -> Result<(), EngineError> {
        let width = by.values.len() + usize::from(nil == Nil::Counts);
        let all = self.len.saturating_mul(width);
        let pairs = if all <= max_groups && all.saturating_mul(cells_per_group) <= MAX_CHEAP_CELLS {
            self.split_by_product(selected, &by, nil, width)?
        } else {
            let mut numbers = PairNumbers::new(self.len, by.values.len() + 1, max_groups);
            match &mut numbers.known {
                Known::Indexed(_) => self.renumber(selected, &by, nil, |group, code| {
                    numbers.by_index(group, code)
                })?,
                Known::Hashed(_) => self.renumber(selected, &by, nil, |group, code| {
                    numbers.by_hash(group, code)
                })?,
            }
            self.is_truncated |= numbers.is_truncated;
            numbers.pairs
        };
        self.len = pairs.len();
        self.splits.push(Split {
            values: by.values,
            pairs,
        });
        Ok(())
    }

    /// Every pair of a group and a value is a group, whether spans have it or not.
    fn split_by_product(
        &mut self,
        selected: &Selected<'_>,
        by: &Encoded,
        nil: Nil,
        width: usize,
    ) -> Result<Vec<(u32, u32)>, EngineError> {
        let values = by.values.len() as u32;
        let width = width as u32;
        match nil {
            // The last of a group's values stands for none.
            Nil::Counts => self.renumber(selected, by, nil, |group, code| {
                group * width + code.min(values)
            })?,
            Nil::Drops => self.renumber(selected, by, nil, |group, code| group * width + code)?,
        }
        let of_group = |group: u32| {
            (0..width).map(move |code| (group, if code == values { ABSENT } else { code }))
        };
        Ok((0..self.len as u32).flat_map(of_group).collect())
    }

    /// Gives every span another group, by its old one and its value.
    #[inline]
    fn renumber(
        &mut self,
        selected: &Selected<'_>,
        by: &Encoded,
        nil: Nil,
        mut number: impl FnMut(u32, u32) -> u32,
    ) -> Result<(), EngineError> {
        let mut renumbered = |group: u32, code: u32| match code {
            ABSENT if nil == Nil::Drops => NO_GROUP,
            code => number(group, code),
        };
        match &mut self.ids {
            None => self.ids = Some(by.map(selected, |code| renumbered(0, code))?),
            Some(ids) => by.for_each(selected, |at, code| {
                let id = &mut ids[at];
                if *id != NO_GROUP {
                    *id = renumbered(*id, code);
                }
            })?,
        }
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

/// Numbers pairs of a group and a value in the order in which they are first seen.
struct PairNumbers {
    known: Known,
    /// Values of a group, none at all included.
    width: usize,
    pairs: Vec<(u32, u32)>,
    max_pairs: usize,
    is_truncated: bool,
}

enum Known {
    Indexed(Vec<u32>),
    Hashed(HashMap<(u32, u32), u32, foldhash::fast::RandomState>),
}

impl PairNumbers {
    fn new(groups: usize, width: usize, max_pairs: usize) -> Self {
        Self {
            known: match groups.checked_mul(width) {
                Some(pairs) if pairs <= MAX_INDEXED_PAIRS => Known::Indexed(vec![NO_GROUP; pairs]),
                _ => Known::Hashed(HashMap::default()),
            },
            width,
            pairs: Vec::new(),
            max_pairs,
            is_truncated: false,
        }
    }

    #[inline]
    fn by_index(&mut self, group: u32, code: u32) -> u32 {
        let Known::Indexed(numbers) = &mut self.known else {
            return self.by_hash(group, code);
        };
        let place = group as usize * self.width + (code as usize).min(self.width - 1);
        if numbers[place] != NO_GROUP {
            return numbers[place];
        }
        if self.pairs.len() >= self.max_pairs {
            self.is_truncated = true;
            return NO_GROUP;
        }
        numbers[place] = self.pairs.len() as u32;
        self.pairs.push((group, code));
        numbers[place]
    }

    fn by_hash(&mut self, group: u32, code: u32) -> u32 {
        let Known::Hashed(numbers) = &mut self.known else {
            return NO_GROUP;
        };
        if let Some(&number) = numbers.get(&(group, code)) {
            return number;
        }
        if self.pairs.len() >= self.max_pairs {
            self.is_truncated = true;
            return NO_GROUP;
        }
        let number = self.pairs.len() as u32;
        numbers.insert((group, code), number);
        self.pairs.push((group, code));
        number
    }
}
