//! What a record holds: Tempo's `tempopb.PushBytesRequest`.
//!
//! Field 2 `traces`, repeated bytes, each a serialized `tempopb.Trace`; field 3 `ids`, as many
//! trace ids; field 5 `skipMetricsGeneration`. The record's key is the tenant.

use tempo_model::{
    TraceId,
    otlp::{Fields, RawField, WireError, WireType, varint_len, write_len_prefixed, write_varint},
};

const TRACES: u32 = 2;
const IDS: u32 = 3;
const SKIP_METRICS_GENERATION: u32 = 5;
const ID_BYTES: usize = 16;

/// A trace that fits into no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "single entry size ({entry_bytes}) exceeds maximum allowed size ({max_bytes}): trace {trace_id}"
)]
pub struct EntryTooLarge {
    /// The trace.
    pub trace_id: TraceId,
    /// Its bytes in a record, as Tempo counts them.
    pub entry_bytes: usize,
    /// The limit.
    pub max_bytes: usize,
}

/// Why the bytes of a record are not a `PushBytesRequest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No protobuf message.
    #[error("record: {0}")]
    Wire(#[from] WireError),
    /// Which trace has which id is not said.
    #[error("record: {traces} traces with {ids} ids")]
    Count {
        /// Entries of `traces`.
        traces: usize,
        /// Entries of `ids`.
        ids: usize,
    },
    /// An id that is none.
    #[error("record: a trace id of {bytes} bytes")]
    Id {
        /// Its length.
        bytes: usize,
    },
}

/// Encodes traces as the values of one record or more.
///
/// Records are filled in the order of the traces, and cut where Tempo cuts them: it counts, for a
/// trace and its id together, one tag and one length. So a record may exceed `max_bytes` by two
/// bytes a trace. Unlike Tempo's, every record keeps the mark `skip_metrics_generation`.
///
/// # Errors
/// When a single trace exceeds `max_bytes`. It is not split.
pub fn encode<'a>(
    traces: impl Iterator<Item = (TraceId, &'a [u8])> + Clone,
    skip_metrics_generation: bool,
    max_bytes: usize,
) -> Result<Vec<Vec<u8>>, EntryTooLarge> {
    let exact = |trace: &[u8]| {
        1 + varint_len(trace.len() as u64)
            + trace.len()
            + 1
            + varint_len(ID_BYTES as u64)
            + ID_BYTES
    };
    let skip_bytes = if skip_metrics_generation { 2 } else { 0 };
    let total = traces.clone().map(|(_, trace)| exact(trace)).sum::<usize>();
    if total + skip_bytes <= max_bytes {
        let all = traces.clone().count();
        return Ok(vec![encode_one(
            traces.take(all),
            total + skip_bytes,
            skip_metrics_generation,
        )]);
    }
    let mut records = Vec::new();
    let mut rest = traces;
    loop {
        let (mut taken, mut estimate, mut size) = (0, 0, skip_bytes);
        for (trace_id, trace) in rest.clone() {
            let payload = trace.len() + ID_BYTES;
            let entry_bytes = 1 + payload + varint_len(payload as u64);
            if entry_bytes > max_bytes {
                return Err(EntryTooLarge {
                    trace_id,
                    entry_bytes,
                    max_bytes,
                });
            }
            if estimate + entry_bytes > max_bytes {
                break;
            }
            estimate += entry_bytes;
            size += exact(trace);
            taken += 1;
        }
        if taken == 0 {
            return Ok(records);
        }
        records.push(encode_one(
            rest.clone().take(taken),
            size,
            skip_metrics_generation,
        ));
        rest.nth(taken - 1);
    }
}

fn encode_one<'a>(
    traces: impl Iterator<Item = (TraceId, &'a [u8])> + Clone,
    size: usize,
    skip_metrics_generation: bool,
) -> Vec<u8> {
    let mut value = Vec::with_capacity(size);
    for (_, trace) in traces.clone() {
        write_len_prefixed(&mut value, TRACES, trace);
    }
    for (id, _) in traces {
        write_len_prefixed(&mut value, IDS, id.as_bytes());
    }
    if skip_metrics_generation {
        write_varint(&mut value, u64::from(SKIP_METRICS_GENERATION << 3));
        value.push(1);
    }
    value
}

/// The traces of a record, borrowed from its value.
#[derive(Debug, Clone, Copy)]
pub struct PushRequest<'a> {
    value: &'a [u8],
    traces: usize,
    /// Whether the sender asked that no metrics be generated.
    pub skip_metrics_generation: bool,
}

/// Checks the value of a record.
///
/// # Errors
/// When it is none. What the traces hold is not looked at.
pub fn decode(value: &[u8]) -> Result<PushRequest<'_>, DecodeError> {
    let (mut traces, mut ids, mut skip) = (0, 0, false);
    for field in Fields::new(value) {
        let field = field?;
        match field.number {
            TRACES => {
                field.message()?;
                traces += 1;
            }
            IDS => {
                let bytes = field.message()?.len();
                if bytes == 0 || bytes > ID_BYTES {
                    return Err(DecodeError::Id { bytes });
                }
                ids += 1;
            }
            SKIP_METRICS_GENERATION => skip = field.varint()? != 0,
            _ => {}
        }
    }
    if traces != ids {
        return Err(DecodeError::Count { traces, ids });
    }
    Ok(PushRequest {
        value,
        traces,
        skip_metrics_generation: skip,
    })
}

