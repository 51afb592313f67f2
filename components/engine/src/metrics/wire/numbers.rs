//! Numbers of intervals in a row, and of intervals here and there.

use tempo_proto::tempostack::query::v1 as wire;

use super::WireError;

/// Whole numbers from here on are not told apart by a double.
const WHOLE_END: f64 = 9_007_199_254_740_992.0;

/// The number as a whole one, if it is one and comes back as the same bits.
fn whole(number: f64) -> Option<u64> {
    let is_whole = number.is_sign_positive() && number < WHOLE_END && number.fract() == 0.0;
    is_whole.then_some(number as u64)
}

/// All as whole numbers, or none of them.
fn all_whole(numbers: impl Iterator<Item = f64>) -> Option<Vec<u64>> {
    numbers.map(whole).collect()
}

/// Whichever was sent, as doubles.
fn doubles(wholes: Vec<u64>, any: Vec<f64>) -> Result<Vec<f64>, WireError> {
    match (wholes.is_empty(), any.is_empty()) {
        (_, true) => Ok(wholes.into_iter().map(|number| number as f64).collect()),
        (true, false) => Ok(any),
        (false, false) => Err(WireError::Malformed("numbers of two kinds at once")),
    }
}

/// The numbers from the first to the last that is not nothing; `None` if all are.
pub(super) fn write_numbers(numbers: &[f64], nothing: f64) -> Option<wire::Numbers> {
    let is_something = |number: &f64| match nothing.is_nan() {
        true => !number.is_nan(),
        false => number.to_bits() != nothing.to_bits(),
    };
    let first = numbers.iter().position(is_something)?;
    let last = numbers.iter().rposition(is_something)?;
    let numbers = numbers.get(first..=last)?;
    let wholes = all_whole(numbers.iter().copied());
    Some(wire::Numbers {
        first: u32::try_from(first).ok()?,
        any: match wholes {
            Some(_) => Vec::new(),
            None => numbers.to_vec(),
        },
        whole: wholes.unwrap_or_default(),
    })
}

/// One number for each of so many intervals. The caller has accounted for them.
pub(super) fn read_numbers(
    numbers: Option<wire::Numbers>,
    nothing: f64,
    intervals: usize,
) -> Result<Vec<f64>, WireError> {
    let mut all = vec![nothing; intervals];
    let Some(numbers) = numbers else {
        return Ok(all);
    };
    let first = numbers.first as usize;
    let numbers = doubles(numbers.whole, numbers.any)?;
    first
        .checked_add(numbers.len())
        .and_then(|end| all.get_mut(first..end))
        .ok_or(WireError::Malformed("numbers outside of the intervals"))?
        .copy_from_slice(&numbers);
    Ok(all)
}

/// Counts of some intervals, ascending.
pub(super) fn write_cells(cells: &[(u32, f64)]) -> Option<wire::Cells> {
    if cells.is_empty() {
        return None;
    }
    let mut before = 0;
    let intervals = cells
        .iter()
        .map(|&(interval, _)| {
            let distance = interval - before;
            before = interval;
            distance
        })
        .collect();
    let counts = cells.iter().map(|&(_, count)| count);
    let wholes = all_whole(counts.clone());
    Some(wire::Cells {
        intervals,
        any: match wholes {
            Some(_) => Vec::new(),
            None => counts.collect(),
        },
        whole: wholes.unwrap_or_default(),
    })
}

pub(super) fn read_cells(
    cells: wire::Cells,
    intervals: usize,
) -> Result<Vec<(u32, f64)>, WireError> {
    let counts = doubles(cells.whole, cells.any)?;
    if counts.len() != cells.intervals.len() {
        return Err(WireError::Malformed("as many counts as intervals are due"));
    }
    let mut interval: u32 = 0;
    let mut read: Vec<(u32, f64)> = Vec::with_capacity(counts.len());
    for (distance, count) in cells.intervals.into_iter().zip(counts) {
        if distance == 0 && !read.is_empty() {
            return Err(WireError::Malformed("an interval twice"));
        }
        interval = interval
            .checked_add(distance)
            .filter(|&interval| (interval as usize) < intervals)
            .ok_or(WireError::Malformed("a count outside of the intervals"))?;
        read.push((interval, count));
    }
    Ok(read)
}
