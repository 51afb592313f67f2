//! What tenants set themselves: documents in the object store, by tenant.
//!
//! Owns where they lie, how they are read again and again, and what they put over the limits below.

mod api;
mod merge;
mod poll;
mod store;

use std::time::Duration;

use tempo_backend::Backend;

pub use api::ApiConfig;
pub(crate) use merge::put_over;
pub(crate) use poll::Poll;
pub(crate) use store::UserStore;

/// Settings of what tenants set themselves.
#[derive(Clone)]
pub struct UserConfigurable {
    /// Where the documents lie, below `overrides/`.
    pub backend: Backend,
    /// Time between two looks at all of them.
    pub poll_interval: Duration,
}
