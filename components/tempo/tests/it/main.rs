//! The binary as its users meet it: a process, its ports, its data folder.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod better;
mod budget;
mod caches;
mod cli;
mod cluster;
mod crash;
mod distributors;
mod golden;
mod golden_cluster;
mod grafana;
mod internal_tls;
mod journey;
mod kafka;
mod limits;
mod live_stores;
mod models;
mod old_formats;
mod overrides;
mod queriers;
mod s3;
mod shop;
mod streaming;
mod support;
mod system;
mod tls;
mod upkeep;
