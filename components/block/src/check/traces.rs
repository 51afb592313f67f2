//! Whether what a trace has follows from its spans.

use std::collections::{BTreeMap, HashMap};

use parquet::data_type::ByteArray;
use tempo_model::TraceId;
use tempo_table::shape::{NestedSet, NestedSets, TraceExtent, TreeSpan, span_key};

use super::{CheckReport, is_needed, leaf::LeafColumnData};
use crate::schema::{LeafColumn, Version};

/// The columns of a row group that are compared with each other.
#[derive(Default)]
pub(super) struct RowGroupTraces {
    columns: HashMap<LeafColumn, LeafColumnData>,
}

/// One entry per span.
struct Spans {
    nested: Vec<NestedSet>,
    tree: Vec<TreeSpan>,
    starts: Vec<u64>,
    durations: Vec<u64>,
    status: Vec<i64>,
    /// Number of its resource in the row group.
    resources: Vec<usize>,
    /// Number of its scope in the row group.
    scopes: Vec<usize>,
    /// First span of each row, and one more.
    rows: Vec<usize>,
}

const STATUS_ERROR: i64 = 2;

impl RowGroupTraces {
    /// Keeps a column if it is compared with others.
    pub(super) fn keep(&mut self, column: LeafColumn, data: LeafColumnData) {
        if is_needed(column) {
            self.columns.insert(column, data);
        }
    }

    /// The ids of the rows; those that are not 16 bytes long come out padded.
    pub(super) fn ids(&self) -> Vec<TraceId> {
        let ids = self.bytes(LeafColumn::TraceId);
        ids.iter()
            .map(|id| TraceId::from_padded(id.data()))
            .collect()
    }

    fn bytes(&self, column: LeafColumn) -> &[ByteArray] {
        self.columns.get(&column).map_or(&[], LeafColumnData::bytes)
    }

    fn ints(&self, column: LeafColumn) -> Vec<i64> {
        self.columns
            .get(&column)
            .map_or_else(Vec::new, LeafColumnData::ints)
    }

    /// Checks all rows and returns how many spans there are.
    pub(super) fn check(&self, group: usize, version: Version, report: &mut CheckReport) -> u64 {
        let place = |what: &str| format!("row group {group}, {what}");
        let Some(spans) = self.spans() else {
            report.problem(place("spans"), "columns of different lengths");
            return 0;
        };
        let ids = self.bytes(LeafColumn::TraceId);
        for (id, text) in ids.iter().zip(self.bytes(LeafColumn::TraceIdText)) {
            report.expect(place("TraceID"), "length", id.len(), 16);
            let wanted = TraceId::from_padded(id.data()).to_short_hex();
            report.expect(place("TraceIDText"), "text", text.data(), wanted.as_bytes());
        }
        let mut numbering = NestedSets::default();
        let mut numbers = Vec::new();
        for (row, range) in spans.rows.windows(2).enumerate() {
            let range = range[0]..range[1];
            let id = ids
                .get(row)
                .map(|id| TraceId::from_padded(id.data()).to_string())
                .unwrap_or_default();
            let tree = &spans.tree[range.clone()];
            numbers.clear();
            numbering.number(tree, &mut numbers);
            let has_root = tree.iter().any(|span| span.parent.is_none());
            for (got, wanted) in spans.nested[range.clone()].iter().zip(&numbers) {
                let mut got = *got;
                if version == Version::VParquet4 || !has_root {
                    // Not stored; or not to be relied on, for without a root Tempo leaves what an
                    // earlier trace has put there.
                    got.children = wanted.children;
                }
                report.expect(place(&format!("trace {id}")), "nested set", got, *wanted);
            }
            self.check_times(
                row,
                &spans,
                range.clone(),
                &place(&format!("trace {id}")),
                report,
            );
            self.check_root(row, &spans, range, &place(&format!("trace {id}")), report);
        }
        self.check_stats(&spans, &place("ServiceStats"), report);
        if version == Version::VParquet5 {
            self.check_v5(&spans, &place("rs.ss"), report);
        }
        spans.tree.len() as u64
    }

    fn spans(&self) -> Option<Spans> {
        let ids = self.columns.get(&LeafColumn::SpanId)?;
        let kinds = self.ints(LeafColumn::SpanKind);
        let parents = self.bytes(LeafColumn::ParentSpanId);
        let [left, right, parent] = [
            LeafColumn::NestedSetLeft,
            LeafColumn::NestedSetRight,
            LeafColumn::ParentId,
        ]
        .map(|column| self.ints(column));
        let children = match self.columns.get(&LeafColumn::ChildCount) {
            Some(children) => children.ints(),
            None => vec![0; left.len()],
        };
        let starts = self.ints(LeafColumn::SpanStart);
        let durations = self.ints(LeafColumn::SpanDuration);
        let status = self.ints(LeafColumn::StatusCode);
        let count = ids.bytes().len();
        let lengths = [
            kinds.len(),
            parents.len(),
            left.len(),
            right.len(),
            parent.len(),
            children.len(),
            starts.len(),
            durations.len(),
            status.len(),
        ];
        if lengths.iter().any(|&length| length != count) {
            return None;
        }
        let mut spans = Spans {
            nested: Vec::with_capacity(count),
            tree: Vec::with_capacity(count),
            starts: starts.into_iter().map(|start| start as u64).collect(),
            durations: durations.into_iter().map(|time| time as u64).collect(),
            status,
            resources: Vec::new(),
            scopes: Vec::new(),
            rows: Vec::new(),
        };
        let (mut resource, mut scope) = (0, 0);
        for (entry, (&rep, &def)) in ids.reps.iter().zip(&ids.defs).enumerate() {
            if entry > 0 {
                resource += usize::from(rep <= 1);
                scope += usize::from(rep <= 2);
            }
            if rep == 0 {
                spans.rows.push(spans.resources.len());
            }
            if def == 3 {
                spans.resources.push(resource);
                spans.scopes.push(scope);
            }
        }
        spans.rows.push(count);
        if spans.resources.len() != count {
            return None;
        }
        for (index, id) in ids.bytes().iter().enumerate() {
            let parent_id = parents[index].data();
            spans.tree.push(TreeSpan {
                id: span_key(id.data()),
                parent: (!parent_id.is_empty()).then(|| span_key(parent_id)),
                kind: kinds[index] as i32,
            });
            spans.nested.push(NestedSet {
                left: left[index] as i32,
                right: right[index] as i32,
                parent: parent[index] as i32,
                children: children[index] as i32,
            });
        }
        Some(spans)
    }

