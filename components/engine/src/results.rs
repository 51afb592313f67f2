//! What answers say of the traces and spans that were found.
//!
//! Read for those alone that an answer shows: whole columns are not touched here.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;

use tempo_model::TraceId;
use tempo_table::{
    ABSENT, ArrayValue, AttributeScope, Bitmap, Column, ColumnKey, Intrinsic as Stored,
    SERVICE_NAME, StringLane, shape::ServiceStats,
};
use tempo_traceql::{Attribute, Intrinsic};

use crate::{
    error::EngineError,
    plan::{Loaded, Plan},
    rows::RowReader,
    search::{FoundService, FoundSpan, FoundSpanSet, FoundTrace},
    session::Session,
    test::elements,
    value::{Value, ValueRef},
};

/// The integer of a row; 0 when there is none.
pub(crate) fn number(column: &Column, row: usize) -> u64 {
    let value = column.ints.as_ref().and_then(|lane| lane.get(row));
    value.unwrap_or_default() as u64
}

/// The texts of a column that answers show. Traces have the same few roots and services, so each is
/// made once.
#[derive(Default)]
struct Texts(RefCell<HashMap<u32, Arc<str>, RandomState>>);

impl Texts {
    /// The text of a row; empty when there is none.
    fn of(&self, column: &Column, row: usize) -> Arc<str> {
        match &column.strings {
            Some(lane) => self.of_code(lane, lane.codes[row]),
            None => Arc::from(""),
        }
    }

    /// The text of a code; empty for [`ABSENT`].
    fn of_code(&self, lane: &StringLane, code: u32) -> Arc<str> {
        if code == ABSENT {
            return Arc::from("");
        }
        let mut texts = self.0.borrow_mut();
        Arc::clone(
            texts
                .entry(code)
                .or_insert_with(|| lane.dict.text(code).into()),
        )
    }
}

/// The columns that answers show.
pub(crate) fn shown_columns(plan: &Plan) -> Vec<ColumnKey> {
    let mut keys: Vec<ColumnKey> = [
        Stored::TraceId,
        Stored::TraceStartNano,
        Stored::TraceDurationNano,
        Stored::RootServiceName,
        Stored::RootSpanName,
        Stored::StatusCode,
        Stored::SpanId,
        Stored::SpanStartNano,
        Stored::SpanDurationNano,
    ]
    .map(ColumnKey::from)
    .into();
    keys.push(ColumnKey::attribute(AttributeScope::Resource, SERVICE_NAME));
    for loaded in &plan.loaded {
        keys.extend(plan.operands[loaded.operand].keys().cloned());
    }
    keys
}

/// Tells the table what answers will say of traces and of their spans.
pub(crate) fn prefetch(
    session: &Session<'_>,
    plan: &Plan,
    traces: &[u32],
) -> Result<(), EngineError> {
    let mut keys = shown_columns(plan);
    keys.retain(|key| !session.is_held(key));
    Ok(session.table.prefetch_of(&keys, traces)?)
}

/// What answers say of traces, read for some of them.
pub(crate) struct TraceColumns<'a> {
    session: &'a Session<'a>,
    traces: Vec<u32>,
    ids: Column,
    starts: Column,
    durations: Column,
    root_services: Column,
    root_service_texts: Texts,
    root_names: Column,
    root_name_texts: Texts,
    /// Rows of the services and of the statuses, and their values.
    resources: Vec<u32>,
    services: Column,
    service_texts: Texts,
    spans: Vec<u32>,
    statuses: Column,
    stats: RefCell<ServiceStats<u32>>,
}

