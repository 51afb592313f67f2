//! Writing one message per trace from the positions that the walk found.

use bytes::Bytes;
use tempo_model::{
    TraceChunk,
    otlp::{len_prefixed_len, write_varint},
};

use super::{
    RegroupError,
    scratch::{Group, Header, Scratch},
};

/// `Trace.resource_spans`, field 1, length-delimited.
const RESOURCE_SPANS: u32 = 1;
/// `ResourceSpans.scope_spans`, field 2, length-delimited.
const SCOPE_SPANS: u32 = 2;

/// Writes the chunks of all traces into one buffer, which they share.
pub(super) fn assemble(
    request: &[u8],
    max_regrouped_bytes: usize,
    scratch: &mut Scratch,
) -> Result<Vec<TraceChunk>, RegroupError> {
    sort_by_trace(scratch);
    let regrouped_bytes = measure(scratch);
    if regrouped_bytes > max_regrouped_bytes as u64 {
        return Err(RegroupError::Amplified {
            regrouped_bytes,
            max_regrouped_bytes,
            traces: scratch.traces.len(),
        });
    }
    Ok(write(request, regrouped_bytes as usize, scratch))
}

/// Fills `by_trace`: a counting sort, stable, so that the spans of a trace keep their input order
/// and with it those of one scope, and the scopes of one resource, stay together.
fn sort_by_trace(scratch: &mut Scratch) {
    let mut first = 0;
    // For the time of the sort a trace's count holds its next free position.
    for trace in &mut scratch.traces {
        let spans = std::mem::replace(&mut trace.spans, first);
        first += spans;
    }
    scratch.by_trace.resize(scratch.spans.len(), 0);
    for (index, span) in scratch.spans.iter().enumerate() {
        let next = &mut scratch.traces[span.trace as usize].spans;
        scratch.by_trace[*next as usize] = index as u32;
        *next += 1;
    }
    let mut first = 0;
    for trace in &mut scratch.traces {
        let end = trace.spans;
        trace.spans = end - first;
        first = end;
    }
}

/// Fills `groups` and `resource_bytes`; returns how long all messages are together.
fn measure(scratch: &mut Scratch) -> u64 {
    let mut total = 0;
    let mut first = 0;
    for trace in &scratch.traces {
        let end = first + trace.spans;
        let first_group = scratch.groups.len();
        for position in first..end {
            let span = &scratch.spans[scratch.by_trace[position as usize] as usize];
            let bytes = span.field.len() as u64;
            match scratch.groups.last_mut() {
                Some(group) if continues(group, first, span.scope) => {
                    group.end = position + 1;
                    group.bytes += bytes;
                }
                _ => scratch.groups.push(Group {
                    scope: span.scope,
                    first: position,
                    end: position + 1,
                    bytes: bytes + u64::from(scratch.scopes[span.scope as usize].header.bytes),
                }),
            }
        }
        for same_resource in scratch.groups[first_group..].chunk_by(|a, b| {
            scratch.scopes[a.scope as usize].resource == scratch.scopes[b.scope as usize].resource
        }) {
            let resource = scratch.scopes[same_resource[0].scope as usize].resource;
            let header = scratch.resources[resource as usize];
            let scopes: u64 = same_resource
                .iter()
                .map(|group| len_prefixed_len(SCOPE_SPANS, group.bytes as usize) as u64)
                .sum();
            let bytes = u64::from(header.bytes) + scopes;
            scratch.resource_bytes.push(bytes);
            total += len_prefixed_len(RESOURCE_SPANS, bytes as usize) as u64;
        }
        first = end;
    }
    total
}

/// Whether a span of `scope` goes on with `group`, in the trace whose spans begin at
/// `trace_first`.
fn continues(group: &Group, trace_first: u32, scope: u32) -> bool {
    group.first >= trace_first && group.scope == scope
}

fn write(request: &[u8], total_bytes: usize, scratch: &Scratch) -> Vec<TraceChunk> {
    let mut out = Vec::with_capacity(total_bytes);
    let mut ends = Vec::with_capacity(scratch.traces.len());
    let mut groups = scratch.groups.as_slice();
    let mut resource_bytes = scratch.resource_bytes.iter();
    let mut first = 0;
    for trace in &scratch.traces {
        let end = first + trace.spans;
        while let Some(group) = groups.first().filter(|group| group.first < end) {
            let resource = scratch.scopes[group.scope as usize].resource;
            write_frame(&mut out, RESOURCE_SPANS, resource_bytes.next().copied());
            write_header(
                &mut out,
                request,
                scratch.resources[resource as usize],
                scratch,
            );
            while let Some(group) = groups.first().filter(|group| {
                group.first < end && scratch.scopes[group.scope as usize].resource == resource
            }) {
                write_frame(&mut out, SCOPE_SPANS, Some(group.bytes));
                let header = scratch.scopes[group.scope as usize].header;
                write_header(&mut out, request, header, scratch);
                write_spans(&mut out, request, group, scratch);
                groups = &groups[1..];
            }
        }
        ends.push(out.len());
        first = end;
    }
    debug_assert_eq!(out.len(), total_bytes);

    let out = Bytes::from(out);
    let mut start = 0;
    let chunks = scratch.traces.iter().zip(ends).map(|(trace, end)| {
        let chunk = TraceChunk {
            id: trace.id,
            trace: out.slice(start..end),
            spans: trace.spans,
        };
        start = end;
        chunk
    });
    chunks.collect()
}

fn write_frame(out: &mut Vec<u8>, number: u32, bytes: Option<u64>) {
    write_varint(out, u64::from(number) << 3 | 2);
    write_varint(out, bytes.unwrap_or_default());
}

fn write_header(out: &mut Vec<u8>, request: &[u8], header: Header, scratch: &Scratch) {
    for piece in &scratch.header_pieces[header.first_piece as usize..header.end_piece as usize] {
        out.extend_from_slice(scratch.bytes(request, *piece));
    }
}

/// Copies spans; those that stand side by side in the request go in one piece.
fn write_spans(out: &mut Vec<u8>, request: &[u8], group: &Group, scratch: &Scratch) {
    let mut fields = scratch.by_trace[group.first as usize..group.end as usize]
        .iter()
        .map(|&index| scratch.spans[index as usize].field);
    let Some(mut run) = fields.next() else {
        return;
    };
    for field in fields {
        // Where the request ends and the rewritten fields begin, positions touch but bytes do not.
        if field.start == run.end && field.start as usize != request.len() {
            run.end = field.end;
        } else {
            out.extend_from_slice(scratch.bytes(request, run));
            run = field;
        }
    }
    out.extend_from_slice(scratch.bytes(request, run));
}
