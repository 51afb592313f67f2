//! Facts about queries over time, recorded from Grafana Tempo's own tests.

use tempo_engine::{
    Value,
    metrics::{
        MetricsAnswer, MetricsOptions, MetricsPartial, MetricsPlan, Series, Window, evaluate,
    },
};
use tempo_model::TraceId;
use tempo_proto::opentelemetry::proto::trace::v1::Span;
use tempo_table::{MemoryTable, SpanTable};

use crate::support::{array, attr, float, int, limits, resource, service, span, table, text};
use tempo_proto::opentelemetry::proto::common::v1::any_value::Value as Wire;

pub(crate) const SECOND: u64 = 1_000_000_000;

pub(crate) fn window(start_nano: u64, end_nano: u64, step_nano: u64) -> Window {
    Window {
        start_nano,
        end_nano,
        step_nano,
        is_instant: false,
    }
}

fn plan_with(query: &str, options: &MetricsOptions) -> MetricsPlan {
    let parsed = tempo_traceql::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    MetricsPlan::new(&parsed, options).unwrap_or_else(|error| panic!("{query}: {error}"))
}

pub(crate) fn answer(
    query: &str,
    tables: &[&dyn SpanTable],
    window: Window,
    options: &MetricsOptions,
) -> MetricsAnswer {
    let plan = plan_with(query, options);
    let mut all = MetricsPartial::new(&plan, window);
    for &table in tables {
        let found = evaluate(&plan, table, window, limits()).unwrap();
        all.merge(&plan, found, usize::MAX).unwrap();
    }
    all.finish(&plan)
}

/// Labels as text.
pub(crate) fn labels(series: &Series) -> String {
    let texts = series.labels.iter().map(|label| {
        let value = match &label.value {
            Value::String(text) => text.to_string(),
            Value::Int(value) => format!("int {value}"),
            Value::Float(value) => value.to_string(),
            other => format!("{other:?}"),
        };
        format!("{}={value}", label.name)
    });
    texts.collect::<Vec<_>>().join(",")
}

/// Span `i` of 100 starts at `i` seconds and lasts as long, each in a trace of its own.
fn hundred() -> MemoryTable {
    let traces = (1..=100_u64).map(|i| {
        let span = Span {
            start_time_unix_nano: i * SECOND,
            end_time_unix_nano: 2 * i * SECOND,
            ..span(&i.to_be_bytes(), &[], "s")
        };
        let name = if i % 2 == 0 { "even" } else { "odd" };
        (
            TraceId::from_padded(&i.to_be_bytes()),
            vec![service(name, vec![span])],
        )
    });
    table(traces.collect())
}

fn check(query: &str, window: Window, want: &[(&str, &[f64])]) {
    let table = hundred();
    let answer = answer(query, &[&table], window, &MetricsOptions::default());
    let got: Vec<String> = answer.series.iter().map(labels).collect();
    let wanted: Vec<&str> = want.iter().map(|(labels, _)| *labels).collect();
    assert_eq!(got, wanted, "{query}");
    for (series, (labels, want)) in answer.series.iter().zip(want) {
        assert_eq!(series.values.len(), want.len(), "{query} {labels}");
        for (got, want) in series.values.iter().zip(*want) {
            let same = (got.is_nan() && want.is_nan()) || (got - want).abs() <= 1e-9 * want.abs();
            assert!(same, "{query} {labels}: {:?}, want {want:?}", series.values);
        }
    }
}

