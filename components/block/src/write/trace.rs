//! The spans of one trace, in the order in which its row holds them.
//!
//! Owns reading the frame of a trace (resources, scopes, the scalar fields of spans), leaving out
//! spans that were sent twice, and bringing equal resources and scopes together. Attributes,
//! events and links are read later, straight into the columns.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use tempo_model::otlp::{AnyValueRef, Fields, SpanRef, WireError, resource_spans};
use tempo_table::shape::{TraceExtent, TreeSpan, is_child_of_link, span_key};

use super::{columns::Columns, templates::Templates, wire::ScannedSpan};

const NONE: u32 = u32::MAX;

/// A resource of the trace, with the spans of all resources equal to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResourceGroup {
    identity: u32,
    /// Number of its template.
    pub(super) template: u32,
    first_scope: u32,
    last_scope: u32,
    /// `ScopeSpans` messages that went in.
    messages: u32,
}

impl ResourceGroup {
    /// Whether the attributes of its scopes are stored sorted: Tempo sorts them when it compares
    /// them.
    pub(super) fn sorts_scopes(&self) -> bool {
        self.messages > 1
    }
}

/// A scope of a resource of the trace, with the spans of all scopes equal to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScopeGroup {
    identity: u32,
    /// Number of its template.
    pub(super) template: u32,
    resource: u32,
    first_span: u32,
    last_span: u32,
    next: u32,
    /// Its spans.
    pub(super) spans: u32,
    /// Those with status error.
    pub(super) errors: u32,
}

/// A trace as it will be stored. Reused from trace to trace.
#[derive(Debug, Default)]
pub(super) struct Trace<'a> {
    pub(super) resources: Vec<ResourceGroup>,
    pub(super) scopes: Vec<ScopeGroup>,
    /// In the order in which they were sent.
    pub(super) spans: Vec<ScannedSpan<'a>>,
    /// Next span of the same scope.
    next: Vec<u32>,
    /// Scope of each span.
    span_scopes: Vec<u32>,
    keys: Vec<u64>,
    pub(super) extent: TraceExtent,
    /// In stored order.
    pub(super) tree: Vec<TreeSpan>,
    /// Spans left out because they came before.
    pub(super) duplicates: u32,
    known_spans: Finder,
    known_resources: Finder,
    known_scopes: Finder,
}

/// Finds an item of a growing list.
#[derive(Debug, Default)]
struct Finder {
    /// Positions; only used when the list is long, and filled when asked.
    table: HashTable<u32>,
    hasher: RandomState,
}

impl Finder {
    /// Up to this many items a look at each is quicker than a hash.
    const LINEAR_MAX: usize = 24;

    /// The first of `count` items that is the `same`; `key` gives what it is found by.
    #[inline]
    fn find<K: Hash>(
        &mut self,
        count: usize,
        key: impl Fn(usize) -> K,
        wanted: K,
        same: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if count <= Self::LINEAR_MAX {
            return (0..count).find(|&at| same(at));
        }
        let Self { table, hasher } = self;
        let hash = |at: &u32| hasher.hash_one(key(*at as usize));
        for at in table.len() as u32..count as u32 {
            table.insert_unique(hash(&at), at, hash);
        }
        table
            .find(hasher.hash_one(wanted), |&at| same(at as usize))
            .map(|&at| at as usize)
    }

    fn clear(mut self) -> Self {
        self.table.clear();
        self
    }
}

impl<'a> Trace<'a> {
    /// An empty trace that keeps the memory of another.
    pub(super) fn recycle<'b>(self) -> Trace<'b> {
        let Trace {
            mut resources,
            mut scopes,
            mut spans,
            mut next,
            mut span_scopes,
            mut keys,
            mut tree,
            known_spans,
            known_resources,
            known_scopes,
            ..
        } = self;
        resources.clear();
        scopes.clear();
        spans.clear();
        next.clear();
        span_scopes.clear();
        keys.clear();
        tree.clear();
        Trace {
            resources,
            scopes,
            // Same layout, no elements: the standard library reuses the allocation.
            spans: spans.into_iter().map(|_| ScannedSpan::default()).collect(),
            next,
            span_scopes,
            keys,
            extent: TraceExtent::default(),
            tree,
            duplicates: 0,
            known_spans: known_spans.clear(),
            known_resources: known_resources.clear(),
            known_scopes: known_scopes.clear(),
        }
    }

