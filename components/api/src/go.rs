//! Texts in the forms of Go, which Tempo's clients send and match on.

mod number;

pub(crate) use number::{format_float, parse_bool, parse_int, parse_uint, quote};
