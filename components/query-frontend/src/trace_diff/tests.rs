use serde_json::{Value as Json, json};
use tempo_proto::opentelemetry::proto::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status},
};

use super::*;

const MILLI: u64 = 1_000_000;

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

/// A server span from `start` to `end` in milliseconds after some instant.
fn span(id: &str, parent: &str, name: &str, start: u64, end: u64) -> Span {
    Span {
        trace_id: vec![7; 16],
        span_id: id.into(),
        parent_span_id: parent.into(),
        name: name.to_owned(),
        kind: 2,
        start_time_unix_nano: (1_000_000 + start) * MILLI,
        end_time_unix_nano: (1_000_000 + end) * MILLI,
        ..Span::default()
    }
}

fn trace(services: Vec<(&str, Vec<Span>)>) -> Vec<u8> {
    let resource_spans = services
        .into_iter()
        .map(|(service, spans)| ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", service)],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        })
        .collect();
    Trace { resource_spans }.encode_to_vec()
}

fn document(format: DiffFormat, base: &[u8], compare: &[u8]) -> Json {
    serde_json::from_slice(&diff(format, base, compare).unwrap()).unwrap()
}

fn patch(base: Vec<Span>, compare: Vec<Span>) -> Json {
    let (base, compare) = (trace(vec![("shop", base)]), trace(vec![("shop", compare)]));
    document(DiffFormat::Patch, &base, &compare)
}

fn names(spans: &Json) -> Vec<&str> {
    let spans = spans.as_array().unwrap().iter();
    spans
        .map(|span| span["span"]["name"].as_str().unwrap())
        .collect()
}

#[test]
fn changes_of_a_span_are_told_with_their_places() {
    let mut before = span("b", "a", "child", 10, 20);
    before.attributes = vec![text("gone", "1"), text("kept", "2"), text("new.value", "3")];
    let mut after = span("y", "x", "child", 10, 30);
    after.attributes = vec![text("kept", "2"), text("new.value", "4"), text("come", "5")];
    after.status = Some(Status {
        code: 2,
        ..Status::default()
    });
    let document = patch(
        vec![span("a", "", "root", 0, 100), before],
        vec![span("x", "", "root", 0, 101), after],
    );
    assert_eq!(
        document,
        json!({
            "version": "trace-patch-v0",
            "base": {"traceId": "07070707070707070707070707070707", "spanCount": 2},
            "compare": {"traceId": "07070707070707070707070707070707", "spanCount": 2},
            "stats": {
                "spanCountA": 2, "spanCountB": 2, "matchedSpans": 2, "modifiedSpans": 1,
                "addedSpans": 0, "removedSpans": 0, "fieldChanges": 2, "attributeChanges": 3,
                "eventChanges": 0, "truncated": false,
            },
            "modified": [{
                "span": {"path": [0, 0], "service": "shop", "name": "child", "kind": "server"},
                "changes": [
                    {"op": "modify", "target": {"type": "field", "name": "duration_nanos"},
                     "before": 10 * MILLI, "after": 20 * MILLI},
                    {"op": "modify", "target": {"type": "field", "name": "status"},
                     "before": "unset", "after": "error"},
                    {"op": "add", "target": {"type": "attribute", "scope": "span", "key": "come"},
                     "before": null, "after": "5"},
                    {"op": "remove", "target": {"type": "attribute", "scope": "span", "key": "gone"},
                     "before": "1", "after": null},
                    {"op": "modify",
                     "target": {"type": "attribute", "scope": "span", "key": "new.value"},
                     "before": "3", "after": "4"},
                ],
            }],
            "added": [],
            "removed": [],
            "warnings": [],
        })
    );
}

#[test]
fn an_inserted_ancestor_does_not_part_what_is_below_it() {
    let document = patch(
        vec![
            span("a", "", "root", 0, 100),
            span("b", "a", "authorize", 10, 90),
            span("c", "b", "reserve", 20, 80),
        ],
        vec![
            span("a", "", "root", 0, 100),
            span("x", "a", "proxy", 5, 95),
            span("b", "x", "authorize", 10, 90),
            span("c", "b", "reserve", 20, 80),
        ],
    );
    assert_eq!(document["stats"]["matchedSpans"], 3);
    assert_eq!(
        document["added"],
        json!([{
            "target": {"type": "span", "parentPath": [0], "index": 0},
            "span": {
                "path": [0, 0], "service": "shop", "name": "proxy", "kind": "server",
                "duration_nanos": 90 * MILLI, "status": "unset",
            },
        }])
    );
    assert_eq!(document["removed"], json!([]));
    assert_eq!(document["modified"], json!([]));
}

#[test]
fn a_removed_branch_does_not_take_the_partners_of_another() {
    let branch = |name: &str, start: u64| {
        vec![
            span(name, "root", name, start, start + 50),
            span(
                &format!("{name}-db"),
                name,
                "SELECT",
                start + 1,
                start + 2 + start,
            ),
        ]
    };
    let root = vec![span("root", "", "root", 0, 500)];
    let document = patch(
        [root.clone(), branch("alpha", 10), branch("beta", 100)].concat(),
        [root, branch("beta", 100)].concat(),
    );
    assert_eq!(names(&document["removed"]), ["alpha", "SELECT"]);
    assert_eq!(document["removed"][1]["target"]["path"], json!([0, 0, 0]));
    assert_eq!(document["modified"], json!([]), "each has its own partner");
}

#[test]
fn odd_trees_are_compared_and_told_of() {
    // Two in a circle, two with one id, one without a parent, one without a start, one ends before
    // it starts.
    let odd = vec![
        span("a", "b", "circle", 1, 2),
        span("b", "a", "circle too", 2, 3),
        span("c", "", "one", 3, 4),
        span("c", "", "the same", 4, 5),
        span("d", "lost", "orphan 1234567", 5, 6),
        Span {
            start_time_unix_nano: 0,
            ..span("e", "c", "no start", 0, 1)
        },
        span("f", "c", "backwards", 7, 6),
    ];
    let document = patch(odd.clone(), odd);
    let stats = &document["stats"];
    assert_eq!(stats["spanCountA"], 7);
    assert_eq!(stats["matchedSpans"], 6);
    assert_eq!(stats["modifiedSpans"], 0);
    let warnings = document["warnings"].as_array().unwrap();
    let codes: Vec<&str> = warnings
        .iter()
        .map(|warning| warning["code"].as_str().unwrap())
        .collect();
    assert_eq!(
        codes,
        [
            "high_cardinality_span_name",
            "invalid_duration",
            "duplicate_span_id",
            "invalid_duration",
            "duplicate_span_id",
        ]
    );
}

#[test]
fn a_deep_trace_is_compared_and_one_too_deep_is_refused() {
    let chain = |depth: usize| {
        let ids: Vec<String> = (0..depth).map(|at| format!("{at:08}")).collect();
        let spans = (0..depth).map(|at| {
            let parent = at.checked_sub(1).map_or("", |parent| &ids[parent]);
            span(&ids[at], parent, "deep", at as u64, at as u64 + 1)
        });
        trace(vec![("shop", spans.collect())])
    };
    let deep = chain(2_000);
    let document = document(DiffFormat::Patch, &deep, &deep);
    assert_eq!(document["stats"]["matchedSpans"], 2_000);
    let error = diff(DiffFormat::Patch, &chain(3_000), &deep).unwrap_err();
    assert!(matches!(
        error,
        DiffError::TooDeep {
            path_elements: 4_501_500
        }
    ));
}

#[test]
fn a_summary_adds_up_what_each_span_hides() {
    // Ten spans, each a little slower than is told of one.
    let slow = |by: u64| {
        let many = (0..10).map(|at| {
            let start = 10 * at;
            span(&format!("s{at}"), "a", "step", start, start + 8 + by)
        });
        trace(vec![
            ("front", vec![span("a", "", "root", 0, 100)]),
            ("back", many.collect()),
        ])
    };
    let summary = document(DiffFormat::Summary, &slow(0), &slow(1));
    assert_eq!(summary["version"], "trace-summary-v0-native");
    assert_eq!(summary["stats"]["modifiedSpans"], 0);
    assert_eq!(
        summary["signals"],
        json!({
            "traceLatency": "unchanged", "sumSpanDuration": "increased", "errors": "unchanged",
            "spanCount": "unchanged", "structure": "unchanged",
        })
    );
    assert_eq!(
        summary["trust"],
        json!({"matchedSpanRatio": 1.0, "structureOverlap": 1.0})
    );
    assert_eq!(
        summary["base"],
        json!({
            "traceId": "07070707070707070707070707070707", "rootService": "front",
            "rootName": "root", "spanCount": 11, "errorSpanCount": 0, "durationMs": 100,
            "sumSpanDurationMs": 180,
        })
    );
    assert_eq!(summary["changedServices"], json!(["back"]));
    assert_eq!(
        summary["services"],
        json!([{
            "name": "back", "sumSpanDurationDeltaMs": 10, "modified": 0, "added": 0, "removed": 0,
            "newErrors": 0, "resolvedErrors": 0,
        }])
    );
}

#[test]
fn a_summary_counts_errors_and_moved_spans() {
    let failing = |mut span: Span| {
        span.status = Some(Status {
            code: 2,
            ..Status::default()
        });
        span
    };
    let base = trace(vec![
        (
            "a",
            vec![
                span("1", "", "root", 0, 50),
                failing(span("2", "1", "x", 1, 2)),
            ],
        ),
        ("b", vec![span("3", "1", "moves", 3, 4)]),
        ("", vec![span("4", "1", "goes", 5, 6)]),
    ]);
    let compare = trace(vec![
        (
            "a",
            vec![
                failing(span("1", "", "root", 0, 50)),
                span("2", "1", "x", 1, 2),
            ],
        ),
        ("b", vec![span("3", "2", "moves", 3, 4)]),
    ]);
    let summary = document(DiffFormat::Summary, &base, &compare);
    assert_eq!(summary["signals"]["errors"], "unchanged");
    assert_eq!(summary["signals"]["structure"], "changed");
    assert_eq!(summary["changedServices"], json!(["<unknown>", "a", "b"]));
    let services = summary["services"].as_array().unwrap();
    let of = |name: &str| services.iter().find(|service| service["name"] == name);
    let a = of("a").unwrap();
    assert_eq!(
        (&a["newErrors"], &a["resolvedErrors"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(of("<unknown>").unwrap()["removed"], 1);
    assert!(of("b").is_none(), "it only moved");
}

#[test]
fn a_composed_document_has_the_patch_only_if_it_is_small() {
    let many = |name: &str| {
        let spans = (0..500).map(|at| span(&format!("{at}"), "", &format!("{name} {at}"), at, at));
        trace(vec![("shop", spans.collect())])
    };
    let small = trace(vec![("shop", vec![span("a", "", "root", 0, 1)])]);
    let composed = document(DiffFormat::Composed, &small, &small);
    assert_eq!(composed["version"], "trace-summary-v0-composed");
    assert_eq!(composed["patch"]["version"], "trace-patch-v0");
    assert_eq!(composed["summary"]["stats"]["matchedSpans"], 1);
    assert_eq!(composed.get("patchOmitted"), None);
    let composed = document(DiffFormat::Composed, &many("a"), &many("b"));
    assert_eq!(composed.get("patch"), None);
    let omitted = &composed["patchOmitted"];
    assert_eq!(omitted["reason"], "over_budget");
    assert!(omitted["bytes"].as_u64().unwrap() > 65_536);
}
