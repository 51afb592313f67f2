//! Looking on beside a scenario: what must hold at every moment.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    Failure, Outcome,
    cluster::{Cluster, Objects},
};

/// Time between two looks.
const PACE: Duration = Duration::from_millis(500);

/// Looks again and again; keeps what was first amiss.
#[derive(Debug)]
pub struct Watcher {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Outcome>>,
}

impl Watcher {
    /// Looks at the pods with these labels.
    pub fn over_pods(
        cluster: &Cluster,
        namespace: &str,
        selector: &str,
        mut holds: impl FnMut(&Objects) -> Outcome + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (cluster, namespace, selector) =
            (cluster.clone(), namespace.to_owned(), selector.to_owned());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // An API server that is busy is not what is looked for.
                if let Ok(pods) = cluster.list(&namespace, "pods", &selector) {
                    holds(&pods)?;
                }
                thread::sleep(PACE);
            }
            Ok(())
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// What was amiss.
    pub fn end(mut self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            _ => Err(Failure::new("who looked on has panicked")),
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
