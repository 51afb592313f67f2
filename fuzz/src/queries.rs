//! Queries that people write, on live data and on blocks of the same traces.

use std::{
    fmt::Debug,
    sync::{Arc, OnceLock, atomic::AtomicBool},
};

use tempo_backend::ReadStats;
use tempo_block::{
    schema::Version,
    write::{BlockBuilder, BlockOptions},
};
use tempo_distributor::{
    otlp_json::to_protobuf,
    regroup::{Bounds, Scratch, regroup},
};
use tempo_engine::{
    EngineError, Limits, Plan, SearchOptions, SearchOutput, TagFilter, TagValueLimits,
    metrics::{MetricsAnswer, MetricsOptions, MetricsPartial, MetricsPlan, Window, evaluate},
    search, tag_names, tag_values,
};
use tempo_model::TraceChunk;
use tempo_table::{Intrinsic, MemoryTableBuilder, SpanTable};
use tempo_traceql::{
    Query,
    ast::{MetricsAggregate, QueryBody, SeriesFunction},
    condition_groups, parse, parse_identifier, parse_lenient, parse_without_rewrites,
};
use uuid::Uuid;

use crate::store::{TENANT, with_store};

/// Most columns that a query may hold, in bytes.
const MAX_COLUMN_BYTES: usize = 16 << 20;
/// Series of an answer.
const MAX_SERIES: usize = 50;
/// Alternatives of a query for tags.
const MAX_CONDITION_GROUPS: usize = 20;

/// Parses a query, prints it, parses it again, and runs it as every kind of query that it can be:
/// on a table in memory, and on blocks of both versions, which must give the same answers.
#[expect(clippy::panic, reason = "that is the check")]
pub fn traceql(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let _ = parse_lenient(text);
    if let Ok(query) = parse_without_rewrites(text) {
        let printed = query.to_string();
        match parse_without_rewrites(&printed) {
            Ok(again) => assert_eq!(again.to_string(), printed, "of {text:?}"),
            Err(error) => panic!("{text:?} prints as {printed:?}, which fails: {error}"),
        }
    }
    let cancel = AtomicBool::new(false);
    let limits = Limits {
        max_column_bytes: MAX_COLUMN_BYTES,
        cancel: &cancel,
    };
    complete(text, limits);
    let Ok(query) = parse(text) else { return };
    if let Ok(plan) = Plan::new(&query) {
        run_search(&plan, text, limits);
    }
    count_over_time(&query, text, limits);
}

/// What `run` answers on live data, which is what it answers on blocks. `None` when it is refused
/// anywhere: columns of tables differ in size.
fn everywhere<T: Debug>(
    text: &str,
    run: impl Fn(&dyn SpanTable) -> Result<T, EngineError>,
) -> Option<T> {
    let (live, stored) = tables();
    let live = run(&**live).ok()?;
    let printed = format!("{live:#?}");
    for (version, table) in stored {
        let stored = format!("{:#?}", run(&**table).ok()?);
        assert_eq!(printed, stored, "live and {version:?}, {text:?}");
    }
    Some(live)
}

fn run_search(plan: &Plan, text: &str, limits: Limits<'_>) {
    let options = SearchOptions {
        time_range_nano: None,
        max_traces: 20,
        max_spans_per_span_set: 3,
        most_recent: text.len().is_multiple_of(2),
        limits,
    };
    let output = everywhere(text, |table| search(plan, table, &options).map(sorted));
    for trace in output.iter().flat_map(|output| &output.traces) {
        for set in &trace.span_sets {
            assert!(set.spans.len() <= 3 && set.spans.len() <= set.matched as usize);
        }
    }
    assert!(output.is_none_or(|output| output.traces.len() <= 20));
}

/// Services in the order of their names: tables keep them in different orders.
fn sorted(mut output: SearchOutput) -> SearchOutput {
    for trace in &mut output.traces {
        trace.service_stats.sort_by(|a, b| a.name.cmp(&b.name));
    }
    output
}

/// Names and values of tags, of the spans that the text asks for.
fn complete(text: &str, limits: Limits<'_>) {
    let max = TagValueLimits {
        max_values: 20,
        max_bytes: 1000,
    };
    let Ok(groups) = condition_groups(text, MAX_CONDITION_GROUPS) else {
        return;
    };
    let Ok(filter) = TagFilter::new(&groups) else {
        return;
    };
    everywhere(text, |table| tag_names(table, None, &filter, limits));
    let attribute = parse_identifier(text).or_else(|_| parse_identifier("resource.service.name"));
    if let Ok(attribute) = attribute {
        everywhere(text, |table| {
            tag_values(table, &attribute, &filter, max, limits)
        });
    }
}

