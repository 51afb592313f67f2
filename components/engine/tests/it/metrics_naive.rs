//! Queries over time on columns against a naive evaluation, span after span.

mod comparison;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tempo_engine::{
    Value,
    metrics::{
        Label, MetricsAnswer, MetricsOptions, MetricsPartial, MetricsPlan, Window, evaluate,
    },
};
use tempo_model::TraceId;
use tempo_proto::opentelemetry::proto::{
    common::v1::{InstrumentationScope, KeyValue, any_value::Value as Wire},
    trace::v1::{Span, Status},
};
use tempo_table::{ArrayValue, MemoryTable};

use crate::support::{attr, bool, float, int, limits, resource, table, text};

const SECOND: u64 = 1_000_000_000;
/// The first span starts here.
const ORIGIN: u64 = 1_000 * SECOND;
const NAMES: [&str; 3] = ["get", "put", ""];
const KINDS: [&str; 6] = [
    "unspecified",
    "internal",
    "server",
    "client",
    "producer",
    "consumer",
];
const STATUSES: [&str; 3] = ["unset", "ok", "error"];

#[derive(Debug, Clone, PartialEq)]
enum Scalar {
    Int(i64),
    Float(f64),
    Text(&'static str),
    Bool(bool),
    Ints(Vec<i64>),
    Bytes,
}

impl Scalar {
    fn wire(&self, key: &str) -> KeyValue {
        match self {
            Self::Int(value) => int(key, *value),
            Self::Float(value) => float(key, *value),
            Self::Text(value) => text(key, value),
            Self::Bool(value) => bool(key, *value),
            Self::Ints(items) => crate::support::array(
                key,
                items.iter().map(|&item| Wire::IntValue(item)).collect(),
            ),
            Self::Bytes => attr(key, Wire::BytesValue(vec![1, 2])),
        }
    }

