//! Structural operators, on nested-set numbers alone.
//!
//! Intervals of a trace's spans contain each other or are disjoint, which lets every relation be
//! decided by one search in a sorted list. Spans that no root reaches (0/0/0) stand in no
//! relation, and so satisfy every negated one.

use std::sync::Arc;

use tempo_table::{Bitmap, ColumnKey, Intrinsic, NumberLane};
use tempo_traceql::ast::{Relation, StructuralForm, StructuralOp};

use crate::{error::EngineError, session::Session};

/// The nested sets of some spans.
pub(crate) struct NestedSets {
    /// The spans that the numbers are of, ascending; all when `None`.
    spans: Option<Vec<u32>>,
    left: Arc<[i64]>,
    right: Arc<[i64]>,
    parent: Arc<[i64]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Node {
    span: u32,
    left: i64,
    right: i64,
    parent: i64,
}

impl Node {
    fn is_connected(&self) -> bool {
        self.left != 0 && self.right != 0
    }
}

/// Scratch space, kept from trace to trace.
#[derive(Default)]
pub(crate) struct Scratch {
    lhs: Vec<Node>,
    rhs: Vec<Node>,
    /// Sorted numbers of one side.
    keys: Vec<i64>,
    /// The highest `right` of all nodes up to the one of the same index in `keys`.
    reach: Vec<i64>,
    /// A count for every number of the trace.
    marks: Vec<i32>,
    /// Whether a number is the `left` of the other side.
    own: Vec<bool>,
}

impl NestedSets {
    pub(crate) fn load(session: &Session<'_>, spans: &Bitmap) -> Result<Self, EngineError> {
        let keys = [
            Intrinsic::NestedSetLeft,
            Intrinsic::NestedSetRight,
            Intrinsic::NestedSetParent,
        ]
        .map(ColumnKey::from);
        let few = session.is_sparse(spans) && !keys.iter().all(|key| session.is_held(key));
        let rows: Option<Vec<u32>> = few.then(|| spans.iter().map(|span| span as u32).collect());
        let numbers = |key: &ColumnKey| {
            let column = match &rows {
                Some(rows) => session.gather(key, rows)?,
                None => session.column(key)?,
            };
            Ok::<_, EngineError>(match column.ints {
                Some(NumberLane {
                    values,
                    present: None,
                }) => values,
                lane => (0..column.len)
                    .map(|row| lane.as_ref().and_then(|lane| lane.get(row)).unwrap_or(0))
                    .collect(),
            })
        };
        Ok(Self {
            left: numbers(&keys[0])?,
            right: numbers(&keys[1])?,
            parent: numbers(&keys[2])?,
            spans: rows,
        })
    }

    #[inline]
    fn node(&self, span: u32) -> Node {
        let at = match &self.spans {
            None => Some(span as usize),
            Some(spans) => spans.binary_search(&span).ok(),
        };
        let number = |numbers: &[i64]| {
            at.and_then(|at| numbers.get(at))
                .copied()
                .unwrap_or_default()
        };
        Node {
            span,
            left: number(&self.left),
            right: number(&self.right),
            parent: number(&self.parent),
        }
    }

    /// Whether a root reaches the span.
    pub(crate) fn is_connected(&self, span: u32) -> bool {
        self.node(span).is_connected()
    }

    /// Sorts spans of one trace by their place in the tree.
    pub(crate) fn sort(&self, spans: &mut [u32], descending: bool) {
        spans.sort_by_key(|&span| {
            let left = self.node(span).left;
            if descending { -left } else { left }
        });
    }

