//! Tables and queries for tests.

use std::sync::atomic::AtomicBool;

use prost::Message;
use tempo_engine::{Limits, Plan, SearchOptions, SearchOutput, search};
use tempo_model::TraceId;
use tempo_proto::{
    opentelemetry::proto::{
        common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value},
        resource::v1::Resource,
        trace::v1::{ResourceSpans, ScopeSpans, Span},
    },
    tempopb::Trace,
};
use tempo_table::{MemoryTable, MemoryTableBuilder, SpanTable};

/// Nobody cancels.
pub(crate) static RUNNING: AtomicBool = AtomicBool::new(false);

pub(crate) fn limits() -> Limits<'static> {
    Limits {
        max_column_bytes: 1 << 30,
        cancel: &RUNNING,
    }
}

pub(crate) fn plan(query: &str) -> Plan {
    let parsed = tempo_traceql::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    Plan::new(&parsed).unwrap_or_else(|error| panic!("{query}: {error}"))
}

pub(crate) fn options() -> SearchOptions<'static> {
    SearchOptions {
        time_range_nano: None,
        max_traces: 1000,
        max_spans_per_span_set: 100,
        most_recent: false,
        limits: limits(),
    }
}

pub(crate) fn run(table: &dyn SpanTable, query: &str) -> Result<SearchOutput, String> {
    search(&plan(query), table, &options()).map_err(|error| error.to_string())
}

pub(crate) fn trace_id(last: u8) -> TraceId {
    TraceId::from_padded(&[last])
}

pub(crate) fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

pub(crate) fn attr(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(any(value)),
        ..Default::default()
    }
}

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    attr(key, Value::StringValue(value.into()))
}

pub(crate) fn int(key: &str, value: i64) -> KeyValue {
    attr(key, Value::IntValue(value))
}

pub(crate) fn float(key: &str, value: f64) -> KeyValue {
    attr(key, Value::DoubleValue(value))
}

pub(crate) fn bool(key: &str, value: bool) -> KeyValue {
    attr(key, Value::BoolValue(value))
}

pub(crate) fn array(key: &str, values: Vec<Value>) -> KeyValue {
    let values = values.into_iter().map(any).collect();
    attr(key, Value::ArrayValue(ArrayValue { values }))
}

pub(crate) fn span(id: &[u8], parent: &[u8], name: &str) -> Span {
    Span {
        span_id: id.to_vec(),
        parent_span_id: parent.to_vec(),
        name: name.into(),
        ..Default::default()
    }
}

pub(crate) fn resource(
    attributes: Vec<KeyValue>,
    scope: InstrumentationScope,
    spans: Vec<Span>,
) -> ResourceSpans {
    ResourceSpans {
        resource: Some(Resource {
            attributes,
            ..Default::default()
        }),
        scope_spans: vec![ScopeSpans {
            scope: Some(scope),
            spans,
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub(crate) fn service(name: &str, spans: Vec<Span>) -> ResourceSpans {
    resource(vec![text("service.name", name)], Default::default(), spans)
}

pub(crate) fn table(traces: Vec<(TraceId, Vec<ResourceSpans>)>) -> MemoryTable {
    let mut builder = MemoryTableBuilder::new();
    for (id, resource_spans) in traces {
        let bytes = Trace { resource_spans }.encode_to_vec();
        builder.push_trace(id, &[&bytes]).unwrap();
    }
    builder.finish()
}

/// One trace of one service, its spans in a row.
pub(crate) fn spans(spans: Vec<Span>) -> MemoryTable {
    table(vec![(trace_id(1), vec![service("s", spans)])])
}
