//! Builds blocks from the Kafka log.
//!
//! Owns which partitions this process builds ([`assign`]), the sections that a partition is cut
//! into ([`section`], [`plan`]), sorting a section by trace in bounded memory ([`runs`]), and
//! publishing one block per tenant and section ([`build`]). Must never decide what may be ingested,
//! or look at a block again once it is published.
//!
//! # How nothing is lost or doubled
//!
//! A section is a range of offsets. Where it ends is chosen while reading (by time, size, or
//! silence), so it is not the same twice; therefore the choice is committed as a note beside the
//! unchanged offset *before* anything is written. From then on the same records become the same
//! blocks, byte for byte, under the same ids, however often the process dies. Blocks are published
//! with `meta.json` last, then the offset after the section is committed, and only then compaction
//! may take the blocks.
//!
//! Both commits are fenced ([`tempo_ingest::Fence`]): a process that was thought dead cannot change
//! the choice of its successor or commit over it. What it may still write is what its successor
//! writes, too.

mod assign;
mod build;
mod config;
mod cycle;
mod error;
mod metrics;
mod plan;
mod runs;
mod section;
mod service;

pub use assign::{Assignment, ConsumableState, NoAssignment};
pub use config::{BlockSettings, Config, GROUP, MAX_RUNS, MAX_SECTION_BYTES, section_limit_bytes};
pub use error::Error;
pub use service::{Dependencies, Handle, Limits, Partitions, Service, build};
