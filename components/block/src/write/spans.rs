//! Spans, events and links, from the wire into the columns.

use tempo_model::otlp::{AnyValueRef, EventRef, Fields, KeyValueRef, LinkRef, WireError};
use tempo_table::shape::NestedSet;

use super::{
    attributes::AttributeColumns,
    columns::{Columns, EventColumns, LinkColumns, SpanColumns, level},
    keys::{Cursor, Keys, Route},
    sought::SoughtTexts,
    spare::SpareColumn,
    wire::{ScannedSpan, canonical_attribute},
};

/// Field number of `Span.attributes`.
const ATTRIBUTES: u32 = 9;

/// Appends a span; some of its texts are looked up later, see [`SoughtTexts`]. An error leaves the
/// columns uneven; see [`Columns::roll_back`].
pub(super) fn push_span<'a>(
    columns: &mut Columns,
    sought: &mut SoughtTexts<'a>,
    scanned: &ScannedSpan<'a>,
    nested: NestedSet,
    rep: u8,
) -> Result<(), WireError> {
    let Columns {
        spans,
        events,
        links,
        ..
    } = columns;
    let span = &scanned.span;
    spans.reps.push(rep);
    spans.ids.push(span.span_id);
    spans.parent_ids.push(span.parent_span_id);
    spans.nested.push(nested);
    spans.names.push(span.name);
    spans.kinds.push(i64::from(span.kind));
    spans.trace_states.push_text(span.trace_state);
    spans.starts.push(span.start_time_unix_nano);
    spans.durations.push(
        span.end_time_unix_nano
            .wrapping_sub(span.start_time_unix_nano),
    );
    spans.status_codes.push(i64::from(span.status_code));
    spans.status_messages.push_text(span.status_message);
    spans
        .dropped_attributes
        .push(span.dropped_attributes_count as i32);
    spans.dropped_events.push(span.dropped_events_count as i32);
    spans.dropped_links.push(span.dropped_links_count as i32);

    let before = spans.attributes.entries();
    let mut cursor = Cursor::START;
    let mut rest = scanned.attributes;
    while !rest.is_empty() {
        rest = match canonical_attribute(rest) {
            Some((attribute, tail)) => {
                let key = spans.keys.find(attribute.key, &mut cursor);
                sought.push(spans, key, attribute.value)?;
                tail
            }
            None => push_other_field(spans, sought, &mut cursor, rest)?,
        };
    }
    spans.attributes.close_owner(rep, before);
    for column in &mut spans.spare {
        column.commit();
    }
    let mut event_rep = rep;
    if scanned.has_events {
        for event in span.events() {
            push_event(events, &event?, span.start_time_unix_nano, event_rep)?;
            event_rep = level::PART;
        }
    }
    if event_rep != level::PART {
        push_no_event(events, rep);
    }
    let mut link_rep = rep;
    if scanned.has_links {
        for link in span.links() {
            push_link(links, &link?, link_rep)?;
            link_rep = level::PART;
        }
    }
    if link_rep != level::PART {
        links.reps.push(rep);
        links.defs.push(level::SPAN);
        links.attributes.push_none(rep, level::SPAN);
    }
    Ok(())
}

/// A field of a span that is no attribute in canonical form. Returns what follows.
#[cold]
fn push_other_field<'a>(
    spans: &mut SpanColumns,
    sought: &mut SoughtTexts<'a>,
    cursor: &mut Cursor,
    rest: &'a [u8],
) -> Result<&'a [u8], WireError> {
    let Some(field) = Fields::new(rest).next().transpose()? else {
        return Ok(&[]);
    };
    if field.number == ATTRIBUTES {
        let attribute = KeyValueRef::parse(field.message()?)?;
        let key = spans.keys.find(attribute.key, cursor);
        sought.push(spans, key, attribute.value)?;
    }
    Ok(&rest[field.raw.len()..])
}

/// Puts a value into the column that belongs to its key, if there is one that takes it, else among the
/// generic attributes.
#[inline]
pub(super) fn push_value(
    spare: &mut [SpareColumn],
    keys: &mut Keys,
    attributes: &mut AttributeColumns,
    key: u32,
    value: AnyValueRef<'_>,
) -> Result<(), WireError> {
    if let Route::Dedicated(at) = keys.route(key)
        && spare[usize::from(at)].offer(value)?
    {
        return Ok(());
    }
    let AttributeColumns { lanes, values, .. } = attributes;
    lanes.push(keys.generic_code(key), value, values)
}

fn push_event(
    events: &mut EventColumns,
    event: &EventRef<'_>,
    span_start: u64,
    rep: u8,
) -> Result<(), WireError> {
    events.reps.push(rep);
    events.defs.push(level::PART);
    events
        .times
        .push(event.time_unix_nano.wrapping_sub(span_start));
    events.names.push(event.name);
    events
        .dropped_attributes
        .push(event.dropped_attributes_count as i32);
    let before = events.attributes.entries();
    let mut cursor = Cursor::START;
    for attribute in event.attributes() {
        let attribute = attribute?;
        let key = events.keys.find(attribute.key, &mut cursor);
        let EventColumns {
            spare,
            keys,
            attributes,
            ..
        } = &mut *events;
        push_value(spare, keys, attributes, key, attribute.value)?;
    }
    events.attributes.close_owner(rep, before);
    for column in &mut events.spare {
        column.commit();
    }
    Ok(())
}

fn push_no_event(events: &mut EventColumns, rep: u8) {
    events.reps.push(rep);
    events.defs.push(level::SPAN);
    events.attributes.push_none(rep, level::SPAN);
    for column in &mut events.spare {
        column.push_none();
    }
}

fn push_link(links: &mut LinkColumns, link: &LinkRef<'_>, rep: u8) -> Result<(), WireError> {
    links.reps.push(rep);
    links.defs.push(level::PART);
    links.trace_ids.push(link.trace_id);
    links.span_ids.push(link.span_id);
    links.trace_states.push_text(link.trace_state);
    links
        .dropped_attributes
        .push(link.dropped_attributes_count as i32);
    let before = links.attributes.entries();
    let mut cursor = Cursor::START;
    for attribute in link.attributes() {
        let attribute = attribute?;
        let key = links.keys.find(attribute.key, &mut cursor);
        let code = links.keys.generic_code(key);
        let values = &mut links.attributes.values;
        links.attributes.lanes.push(code, attribute.value, values)?;
    }
    links.attributes.close_owner(rep, before);
    Ok(())
}
