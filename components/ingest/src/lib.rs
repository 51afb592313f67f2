//! The Kafka log between the components of a distributed installation.
//!
//! Owns the form of a record ([`record`]), writing records so that an acknowledged one stays
//! ([`Producer`]), reading one partition in order ([`PartitionConsumer`]), what a consumer group has
//! got through ([`Offsets`]; [`Fence`] where only one may move it at a time), topics and their
//! partitions ([`admin`]), and lag ([`lag`]). The only crate that names the Kafka library. Must
//! never decide which partition a trace belongs to, or what becomes of a record once it is read.
//!
//! Records are Tempo's: a topic can be handed over from Tempo to this program and back.
//!
//! What says that it blocks belongs on a thread that may.

pub mod admin;
mod client;
mod config;
mod consumer;
mod error;
mod fence;
pub mod lag;
mod metrics;
mod offsets;
mod producer;
pub mod record;
mod token;

pub use config::{
    Compression, Credentials, KafkaConfig, MAX_RECORD_BYTES, MIN_RECORD_BYTES, Sasl, Tls,
    TokenSource,
};
pub use consumer::{PartitionConsumer, Polled, Record, StartAt};
pub use error::{Error, ProduceError};
pub use fence::{Fence, FenceError};
pub use offsets::{Committed, Offsets, Watermarks};
pub use producer::Producer;
