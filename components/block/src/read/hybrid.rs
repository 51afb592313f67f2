//! Parquet's hybrid of run-length and bit-packed runs: levels and dictionary codes.
//!
//! Source of the format: the Parquet specification, encoding RLE (3). Levels are never expanded to
//! one number each: what scans ask of them is "at least this level", so a run becomes a run of
//! bits, and packed levels become bits by a table that takes four levels at once.

use super::{
    Malformed,
    bitpack::{GROUP, MAX_GROUP_BYTES, group_at, unpack_group},
    bits::{Bits, low_mask},
};

/// Widest packed number, in bits.
const MAX_WIDTH: u8 = 32;

/// One run of equal or packed numbers.
enum Run<'a> {
    Repeated { value: u32, len: usize },
    Packed { bytes: &'a [u8], len: usize },
}

/// The runs of a page part that holds a known count of numbers.
struct Runs<'a> {
    bytes: &'a [u8],
    width: u8,
    left: usize,
}

impl<'a> Runs<'a> {
    fn new(bytes: &'a [u8], width: u8, count: usize) -> Result<Self, Malformed> {
        if width > MAX_WIDTH {
            return Err(Malformed("packed numbers are wider than 32 bits"));
        }
        Ok(Self {
            bytes,
            width,
            left: count,
        })
    }

    fn header(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..35).step_by(7) {
            let (&byte, rest) = self
                .bytes
                .split_first()
                .ok_or(Malformed("runs end before their count"))?;
            self.bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("length of a run is too large"))
    }

    fn next(&mut self) -> Result<Option<Run<'a>>, Malformed> {
        if self.left == 0 {
            return Ok(None);
        }
        let header = self.header()?;
        let count = (header >> 1) as usize;
        let width = usize::from(self.width);
        let run = if header & 1 == 0 {
            let size = width.div_ceil(8);
            let (value, rest) = self
                .bytes
                .split_at_checked(size)
                .ok_or(Malformed("value of a run is cut"))?;
            self.bytes = rest;
            let value = value
                .iter()
                .rev()
                .fold(0_u32, |value, &byte| value << 8 | u32::from(byte));
            let len = count.min(self.left);
            Run::Repeated { value, len }
        } else {
            let len = (count * 8).min(self.left);
            // Some writers cut the last group after the last number.
            let (size, need) = (count * width, (len * width).div_ceil(8));
            let size = size.min(self.bytes.len());
            if size < need {
                return Err(Malformed("packed run is cut"));
            }
            let (bytes, rest) = self.bytes.split_at(size);
            self.bytes = rest;
            Run::Packed { bytes, len }
        };
        let (Run::Repeated { len, .. } | Run::Packed { len, .. }) = run;
        self.left -= len;
        Ok(Some(run))
    }
}

/// Which of four packed levels are at least a threshold: index is the packed levels, the low four
/// bits of the entry tell, first level lowest.
const fn at_least<const N: usize>(width: usize, threshold: usize) -> [u8; N] {
    let mut table = [0; N];
    let mut packed = 0;
    while packed < N {
        let mut position = 0;
        while position < 4 {
            let level = packed >> (position * width) & ((1 << width) - 1);
            if level >= threshold {
                table[packed] |= 1 << position;
            }
            position += 1;
        }
        packed += 1;
    }
    table
}

static WIDTH_2: [[u8; 256]; 3] = [at_least(2, 1), at_least(2, 2), at_least(2, 3)];
static WIDTH_3: [[u8; 4096]; 7] = [
    at_least(3, 1),
    at_least(3, 2),
    at_least(3, 3),
    at_least(3, 4),
    at_least(3, 5),
    at_least(3, 6),
    at_least(3, 7),
];

/// The levels of a page, still packed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Levels<'a> {
    /// The runs; irrelevant when `max` is 0.
    pub(crate) bytes: &'a [u8],
    /// The largest level.
    pub(crate) max: u8,
    /// How many levels there are.
    pub(crate) count: usize,
}

