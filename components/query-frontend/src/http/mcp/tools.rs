//! The tools: what they are called, what they take, and which endpoint answers them.

use bytes::Bytes;
use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Map, Value, json};
use tempo_api::{Encoding, params::DiffFormat};
use tempo_backend::Timestamp;
use tempo_traceql::ast::QueryBody;

use super::{
    Arguments,
    documents::{self, Document},
};
use crate::{
    frontend::Frontend,
    http::{
        endpoint::{Asked, Endpoint},
        within_timeout,
    },
    tenants::Tenants,
};

/// How far back a tool looks when it is not told, in seconds.
const DEFAULT_RANGE_SECONDS: i64 = 3_600;

/// A tool that models are offered.
pub(super) struct Offer {
    pub(super) name: &'static str,
    about: &'static str,
    arguments: &'static [Argument],
    pub(super) result: ResultKind,
    action: Action,
}

/// An argument; all are texts.
struct Argument {
    name: &'static str,
    about: &'static str,
    required: bool,
}

/// What a result is called in its metadata.
pub(super) struct ResultKind {
    pub(super) kind: &'static str,
    pub(super) encoding: &'static str,
    /// Grows with the shape of the result.
    pub(super) version: &'static str,
}

enum Action {
    Search,
    Metrics(Endpoint),
    Trace,
    TraceDiff,
    AttributeNames,
    AttributeValues,
    Document(fn() -> &'static [Document]),
}

const fn required(name: &'static str, about: &'static str) -> Argument {
    Argument {
        name,
        about,
        required: true,
    }
}

const fn optional(name: &'static str, about: &'static str) -> Argument {
    Argument {
        name,
        about,
        required: false,
    }
}

const fn result(kind: &'static str, encoding: &'static str, version: &'static str) -> ResultKind {
    ResultKind {
        kind,
        encoding,
        version,
    }
}

const START: Argument = optional(
    "start",
    "Where to begin, in RFC 3339 (2026-01-31T10:00:00Z). An hour before the end if absent.",
);
const END: Argument = optional("end", "Where to end, in RFC 3339. Now if absent.");

static OFFERS: &[Offer] = &[
    Offer {
        name: "traceql-search",
        about: "Finds traces with spans that match a TraceQL query, such as \
            { resource.service.name = \"shop\" && status = error }. For numbers over time use \
            traceql-metrics-range.",
        arguments: &[required("query", "The TraceQL search."), START, END],
        result: result("search-results", "json", "1"),
        action: Action::Search,
    },
    Offer {
        name: "traceql-metrics-instant",
        about: "Computes one number per series over a whole time range from a TraceQL metrics \
            query, such as { status = error } | count_over_time() by (resource.service.name). \
            Prefer it to traceql-metrics-range unless the course over time matters.",
        arguments: &[required("query", "The TraceQL metrics query."), START, END],
        result: result("metrics-instant", "json", "1"),
        action: Action::Metrics(Endpoint::MetricsInstant),
    },
    Offer {
        name: "traceql-metrics-range",
        about: "Computes series over time from a TraceQL metrics query, such as \
            { kind = server } | quantile_over_time(duration, .99).",
        arguments: &[required("query", "The TraceQL metrics query."), START, END],
        result: result("metrics-range", "json", "1"),
        action: Action::Metrics(Endpoint::MetricsRange),
    },
    Offer {
        name: "get-trace",
        about: "Returns a whole trace: its services, spans, attributes and events.",
        arguments: &[required("trace_id", "The trace's id, in hexadecimal.")],
        result: result("trace", "json", "2"),
        action: Action::Trace,
    },
    Offer {
        name: "trace-diff",
        about: "Compares two traces: which spans one has and the other lacks, and how durations and \
            attributes differ. Useful with a slow or failed trace beside a good one.",
        arguments: &[
            required(
                "base_trace_id",
                "The trace to compare with, in hexadecimal.",
            ),
            required("compare_trace_id", "The trace to compare, in hexadecimal."),
            optional(
                "base_start",
                "Begin of the time that holds the first trace, in RFC 3339.",
            ),
            optional(
                "base_end",
                "End of the time that holds the first trace, in RFC 3339.",
            ),
            optional(
                "compare_start",
                "Begin of the time that holds the second trace, in RFC 3339.",
            ),
            optional(
                "compare_end",
                "End of the time that holds the second trace, in RFC 3339.",
            ),
            optional(
                "format",
                "trace-patch-v0 for every change, trace-summary-v0-native for sums per service, \
                trace-summary-v0-composed (the default) for sums, and the changes if they are few.",
            ),
        ],
        result: result("trace-diff", "json", "2"),
        action: Action::TraceDiff,
    },
    Offer {
        name: "get-attribute-names",
        about: "Lists the names of attributes of the last hour's spans, by scope. Use it to learn \
            what a query can ask for.",
        arguments: &[optional(
            "scope",
            "Only this scope: span, resource, event, link, instrumentation, intrinsic.",
        )],
        result: result("attribute-names", "json", "2"),
        action: Action::AttributeNames,
    },
    Offer {
        name: "get-attribute-values",
        about: "Lists the values of an attribute of the last hour's spans.",
        arguments: &[
            required(
                "name",
                "The attribute with its scope, such as resource.service.name.",
            ),
            optional(
                "filter-query",
                "Only values of spans that match this TraceQL filter.",
            ),
        ],
        result: result("attribute-values", "json", "2"),
        action: Action::AttributeValues,
    },
    Offer {
        name: "docs-traceql",
        about: "Explains TraceQL. basic: filters and attributes; aggregates: counting and grouping \
            within traces; structural: parents, children, siblings; metrics: numbers over time.",
        arguments: &[required(
            "name",
            "One of basic, aggregates, structural, metrics.",
        )],
        result: result("documentation", "markdown", "1"),
        action: Action::Document(|| documents::TRACEQL_TOPICS),
    },
    Offer {
        name: "docs-config",
        about: "Explains the configuration of this tracing backend.",
        arguments: &[required(
            "name",
            "One of config-overview, config-reference.",
        )],
        result: result("documentation", "markdown", "1"),
        action: Action::Document(|| documents::CONFIGURATION),
    },
];

pub(super) fn all() -> impl Iterator<Item = &'static Offer> {
    OFFERS.iter()
}

