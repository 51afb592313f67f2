//! What is asked: one request per class of query.

use std::collections::BTreeSet;

use serde_json::Value;
use tempo_testkit::http_client::encode;

use crate::data::Data;

/// Enough for every trace of the data.
const ALL_TRACES: u64 = 200_000;
/// Seconds between points of a series.
const STEP_SECONDS: u64 = 15;
const MAX_TAGS: u64 = 5000;
const EXEMPLARS: u64 = 100;

/// How the request of a class is built, and what is counted in its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A trace by id; the answer's bytes are counted.
    Trace { hit: bool },
    /// A search with a limit; traces.
    Search { limit: u64 },
    /// A range query; series.
    Metrics,
    /// Tag names of all scopes.
    Tags,
    /// Values of a tag, with a filter or without.
    Values { tag: &'static str },
}

/// One class.
#[derive(Debug, Clone)]
pub(crate) struct Class {
    /// Its name in the table.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) query: String,
    /// Whether an answer without results is the right one.
    pub(crate) is_empty: bool,
}

impl Class {
    /// What to ask for. Each `turn` asks for the same in other words (a limit or a number of
    /// exemplars that changes nothing, another trace), so that no answer kept from before serves.
    pub(crate) fn path(&self, data: &Data, turn: u64) -> String {
        let (query, start, end) = (encode(&self.query), data.start, data.end);
        match self.kind {
            Kind::Trace { hit: true } => {
                let at = turn as usize % data.ids.len().max(1);
                let id = data.ids.get(at).map_or("", String::as_str);
                format!("/api/v2/traces/{id}")
            }
            Kind::Trace { hit: false } => {
                // Spread like real ids.
                let high = (turn + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                format!("/api/v2/traces/{high:016x}{:016x}", !high)
            }
            Kind::Search { limit } => {
                // A small limit decides when a search ends: there other spans per trace do it, as
                // far as there may be that many.
                let (limit, spans) = if limit == ALL_TRACES {
                    (limit + turn, 3)
                } else {
                    (limit + turn / 98, 3 + turn % 98)
                };
                format!("/api/search?q={query}&limit={limit}&spss={spans}&start={start}&end={end}")
            }
            Kind::Metrics => {
                let exemplars = EXEMPLARS - turn % EXEMPLARS;
                format!(
                    "/api/metrics/query_range?q={query}&start={start}&end={end}&step={STEP_SECONDS}s&exemplars={exemplars}"
                )
            }
            Kind::Tags => format!(
                "/api/v2/search/tags?limit={}&start={start}&end={end}",
                MAX_TAGS + turn
            ),
            Kind::Values { tag } => format!(
                "/api/v2/search/tag/{tag}/values?q={query}&limit={}&start={start}&end={end}",
                MAX_TAGS + turn
            ),
        }
    }

    /// What an answer has.
    pub(crate) fn answer(&self, answer: &Value) -> Answer {
        let mut found = Answer::default();
        match self.kind {
            Kind::Trace { .. } => found.name_each(spans(&answer["trace"]), &["spanId"]),
            Kind::Search { .. } => found.name_each(list(&answer["traces"]), &["traceID"]),
            Kind::Metrics => {
                for series in list(&answer["series"]) {
                    let labels = list(&series["labels"]).map(Value::to_string);
                    let labels: BTreeSet<String> = labels.collect();
                    found.names.insert(format!("{labels:?}"));
                    let samples = list(&series["samples"]);
                    found.sum += samples
                        .filter_map(|sample| sample["value"].as_f64())
                        .sum::<f64>();
                }
            }
            Kind::Tags => {
                for scope in list(&answer["scopes"]) {
                    let tags = list(&scope["tags"]);
                    let names = tags.map(|tag| format!("{} {tag}", scope["name"]));
                    found.names.extend(names);
                }
            }
            Kind::Values { .. } => {
                found.name_each(list(&answer["tagValues"]), &["type", "value"]);
            }
        }
        found
    }
}

/// The results of one answer, by what tells them apart.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answer {
    /// Span or trace ids, labels of series, names or values of tags.
    pub(crate) names: BTreeSet<String>,
    /// Of all samples of all series.
    pub(crate) sum: f64,
}

