//! `trace-patch-v0`: every change, span by span.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value as Json;
use tempo_api::params::DiffFormat;

use super::{
    Side, Warning,
    pairs::Pairs,
    tree::{Node, SpanTree},
    values,
};

/// The document.
#[derive(Debug, Serialize)]
pub(super) struct Patch {
    version: &'static str,
    base: Side,
    compare: Side,
    pub(super) stats: Stats,
    pub(super) modified: Vec<Modified>,
    pub(super) added: Vec<OneSided>,
    pub(super) removed: Vec<OneSided>,
    pub(super) warnings: Vec<Warning>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stats {
    pub(super) span_count_a: usize,
    pub(super) span_count_b: usize,
    pub(super) matched_spans: usize,
    pub(super) modified_spans: usize,
    pub(super) added_spans: usize,
    pub(super) removed_spans: usize,
    pub(super) field_changes: usize,
    pub(super) attribute_changes: usize,
    /// Events are not compared, by Tempo neither.
    event_changes: usize,
    /// Never: a trace that is too large is refused.
    truncated: bool,
}

/// What changed in a span that both traces have.
#[derive(Debug, Serialize)]
pub(super) struct Modified {
    pub(super) span: SpanName,
    pub(super) changes: Vec<Change>,
}

/// A span, as both traces call it, and its place in the compared trace.
#[derive(Debug, Serialize)]
pub(super) struct SpanName {
    /// Places among siblings, from the root down.
    path: Vec<usize>,
    pub(super) service: String,
    name: String,
    kind: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Change {
    op: Operation,
    target: Target,
    before: Json,
    after: Json,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Operation {
    Add,
    Remove,
    Modify,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Target {
    Attribute { scope: &'static str, key: String },
    Field { name: &'static str },
}

/// A span that only one of the traces has.
#[derive(Debug, Serialize)]
pub(super) struct OneSided {
    target: Place,
    pub(super) span: Snapshot,
}

/// Where it is, or would have to be put.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    #[serde(rename = "type")]
    what: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    path: Vec<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parent_path: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
}

#[derive(Debug, Serialize)]
pub(super) struct Snapshot {
    #[serde(flatten)]
    pub(super) name: SpanName,
    duration_nanos: i64,
    pub(super) status: &'static str,
}

impl Patch {
    pub(super) fn new(base: &SpanTree<'_>, compare: &SpanTree<'_>, pairs: &Pairs) -> Self {
        let mut stats = Stats {
            span_count_a: base.side.span_count,
            span_count_b: compare.side.span_count,
            ..Stats::default()
        };
        let (mut modified, mut added) = (Vec::new(), Vec::new());
        for (number, node) in compare.nodes.iter().enumerate() {
            let Some(partner) = pairs.base_of(number) else {
                let (path, span) = snapshot(compare, number);
                let (index, parent_path) = path.split_last().unwrap_or((&0, &[]));
                added.push(OneSided {
                    target: Place {
                        what: "span",
                        path: Vec::new(),
                        parent_path: parent_path.to_vec(),
                        index: Some(*index),
                    },
                    span,
                });
                continue;
            };
            stats.matched_spans += 1;
            let mut changes = field_changes(&base.nodes[partner], node);
            stats.field_changes += changes.len();
            let of_attributes = attribute_changes(&base.nodes[partner], node);
            stats.attribute_changes += of_attributes.len();
            changes.extend(of_attributes);
            if !changes.is_empty() {
                let span = name(compare.path(number), node);
                modified.push(Modified { span, changes });
            }
        }
        let removed: Vec<OneSided> = pairs
            .removed()
            .map(|number| {
                let (path, span) = snapshot(base, number);
                let target = Place {
                    what: "span",
                    path,
                    parent_path: Vec::new(),
                    index: None,
                };
                OneSided { target, span }
            })
            .collect();
        (stats.modified_spans, stats.added_spans) = (modified.len(), added.len());
        stats.removed_spans = removed.len();
        let mut warnings = base.warnings.clone();
        // Of names it is enough to be told once.
        let of_names = |warning: &Warning| warning.code == "high_cardinality_span_name";
        let is_told = warnings.iter().any(of_names);
        let others = compare.warnings.iter().cloned();
        warnings.extend(others.filter(|warning| !(is_told && of_names(warning))));
        Self {
            version: DiffFormat::Patch.name(),
            base: base.side.clone(),
            compare: compare.side.clone(),
            stats,
            modified,
            added,
            removed,
            warnings,
        }
    }
}

impl Modified {
    /// The status before and after, if it changed.
    pub(super) fn status_change(&self) -> Option<(&str, &str)> {
        let is_status =
            |change: &&Change| matches!(change.target, Target::Field { name: "status" });
        let change = self.changes.iter().find(is_status)?;
        Some((change.before.as_str()?, change.after.as_str()?))
    }
}

fn name(path: Vec<usize>, node: &Node<'_>) -> SpanName {
    SpanName {
        path,
        service: node.identity.service.to_owned(),
        name: node.identity.name.to_owned(),
        kind: node.identity.kind,
    }
}

fn snapshot(tree: &SpanTree<'_>, number: usize) -> (Vec<usize>, Snapshot) {
    let (path, node) = (tree.path(number), &tree.nodes[number]);
    let snapshot = Snapshot {
        name: name(path.clone(), node),
        duration_nanos: node.duration.unwrap_or(0),
        status: node.status,
    };
    (path, snapshot)
}

fn field_changes(before: &Node<'_>, after: &Node<'_>) -> Vec<Change> {
    let modified = |name, before: Json, after: Json| Change {
        op: Operation::Modify,
        target: Target::Field { name },
        before,
        after,
    };
    let mut changes = Vec::new();
    if values::durations_differ(before.duration, after.duration) {
        let (before, after) = (before.duration.into(), after.duration.into());
        changes.push(modified("duration_nanos", before, after));
    }
    if before.status != after.status {
        changes.push(modified(
            "status",
            before.status.into(),
            after.status.into(),
        ));
    }
    changes
}

fn attribute_changes(before: &Node<'_>, after: &Node<'_>) -> Vec<Change> {
    let before = values::by_key(&before.span.attributes);
    let after = values::by_key(&after.span.attributes);
    let keys: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    let change = |key: &str| {
        let (before, after) = (before.get(key).copied(), after.get(key).copied());
        let op = match (before, after) {
            (None, _) => Operation::Add,
            (_, None) => Operation::Remove,
            (Some(before), Some(after)) if values::differ(key, before, after) => Operation::Modify,
            _ => return None,
        };
        Some(Change {
            op,
            target: Target::Attribute {
                scope: "span",
                key: key.to_owned(),
            },
            before: values::json(before.flatten()),
            after: values::json(after.flatten()),
        })
    };
    keys.into_iter().filter_map(change).collect()
}
