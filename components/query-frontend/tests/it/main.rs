//! The query API as a client sees it, in process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod api;
mod behind;
mod cancel;
mod golden;
mod pull;
mod range;
mod refusals;
mod results;
mod stream;
mod support;
mod trace_diff;
