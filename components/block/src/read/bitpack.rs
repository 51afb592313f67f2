//! Unpacking of fixed-width numbers, 32 at a time.

/// Numbers per group.
pub(super) const GROUP: usize = 32;

/// Bytes that must follow those of a group: numbers are loaded eight bytes at a time.
pub(super) const SLACK_BYTES: usize = 8;

/// Bytes of the widest group and what must follow it.
pub(super) const MAX_GROUP_BYTES: usize = 4 * 64 + SLACK_BYTES;

/// The bytes of a group of `width` bits at `at`, with what must follow them: those of `packed`, or
/// copied into `padded` where `packed` ends before.
#[inline]
pub(super) fn group_at<'a>(
    packed: &'a [u8],
    at: usize,
    width: u8,
    padded: &'a mut [u8; MAX_GROUP_BYTES],
) -> &'a [u8] {
    let rest = packed.get(at..).unwrap_or_default();
    let len = 4 * usize::from(width) + SLACK_BYTES;
    match rest.get(..len) {
        Some(group) => group,
        None => {
            let len = rest.len().min(MAX_GROUP_BYTES);
            padded[..len].copy_from_slice(&rest[..len]);
            padded[len..].fill(0);
            padded
        }
    }
}

/// Unpacks 32 numbers of `width` bits (at most 32) from `4 * width` bytes and [`SLACK_BYTES`] more.
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

/// Unpacks 32 numbers of `width` bits (at most 64) from `4 * width` bytes and [`SLACK_BYTES`] more.
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
    let Some(bytes) = bytes.get(..4 * WIDTH + SLACK_BYTES) else {
        return;
    };
    let mask = ((1_u64 << WIDTH) - 1) as u32;
    for_group!(|index| {
        let (byte, shift) = (index * WIDTH / 8, index * WIDTH % 8);
        out[index] = (word(bytes, byte) >> shift) as u32 & mask;
    });
}

#[inline]
fn unpack_u64<const WIDTH: usize>(bytes: &[u8], out: &mut [u64; GROUP]) {
    let Some(bytes) = bytes.get(..4 * WIDTH + SLACK_BYTES) else {
        return;
    };
    let mask = u64::MAX >> (64 - WIDTH);
    for_group!(|index| {
        let (byte, shift) = (index * WIDTH / 8, index * WIDTH % 8);
        let mut value = word(bytes, byte) >> shift;
        if shift + WIDTH > 64 {
            value |= u64::from(bytes[byte + 8]) << (64 - shift);
        }
        out[index] = value & mask;
    });
}

/// Eight bytes as a number. With a constant position below a checked length it is one load.
#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_agrees_with_a_bit_by_bit_reading() {
        let bytes: Vec<u8> = (0..264_u32)
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
            let mut padded = [1; MAX_GROUP_BYTES];
            let cut = group_at(&bytes[..4 * size], 0, width, &mut padded);
            assert_eq!(cut[..4 * size], bytes[..4 * size]);
            assert!(cut[4 * size..].iter().all(|&byte| byte == 0));
            let mut wide = [1; GROUP];
            unpack_group_wide(&bytes[..4 * size + 8], width, &mut wide);
            assert_eq!(wide, want.as_slice(), "width {width}");
            if width <= 32 {
                let mut narrow = [1; GROUP];
                unpack_group(&bytes[..4 * size + 8], width, &mut narrow);
                assert!(narrow.iter().zip(&want).all(|(&n, &w)| u64::from(n) == w));
            }
        }
    }
}
