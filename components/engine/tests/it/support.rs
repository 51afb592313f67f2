//! Tables and queries for tests.

use std::sync::atomic::AtomicBool;

use tempo_engine::{Limits, Plan, SearchOptions, SearchOutput, search};
use tempo_table::SpanTable;

/// Nobody cancels.
pub(crate) static RUNNING: AtomicBool = AtomicBool::new(false);

pub(crate) fn limits() -> Limits<'static> {
    Limits {
        max_column_bytes: 1 << 30,
        cancel: &RUNNING,
    }
}

pub(crate) fn plan(query: &str) -> Plan {
    let parsed = tempo_traceql::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    Plan::new(&parsed).unwrap_or_else(|error| panic!("{query}: {error}"))
}

pub(crate) fn options() -> SearchOptions<'static> {
    SearchOptions {
        time_range_nano: None,
        max_traces: 1000,
        max_spans_per_span_set: 100,
        most_recent: false,
        limits: limits(),
    }
}

pub(crate) fn run(table: &dyn SpanTable, query: &str) -> Result<SearchOutput, String> {
    search(&plan(query), table, &options()).map_err(|error| error.to_string())
}
