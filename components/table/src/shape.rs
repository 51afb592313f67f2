//! The shape of a trace: nested sets, root, extent, service statistics.
//!
//! Owns the rules by which Tempo's blocks number the spans of a trace
//! (`tempodb/encoding/vparquet5/nested_set_model.go`), so that live data and blocks agree. Pure:
//! spans go in, in stored order, and numbers come out; scratch space is reused and nothing
//! recurses, so a chain of a million spans is as safe as a single one.

use std::hash::Hash;

use hashbrown::HashMap;

/// What the tree of a trace needs to know of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeSpan {
    /// See [`span_key`].
    pub id: u64,
    /// Key of the parent; `None` for a root, whose parent id is empty on the wire.
    pub parent: Option<u64>,
    /// OTLP span kind; decides between two spans that share one id.
    pub kind: i32,
}

/// A span id as a number: its bytes in big-endian order, short ids padded with zeros on the left.
/// Of a longer id the first eight bytes count, as in Tempo.
#[inline]
pub fn span_key(id: &[u8]) -> u64 {
    let head = &id[..id.len().min(8)];
    head.iter().fold(0, |key, &byte| key << 8 | u64::from(byte))
}

/// The place of a span in the tree of its trace.
///
/// Roots are walked in stored order, depth first; one counter from 1 gives `left` on entry and
/// `right` on exit and runs on from root to root. Spans that no root reaches have zeros, but their
/// `children` are counted; a trace with more than two spans of one id is all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NestedSet {
    /// Counter on entry.
    pub left: i32,
    /// Counter on exit.
    pub right: i32,
    /// `left` of the parent, −1 for roots.
    pub parent: i32,
    /// Direct children.
    pub children: i32,
}

const NONE: u32 = u32::MAX;
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

/// Numbers traces; keeps its scratch space from one to the next.
#[derive(Debug, Default)]
pub struct NestedSets {
    /// (key, index), sorted.
    by_id: Vec<(u64, u32)>,
    parent: Vec<u32>,
    first_child: Vec<u32>,
    next_sibling: Vec<u32>,
}

impl NestedSets {
    /// Appends the numbers of one trace to `out`, one entry per span, in the order of `spans`.
    pub fn number(&mut self, spans: &[TreeSpan], out: &mut Vec<NestedSet>) {
        let base = out.len();
        out.resize(base + spans.len(), NestedSet::default());
        let sets = &mut out[base..];
        if let [TreeSpan { parent: None, .. }] = spans {
            sets[0] = NestedSet {
                left: 1,
                right: 2,
                parent: -1,
                children: 0,
            };
            return;
        }
        self.by_id.clear();
        self.by_id
            .extend(spans.iter().zip(0..).map(|(span, index)| (span.id, index)));
        self.by_id.sort_unstable();
        if self.by_id.windows(3).any(|three| three[0].0 == three[2].0) {
            return;
        }
        self.link(spans, sets);
        self.walk(spans, sets);
    }

    /// Finds every span's parent and chains the children of each in stored order.
    fn link(&mut self, spans: &[TreeSpan], sets: &mut [NestedSet]) {
        for list in [
            &mut self.parent,
            &mut self.first_child,
            &mut self.next_sibling,
        ] {
            list.clear();
            list.resize(spans.len(), NONE);
        }
        for (index, span) in spans.iter().enumerate().rev() {
            let Some(parent) = span.parent.and_then(|id| self.find(id, span.kind, spans)) else {
                continue;
            };
            self.parent[index] = parent;
            self.next_sibling[index] =
                std::mem::replace(&mut self.first_child[parent as usize], index as u32);
            sets[parent as usize].children += 1;
        }
    }

    /// The span of that id. Of two (Zipkin's shared spans) a server span belongs to the client's,
    /// any other to the server's.
    fn find(&self, id: u64, child_kind: i32, spans: &[TreeSpan]) -> Option<u32> {
        let at = self.by_id.partition_point(|entry| entry.0 < id);
        let &(found, first) = self.by_id.get(at)?;
        if found != id {
            return None;
        }
        let second = match self.by_id.get(at + 1) {
            Some(&(next, second)) if next == id => second,
            _ => return Some(first),
        };
        let wanted = if child_kind == SERVER { CLIENT } else { SERVER };
        [first, second]
            .into_iter()
            .find(|&twin| spans[twin as usize].kind == wanted)
    }

    /// Every span has one parent and roots have none, so what a root reaches is a tree: the walk
    /// ends even if spans elsewhere form a cycle.
    fn walk(&self, spans: &[TreeSpan], sets: &mut [NestedSet]) {
        let mut counter = 1;
        for root in (0..spans.len()).filter(|&index| spans[index].parent.is_none()) {
            let mut node = root;
            let mut parent_left = -1;
            'enter: loop {
                sets[node].left = counter;
                sets[node].parent = parent_left;
                counter += 1;
                if self.first_child[node] != NONE {
                    parent_left = sets[node].left;
                    node = self.first_child[node] as usize;
                    continue;
                }
                loop {
                    sets[node].right = counter;
                    counter += 1;
                    if node == root {
                        break 'enter;
                    }
                    let parent = self.parent[node] as usize;
                    if self.next_sibling[node] != NONE {
                        parent_left = sets[parent].left;
                        node = self.next_sibling[node] as usize;
                        continue 'enter;
                    }
                    node = parent;
                }
            }
        }
    }
}