impl Answer {
    fn name_each<'a>(&mut self, results: impl Iterator<Item = &'a Value>, keys: &[&str]) {
        let name = |result: &Value| keys.iter().map(|key| result[key].to_string()).collect();
        self.names.extend(results.map(name));
    }

    /// How many results there are.
    pub(crate) fn len(&self) -> u64 {
        self.names.len() as u64
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn spans(trace: &Value) -> impl Iterator<Item = &Value> {
    list(&trace["resourceSpans"])
        .flat_map(|resource| list(&resource["scopeSpans"]))
        .flat_map(|scope| list(&scope["spans"]))
}

/// All classes, in the order of the table.
pub(crate) fn classes(data: &Data) -> Vec<Class> {
    let class = |name, kind, query: &str| Class {
        name,
        kind,
        query: query.to_owned(),
        is_empty: false,
    };
    let all = Kind::Search { limit: ALL_TRACES };
    let first = Kind::Search { limit: 20 };
    let empty = |class: Class| Class {
        is_empty: true,
        ..class
    };
    let values = |tag| Kind::Values { tag };
    let user = format!("{{ span.user.id = \"{}\" }}", data.user);
    vec![
        class("trace by id, hit", Kind::Trace { hit: true }, ""),
        empty(class("trace by id, miss", Kind::Trace { hit: false }, "")),
        class("{ }, 20 traces", first, "{ }"),
        class(
            "generic attribute, 20 traces",
            first,
            "{ span.component = \"kafka\" }",
        ),
        class(
            "generic attribute, all",
            all,
            "{ span.thread.id = 17 && span.component = \"kafka\" }",
        ),
        class("generic attribute, rare value", all, &user),
        class(
            "dedicated column, all",
            all,
            "{ span.server.address = \"host-150.internal\" }",
        ),
        class(
            "intrinsics only, all",
            all,
            "{ status = error && duration > 30ms }",
        ),
        class(
            "service, all",
            all,
            "{ resource.service.name = \"service-100\" }",
        ),
        class(
            "regex, generic attribute, all",
            all,
            "{ span.db.query.text =~ \".*FROM carts3 .*\" }",
        ),
        class(
            "regex, dedicated column, all",
            all,
            "{ span.url.path =~ \"/api/v1/orders2/12.*\" }",
        ),
        empty(class(
            "no match, span attribute",
            all,
            "{ span.absent = \"none\" }",
        )),
        empty(class("no match, unscoped", all, "{ .absent = \"none\" }")),
        class(
            "structural >>, all",
            all,
            "{ resource.service.name = \"service-010\" } >> { status = error }",
        ),
        class(
            "structural >, all",
            all,
            "{ resource.service.name = \"service-010\" } > { status = error }",
        ),
        class(
            "structural ~, all",
            all,
            "{ resource.service.name = \"service-010\" } ~ { status = error }",
        ),
        class(
            "structural !>>, all",
            all,
            "{ resource.service.name = \"service-010\" } !>> { status = error }",
        ),
        class("count per trace, all", all, "{ } | count() > 50"),
        class("rate", Kind::Metrics, "{ } | rate()"),
        class(
            "rate by service",
            Kind::Metrics,
            "{ } | rate() by (resource.service.name)",
        ),
        class(
            "rate by generic attribute",
            Kind::Metrics,
            "{ } | rate() by (span.component)",
        ),
        class(
            "quantiles by service",
            Kind::Metrics,
            "{ } | quantile_over_time(duration, .5, .99) by (resource.service.name)",
        ),
        class(
            "histogram",
            Kind::Metrics,
            "{ } | histogram_over_time(duration)",
        ),
        class(
            "compare",
            Kind::Metrics,
            "{ } | compare({ status = error })",
        ),
        class("tag names", Kind::Tags, ""),
        class("tag values", values("span.http.route"), ""),
        class(
            "tag values, generic attribute",
            values("span.component"),
            "",
        ),
        class(
            "tag values, filtered",
            values("span.user.id"),
            "{ resource.service.name = \"service-100\" }",
        ),
    ]
}
