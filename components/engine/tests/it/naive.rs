//! Random queries about random traces: on columns, and span after span by the naive evaluation of
//! `tempo-testkit`.
//!
//! A pair is a query and the data it is asked of. A normal run compares 2,000 of them; with
//! `TEMPO_LONG_TESTS` set 100,000.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use tempo_engine::{
    SearchOptions, Value,
    metrics::{
        Label, MetricsAnswer, MetricsOptions, MetricsPartial, MetricsPlan, Window, evaluate,
    },
    search,
};
use tempo_model::TraceId;
use tempo_table::{ArrayValue, MemoryTable, MemoryTableBuilder};
use tempo_testkit::naive::{
    self, Answer, Buckets, TraceData,
    random::{EXTENT_NANO, Maker, ORIGIN_NANO},
};
use tempo_traceql::{
    ParseOptions, Query,
    ast::{QueryBody, SecondStage},
};

use crate::support::{limits, options, plan};

/// Queries of each kind that are made for the same traces.
const QUERIES_PER_DATA: usize = 10;

/// Pairs of each of the two kinds of queries.
fn pairs() -> usize {
    if std::env::var_os("TEMPO_LONG_TESTS").is_some() {
        50_000
    } else {
        1_000
    }
}

/// Traces, once decoded and once in two tables.
struct Data {
    traces: Vec<TraceData>,
    tables: [MemoryTable; 2],
}

impl Data {
    fn new(maker: &mut Maker) -> Self {
        let mut builders = [MemoryTableBuilder::new(), MemoryTableBuilder::new()];
        let mut traces = Vec::new();
        for (number, (id, trace)) in maker.traces().into_iter().enumerate() {
            let bytes = trace.encode_to_vec();
            let builder = &mut builders[usize::from(number % 3 == 2)];
            builder
                .push_trace(TraceId::from_padded(&id), &[&bytes])
                .unwrap();
            traces.push(TraceData::new(&id, &trace));
        }
        let [mut first, mut second] = builders;
        Self {
            traces,
            tables: [first.finish(), second.finish()],
        }
    }
}

/// The query as it is written, for the naive evaluation; nothing when it does not validate.
fn as_written(text: &str) -> Option<Query> {
    let options = ParseOptions {
        skip_rewrites: true,
        ..ParseOptions::default()
    };
    tempo_traceql::parse_with(text, &options).ok()
}

fn print(value: &Value) -> String {
    let naive = |value: naive::Value| value.print();
    match value {
        Value::Nil => "nil".to_owned(),
        Value::String(text) => naive(naive::Value::Text(text.to_string())),
        Value::Int(value) => naive(naive::Value::Int(*value)),
        Value::Float(value) => naive(naive::Value::Float(*value)),
        Value::Bool(value) => naive(naive::Value::Bool(*value)),
        Value::Duration(nanos) => naive(naive::Value::Duration(*nanos)),
        Value::Status(status) => naive(naive::Value::Status(*status)),
        Value::Kind(kind) => naive(naive::Value::Kind(*kind)),
        Value::Array(array) => naive(naive::Value::Array(match array {
            ArrayValue::Empty => Vec::new(),
            ArrayValue::Ints(items) => items.iter().map(|&i| naive::Value::Int(i)).collect(),
            ArrayValue::Floats(items) => items.iter().map(|&f| naive::Value::Float(f)).collect(),
            ArrayValue::Bools(items) => items.iter().map(|&b| naive::Value::Bool(b)).collect(),
            ArrayValue::Strings(items) => items
                .iter()
                .map(|text| naive::Value::Text(text.to_string()))
                .collect(),
        })),
    }
}

// ---------------------------------------------------------------------------------------------
// Searches
// ---------------------------------------------------------------------------------------------

/// The spans of a set, and its labels.
type Set = (Vec<Vec<u8>>, BTreeMap<String, String>);
/// Sets by trace, sorted.
type FoundSets = BTreeMap<Vec<u8>, Vec<Set>>;

/// Nothing when the query fails on some span: whether that span is looked at at all depends on the
/// other conditions.
fn found_naively(query: &Query, data: &Data) -> Option<FoundSets> {
    let mut found = FoundSets::new();
    for trace in &data.traces {
        let mut sets: Vec<Set> = naive::search(query, trace)
            .ok()?
            .into_iter()
            .map(|set| {
                let mut ids: Vec<Vec<u8>> = set
                    .spans
                    .iter()
                    .map(|&span| trace.span_id(span).to_vec())
                    .collect();
                ids.sort();
                let labels = set.labels.iter();
                let labels = labels.map(|(text, value)| (text.clone(), value.print()));
                (ids, labels.collect())
            })
            .collect();
        sets.sort();
        if !sets.is_empty() {
            found.insert(trace.id().to_vec(), sets);
        }
    }
    Some(found)
}

