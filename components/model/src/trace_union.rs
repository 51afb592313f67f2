//! The union of partial traces, on wire bytes.
//!
//! A trace may lie in pieces: in live data, in blocks, twice where a sender retried. The union
//! holds every span of every piece once. Nothing is decoded: a kept span is a byte range of the
//! piece it came in, and what surrounds it (resource, scope, schema URLs, unknown fields) is kept
//! as it was.

use std::{collections::HashSet, ops::Range};

use bytes::Bytes;

use crate::{
    hash::fnv1_64,
    otlp::{Fields, SpanRef, WireError, len_prefixed_len, write_len_prefixed, write_varint},
};

const TRACE_RESOURCE_SPANS: u32 = 1;
const RESOURCE_SPANS_SCOPE_SPANS: u32 = 2;
const SCOPE_SPANS_SPANS: u32 = 2;

/// Collects serialized `tempopb.Trace` messages (repeated OTLP `ResourceSpans`, field 1) of one
/// trace.
#[derive(Debug, Default)]
pub struct TraceUnion {
    parts: Vec<Bytes>,
    merged: Option<Merged>,
}

impl TraceUnion {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part. Of its spans those are kept whose id and kind no earlier part had. A part that
    /// is not a trace is an error and leaves the union as it was.
    pub fn add(&mut self, part: Bytes) -> Result<(), WireError> {
        if part.is_empty() {
            return Ok(());
        }
        if self.parts.is_empty() {
            self.parts.push(part);
            return Ok(());
        }
        let mut merged = match self.merged.take() {
            Some(merged) => merged,
            None => {
                let mut merged = Merged::default();
                merged.add(0, &self.parts[0])?;
                merged
            }
        };
        let added = merged.add(self.parts.len(), &part);
        self.merged = Some(merged);
        added?;
        self.parts.push(part);
        Ok(())
    }

    /// Whether no part has been added.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The length of the union, in bytes.
    pub fn byte_len(&self) -> usize {
        match &self.merged {
            Some(merged) => merged.byte_len(),
            None => self.parts.first().map_or(0, Bytes::len),
        }
    }

    /// The union as a serialized `Trace`: a single part as it came, several with their spans in
    /// order of start time.
    pub fn finish(self) -> Bytes {
        match self.merged {
            Some(merged) => merged.write(&self.parts).into(),
            None => self.parts.into_iter().next().unwrap_or_default(),
        }
    }
}

/// Several parts, taken apart.
#[derive(Debug, Default)]
struct Merged {
    resources: Vec<Group<Group<Span>>>,
    /// Hashes of id and kind.
    seen: HashSet<u64>,
}

/// A message with its repeated field taken out.
#[derive(Debug)]
struct Group<T> {
    /// All other fields, as they were.
    head: Vec<u8>,
    members: Vec<T>,
    /// The earliest span start in it.
    start: u64,
}

impl<T> Group<T> {
    fn new() -> Self {
        Self {
            head: Vec::new(),
            members: Vec::new(),
            start: u64::MAX,
        }
    }
}

/// Where the bytes of a `Span` message are.
#[derive(Debug, Clone)]
struct Span {
    part: usize,
    range: Range<usize>,
    start: u64,
}

impl Merged {
    fn add(&mut self, part_index: usize, part: &[u8]) -> Result<(), WireError> {
        let mut tokens = Vec::new();
        let mut resources = Vec::new();
        for field in Fields::new(part) {
            let field = field?;
            if field.number != TRACE_RESOURCE_SPANS {
                continue;
            }
            let mut resource = Group::new();
            for field in Fields::new(field.message()?) {
                let field = field?;
                if field.number != RESOURCE_SPANS_SCOPE_SPANS {
                    resource.head.extend_from_slice(field.raw);
                    continue;
                }
                let mut scope = Group::new();
                for field in Fields::new(field.message()?) {
                    let field = field?;
                    if field.number != SCOPE_SPANS_SPANS {
                        scope.head.extend_from_slice(field.raw);
                        continue;
                    }
                    let raw = field.message()?;
                    let span = SpanRef::parse(raw)?;
                    let token = fnv1_64(&[span.span_id, &span.kind.to_le_bytes()]);
                    if self.seen.contains(&token) {
                        continue;
                    }
                    tokens.push(token);
                    let offset = raw.as_ptr().addr() - part.as_ptr().addr();
                    scope.start = scope.start.min(span.start_time_unix_nano);
                    scope.members.push(Span {
                        part: part_index,
                        range: offset..offset + raw.len(),
                        start: span.start_time_unix_nano,
                    });
                }
                if !scope.members.is_empty() {
                    resource.start = resource.start.min(scope.start);
                    resource.members.push(scope);
                }
            }
            if !resource.members.is_empty() {
                resources.push(resource);
            }
        }
        // Only now: a part that holds a span twice was made so by its sender.
        self.seen.extend(tokens);
        self.resources.append(&mut resources);
        Ok(())
    }

    fn byte_len(&self) -> usize {
        self.resources
            .iter()
            .map(|resource| len_prefixed_len(TRACE_RESOURCE_SPANS, resource_len(resource)))
            .sum()
    }