#[test]
fn functions_have_the_values_that_tempo_has() {
    const NO: f64 = f64::NAN;
    let check = |query: &str, want: &[(&str, &[f64])]| {
        check(query, window(1, 50 * SECOND, 15 * SECOND), want);
    };
    check(
        "{ } | rate()",
        &[("__name__=rate", &[1.0, 1.0, 1.0, 1.0 / 3.0])],
    );
    check(
        "{ } | count_over_time() by (resource.service.name)",
        &[
            ("resource.service.name=even", &[7.0, 8.0, 7.0, 3.0]),
            ("resource.service.name=odd", &[8.0, 7.0, 8.0, 2.0]),
        ],
    );
    check(
        "{ } | min_over_time(duration)",
        &[("__name__=min_over_time", &[1.0, 16.0, 31.0, 46.0])],
    );
    check(
        "{ } | max_over_time(duration)",
        &[("__name__=max_over_time", &[15.0, 30.0, 45.0, 50.0])],
    );
    check(
        "{ } | avg_over_time(duration)",
        &[("__name__=avg_over_time", &[8.0, 23.0, 38.0, 48.0])],
    );
    check(
        "{ } | sum_over_time(duration)",
        &[("__name__=sum_over_time", &[120.0, 345.0, 570.0, 240.0])],
    );
    // The trace's duration is in nanoseconds, unlike the span's.
    check(
        "{ } | max_over_time(traceDuration)",
        &[("__name__=max_over_time", &[15e9, 30e9, 45e9, 50e9])],
    );
    check(
        "{ } | quantile_over_time(duration, .5)",
        &[(
            "p=0.5",
            &[
                8.589934592,
                23.656842236649187,
                44.20946926289348,
                52.07962466534054,
            ],
        )],
    );
    check(
        "{ } | histogram_over_time(duration)",
        &[
            ("__bucket=1.073741824", &[1.0, 0.0, 0.0, 0.0]),
            ("__bucket=17.179869184", &[7.0, 2.0, 0.0, 0.0]),
            ("__bucket=2.147483648", &[1.0, 0.0, 0.0, 0.0]),
            ("__bucket=34.359738368", &[0.0, 13.0, 4.0, 0.0]),
            ("__bucket=4.294967296", &[2.0, 0.0, 0.0, 0.0]),
            ("__bucket=68.719476736", &[0.0, 0.0, 11.0, 5.0]),
            ("__bucket=8.589934592", &[4.0, 0.0, 0.0, 0.0]),
        ],
    );
    let max = "__name__=max_over_time";
    check(
        "{ } | max_over_time(duration) > 30",
        &[(max, &[NO, NO, 45.0, 50.0])],
    );
    check(
        "{ } | max_over_time(duration) < 30s",
        &[(max, &[15.0, NO, NO, NO])],
    );
    check(
        "{ } | max_over_time(duration) <= 30s",
        &[(max, &[15.0, 30.0, NO, NO])],
    );
    check(
        "{ } | max_over_time(duration) = 30",
        &[(max, &[NO, 30.0, NO, NO])],
    );
    check("{ } | max_over_time(duration) > 100", &[]);
    let both = "__name__=(max_over_time + max_over_time)";
    check(
        "({}|max_over_time(duration)) + ({}|max_over_time(duration))",
        &[(both, &[30.0, 60.0, 90.0, 100.0])],
    );
    check(
        "({}|max_over_time(duration)) + ({}|max_over_time(duration) > 20)",
        &[(both, &[NO, 60.0, 90.0, 100.0])],
    );
    check("({} | rate()) / ({ name=\"none\" } | rate())", &[]);
    check(
        "({}|count_over_time() by (resource.service.name)) / ({}|count_over_time())",
        &[
            (
                "resource.service.name=even",
                &[7.0 / 15.0, 8.0 / 15.0, 7.0 / 15.0, 3.0 / 5.0],
            ),
            (
                "resource.service.name=odd",
                &[8.0 / 15.0, 7.0 / 15.0, 8.0 / 15.0, 2.0 / 5.0],
            ),
        ],
    );
    check(
        "{ traceDuration > 25s } | rate()",
        &[("__name__=rate", &[0.0, 5.0 / 15.0, 1.0, 5.0 / 15.0])],
    );
    let zeros = ("__name__=rate", &[0.0, 0.0, 0.0, 0.0][..]);
    check("{ name = \"none\" } | rate()", &[zeros]);
    check("{ false } | rate()", &[zeros]);
    check("{ name = \"none\" } | rate() by (.x)", &[]);
    check("{ name = \"none\" } | max_over_time(duration)", &[]);
    check("{ } | sum_over_time(name)", &[]);
    check(
        "{ } | rate() by (.x)",
        &[(".x=Nil", &[1.0, 1.0, 1.0, 1.0 / 3.0])],
    );
    check(
        "{ } | rate() by (.x, resource.service.name) | topk(1)",
        &[
            ("resource.service.name=even", &[NO, 8.0 / 15.0, NO, 0.2]),
            (
                "resource.service.name=odd",
                &[8.0 / 15.0, NO, 8.0 / 15.0, NO],
            ),
        ],
    );
    check(
        "2 / ({ } | rate())",
        &[("__name__=rate", &[2.0, 2.0, 2.0, 6.0])],
    );
}

