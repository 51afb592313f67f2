//! The spans of a trace as a tree, parents before their children.

use std::collections::{HashMap, HashSet};

use tempo_model::to_hex;
use tempo_proto::{
    opentelemetry::proto::{
        common::v1::{KeyValue, any_value::Value},
        trace::v1::Span,
    },
    tempopb::Trace,
};

use super::{DiffError, Side, Warning};

/// Elements that the paths of all spans of a trace may have together.
pub(super) const MAX_PATH_ELEMENTS: usize = 4_000_000;

/// Spans that a warning names as examples.
const MAX_EXAMPLES: usize = 3;

/// What a span is called in both traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Identity<'a> {
    pub(super) service: &'a str,
    pub(super) name: &'a str,
    pub(super) kind: &'static str,
}

/// A span in its place.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) span: &'a Span,
    pub(super) identity: Identity<'a>,
    /// Number of its parent among the nodes.
    pub(super) parent: Option<usize>,
    /// Its place among the children of its parent, or among the roots.
    place: usize,
    /// In nanoseconds; `None` if a time is missing or the end lies before the start.
    pub(super) duration: Option<i64>,
    pub(super) status: &'static str,
}

/// The spans of one side.
#[derive(Debug)]
pub(super) struct SpanTree<'a> {
    pub(super) side: Side,
    /// Parents before their children, siblings by start. Spans without a parent in the trace are
    /// roots; of those that share an id only the first is here.
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) warnings: Vec<Warning>,
}

impl<'a> SpanTree<'a> {
    pub(super) fn new(trace: &'a Trace, side: &str) -> Result<Self, DiffError> {
        let mut spans = flat(trace);
        let trace_id = spans
            .iter()
            .find(|(span, _)| !span.trace_id.is_empty())
            .map_or_else(String::new, |(span, _)| to_hex(&span.trace_id));
        let span_count = spans.len();
        spans.sort_by(|(a, _), (b, _)| {
            (a.start_time_unix_nano, &a.span_id).cmp(&(b.start_time_unix_nano, &b.span_id))
        });
        let mut ids = HashSet::new();
        spans.retain(|(span, _)| ids.insert(span.span_id.as_slice()));
        let nodes = in_order(&spans)?;
        let mut tree = Self {
            side: Side {
                trace_id,
                span_count,
            },
            nodes,
            warnings: Vec::new(),
        };
        tree.warn(side);
        Ok(tree)
    }

    /// Places from the root down to a span.
    pub(super) fn path(&self, node: usize) -> Vec<usize> {
        let mut path = Vec::new();
        let mut at = Some(node);
        while let Some(node) = at.and_then(|at| self.nodes.get(at)) {
            path.push(node.place);
            at = node.parent;
        }
        path.reverse();
        path
    }

    /// What the parent of a span is called.
    pub(super) fn parent_identity(&self, node: usize) -> Option<Identity<'a>> {
        let parent = self.nodes.get(node)?.parent?;
        Some(self.nodes.get(parent)?.identity)
    }

    fn warn(&mut self, side: &str) {
        let mut warn = |code, message| self.warnings.push(Warning { code, message });
        if let Some(named) = self
            .nodes
            .iter()
            .find(|node| holds_an_id(node.identity.name))
        {
            let Identity { service, name, .. } = named.identity;
            warn(
                "high_cardinality_span_name",
                format!(
                    "the span name {name:?} of service {service:?} seems to hold an id; spans are paired by name, so that the same operation may count as removed and added: put ids into attributes"
                ),
            );
        }
        let mut without: Vec<Identity<'_>> = self
            .nodes
            .iter()
            .filter(|node| node.duration.is_none())
            .map(|node| node.identity)
            .collect();
        if !without.is_empty() {
            let count = without.len();
            without.sort_unstable();
            without.truncate(MAX_EXAMPLES);
            let examples = without
                .iter()
                .map(|identity| format!("{:?} of service {:?}", identity.name, identity.service))
                .collect::<Vec<_>>()
                .join(", ");
            warn(
                "invalid_duration",
                format!(
                    "{side} trace: {count} spans have no start, or end before it; their duration is null and counts as 0 in sums: {examples}{}",
                    if count > MAX_EXAMPLES { ", …" } else { "" }
                ),
            );
        }
        if self.side.span_count == 0 {
            warn(
                "zero_span_trace",
                format!("{side} trace has no spans, nothing can be paired"),
            );
        }
        let dropped = self.side.span_count - self.nodes.len();
        if dropped > 0 {
            warn(
                "duplicate_span_id",
                format!(
                    "{side} trace: {dropped} spans have the id of another one and are left out; they count in spanCount only"
                ),
            );
        }
    }
}

