//! Merging the parts of one trace.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use prost::Message as _;
use tempo_model::{
    TraceUnion,
    otlp::{SpanRef, WireError, resource_spans, write_len_prefixed},
};
use tempo_proto::{
    opentelemetry::proto::trace::v1::{Span, span::SpanKind},
    tempopb::{PartialStatus, Trace, TraceByIdMetrics},
};

use crate::job::{JobError, TraceParts};

/// A trace as it is answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CombinedTrace {
    /// A serialized `Trace`; empty when nothing was found.
    pub trace: Bytes,
    /// Bytes read from storage to find it.
    pub inspected_bytes: u64,
    /// Why it is not the whole trace; empty when it is.
    pub message: String,
}

impl CombinedTrace {
    /// Adds a reason why the trace is not whole.
    pub fn add_message(&mut self, reason: &str) {
        if !self.message.is_empty() {
            self.message.push_str("; ");
        }
        self.message.push_str(reason);
    }

    /// The serialized `TraceByIDResponse`. Its trace is present even when empty: clients read it
    /// without looking.
    pub fn to_response(&self) -> Vec<u8> {
        let metrics = TraceByIdMetrics {
            inspected_bytes: self.inspected_bytes,
            ..TraceByIdMetrics::default()
        };
        let mut out = Vec::with_capacity(self.trace.len() + self.message.len() + 32);
        write_len_prefixed(&mut out, 1, &self.trace);
        write_len_prefixed(&mut out, 2, &metrics.encode_to_vec());
        if !self.message.is_empty() {
            out.extend_from_slice(&[3 << 3, PartialStatus::Partial as u8]);
            write_len_prefixed(&mut out, 4, self.message.as_bytes());
        }
        out
    }
}

/// The parts of a trace found so far.
#[derive(Debug)]
pub struct TraceCombiner {
    union: TraceUnion,
    max_bytes: usize,
    allow_partial: bool,
    too_large: bool,
    inspected_bytes: u64,
}

impl TraceCombiner {
    /// No parts yet. A trace above `max_bytes` (no limit when 0) is an error, or with
    /// `allow_partial` the first parts that exceed it are the answer.
    pub fn new(max_bytes: usize, allow_partial: bool) -> Self {
        Self {
            union: TraceUnion::new(),
            max_bytes,
            allow_partial,
            too_large: false,
            inspected_bytes: 0,
        }
    }

    /// Adds what one job found.
    pub fn add(&mut self, found: TraceParts) -> Result<(), JobError> {
        self.inspected_bytes = self.inspected_bytes.saturating_add(found.inspected_bytes);
        for part in found.parts {
            if self.too_large {
                return Ok(());
            }
            self.union.add(part).map_err(|error| {
                JobError::Failed(format!("stored trace is not readable: {error}"))
            })?;
            self.too_large = self.max_bytes > 0 && self.union.byte_len() > self.max_bytes;
            if self.too_large && !self.allow_partial {
                return Err(JobError::TraceTooLarge(format!(
                    "trace exceeds max size (max bytes: {})",
                    self.max_bytes
                )));
            }
        }
        Ok(())
    }

    /// Whether nothing was found so far.
    pub fn is_empty(&self) -> bool {
        self.union.is_empty()
    }

    /// The trace, with span ids that are shared by client and server told apart.
    pub fn finish(self) -> CombinedTrace {
        let mut found = CombinedTrace {
            trace: separate_shared_span_ids(self.union.finish()),
            inspected_bytes: self.inspected_bytes,
            message: String::new(),
        };
        if self.too_large {
            found.add_message(&format!(
                "Trace exceeds maximum size of {} bytes, a partial trace is returned",
                self.max_bytes
            ));
        }
        found
    }
}

/// Zipkin lets the client and the server side of a call share one span id; a tree needs two. The
/// server side gets a new id and becomes the child of the client side, and what was its child
/// stays so.
fn separate_shared_span_ids(trace: Bytes) -> Bytes {
    match shares_span_ids(&trace) {
        Ok(true) => {}
        // A trace that cannot be read is told by whoever writes it out.
        Ok(false) | Err(_) => return trace,
    }
    match Trace::decode(trace.clone()) {
        Ok(mut decoded) => {
            rename_shared(&mut decoded);
            decoded.encode_to_vec().into()
        }
        // Text that is not UTF-8: the ids stay shared.
        Err(_) => trace,
    }
}

fn shares_span_ids(trace: &[u8]) -> Result<bool, WireError> {
    let mut clients = HashSet::new();
    let mut servers = HashSet::new();
    for batch in resource_spans(trace) {
        for scope in batch?.scope_spans() {
            for raw in scope?.raw_spans() {
                let span = SpanRef::parse(raw?)?;
                if span.kind == SpanKind::Client as i32 {
                    clients.insert(span.span_id);
                } else if span.kind == SpanKind::Server as i32 {
                    servers.insert(span.span_id);
                }
            }
        }
    }
    Ok(!clients.is_disjoint(&servers))
}

fn each_span(trace: &mut Trace, mut visit: impl FnMut(&mut Span)) {
    for batch in &mut trace.resource_spans {
        for scope in &mut batch.scope_spans {
            scope.spans.iter_mut().for_each(&mut visit);
        }
    }
}