    /// Appends what `lhs op rhs` yields of one trace: in the order of `rhs`, or for union forms in
    /// the order of the tree.
    pub(crate) fn apply(
        &self,
        op: StructuralOp,
        lhs: &[u32],
        rhs: &[u32],
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) {
        let Scratch {
            lhs: lhs_nodes,
            rhs: rhs_nodes,
            ..
        } = scratch;
        lhs_nodes.clear();
        lhs_nodes.extend(lhs.iter().map(|&span| self.node(span)));
        rhs_nodes.clear();
        rhs_nodes.extend(rhs.iter().map(|&span| self.node(span)));
        let wanted = op.form != StructuralForm::Negated;
        let first = out.len();
        related(scratch, op.relation, false, wanted, out);
        if op.form == StructuralForm::Union {
            related(scratch, inverse(op.relation), true, true, out);
            let found = &mut out[first..];
            found.sort_by_key(|&span| (self.node(span).left, span));
            let mut kept = first;
            for at in first..out.len() {
                if at == first || out[at] != out[kept - 1] {
                    out[kept] = out[at];
                    kept += 1;
                }
            }
            out.truncate(kept);
        }
    }
}

fn inverse(relation: Relation) -> Relation {
    match relation {
        Relation::Child => Relation::Parent,
        Relation::Parent => Relation::Child,
        Relation::Descendant => Relation::Ancestor,
        Relation::Ancestor => Relation::Descendant,
        Relation::Sibling => Relation::Sibling,
    }
}

/// Appends the right-hand spans that are (or are not: `wanted`) in `relation` to some left-hand
/// span. `swapped` exchanges the sides.
fn related(
    scratch: &mut Scratch,
    relation: Relation,
    swapped: bool,
    wanted: bool,
    out: &mut Vec<u32>,
) {
    // Numbers run to twice the spans of the trace. When most of those are here, a list of all
    // numbers is quicker than sorting.
    let nodes = scratch.lhs.iter().chain(&scratch.rhs);
    let highest = nodes.map(|node| node.right.max(node.left)).max();
    let most = 8 * (scratch.lhs.len() + scratch.rhs.len()) + 64;
    match highest.map(usize::try_from) {
        Some(Ok(highest)) if highest < most => {
            related_by_marks(scratch, highest, relation, swapped, wanted, out);
        }
        _ => related_by_search(scratch, relation, swapped, wanted, out),
    }
}

/// [`related`] for traces whose numbers are at most `highest`.
fn related_by_marks(
    scratch: &mut Scratch,
    highest: usize,
    relation: Relation,
    swapped: bool,
    wanted: bool,
    out: &mut Vec<u32>,
) {
    let Scratch {
        lhs,
        rhs,
        marks,
        own,
        ..
    } = scratch;
    let (lhs, rhs) = if swapped { (rhs, lhs) } else { (lhs, rhs) };
    marks.clear();
    marks.resize(highest + 2, 0);
    // Numbers beyond the range, or negative, belong to no span of a well-formed trace.
    let place = |number: i64| usize::try_from(number).ok().filter(|&at| at <= highest);
    let add = |marks: &mut [i32], number: i64, amount: i32| {
        if let Some(mark) = place(number).and_then(|at| marks.get_mut(at)) {
            *mark += amount;
        }
    };
    let sum_up = |marks: &mut [i32]| {
        let mut sum = 0;
        for mark in marks {
            sum += *mark;
            *mark = sum;
        }
    };
    let at = |marks: &[i32], number: i64| place(number).map_or(0, |at| marks[at]);
    let connected = |node: &&Node| node.is_connected();
    match relation {
        Relation::Descendant => {
            // Intervals that are open at each number.
            for node in lhs.iter().filter(connected) {
                add(marks, node.left, 1);
                add(marks, node.right, -1);
            }
            sum_up(marks);
            keep(rhs, wanted, out, |node| {
                node.is_connected() && at(marks, node.left - 1) > 0
            });
        }
        Relation::Ancestor => {
            // Intervals that begin up to each number.
            for node in lhs.iter().filter(connected) {
                add(marks, node.left, 1);
            }
            sum_up(marks);
            keep(rhs, wanted, out, |node| {
                node.is_connected() && at(marks, node.right - 1) > at(marks, node.left)
            });
        }
        Relation::Child => {
            for node in lhs.iter().filter(connected) {
                add(marks, node.left, 1);
            }
            keep(rhs, wanted, out, |node| {
                node.parent > 0 && at(marks, node.parent) > 0
            });
        }
        Relation::Parent => {
            for node in lhs.iter().filter(|node| node.parent > 0) {
                add(marks, node.parent, 1);
            }
            keep(rhs, wanted, out, |node| {
                node.left != 0 && at(marks, node.left) > 0
            });
        }
        Relation::Sibling => {
            own.clear();
            own.resize(highest + 1, false);
            // One further: the parent of roots is −1.
            for node in lhs.iter().filter(|node| node.parent != 0) {
                add(marks, node.parent + 1, 1);
                if let Some(own) = place(node.left).and_then(|at| own.get_mut(at)) {
                    *own = true;
                }
            }
            keep(rhs, wanted, out, |node| {
                // A span is not its own sibling: beside itself there must be another.
                let itself = place(node.left).is_some_and(|at| own[at]);
                node.parent != 0 && at(marks, node.parent + 1) > i32::from(itself)
            });
        }
    }
}

/// [`related`] for traces of which few spans are here.
fn related_by_search(
    scratch: &mut Scratch,
    relation: Relation,
    swapped: bool,
    wanted: bool,
    out: &mut Vec<u32>,
) {
    let Scratch {
        lhs,
        rhs,
        keys,
        reach,
        ..
    } = scratch;
    let (lhs, rhs) = if swapped { (rhs, lhs) } else { (lhs, rhs) };
    keys.clear();
    match relation {
        Relation::Descendant => {
            lhs.sort_unstable_by_key(|node| node.left);
            reach.clear();
            let mut farthest = 0;
            for node in lhs.iter().filter(|node| node.is_connected()) {
                farthest = farthest.max(node.right);
                keys.push(node.left);
                reach.push(farthest);
            }
            keep(rhs, wanted, out, |node| {
                let before = keys.partition_point(|&left| left < node.left);
                node.is_connected() && before > 0 && reach[before - 1] > node.right
            });
        }
        Relation::Ancestor => {
            keys.extend(
                lhs.iter()
                    .filter(|node| node.is_connected())
                    .map(|node| node.left),
            );
            keys.sort_unstable();
            keep(rhs, wanted, out, |node| {
                let next = keys.partition_point(|&left| left <= node.left);
                node.is_connected() && keys.get(next).is_some_and(|&left| left < node.right)
            });
        }
        Relation::Child => {
            keys.extend(lhs.iter().map(|node| node.left).filter(|&left| left != 0));
            keys.sort_unstable();
            keep(rhs, wanted, out, |node| {
                node.parent != 0 && keys.binary_search(&node.parent).is_ok()
            });
        }
        Relation::Parent => {
            keys.extend(
                lhs.iter()
                    .map(|node| node.parent)
                    .filter(|&parent| parent != 0),
            );
            keys.sort_unstable();
            keep(rhs, wanted, out, |node| {
                node.left != 0 && keys.binary_search(&node.left).is_ok()
            });
        }
        Relation::Sibling => {
            keys.extend(
                lhs.iter()
                    .map(|node| node.parent)
                    .filter(|&parent| parent != 0),
            );
            keys.sort_unstable();
            lhs.sort_unstable_by_key(|node| node.span);
            keep(rhs, wanted, out, |node| {
                let first = keys.partition_point(|&parent| parent < node.parent);
                let is_sibling = |at: usize| keys.get(at) == Some(&node.parent);
                let itself = lhs
                    .binary_search_by_key(&node.span, |other| other.span)
                    .is_ok();
                // A span is not its own sibling: beside itself there must be another.
                node.parent != 0 && is_sibling(first + usize::from(itself))
            });
        }
    }
}

/// Appends the spans for which `verdict` is as `wanted`.
fn keep(nodes: &[Node], wanted: bool, out: &mut Vec<u32>, verdict: impl Fn(&Node) -> bool) {
    let kept = nodes.iter().filter(|node| verdict(node) == wanted);
    out.extend(kept.map(|node| node.span));
}

#[cfg(test)]
mod tests {
    use tempo_table::shape::{NestedSets as Numbering, TreeSpan};

