//! Answers recorded from Grafana Tempo.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};
use tempo_engine::{
    FoundSpanSet, FoundTrace, SearchOptions, TagFilter, TagValueLimits, Value, search, tag_names,
    tag_values,
};
use tempo_table::{ArrayValue, AttributeScope, MemoryTable, MemoryTableBuilder, SpanTable};
use tempo_testkit::golden::{self, Golden};
use tempo_traceql::{DEFAULT_MAX_CONDITION_GROUPS, condition_groups, parse, parse_identifier};

use crate::support::{limits, options, plan};

/// Kinds of cases that are answered here. Metrics are computed elsewhere, and whole traces are
/// not the engine's.
const SUPPORTED: [&str; 4] = ["search", "search_error", "values", "tags"];
const UNSUPPORTED: [&str; 4] = ["range", "range_error", "instant", "trace"];

/// Attributes in dedicated columns of the recorded blocks. Tempo does not see them when it lists
/// names; we do.
const DEDICATED: [&str; 5] = [
    "http.request.method",
    "url.path",
    "url.route",
    "server.address",
    "http.route",
];

/// Attributes in columns of their own in vParquet4. With conditions Tempo lists their names for
/// the whole row group; we list them for the spans that meet the conditions.
const WELL_KNOWN: [&str; 3] = ["http.method", "http.url", "http.status_code"];

pub(crate) fn read(name: &str) -> Vec<u8> {
    let path = golden::folder().join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn table() -> MemoryTable {
    let mut builder = MemoryTableBuilder::new();
    for (id, chunks) in Golden::load().traces() {
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        builder.push_trace(id, &chunks).unwrap();
    }
    builder.finish()
}

/// As OTLP's JSON has it.
pub(crate) fn any_value(value: &Value) -> Json {
    let string = |text: &str| json!({ "stringValue": text });
    match value {
        Value::Nil => string("nil"),
        Value::String(text) => string(text),
        Value::Int(value) => json!({ "intValue": value.to_string() }),
        Value::Float(value) => json!({ "doubleValue": value }),
        Value::Bool(value) => json!({ "boolValue": value }),
        Value::Duration(nanos) => string(&tempo_traceql::Static::Duration(*nanos).to_string()),
        Value::Status(status) => string(status.name()),
        Value::Kind(kind) => string(kind.name()),
        Value::Array(array) => {
            let values: Vec<Json> = match array {
                ArrayValue::Empty => Vec::new(),
                ArrayValue::Strings(items) => items.iter().map(|item| string(item)).collect(),
                ArrayValue::Ints(items) => items
                    .iter()
                    .map(|item| json!({ "intValue": item.to_string() }))
                    .collect(),
                ArrayValue::Floats(items) => items
                    .iter()
                    .map(|item| json!({ "doubleValue": item }))
                    .collect(),
                ArrayValue::Bools(items) => items
                    .iter()
                    .map(|item| json!({ "boolValue": item }))
                    .collect(),
            };
            json!({ "arrayValue": { "values": values } })
        }
    }
}

/// Numbers of one value print alike, whether as 12 or as 12.0.
pub(crate) fn normal(json: &Json) -> Json {
    match json {
        Json::Number(number) => json!(number.as_f64()),
        Json::Array(items) => items.iter().map(normal).collect(),
        Json::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), normal(value)))
            .collect(),
        other => other.clone(),
    }
}

fn attributes<'a>(attributes: impl Iterator<Item = (&'a str, Json)>) -> Json {
    let mut sorted: Vec<(String, String)> = attributes
        .map(|(key, value)| (key.to_owned(), normal(&value).to_string()))
        .collect();
    sorted.sort();
    json!(sorted)
}

fn span_set(set: &FoundSpanSet) -> Json {
    let mut spans: Vec<Json> = set
        .spans
        .iter()
        .map(|span| {
            json!({
                "id": format!("{:016x}", u64::from_be_bytes(span.span_id)),
                "name": span.name.as_deref().unwrap_or_default(),
                "start": span.start_unix_nano.to_string(),
                "dur": span.duration_nano.to_string(),
                "attrs": attributes(span.attributes.iter().map(|(key, value)| (&**key, any_value(value)))),
            })
        })
        .collect();
    spans.sort_by_key(|span| span["id"].to_string());
    json!({
        "matched": set.matched,
        "attrs": attributes(set.attributes.iter().map(|(key, value)| (&**key, any_value(value)))),
        "spans": spans,
    })
}

