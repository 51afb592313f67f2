//! The query API as values: HTTP parameters in, JSON and protobuf out, and what lies between.
//!
//! Owns the parsing of every query endpoint's parameters with Tempo's error texts ([`params`]), the
//! content negotiation ([`Encoding`]), the JSON forms of answers ([`json`]), the jobs that a query
//! is cut into ([`job`]) and their wire form ([`wire`]), the merging of their answers ([`combine`]),
//! and the translation between what the engine finds and the `tempopb` messages ([`convert`]). Must
//! never do I/O, read a clock, spawn a task, or know HTTP servers: `now` comes in as a number, bodies
//! go out as bytes.

mod accept;
pub mod combine;
pub mod convert;
mod error;
mod go;
pub mod job;
pub mod json;
pub mod params;
pub mod wire;

pub use accept::Encoding;
pub use error::BadRequest;