impl Levels<'_> {
    fn width(&self) -> u8 {
        (8 - self.max.leading_zeros()) as u8
    }

    /// Appends, for every level, whether it is at least `threshold`.
    pub(crate) fn at_least(&self, threshold: u8, bits: &mut Bits) -> Result<(), Malformed> {
        if self.max == 0 || threshold == 0 {
            bits.push_run(threshold == 0, self.count);
            return Ok(());
        }
        let width = self.width();
        let mut runs = Runs::new(self.bytes, width, self.count)?;
        while let Some(run) = runs.next()? {
            match run {
                Run::Repeated { value, len } => {
                    bits.push_run(value >= u32::from(threshold), len);
                }
                Run::Packed { bytes, len } => push_packed(bytes, width, threshold, len, bits)?,
            }
        }
        Ok(())
    }

    /// Appends the levels, one byte each.
    pub(crate) fn expand(&self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        if self.max == 0 {
            out.resize(out.len() + self.count, 0);
            return Ok(());
        }
        let width = self.width();
        if width > 3 {
            return Err(Malformed("levels beyond 7 are not supported"));
        }
        let mut runs = Runs::new(self.bytes, width, self.count)?;
        while let Some(run) = runs.next()? {
            match run {
                Run::Repeated { value, len } => out.resize(out.len() + len, value as u8),
                Run::Packed { bytes, len } => expand_packed(bytes, width, len, out),
            }
        }
        Ok(())
    }

    /// How many levels are at least `threshold`.
    pub(crate) fn count_at_least(
        &self,
        threshold: u8,
        scratch: &mut Bits,
    ) -> Result<usize, Malformed> {
        scratch.clear();
        self.at_least(threshold, scratch)?;
        Ok(scratch.count())
    }
}

fn push_packed(
    bytes: &[u8],
    width: u8,
    threshold: u8,
    len: usize,
    bits: &mut Bits,
) -> Result<(), Malformed> {
    let step = usize::from(width) * 8;
    let level_index = usize::from(threshold) - 1;
    let mut left = len;
    let mut padded = [0; 24];
    let mut rest = bytes;
    while left > 0 {
        let (head, tail) = rest.split_at(step.min(rest.len()));
        rest = tail;
        let group = if head.len() == step {
            head
        } else {
            padded[..head.len()].copy_from_slice(head);
            padded[head.len()..].fill(0);
            &padded[..step.min(24)]
        };
        let word = match (width, group) {
            (1, group) => word_of(group),
            (2, group) => match WIDTH_2.get(level_index) {
                Some(table) => word_by(table, group),
                None => 0,
            },
            (3, group) => match WIDTH_3.get(level_index) {
                Some(table) => word_by_pairs(table, group),
                None => 0,
            },
            _ => return Err(Malformed("levels beyond 7 are not supported")),
        };
        let count = left.min(64);
        bits.push_word(word & low_mask(count), count);
        left -= count;
    }
    Ok(())
}

/// Levels of at most three bits, eight at a time: they take as many bytes as they have bits.
fn expand_packed(bytes: &[u8], width: u8, len: usize, out: &mut Vec<u8>) {
    let mask = (1_u32 << width) - 1;
    let start = out.len();
    out.reserve(len.div_ceil(8) * 8);
    for group in bytes.chunks(usize::from(width)).take(len.div_ceil(8)) {
        let mut padded = [0; 4];
        padded[..group.len()].copy_from_slice(group);
        let packed = u32::from_le_bytes(padded);
        let level = |position: u32| (packed >> (position * u32::from(width)) & mask) as u8;
        out.extend_from_slice(&[0, 1, 2, 3, 4, 5, 6, 7].map(level));
    }
    out.truncate(start + len);
}

/// 64 levels of one bit.
fn word_of(group: &[u8]) -> u64 {
    group.try_into().map_or(0, u64::from_le_bytes)
}

/// 64 levels of two bits: each byte holds four.
#[inline]
fn word_by(table: &[u8; 256], group: &[u8]) -> u64 {
    let mut word = 0;
    for (index, &byte) in group.iter().take(16).enumerate() {
        word |= u64::from(table[usize::from(byte)]) << (index * 4);
    }
    word
}

/// 64 levels of three bits: three bytes hold eight.
#[inline]
fn word_by_pairs(table: &[u8; 4096], group: &[u8]) -> u64 {
    let mut word = 0;
    for (index, triple) in group.chunks_exact(3).take(8).enumerate() {
        let packed =
            usize::from(triple[0]) | usize::from(triple[1]) << 8 | usize::from(triple[2]) << 16;
        let eight = table[packed & 0xfff] | table[packed >> 12] << 4;
        word |= u64::from(eight) << (index * 8);
    }
    word
}

/// The dictionary codes of a page body (width byte, then runs), appended to `codes`. Every code is
/// below `entries`.
pub(crate) fn codes(
    body: &[u8],
    count: usize,
    entries: usize,
    codes: &mut Vec<u32>,
) -> Result<(), Malformed> {
    if count == 0 {
        return Ok(());
    }
    let (&width, runs) = body
        .split_first()
        .ok_or(Malformed("page of codes is empty"))?;
    let start = codes.len();
    let mut runs = Runs::new(runs, width, count)?;
    while let Some(run) = runs.next()? {
        match run {
            Run::Repeated { value, len } => codes.resize(codes.len() + len, value),
            Run::Packed { bytes, len } => unpack(bytes, width, len, codes),
        }
    }
    let largest = codes[start..].iter().fold(0, |max, &code| max.max(code));
    if largest as usize >= entries {
        return Err(Malformed("code lies outside of the dictionary"));
    }
    Ok(())
}

