//! Answers of jobs that are kept, and which are not.

use tempo_api::job::{DataPlace, Job};
use tempo_backend::cache::Cache;
use tempo_query_frontend::Config;

use crate::support::{NOW, Seen, Stack, counted, found_names, found_traces, found_values};

fn stack() -> Stack {
    let results = Cache::new(1 << 20, &prometheus::Registry::new()).unwrap();
    Stack::with_results(Config::default(), results)
}

fn answering(stack: &Stack) -> Seen {
    stack.querier(|_, job| {
        Ok(match job {
            Job::Search { .. } => found_traces(&[("a", 10)]),
            Job::TagNames { .. } => found_names("span", &["x"]),
            Job::TagValues { .. } => found_values(&[("string", "x")]),
            Job::QueryRange {
                request, window, ..
            } => tempo_api::job::JobOutput::QueryRange(counted(
                request,
                *window,
                &[u64::from(NOW) - 3_630],
            )),
            Job::FindTrace { .. } => tempo_api::job::JobOutput::Trace(Default::default()),
        })
    })
}

/// Jobs on blocks that were run.
fn block_jobs(seen: &Seen) -> usize {
    let is_block = |job: &Job| match job {
        Job::Search { place, .. }
        | Job::TagNames { place, .. }
        | Job::TagValues { place, .. }
        | Job::QueryRange { place, .. } => matches!(place, DataPlace::Block { .. }),
        Job::FindTrace { .. } => false,
    };
    seen.take().iter().filter(|(_, job)| is_block(job)).count()
}

fn range(from: u32, to: u32) -> String {
    format!("start={}&end={}", NOW - from, NOW - to)
}

#[tokio::test]
async fn a_job_on_a_whole_block_is_run_once() {
    // The block is from 3,660 to 3,600 seconds ago.
    for path in [
        "/api/search?q={}",
        "/api/search?q={name=`a`}%7Cselect(.x)",
        "/api/v2/search/tags?scope=span",
        "/api/v2/search/tag/.x/values?q={}",
        "/api/metrics/query_range?q={}%7Crate()&step=10s",
        "/api/metrics/query?q={}%7Cquantile_over_time(duration,.5)",
    ] {
        let stack = stack();
        stack.add_block("single-tenant", 3_600, 1);
        let seen = answering(&stack);
        let url = format!("{path}&{}", range(7_200, 1_800));
        let first = stack.get(&url).await;
        assert_eq!(first.status, 200, "{url}: {}", first.text());
        assert_eq!(block_jobs(&seen), 1, "{path}");
        let second = stack.get(&url).await;
        assert_eq!(block_jobs(&seen), 0, "{path}");
        // The answer is the same, but nothing was read for it.
        let answer = |reply: &crate::support::Reply| -> serde_json::Value {
            let mut answer: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
            let metrics = answer["metrics"].as_object_mut().unwrap();
            for inspected in ["inspectedBytes", "inspectedTraces", "inspectedSpans"] {
                metrics.remove(inspected);
            }
            answer
        };
        assert_eq!(answer(&second), answer(&first), "{path}");
        for inspected in ["inspectedBytes", "inspectedTraces", "inspectedSpans"] {
            assert!(!second.text().contains(inspected), "{}", second.text());
        }
    }
}

#[tokio::test]
async fn another_question_or_another_time_is_another_job() {
    let stack = stack();
    stack.add_block("single-tenant", 3_600, 1);
    let seen = answering(&stack);
    let jobs = async |path: &str, range: &str| {
        let reply = stack.get(&format!("{path}&{range}")).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        block_jobs(&seen)
    };
    let whole = range(7_200, 1_800);
    assert_eq!(jobs("/api/search?q={.a}", &whole).await, 1);
    assert_eq!(jobs("/api/search?q={%20.a%20%20}", &whole).await, 0);
    assert_eq!(jobs("/api/search?q={.b}", &whole).await, 1);
    assert_eq!(jobs("/api/search?q={.a}&limit=7", &whole).await, 1);
    assert_eq!(jobs("/api/search?q={.a}&spss=7", &whole).await, 1);
    // Another range that holds the block is the same.
    assert_eq!(jobs("/api/search?q={.a}", &range(6_000, 1_900)).await, 0);
    // A part of the block is never kept.
    for _ in 0..2 {
        assert_eq!(jobs("/api/search?q={.a}", &range(3_630, 1_800)).await, 1);
        assert_eq!(jobs("/api/search?q={.a}", &range(7_200, 3_600)).await, 1);
    }
    let counted = "/api/metrics/query_range?q={}%7Crate()";
    assert_eq!(jobs(&format!("{counted}&step=10s"), &whole).await, 1);
    assert_eq!(jobs(&format!("{counted}&step=20s"), &whole).await, 1);
    assert_eq!(
        jobs(&format!("{counted}&step=10s"), &range(6_000, 1_900)).await,
        0
    );
    let instant = "/api/metrics/query?q={}%7Crate()";
    assert_eq!(jobs(instant, &whole).await, 1);
    assert_eq!(jobs(instant, &whole).await, 0);
    assert_eq!(jobs(instant, &range(6_000, 1_900)).await, 1);
}

#[tokio::test]
async fn that_a_block_cannot_be_read_is_not_kept() {
    let stack = stack();
    stack.add_block_of_format("single-tenant", 3_600, "vParquet6");
    let seen = answering(&stack);
    for path in [
        "/api/search?q={}",
        "/api/v2/search/tags?scope=span",
        "/api/v2/search/tag/.x/values?q={}",
        "/api/metrics/query_range?q={}%7Crate()&step=10s",
    ] {
        let url = format!("{path}&{}", range(7_200, 1_800));
        for _ in 0..2 {
            assert_eq!(stack.get(&url).await.status, 200, "{path}");
            assert_eq!(block_jobs(&seen), 1, "{path}");
        }
    }
}
