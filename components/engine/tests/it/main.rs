//! The engine on tables in memory.

mod answers;
mod differential;
mod engine_facts;
mod golden;
mod golden_metrics;
mod metrics_facts;
mod search_facts;
mod support;
