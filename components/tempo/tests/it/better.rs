//! Where answers are meant to be better than Tempo's, so that none is recorded: numbers by value,
//! expressions on both sides, negation, alternatives, arrays, keywords, dedicated columns. What is
//! right is told by the naive evaluation of `tempo-testkit`; what is asked is the process, of blocks
//! that Tempo wrote, of live data, and of blocks that we wrote.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use tempo_proto::{opentelemetry::proto::common::v1::any_value::Value, tempopb::Trace};
use tempo_testkit::{
    golden::Golden,
    http_client::{self, encode},
    naive::{self, TraceData},
    process::{Options, Tempo},
};
use tempo_traceql::ParseOptions;

use crate::{
    golden::{AGE_SECONDS, push},
    support::{binary, copy_folder, flush, on_bucket, terminate, unix_seconds},
};

/// Searches that Tempo answers otherwise, or not at all.
const SEARCHES: [&str; 44] = [
    // Numbers compare by value, whatever their stored type.
    "{ span.num = 1.0 }",
    "{ resource.num = 1.0 }",
    "{ .k = 3.0 }",
    "{ .k > 56.5 }",
    "{ 56.5 < .k }",
    "{ .i.neg = -5.0 }",
    "{ .arr.i > 2.5 }",
    "{ .http.status_code = 500.0 || .http.status_code = 504.0 }",
    "{ .http.status_code != 200.0 && .http.status_code != 500.0 }",
    "{ .k = 3 || .k = 9.0 }",
    "{ resource.zone = 3.0 && resource.service.name = `gamma` }",
    "{ .ratio < 1 }",
    // Scalar expressions on both sides.
    "{ } | max(duration) - min(duration) > 80ms",
    "{ } | max(duration) - min(duration) > 1s",
    "{ .k != nil } | sum(.k) > count()",
    "{ } | count() * 2 = 24",
    "{ } | count() / 2 = 12",
    "{ } | count() > count() - 1",
    "{ .i != nil } | max(.i) - min(.i) = 24",
    "{ } | min(duration) * 2 > max(duration)",
    "{ } | by(resource.service.name) | max(duration) = min(duration)",
    // The constant first.
    "{ 3 < .k }",
    "{ 57 <= .k }",
    "{ 10 > .k }",
    "{ `g3` = .grp }",
    "{ 500ms > duration && 100ms < duration }",
    // Negation.
    "{ !(.k < 58) }",
    "{ !(.grp = `g3`) && .k != nil }",
    "{ !(.k = 1 || .k = 2) && .k < 5 }",
    "{ !(!(.grp = `g3`)) }",
    "{ !(.rare != nil) && .grp = `g3` }",
    "{ !(kind = server) && !(status = unset) }",
    // Alternatives of attributes alone.
    "{ span.odd || span.hot }",
    "{ span.odd || resource.service.name = `gamma` }",
    "{ .b.true || .odd }",
    "{ true || span.odd }",
    // Integers to a power.
    "{ 2 ^ 3 = .k }",
    "{ .k ^ 2 = 9 }",
    // Arrays: one element must do, all of them for denials, and chains see each element.
    "{ .tags != `p` }",
    "{ .tags = `p` || .tags = `q` }",
    "{ .tags != `p` && .tags != `q` }",
    "{ .tags =~ `p` || .tags =~ `r` }",
    "{ .tags !~ `p` && .tags !~ `r` }",
    "{ .arr.i = 1 || .arr.i = 2 }",
];

/// Trace ids, and the span ids of each set.
type Found = BTreeMap<String, Vec<BTreeSet<String>>>;

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The traces that were sent, each as one.
fn decoded(golden: &Golden) -> Vec<(String, Trace)> {
    let whole = |parts: &Vec<Vec<u8>>| {
        let parts = parts.iter().map(|part| Trace::decode(&**part).unwrap());
        let resource_spans = parts.flat_map(|part| part.resource_spans).collect();
        Trace { resource_spans }
    };
    golden
        .traces()
        .iter()
        .map(|(id, parts)| (hex(id.as_bytes()), whole(parts)))
        .collect()
}

fn wanted(query: &str, traces: &[(String, TraceData)]) -> Found {
    let options = ParseOptions {
        skip_rewrites: true,
        ..ParseOptions::default()
    };
    let query = tempo_traceql::parse_with(query, &options).unwrap();
    let mut found = Found::new();
    for (id, trace) in traces {
        let sets = naive::search(&query, trace)
            .unwrap_or_else(|error| panic!("{query}: {error:?} in {id}"));
        let ids = |set: naive::SpanSet| -> BTreeSet<String> {
            let spans = set.spans.iter();
            spans.map(|&span| hex(trace.span_id(span))).collect()
        };
        let mut sets: Vec<BTreeSet<String>> = sets.into_iter().map(ids).collect();
        sets.sort();
        if !sets.is_empty() {
            found.insert(id.clone(), sets);
        }
    }
    found
}

