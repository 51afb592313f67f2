//! The trace of Tempo's end-to-end search tests, and what queries find of it.

use std::sync::atomic::AtomicBool;

use tempo_engine::{FoundSpanSet, Plan, SearchOptions, Value, search};
use tempo_proto::opentelemetry::proto::{
    common::v1::{InstrumentationScope, KeyValue},
    trace::v1::{
        Span, Status,
        span::{Event, Link},
    },
};
use tempo_table::MemoryTable;
use tempo_traceql::ast::{Pipeline, QueryBody};

use crate::support::{
    bool, int, limits, options, plan, resource, run, span, table, text, trace_id,
};

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1000 * SECOND;
const WEIRD: &str = "{ } ( ) = ~ ! < > & | ^";

fn timed(seconds: u64, span: Span) -> Span {
    Span {
        start_time_unix_nano: START,
        end_time_unix_nano: START + seconds * SECOND,
        ..span
    }
}

fn status(code: i32) -> Option<Status> {
    Some(Status {
        code,
        ..Default::default()
    })
}

fn named(service: &str, more: Vec<KeyValue>) -> Vec<KeyValue> {
    let mut attributes = vec![text("service.name", service)];
    attributes.extend(more);
    attributes
}

/// R is the root, M and T are its children, B names itself as its parent.
fn expected_trace() -> MemoryTable {
    let root = timed(
        2,
        Span {
            kind: 3,
            attributes: vec![
                text("foo", "Bar"),
                bool("parent", true),
                text("span-dedicated.01", "span-1b"),
                text("span-dedicated.02", "span-2b"),
                text(WEIRD, "foobaz"),
            ],
            ..span(&[4, 5, 6], &[], "RootSpan")
        },
    );
    let mine = timed(
        1,
        Span {
            status: status(2),
            attributes: vec![
                text("foo", "Bar"),
                bool("child", true),
                text("http.method", "Get"),
                text("http.url", "url/Hello/World"),
                int("http.status_code", 500),
                text("numericString", "123"),
                text("span-dedicated.01", "span-1a"),
                text("span-dedicated.02", "span-2a"),
            ],
            events: vec![Event {
                name: "event name".into(),
                time_unix_nano: START + SECOND / 2,
                attributes: vec![
                    text("exception.message", "random error"),
                    text("event-dedicated.01", "event-1a"),
                ],
                ..Default::default()
            }],
            links: vec![Link {
                trace_id: trace_id(1).as_bytes().to_vec(),
                span_id: vec![4, 5, 6],
                attributes: vec![text("relation", "child-of")],
                ..Default::default()
            }],
            ..span(&[1, 2, 3], &[4, 5, 6], "MySpan")
        },
    );
    let third = timed(
        1,
        Span {
            kind: 4,
            status: status(1),
            attributes: vec![bool("child2", true)],
            ..span(&[7, 8, 9], &[4, 5, 6], "")
        },
    );
    let broken = timed(
        1,
        Span {
            status: status(1),
            attributes: vec![bool("broken", true)],
            ..span(&[0, 0, 0], &[0, 0, 0], "BrokenSpan")
        },
    );
    let scope = InstrumentationScope {
        name: "scope-1".into(),
        version: "version-1".into(),
        attributes: vec![text("scope-attr-str", "scope-attr-1")],
        ..Default::default()
    };
    let of_mine = [
        ("cluster", "MyCluster"),
        ("namespace", "MyNamespace"),
        ("pod", "MyPod"),
        ("container", "MyContainer"),
        ("k8s.cluster.name", "k8sCluster"),
        ("k8s.namespace.name", "k8sNamespace"),
        ("k8s.pod.name", "k8sPod"),
        ("k8s.container.name", "k8sContainer"),
        ("bat", "Baz"),
        ("res-dedicated.01", "res-1a"),
        ("res-dedicated.02", "res-2a"),
        (WEIRD, "foobar"),
    ]
    .map(|(key, value)| text(key, value));
    let of_root = [
        ("res-dedicated.01", "res-1b"),
        ("res-dedicated.02", "res-2b"),
    ]
    .map(|(key, value)| text(key, value));
    table(vec![(
        trace_id(1),
        vec![
            resource(
                named("RootService", of_root.into()),
                Default::default(),
                vec![root],
            ),
            resource(named("MyService", of_mine.into()), scope, vec![mine]),
            resource(named("Service3", vec![]), Default::default(), vec![third]),
            resource(
                named("BrokenService", vec![]),
                Default::default(),
                vec![broken],
            ),
        ],
    )])
}