impl Offer {
    /// The tool as the protocol describes it.
    pub(super) fn describe(&self) -> Tool {
        let properties = self.arguments.iter().map(|argument| {
            let schema = json!({ "type": "string", "description": argument.about });
            (argument.name.to_owned(), schema)
        });
        let required = self.arguments.iter().filter(|argument| argument.required);
        let required: Vec<&str> = required.map(|argument| argument.name).collect();
        let mut schema = JsonObject::new();
        schema.insert("type".to_owned(), Value::from("object"));
        schema.insert(
            "properties".to_owned(),
            Value::Object(Map::from_iter(properties)),
        );
        schema.insert("required".to_owned(), Value::from(required));
        let annotations = ToolAnnotations::new()
            .read_only(true)
            .destructive(false)
            .idempotent(true)
            .open_world(false);
        Tool::new(self.name, self.about, schema).with_annotations(annotations)
    }

    /// Checks the arguments of a call; the error tells what to mend.
    pub(super) fn read(&self, given: &JsonObject) -> Result<Arguments, String> {
        let mut arguments = Arguments::new();
        for (name, value) in given {
            let known = self.arguments.iter().find(|known| known.name == name);
            let known = known.ok_or_else(|| {
                let names: Vec<&str> = self.arguments.iter().map(|known| known.name).collect();
                format!(
                    "unknown argument \"{name}\"; {} takes {}",
                    self.name,
                    names.join(", ")
                )
            })?;
            match value {
                Value::String(text) => arguments.insert(known.name, text.clone()),
                Value::Null => continue,
                _ => return Err(format!("argument \"{name}\" is not a string")),
            };
        }
        for argument in self.arguments.iter().filter(|argument| argument.required) {
            if arguments.get(argument.name).is_none_or(String::is_empty) {
                return Err(format!("required argument \"{}\" not found", argument.name));
            }
        }
        Ok(arguments)
    }
}