    fn write(mut self, parts: &[Bytes]) -> Vec<u8> {
        let len = self.byte_len();
        self.resources.sort_by_key(|resource| resource.start);
        for resource in &mut self.resources {
            resource.members.sort_by_key(|scope| scope.start);
            for scope in &mut resource.members {
                scope.members.sort_by_key(|span| span.start);
            }
        }
        let mut out = Vec::with_capacity(len);
        for resource in &self.resources {
            write_header(&mut out, TRACE_RESOURCE_SPANS, resource_len(resource));
            out.extend_from_slice(&resource.head);
            for scope in &resource.members {
                write_header(&mut out, RESOURCE_SPANS_SCOPE_SPANS, scope_len(scope));
                out.extend_from_slice(&scope.head);
                for span in &scope.members {
                    let bytes = &parts[span.part][span.range.clone()];
                    write_len_prefixed(&mut out, SCOPE_SPANS_SPANS, bytes);
                }
            }
        }
        out
    }
}

fn write_header(out: &mut Vec<u8>, number: u32, len: usize) {
    write_varint(out, u64::from(number) << 3 | 2);
    write_varint(out, len as u64);
}

fn resource_len(resource: &Group<Group<Span>>) -> usize {
    let scopes: usize = resource
        .members
        .iter()
        .map(|scope| len_prefixed_len(RESOURCE_SPANS_SCOPE_SPANS, scope_len(scope)))
        .sum();
    resource.head.len() + scopes
}

fn scope_len(scope: &Group<Span>) -> usize {
    let spans: usize = scope
        .members
        .iter()
        .map(|span| len_prefixed_len(SCOPE_SPANS_SPANS, span.range.len()))
        .sum();
    scope.head.len() + spans
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tempo_proto::{
        opentelemetry::proto::{
            resource::v1::Resource,
            trace::v1::{ResourceSpans, ScopeSpans, Span, span::SpanKind},
        },
        tempopb::Trace,
    };

    use super::*;

    fn span(id: u8, kind: SpanKind, start: u64) -> Span {
        Span {
            span_id: vec![id; 8],
            kind: kind.into(),
            start_time_unix_nano: start,
            ..Span::default()
        }
    }

    fn part(schema_url: &str, spans: Vec<Span>) -> Bytes {
        Trace {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource::default()),
                scope_spans: vec![ScopeSpans {
                    spans,
                    schema_url: "scope".to_owned(),
                    ..ScopeSpans::default()
                }],
                schema_url: schema_url.to_owned(),
            }],
        }
        .encode_to_vec()
        .into()
    }

    fn union(parts: &[Bytes]) -> (Bytes, Vec<(String, Vec<u8>)>) {
        let mut union = TraceUnion::new();
        for part in parts {
            union.add(part.clone()).unwrap();
        }
        let expected_len = union.byte_len();
        let bytes = union.finish();
        assert_eq!(bytes.len(), expected_len);
        let spans = Trace::decode(bytes.clone())
            .unwrap()
            .resource_spans
            .into_iter()
            .map(|batch| {
                assert!(batch.resource.is_some());
                let ids = batch.scope_spans.iter().flat_map(|scope| {
                    assert_eq!(scope.schema_url, "scope");
                    scope.spans.iter().map(|span| span.span_id[0])
                });
                (batch.schema_url.clone(), ids.collect())
            })
            .collect();
        (bytes, spans)
    }

    #[test]
    fn one_part_comes_back_as_it_was() {
        assert!(TraceUnion::new().finish().is_empty());
        let only = part(
            "a",
            vec![span(2, SpanKind::Server, 2), span(2, SpanKind::Server, 2)],
        );
        let (bytes, _) = union(std::slice::from_ref(&only));
        assert_eq!(bytes, only);
    }

    #[test]
    fn each_span_is_kept_once_and_the_rest_is_sorted() {
        let first = part(
            "a",
            vec![span(2, SpanKind::Server, 20), span(1, SpanKind::Server, 10)],
        );
        let second = part(
            "b",
            vec![
                span(1, SpanKind::Server, 10),
                span(1, SpanKind::Client, 5),
                span(3, SpanKind::Server, 7),
            ],
        );
        let (_, spans) = union(&[first.clone(), second.clone(), Bytes::new(), first, second]);
        assert_eq!(
            spans,
            [("b".to_owned(), vec![1, 3]), ("a".to_owned(), vec![1, 2])]
        );
    }

    #[test]
    fn a_broken_part_is_refused_and_leaves_the_rest() {
        let mut union = TraceUnion::new();
        union
            .add(part("a", vec![span(1, SpanKind::Server, 1)]))
            .unwrap();
        assert!(union.add(Bytes::from_static(&[0x0a, 0x05, 1])).is_err());
        union
            .add(part("b", vec![span(2, SpanKind::Server, 2)]))
            .unwrap();
        let trace = Trace::decode(union.finish()).unwrap();
        assert_eq!(trace.resource_spans.len(), 2);
    }
}
