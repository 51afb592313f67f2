//! How often each value of each attribute occurs, in a selection of spans and in all others.

use std::{cmp::Ordering, ops::Range, sync::Arc};

use hashbrown::HashMap;

use super::{
    exemplar::{self, Exemplar},
    label::value_order,
    partial::check_budget,
};
use crate::{error::EngineError, pipeline::write_key, value::Value};

/// Values kept of an attribute and side when there are more: those that occur most, by far more than
/// are returned. What is left out is still part of the totals.
pub(crate) fn max_values(top: usize) -> usize {
    top.saturating_mul(100).clamp(1_000, 20_000)
}

/// Number of the spans that are not selected among the two sides.
pub(crate) const BASELINE: usize = 0;
/// Number of the selected spans.
pub(crate) const SELECTION: usize = 1;

/// What `compare()` has counted so far.
#[derive(Debug, Clone)]
pub(crate) struct Comparison {
    top: usize,
    intervals: usize,
    attributes: HashMap<Arc<str>, Counted, foldhash::fast::RandomState>,
    exemplars: Vec<ComparedSpan>,
}

/// A span that stands as an example for the totals of its attributes.
#[derive(Debug, Clone)]
pub(crate) struct ComparedSpan {
    pub(crate) side: usize,
    pub(crate) exemplar: Exemplar,
    pub(crate) attributes: Vec<Arc<str>>,
}

/// The counts of one attribute.
#[derive(Debug, Clone)]
pub(crate) struct Counted {
    /// By side, then by interval.
    pub(crate) totals: [Vec<f64>; 2],
    values: HashMap<Box<[u8]>, ValueCounts, foldhash::fast::RandomState>,
}

/// The counts of one value.
#[derive(Debug, Clone)]
struct ValueCounts {
    value: Value,
    sides: [Counts; 2],
}

/// Counts of the intervals in which there are any, ascending.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    total: f64,
    cells: Vec<(u32, f64)>,
}

impl Counts {
    /// Counts of intervals that ascend.
    pub(super) fn from_cells(cells: Vec<(u32, f64)>) -> Self {
        Self {
            total: cells.iter().map(|&(_, count)| count).sum(),
            cells,
        }
    }

    pub(super) fn cells(&self) -> &[(u32, f64)] {
        &self.cells
    }

    /// Adds to an interval, which is often the last one.
    pub(crate) fn add(&mut self, interval: u32, count: f64) {
        if count == 0.0 {
            return;
        }
        self.total += count;
        match self.cells.last_mut() {
            Some((last, counted)) if *last == interval => *counted += count,
            Some((last, _)) if *last > interval => {
                match self
                    .cells
                    .binary_search_by_key(&interval, |&(interval, _)| interval)
                {
                    Ok(at) => self.cells[at].1 += count,
                    Err(at) => self.cells.insert(at, (interval, count)),
                }
            }
            _ => self.cells.push((interval, count)),
        }
    }

    /// Intervals `from`, the first of which becomes number `first`.
    fn moved(self, first: usize, from: &Range<usize>) -> Self {
        if first == from.start
            && self
                .cells
                .last()
                .is_none_or(|last| (last.0 as usize) < from.end)
        {
            let is_within = self
                .cells
                .first()
                .is_none_or(|cell| from.start <= cell.0 as usize);
            if is_within {
                return self;
            }
        }
        let mut moved = Self::default();
        for (interval, count) in self.cells {
            let interval = interval as usize;
            if from.contains(&interval) {
                moved.add((interval - from.start + first) as u32, count);
            }
        }
        moved
    }
}

impl ValueCounts {
    fn add(&mut self, sides: [Counts; 2]) {
        for (known, side) in self.sides.iter_mut().zip(sides) {
            for (interval, count) in side.cells {
                known.add(interval, count);
            }
        }
    }
}

/// A value that is among those that occur most.
pub(crate) struct TopValue<'a> {
    pub(crate) value: &'a Value,
    pub(crate) cells: &'a [(u32, f64)],
}

impl Counted {
    fn new(intervals: usize) -> Self {
        Self {
            totals: [vec![0.0; intervals], vec![0.0; intervals]],
            values: HashMap::default(),
        }
    }