fn sorted(mut items: Vec<Json>) -> Json {
    items.sort_by_key(Json::to_string);
    json!(items)
}

fn trace(found: &FoundTrace) -> (String, Json) {
    let root = match &*found.root_service_name {
        "" => "<root span not yet received>",
        name => name,
    };
    let stats: BTreeMap<&str, (u32, u32)> = found
        .service_stats
        .iter()
        .map(|service| (&*service.name, (service.spans, service.errors)))
        .collect();
    let answer = json!({
        "root": root,
        "name": &*found.root_trace_name,
        "start": found.start_unix_nano.to_string(),
        "ms": found.duration_nano / 1_000_000,
        "stats": stats,
        "sets": sorted(found.span_sets.iter().map(span_set).collect()),
    });
    (found.trace_id.to_string(), answer)
}

fn expected_trace(expected: &Json) -> (String, Json) {
    let expected_attributes = |list: &Json| {
        attributes(list.as_array().unwrap().iter().map(|pair| {
            let value: Json = serde_json::from_str(pair[1].as_str().unwrap()).unwrap();
            (pair[0].as_str().unwrap(), value)
        }))
    };
    let sets = expected["sets"].as_array().unwrap().iter().map(|set| {
        let mut spans: Vec<Json> = set["spans"]
            .as_array()
            .unwrap()
            .iter()
            .map(|span| {
                json!({
                    "id": span["id"],
                    "name": span["name"],
                    "start": span["start"],
                    "dur": span["dur"],
                    "attrs": expected_attributes(&span["attrs"]),
                })
            })
            .collect();
        spans.sort_by_key(|span| span["id"].to_string());
        json!({
            "matched": set["matched"],
            "attrs": expected_attributes(&set["attrs"]),
            "spans": spans,
        })
    });
    let stats: BTreeMap<String, Json> = serde_json::from_value(expected["stats"].clone()).unwrap();
    let answer = json!({
        "root": expected["root"],
        "name": expected["name"],
        "start": expected["start"],
        "ms": expected["ms"],
        "stats": stats,
        "sets": sorted(sets.collect()),
    });
    (expected["id"].as_str().unwrap().to_owned(), answer)
}

struct Asked {
    table: MemoryTable,
    t0: u64,
    short_id: String,
}

impl Asked {
    fn search(&self, case: &Json, expect: &Json) -> Result<(), String> {
        let query = case["q"]
            .as_str()
            .unwrap()
            .replace("SHORTID", &self.short_id);
        let seconds = 1_000_000_000;
        let time_range_nano = Some(((self.t0 - 60) * seconds, (self.t0 + 180) * seconds));
        let options = SearchOptions {
            time_range_nano,
            ..options()
        };
        let output = search(&plan(&query), &self.table, &options).map_err(|e| e.to_string())?;
        let got: BTreeMap<String, Json> = output.traces.iter().map(trace).collect();
        let want: BTreeMap<String, Json> = expect["traces"]
            .as_array()
            .unwrap()
            .iter()
            .map(expected_trace)
            .collect();
        let ids: BTreeSet<&String> = got.keys().chain(want.keys()).collect();
        for id in ids {
            if got.get(id) != want.get(id) {
                return Err(format!(
                    "trace {id}:\n   got {}\n  want {}",
                    got.get(id).unwrap_or(&Json::Null),
                    want.get(id).unwrap_or(&Json::Null)
                ));
            }
        }
        Ok(())
    }

    fn search_error(&self, case: &Json, expect: &Json) -> Result<(), String> {
        let query = case["q"].as_str().unwrap();
        let got = match parse(query) {
            Ok(_) => "no error".to_owned(),
            Err(error) => format!("invalid TraceQL query: {error}"),
        };
        same(&json!(got), &expect["error"])
    }

    fn filter(&self, case: &Json) -> TagFilter {
        let query = case["q"].as_str().unwrap_or_default();
        TagFilter::new(&condition_groups(query, DEFAULT_MAX_CONDITION_GROUPS).unwrap()).unwrap()
    }

