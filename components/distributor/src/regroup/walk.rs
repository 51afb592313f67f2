//! The one walk over a request: checks every field, notes where each span and header stands.

use tempo_model::{
    TraceId,
    otlp::{Fields, MAX_VALUE_NESTING_DEPTH, RawField},
};

use super::{
    malformed::{Fault, Malformed, Within},
    scratch::{Header, Piece, Scope, Scratch, Span, Trace},
    truncate::{self, Truncations},
};

type Checked<T = ()> = Result<T, Box<Malformed>>;

/// Largest request whose positions fit the working memory, rewritten fields included (they are
/// never longer than what they replace).
const MAX_REQUEST_BYTES: usize = (u32::MAX / 2) as usize;

/// How many spans a request has. Looks only at the frames around them.
pub fn count_spans(request: &[u8]) -> Checked<u64> {
    let mut spans = 0;
    let mut resource_index = 0;
    for field in Fields::new(request) {
        let field = field?;
        if field.number == 1 {
            spans += count_in_resource(&field).within_nth("resource_spans", resource_index)?;
            resource_index += 1;
        }
    }
    Ok(spans)
}

fn count_in_resource(field: &RawField<'_>) -> Checked<u64> {
    let mut spans = 0;
    let mut scope_index = 0;
    for field in Fields::new(field.message()?) {
        let field = field?;
        if field.number == 2 {
            spans += count_in_scope(&field).within_nth("scope_spans", scope_index)?;
            scope_index += 1;
        }
    }
    Ok(spans)
}

fn count_in_scope(field: &RawField<'_>) -> Checked<u64> {
    let mut spans = 0;
    for field in Fields::new(field.message()?) {
        spans += u64::from(field?.number == 2);
    }
    Ok(spans)
}

/// Walks `request`, filling `scratch`.
pub(super) fn walk(
    request: &[u8],
    max_attribute_bytes: usize,
    scratch: &mut Scratch,
) -> Checked<Truncations> {
    if request.len() > MAX_REQUEST_BYTES {
        return Err(Fault::TooLarge.into());
    }
    let mut walk = Walk {
        request,
        max_attribute_bytes,
        scratch,
        truncations: Truncations::default(),
    };
    walk.request()?;
    Ok(walk.truncations)
}

struct Walk<'a> {
    request: &'a [u8],
    max_attribute_bytes: usize,
    scratch: &'a mut Scratch,
    truncations: Truncations,
}

impl<'a> Walk<'a> {
    /// Unknown fields of the request itself belong to no trace and end here.
    fn request(&mut self) -> Checked {
        let mut index = 0;
        for field in Fields::new(self.request) {
            let field = field?;
            if field.number == 1 {
                self.resource_spans(field)
                    .within_nth("resource_spans", index)?;
                index += 1;
            }
        }
        Ok(())
    }

