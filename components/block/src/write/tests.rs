//! Blocks as a whole: what is in them, and what becomes of bad input.

mod golden_rows;
mod input;
mod json;
mod store;

use std::{collections::BTreeMap, io};

use bytes::Bytes;
use prost::Message;
use tempo_backend::{DedicatedColumn, DedicatedColumns, DedicatedScope};
use tempo_model::{TraceId, otlp::WireError};
use tempo_proto::{
    opentelemetry::proto::{
        common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
        resource::v1::Resource,
        trace::v1::{ResourceSpans, ScopeSpans, Span, span},
    },
    tempopb::Trace,
};
use uuid::Uuid;

use super::*;
use crate::{
    check::check_parts,
    schema::Version,
    testing::{Entry, read_leaves},
};

fn options(version: Version) -> BlockOptions {
    let id = Uuid::from_u128(0x1111_1111_2222_4333_8444_5555_5555_5555);
    BlockOptions::new(version, "single-tenant".into(), id, 200)
}

/// Serialized `tempopb.Trace` messages by trace.
type Traces = BTreeMap<TraceId, Vec<Vec<u8>>>;

fn build(options: BlockOptions, traces: &Traces) -> (FinishedBlock, Bytes) {
    let mut builder = BlockBuilder::new(options, Vec::new()).unwrap();
    for (id, chunks) in traces {
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        builder.push_trace(*id, &chunks).unwrap();
    }
    let (block, data) = builder.finish().unwrap();
    (block, data.into())
}

/// The rows of a file by trace, each with the entries of every leaf.
fn by_trace(file: Bytes) -> (Vec<String>, BTreeMap<String, Vec<Vec<Entry>>>) {
    let leaves = read_leaves(file);
    let paths = leaves.iter().map(|leaf| leaf.path.clone()).collect();
    let mut rows = BTreeMap::new();
    for row in 0..leaves[0].rows.len() {
        let id = leaves[1].rows[row][0].2.clone().unwrap();
        let entries: Vec<Vec<Entry>> = leaves.iter().map(|leaf| leaf.rows[row].clone()).collect();
        assert!(rows.insert(id.clone(), entries).is_none(), "{id} twice");
    }
    (paths, rows)
}

/// The values of one column, row after row; `-` where there is none.
fn column(file: &Bytes, path: &str) -> Vec<String> {
    let leaf = read_leaves(file.clone())
        .into_iter()
        .find(|leaf| leaf.path == path)
        .unwrap_or_else(|| panic!("no column {path}"));
    leaf.rows
        .into_iter()
        .flatten()
        .map(|(_, _, value)| value.unwrap_or_else(|| "-".to_owned()))
        .collect()
}

fn assert_good(block: &FinishedBlock, data: &Bytes) {
    let report = check_parts(data.clone(), &block.meta, &block.blooms, &block.index).unwrap();
    assert_eq!(report.problems, []);
    assert_eq!(report.spans, block.spans);
    assert_eq!(report.traces as i64, block.meta.total_objects);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let traces = input::made(2000);
    for version in [Version::VParquet4, Version::VParquet5] {
        let (first, first_data) = build(options(version), &traces);
        let (second, second_data) = build(options(version), &traces);
        assert!(first_data == second_data);
        assert_eq!(first.blooms, second.blooms);
        assert_eq!(first.index, second.index);
        assert_eq!(first.meta, second.meta);
    }
}

#[test]
fn row_groups_change_nothing_but_their_number() {
    let traces = input::made(6000);
    let (whole, whole_data) = build(options(Version::VParquet4), &traces);
    let (cut, cut_data) = build(
        BlockOptions {
            row_group_size_bytes: 100_000,
            ..options(Version::VParquet4)
        },
        &traces,
    );
    assert_good(&whole, &whole_data);
    assert_good(&cut, &cut_data);
    assert_eq!(whole.meta.total_records, 1);
    assert!(
        (4..=20).contains(&cut.meta.total_records),
        "{}",
        cut.meta.total_records
    );
    assert!(by_trace(whole_data) == by_trace(cut_data));
}

