//! `caches`: what all pods share of what was read from the object store.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Caches that pods share. Each process has a cache of its own besides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Caches {
    /// memcached, run by the operator.
    pub memcached: Memcached,
}

/// memcached, run by the operator; `components.memcached` says how its pods are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Memcached {
    /// Whether there is one.
    pub enabled: bool,
    /// Memory for what is kept, in MiB, of each pod.
    #[serde(rename = "memoryMiB")]
    #[schemars(range(min = 64, max = 1_048_576))]
    pub memory_mib: u32,
    /// Time after which a pod that does not answer is done without.
    pub timeout: super::Duration,
}

impl Default for Memcached {
    fn default() -> Self {
        Self {
            enabled: false,
            memory_mib: 1024,
            timeout: super::Duration::from("200ms"),
        }
    }
}
