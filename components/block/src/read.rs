//! Reading blocks: row groups as span tables, traces by id, and all traces in order.
//!
//! Owns the way from the bytes of `data.parquet` to columns and to OTLP. Must never run a query,
//! and never build an object per span. All of it blocks: use it on threads that may.
//!
//! # From a file to columns
//!
//! A row of the file is a trace; everything below it is nested lists, which both versions shred
//! alike. In the levels of a leaf, repetition 0 begins a trace, 1 a resource, 2 a scope, 3 a span,
//! 4 an event, link or attribute, and so on; the definition level tells how deep something exists.
//! vParquet4 wraps its lists (`rs.list.element.ss…`) and vParquet5 does not, but names are all that
//! differs: `file` finds the leaf of every column by its dotted name and from there on nothing
//! knows the version.
//!
//! | columns of the span table | leaves of the file | how |
//! |---|---|---|
//! | structure, event and link offsets | levels of `StatusCode`, of one leaf of events and of links | `structure` |
//! | intrinsics | a leaf each, one value per row of its level | `leaf`, without reading levels |
//! | `span:childCount` of vParquet4 | span ids, parents and kinds | `tempo_table::shape` |
//! | generic attributes | `Attrs.Key` and the leaf of the value's type | `attributes`, `lanes` |
//! | well-known (vParquet4) and dedicated attributes | a leaf each, one or more values per owner | `dedicated_leaf` |
//! | `resource.service.name` | `ServiceName`, a text for every resource; other types are generic | `view` |
//!
//! An attribute that has a leaf of its own may also be found among the generic ones, where values
//! of other types live: both are asked, and the dictionary of names tells for next to nothing
//! whether the second one needs to be.
//!
//! # What makes it fast
//!
//! - Levels stay packed. What is asked of them is "at least this level", so they become bit sets
//!   (`bits`), four levels per table look-up (`hybrid`); a span's attributes are found by rank.
//! - Text stays a code of its dictionary page. A column whose dictionary holds much else (that of
//!   all generic attributes) gets one of its own texts only, so that predicates run on few.
//! - A value leaf is read only if a wanted attribute may have its value there, and of its pages only
//!   those that do are decompressed.
//! - Columns of few rows read and decode only their pages (`pages`, by the offset index).
//! - Of a large dictionary, few texts cost the fragments that hold them, and a small one is told by
//!   the footer (`fragments`, by what our writer tells beyond the format).
//! - Where a request costs more than bytes, what a query may ask for next is fetched along.
//! - What was decoded of a whole row group stays in the cache of the process for the next query
//!   (`kept`), within the cache's bytes. Of a column of which few rows were wanted before, all of it
//!   is decoded the second time.
//!
//! # Damage
//!
//! Sizes and offsets are checked against the file (`footer`), pages against their checksums
//! (`page`), counts against levels. Damage ends in an error that names the column, never in a
//! panic, and memory is reserved for what is there, not for what a header claims.

mod any_json;
mod attributes;
mod bitpack;
pub(crate) mod bits;
mod builder;
mod dedicated_leaf;
mod delta;
mod expand;
pub(crate) mod file;
mod find;
pub(crate) mod footer;
mod fragments;
pub(crate) mod group;
pub(crate) mod hybrid;
pub(crate) mod kept;
mod key_values;
mod lanes;
mod leaf;
mod otlp;
pub(crate) mod page;
pub(crate) mod pages;
mod reader;
pub(crate) mod records;
pub(crate) mod source;
mod strings;
mod structure;
mod table;
mod texts;
mod thrift;
pub(crate) mod values;
pub(crate) mod view;

pub use find::find_trace;
pub(crate) use reader::version_of;
pub use reader::{BlockReader, ColumnSize};
pub use table::RowGroupTable;

/// What is wrong with some bytes. Whoever knows which bytes they are says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

#[cfg(test)]
mod tests;
