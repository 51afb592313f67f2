//! Jobs that end before they are done.

use std::{
    any::Any,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tempo_api::job::JobError;
use tempo_backend::Blocklist;
use tempo_querier::{Config, Querier};
use tempo_table::SpanTable;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::{Gated, Recent, TellWhenDropped, querier, search, table};

/// A querier whose only table waits before each column.
struct Slow {
    querier: Querier,
    /// A column was asked for.
    asked: mpsc::UnboundedReceiver<()>,
    /// Lets one column through.
    gate: std::sync::mpsc::Sender<()>,
    /// The job has let go of the table.
    ended: mpsc::UnboundedReceiver<()>,
    columns: Arc<AtomicUsize>,
}

async fn slow(config: Config) -> Slow {
    let (asked_sender, asked) = mpsc::unbounded_channel();
    let (gate, gate_receiver) = std::sync::mpsc::channel();
    let (ended_sender, ended) = mpsc::unbounded_channel();
    let columns = Arc::new(AtomicUsize::new(0));
    let gated: Arc<dyn SpanTable> = Arc::new(Gated {
        table: table(1..4),
        asked: asked_sender,
        gate: Mutex::new(gate_receiver),
        columns: Arc::clone(&columns),
    });
    let recent = Recent(move || {
        let hold = Box::new(TellWhenDropped(ended_sender.clone())) as Box<dyn Any + Send>;
        Ok((vec![Arc::clone(&gated)], hold))
    });
    Slow {
        querier: querier(config, Blocklist::new(), recent).await,
        asked,
        gate,
        ended,
        columns,
    }
}

/// Asks for more than one column.
const QUERY: &str = "{ .a > 0 && name != `` && duration > 0ns }";

#[tokio::test]
async fn a_cancelled_job_answers_at_once_and_stops_at_the_next_column() {
    let mut slow = slow(Config::default()).await;
    let cancelled = CancellationToken::new();
    let job = tokio::spawn({
        let (querier, cancelled) = (slow.querier.clone(), cancelled.clone());
        async move { querier.run(&"t".into(), search(QUERY, 0), cancelled).await }
    });
    slow.asked.recv().await.unwrap();
    cancelled.cancel();
    assert_eq!(job.await.unwrap().unwrap_err(), JobError::Cancelled);
    slow.gate.send(()).unwrap();
    slow.ended.recv().await.unwrap();
    assert_eq!(slow.columns.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_job_whose_asker_is_gone_stops_at_the_next_column() {
    let mut slow = slow(Config::default()).await;
    let job = tokio::spawn({
        let querier = slow.querier.clone();
        async move {
            let token = CancellationToken::new();
            querier.run(&"t".into(), search(QUERY, 0), token).await
        }
    });
    slow.asked.recv().await.unwrap();
    job.abort();
    assert!(job.await.unwrap_err().is_cancelled());
    slow.gate.send(()).unwrap();
    slow.ended.recv().await.unwrap();
    assert_eq!(slow.columns.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_job_over_time_is_given_up() {
    let slow = slow(Config {
        search_query_timeout: Duration::from_millis(1),
        ..Config::default()
    })
    .await;
    let result = slow
        .querier
        .run(&"t".into(), search(QUERY, 0), CancellationToken::new())
        .await;
    assert_eq!(result.unwrap_err(), JobError::TimedOut);
}

#[tokio::test]
async fn a_job_that_is_over_leaves_room_for_the_next() {
    let mut slow = slow(Config {
        max_evaluating_jobs: 1,
        ..Config::default()
    })
    .await;
    let run = |token: CancellationToken| {
        let querier = slow.querier.clone();
        tokio::spawn(async move { querier.run(&"t".into(), search(QUERY, 0), token).await })
    };
    let cancelled = CancellationToken::new();
    let first = run(cancelled.clone());
    slow.asked.recv().await.unwrap();
    let second = run(CancellationToken::new());
    cancelled.cancel();
    assert_eq!(first.await.unwrap().unwrap_err(), JobError::Cancelled);
    // The thread of the first still holds its share until its column is let through.
    assert!(slow.asked.try_recv().is_err());
    for _ in 0..64 {
        slow.gate.send(()).unwrap();
    }
    assert!(second.await.unwrap().is_ok());
}