#[test]
fn the_meta_tells_what_the_block_is() {
    let (block, data) = build(options(Version::VParquet4), &crate::testing::input_traces());
    let mut meta = serde_json::to_value(&block.meta).unwrap();
    assert_eq!(meta["size"], data.len());
    assert!(meta["footerSize"].as_u64().unwrap() > 10_000);
    for measured in ["size", "footerSize"] {
        meta.as_object_mut().unwrap().remove(measured);
    }
    assert_eq!(
        meta,
        serde_json::json!({
            "format": "vParquet4",
            "blockID": "11111111-2222-4333-8444-555555555555",
            "tenantID": "single-tenant",
            "startTime": "2026-11-22T17:41:39Z",
            "endTime": "2026-11-22T17:42:33Z",
            "totalObjects": 192,
            "compactionLevel": 0,
            "indexPageSize": 0,
            "totalRecords": 1,
            "bloomShards": 1,
            "dedicatedColumns": [
                {"n": "http.request.method"},
                {"n": "url.path"},
                {"n": "url.route"},
                {"n": "server.address"},
                {"n": "http.route"},
            ],
            "replicationFactor": 1,
        })
    );
    assert_eq!(block.blooms.len(), 1);

    let builder = BlockBuilder::new(options(Version::VParquet5), Vec::new()).unwrap();
    let (block, data) = builder.finish().unwrap();
    let data = Bytes::from(data);
    assert_good(&block, &data);
    assert_eq!(block.index, r#"{"rowGroups":null}"#);
    assert!(block.meta.start_time.is_zero() && block.meta.end_time.is_zero());
    assert_eq!(block.meta.dedicated_columns.as_slice().len(), 14);
}

#[test]
fn spans_sent_twice_are_stored_once() {
    let span = |id: u8, kind: i32, name: &str| Span {
        span_id: vec![id; 8],
        kind,
        name: name.to_owned(),
        ..Default::default()
    };
    let first = input::trace(vec![input::resource_spans(
        "a",
        vec![
            span(1, 2, "first"),
            span(2, 2, "other"),
            span(1, 3, "client side"),
        ],
    )]);
    let second = input::trace(vec![
        input::resource_spans("b", vec![span(1, 2, "again")]),
        input::resource_spans("a", vec![span(2, 2, "again"), span(3, 2, "new")]),
    ]);
    let mut builder = BlockBuilder::new(options(Version::VParquet4), Vec::new()).unwrap();
    let pushed = builder
        .push_trace(TraceId::from_padded(&[1]), &[&first, &second])
        .unwrap();
    assert_eq!((pushed.spans, pushed.duplicates), (4, 2));
    let (block, data) = builder.finish().unwrap();
    let data = Bytes::from(data);
    assert_good(&block, &data);
    assert_eq!(
        column(
            &data,
            "rs.list.element.ss.list.element.Spans.list.element.Name"
        ),
        ["first", "other", "client side", "new"]
    );
    // The resource that only held a duplicate leaves nothing.
    assert_eq!(column(&data, "rs.list.element.Resource.ServiceName"), ["a"]);
}

#[test]
fn many_spans_resources_and_scopes_are_told_apart() {
    // More of each than are looked through one by one, each twice.
    let many: Vec<ResourceSpans> = (0..200)
        .map(|n| {
            let service = format!("service {}", n % 100);
            let span = Span {
                span_id: (n % 100_u64).to_be_bytes().to_vec(),
                kind: 1 + (n / 100) as i32,
                ..Default::default()
            };
            let mut spans = input::resource_spans(&service, vec![span.clone()]);
            for scope in 0..30 {
                spans.scope_spans.push(ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name: format!("scope {scope}"),
                        ..Default::default()
                    }),
                    spans: vec![Span {
                        span_id: (1000 + n % 100 * 30 + scope).to_be_bytes().to_vec(),
                        ..span.clone()
                    }],
                    ..Default::default()
                });
            }
            spans
        })
        .collect();
    let twice: Vec<ResourceSpans> = [many.clone(), many].concat();
    let traces = Traces::from([(TraceId::from_padded(&[7]), vec![input::trace(twice)])]);
    let (block, data) = build(options(Version::VParquet5), &traces);
    assert_good(&block, &data);
    assert_eq!(block.spans, 200 * 31);
    assert_eq!(column(&data, "rs.Resource.ServiceName").len(), 100);
    assert_eq!(column(&data, "rs.ss.Scope.Name").len(), 100 * 31);
    assert_eq!(column(&data, "rs.ss.SpanCount"), vec!["2"; 100 * 31]);
}

