//! How traces, resources, scopes, spans, events and links belong together, from levels alone.
//!
//! A leaf under a list repeats at the depth of what begins: 0 a trace, 1 a resource, 2 a scope, 3 a
//! span, 4 an event or link, and is defined as deep as what exists: a resource without scopes
//! leaves an entry of definition level 1. Both versions have the same levels.

use std::{ops::Range, sync::Arc};

use tempo_table::{Structure, TableError};

use super::{
    Malformed,
    bits::{Bits, Ranked},
    group::{GroupBytes, LeafIndex},
    leaf::Fill,
    page::Page,
    pages::Selection,
};

/// Depth of spans: the repetition and definition level of a span's own leaf.
pub(super) const SPAN_DEPTH: u8 = 3;

/// Grows the offsets entry by entry.
#[derive(Default)]
struct Builder {
    trace_spans: Vec<u32>,
    trace_resources: Vec<u32>,
    resource_scopes: Vec<u32>,
    scope_spans: Vec<u32>,
    spans: usize,
}

impl Builder {
    fn spans(&mut self, count: usize) -> Result<(), Malformed> {
        if count > 0 && (self.scope_spans.is_empty() || self.resource_scopes.is_empty()) {
            return Err(Malformed("span without a scope"));
        }
        self.spans += count;
        Ok(())
    }

    fn trace(&mut self) {
        self.trace_spans.push(self.spans as u32);
        self.trace_resources.push(self.resource_scopes.len() as u32);
    }

    fn resource(&mut self) {
        self.resource_scopes.push(self.scope_spans.len() as u32);
    }

    fn scope(&mut self) {
        self.scope_spans.push(self.spans as u32);
    }

    fn finish(mut self) -> Structure {
        // The closing entries. That of a trace counts the resources before theirs is there.
        self.trace();
        self.resource();
        self.scope();
        let mut span_scope = Fill::new(0, self.spans);
        let mut span_resource = Fill::new(0, self.spans);
        let (of_scope, of_resource) = (span_scope.all(), span_resource.all());
        for (resource, scopes) in (0..).zip(self.resource_scopes.windows(2)) {
            for scope in scopes[0]..scopes[1] {
                let spans = span_of(&self.scope_spans, scope as usize);
                fill_run(of_scope, spans.clone(), scope);
                fill_run(of_resource, spans, resource);
            }
        }
        Structure {
            trace_spans: self.trace_spans.into(),
            trace_resources: self.trace_resources.into(),
            resource_scopes: self.resource_scopes.into(),
            scope_spans: self.scope_spans.into(),
            span_resource: span_resource.share(),
            span_scope: span_scope.share(),
        }
    }
}

/// Spans that are filled in at once.
const RUN: usize = 8;

/// Fills `range` with `value`. What follows the range may be overwritten too: runs are filled in
/// order, and most are so short that one store of known length is all it takes.
#[inline]
fn fill_run(out: &mut [u32], range: Range<usize>, value: u32) {
    let mut at = range.start;
    while at < range.end {
        match out.get_mut(at..at + RUN) {
            Some(run) => run.copy_from_slice(&[value; RUN]),
            None => {
                if let Some(rest) = out.get_mut(at..range.end) {
                    rest.fill(value);
                }
                return;
            }
        }
        at += RUN;
    }
}

/// The levels of a page of a span's leaf, as bits per threshold.
#[derive(Default)]
struct SpanLevels {
    /// Repetition level at least 1, 2, 3.
    rep: [Bits; 3],
    /// Definition level at least 1, 2, 3.
    def: [Bits; 3],
    dense: bool,
}

impl SpanLevels {
    fn read(&mut self, page: &Page) -> Result<(), Malformed> {
        for (threshold, bits) in (1..).zip(&mut self.rep) {
            bits.clear();
            page.rep().at_least(threshold, bits)?;
        }
        self.dense = page.is_dense();
        if !self.dense {
            for (threshold, bits) in (1..).zip(&mut self.def) {
                bits.clear();
                page.def().at_least(threshold, bits)?;
            }
        }
        Ok(())
    }

    fn spans_in(&self, entries: Range<usize>) -> usize {
        if self.dense {
            entries.len()
        } else {
            self.def[2].count_in(entries.start, entries.end)
        }
    }

    fn exists(&self, depth: usize, entry: usize) -> bool {
        self.dense || self.def[depth - 1].get(entry)
    }