fn rename_shared(trace: &mut Trace) {
    let mut used = HashSet::new();
    let mut clients = HashSet::new();
    each_span(trace, |span| {
        used.insert(span.span_id.clone());
        if span.kind() == SpanKind::Client {
            clients.insert(span.span_id.clone());
        }
    });
    let mut next_id = 0_u64;
    let mut renamed = HashMap::new();
    each_span(trace, |span| {
        if span.kind() != SpanKind::Server || !clients.contains(&span.span_id) {
            return;
        }
        let new_id = loop {
            next_id += 1;
            let id = next_id.to_be_bytes().to_vec();
            if !used.contains(&id) {
                break id;
            }
        };
        span.parent_span_id = std::mem::replace(&mut span.span_id, new_id.clone());
        renamed.insert(span.parent_span_id.clone(), new_id);
    });
    each_span(trace, |span| {
        if let Some(new_parent) = renamed.get(&span.parent_span_id)
            && span.span_id != *new_parent
        {
            span.parent_span_id.clone_from(new_parent);
        }
    });
}

#[cfg(test)]
mod tests {
    use tempo_proto::{
        opentelemetry::proto::trace::v1::{ResourceSpans, ScopeSpans},
        tempopb::TraceByIdResponse,
    };

    use super::*;

    fn span(id: u8, parent: u8, kind: SpanKind) -> Span {
        let id_of = |id: u8| u64::from(id).to_be_bytes().to_vec();
        Span {
            span_id: id_of(id),
            parent_span_id: if parent == 0 {
                Vec::new()
            } else {
                id_of(parent)
            },
            kind: kind.into(),
            ..Span::default()
        }
    }

    fn part(spans: Vec<Span>) -> Bytes {
        Trace {
            resource_spans: vec![ResourceSpans {
                scope_spans: vec![ScopeSpans {
                    spans,
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        }
        .encode_to_vec()
        .into()
    }

    fn found(parts: Vec<Bytes>) -> TraceParts {
        TraceParts {
            parts,
            inspected_bytes: 10,
        }
    }

    fn ids(trace: &Bytes) -> Vec<(u8, u8)> {
        let last = |id: &[u8]| id.last().copied().unwrap_or(0);
        let mut trace = Trace::decode(trace.clone()).unwrap();
        let mut ids = Vec::new();
        each_span(&mut trace, |span| {
            ids.push((last(&span.span_id), last(&span.parent_span_id)));
        });
        ids
    }

    #[test]
    fn the_server_side_of_a_shared_id_becomes_a_child() {
        use SpanKind::{Client, Internal, Server};
        let mut combiner = TraceCombiner::new(0, false);
        combiner
            .add(found(vec![part(vec![
                span(2, 1, Client),
                span(2, 1, Server),
                span(3, 2, Internal),
                span(1, 0, Server),
            ])]))
            .unwrap();
        // 1, 2 and 3 are taken: the server side becomes 4, and its child follows it.
        assert_eq!(
            ids(&combiner.finish().trace),
            [(2, 1), (4, 2), (3, 4), (1, 0)]
        );
    }

    #[test]
    fn a_trace_too_large_is_an_error_or_a_part() {
        let parts = || {
            vec![
                part(vec![span(1, 0, SpanKind::Server)]),
                part(vec![span(2, 1, SpanKind::Server)]),
                part(vec![span(3, 1, SpanKind::Server)]),
            ]
        };
        let max_bytes = parts()[0].len() + 1;
        let mut strict = TraceCombiner::new(max_bytes, false);
        assert_eq!(
            strict.add(found(parts())),
            Err(JobError::TraceTooLarge(format!(
                "trace exceeds max size (max bytes: {max_bytes})"
            )))
        );
        let mut lenient = TraceCombiner::new(max_bytes, true);
        lenient.add(found(parts())).unwrap();
        lenient.add(found(parts())).unwrap();
        let found = lenient.finish();
        assert_eq!(ids(&found.trace).len(), 2);
        assert_eq!(found.inspected_bytes, 20);
        assert_eq!(
            found.message,
            format!("Trace exceeds maximum size of {max_bytes} bytes, a partial trace is returned")
        );
        let response = TraceByIdResponse::decode(found.to_response().as_slice()).unwrap();
        assert_eq!(response.status, PartialStatus::Partial as i32);
        assert_eq!(response.message, found.message);
        assert_eq!(response.metrics.unwrap().inspected_bytes, 20);
    }

    #[test]
    fn nothing_found_still_has_a_trace() {
        let found = TraceCombiner::new(1, true).finish();
        assert_eq!(found.to_response(), [0x0a, 0, 0x12, 0]);
    }

    #[test]
    fn bytes_that_are_no_trace_are_told() {
        let mut combiner = TraceCombiner::new(0, true);
        combiner
            .add(found(vec![part(vec![span(1, 0, SpanKind::Server)])]))
            .unwrap();
        let broken = found(vec![Bytes::from_static(&[0x0a, 9])]);
        assert!(matches!(combiner.add(broken), Err(JobError::Failed(_))));
    }
}
