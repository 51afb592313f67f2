//! OTLP/JSON means what OTLP protobuf means.

use tempo_proto::opentelemetry::proto::{
    common::v1::{
        AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
    },
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Event, Link},
    },
};

use crate::{
    http::{Client, JSON, gzip},
    regroup::assert_batch,
    samples::{Request, key_value, text},
    server::{Fixture, TestSink, config},
};

/// Each field once, in the forms that exporters in the field write it in.
#[tokio::test]
async fn json_means_the_same_as_protobuf() {
    let json = br#"{"unknown":{"deep":[1,{}]},"resourceSpans":[{
        "resource":{"attributes":[{"key":"service.name","value":{"stringValue":"caf\u00e9 \"x\""}}],
                    "droppedAttributesCount":1},
        "schemaUrl":"r",
        "scopeSpans":[{"scope":{"name":"lib","version":"1","droppedAttributesCount":2},
            "schemaUrl":"s",
            "spans":[{
                "traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174",
                "parentSpanId":"","traceState":"a=b","flags":257,
                "name":"I'm a server span","kind":2,
                "startTimeUnixNano":"1544712660000000000","endTimeUnixNano":1544712661000000000,
                "attributes":[
                    {"key":"int","value":{"intValue":"-7"}},
                    {"key":"number","value":{"intValue":9007199254740993}},
                    {"key":"zero","value":{"intValue":0}},
                    {"key":"double","value":{"doubleValue":1.5}},
                    {"key":"whole","value":{"doubleValue":3}},
                    {"key":"infinite","value":{"doubleValue":"-Infinity"}},
                    {"key":"false","value":{"boolValue":false}},
                    {"key":"bytes","value":{"bytesValue":"AAEC/w=="}},
                    {"key":"array","value":{"arrayValue":{"values":[{"stringValue":"a"},{}]}}},
                    {"key":"list","value":{"kvlistValue":{"values":[
                        {"key":"k","value":{"intValue":"1"}}]}}},
                    {"key":"none","value":null},
                    {"key":"empty"}],
                "droppedAttributesCount":3,
                "events":[{"timeUnixNano":"5","name":"e","attributes":[
                    {"key":"k","value":{"stringValue":"v"}}],"droppedAttributesCount":4}],
                "droppedEventsCount":5,
                "links":[{"traceId":"5b8efff798038103d269b633813fc60d","spanId":"eee19b7ec3c1b175",
                    "traceState":"c=d","droppedAttributesCount":6,"flags":1}],
                "droppedLinksCount":7,
                "status":{"code":"STATUS_CODE_ERROR","message":"m"},
                "unknownField":[{"a":1}]},
               {"trace_id":"5b8efff798038103d269b633813fc60c","span_id":"eee19b7ec3c1b176",
                "start_time_unix_nano":"1","kind":"SPAN_KIND_CLIENT","status":{"code":1}}]}]}]}"#;
    let id = 0x5b8e_fff7_9803_8103_d269_b633_813f_c60c_u128;
    let want = Request {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", "café \"x\"")],
                dropped_attributes_count: 1,
                ..Resource::default()
            }),
            schema_url: "r".to_owned(),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "lib".to_owned(),
                    version: "1".to_owned(),
                    dropped_attributes_count: 2,
                    ..InstrumentationScope::default()
                }),
                schema_url: "s".to_owned(),
                spans: vec![
                    Span {
                        trace_id: id.to_be_bytes().to_vec(),
                        span_id: 0xeee1_9b7e_c3c1_b174_u64.to_be_bytes().to_vec(),
                        trace_state: "a=b".to_owned(),
                        flags: 257,
                        name: "I'm a server span".to_owned(),
                        kind: 2,
                        start_time_unix_nano: 1_544_712_660_000_000_000,
                        end_time_unix_nano: 1_544_712_661_000_000_000,
                        attributes: vec![
                            key_value("int", Value::IntValue(-7)),
                            key_value("number", Value::IntValue(9_007_199_254_740_993)),
                            key_value("zero", Value::IntValue(0)),
                            key_value("double", Value::DoubleValue(1.5)),
                            key_value("whole", Value::DoubleValue(3.0)),
                            key_value("infinite", Value::DoubleValue(f64::NEG_INFINITY)),
                            key_value("false", Value::BoolValue(false)),
                            key_value("bytes", Value::BytesValue(vec![0, 1, 2, 255])),
                            key_value(
                                "array",
                                Value::ArrayValue(ArrayValue {
                                    values: vec![
                                        AnyValue {
                                            value: Some(Value::StringValue("a".to_owned())),
                                        },
                                        AnyValue::default(),
                                    ],
                                }),
                            ),
                            key_value(
                                "list",
                                Value::KvlistValue(KeyValueList {
                                    values: vec![key_value("k", Value::IntValue(1))],
                                }),
                            ),
                            KeyValue {
                                key: "none".to_owned(),
                                ..Default::default()
                            },
                            KeyValue {
                                key: "empty".to_owned(),
                                ..Default::default()
                            },
                        ],
                        dropped_attributes_count: 3,
                        events: vec![Event {
                            time_unix_nano: 5,
                            name: "e".to_owned(),
                            attributes: vec![text("k", "v")],
                            dropped_attributes_count: 4,
                        }],
                        dropped_events_count: 5,
                        links: vec![Link {
                            trace_id: (id + 1).to_be_bytes().to_vec(),
                            span_id: 0xeee1_9b7e_c3c1_b175_u64.to_be_bytes().to_vec(),
                            trace_state: "c=d".to_owned(),
                            dropped_attributes_count: 6,
                            flags: 1,
                            ..Link::default()
                        }],
                        dropped_links_count: 7,
                        status: Some(Status {
                            message: "m".to_owned(),
                            code: 2,
                        }),
                        ..Span::default()
                    },
                    Span {
                        trace_id: id.to_be_bytes().to_vec(),
                        span_id: 0xeee1_9b7e_c3c1_b176_u64.to_be_bytes().to_vec(),
                        start_time_unix_nano: 1,
                        kind: 3,
                        status: Some(Status {
                            code: 1,
                            ..Status::default()
                        }),
                        ..Span::default()
                    },
                ],
            }],
        }],
    };
    let mut fixture = Fixture::new(config(), TestSink::default());
    let running = fixture.serve();
    let mut client = Client::connect(fixture.http()).await;
    for (headers, body) in [
        (&[("Content-Type", JSON)][..], json.to_vec()),
        (
            &[
                ("content-type", "application/json; charset=utf-8"),
                ("content-encoding", "gzip"),
            ],
            gzip(json),
        ),
    ] {
        let answer = client.post(headers, &body).await;
        assert_eq!(
            (answer.status, answer.header("content-type"), answer.text()),
            (200, Some(JSON), r#"{"partialSuccess":{}}"#)
        );
    }
    let taken = fixture.sink.taken();
    assert_eq!(taken.len(), 2);
    for (_, batch) in taken.iter() {
        assert_batch(&want, batch);
    }
    running.stop().await;
}

