//! Time, as queries over time cut it.
//!
//! Intervals are open on the left and closed on the right, `(t, t + step]`, and lie on multiples of
//! the step since the epoch. So the intervals of every table, block and querier fall on each other.

const NANOS_PER_MILLI: u64 = 1_000_000;

/// The time that an evaluation looks at, and how it is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Spans that start later than this count; nanoseconds since the epoch.
    pub start_nano: u64,
    /// Spans that start later than this do not; nanoseconds since the epoch.
    pub end_nano: u64,
    /// Length of an interval, nanoseconds. Of an instant query the length of the whole query.
    pub step_nano: u64,
    /// One interval for all, whatever the step.
    pub is_instant: bool,
}

impl Window {
    /// Whether a span that starts then counts.
    #[inline]
    pub fn holds(&self, start_unix_nano: u64) -> bool {
        start_unix_nano > self.start_nano && start_unix_nano <= self.end_nano
    }

    /// Whether no span counts.
    pub fn is_empty(&self) -> bool {
        self.start_nano >= self.end_nano
    }

    /// The same, extended to whole intervals and one interval more in front, so that the first
    /// sample is that of the aligned start. Instant queries stay as they are.
    pub fn aligned(self) -> Self {
        if self.is_instant {
            return self;
        }
        let step = self.step_nano.max(1);
        let start = self.start_nano / step * step;
        Self {
            start_nano: if start > step { start - step } else { start },
            end_nano: self.end_nano.div_ceil(step).saturating_mul(step),
            ..self
        }
    }

    /// The part up to and including a moment.
    pub fn until(self, last_nano: u64) -> Self {
        Self {
            end_nano: self.end_nano.min(last_nano),
            ..self
        }
    }

    /// The part after a moment.
    pub fn after(self, nano: u64) -> Self {
        Self {
            start_nano: self.start_nano.max(nano),
            ..self
        }
    }

    /// The intervals that it touches.
    pub fn grid(&self) -> Grid {
        let step_nano = self.step_nano.max(1);
        if self.is_instant {
            return Grid {
                first: 0,
                len: 1,
                step_nano,
                instant_nano: Some(self.end_nano),
            };
        }
        let first = self.start_nano / step_nano;
        let last = self.end_nano.div_ceil(step_nano);
        Grid {
            first,
            len: usize::try_from(last.saturating_sub(first)).unwrap_or(usize::MAX),
            step_nano,
            instant_nano: None,
        }
    }
}

/// Some intervals in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// How many intervals after the epoch the first one is.
    pub(super) first: u64,
    pub(super) len: usize,
    pub(super) step_nano: u64,
    /// The time stamp of an instant query.
    pub(super) instant_nano: Option<u64>,
}

impl Grid {
    /// How many intervals there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no interval.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Seconds of an interval.
    pub(crate) fn step_seconds(&self) -> f64 {
        self.step_nano as f64 / 1e9
    }

    /// The time stamp of an interval, which is its end; milliseconds since the epoch.
    pub fn timestamp_ms(&self, interval: usize) -> i64 {
        let nanos = self.instant_nano.unwrap_or_else(|| {
            self.first
                .saturating_add(interval as u64 + 1)
                .saturating_mul(self.step_nano)
        });
        (nanos / NANOS_PER_MILLI) as i64
    }

    /// The interval of a span that starts then; `None` outside of all.
    pub(crate) fn interval_of(&self, start_unix_nano: u64) -> Option<usize> {
        if self.instant_nano.is_some() {
            return Some(0);
        }
        let interval = start_unix_nano.checked_sub(1)? / self.step_nano;
        let interval = usize::try_from(interval.checked_sub(self.first)?).ok()?;
        (interval < self.len).then_some(interval)
    }

    /// The interval that a time stamp in milliseconds belongs to.
    pub(crate) fn interval_of_ms(&self, timestamp_ms: i64) -> Option<usize> {
        self.interval_of((timestamp_ms.max(0) as u64).saturating_mul(NANOS_PER_MILLI))
    }

