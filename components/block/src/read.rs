//! Reading blocks.

mod any_json;
mod attributes;
mod bitpack;
mod bits;
mod builder;
mod dedicated_leaf;
mod delta;
mod expand;
mod file;
mod find;
mod footer;
mod group;
mod hybrid;
mod lanes;
mod leaf;
mod otlp;
mod page;
mod pages;
mod reader;
mod records;
mod source;
mod strings;
mod structure;
mod table;
mod texts;
mod thrift;
mod values;
mod view;

pub use find::find_trace;
pub use reader::BlockReader;
pub use table::RowGroupTable;

/// What is wrong with some bytes. Whoever knows which bytes they are says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Malformed(&'static str);

#[cfg(test)]
mod tests;
