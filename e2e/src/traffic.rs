//! Spans and questions all the time, while something is changed beneath them: what was acknowledged
//! is found, whole and once.
//!
//! Two writers keep their connections as real senders do, one over HTTP, one with an SDK over gRPC;
//! so does the reader, as Grafana does.
//! Each trace has a number, so that searches and counts over ranges of numbers know their answer.

mod questions;
mod writers;

use std::{
    fmt,
    process::Child,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use self::{
    questions::{Reader, Seen, by_id, count, search},
    writers::{Writer, listen, write},
};
use crate::{
    Outcome,
    access::Access,
    context::{Context, Told},
    ensure,
    stack::Stack,
    traces::{Query, until},
};

/// Pause of each writer between two traces.
const PACE: Duration = Duration::from_millis(200);
/// Pause of the reader between two questions.
const READ_PACE: Duration = Duration::from_millis(100);
/// How long after its acknowledgement a span may be unknown: live-stores read what others wrote to
/// Kafka. On a busy machine that takes seconds.
const GRACE: Duration = Duration::from_secs(15);
/// Traces that one search or count asks for.
const RANGE: u32 = 40;
/// Names of the spans of each trace, sorted.
const SPANS: [&str; 3] = ["a", "b", "c"];
/// At the end, time for all to be found.
const ALL_FOUND_LIMIT: Duration = Duration::from_secs(180);
/// Traces of a writer that are asked for by id at the end.
const MAX_WHOLE: usize = 300;
/// Senders keep what was not acknowledged for some minutes, and lose it then.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Wrong answers and failures that are kept, to be told.
const MAX_TOLD: usize = 12;

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// Traces that were acknowledged.
    pub acknowledged: usize,
    /// Traces that were not.
    pub refused: usize,
    /// Questions that were answered.
    pub answers: usize,
    /// Questions that were not.
    pub failures: usize,
    /// Answers that were wrong.
    pub mistakes: usize,
    /// Longest time without an acknowledgement, of each writer.
    pub longest_pause: Duration,
    /// The first questions that failed, and how.
    pub failed: Vec<String>,
}
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} traces acknowledged, {} not, longest pause {:.1} s; {} questions answered, {} failed, {} wrongly",
            self.acknowledged,
            self.refused,
            self.longest_pause.as_secs_f64(),
            self.answers,
            self.failures,
            self.mistakes,
        )
    }
}

/// Writers and a reader at work.
#[derive(Debug)]
pub struct Traffic {
    writers: Vec<Arc<Writer>>,
    seen: Arc<Mutex<Seen>>,
    moment: Arc<Mutex<String>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    sdk: Child,
    query: Query,
    begun: Instant,
    told: Told,
    /// Open for as long as they are used.
    _ways: [Access; 3],
}