/// Start, end and root of a trace, gathered span by span in stored order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TraceExtent {
    start_unix_nano: u64,
    end_unix_nano: u64,
    root: Option<u32>,
    spans: u32,
}

impl TraceExtent {
    /// Takes the next span. `is_root`: its parent id is empty and it has no `child_of` link
    /// (see [`is_child_of_link`]) into its own trace.
    #[inline]
    pub fn add(&mut self, start_unix_nano: u64, end_unix_nano: u64, is_root: bool) {
        if self.start_unix_nano == 0 || start_unix_nano < self.start_unix_nano {
            self.start_unix_nano = start_unix_nano;
        }
        self.end_unix_nano = self.end_unix_nano.max(end_unix_nano);
        if is_root {
            self.root = Some(self.spans);
        }
        self.spans += 1;
    }

    /// Earliest start. A start of 0 counts as not set as soon as another span has one.
    pub fn start_unix_nano(&self) -> u64 {
        self.start_unix_nano
    }

    /// Latest end.
    pub fn end_unix_nano(&self) -> u64 {
        self.end_unix_nano
    }

    /// Nanoseconds from start to end; wraps around, as in Tempo's blocks, if the end is earlier.
    pub fn duration_nano(&self) -> u64 {
        self.end_unix_nano.wrapping_sub(self.start_unix_nano)
    }

    /// Which span is the root: the last one that says so, as its number in stored order.
    pub fn root(&self) -> Option<u32> {
        self.root
    }
}

/// Whether an attribute of a link says that the link stands for the parent (OpenTracing's
/// reference type).
pub fn is_child_of_link(key: &[u8], value: &[u8]) -> bool {
    key == b"opentracing.ref_type" && value == b"child_of"
}

/// Spans and failed spans per service of one trace. `K` names a service: its text, or a code.
#[derive(Debug, Clone)]
pub struct ServiceStats<K> {
    entries: Vec<ServiceStat<K>>,
    /// Only used when there are many services.
    index: HashMap<K, usize, foldhash::fast::RandomState>,
}

/// The statistics of one service in one trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceStat<K> {
    /// `service.name` of the resource, empty when it has none.
    pub service: K,
    /// Its spans.
    pub spans: u32,
    /// Those with status error.
    pub errors: u32,
}

impl<K> Default for ServiceStats<K> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            index: HashMap::default(),
        }
    }
}

impl<K: Copy + Eq + Hash> ServiceStats<K> {
    /// Up to here a look at every entry is quicker than a hash.
    const LINEAR_MAX_SERVICES: usize = 16;

    /// Adds spans of a service.
    pub fn add(&mut self, service: K, spans: u32, errors: u32) {
        let known = if self.entries.len() <= Self::LINEAR_MAX_SERVICES {
            self.entries
                .iter()
                .position(|entry| entry.service == service)
        } else {
            if self.index.is_empty() {
                self.index
                    .extend(self.entries.iter().map(|entry| entry.service).zip(0..));
            }
            self.index.get(&service).copied()
        };
        match known {
            Some(at) => {
                let entry = &mut self.entries[at];
                entry.spans += spans;
                entry.errors += errors;
            }
            None => {
                if !self.index.is_empty() {
                    self.index.insert(service, self.entries.len());
                }
                self.entries.push(ServiceStat {
                    service,
                    spans,
                    errors,
                });
            }
        }
    }

    /// The services in the order they were first seen.
    pub fn entries(&self) -> &[ServiceStat<K>] {
        &self.entries
    }