    /// From where to where the intervals reach, milliseconds since the epoch.
    pub(crate) fn bounds_ms(&self) -> (i64, i64) {
        let start = self.first.saturating_mul(self.step_nano) / NANOS_PER_MILLI;
        let end = self.len.saturating_sub(1);
        (start as i64, self.timestamp_ms(end))
    }

    /// Which intervals of `self` and of `other` are the same: where they begin in either, and how
    /// many they are.
    pub(crate) fn shared(&self, other: &Self) -> (usize, usize, usize) {
        let first = self.first.max(other.first);
        let end = |grid: &Self| grid.first.saturating_add(grid.len as u64);
        let end = end(self).min(end(other));
        let at = |grid: &Self| (first - grid.first) as usize;
        (at(self), at(other), end.saturating_sub(first) as usize)
    }

    /// Numbers the intervals of spans quickly.
    pub(crate) fn divider(&self) -> Divider {
        Divider::new(self)
    }
}

/// Division by the step: a multiplication, wherever that is exact.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Divider {
    /// The moment after the start of the first interval.
    base: u64,
    step: u64,
    /// The step's reciprocal, and the bits behind its point.
    reciprocal: Option<(u64, u32)>,
    /// The last interval.
    last: u64,
    is_instant: bool,
}

/// Exact for distances below this, which are 104 days.
const EXACT_BITS: u32 = 53;

impl Divider {
    fn new(grid: &Grid) -> Self {
        let step = grid.step_nano;
        let reach = (grid.len as u64).saturating_mul(step);
        // `step <= 2^log`. A reciprocal that is rounded up to `EXACT_BITS + log` bits is too large
        // by less than `step / 2^(EXACT_BITS + log)`, so a quotient below `2^EXACT_BITS / step`
        // by less than `1 / step`: its whole part is right.
        let log = u64::BITS - step.saturating_sub(1).leading_zeros();
        let bits = EXACT_BITS + log;
        let is_exact = reach < 1 << EXACT_BITS && step < 1 << EXACT_BITS && bits > u64::BITS;
        Self {
            base: grid.first.saturating_mul(step).saturating_add(1),
            step,
            reciprocal: is_exact.then(|| {
                (
                    (1_u128 << bits).div_ceil(u128::from(step)) as u64,
                    bits - 64,
                )
            }),
            last: (grid.len as u64).saturating_sub(1),
            is_instant: grid.instant_nano.is_some(),
        }
    }

