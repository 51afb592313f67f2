//! Which traces, spans and values an answer shows when there are too many.

use tempo_engine::{
    SearchOptions, SearchOutput, TagFilter, TagValueLimits, search, tag_names, tag_values,
};
use tempo_proto::opentelemetry::proto::trace::v1::{Span, span::Event};
use tempo_table::{AttributeScope, MemoryTable};
use tempo_traceql::{condition_groups, parse_identifier};

use crate::support::{
    array, bool, float, int, limits, options, plan, resource, run, service, span, spans, table,
    text, trace_id,
};
use tempo_proto::opentelemetry::proto::common::v1::any_value::Value as Wire;

fn ids(output: &SearchOutput) -> Vec<Vec<u8>> {
    let sets = output.traces.iter().flat_map(|trace| &trace.span_sets);
    sets.map(|set| set.spans.iter().map(|span| span.span_id[7]).collect())
        .collect()
}

fn first_spans(table: &MemoryTable, query: &str, most: usize) -> (Vec<Vec<u8>>, Vec<u32>) {
    let options = SearchOptions {
        max_spans_per_span_set: most,
        ..options()
    };
    let output = search(&plan(query), table, &options).unwrap();
    let sets = output.traces.iter().flat_map(|trace| &trace.span_sets);
    let matched = sets.map(|set| set.matched).collect();
    (ids(&output), matched)
}

/// Span 1 is the root and 2 to 9 are its children in turn; odd ones are "a", even ones "b", the
/// first four also "low".
fn family() -> MemoryTable {
    let family = (1..10_u8).map(|id| {
        let parent: &[u8] = if id == 1 { &[] } else { &[1] };
        let kind = if id % 2 == 1 { "a" } else { "b" };
        Span {
            attributes: vec![
                text("kind", kind),
                bool("low", id < 5),
                int("id", i64::from(id)),
            ],
            ..span(&[id], parent, "n")
        }
    });
    spans(family.collect())
}

#[test]
fn spans_are_cut_in_the_order_of_evaluation_and_shown_in_that_of_the_table() {
    let table = family();
    let cases: [(&str, &[u8], u32); 11] = [
        ("{ }", &[1, 2, 3], 9),
        ("{ span.kind = \"b\" }", &[2, 4, 6], 4),
        // The smaller side first: four of "b", then "a".
        (
            "{ span.kind = \"a\" } && { span.kind = \"b\" }",
            &[2, 4, 6],
            9,
        ),
        ("{ span.id > 6 } || { span.low }", &[7, 8, 9], 7),
        ("{ span.low } || { span.id > 6 }", &[7, 8, 9], 7),
        // Equal: the right side first.
        ("{ span.id < 4 } || { span.id > 6 }", &[7, 8, 9], 6),
        ("{ span.id > 6 } || { span.id < 4 }", &[1, 2, 3], 6),
        (
            "({ span.id > 6 } || { span.low }) | { span.id != 8 }",
            &[1, 7, 9],
            6,
        ),
        ("{ nestedSetParent = -1 } > { span.id > 4 }", &[5, 6, 7], 5),
        // In the order of the tree, the parent first.
        ("{ span.id > 7 } &< { span.id < 2 }", &[1, 8, 9], 3),
        // Both sides are everything, which is sorted backwards.
        ("{ } >> { }", &[7, 8, 9], 8),
    ];
    for (query, want, matched) in cases {
        let got = first_spans(&table, query, 3);
        assert_eq!(got, (vec![want.to_vec()], vec![matched]), "{query}");
    }
    // None asked for is three.
    assert_eq!(first_spans(&table, "{ }", 0).0, [[1, 2, 3]]);
    let (groups, matched) = first_spans(&table, "{ } | by(span.kind)", 2);
    assert_eq!(groups, [[1, 3], [2, 4]]);
    assert_eq!(matched, [5, 4]);
    let (one, _) = first_spans(&table, "{ } | by(span.kind) | coalesce()", 6);
    assert_eq!(one, [[1, 2, 3, 5, 7, 9]]);
}