/// Runs a query over time as a range and at an instant, whole and in two parts.
fn count_over_time(query: &Query, text: &str, limits: Limits<'_>) {
    let options = MetricsOptions {
        max_exemplars: text.len() % 5,
        max_series: MAX_SERIES,
        allow_unsafe_hints: true,
    };
    let Ok(plan) = MetricsPlan::new(query, &options) else {
        return;
    };
    let (start_nano, end_nano) = time_of_spans();
    let middle_nano = start_nano + (end_nano - start_nano) / 3;
    let intervals = 1 + text.len() as u64 % 7;
    for is_instant in [false, true] {
        let window = Window {
            start_nano,
            end_nano,
            step_nano: if is_instant {
                end_nano - start_nano
            } else {
                (end_nano - start_nano) / intervals
            },
            is_instant,
        };
        let whole = everywhere(text, |table| {
            let counted = evaluate(&plan, table, window, limits)?;
            let answer = counted.finish(&plan);
            let sent = MetricsPartial::from_wire(counted.to_wire(), usize::MAX);
            let sent = sent.map(|sent| format!("{:?}", sent.finish(&plan)));
            assert_eq!(sent.as_ref(), Ok(&format!("{answer:?}")), "of {text:?}");
            Ok(answer)
        });
        let Some(whole) = whole else { continue };
        assert!(whole.series.len() <= MAX_SERIES, "of {text:?}");
        for series in &whole.series {
            assert_eq!(series.values.len(), whole.grid.len());
        }
        if whole.is_truncated || !adds_up(query) {
            continue;
        }
        let parts = everywhere(text, |table| {
            let mut all = MetricsPartial::new(&plan, window);
            for part in [window.after(middle_nano), window.until(middle_nano)] {
                all.merge(
                    &plan,
                    evaluate(&plan, table, part, limits)?,
                    MAX_COLUMN_BYTES,
                )?;
            }
            Ok(all.finish(&plan))
        });
        let values = |answer: &MetricsAnswer| {
            let series = answer.series.iter();
            let series: Vec<_> = series.map(|one| (&one.labels, &one.values)).collect();
            format!("{series:?}")
        };
        if let Some(parts) = parts {
            assert_eq!(values(&parts), values(&whole), "two parts of {text:?}");
        }
    }
}

/// Whether parts of time make the whole to the last bit: counts do, sums are rounded.
fn adds_up(query: &Query) -> bool {
    let QueryBody::Metrics(metrics) = &query.body else {
        return false;
    };
    let counts = |aggregate: &MetricsAggregate| {
        matches!(
            aggregate,
            MetricsAggregate::Series {
                function: SeriesFunction::Rate | SeriesFunction::CountOverTime,
                ..
            }
        )
    };
    query.hints.is_empty()
        && metrics
            .single_leaf()
            .is_some_and(|leaf| counts(&leaf.aggregate))
}

type Tables = (Box<dyn SpanTable>, Vec<(Version, Box<dyn SpanTable>)>);

/// The traces that queries run on, those of some seeds of `otlp` and `otlp_json`: in memory, and in
/// a block of each version.
#[expect(clippy::expect_used, reason = "the seeds are valid")]
fn tables() -> &'static Tables {
    static TABLES: OnceLock<Tables> = OnceLock::new();
    TABLES.get_or_init(|| {
        let mut chunks = chunks();
        chunks.sort_by_key(|chunk| chunk.id);
        let mut builder = MemoryTableBuilder::new();
        for chunk in &chunks {
            let pushed = builder.push_trace(chunk.id, &[&chunk.trace]);
            pushed.expect("a seed");
        }
        let stored = [Version::VParquet4, Version::VParquet5];
        let stored = stored.map(|version| (version, in_block(version, &chunks)));
        (Box::new(builder.finish()), stored.into())
    })
}

#[expect(clippy::expect_used, reason = "the seeds are valid")]
fn chunks() -> Vec<TraceChunk> {
    let bounds = Bounds {
        max_attribute_bytes: usize::MAX,
        max_regrouped_bytes: usize::MAX,
    };
    let mut services = Vec::new();
    to_protobuf(
        include_bytes!("../corpus/otlp_json/services"),
        &mut services,
    )
    .expect("a seed");
    let requests = [
        &include_bytes!("../corpus/otlp/every-attribute-type")[..],
        &include_bytes!("../corpus/otlp/split-trace")[..],
        &services,
    ];
    let requests = requests.into_iter().flat_map(|request| {
        let regrouped = regroup(request, &bounds, &mut Scratch::default());
        regrouped.expect("a seed").traces
    });
    requests.collect()
}

#[expect(clippy::expect_used, reason = "the seeds are valid")]
fn in_block(version: Version, chunks: &[TraceChunk]) -> Box<dyn SpanTable> {
    // Blocks of their own, which no other target writes over.
    let id = Uuid::from_u128(0x3333_3333_4444_4555_8666_0000_0000_0000 + version as u128);
    let options = BlockOptions::new(version, TENANT.into(), id, chunks.len() as u64);
    let mut builder = BlockBuilder::new(options, Vec::new()).expect("memory takes all");
    for chunk in chunks {
        let pushed = builder.push_trace(chunk.id, &[&chunk.trace]);
        pushed.expect("a seed");
    }
    let (block, data) = builder.finish().expect("a block");
    with_store(|store| {
        store.put_block(&block, data);
        let reader = store.open(&Arc::new(block.meta));
        let reader = reader.expect("what was just written");
        assert_eq!(reader.row_groups(), 1);
        let table = reader.table(0, ReadStats::new());
        Box::new(table.expect("the row group"))
    })
}

/// When spans of the tables start: a moment before the first and the moment of the last, in
/// nanoseconds since the epoch.
#[expect(clippy::expect_used, reason = "memory answers")]
fn time_of_spans() -> (u64, u64) {
    static TIME: OnceLock<(u64, u64)> = OnceLock::new();
    *TIME.get_or_init(|| {
        let starts = tables().0.column(&Intrinsic::SpanStartNano.into(), None);
        let starts = starts.expect("a column").ints.expect("of integers").values;
        // Spans that say no time would make the window half a century wide.
        let some = || starts.iter().filter(|&&start| start > 0);
        let first = some().min().copied().unwrap_or(1);
        let last = some().max().copied().unwrap_or(2);
        (first as u64 - 1, last as u64)
    })
}