/// Asks what a tool asks.
///
/// # Errors
/// A text for the model.
pub(super) async fn call(
    offer: &Offer,
    frontend: &Frontend,
    tenants: &Tenants,
    arguments: &Arguments,
) -> Result<String, String> {
    let (endpoint, question) = match &offer.action {
        Action::Document(topics) => return document(topics(), text(arguments, "name")),
        Action::Search => (Endpoint::Search, search(arguments)?),
        Action::Metrics(endpoint) => (*endpoint, metrics(*endpoint, arguments)?),
        Action::Trace => (Endpoint::TraceV2, trace(arguments)),
        Action::TraceDiff => (Endpoint::TraceDiff, trace_diff(arguments)?),
        Action::AttributeNames => (Endpoint::TagNamesV2, attribute_names(arguments)?),
        Action::AttributeValues => (Endpoint::TagValuesV2, attribute_values(arguments)?),
    };
    question.ask(endpoint, frontend, tenants).await
}

/// A request to an endpoint.
struct Question {
    path: String,
    query: String,
    body: Option<Bytes>,
}

impl Question {
    /// Escapes the parameters; those without a value are left out.
    fn get(path: impl Into<String>, parameters: &[(&str, Option<&str>)]) -> Self {
        let parameters = parameters
            .iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", escaped((*value)?))));
        Self {
            path: path.into(),
            query: parameters.collect::<Vec<_>>().join("&"),
            body: None,
        }
    }

    async fn ask(
        self,
        endpoint: Endpoint,
        frontend: &Frontend,
        tenants: &Tenants,
    ) -> Result<String, String> {
        let url = frontend.api_path(&format!("{}?{}", self.path, self.query));
        let asked = Asked {
            path: &self.path,
            query: &self.query,
            url: &url,
            method: if self.body.is_some() {
                &Method::POST
            } else {
                &Method::GET
            },
            encoding: Encoding::Llm,
            body: self.body.unwrap_or_default(),
        };
        let failed = |status: StatusCode, reason: &str| {
            format!(
                "tool failed with http status code {} and reason {}",
                status.as_u16(),
                reason.trim_end()
            )
        };
        let answer = within_timeout(frontend, endpoint.answer(frontend, tenants, &asked))
            .await
            .map_err(|error| failed(error.status(), &error.body()))?;
        let body = String::from_utf8_lossy(&answer.body);
        if answer.status.is_success() {
            Ok(body.into_owned())
        } else {
            Err(failed(answer.status, &body))
        }
    }
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn given<'a>(arguments: &'a Arguments, name: &str) -> Option<&'a str> {
    let text = arguments.get(name)?.as_str();
    (!text.is_empty()).then_some(text)
}

fn text<'a>(arguments: &'a Arguments, name: &str) -> &'a str {
    given(arguments, name).unwrap_or_default()
}

/// A time as unix seconds.
fn seconds(arguments: &Arguments, name: &str, what: &str) -> Result<Option<i64>, String> {
    given(arguments, name)
        .map(|text| {
            let time = Timestamp::parse_rfc3339(text)
                .map_err(|error| format!("invalid {what} time: {error}"))?;
            Ok(time.unix_seconds())
        })
        .transpose()
}

/// Begin and end in unix seconds, as texts.
fn range(arguments: &Arguments) -> Result<(String, String), String> {
    let end = seconds(arguments, "end", "end")?.unwrap_or_else(|| Timestamp::now().unix_seconds());
    let start = seconds(arguments, "start", "start")?
        .unwrap_or_else(|| end.saturating_sub(DEFAULT_RANGE_SECONDS));
    Ok((start.to_string(), end.to_string()))
}

/// Whether a query computes metrics.
fn is_metrics(query: &str) -> Result<bool, String> {
    let query = tempo_traceql::parse_without_rewrites(query)
        .map_err(|error| format!("query parse error. Consult TraceQL docs tools: {error}"))?;
    Ok(matches!(query.body, QueryBody::Metrics(_)))
}

fn search(arguments: &Arguments) -> Result<Question, String> {
    let query = text(arguments, "query");
    let (start, end) = range(arguments)?;
    if is_metrics(query)? {
        return Err(
            "TraceQL metrics query received on traceql-search tool. Use the \
             traceql-metrics-instant or traceql-metrics-range tool instead"
                .to_owned(),
        );
    }
    Ok(Question::get(
        "/api/search",
        &[
            ("q", Some(query)),
            ("start", Some(&start)),
            ("end", Some(&end)),
        ],
    ))
}

