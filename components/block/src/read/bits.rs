//! Growing bit sets with rank, the form in which levels are kept.

/// A sequence of bits that grows at its end. Bits beyond its length are zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Bits {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn clear(&mut self) {
        self.words.clear();
        self.len = 0;
    }

    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> bool {
        self.words
            .get(index / 64)
            .is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Appends the lowest `count` bits of `word`, at most 64; the others must be zero.
    #[inline]
    pub(crate) fn push_word(&mut self, word: u64, count: usize) {
        let shift = self.len % 64;
        if shift == 0 {
            self.words.push(word);
        } else {
            if let Some(last) = self.words.last_mut() {
                *last |= word << shift;
            }
            if shift + count > 64 {
                self.words.push(word >> (64 - shift));
            }
        }
        self.len += count;
    }

    /// Appends `bit`, `count` times.
    pub(crate) fn push_run(&mut self, bit: bool, mut count: usize) {
        let head = (self.len.next_multiple_of(64) - self.len).min(count);
        if head > 0 {
            let word = if bit { low_mask(head) } else { 0 };
            self.push_word(word, head);
            count -= head;
        }
        let word = if bit { u64::MAX } else { 0 };
        self.words.resize(self.words.len() + count / 64, word);
        self.len += count / 64 * 64;
        if !count.is_multiple_of(64) {
            self.push_word(word & low_mask(count % 64), count % 64);
        }
    }

    /// Appends bits `start..end` of `other`.
    pub(crate) fn extend_from(&mut self, other: &Self, start: usize, end: usize) {
        let mut at = start;
        while at < end {
            let count = (end - at).min(64);
            self.push_word(other.word_at(at) & low_mask(count), count);
            at += count;
        }
    }

    /// 64 bits from any position; zeros beyond the end.
    #[inline]
    pub(crate) fn word_at(&self, at: usize) -> u64 {
        let (index, shift) = (at / 64, at % 64);
        let low = self.words.get(index).copied().unwrap_or(0) >> shift;
        if shift == 0 {
            return low;
        }
        low | self.words.get(index + 1).copied().unwrap_or(0) << (64 - shift)
    }

    /// Heap bytes held, for caches.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.words.capacity() * 8
    }

    pub(crate) fn count(&self) -> usize {
        self.words
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// How many bits are set in `start..end`.
    pub(crate) fn count_in(&self, start: usize, end: usize) -> usize {
        let mut at = start;
        let mut count = 0;
        while at < end {
            let step = (end - at).min(64 - at % 64);
            count += (self.word_at(at) & low_mask(step)).count_ones() as usize;
            at += step;
        }
        count
    }

    /// The position of the `nth` unset bit (from 0), or the length when there are fewer.
    pub(crate) fn select_zero(&self, nth: usize) -> usize {
        let mut left = nth;
        for (index, &word) in self.words.iter().enumerate() {
            let zeros = word.count_zeros() as usize;
            if left < zeros {
                return (index * 64 + select_in(!word, left)).min(self.len);
            }
            left -= zeros;
        }
        self.len
    }

    /// The positions of the set bits within `range`, ascending.
    pub(crate) fn ones_in(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = usize> {
        let first = range.start / 64;
        let last = range.end.div_ceil(64).max(first);
        (first..last).flat_map(move |index| {
            let mut word = self.words.get(index).copied().unwrap_or(0);
            if index == first {
                word &= !low_mask(range.start % 64);
            }
            if index * 64 + 64 > range.end {
                word &= low_mask(range.end - index * 64);
            }
            std::iter::successors((word != 0).then_some(word), |rest| {
                let rest = rest & (rest - 1);
                (rest != 0).then_some(rest)
            })
            .map(move |rest| index * 64 + rest.trailing_zeros() as usize)
        })
    }

    /// Removes the bits that are set in `other`, which must have the same length.
    pub(crate) fn and_not(&mut self, other: &Self) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= !other;
        }
    }

    /// Spreads the bits of `self` over the set bits of `mask`: the k-th bit of `self` stands where
    /// the k-th set bit of `mask` is, all others are unset.
    pub(crate) fn spread_over(&self, mask: &Self) -> Self {
        let mut spread = Self::default();
        let mut taken = 0;
        for (index, &word) in mask.words.iter().enumerate() {
            let count = (mask.len - index * 64).min(64);
            let ones = word.count_ones() as usize;
            let source = self.word_at(taken);
            taken += ones;
            let bits = if ones == 64 || source & low_mask(ones) == 0 {
                source & low_mask(ones)
            } else {
                let mut rest = word;
                let mut bits = 0;
                for nth in 0..ones {
                    bits |= (source >> nth & 1) << rest.trailing_zeros();
                    rest &= rest - 1;
                }
                bits
            };
            spread.push_word(bits, count);
        }
        spread
    }
}

/// The lowest `count` bits set; `count` is at most 64.
#[inline]
pub(crate) fn low_mask(count: usize) -> u64 {
    if count >= 64 {
        u64::MAX
    } else {
        (1 << count) - 1
    }
}

/// The position of the `nth` set bit (from 0) of a word that has it.
#[inline]
fn select_in(word: u64, nth: usize) -> usize {
    let mut rest = word;
    for _ in 0..nth {
        rest &= rest - 1;
    }
    rest.trailing_zeros() as usize
}

