//! The span table: traces as columns, whatever holds them.
//!
//! Owns the contract between data and queries: [`SpanTable`] (implemented by live data here, by
//! Parquet row groups in `block`), [`Column`] with its lanes and dictionaries, row selections
//! ([`Bitmap`]), the shape of a trace ([`shape`]: nested sets, root, service statistics), and
//! [`MemoryTable`], the table built from OTLP bytes. Must never know TraceQL, Parquet, or where
//! bytes come from.

mod bitmap;
mod column;
mod key;
mod memory;
pub mod shape;
mod table;

pub use bitmap::Bitmap;
pub use column::{
    ABSENT, ArrayLane, ArrayValue, Column, IdLane, NumberLane, StringDict, StringLane,
};
pub use key::{AttributeScope, ColumnKey, Intrinsic, Level, SERVICE_NAME};
pub use memory::{MemoryTable, MemoryTableBuilder, PushError};
pub use table::{SpanTable, Structure, TableError};
