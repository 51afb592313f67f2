//! `jaeger.thrift`: its structures, read into the messages of `jaeger.api_v2`.
//!
//! Fields that Thrift's own code demands are demanded here, too. It keeps senders honest, and small
//! input from becoming large structures.

use prost_types::{Duration, Timestamp};
use tempo_proto::jaeger::api_v2::{
    Batch, KeyValue, Log, Process, Span, SpanRef, SpanRefType, ValueType,
};

use crate::{
    Malformed,
    thrift::{Kind, Reader},
};

const MICROS_PER_SECOND: i64 = 1_000_000;

type Read<T> = Result<T, Malformed>;

/// A `Batch` that is not in another structure.
pub(super) fn batch(reader: &mut Reader<'_>) -> Read<Batch> {
    batch_field(reader, Kind::Struct)
}

pub(super) fn batch_field(reader: &mut Reader<'_>, kind: Kind) -> Read<Batch> {
    let mut batch = Batch::default();
    reader.structure(kind, "Batch", &[1, 2], |reader, id, kind| {
        match id {
            1 => batch.process = Some(process(reader, kind)?),
            2 => reader.list(kind, |reader, kind| {
                batch.spans.push(span(reader, kind)?);
                Ok(())
            })?,
            _ => reader.skip(kind)?,
        }
        Ok(())
    })?;
    Ok(batch)
}

fn process(reader: &mut Reader<'_>, kind: Kind) -> Read<Process> {
    let mut process = Process::default();
    reader.structure(kind, "Process", &[1], |reader, id, kind| {
        match id {
            1 => process.service_name = reader.text(kind)?,
            2 => process.tags = tags(reader, kind)?,
            _ => reader.skip(kind)?,
        }
        Ok(())
    })?;
    Ok(process)
}

fn span(reader: &mut Reader<'_>, kind: Kind) -> Read<Span> {
    let mut span = Span::default();
    let (mut low, mut high, mut parent) = (0, 0, 0);
    reader.structure(
        kind,
        "Span",
        &[1, 2, 3, 4, 5, 7, 8, 9],
        |reader, id, kind| {
            match id {
                1 => low = reader.integer(kind)?,
                2 => high = reader.integer(kind)?,
                3 => span.span_id = reader.integer(kind)?.to_be_bytes().to_vec(),
                4 => parent = reader.integer(kind)?,
                5 => span.operation_name = reader.text(kind)?,
                6 => reader.list(kind, |reader, kind| {
                    span.references.push(reference(reader, kind)?);
                    Ok(())
                })?,
                7 => span.flags = reader.integer(kind)? as u32,
                8 => span.start_time = Some(timestamp(reader.integer(kind)?)),
                9 => span.duration = Some(duration(reader.integer(kind)?)),
                10 => span.tags = tags(reader, kind)?,
                11 => reader.list(kind, |reader, kind| {
                    span.logs.push(log(reader, kind)?);
                    Ok(())
                })?,
                _ => reader.skip(kind)?,
            }
            Ok(())
        },
    )?;
    span.trace_id = trace_id(high, low);
    if parent != 0 {
        // Api_v2 has no field for it: the first reference to the same trace is the parent.
        let parent = SpanRef {
            trace_id: span.trace_id.clone(),
            span_id: parent.to_be_bytes().to_vec(),
            ref_type: SpanRefType::ChildOf.into(),
        };
        span.references.retain(|reference| *reference != parent);
        span.references.insert(0, parent);
    }
    Ok(span)
}

fn reference(reader: &mut Reader<'_>, kind: Kind) -> Read<SpanRef> {
    let mut reference = SpanRef::default();
    let (mut low, mut high) = (0, 0);
    reader.structure(kind, "SpanRef", &[1, 2, 3, 4], |reader, id, kind| {
        match id {
            1 => reference.ref_type = reader.integer(kind)? as i32,
            2 => low = reader.integer(kind)?,
            3 => high = reader.integer(kind)?,
            4 => reference.span_id = reader.integer(kind)?.to_be_bytes().to_vec(),
            _ => reader.skip(kind)?,
        }
        Ok(())
    })?;
    reference.trace_id = trace_id(high, low);
    Ok(reference)
}

fn log(reader: &mut Reader<'_>, kind: Kind) -> Read<Log> {
    let mut log = Log::default();
    reader.structure(kind, "Log", &[1, 2], |reader, id, kind| {
        match id {
            1 => log.timestamp = Some(timestamp(reader.integer(kind)?)),
            2 => log.fields = tags(reader, kind)?,
            _ => reader.skip(kind)?,
        }
        Ok(())
    })?;
    Ok(log)
}

fn tags(reader: &mut Reader<'_>, kind: Kind) -> Read<Vec<KeyValue>> {
    let mut tags = Vec::new();
    reader.list(kind, |reader, kind| {
        tags.push(tag(reader, kind)?);
        Ok(())
    })?;
    Ok(tags)
}

fn tag(reader: &mut Reader<'_>, kind: Kind) -> Read<KeyValue> {
    let mut tag = KeyValue::default();
    reader.structure(kind, "Tag", &[1, 2], |reader, id, kind| {
        match id {
            1 => tag.key = reader.text(kind)?,
            // The types are in another order than those of api_v2.
            2 => {
                tag.v_type = match reader.integer(kind)? {
                    0 => ValueType::String.into(),
                    1 => ValueType::Float64.into(),
                    2 => ValueType::Bool.into(),
                    3 => ValueType::Int64.into(),
                    4 => ValueType::Binary.into(),
                    other => i32::try_from(other).unwrap_or(i32::MAX).max(5),
                }
            }
            3 => tag.v_str = reader.text(kind)?,
            4 => tag.v_float64 = reader.double(kind)?,
            5 => tag.v_bool = reader.truth(kind)?,
            6 => tag.v_int64 = reader.integer(kind)?,
            7 => tag.v_binary = reader.binary(kind)?.to_vec(),
            _ => reader.skip(kind)?,
        }
        Ok(())
    })?;
    Ok(tag)
}

fn trace_id(high: i64, low: i64) -> Vec<u8> {
    [high.to_be_bytes(), low.to_be_bytes()].concat()
}

fn timestamp(micros: i64) -> Timestamp {
    Timestamp {
        seconds: micros.div_euclid(MICROS_PER_SECOND),
        nanos: (micros.rem_euclid(MICROS_PER_SECOND) * 1_000) as i32,
    }
}

fn duration(micros: i64) -> Duration {
    Duration {
        seconds: micros / MICROS_PER_SECOND,
        nanos: (micros % MICROS_PER_SECOND * 1_000) as i32,
    }
}
