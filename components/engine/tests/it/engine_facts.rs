//! Operators on the values of single spans.

use tempo_proto::opentelemetry::proto::{
    common::v1::{KeyValue, KeyValueList, any_value::Value},
    trace::v1::{
        Span, Status,
        span::{Event, Link},
    },
};

use crate::support::{
    array, attr, bool, float, int, run, service, span, spans, table, text, trace_id,
};

fn one(attributes: Vec<KeyValue>) -> Span {
    Span {
        attributes,
        start_time_unix_nano: 1,
        end_time_unix_nano: 5_000_000_001,
        kind: 2,
        status: Some(Status {
            code: 1,
            ..Default::default()
        }),
        ..span(&[1], &[], "n")
    }
}

/// Whether the span matches, or why the query failed.
fn verdict(attributes: &[KeyValue], expr: &str) -> String {
    let table = spans(vec![one(attributes.to_vec())]);
    match run(&table, &format!("{{ {expr} }}")) {
        Ok(output) => (output.traces.len() == 1).to_string(),
        Err(error) => error,
    }
}

fn check(attributes: &[KeyValue], cases: &[(&str, &str)]) {
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(expr, want)| {
            let got = verdict(attributes, expr);
            (got != *want).then(|| format!("{expr} is {got}, not {want}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_missing_attribute_makes_every_comparison_false() {
    check(
        &[],
        &[
            (".foo = \"x\"", "false"),
            (".foo != \"x\"", "false"),
            (".foo =~ \".*\"", "false"),
            (".foo !~ \"x\"", "false"),
            (".foo > 0", "false"),
            (".foo = .foo", "false"),
            (".foo != .bar", "false"),
            ("!(.foo = \"x\")", "true"),
            (".foo = nil", "true"),
            (".foo != nil", "false"),
            (".foo = nil || .foo != \"x\"", "true"),
            // Tempo's storage does not hand out such spans, and so does not fail here.
            ("!.foo", "false"),
            ("!!.foo", "false"),
            ("-.foo = 1", "false"),
            (".foo", "false"),
            ("-.foo = 1 || kind = server", "true"),
        ],
    );
}

#[test]
fn numbers_compare_by_value() {
    check(
        &[int("foo", 1), float("bar", 1.0), float("nan", f64::NAN)],
        &[
            (".foo = 1.0", "true"),
            (".foo = 1", "true"),
            (".bar = 1", "true"),
            (".bar != 1", "false"),
            (".foo = .bar", "true"),
            (".foo = \"1\"", "false"),
            (".foo != \"1\"", "false"),
            (".foo > 0.5", "true"),
            (".bar < 2", "true"),
            (".foo + 1s = 1000000001", "true"),
            (".foo + 1 = 2", "true"),
            (".foo - 2 = -1", "true"),
            ("-.foo = -1", "true"),
            (".foo = 1 || .foo = 7", "true"),
            (".bar = 1 || .bar = 7", "true"),
            (".foo = 1.0 || .foo = 7.0", "true"),
            (".foo != 1 && .foo != 7", "false"),
            (".bar != 7.5 && .bar != 8.5", "true"),
            (".nan = .nan", "false"),
            (".nan != .nan", "true"),
            ("2 < .foo", "false"),
            ("0 < .foo", "true"),
            ("0.5 < .foo", "true"),
            // Attributes have no durations, so Tempo finds nothing here.
            (".foo < 1s", "false"),
            (".foo != 1s", "false"),
        ],
    );
}

#[test]
fn texts_compare_bytewise_and_match_as_a_whole() {
    check(
        &[text("foo", "abc"), text("multi", "a\nb"), text("empty", "")],
        &[
            (".foo > \"abb\"", "true"),
            (".foo >= \"abc\"", "true"),
            (".foo < \"abb\"", "false"),
            (".foo =~ \"a.c\"", "true"),
            (".foo =~ \"b\"", "false"),
            (".foo !~ \"b\"", "true"),
            (".multi =~ \"a.b\"", "true"),
            (".foo =~ \"x\" || .foo =~ \"a.*\"", "true"),
            (".foo !~ \"x\" && .foo !~ \"a.*\"", "false"),
            (".empty = \"\"", "true"),
            (".empty != nil", "true"),
            (".foo = \"abc\" || .foo = \"x\"", "true"),
            (".foo != \"abc\" && .foo != \"x\"", "false"),
            (".foo = .foo", "true"),
            (".foo != .multi", "true"),
            (".foo = true", "false"),
            (".foo + 1 = 2", "false"),
        ],
    );
}

#[test]
fn booleans_stand_alone_and_only_they() {
    check(
        &[bool("yes", true), bool("no", false), text("text", "true")],
        &[
            (".yes", "true"),
            (".no", "false"),
            ("!.yes", "false"),
            ("!.no", "true"),
            ("!!.yes", "true"),
            (".text", "false"),
            (".text && .yes", "false"),
            (".text || .yes", "true"),
            (".yes = true", "true"),
            (".yes != false", "true"),
            (".no != true", "true"),
            (".yes && !.no", "true"),
            ("(.yes = true) = true", "true"),
            (".yes = .no", "false"),
            (
                "!.text",
                "expression (!.text) expected a boolean, but got TypeString",
            ),
            (
                "-.yes = 1",
                "expression (-.yes) expected a numeric, but got TypeBoolean",
            ),
            // What decides already spares the others.
            (".no && !.text", "false"),
            (".yes || !.text", "true"),
            ("!.text && .no", "false"),
        ],
    );
}

#[test]
fn of_an_array_one_element_must_do_or_all_for_denials() {
    let foo = array("foo", vec![Value::IntValue(1), Value::IntValue(2)]);
    check(
        &[foo, float("x", 2.0)],
        &[
            (".foo = 1", "true"),
            (".foo = 2.0", "true"),
            (".foo = 3", "false"),
            (".foo != 1", "false"),
            (".foo != 3", "true"),
            (".foo > 1", "true"),
            (".foo > 2", "false"),
            ("3 > .foo", "true"),
            ("1 > .foo", "false"),
            (".foo = .x", "true"),
            (".foo != .x", "false"),
            (".x <= .foo", "true"),
            (".foo = 1 || .foo = 5", "true"),
            (".foo = 4 || .foo = 5", "false"),
            (".foo != 4 && .foo != 5", "true"),
            (".foo != 1 && .foo != 5", "false"),
            (".foo = \"1\"", "false"),
            (".foo != \"1\"", "false"),
            (".foo != nil", "true"),
            (".foo + 1 = 2", "unsupported operation"),
            (
                "-.foo = 2",
                "expression (-.foo) expected a numeric, but got TypeIntArray",
            ),
            (
                ".foo = .foo",
                "array operators must consist of a scalar and an array operand",
            ),
        ],
    );
    let strings = |items: &[&str]| {
        items
            .iter()
            .map(|item| Value::StringValue(item.to_string()))
            .collect()
    };
    check(
        &[array("foo", strings(&["a", "b"])), array("none", vec![])],
        &[
            (".foo =~ \"a\"", "true"),
            (".foo !~ \"a\"", "false"),
            (".foo !~ \"c\"", "true"),
            (".foo = \"a\" || .foo = \"b\"", "true"),
            (".foo = \"a\" && .foo = \"b\"", "true"),
            (".foo != \"a\"", "false"),
            (".foo != \"c\"", "true"),
            (".none = \"a\"", "false"),
            (".none != \"a\"", "true"),
            (".none !~ \"a\"", "true"),
            (".none != 1", "true"),
            (".none != nil", "true"),
        ],
    );
}

#[test]
fn intrinsics_have_their_types() {
    check(
        &[],
        &[
            ("duration = 5000000000", "true"),
            ("duration = 5s", "true"),
            ("duration > 4.5s", "true"),
            ("duration > 4.5", "true"),
            ("duration * 2 = 10s", "true"),
            ("duration / 2 < 2.6s", "true"),
            ("duration != 5s", "false"),
            ("duration > 5s || duration < 5s", "false"),
            ("status != error", "true"),
            ("status = ok", "true"),
            ("status = unset", "false"),
            ("kind = server", "true"),
            ("kind != client", "true"),
            ("kind = unspecified", "false"),
            ("instrumentation:name > 5", "false"),
            ("instrumentation:name = \"\"", "true"),
            ("statusMessage = \"\"", "true"),
            ("event:name != nil", "false"),
            ("resource.service.name != \"x\"", "true"),
        ],
    );
}

#[test]
fn arithmetic_is_that_of_64_bits_and_fails_on_zero() {
    check(
        &[
            int("three", 3),
            int("zero", 0),
            float("half", 0.5),
            int("max", i64::MAX),
        ],
        &[
            ("2 ^ .three = 8", "true"),
            ("2.0 ^ .three = 8", "true"),
            ("7 / .three = 2", "true"),
            ("7 % .three = 1", "true"),
            ("7.0 / .zero > 1e308", "true"),
            (".three / .half = 6", "true"),
            (".max + 1 < 0", "true"),
            ("1 / .zero = 1", "division by zero"),
            ("1 % .zero = 1", "modulo by zero"),
            (".zero != 0 && 1 / .zero = 1", "false"),
            ("1 / .zero = 1 && .zero != 0", "false"),
            ("1 / 0 = 1", "division by zero"),
        ],
    );
}

#[test]
fn the_spans_own_value_hides_the_resources() {
    let resource = |attributes: Vec<KeyValue>, spans| {
        crate::support::resource(attributes, Default::default(), spans)
    };
    let list = attr("foo", Value::KvlistValue(KeyValueList::default()));
    let table = table(vec![(
        trace_id(1),
        vec![resource(
            vec![text("foo", "res"), int("only", 1)],
            vec![
                Span {
                    attributes: vec![text("foo", "span")],
                    ..span(&[1], &[], "own")
                },
                Span {
                    attributes: vec![int("foo", 7)],
                    ..span(&[2], &[1], "other type")
                },
                Span {
                    attributes: vec![list],
                    ..span(&[3], &[1], "opaque")
                },
                span(&[4], &[1], "inherits"),
            ],
        )],
    )]);
    let ids = |expr: &str| -> Vec<u8> {
        let output = run(&table, &format!("{{ {expr} }}")).unwrap();
        output
            .traces
            .iter()
            .flat_map(|trace| &trace.span_sets[0].spans)
            .map(|span| span.span_id[7])
            .collect()
    };
    assert_eq!(ids(".foo = \"res\""), [4]);
    assert_eq!(ids(".foo = \"span\""), [1]);
    assert_eq!(ids(".foo != \"x\""), [1, 4]);
    assert_eq!(ids("resource.foo = \"res\""), [1, 2, 3, 4]);
    assert_eq!(ids(".foo != nil"), [1, 2, 3, 4]);
    assert_eq!(ids("span.foo = nil"), [4]);
    assert_eq!(ids("span.foo != nil"), [1, 2, 3]);
    // True when either lacks it.
    assert_eq!(ids(".only = nil"), [1, 2, 3, 4]);
    assert_eq!(ids(".foo = nil"), [4]);
    assert_eq!(ids("span.foo = resource.foo"), [0; 0]);
    assert_eq!(ids(".foo = resource.foo"), [4]);
}

#[test]
fn conditions_on_events_hold_for_one_event_unless_there_are_alternatives() {
    let event = |name: &str, try_number: i64| Event {
        name: name.into(),
        attributes: vec![int("try", try_number)],
        ..Default::default()
    };
    let link = |kind: &str, n: i64| Link {
        attributes: vec![text("kind", kind), int("n", n)],
        ..Default::default()
    };
    let table = spans(vec![
        Span {
            events: vec![event("retry", 1), event("done", 2)],
            links: vec![link("a", 1), link("b", 2)],
            ..span(&[1], &[], "apart")
        },
        Span {
            events: vec![event("retry", 2)],
            links: vec![link("a", 2)],
            ..span(&[2], &[1], "together")
        },
        Span {
            events: vec![Event::default()],
            ..span(&[3], &[1], "bare")
        },
    ]);
    let ids = |query: &str| -> Vec<u8> {
        let output = run(&table, query).unwrap();
        let sets = output.traces.iter().flat_map(|trace| &trace.span_sets);
        sets.flat_map(|set| &set.spans)
            .map(|span| span.span_id[7])
            .collect()
    };
    assert_eq!(ids("{ event:name = \"retry\" && event.try = 2 }"), [2]);
    assert_eq!(
        ids("{ event:name = \"retry\" && event.try = 2 || name = \"x\" }"),
        [1, 2]
    );
    assert_eq!(
        ids("{ event:name = \"retry\" && event.try = 2 } | count() > 0"),
        [1, 2]
    );
    assert_eq!(ids("{ event:name = \"retry\" } | { event.try = 2 }"), [2]);
    assert_eq!(ids("{ link.kind = \"a\" && link.n = 2 }"), [2]);
    assert_eq!(ids("{ link.kind = \"a\" && event.try = 2 }"), [1, 2]);
    assert_eq!(ids("{ event.try = nil }"), [3]);
    assert_eq!(ids("{ event.try != nil }"), [1, 2]);
    assert_eq!(ids("{ event.try != 1 }"), [1, 2]);
    assert_eq!(ids("{ event.try + 1 = 2 }"), [1]);

    let output = run(&table, "{ event:name = \"done\" && event.try > 0 }").unwrap();
    let span = &output.traces[0].span_sets[0].spans[0];
    let shown: Vec<(&str, String)> = span
        .attributes
        .iter()
        .map(|(name, value)| (&**name, format!("{value:?}")))
        .collect();
    assert_eq!(
        shown,
        [
            ("event:name", "String(\"done\")".to_owned()),
            ("try", "Int(2)".to_owned())
        ]
    );
}

#[test]
fn aggregates_take_numbers_of_the_first_ones_type() {
    let of = |b: KeyValue, id: u8| Span {
        attributes: vec![text("a", "x"), b],
        ..span(&[id], &[], "n")
    };
    let ints_first = spans(vec![
        of(int("b", 1), 1),
        of(float("b", 2.5), 2),
        of(text("b", "7"), 3),
    ]);
    let negative = spans(vec![
        of(float("b", -2.5), 1),
        of(float("b", -1.5), 2),
        of(int("b", -2), 3),
    ]);
    let found = |table, query: &str| run(table, query).unwrap().traces.len() == 1;
    for (query, want) in [
        ("{ } | by(.a) | sum(.b) = 1", true),
        ("{ } | by(.a) | sum(.b) = 1.0", true),
        ("{ } | by(.a) | avg(.b) = 1", true),
        ("{ } | max(.b) = 2.5", true),
        ("{ } | min(.b) = 1", true),
        ("{ } | count() = 3", true),
        ("{ } | sum(.none) != 5", false),
        ("{ .b = 1 } | sum(.b) / 0 = 1", false),
    ] {
        let got = run(&ints_first, query);
        match got {
            Ok(output) => assert_eq!(output.traces.len() == 1, want, "{query}"),
            Err(error) => assert_eq!(error, "division by zero", "{query}"),
        }
    }
    assert!(found(&negative, "{ } | max(.b) = -1.5"));
    assert!(found(&negative, "{ } | min(.b) = -2.5"));
    assert!(found(&negative, "{ } | avg(.b) = -2"));
}

#[test]
fn groups_tell_types_apart() {
    let of = |a: KeyValue, id: u8| Span {
        attributes: vec![a],
        ..span(&[id], &[], "n")
    };
    let table = table(vec![(
        trace_id(1),
        vec![service(
            "s",
            vec![
                of(int("a", 1), 1),
                of(float("a", 1.0), 2),
                of(text("a", "1"), 3),
                of(int("a", 1), 4),
                of(bool("a", true), 5),
                of(array("a", vec![Value::IntValue(1)]), 6),
                of(int("other", 1), 7),
            ],
        )],
    )]);
    let output = run(&table, "{ } | by(.a)").unwrap();
    let groups: Vec<(String, Vec<u8>)> = output.traces[0]
        .span_sets
        .iter()
        .map(|set| {
            let ids = set.spans.iter().map(|span| span.span_id[7]).collect();
            (format!("{:?}", set.attributes[0].1), ids)
        })
        .collect();
    assert_eq!(
        groups,
        [
            ("Int(1)".to_owned(), vec![1, 4]),
            ("Float(1.0)".to_owned(), vec![2]),
            ("String(\"1\")".to_owned(), vec![3]),
            ("Bool(true)".to_owned(), vec![5]),
            ("Array(Ints([1]))".to_owned(), vec![6]),
            ("Nil".to_owned(), vec![7]),
        ]
    );
}
