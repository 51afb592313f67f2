//! The backend-worker: does to blocks what the backend-scheduler hands out.
//!
//! Owns how a job is done so that it can be interrupted anywhere and done again: merging, removing
//! traces, ending old blocks. Must never choose blocks: the scheduler does.
//!
//! # Steps of a merge
//!
//! 1. The data, bloom filters and index of the new block are written. No one sees them.
//! 2. The scheduler is asked whether the job is still this worker's.
//! 3. `meta.json` is written. It names the blocks that the new one replaces, so that lists show the
//!    one or the others, never both.
//! 4. The replaced blocks are marked compacted. They stay readable until their retention is over.
//!
//! The id of the new block follows from those of the old ones: whoever does a job again writes the
//! same block, finds it written, or finds it replaced in its turn.

mod block_id;
mod compact;
mod config;
mod control;
mod error;
mod metrics;
mod redact;
mod running;
mod source;
mod worker;

pub use config::{Backoff, Config};
pub use error::{Error, JobError};
pub use source::{GrpcJobSource, JobSource, SourceError};
pub use worker::{Deps, Limits, Service, Worker, build};

#[cfg(test)]
mod tests;
