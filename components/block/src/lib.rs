//! Blocks: the vParquet4 and vParquet5 files of Tempo, written and read.
//!
//! Owns the schema of `data.parquet` ([`schema`]), building a block from OTLP bytes ([`write`]),
//! reading one as span tables and traces ([`read`]), the bloom shards ([`bloom`]) and row-group
//! index ([`index`]) beside it, copying it ([`copy_block`]) and checking its invariants
//! ([`check`]). The only crate that names the parquet library. Must never decide which blocks
//! exist, or when.

mod ahead;
pub mod bloom;
pub mod check;
mod copy;
pub mod dedicated;
mod error;
mod hints;
pub mod index;
pub mod merge;
pub mod read;
pub mod schema;
#[cfg(test)]
mod testing;
pub mod write;

pub use ahead::fetch_ahead;
pub use copy::copy_block;
pub use error::Error;
