//! What Grafana's Tempo data source asks, as it asks it: paths, parameters, headers, and what it
//! reads of the answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
};

use flate2::read::GzDecoder;
use prost::Message as _;
use serde_json::{Value, json};
use tempo_proto::{
    opentelemetry::proto::common::v1::{KeyValue, any_value},
    tempopb::{
        QueryInstantRequest, QueryRangeRequest, SearchRequest, SearchTagValuesRequest,
        SearchTagsRequest, TraceByIdResponse, streaming_querier_client::StreamingQuerierClient,
    },
};
use tempo_testkit::{
    http_client::{Client, Response, encode},
    process::{Options, Tempo},
};
use tonic::{Code, Request, Streaming, transport::Channel};

use crate::{
    shop::{CHARGE, CHECKOUT, ORDERS, PAYMENT, SPANS_PER_ORDER, Shop},
    support::{binary, flush, on_bucket, terminate, unix_seconds},
};

const TENANT: &str = "team-a";

/// The stage at which there is no live data.
const BUCKET: &str = "bucket";

const SETTINGS: &str = "multitenancy_enabled: true\nstream_over_http_enabled: true\n";

/// The most that Grafana's gRPC client takes as one message.
const CLIENT_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// The data source: it knows where Tempo is and whose data it shows.
struct Grafana<'a> {
    tempo: &'a Tempo,
    shop: &'a Shop,
    stage: &'a str,
}

impl Grafana<'_> {
    /// A request with the headers that every request of the data source has.
    fn get(&self, path: &str, accept: &str) -> Response {
        let headers = [
            ("accept", accept),
            ("accept-encoding", "gzip"),
            ("user-agent", "Grafana/12.3.0"),
            ("x-scope-orgid", TENANT),
        ];
        let mut client = Client::connect(&self.tempo.http).unwrap();
        let mut answer = client.request("GET", path, &headers, &[]).unwrap();
        if answer.header("content-encoding") == Some("gzip") {
            let mut body = Vec::new();
            GzDecoder::new(answer.body.as_slice())
                .read_to_end(&mut body)
                .unwrap();
            answer.body = body;
        }
        answer
    }

    fn json(&self, path: &str) -> Value {
        let answer = self.get(path, "application/json");
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("application/json")),
            "{}: {path}: {}",
            self.stage,
            answer.text()
        );
        answer.json()
    }

    /// The range of the shop as parameters.
    fn range(&self) -> String {
        format!("start={}&end={}", self.shop.begin, self.shop.end())
    }

    fn trace(&self, id: &str, range: &str) -> TraceByIdResponse {
        let path = format!("/api/v2/traces/{id}{range}");
        let answer = self.get(&path, "application/protobuf");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/protobuf"));
        TraceByIdResponse::decode(answer.body.as_slice()).unwrap()
    }
}

/// Whose keys Grafana's strict decoder of searches and instant queries knows; any other fails there.
fn assert_known_keys(answer: &Value, of: &str) {
    let known: &[&str] = match of {
        "search" => &["traces", "metrics"],
        "instant" => &["series", "metrics", "status", "message"],
        "traces" => &[
            "traceID",
            "rootServiceName",
            "rootTraceName",
            "startTimeUnixNano",
            "durationMs",
            "spanSet",
            "spanSets",
            "serviceStats",
        ],
        "metrics" => &[
            "inspectedTraces",
            "inspectedBytes",
            "totalBlocks",
            "completedJobs",
            "totalJobs",
            "totalBlockBytes",
            "inspectedSpans",
        ],
        "spanSet" | "spanSets" => &["spans", "matched", "attributes"],
        "spans" => &[
            "spanID",
            "name",
            "startTimeUnixNano",
            "durationNanos",
            "attributes",
        ],
        "series" => &["labels", "value", "promLabels"],
        "labels" | "attributes" => &["key", "value"],
        // Keys are names of services, or the value is not a message.
        _ => return,
    };
    match answer {
        Value::Array(items) => items.iter().for_each(|item| assert_known_keys(item, of)),
        Value::Object(fields) => {
            for (key, field) in fields {
                assert!(known.contains(&key.as_str()), "unknown key {key} of {of}");
                assert_known_keys(field, key);
            }
        }
        _ => {}
    }
}

