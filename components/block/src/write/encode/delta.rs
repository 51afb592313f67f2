//! DELTA_BINARY_PACKED and DELTA_LENGTH_BYTE_ARRAY.

use tempo_model::otlp::write_varint;

use super::bits;

const BLOCK: usize = 128;
const MINIBLOCKS: usize = 4;
const MINIBLOCK: usize = BLOCK / MINIBLOCKS;

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

fn header(out: &mut Vec<u8>, count: usize, first: i64) {
    write_varint(out, BLOCK as u64);
    write_varint(out, MINIBLOCKS as u64);
    write_varint(out, count as u64);
    write_varint(out, zigzag(first));
}

/// Appends 64-bit integers, DELTA_BINARY_PACKED. Differences wrap around.
pub(crate) fn delta_i64(values: &[i64], out: &mut Vec<u8>) {
    header(out, values.len(), values.first().copied().unwrap_or(0));
    let mut deltas = [0_i64; BLOCK];
    let mut from = 0;
    while from + 1 < values.len() {
        let count = (values.len() - 1 - from).min(BLOCK);
        let window = &values[from..=from + count];
        for (delta, pair) in deltas.iter_mut().zip(window.windows(2)) {
            *delta = pair[1].wrapping_sub(pair[0]);
        }
        block(&deltas[..count], u64::MAX, out);
        from += count;
    }
}

/// Appends 32-bit integers, DELTA_BINARY_PACKED. Differences wrap around in 32 bits, so that no
/// miniblock is wider.
pub(crate) fn delta_i32(values: &[i32], out: &mut Vec<u8>) {
    header(
        out,
        values.len(),
        i64::from(values.first().copied().unwrap_or(0)),
    );
    let mut deltas = [0_i64; BLOCK];
    let mut from = 0;
    while from + 1 < values.len() {
        let count = (values.len() - 1 - from).min(BLOCK);
        let window = &values[from..=from + count];
        for (delta, pair) in deltas.iter_mut().zip(window.windows(2)) {
            *delta = i64::from(pair[1].wrapping_sub(pair[0]));
        }
        block(&deltas[..count], u64::from(u32::MAX), out);
        from += count;
    }
}

/// Appends a block of up to 128 differences. Miniblocks behind the last value are left out; their
/// widths, zero, are not.
fn block(deltas: &[i64], mask: u64, out: &mut Vec<u8>) {
    let min = deltas.iter().copied().min().unwrap_or(0);
    write_varint(out, zigzag(min));
    let widths_at = out.len();
    out.extend_from_slice(&[0; MINIBLOCKS]);
    let mut above = [0_u64; MINIBLOCK];
    for (index, part) in deltas.chunks(MINIBLOCK).enumerate() {
        above[part.len()..].fill(0);
        let mut all = 0;
        for (above, delta) in above.iter_mut().zip(part) {
            *above = delta.wrapping_sub(min) as u64 & mask;
            all |= *above;
        }
        let width = bits::width_of(all);
        out[widths_at + index] = width as u8;
        if width == 0 {
            continue;
        }
        if width <= 32 {
            let narrow = above.map(|value| value as u32);
            bits::pack_u32(&narrow, width, out);
        } else {
            bits::pack_u64(&above, width, out);
        }
    }
}

/// Appends byte strings that lie one after another in `bytes`, DELTA_LENGTH_BYTE_ARRAY.
pub(crate) fn delta_length(lengths: &[i32], bytes: &[u8], out: &mut Vec<u8>) {
    delta_i32(lengths, out);
    out.extend_from_slice(bytes);
}