impl<'a> TraceColumns<'a> {
    pub(crate) fn load(session: &'a Session<'a>, traces: &[u32]) -> Result<Self, EngineError> {
        let structure = &session.structure;
        let of_traces = |key: Stored| session.gather(&key.into(), traces);
        let rows = |starts: &[u32]| -> Vec<u32> {
            traces
                .iter()
                .flat_map(|&trace| starts[trace as usize]..starts[trace as usize + 1])
                .collect()
        };
        let resources = rows(&structure.trace_resources);
        let spans = rows(&structure.trace_spans);
        let service = ColumnKey::attribute(AttributeScope::Resource, SERVICE_NAME);
        Ok(Self {
            ids: of_traces(Stored::TraceId)?,
            starts: of_traces(Stored::TraceStartNano)?,
            durations: of_traces(Stored::TraceDurationNano)?,
            root_services: of_traces(Stored::RootServiceName)?,
            root_service_texts: Texts::default(),
            root_names: of_traces(Stored::RootSpanName)?,
            root_name_texts: Texts::default(),
            services: session.gather(&service, &resources)?,
            statuses: session.gather(&Stored::StatusCode.into(), &spans)?,
            session,
            traces: traces.to_vec(),
            resources,
            service_texts: Texts::default(),
            spans,
            stats: RefCell::default(),
        })
    }

    pub(crate) fn trace(&self, trace: usize, span_sets: Vec<FoundSpanSet>) -> FoundTrace {
        let at = self
            .traces
            .partition_point(|&other| (other as usize) < trace);
        let trace_id = match &self.ids.ids {
            Some(lane) => TraceId::from_padded(lane.get(at)),
            None => TraceId::default(),
        };
        FoundTrace {
            trace_id,
            root_service_name: self.root_service_texts.of(&self.root_services, at),
            root_trace_name: self.root_name_texts.of(&self.root_names, at),
            start_unix_nano: number(&self.starts, at),
            duration_nano: number(&self.durations, at),
            service_stats: self.service_stats(trace),
            span_sets,
        }
    }

    fn service_stats(&self, trace: usize) -> Vec<FoundService> {
        let structure = &self.session.structure;
        let resources = structure.trace_resources[trace]..structure.trace_resources[trace + 1];
        let first_resource = self.resources.partition_point(|&row| row < resources.start);
        let spans = structure.spans_of_trace(trace);
        let first_span = self
            .spans
            .partition_point(|&row| (row as usize) < spans.start);
        // Only texts name services: a number in their place counts as none.
        let code = |resource: u32| {
            let at = first_resource + (resource - resources.start) as usize;
            match &self.services.strings {
                Some(lane) if !lane.dict.is_empty() => lane.codes[at],
                _ => ABSENT,
            }
        };
        let mut stats = self.stats.borrow_mut();
        stats.clear();
        for (number_of_span, span) in spans.enumerate() {
            let status = number(&self.statuses, first_span + number_of_span);
            let service = code(structure.span_resource[span]);
            stats.add(service, 1, u32::from(status == 2));
        }
        stats
            .entries()
            .iter()
            .map(|entry| FoundService {
                name: match &self.services.strings {
                    Some(lane) => self.service_texts.of_code(lane, entry.service),
                    None => Arc::from(""),
                },
                spans: entry.spans,
                errors: entry.errors,
            })
            .collect()
    }
}

/// What answers say of spans, read for some of them.
pub(crate) struct SpanColumns<'a> {
    session: &'a Session<'a>,
    plan: &'a Plan,
    reader: RowReader<'a>,
    spans: Vec<u32>,
    ids: Column,
    starts: Column,
    durations: Column,
    /// The name by which each of the plan's loaded attributes is shown; `None` for those that are
    /// not.
    shown: Vec<Option<Arc<str>>>,
}

impl<'a> SpanColumns<'a> {
    pub(crate) fn load(
        session: &'a Session<'a>,
        plan: &'a Plan,
        spans: &Bitmap,
    ) -> Result<Self, EngineError> {
        let rows: Vec<u32> = spans.iter().map(|span| span as u32).collect();
        let is_name = |loaded: &Loaded| {
            plan.operands[loaded.operand].attribute == Attribute::Intrinsic(Intrinsic::Name)
        };
        let wanted: Vec<usize> = plan
            .loaded
            .iter()
            .filter(|loaded| is_name(loaded) || !loaded.is_shown_elsewhere(&plan.operands))
            .map(|loaded| loaded.operand)
            .collect();
        let shown = plan
            .loaded
            .iter()
            .map(|loaded| match &plan.operands[loaded.operand].attribute {
                _ if loaded.is_shown_elsewhere(&plan.operands) => None,
                Attribute::Named { name, .. } => Some(Arc::clone(name)),
                Attribute::Intrinsic(intrinsic) => Some(Arc::from(intrinsic.name())),
            })
            .collect();
        Ok(Self {
            reader: RowReader::for_operands(session, plan, &wanted, spans)?,
            ids: session.gather(&Stored::SpanId.into(), &rows)?,
            starts: session.gather(&Stored::SpanStartNano.into(), &rows)?,
            durations: session.gather(&Stored::SpanDurationNano.into(), &rows)?,
            session,
            plan,
            spans: rows,
            shown,
        })
    }