    /// The interval of every one of `starts`, all of which lie in the grid. If one does not, as when
    /// the statistics of a block are wrong, it counts in the last interval.
    pub(crate) fn intervals(&self, starts: impl ExactSizeIterator<Item = u64>) -> Vec<u32> {
        if self.is_instant {
            return vec![0; starts.len()];
        }
        match self.reciprocal {
            Some((reciprocal, shift)) => starts
                .map(|start| {
                    let distance = u128::from(start.wrapping_sub(self.base));
                    ((distance * u128::from(reciprocal)) >> 64) as u64 >> shift
                })
                .map(|interval| interval.min(self.last) as u32)
                .collect(),
            None => starts
                .map(|start| {
                    let interval = start.wrapping_sub(self.base) / self.step;
                    interval.min(self.last) as u32
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn window(start_nano: u64, end_nano: u64, step_nano: u64) -> Window {
        Window {
            start_nano,
            end_nano,
            step_nano,
            is_instant: false,
        }
    }

    fn seconds(start: u64, end: u64, step: u64) -> Window {
        window(start * SECOND, end * SECOND, step * SECOND)
    }

    fn stamps(window: Window) -> Vec<i64> {
        let grid = window.grid();
        (0..grid.len())
            .map(|interval| grid.timestamp_ms(interval) / 1000)
            .collect()
    }

    #[test]
    fn a_window_is_extended_to_whole_intervals_and_one_more() {
        assert_eq!(seconds(21, 50, 10).aligned(), seconds(10, 50, 10));
        assert_eq!(stamps(seconds(21, 50, 10).aligned()), [20, 30, 40, 50]);
        assert_eq!(
            stamps(seconds(1_100, 1_300, 100).aligned()),
            [1_100, 1_200, 1_300]
        );
        let odd = seconds(1_000_007, 1_000_100, 15).aligned();
        assert_eq!(odd, seconds(999_990, 1_000_110, 15));
        let got = stamps(odd);
        assert_eq!((got[0], got[got.len() - 1]), (1_000_005, 1_000_110));
        assert_eq!(odd.aligned().start_nano, 999_975 * SECOND);
        // There is no interval before the first after the epoch.
        assert_eq!(window(1, 50, 15).aligned(), window(0, 60, 15));
    }

    #[test]
    fn intervals_are_closed_on_the_right() {
        let grid = seconds(10, 40, 10).grid();
        let of = |nanos: u64| grid.interval_of(nanos);
        assert_eq!(of(10 * SECOND), None);
        assert_eq!(of(10 * SECOND + 1), Some(0));
        assert_eq!(of(20 * SECOND), Some(0));
        assert_eq!(of(20 * SECOND + 1), Some(1));
        assert_eq!(of(40 * SECOND), Some(2));
        assert_eq!(of(40 * SECOND + 1), None);
        assert_eq!(of(0), None);
        assert!(!seconds(10, 40, 10).holds(10 * SECOND));
        assert!(seconds(10, 40, 10).holds(40 * SECOND));
    }

    #[test]
    fn an_instant_has_one_interval_that_ends_with_the_query() {
        let instant = Window {
            is_instant: true,
            ..seconds(17, 42, 25)
        };
        assert_eq!(instant.aligned(), instant);
        let grid = instant.grid();
        assert_eq!((grid.len(), grid.timestamp_ms(0)), (1, 42_000));
        let recent = instant.after(30 * SECOND).grid();
        assert_eq!(grid.shared(&recent), (0, 0, 1));
    }

    #[test]
    fn a_window_is_divided_without_a_gap_or_an_overlap() {
        let whole = seconds(10, 40, 10);
        let cut = 23 * SECOND + 7;
        let (old, new) = (whole.until(cut), whole.after(cut));
        for nanos in [cut - 1, cut, cut + 1] {
            assert_eq!(
                u32::from(old.holds(nanos)) + u32::from(new.holds(nanos)),
                1,
                "{nanos}"
            );
        }
        assert!(whole.until(5 * SECOND).is_empty());
        let (grid, part) = (whole.grid(), new.grid());
        assert_eq!(grid.shared(&part), (1, 0, 2));
        assert_eq!(part.shared(&grid), (0, 1, 2));
        assert_eq!(grid.shared(&seconds(100, 200, 10).grid()).2, 0);
    }

    #[test]
    fn the_quick_division_is_exact() {
        let mut seed = 7_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(99);
            (seed >> 20) % below
        };
        for step in [
            1,
            7,
            2_047,
            2_048,
            2_049,
            50_000_000,
            SECOND,
            15 * SECOND,
            17 * SECOND + 1,
            3_600 * SECOND,
            86_400 * SECOND - 1,
        ] {
            for _ in 0..200 {
                let start = random(1 << 40) * 1_000 + random(1_000);
                let window = window(start, start + step.saturating_mul(1 + random(500)), step);
                let grid = window.grid();
                let starts: Vec<u64> = (0..50)
                    .flat_map(|_| {
                        let near = (grid.first + random(grid.len as u64 + 1)) * step;
                        [
                            near,
                            near.wrapping_sub(1),
                            near + 1,
                            start + 1,
                            window.end_nano,
                        ]
                    })
                    .filter(|&nanos| window.holds(nanos))
                    .collect();
                let want: Vec<usize> = starts
                    .iter()
                    .map(|&nanos| grid.interval_of(nanos).unwrap())
                    .collect();
                let got = grid.divider().intervals(starts.into_iter());
                let got: Vec<usize> = got.into_iter().map(|interval| interval as usize).collect();
                assert_eq!(got, want, "{step} {start}");
            }
        }
    }
}
