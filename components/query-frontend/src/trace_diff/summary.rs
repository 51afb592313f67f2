//! `trace-summary-v0-native`: what changed of a trace as a whole, and of each service.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;
use tempo_api::params::DiffFormat;

use super::{
    Warning,
    patch::Patch,
    tree::{Identity, SpanTree},
};

const ERROR: &str = "error";
const NANOS_PER_MILLI: i64 = 1_000_000;

/// The time spent in a service counts as changed from one millisecond and this share of the base:
/// many spans that each are a little slower add up.
const DRIFT_FLOOR_NANOS: i64 = NANOS_PER_MILLI;
const DRIFT_SHARE_DIVISOR: i64 = 20;

/// What a service without a name is called.
const UNKNOWN_SERVICE: &str = "<unknown>";

/// The document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    version: &'static str,
    base: TraceSummary,
    compare: TraceSummary,
    signals: Signals,
    trust: Trust,
    stats: Deltas,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
    /// Sorted. Also those whose spans only moved.
    changed_services: Vec<String>,
    /// The largest change of time first.
    services: Vec<ServiceChange>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TraceSummary {
    trace_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    root_service: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    root_name: String,
    span_count: usize,
    error_span_count: usize,
    /// From the first start to the last end.
    duration_ms: i64,
    sum_span_duration_ms: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Signals {
    trace_latency: &'static str,
    sum_span_duration: &'static str,
    errors: &'static str,
    span_count: &'static str,
    structure: &'static str,
}

/// How much of the traces was paired.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Trust {
    /// Of the larger trace.
    matched_span_ratio: f64,
    /// Of the smaller trace.
    structure_overlap: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Deltas {
    trace_latency_delta_ms: i64,
    sum_span_duration_delta_ms: i64,
    span_count_delta: i64,
    error_span_delta: i64,
    matched_spans: usize,
    modified_spans: usize,
    added_spans: usize,
    removed_spans: usize,
    field_changes: usize,
    attribute_changes: usize,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceChange {
    name: String,
    sum_span_duration_delta_ms: i64,
    modified: usize,
    added: usize,
    removed: usize,
    new_errors: usize,
    resolved_errors: usize,
}

/// Sums of a side, in nanoseconds, so that milliseconds are cut only at the end.
struct Sums<'a> {
    summary: TraceSummary,
    latency: i64,
    all_spans: i64,
    by_service: BTreeMap<&'a str, i64>,
    /// How often each span is below each parent, by service.
    structure: BTreeMap<&'a str, HashMap<Link<'a>, usize>>,
}

/// A span and its parent.
type Link<'a> = (Identity<'a>, Option<Identity<'a>>);

impl<'a> Sums<'a> {
    fn of(tree: &SpanTree<'a>) -> Self {
        let (mut first_start, mut last_end) = (u64::MAX, 0);
        let (mut errors, mut all_spans) = (0, 0_i64);
        let mut by_service: BTreeMap<&str, i64> = BTreeMap::new();
        let mut structure: BTreeMap<&str, HashMap<Link<'_>, usize>> = BTreeMap::new();
        for (number, node) in tree.nodes.iter().enumerate() {
            let service = shown(node.identity.service);
            if node.duration.is_some() {
                first_start = first_start.min(node.span.start_time_unix_nano);
                last_end = last_end.max(node.span.end_time_unix_nano);
            }
            let duration = node.duration.unwrap_or(0);
            all_spans = all_spans.saturating_add(duration);
            let sum = by_service.entry(service).or_default();
            *sum = sum.saturating_add(duration);
            errors += usize::from(node.status == ERROR);
            let link = (node.identity, tree.parent_identity(number));
            *structure
                .entry(service)
                .or_default()
                .entry(link)
                .or_default() += 1;
        }
        let latency = i64::try_from(last_end.saturating_sub(first_start)).unwrap_or(i64::MAX);
        let root = tree.nodes.first().map(|node| node.identity);
        let root = |name: fn(&Identity<'a>) -> &'a str| root.as_ref().map_or("", name).to_owned();
        Self {
            summary: TraceSummary {
                trace_id: tree.side.trace_id.clone(),
                root_service: root(|root| root.service),
                root_name: root(|root| root.name),
                span_count: tree.side.span_count,
                error_span_count: errors,
                duration_ms: latency / NANOS_PER_MILLI,
                sum_span_duration_ms: all_spans / NANOS_PER_MILLI,
            },
            latency,
            all_spans,
            by_service,
            structure,
        }
    }
}

impl Summary {
    pub(super) fn new(base: &SpanTree<'_>, compare: &SpanTree<'_>, patch: &Patch) -> Self {
        let (base, compare) = (Sums::of(base), Sums::of(compare));
        let stats = &patch.stats;
        let (a, b) = (stats.span_count_a, stats.span_count_b);
        let deltas = Deltas {
            trace_latency_delta_ms: compare.latency.saturating_sub(base.latency) / NANOS_PER_MILLI,
            sum_span_duration_delta_ms: compare.all_spans.saturating_sub(base.all_spans)
                / NANOS_PER_MILLI,
            span_count_delta: delta(a, b),
            error_span_delta: delta(
                base.summary.error_span_count,
                compare.summary.error_span_count,
            ),
            matched_spans: stats.matched_spans,
            modified_spans: stats.modified_spans,
            added_spans: stats.added_spans,
            removed_spans: stats.removed_spans,
            field_changes: stats.field_changes,
            attribute_changes: stats.attribute_changes,
        };
        let moved: BTreeSet<&str> = all_keys(&base.structure, &compare.structure)
            .filter(|service| base.structure.get(service) != compare.structure.get(service))
            .collect();
        let is_same = moved.is_empty() && stats.added_spans == 0 && stats.removed_spans == 0;
        let signals = Signals {
            trace_latency: direction(deltas.trace_latency_delta_ms),
            sum_span_duration: direction(deltas.sum_span_duration_delta_ms),
            errors: direction(deltas.error_span_delta),
            span_count: direction(deltas.span_count_delta),
            structure: if is_same { "unchanged" } else { "changed" },
        };
        let (changed_services, services) = services(&base, &compare, patch, moved);
        Self {
            version: DiffFormat::Summary.name(),
            signals,
            trust: Trust {
                matched_span_ratio: share(stats.matched_spans, a.max(b)),
                structure_overlap: share(stats.matched_spans, a.min(b)),
            },
            stats: deltas,
            warnings: patch.warnings.clone(),
            changed_services,
            services,
            base: base.summary,
            compare: compare.summary,
        }
    }
}

/// All that changed, and of those with changed spans or times how much.
fn services(
    base: &Sums<'_>,
    compare: &Sums<'_>,
    patch: &Patch,
    moved: BTreeSet<&str>,
) -> (Vec<String>, Vec<ServiceChange>) {
    let mut counts = counts_by_service(patch);
    let mut changed: BTreeSet<String> = moved.into_iter().map(str::to_owned).collect();
    changed.extend(counts.keys().map(|service| (*service).to_owned()));
    let mut services = Vec::new();
    for service in all_keys(&base.by_service, &compare.by_service) {
        let before = base.by_service.get(service).copied().unwrap_or(0);
        let after = compare.by_service.get(service).copied().unwrap_or(0);
        let delta = after.saturating_sub(before);
        let has_drifted = delta.abs() >= DRIFT_FLOOR_NANOS
            && delta.saturating_abs().saturating_mul(DRIFT_SHARE_DIVISOR) >= before;
        let counted = counts.remove(service);
        if !has_drifted && counted.is_none() {
            continue;
        }
        changed.insert(service.to_owned());
        services.push(ServiceChange {
            name: service.to_owned(),
            sum_span_duration_delta_ms: delta / NANOS_PER_MILLI,
            ..counted.unwrap_or_default()
        });
    }
    services.sort_by(|a, b| {
        let size = |change: &ServiceChange| change.sum_span_duration_delta_ms.saturating_abs();
        size(b)
            .cmp(&size(a))
            .then(b.new_errors.cmp(&a.new_errors))
            .then_with(|| a.name.cmp(&b.name))
    });
    (changed.into_iter().collect(), services)
}

fn counts_by_service(patch: &Patch) -> HashMap<&str, ServiceChange> {
    let mut counts: HashMap<&str, ServiceChange> = HashMap::new();
    for modified in &patch.modified {
        let of = counts.entry(shown(&modified.span.service)).or_default();
        of.modified += 1;
        match modified.status_change() {
            Some((_, ERROR)) => of.new_errors += 1,
            Some((ERROR, _)) => of.resolved_errors += 1,
            _ => {}
        }
    }
    for added in &patch.added {
        let of = counts.entry(shown(&added.span.name.service)).or_default();
        of.added += 1;
        of.new_errors += usize::from(added.span.status == ERROR);
    }
    for removed in &patch.removed {
        let of = counts.entry(shown(&removed.span.name.service)).or_default();
        of.removed += 1;
        of.resolved_errors += usize::from(removed.span.status == ERROR);
    }
    counts
}

fn all_keys<'a, A, B>(
    a: &BTreeMap<&'a str, A>,
    b: &BTreeMap<&'a str, B>,
) -> impl Iterator<Item = &'a str> {
    let keys: BTreeSet<&str> = a.keys().chain(b.keys()).copied().collect();
    keys.into_iter()
}

fn shown(service: &str) -> &str {
    if service.is_empty() {
        UNKNOWN_SERVICE
    } else {
        service
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

fn delta(before: usize, after: usize) -> i64 {
    after as i64 - before as i64
}

fn direction(delta: i64) -> &'static str {
    match delta {
        0 => "unchanged",
        1.. => "increased",
        _ => "decreased",
    }
}