/// All that is asked, against what is known of the shop.
fn replay(tempo: &Tempo, shop: &Shop, stage: &str) {
    let grafana = Grafana { tempo, shop, stage };
    grafana.save_and_test();
    grafana.opens_traces();
    grafana.searches();
    grafana.completes_queries();
    grafana.draws_ranges();
    grafana.shows_instants();
    grafana.shows_refusals();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // The data source uses the address that it has for HTTP.
    for address in [&tempo.http, &tempo.grpc] {
        runtime.block_on(grafana.streams(address));
    }
}

impl Grafana<'_> {
    fn save_and_test(&self) {
        let mut client = Client::connect(&self.tempo.http).unwrap();
        let echo = client.get("/api/echo").unwrap();
        assert_eq!((echo.status, echo.text().as_str()), (200, "echo\n"));
        let build = client.get("/api/status/buildinfo").unwrap().json();
        let version = build["version"].as_str().unwrap();
        assert!(version.starts_with("3."), "{version}");
    }

    /// The trace view, and the node graph that is made of the same answer.
    fn opens_traces(&self) {
        let order = 7;
        let full = format!("{:0>32}", Shop::short_id(order));
        let around = |seconds: u64| {
            let start = self.shop.begin - seconds;
            format!("?start={start}&end={}", self.shop.end() + seconds)
        };
        for (id, range) in [
            (full.clone(), String::new()),
            // With the time shift that can be set; and an id as a search shows it.
            (full, around(1_800)),
            (Shop::short_id(order), String::new()),
        ] {
            let answer = self.trace(&id, &range);
            let trace = answer.trace.expect("dereferenced by Grafana");
            let mut edges = BTreeSet::new();
            for resource in &trace.resource_spans {
                let attributes = &resource.resource.as_ref().unwrap().attributes;
                let service = text_of(attributes, "service.name");
                for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
                    assert_eq!(span.trace_id, Shop::trace_id(order));
                    let parent = span.parent_span_id.last().copied().unwrap_or(0);
                    let id = *span.span_id.last().unwrap();
                    edges.insert((parent, id, service.clone(), span.name.clone()));
                }
            }
            let edge = |parent, id, service: &str, name: &str| {
                (parent, id, service.to_owned(), name.to_owned())
            };
            let wanted = BTreeSet::from([
                edge(0, CHECKOUT, "web", "GET /checkout"),
                edge(CHECKOUT, CHARGE, "web", "charge card"),
                edge(CHARGE, PAYMENT, "payment", "POST /charge"),
            ]);
            assert_eq!(edges, wanted, "{}: {id}{range}", self.stage);
            assert_eq!((answer.status, answer.message.as_str()), (0, ""));
        }
        // Unknown: an empty trace, not none. The 64-bit id is found without its zeros.
        let unknown = self.get("/api/v2/traces/1234567890abcdef", "application/protobuf");
        assert_eq!((unknown.status, &unknown.body[..2]), (200, &[0x0a, 0][..]));
        assert_eq!(Shop::short_id(0), "aa00");
        let short = self.trace(&Shop::short_id(0), "").trace.unwrap();
        let spans = short.resource_spans.iter().flat_map(|r| &r.scope_spans);
        let spans: usize = spans.map(|scope| scope.spans.len()).sum();
        assert_eq!(spans, usize::from(SPANS_PER_ORDER));
        // What older versions ask.
        let first = self.get("/api/traces/1234567890abcdef", "application/protobuf");
        assert_eq!((first.status, first.body.len()), (404, 0));
        let json = self.json(&format!("/api/traces/{}", Shop::short_id(7)));
        assert_eq!(json["batches"].as_array().unwrap().len(), 2);
    }

    fn searches(&self) {
        let query = r#"{ resource.service.name = "web" && status = error }"#;
        let path = format!(
            "/api/search?q={}&limit=20&spss=3&{}",
            encode(query),
            self.range()
        );
        let answer = self.json(&path);
        assert_known_keys(&answer, "search");
        let traces = answer["traces"].as_array().unwrap();
        let failed: Vec<u8> = (0..ORDERS).rev().filter(|&n| Shop::fails(n)).collect();
        assert_eq!(traces.len(), failed.len(), "{}: {answer}", self.stage);
        for (trace, order) in traces.iter().zip(failed) {
            let set = json!({
                "spans": [{
                    "spanID": Shop::hex_span_id(order, CHECKOUT),
                    "startTimeUnixNano": self.shop.start_nanos(order).to_string(),
                    "durationNanos": Shop::duration_nanos(order).to_string(),
                    "attributes": trace["spanSet"]["spans"][0]["attributes"],
                }],
                "matched": 1,
            });
            let wanted = json!({
                "traceID": Shop::short_id(order),
                "rootServiceName": "web",
                "rootTraceName": "GET /checkout",
                "startTimeUnixNano": self.shop.start_nanos(order).to_string(),
                "durationMs": 100 + u64::from(order),
                "spanSet": set,
                "spanSets": [set],
                "serviceStats": {
                    "payment": {"spanCount": 1},
                    "web": {"spanCount": 2, "errorCount": 1},
                },
            });
            assert_eq!(*trace, wanted, "{}", self.stage);
            let shown = &trace["spanSet"]["spans"][0]["attributes"];
            let shown: BTreeMap<&str, &str> = shown
                .as_array()
                .unwrap()
                .iter()
                .map(|attribute| {
                    let value = attribute["value"]["stringValue"].as_str().unwrap();
                    (attribute["key"].as_str().unwrap(), value)
                })
                .collect();
            let wanted = BTreeMap::from([("service.name", "web"), ("status", "error")]);
            assert_eq!(shown, wanted);
        }
        let metrics = &answer["metrics"];
        assert_eq!(metrics["completedJobs"], metrics["totalJobs"], "{metrics}");
        assert!(metrics["totalJobs"].as_u64() > Some(0), "{metrics}");
        let none = self.json(&format!(
            "/api/search?q={}&limit=20&spss=3&{}",
            encode("{ name = `nothing` }"),
            self.range()
        ));
        assert_eq!(none["traces"], json!([]));
        // The builder's table of spans: what is selected is shown.
        let selected = self.json(&format!(
            "/api/search?q={}&limit=1&spss=10&{}",
            encode("{ } | select(span.amount)"),
            self.range()
        ));
        let spans = &selected["traces"][0]["spanSets"][0]["spans"];
        assert_eq!(spans.as_array().unwrap().len(), 3, "{selected}");
        assert!(
            spans.to_string().contains(r#""doubleValue":1.5"#),
            "{spans}"
        );
    }

    fn completes_queries(&self) {
        // Without a range Grafana means the time of live data, and of a bucket alone that is none.
        let mut ranges = vec![format!("&{}", self.range())];
        if self.stage != BUCKET {
            ranges.push(String::new());
        }
        for range in ranges {
            let answer = self.json(&format!("/api/v2/search/tags?limit=5000{range}"));
            let mut scopes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for scope in answer["scopes"].as_array().unwrap() {
                let tags = scope["tags"].as_array().unwrap();
                let tags = tags.iter().map(|tag| tag.as_str().unwrap()).collect();
                scopes.insert(scope["name"].as_str().unwrap(), tags);
            }
            let intrinsics = scopes.remove("intrinsic").unwrap();
            assert_eq!(intrinsics.len(), 25);
            assert!(intrinsics.contains(&"trace:rootService"));
            let wanted = BTreeMap::from([
                ("event", vec!["exception.message"]),
                ("resource", vec!["k8s.cluster.name", "service.name"]),
                ("span", vec!["amount", "http.status_code", "order.number"]),
            ]);
            assert_eq!(scopes, wanted, "{}", self.stage);
        }
        let values = |tag: &str, query: &str| -> BTreeSet<(String, String)> {
            let (tag, query) = (encode(tag), encode(query));
            let path = format!(
                "/api/v2/search/tag/{tag}/values?limit=5000&q={query}&tag={tag}&{}",
                self.range()
            );
            let answer = self.json(&path);
            let found = answer["tagValues"].as_array().unwrap().iter().map(|value| {
                let text = |key: &str| value[key].as_str().unwrap().to_owned();
                (text("type"), text("value"))
            });
            found.collect()
        };
        let set = |of_type: &str, values: &[&str]| -> BTreeSet<(String, String)> {
            let value = |value: &&str| (of_type.to_owned(), (*value).to_owned());
            values.iter().map(value).collect()
        };
        let web = r#"{ resource.service.name = "web" }"#;
        for (tag, query, wanted) in [
            (
                "resource.service.name",
                "{}",
                set("string", &["web", "payment"]),
            ),
            (
                "resource.service.name",
                "{ status = error }",
                set("string", &["web"]),
            ),
            (".service.name", "", set("string", &["web", "payment"])),
            ("span.http.status_code", web, set("int", &["200", "500"])),
            ("span.amount", web, set("float", &[])),
            ("span.amount", "{ span.", set("float", &["1.5"])),
            (
                "name",
                web,
                set("string", &["GET /checkout", "charge card"]),
            ),
            ("status", "{}", set("keyword", &["ok", "error", "unset"])),
            (
                "event.exception.message",
                "{}",
                set("string", &["declined"]),
            ),
            ("event:name", "{}", set("string", &["exception"])),
        ] {
            assert_eq!(values(tag, query), wanted, "{}: {tag} {query}", self.stage);
        }
    }

    /// Samples of a series by second.
    fn samples(series: &Value) -> BTreeMap<u64, f64> {
        let samples = series["samples"].as_array().unwrap().iter().map(|sample| {
            let time = sample["timestampMs"].as_str().unwrap();
            let value = sample["value"].as_f64().unwrap_or(0.0);
            (time.parse::<u64>().unwrap() / 1000, value)
        });
        samples.collect()
    }

    /// Two orders in each ten seconds.
    fn two_per_ten_seconds(&self) -> BTreeMap<u64, f64> {
        let ends = (0..=6).map(|ten| self.shop.begin + ten * 10);
        ends.map(|end| (end, if end == self.shop.begin { 0.0 } else { 2.0 }))
            .collect()
    }

    fn draws_ranges(&self) {
        let (begin, end) = (self.shop.begin, self.shop.end());
        let query = "{ kind = server && resource.service.name = `web` } | count_over_time()";
        for (from, to) in [
            (begin.to_string(), end.to_string()),
            // As the backend of the data source writes them.
            (format!("{begin}000000000"), format!("{end}000000000")),
        ] {
            let answer = self.json(&format!(
                "/api/metrics/query_range?q={}&start={from}&end={to}&step=10s&exemplars=100",
                encode(query)
            ));
            let series = &answer["series"][0];
            assert_eq!(answer["series"].as_array().unwrap().len(), 1, "{answer}");
            assert_eq!(Self::samples(series), self.two_per_ten_seconds());
            // Drawn only with a trace, a value and a time.
            let exemplars = series["exemplars"].as_array().unwrap();
            let mut linked = BTreeSet::new();
            for exemplar in exemplars {
                let labels = exemplar["labels"].as_array().unwrap();
                let trace = labels
                    .iter()
                    .find(|label| label["key"] == "trace:id")
                    .unwrap();
                linked.insert(trace["value"]["stringValue"].as_str().unwrap().to_owned());
                assert_eq!(exemplar["value"], 2.0);
                let time: u64 = exemplar["timestampMs"].as_str().unwrap().parse().unwrap();
                assert!((begin * 1000..end * 1000).contains(&time), "{time}");
            }
            let orders: BTreeSet<String> = (0..ORDERS).map(Shop::short_id).collect();
            let padded: BTreeSet<String> = linked
                .iter()
                .map(|id| id.trim_start_matches('0').to_owned())
                .collect();
            assert!(
                !padded.is_empty() && padded.is_subset(&orders),
                "{linked:?}"
            );
        }
        let by_service = self.json(&format!(
            "/api/metrics/query_range?q={}&start={begin}&end={end}&step=10s",
            encode("{} | rate() by (resource.service.name)")
        ));
        let rates: BTreeMap<String, f64> = by_service["series"]
            .as_array()
            .unwrap()
            .iter()
            .map(|series| {
                let label = &series["labels"][0];
                assert_eq!(label["key"], "resource.service.name");
                let service = label["value"]["stringValue"].as_str().unwrap().to_owned();
                (service, Self::samples(series)[&(begin + 10)])
            })
            .collect();
        let wanted = BTreeMap::from([("payment".to_owned(), 0.2), ("web".to_owned(), 0.4)]);
        assert_eq!(rates, wanted, "{by_service}");
        // A heat map.
        let histogram = self.json(&format!(
            "/api/metrics/query_range?q={}&start={begin}&end={end}&step=10s&exemplars=100",
            encode("{ name = `GET /checkout` } | histogram_over_time(duration)")
        ));
        let buckets: BTreeMap<String, f64> = histogram["series"]
            .as_array()
            .unwrap()
            .iter()
            .map(|series| {
                assert_eq!(series["labels"][0]["key"], "__bucket");
                let bucket = series["labels"][0]["value"]["doubleValue"].to_string();
                (bucket, Self::samples(series).values().sum())
            })
            .collect();
        let wanted = BTreeMap::from([("0.134217728".to_owned(), f64::from(ORDERS))]);
        assert_eq!(buckets, wanted, "{histogram}");
        let quantile = self.json(&format!(
            "/api/metrics/query_range?q={}&start={begin}&end={end}&step=60s",
            encode("{ name = `GET /checkout` } | quantile_over_time(duration, .9)")
        ));
        let label = &quantile["series"][0]["labels"][0];
        assert_eq!(
            (&label["key"], &label["value"]),
            (&json!("p"), &json!({"doubleValue": 0.9}))
        );
        let p90 = Self::samples(&quantile["series"][0])[&end];
        assert!((0.067..0.135).contains(&p90), "{p90}");
    }

    fn shows_instants(&self) {
        let answer = self.json(&format!(
            "/api/metrics/query?q={}&{}",
            encode("{} | count_over_time() by (name)"),
            self.range()
        ));
        assert_known_keys(&answer, "instant");
        let values: BTreeMap<&str, f64> = answer["series"]
            .as_array()
            .unwrap()
            .iter()
            .map(|series| {
                let name = series["labels"][0]["value"]["stringValue"]
                    .as_str()
                    .unwrap();
                (name, series["value"].as_f64().unwrap())
            })
            .collect();
        let each = f64::from(ORDERS);
        let names = ["GET /checkout", "charge card", "POST /charge"];
        assert_eq!(values, names.map(|name| (name, each)).into(), "{answer}");
        let none = self.json(&format!(
            "/api/metrics/query?q={}&{}",
            encode("{ name = `nothing` } | count_over_time() by (name)"),
            self.range()
        ));
        assert_eq!(none["series"], Value::Null, "{none}");
    }

    /// The texts that Grafana looks for.
    fn shows_refusals(&self) {
        let now = unix_seconds();
        let refused = |path: &str, text: &str| {
            let answer = self.get(path, "application/json");
            assert_eq!(answer.status, 400, "{path}: {}", answer.text());
            assert!(answer.text().contains(text), "{path}: {}", answer.text());
        };
        let year = format!("start={}&end={now}", now - 365 * 86_400);
        refused(
            &format!("/api/search?q=%7B%7D&limit=20&spss=3&{year}"),
            "range specified by start and end exceeds 168h0m0s.",
        );
        refused(
            &format!("/api/metrics/query_range?q=%7B%7D%7Crate()&step=1h&{year}"),
            "metrics query time range exceeds the maximum allowed duration of 24h0m0s",
        );
        refused(
            &format!("/api/search?q=%7B&limit=20&spss=3&{}", self.range()),
            "invalid TraceQL query: parse error at line 1",
        );
        let mut client = Client::connect(&self.tempo.http).unwrap();
        let nobody = client.get("/api/search?q=%7B%7D").unwrap();
        assert_eq!((nobody.status, nobody.text().trim()), (401, "no org id"));
    }
}

