//! Recorded answers of Grafana Tempo, asked from its own blocks and from live data.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use tempo_api::job::TraceParts;
use tempo_backend::{Backend, BackendConfig, BlockChange, cache::Cache};
use tempo_model::TraceId;
use tempo_querier::{
    BlockSource, Config as QuerierConfig, Deps as QuerierDeps, Querier, Recent as QuerierRecent,
    RecentError, RecentOperation, RecentTraces, RecentView,
};
use tempo_query_frontend::Config;
use tempo_table::{MemoryTable, MemoryTableBuilder, SpanTable};
use tempo_testkit::{
    golden::{self, Golden},
    http_client::encode,
};

use crate::support::Stack;

const TENANT: &str = "single-tenant";

/// Live data made of tables.
#[derive(Default)]
struct Recent {
    tables: Vec<Arc<MemoryTable>>,
    traces: BTreeMap<TraceId, Vec<Vec<u8>>>,
}

impl RecentTraces for Recent {
    fn view(
        &self,
        tenant: &str,
        _: u64,
        _: u64,
        _: RecentOperation,
    ) -> Result<RecentView, RecentError> {
        assert_eq!(tenant, TENANT);
        Ok(RecentView {
            tables: self
                .tables
                .iter()
                .map(|table| Arc::clone(table) as Arc<dyn SpanTable>)
                .collect(),
            hold: Box::new(()),
        })
    }

    fn find_trace(&self, _: &str, trace_id: TraceId) -> Result<TraceParts, RecentError> {
        let parts = self.traces.get(&trace_id).into_iter().flatten();
        Ok(TraceParts {
            parts: parts.map(|part| part.clone().into()).collect(),
            inspected_bytes: 0,
        })
    }
}

/// Connects a querier to the stack's queue.
fn run_querier(stack: &Stack, querier: &Querier) {
    for _ in 0..querier.max_concurrent_jobs() {
        let (queue, querier) = (stack.handle.queue(), querier.clone());
        tokio::spawn(async move {
            let connection = queue.connect();
            while let Some(queued) = connection.next().await {
                let (tenant, job, cancelled, responder) = queued.into_parts();
                responder.respond(querier.run(&tenant, job, cancelled).await);
            }
        });
    }
}

async fn stack(golden: &Golden, now: i64, recent: Recent, blocks: Option<&str>) -> Stack {
    let stack = Stack::at(now, Config::default());
    let root = golden.folder.join("blocks").join(blocks.unwrap_or("none"));
    let scratch;
    let root = if blocks.is_some() {
        root
    } else {
        scratch = tempfile::tempdir().unwrap();
        scratch.path().to_owned()
    };
    let registry = prometheus::Registry::new();
    let backend = Backend::open(&BackendConfig::local(root), &registry)
        .await
        .unwrap();
    if blocks.is_some() {
        let listing = backend.list_blocks(TENANT).await.unwrap();
        let mut change = BlockChange::default();
        for id in listing.live {
            let meta = backend.read_meta(TENANT, id).await.unwrap();
            change.added.push(Arc::new(meta));
        }
        assert!(!change.added.is_empty());
        stack.blocklist.apply_change(TENANT, change);
    }
    let querier = Querier::build(
        QuerierConfig::default(),
        QuerierDeps {
            blocks: Some(BlockSource {
                backend,
                blocklist: stack.blocklist.clone(),
                max_list_age: Duration::MAX,
                cache: Cache::new(64 << 20, &registry).unwrap(),
                now_nanos: Arc::new(move || now * 1_000_000_000),
            }),
            recent: QuerierRecent::Here(Arc::new(recent)),
            registry: &registry,
        },
    )
    .unwrap();
    run_querier(&stack, &querier);
    stack
}

fn live(golden: &Golden) -> Recent {
    let traces = golden.traces();
    assert_eq!(traces.len(), 192);
    let mut builder = MemoryTableBuilder::new();
    for (id, parts) in &traces {
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        builder.push_trace(*id, &parts).unwrap();
    }
    Recent {
        tables: vec![Arc::new(builder.finish())],
        traces,
    }
}

/// Asks every case, and lists those that are answered differently.
async fn run(golden: &Golden, stack: &Stack) -> (usize, Vec<String>) {
    let mut equal = 0;
    let mut different = Vec::new();
    for case in &golden.cases {
        let reply = stack.get(&golden.path(case)).await;
        match golden.compare(case, reply.status.as_u16(), &reply.body) {
            Ok(()) => equal += 1,
            Err(difference) => different.push(difference),
        }
    }
    (equal, different)
}

fn report(equal: usize, different: &[String]) {
    for case in different {
        let shown: String = case.chars().take(3_000).collect();
        eprintln!("{shown}\n");
    }
    eprintln!("{equal} equal, {} different", different.len());
}

const CASES: usize = 213;

