//! The `q` of a trace lookup: which spans of a trace the client wants to see.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::atomic::AtomicBool,
};

use tempo_api::{BadRequest, combine::CombinedTrace, job::JobError, params::TraceFilterParams};
use tempo_engine::{Limits, Plan, find};
use tempo_model::{
    TraceId,
    otlp::{Fields, SpanRef, WireError, resource_spans, write_message},
};
use tempo_table::{
    Intrinsic as Stored, Level, MemoryTableBuilder, SpanTable as _, shape::span_key,
};
use tempo_traceql::{
    Attribute, FieldExpr, Intrinsic,
    ast::{PipelineElement, SpansetExpr},
};

use crate::error::QueryError;

const RESOURCE_SPANS: u32 = 1;
const SCOPE_SPANS: u32 = 2;
const SPANS: u32 = 2;
/// Bytes of columns that filtering one trace may hold.
const MAX_COLUMN_BYTES: usize = 256 * 1024 * 1024;

/// A filter that has been checked.
pub(crate) struct TraceFilter {
    plan: Plan,
    params: TraceFilterParams,
}

impl TraceFilter {
    /// Refuses what is more than one plain filter of spans.
    pub(crate) fn new(params: TraceFilterParams) -> Result<Self, BadRequest> {
        let refused = |text: String| BadRequest(format!("invalid TraceQL filter: {text}"));
        let query = tempo_traceql::parse(&params.query)
            .map_err(|error| refused(format!("failed to parse TraceQL spanset filter: {error}")))?;
        let elements = query.single_pipeline().map(|pipeline| &*pipeline.elements);
        let is_metrics = matches!(query.body, tempo_traceql::ast::QueryBody::Metrics(_));
        match elements {
            Some([PipelineElement::Spanset(SpansetExpr::Filter(filter))]) if !is_metrics => {
                check(filter).map_err(|reason| refused(reason.to_owned()))?;
            }
            _ => {
                return Err(refused(
                    "only a single TraceQL filter is supported".to_owned(),
                ));
            }
        }
        let plan = Plan::new(&query).map_err(|error| refused(error.to_string()))?;
        Ok(Self { plan, params })
    }

    /// The spans that match, with as many of their relatives as was asked for.
    pub(crate) async fn apply(self, found: CombinedTrace) -> Result<CombinedTrace, QueryError> {
        if found.trace.is_empty() {
            return Ok(found);
        }
        let result = tokio::task::spawn_blocking(move || self.filter(found)).await;
        result.unwrap_or_else(|error| {
            Err(QueryError::Job(JobError::Failed(format!(
                "filtering the trace: {error}"
            ))))
        })
    }

    fn filter(&self, mut found: CombinedTrace) -> Result<CombinedTrace, QueryError> {
        let unreadable = |error: WireError| {
            QueryError::Job(JobError::Failed(format!(
                "stored trace is not readable: {error}"
            )))
        };
        let matched = matching_span_ids(&self.plan, &found.trace)?;
        let family = Family::of(&found.trace).map_err(unreadable)?;
        let mut kept = matched.clone();
        kept.extend(family.descendants(&matched, self.params.match_depth));
        if self.params.keep_hierarchy {
            kept.extend(family.ancestors(&matched, self.params.ancestor_depth));
        }
        let (trace, dropped) = retain_spans(&found.trace, &kept).map_err(unreadable)?;
        if dropped > 0 {
            found.trace = trace.into();
            found.add_message(
                "Trace filtered, only a subset of spans matching the filter is returned",
            );
        }
        Ok(found)
    }
}

/// The ids of the spans that match. The engine works on tables, so the trace becomes one.
fn matching_span_ids(plan: &Plan, trace: &[u8]) -> Result<SpanIds, QueryError> {
    let failed = |error: &dyn std::fmt::Display| {
        QueryError::Job(JobError::Failed(format!("filtering the trace: {error}")))
    };
    let mut builder = MemoryTableBuilder::new();
    builder
        .push_trace(TraceId::default(), &[trace])
        .map_err(|error| failed(&error))?;
    let table = builder.finish();
    let limits = Limits {
        max_column_bytes: MAX_COLUMN_BYTES,
        cancel: &AtomicBool::new(false),
    };
    let found = find(plan, &table, None, limits).map_err(|error| failed(&error))?;
    let spans = table.rows(Level::Span).map_err(|error| failed(&error))?;
    let rows: Vec<u32> = found.spans(spans).iter().map(|row| row as u32).collect();
    let ids = table
        .gather(&Stored::SpanId.into(), &rows)
        .map_err(|error| failed(&error))?;
    Ok(match ids.ids {
        Some(lane) => (0..rows.len()).map(|row| span_key(lane.get(row))).collect(),
        None => SpanIds::new(),
    })
}

