//! Unpacking of fixed-width numbers, 32 at a time.

/// Numbers per group.
pub(super) const GROUP: usize = 32;

/// Unpacks 32 numbers of `width` bits (at most 32) from `4 * width` bytes.
#[inline]
pub(super) fn unpack_group(bytes: &[u8], width: u8, out: &mut [u32; GROUP]) {
    macro_rules! by_width {
        ($($width:literal)*) => {
            match width {
                0 => out.fill(0),
                $($width => unpack_u32::<$width>(bytes, out),)*
                _ => out.fill(0),
            }
        };
    }
    by_width!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32);
}

/// Unpacks 32 numbers of `width` bits (at most 64) from `4 * width` bytes.
#[inline]
pub(super) fn unpack_group_wide(bytes: &[u8], width: u8, out: &mut [u64; GROUP]) {
    macro_rules! by_width {
        ($($width:literal)*) => {
            match width {
                0 => out.fill(0),
                $($width => unpack_u64::<$width>(bytes, out),)*
                _ => out.fill(0),
            }
        };
    }
    by_width!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32
        33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64);
}

/// Runs a statement for every number of a group, unrolled: shifts and word positions are then
/// constants.
macro_rules! for_group {
    (|$index:ident| $body:expr) => {
        for_group!(|$index| $body;
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31)
    };
    (|$index:ident| $body:expr; $($number:literal)*) => {
        $({
            let $index: usize = $number;
            $body;
        })*
    };
}

#[inline]
fn unpack_u32<const WIDTH: usize>(bytes: &[u8], out: &mut [u32; GROUP]) {
    // 32 words of input at most, and one of padding for the last number's second word.
    let mut words = [0_u32; GROUP + 1];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)).take(WIDTH) {
        *word = bytes.try_into().map_or(0, u32::from_le_bytes);
    }
    let mask = ((1_u64 << WIDTH) - 1) as u32;
    for_group!(|index| {
        let (word, shift) = (index * WIDTH / 32, index * WIDTH % 32);
        let both = u64::from(words[word]) | u64::from(words[word + 1]) << 32;
        out[index] = (both >> shift) as u32 & mask;
    });
}

#[inline]
fn unpack_u64<const WIDTH: usize>(bytes: &[u8], out: &mut [u64; GROUP]) {
    let mut words = [0_u64; GROUP + 1];
    for (word, bytes) in words
        .iter_mut()
        .zip(bytes.chunks(8))
        .take(WIDTH.div_ceil(2))
    {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_le_bytes(padded);
    }
    let mask = u64::MAX >> (64 - WIDTH);
    for_group!(|index| {
        let (word, shift) = (index * WIDTH / 64, index * WIDTH % 64);
        let both = u128::from(words[word]) | u128::from(words[word + 1]) << 64;
        out[index] = (both >> shift) as u64 & mask;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_agrees_with_a_bit_by_bit_reading() {
        let bytes: Vec<u8> = (0..256_u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        for width in 0..=64_u8 {
            let size = usize::from(width);
            let want: Vec<u64> = (0..GROUP)
                .map(|index| {
                    (0..size).fold(0, |value, bit| {
                        let at = index * size + bit;
                        value | u64::from(bytes[at / 8] >> (at % 8) & 1) << bit
                    })
                })
                .collect();
            let mut wide = [1; GROUP];
            unpack_group_wide(&bytes[..4 * size], width, &mut wide);
            assert_eq!(wide, want.as_slice(), "width {width}");
            if width <= 32 {
                let mut narrow = [1; GROUP];
                unpack_group(&bytes[..4 * size], width, &mut narrow);
                assert!(narrow.iter().zip(&want).all(|(&n, &w)| u64::from(n) == w));
            }
        }
    }
}