async fn check(stack: &Stack, golden: &Golden) {
    let (equal, different) = run(golden, stack).await;
    report(equal, &different);
    assert!(different.is_empty());
    assert_eq!(equal, CASES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_blocks_answer_as_recorded() {
    let golden = Golden::load();
    let now = golden.t0 + 30 * 24 * 3_600;
    for format in ["vparquet4", "vparquet5"] {
        let stack = stack(&golden, now, Recent::default(), Some(format)).await;
        check(&stack, &golden).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_data_answers_as_recorded() {
    let golden = Golden::load();
    let now = golden.t0 + 600;
    let stack = stack(&golden, now, live(&golden), None).await;
    check(&stack, &golden).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_blocks_and_in_live_data_is_answered_once() {
    let golden = Golden::load();
    // The range begins before the boundary between the two and ends after it.
    let now = golden.t0 + 15 * 60 + 15;
    let stack = stack(&golden, now, live(&golden), Some("vparquet4")).await;
    check(&stack, &golden).await;
}

/// The traces of a search, by id, and whether it told their spans.
async fn traces_of(stack: &Stack, golden: &Golden, search: &str) -> (Vec<String>, bool) {
    let (start, end) = (golden.t0 - 60, golden.t0 + 180);
    let url = format!("/api/search?{search}&start={start}&end={end}&limit=1000");
    let reply = stack.get(&url).await;
    assert_eq!(reply.status, 200, "{search}: {}", reply.text());
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    let mut ids: Vec<String> = body["traces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|trace| trace["traceID"].as_str().unwrap().to_owned())
        .collect();
    ids.sort_unstable();
    (ids, reply.text().contains("spanSets"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_searches_find_what_their_traceql_finds() {
    let golden = Golden::load();
    let stack = stack(&golden, golden.t0 + 600, live(&golden), None).await;
    for (tags, query) in [
        (
            "tags=service.name%3Dfron",
            "{ resource.service.name =~ `.*fron.*` }",
        ),
        (
            "tags=region%3Deu+http.method%3DGET",
            "{ span.region = `eu` || resource.region = `eu` } && { span.http.method =~ `.*GET.*` }",
        ),
        (
            "tags=http.status_code%3D500",
            "{ span.http.status_code = 500 }",
        ),
        ("tags=status.code%3Derror", "{ status = error }"),
        (
            "tags=root.name%3DPOST&minDuration=20ms",
            "{ rootName =~ `.*POST.*` } && { traceDuration >= 20ms }",
        ),
        ("maxDuration=50ms", "{ traceDuration <= 50ms }"),
        (
            "tags=name%3D%22GET+%2Fcart%22",
            "{ name =~ `.*GET /cart.*` }",
        ),
    ] {
        let (old, told_spans) = traces_of(&stack, &golden, tags).await;
        assert!(!told_spans);
        let (new, told_spans) = traces_of(&stack, &golden, &format!("q={}", encode(query))).await;
        assert!(told_spans);
        assert!(!new.is_empty() && new.len() < 192, "{query}: {}", new.len());
        assert_eq!(old, new, "{tags}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_version_of_the_api_tells_the_same() {
    let golden = Golden::load();
    let now = golden.t0 + 30 * 24 * 3_600;
    let stack = stack(&golden, now, Recent::default(), Some("vparquet4")).await;
    let range = golden.range();
    let body = async |path: &str| -> Value {
        let reply = stack.get(&format!("{path}?{range}")).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        serde_json::from_slice(&reply.body).unwrap()
    };
    let texts = |list: &Value, field: Option<&str>| -> BTreeSet<String> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|item| field.map_or(item, |field| &item[field]))
            .map(|text| text.as_str().unwrap_or_default().to_owned())
            .collect()
    };
    for (old, new) in [
        ("service.name", "resource.service.name"),
        ("name", "name"),
        ("foo", ".foo"),
        ("root.name", "rootName"),
    ] {
        let old = body(&format!("/api/search/tag/{old}/values")).await;
        let new = body(&format!("/api/v2/search/tag/{new}/values")).await;
        assert_eq!(
            texts(&old["tagValues"], None),
            texts(&new["tagValues"], Some("value"))
        );
    }
    let old = body("/api/search/tags").await;
    let new = body("/api/v2/search/tags").await;
    let mut scoped = BTreeSet::new();
    for scope in new["scopes"].as_array().unwrap() {
        if scope["name"] != "intrinsic" {
            scoped.extend(texts(&scope["tags"], None));
        }
    }
    assert_eq!(texts(&old["tagNames"], None), scoped);

    let id = golden.traces().into_keys().next_back().unwrap();
    let old = stack.get(&format!("/api/traces/{id}")).await;
    let new = stack.get(&format!("/api/v2/traces/{id}")).await;
    let (old, new): (Value, Value) = (
        serde_json::from_slice(&old.body).unwrap(),
        serde_json::from_slice(&new.body).unwrap(),
    );
    assert!(!old["batches"].as_array().unwrap().is_empty());
    assert_eq!(old["batches"], new["trace"]["resourceSpans"]);
    assert!(new["metrics"]["inspectedBytes"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_may_be_narrowed_by_time_and_by_a_filter() {
    let golden = Golden::load();
    let now = golden.t0 + 30 * 24 * 3_600;
    let stack = stack(&golden, now, Recent::default(), Some("vparquet4")).await;
    let shop = golden
        .cases
        .iter()
        .find(|case| case.question()["name"] == "shop")
        .unwrap();
    let id = shop.trace_id();
    let spans = async |query: &str| -> usize {
        let reply = stack.get(&format!("/api/v2/traces/{id}?{query}")).await;
        assert_eq!(reply.status, 200, "{query}: {}", reply.text());
        golden::trace(&reply.body).as_array().unwrap().len()
    };
    let all = spans("").await;
    assert!(all > 2, "{all}");
    let t0 = golden.t0;
    assert_eq!(
        spans(&format!("start={}&end={}", t0 - 60, t0 + 180)).await,
        all
    );
    assert_eq!(
        spans(&format!("start={}&end={}", t0 - 9_000, t0 - 8_000)).await,
        0
    );
    let query = format!("q={}", encode("{ name = `render` }"));
    assert_eq!(spans(&query).await, 1);
    assert_eq!(spans(&format!("{query}&keep_hierarchy=true")).await, 2);
}
