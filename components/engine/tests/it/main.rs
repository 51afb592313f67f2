//! The engine on tables in memory.

mod golden;
mod support;
