//! Counters per group and interval.
//!
//! Counters lie side by side, group after group; one more row takes what belongs to no group, so
//! that loops need not branch.

use super::groups::Groups;

/// The intervals of spans, and how many there are.
#[derive(Clone, Copy)]
pub(crate) struct Cells<'a> {
    pub(crate) groups: &'a Groups,
    /// Of every selected span.
    pub(crate) intervals: &'a [u32],
    /// How many intervals the grid has.
    pub(crate) width: usize,
}

/// Counters beside each other that count one after the other, so that a long run of spans in one
/// interval does not wait for the same counter again and again.
const LANES: usize = 4;

impl Cells<'_> {
    fn len(&self) -> usize {
        (self.groups.len() + 1) * self.width
    }

    /// Hands out the cell of every span.
    #[inline]
    fn for_each(&self, mut visit: impl FnMut(usize, usize)) {
        match self.groups.ids() {
            None => self
                .intervals
                .iter()
                .enumerate()
                .for_each(|(number, &interval)| visit(number, interval as usize)),
            Some(ids) => {
                let last = self.groups.len();
                ids.iter().zip(self.intervals).enumerate().for_each(
                    |(number, (&id, &interval))| {
                        visit(
                            number,
                            (id as usize).min(last) * self.width + interval as usize,
                        );
                    },
                );
            }
        }
    }

    /// Spans per cell, or what they weigh together.
    pub(crate) fn counts(&self, weights: Option<&[f64]>) -> Vec<f64> {
        if let Some(weights) = weights {
            let mut sums = vec![0.0; self.len()];
            self.for_each(|number, cell| sums[cell] += weights[number]);
            return sums;
        }
        if self.groups.ids().is_none() {
            return self.counts_of_one_group();
        }
        let mut counts = vec![0_u32; self.len()];
        self.for_each(|_, cell| counts[cell] += 1);
        counts.into_iter().map(f64::from).collect()
    }

    fn counts_of_one_group(&self) -> Vec<f64> {
        let mut lanes = vec![[0_u32; LANES]; self.len()];
        let mut chunks = self.intervals.chunks_exact(LANES);
        for chunk in &mut chunks {
            for (lane, &interval) in chunk.iter().enumerate() {
                lanes[interval as usize][lane] += 1;
            }
        }
        for &interval in chunks.remainder() {
            lanes[interval as usize][0] += 1;
        }
        lanes
            .iter()
            .map(|lanes| f64::from(lanes.iter().sum::<u32>()))
            .collect()
    }

    /// Sums of `values` per cell, each as often as it weighs, and what they weigh together. NaN
    /// values do not count.
    pub(crate) fn sums(&self, values: &[f64], weights: Option<&[f64]>) -> (Vec<f64>, Vec<f64>) {
        let mut sums = vec![(0.0, 0.0); self.len()];
        let weight = |number: usize| weights.map_or(1.0, |weights| weights[number]);
        self.for_each(|number, cell| {
            let value = values[number];
            let weight = if value.is_nan() { 0.0 } else { weight(number) };
            let value = if value.is_nan() { 0.0 } else { value };
            let (sum, weights) = &mut sums[cell];
            *sum += value * weight;
            *weights += weight;
        });
        sums.into_iter().unzip()
    }

    /// The most extreme of `values` per cell, NaN where there is none.
    pub(crate) fn extremes(
        &self,
        values: &[f64],
        is_beyond: impl Fn(f64, f64) -> bool,
    ) -> Vec<f64> {
        let mut extremes = vec![f64::NAN; self.len()];
        self.for_each(|number, cell| {
            let (value, extreme) = (values[number], &mut extremes[cell]);
            if is_beyond(value, *extreme) || (extreme.is_nan() && !value.is_nan()) {
                *extreme = value;
            }
        });
        extremes
    }
}
