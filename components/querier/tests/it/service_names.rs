//! A resource without a service name: live data and blocks answer alike.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::AtomicBool},
};

use prost::Message as _;
use tempo_backend::{Backend, BackendConfig, ReadStats, cache::Cache};
use tempo_block::{
    read::BlockReader,
    schema::Version,
    write::{BlockOptions, PublishError, write_block},
};
use tempo_engine::{
    Limits, Plan, SearchOptions, TagFilter, TagValueLimits,
    metrics::{MetricsOptions, MetricsPlan, Window, evaluate},
    search, tag_names, tag_values,
};
use tempo_model::TraceId;
use tempo_proto::{
    opentelemetry::proto::{
        common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value},
        resource::v1::Resource,
        trace::v1::{ResourceSpans, ScopeSpans, Span},
    },
    tempopb::Trace,
};
use tempo_table::{MemoryTableBuilder, SpanTable};
use uuid::Uuid;

static RUNNING: AtomicBool = AtomicBool::new(false);

const LIMITS: Limits<'static> = Limits {
    max_column_bytes: 1 << 20,
    cancel: &RUNNING,
};

/// What `service.name` is in each trace; the first resource has no attribute at all.
fn names() -> [Option<Value>; 6] {
    let element = AnyValue {
        value: Some(Value::StringValue("a".into())),
    };
    let values = vec![element];
    [
        None,
        Some(Value::StringValue(String::new())),
        Some(Value::StringValue("shop".into())),
        Some(Value::IntValue(5)),
        Some(Value::ArrayValue(ArrayValue { values })),
        Some(Value::BytesValue(vec![1, 2])),
    ]
}

/// One trace of one span for each of the names; the span's name is its number.
fn traces() -> Vec<(TraceId, Vec<u8>)> {
    let numbered = (1u8..).zip(names());
    let trace = numbered.map(|(number, name)| {
        let attributes = name.map(|value| KeyValue {
            key: "service.name".into(),
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        });
        let span = Span {
            trace_id: vec![number; 16],
            span_id: vec![number; 8],
            name: number.to_string(),
            start_time_unix_nano: u64::from(number),
            end_time_unix_nano: u64::from(number) + 1,
            ..Span::default()
        };
        let resource_spans = vec![ResourceSpans {
            resource: Some(Resource {
                attributes: attributes.into_iter().collect(),
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans: vec![span],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }];
        let bytes = Trace { resource_spans }.encode_to_vec();
        (TraceId::from_bytes([number; 16]), bytes)
    });
    trace.collect()
}

fn live() -> Box<dyn SpanTable> {
    let mut builder = MemoryTableBuilder::new();
    for (id, trace) in traces() {
        builder.push_trace(id, &[&trace]).unwrap();
    }
    Box::new(builder.finish())
}

async fn stored(backend: &Backend, version: Version) -> Box<dyn SpanTable> {
    let traces = traces();
    let options = BlockOptions::new(version, "t".into(), Uuid::new_v4(), traces.len() as u64);
    let block = write_block(backend, options, false, move |builder| {
        for (id, trace) in &traces {
            builder.push_trace(*id, &[trace])?;
        }
        Ok::<(), PublishError<Infallible>>(())
    });
    let meta = Arc::new(block.await.unwrap().meta);
    let backend = backend.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let cache = Cache::new(1 << 20, &prometheus::Registry::new()).unwrap();
        let reader = BlockReader::open(&backend, &cache, meta, ReadStats::new()).unwrap();
        reader.table(0, ReadStats::new()).unwrap()
    });
    Box::new(opened.await.unwrap())
}

/// The numbers of the spans that a condition keeps.
fn found(table: &dyn SpanTable, condition: &str) -> String {
    let query = tempo_traceql::parse(&format!("{{ {condition} }} | select(name)")).unwrap();
    let options = SearchOptions {
        time_range_nano: None,
        max_traces: 0,
        max_spans_per_span_set: 0,
        most_recent: false,
        limits: LIMITS,
    };
    let output = search(&Plan::new(&query).unwrap(), table, &options).unwrap();
    let sets = output.traces.iter().flat_map(|trace| &trace.span_sets);
    let spans = sets.flat_map(|set| &set.spans);
    spans.map(|span| span.name.as_deref().unwrap()).collect()
}

fn series(table: &dyn SpanTable, query: &str) -> Vec<String> {
    let query = tempo_traceql::parse(query).unwrap();
    let plan = MetricsPlan::new(&query, &MetricsOptions::default()).unwrap();
    let window = Window {
        start_nano: 0,
        end_nano: 100,
        step_nano: 100,
        is_instant: true,
    };
    let answer = evaluate(&plan, table, window, LIMITS)
        .unwrap()
        .finish(&plan);
    let series = answer.series.iter();
    series
        .map(|one| format!("{:?} {:?}", one.labels, one.values))
        .collect()
}

fn completion(table: &dyn SpanTable, condition: &str) -> String {
    let groups = tempo_traceql::condition_groups(&format!("{{ {condition} }}"), 10).unwrap();
    let filter = TagFilter::new(&groups).unwrap();
    let names = tag_names(table, None, &filter, LIMITS).unwrap();
    let attribute = tempo_traceql::parse_identifier("resource.service.name").unwrap();
    let values = tag_values(
        table,
        &attribute,
        &filter,
        TagValueLimits::default(),
        LIMITS,
    );
    format!("{names:?} {:?}", values.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_query_tells_live_data_from_blocks_by_a_missing_service_name() {
    let folder = tempfile::tempdir().unwrap();
    let config = BackendConfig::local(folder.path());
    let backend = Backend::open(&config, &prometheus::Registry::new())
        .await
        .unwrap();
    let live = live();
    let stored = [
        stored(&backend, Version::VParquet4).await,
        stored(&backend, Version::VParquet5).await,
    ];
    let everything = move || {
        for (condition, want) in [
            ("resource.service.name = ``", Some("12")),
            (".service.name = ``", Some("12")),
            ("resource.service.name = 5", Some("4")),
            ("name = `1` && resource.service.name < `a`", Some("1")),
            (".service.name = nil", None),
            ("resource.service.name =~ `.*`", None),
            ("resource.service.name != `shop`", None),
            ("!(resource.service.name = `shop`)", None),
        ] {
            let answer = found(&*live, condition);
            assert!(
                want.is_none_or(|want| answer == want),
                "{condition}: {answer}"
            );
            for table in &stored {
                assert_eq!(found(&**table, condition), answer, "{condition}");
            }
        }
        for query in [
            "{ } | rate() by (resource.service.name)",
            "{ } | count_over_time() by (.service.name)",
            "{ } | compare({ resource.service.name = `` })",
        ] {
            let want = series(&*live, query);
            assert!(!want.is_empty());
            for table in &stored {
                assert_eq!(series(&**table, query), want, "{query}");
            }
        }
        for condition in [
            "name = `1`",
            "name = `2`",
            "name = `3`",
            "name = `4`",
            "name != `3`",
            "",
        ] {
            let want = completion(&*live, condition);
            for table in &stored {
                assert_eq!(completion(&**table, condition), want, "{condition}");
            }
        }
    };
    // Tables of blocks are read on threads that may block.
    tokio::task::spawn_blocking(everything).await.unwrap();
}
