//! What is run with arbitrary bytes, one function per kind of input from outside.
//!
//! Owns the fuzz targets' functions and the invariants that they check; `libfuzzer/` hands them
//! mutated inputs guided by coverage (`make fuzz`), `tests/corpus.rs` the corpus and a bounded
//! number of mutations. A function returns nothing: it panics when something is wrong, and input
//! that is refused is fine. Must never depend on time, chance or what ran before, so that an input
//! that fails once fails always.
//!
//! The corpus (`corpus/<target>/`) holds seeds and, after a finding, the smallest input that
//! showed it. `examples/seeds.rs` writes the binary seeds.

mod check;
mod parquet;
mod queries;
mod spans;
mod store;
mod wal;
mod yaml;

pub use parquet::parquet;
pub use queries::traceql;
pub use spans::{otlp, otlp_json};
pub use wal::wal;
pub use yaml::yaml;

/// What runs one input.
pub type Target = fn(&[u8]);

/// The targets, by the names of their folders in the corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("otlp", otlp),
    ("otlp_json", otlp_json),
    ("wal", wal),
    ("traceql", traceql),
    ("yaml", yaml),
    ("parquet", parquet),
];
