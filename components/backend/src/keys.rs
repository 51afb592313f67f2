//! Where each object lies. The only place that spells keys.

use std::fmt;

use tempo_model::tenant;
use uuid::Uuid;

use crate::Error;

/// Columns of a block.
pub const DATA: &str = "data.parquet";
/// Last trace id of each row group.
pub const INDEX: &str = "index";
/// Present: the block is live.
pub const META: &str = "meta.json";
/// Present: the block was compacted away or its retention is over.
pub const COMPACTED_META: &str = "meta.compacted.json";
/// Present: compaction must not select the block yet.
pub const NO_COMPACT: &str = "nocompact.flg";
/// The tenant's blocks, zstd of protobuf.
pub const TENANT_INDEX_PROTO: &str = "index.pb.zst";
/// The tenant's blocks, gzip of JSON.
pub const TENANT_INDEX_JSON: &str = "index.json.gz";
/// State of the backend scheduler, in the root.
pub const WORK: &str = "work.json";
/// State of the usage reporter, in the root.
pub const CLUSTER_SEED: &str = "tempo_cluster_seed.json";

/// Folder of what tenants set themselves, in the root.
pub(crate) const OVERRIDES: &str = "overrides";

/// The key of an object, without the configured prefix.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// `<tenant>/<block>/<name>`.
    pub fn block(tenant: &str, block: Uuid, name: &str) -> Self {
        Self(format!("{tenant}/{block}/{name}"))
    }

    /// `<tenant>/<block>/data.parquet`.
    pub fn data(tenant: &str, block: Uuid) -> Self {
        Self::block(tenant, block, DATA)
    }

    /// `<tenant>/<block>/bloom-<shard>`.
    pub fn bloom(tenant: &str, block: Uuid, shard: u32) -> Self {
        Self(format!("{tenant}/{block}/bloom-{shard}"))
    }

    /// `<tenant>/<block>/index`.
    pub fn index(tenant: &str, block: Uuid) -> Self {
        Self::block(tenant, block, INDEX)
    }

    /// `<tenant>/<block>/meta.json`.
    pub fn meta(tenant: &str, block: Uuid) -> Self {
        Self::block(tenant, block, META)
    }

    /// `<tenant>/<block>/meta.compacted.json`.
    pub fn compacted_meta(tenant: &str, block: Uuid) -> Self {
        Self::block(tenant, block, COMPACTED_META)
    }

    /// `<tenant>/<block>/nocompact.flg`.
    pub fn no_compact(tenant: &str, block: Uuid) -> Self {
        Self::block(tenant, block, NO_COMPACT)
    }

    /// `<tenant>/<name>`.
    pub fn tenant(tenant: &str, name: &str) -> Self {
        Self(format!("{tenant}/{name}"))
    }

    /// `overrides/<tenant>/overrides.json`.
    pub fn overrides(tenant: &str) -> Self {
        Self(format!("{OVERRIDES}/{tenant}/overrides.json"))
    }

    /// `<name>`, directly under the prefix.
    pub fn root(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The prefix that every key of a backend begins with; may be empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prefix(String);

impl Prefix {
    /// Slashes at either end are ignored.
    pub(crate) fn new(text: &str) -> Self {
        Self(text.trim_matches('/').to_owned())
    }

    /// The full path of `key`.
    pub(crate) fn path(&self, key: &str) -> Result<object_store::path::Path, Error> {
        let full = if self.0.is_empty() {
            key.to_owned()
        } else if key.is_empty() {
            self.0.clone()
        } else {
            format!("{}/{key}", self.0)
        };
        object_store::path::Path::parse(&full).map_err(|error| Error::InvalidKey {
            key: full,
            problem: error.to_string(),
        })
    }

    /// What follows the prefix in a listed path.
    pub(crate) fn strip<'a>(&self, path: &'a str) -> Option<&'a str> {
        if self.0.is_empty() {
            return Some(path);
        }
        path.strip_prefix(self.0.as_str())?.strip_prefix('/')
    }
}

/// Whether a tenant can be part of a key.
pub(crate) fn check_tenant(id: &str) -> Result<(), Error> {
    tenant::validate(id).map_err(|error| Error::InvalidKey {
        key: id.to_owned(),
        problem: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_format() {
        let block = Uuid::from_u128(0x1111_1111_2222_4333_8444_5555_5555_5555);
        assert_eq!(
            ObjectKey::meta("t", block).as_str(),
            "t/11111111-2222-4333-8444-555555555555/meta.json"
        );
        assert_eq!(
            ObjectKey::bloom("t", block, 12).as_str(),
            "t/11111111-2222-4333-8444-555555555555/bloom-12"
        );
    }

    #[test]
    fn a_prefix_is_put_before_and_taken_away() {
        let prefix = Prefix::new("/a/b/");
        let path = prefix.path("t*(1)/x").unwrap();
        assert_eq!(path.as_ref(), "a/b/t*(1)/x");
        assert_eq!(prefix.strip(path.as_ref()), Some("t*(1)/x"));
        assert_eq!(prefix.strip("a/bc/x"), None);
        assert!(prefix.path("t/../x").is_err());
        assert_eq!(Prefix::new("").path("x").unwrap().as_ref(), "x");
    }
}