    /// Reads the frame of serialized `tempopb.Trace` messages.
    pub(super) fn read(
        &mut self,
        chunks: &[&'a [u8]],
        templates: &mut TraceTemplates,
        columns: &mut Columns,
    ) -> Result<(), WireError> {
        for chunk in chunks {
            for resource in resource_spans(chunk) {
                let resource = resource?;
                let mut resource_template = None;
                for scope in resource.scope_spans() {
                    let first = self.spans.len();
                    let scope = self.read_spans(scope?.raw)?;
                    if self.spans.len() == first {
                        // Dictionaries must hold nothing that no row has.
                        continue;
                    }
                    let of_resource = match resource_template {
                        Some(known) => known,
                        None => templates
                            .resources
                            .resource(resource.resource()?, &mut columns.resources)?,
                    };
                    resource_template = Some(of_resource);
                    let of_scope = templates.scopes.scope(scope, &mut columns.scopes)?;
                    let within = self.resource_group(of_resource, templates);
                    let group = self.scope_group(within, of_scope, templates);
                    self.append(first, group);
                }
            }
        }
        self.close();
        Ok(())
    }

    /// Reads the spans of a `ScopeSpans` message that did not come before. Returns the message of the
    /// scope.
    fn read_spans(&mut self, message: &'a [u8]) -> Result<&'a [u8], WireError> {
        let mut scope: &[u8] = &[];
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                scope_spans_field::SCOPE => scope = field.message()?,
                scope_spans_field::SPANS => {
                    let span = ScannedSpan::read(field.message()?)?;
                    if self.is_new(&span.span) {
                        self.add(span)?;
                    } else {
                        self.duplicates += 1;
                    }
                }
                _ => {}
            }
        }
        Ok(scope)
    }

    /// Whether no span of the same id and kind came before.
    fn is_new(&mut self, span: &SpanRef<'a>) -> bool {
        let key = span_key(span.span_id);
        let (keys, spans) = (&self.keys, &self.spans);
        let same = |at: usize| {
            let other = &spans[at].span;
            keys[at] == key && other.kind == span.kind && other.span_id == span.span_id
        };
        if keys.len() <= Finder::LINEAR_MAX && !keys.contains(&key) {
            return true;
        }
        self.known_spans
            .find(keys.len(), |at| keys[at], key, same)
            .is_none()
    }

    fn add(&mut self, scanned: ScannedSpan<'a>) -> Result<(), WireError> {
        let span = &scanned.span;
        self.keys.push(span_key(span.span_id));
        let is_root =
            span.parent_span_id.is_empty() && !(scanned.has_links && has_child_of_link(span)?);
        self.extent
            .add(span.start_time_unix_nano, span.end_time_unix_nano, is_root);
        self.spans.push(scanned);
        Ok(())
    }

    /// Puts all spans from `first` on into a scope.
    fn append(&mut self, first: usize, group: u32) {
        let scope = &mut self.scopes[group as usize];
        for (index, scanned) in (first as u32..).zip(&self.spans[first..]) {
            scope.spans += 1;
            scope.errors += u32::from(scanned.span.status_code == STATUS_ERROR);
            match std::mem::replace(&mut scope.last_span, index) {
                NONE => scope.first_span = index,
                last => self.next[last as usize] = index,
            }
            self.next.push(NONE);
            self.span_scopes.push(group);
        }
    }

    fn resource_group(&mut self, template: u32, templates: &TraceTemplates) -> u32 {
        let identity = templates.resources.get(template).identity;
        let groups = &self.resources;
        let known = self.known_resources.find(
            groups.len(),
            |at| groups[at].identity,
            identity,
            |at| groups[at].identity == identity,
        );
        let at = known.unwrap_or_else(|| {
            self.resources.push(ResourceGroup {
                identity,
                template,
                first_scope: NONE,
                last_scope: NONE,
                messages: 0,
            });
            self.resources.len() - 1
        });
        self.resources[at].messages += 1;
        at as u32
    }