fn found_in_columns(text: &str, data: &Data) -> Result<FoundSets, String> {
    let plan = plan(text);
    let options = SearchOptions {
        max_spans_per_span_set: usize::MAX,
        ..options()
    };
    let mut found = FoundSets::new();
    for table in &data.tables {
        let output = search(&plan, table, &options).map_err(|error| error.to_string())?;
        for trace in output.traces {
            let mut sets: Vec<Set> = Vec::new();
            for set in &trace.span_sets {
                assert_eq!(set.matched as usize, set.spans.len(), "{text}");
                let mut ids: Vec<Vec<u8>> =
                    set.spans.iter().map(|span| span.span_id.to_vec()).collect();
                ids.sort();
                let labels = set.attributes.iter();
                let labels = labels.map(|(text, value)| (text.to_string(), print(value)));
                sets.push((ids, labels.collect()));
            }
            sets.sort();
            found.insert(trace.trace_id.as_bytes().to_vec(), sets);
        }
    }
    Ok(found)
}

#[test]
fn searches_find_what_a_naive_evaluation_finds() {
    let (mut compared, mut with_results, mut invalid, mut failing) = (0, 0, 0, 0);
    for seed in 0.. {
        let mut maker = Maker::new(seed);
        let data = Data::new(&mut maker);
        for _ in 0..QUERIES_PER_DATA {
            let text = maker.search();
            let Some(query) = as_written(&text) else {
                invalid += 1;
                continue;
            };
            let Some(want) = found_naively(&query, &data) else {
                failing += 1;
                // It may fail or not, but does not panic.
                let _ = found_in_columns(&text, &data);
                continue;
            };
            let got = found_in_columns(&text, &data);
            assert_eq!(got.as_ref(), Ok(&want), "seed {seed}: {text}");
            compared += 1;
            with_results += usize::from(!want.is_empty());
        }
        if compared >= pairs() {
            break;
        }
    }
    println!(
        "{compared} searches agree, {with_results} with results; {failing} fail, {invalid} are \
         invalid"
    );
    // Neither everything nor nothing is found, and most of what is made is of use.
    assert!(with_results * 4 > compared && with_results * 20 < compared * 19);
    assert!(invalid + failing < compared);
}

// ---------------------------------------------------------------------------------------------
// Queries over time
// ---------------------------------------------------------------------------------------------

fn window(seed: u64, number: usize) -> Window {
    let second = 1_000_000_000;
    let mix = seed.wrapping_mul(31).wrapping_add(number as u64);
    let odd = mix % 3;
    let start_nano = ORIGIN_NANO + (mix % 30) * second + odd;
    let end_nano = start_nano + (1 + mix * 7 % 40) * second + odd * 7;
    let is_instant = mix.is_multiple_of(4);
    let step = if is_instant {
        end_nano - start_nano
    } else {
        (1 + mix * 5 % 15) * second
    };
    Window {
        start_nano,
        end_nano,
        step_nano: step,
        is_instant,
    }
}

/// Cut in two at some time, over all tables.
fn counted_in_columns(text: &str, data: &Data, window: Window, cut: u64) -> Result<Answer, String> {
    let query = tempo_traceql::parse(text).unwrap();
    let plan = MetricsPlan::new(&query, &MetricsOptions::default())
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    let mut all = MetricsPartial::new(&plan, window);
    for piece in [window.until(cut), window.after(cut)] {
        for table in data.tables.iter().filter(|_| !piece.is_empty()) {
            let found =
                evaluate(&plan, table, piece, limits()).map_err(|error| error.to_string())?;
            all.merge(&plan, found, usize::MAX)
                .map_err(|error| error.to_string())?;
        }
    }
    Ok(points(&all.finish(&plan)))
}

fn points(answer: &MetricsAnswer) -> Answer {
    let labels = |labels: &[Label]| -> Vec<(String, String)> {
        let pairs = labels.iter().map(|label| match &*label.name {
            "__name__" => ("__name__".to_owned(), String::new()),
            name => (name.to_owned(), print_label(&label.value)),
        });
        pairs.collect()
    };
    let series = answer.series.iter().map(|series| {
        let points = series.values.iter();
        let points = points.map(|&value| (!value.is_nan()).then_some(value));
        (labels(&series.labels), points.collect())
    });
    series.collect()
}

