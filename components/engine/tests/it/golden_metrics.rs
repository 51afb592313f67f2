//! Answers to queries over time, recorded from Grafana Tempo.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;
use tempo_engine::metrics::{
    MetricsAnswer, MetricsOptions, MetricsPartial, MetricsPlan, Window, evaluate,
};
use tempo_table::{AttributeScope, ColumnKey, MemoryTable, SpanTable};

use crate::{
    golden::{any_value, normal, read, table},
    support::limits,
};

const SECOND: u64 = 1_000_000_000;

/// Series by labels; a series is its points by time.
type Answer = BTreeMap<String, BTreeMap<i64, f64>>;

fn parse(query: &str) -> Result<MetricsPlan, String> {
    let query = tempo_traceql::parse(query).map_err(|error| error.to_string())?;
    MetricsPlan::new(&query, &MetricsOptions::default()).map_err(|error| error.to_string())
}

/// As the frontend does it: the answer is aligned, and what is looked at once more.
fn run(query: &str, table: &MemoryTable, window: Window) -> MetricsAnswer {
    let plan = parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    let answered = window.aligned();
    let found = evaluate(&plan, table, answered.aligned(), limits()).unwrap();
    let mut all = MetricsPartial::new(&plan, answered);
    all.merge(&plan, found, usize::MAX).unwrap();
    all.finish(&plan)
}

fn labels_of(pairs: impl Iterator<Item = (String, Json)>) -> String {
    let mut pairs: Vec<(String, String)> = pairs
        .map(|(name, value)| (name, normal(&value).to_string()))
        .collect();
    pairs.sort();
    format!("{pairs:?}")
}

fn got(answer: &MetricsAnswer) -> Answer {
    let series = answer.series.iter().map(|series| {
        let labels = series
            .labels
            .iter()
            .map(|label| (label.name.to_string(), any_value(&label.value)));
        let points = (0..answer.grid.len())
            .filter(|&interval| !series.values[interval].is_nan())
            .map(|interval| (answer.grid.timestamp_ms(interval), series.values[interval]));
        (labels_of(labels), points.collect())
    });
    series.collect()
}

fn wanted(expect: &Json, instant_ms: i64) -> Answer {
    let series = expect["series"].as_array().unwrap().iter().map(|series| {
        let labels = series["labels"].as_array().unwrap().iter().map(|pair| {
            let value = serde_json::from_str(pair[1].as_str().unwrap()).unwrap();
            (pair[0].as_str().unwrap().to_owned(), value)
        });
        let points = match series["samples"].as_array() {
            None => BTreeMap::from([(instant_ms, series["value"].as_f64().unwrap())]),
            Some(samples) => samples
                .iter()
                .map(|sample| {
                    let timestamp = sample[0].as_str().unwrap().parse().unwrap();
                    (timestamp, sample[1].as_f64().unwrap())
                })
                .collect(),
        };
        (labels_of(labels), points)
    });
    series.collect()
}

fn same(got: &Answer, want: &Answer) -> Result<(), String> {
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
    let labels: BTreeSet<&String> = got.keys().chain(want.keys()).collect();
    for labels in labels {
        let equal = match (got.get(labels), want.get(labels)) {
            (Some(got), Some(want)) => {
                got.len() == want.len()
                    && got
                        .iter()
                        .zip(want)
                        .all(|(a, b)| a.0 == b.0 && close(*a.1, *b.1))
            }
            _ => false,
        };
        if !equal {
            return Err(format!(
                "series {labels}:\n   got {:?}\n  want {:?}",
                got.get(labels),
                want.get(labels)
            ));
        }
    }
    Ok(())
}

/// What is fixed of a comparison: totals, and the values of attributes with fewer values than are
/// returned. In Tempo ties differ from run to run, and arrays are not told apart.
fn fixed(answer: Answer, open: &BTreeSet<(String, String)>) -> Answer {
    let is_fixed = |labels: &String| {
        let (kind, attribute) = kind_and_attribute(labels);
        kind.ends_with("_total") || !open.contains(&(kind, attribute))
    };
    answer
        .into_iter()
        .filter(|(labels, _)| is_fixed(labels))
        .collect()
}

fn kind_and_attribute(labels: &str) -> (String, String) {
    let kind = ["baseline_total", "selection_total", "baseline", "selection"]
        .into_iter()
        .find(|kind| labels.contains(&format!("\\\"stringValue\\\":\\\"{kind}\\\"")))
        .unwrap();
    let pairs: Vec<&str> = labels.splitn(3, "(\"").collect();
    let attribute = pairs[2].split_once("\", \"").unwrap().0;
    (kind.to_owned(), attribute.to_owned())
}

/// Attributes of a recorded comparison that are not fixed, by kind of series.
fn open_attributes(want: &Answer, table: &MemoryTable, top: usize) -> BTreeSet<(String, String)> {
    let mut values: BTreeMap<(String, String), usize> = BTreeMap::new();
    for labels in want.keys() {
        *values.entry(kind_and_attribute(labels)).or_default() += 1;
    }
    let mut open: BTreeSet<(String, String)> = values
        .into_iter()
        .filter(|(_, count)| *count >= top)
        .map(|(attribute, _)| attribute)
        .collect();
    for name in table.attribute_names(AttributeScope::Span, None).unwrap() {
        let key = ColumnKey::attribute(AttributeScope::Span, &name);
        if table.column(&key, None).unwrap().arrays.is_some() {
            for kind in ["baseline", "selection"] {
                open.insert((kind.to_owned(), format!("span.{name}")));
            }
        }
    }
    open
}

#[test]
fn every_recorded_query_over_time_is_answered_alike() {
    let cases: Json = serde_json::from_slice(&read("cases.json")).unwrap();
    let table = table();
    let start = cases["t0"].as_u64().unwrap() / 10 * 10;
    let range = Window {
        start_nano: start * SECOND,
        end_nano: (start + 60) * SECOND,
        step_nano: 10 * SECOND,
        is_instant: false,
    };
    let instant = Window {
        step_nano: 60 * SECOND,
        is_instant: true,
        ..range
    };
    let mut failures = Vec::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for case in cases["cases"].as_array().unwrap() {
        let (case, expect) = (&case["case"], &case["expect"]);
        let kind = case["kind"].as_str().unwrap();
        let query = case["q"].as_str().unwrap_or_default();
        let outcome = match kind {
            "range_error" => {
                let got = parse(query).err().unwrap_or_default();
                match got == expect["error"].as_str().unwrap() {
                    true => Ok(()),
                    false => Err(format!("\n   got {got}\n  want {}", expect["error"])),
                }
            }
            "range" | "instant" => {
                let window = if kind == "range" { range } else { instant };
                let got = got(&run(query, &table, window));
                let want = wanted(expect, ((start + 60) * 1000) as i64);
                if query.contains("compare(") {
                    let top = if query.contains("}, 5)") { 5 } else { 10 };
                    let open = open_attributes(&want, &table, top);
                    same(&fixed(got, &open), &fixed(want, &open))
                } else {
                    same(&got, &want)
                }
            }
            _ => continue,
        };
        *counts.entry(kind).or_default() += 1;
        if let Err(failure) = outcome {
            failures.push(format!("{query}: {failure}"));
        }
    }
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n\n"));
    assert_eq!(
        counts,
        BTreeMap::from([("instant", 11), ("range", 24), ("range_error", 2)])
    );
}