/// Whether a filter can be decided by looking at single spans.
fn check(expr: &FieldExpr) -> Result<(), &'static str> {
    match expr {
        FieldExpr::Static(_) => Ok(()),
        FieldExpr::Attribute(attribute) | FieldExpr::List { attribute, .. } => {
            check_attribute(attribute)
        }
        FieldExpr::Negate(operand)
        | FieldExpr::Not(operand)
        | FieldExpr::Exists(operand)
        | FieldExpr::NotExists(operand) => check(operand),
        FieldExpr::Arithmetic { lhs, rhs, .. } | FieldExpr::Comparison { lhs, rhs, .. } => {
            check(lhs).and_then(|()| check(rhs))
        }
        FieldExpr::Logical { operands, .. } => operands.iter().try_for_each(check),
    }
}

fn check_attribute(attribute: &Attribute) -> Result<(), &'static str> {
    match attribute {
        Attribute::Named { parent: true, .. } => {
            Err("attribute scope is not supported by this filter")
        }
        Attribute::Named { .. }
        | Attribute::Intrinsic(
            Intrinsic::Duration
            | Intrinsic::Name
            | Intrinsic::Status
            | Intrinsic::StatusMessage
            | Intrinsic::Kind
            | Intrinsic::SpanId
            | Intrinsic::ParentId
            | Intrinsic::EventName
            | Intrinsic::EventTimeSinceStart
            | Intrinsic::LinkTraceId
            | Intrinsic::LinkSpanId
            | Intrinsic::InstrumentationName
            | Intrinsic::InstrumentationVersion,
        ) => Ok(()),
        Attribute::Intrinsic(_) => Err("intrinsic is not supported by this filter"),
    }
}

/// As tables keep them, so that an id that is short or absent is the same everywhere.
type SpanIds = HashSet<u64>;

/// Who is whose child in a trace.
#[derive(Default)]
struct Family {
    parents: HashMap<u64, Vec<u64>>,
    children: HashMap<u64, Vec<u64>>,
}

impl Family {
    fn of(trace: &[u8]) -> Result<Self, WireError> {
        let mut family = Self::default();
        for batch in resource_spans(trace) {
            for scope in batch?.scope_spans() {
                for raw in scope?.raw_spans() {
                    let span = SpanRef::parse(raw?)?;
                    let (id, parent) = (span_key(span.span_id), span_key(span.parent_span_id));
                    if parent == 0 {
                        continue;
                    }
                    family.children.entry(parent).or_default().push(id);
                    family.parents.entry(id).or_default().push(parent);
                }
            }
        }
        Ok(family)
    }

    fn descendants(&self, of: &SpanIds, max_depth: Option<u32>) -> SpanIds {
        reachable(&self.children, of, max_depth)
    }

    fn ancestors(&self, of: &SpanIds, max_depth: Option<u32>) -> SpanIds {
        reachable(&self.parents, of, max_depth)
    }
}

/// The ids that are reached from `start` in up to `max_depth` steps, the start itself left out.
fn reachable(
    neighbours: &HashMap<u64, Vec<u64>>,
    start: &SpanIds,
    max_depth: Option<u32>,
) -> SpanIds {
    let mut reached = SpanIds::new();
    let mut queue: VecDeque<(u64, u32)> = start.iter().map(|&id| (id, 0)).collect();
    while let Some((id, depth)) = queue.pop_front() {
        if max_depth.is_some_and(|max| depth >= max) {
            continue;
        }
        for &next in neighbours.get(&id).into_iter().flatten() {
            if !start.contains(&next) && reached.insert(next) {
                queue.push_back((next, depth + 1));
            }
        }
    }
    reached
}