    fn check_times(
        &self,
        row: usize,
        spans: &Spans,
        range: std::ops::Range<usize>,
        place: &str,
        report: &mut CheckReport,
    ) {
        let mut extent = TraceExtent::default();
        for span in range.clone() {
            let end = spans.starts[span].wrapping_add(spans.durations[span]);
            extent.add(spans.starts[span], end, false);
        }
        let stored = |column| self.ints(column).get(row).map(|&value| value as u64);
        let (start, end) = (stored(LeafColumn::TraceStart), stored(LeafColumn::TraceEnd));
        // With a start of 0 the result depends on the order in which the spans were sent.
        if !spans.starts[range].contains(&0) {
            report.expect(place, "start", start, Some(extent.start_unix_nano()));
        }
        report.expect(place, "end", end, Some(extent.end_unix_nano()));
        if let (Some(start), Some(end)) = (start, end) {
            let duration = stored(LeafColumn::TraceDuration);
            report.expect(place, "duration", duration, Some(end.wrapping_sub(start)));
        }
    }

    /// The root is one of the spans without a parent; which one may have been decided by the order
    /// in which they were sent, or by a link.
    fn check_root(
        &self,
        row: usize,
        spans: &Spans,
        range: std::ops::Range<usize>,
        place: &str,
        report: &mut CheckReport,
    ) {
        let text = |column, at: usize| self.bytes(column).get(at).map(ByteArray::data);
        let stored = (
            text(LeafColumn::RootServiceName, row),
            text(LeafColumn::RootSpanName, row),
        );
        let none: (Option<&[u8]>, Option<&[u8]>) = (Some(&[]), Some(&[]));
        let is_root = |span: usize| {
            let names = (
                text(LeafColumn::ResourceServiceName, spans.resources[span]),
                text(LeafColumn::SpanName, span),
            );
            spans.tree[span].parent.is_none() && names == stored
        };
        if stored != none && !range.clone().any(is_root) {
            report.problem(place, "root names are those of no root span");
        }
    }

    fn check_stats(&self, spans: &Spans, place: &str, report: &mut CheckReport) {
        let Some(names) = self.columns.get(&LeafColumn::StatsServiceName) else {
            return;
        };
        let counts = self.ints(LeafColumn::StatsSpanCount);
        let errors = self.ints(LeafColumn::StatsErrorCount);
        let services = self.bytes(LeafColumn::ResourceServiceName);
        let mut stored: Vec<BTreeMap<&[u8], (i64, i64)>> = Vec::new();
        let mut value = 0;
        for (&rep, &def) in names.reps.iter().zip(&names.defs) {
            if rep == 0 {
                stored.push(BTreeMap::new());
            }
            if def == 0 {
                continue;
            }
            let entry = (
                counts.get(value).copied().unwrap_or(-1),
                errors.get(value).copied().unwrap_or(-1),
            );
            if let (Some(row), Some(name)) = (stored.last_mut(), names.bytes().get(value))
                && row.insert(name.data(), entry).is_some()
            {
                report.problem(place, "a service twice in one trace");
            }
            value += 1;
        }
        for (row, range) in spans.rows.windows(2).enumerate() {
            let mut wanted: BTreeMap<&[u8], (i64, i64)> = BTreeMap::new();
            for span in range[0]..range[1] {
                let service = services
                    .get(spans.resources[span])
                    .map_or(&[][..], ByteArray::data);
                let entry = wanted.entry(service).or_default();
                entry.0 += 1;
                entry.1 += i64::from(spans.status[span] == STATUS_ERROR);
            }
            report.expect(
                place,
                "statistics of a trace",
                stored.get(row),
                Some(&wanted),
            );
        }
    }

    fn check_v5(&self, spans: &Spans, place: &str, report: &mut CheckReport) {
        let mut counts = vec![0_i64; self.bytes(LeafColumn::ScopeName).len()];
        for &scope in &spans.scopes {
            if let Some(count) = counts.get_mut(scope) {
                *count += 1;
            }
        }
        report.expect(
            place,
            "SpanCount",
            self.ints(LeafColumn::ScopeSpanCount) == counts,
            true,
        );
        for step in crate::schema::ROUNDED_STEPS_SECONDS {
            let stored = self.ints(LeafColumn::StartRounded(step));
            let nanos = u64::from(step) * 1_000_000_000;
            let wanted = spans.starts.iter().map(|&start| match start {
                0 => 0,
                start => (start.div_ceil(nanos) - 1) as i64,
            });
            let equal = stored.iter().copied().eq(wanted);
            report.expect(place, &format!("StartTimeRounded{step} right"), equal, true);
        }
    }
}
