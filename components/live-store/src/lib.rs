//! The live-store: keeps what was just received, durable and searchable, until the object store
//! has it.

mod clock;
mod error;
mod metrics;
mod wal;

pub use clock::{Clock, SystemClock};
pub use error::{Error, FlushError, PushError, PushErrorKind, ReadError, UnflushedBlock};
