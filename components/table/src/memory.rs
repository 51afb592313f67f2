//! Live data as a span table.

mod attributes;
mod builder;
mod intern;
mod messages;
mod packed;
mod rows;
mod stored;
mod table;
#[cfg(test)]
mod tests;

pub use builder::{MemoryTableBuilder, PushError};
pub use table::MemoryTable;
