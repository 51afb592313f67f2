//! The engine on tables in memory.

// Helpers of tests stand outside of tests, where the lints look.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod answers;
mod differential;
mod engine_facts;
mod golden;
mod golden_metrics;
mod metrics_facts;
mod metrics_naive;
mod naive;
mod search_facts;
mod support;
