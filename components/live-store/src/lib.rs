//! The live-store: keeps what was just received, durable and searchable, until the object store
//! has it.
//!
//! Owns the write-ahead log (`wal`), the traces that still receive spans and their columns
//! (`live`), the blocks on local disk (`local`), and the way from one to the next
//! (`pipeline`). Must never lose a span that it acknowledged: everything that is not in the
//! object store is in the log or in a complete local block, at every moment, whatever ends the
//! process. Must never know how a query is evaluated: it gives tables.
//!
//! The way of a push: the log writes it, syncs, and only then it is acknowledged, indexed by trace
//! id and waits to become columns. Idle traces are cut into the next block; a closed block is built
//! from the bytes in the log, becomes complete in one rename, takes the place of the live columns,
//! and lets the log forget. Then it is copied to the object store, again and again until that
//! succeeds, and stays here while the querier does not look there yet.
//!
//! In a distributed installation the log is Kafka (`kafka`): spans are read instead of pushed, and
//! block-builders write what the object store gets. All else is the same. Where other processes ask,
//! what they may look for here stays, and what is gone is refused (`boundary`, `forgotten`).

mod boundary;
mod build_block;
mod clock;
mod config;
mod error;
mod feed;
mod forgotten;
mod handle;
mod history;
mod kafka;
mod limits;
mod live;
mod local;
mod lock;
mod metrics;
mod pipeline;
mod service;
mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod told;
mod wal;

pub use clock::{Clock, SystemClock};
pub use config::{BlockSettings, BoundarySettings, Config};
pub use error::{Error, FlushError, PushError, PushErrorKind, ReadError, UnflushedBlock};
pub use handle::{FoundTrace, LiveStore, LiveView, Operation, PushOutcome, Stats};
pub use kafka::{KafkaFeed, NoPartition, partition_of};
pub use limits::Limits;
pub use service::{Dependencies, Service, build};
pub use store::INITIAL_COMPRESSION_RATIO;
pub use wal::{SegmentSummary, UnreadableSegment, inspect_wal_segment};
