//! `query`: traces, from the blocks themselves.

use std::{collections::BTreeSet, sync::Arc, sync::atomic::AtomicBool};

use serde_json::{Value, json};
use tempo_api::{convert, json as api_json};
use tempo_backend::{BlockMeta, ReadStats, Timestamp};
use tempo_block::read::{BlockReader, find_trace};
use tempo_engine::{Limits, Plan, SearchOptions, search as search_table};
use tempo_model::{TraceId, TraceUnion, otlp::resource_spans};
use tempo_proto::tempopb::SearchResponse;

use super::{
    CliError,
    arguments::Arguments,
    output::{Output, Progress, size},
    store::{Store, blocking},
};

/// Bytes of columns that a search holds at once.
const MAX_COLUMN_BYTES: usize = 1 << 30;

fn parse_id(text: &str) -> Result<TraceId, CliError> {
    text.parse()
        .map_err(|error| CliError::Usage(format!("trace id {text}: {error}")))
}

/// The parts of a trace, with the blocks that they are in; there is at least one.
async fn parts(
    id: &str,
    tenant: &str,
    arguments: &Arguments,
) -> Result<(TraceId, Vec<(Arc<BlockMeta>, bytes::Bytes)>), CliError> {
    let id = parse_id(id)?;
    let store = Store::open(arguments).await?;
    let metas = store.blocks(tenant).await?.live().to_vec();
    let found = blocking(move || {
        let mut found = Vec::new();
        let mut progress = Progress::new("blocks searched", metas.len());
        for meta in metas {
            let stats = ReadStats::new();
            let part = find_trace(&store.backend, &store.cache, &meta, &id, &stats);
            if let Some(part) = part.map_err(CliError::failed)? {
                found.push((meta, part));
            }
            progress.step();
        }
        Ok(found)
    })
    .await?;
    if found.is_empty() {
        return Err(CliError::Failed(format!("trace {id} is in no block")));
    }
    Ok((id, found))
}

fn united(parts: &[(Arc<BlockMeta>, bytes::Bytes)]) -> Result<bytes::Bytes, CliError> {
    let mut union = TraceUnion::new();
    for (_, part) in parts {
        union.add(part.clone()).map_err(CliError::failed)?;
    }
    Ok(union.finish())
}

pub(super) async fn trace(
    id: &str,
    tenant: &str,
    arguments: &Arguments,
    output: &Output,
) -> Result<(), CliError> {
    let (_, parts) = parts(id, tenant, arguments).await?;
    for (meta, part) in &parts {
        eprintln!(
            "found in block {}: {}",
            meta.block_id,
            size(part.len() as u64)
        );
    }
    let body = api_json::trace_v1(&united(&parts)?).map_err(CliError::failed)?;
    output.text(&format!("{}\n", String::from_utf8_lossy(&body)));
    Ok(())
}

pub(super) async fn trace_summary(
    id: &str,
    tenant: &str,
    arguments: &Arguments,
    output: &Output,
) -> Result<(), CliError> {
    let (id, parts) = parts(id, tenant, arguments).await?;
    let trace = united(&parts)?;
    let mut spans = 0;
    let (mut start, mut end) = (u64::MAX, 0);
    let mut root = Value::Null;
    let mut services = BTreeSet::new();
    for resource in resource_spans(&trace) {
        let resource = resource.map_err(CliError::failed)?;
        for attribute in resource.resource_attributes().map_err(CliError::failed)? {
            let attribute = attribute.map_err(CliError::failed)?;
            if attribute.key == b"service.name"
                && let tempo_model::otlp::AnyValueRef::String(name) = attribute.value
            {
                services.insert(String::from_utf8_lossy(name).into_owned());
            }
        }
        for scope in resource.scope_spans() {
            for span in scope.map_err(CliError::failed)?.spans() {
                let span = span.map_err(CliError::failed)?;
                spans += 1;
                start = start.min(span.start_time_unix_nano);
                end = end.max(span.end_time_unix_nano);
                if span.parent_span_id.is_empty() {
                    root = json!(String::from_utf8_lossy(span.name));
                }
            }
        }
    }
    output.object(json!({
        "trace_id": id.to_string(),
        "blocks": parts.iter().map(|(meta, _)| meta.block_id.to_string()).collect::<Vec<_>>(),
        "spans": spans,
        "size_bytes": trace.len(),
        "start_unix_nano": start,
        "duration_nano": end.saturating_sub(start),
        "root": root,
        "services": services,
    }));
    Ok(())
}