    use super::*;

    /// Every relation between every pair, straight from the definition.
    fn is_related(relation: Relation, l: &Node, r: &Node) -> bool {
        let inside = |inner: &Node, outer: &Node| {
            inner.left > outer.left
                && inner.right < outer.right
                && [inner.left, inner.right, outer.left, outer.right]
                    .iter()
                    .all(|&number| number != 0)
        };
        match relation {
            Relation::Descendant => inside(r, l),
            Relation::Ancestor => inside(l, r),
            Relation::Child => r.parent == l.left && r.parent != 0,
            Relation::Parent => l.parent == r.left && l.parent != 0,
            Relation::Sibling => r.parent == l.parent && r.parent != 0 && r.span != l.span,
        }
    }

    #[test]
    fn agrees_with_the_definition_on_many_trees_and_selections() {
        let mut seed = 1_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(99);
            (seed >> 33) % below
        };
        for _ in 0..300 {
            let n = 1 + random(14);
            let spans: Vec<TreeSpan> = (0..n)
                .map(|id| TreeSpan {
                    id,
                    parent: match random(5) {
                        0 => None,
                        1 => Some(100),
                        _ => Some(random(n)),
                    },
                    kind: 0,
                })
                .collect();
            let mut sets = Vec::new();
            Numbering::default().number(&spans, &mut sets);
            let nested = NestedSets {
                spans: None,
                left: sets.iter().map(|set| i64::from(set.left)).collect(),
                right: sets.iter().map(|set| i64::from(set.right)).collect(),
                parent: sets.iter().map(|set| i64::from(set.parent)).collect(),
            };
            let mut pick = || -> Vec<u32> { (0..n as u32).filter(|_| random(2) == 0).collect() };
            let (lhs, rhs) = (pick(), pick());
            for relation in [
                Relation::Descendant,
                Relation::Ancestor,
                Relation::Child,
                Relation::Parent,
                Relation::Sibling,
            ] {
                let has = |l: u32, r: u32| is_related(relation, &nested.node(l), &nested.node(r));
                let matching = |r: &&u32| lhs.iter().any(|&l| has(l, **r));
                let mut union: Vec<u32> = rhs.iter().filter(matching).copied().collect();
                union.extend(lhs.iter().filter(|&&l| rhs.iter().any(|&r| has(l, r))));
                union.sort_by_key(|&span| (nested.node(span).left, span));
                union.dedup();
                let cases = [
                    (
                        StructuralForm::Matching,
                        rhs.iter().filter(matching).copied().collect(),
                    ),
                    (
                        StructuralForm::Negated,
                        rhs.iter().filter(|r| !matching(r)).copied().collect(),
                    ),
                    (StructuralForm::Union, union),
                ];
                for (form, want) in cases {
                    let mut got = Vec::new();
                    let op = StructuralOp { relation, form };
                    nested.apply(op, &lhs, &rhs, &mut Scratch::default(), &mut got);
                    assert_eq!(got, want, "{op:?} {lhs:?} {rhs:?} of {spans:?}");
                    if form == StructuralForm::Union {
                        continue;
                    }
                    // The other way to find it.
                    let nodes = |spans: &[u32]| spans.iter().map(|&s| nested.node(s)).collect();
                    let mut scratch = Scratch {
                        lhs: nodes(&lhs),
                        rhs: nodes(&rhs),
                        ..Scratch::default()
                    };
                    let wanted = form == StructuralForm::Matching;
                    got.clear();
                    related_by_search(&mut scratch, relation, false, wanted, &mut got);
                    assert_eq!(got, want, "{op:?} {lhs:?} {rhs:?} of {spans:?}");
                }
            }
        }
    }

    #[test]
    fn a_reader_of_few_spans_knows_them() {
        let nested = NestedSets {
            spans: Some(vec![7, 9]),
            left: [1, 2].into(),
            right: [4, 3].into(),
            parent: [-1, 1].into(),
        };
        let op = StructuralOp {
            relation: Relation::Descendant,
            form: StructuralForm::Matching,
        };
        let mut got = Vec::new();
        nested.apply(op, &[7], &[7, 9], &mut Scratch::default(), &mut got);
        assert_eq!(got, [9]);
        assert!(nested.is_connected(7) && !nested.is_connected(8));
    }
}