    pub(crate) fn span(&self, span: u32) -> FoundSpan {
        let at = self.spans.partition_point(|&other| other < span);
        let mut span_id = [0; 8];
        if let Some(lane) = &self.ids.ids
            && lane.width == span_id.len()
        {
            span_id.copy_from_slice(lane.get(at));
        }
        let mut found = FoundSpan {
            span_id,
            start_unix_nano: number(&self.starts, at),
            duration_nano: number(&self.durations, at),
            name: None,
            attributes: Vec::new(),
        };
        for (loaded, shown) in self.plan.loaded.iter().zip(&self.shown) {
            let operand = &self.plan.operands[loaded.operand];
            let values = self.reader.values(loaded.operand, span as usize);
            let mut surviving = values.enumerate().filter_map(|(source, value)| {
                let is_resource = operand.is_unscoped() && source == 1;
                if value.is_nil() && is_resource && !self.has_attributes(span) {
                    return None;
                }
                survivor(value, loaded)
            });
            match shown {
                None => {
                    if operand.attribute == Attribute::Intrinsic(Intrinsic::Name)
                        && let Some(Value::String(name)) = surviving.next()
                    {
                        found.name = Some(name);
                    }
                }
                Some(name) => {
                    // Of several events or links one is shown.
                    let most = if operand.is_unscoped() { 2 } else { 1 };
                    let shown = surviving.take(most).map(|value| (Arc::clone(name), value));
                    found.attributes.extend(shown);
                }
            }
        }
        found
    }

    /// Whether the span's resource has any attribute but its service name: only of those does
    /// Tempo say that they lack one.
    fn has_attributes(&self, span: u32) -> bool {
        let row = self.session.structure.span_resource[span as usize] as usize;
        let mut rows = Bitmap::new(self.session.structure.resources());
        rows.insert(row);
        self.session
            .table
            .attribute_names(AttributeScope::Resource, Some(&rows))
            .is_ok_and(|names| names.iter().any(|name| &**name != SERVICE_NAME))
    }
}

/// What is left of a value when only that is shown which the query asks for.
pub(crate) fn survivor(value: ValueRef<'_>, loaded: &Loaded) -> Option<Value> {
    let passes =
        |value: ValueRef<'_>| loaded.all || loaded.tests.iter().any(|test| test.passes(value));
    match value {
        ValueRef::Nil => loaded.missing.then_some(Value::Nil),
        ValueRef::Opaque => None,
        ValueRef::Array(array) => {
            let mut left = elements(array).filter(|&element| passes(element));
            let first = left.next()?;
            if left.next().is_none() {
                return Some(first.to_value());
            }
            Some(Value::Array(retain(array, &passes)))
        }
        value => passes(value).then(|| value.to_value()),
    }
}

fn retain(array: &ArrayValue, keep: &impl Fn(ValueRef<'_>) -> bool) -> ArrayValue {
    match array {
        ArrayValue::Empty => ArrayValue::Empty,
        ArrayValue::Strings(items) => ArrayValue::Strings(
            items
                .iter()
                .filter(|item| keep(ValueRef::Text(item.as_bytes())))
                .cloned()
                .collect(),
        ),
        ArrayValue::Ints(items) => ArrayValue::Ints(
            items
                .iter()
                .copied()
                .filter(|&item| keep(ValueRef::Int(item)))
                .collect(),
        ),
        ArrayValue::Floats(items) => ArrayValue::Floats(
            items
                .iter()
                .copied()
                .filter(|&item| keep(ValueRef::Float(item)))
                .collect(),
        ),
        ArrayValue::Bools(items) => ArrayValue::Bools(
            items
                .iter()
                .copied()
                .filter(|&item| keep(ValueRef::Bool(item)))
                .collect(),
        ),
    }
}
