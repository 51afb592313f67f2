//! The working memory of the walk, reused from request to request.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use tempo_model::TraceId;

/// A range of bytes: of the request, or, from the request's length on, of [`Scratch::rewritten`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Piece {
    pub(super) fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

/// Everything of a `ResourceSpans` or `ScopeSpans` but what it contains: a range of
/// [`Scratch::header_pieces`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) first_piece: u32,
    pub(super) end_piece: u32,
    pub(super) bytes: u32,
}

/// A `ScopeSpans` that has spans.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope {
    /// Index of its resource.
    pub(super) resource: u32,
    pub(super) header: Header,
}

/// A span: its whole field within its `ScopeSpans`, tag and length included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) field: Piece,
    /// Index of its trace.
    pub(super) trace: u32,
    /// Index of its scope.
    pub(super) scope: u32,
}

/// A trace of the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trace {
    pub(super) id: TraceId,
    pub(super) spans: u32,
}

/// The spans of one trace under one scope: a range of [`Scratch::by_trace`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    pub(super) scope: u32,
    pub(super) first: u32,
    pub(super) end: u32,
    /// Length of its `ScopeSpans` message.
    pub(super) bytes: u64,
}

/// Working memory of one regrouping. It holds positions, never data.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) resources: Vec<Header>,
    pub(super) scopes: Vec<Scope>,
    pub(super) header_pieces: Vec<Piece>,
    pub(super) spans: Vec<Span>,
    /// When each span ended, in nanoseconds since the epoch; as long as `spans`.
    pub(super) end_times: Vec<u64>,
    pub(super) traces: Vec<Trace>,
    pub(super) trace_index: HashTable<u32>,
    pub(super) hasher: RandomState,
    /// Fields that had to be written anew because an attribute was cut.
    pub(super) rewritten: Vec<u8>,
    /// Indices of `spans`, sorted by trace, else in input order.
    pub(super) by_trace: Vec<u32>,
    pub(super) groups: Vec<Group>,
    /// Length of each `ResourceSpans` message to write, in the order of writing.
    pub(super) resource_bytes: Vec<u64>,
}

impl Scratch {
    pub(super) fn clear(&mut self) {
        self.resources.clear();
        self.scopes.clear();
        self.header_pieces.clear();
        self.spans.clear();
        self.end_times.clear();
        self.traces.clear();
        self.trace_index.clear();
        self.rewritten.clear();
        self.by_trace.clear();
        self.groups.clear();
        self.resource_bytes.clear();
    }

    /// When each span of the last request ended, in nanoseconds since the epoch.
    pub fn end_times(&self) -> &[u64] {
        &self.end_times
    }

    /// The bytes of a piece.
    #[inline]
    pub(super) fn bytes<'a>(&'a self, request: &'a [u8], piece: Piece) -> &'a [u8] {
        let (start, end) = (piece.start as usize, piece.end as usize);
        if start < request.len() {
            request.get(start..end).unwrap_or_default()
        } else {
            self.rewritten
                .get(start - request.len()..end - request.len())
                .unwrap_or_default()
        }
    }

    /// Bytes allocated.
    pub(crate) fn capacity_bytes(&self) -> usize {
        self.resources.capacity() * size_of::<Header>()
            + self.scopes.capacity() * size_of::<Scope>()
            + self.header_pieces.capacity() * size_of::<Piece>()
            + self.spans.capacity() * (size_of::<Span>() + size_of::<u64>() + size_of::<u32>())
            + self.traces.capacity() * size_of::<Trace>()
            + self.trace_index.capacity() * size_of::<u32>()
            + self.rewritten.capacity()
            + self.groups.capacity() * size_of::<Group>()
            + self.resource_bytes.capacity() * size_of::<u64>()
    }
}
