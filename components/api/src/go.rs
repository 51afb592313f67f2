//! Texts in the forms of Go, which Tempo's clients send and match on.

mod duration;
mod number;

pub(crate) use duration::parse_prometheus_duration;
pub use duration::{format_duration, parse_duration};
pub(crate) use number::{format_float, parse_bool, parse_int, parse_uint, quote};
