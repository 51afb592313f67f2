//! Reading one section of a partition.

use std::{
    io,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tempo_ingest::{PartitionConsumer, Polled, Record};
use tempo_model::tenant;

use crate::{metrics::Metrics, plan::Plan, runs::Sorter};

/// Longest poll: how long it takes until the end of the process is noticed.
const POLL: Duration = Duration::from_millis(250);

/// Where a section ends, as far as that is known before it is read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bounds {
    /// Where these limits fall.
    Open {
        /// Time between its first and its last record.
        span_millis: i64,
        /// Bytes of its records.
        max_bytes: u64,
        /// Silence after which it ends.
        max_silence: Duration,
        /// The same once everything was read that there was when reading began.
        max_silence_at_end: Duration,
        /// Offset after the last record at that time.
        high: i64,
    },
    /// It was decided before: blocks of it may exist, so it is read to that end and no other.
    Decided {
        plan: Plan,
        /// Silence after which reading is given up; nothing is built then.
        max_silence: Duration,
    },
}

/// A section that was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Read {
    pub(crate) plan: Plan,
    /// Timestamp of its last record.
    pub(crate) last_timestamp_millis: i64,
}

/// What came of reading.
pub(crate) enum Outcome {
    Section(Read),
    /// There is no record.
    Empty,
    /// The process is to end; what was read is forgotten.
    Stopped,
}

/// Why reading failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Kafka(#[from] tempo_ingest::Error),
    #[error(transparent)]
    Spill(#[from] io::Error),
    #[error(
        "the section that begins at offset {} was decided to end before offset {}, and for {max_silence:?} \
         the record of offset {next} did not come: the partition's leader may be behind",
        .plan.start, .plan.until
    )]
    Short {
        plan: Plan,
        /// The record that did not come.
        next: i64,
        max_silence: Duration,
    },
}

/// Reads a section into `sorter`; `oldest` asks for the offset of the oldest record that there is.
/// Blocks.
pub(crate) fn read(
    consumer: &PartitionConsumer,
    oldest: impl Fn() -> Result<i64, tempo_ingest::Error>,
    bounds: Bounds,
    sorter: &mut Sorter,
    metrics: &Metrics,
    stopped: impl Fn() -> bool,
) -> Result<Outcome, ReadError> {
    let label = consumer.partition().to_string();
    let mut reading = Reading {
        bounds,
        read: match bounds {
            Bounds::Open { .. } => None,
            Bounds::Decided { plan, .. } => Some(Read {
                plan,
                last_timestamp_millis: plan.timestamp_millis,
            }),
        },
        next: match bounds {
            Bounds::Open { .. } => 0,
            Bounds::Decided { plan, .. } => plan.start,
        },
        bytes: 0,
    };
    let mut last_record = Instant::now();
    let (mut records, mut errors) = (0_u64, 0_u64);
    let outcome = loop {
        if stopped() {
            break Ok(Outcome::Stopped);
        }
        match consumer.poll(POLL) {
            Ok(Polled::Record(record)) => {
                last_record = Instant::now();
                if !reading.admits(&record) {
                    break Ok(reading.end());
                }
                if let Err(error) = push(&record, sorter, metrics) {
                    break Err(error.into());
                }
                records += 1;
                if reading.is_full_after(&record) {
                    break Ok(reading.end());
                }
            }
            Ok(Polled::EndOfPartition) if reading.ends_at_end() => break Ok(reading.end()),
            Ok(Polled::EndOfPartition) if reading.decided().is_some() => match oldest() {
                Ok(oldest) if reading.is_gone_before(oldest) => break Ok(reading.end()),
                Ok(_) => {}
                Err(error) => {
                    errors += 1;
                    break Err(error.into());
                }
            },
            Ok(Polled::EndOfPartition | Polled::Nothing) => {
                if reading.is_over_after(last_record.elapsed()) {
                    break Ok(reading.end());
                }
                if let Some(short) = reading.is_short_after(last_record.elapsed()) {
                    errors += 1;
                    break Err(short);
                }
            }
            Err(error) => {
                errors += 1;
                break Err(error.into());
            }
        }
    };
    metrics
        .fetch_records
        .with_label_values(&[&label])
        .inc_by(records);
    metrics
        .fetch_bytes
        .with_label_values(&[&label])
        .inc_by(reading.bytes);
    metrics
        .fetch_errors
        .with_label_values(&[&label])
        .inc_by(errors);
    outcome
}

struct Reading {
    bounds: Bounds,
    read: Option<Read>,
    /// Offset after the last record.
    next: i64,
    bytes: u64,
}

impl Reading {
    /// The section, if it was decided before.
    fn decided(&self) -> Option<Plan> {
        match self.bounds {
            Bounds::Decided { plan, .. } => Some(plan),
            Bounds::Open { .. } => None,
        }
    }

