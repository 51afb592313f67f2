//! Reading blocks.

mod attributes;
mod bitpack;
mod bits;
mod builder;
mod dedicated_leaf;
mod delta;
mod expand;
mod file;
mod footer;
mod group;
mod hybrid;
mod lanes;
mod leaf;
mod page;
mod pages;
mod reader;
mod source;
mod strings;
mod structure;
mod table;
mod thrift;
mod values;
mod view;

pub use reader::BlockReader;
pub use table::RowGroupTable;

/// What is wrong with some bytes. Whoever knows which bytes they are says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Malformed(&'static str);
