//! The union of partial traces.
//!
//! Parts of one trace come from several places (live data, several blocks) and overlap: senders
//! retry, and a span may be in two of them. A span is known by its id and its kind, since the
//! client and the server side of one call may share an id.

use std::collections::HashSet;

use prost::Message;
use tempo_proto::{
    opentelemetry::proto::trace::v1::{ResourceSpans, ScopeSpans, Span},
    tempopb::Trace,
};

/// The union would be larger than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("trace exceeds max size (max bytes: {max_bytes})")]
pub struct TraceTooLarge {
    /// Most bytes of the trace, serialized.
    pub max_bytes: usize,
}

/// Unites the parts of one trace, in the order in which they are added.
#[derive(Debug, Default)]
pub struct TraceCombiner {
    trace: Option<Trace>,
    /// Filled when there is a second part: most traces come from one place.
    seen: HashSet<SpanKey>,
    combined: bool,
    max_bytes: Option<usize>,
    bytes: usize,
}

/// What tells spans of one trace apart. Span ids have 8 bytes; of others the last 8 count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct SpanKey {
    id: u64,
    kind: i32,
}

impl SpanKey {
    fn of(span: &Span) -> Self {
        let id = span
            .span_id
            .iter()
            .rev()
            .take(8)
            .zip(0..)
            .fold(0, |id, (&byte, place)| id | u64::from(byte) << (8 * place));
        Self {
            id,
            kind: span.kind,
        }
    }
}

impl TraceCombiner {
    /// A combiner whose result has at most `max_bytes` serialized bytes, or any number.
    pub fn new(max_bytes: Option<usize>) -> Self {
        Self {
            max_bytes,
            ..Self::default()
        }
    }