fn unpack(bytes: &[u8], width: u8, len: usize, out: &mut Vec<u32>) {
    let step = usize::from(width) * GROUP / 8;
    let start = out.len();
    let groups = len.div_ceil(GROUP);
    out.resize(start + groups * GROUP, 0);
    let mut padded = [0; MAX_GROUP_BYTES];
    for (index, group) in out[start..].chunks_exact_mut(GROUP).enumerate() {
        if let Ok(group) = <&mut [u32; GROUP]>::try_from(group) {
            let packed = group_at(bytes, index * step, width, &mut padded);
            unpack_group(packed, width, group);
        }
    }
    out.truncate(start + len);
}

/// Booleans of a page body in encoding RLE: a length, then runs of one bit.
pub(crate) fn booleans(body: &[u8], count: usize, bits: &mut Bits) -> Result<(), Malformed> {
    let runs = body.get(4..).ok_or(Malformed("page of booleans is cut"))?;
    Levels {
        bytes: runs,
        max: 1,
        count,
    }
    .at_least(1, bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packs numbers as one bit-packed run.
    fn packed(numbers: &[u32], width: u8) -> Vec<u8> {
        let groups = numbers.len().div_ceil(8);
        let mut out = Vec::new();
        let mut header = (groups << 1 | 1) as u64;
        while header >= 0x80 {
            out.push(header as u8 | 0x80);
            header >>= 7;
        }
        out.push(header as u8);
        let start = out.len();
        out.resize(start + groups * usize::from(width), 0);
        for (index, &number) in numbers.iter().enumerate() {
            for bit in 0..usize::from(width) {
                if number >> bit & 1 == 1 {
                    let at = index * usize::from(width) + bit;
                    out[start + at / 8] |= 1 << (at % 8);
                }
            }
        }
        out
    }

    #[test]
    fn levels_of_every_width_become_bits() {
        for max in 1_u8..=7 {
            let levels: Vec<u32> = (0..203)
                .map(|at| (at * 7 + at / 5) % u32::from(max + 1))
                .collect();
            let width = (8 - max.leading_zeros()) as u8;
            let mut bytes = packed(&levels[..200], width);
            // Then a run of equal levels and a packed tail.
            bytes.extend([40 << 1, max]);
            bytes.extend(packed(&levels[200..], width));
            let mut all = levels[..200].to_vec();
            all.extend([u32::from(max); 40]);
            all.extend(&levels[200..]);
            let packed = Levels {
                bytes: &bytes,
                max,
                count: all.len(),
            };
            for threshold in 0..=max {
                let mut bits = Bits::default();
                packed.at_least(threshold, &mut bits).unwrap();
                let want: Vec<bool> = all
                    .iter()
                    .map(|&level| level >= u32::from(threshold))
                    .collect();
                assert_eq!(
                    (0..bits.len()).map(|at| bits.get(at)).collect::<Vec<_>>(),
                    want
                );
            }
            for cut in 0..bytes.len() - usize::from(width) {
                let cut = Levels {
                    bytes: &bytes[..cut],
                    ..packed
                };
                assert!(cut.at_least(1, &mut Bits::default()).is_err(), "{cut:?}");
            }
        }
    }

    #[test]
    fn codes_of_every_width() {
        for width in 0_u8..=32 {
            let mask = ((1_u64 << width) - 1) as u32;
            let numbers: Vec<u32> = (0..77_u32)
                .map(|at| at.wrapping_mul(2_654_435_761) & mask)
                .collect();
            let mut body = vec![width];
            body.extend(packed(&numbers, width));
            let entries = mask as usize + 1;
            let mut out = vec![9];
            codes(&body, numbers.len(), entries, &mut out).unwrap();
            assert_eq!(out[1..], numbers, "width {width}");
            if width > 0 {
                let largest = *numbers.iter().max().unwrap() as usize;
                assert!(codes(&body, numbers.len(), largest, &mut Vec::new()).is_err());
            }
        }
        assert!(codes(&[33, 2, 0], 1, 1, &mut Vec::new()).is_err());
        // A run that claims more than the page holds is cut to the page.
        let mut out = Vec::new();
        codes(&[1, 0xfe, 0xff, 0xff, 0xff, 0x0f, 1], 5, 2, &mut out).unwrap();
        assert_eq!(out, [1; 5]);
        // Runs of nothing add nothing.
        assert!(codes(&[1, 0, 1, 0, 1], 5, 2, &mut Vec::new()).is_err());
    }
}