    /// Forgets the trace, keeps the memory.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.index.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: u64, parent: Option<u64>, kind: i32) -> TreeSpan {
        TreeSpan { id, parent, kind }
    }

    fn number(spans: &[TreeSpan]) -> Vec<(i32, i32, i32, i32)> {
        let mut sets = Vec::new();
        let mut numbering = NestedSets::default();
        // Twice, so that leftovers of the first trace would show.
        numbering.number(&[span(9, None, 0), span(8, Some(9), 0)], &mut sets);
        sets.clear();
        numbering.number(spans, &mut sets);
        sets.iter()
            .map(|set| (set.left, set.right, set.parent, set.children))
            .collect()
    }

    #[test]
    fn numbers_the_trace_of_the_search_tests() {
        // Root, two children, and a span that names itself as its parent.
        let spans = [
            span(0x01_0203, Some(0x04_0506), 0),
            span(0x04_0506, None, 3),
            span(0x07_0809, Some(0x04_0506), 4),
            span(0, Some(0), 0),
        ];
        assert_eq!(
            number(&spans),
            [(2, 3, 1, 0), (1, 6, -1, 2), (4, 5, 1, 0), (0, 0, 0, 1)]
        );
    }

    #[test]
    fn the_counter_runs_on_over_roots_and_orphans_keep_their_child_counts() {
        let spans = [
            span(1, None, 0),
            span(2, None, 0),
            span(3, Some(2), 0),
            span(5, Some(4), 0),
            span(6, Some(5), 0),
            span(7, Some(1), 0),
        ];
        assert_eq!(
            number(&spans),
            [
                (1, 4, -1, 1),
                (5, 8, -1, 1),
                (6, 7, 5, 0),
                (0, 0, 0, 1),
                (0, 0, 0, 0),
                (2, 3, 1, 0)
            ]
        );
    }

    #[test]
    fn without_a_root_only_children_are_counted() {
        let spans = [
            span(1, Some(9), 0),
            span(2, Some(1), 0),
            span(3, Some(1), 0),
            span(4, Some(3), 0),
        ];
        assert_eq!(
            number(&spans),
            [(0, 0, 0, 2), (0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 0, 0)]
        );
        let cycle = [span(1, Some(2), 0), span(2, Some(1), 0)];
        assert_eq!(number(&cycle), [(0, 0, 0, 1); 2]);
        assert_eq!(number(&[span(1, Some(7), 0)]), [(0, 0, 0, 0)]);
        assert_eq!(number(&[span(1, Some(1), 0)]), [(0, 0, 0, 1)]);
        assert_eq!(number(&[]), []);
    }

    #[test]
    fn with_three_of_one_id_all_is_zero() {
        let zero = (0, 0, 0, 0);
        let triple = [
            span(1, None, 0),
            span(2, Some(1), CLIENT),
            span(2, Some(1), SERVER),
            span(2, Some(1), 1),
        ];
        assert_eq!(number(&triple), [zero; 4]);
        assert_eq!(
            number(&triple.map(|span| TreeSpan {
                parent: Some(2),
                ..span
            })),
            [zero; 4]
        );
    }

    #[test]
    fn children_of_a_shared_id_go_by_kind() {
        // Client 2 and server 2 share an id; the server's parent is that id too.
        let spans = [
            span(1, None, 0),
            span(2, Some(1), CLIENT),
            span(2, Some(2), SERVER),
            span(3, Some(2), 1),
            span(4, Some(2), SERVER),
        ];
        // 1 > client 2 > (server 2 > 3), 4
        assert_eq!(
            number(&spans),
            [
                (1, 10, -1, 1),
                (2, 9, 1, 2),
                (3, 6, 2, 1),
                (4, 5, 3, 0),
                (7, 8, 2, 0)
            ]
        );
        // Two clients: an internal child finds no server twin.
        let spans = [
            span(1, None, 0),
            span(2, Some(1), CLIENT),
            span(2, Some(1), CLIENT),
            span(3, Some(2), 1),
        ];
        assert_eq!(number(&spans)[3], (0, 0, 0, 0));
    }

    #[test]
    fn a_very_deep_chain_and_a_very_wide_fan_are_numbered() {
        let n = 200_000_u64;
        let chain: Vec<_> = (0..n)
            .map(|id| span(id, id.checked_sub(1), 0))
            .rev()
            .collect();
        let sets = number(&chain);
        assert_eq!(sets[0], (n as i32, n as i32 + 1, n as i32 - 1, 0));
        assert_eq!(sets[n as usize - 1], (1, 2 * n as i32, -1, 1));
        let fan: Vec<_> = (0..n)
            .map(|id| span(id, (id > 0).then_some(0), 0))
            .collect();
        let sets = number(&fan);
        assert_eq!(sets[0], (1, 2 * n as i32, -1, n as i32 - 1));
        assert_eq!(sets[7], (14, 15, 1, 0));
    }

    #[test]
    fn the_extent_takes_the_last_root_and_ignores_a_start_of_zero() {
        let mut extent = TraceExtent::default();
        extent.add(0, 5, false);
        extent.add(20, 40, true);
        extent.add(10, 30, true);
        extent.add(15, 16, false);
        assert_eq!(extent.start_unix_nano(), 10);
        assert_eq!(extent.end_unix_nano(), 40);
        assert_eq!(extent.duration_nano(), 30);
        assert_eq!(extent.root(), Some(2));
    }

    #[test]
    fn service_stats_add_up_for_few_and_for_many_services() {
        let mut stats = ServiceStats::default();
        for round in 0..3 {
            for service in 0..100_u32 {
                stats.add(service, 2, u32::from(round == 1));
            }
        }
        assert_eq!(stats.entries().len(), 100);
        for (at, entry) in stats.entries().iter().enumerate() {
            let want = ServiceStat {
                service: at as u32,
                spans: 6,
                errors: 1,
            };
            assert_eq!(*entry, want);
        }
        stats.clear();
        stats.add(5, 1, 0);
        assert_eq!(stats.entries().len(), 1);
    }

    #[test]
    fn span_keys_pad_on_the_left() {
        assert_eq!(span_key(&[4, 5, 6]), 0x040506);
        assert_eq!(span_key(&[]), 0);
        assert_eq!(
            span_key(&[1, 2, 3, 4, 5, 6, 7, 8, 9]),
            0x0102_0304_0506_0708
        );
    }
}