    fn resource_spans(&mut self, field: RawField<'a>) -> Checked {
        let message = field.message()?;
        let resource = self.scratch.resources.len() as u32;
        // The header first and whole, since `schema_url` stands behind the scopes.
        let first_piece = self.scratch.header_pieces.len() as u32;
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => {
                    let oversized = self.resource(&field).within("resource")?;
                    self.add_header_field(&field, oversized, truncate::resource)?;
                }
                2 => {}
                3 => {
                    check_text(&field).within("schema_url")?;
                    self.add_header_piece(field.raw);
                }
                _ => self.add_header_piece(field.raw),
            }
        }
        let header = self.header_since(first_piece);
        self.scratch.resources.push(header);

        let mut index = 0;
        for field in Fields::new(message) {
            let field = field?;
            if field.number == 2 {
                self.scope_spans(field, resource)
                    .within_nth("scope_spans", index)?;
                index += 1;
            }
        }
        Ok(())
    }

    fn resource(&self, field: &RawField<'a>) -> Checked<bool> {
        let mut attributes = Attributes::new(self.max_attribute_bytes);
        for field in Fields::new(field.message()?) {
            let field = field?;
            match field.number {
                1 => attributes.check(&field)?,
                2 => check_varint(&field).within("dropped_attributes_count")?,
                _ => {}
            }
        }
        Ok(attributes.oversized)
    }

    fn scope_spans(&mut self, field: RawField<'a>, resource: u32) -> Checked {
        let scope = self.scratch.scopes.len() as u32;
        let first_piece = self.scratch.header_pieces.len() as u32;
        let first_span = self.scratch.spans.len();
        for field in Fields::new(field.message()?) {
            let field = field?;
            match field.number {
                1 => {
                    let oversized = self.scope(&field).within("scope")?;
                    self.add_header_field(&field, oversized, truncate::scope)?;
                }
                2 => {
                    let index = self.scratch.spans.len() - first_span;
                    self.span(&field, scope).within_nth("spans", index)?;
                }
                3 => {
                    check_text(&field).within("schema_url")?;
                    self.add_header_piece(field.raw);
                }
                _ => self.add_header_piece(field.raw),
            }
        }
        if self.scratch.spans.len() > first_span {
            let header = self.header_since(first_piece);
            self.scratch.scopes.push(Scope { resource, header });
        } else {
            self.scratch.header_pieces.truncate(first_piece as usize);
        }
        Ok(())
    }

    fn scope(&self, field: &RawField<'a>) -> Checked<bool> {
        let mut attributes = Attributes::new(self.max_attribute_bytes);
        for field in Fields::new(field.message()?) {
            let field = field?;
            match field.number {
                1 => check_text(&field).within("name")?,
                2 => check_text(&field).within("version")?,
                3 => attributes.check(&field)?,
                4 => check_varint(&field).within("dropped_attributes_count")?,
                _ => {}
            }
        }
        Ok(attributes.oversized)
    }

    fn span(&mut self, field: &RawField<'a>, scope: u32) -> Checked {
        let facts = check_span(field.message()?, self.max_attribute_bytes)?;
        let trace = self.trace_of(facts.trace_id()?);
        facts.check_span_id()?;
        let piece = if facts.oversized {
            self.rewrite(field, truncate::span)?
        } else {
            self.piece_of(field.raw)
        };
        self.scratch.spans.push(Span {
            field: piece,
            trace,
            scope,
        });
        self.scratch.end_times.push(facts.end_time_unix_nano);
        Ok(())
    }

    /// The index of a trace; its span count goes up by one.
    #[inline]
    fn trace_of(&mut self, id: TraceId) -> u32 {
        let scratch = &mut *self.scratch;
        let traces = &mut scratch.traces;
        // Spans of a trace mostly come in a row.
        let index = match scratch.spans.last() {
            Some(previous) if traces[previous.trace as usize].id == id => previous.trace,
            _ => {
                use std::hash::BuildHasher;
                let hasher = &scratch.hasher;
                let hash = hasher.hash_one(id);
                let found = scratch
                    .trace_index
                    .entry(
                        hash,
                        |&index| traces[index as usize].id == id,
                        |&index| hasher.hash_one(traces[index as usize].id),
                    )
                    .or_insert(traces.len() as u32);
                *found.get()
            }
        };
        match traces.get_mut(index as usize) {
            Some(trace) => trace.spans += 1,
            None => traces.push(Trace { id, spans: 1 }),
        }
        index
    }

    fn add_header_field(
        &mut self,
        field: &RawField<'a>,
        oversized: bool,
        cut: truncate::Rewrite,
    ) -> Checked {
        let piece = if oversized {
            self.rewrite(field, cut)?
        } else {
            self.piece_of(field.raw)
        };
        self.scratch.header_pieces.push(piece);
        Ok(())
    }

    fn add_header_piece(&mut self, raw: &[u8]) {
        let piece = self.piece_of(raw);
        self.scratch.header_pieces.push(piece);
    }

    fn header_since(&self, first_piece: u32) -> Header {
        let pieces = &self.scratch.header_pieces[first_piece as usize..];
        Header {
            first_piece,
            end_piece: self.scratch.header_pieces.len() as u32,
            bytes: pieces.iter().map(|piece| piece.len() as u32).sum(),
        }
    }

    /// Where `part`, a slice of the request, stands in it.
    #[inline]
    fn piece_of(&self, part: &[u8]) -> Piece {
        let start = part.as_ptr().addr() - self.request.as_ptr().addr();
        Piece {
            start: start as u32,
            end: (start + part.len()) as u32,
        }
    }

    /// Writes a field anew with its oversized attributes cut.
    #[cold]
    fn rewrite(&mut self, field: &RawField<'a>, cut: truncate::Rewrite) -> Checked<Piece> {
        let rewritten = &mut self.scratch.rewritten;
        let start = self.request.len() + rewritten.len();
        cut(
            field,
            self.max_attribute_bytes,
            rewritten,
            &mut self.truncations,
        )?;
        Ok(Piece {
            start: start as u32,
            end: (self.request.len() + rewritten.len()) as u32,
        })
    }
}