    fn scope_group(&mut self, resource: u32, template: u32, templates: &TraceTemplates) -> u32 {
        let identity = templates.scopes.get(template).identity;
        let scopes = &self.scopes;
        let known = self.known_scopes.find(
            scopes.len(),
            |at| (scopes[at].resource, scopes[at].identity),
            (resource, identity),
            |at| scopes[at].resource == resource && scopes[at].identity == identity,
        );
        if let Some(known) = known {
            return known as u32;
        }
        let group = &mut self.resources[resource as usize];
        let new = self.scopes.len() as u32;
        match std::mem::replace(&mut group.last_scope, new) {
            NONE => group.first_scope = new,
            last => self.scopes[last as usize].next = new,
        }
        self.scopes.push(ScopeGroup {
            identity,
            template,
            resource,
            first_span: NONE,
            last_span: NONE,
            next: NONE,
            spans: 0,
            errors: 0,
        });
        new
    }

    fn close(&mut self) {
        let mut tree = std::mem::take(&mut self.tree);
        for resource in &self.resources {
            for scope in self.scopes_of(resource) {
                tree.extend(self.spans_of(scope).map(|scanned| {
                    let span = &scanned.span;
                    TreeSpan {
                        id: span_key(span.span_id),
                        parent: (!span.parent_span_id.is_empty())
                            .then(|| span_key(span.parent_span_id)),
                        kind: span.kind,
                    }
                }));
            }
        }
        self.tree = tree;
    }

    /// The scopes of a resource, in stored order.
    pub(super) fn scopes_of(&self, resource: &ResourceGroup) -> impl Iterator<Item = &ScopeGroup> {
        chain(resource.first_scope, |at| self.scopes[at as usize].next)
            .map(|at| &self.scopes[at as usize])
    }

    /// The spans of a scope, in stored order.
    pub(super) fn spans_of(&self, scope: &ScopeGroup) -> impl Iterator<Item = &ScannedSpan<'a>> {
        chain(scope.first_span, |at| self.next[at as usize]).map(|at| &self.spans[at as usize])
    }

    /// The root span and the template of its resource.
    pub(super) fn root(&self) -> Option<(&SpanRef<'a>, u32)> {
        let root = self.extent.root()? as usize;
        let scope = &self.scopes[self.span_scopes[root] as usize];
        let resource = &self.resources[scope.resource as usize];
        Some((&self.spans[root].span, resource.template))
    }
}

const STATUS_ERROR: i32 = 2;

/// Field numbers of `ScopeSpans`.
mod scope_spans_field {
    pub(super) const SCOPE: u32 = 1;
    pub(super) const SPANS: u32 = 2;
}

/// What the messages of a row group's resources and scopes mean.
#[derive(Debug, Default)]
pub(super) struct TraceTemplates {
    pub(super) resources: Templates,
    pub(super) scopes: Templates,
}

impl TraceTemplates {
    /// To be called between traces: forgets what is too much to keep.
    pub(super) fn trim(&mut self) {
        self.resources.trim();
        self.scopes.trim();
    }

    /// Begins the next row group.
    pub(super) fn clear(&mut self) {
        self.resources.clear();
        self.scopes.clear();
    }

    pub(super) fn heap_bytes(&self) -> u64 {
        self.resources.heap_bytes() + self.scopes.heap_bytes()
    }
}

fn chain(first: u32, next: impl Fn(u32) -> u32) -> impl Iterator<Item = u32> {
    std::iter::successors((first != NONE).then_some(first), move |&at| {
        let next = next(at);
        (next != NONE).then_some(next)
    })
}

/// Whether a link names a parent in the span's own trace, as OpenTracing bridges do.
fn has_child_of_link(span: &SpanRef<'_>) -> Result<bool, WireError> {
    for link in span.links() {
        let link = link?;
        if link.trace_id != span.trace_id {
            continue;
        }
        for attribute in link.attributes() {
            let attribute = attribute?;
            if let AnyValueRef::String(value) = attribute.value
                && is_child_of_link(attribute.key, value)
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