    /// Whether a record belongs to the section.
    fn admits(&self, record: &Record<'_>) -> bool {
        match (self.bounds, &self.read) {
            // One from before the section is of a topic that was made anew.
            (Bounds::Decided { plan, .. }, _) => {
                (plan.start..plan.until).contains(&record.offset())
            }
            (Bounds::Open { .. }, None) => true,
            (Bounds::Open { span_millis, .. }, Some(read)) => {
                record.timestamp_millis() <= read.plan.timestamp_millis.saturating_add(span_millis)
            }
        }
    }

    /// Counts a record in. True when it is the last.
    fn is_full_after(&mut self, record: &Record<'_>) -> bool {
        let (until, timestamp) = (record.offset() + 1, record.timestamp_millis());
        self.next = until;
        self.bytes += record.value().len() as u64;
        let read = self.read.get_or_insert(Read {
            plan: Plan {
                start: record.offset(),
                until,
                timestamp_millis: timestamp,
            },
            last_timestamp_millis: timestamp,
        });
        read.last_timestamp_millis = timestamp;
        match self.bounds {
            Bounds::Decided { plan, .. } => until >= plan.until,
            Bounds::Open { max_bytes, .. } => {
                read.plan.until = until;
                self.bytes >= max_bytes
            }
        }
    }

    /// Whether nothing can follow once everything that there is was read.
    fn ends_at_end(&self) -> bool {
        match (self.bounds, &self.read) {
            // Brokers tell an end that may be behind: after the leader changed, or of a follower.
            (Bounds::Decided { .. }, _) | (Bounds::Open { .. }, None) => false,
            // Whatever comes now is younger.
            (Bounds::Open { span_millis, .. }, Some(read)) => {
                now_millis() > read.plan.timestamp_millis.saturating_add(span_millis)
            }
        }
    }

    /// Whether what is left of a decided section is kept no longer.
    fn is_gone_before(&self, oldest: i64) -> bool {
        self.decided().is_some_and(|plan| oldest >= plan.until)
    }

    /// Why reading is given up, when a decided section has been silent for too long.
    fn is_short_after(&self, silence: Duration) -> Option<ReadError> {
        match self.bounds {
            Bounds::Decided { plan, max_silence } if silence >= max_silence => {
                Some(ReadError::Short {
                    plan,
                    next: self.next,
                    max_silence,
                })
            }
            Bounds::Decided { .. } | Bounds::Open { .. } => None,
        }
    }

    /// Whether there has been silence for so long that the section is over.
    fn is_over_after(&self, silence: Duration) -> bool {
        match self.bounds {
            Bounds::Decided { .. } => false,
            Bounds::Open {
                max_silence,
                max_silence_at_end,
                high,
                ..
            } => {
                let limit = match self.read {
                    Some(_) if self.next >= high => max_silence_at_end,
                    _ => max_silence,
                };
                silence >= limit || self.ends_at_end()
            }
        }
    }

    fn end(&self) -> Outcome {
        self.read.map_or(Outcome::Empty, Outcome::Section)
    }
}

fn push(record: &Record<'_>, sorter: &mut Sorter, metrics: &Metrics) -> io::Result<()> {
    let drop = |tenant: &str, reason: &str| {
        tracing::error!(tenant, offset = record.offset(), reason, "record dropped");
        metrics
            .dropped_records
            .with_label_values(&[tenant, reason])
            .inc();
    };
    let tenant = match std::str::from_utf8(record.key()) {
        Ok(tenant) if tenant::validate(tenant).is_ok() => tenant,
        _ => {
            drop("", "invalid_tenant");
            return Ok(());
        }
    };
    let Ok(request) = record.request() else {
        drop(tenant, "decoding_failed");
        return Ok(());
    };
    let number = sorter.tenant(tenant);
    for (id, trace) in request.traces() {
        sorter.push(number, id, trace)?;
    }
    Ok(())
}

/// Milliseconds since the epoch.
pub(crate) fn now_millis() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_young_section_waits_long_for_what_must_come_and_shortly_for_what_may() {
        let (long, short) = (Duration::from_secs(10), Duration::from_secs(1));
        let mut reading = Reading {
            bounds: Bounds::Open {
                span_millis: 300_000,
                max_bytes: 1 << 20,
                max_silence: long,
                max_silence_at_end: short,
                high: 1,
            },
            read: None,
            next: 0,
            bytes: 0,
        };
        assert!(!reading.is_over_after(short), "nothing was read yet");
        assert!(reading.is_over_after(long));
        let timestamp_millis = now_millis();
        reading.next = 1;
        reading.read = Some(Read {
            plan: Plan {
                start: 0,
                until: 1,
                timestamp_millis,
            },
            last_timestamp_millis: timestamp_millis,
        });
        assert!(reading.is_over_after(short));
        if let Bounds::Open { high, .. } = &mut reading.bounds {
            *high = 2;
        }
        assert!(!reading.is_over_after(short), "there is more to read");
        assert!(reading.is_over_after(long));
    }
}
