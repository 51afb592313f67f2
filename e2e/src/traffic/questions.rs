//! Who asks: by id, by search, by count, about traces whose answer is known.

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use rand::Rng;

use super::{
    MAX_TOLD, RANGE, SPANS,
    writers::{Writer, Written},
};
use crate::{Failure, Outcome, traces::Query};

/// What the reader has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) answers: usize,
    pub(super) failed: Vec<String>,
    pub(super) wrong: Vec<String>,
    pub(super) failures: usize,
    pub(super) mistakes: usize,
}
/// Why a question was not answered as it must be.
#[derive(Debug)]
pub(super) enum Fault {
    Failed(String),
    Wrong(String),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Failed(why) | Fault::Wrong(why) => Self::new(why),
        }
    }
}

fn answered<T>(answer: Outcome<T>) -> Result<T, Fault> {
    answer.map_err(|failure| Fault::Failed(failure.to_string()))
}

fn right(holds: bool, why: impl FnOnce() -> String) -> Result<(), Fault> {
    if holds {
        Ok(())
    } else {
        Err(Fault::Wrong(why()))
    }
}

pub(super) fn by_id(query: &Query, id: &str) -> Result<(), Fault> {
    let spans = answered(query.spans(id))?;
    right(spans == SPANS, || format!("trace {id} has spans {spans:?}"))
}

pub(super) fn search(
    query: &Query,
    writer: &Writer,
    written: &Written,
    numbers: &Range<u32>,
) -> Result<(), Fault> {
    let found = answered(query.search(&writer.selector(numbers)))?;
    let wanted = written.ids(numbers, |trace| trace.acknowledged);
    let possible = written.ids(numbers, |_| true);
    right(
        wanted.is_subset(&found) && found.is_subset(&possible),
        || {
            format!(
                "search for {numbers:?} of {}: {} found, {} missing, {} foreign",
                writer.service,
                found.len(),
                wanted.difference(&found).count(),
                found.difference(&possible).count()
            )
        },
    )
}

pub(super) fn count(
    query: &Query,
    writer: &Writer,
    written: &Written,
    numbers: &Range<u32>,
) -> Result<(), Fault> {
    let found = answered(query.count(&writer.selector(numbers)))?;
    let (least, most) = written.counts(numbers);
    right((least..=most).contains(&found), || {
        format!(
            "count of {numbers:?} of {}: {found} spans, there are {least} to {most}",
            writer.service
        )
    })
}

pub(super) struct Reader {
    pub(super) writers: Vec<Arc<Writer>>,
    pub(super) seen: Arc<Mutex<Seen>>,
    pub(super) moment: Arc<Mutex<String>>,
    pub(super) query: Query,
    pub(super) begun: Instant,
}

impl Reader {
    /// Asks one question, of a kind and about traces that chance chooses; the newest that must be
    /// known are asked for as often as all others together.
    pub(super) fn ask(&self) {
        let mut random = rand::rng();
        let writer = &self.writers[random.random_range(0..self.writers.len())];
        let (written, numbers) = {
            let written = writer.written();
            let settled = written.settled();
            if settled == 0 {
                return;
            }
            let newest = settled.saturating_sub(RANGE);
            let start = if random.random_bool(0.5) {
                newest
            } else {
                random.random_range(0..=newest)
            };
            let numbers = start..settled.min(start + RANGE);
            (written.of(&numbers), numbers)
        };
        let asked = Instant::now();
        let (kind, outcome) = match random.random_range(0..3) {
            0 => {
                let trace = written.traces.values().find(|trace| trace.acknowledged);
                let Some(trace) = trace else { return };
                ("by id", by_id(&self.query, &trace.id))
            }
            1 => ("search", search(&self.query, writer, &written, &numbers)),
            _ => ("count", count(&self.query, writer, &written, &numbers)),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Err(fault) = outcome else {
            seen.answers += 1;
            return;
        };
        let moment = self
            .moment
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let age = written
            .traces
            .values()
            .next()
            .map_or(0.0, |trace| trace.sent.elapsed().as_secs_f64());
        let tell = |what: String| {
            format!(
                "{moment}, {:.1} s, {kind} after {:.1} s, of {age:.0} s ago: {what}",
                self.begun.elapsed().as_secs_f64(),
                asked.elapsed().as_secs_f64()
            )
        };
        let (count, told, what) = match fault {
            Fault::Failed(what) => (seen.failures + 1, false, tell(what)),
            Fault::Wrong(what) => (seen.mistakes + 1, true, tell(what)),
        };
        eprintln!("e2e: {what}");
        let Seen {
            failed,
            wrong,
            failures,
            mistakes,
            ..
        } = &mut *seen;
        let (list, number) = if told {
            (wrong, mistakes)
        } else {
            (failed, failures)
        };
        *number = count;
        if list.len() < MAX_TOLD {
            list.push(what);
        }
    }
}