    fn values(&self, case: &Json, expect: &Json) -> Result<(), String> {
        let tag = parse_identifier(case["tag"].as_str().unwrap()).map_err(|e| e.to_string())?;
        let values = tag_values(
            &self.table,
            &tag,
            &self.filter(case),
            TagValueLimits::default(),
            limits(),
        )
        .map_err(|e| e.to_string())?;
        let got = values
            .iter()
            .map(|value| json!([value.value_type.name(), &*value.value]));
        let want = expect["values"].as_array().unwrap().clone();
        same(&sorted(got.collect()), &sorted(want))
    }

    fn tags(&self, case: &Json, expect: &Json) -> Result<(), String> {
        let scope = match case["scope"].as_str().unwrap() {
            "" => None,
            "span" => Some(AttributeScope::Span),
            "resource" => Some(AttributeScope::Resource),
            "event" => Some(AttributeScope::Event),
            "link" => Some(AttributeScope::Link),
            "instrumentation" => Some(AttributeScope::Instrumentation),
            other => panic!("unknown scope {other}"),
        };
        let names = tag_names(&self.table, scope, &self.filter(case), limits())
            .map_err(|e| e.to_string())?;
        let got: BTreeMap<&str, Vec<&str>> = names
            .iter()
            .map(|(scope, names)| {
                let scope = match scope {
                    AttributeScope::Span => "span",
                    AttributeScope::Resource => "resource",
                    AttributeScope::Event => "event",
                    AttributeScope::Link => "link",
                    AttributeScope::Instrumentation => "instrumentation",
                };
                (scope, names.iter().map(|name| &**name).collect())
            })
            .collect();
        let is_filtered = case["q"].is_string();
        let counts =
            |name: &str| !(DEDICATED.contains(&name) || is_filtered && WELL_KNOWN.contains(&name));
        let got: BTreeMap<&str, Vec<&str>> = got
            .into_iter()
            .map(|(scope, names)| {
                (
                    scope,
                    names.into_iter().filter(|name| counts(name)).collect(),
                )
            })
            .collect();
        let want: BTreeMap<&str, Vec<&str>> = expect["scopes"]
            .as_object()
            .unwrap()
            .iter()
            // A fixed list that the API adds.
            .filter(|(scope, _)| *scope != "intrinsic")
            .map(|(scope, names)| {
                let names = names.as_array().unwrap().iter().filter_map(Json::as_str);
                (&**scope, names.filter(|name| counts(name)).collect())
            })
            .collect();
        same(&json!(got), &json!(want))
    }
}

fn same(got: &Json, want: &Json) -> Result<(), String> {
    if got == want {
        return Ok(());
    }
    Err(format!("\n   got {got}\n  want {want}"))
}

#[test]
fn every_recorded_search_and_completion_is_answered_alike() {
    let cases: Json = serde_json::from_slice(&read("cases.json")).unwrap();
    let table = table();
    let structure = table.structure().unwrap();
    assert_eq!((structure.traces(), structure.spans()), (192, 1073));
    let short_id = table
        .trace_ids()
        .map(|id| id.to_string())
        .find_map(|id| id.strip_prefix("0000000000000000").map(str::to_owned));
    let golden = Asked {
        t0: cases["t0"].as_u64().unwrap(),
        short_id: short_id.unwrap(),
        table,
    };
    let mut failures = Vec::new();
    let mut total = 0;
    let mut kinds: BTreeSet<String> = BTreeSet::new();
    for case in cases["cases"].as_array().unwrap() {
        let (case, expect) = (&case["case"], &case["expect"]);
        let kind = case["kind"].as_str().unwrap();
        kinds.insert(kind.to_owned());
        let outcome = match kind {
            "search" => golden.search(case, expect),
            "search_error" => golden.search_error(case, expect),
            "values" => golden.values(case, expect),
            "tags" => golden.tags(case, expect),
            _ => continue,
        };
        total += 1;
        if let Err(failure) = outcome {
            failures.push(format!("{case}: {failure}"));
        }
    }
    println!("{} of {total} pass", total - failures.len());
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n\n"));
    let known: BTreeSet<String> = SUPPORTED
        .iter()
        .chain(&UNSUPPORTED)
        .map(|&kind| kind.to_owned())
        .collect();
    assert_eq!(kinds, known, "a kind of case that nobody has decided about");
    assert_eq!(total, 169);
}
