//! The query API as a client sees it, in process.

mod api;
mod cancel;
mod stream;
mod support;
