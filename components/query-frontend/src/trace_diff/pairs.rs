//! Which span of one trace is which of the other.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

use super::tree::SpanTree;

/// Spans of two traces that stand for each other. A span has at most one partner, and partners
/// have the same service, name and kind.
///
/// Those whose parents are partners find each other first, then those whose parents are only
/// called alike, then the rest: so a removed branch does not take the partners of another one, and
/// an inserted ancestor does not part what is below it. Among equals the order of the traces
/// counts.
pub(super) struct Pairs {
    /// By number of the span in the compared trace: its partner in the base.
    base_of: Vec<Option<usize>>,
    /// By number of the span in the base.
    is_paired: Vec<bool>,
}

impl Pairs {
    pub(super) fn new(base: &SpanTree<'_>, compare: &SpanTree<'_>) -> Self {
        let mut pairs = Self {
            base_of: vec![None; compare.nodes.len()],
            is_paired: vec![false; base.nodes.len()],
        };
        pairs.pair(
            |node| (base.nodes[node].identity, base.nodes[node].parent),
            |pairs, node| {
                let parent = match compare.nodes[node].parent {
                    None => None,
                    Some(parent) => Some(pairs.base_of[parent]?),
                };
                Some((compare.nodes[node].identity, parent))
            },
        );
        pairs.pair(
            |node| (base.nodes[node].identity, base.parent_identity(node)),
            |_, node| Some((compare.nodes[node].identity, compare.parent_identity(node))),
        );
        pairs.pair(
            |node| base.nodes[node].identity,
            |_, node| Some(compare.nodes[node].identity),
        );
        pairs
    }

    /// Pairs spans without a partner whose keys are equal, in the order of the compared trace.
    fn pair<K: Hash + Eq>(
        &mut self,
        base_key: impl Fn(usize) -> K,
        compare_key: impl Fn(&Self, usize) -> Option<K>,
    ) {
        let mut free: HashMap<K, VecDeque<usize>> = HashMap::new();
        for node in (0..self.is_paired.len()).filter(|&node| !self.is_paired[node]) {
            free.entry(base_key(node)).or_default().push_back(node);
        }
        for node in 0..self.base_of.len() {
            if self.base_of[node].is_some() {
                continue;
            }
            let candidates = compare_key(self, node).and_then(|key| free.get_mut(&key));
            if let Some(partner) = candidates.and_then(VecDeque::pop_front) {
                self.base_of[node] = Some(partner);
                self.is_paired[partner] = true;
            }
        }
    }

    /// The partner in the base of a span of the compared trace.
    pub(super) fn base_of(&self, node: usize) -> Option<usize> {
        self.base_of.get(node).copied().flatten()
    }

    /// Spans of the base without a partner.
    pub(super) fn removed(&self) -> impl Iterator<Item = usize> {
        (0..self.is_paired.len()).filter(|&node| !self.is_paired[node])
    }
}