impl Traffic {
    /// Begins to write and to ask, through the Services of `stack`.
    ///
    /// # Errors
    /// When they cannot be reached.
    pub fn begin(context: &Context<'_>, stack: &Stack<'_>) -> Outcome<Self> {
        let http = stack.receiver(4318)?;
        let grpc = stack.receiver(4317)?;
        let (answers, query) = stack.query(None)?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let moment = Arc::new(Mutex::new("before".to_owned()));
        let (by_http, by_sdk) = (Writer::new("http"), Writer::new("grpc"));
        let mut sdk = context
            .world
            .sdk
            .steady(&grpc.address, &by_sdk.service, PACE)?;
        let mut threads = Vec::new();
        if let Some(told) = sdk.stdout.take() {
            let writer = Arc::clone(&by_sdk);
            threads.push(thread::spawn(move || listen(told, &writer)));
        }
        let writers = vec![by_http, by_sdk];
        {
            let (writer, stop) = (Arc::clone(&writers[0]), Arc::clone(&stop));
            let address = http.address.clone();
            threads.push(thread::spawn(move || write(&address, &writer, &stop)));
        }
        {
            let reader = Reader {
                writers: writers.clone(),
                seen: Arc::clone(&seen),
                moment: Arc::clone(&moment),
                query: query.keeping_its_connection(),
                begun: Instant::now(),
            };
            let stop = Arc::clone(&stop);
            threads.push(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    reader.ask();
                    thread::sleep(READ_PACE);
                }
            }));
        }
        let traffic = Self {
            writers,
            seen,
            moment,
            stop,
            threads,
            sdk,
            query,
            begun: Instant::now(),
            told: context.told.clone(),
            _ways: [http, grpc, answers],
        };
        // What is changed next shall meet questions that know their answers.
        until(Instant::now() + ALL_FOUND_LIMIT, || {
            let begun = |writer: &Arc<Writer>| {
                let written = writer.written();
                written.settled() >= RANGE && written.acknowledged_count() >= RANGE as usize
            };
            ensure(traffic.writers.iter().all(begun), || {
                "the writers get no acknowledgements".to_owned()
            })
        })?;
        Ok(traffic)
    }

    /// Tells what is being done from now on, for the words about what goes wrong.
    pub fn now(&self, moment: &str) {
        let mut now = self.moment.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != moment {
            eprintln!(
                "e2e: {:>6.1} s: {moment}",
                self.begun.elapsed().as_secs_f64()
            );
            moment.clone_into(&mut now);
        }
    }

    /// Ends writing, and asks once more for all: by id, by searches, by counts.
    ///
    /// # Errors
    /// When an acknowledged span is lost or counted twice, or a question on the way failed or was
    /// answered wrongly.
    pub fn finish(self) -> Outcome<Report> {
        let report = self.finish_after_failures()?;
        ensure(report.failed.is_empty(), || {
            format!("questions failed: {}", report.failed.join("; "))
        })?;
        Ok(report)
    }

    /// The same, where questions may fail on the way; answers must be right all the same.
    ///
    /// # Errors
    /// When an acknowledged span is lost or counted twice, or a question was answered wrongly.
    pub fn finish_after_failures(mut self) -> Outcome<Report> {
        let ended = Instant::now();
        self.end();
        let deadline = Instant::now() + ALL_FOUND_LIMIT;
        let mut report = Report {
            acknowledged: 0,
            refused: 0,
            answers: 0,
            failures: 0,
            mistakes: 0,
            longest_pause: Duration::ZERO,
            failed: Vec::new(),
        };
        let mut refusals = Vec::new();
        for writer in &self.writers {
            let written = writer.written();
            let acknowledged = written.acknowledged_count();
            report.acknowledged += acknowledged;
            report.refused += written.traces.len() - acknowledged;
            let last = ended.saturating_duration_since(written.last.unwrap_or(self.begun));
            report.longest_pause = report.longest_pause.max(written.longest_pause).max(last);
            refusals.extend(
                written
                    .refusals
                    .iter()
                    .map(|(why, n)| format!("{n}× {why}")),
            );
            // Searches find each; that they are whole is looked at for some hundreds of them.
            let step = acknowledged.div_ceil(MAX_WHOLE).max(1);
            let all = written.traces.values().filter(|trace| trace.acknowledged);
            for trace in all.step_by(step) {
                until(deadline, || Ok(by_id(&self.query, &trace.id)?))
                    .map_err(|failure| failure.during("at the end"))?;
            }
            let end = written.traces.keys().next_back().map_or(0, |last| last + 1);
            for start in (0..end).step_by(RANGE as usize) {
                let numbers = start..end.min(start + RANGE);
                until(deadline, || {
                    search(&self.query, writer, &written, &numbers)?;
                    Ok(count(&self.query, writer, &written, &numbers)?)
                })
                .map_err(|failure| failure.during("at the end"))?;
            }
        }
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        report.answers = seen.answers;
        report.failures = seen.failures;
        report.mistakes = seen.mistakes;
        self.told.tell(report.to_string());
        if !refusals.is_empty() {
            eprintln!("e2e: not acknowledged: {}", refusals.join("; "));
        }
        ensure(seen.mistakes == 0, || {
            format!("wrong answers: {}", seen.wrong.join("; "))
        })?;
        ensure(report.longest_pause < MAX_PAUSE, || {
            format!("a sender was without an acknowledgement for too long: {report}")
        })?;
        report.failed.clone_from(&seen.failed);
        Ok(report)
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.sdk.stdin.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        let _ = self.sdk.wait();
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.end();
    }
}
