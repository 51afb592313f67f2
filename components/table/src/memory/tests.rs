use std::sync::Arc;

use prost::Message;
use tempo_model::TraceId;
use tempo_proto::{
    opentelemetry::proto::{
        common::v1::{
            AnyValue, ArrayValue as WireArray, InstrumentationScope, KeyValue, KeyValueList,
            any_value::Value,
        },
        resource::v1::Resource,
        trace::v1::{
            ResourceSpans, ScopeSpans, Span, Status,
            span::{Event, Link},
        },
    },
    tempopb::Trace,
};

use super::{MemoryTable, MemoryTableBuilder, PushError};
use crate::{ABSENT, ArrayValue, AttributeScope, Bitmap, Column, ColumnKey, Intrinsic, SpanTable};

fn id(last: u8) -> TraceId {
    TraceId::from_padded(&[last])
}

fn value(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn attr(key: &str, of: Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(value(of)),
        ..Default::default()
    }
}

fn text(key: &str, of: &str) -> KeyValue {
    attr(key, Value::StringValue(of.into()))
}

fn span(span_id: u8, parent: Option<u8>, name: &str, start: u64, end: u64) -> Span {
    Span {
        span_id: vec![0, 0, 0, 0, 0, 0, 0, span_id],
        parent_span_id: parent.map_or(vec![], |parent| vec![0, 0, 0, 0, 0, 0, 0, parent]),
        name: name.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        kind: 2,
        ..Default::default()
    }
}

