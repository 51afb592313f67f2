//! For tests and benchmarks only: realistic traces, a tiny HTTP client, and `tempo` as a process.
//!
//! Owns what several crates' tests need. Must never be a dependency of anything that ships.

pub mod cache_server;
pub mod cluster;
pub mod disk;
pub mod golden;
pub mod http_client;
pub mod kafka;
pub mod load;
pub mod naive;
pub mod object_server;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod relay;
pub mod traces;