#[test]
fn equal_resources_and_scopes_become_one() {
    let attribute = |key: &str, value: &str| input::text(key, value);
    let resource = |attributes: Vec<KeyValue>, dropped: u32| Resource {
        attributes,
        dropped_attributes_count: dropped,
        ..Default::default()
    };
    let scope = |attributes: Vec<KeyValue>| InstrumentationScope {
        name: "lib".to_owned(),
        attributes,
        ..Default::default()
    };
    let part = |resource: Resource, scope: InstrumentationScope, span: u8| ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![ScopeSpans {
            scope: Some(scope),
            spans: vec![Span {
                span_id: vec![span; 8],
                name: span.to_string(),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let (a, b) = (attribute("a", "1"), attribute("b", "2"));
    let service = attribute("service.name", "s");
    let trace = input::trace(vec![
        part(
            resource(vec![b.clone(), service.clone(), a.clone()], 3),
            scope(vec![b.clone(), a.clone()]),
            1,
        ),
        part(resource(vec![a.clone()], 0), scope(vec![]), 2),
        part(
            resource(vec![a.clone(), b.clone(), service], 9),
            scope(vec![a.clone(), b.clone()]),
            3,
        ),
    ]);
    let traces = Traces::from([(TraceId::from_padded(&[7]), vec![trace])]);
    let (block, data) = build(options(Version::VParquet5), &traces);
    assert_good(&block, &data);
    assert_eq!(column(&data, "rs.ss.Spans.Name"), ["1", "3", "2"]);
    assert_eq!(
        column(&data, "rs.Resource.DroppedAttributesCount"),
        ["3", "0"]
    );
    // Sorted by key, since they were compared.
    assert_eq!(column(&data, "rs.Resource.Attrs.Key"), ["a", "b", "a"]);
    assert_eq!(column(&data, "rs.ss.Scope.Attrs.Key"), ["a", "b", "-"]);
}

#[test]
fn resources_that_differ_in_a_late_dedicated_column_stay_apart() {
    let columns: Vec<DedicatedColumn> = (1..=12)
        .map(|n| DedicatedColumn::string(DedicatedScope::Resource, &format!("d{n}")))
        .collect();
    let part = |value: &str, span: u8| {
        let mut part = input::resource_spans(
            "s",
            vec![Span {
                span_id: vec![span; 8],
                ..Default::default()
            }],
        );
        let resource = part.resource.as_mut().unwrap();
        resource.attributes.push(input::text("d12", value));
        part
    };
    let trace = input::trace(vec![part("x", 1), part("y", 2), part("x", 3)]);
    let traces = Traces::from([(TraceId::from_padded(&[7]), vec![trace])]);
    let options = BlockOptions {
        dedicated_columns: DedicatedColumns::from(columns),
        ..options(Version::VParquet5)
    };
    let (block, data) = build(options, &traces);
    assert_good(&block, &data);
    assert_eq!(
        column(&data, "rs.Resource.DedicatedAttributes.String12"),
        ["x", "y"]
    );
    assert_eq!(column(&data, "rs.ss.SpanCount"), ["2", "1"]);
}

#[test]
fn dedicated_columns_take_what_fits_their_type() {
    let array = |values: &[Value]| {
        Value::ArrayValue(tempo_proto::opentelemetry::proto::common::v1::ArrayValue {
            values: values
                .iter()
                .map(|value| AnyValue {
                    value: Some(value.clone()),
                })
                .collect(),
        })
    };
    let string = |text: &str| Value::StringValue(text.to_owned());
    let attributes = vec![
        input::attribute("server.port", string("notint")),
        input::attribute("server.address", array(&[string("h1"), string("h2")])),
        input::attribute("url.path", array(&[string("/p")])),
        input::attribute("url.route", array(&[])),
        input::attribute("http.route", array(&[string("/a"), Value::IntValue(1)])),
        input::attribute("http.status_code", Value::IntValue(200)),
        input::attribute("http.url", string("first")),
        input::attribute("http.url", string("last")),
    ];
    let span = Span {
        span_id: vec![1; 8],
        attributes,
        ..Default::default()
    };
    let trace = input::trace(vec![input::resource_spans("s", vec![span])]);
    let traces = Traces::from([(TraceId::from_padded(&[7]), vec![trace])]);

    let (block, data) = build(options(Version::VParquet5), &traces);
    assert_good(&block, &data);
    let dedicated = |leaf: &str| column(&data, &format!("rs.ss.Spans.DedicatedAttributes.{leaf}"));
    assert_eq!(dedicated("String02"), ["/p"]);
    assert_eq!(dedicated("String03"), ["-"]);
    assert_eq!(dedicated("String04"), ["h1", "h2"]);
    assert_eq!(dedicated("String06"), ["last"]);
    assert_eq!(dedicated("Int02"), ["-"]);
    assert_eq!(dedicated("Int03"), ["200"]);
    assert_eq!(
        column(&data, "rs.ss.Spans.Attrs.Key"),
        ["server.port", "http.route"]
    );
    assert_eq!(column(&data, "rs.ss.Spans.Attrs.Value"), ["notint", "-"]);

    let (block, data) = build(options(Version::VParquet4), &traces);
    assert_good(&block, &data);
    let span = |leaf: &str| {
        let path = "rs.list.element.ss.list.element.Spans.list.element";
        column(&data, &format!("{path}.{leaf}"))
    };
    assert_eq!(span("HttpUrl"), ["last"]);
    assert_eq!(span("HttpStatusCode"), ["200"]);
    assert_eq!(span("DedicatedAttributes.String02"), ["-"]);
    assert_eq!(
        span("Attrs.list.element.Key"),
        [
            "server.port",
            "server.address",
            "url.path",
            "url.route",
            "http.route"
        ]
    );
    assert_eq!(
        span("Attrs.list.element.IsArray"),
        ["false", "true", "true", "true", "false"]
    );
}

/// Texts of several spans are looked up together, whatever stands between them.
#[test]
fn every_text_of_a_long_trace_is_where_it_belongs() {
    let string = |text: String| Value::StringValue(text);
    let (mut spans, mut urls, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..100_u64 {
        let url = format!("/{}", number % 7);
        let text = format!("text {}", number * number % 31);
        let mut attributes = vec![
            input::attribute("text", string(text.clone())),
            input::attribute("http.url", string(format!("/gives way {number}"))),
            input::attribute("http.status_code", Value::IntValue(200)),
        ];
        texts.push(text);
        match number % 3 {
            0 => attributes.push(input::attribute("http.url", string(url.clone()))),
            1 => attributes
                .splice(1..2, [input::attribute("http.url", string(url.clone()))])
                .for_each(drop),
            _ => {
                attributes.push(input::attribute("other", string(url.clone())));
                attributes.push(input::attribute("http.url", string(url.clone())));
                texts.push(url.clone());
            }
        }
        urls.push(url);
        spans.push(Span {
            span_id: (number + 1).to_be_bytes().to_vec(),
            attributes,
            ..Default::default()
        });
    }
    let trace = input::trace(vec![input::resource_spans("s", spans)]);
    let traces = Traces::from([(TraceId::from_padded(&[7]), vec![trace])]);
    let (block, data) = build(options(Version::VParquet4), &traces);
    assert_good(&block, &data);
    let span = |leaf: &str| {
        let path = "rs.list.element.ss.list.element.Spans.list.element";
        column(&data, &format!("{path}.{leaf}"))
    };
    assert_eq!(span("HttpUrl"), urls);
    assert_eq!(span("Attrs.list.element.Value.list.element"), texts);
}

#[test]
fn text_that_is_not_utf_8_is_stored_with_replacements() {
    // A name, an attribute and a status message of one stray byte each.
    let bad_text = |field: u8| [field << 3 | 2, 2, b'x', 0xff].to_vec();
    let value = [vec![2 << 3 | 2, 4], bad_text(1)].concat();
    let pair = [bad_text(1), value].concat();
    let attribute = [vec![9 << 3 | 2, pair.len() as u8], pair].concat();
    let status = [vec![15 << 3 | 2, 4], bad_text(2)].concat();
    let span_id = [vec![2 << 3 | 2, 8], vec![1; 8]].concat();
    let span = [span_id, bad_text(5), attribute, status].concat();
    let wrap =
        |field: u8, bytes: Vec<u8>| [vec![field << 3 | 2, bytes.len() as u8], bytes].concat();
    let trace = wrap(1, wrap(2, wrap(2, span)));
    let traces = Traces::from([(TraceId::from_padded(&[7]), vec![trace])]);
    let (block, data) = build(options(Version::VParquet5), &traces);
    assert_good(&block, &data);
    for path in ["Name", "StatusMessage", "Attrs.Key", "Attrs.Value"] {
        assert_eq!(
            column(&data, &format!("rs.ss.Spans.{path}")),
            ["x\u{fffd}"],
            "{path}"
        );
    }
}

/// The first `length` bytes of a serialized trace, the length of the last resource made to fit, so
/// that the cut is felt further in. `None` when that would be a trace.
fn cut_short(trace: &[u8], length: usize) -> Option<Vec<u8>> {
    let head = &trace[..length];
    let mut damaged = Vec::new();
    for field in tempo_model::otlp::Fields::new(head).map_while(Result::ok) {
        damaged.extend_from_slice(field.raw);
    }
    let rest = &head[damaged.len()..];
    let header = if *rest.get(1)? < 0x80 { 2 } else { 3 };
    tempo_model::otlp::write_len_prefixed(&mut damaged, 1, rest.get(header..)?);
    Trace::decode(damaged.as_slice())
        .is_err()
        .then_some(damaged)
}

#[test]
fn broken_traces_are_left_out_whole() {
    let traces = crate::testing::input_traces();
    let mut builder = BlockBuilder::new(options(Version::VParquet4), Vec::new()).unwrap();
    let mut refused = 0;
    for (id, chunks) in &traces {
        for (number, chunk) in chunks.iter().enumerate() {
            for length in (1..chunk.len()).step_by(chunk.len() / 7 + 1) {
                let Some(damaged) = cut_short(chunk, length) else {
                    continue;
                };
                let mut parts: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
                parts[number] = &damaged;
                let error = builder.push_trace(*id, &parts).unwrap_err();
                assert!(error.leaves_block_intact());
                let said = error.to_string();
                assert!(
                    said.starts_with(&format!("trace {id} is not valid OTLP")),
                    "{said}"
                );
                refused += 1;
            }
        }
        let parts: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        builder.push_trace(*id, &parts).unwrap();
    }
    assert!(refused > 500, "{refused}");
    let (block, data) = builder.finish().unwrap();
    let data = Bytes::from(data);
    assert_good(&block, &data);
    let (_, undisturbed) = build(options(Version::VParquet4), &traces);
    assert!(by_trace(data) == by_trace(undisturbed));
}

#[test]
fn nesting_without_end_is_refused() {
    let mut value = AnyValue {
        value: Some(Value::BoolValue(true)),
    };
    for _ in 0..100 {
        value = AnyValue {
            value: Some(Value::KvlistValue(
                tempo_proto::opentelemetry::proto::common::v1::KeyValueList {
                    values: vec![KeyValue {
                        key: "k".to_owned(),
                        value: Some(value),
                        ..Default::default()
                    }],
                },
            )),
        };
    }
    let span = Span {
        span_id: vec![1; 8],
        events: vec![span::Event {
            attributes: vec![KeyValue {
                key: "deep".to_owned(),
                value: Some(value),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let good = input::trace(vec![input::resource_spans(
        "s",
        vec![Span {
            span_id: vec![2; 8],
            ..Default::default()
        }],
    )]);
    let bad = input::trace(vec![input::resource_spans("s", vec![span])]);
    let mut builder = BlockBuilder::new(options(Version::VParquet5), Vec::new()).unwrap();
    let id = |n| TraceId::from_padded(&[n]);
    builder.push_trace(id(1), &[&good]).unwrap();
    match builder.push_trace(id(2), &[&bad]) {
        Err(WriteError::Trace { source, .. }) => assert_eq!(source, WireError::TooDeep),
        other => panic!("{other:?}"),
    }
    builder.push_trace(id(3), &[&good]).unwrap();
    assert_eq!((builder.traces(), builder.spans()), (2, 2));
    let (block, data) = builder.finish().unwrap();
    assert_good(&block, &data.into());
}

#[test]
fn traces_must_ascend_and_have_spans() {
    let trace = input::trace(vec![input::resource_spans(
        "s",
        vec![Span {
            span_id: vec![2; 8],
            ..Default::default()
        }],
    )]);
    let mut builder = BlockBuilder::new(options(Version::VParquet4), Vec::new()).unwrap();
    let id = |n| TraceId::from_padded(&[n]);
    builder.push_trace(id(2), &[&trace]).unwrap();
    for earlier in [1, 2] {
        let error = builder.push_trace(id(earlier), &[&trace]).unwrap_err();
        assert!(matches!(error, WriteError::Order { .. }));
        assert!(error.leaves_block_intact());
    }
    let empty = input::trace(vec![input::resource_spans("s", Vec::new())]);
    let pushed = builder.push_trace(id(3), &[&empty, &[]]).unwrap();
    assert_eq!(pushed, PushedTrace::default());
    let huge = vec![0; MAX_TRACE_BYTES as usize];
    let error = builder.push_trace(id(4), &[&huge, &trace]).unwrap_err();
    assert!(matches!(error, WriteError::TraceTooLarge { .. }), "{error}");
    let (block, data) = builder.finish().unwrap();
    assert_eq!(block.meta.total_objects, 1);
    assert_good(&block, &data.into());
}

/// A sink that is full after some bytes.
struct Full(usize);

impl io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.checked_sub(bytes.len()) {
            Some(rest) => self.0 = rest,
            None => return Err(io::Error::from(io::ErrorKind::StorageFull)),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_sink_ends_the_block() {
    let trace = input::trace(vec![input::resource_spans(
        "s",
        vec![Span {
            span_id: vec![2; 8],
            ..Default::default()
        }],
    )]);
    let options = BlockOptions {
        row_group_size_bytes: 1,
        ..options(Version::VParquet4)
    };
    let mut builder = BlockBuilder::new(options, Full(100)).unwrap();
    let id = |n| TraceId::from_padded(&[n]);
    let error = builder.push_trace(id(1), &[&trace]).unwrap_err();
    assert!(matches!(error, WriteError::Sink(_)), "{error}");
    assert!(!error.leaves_block_intact());
    let error = builder.push_trace(id(2), &[&trace]).unwrap_err();
    assert!(matches!(error, WriteError::GivenUp));
    assert!(matches!(builder.finish(), Err(WriteError::GivenUp)));
}

#[test]
fn memory_is_bounded_by_the_row_group() {
    let traces = input::made(20_000);
    let options = BlockOptions {
        row_group_size_bytes: 700_000,
        ..options(Version::VParquet4)
    };
    let mut builder = BlockBuilder::new(options, io::sink()).unwrap();
    let mut most = 0;
    for (id, chunks) in &traces {
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        builder.push_trace(*id, &chunks).unwrap();
        most = most.max(builder.buffered_bytes());
    }
    let (block, _) = builder.finish().unwrap();
    assert!(block.meta.total_records > 2);
    assert!(most < 20 << 20, "{most} bytes");
}
