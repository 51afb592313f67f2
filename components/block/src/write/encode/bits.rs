//! Bit packing: values of a fixed width, the first in the lowest bits.

/// Eight values of at most 8 bits, each in a byte of `group`, as `width` bytes in the low end.
#[inline]
pub(super) fn pack_bytes(group: u64, width: u32) -> u64 {
    // Neighbours are pushed together: bytes to pairs, pairs to fours, fours to eight.
    let gap = 8 - width;
    let pairs = (group & lanes(16, width)) | (group >> gap & lanes(16, width) << width);
    let fours =
        (pairs & lanes(32, 2 * width)) | (pairs >> (2 * gap) & lanes(32, 2 * width) << (2 * width));
    let low = (1_u64 << (4 * width)) - 1;
    if width == 8 {
        return group;
    }
    (fours & low) | (fours >> (4 * gap) & low << (4 * width))
}

/// A mask of the lowest `bits` of every `lane` bits.
#[inline]
const fn lanes(lane: u32, bits: u32) -> u64 {
    let mut mask = 0;
    let mut at = 0;
    let ones = if bits >= 64 {
        u64::MAX
    } else {
        (1 << bits) - 1
    };
    while at < 64 {
        mask |= ones << at;
        at += lane;
    }
    mask
}

/// Packs values of at most `width` bits; their number must be a multiple of 8.
pub(super) fn pack_u32(values: &[u32], width: u32, out: &mut Vec<u8>) {
    let mut pending: u64 = 0;
    let mut bits = 0;
    for &value in values {
        pending |= u64::from(value) << bits;
        bits += width;
        if bits >= 32 {
            out.extend_from_slice(&(pending as u32).to_le_bytes());
            pending >>= 32;
            bits -= 32;
        }
    }
    let rest = pending.to_le_bytes();
    out.extend_from_slice(&rest[..bits.div_ceil(8) as usize]);
}

/// Packs values of at most `width` bits, up to 64; their number must be a multiple of 8.
pub(super) fn pack_u64(values: &[u64], width: u32, out: &mut Vec<u8>) {
    let mut pending: u128 = 0;
    let mut bits = 0;
    for &value in values {
        pending |= u128::from(value) << bits;
        bits += width;
        if bits >= 64 {
            out.extend_from_slice(&(pending as u64).to_le_bytes());
            pending >>= 64;
            bits -= 64;
        }
    }
    let rest = pending.to_le_bytes();
    out.extend_from_slice(&rest[..bits.div_ceil(8) as usize]);
}

/// Bits needed for `value`.
#[inline]
pub(super) fn width_of(value: u64) -> u32 {
    64 - value.leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(bytes: &[u8], width: u32, index: usize) -> u64 {
        (0..width as usize)
            .map(|bit| {
                let at = index * width as usize + bit;
                u64::from(bytes[at / 8] >> (at % 8) & 1) << bit
            })
            .sum()
    }

    #[test]
    fn every_width_comes_back() {
        let mut seed = 7_u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed ^ seed >> 33
        };
        for width in 1..=64 {
            let mask = if width == 64 {
                u64::MAX
            } else {
                (1 << width) - 1
            };
            let values: Vec<u64> = (0..40).map(|_| next() & mask).collect();
            let mut packed = Vec::new();
            pack_u64(&values, width, &mut packed);
            assert_eq!(packed.len(), 40 * width as usize / 8);
            let back: Vec<u64> = (0..40).map(|i| unpack(&packed, width, i)).collect();
            assert_eq!(back, values, "width {width}");
            if width <= 32 {
                let narrow: Vec<u32> = values.iter().map(|&v| v as u32).collect();
                let mut same = Vec::new();
                pack_u32(&narrow, width, &mut same);
                assert_eq!(same, packed, "width {width}");
            }
            if width <= 8 {
                let group = values[..8]
                    .iter()
                    .rev()
                    .fold(0, |group, &value| group << 8 | value);
                let bytes = pack_bytes(group, width).to_le_bytes();
                assert_eq!(bytes[..width as usize], packed[..width as usize]);
            }
        }
    }
}
