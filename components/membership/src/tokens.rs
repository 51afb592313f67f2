//! The ring tokens of partitions: which share of the hash space each one takes.
//!
//! Tokens are a function of the partition id alone, so that every member of a cluster, also one of
//! Tempo, computes the same ones. Partition 0 divides the space evenly; each further partition
//! takes from those that own most what it needs to own as much as they do. Must never depend on
//! which partitions exist.

use std::{
    collections::BinaryHeap,
    sync::{Arc, LazyLock},
};

use parking_lot::Mutex;

/// Tokens of each partition.
pub const TOKENS_PER_PARTITION: usize = 512;

/// Partitions that can have tokens. The tokens of one are derived from those of all before it.
pub const MAX_PARTITIONS_WITH_TOKENS: usize = 8192;

/// Size of the hash space.
const SPACE: u64 = 1 << 32;

/// Tokens are multiples of this, which is the number of zones that the scheme was made for.
const STEP: u64 = 8;

/// The tokens of a partition, ascending; `None` beyond [`MAX_PARTITIONS_WITH_TOKENS`].
pub fn tokens(partition: i32) -> Option<Arc<[u32]>> {
    static ALLOTMENT: LazyLock<Mutex<Allotment>> = LazyLock::new(Mutex::default);

    let index = usize::try_from(partition).ok()?;
    if index >= MAX_PARTITIONS_WITH_TOKENS {
        return None;
    }
    let mut allotment = ALLOTMENT.lock();
    while allotment.tokens.len() <= index {
        allotment.add();
    }
    allotment.tokens.get(index).cloned()
}

/// A token and the space between it and the one before, ordered by how much it owns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Share {
    owned: u64,
    token: u64,
    previous: u64,
}

/// How the space is shared out among the partitions so far.
#[derive(Default)]
struct Allotment {
    /// The tokens of each partition, ascending.
    tokens: Vec<Arc<[u32]>>,
    /// The shares of each partition, largest first.
    shares: Vec<BinaryHeap<Share>>,
    /// Partitions by what they own in all, largest first.
    owners: BinaryHeap<(u64, usize)>,
}

impl Allotment {
    fn add(&mut self) {
        let (owned, shares) = if self.tokens.is_empty() {
            first_partition()
        } else {
            self.take_shares()
        };
        let mut tokens: Vec<u32> = shares.iter().map(|share| share.token as u32).collect();
        tokens.sort_unstable();
        self.owners.push((owned, self.tokens.len()));
        self.tokens.push(tokens.into());
        self.shares.push(shares);
    }

    /// Splits the largest shares of the largest owners until the next partition has its own.
    fn take_shares(&mut self) -> (u64, BinaryHeap<Share>) {
        let target = SPACE / (self.tokens.len() as u64 + 1);
        let mut taken = BinaryHeap::with_capacity(TOKENS_PER_PARTITION);
        let mut owned = 0_u64;
        // Owners whose largest share is too small to be split now.
        let mut spared = Vec::new();
        while taken.len() < TOKENS_PER_PARTITION {
            let left = (TOKENS_PER_PARTITION - taken.len()) as u64;
            let wanted = target.saturating_sub(owned) / left / STEP * STEP;
            let Some((owner_total, owner)) = self.owners.pop() else {
                break;
            };
            let Some(largest) = self.shares.get_mut(owner).and_then(BinaryHeap::pop) else {
                continue;
            };
            if largest.owned <= wanted {
                self.shares[owner].push(largest);
                spared.push((owner_total, owner));
                continue;
            }
            let token = step_on(largest.previous, wanted);
            let rest = distance(token, largest.token);
            self.shares[owner].push(Share {
                owned: rest,
                token: largest.token,
                previous: token,
            });
            taken.push(Share {
                owned: distance(largest.previous, token),
                token,
                previous: largest.previous,
            });
            let given = largest.owned.saturating_sub(rest);
            owned += given;
            self.owners.push((owner_total.saturating_sub(given), owner));
        }
        self.owners.extend(spared);
        (owned, taken)
    }
}

fn first_partition() -> (u64, BinaryHeap<Share>) {
    let each = SPACE / TOKENS_PER_PARTITION as u64;
    let shares = (0..TOKENS_PER_PARTITION as u64)
        .map(|index| Share {
            owned: each,
            token: index * each,
            previous: (index + TOKENS_PER_PARTITION as u64 - 1) % TOKENS_PER_PARTITION as u64
                * each,
        })
        .collect();
    (SPACE, shares)
}

/// The token `by` further than `from`; the last token of the space is `SPACE - STEP`.
fn step_on(from: u64, by: u64) -> u64 {
    let room = (SPACE - STEP).saturating_sub(from);
    if room < by { by - room } else { from + by }
}

fn distance(from: u64, to: u64) -> u64 {
    if from < to {
        to - from
    } else {
        SPACE - from + to
    }
}

/// Where hashes lead: all tokens of some partitions, ascending.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lookup(Vec<(u32, i32)>);

impl Lookup {
    pub(crate) fn of(partitions: impl Iterator<Item = i32>) -> Self {
        let mut all = Vec::new();
        for partition in partitions {
            if let Some(tokens) = tokens(partition) {
                all.extend(tokens.iter().map(|token| (*token, partition)));
            }
        }
        all.sort_unstable();
        Self(all)
    }

    /// Partitions from `hash` onwards, once around: the owner of the first token that is larger
    /// comes first.
    pub(crate) fn from(&self, hash: u32) -> impl Iterator<Item = i32> + '_ {
        let start = self.0.partition_point(|(token, _)| *token <= hash);
        let (before, after) = self.0.split_at(start);
        after.iter().chain(before).map(|(_, partition)| *partition)
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn are_those_of_the_format() {
        for (partition, first, sum) in [
            (
                0,
                0,
                "25d413a490f0445ec337e761ccc1ace7548685d9f01d5dcdd60ac4f725cbf8a6",
            ),
            (
                1,
                4_194_304,
                "6607f91b5aa34babc4d7c1b6d9f15015511e9131fb2820fedc48b208e80629c4",
            ),
            (
                2,
                2_146_085_552,
                "724a729310b8c07554b71b8825d2937ae3f365643a606a3bfd9008ac116120a9",
            ),
            (
                3,
                710_934_528,
                "e130c41aa311ada85cabd24ffa94f1012dce9d4fdb8f5cec7a3e9d4861fce565",
            ),
            (
                7,
                711_983_104,
                "3e4bf6dfeb43f034255d79ccd7e189b20feae9b036b5555dbcd18808fcb3be49",
            ),
        ] {
            let tokens = tokens(partition).unwrap();
            assert_eq!(tokens.len(), TOKENS_PER_PARTITION);
            let mut hash = Sha256::new();
            for token in tokens.iter() {
                hash.update(token.to_be_bytes());
            }
            let found: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(
                (tokens[0], found.as_str()),
                (first, sum),
                "partition {partition}"
            );
        }
    }
}