/// What the walk needs to know about a span.
struct SpanFacts<'a> {
    trace_id: &'a [u8],
    span_id: &'a [u8],
    end_time_unix_nano: u64,
    /// Whether an attribute must be cut.
    oversized: bool,
}

impl SpanFacts<'_> {
    fn trace_id(&self) -> Checked<TraceId> {
        match <[u8; 16]>::try_from(self.trace_id) {
            Ok(id) if id != [0; 16] => Ok(TraceId::from_bytes(id)),
            _ => Err(Fault::TraceId {
                bits: significant_bits(self.trace_id),
            }
            .into()),
        }
    }

    fn check_span_id(&self) -> Checked {
        if self.span_id.len() == 8 && self.span_id != [0; 8] {
            Ok(())
        } else {
            Err(Fault::SpanId {
                bits: significant_bits(self.span_id),
            }
            .into())
        }
    }
}

/// An id of zeros only counts as none at all.
#[cold]
fn significant_bits(id: &[u8]) -> usize {
    if id.iter().all(|&byte| byte == 0) {
        0
    } else {
        id.len() * 8
    }
}

fn check_span(message: &[u8], max_attribute_bytes: usize) -> Checked<SpanFacts<'_>> {
    let mut facts = SpanFacts {
        trace_id: &[],
        span_id: &[],
        end_time_unix_nano: 0,
        oversized: false,
    };
    let mut attributes = Attributes::new(max_attribute_bytes);
    let (mut events, mut links) = (0, 0);
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            9 => attributes.check(&field)?,
            1 => facts.trace_id = field.message()?,
            2 => facts.span_id = field.message()?,
            3 => check_text(&field).within("trace_state")?,
            4 => check_optional_id(&field, 8).within("parent_span_id")?,
            5 => check_text(&field).within("name")?,
            6 => check_varint(&field).within("kind")?,
            7 => check_fixed64(&field).within("start_time_unix_nano")?,
            8 => facts.end_time_unix_nano = field.fixed64()?,
            10 => check_varint(&field).within("dropped_attributes_count")?,
            11 => {
                facts.oversized |=
                    check_event(&field, max_attribute_bytes).within_nth("events", events)?;
                events += 1;
            }
            12 => check_varint(&field).within("dropped_events_count")?,
            13 => {
                facts.oversized |=
                    check_link(&field, max_attribute_bytes).within_nth("links", links)?;
                links += 1;
            }
            14 => check_varint(&field).within("dropped_links_count")?,
            15 => check_status(&field).within("status")?,
            16 => check_fixed32(&field).within("flags")?,
            _ => {}
        }
    }
    facts.oversized |= attributes.oversized;
    Ok(facts)
}

fn check_event(field: &RawField<'_>, max_attribute_bytes: usize) -> Checked<bool> {
    let mut attributes = Attributes::new(max_attribute_bytes);
    for field in Fields::new(field.message()?) {
        let field = field?;
        match field.number {
            1 => check_fixed64(&field).within("time_unix_nano")?,
            2 => check_text(&field).within("name")?,
            3 => attributes.check(&field)?,
            4 => check_varint(&field).within("dropped_attributes_count")?,
            _ => {}
        }
    }
    Ok(attributes.oversized)
}

fn check_link(field: &RawField<'_>, max_attribute_bytes: usize) -> Checked<bool> {
    let mut attributes = Attributes::new(max_attribute_bytes);
    for field in Fields::new(field.message()?) {
        let field = field?;
        match field.number {
            1 => check_optional_id(&field, 16).within("trace_id")?,
            2 => check_optional_id(&field, 8).within("span_id")?,
            3 => check_text(&field).within("trace_state")?,
            4 => attributes.check(&field)?,
            5 => check_varint(&field).within("dropped_attributes_count")?,
            6 => check_fixed32(&field).within("flags")?,
            _ => {}
        }
    }
    Ok(attributes.oversized)
}

fn check_status(field: &RawField<'_>) -> Checked {
    for field in Fields::new(field.message()?) {
        let field = field?;
        match field.number {
            2 => check_text(&field).within("message")?,
            3 => check_varint(&field).within("code")?,
            _ => {}
        }
    }
    Ok(())
}

/// The attributes of one message, checked one by one.
struct Attributes {
    max_bytes: usize,
    seen: usize,
    oversized: bool,
}

impl Attributes {
    fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            seen: 0,
            oversized: false,
        }
    }

    #[inline]
    fn check(&mut self, field: &RawField<'_>) -> Checked {
        self.oversized |=
            check_key_value(field, self.max_bytes, 0).within_nth("attributes", self.seen)?;
        self.seen += 1;
        Ok(())
    }
}