#[test]
fn intervals_are_cut_as_tempo_cuts_them() {
    let count = "__name__=count_over_time";
    let query = "{ } | count_over_time()";
    let seconds =
        |start: u64, end: u64, step: u64| window(start * SECOND, end * SECOND, step * SECOND);
    check(query, seconds(21, 50, 10), &[(count, &[9.0, 10.0, 10.0])]);
    check(query, seconds(20, 50, 10), &[(count, &[10.0, 10.0, 10.0])]);
    check(
        query,
        window(1, 3 * SECOND, SECOND / 2),
        &[(count, &[0.0, 1.0, 0.0, 1.0, 0.0, 1.0])],
    );
    check(query, window(1, 3 * SECOND, 5 * SECOND), &[(count, &[3.0])]);
    let instant = Window {
        is_instant: true,
        ..seconds(20, 50, 30)
    };
    check(query, instant, &[(count, &[30.0])]);
    check("{ } | rate()", instant, &[("__name__=rate", &[1.0])]);
}

#[test]
fn samples_stand_for_what_they_leave_out() {
    let six = window(0, 6 * SECOND, 6 * SECOND);
    let seen = |hint: &str| {
        let table = hundred();
        let query = format!("{{ }} | max_over_time(duration) by (duration) with({hint})");
        let seen = answer(&query, &[&table], six, &MetricsOptions::default());
        let query = format!("{{ }} | count_over_time() with({hint})");
        let count = answer(&query, &[&table], six, &MetricsOptions::default());
        (seen.series.len(), count.series[0].values[0])
    };
    // 1 of every int(1/p); what is seen counts for what is not.
    assert_eq!(seen("sample=0.75"), (6, 6.0));
    assert_eq!(seen("sample=0.5"), (3, 6.0));
    assert_eq!(seen("sample=0.3"), (2, 6.0));
    assert_eq!(seen("span_sample=0.3"), (2, 6.0));
    assert_eq!(seen("trace_sample=0.5"), (3, 6.0));
    assert_eq!(seen("sample=true"), (6, 6.0));
    assert_eq!(seen("sample=1.5"), (6, 6.0));
    let table = hundred();
    let query = "{ } | sum_over_time(duration) with(span_sample=0.5)";
    let sum = answer(query, &[&table], six, &MetricsOptions::default());
    assert_eq!(sum.series[0].values, [(1.0 + 3.0 + 5.0) * 2.0]);
    let query = "{ } | avg_over_time(duration) with(span_sample=0.5)";
    let avg = answer(query, &[&table], six, &MetricsOptions::default());
    assert_eq!(avg.series[0].values, [3.0]);
}

/// One trace of one service whose spans start a second after each other.
fn row(spans: Vec<Span>) -> MemoryTable {
    let spans = spans.into_iter().zip(1..).map(|(span, second)| Span {
        start_time_unix_nano: second * SECOND,
        end_time_unix_nano: second * SECOND + 1_000,
        span_id: (second).to_be_bytes().to_vec(),
        ..span
    });
    table(vec![(
        TraceId::from_padded(&[7]),
        vec![service("s", spans.collect())],
    )])
}

#[test]
fn spans_weigh_what_their_trace_state_says() {
    let sampled = |trace_state: &str, value: i64| Span {
        trace_state: trace_state.to_owned(),
        attributes: vec![int("v", value)],
        ..Span::default()
    };
    let table = row(vec![
        sampled("ot=th:8", 10),
        sampled("ot=th:c", 4),
        sampled("", 100),
    ]);
    let at = window(0, 10 * SECOND, 10 * SECOND);
    let value =
        |query: &str| answer(query, &[&table], at, &MetricsOptions::default()).series[0].values[0];
    assert_eq!(value("{ } | count_over_time()"), 3.0);
    assert_eq!(value("{ } | count_over_time() with(extrapolate=true)"), 7.0);
    assert_eq!(value("{ } | rate() with(extrapolate=true)"), 0.7);
    assert_eq!(
        value("{ } | sum_over_time(span.v) with(extrapolate=true)"),
        136.0
    );
    assert_eq!(
        value("{ } | avg_over_time(span.v) with(extrapolate=true)"),
        136.0 / 7.0
    );
    assert_eq!(
        value("{ } | max_over_time(span.v) with(extrapolate=true)"),
        100.0
    );
    let compared = answer(
        "{ } | compare({ span.v < 50 }) with(extrapolate=true)",
        &[&table],
        at,
        &MetricsOptions::default(),
    );
    let total = |kind: &str| {
        let name = format!("__meta_type={kind},span.v=Nil");
        let series = compared.series.iter().find(|series| labels(series) == name);
        series.unwrap().values[0]
    };
    assert_eq!(
        (total("baseline_total"), total("selection_total")),
        (1.0, 6.0)
    );
}

