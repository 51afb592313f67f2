//! The blocks of the configuration, one file each.

pub mod backend;
pub mod cache;
pub mod clients;
pub mod distributor;
pub mod ingest;
pub mod legacy_overrides;
pub mod live_store;
pub mod memberlist;
pub mod metrics_generator;
pub mod overrides;
pub mod querier;
pub mod query_frontend;
pub mod receivers;
pub mod root;
pub mod server;
pub mod storage;
pub mod user_overrides;