fn text_of(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(any_value::Value::StringValue(value)) => value.clone(),
        other => panic!("{key} is {other:?}"),
    }
}

/// A request with the metadata of the data source.
fn asked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert(
        "authorization",
        "Basic Z3JhZmFuYTpzZWNyZXQ=".parse().unwrap(),
    );
    metadata.insert("x-scope-orgid", TENANT.parse().unwrap());
    request
}

async fn messages<T>(stream: tonic::Response<Streaming<T>>) -> Vec<T> {
    let mut stream = stream.into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        messages.push(message);
    }
    messages
}

impl Grafana<'_> {
    async fn streams(&self, address: &str) {
        let channel = Channel::from_shared(format!("http://{address}"))
            .unwrap()
            .user_agent("Grafana/12.3.0")
            .unwrap()
            .connect()
            .await
            .unwrap();
        let mut client =
            StreamingQuerierClient::new(channel).max_decoding_message_size(CLIENT_MESSAGE_BYTES);
        self.streams_searches(&mut client).await;
        self.streams_metrics(&mut client).await;
        self.streams_tags(&mut client).await;
        let refused = client.search(SearchRequest::default()).await.unwrap_err();
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::Unknown, "no org id")
        );
    }

    fn seconds(&self) -> (u32, u32) {
        let second = |second: u64| u32::try_from(second).unwrap();
        (second(self.shop.begin), second(self.shop.end()))
    }

    async fn streams_searches(&self, client: &mut StreamingQuerierClient<Channel>) {
        // "Save & test".
        let now = u32::try_from(unix_seconds()).unwrap();
        let request = SearchRequest {
            query: "{}".to_owned(),
            start: now - 900,
            end: now,
            limit: 1,
            ..SearchRequest::default()
        };
        let answers = messages(client.search(asked(request)).await.unwrap()).await;
        assert_eq!(answers.last().unwrap().traces.len(), 1);
        let (start, end) = self.seconds();
        let request = SearchRequest {
            query: "{ status = error } >> { }".to_owned(),
            start,
            end,
            limit: 20,
            spans_per_span_set: 3,
            ..SearchRequest::default()
        };
        let answers = messages(client.search(asked(request)).await.unwrap()).await;
        assert!(answers.iter().all(|answer| answer.metrics.is_some()));
        let last = answers.last().unwrap();
        let found: Vec<(&str, usize)> = last
            .traces
            .iter()
            .map(|trace| (trace.trace_id.as_str(), trace.span_sets[0].spans.len()))
            .collect();
        let ids: Vec<String> = (0..ORDERS)
            .rev()
            .filter(|&order| Shop::fails(order))
            .map(Shop::short_id)
            .collect();
        let wanted: Vec<(&str, usize)> = ids.iter().map(|id| (id.as_str(), 2)).collect();
        assert_eq!(found, wanted, "{}", self.stage);
        let metrics = last.metrics.as_ref().unwrap();
        assert!(metrics.total_jobs > 0);
        assert_eq!(metrics.completed_jobs, metrics.total_jobs);
        let mut stream = client
            .search(asked(SearchRequest {
                query: "{".to_owned(),
                ..SearchRequest::default()
            }))
            .await
            .unwrap()
            .into_inner();
        let refused = stream.message().await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }

    async fn streams_metrics(&self, client: &mut StreamingQuerierClient<Channel>) {
        let nanos = |seconds: u64| seconds * 1_000_000_000;
        let request = QueryRangeRequest {
            query: "{ name = `GET /checkout` } | count_over_time()".to_owned(),
            start: nanos(self.shop.begin),
            end: nanos(self.shop.end()),
            step: nanos(10),
            exemplars: 100,
            ..QueryRangeRequest::default()
        };
        let answers = client.metrics_query_range(asked(request)).await.unwrap();
        let answers = messages(answers).await;
        // A newer sample wins over an older one of the same time.
        let mut samples = BTreeMap::new();
        let mut exemplars = 0;
        for series in answers.iter().flat_map(|answer| &answer.series) {
            for sample in &series.samples {
                samples.insert(sample.timestamp_ms as u64 / 1000, sample.value);
            }
            exemplars += series.exemplars.len();
        }
        assert_eq!(samples, self.two_per_ten_seconds(), "{}", self.stage);
        assert!(exemplars > 0);
        let request = QueryInstantRequest {
            query: "{ status = error } | count_over_time()".to_owned(),
            start: nanos(self.shop.begin),
            end: nanos(self.shop.end()),
        };
        let answers = client.metrics_query_instant(asked(request)).await.unwrap();
        let answers = messages(answers).await;
        // Each answer replaces the one before.
        let last = answers.last().unwrap();
        let failed = (0..ORDERS).filter(|&order| Shop::fails(order)).count();
        assert_eq!(last.series.len(), 1);
        assert_eq!(last.series[0].value, failed as f64);
    }

    async fn streams_tags(&self, client: &mut StreamingQuerierClient<Channel>) {
        let (start, end) = self.seconds();
        let request = SearchTagsRequest {
            scope: "span".to_owned(),
            start,
            end,
            ..SearchTagsRequest::default()
        };
        let names = client.search_tags_v2(asked(request.clone())).await.unwrap();
        let last = messages(names).await.pop().unwrap();
        let spans = ["amount", "http.status_code", "order.number"];
        assert_eq!(last.scopes.len(), 1);
        assert_eq!(last.scopes[0].tags, spans);
        let names = client.search_tags(asked(request)).await.unwrap();
        assert_eq!(messages(names).await.pop().unwrap().tag_names, spans);
        let request = SearchTagValuesRequest {
            tag_name: "span.http.status_code".to_owned(),
            query: r#"{ resource.service.name = "web" }"#.to_owned(),
            start,
            end,
            ..SearchTagValuesRequest::default()
        };
        let values = client.search_tag_values_v2(asked(request)).await.unwrap();
        let last = messages(values).await.pop().unwrap();
        let values: BTreeSet<(&str, &str)> = last
            .tag_values
            .iter()
            .map(|value| (value.r#type.as_str(), value.value.as_str()))
            .collect();
        assert_eq!(values, BTreeSet::from([("int", "200"), ("int", "500")]));
        let request = SearchTagValuesRequest {
            tag_name: "service.name".to_owned(),
            start,
            end,
            ..SearchTagValuesRequest::default()
        };
        let values = client.search_tag_values(asked(request)).await.unwrap();
        let last = messages(values).await.pop().unwrap();
        assert_eq!(last.tag_values, ["payment", "web"]);
    }
}

#[test]
fn the_data_source_is_answered_live_flushed_and_from_the_bucket() {
    let options = Options {
        extra_yaml: SETTINGS.to_owned(),
        ..Options::default()
    };
    let mut tempo = Tempo::configure(&binary(), &options).unwrap();
    tempo.start().unwrap();
    let shop = Shop::recent();
    shop.push(&tempo, Some(TENANT));
    replay(&tempo, &shop, "live");
    flush(&tempo);
    replay(&tempo, &shop, "flushed");
    terminate(&mut tempo);
    let bucket = on_bucket(&tempo.data().join("blocks"), SETTINGS);
    replay(&bucket, &shop, BUCKET);
}
