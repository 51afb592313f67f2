//! The engine on tables in memory.

mod differential;
mod engine_facts;
mod golden;
mod search_facts;
mod support;