fn metrics(endpoint: Endpoint, arguments: &Arguments) -> Result<Question, String> {
    let (path, called) = match endpoint {
        Endpoint::MetricsInstant => ("/api/metrics/query", "instant"),
        _ => ("/api/metrics/query_range", "range"),
    };
    let query = text(arguments, "query");
    let (start, end) = range(arguments)?;
    if !is_metrics(query)? {
        return Err(format!(
            "TraceQL search query received on {called} query tool. Use the traceql-search tool instead"
        ));
    }
    Ok(Question::get(
        path,
        &[
            ("q", Some(query)),
            ("start", Some(&start)),
            ("end", Some(&end)),
        ],
    ))
}

fn trace(arguments: &Arguments) -> Question {
    let id = escaped(text(arguments, "trace_id"));
    Question::get(format!("/api/v2/traces/{id}"), &[])
}

fn trace_diff(arguments: &Arguments) -> Result<Question, String> {
    let side = |side: &str| -> Result<Value, String> {
        let (start, end) = (format!("{side}_start"), format!("{side}_end"));
        let mut trace = Map::new();
        trace.insert(
            "traceId".to_owned(),
            Value::from(text(arguments, &format!("{side}_trace_id"))),
        );
        for (key, name) in [("start", start), ("end", end)] {
            if let Some(seconds) = seconds(arguments, &name, &name.replace('_', " "))? {
                trace.insert(key.to_owned(), Value::from(seconds));
            }
        }
        Ok(Value::Object(trace))
    };
    let body = json!({
        "base": side("base")?,
        "compare": side("compare")?,
        "format": given(arguments, "format").unwrap_or(DiffFormat::Composed.name()),
    });
    Ok(Question {
        body: Some(Bytes::from(body.to_string())),
        ..Question::get("/api/v2/traces/diff", &[])
    })
}

fn attribute_names(arguments: &Arguments) -> Result<Question, String> {
    let (start, end) = range(arguments)?;
    Ok(Question::get(
        "/api/v2/search/tags",
        &[
            ("scope", given(arguments, "scope")),
            ("start", Some(&start)),
            ("end", Some(&end)),
        ],
    ))
}

fn attribute_values(arguments: &Arguments) -> Result<Question, String> {
    let (start, end) = range(arguments)?;
    let name = escaped(text(arguments, "name"));
    Ok(Question::get(
        format!("/api/v2/search/tag/{name}/values"),
        &[
            ("q", given(arguments, "filter-query")),
            ("start", Some(&start)),
            ("end", Some(&end)),
        ],
    ))
}

fn document(topics: &[Document], name: &str) -> Result<String, String> {
    match topics.iter().find(|document| document.name == name) {
        Some(document) => Ok(document.text.to_owned()),
        None => {
            let names: Vec<&str> = topics.iter().map(|document| document.name).collect();
            Err(format!(
                "no document \"{name}\"; there are {}",
                names.join(", ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_unix_seconds_and_an_hour_is_the_default() {
        let read = |start: Option<&str>, end: Option<&str>| {
            let mut arguments = Arguments::new();
            for (name, text) in [("start", start), ("end", end)] {
                if let Some(text) = text {
                    arguments.insert(name, text.to_owned());
                }
            }
            range(&arguments)
        };
        let pair = |start: &str, end: &str| Ok((start.to_owned(), end.to_owned()));
        assert_eq!(
            read(
                Some("2023-11-14T22:00:00Z"),
                Some("2023-11-14T22:13:20.5+00:00")
            ),
            pair("1699999200", "1700000000")
        );
        assert_eq!(
            read(None, Some("2023-11-14T22:13:20Z")),
            pair("1699996400", "1700000000")
        );
        assert!(read(None, Some("")).is_ok(), "empty is absent");
        assert!(
            read(None, Some("now"))
                .unwrap_err()
                .starts_with("invalid end time: ")
        );
    }

    #[test]
    fn what_stands_in_an_argument_cannot_become_a_parameter() {
        let question = Question::get("/p", &[("q", Some("{ .a = \"b&limit=9\" }")), ("x", None)]);
        assert_eq!(
            question.query,
            "q=%7B%20%2Ea%20%3D%20%22b%26limit%3D9%22%20%7D"
        );
        let arguments = Arguments::from([("trace_id", "../search?q=1".to_owned())]);
        assert_eq!(
            trace(&arguments).path,
            "/api/v2/traces/%2E%2E%2Fsearch%3Fq%3D1"
        );
    }
}