#[test]
fn what_conditions_leave_of_a_value_is_what_is_grouped_and_measured() {
    let event = |name: &str| tempo_proto::opentelemetry::proto::trace::v1::span::Event {
        name: name.to_owned(),
        ..Default::default()
    };
    let table = row(vec![
        Span {
            attributes: vec![array(
                "l",
                vec![Wire::IntValue(1), Wire::IntValue(2), Wire::IntValue(3)],
            )],
            events: vec![event("first"), event("second")],
            ..Span::default()
        },
        Span {
            attributes: vec![float("f", 0.5), attr("n", Wire::DoubleValue(f64::NAN))],
            ..Span::default()
        },
    ]);
    let at = window(0, 10 * SECOND, 10 * SECOND);
    let series = |query: &str| -> Vec<(String, f64)> {
        answer(query, &[&table], at, &MetricsOptions::default())
            .series
            .iter()
            .map(|series| (labels(series), series.values[0]))
            .collect()
    };
    let one = |labels: &str, value: f64| vec![(labels.to_owned(), value)];
    assert_eq!(
        series("{ event:name = \"second\" } | count_over_time() by (event:name)"),
        one("event:name=second", 1.0)
    );
    assert_eq!(
        series("{ event:name = \"second\" || .f = 7 } | count_over_time() by (event:name)"),
        one("event:name=first", 1.0)
    );
    assert_eq!(
        series("{ span.l = 2 } | max_over_time(span.l)"),
        one("__name__=max_over_time", 2.0)
    );
    assert_eq!(
        series("{ span.l = 2 } | count_over_time() by (span.l)"),
        one("span.l=int 2", 1.0)
    );
    assert_eq!(series("{ } | max_over_time(span.l)"), []);
    assert_eq!(
        series("{ } | sum_over_time(.f)"),
        one("__name__=sum_over_time", 0.5)
    );
    // Floats have no buckets, and what is no number is no value.
    assert_eq!(series("{ } | histogram_over_time(.f)"), []);
    assert_eq!(series("{ } | sum_over_time(.n)"), []);
}

#[test]
fn exemplars_stand_at_points_and_tell_what_the_query_has_loaded() {
    let table = hundred();
    let options = MetricsOptions {
        max_exemplars: 10,
        ..MetricsOptions::default()
    };
    let at = window(1, 50 * SECOND, 15 * SECOND);
    let run = |query: &str| answer(query, &[&table], at, &options);
    let counted = run("{ resource.service.name = \"even\" } | rate()");
    let [series] = counted.series.as_slice() else {
        panic!("one series expected");
    };
    assert_eq!(series.exemplars.len(), 10);
    for exemplar in &series.exemplars {
        let interval = exemplar.timestamp_ms.unsigned_abs().div_ceil(15_000) as usize - 1;
        assert_eq!(exemplar.value, series.values[interval]);
        let names: Vec<&str> = exemplar.labels.iter().map(|label| &*label.name).collect();
        assert_eq!(names, ["trace:id", "resource.service.name"]);
        let id = format!("{:x}", exemplar.timestamp_ms / 1000);
        assert_eq!(exemplar.labels[0].value, Value::String(id.into()));
    }
    let measured = run("{ } | max_over_time(duration) by (resource.service.name) > 20");
    let exemplars = measured.series.iter().flat_map(|series| &series.exemplars);
    let mut seen = 0;
    for exemplar in exemplars {
        assert_eq!(exemplar.value, exemplar.timestamp_ms as f64 / 1000.0);
        assert!(exemplar.timestamp_ms > 15_000, "no point stands there");
        seen += 1;
    }
    assert!(seen > 3, "{seen}");
    let scaled = run("({ } | max_over_time(duration)) * 10");
    let exemplar = &scaled.series[0].exemplars[0];
    assert_eq!(exemplar.value, exemplar.timestamp_ms as f64 / 100.0);
    let quantiles = run("{ } | quantile_over_time(duration, 0, 1)");
    let of = |at: usize| quantiles.series[at].exemplars.len();
    assert_eq!(of(0) + of(1), 10);
    assert!(of(0) > 0 && of(1) > 0);
    let compared = run("{ } | compare({ resource.service.name = \"even\" })");
    for series in &compared.series {
        let is_total = labels(series).contains("_total");
        assert_eq!(series.exemplars.is_empty(), !is_total, "{}", labels(series));
    }
    // Two sub-queries share what one would have; five of them have time cut into two.
    let both = run("({ } | rate()) + ({ } | count_over_time())");
    assert_eq!(both.series[0].exemplars.len(), 8);
    assert!(
        answer("{ } | rate()", &[&table], at, &MetricsOptions::default()).series[0]
            .exemplars
            .is_empty()
    );
}

