//! TraceQL on what is live: a trace is one, however it came.

use std::sync::atomic::AtomicBool;

use tempo_engine::{Limits as QueryLimits, Plan, SearchOptions, search};

use super::*;
use crate::testing::batch;

/// The traces (by the last byte of their ids) that match, with the spans that match in each.
async fn ask(running: &Running, query: &str) -> Vec<(u8, u32)> {
    let plan = Plan::new(&tempo_traceql::parse(query).unwrap()).unwrap();
    let store = running.store.clone();
    tokio::task::spawn_blocking(move || {
        let cancel = AtomicBool::new(false);
        let options = SearchOptions {
            time_range_nano: None,
            max_traces: 0,
            max_spans_per_span_set: 100,
            most_recent: false,
            limits: QueryLimits {
                max_column_bytes: 1 << 30,
                cancel: &cancel,
            },
        };
        let view = store.view("t", 0, u64::MAX, Operation::Search).unwrap();
        let mut found = Vec::new();
        for table in view.tables() {
            let output = search(&plan, &**table, &options).unwrap();
            found.extend(output.traces.iter().map(|trace| {
                let matched = trace.span_sets.iter().map(|set| set.matched).sum();
                (trace.trace_id.as_bytes()[15], matched)
            }));
        }
        found.sort_unstable();
        found
    })
    .await
    .unwrap()
}

async fn assert_found_whole(running: &Running) {
    let structural = r#"{ name = "span-1" } >> { name = "span-4" }"#;
    assert_eq!(ask(running, structural).await, [(1, 1)]);
    let parent = r#"{ name = "span-2" } > { name = "span-3" }"#;
    assert_eq!(ask(running, parent).await, [(1, 1)]);
    assert_eq!(ask(running, "{ } | count() > 3").await, [(1, 4)]);
    assert_eq!(ask(running, "{ } | count() = 1").await, [(2, 1), (3, 1)]);
    let both = r#"{ name = "span-1" } && { name = "span-3" }"#;
    assert_eq!(ask(running, both).await, [(1, 2)]);
    let root = r#"{ rootName = "span-1" && span.number = 4 }"#;
    assert_eq!(ask(running, root).await, [(1, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_came_in_pieces_is_queried_as_one() {
    let mut world = World::new();
    world.config.columns_tick = Duration::from_millis(1);
    let running = world.start().await;
    // Backwards, so that no piece knows its parent when it comes; each piece becomes a table.
    for (first, other) in [(4, 2), (3, 3)] {
        running
            .push(batch([trace(1, first, 1), trace(other, 1, 1)]))
            .await
            .unwrap();
        while running.store.stats().pending_bytes > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    running.push_trace(1, 2, 1).await;
    running.push_trace(1, 1, 1).await;
    assert_found_whole(&running).await;
    let crash = world.snapshot();
    running.store.flush_all().await.unwrap();
    assert_found_whole(&running).await;
    running.stop().await;
    let running = world.after_crash(crash).start().await;
    assert_found_whole(&running).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_searchable_when_their_push_returns() {
    let world = World::new();
    let running = world.start().await;
    for n in 1..=30_u8 {
        running.push_trace(n, 1, 1).await;
        let query = format!(r#"{{ trace:id = "{}" }}"#, TraceId::from_padded(&[n]));
        assert_eq!(ask(&running, &query).await, [(n, 1)]);
    }
    running.stop().await;
}
