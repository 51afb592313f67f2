//! Jobs as a querier runs them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod jobs;
mod live_stores;
mod service_names;
mod stop;
mod support;
