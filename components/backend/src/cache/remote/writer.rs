//! Writes that nobody waits for.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::sync::mpsc;

use super::{client::Client, metrics::WriterMetrics};

/// Bytes that wait to be written; more are dropped.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

pub(super) struct Writer {
    queue: mpsc::Sender<(String, Bytes)>,
    waiting_bytes: Arc<AtomicUsize>,
    metrics: WriterMetrics,
}

impl Writer {
    /// Writes until it is dropped.
    pub(super) fn start(
        client: Arc<Client>,
        concurrent: usize,
        max_waiting: usize,
        metrics: WriterMetrics,
    ) -> Self {
        let (queue, mut writes) = mpsc::channel::<(String, Bytes)>(max_waiting.max(1));
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let writer = Self {
            queue,
            waiting_bytes: Arc::clone(&waiting_bytes),
            metrics: metrics.clone(),
        };
        tokio::spawn(async move {
            stream::poll_fn(|context| writes.poll_recv(context))
                .for_each_concurrent(concurrent.max(1), |(key, value)| {
                    let (client, metrics) = (&client, &metrics);
                    let waiting_bytes = &waiting_bytes;
                    async move {
                        metrics.taken();
                        client.set(&key, &value).await;
                        waiting_bytes.fetch_sub(value.len(), Ordering::Relaxed);
                    }
                })
                .await;
        });
        writer
    }

    /// Queues a write, or drops it when too much waits.
    pub(super) fn write(&self, key: String, value: Bytes) {
        let len = value.len();
        let waiting = self.waiting_bytes.fetch_add(len, Ordering::Relaxed);
        if waiting.saturating_add(len) > MAX_WAITING_BYTES
            || self.queue.try_send((key, value)).is_err()
        {
            self.waiting_bytes.fetch_sub(len, Ordering::Relaxed);
            self.metrics.dropped();
            return;
        }
        self.metrics.queued();
    }
}
