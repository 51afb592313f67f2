//! Regrouping gives, byte for byte in meaning, what a decoder that builds objects would give.

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;
use tempo_distributor::regroup::{
    Bounds, Fault, RegroupError, Regrouped, Scratch, count_spans, regroup,
};
use tempo_model::{
    TraceBatch, TraceChunk, TraceId,
    otlp::{write_len_prefixed, write_varint},
};
use tempo_proto::opentelemetry::proto::{
    common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value},
    trace::v1::{
        ResourceSpans, ScopeSpans,
        span::{Event, Link},
    },
};

use crate::samples::{
    Request, any_request, decode_trace, expected_traces, golden_inputs, key_value, request, scope,
    span, text, truncate,
};

pub(crate) const UNBOUNDED: Bounds = Bounds {
    max_attribute_bytes: usize::MAX,
    max_regrouped_bytes: usize::MAX,
};

/// Compares the chunks with what is expected of `request`, NaN included.
pub(crate) fn assert_regrouped(request: &Request, regrouped: &Regrouped) {
    assert_chunks(request, &regrouped.traces);
}

/// The same for what reached a sink.
pub(crate) fn assert_batch(request: &Request, batch: &TraceBatch) {
    assert_chunks(request, &batch.traces);
}

fn assert_chunks(request: &Request, chunks: &[TraceChunk]) {
    let mut got = BTreeMap::new();
    for chunk in chunks {
        let trace = decode_trace(&chunk.trace);
        let spans = trace.resource_spans.iter().flat_map(|r| &r.scope_spans);
        let spans: usize = spans.map(|scope| scope.spans.len()).sum();
        assert_eq!(spans, chunk.spans as usize, "spans of {}", chunk.id);
        let before = got.insert(chunk.id, trace.encode_to_vec());
        assert!(before.is_none(), "trace {} in two chunks", chunk.id);
    }
    let want: BTreeMap<_, _> = expected_traces(request)
        .into_iter()
        .map(|(id, trace)| (id, trace.encode_to_vec()))
        .collect();
    assert_eq!(got, want);
}

#[test]
fn golden_requests_are_regrouped_without_loss() {
    let mut scratch = Scratch::default();
    let (mut traces, mut spans) = (0, 0);
    for (name, bytes) in golden_inputs() {
        let regrouped = regroup(&bytes, &UNBOUNDED, &mut scratch).expect(&name);
        assert_regrouped(&Request::decode(&*bytes).unwrap(), &regrouped);
        traces += regrouped.traces.len();
        spans += count_spans(&bytes).unwrap();
    }
    assert_eq!(spans, 1_073);
    assert!(traces >= 192, "{traces}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_request_is_regrouped_and_cut_like_objects_would_be(
        mut request in any_request(),
        max_attribute_bytes in prop_oneof![Just(usize::MAX), 0..30_usize, 100..200_usize],
    ) {
        let bytes = request.encode_to_vec();
        let bounds = Bounds { max_attribute_bytes, ..UNBOUNDED };
        let regrouped = regroup(&bytes, &bounds, &mut Scratch::default()).unwrap();
        let cut = truncate(&mut request, max_attribute_bytes);
        prop_assert_eq!(regrouped.truncations.counts, cut);
        assert_regrouped(&request, &regrouped);
    }
}

#[test]
fn working_memory_carries_nothing_over() {
    let mut scratch = Scratch::default();
    let first = request(vec![span(1, 1), span(2, 2)]);
    let broken = request(vec![span(1, 1), span(0, 2)]);
    let second = request(vec![span(3, 3)]);
    for _ in 0..2 {
        let regrouped = regroup(&first.encode_to_vec(), &UNBOUNDED, &mut scratch).unwrap();
        assert_regrouped(&first, &regrouped);
        regroup(&broken.encode_to_vec(), &UNBOUNDED, &mut scratch).unwrap_err();
        let regrouped = regroup(&second.encode_to_vec(), &UNBOUNDED, &mut scratch).unwrap();
        assert_regrouped(&second, &regrouped);
        assert_eq!(scratch.end_times(), [1_700_000_000_500_000_000]);
    }
}