/// An attribute and a time to search for.
pub(super) struct Tag<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a str,
    pub(super) start: &'a str,
    pub(super) end: &'a str,
}

pub(super) async fn search_tag(
    tag: Tag<'_>,
    tenant: &str,
    arguments: &Arguments,
    output: &Output,
) -> Result<(), CliError> {
    let quoted = |text: &str| json!(text).to_string();
    let query = format!("{{ .{} = {} }}", quoted(tag.name), quoted(tag.value));
    let times = (time(Some(tag.start))?, time(Some(tag.end))?);
    run(&query, times, tenant, arguments, output).await
}

pub(super) async fn search(
    query: &str,
    tenant: &str,
    arguments: &Arguments,
    output: &Output,
) -> Result<(), CliError> {
    let times = (
        time(arguments.value("start"))?,
        time(arguments.value("end"))?,
    );
    run(query, times, tenant, arguments, output).await
}

/// RFC 3339, or seconds since the epoch.
fn time(text: Option<&str>) -> Result<Option<Timestamp>, CliError> {
    let Some(text) = text else { return Ok(None) };
    if let Ok(seconds) = text.parse() {
        return Ok(Some(Timestamp::from_unix_seconds(seconds)));
    }
    Timestamp::parse_rfc3339(text)
        .map(Some)
        .map_err(|error| CliError::Usage(format!("time {text}: {error}")))
}

async fn run(
    query: &str,
    (start, end): (Option<Timestamp>, Option<Timestamp>),
    tenant: &str,
    arguments: &Arguments,
    output: &Output,
) -> Result<(), CliError> {
    let query = tempo_traceql::parse(query).map_err(|error| CliError::Usage(error.to_string()))?;
    let plan = Plan::new(&query).map_err(|error| CliError::Usage(error.to_string()))?;
    let limit = arguments.number("limit", 20)?;
    let start = start.unwrap_or(Timestamp::ZERO);
    let end = end.unwrap_or_else(Timestamp::now);
    let store = Store::open(arguments).await?;
    let blocks = store.blocks(tenant).await?;
    let metas = blocks.in_range(start, end);
    let nanos = |time: Timestamp| u64::try_from(time.unix_nanos()).unwrap_or(0);
    let range = (nanos(start), nanos(end));
    let response = blocking(move || {
        let cancel = AtomicBool::new(false);
        let mut response = SearchResponse::default();
        let mut known = BTreeSet::new();
        let mut progress = Progress::new("blocks searched", metas.len());
        for meta in metas {
            let reader = BlockReader::open(&store.backend, &store.cache, meta, ReadStats::new())
                .map_err(CliError::failed)?;
            for group in 0..reader.row_groups() {
                let Some(table) = reader.table(group, ReadStats::new()) else {
                    continue;
                };
                let options = SearchOptions {
                    time_range_nano: Some(range),
                    max_traces: limit - response.traces.len(),
                    max_spans_per_span_set: 0,
                    most_recent: false,
                    limits: Limits {
                        max_column_bytes: MAX_COLUMN_BYTES,
                        cancel: &cancel,
                    },
                };
                let found = search_table(&plan, &table, &options).map_err(CliError::failed)?;
                let new = found
                    .traces
                    .into_iter()
                    .filter(|trace| known.insert(trace.trace_id));
                response.traces.extend(new.map(convert::search_result));
                if response.traces.len() >= limit {
                    return Ok(response);
                }
            }
            progress.step();
        }
        Ok(response)
    })
    .await?;
    let body = api_json::search(&response);
    let body: Value = serde_json::from_slice(&body).map_err(CliError::failed)?;
    let traces = body["traces"].as_array().cloned().unwrap_or_default();
    let columns = [
        "traceID",
        "rootServiceName",
        "rootTraceName",
        "startTimeUnixNano",
        "durationMs",
    ];
    output.rows(&columns, traces);
    Ok(())
}
