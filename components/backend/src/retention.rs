//! Which blocks have lived long enough, and ending them.

use std::time::Duration;

use uuid::Uuid;

use crate::{TenantBlocks, Timestamp};

/// How long blocks of one tenant are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// A live block is marked compacted this long after its last span ended. Zero: never.
    pub block_retention: Duration,
    /// A compacted block is removed this long after it was marked.
    pub compacted_block_retention: Duration,
}

impl Default for RetentionPolicy {
    fn default() -> Self {
        Self {
            block_retention: Duration::from_secs(336 * 3600),
            compacted_block_retention: Duration::from_secs(3600),
        }
    }
}

/// What retention wants done for one tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetentionPlan {
    /// Live blocks to mark compacted.
    pub mark_compacted: Vec<Uuid>,
    /// Compacted blocks to remove.
    pub clear: Vec<Uuid>,
}

/// Decides, at time `now`, which blocks have outlived `policy`.
pub fn plan_retention(
    blocks: &TenantBlocks,
    policy: RetentionPolicy,
    now: Timestamp,
) -> RetentionPlan {
    let live_until = now.saturating_sub(policy.block_retention);
    let compacted_until = now.saturating_sub(policy.compacted_block_retention);
    let mark_compacted = if policy.block_retention.is_zero() {
        Vec::new()
    } else {
        blocks
            .live()
            .iter()
            .filter(|meta| meta.end_time < live_until)
            .map(|meta| meta.block_id)
            .collect()
    };
    let clear = blocks
        .compacted()
        .iter()
        .filter(|block| block.compacted_time < compacted_until)
        .map(|block| block.meta.block_id)
        .collect();
    RetentionPlan {
        mark_compacted,
        clear,
    }
}
