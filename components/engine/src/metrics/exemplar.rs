//! Spans that stand as examples for the points of a series.

use std::sync::Arc;

use super::label::Label;

/// Most exemplars of a query, whatever it asks for.
pub(crate) const MAX_EXEMPLARS: usize = 100_000;

/// Most exemplars of one of the pieces that time is cut into.
const MAX_PER_PIECE: u8 = 2;

/// A span that stands as an example for a point.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// When the span started, milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// What was measured of it, in the unit of the function; NaN where spans are only counted.
    pub value: f64,
    /// What the query has loaded of the span, its trace id first.
    pub labels: Arc<[Label]>,
}

/// Decides which exemplars are kept, so that they are spread over time: it is cut into half as many
/// pieces as there may be exemplars, and each takes two.
#[derive(Debug)]
pub(crate) struct Spread {
    left: usize,
    start_ms: i64,
    length_ms: i64,
    pieces: Vec<u8>,
}

impl Spread {
    /// For up to `wanted` exemplars between two times in milliseconds.
    pub(crate) fn new(wanted: usize, (start_ms, end_ms): (i64, i64)) -> Self {
        Self {
            left: wanted,
            start_ms,
            length_ms: end_ms.saturating_sub(start_ms).max(1),
            pieces: vec![0; (wanted / 2).max(1)],
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.left == 0
    }

    /// Takes one more at that time, if there is room.
    pub(crate) fn take(&mut self, timestamp_ms: i64) -> bool {
        if self.is_full() {
            return false;
        }
        let last = self.pieces.len() - 1;
        let distance = timestamp_ms.saturating_sub(self.start_ms).max(0) as u64;
        let piece = distance.saturating_mul(self.pieces.len() as u64) / self.length_ms as u64;
        let piece = usize::try_from(piece).unwrap_or(last).min(last);
        if self.pieces[piece] == MAX_PER_PIECE {
            return false;
        }
        self.pieces[piece] += 1;
        self.left -= 1;
        true
    }
}

/// Keeps up to `wanted` of some exemplars, those that come first.
pub(crate) fn spread<T>(
    exemplars: &mut Vec<T>,
    wanted: usize,
    bounds_ms: (i64, i64),
    exemplar: impl Fn(&T) -> &Exemplar,
) {
    if exemplars.is_empty() {
        return;
    }
    let mut room = Spread::new(wanted, bounds_ms);
    exemplars.retain(|entry| room.take(exemplar(entry).timestamp_ms));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exemplars_are_spread_over_time() {
        let mut room = Spread::new(10, (1_000, 2_000));
        let taken: Vec<i64> = (900..2_100)
            .step_by(50)
            .filter(|&at| room.take(at))
            .collect();
        assert_eq!(
            taken,
            [
                900, 950, 1_200, 1_250, 1_400, 1_450, 1_600, 1_650, 1_800, 1_850
            ]
        );
        assert!(room.is_full());
        let mut one = Spread::new(1, (0, 0));
        assert!(one.take(7) && !one.take(8));
        assert!(!Spread::new(0, (0, 10)).take(5));
    }
}