impl<'a> PushRequest<'a> {
    /// How many traces it holds.
    pub fn len(&self) -> usize {
        self.traces
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.traces == 0
    }

    /// Ids and serialized `tempopb.Trace` messages.
    pub fn traces(&self) -> impl Iterator<Item = (TraceId, &'a [u8])> + use<'a> {
        let of = |number: u32| {
            Fields::new(self.value).filter_map(move |field| match field {
                Ok(RawField {
                    number: found,
                    wire_type: WireType::Len,
                    bytes,
                    ..
                }) if found == number => Some(bytes),
                _ => None,
            })
        };
        of(IDS)
            .zip(of(TRACES))
            .map(|(id, trace)| (TraceId::from_padded(id), trace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> TraceId {
        text.parse().unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    const A: &str = "0a0102030405060708090a0b0c0d0e0f";

    fn sizes(traces: usize, skip: bool, max_bytes: usize) -> Result<Vec<usize>, EntryTooLarge> {
        let trace = [7_u8; 100];
        let entries: Vec<_> = (0..traces).map(|_| (id(A), &trace[..])).collect();
        encode(entries.iter().copied(), skip, max_bytes)
            .map(|records| records.iter().map(Vec::len).collect())
    }

    #[test]
    fn bytes_are_those_of_tempo() {
        let trace = [0x0a, 0x00];
        let records = encode([(id(A), &trace[..])].into_iter(), true, 1 << 20).unwrap();
        assert_eq!(
            records.iter().map(|record| hex(record)).collect::<Vec<_>>(),
            ["12020a001a100a0102030405060708090a0b0c0d0e0f2801"]
        );
    }

    #[test]
    fn records_are_cut_where_tempo_cuts_them() {
        assert_eq!(sizes(10, true, 10_000), Ok(vec![1202]));
        assert_eq!(sizes(10, false, 250), Ok(vec![240; 5]));
        assert_eq!(sizes(3, false, 118), Ok(vec![120; 3]));
        let refused = sizes(3, false, 117).unwrap_err();
        assert_eq!((refused.entry_bytes, refused.max_bytes), (118, 117));
        assert!(
            refused
                .to_string()
                .starts_with("single entry size (118) exceeds maximum allowed size (117)")
        );
        // Tempo loses the mark in these; two bytes a record keep it.
        assert_eq!(sizes(10, true, 250), Ok(vec![242; 5]));
        assert_eq!(sizes(1, true, 118), Ok(vec![122]));
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let traces: Vec<(TraceId, Vec<u8>)> = (0..200_u8)
            .map(|n| (TraceId::from_padded(&[n, 1]), vec![n; usize::from(n) * 9]))
            .collect();
        let entries = traces.iter().map(|(id, trace)| (*id, trace.as_slice()));
        for (skip, max_bytes) in [(false, usize::MAX), (true, 20_000), (false, 5_000)] {
            let records = encode(entries.clone(), skip, max_bytes).unwrap();
            let mut found = Vec::new();
            for record in &records {
                let request = decode(record).unwrap();
                assert_eq!(request.skip_metrics_generation, skip);
                assert_eq!(request.len(), request.traces().count());
                assert!(!request.is_empty());
                found.extend(request.traces().map(|(id, trace)| (id, trace.to_vec())));
            }
            assert_eq!(found, traces);
        }
        assert_eq!(encode([].into_iter(), false, 10), Ok(vec![Vec::new()]));
    }

    #[test]
    fn other_orders_and_unknown_fields_are_understood() {
        let mut value = Vec::new();
        write_len_prefixed(&mut value, IDS, &[1; 16]);
        write_len_prefixed(&mut value, 9, b"later");
        write_len_prefixed(&mut value, TRACES, b"one");
        write_len_prefixed(&mut value, TRACES, b"two");
        write_len_prefixed(&mut value, IDS, &[2; 8]);
        let request = decode(&value).unwrap();
        let found: Vec<_> = request.traces().collect();
        assert_eq!(found[0], (TraceId::from_bytes([1; 16]), &b"one"[..]));
        assert_eq!(found[1].0, TraceId::from_padded(&[2; 8]));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        assert!(matches!(decode(&[0x12, 5, 1]), Err(DecodeError::Wire(_))));
        let mut value = Vec::new();
        write_len_prefixed(&mut value, TRACES, b"one");
        assert_eq!(
            decode(&value).unwrap_err(),
            DecodeError::Count { traces: 1, ids: 0 }
        );
        write_len_prefixed(&mut value, IDS, &[1; 17]);
        assert_eq!(decode(&value).unwrap_err(), DecodeError::Id { bytes: 17 });
    }
}
