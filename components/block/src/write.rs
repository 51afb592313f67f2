//! Building a block from OTLP bytes, in one pass.
//!
//! Owns the way from serialized spans to `data.parquet` and the objects beside it: the spans of a
//! trace are put into the order of its row ([`trace`]), their fields go straight into columns
//! ([`spans`], [`templates`]), of which texts of attributes get their codes several at a time
//! ([`sought`]), columns become pages ([`pages`]), pages become row groups and a file ([`chunk`],
//! [`file`]). Nothing is built per span, and the same input gives the same bytes.
//! Must never decide which traces belong together, or when a block is complete.

mod attributes;
mod builder;
pub(crate) mod chunk;
mod columns;
pub(crate) mod encode;
mod error;
pub(crate) mod file;
mod frame;
pub(crate) mod interner;
mod keys;
pub(crate) mod lanes;
mod options;
mod pages;
mod publish;
mod row_group;
mod sought;
mod spans;
mod spare;
mod templates;
mod trace;
mod unsupported;
pub(crate) mod values;
mod wire;

pub use builder::{BlockBuilder, FinishedBlock, PushedTrace};
pub use error::WriteError;
pub use options::{
    BlockOptions, DEFAULT_ROW_GROUP_SIZE_BYTES, MAX_ROW_GROUP_SIZE_BYTES, MAX_TRACE_BYTES,
};
pub use publish::{PublishError, publish, write_block, write_data};

#[cfg(test)]
mod tests;