#[test]
fn the_first_traces_or_the_newest_are_returned() {
    let of = |id: u8, start: u64| {
        let span = Span {
            start_time_unix_nano: start,
            end_time_unix_nano: start + 10,
            ..span(&[id], &[], "n")
        };
        (trace_id(id), vec![service("s", vec![span])])
    };
    let table = table(vec![
        of(1, 300),
        of(2, 100),
        of(3, 500),
        of(4, 500),
        of(5, 200),
    ]);
    let found = |max_traces, most_recent, time_range_nano| {
        let options = SearchOptions {
            max_traces,
            most_recent,
            time_range_nano,
            ..options()
        };
        let output = search(&plan("{ }"), &table, &options).unwrap();
        assert!(max_traces == 0 || output.traces.len() <= max_traces);
        ids(&output).concat()
    };
    assert_eq!(found(2, false, None), [1, 2]);
    assert_eq!(found(0, false, None), [1, 2, 3, 4, 5]);
    assert_eq!(found(3, true, None), [3, 4, 1]);
    assert_eq!(found(0, true, None), [3, 4, 1, 5, 2]);
    assert_eq!(found(0, false, Some((205, 400))), [1, 5]);
    assert_eq!(found(0, false, Some((110, 199))), [2]);
    assert_eq!(found(0, false, Some((111, 199))), [0; 0]);
    assert_eq!(found(1, true, Some((0, 499))), [1]);
}

#[test]
fn nothing_is_read_for_what_cannot_match() {
    let table = family();
    for query in [
        "{ false }",
        "{ span.kind = \"a\" && false }",
        "{ 1 = 2 } || { false }",
    ] {
        assert!(plan(query).matches_nothing(), "{query}");
        assert_eq!(run(&table, query).unwrap().traces, []);
    }
    for query in ["{ }", "{ false } || { true }", "{ false } !>> { }"] {
        assert!(!plan(query).matches_nothing(), "{query}");
        assert_eq!(run(&table, query).unwrap().traces.len(), 1, "{query}");
    }
}

fn shop() -> MemoryTable {
    let cart = Span {
        attributes: vec![
            text("item", "apple"),
            int("count", 2),
            array(
                "tags",
                vec![Wire::StringValue("x".into()), Wire::StringValue("y".into())],
            ),
            text("both", "span"),
        ],
        events: vec![Event {
            name: "added".into(),
            attributes: vec![text("by", "ada")],
            ..Default::default()
        }],
        ..span(&[1], &[], "cart")
    };
    let pay = Span {
        attributes: vec![
            text("item", "pear"),
            float("count", 2.0),
            bool("paid", true),
        ],
        ..span(&[2], &[], "pay")
    };
    table(vec![
        (
            trace_id(1),
            vec![resource(
                vec![
                    text("service.name", "cart"),
                    text("zone", "z1"),
                    text("both", "resource"),
                ],
                Default::default(),
                vec![cart],
            )],
        ),
        (trace_id(2), vec![service("pay", vec![pay])]),
    ])
}

fn values(tag: &str, query: &str, max: TagValueLimits) -> Vec<(&'static str, String)> {
    let filter = TagFilter::new(&condition_groups(query, 0).unwrap()).unwrap();
    let tag = parse_identifier(tag).unwrap();
    let values = tag_values(&shop(), &tag, &filter, max, limits()).unwrap();
    let print = |value: &tempo_engine::TagValue| (value.value_type.name(), value.value.to_string());
    values.iter().map(print).collect()
}

fn all(tag: &str, query: &str) -> Vec<(&'static str, String)> {
    values(tag, query, TagValueLimits::default())
}

fn typed(value_type: &'static str, values: &[&str]) -> Vec<(&'static str, String)> {
    let of = |value: &&str| (value_type, (*value).to_owned());
    values.iter().map(of).collect()
}