/// Statuses and kinds are texts in labels.
fn print_label(value: &Value) -> String {
    match value {
        Value::Status(status) => format!("text {:?}", status.name()),
        Value::Kind(kind) => format!("text {:?}", kind.name()),
        value => print(value),
    }
}

fn is_close(one: Option<f64>, other: Option<f64>) -> bool {
    match (one, other) {
        (Some(a), Some(b)) => a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-9),
        (one, other) => one == other,
    }
}

fn assert_same(got: &Answer, want: &Answer, asked: &str) {
    let keys: BTreeSet<_> = got.keys().chain(want.keys()).collect();
    for key in keys {
        let same = match (got.get(key), want.get(key)) {
            (Some(got), Some(want)) => {
                got.len() == want.len()
                    && got
                        .iter()
                        .zip(want)
                        .all(|(&got, &want)| is_close(got, want))
            }
            _ => false,
        };
        assert!(
            same,
            "{asked}: {key:?}\n got {:?}\nwant {:?}",
            got.get(key),
            want.get(key)
        );
    }
}

/// Takes a last `topk` or `bottomk` away: how many are kept, and whether those are the largest.
fn without_top(query: &mut Query) -> Option<(usize, bool)> {
    let QueryBody::Metrics(expr) = &mut query.body else {
        return None;
    };
    let top = match expr.stages.last()? {
        SecondStage::TopK(k) => (*k as usize, true),
        SecondStage::BottomK(k) => (*k as usize, false),
        _ => return None,
    };
    expr.stages.pop();
    Some(top)
}

/// Of every interval the largest (smallest) points are kept, as they are, and no others.
fn assert_top(got: &Answer, all: &Answer, (k, largest): (usize, bool), asked: &str) {
    if all.len() <= k {
        return assert_same(got, all, asked);
    }
    let width = all.values().map(Vec::len).max().unwrap_or(0);
    let at = |answer: &Answer, interval: usize| -> Vec<f64> {
        let mut points: Vec<f64> = answer
            .values()
            .filter_map(|points| points[interval])
            .collect();
        points.sort_by(f64::total_cmp);
        if largest {
            points.reverse();
        }
        points
    };
    for interval in 0..width {
        let mut want = at(all, interval);
        want.truncate(k);
        let got = at(got, interval);
        let same = got.len() == want.len()
            && got
                .iter()
                .zip(&want)
                .all(|(&got, &want)| is_close(Some(got), Some(want)));
        assert!(same, "{asked}, interval {interval}: {got:?}, not {want:?}");
    }
    for (key, points) in got {
        for (&got, &want) in points.iter().zip(&all[key]) {
            assert!(got.is_none() || is_close(got, want), "{asked}: {key:?}");
        }
    }
}

#[test]
fn series_are_those_of_a_naive_evaluation() {
    let (mut compared, mut with_points, mut invalid, mut failing) = (0, 0, 0, 0);
    for seed in 0.. {
        let mut maker = Maker::new(seed ^ 0x5eed);
        let data = Data::new(&mut maker);
        for number in 0..QUERIES_PER_DATA {
            let text = maker.range();
            let Some(mut query) = as_written(&text) else {
                invalid += 1;
                continue;
            };
            let top = without_top(&mut query);
            let window = window(seed, number);
            let buckets = Buckets {
                start_nano: window.start_nano,
                end_nano: window.end_nano,
                step_nano: window.step_nano,
                is_instant: window.is_instant,
            };
            let cut = ORIGIN_NANO + seed.wrapping_mul(7_919) % EXTENT_NANO;
            let got = counted_in_columns(&text, &data, window, cut);
            let Ok(want) = naive::count(&query, &data.traces, buckets) else {
                failing += 1;
                continue;
            };
            let asked = format!("seed {seed}: {text} {window:?}");
            let got = got.unwrap_or_else(|error| panic!("{asked}: {error}"));
            match top {
                Some(top) => assert_top(&got, &want, top, &asked),
                None => assert_same(&got, &want, &asked),
            }
            compared += 1;
            let is_point = |point: &Option<f64>| point.is_some_and(|point| point != 0.0);
            with_points += usize::from(want.values().flatten().any(is_point));
        }
        if compared >= pairs() {
            break;
        }
    }
    println!(
        "{compared} queries over time agree, {with_points} with points; {failing} fail, {invalid} \
         are invalid"
    );
    assert!(with_points * 4 > compared && with_points * 20 < compared * 19);
    assert!(invalid + failing < compared);
}