#[test]
fn spans_of_one_scope_share_a_header_and_scopes_stay_apart() {
    let scope_spans = |scope_: Option<_>, traces: &[u128]| ScopeSpans {
        scope: scope_,
        spans: traces
            .iter()
            .zip(1..)
            .map(|(&trace, number)| span(trace, number))
            .collect(),
        schema_url: String::new(),
    };
    let with_attributes = || {
        let mut scope = scope("lib", "1");
        scope.attributes.push(text("a", "b"));
        scope
    };
    let request = Request {
        resource_spans: vec![
            ResourceSpans {
                scope_spans: vec![
                    scope_spans(Some(scope("lib", "1")), &[0xa, 0xb, 0xa]),
                    scope_spans(Some(with_attributes()), &[0xa]),
                    scope_spans(Some(scope("lib2", "")), &[0xa]),
                    scope_spans(None, &[0xa]),
                ],
                ..ResourceSpans::default()
            },
            ResourceSpans {
                scope_spans: vec![scope_spans(Some(scope("lib", "1")), &[0xa, 0xa])],
                ..ResourceSpans::default()
            },
        ],
    };
    let regrouped = regroup(
        &request.encode_to_vec(),
        &UNBOUNDED,
        &mut Scratch::default(),
    )
    .unwrap();
    assert_regrouped(&request, &regrouped);
    let shape = |id: u128| {
        let id = TraceId::from_padded(&id.to_be_bytes());
        let chunk = regrouped.traces.iter().find(|chunk| chunk.id == id);
        decode_trace(&chunk.unwrap().trace)
            .resource_spans
            .iter()
            .map(|resource| {
                let scopes = resource.scope_spans.iter();
                scopes.map(|scope| scope.spans.len()).collect::<Vec<_>>()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(shape(0xa), [vec![2, 1, 1, 1], vec![2]]);
    assert_eq!(shape(0xb), [vec![1]]);
}

/// Fields that this version does not know, fields out of order, and messages sent in pieces.
#[test]
fn unknown_fields_and_unusual_orders_survive() {
    const UNKNOWN: u32 = 900;
    let unknown = |out: &mut Vec<u8>, value: u8| {
        write_varint(out, u64::from(UNKNOWN) << 3);
        out.push(value);
    };
    let span_field = |trace: u128, number: u64, mark: u8| {
        let mut message = span(trace, number).encode_to_vec();
        unknown(&mut message, mark);
        let mut field = Vec::new();
        write_len_prefixed(&mut field, 2, &message);
        field
    };
    let scope_header = scope("lib", "1").encode_to_vec();
    let mut scope_spans = Vec::new();
    // Spans before their scope, the schema URL twice (the last one counts).
    scope_spans.extend(span_field(1, 1, 11));
    write_len_prefixed(&mut scope_spans, 3, b"old");
    write_len_prefixed(&mut scope_spans, 1, &scope_header);
    unknown(&mut scope_spans, 12);
    scope_spans.extend(span_field(2, 2, 13));
    write_len_prefixed(&mut scope_spans, 3, b"new");

    let mut resource_spans = Vec::new();
    write_len_prefixed(&mut resource_spans, 2, &scope_spans);
    unknown(&mut resource_spans, 14);
    // A resource in two pieces: protobuf unites them.
    for name in ["a", "b"] {
        let mut resource = Vec::new();
        write_len_prefixed(&mut resource, 1, &text(name, "x").encode_to_vec());
        write_len_prefixed(&mut resource_spans, 1, &resource);
    }
    let mut bytes = Vec::new();
    unknown(&mut bytes, 15);
    write_len_prefixed(&mut bytes, 1, &resource_spans);

    let regrouped = regroup(&bytes, &UNBOUNDED, &mut Scratch::default()).unwrap();
    assert_regrouped(&Request::decode(&*bytes).unwrap(), &regrouped);
    let resource = &decode_trace(&regrouped.traces[0].trace).resource_spans[0];
    assert_eq!(resource.resource.as_ref().unwrap().attributes.len(), 2);
    assert_eq!(resource.scope_spans[0].schema_url, "new");
    let mark = |value: u8| {
        let mut mark = Vec::new();
        unknown(&mut mark, value);
        mark
    };
    for (chunk, own) in regrouped.traces.iter().zip([11, 13]) {
        for value in [own, 12, 14] {
            let mark = mark(value);
            assert!(
                chunk.trace.windows(mark.len()).any(|window| window == mark),
                "unknown field {value} is lost in {}",
                chunk.id
            );
        }
    }
}

#[test]
fn ten_oversized_texts_are_cut_two_per_scope() {
    let long = "x".repeat(1_100);
    let attributes = || vec![text(&long, "v"), text("k", &long)];
    let mut request = request(vec![span(1, 1)]);
    let resource = &mut request.resource_spans[0];
    resource.resource.as_mut().unwrap().attributes = attributes();
    let scope = &mut resource.scope_spans[0];
    scope.scope.as_mut().unwrap().attributes = attributes();
    scope.spans[0].attributes = attributes();
    scope.spans[0].events = vec![Event {
        attributes: attributes(),
        ..Event::default()
    }];
    scope.spans[0].links = vec![Link {
        attributes: attributes(),
        ..Link::default()
    }];
    let bounds = Bounds {
        max_attribute_bytes: 1_000,
        ..UNBOUNDED
    };
    let regrouped = regroup(&request.encode_to_vec(), &bounds, &mut Scratch::default()).unwrap();
    assert_eq!(regrouped.truncations.counts, [2; 5]);
    let example = regrouped.truncations.example.clone().unwrap();
    assert_eq!(
        (example.scope.name(), example.field, example.original_bytes),
        ("resource", "key", 1_100)
    );
    truncate(&mut request, 1_000);
    assert_regrouped(&request, &regrouped);
}

#[test]
fn nested_values_names_and_messages_are_never_cut() {
    let long = "é".repeat(600);
    let mut request = request(vec![span(1, 1)]);
    let span = &mut request.resource_spans[0].scope_spans[0].spans[0];
    let nested = || AnyValue {
        value: Some(Value::StringValue(long.clone())),
    };
    span.name = long.clone();
    span.trace_state = long.clone();
    span.attributes = vec![
        key_value(
            "array",
            Value::ArrayValue(ArrayValue {
                values: vec![nested()],
            }),
        ),
        key_value(
            "list",
            Value::KvlistValue(KeyValueList {
                values: vec![text(&long, &long)],
            }),
        ),
        key_value("bytes", Value::BytesValue(vec![7; 600])),
    ];
    let bounds = Bounds {
        max_attribute_bytes: 10,
        ..UNBOUNDED
    };
    let regrouped = regroup(&request.encode_to_vec(), &bounds, &mut Scratch::default()).unwrap();
    // "http.method" of the sample span is replaced; "service.name" is longer than 10 bytes.
    assert_eq!(regrouped.truncations.counts, [1, 0, 0, 0, 0]);
    truncate(&mut request, 10);
    assert_regrouped(&request, &regrouped);
}

#[test]
fn a_resource_repeated_for_many_traces_is_refused_beyond_the_limit() {
    let mut request = request((1..=1_000).map(|n| span(u128::from(n), n)).collect());
    let resource = request.resource_spans[0].resource.as_mut().unwrap();
    resource.attributes.push(text("blob", &"x".repeat(10_000)));
    let bytes = request.encode_to_vec();
    assert!(bytes.len() < 200_000);
    let bounds = Bounds {
        max_regrouped_bytes: 1 << 20,
        ..UNBOUNDED
    };
    let error = regroup(&bytes, &bounds, &mut Scratch::default()).unwrap_err();
    let RegroupError::Amplified {
        regrouped_bytes,
        traces,
        ..
    } = error
    else {
        panic!("{error}");
    };
    let unbounded = regroup(&bytes, &UNBOUNDED, &mut Scratch::default()).unwrap();
    let total: usize = unbounded.traces.iter().map(|chunk| chunk.trace.len()).sum();
    assert_eq!((regrouped_bytes, traces), (total as u64, 1_000));
}

#[test]
fn every_violation_names_its_place() {
    type Spoil = fn(&mut Request);
    let cases: &[(Spoil, &str)] = &[
        (
            |r| r.resource_spans[0].scope_spans[0].spans[1].trace_id = vec![1; 8],
            "trace ids must be 128 bit, received 64 bits in \
             resource_spans[0].scope_spans[0].spans[1]",
        ),
        (
            |r| r.resource_spans[0].scope_spans[0].spans[1].trace_id = vec![0; 16],
            "trace ids must be 128 bit, received 0 bits in \
             resource_spans[0].scope_spans[0].spans[1]",
        ),
        (
            |r| r.resource_spans[0].scope_spans[0].spans[1].trace_id = Vec::new(),
            "trace ids must be 128 bit, received 0 bits in \
             resource_spans[0].scope_spans[0].spans[1]",
        ),
        (
            |r| r.resource_spans[0].scope_spans[0].spans[0].span_id = vec![0; 8],
            "span ids must be 64 bit and not all zero, received 0 bits in \
             resource_spans[0].scope_spans[0].spans[0]",
        ),
        (
            |r| r.resource_spans[0].scope_spans[0].spans[0].span_id = vec![1; 4],
            "span ids must be 64 bit and not all zero, received 32 bits in \
             resource_spans[0].scope_spans[0].spans[0]",
        ),
        (
            |r| r.resource_spans[0].scope_spans[0].spans[0].parent_span_id = vec![1; 7],
            "id must have 8 bytes, received 7 in \
             resource_spans[0].scope_spans[0].spans[0].parent_span_id",
        ),
        (
            |r| {
                r.resource_spans[0].scope_spans[0].spans[0].links = vec![
                    Link::default(),
                    Link {
                        trace_id: vec![1; 8],
                        ..Link::default()
                    },
                ];
            },
            "id must have 16 bytes, received 8 in \
             resource_spans[0].scope_spans[0].spans[0].links[1].trace_id",
        ),
    ];
    for (spoil, want) in cases {
        let mut request = request(vec![span(1, 1), span(2, 2)]);
        spoil(&mut request);
        let error = regroup(
            &request.encode_to_vec(),
            &UNBOUNDED,
            &mut Scratch::default(),
        )
        .unwrap_err();
        assert_eq!(error.to_string(), *want);
    }
}

/// Puts a mark into a text, which is then made invalid UTF-8 in the encoded request.
#[test]
fn every_text_must_be_utf8() {
    const MARK: &str = "MARK";
    type Put = fn(&mut Request);
    let cases: &[(Put, &str)] = &[
        (
            |r| r.resource_spans[0].schema_url = MARK.into(),
            "schema_url",
        ),
        (
            |r| {
                r.resource_spans[0].resource.as_mut().unwrap().attributes[0] = text(MARK, "v");
            },
            "resource.attributes[0].key",
        ),
        (
            |r| r.resource_spans[0].scope_spans[0].schema_url = MARK.into(),
            "scope_spans[0].schema_url",
        ),
        (
            |r| r.resource_spans[0].scope_spans[0].scope = Some(scope(MARK, "")),
            "scope_spans[0].scope.name",
        ),
        (
            |r| r.resource_spans[0].scope_spans[0].scope = Some(scope("", MARK)),
            "scope_spans[0].scope.version",
        ),
        (
            |r| r.resource_spans[0].scope_spans[0].spans[0].name = MARK.into(),
            "spans[0].name",
        ),
        (
            |r| r.resource_spans[0].scope_spans[0].spans[0].trace_state = MARK.into(),
            "spans[0].trace_state",
        ),
        (
            |r| {
                r.resource_spans[0].scope_spans[0].spans[0].status =
                    Some(tempo_proto::opentelemetry::proto::trace::v1::Status {
                        message: MARK.into(),
                        code: 2,
                    });
            },
            "spans[0].status.message",
        ),
        (
            |r| {
                r.resource_spans[0].scope_spans[0].spans[0].attributes =
                    vec![text("k", "v"), text("k", MARK)];
            },
            "spans[0].attributes[1].value.string_value",
        ),
        (
            |r| {
                r.resource_spans[0].scope_spans[0].spans[0].attributes = vec![key_value(
                    "k",
                    Value::KvlistValue(KeyValueList {
                        values: vec![text(MARK, "v")],
                    }),
                )];
            },
            "spans[0].attributes[0].value.kvlist_value.values[0].key",
        ),
        (
            |r| {
                r.resource_spans[0].scope_spans[0].spans[0].events = vec![Event {
                    name: MARK.into(),
                    ..Event::default()
                }];
            },
            "spans[0].events[0].name",
        ),
        (
            |r| {
                r.resource_spans[0].scope_spans[0].spans[0].links = vec![Link {
                    trace_state: MARK.into(),
                    ..Link::default()
                }];
            },
            "spans[0].links[0].trace_state",
        ),
    ];
    for (put, place) in cases {
        let mut request = request(vec![span(1, 1)]);
        put(&mut request);
        let mut bytes = request.encode_to_vec();
        regroup(&bytes, &UNBOUNDED, &mut Scratch::default()).expect(place);
        let at = bytes
            .windows(MARK.len())
            .position(|window| window == MARK.as_bytes())
            .unwrap();
        bytes[at + 1] = 0xff;
        let error = regroup(&bytes, &UNBOUNDED, &mut Scratch::default()).unwrap_err();
        let RegroupError::Malformed(malformed) = error else {
            panic!("{error}");
        };
        assert_eq!(malformed.fault, Fault::NotUtf8, "{place}");
        assert!(malformed.place.ends_with(place), "{}", malformed.place);
    }
}

fn nested_lists(levels: usize) -> Value {
    (0..levels).fold(Value::IntValue(1), |inner, _| {
        Value::KvlistValue(KeyValueList {
            values: vec![KeyValue {
                key: "k".to_owned(),
                value: Some(AnyValue { value: Some(inner) }),
                ..KeyValue::default()
            }],
        })
    })
}

/// What is accepted can be read by decoders that give up at 100 nested messages.
#[test]
fn the_deepest_accepted_value_can_be_decoded() {
    let request_of = |levels| {
        let mut request = request(vec![span(1, 1)]);
        request.resource_spans[0].scope_spans[0].spans[0].events = vec![Event {
            attributes: vec![key_value("deep", nested_lists(levels))],
            ..Event::default()
        }];
        request
    };
    let accepted = request_of(tempo_model::otlp::MAX_VALUE_NESTING_DEPTH);
    let regrouped = regroup(
        &accepted.encode_to_vec(),
        &UNBOUNDED,
        &mut Scratch::default(),
    )
    .unwrap();
    assert_regrouped(&accepted, &regrouped);
    let refused = request_of(tempo_model::otlp::MAX_VALUE_NESTING_DEPTH + 1);
    let error = regroup(
        &refused.encode_to_vec(),
        &UNBOUNDED,
        &mut Scratch::default(),
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("nested deeper than 30 levels"),
        "{error}"
    );
}