    /// With its type, so that `1`, `1.0` and `"1"` differ.
    fn print(&self) -> String {
        match self {
            Self::Int(value) => format!("int {value}"),
            Self::Float(value) => format!("float {value}"),
            Self::Text(value) => format!("text {value}"),
            Self::Bool(value) => format!("bool {value}"),
            Self::Ints(items) if items.is_empty() => "empty".to_owned(),
            Self::Ints(items) => format!("ints {items:?}"),
            Self::Bytes => "nil".to_owned(),
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }
}

fn print(value: &Value) -> String {
    match value {
        Value::Nil => "nil".to_owned(),
        Value::String(value) => format!("text {value}"),
        Value::Int(value) => format!("int {value}"),
        Value::Float(value) => format!("float {value}"),
        Value::Bool(value) => format!("bool {value}"),
        Value::Status(status) => format!("text {}", status.name()),
        Value::Kind(kind) => format!("text {}", kind.name()),
        Value::Array(ArrayValue::Empty) => "empty".to_owned(),
        Value::Array(ArrayValue::Ints(items)) => format!("ints {items:?}"),
        other => format!("{other:?}"),
    }
}

#[derive(Debug, Clone)]
struct Row {
    /// Nanoseconds after [`ORIGIN`].
    start: u64,
    duration: u64,
    name: usize,
    kind: usize,
    status: usize,
    /// `span.v`
    v: Option<Scalar>,
    /// `span.w`
    w: Option<Scalar>,
}

#[derive(Debug, Clone)]
struct Group {
    service: Option<&'static str>,
    /// `resource.w`
    w: Option<Scalar>,
    rows: Vec<Row>,
}

/// Resources of each trace.
type Traces = Vec<Vec<Group>>;

fn scalar() -> impl Strategy<Value = Option<Scalar>> {
    prop_oneof![
        3 => Just(None),
        4 => (0..5_i64).prop_map(|value| Some(Scalar::Int(value))),
        1 => (-3..2_000_i64).prop_map(|value| Some(Scalar::Int(value * 1_000_003))),
        2 => prop_oneof![Just(0.5), Just(1.0), Just(-2.25)].prop_map(|f| Some(Scalar::Float(f))),
        3 => prop_oneof![Just("x"), Just("y"), Just("")].prop_map(|t| Some(Scalar::Text(t))),
        1 => any::<bool>().prop_map(|value| Some(Scalar::Bool(value))),
        1 => prop::collection::vec(0..3_i64, 0..3).prop_map(|items| Some(Scalar::Ints(items))),
        1 => Just(Some(Scalar::Bytes)),
    ]
}

fn row() -> impl Strategy<Value = Row> {
    (
        // Often right where an interval ends.
        prop_oneof![
            0..60 * SECOND,
            (0..60_u64).prop_map(|second| second * SECOND)
        ],
        prop_oneof![0..5_u64, 0..3 * SECOND],
        0..NAMES.len(),
        0..KINDS.len(),
        0..STATUSES.len(),
        scalar(),
        scalar(),
    )
        .prop_map(|(start, duration, name, kind, status, v, w)| Row {
            start,
            duration,
            name,
            kind,
            status,
            v,
            w,
        })
}

fn traces() -> impl Strategy<Value = Traces> {
    let service = prop_oneof![
        Just(None),
        Just(Some("a")),
        Just(Some("b")),
        Just(Some("c"))
    ];
    let group = (service, scalar(), prop::collection::vec(row(), 1..5))
        .prop_map(|(service, w, rows)| Group { service, w, rows });
    prop::collection::vec(prop::collection::vec(group, 1..3), 0..25)
}

fn tables(traces: &Traces, count: usize) -> Vec<MemoryTable> {
    let mut number = 0_u64;
    let mut parts: Vec<Vec<_>> = vec![Vec::new(); count];
    for (index, groups) in traces.iter().enumerate() {
        let resources = groups.iter().map(|group| {
            let mut attributes: Vec<KeyValue> = Vec::new();
            attributes.extend(group.service.map(|name| text("service.name", name)));
            attributes.extend(group.w.as_ref().map(|value| value.wire("w")));
            let spans = group.rows.iter().map(|row| {
                number += 1;
                let v = row.v.as_ref().map(|value| value.wire("v"));
                let w = row.w.as_ref().map(|value| value.wire("w"));
                Span {
                    span_id: number.to_be_bytes().to_vec(),
                    // No trace has a root.
                    parent_span_id: vec![9; 8],
                    name: NAMES[row.name].to_owned(),
                    kind: row.kind as i32,
                    start_time_unix_nano: ORIGIN + row.start,
                    end_time_unix_nano: ORIGIN + row.start + row.duration,
                    status: Some(Status {
                        code: row.status as i32,
                        ..Status::default()
                    }),
                    attributes: v.into_iter().chain(w).collect(),
                    ..Span::default()
                }
            });
            let scope = InstrumentationScope::default();
            let spans = spans.collect();
            resource(attributes, scope, spans)
        });
        let id = TraceId::from_padded(&(index as u32 + 1).to_be_bytes());
        parts[index % count].push((id, resources.collect()));
    }
    parts.into_iter().map(table).collect()
}

#[derive(Debug, Clone, Copy)]
enum Function {
    Rate,
    Count,
    Min,
    Max,
    Sum,
    Avg,
    Histogram,
    Quantile,
}

#[derive(Debug, Clone)]
struct Query {
    filter: &'static str,
    function: Function,
    measured: &'static str,
    by: Vec<&'static str>,
}

const QUANTILES: [f64; 3] = [0.0, 0.5, 0.95];
const FILTERS: [&str; 6] = [
    "",
    "status = error",
    "span.v > 1",
    "span.v = 1 || kind = server",
    ".w = \"x\"",
    "resource.service.name != \"a\"",
];
const ATTRIBUTES: [&str; 8] = [
    "resource.service.name",
    "name",
    "kind",
    "status",
    "span.v",
    ".w",
    "resource.w",
    "span.dne",
];

fn query() -> impl Strategy<Value = Query> {
    use Function::*;
    (
        prop::sample::select(&FILTERS[..]),
        prop::sample::select(vec![Rate, Count, Min, Max, Sum, Avg, Histogram, Quantile]),
        prop::sample::select(vec!["duration", "span.v", ".w", "resource.w"]),
        prop::sample::subsequence(&ATTRIBUTES[..], 0..4).prop_shuffle(),
    )
        .prop_map(|(filter, function, measured, by)| Query {
            filter,
            function,
            measured,
            by,
        })
}

impl Query {
    fn text(&self) -> String {
        let measured = self.measured;
        let function = match self.function {
            Function::Rate => "rate()".to_owned(),
            Function::Count => "count_over_time()".to_owned(),
            Function::Min => format!("min_over_time({measured})"),
            Function::Max => format!("max_over_time({measured})"),
            Function::Sum => format!("sum_over_time({measured})"),
            Function::Avg => format!("avg_over_time({measured})"),
            Function::Histogram => format!("histogram_over_time({measured})"),
            Function::Quantile => {
                let quantiles = QUANTILES.map(|quantile| quantile.to_string()).join(", ");
                format!("quantile_over_time({measured}, {quantiles})")
            }
        };
        let by = match self.by.as_slice() {
            [] => String::new(),
            by => format!(" by ({})", by.join(", ")),
        };
        format!("{{ {} }} | {function}{by}", self.filter)
    }
}

fn window() -> impl Strategy<Value = Window> {
    (0..30_u64, 1..40_u64, 1..15_u64, 0..3_u64, any::<bool>()).prop_map(
        |(start, length, step, odd, is_instant)| {
            let start_nano = ORIGIN + start * SECOND + odd;
            let end_nano = start_nano + length * SECOND + odd * 7;
            Window {
                start_nano,
                end_nano,
                step_nano: if is_instant {
                    end_nano - start_nano
                } else {
                    step * SECOND
                },
                is_instant,
            }
        },
    )
}

// ---------------------------------------------------------------------------------------------
// Naively
// ---------------------------------------------------------------------------------------------

/// A span with what it belongs to.
#[derive(Clone, Copy)]
struct Seen<'a> {
    row: &'a Row,
    group: &'a Group,
}

impl Seen<'_> {
    fn value(&self, attribute: &str) -> Option<Scalar> {
        match attribute {
            // Blocks cannot tell an empty name from none.
            "resource.service.name" => Some(Scalar::Text(self.group.service.unwrap_or(""))),
            "name" => Some(Scalar::Text(NAMES[self.row.name])),
            "kind" => Some(Scalar::Text(KINDS[self.row.kind])),
            "status" => Some(Scalar::Text(STATUSES[self.row.status])),
            "span.v" => self.row.v.clone(),
            "span.w" => self.row.w.clone(),
            "resource.w" => self.group.w.clone(),
            ".w" => self.row.w.clone().or_else(|| self.group.w.clone()),
            _ => None,
        }
    }

