//! A set of row numbers of one level.

/// A fixed-length set of rows, one bit each. Bits beyond `len` are always zero.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bitmap {
    words: Vec<u64>,
    len: usize,
}

impl Bitmap {
    /// The empty set over `len` rows.
    pub fn new(len: usize) -> Self {
        Self {
            words: vec![0; len.div_ceil(64)],
            len,
        }
    }

    /// All of `len` rows.
    pub fn full(len: usize) -> Self {
        let mut bitmap = Self {
            words: vec![u64::MAX; len.div_ceil(64)],
            len,
        };
        bitmap.clear_tail();
        bitmap
    }

    /// The rows for which `test` holds, asked in order.
    #[inline]
    pub fn from_fn(len: usize, mut test: impl FnMut(usize) -> bool) -> Self {
        let mut words = Vec::with_capacity(len.div_ceil(64));
        let mut row = 0;
        while row < len {
            let end = (row + 64).min(len);
            let mut word = 0;
            for (bit, row) in (row..end).enumerate() {
                word |= u64::from(test(row)) << bit;
            }
            words.push(word);
            row = end;
        }
        Self { words, len }
    }

    fn clear_tail(&mut self) {
        if !self.len.is_multiple_of(64)
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1 << (self.len % 64)) - 1;
        }
    }

    /// How many rows there are, in the set or not.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no row is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// How many rows are in the set.
    pub fn count(&self) -> usize {
        self.words
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// Whether `row` is in the set.
    #[inline]
    pub fn contains(&self, row: usize) -> bool {
        row < self.len && self.words[row / 64] >> (row % 64) & 1 == 1
    }

    /// Adds `row`, which must be below `len`.
    #[inline]
    pub fn insert(&mut self, row: usize) {
        debug_assert!(row < self.len);
        self.words[row / 64] |= 1 << (row % 64);
    }

    /// Removes `row`.
    #[inline]
    pub fn remove(&mut self, row: usize) {
        self.words[row / 64] &= !(1 << (row % 64));
    }

    /// Adds every row of `range`, all of which must be below `len`.
    pub fn insert_range(&mut self, range: std::ops::Range<usize>) {
        debug_assert!(range.end <= self.len);
        let mut row = range.start;
        while row < range.end {
            let end = (row / 64 * 64 + 64).min(range.end);
            self.words[row / 64] |= (u64::MAX >> (64 - (end - row))) << (row % 64);
            row = end;
        }
    }

    /// Whether any row of `range` is in the set.
    pub fn any_in(&self, range: std::ops::Range<usize>) -> bool {
        self.next_from(range.start)
            .is_some_and(|row| row < range.end)
    }

    /// How many rows of `range` are in the set.
    pub fn count_in(&self, range: std::ops::Range<usize>) -> usize {
        let mut count = 0;
        let mut row = range.start;
        while row < range.end.min(self.len) {
            let end = (row / 64 * 64 + 64).min(range.end);
            let mut word = self.words[row / 64] >> (row % 64);
            if end - row < 64 {
                word &= (1 << (end - row)) - 1;
            }
            count += word.count_ones() as usize;
            row = end;
        }
        count
    }

    /// The first row of the set at or after `row`.
    #[inline]
    pub fn next_from(&self, row: usize) -> Option<usize> {
        let mut index = row / 64;
        let mut word = self.words.get(index)? & (u64::MAX << (row % 64));
        loop {
            if word != 0 {
                return Some(index * 64 + word.trailing_zeros() as usize);
            }
            index += 1;
            word = *self.words.get(index)?;
        }
    }

    /// The rows of the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(index, &word)| {
            std::iter::successors((word != 0).then_some(word), |rest| {
                let rest = rest & (rest - 1);
                (rest != 0).then_some(rest)
            })
            .map(move |rest| index * 64 + rest.trailing_zeros() as usize)
        })
    }

    /// Keeps the rows that are also in `other`, which must have the same length.
    pub fn and(&mut self, other: &Self) {
        debug_assert_eq!(self.len, other.len);
        self.words
            .iter_mut()
            .zip(&other.words)
            .for_each(|(word, other)| *word &= other);
    }

    /// Adds the rows of `other`, which must have the same length.
    pub fn or(&mut self, other: &Self) {
        debug_assert_eq!(self.len, other.len);
        self.words
            .iter_mut()
            .zip(&other.words)
            .for_each(|(word, other)| *word |= other);
    }

    /// Removes the rows of `other`, which must have the same length.
    pub fn and_not(&mut self, other: &Self) {
        debug_assert_eq!(self.len, other.len);
        self.words
            .iter_mut()
            .zip(&other.words)
            .for_each(|(word, other)| *word &= !other);
    }

    /// Swaps the rows in the set for those that are not.
    pub fn invert(&mut self) {
        self.words.iter_mut().for_each(|word| *word = !*word);
        self.clear_tail();
    }

    /// The 64-bit words, lowest row first.
    pub fn words(&self) -> &[u64] {
        &self.words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_a_plain_set() {
        let picked = |row: usize| row.is_multiple_of(3) || row == 130;
        let bitmap = Bitmap::from_fn(131, picked);
        let rows: Vec<usize> = (0..131).filter(|&row| picked(row)).collect();
        assert_eq!(bitmap.iter().collect::<Vec<_>>(), rows);
        assert_eq!(bitmap.count(), rows.len());
        for start in [0, 1, 63, 64, 65, 129, 130] {
            assert_eq!(
                bitmap.next_from(start),
                rows.iter().copied().find(|&row| row >= start)
            );
            for end in [start, 64, 65, 128, 131] {
                let want = rows
                    .iter()
                    .filter(|&&row| row >= start && row < end)
                    .count();
                assert_eq!(bitmap.count_in(start..end), want, "{start}..{end}");
                assert_eq!(bitmap.any_in(start..end), want > 0);
            }
        }
        for (start, end) in [
            (0, 0),
            (0, 1),
            (3, 64),
            (63, 65),
            (64, 128),
            (1, 131),
            (130, 131),
        ] {
            let mut filled = Bitmap::new(131);
            filled.insert_range(start..end);
            assert_eq!(
                filled,
                Bitmap::from_fn(131, |row| (start..end).contains(&row))
            );
        }
        let mut inverted = bitmap.clone();
        inverted.invert();
        assert_eq!(inverted.count(), 131 - rows.len());
        inverted.or(&bitmap);
        assert_eq!(inverted, Bitmap::full(131));
    }
}