/// All spans, with the name of the service of their resource.
fn flat(trace: &Trace) -> Vec<(&Span, &str)> {
    let mut spans = Vec::new();
    for resource in &trace.resource_spans {
        let attributes = resource.resource.as_ref().map(|of| &of.attributes[..]);
        let service = service_name(attributes.unwrap_or_default());
        for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
            spans.push((span, service));
        }
    }
    spans
}

fn service_name(attributes: &[KeyValue]) -> &str {
    let found = attributes.iter().find(|entry| entry.key == "service.name");
    match found.and_then(|entry| entry.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(name)) => name,
        _ => "",
    }
}

/// The spans from the roots down. Those whose ancestors form a circle come last: the first of a
/// circle as a root.
fn in_order<'a>(spans: &[(&'a Span, &'a str)]) -> Result<Vec<Node<'a>>, DiffError> {
    let by_id: HashMap<&[u8], usize> = spans
        .iter()
        .enumerate()
        .map(|(index, (span, _))| (span.span_id.as_slice(), index))
        .collect();
    let mut roots = Vec::new();
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); spans.len()];
    for (index, (span, _)) in spans.iter().enumerate() {
        match by_id.get(span.parent_span_id.as_slice()) {
            Some(&parent) if !span.parent_span_id.is_empty() => children[parent].push(index),
            _ => roots.push(index),
        }
    }
    let mut nodes: Vec<Node<'a>> = Vec::with_capacity(spans.len());
    let mut is_placed = vec![false; spans.len()];
    let (mut root_place, mut path_elements) = (0, 0_usize);
    // Without recursion: a trace may be deeper than the stack.
    let mut waiting = Vec::new();
    for root in roots.into_iter().chain(0..spans.len()) {
        if is_placed[root] {
            continue;
        }
        waiting.push((root, None, root_place, 1));
        root_place += 1;
        while let Some((index, parent, place, depth)) = waiting.pop() {
            is_placed[index] = true;
            path_elements = path_elements.saturating_add(depth);
            let number = nodes.len();
            let (span, service) = spans[index];
            nodes.push(node(span, service, parent, place));
            let below = children[index].iter().filter(|&&child| !is_placed[child]);
            let first = waiting.len();
            waiting.extend(
                below
                    .enumerate()
                    .map(|(place, &child)| (child, Some(number), place, depth + 1)),
            );
            waiting[first..].reverse();
        }
    }
    if path_elements > MAX_PATH_ELEMENTS {
        return Err(DiffError::TooDeep { path_elements });
    }
    Ok(nodes)
}

fn node<'a>(span: &'a Span, service: &'a str, parent: Option<usize>, place: usize) -> Node<'a> {
    let own = service_name(&span.attributes);
    Node {
        span,
        identity: Identity {
            service: if own.is_empty() { service } else { own },
            name: &span.name,
            kind: kind(span.kind),
        },
        parent,
        place,
        duration: duration(span),
        status: status(span.status.as_ref().map_or(0, |status| status.code)),
    }
}

/// A start of 0 was not set: taken for a time it would make the span last for decades.
fn duration(span: &Span) -> Option<i64> {
    if span.start_time_unix_nano == 0 {
        return None;
    }
    let nanos = span
        .end_time_unix_nano
        .checked_sub(span.start_time_unix_nano)?;
    i64::try_from(nanos).ok()
}

fn kind(kind: i32) -> &'static str {
    match kind {
        0 => "unspecified",
        1 => "internal",
        2 => "server",
        3 => "client",
        4 => "producer",
        5 => "consumer",
        _ => "",
    }
}

fn status(code: i32) -> &'static str {
    match code {
        0 => "unset",
        1 => "ok",
        2 => "error",
        _ => "",
    }
}

/// Whether a part of the name is a number of six digits or more, or a longer hexadecimal one.
fn holds_an_id(name: &str) -> bool {
    name.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .any(|part| {
            let digits = part.bytes().filter(u8::is_ascii_digit).count();
            let is_number = digits == part.len();
            let is_hex = part.bytes().all(|c| c.is_ascii_hexdigit() || c == b'-');
            (is_number && digits >= 6) || (is_hex && digits > 0 && part.len() >= 8)
        })
}
