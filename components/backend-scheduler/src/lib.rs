//! The backend-scheduler: decides what is done to the blocks of a bucket, and hands it out.
//!
//! Owns the choice of blocks to be merged ([`select`]), when retention runs, requests for redaction,
//! and the jobs that are handed out, with their state on disk and in the bucket. One scheduler runs
//! per bucket; a second one is noticed and told. Must never touch a block: workers do.

mod config;
mod conflict;
mod error;
mod job;
mod metrics;
mod plan;
mod redaction;
mod rpc;
mod scheduler;
pub mod select;
mod work;

pub use config::Config;
pub use error::{Error, SubmitError};
pub use job::{Job, JobKind, JobStatus};
pub use scheduler::{Deps, Limits, NextError, Scheduler, Service, UpdateError, build};

#[cfg(test)]
mod tests;
