//! A querier over live data that a test controls, and an empty store.

use std::{
    any::Any,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use prost::Message as _;
use tempo_api::job::{DataPlace, Job, TraceParts};
use tempo_backend::{Backend, BackendConfig, Blocklist, cache::Cache};
use tempo_model::TraceId;
use tempo_proto::{
    opentelemetry::proto::{
        common::v1::{AnyValue, KeyValue, any_value::Value},
        trace::v1::{ResourceSpans, ScopeSpans, Span},
    },
    tempopb::{SearchRequest, Trace},
};
use tempo_querier::{
    BlockSource, Config, Deps, Querier, RecentError, RecentOperation, RecentTraces, RecentView,
};
use tempo_table::{
    AttributeScope, Bitmap, Column, ColumnKey, MemoryTable, MemoryTableBuilder, SpanTable,
    StringDict, Structure, TableError,
};
use tokio::sync::mpsc;

/// The present, unix seconds; the traces of [`table`] start here.
pub(crate) const NOW: u32 = 1_700_000_000;

/// Traces of one span each, with these ids and an attribute `a` of the same number; each starts a
/// second after the one before.
pub(crate) fn table(ids: std::ops::Range<u8>) -> MemoryTable {
    let mut builder = MemoryTableBuilder::new();
    for id in ids {
        let start = (u64::from(NOW) + u64::from(id)) * 1_000_000_000;
        let span = Span {
            trace_id: vec![id; 16],
            span_id: vec![id; 8],
            name: format!("span {id}"),
            start_time_unix_nano: start,
            end_time_unix_nano: start + 1,
            attributes: vec![KeyValue {
                key: "a".to_owned(),
                value: Some(AnyValue {
                    value: Some(Value::IntValue(i64::from(id))),
                }),
                ..KeyValue::default()
            }],
            ..Span::default()
        };
        let trace = Trace {
            resource_spans: vec![ResourceSpans {
                scope_spans: vec![ScopeSpans {
                    spans: vec![span],
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        let bytes = trace.encode_to_vec();
        builder
            .push_trace(TraceId::from_bytes([id; 16]), &[&bytes])
            .unwrap();
    }
    builder.finish()
}

/// Tells when it is dropped.
pub(crate) struct TellWhenDropped(pub(crate) mpsc::UnboundedSender<()>);

impl Drop for TellWhenDropped {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// Live data made by a function.
pub(crate) struct Recent<F>(pub(crate) F);

impl<F> RecentTraces for Recent<F>
where
    F: Fn() -> Result<(Vec<Arc<dyn SpanTable>>, Box<dyn Any + Send>), RecentError> + Send + Sync,
{
    fn view(&self, _: &str, _: u64, _: u64, _: RecentOperation) -> Result<RecentView, RecentError> {
        let (tables, hold) = (self.0)()?;
        Ok(RecentView { tables, hold })
    }

    fn find_trace(&self, _: &str, _: TraceId) -> Result<TraceParts, RecentError> {
        (self.0)().map(|_| TraceParts::default())
    }
}

/// A querier over these tables, all at once.
pub(crate) async fn over(tables: Vec<MemoryTable>) -> Querier {
    let tables: Vec<Arc<dyn SpanTable>> = tables
        .into_iter()
        .map(|table| Arc::new(table) as Arc<dyn SpanTable>)
        .collect();
    let recent = Recent(move || Ok((tables.clone(), Box::new(()) as Box<dyn Any + Send>)));
    querier(Config::default(), Blocklist::new(), recent).await
}

pub(crate) async fn querier(
    config: Config,
    blocklist: Blocklist,
    recent: impl RecentTraces + 'static,
) -> Querier {
    let registry = prometheus::Registry::new();
    // Nothing is read from it after it was opened.
    let root = tempfile::tempdir().unwrap();
    let backend = Backend::open(&BackendConfig::local(root.path()), &registry)
        .await
        .unwrap();
    Querier::build(
        config,
        Deps {
            blocks: Some(BlockSource {
                backend,
                blocklist,
                max_list_age: Duration::MAX,
                cache: Cache::new(1 << 20, &registry).unwrap(),
                now_nanos: Arc::new(|| i64::from(NOW) * 1_000_000_000),
            }),
            recent: tempo_querier::Recent::Here(Arc::new(recent)),
            registry: &registry,
        },
    )
    .unwrap()
}

pub(crate) fn recent() -> DataPlace {
    DataPlace::Recent {
        start: NOW - 60,
        end: NOW + 60,
    }
}

pub(crate) fn search(query: &str, limit: u32) -> Job {
    Job::Search {
        request: Arc::new(SearchRequest {
            query: query.to_owned(),
            limit,
            start: NOW - 60,
            end: NOW + 60,
            ..SearchRequest::default()
        }),
        place: recent(),
    }
}

/// A table whose columns can be had only when a gate is opened.
pub(crate) struct Gated {
    pub(crate) table: MemoryTable,
    /// Told for each column that is asked for.
    pub(crate) asked: mpsc::UnboundedSender<()>,
    /// One message lets one column through.
    pub(crate) gate: Mutex<std::sync::mpsc::Receiver<()>>,
    pub(crate) columns: Arc<AtomicUsize>,
}

impl SpanTable for Gated {
    fn structure(&self) -> Result<Arc<Structure>, TableError> {
        self.table.structure()
    }

    fn event_offsets(&self) -> Result<Arc<[u32]>, TableError> {
        self.table.event_offsets()
    }

    fn link_offsets(&self) -> Result<Arc<[u32]>, TableError> {
        self.table.link_offsets()
    }

    fn column(&self, key: &ColumnKey, rows: Option<&Bitmap>) -> Result<Column, TableError> {
        self.columns.fetch_add(1, Ordering::SeqCst);
        let _ = self.asked.send(());
        // A test that ended has dropped the other side.
        let _ = self.gate.lock().unwrap().recv();
        self.table.column(key, rows)
    }

    fn string_superset(&self, _: &ColumnKey) -> Result<Option<Arc<StringDict>>, TableError> {
        Ok(None)
    }

    fn int_bounds(&self, _: &ColumnKey) -> Result<Option<(i64, i64)>, TableError> {
        Ok(None)
    }

    fn attribute_names(
        &self,
        scope: AttributeScope,
        rows: Option<&Bitmap>,
    ) -> Result<Vec<Arc<str>>, TableError> {
        self.table.attribute_names(scope, rows)
    }

    fn bytes_read(&self) -> u64 {
        0
    }
}