fn found(tempo: &Tempo, golden: &Golden, query: &str) -> Found {
    let path = format!(
        "/api/search?q={}&limit=1000&spss=100&{}",
        encode(query),
        golden.range()
    );
    let answer = http_client::get(&tempo.http, &path).unwrap();
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    let body = answer.json();
    let mut found = Found::new();
    for trace in body["traces"].as_array().unwrap() {
        let mut sets: Vec<BTreeSet<String>> = Vec::new();
        for set in trace["spanSets"].as_array().unwrap() {
            let spans = set["spans"].as_array().unwrap();
            let ids = spans.iter().map(|span| span["spanID"].as_str().unwrap());
            sets.push(ids.map(str::to_owned).collect());
        }
        sets.sort();
        let id = format!("{:0>32}", trace["traceID"].as_str().unwrap());
        found.insert(id, sets);
    }
    found
}

/// The values of a tag with their types.
fn values(tempo: &Tempo, golden: &Golden, tag: &str) -> BTreeSet<(String, String)> {
    let path = format!(
        "/api/v2/search/tag/{}/values?{}",
        encode(tag),
        golden.range()
    );
    let body = http_client::get(&tempo.http, &path).unwrap().json();
    let values = body["tagValues"].as_array().unwrap().iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    values
        .map(|value| (text(&value["type"]), text(&value["value"])))
        .collect()
}

fn check(way: &str, tempo: &Tempo, golden: &Golden) {
    let decoded = decoded(golden);
    let traces: Vec<(String, TraceData)> = decoded
        .iter()
        .map(|(id, trace)| (id.clone(), TraceData::new(id.as_bytes(), trace)))
        .collect();
    let mut with_results = 0;
    for query in SEARCHES {
        let wanted = wanted(query, &traces);
        assert_eq!(found(tempo, golden, query), wanted, "{way}: {query}");
        with_results += usize::from(!wanted.is_empty());
    }
    assert!(
        with_results * 4 > SEARCHES.len() * 3,
        "{with_results} find something"
    );

    // Keywords everywhere.
    for (tag, wanted) in [
        ("status", &["error", "ok", "unset"][..]),
        (
            "kind",
            &[
                "client",
                "consumer",
                "internal",
                "producer",
                "server",
                "unspecified",
            ],
        ),
    ] {
        let keyword = |value: &&str| ("keyword".to_owned(), (*value).to_owned());
        let wanted: BTreeSet<_> = wanted.iter().map(keyword).collect();
        assert_eq!(values(tempo, golden, tag), wanted, "{way}: {tag}");
    }
    // In a dedicated column of Tempo's blocks.
    let spans = decoded
        .iter()
        .flat_map(|(_, trace)| &trace.resource_spans)
        .flat_map(|batch| &batch.scope_spans)
        .flat_map(|scope| &scope.spans);
    let routes: BTreeSet<(String, String)> = spans
        .flat_map(|span| &span.attributes)
        .filter(|attribute| attribute.key == "http.route")
        .filter_map(
            |attribute| match attribute.value.as_ref()?.value.as_ref()? {
                Value::StringValue(route) => Some(("string".to_owned(), route.clone())),
                _ => None,
            },
        )
        .collect();
    assert!(!routes.is_empty());
    assert_eq!(values(tempo, golden, "span.http.route"), routes, "{way}");
    // Of what matches no pattern, nothing is counted twice.
    let counted = format!(
        "/api/metrics/query?q={}&start={}&end={}",
        encode("{ name !~ `.*a.*` && name !~ `.*e.*` } | count_over_time()"),
        golden.t0 - 60,
        golden.t0 + 120
    );
    let answer = http_client::get(&tempo.http, &counted).unwrap();
    let names = decoded
        .iter()
        .flat_map(|(_, trace)| &trace.resource_spans)
        .flat_map(|batch| &batch.scope_spans)
        .flat_map(|scope| &scope.spans)
        .filter(|span| !span.name.contains(['a', 'e']));
    assert_eq!(
        answer.json()["series"][0]["value"],
        names.count() as f64,
        "{way}: {}",
        answer.text()
    );
    // A pattern is checked before chains are made one.
    let broken = format!("/api/search?q={}", encode("{ .a =~ `x` || .a =~ `[` }"));
    let refused = http_client::get(&tempo.http, &broken).unwrap();
    assert_eq!(refused.status, 400);
    assert!(
        refused.text().contains("invalid regex"),
        "{}",
        refused.text()
    );
}

#[test]
fn blocks_that_tempo_wrote_are_answered_better() {
    let golden = Golden::load();
    for format in ["vparquet4", "vparquet5"] {
        let bucket = tempfile::tempdir().unwrap();
        copy_folder(&golden.folder.join("blocks").join(format), bucket.path()).unwrap();
        check(
            &format!("recorded {format}"),
            &on_bucket(bucket.path(), ""),
            &golden,
        );
    }
}

#[test]
fn live_data_and_our_blocks_are_answered_as_well() {
    let begin = i64::try_from(unix_seconds() - AGE_SECONDS).unwrap();
    let golden = Golden::load().moved_to(begin);
    let mut tempo = Tempo::configure(&binary(), &Options::default()).unwrap();
    tempo.start().unwrap();
    push(&tempo, &golden);
    check("live", &tempo, &golden);
    flush(&tempo);
    check("flushed", &tempo, &golden);
    terminate(&mut tempo);
    let bucket = tempo.data().join("blocks");
    check("ours", &on_bucket(&bucket, ""), &golden);
}