/// The trace without the spans whose id is not among `kept`, and how many those are.
fn retain_spans(trace: &[u8], kept: &SpanIds) -> Result<(Vec<u8>, usize), WireError> {
    let mut dropped = 0;
    let mut out = Vec::with_capacity(trace.len());
    for batch in resource_spans(trace) {
        let before_batch = out.len();
        let mut any_in_batch = false;
        write_message(&mut out, RESOURCE_SPANS, |out| {
            for field in Fields::new(batch?.raw) {
                let field = field?;
                if field.number != SCOPE_SPANS {
                    out.extend_from_slice(field.raw);
                    continue;
                }
                let before_scope = out.len();
                let mut any_in_scope = false;
                write_message(out, SCOPE_SPANS, |out| {
                    for field in Fields::new(field.message()?) {
                        let field = field?;
                        if field.number == SPANS {
                            let span = SpanRef::parse(field.message()?)?;
                            if !kept.contains(&span_key(span.span_id)) {
                                dropped += 1;
                                continue;
                            }
                            any_in_scope = true;
                        }
                        out.extend_from_slice(field.raw);
                    }
                    Ok::<_, WireError>(())
                })?;
                if any_in_scope {
                    any_in_batch = true;
                } else {
                    out.truncate(before_scope);
                }
            }
            Ok::<_, WireError>(())
        })?;
        if !any_in_batch {
            out.truncate(before_batch);
        }
    }
    Ok((out, dropped))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tempo_proto::{
        opentelemetry::proto::trace::v1::{ResourceSpans, ScopeSpans, Span},
        tempopb::Trace,
    };

    use super::*;

    fn params(query: &str) -> TraceFilterParams {
        TraceFilterParams {
            query: query.to_owned(),
            keep_hierarchy: false,
            match_depth: Some(0),
            ancestor_depth: None,
        }
    }

    #[test]
    fn only_one_plain_filter_of_spans_is_taken() {
        let refused = |query: &str| {
            TraceFilter::new(params(query))
                .err()
                .map(|error| error.0.replace("invalid TraceQL filter: ", ""))
        };
        for query in [
            "{ }",
            "{ span.a = 1 && (resource.b =~ `x` || event:name != nil) }",
            "{ -.a + 1 > duration && status = error }",
        ] {
            assert_eq!(refused(query), None, "{query}");
        }
        for query in [
            "{ } | count() > 1",
            "{ } >> { }",
            "{ } | rate()",
            "({ } | count() > 1)",
        ] {
            let refusal = refused(query);
            assert_eq!(
                refusal.as_deref(),
                Some("only a single TraceQL filter is supported"),
                "{query}"
            );
        }
        assert_eq!(
            refused("{ trace:rootName = `x` }").as_deref(),
            Some("intrinsic is not supported by this filter")
        );
        assert!(
            refused("{ .a = ")
                .unwrap()
                .starts_with("failed to parse TraceQL spanset filter: parse error")
        );
    }

    /// 1 ← 2 ← 3 ← 4, and 1 ← 5, in two resources.
    fn trace() -> Vec<u8> {
        let span = |id: u8, parent: u8| Span {
            span_id: vec![id; 8],
            parent_span_id: if parent == 0 {
                Vec::new()
            } else {
                vec![parent; 8]
            },
            ..Span::default()
        };
        let batch = |schema: &str, spans: Vec<Span>| ResourceSpans {
            scope_spans: vec![
                ScopeSpans {
                    spans,
                    ..ScopeSpans::default()
                },
                ScopeSpans::default(),
            ],
            schema_url: schema.to_owned(),
            ..ResourceSpans::default()
        };
        Trace {
            resource_spans: vec![
                batch("a", vec![span(1, 0), span(2, 1), span(3, 2)]),
                batch("b", vec![span(4, 3), span(5, 1)]),
            ],
        }
        .encode_to_vec()
    }

    fn ids(ids: &[u8]) -> SpanIds {
        ids.iter().map(|&id| span_key(&[id; 8])).collect()
    }

    #[tokio::test]
    async fn a_trace_is_cut_down_to_what_matches() {
        let found = || CombinedTrace {
            trace: trace().into(),
            ..CombinedTrace::default()
        };
        let apply = async |params| {
            TraceFilter::new(params)
                .unwrap()
                .apply(found())
                .await
                .unwrap()
        };
        let spans = |found: &CombinedTrace| {
            let mut ids: Vec<u8> = Trace::decode(found.trace.clone())
                .unwrap()
                .resource_spans
                .iter()
                .flat_map(|batch| &batch.scope_spans)
                .flat_map(|scope| &scope.spans)
                .map(|span| span.span_id[0])
                .collect();
            ids.sort_unstable();
            ids
        };
        let three = "{ span:id = \"0303030303030303\" }";
        let filtered = apply(params(three)).await;
        assert_eq!(spans(&filtered), [3]);
        assert_eq!(
            filtered.message,
            "Trace filtered, only a subset of spans matching the filter is returned"
        );
        let filtered = apply(TraceFilterParams {
            keep_hierarchy: true,
            match_depth: None,
            ..params(three)
        })
        .await;
        assert_eq!(spans(&filtered), [1, 2, 3, 4]);
        let whole = apply(params("{ }")).await;
        assert_eq!(whole, found());
        let nothing = apply(params("{ name = `x` }")).await;
        assert!(nothing.trace.is_empty());
    }

    #[tokio::test]
    async fn ids_that_are_short_or_absent_are_as_good_as_others() {
        let span = |id: &[u8], parent: &[u8], name: &str| Span {
            span_id: id.to_vec(),
            parent_span_id: parent.to_vec(),
            name: name.to_owned(),
            ..Span::default()
        };
        let spans = vec![
            span(&[7], &[], "short"),
            span(&[], &[], "absent"),
            span(
                &[0, 0, 0, 0, 0, 0, 0, 9],
                &[0, 0, 0, 0, 0, 0, 0, 7],
                "child",
            ),
        ];
        let trace = Trace {
            resource_spans: vec![ResourceSpans {
                scope_spans: vec![ScopeSpans {
                    spans,
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        let found = CombinedTrace {
            trace: trace.encode_to_vec().into(),
            ..CombinedTrace::default()
        };
        let names = async |query: &str, match_depth| {
            let params = TraceFilterParams {
                match_depth,
                ..params(query)
            };
            let filter = TraceFilter::new(params).unwrap();
            let kept = filter.apply(found.clone()).await.unwrap();
            let kept = Trace::decode(kept.trace).unwrap();
            let spans = kept.resource_spans.into_iter();
            let spans = spans.flat_map(|batch| batch.scope_spans);
            let spans = spans.flat_map(|scope| scope.spans);
            spans.map(|span| span.name).collect::<Vec<_>>()
        };
        let all = ["short", "absent", "child"];
        assert_eq!(names("{ true }", Some(0)).await, all);
        assert_eq!(names("{ name = `absent` }", Some(0)).await, ["absent"]);
        assert_eq!(names("{ name = `short` }", None).await, ["short", "child"]);
    }

    #[test]
    fn relatives_are_followed_to_a_depth() {
        let family = Family::of(&trace()).unwrap();
        assert_eq!(family.descendants(&ids(&[2]), Some(0)), ids(&[]));
        assert_eq!(family.descendants(&ids(&[2]), Some(1)), ids(&[3]));
        assert_eq!(family.descendants(&ids(&[1]), None), ids(&[2, 3, 4, 5]));
        assert_eq!(family.ancestors(&ids(&[4]), None), ids(&[3, 2, 1]));
        assert_eq!(family.ancestors(&ids(&[4, 5]), Some(1)), ids(&[3, 1]));
    }

    #[test]
    fn other_spans_and_what_then_is_empty_are_dropped() {
        let (kept, dropped) = retain_spans(&trace(), &ids(&[2, 3])).unwrap();
        assert_eq!(dropped, 3);
        let kept = Trace::decode(kept.as_slice()).unwrap();
        assert_eq!(kept.resource_spans.len(), 1);
        assert_eq!(kept.resource_spans[0].schema_url, "a");
        assert_eq!(kept.resource_spans[0].scope_spans.len(), 1);
        let spans = &kept.resource_spans[0].scope_spans[0].spans;
        assert_eq!(spans.len(), 2);
        assert_eq!(retain_spans(&trace(), &ids(&[1, 2, 3, 4, 5])).unwrap().1, 0);
    }
}