#[tokio::test]
async fn bad_json_names_line_and_column() {
    let mut fixture = Fixture::new(config(), TestSink::default());
    let running = fixture.serve();
    let mut client = Client::connect(fixture.http()).await;
    let in_span = |field: &str| {
        format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{field}}}]}}]}}]}}"#)
    };
    let deep = format!(
        r#""attributes":[{{"value":{}1{}}}]"#,
        r#"{"arrayValue":{"values":["#.repeat(200),
        "]}}".repeat(200)
    );
    for (body, want) in [
        ("{".to_owned(), "EOF while parsing"),
        ("[]".to_owned(), "expected an object at line 1 column"),
        ("{}{}".to_owned(), "trailing characters at line 1 column 3"),
        (
            in_span(r#""traceId":"xyz""#),
            "expected hexadecimal digits, two per byte for `traceId` at line 1 column",
        ),
        (
            in_span(r#""kind":"SERVER""#),
            "expected an enum's number or name for `kind`",
        ),
        (
            in_span(r#""startTimeUnixNano":-1"#),
            "expected an unsigned 64-bit integer or its decimal text for `startTimeUnixNano`",
        ),
        (in_span(r#""name":7"#), "expected text for `name`"),
        (
            in_span(r#""attributes":{}"#),
            "expected an array of objects for `attributes`",
        ),
        (in_span(&deep), "recursion limit exceeded"),
        (in_span("\"name\":\"\u{1}\""), "control character"),
        (
            in_span(r#""traceId":"0102030405060708","spanId":"0000000000000001""#),
            "trace ids must be 128 bit, received 64 bits",
        ),
    ] {
        let answer = client
            .post(&[("Content-Type", JSON)], body.as_bytes())
            .await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some(JSON));
        assert!(answer.text().starts_with(r#"{"code":3,"message":""#));
        assert!(answer.text().contains(want), "{want}: {}", answer.text());
    }
    running.stop().await;
}