#[test]
fn no_more_series_are_made_than_there_may_be() {
    let (table, other) = (hundred(), row(vec![Span::default()]));
    let at = window(0, 200 * SECOND, 100 * SECOND);
    let run = |query: &str, max_series: usize| {
        let options = MetricsOptions {
            max_series,
            ..MetricsOptions::default()
        };
        let answer = answer(query, &[&table, &other], at, &options);
        (answer.series.len(), answer.is_truncated)
    };
    assert_eq!(run("{ } | rate() by (span:id)", 7), (7, true));
    assert_eq!(run("{ } | rate() by (span:id, name)", 7), (7, true));
    assert_eq!(run("{ } | histogram_over_time(duration)", 3), (3, true));
    assert_eq!(
        run("{ } | rate() by (resource.service.name)", 4),
        (3, false)
    );
    assert_eq!(
        run("{ } | rate() by (resource.service.name)", 0),
        (3, false)
    );
    // Whether there are more cannot be told once the limit is reached.
    assert_eq!(run("{ } | rate() by (resource.service.name)", 3), (3, true));
    assert_eq!(run("{ } | compare({ name = \"s\" })", 5), (5, true));
}

#[test]
fn too_many_points_are_refused_before_memory_is_taken() {
    let table = hundred();
    let plan = plan_with("{ } | rate()", &MetricsOptions::default());
    let endless = window(0, 100 * SECOND, 1);
    let error = evaluate(&plan, &table, endless, limits()).unwrap_err();
    assert!(error.to_string().contains("longer step"), "{error}");
    let plan = plan_with("{ } | rate() by (span:id)", &MetricsOptions::default());
    let fine = window(0, 100 * SECOND, SECOND / 100);
    let mut few = limits();
    few.max_column_bytes = 1 << 20;
    let error = evaluate(&plan, &table, fine, few).unwrap_err();
    assert!(error.to_string().contains("fewer values"), "{error}");
    let partial = evaluate(&plan, &table, fine, limits()).unwrap();
    let mut all = MetricsPartial::new(&plan, fine);
    assert!(all.merge(&plan, partial, 1 << 20).is_err());
}

#[test]
fn pipelines_and_structure_come_before_counting() {
    let child = |id: u8, parent: u8, name: &str, second: u64| Span {
        start_time_unix_nano: second * SECOND,
        end_time_unix_nano: (second + 1) * SECOND,
        attributes: vec![text("g", if second.is_multiple_of(2) { "a" } else { "b" })],
        ..span(
            &[0, 0, 0, 0, 0, 0, 0, id],
            if parent == 0 {
                vec![]
            } else {
                vec![0, 0, 0, 0, 0, 0, 0, parent]
            }
            .as_slice(),
            name,
        )
    };
    let table = table(vec![(
        TraceId::from_padded(&[1]),
        vec![resource(
            vec![text("service.name", "s")],
            Default::default(),
            vec![
                child(1, 0, "root", 1),
                child(2, 1, "mid", 12),
                child(3, 2, "leaf", 23),
                child(4, 2, "leaf", 24),
            ],
        )],
    )]);
    // The root lies outside of the time that is asked for.
    let at = window(10 * SECOND, 30 * SECOND, 10 * SECOND);
    let values = |query: &str| -> Vec<(String, Vec<f64>)> {
        answer(query, &[&table], at, &MetricsOptions::default())
            .series
            .iter()
            .map(|series| (labels(series), series.values.clone()))
            .collect()
    };
    let count = |values: [f64; 2]| vec![("__name__=count_over_time".to_owned(), values.to_vec())];
    for (query, want) in [
        ("{ name = \"root\" } >> { }", [1.0, 2.0]),
        ("{ name = \"root\" } > { }", [1.0, 0.0]),
        ("{ } | count() > 3", [1.0, 2.0]),
        ("{ } | count() > 4", [0.0, 0.0]),
        (
            "{ } | by(span.g) | count() = 2 | { name = \"leaf\" }",
            [0.0, 2.0],
        ),
        ("{ name = \"leaf\" } && { name = \"root\" }", [0.0, 2.0]),
        ("{ } | select(.g) | { name = \"mid\" }", [1.0, 0.0]),
    ] {
        let query = format!("{query} | count_over_time()");
        assert_eq!(values(&query), count(want), "{query}");
    }
}