    /// Adds a part. The first one is kept as it is; of later ones only the spans that are new are
    /// kept, within their own resource and scope.
    ///
    /// # Errors
    /// When the result would be too large. The part is not added then, and what was combined
    /// before stays: a partial trace.
    pub fn add(&mut self, mut part: Trace) -> Result<(), TraceTooLarge> {
        if let Some(first) = &self.trace {
            if self.seen.is_empty() {
                self.seen.extend(spans(first).map(SpanKey::of));
            }
            // A part that repeats one of its own spans keeps the first of them.
            let mut own = HashSet::new();
            for resource in &mut part.resource_spans {
                for scope in &mut resource.scope_spans {
                    scope.spans.retain(|span| {
                        let key = SpanKey::of(span);
                        !self.seen.contains(&key) && own.insert(key)
                    });
                }
                resource.scope_spans.retain(|scope| !scope.spans.is_empty());
            }
            part.resource_spans
                .retain(|resource| !resource.scope_spans.is_empty());
        }
        if let Some(max_bytes) = self.max_bytes {
            let bytes = self.bytes + part.encoded_len();
            if bytes > max_bytes {
                return Err(TraceTooLarge { max_bytes });
            }
            self.bytes = bytes;
        }
        match &mut self.trace {
            None => self.trace = Some(part),
            Some(trace) if !part.resource_spans.is_empty() => {
                self.seen.extend(spans(&part).map(SpanKey::of));
                trace.resource_spans.append(&mut part.resource_spans);
                self.combined = true;
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Serialized bytes so far; counted only where there is a maximum.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The united trace, sorted if it has more than one part; `None` when nothing was added.
    pub fn finish(self) -> Option<Trace> {
        let mut trace = self.trace?;
        if self.combined {
            sort(&mut trace);
        }
        Some(trace)
    }
}

/// Unites `parts` without a limit of size; `None` when there are none.
pub fn combine(parts: impl IntoIterator<Item = Trace>) -> Option<Trace> {
    let mut combiner = TraceCombiner::new(None);
    for part in parts {
        // Without a limit, every part is added.
        let _ = combiner.add(part);
    }
    combiner.finish()
}

fn spans(trace: &Trace) -> impl Iterator<Item = &Span> {
    let scopes = trace
        .resource_spans
        .iter()
        .flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| &scope.spans)
}

/// Sorts spans by start and id, scopes and resources by their first span; what holds no span comes
/// first.
pub fn sort(trace: &mut Trace) {
    for resource in &mut trace.resource_spans {
        for scope in &mut resource.scope_spans {
            scope.spans.sort_by(|a, b| span_order(a).cmp(&span_order(b)));
        }
        resource
            .scope_spans
            .sort_by(|a, b| scope_order(a).cmp(&scope_order(b)));
    }
    trace
        .resource_spans
        .sort_by(|a, b| resource_order(a).cmp(&resource_order(b)));
}

fn span_order(span: &Span) -> (u64, &[u8]) {
    (span.start_time_unix_nano, &span.span_id)
}

fn scope_order(scope: &ScopeSpans) -> Option<(u64, &[u8])> {
    scope.spans.first().map(span_order)
}

fn resource_order(resource: &ResourceSpans) -> Option<(u64, &[u8])> {
    resource.scope_spans.iter().find_map(scope_order)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: u8, kind: i32, start: u64) -> Span {
        Span {
            span_id: vec![0, 0, 0, 0, 0, 0, 0, id],
            kind,
            start_time_unix_nano: start,
            ..Span::default()
        }
    }

    /// One resource with one scope per list of spans.
    fn trace(scopes: &[&[Span]]) -> Trace {
        Trace {
            resource_spans: vec![ResourceSpans {
                scope_spans: scopes
                    .iter()
                    .map(|spans| ScopeSpans {
                        spans: spans.to_vec(),
                        ..ScopeSpans::default()
                    })
                    .collect(),
                ..ResourceSpans::default()
            }],
        }
    }

    fn ids(trace: &Trace) -> Vec<Vec<u8>> {
        let scopes = trace
            .resource_spans
            .iter()
            .flat_map(|resource| &resource.scope_spans);
        scopes
            .map(|scope| scope.spans.iter().map(|span| span.span_id[7]).collect())
            .collect()
    }

    #[test]
    fn a_single_part_is_kept_as_it_is() {
        let only = trace(&[&[span(2, 1, 20), span(1, 1, 10), span(1, 1, 10)]]);
        assert_eq!(combine([only.clone()]), Some(only));
        assert_eq!(combine([]), None);
    }

    #[test]
    fn a_span_is_known_by_id_and_kind_and_the_result_is_sorted() {
        let first = trace(&[&[span(3, 1, 30)], &[span(2, 3, 5)]]);
        let second = trace(&[&[span(3, 1, 30), span(2, 2, 4), span(2, 2, 4)], &[span(2, 3, 5)]]);
        let combined = combine([first, second]).unwrap();
        assert_eq!(ids(&combined), vec![vec![2], vec![2], vec![3]]);
        let kinds: Vec<i32> = spans(&combined).map(|span| span.kind).collect();
        assert_eq!(kinds, vec![2, 3, 1]);
    }

    #[test]
    fn parts_without_news_change_nothing_not_even_the_order() {
        let first = trace(&[&[span(2, 1, 20), span(1, 1, 10)]]);
        let combined = combine([first.clone(), first.clone(), Trace::default()]);
        assert_eq!(combined, Some(first));
    }

    #[test]
    fn what_would_be_too_large_is_left_out_and_said() {
        let first = trace(&[&[span(1, 1, 1)]]);
        let second = trace(&[&[span(1, 1, 1), span(2, 1, 2)]]);
        let limit = first.encoded_len() + 1;
        let mut combiner = TraceCombiner::new(Some(limit));
        combiner.add(first.clone()).unwrap();
        assert_eq!(
            combiner.add(second),
            Err(TraceTooLarge { max_bytes: limit })
        );
        combiner.add(first.clone()).unwrap();
        assert_eq!(combiner.bytes(), first.encoded_len());
        assert_eq!(combiner.finish(), Some(first));
    }

    #[test]
    fn spans_of_one_start_are_sorted_by_id_and_empty_scopes_do_no_harm() {
        let first = trace(&[&[], &[span(9, 1, 1)]]);
        let second = trace(&[&[span(4, 1, 1)]]);
        let combined = combine([first, second]).unwrap();
        assert_eq!(ids(&combined), vec![vec![4], vec![], vec![9]]);
    }
}
