//! The JSON forms of answers.
//!
//! These are the forms of gogo's `jsonpb` with its default settings, because clients decode them
//! strictly: lowerCamelCase names, 64-bit integers as texts, enums by name, bytes in base64, scalars
//! left out when they are zero, and `[]` or `{}` only where Tempo's own messages hold an empty list
//! or message rather than none.

mod llm;
mod metrics;
mod search;
mod trace;
mod value;
mod writer;

pub use llm::{tag_values_llm, trace_llm};
pub use metrics::{query_instant, query_range};
pub use search::{search, tag_names_v1, tag_names_v2, tag_values_v1, tag_values_v2};
pub use trace::{trace_v1, trace_v2};