    /// Adds the counts of a value.
    pub(crate) fn add(&mut self, value: Value, sides: [Counts; 2]) {
        let mut key = Vec::new();
        write_key(&mut key, value.borrowed());
        match self.values.get_mut(&*key) {
            None => {
                let counts = ValueCounts { value, sides };
                self.values.insert(key.into(), counts);
            }
            Some(known) => known.add(sides),
        }
    }

    /// All values, in no order, with their counts by side.
    pub(super) fn values(&self) -> impl Iterator<Item = (&Value, &[Counts; 2])> {
        self.values
            .values()
            .map(|counts| (&counts.value, &counts.sides))
    }

    /// The values of a side that occur most, those that occur equally often in their own order.
    pub(crate) fn top(&self, side: usize, wanted: usize) -> Vec<TopValue<'_>> {
        let mut values: Vec<&ValueCounts> = self
            .values
            .values()
            .filter(|counts| counts.sides[side].total > 0.0)
            .collect();
        if values.len() > wanted && wanted > 0 {
            values.select_nth_unstable_by(wanted - 1, |a, b| by_count(side, a, b));
        }
        values.truncate(wanted);
        values.sort_unstable_by(|a, b| by_count(side, a, b));
        values
            .into_iter()
            .map(|counts| TopValue {
                value: &counts.value,
                cells: &counts.sides[side].cells,
            })
            .collect()
    }

    /// Forgets the values that are not among those that occur most on either side.
    fn prune(&mut self, max_values: usize) {
        // Not after every part: a value may be frequent only in later ones.
        if self.values.len() <= max_values * 4 {
            return;
        }
        let mut kept: Vec<Box<[u8]>> = Vec::new();
        for side in [BASELINE, SELECTION] {
            let mut values: Vec<(&Box<[u8]>, &ValueCounts)> = self.values.iter().collect();
            values.select_nth_unstable_by(max_values, |a, b| by_count(side, a.1, b.1));
            kept.extend(values[..max_values].iter().map(|(key, _)| (*key).clone()));
        }
        let mut all = std::mem::take(&mut self.values);
        self.values = kept
            .into_iter()
            .filter_map(|key| all.remove_entry(&key))
            .collect();
    }
}

/// Values that occur more often go first.
fn by_count(side: usize, a: &ValueCounts, b: &ValueCounts) -> Ordering {
    b.sides[side]
        .total
        .total_cmp(&a.sides[side].total)
        .then_with(|| value_order(&a.value, &b.value))
}

impl Comparison {
    pub(crate) fn new(top: usize, intervals: usize) -> Self {
        Self {
            top,
            intervals,
            attributes: HashMap::default(),
            exemplars: Vec::new(),
        }
    }

    /// Values to return per attribute and side.
    pub(crate) fn top(&self) -> usize {
        self.top
    }

    pub(crate) fn attribute(&mut self, name: &Arc<str>) -> &mut Counted {
        let intervals = self.intervals;
        self.attributes
            .entry(Arc::clone(name))
            .or_insert_with(|| Counted::new(intervals))
    }

    pub(crate) fn attributes(&self) -> impl Iterator<Item = (&Arc<str>, &Counted)> {
        self.attributes.iter()
    }

    pub(crate) fn exemplars(&self) -> &[ComparedSpan] {
        &self.exemplars
    }

    pub(crate) fn add_exemplar(&mut self, span: ComparedSpan) {
        self.exemplars.push(span);
    }

    /// How many series an answer would have.
    pub(crate) fn len(&self) -> usize {
        self.attributes
            .values()
            .map(|counted| 2 + 2 * counted.values.len().min(self.top))
            .sum()
    }

    fn bytes_of_totals(&self) -> usize {
        self.intervals.saturating_mul(16)
    }

