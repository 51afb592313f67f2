//! Answers to queries over time: series by labels, with values that are equal but for rounding.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tempo_proto::opentelemetry::proto::common::v1::any_value::Value as AnyValue;

use super::{compare::items, decode};

/// Largest relative difference of values that count as equal.
const TOLERANCE: f64 = 1e-9;

/// How many values of an attribute `compare()` returns, unless it says so.
const COMPARE_TOP_DEFAULT: usize = 10;

/// Names and values of labels, sorted.
type Labels = Vec<(String, String)>;

/// Values by time in milliseconds; an instant has the time 0.
type Points = BTreeMap<i64, f64>;

/// Numbers of one value print alike, whether as 12 or as 12.0.
fn normal(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(normal).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), normal(value)))
            .collect(),
        other => other.clone(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// JSON has no number for these, and leaves out what is zero.
fn number(value: &Value) -> f64 {
    match value {
        Value::String(text) => text.parse().unwrap_or(f64::NAN),
        Value::Null => 0.0,
        other => other.as_f64().unwrap_or(f64::NAN),
    }
}

fn answered(body: &[u8]) -> BTreeMap<Labels, Points> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let series = items(&body["series"]).map(|series| {
        let labels = items(&series["labels"]);
        let labels = labels.map(|label| (text(&label["key"]), normal(&label["value"]).to_string()));
        let mut labels: Labels = labels.collect();
        labels.sort();
        let points = match series["samples"].as_array() {
            None => BTreeMap::from([(0, number(&series["value"]))]),
            Some(samples) => samples
                .iter()
                .map(|sample| {
                    let time = text(&sample["timestampMs"]).parse().unwrap_or(-1);
                    (time, number(&sample["value"]))
                })
                .collect(),
        };
        (labels, points)
    });
    series.collect()
}

fn recorded(expect: &Value) -> BTreeMap<Labels, Points> {
    let series = items(&expect["series"]).map(|series| {
        let labels = items(&series["labels"]).map(|pair| {
            let value: Value = serde_json::from_str(&text(&pair[1])).expect("values are JSON");
            (text(&pair[0]), normal(&value).to_string())
        });
        let mut labels: Labels = labels.collect();
        labels.sort();
        let points = match series["samples"].as_array() {
            None => BTreeMap::from([(0, number(&series["value"]))]),
            Some(samples) => samples
                .iter()
                .map(|sample| {
                    let time = text(&sample[0]).parse().expect("times are milliseconds");
                    (time, number(&sample[1]))
                })
                .collect(),
        };
        (labels, points)
    });
    series.collect()
}

fn equal(a: &Points, b: &Points) -> bool {
    let close = |a: f64, b: f64| a == b || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs());
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|((a_time, a), (b_time, b))| a_time == b_time && close(*a, *b))
}

/// Compares; when they differ, tells the first series that does, ours and the recorded one.
pub(super) fn compare(
    query: &str,
    body: &[u8],
    expect: &Value,
    requests: &[Vec<u8>],
) -> Result<(), (String, String)> {
    let (mut ours, mut theirs) = (answered(body), recorded(expect));
    if query.contains("compare(") {
        let open = open_attributes(query, &theirs, requests);
        ours.retain(|labels, _| is_fixed(labels, &open));
        theirs.retain(|labels, _| is_fixed(labels, &open));
    }
    let all: BTreeSet<&Labels> = ours.keys().chain(theirs.keys()).collect();
    for labels in all {
        let (ours, theirs) = (ours.get(labels), theirs.get(labels));
        match (ours, theirs) {
            (Some(ours), Some(theirs)) if equal(ours, theirs) => {}
            _ => {
                return Err((
                    format!("{labels:?} {ours:?}"),
                    format!("{labels:?} {theirs:?}"),
                ));
            }
        }
    }
    Ok(())
}