    fn add(&self, entries: Range<usize>, builder: &mut Builder) -> Result<(), Malformed> {
        if self.rep[0].get(entries.start) {
            return Err(Malformed("page does not begin with a trace"));
        }
        let mut from = entries.start;
        let mut at = entries.start;
        while at < entries.end {
            let begins = !self.rep[2].word_at(at);
            let len = (entries.end - at).min(64);
            let mut rest = begins & super::bits::low_mask(len);
            while rest != 0 {
                let entry = at + rest.trailing_zeros() as usize;
                rest &= rest - 1;
                builder.spans(self.spans_in(from..entry))?;
                from = entry;
                let first = if !self.rep[0].get(entry) {
                    builder.trace();
                    true
                } else {
                    !self.rep[1].get(entry)
                };
                if first && self.exists(1, entry) {
                    builder.resource();
                }
                if self.exists(2, entry) {
                    builder.scope();
                }
            }
            at += len;
        }
        builder.spans(self.spans_in(from..entries.end))
    }
}

/// The structure of the selected traces, from a leaf that every span has.
pub(super) fn read(
    bytes: &GroupBytes,
    leaf: LeafIndex,
    selection: &Selection,
) -> Result<Structure, TableError> {
    let mut builder = Builder::default();
    let mut levels = SpanLevels::default();
    bytes.for_pages(leaf, selection, |page, parts| {
        levels.read(page)?;
        parts
            .iter()
            .filter(|part| !part.entries.is_empty())
            .try_for_each(|part| levels.add(part.entries.clone(), &mut builder))
    })?;
    let structure = builder.finish();
    if structure.traces() != selection.rows() as usize {
        return Err(bytes.corrupt(leaf, Malformed("levels hold another count of traces")));
    }
    Ok(structure)
}

/// Offsets of the events or links of every selected span, from a leaf that each of them has.
pub(super) fn child_offsets(
    bytes: &GroupBytes,
    leaf: LeafIndex,
    selection: &Selection,
    spans: usize,
) -> Result<Arc<[u32]>, TableError> {
    let mut offsets: Vec<u32> = Vec::with_capacity(spans + 1);
    let mut children = 0_u32;
    let mut begins = Bits::default();
    let mut continued = Bits::default();
    let mut exists = Bits::default();
    bytes.for_pages(leaf, selection, |page, parts| {
        begins.clear();
        page.def().at_least(SPAN_DEPTH, &mut begins)?;
        continued.clear();
        page.rep().at_least(SPAN_DEPTH + 1, &mut continued)?;
        begins.and_not(&continued);
        exists.clear();
        page.def().at_least(SPAN_DEPTH + 1, &mut exists)?;
        if exists.count() == 0 {
            for part in parts {
                let spans = begins.count_in(part.entries.start, part.entries.end);
                offsets.resize(offsets.len() + spans, children);
            }
            return Ok(());
        }
        let ranked = Ranked::new(std::mem::take(&mut exists));
        for part in parts {
            let before = ranked.rank(part.entries.start);
            for entry in begins.ones_in(part.entries.clone()) {
                offsets.push(children + (ranked.rank(entry) - before) as u32);
            }
            children += (ranked.rank(part.entries.end) - before) as u32;
        }
        exists = ranked.into_bits();
        Ok(())
    })?;
    if offsets.len() != spans {
        return Err(bytes.corrupt(leaf, Malformed("levels hold another count of spans")));
    }
    offsets.push(children);
    Ok(offsets.into())
}

/// The structure of some traces out of that of all.
pub(super) fn slice(all: &Structure, selection: &Selection) -> Structure {
    let mut builder = Builder::default();
    for range in selection.ranges() {
        for trace in range.start as usize..range.end as usize {
            builder.trace();
            for resource in span_of(&all.trace_resources, trace) {
                builder.resource();
                for scope in span_of(&all.resource_scopes, resource) {
                    builder.scope();
                    // A scope was just opened, so this cannot fail.
                    let _ = builder.spans(span_of(&all.scope_spans, scope).len());
                }
            }
        }
    }
    builder.finish()
}

/// The children of one row by its level's offsets.
pub(super) fn span_of(offsets: &[u32], row: usize) -> Range<usize> {
    match offsets.get(row..row + 2) {
        Some(&[start, end]) => start as usize..end as usize,
        _ => 0..0,
    }
}