/// Whether a `KeyValue` message is what most are: a key, then a string value, both ASCII, of less
/// than 128 bytes and of at most `max_bytes`. Then its tags and lengths are ASCII too, and one
/// look at the whole replaces three scans and two checks of texts.
#[inline]
fn is_usual_text_attribute(message: &[u8], max_bytes: usize) -> bool {
    const KEY: u8 = 1 << 3 | 2;
    const VALUE: u8 = 2 << 3 | 2;
    const STRING_VALUE: u8 = 1 << 3 | 2;
    let &[KEY, key_len, ref after @ ..] = message else {
        return false;
    };
    let Some((_, after)) = after.split_at_checked(usize::from(key_len)) else {
        return false;
    };
    let &[VALUE, value_len, STRING_VALUE, text_len, ref text @ ..] = after else {
        return false;
    };
    usize::from(value_len) == text.len() + 2
        && usize::from(text_len) == text.len()
        && usize::from(key_len) <= max_bytes
        && text.len() <= max_bytes
        && message.is_ascii()
}

/// Whether a `KeyValue` has a key or a string value longer than `max_bytes`.
fn check_key_value(field: &RawField<'_>, max_bytes: usize, depth: usize) -> Checked<bool> {
    if is_usual_text_attribute(field.message()?, max_bytes) {
        return Ok(false);
    }
    let mut oversized = false;
    for field in Fields::new(field.message()?) {
        let field = field?;
        match field.number {
            1 => {
                check_text(&field).within("key")?;
                oversized |= field.bytes.len() > max_bytes;
            }
            2 => oversized |= check_any_value(&field, max_bytes, depth).within("value")?,
            3 => check_varint(&field).within("key_strindex")?,
            _ => {}
        }
    }
    Ok(oversized)
}

/// Whether an `AnyValue` is a string longer than `max_bytes`. `depth` counts the arrays and lists
/// around it.
fn check_any_value(field: &RawField<'_>, max_bytes: usize, depth: usize) -> Checked<bool> {
    let mut oversized = false;
    for field in Fields::new(field.message()?) {
        let field = field?;
        match field.number {
            1 => {
                check_text(&field).within("string_value")?;
                oversized |= field.bytes.len() > max_bytes;
            }
            2 => check_varint(&field).within("bool_value")?,
            3 => check_varint(&field).within("int_value")?,
            4 => check_fixed64(&field).within("double_value")?,
            5 => check_nested(&field, depth, check_any_value).within("array_value")?,
            6 => check_nested(&field, depth, check_key_value).within("kvlist_value")?,
            7 => {
                field.message()?;
            }
            8 => check_varint(&field).within("string_value_strindex")?,
            _ => {}
        }
    }
    Ok(oversized)
}

/// The values of an array or the pairs of a list. What stands inside is never cut.
fn check_nested(
    field: &RawField<'_>,
    depth: usize,
    check: fn(&RawField<'_>, usize, usize) -> Checked<bool>,
) -> Checked {
    if depth == MAX_VALUE_NESTING_DEPTH {
        return Err(Fault::TooDeep.into());
    }
    let mut index = 0;
    for field in Fields::new(field.message()?) {
        let field = field?;
        if field.number == 1 {
            check(&field, usize::MAX, depth + 1).within_nth("values", index)?;
            index += 1;
        }
    }
    Ok(())
}

#[inline]
fn check_text(field: &RawField<'_>) -> Checked {
    let text = field.message()?;
    // Most texts are short and ASCII, which is cheaper to see.
    if text.is_ascii() || std::str::from_utf8(text).is_ok() {
        Ok(())
    } else {
        Err(Fault::NotUtf8.into())
    }
}

#[inline]
fn check_varint(field: &RawField<'_>) -> Checked {
    field.varint()?;
    Ok(())
}

#[inline]
fn check_fixed64(field: &RawField<'_>) -> Checked {
    field.fixed64()?;
    Ok(())
}

#[inline]
fn check_fixed32(field: &RawField<'_>) -> Checked {
    field.fixed32()?;
    Ok(())
}

/// An id that may be absent.
#[inline]
fn check_optional_id(field: &RawField<'_>, want_bytes: usize) -> Checked {
    let got_bytes = field.message()?.len();
    if got_bytes == 0 || got_bytes == want_bytes {
        Ok(())
    } else {
        Err(Fault::IdLength {
            want_bytes,
            got_bytes,
        }
        .into())
    }
}