/// The letters of the spans of a set, sorted.
fn letters(set: &FoundSpanSet) -> String {
    let mut letters: Vec<&str> = set
        .spans
        .iter()
        .map(|span| match span.span_id {
            [.., 4, 5, 6] => "R",
            [.., 1, 2, 3] => "M",
            [.., 7, 8, 9] => "T",
            _ => "B",
        })
        .collect();
    letters.sort_unstable();
    assert_eq!(set.matched as usize, letters.len());
    letters.concat()
}

/// The spans that a query finds, sets apart.
fn found(table: &MemoryTable, query: &str) -> String {
    let output = run(table, query).unwrap_or_else(|error| panic!("{query}: {error}"));
    let Some(trace) = output.traces.first() else {
        return "none".to_owned();
    };
    assert_eq!(&*trace.root_service_name, "RootService");
    assert_eq!(&*trace.root_trace_name, "RootSpan");
    assert_eq!(trace.duration_nano, 2 * SECOND);
    let mut sets: Vec<String> = trace.span_sets.iter().map(letters).collect();
    sets.sort();
    sets.join(",")
}

#[test]
fn finds_what_tempo_finds() {
    let cases = [
        // Structure.
        ("{ .parent } >> { .child }", "M"),
        ("{ .parent } > { .child }", "M"),
        ("{ .child } << { .parent }", "R"),
        ("{ .child } < { .parent }", "R"),
        ("{ .child } >> { .parent }", "none"),
        ("{ .child } ~ { .child2 }", "T"),
        ("{ .child } ~ { .child }", "none"),
        ("{ } ~ { .broken }", "none"),
        ("{ .broken } >> { }", "none"),
        ("{ .parent } >> { }", "MT"),
        ("{ .child } !> { .parent }", "R"),
        ("{ .child } !>> { .parent }", "R"),
        ("{ .child } !~ { .parent }", "R"),
        ("{ .parent } !< { .child }", "M"),
        ("{ .parent } !<< { .child }", "M"),
        ("{ .child } !~ { .child2 }", "none"),
        ("{ } !~ { }", "R"),
        ("{ .parent } &>> { .child }", "MR"),
        ("{ .parent } &> { .child }", "MR"),
        ("{ .child } &<< { .parent }", "MR"),
        ("{ .child } &< { .parent }", "MR"),
        ("{ .child } &~ { .child2 }", "MT"),
        ("{ name=`does-not-exist` } !< { name=`MySpan` }", "M"),
        ("{ } >> { span.foo != `baz` }", "M"),
        ("{ } >> { span.does-not-exist != `bar` }", "none"),
        ("{ nestedSetParent = -1 } > { }", "MT"),
        ("{ nestedSetParent = -1 }", "R"),
        // Groups and aggregates.
        ("{ } | by(span.foo) | count() = 2", "BT,MR"),
        ("{ } | by(resource.service.name) | count() = 1", "B,M,R,T"),
        ("{ } | count() > 3", "BMRT"),
        ("{ } | count() > 4", "none"),
        ("{ } | avg(.dne) != 0", "none"),
        ("{ } | count() = 4", "BMRT"),
        ("{ true } && { true } | count() = 4", "BMRT"),
        ("{ } | by(span.foo) | count() = 1", "none"),
        ("{ } | avg(duration) < 0", "none"),
        // Absence.
        ("{ } | select(.missing) | { !(.missing != nil) }", "BMRT"),
        (
            "{ resource.service.name=`MyService` && resource.asdf=nil }",
            "M",
        ),
        (
            "{ resource.service.name=`MyService` && resource.bat=nil }",
            "none",
        ),
        ("{ .foo != `` }", "MR"),
        ("{ .dne != `` }", "none"),
        ("{ .foo != .bar }", "none"),
        ("{ name != nil }", "BMRT"),
        ("{ duration != nil }", "BMRT"),
        ("{ .not_an_attribute != nil }", "none"),
        // Numbers.
        ("{ span:duration = 5000000000 * .2 }", "BMT"),
        ("{ span:duration = 3000000000ns / 3 }", "BMT"),
        (
            "{ span:duration >= 999999999.9 && span:duration <= 1000000000.1 }",
            "BMT",
        ),
        ("{ trace:duration = 2000000000.0 }", "BMRT"),
        (
            "{ span:duration > 1000000000 && span:duration < 2000000000 }",
            "none",
        ),
        ("{ .numericString > `` }", "M"),
        // Intrinsics and scopes.
        ("{ status = error && duration < 2s }", "M"),
        ("{ name =~ `My` }", "none"),
        ("{ name =~ `My.*` }", "M"),
        (
            "{ event:name = `event name` && event.exception.message =~ `random.*` }",
            "M",
        ),
        ("{ event:timeSinceStart > 10ms }", "M"),
        ("{ event:timeSinceStart = 500ms }", "M"),
        ("{ link.relation = `child-of` }", "M"),
        ("{ link:spanID = `0000000000040506` }", "M"),
        ("{ link:traceID = `1` }", "M"),
        ("{ instrumentation:name = `scope-1` }", "M"),
        ("{ instrumentation.scope-attr-str = `scope-attr-1` }", "M"),
        ("{ .\"{ } ( ) = ~ ! < > & | ^\" = `foobar` }", "M"),
        ("{ .\"{ } ( ) = ~ ! < > & | ^\" = `foobaz` }", "R"),
        (
            "{ .\"{ } ( ) = ~ ! < > & | ^\" = `value mismatch` }",
            "none",
        ),
        ("{ span:parentID = \"0000000000040506\" }", "MT"),
        ("{ span:id = \"0000000000010203\" }", "M"),
        ("{ span:id != \"0000000000010203\" }", "BRT"),
        ("{ span:id =~ \".*0[26]0[39]\" }", "M"),
        ("{ trace:id = \"1\" }", "BMRT"),
        (
            "{ trace:id = \"00000000000000000000000000000001\" }",
            "BMRT",
        ),
        ("{ trace:id = \"2\" }", "none"),
        (
            "{ rootServiceName = `RootService` && rootName = `RootSpan` && traceDuration > 1s }",
            "BMRT",
        ),
        ("{ span:childCount = 2 }", "R"),
        // Chains.
        (
            "{ resource.res-dedicated.01 = \"res-1a\" || resource.res-dedicated.01 = \"res-1b\" }",
            "MR",
        ),
        (
            "{ resource.res-dedicated.01 !~ \"res-2.*\" && resource.res-dedicated.01 !~ \"res-3.*\" }",
            "MR",
        ),
        (
            "{ span.foo!=\"Bar\" && span.foo!=\"does-not-exist\" }",
            "none",
        ),
        // Between spansets.
        ("{ .parent } && { .broken }", "BR"),
        ("{ .parent } && { .dne }", "none"),
        ("{ .parent } || { .dne }", "R"),
        (
            "({ .child } | count() = 1) && ({ .child2 } | count() = 1)",
            "MT",
        ),
        (
            "({ .child } | count() = 2) && ({ .child2 } | count() = 1)",
            "none",
        ),
        ("({ .parent } | count() = 1) >> ({ })", "MT"),
        ("{ } | by(span.foo) | { .parent } > { }", "M"),
        ("{ } | by(span.foo) | coalesce() | { .parent } > { }", "MT"),
        ("{ } | by(span.foo) | { .parent || .broken }", "B,R"),
        ("{ } | by(span.foo) | by(status)", "BT,M,R"),
    ];
    let table = expected_trace();
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(query, want)| {
            let got = found(&table, query);
            (got != *want).then(|| format!("{query} -> {got}, not {want}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn is_better_than_tempo_where_its_defects_show() {
    let cases = [
        (
            "{ 500 = .http.status_code && 400 < .http.status_code }",
            "M",
        ),
        ("{ .http.status_code = 500.0 }", "M"),
        ("{ !(.http.status_code = 500) }", "BRT"),
        ("{ span.child || span.child2 }", "MT"),
        ("{ .parent || span.foo = \"Bar\" }", "MR"),
        // Expressions on both sides.
        ("{ } | max(duration) - min(duration) > 900ms", "BMRT"),
        ("{ } | max(duration) - min(duration) > 1s", "none"),
        ("{ } | count() * 2 = 8", "BMRT"),
        ("{ } | sum(.http.status_code) > count()", "BMRT"),
        ("{ } | by(span.foo) | max(duration) = min(duration)", "BT"),
    ];
    let table = expected_trace();
    for (query, want) in cases {
        assert_eq!(found(&table, query), want, "{query}");
    }
}

/// Id, name and attributes of a span.
type Shown = (String, Option<String>, Vec<(String, Value)>);

fn attributes(table: &MemoryTable, query: &str) -> Vec<Shown> {
    let output = run(table, query).unwrap();
    let mut spans: Vec<_> = output.traces[0].span_sets[0]
        .spans
        .iter()
        .map(|span| {
            let mut attributes: Vec<(String, Value)> = span
                .attributes
                .iter()
                .map(|(name, value)| (name.to_string(), value.clone()))
                .collect();
            attributes.sort_by(|a, b| a.0.cmp(&b.0));
            let id = format!("{:x}", u64::from_be_bytes(span.span_id));
            (id, span.name.as_deref().map(str::to_owned), attributes)
        })
        .collect();
    spans.sort_by(|a, b| a.0.cmp(&b.0));
    spans
}

#[test]
fn shows_what_was_selected() {
    let table = expected_trace();
    let int = |name: &str, value: i64| (name.to_owned(), Value::Int(value));
    assert_eq!(
        attributes(
            &table,
            "{ name = `BrokenSpan` } | select(nestedSetRight, nestedSetLeft, nestedSetParent)"
        ),
        [(
            "0".to_owned(),
            Some("BrokenSpan".to_owned()),
            vec![
                int("nestedSetLeft", 0),
                int("nestedSetParent", 0),
                int("nestedSetRight", 0)
            ]
        )]
    );
    assert_eq!(
        attributes(&table, "{ .parent } | select(nestedSetLeft)"),
        [(
            "40506".to_owned(),
            None,
            vec![
                int("nestedSetLeft", 1),
                ("parent".to_owned(), Value::Bool(true))
            ]
        )]
    );
    assert_eq!(
        attributes(
            &table,
            "{ nestedSetLeft = 1 } >> { } | select(name, nestedSetRight)"
        ),
        [
            (
                "10203".to_owned(),
                Some("MySpan".to_owned()),
                vec![int("nestedSetRight", 3)]
            ),
            (
                "70809".to_owned(),
                Some(String::new()),
                vec![int("nestedSetRight", 5)]
            ),
        ]
    );
}

#[test]
fn shows_sets_with_what_made_them() {
    let table = expected_trace();
    let output = run(
        &table,
        "{ } | by(span.foo) | count() = 2 | max(duration) > 0",
    )
    .unwrap();
    let mut sets: Vec<(String, Vec<(String, Value)>)> = output.traces[0]
        .span_sets
        .iter()
        .map(|set| {
            let attributes = set
                .attributes
                .iter()
                .map(|(name, value)| (name.to_string(), value.clone()))
                .collect();
            (letters(set), attributes)
        })
        .collect();
    sets.sort_by(|a, b| a.0.cmp(&b.0));
    let label = |foo: Value, max: i64| {
        vec![
            ("by(span.foo)".to_owned(), foo),
            ("count()".to_owned(), Value::Int(2)),
            ("max(duration)".to_owned(), Value::Duration(max)),
        ]
    };
    assert_eq!(
        sets,
        [
            ("BT".to_owned(), label(Value::Nil, SECOND as i64)),
            (
                "MR".to_owned(),
                label(Value::String("Bar".into()), 2 * SECOND as i64)
            ),
        ]
    );
}

#[test]
fn traces_count_when_they_overlap_the_time_asked_for() {
    let table = expected_trace();
    let traces = |from: u64, to: u64| {
        let options = SearchOptions {
            time_range_nano: Some((from * SECOND, to * SECOND)),
            ..options()
        };
        search(&plan("{ .child }"), &table, &options)
            .unwrap()
            .traces
            .len()
    };
    assert_eq!(traces(999, 1001), 1);
    assert_eq!(traces(1001, 1002), 1);
    assert_eq!(traces(1002, 1003), 1);
    assert_eq!(traces(1003, 1004), 0);
    assert_eq!(traces(100, 200), 0);
}

#[test]
fn several_sets_are_no_operands() {
    let table = expected_trace();
    let error = run(&table, "({ } | by(span.foo)) && ({ })").unwrap_err();
    assert!(error.contains("consider using coalesce()"), "{error}");
    assert_eq!(
        found(&table, "({ } | by(span.foo) | coalesce()) && ({ .child })"),
        "BMRT"
    );
}

#[test]
fn operands_within_groups_are_evaluated_group_by_group() {
    // The grammar has pipelines as operands only at the beginning, the tree has them anywhere.
    let elements = |query: &str| match tempo_traceql::parse(query).unwrap().body {
        QueryBody::Search(pipeline) => pipeline.elements,
        body => panic!("{body:?}"),
    };
    let table = expected_trace();
    for (operands, want) in [
        ("({ .parent } | count() = 1) && ({ .child })", vec!["MR"]),
        ("({ .parent } | count() = 2) && ({ .child })", vec![]),
        (
            "({ .parent } | count() = 1) > ({ .child } | count() = 1)",
            vec!["M"],
        ),
        (
            "({ } | by(name) | coalesce()) || ({ .child })",
            vec!["BT", "MR"],
        ),
    ] {
        let mut pipeline = Pipeline {
            elements: elements("{ } | by(span.foo)"),
        };
        pipeline.elements.extend(elements(operands));
        let plan = Plan::of_pipeline(&pipeline).unwrap();
        let output = search(&plan, &table, &options()).unwrap();
        let sets = output.traces.iter().flat_map(|trace| &trace.span_sets);
        let mut sets: Vec<String> = sets.map(letters).collect();
        sets.sort();
        assert_eq!(sets, want, "{operands}");
    }
}

#[test]
fn a_cancelled_or_too_costly_search_ends() {
    let table = expected_trace();
    let cancelled = AtomicBool::new(true);
    let mut options = options();
    options.limits.cancel = &cancelled;
    let error = search(&plan("{ .child }"), &table, &options).unwrap_err();
    assert_eq!(error.to_string(), "query cancelled");
    options.limits = limits();
    options.limits.max_column_bytes = 3;
    let error = search(&plan("{ .child }"), &table, &options).unwrap_err();
    assert!(
        error.to_string().contains("more than the 3 it may hold"),
        "{error}"
    );
}

#[test]
fn sets_of_spans_take_memory_too() {
    let spans = (0..1_000_u64).map(|id| span(&(id + 1).to_be_bytes(), &[], "x"));
    let table = crate::support::spans(spans.collect());
    let mut options = options();
    options.limits.max_column_bytes = 200_000;
    assert!(search(&plan("{ } | by(name)"), &table, &options).is_ok());
    let error = search(&plan("{ } | by(span:id)"), &table, &options).unwrap_err();
    assert!(
        error.to_string().contains("span sets of the traces found"),
        "{error}"
    );
    options.limits = limits();
    let found = search(&plan("{ } | by(span:id)"), &table, &options).unwrap();
    assert_eq!(found.traces[0].span_sets.len(), 1_000);
}
