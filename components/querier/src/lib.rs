//! The querier: runs the jobs that queries are cut into.
//!
//! Owns the execution of one [`Job`](tempo_api::job::Job) against blocks in the object store or
//! against recent data ([`RecentTraces`]): on which threads, with how much memory, for how long,
//! and how it ends when nobody waits any more. Must never decide what a query reads: the
//! query-frontend did.

mod blocks;
mod config;
mod error;
mod evaluate;
mod limits;
mod metrics;
mod querier;
mod recent;

pub use config::Config;
pub use error::Error;
pub use querier::{Deps, NowNanos, Querier};
pub use recent::{RecentError, RecentOperation, RecentTraces, RecentView};
