//! Block-builders that are behind: what they have not brought is asked of live-stores, however old.

use std::time::Duration;

use tempo_api::job::{DataPlace, Job};
use tempo_query_frontend::{BuiltUntil, Config};

use crate::support::{NOW, Stack, nothing};

/// The seconds asked of live-stores and the blocks that are read for a query of the last two hours.
async fn asked(built: BuiltUntil, path: &str) -> (Vec<u32>, usize) {
    let stack = Stack::with_built(Config::default(), built);
    for age_seconds in [600, 1_000, 3_000, 6_000] {
        stack.add_block("single-tenant", age_seconds, 1);
    }
    let seen = stack.querier(|_, job| nothing(job));
    let url = format!("{path}&start={}&end={NOW}", NOW - 7_200);
    let reply = stack.get(&url).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let (mut since, mut blocks) = (Vec::new(), 0);
    for (_, job) in seen.take() {
        let (Job::Search { place, .. }
        | Job::TagNames { place, .. }
        | Job::TagValues { place, .. }
        | Job::QueryRange { place, .. }) = job
        else {
            panic!("{job:?}");
        };
        match place {
            DataPlace::Recent { start, .. } => since.push(NOW - start),
            DataPlace::Block { .. } => blocks += 1,
        }
    }
    // Pieces of the same time.
    since.sort_unstable();
    (since.into_iter().rev().take(1).collect(), blocks)
}

fn built(age_seconds: u32) -> BuiltUntil {
    BuiltUntil::UnixSeconds(i64::from(NOW - age_seconds))
}

#[tokio::test]
async fn traces_are_searched_in_both_where_builders_are_behind() {
    for path in ["/api/search?q=%7B%7D", "/api/v2/search/tags?scope=span"] {
        let usual = (vec![900], 3);
        assert_eq!(asked(BuiltUntil::AsConfigured, path).await, usual, "{path}");
        assert_eq!(asked(built(60), path).await, usual, "{path}: in time");
        assert_eq!(asked(built(4_000), path).await, (vec![4_000], 3), "{path}");
        let long = asked(built(100_000), path).await;
        assert_eq!(
            long,
            (vec![7_200], 3),
            "{path}: behind for longer than asked"
        );
    }
}

#[tokio::test]
async fn spans_are_counted_in_one_place() {
    let path = "/api/metrics/query?q=%7B%7D%7Ccount_over_time()";
    assert_eq!(asked(built(60), path).await, (vec![900], 3));
    // The blocks that begin later are not counted: live-stores have their spans.
    assert_eq!(asked(built(4_000), path).await, (vec![4_000], 1));
}

/// Asks for what needs to be known of blocks; tells what the refusals say.
async fn refusals(built: BuiltUntil) -> Vec<String> {
    let stack = Stack::with_built(Config::default(), built);
    let _querier = stack.querier(|_, job| nothing(job));
    let mut texts = Vec::new();
    for path in [
        "/api/search?q=%7B%7D",
        "/api/v2/search/tags?scope=span",
        "/api/metrics/query?q=%7B%7D%7Ccount_over_time()",
    ] {
        let url = format!("{path}&start={}&end={NOW}", NOW - 7_200);
        let reply = stack.get(&url).await;
        assert_eq!(reply.status, 500, "{reply:?}");
        texts.push(reply.pair().1.to_owned());
    }
    texts
}

#[tokio::test]
async fn while_nothing_is_known_nothing_is_told() {
    for text in refusals(BuiltUntil::Unknown).await {
        assert!(text.contains("/partition-ring"), "{text}");
    }
}

#[tokio::test]
async fn nothing_is_told_by_an_old_list_of_blocks() {
    for (listed, words) in [
        (Some(Duration::from_secs(47)), "last listed 47 s ago"),
        (None, "not listed yet"),
    ] {
        for text in refusals(BuiltUntil::Outdated { listed }).await {
            assert!(text.contains(words), "{text}");
        }
    }
}