    /// Whether the totals of one attribute more fit into memory.
    pub(crate) fn check_room(&self, max_bytes: usize) -> Result<(), EngineError> {
        let attributes = self.attributes.len() + 1;
        check_budget(self.bytes_of_totals().saturating_mul(attributes), max_bytes)
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let of_value = |counts: &ValueCounts| {
            let cells: usize = counts.sides.iter().map(|side| side.cells.capacity()).sum();
            200 + 16 * cells
        };
        self.attributes
            .values()
            .map(|counted| {
                self.bytes_of_totals() + counted.values.values().map(of_value).sum::<usize>()
            })
            .sum()
    }

    /// Adds intervals `from` of another comparison, of which the first is number `first` here.
    pub(crate) fn merge(
        &mut self,
        other: Self,
        first: usize,
        from: Range<usize>,
        max_bytes: usize,
    ) -> Result<(), EngineError> {
        let max_values = max_values(self.top);
        for (name, counted) in other.attributes {
            self.check_room(max_bytes)?;
            let into = self.attribute(&name);
            for (into, totals) in into.totals.iter_mut().zip(&counted.totals) {
                for (into, total) in into[first..].iter_mut().zip(&totals[from.clone()]) {
                    *into += total;
                }
            }
            for (key, counts) in counted.values {
                let sides = counts.sides.map(|side| side.moved(first, &from));
                if sides.iter().all(|side| side.cells.is_empty()) {
                    continue;
                }
                match into.values.get_mut(&key) {
                    Some(known) => known.add(sides),
                    None => {
                        let value = counts.value;
                        into.values.insert(key, ValueCounts { value, sides });
                    }
                }
            }
            into.prune(max_values);
        }
        self.exemplars.extend(other.exemplars);
        Ok(())
    }

    pub(crate) fn trim_exemplars(&mut self, wanted: usize, bounds_ms: (i64, i64)) {
        exemplar::spread(&mut self.exemplars, wanted, bounds_ms, |span| {
            &span.exemplar
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(cells: &[(u32, f64)]) -> Counts {
        let mut counts = Counts::default();
        for &(interval, count) in cells {
            counts.add(interval, count);
        }
        counts
    }

    #[test]
    fn counts_stay_in_the_order_of_their_intervals() {
        let counts = counts(&[(3, 1.0), (1, 2.0), (3, 4.0), (2, 1.0), (1, 1.0), (9, 0.0)]);
        assert_eq!(counts.cells, [(1, 3.0), (2, 1.0), (3, 5.0)]);
        assert_eq!(counts.total, 9.0);
    }

    #[test]
    fn the_most_frequent_come_first_and_ties_in_value_order() {
        let mut counted = Counted::new(4);
        for (value, count) in [(10, 2.0), (9, 2.0), (100, 5.0), (8, 2.0)] {
            counted.add(
                Value::Int(value),
                [counts(&[(0, count)]), Counts::default()],
            );
        }
        let top = |side, wanted| -> Vec<Value> {
            counted
                .top(side, wanted)
                .iter()
                .map(|top| top.value.clone())
                .collect()
        };
        assert_eq!(top(BASELINE, 3), [100, 8, 9].map(Value::Int));
        assert_eq!(top(BASELINE, 9).len(), 4);
        assert_eq!(top(SELECTION, 9), []);
        assert_eq!(top(BASELINE, 0), []);
    }

    #[test]
    fn parts_are_merged_where_they_overlap() {
        let name: Arc<str> = "a".into();
        let mut part = Comparison::new(5, 3);
        let counted = part.attribute(&name);
        counted.totals[SELECTION] = vec![1.0, 2.0, 3.0];
        let cells = counts(&[(0, 1.0), (1, 2.0), (2, 3.0)]);
        counted.add(Value::Bool(true), [Counts::default(), cells]);
        let mut all = Comparison::new(5, 2);
        all.merge(part.clone(), 0, 1..3, 1_000).unwrap();
        all.merge(part.clone(), 1, 0..1, 1_000).unwrap();
        assert!(all.merge(part, 1, 0..1, 10).is_err());
        let counted = all.attribute(&name);
        assert_eq!(counted.totals[SELECTION], [2.0, 4.0]);
        assert_eq!(counted.top(SELECTION, 1)[0].cells, [(0, 2.0), (1, 4.0)]);
        assert_eq!(counted.top(BASELINE, 1).len(), 0);
    }
}