/// Bits with a count before every word, so that rank is one look-up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ranked {
    bits: Bits,
    /// Set bits before each word; one entry more than words.
    before: Vec<u32>,
}

impl Ranked {
    pub(crate) fn new(bits: Bits) -> Self {
        let mut before = Vec::with_capacity(bits.words.len() + 1);
        let mut sum = 0_u32;
        before.push(0);
        for word in &bits.words {
            sum += word.count_ones();
            before.push(sum);
        }
        Self { bits, before }
    }

    pub(crate) fn bits(&self) -> &Bits {
        &self.bits
    }

    /// Heap bytes held, for caches.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bits.heap_bytes() + self.before.capacity() * 4
    }

    pub(crate) fn into_bits(self) -> Bits {
        self.bits
    }

    pub(crate) fn count(&self) -> usize {
        self.before.last().map_or(0, |&count| count as usize)
    }

    /// How many bits are set before `at`.
    #[inline]
    pub(crate) fn rank(&self, at: usize) -> usize {
        let (index, shift) = (at / 64, at % 64);
        match (self.before.get(index), self.bits.words.get(index)) {
            (Some(&before), Some(word)) => {
                before as usize + (word & low_mask(shift)).count_ones() as usize
            }
            _ => self.count(),
        }
    }

    /// The position of the `nth` set bit (from 0), or the length when there are fewer.
    pub(crate) fn select(&self, nth: usize) -> usize {
        let word = self
            .before
            .partition_point(|&before| before as usize <= nth);
        match word.checked_sub(1) {
            Some(index) if index < self.bits.words.len() => {
                index * 64 + select_in(self.bits.words[index], nth - self.before[index] as usize)
            }
            _ => self.bits.len,
        }
    }
}

/// Finds set bits of ascending rank, remembering where it stands.
pub(crate) struct SelectCursor<'a> {
    ranked: &'a Ranked,
    word: usize,
}

impl<'a> SelectCursor<'a> {
    pub(crate) fn new(ranked: &'a Ranked) -> Self {
        Self { ranked, word: 0 }
    }

    /// The position of the `nth` set bit (from 0), or the length when there are fewer. No less
    /// than that of the call before.
    #[inline]
    pub(crate) fn select(&mut self, nth: usize) -> usize {
        let Ranked { bits, before } = self.ranked;
        while let (Some(&word), Some(&after)) =
            (bits.words.get(self.word), before.get(self.word + 1))
        {
            if nth < after as usize {
                return self.word * 64 + select_in(word, nth - before[self.word] as usize);
            }
            self.word += 1;
        }
        bits.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_words_ranks_and_selects_agree_with_a_plain_list() {
        let mut bits = Bits::default();
        let mut plain = Vec::new();
        for (bit, count) in [(true, 3), (false, 70), (true, 129), (false, 1), (true, 64)] {
            bits.push_run(bit, count);
            plain.extend(std::iter::repeat_n(bit, count));
            bits.push_word(0b1011, 4);
            plain.extend([true, true, false, true]);
        }
        bits.push_word(u64::MAX, 64);
        plain.extend([true; 64]);
        assert_eq!(bits.len(), plain.len());
        let ones: Vec<usize> = (0..plain.len()).filter(|&at| plain[at]).collect();
        assert_eq!(bits.ones_in(0..bits.len()).collect::<Vec<_>>(), ones);
        assert_eq!(bits.count(), ones.len());
        let ranked = Ranked::new(bits.clone());
        for at in 0..=plain.len() {
            let before = plain[..at].iter().filter(|&&bit| bit).count();
            assert_eq!(ranked.rank(at), before);
            assert_eq!(bits.count_in(0, at), before);
            let after: Vec<usize> = ones.iter().copied().filter(|&one| one >= at).collect();
            assert_eq!(bits.ones_in(at..plain.len()).collect::<Vec<_>>(), after);
            assert_eq!(bits.ones_in(0..at).count(), before);
            assert_eq!(bits.get(at), plain.get(at).copied().unwrap_or(false));
        }
        for nth in 0..ones.len() + 2 {
            let want = ones.get(nth).copied().unwrap_or(plain.len());
            assert_eq!(ranked.select(nth), want);
        }
        let zeros: Vec<usize> = (0..plain.len()).filter(|&at| !plain[at]).collect();
        for nth in 0..zeros.len() + 2 {
            let want = zeros.get(nth).copied().unwrap_or(plain.len());
            assert_eq!(bits.select_zero(nth), want);
        }
        let mut every_third = Bits::default();
        (0..ones.len()).for_each(|at| every_third.push_run(at % 3 == 0, 1));
        let spread = every_third.spread_over(&bits);
        let spread: Vec<usize> = spread.ones_in(0..spread.len()).collect();
        assert_eq!(spread, ones.iter().copied().step_by(3).collect::<Vec<_>>());
        let mut none = bits.clone();
        none.and_not(&bits);
        assert_eq!(none.count(), 0);
        let mut cursor = SelectCursor::new(&ranked);
        for nth in (0..ones.len()).step_by(5) {
            assert_eq!(cursor.select(nth), ones[nth]);
        }
        let mut part = Bits::default();
        part.push_run(true, 5);
        part.extend_from(&bits, 61, 201);
        let want = [vec![true; 5], plain[61..201].to_vec()].concat();
        assert_eq!(
            (0..part.len()).map(|at| part.get(at)).collect::<Vec<_>>(),
            want
        );
    }
}