    fn passes(&self, filter: &str) -> bool {
        let above_one = |scalar: Option<Scalar>| match scalar {
            Some(Scalar::Ints(items)) => items.iter().any(|&item| item > 1),
            scalar => scalar.and_then(|s| s.number()).is_some_and(|n| n > 1.0),
        };
        let is_one = |scalar: Option<Scalar>| match scalar {
            Some(Scalar::Ints(items)) => items.contains(&1),
            scalar => scalar.and_then(|s| s.number()) == Some(1.0),
        };
        match filter {
            "" => true,
            "status = error" => self.row.status == 2,
            "span.v > 1" => above_one(self.value("span.v")),
            "span.v = 1 || kind = server" => is_one(self.value("span.v")) || self.row.kind == 2,
            ".w = \"x\"" => self.value(".w") == Some(Scalar::Text("x")),
            "resource.service.name != \"a\"" => self.group.service != Some("a"),
            other => panic!("no such filter: {other}"),
        }
    }

    /// What is left of an array that was searched for elements.
    fn surviving(&self, filter: &str, attribute: &str) -> Option<Scalar> {
        match self.value(attribute) {
            Some(Scalar::Ints(items)) if filter == "span.v > 1" && attribute == "span.v" => {
                let left: Vec<i64> = items.into_iter().filter(|&item| item > 1).collect();
                Some(match left.as_slice() {
                    [one] => Scalar::Int(*one),
                    _ => Scalar::Ints(left),
                })
            }
            value => value,
        }
    }

    fn measured(&self, filter: &str, attribute: &str) -> Option<f64> {
        match attribute {
            "duration" => Some(self.row.duration as f64 / 1e9),
            attribute => self.surviving(filter, attribute)?.number(),
        }
    }

    /// The upper end of the bucket.
    fn bucket(&self, filter: &str, attribute: &str) -> Option<f64> {
        let (value, unit) = match attribute {
            "duration" => (self.row.duration as i64, 1e9),
            attribute => match self.surviving(filter, attribute)? {
                Scalar::Int(value) => (value, 1.0),
                _ => return None,
            },
        };
        let mut end = 2_u64;
        while value >= 2 && end < value as u64 {
            end *= 2;
        }
        (value >= 2).then_some(end as f64 / unit)
    }
}