/// The kind of a series of a comparison (`baseline`, `selection_total`, …), and its attribute.
fn kind_and_attribute(labels: &Labels) -> (String, String) {
    let (mut kind, mut attribute) = (String::new(), String::new());
    for (name, value) in labels {
        if name == "__meta_type" {
            kind.clone_from(value);
        } else {
            attribute.clone_from(name);
        }
    }
    (kind, attribute)
}

fn is_fixed(labels: &Labels, open: &BTreeSet<(String, String)>) -> bool {
    let of = kind_and_attribute(labels);
    of.0.contains("_total") || !open.contains(&of) && !open.contains(&(String::new(), of.1))
}

/// Attributes of a comparison whose values are not fixed, by kind of series; all kinds are the
/// empty one. In Tempo ties between values that do not all fit differ from run to run, and arrays
/// are not told apart.
fn open_attributes(
    query: &str,
    recorded: &BTreeMap<Labels, Points>,
    requests: &[Vec<u8>],
) -> BTreeSet<(String, String)> {
    let top = query
        .rsplit_once("},")
        .and_then(|(_, rest)| rest.trim().trim_end_matches(')').parse().ok())
        .unwrap_or(COMPARE_TOP_DEFAULT);
    let mut values: BTreeMap<(String, String), usize> = BTreeMap::new();
    for labels in recorded.keys() {
        *values.entry(kind_and_attribute(labels)).or_default() += 1;
    }
    values.retain(|_, count| *count >= top);
    let mut open: BTreeSet<(String, String)> = values.into_keys().collect();
    let spans = requests
        .iter()
        .flat_map(|body| decode(body).resource_spans)
        .flat_map(|batch| batch.scope_spans)
        .flat_map(|scope| scope.spans);
    for attribute in spans.flat_map(|span| span.attributes) {
        let value = attribute.value.and_then(|value| value.value);
        if matches!(value, Some(AnyValue::ArrayValue(_))) {
            open.insert((String::new(), format!("span.{}", attribute.key)));
        }
    }
    open
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;

    /// A recorded answer as it goes over the wire.
    fn wire(expect: &Value) -> Value {
        let series = items(&expect["series"]).map(|series| {
            let labels = items(&series["labels"]).map(|pair| {
                let value: Value = serde_json::from_str(pair[1].as_str().unwrap()).unwrap();
                json!({"key": pair[0], "value": value})
            });
            let labels: Vec<Value> = labels.collect();
            match series["samples"].as_array() {
                None => json!({"labels": labels, "value": series["value"]}),
                Some(samples) => {
                    let samples = samples
                        .iter()
                        .map(|sample| json!({"timestampMs": sample[0], "value": sample[1]}));
                    json!({"labels": labels, "samples": samples.collect::<Vec<_>>()})
                }
            }
        });
        json!({"series": series.collect::<Vec<_>>()})
    }

    #[test]
    fn a_recorded_answer_is_equal_to_itself_and_to_no_other() {
        let golden = Golden::load();
        let mut instants_and_ranges = 0;
        for case in &golden.cases {
            if !["range", "instant"].contains(&case.kind()) {
                continue;
            }
            instants_and_ranges += 1;
            let mut answer = wire(&case.expect);
            let compare =
                |answer: &Value| golden.compare(case, 200, &serde_json::to_vec(answer).unwrap());
            compare(&answer).unwrap();
            if answer["series"][0].is_null() {
                continue;
            }
            // Totals come last, and those of a comparison count.
            let series = answer["series"].as_array_mut().unwrap();
            let last = series.last_mut().unwrap();
            let is_range = last["samples"].is_array();
            let value = if is_range {
                &mut last["samples"][0]["value"]
            } else {
                &mut last["value"]
            };
            *value = json!(value.as_f64().unwrap() * 1.000_001 + 1e-6);
            compare(&answer).unwrap_err();
            answer["series"].as_array_mut().unwrap().pop();
            compare(&answer).unwrap_err();
        }
        assert_eq!(instants_and_ranges, 24 + 11);
    }
}
