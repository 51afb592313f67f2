//! The hybrid of runs and bit-packed groups that levels and dictionary codes use.

use tempo_model::otlp::write_varint;

use super::bits;

/// Runs of at least this many equal values are stored as a run.
const MIN_RUN: usize = 8;

/// Appends levels of `width` bits, at most 8. The length is not written: data pages of version 2
/// carry it in their header.
pub(crate) fn encode_levels(levels: &[u8], width: u32, out: &mut Vec<u8>) {
    encode(
        levels,
        out,
        |value, out| out.push(value),
        |groups, out| {
            for group in groups.chunks(8) {
                let mut bytes = [0; 8];
                bytes[..group.len()].copy_from_slice(group);
                let packed = bits::pack_bytes(u64::from_le_bytes(bytes), width);
                // A copy of a known size is one instruction.
                out.extend_from_slice(&packed.to_le_bytes());
                out.truncate(out.len() - 8 + width as usize);
            }
        },
    );
}

/// Appends dictionary codes: the width in one byte, then the hybrid.
pub(crate) fn encode_codes(codes: &[u32], out: &mut Vec<u8>) {
    let largest = codes.iter().copied().max().unwrap_or(0);
    // A width of 0 is legal and a trap for readers.
    let width = bits::width_of(u64::from(largest)).max(1);
    out.push(width as u8);
    let value_bytes = width.div_ceil(8) as usize;
    encode(
        codes,
        out,
        |value, out| out.extend_from_slice(&value.to_le_bytes()[..value_bytes]),
        |groups, out| {
            let whole = groups.len() / 8 * 8;
            bits::pack_u32(&groups[..whole], width, out);
            if whole < groups.len() {
                let mut last = [0; 8];
                last[..groups.len() - whole].copy_from_slice(&groups[whole..]);
                bits::pack_u32(&last, width, out);
            }
        },
    );
}

/// Splits `values` into runs and groups of eight; only the last group may be cut short.
#[inline]
fn encode<T: Copy + PartialEq>(
    values: &[T],
    out: &mut Vec<u8>,
    run_value: impl Fn(T, &mut Vec<u8>),
    pack: impl Fn(&[T], &mut Vec<u8>),
) {
    let mut at = 0;
    while at < values.len() {
        let run = run_length(&values[at..]);
        if run >= MIN_RUN || at + run == values.len() {
            write_varint(out, (run as u64) << 1);
            run_value(values[at], out);
            at += run;
            continue;
        }
        let mut end = at;
        while end < values.len() {
            end = (end + 8).min(values.len());
            if starts_run(&values[end..]) {
                break;
            }
        }
        let groups = (end - at).div_ceil(8);
        write_varint(out, (groups as u64) << 1 | 1);
        pack(&values[at..end], out);
        at = end;
    }
}

/// How often the first value repeats from the beginning.
#[inline]
fn run_length<T: Copy + PartialEq>(values: &[T]) -> usize {
    let first = values[0];
    let mut length = 0;
    for chunk in values.chunks_exact(16) {
        // Compared to its end, which takes fewer instructions than to find the first that differs.
        let is_whole = chunk
            .iter()
            .fold(true, |is_same, &value| is_same & (value == first));
        if !is_whole {
            break;
        }
        length += chunk.len();
    }
    let rest = values[length..].iter();
    length + rest.take_while(|&&value| value == first).count()
}

#[inline]
fn starts_run<T: Copy + PartialEq>(values: &[T]) -> bool {
    match values.first_chunk::<MIN_RUN>() {
        Some(head) => head.iter().all(|&value| value == head[0]),
        None => false,
    }
}
