//! The language from outside: what parses, what it prints, what is refused and how.

// Helpers of tests are not seen as tests by clippy.
#![allow(clippy::panic, clippy::unwrap_used)]

mod completion;
mod facts;
mod hostile;
mod recorded;
mod round_trip;