#[test]
fn values_are_those_of_the_spans_that_meet_the_conditions() {
    assert_eq!(all("span.item", ""), typed("string", &["apple", "pear"]));
    assert_eq!(
        all("span.item", "{ name = \"pay\" }"),
        typed("string", &["pear"])
    );
    assert_eq!(
        all("span.count", ""),
        [typed("int", &["2"]), typed("float", &["2.0"])].concat()
    );
    assert_eq!(all("span.tags", ""), typed("string", &["x", "y"]));
    assert_eq!(all("span.paid", ""), typed("bool", &["true"]));
    assert_eq!(all(".both", ""), typed("string", &["resource", "span"]));
    assert_eq!(all(".both", "{ span.item = \"pear\" }"), []);
    assert_eq!(
        all("event.by", "{ resource.zone = \"z1\" }"),
        typed("string", &["ada"])
    );
    assert_eq!(all("event:name", ""), typed("string", &["added"]));
    assert_eq!(
        all("resource.service.name", "{ span.paid = true }"),
        typed("string", &["pay"])
    );
    assert_eq!(
        all(
            "resource.zone",
            "{ span.item = \"apple\" || span.item = \"pear\" }"
        ),
        typed("string", &["z1"])
    );
    assert_eq!(
        all("status", "{ name = \"none\" }"),
        typed("keyword", &["error", "ok", "unset"])
    );
    assert_eq!(all("span:id", ""), []);
    // A condition on the attribute itself answers for its group.
    assert_eq!(
        all("span.item", "{ span.item = \"plum\" || name = \"pay\" }"),
        typed("string", &["pear", "plum"])
    );
    // Half a condition is none.
    assert_eq!(
        all("span.item", "{ name = \"pay\" && span.item = "),
        typed("string", &["pear"])
    );
}

#[test]
fn values_end_at_their_limits() {
    let limited = |max_values, max_bytes| {
        let max = TagValueLimits {
            max_values,
            max_bytes,
        };
        values("span.item", "", max).len()
    };
    assert_eq!(limited(1, 0), 1);
    assert_eq!(limited(2, 0), 2);
    // "string" and "apple" are eleven bytes; reaching the limit is too much.
    assert_eq!(limited(0, 11), 0);
    assert_eq!(limited(0, 12), 1);
    assert_eq!(limited(0, 100), 2);
}

#[test]
fn names_are_those_of_the_spans_that_meet_the_conditions() {
    let names = |scope, query: &str| {
        let filter = TagFilter::new(&condition_groups(query, 0).unwrap()).unwrap();
        let names = tag_names(&shop(), scope, &filter, limits()).unwrap();
        let of = |(scope, names): &(AttributeScope, Vec<std::sync::Arc<str>>)| {
            (*scope, names.iter().map(|name| name.to_string()).collect())
        };
        names
            .iter()
            .map(of)
            .collect::<Vec<(AttributeScope, Vec<String>)>>()
    };
    let list = |names: &[&str]| {
        names
            .iter()
            .map(|name| name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(None, ""),
        [
            (
                AttributeScope::Resource,
                list(&["both", "service.name", "zone"])
            ),
            (
                AttributeScope::Span,
                list(&["both", "count", "item", "paid", "tags"])
            ),
            (AttributeScope::Event, list(&["by"])),
        ]
    );
    assert_eq!(
        names(None, "{ resource.service.name = \"pay\" }"),
        [
            (AttributeScope::Resource, list(&["service.name"])),
            (AttributeScope::Span, list(&["count", "item", "paid"])),
        ]
    );
    assert_eq!(
        names(Some(AttributeScope::Event), "{ span.item = \"apple\" }"),
        [(AttributeScope::Event, list(&["by"]))]
    );
    assert_eq!(names(None, "{ span.item = \"none\" }"), []);
}