fn seen<'a>(
    traces: &'a Traces,
    filter: &'a str,
    window: Window,
) -> impl Iterator<Item = (usize, Seen<'a>)> + 'a {
    traces
        .iter()
        .flatten()
        .flat_map(|group| group.rows.iter().map(move |row| Seen { row, group }))
        .filter(move |seen| seen.passes(filter))
        .filter_map(move |seen| {
            let start = ORIGIN + seen.row.start;
            let counts = window.start_nano < start && start <= window.end_nano;
            counts.then(|| (interval(window, start), seen))
        })
}

fn interval(window: Window, start: u64) -> usize {
    if window.is_instant {
        return 0;
    }
    let mut end = window.start_nano / window.step_nano * window.step_nano + window.step_nano;
    let mut interval = 0;
    while start > end {
        end += window.step_nano;
        interval += 1;
    }
    interval
}

/// Series by labels, `None` where there is no point.
type Answer = BTreeMap<Vec<(String, String)>, Vec<Option<f64>>>;

fn naive(query: &Query, traces: &Traces, window: Window) -> Answer {
    let width = window.grid().len();
    let seconds = window.step_nano as f64 / 1e9;
    let is_histogram = matches!(query.function, Function::Histogram | Function::Quantile);
    // Spans by group, and in it by interval.
    let mut groups: BTreeMap<Vec<(String, String)>, Vec<Vec<Seen<'_>>>> = BTreeMap::new();
    for (interval, seen) in seen(traces, query.filter, window) {
        let mut labels: Vec<(String, String)> = query
            .by
            .iter()
            .filter_map(|&name| {
                let value = seen.surviving(query.filter, name)?;
                (value != Scalar::Bytes).then(|| (name.to_owned(), value.print()))
            })
            .collect();
        if labels.is_empty() && !is_histogram {
            labels.push(match query.by.first() {
                Some(&name) => (name.to_owned(), "nil".to_owned()),
                None => ("__name__".to_owned(), String::new()),
            });
        }
        let group = groups
            .entry(labels)
            .or_insert_with(|| vec![Vec::new(); width]);
        group[interval].push(seen);
    }
    if groups.is_empty()
        && query.by.is_empty()
        && matches!(query.function, Function::Rate | Function::Count)
    {
        let labels = vec![("__name__".to_owned(), String::new())];
        groups.insert(labels, vec![Vec::new(); width]);
    }
    let mut answer = Answer::new();
    for (labels, intervals) in groups {
        let numbers: Vec<Vec<f64>> = intervals
            .iter()
            .map(|spans| {
                let measured = |seen: &Seen<'_>| seen.measured(query.filter, query.measured);
                spans.iter().filter_map(measured).collect()
            })
            .collect();
        let folded = |fold: &dyn Fn(&[f64]) -> f64| -> Vec<Option<f64>> {
            numbers
                .iter()
                .map(|numbers| (!numbers.is_empty()).then(|| fold(numbers)))
                .collect()
        };
        let sum = |numbers: &[f64]| numbers.iter().sum::<f64>();
        let counts = |scale: f64| -> Vec<Option<f64>> {
            let count = |spans: &Vec<Seen<'_>>| Some(spans.len() as f64 * scale);
            intervals.iter().map(count).collect()
        };
        let values = match query.function {
            Function::Rate => counts(1.0 / seconds),
            Function::Count => counts(1.0),
            Function::Min => folded(&|n| n.iter().copied().fold(f64::INFINITY, f64::min)),
            Function::Max => folded(&|n| n.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
            Function::Sum => folded(&sum),
            Function::Avg => folded(&|n| sum(n) / n.len() as f64),
            Function::Histogram | Function::Quantile => {
                histogram(query, &labels, &intervals, &mut answer);
                continue;
            }
        };
        if values.iter().any(Option::is_some) {
            answer.insert(labels, values);
        }
    }
    answer
}

fn histogram(
    query: &Query,
    labels: &[(String, String)],
    intervals: &[Vec<Seen<'_>>],
    answer: &mut Answer,
) {
    let buckets: Vec<Vec<f64>> = intervals
        .iter()
        .map(|spans| {
            let bucket = |seen: &Seen<'_>| seen.bucket(query.filter, query.measured);
            let mut ends: Vec<f64> = spans.iter().filter_map(bucket).collect();
            ends.sort_by(f64::total_cmp);
            ends
        })
        .collect();
    let mut all: Vec<f64> = buckets.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    if all.is_empty() {
        return;
    }
    let with = |name: &str, value: f64| {
        let mut labels = labels.to_vec();
        labels.push((name.to_owned(), Scalar::Float(value).print()));
        labels
    };
    if let Function::Histogram = query.function {
        for end in all {
            let count = |ends: &Vec<f64>| ends.iter().filter(|&&other| other == end).count();
            let counts = buckets.iter().map(|ends| Some(count(ends) as f64));
            answer.insert(with("__bucket", end), counts.collect());
        }
        return;
    }
    for quantile in QUANTILES {
        let values = buckets.iter().map(|ends| {
            if ends.is_empty() {
                return Some(0.0);
            }
            // The value with that many at or below it, somewhere in its bucket.
            let wanted = ((quantile * ends.len() as f64).ceil() as usize).max(1);
            let end = ends[wanted - 1];
            let below = ends.iter().filter(|&&other| other < end).count();
            let inside = ends.iter().filter(|&&other| other == end).count();
            if wanted == below + inside {
                return Some(end);
            }
            let start = if below == 0 {
                end / 2.0
            } else {
                ends[below - 1]
            };
            let share = (wanted - below) as f64 / inside as f64;
            Some(start * (end / start).powf(share))
        });
        answer.insert(with("p", quantile), values.collect());
    }
}

// ---------------------------------------------------------------------------------------------
// On columns
// ---------------------------------------------------------------------------------------------

/// In so many pieces of time and sent between processes, which must not make a difference.
fn run(query: &str, tables: &[MemoryTable], window: Window, cut_nano: u64) -> MetricsAnswer {
    let parsed = tempo_traceql::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    let plan = MetricsPlan::new(&parsed, &MetricsOptions::default()).unwrap();
    let mut all = MetricsPartial::new(&plan, window);
    for piece in [window.until(cut_nano), window.after(cut_nano)] {
        if piece.is_empty() {
            continue;
        }
        let mut of_piece = MetricsPartial::new(&plan, piece);
        for table in tables {
            let found = evaluate(&plan, table, piece, limits()).unwrap();
            of_piece.merge(&plan, found, usize::MAX).unwrap();
        }
        let received = MetricsPartial::from_wire(of_piece.to_wire(), usize::MAX).unwrap();
        assert_eq!(received.counted_spans(), of_piece.counted_spans());
        all.merge(&plan, received, usize::MAX).unwrap();
    }
    all.finish(&plan)
}

fn labels(labels: &[Label]) -> Vec<(String, String)> {
    let pairs = labels.iter().map(|label| match &*label.name {
        "__name__" => ("__name__".to_owned(), String::new()),
        name => (name.to_owned(), print(&label.value)),
    });
    pairs.collect()
}

fn on_columns(answer: &MetricsAnswer) -> Answer {
    let series = answer.series.iter().map(|series| {
        let points = series
            .values
            .iter()
            .map(|&value| (!value.is_nan()).then_some(value));
        (labels(&series.labels), points.collect())
    });
    series.collect()
}

fn assert_same(got: &Answer, want: &Answer, query: &str) {
    let keys: BTreeSet<_> = got.keys().chain(want.keys()).collect();
    for key in keys {
        let (got, want) = (got.get(key), want.get(key));
        let close = |pair: (&Option<f64>, &Option<f64>)| match pair {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-9),
            (a, b) => a == b,
        };
        let same = match (got, want) {
            (Some(got), Some(want)) => got.len() == want.len() && got.iter().zip(want).all(close),
            _ => false,
        };
        assert!(same, "{query}: {key:?}\n got {got:?}\nwant {want:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn series_are_those_of_a_naive_evaluation(
        traces in traces(),
        query in query(),
        window in window(),
        cut in 0..70 * SECOND,
        count in 1..4_usize,
    ) {
        let text = query.text();
        let got = run(&text, &tables(&traces, count), window, ORIGIN + cut);
        assert_same(&on_columns(&got), &naive(&query, &traces, window), &text);
    }
}
