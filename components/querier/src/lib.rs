//! The querier: runs the jobs that queries are cut into.
//!
//! Owns the execution of one [`Job`](tempo_api::job::Job) against blocks in the object store or
//! against recent data ([`Recent`]): on which threads, with how much memory, for how long, and how it
//! ends when nobody waits any more. Where processes are separate it also owns both ends of the way
//! to live-stores ([`LiveStores`], [`jobs_service`]) and its end of the way to query-frontends
//! ([`Worker`]). Must never decide what a query reads: the query-frontend did.

mod blocks;
mod config;
mod error;
mod evaluate;
mod jobs_service;
mod limits;
mod live_stores;
mod merge;
mod metrics;
mod querier;
mod recent;
mod worker;

pub use config::Config;
pub use error::Error;
pub use jobs_service::{JobsService, jobs_service};
pub use live_stores::{
    LiveStores, LiveStoresConfig, Owner, Partition, PartitionState, PartitionView,
};
pub use querier::{BlockSource, Deps, NowNanos, Querier};
pub use recent::{Recent, RecentError, RecentOperation, RecentTraces, RecentView};
pub use worker::{Worker, WorkerConfig};