fn scoped(resource: Vec<KeyValue>, scope: &str, spans: Vec<Span>) -> ResourceSpans {
    ResourceSpans {
        resource: Some(Resource {
            attributes: resource,
            ..Default::default()
        }),
        scope_spans: vec![ScopeSpans {
            scope: Some(InstrumentationScope {
                name: scope.into(),
                version: format!("{scope} v1"),
                attributes: vec![text("lang", scope)],
                ..Default::default()
            }),
            spans,
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn service(name: &str, spans: Vec<Span>) -> ResourceSpans {
    scoped(vec![text("service.name", name)], "lib", spans)
}

fn chunk(resource_spans: Vec<ResourceSpans>) -> Vec<u8> {
    Trace { resource_spans }.encode_to_vec()
}

fn table(traces: &[(TraceId, Vec<Vec<u8>>)]) -> MemoryTable {
    let mut builder = MemoryTableBuilder::new();
    for (id, chunks) in traces {
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        builder.push_trace(*id, &chunks).unwrap();
    }
    builder.finish()
}

fn column(table: &MemoryTable, key: impl Into<ColumnKey>) -> Column {
    table.column(&key.into(), None).unwrap()
}

fn texts(column: &Column) -> Vec<Option<String>> {
    match &column.strings {
        None => vec![None; column.len],
        Some(lane) => lane
            .codes
            .iter()
            .map(|&code| (code != ABSENT).then(|| lane.dict.text(code).into_owned()))
            .collect(),
    }
}

fn ints(column: &Column) -> Vec<Option<i64>> {
    let lane = column.ints.as_ref();
    (0..column.len)
        .map(|row| lane.and_then(|lane| lane.get(row)))
        .collect()
}

fn names(table: &MemoryTable) -> Vec<String> {
    texts(&column(table, Intrinsic::SpanName))
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn chunks_of_a_trace_become_one_with_equal_resources_and_scopes_together() {
    let a = chunk(vec![
        service("a", vec![span(1, None, "root", 100, 900)]),
        service("b", vec![span(2, Some(1), "b1", 200, 300)]),
        scoped(
            vec![text("service.name", "a")],
            "other",
            vec![span(3, Some(1), "a2", 210, 250)],
        ),
    ]);
    let b = chunk(vec![
        service("b", vec![span(4, Some(2), "b2", 220, 230)]),
        service("a", vec![span(5, Some(1), "a3", 150, 1000)]),
    ]);
    let table = table(&[
        (id(7), vec![a, b]),
        (
            id(3),
            vec![chunk(vec![service(
                "a",
                vec![span(1, Some(9), "lone", 5, 6)],
            )])],
        ),
    ]);
    assert_eq!(names(&table), ["root", "a3", "a2", "b1", "b2", "lone"]);
    let structure = table.structure().unwrap();
    assert_eq!(*structure.trace_spans, [0, 5, 6]);
    assert_eq!(*structure.trace_resources, [0, 2, 3]);
    assert_eq!(*structure.resource_scopes, [0, 2, 3, 4]);
    assert_eq!(*structure.scope_spans, [0, 2, 3, 5, 6]);
    assert_eq!(*structure.span_resource, [0, 0, 0, 1, 1, 2]);
    assert_eq!(*structure.span_scope, [0, 0, 1, 2, 2, 3]);

    assert_eq!(table.find(&id(7)), Some(0));
    assert_eq!(table.find(&id(3)), Some(1));
    assert_eq!(table.find(&id(4)), None);
    assert_eq!(table.trace_ids().collect::<Vec<_>>(), [id(7), id(3)]);
    assert_eq!(table.time_range_nano(), Some((5, 1000)));
    let root = |key: Intrinsic| texts(&column(&table, key));
    assert_eq!(
        root(Intrinsic::RootServiceName),
        [Some("a".into()), Some(String::new())]
    );
    assert_eq!(
        root(Intrinsic::RootSpanName),
        [Some("root".into()), Some(String::new())]
    );
    let lefts = ints(&column(&table, Intrinsic::NestedSetLeft));
    assert_eq!(lefts, [1, 2, 4, 6, 7, 0].map(Some));
    assert_eq!(
        ints(&column(&table, Intrinsic::TraceDurationNano)),
        [900, 1].map(Some)
    );
    assert_eq!(
        texts(&column(&table, Intrinsic::ScopeVersion)),
        ["lib v1", "other v1", "lib v1", "lib v1"].map(|text| Some(text.to_owned()))
    );
    let lang = ColumnKey::attribute(AttributeScope::Instrumentation, "lang");
    assert_eq!(
        texts(&column(&table, lang)),
        ["lib", "other", "lib", "lib"].map(|text| Some(text.to_owned()))
    );
}

#[test]
fn of_a_span_in_several_chunks_the_first_is_kept() {
    let with_kind = |kind: i32, name: &str| Span {
        kind,
        ..span(1, None, name, 1, 2)
    };
    let table = table(&[(
        id(1),
        vec![
            chunk(vec![service("late", vec![span(9, None, "x", 1, 2)])]),
            chunk(vec![service(
                "a",
                vec![
                    with_kind(3, "client"),
                    with_kind(2, "server"),
                    with_kind(2, "same chunk"),
                ],
            )]),
            chunk(vec![
                service("late", vec![with_kind(3, "client again")]),
                service("a", vec![with_kind(4, "producer")]),
            ]),
        ],
    )]);
    assert_eq!(
        names(&table),
        ["x", "client", "server", "same chunk", "producer"]
    );
}

#[test]
fn every_kind_of_value_lands_in_its_lane() {
    let array = |items: Vec<Value>| {
        Value::ArrayValue(WireArray {
            values: items.into_iter().map(value).collect(),
        })
    };
    let attributes = vec![
        text("s", "x"),
        attr("i", Value::IntValue(-7)),
        attr("f", Value::DoubleValue(1.5)),
        attr("b", Value::BoolValue(true)),
        attr(
            "strings",
            array(vec![
                Value::StringValue("p".into()),
                Value::StringValue("q".into()),
            ]),
        ),
        attr("ints", array(vec![Value::IntValue(1), Value::IntValue(2)])),
        attr("floats", array(vec![Value::DoubleValue(2.5)])),
        attr("bools", array(vec![Value::BoolValue(false)])),
        attr("empty", array(vec![])),
        attr(
            "mixed",
            array(vec![Value::IntValue(1), Value::BoolValue(false)]),
        ),
        attr("nested", array(vec![array(vec![])])),
        attr("bytes", Value::BytesValue(vec![1])),
        attr("list", Value::KvlistValue(KeyValueList::default())),
        KeyValue {
            key: "unset".into(),
            ..Default::default()
        },
        attr("s", Value::IntValue(5)),
    ];
    let spans = vec![
        span(1, None, "before", 1, 2),
        Span {
            attributes,
            ..span(2, Some(1), "all", 1, 2)
        },
        Span {
            attributes: vec![attr("s", Value::IntValue(5))],
            ..span(3, Some(1), "after", 1, 2)
        },
    ];
    let table = table(&[(id(1), vec![chunk(vec![service("a", spans)])])]);
    let get = |name: &str| column(&table, ColumnKey::attribute(AttributeScope::Span, name));

    // The second "s" of the same span does not count; the next span's has another type.
    let s = get("s");
    assert_eq!(texts(&s), [None, Some("x".into()), None]);
    assert_eq!(ints(&s), [None, None, Some(5)]);
    assert_eq!([0, 1, 2].map(|row| s.is_nil(row)), [true, false, false]);
    assert_eq!(ints(&get("i")), [None, Some(-7), None]);
    assert_eq!(get("f").floats.unwrap().get(1), Some(1.5));
    assert_eq!(get("b").bools.unwrap().get(1), Some(true));
    let array_of = |name: &str| get(name).arrays.unwrap().get(1).cloned().unwrap();
    assert_eq!(
        array_of("strings"),
        ArrayValue::Strings(vec!["p".into(), "q".into()])
    );
    assert_eq!(array_of("ints"), ArrayValue::Ints(vec![1, 2]));
    assert_eq!(array_of("floats"), ArrayValue::Floats(vec![2.5]));
    assert_eq!(array_of("bools"), ArrayValue::Bools(vec![false]));
    assert_eq!(array_of("empty"), ArrayValue::Empty);
    for name in ["mixed", "nested", "bytes", "list", "unset"] {
        let column = get(name);
        assert_eq!(
            column.opaque.as_ref().unwrap().iter().collect::<Vec<_>>(),
            [1],
            "{name}"
        );
        assert!(!column.is_nil(1) && column.is_nil(0), "{name}");
    }
    assert!(get("nobody").is_absent());

    // Only of some rows.
    let key = ColumnKey::attribute(AttributeScope::Span, "s");
    let some = table.gather(&key, &[1, 2]).unwrap();
    assert_eq!(
        (texts(&some), ints(&some)),
        (vec![Some("x".into()), None], vec![None, Some(5)])
    );
    assert_eq!(texts(&s.gather(&[1, 2])), texts(&some));
    assert_eq!(ints(&s.gather(&[1, 2])), ints(&some));

    let superset = |name: &str| {
        let key = ColumnKey::attribute(AttributeScope::Span, name);
        table.string_superset(&key).unwrap().map(|dict| dict.len())
    };
    assert_eq!(
        ["s", "i", "nobody", "strings", "ints"].map(superset),
        [Some(1), Some(0), Some(0), None, Some(0)]
    );
    let bounds = |key: ColumnKey| table.int_bounds(&key).unwrap();
    assert_eq!(
        bounds(ColumnKey::attribute(AttributeScope::Span, "i")),
        Some((-7, -7))
    );
    assert_eq!(bounds(Intrinsic::SpanKind.into()), Some((2, 2)));
}

#[test]
fn attribute_names_are_those_of_the_rows_asked_for() {
    let table = table(&[
        (
            id(1),
            vec![chunk(vec![scoped(
                vec![text("service.name", "a"), text("zone", "z")],
                "one",
                vec![Span {
                    attributes: vec![text("k1", "v")],
                    ..span(1, None, "x", 1, 2)
                }],
            )])],
        ),
        (
            id(2),
            vec![chunk(vec![scoped(
                vec![text("service.name", "b")],
                "two",
                vec![Span {
                    attributes: vec![text("k2", "v"), text("k1", "w")],
                    ..span(1, None, "y", 1, 2)
                }],
            )])],
        ),
    ]);
    let names = |scope, rows: Option<&[usize]>| -> Vec<String> {
        let rows = rows.map(|rows| {
            let mut bitmap = Bitmap::new(2);
            rows.iter().for_each(|&row| bitmap.insert(row));
            bitmap
        });
        let names = table.attribute_names(scope, rows.as_ref()).unwrap();
        names.iter().map(|name| name.to_string()).collect()
    };
    assert_eq!(
        names(AttributeScope::Resource, None),
        ["service.name", "zone"]
    );
    assert_eq!(
        names(AttributeScope::Resource, Some(&[0])),
        ["service.name", "zone"]
    );
    assert_eq!(
        names(AttributeScope::Resource, Some(&[1])),
        ["service.name"]
    );
    assert_eq!(names(AttributeScope::Span, Some(&[0])), ["k1"]);
    assert_eq!(names(AttributeScope::Span, Some(&[1])), ["k1", "k2"]);
    assert_eq!(names(AttributeScope::Span, Some(&[])), [""; 0]);
    assert_eq!(names(AttributeScope::Event, None), [""; 0]);
}

#[test]
fn events_and_links_belong_to_their_spans() {
    let event = |name: &str, time, attributes| Event {
        name: name.into(),
        time_unix_nano: time,
        attributes,
        ..Default::default()
    };
    let link = |trace: u8, attributes| Link {
        trace_id: id(trace).as_bytes().to_vec(),
        span_id: vec![trace],
        attributes,
        ..Default::default()
    };
    let child_of = || vec![text("opentracing.ref_type", "child_of")];
    let spans = vec![
        span(1, None, "real root", 10, 20),
        Span {
            events: vec![
                event("e1", 15, vec![text("k", "v")]),
                event("e2", 5, vec![]),
            ],
            links: vec![link(1, child_of()), link(2, vec![])],
            status: Some(Status {
                code: 2,
                message: "bad".into(),
            }),
            trace_state: "a=b".into(),
            ..span(2, None, "child by link", 10, 20)
        },
        Span {
            links: vec![link(9, child_of())],
            ..span(3, None, "root", 10, 20)
        },
        Span {
            events: vec![event("e3", 11, vec![])],
            ..span(4, Some(1), "leaf", 10, 20)
        },
    ];
    let table = table(&[(id(1), vec![chunk(vec![service("a", spans)])])]);
    assert_eq!(*table.event_offsets().unwrap(), [0, 0, 2, 2, 3]);
    assert_eq!(*table.link_offsets().unwrap(), [0, 0, 2, 3, 3]);
    assert_eq!(
        texts(&column(&table, Intrinsic::EventName)),
        ["e1", "e2", "e3"].map(|name| Some(name.to_owned()))
    );
    assert_eq!(
        ints(&column(&table, Intrinsic::EventTimeSinceStartNano)),
        [5, -5, 1].map(Some)
    );
    let key = ColumnKey::attribute(AttributeScope::Event, "k");
    assert_eq!(texts(&column(&table, key)), [Some("v".into()), None, None]);
    let linked = column(&table, Intrinsic::LinkTraceId).ids.unwrap();
    assert_eq!(linked.get(1), id(2).as_bytes());
    let linked = column(&table, Intrinsic::LinkSpanId).ids.unwrap();
    assert_eq!(linked.get(1), [0, 0, 0, 0, 0, 0, 0, 2]);
    // A child_of link into the own trace makes no root; one into another trace does not matter.
    assert_eq!(
        texts(&column(&table, Intrinsic::RootSpanName)),
        [Some("root".into())]
    );
    assert_eq!(
        ints(&column(&table, Intrinsic::StatusCode)),
        [0, 2, 0, 0].map(Some)
    );
    let messages = ["", "bad", "", ""].map(|text| Some(text.to_owned()));
    assert_eq!(texts(&column(&table, Intrinsic::StatusMessage)), messages);
    let some = table
        .gather(&Intrinsic::StatusMessage.into(), &[1, 3])
        .unwrap();
    assert_eq!(texts(&some), ["bad", ""].map(|text| Some(text.to_owned())));
    let states = ["", "a=b", "", ""].map(|text| Some(text.to_owned()));
    assert_eq!(texts(&column(&table, Intrinsic::TraceState)), states);
    let parents = table
        .gather(&Intrinsic::ParentSpanId.into(), &[0, 3])
        .unwrap();
    assert_eq!(
        *parents.ids.unwrap().bytes,
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    );
}

#[test]
fn a_malformed_trace_leaves_no_trace() {
    let good = || {
        chunk(vec![service(
            "a",
            vec![Span {
                attributes: vec![text("k", "v")],
                ..span(1, None, "good", 1, 2)
            }],
        )])
    };
    let full = Span {
        attributes: vec![
            text("k", "w"),
            text("new", "x"),
            attr("n", Value::IntValue(1)),
        ],
        events: vec![Event {
            attributes: vec![text("ek", "v")],
            ..Default::default()
        }],
        links: vec![Link {
            attributes: vec![text("lk", "v")],
            ..Default::default()
        }],
        status: Some(Status {
            code: 2,
            message: "bad".into(),
        }),
        trace_state: "a=b".into(),
        ..span(2, None, "bad", 1, 2)
    };
    let mut expected = MemoryTableBuilder::new();
    let mut builder = MemoryTableBuilder::new();
    for (round, trace) in [1, 2].into_iter().enumerate() {
        expected.push_trace(id(trace), &[&good()]).unwrap();
        builder.push_trace(id(trace), &[&good()]).unwrap();
        // Broken within the second span, behind everything the first one brought.
        let whole = chunk(vec![
            service("b", vec![full.clone()]),
            scoped(vec![text("r", "s")], "other", vec![full.clone()]),
        ]);
        let mut broken = whole.clone();
        // The tag of the status code, the last field of the last span.
        let at = broken.len() - 2;
        broken[at] = [0x1f, 0x1c][round];
        let error = builder.push_trace(id(90), &[&broken]).unwrap_err();
        assert!(matches!(error, PushError::Malformed { trace_id, .. } if trace_id == id(90)));
        assert!(
            error
                .to_string()
                .contains("0000000000000000000000000000005a"),
            "{error}"
        );
    }
    // A trace without spans is not a trace.
    builder
        .push_trace(id(91), &[&chunk(vec![service("c", vec![])]), b""])
        .unwrap();
    let (table, expected) = (builder.finish(), expected.finish());
    assert_eq!(table.traces(), 2);
    assert_eq!(names(&table), names(&expected));
    for scope in [
        AttributeScope::Span,
        AttributeScope::Event,
        AttributeScope::Link,
    ] {
        assert_eq!(
            table.attribute_names(scope, None).unwrap(),
            expected.attribute_names(scope, None).unwrap()
        );
    }
    let (mine, want) = (table.structure().unwrap(), expected.structure().unwrap());
    let key = ColumnKey::attribute(AttributeScope::Span, "k");
    assert_eq!(
        texts(&column(&table, key.clone())),
        texts(&column(&expected, key))
    );
    assert_eq!(*mine.trace_spans, *want.trace_spans);
    assert_eq!(*mine.resource_scopes, *want.resource_scopes);
    assert_eq!(*mine.scope_spans, *want.scope_spans);
    assert_eq!(
        table.event_offsets().unwrap(),
        expected.event_offsets().unwrap()
    );
    assert_eq!(
        table.link_offsets().unwrap(),
        expected.link_offsets().unwrap()
    );
    assert_eq!(
        texts(&column(&table, Intrinsic::StatusMessage)),
        texts(&column(&expected, Intrinsic::StatusMessage))
    );
}

#[test]
fn thousands_of_rare_keys_stay_small_and_common_ones_dense() {
    let mut builder = MemoryTableBuilder::new();
    let spans = 5_000_u32;
    for number in 0..spans {
        let attributes = vec![
            text("common", ["x", "y", "z"][number as usize % 3]),
            text(&format!("rare {number}"), "v"),
            attr("n", Value::IntValue(i64::from(number))),
        ];
        let span = Span {
            attributes,
            ..span(1, None, "x", 1, 2)
        };
        let trace = TraceId::from_padded(&number.to_be_bytes());
        builder
            .push_trace(trace, &[&chunk(vec![service("a", vec![span])])])
            .unwrap();
    }
    let table = builder.finish();
    // A dense column per rare key would take 5,000 × 5,000 bytes at least.
    assert!(table.heap_bytes() < 3_000_000, "{}", table.heap_bytes());
    let get = |name: &str| column(&table, ColumnKey::attribute(AttributeScope::Span, name));
    let rare = get("rare 4321");
    assert_eq!(rare.len, spans as usize);
    let filled: Vec<usize> = (0..rare.len).filter(|&row| !rare.is_nil(row)).collect();
    assert_eq!(filled, [4321]);
    let few_rows = |name: &str| {
        let key = ColumnKey::attribute(AttributeScope::Span, name);
        table.few_rows(&key).unwrap()
    };
    assert_eq!(few_rows("rare 4321"), Some(vec![4321]));
    assert_eq!(few_rows("common"), None);
    assert_eq!(few_rows("nobody set it"), Some(Vec::new()));
    assert_eq!(
        texts(&get("common"))[..3],
        ["x", "y", "z"].map(|text| Some(text.to_owned()))
    );
    assert_eq!(ints(&get("n"))[4999], Some(4999));
    let names = table.attribute_names(AttributeScope::Span, None).unwrap();
    assert_eq!(names.len(), spans as usize + 2);
    assert!(names.is_sorted());
}

#[test]
fn text_that_is_not_utf8_is_kept_as_sent() {
    let mut raw = chunk(vec![service(
        "a",
        vec![Span {
            attributes: vec![text("QQ", "PP")],
            ..span(1, None, "NN", 1, 2)
        }],
    )]);
    for two in [b"QQ", b"PP", b"NN"] {
        let at = raw.windows(2).position(|window| window == two).unwrap();
        raw[at] = 0xff;
    }
    let table = table(&[(id(1), vec![raw])]);
    let names = table.attribute_names(AttributeScope::Span, None).unwrap();
    assert_eq!(names, [Arc::<str>::from("\u{fffd}Q")]);
    let key = ColumnKey::attribute(AttributeScope::Span, "\u{fffd}Q");
    let lane = column(&table, key).strings.unwrap();
    assert_eq!(lane.dict.bytes(lane.codes[0]), b"\xffP");
    assert_eq!(
        texts(&column(&table, Intrinsic::SpanName)),
        [Some("\u{fffd}N".into())]
    );
}

#[test]
fn an_empty_table_answers() {
    let mut builder = MemoryTableBuilder::new();
    let table = builder.finish();
    assert_eq!(table.structure().unwrap().traces(), 0);
    assert_eq!(table.time_range_nano(), None);
    assert_eq!(column(&table, Intrinsic::SpanName).len, 0);
    let key = ColumnKey::attribute(AttributeScope::Resource, "x");
    assert!(column(&table, key).is_absent());
    assert_eq!(*table.event_offsets().unwrap(), [0]);
}

#[test]
fn a_builder_begins_anew_after_a_table() {
    let first = chunk(vec![service(
        "a",
        vec![Span {
            attributes: vec![text("k", "v"), text("once", "x")],
            events: vec![Event::default()],
            ..span(1, None, "one", 1, 2)
        }],
    )]);
    let second = chunk(vec![service(
        "b",
        vec![Span {
            attributes: vec![text("other", "w"), text("k", "w")],
            links: vec![Link::default()],
            ..span(1, None, "two", 3, 4)
        }],
    )]);
    let mut builder = MemoryTableBuilder::new();
    builder.push_trace(id(1), &[&first]).unwrap();
    let tables = [builder.finish(), {
        builder.push_trace(id(2), &[&second]).unwrap();
        assert_eq!((builder.traces(), builder.spans()), (1, 1));
        builder.finish()
    }];
    assert_eq!(builder.taken_bytes(), 0);
    assert_eq!(names(&tables[0]), ["one"]);
    assert_eq!(names(&tables[1]), ["two"]);
    let fresh = table(&[(id(2), vec![second])]);
    let key = ColumnKey::attribute(AttributeScope::Span, "k");
    assert_eq!(texts(&column(&tables[1], key)), [Some("w".into())]);
    let names = |table: &MemoryTable| table.attribute_names(AttributeScope::Span, None).unwrap();
    assert_eq!(names(&tables[1]), names(&fresh));
    assert_eq!(tables[1].heap_bytes(), fresh.heap_bytes());
    assert_eq!(*tables[1].event_offsets().unwrap(), [0, 0]);
    assert_eq!(*tables[1].link_offsets().unwrap(), [0, 1]);
}
