//! Answers and recordings in one form, so that they can be compared.

use serde_json::{Value, json};

/// In a dedicated column of the recorded blocks, where Tempo does not see it when it lists names.
const DEDICATED: &str = "http.route";

/// In columns of their own: with conditions Tempo lists them for the whole row group, we for the
/// spans that meet the conditions.
const WELL_KNOWN: [&str; 3] = ["http.method", "http.url", "http.status_code"];

fn sorted(mut list: Vec<Value>) -> Value {
    list.sort_by_key(Value::to_string);
    Value::Array(list)
}

/// The items of a list, or none.
pub(super) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn or_empty(value: &Value) -> Value {
    match value {
        Value::Null => json!(""),
        other => other.clone(),
    }
}

fn attributes(list: &Value) -> Value {
    sorted(
        items(list)
            .map(|attribute| {
                let value = &attribute["value"];
                json!([attribute["key"], value])
            })
            .collect(),
    )
}

/// Recorded attributes hold their values as texts of JSON.
fn recorded_attributes(list: &Value) -> Value {
    sorted(
        items(list)
            .map(|pair| {
                let value: Value = serde_json::from_str(pair[1].as_str().unwrap()).unwrap();
                json!([pair[0], value])
            })
            .collect(),
    )
}

/// The body of an answer.
fn parse(body: &[u8]) -> Value {
    serde_json::from_slice(body)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)))
}

pub(super) fn searched(body: &[u8]) -> Value {
    let body = parse(body);
    let traces = items(&body["traces"])
        .map(|trace| {
            let sets = items(&trace["spanSets"])
                .map(|set| {
                    let spans = items(&set["spans"])
                        .map(|span| {
                            json!({
                                "id": span["spanID"],
                                "name": or_empty(&span["name"]),
                                "start": span["startTimeUnixNano"],
                                "dur": match &span["durationNanos"] {
                                    Value::Null => json!("0"),
                                    nanos => nanos.clone(),
                                },
                                "attrs": attributes(&span["attributes"]),
                            })
                        })
                        .collect();
                    json!({
                        "matched": set["matched"],
                        "attrs": attributes(&set["attributes"]),
                        "spans": sorted(spans),
                    })
                })
                .collect();
            let stats: serde_json::Map<String, Value> = trace["serviceStats"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(service, stats)| {
                    let number = |key: &str| stats[key].as_u64().unwrap_or(0);
                    (
                        service.clone(),
                        json!([number("spanCount"), number("errorCount")]),
                    )
                })
                .collect();
            json!({
                "id": format!("{:0>32}", trace["traceID"].as_str().unwrap()),
                "root": or_empty(&trace["rootServiceName"]),
                "name": or_empty(&trace["rootTraceName"]),
                "start": trace["startTimeUnixNano"],
                "ms": trace["durationMs"].as_u64().unwrap_or(0),
                "stats": stats,
                "sets": sorted(sets),
            })
        })
        .collect();
    sorted(traces)
}

/// A recorded search, with the same order of everything and ids in full.
pub(super) fn recorded_search(expect: &Value) -> Value {
    let traces = items(&expect["traces"])
        .map(|trace| {
            let mut trace = trace.clone();
            trace["id"] = json!(format!("{:0>32}", trace["id"].as_str().unwrap()));
            let sets = items(&trace["sets"])
                .map(|set| {
                    let spans = items(&set["spans"])
                        .map(|span| {
                            let mut span = span.clone();
                            span["attrs"] = recorded_attributes(&span["attrs"]);
                            if span["dur"].is_null() {
                                span["dur"] = json!("0");
                            }
                            // The order of keys as above.
                            json!({
                                "id": span["id"],
                                "name": or_empty(&span["name"]),
                                "start": span["start"],
                                "dur": span["dur"],
                                "attrs": span["attrs"],
                            })
                        })
                        .collect();
                    json!({
                        "matched": set["matched"],
                        "attrs": recorded_attributes(&set["attrs"]),
                        "spans": sorted(spans),
                    })
                })
                .collect();
            json!({
                "id": trace["id"],
                "root": or_empty(&trace["root"]),
                "name": or_empty(&trace["name"]),
                "start": trace["start"],
                "ms": trace["ms"],
                "stats": trace["stats"],
                "sets": sorted(sets),
            })
        })
        .collect();
    sorted(traces)
}

pub(super) fn tags(body: &[u8]) -> Value {
    let body = parse(body);
    let scopes: serde_json::Map<String, Value> = items(&body["scopes"])
        .map(|scope| {
            let tags = items(&scope["tags"]).filter(|tag| *tag != DEDICATED);
            let name = scope["name"].as_str().unwrap();
            (name.to_owned(), sorted(tags.cloned().collect()))
        })
        .collect();
    Value::Object(scopes)
}

/// Recorded names, without those that Tempo lists although no span that is asked about has them.
pub(super) fn recorded_tags(expect: &Value, answer: &Value, is_filtered: bool) -> Value {
    let scopes: serde_json::Map<String, Value> = expect["scopes"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(scope, tags)| {
            let ours = &answer[scope];
            let too_many = |tag: &Value| {
                is_filtered
                    && WELL_KNOWN.iter().any(|name| tag == name)
                    && !items(ours).any(|ours| ours == tag)
            };
            let tags = items(tags).filter(|tag| !too_many(tag)).cloned().collect();
            (scope.clone(), sorted(tags))
        })
        .collect();
    Value::Object(scopes)
}

pub(super) fn values(body: &[u8]) -> Value {
    let body = parse(body);
    let values = items(&body["tagValues"])
        .map(|value| json!([value["type"], or_empty(&value["value"])]))
        .collect();
    sorted(values)
}

pub(super) fn recorded_values(expect: &Value) -> Value {
    let values = items(&expect["values"]).cloned().collect();
    sorted(values)
}

/// Every span of a trace by id, with all that it has: a list.
///
/// # Panics
/// When the body is not JSON.
pub fn trace(body: &[u8]) -> Value {
    let body = parse(body);
    let mut spans = Vec::new();
    for batch in items(&body["trace"]["resourceSpans"]) {
        let resource = attributes(&batch["resource"]["attributes"]);
        for scope_spans in items(&batch["scopeSpans"]) {
            let scope = &scope_spans["scope"];
            let scope = json!([
                or_empty(&scope["name"]),
                or_empty(&scope["version"]),
                attributes(&scope["attributes"])
            ]);
            for span in items(&scope_spans["spans"]) {
                spans.push(
                    json!({"res": resource, "scope": scope, "span": span_of(span, attributes)}),
                );
            }
        }
    }
    sorted(spans)
}

pub(super) fn recorded_trace(expect: &Value) -> Value {
    let spans = items(&expect["spans"])
        .map(|span| {
            let scope = &span["scope"];
            json!({
                "res": recorded_attributes(&span["res"]),
                "scope": [scope[0], scope[1], recorded_attributes(&scope[2])],
                "span": span_of(&span["span"], recorded_attributes),
            })
        })
        .collect();
    sorted(spans)
}

/// A span with its attributes, and those of its events and links, in one form; lists that are
/// empty are the same as none.
fn span_of(span: &Value, attributes: fn(&Value) -> Value) -> Value {
    let mut span = span.clone();
    let object = span.as_object_mut().unwrap();
    for list in ["events", "links"] {
        for item in object
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            item["attributes"] = attributes(&item["attributes"]);
        }
    }
    let own = attributes(object.get("attributes").unwrap_or(&Value::Null));
    object.insert("attributes".to_owned(), own);
    object.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
    span
}
