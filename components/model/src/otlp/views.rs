//! Resource spans, scopes, spans, events and links, borrowed from the wire.

use super::{
    fields::{Fields, WireError},
    value::KeyValueRef,
};

/// The `ResourceSpans` messages of a `Trace` or an `ExportTraceServiceRequest`.
pub fn resource_spans(
    message: &[u8],
) -> impl Iterator<Item = Result<ResourceSpansRef<'_>, WireError>> {
    sub_messages(message, 1).map(|found| found.map(|raw| ResourceSpansRef { raw }))
}

fn sub_messages(
    message: &[u8],
    number: u32,
) -> impl Iterator<Item = Result<&[u8], WireError>> + Clone {
    Fields::new(message).filter_map(move |field| match field {
        Ok(field) if field.number == number => Some(field.message()),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })
}

fn attributes(
    message: &[u8],
    number: u32,
) -> impl Iterator<Item = Result<KeyValueRef<'_>, WireError>> {
    sub_messages(message, number).map(|found| found.and_then(KeyValueRef::parse))
}

/// A `ResourceSpans` message.
#[derive(Debug, Clone, Copy)]
pub struct ResourceSpansRef<'a> {
    /// Its bytes.
    pub raw: &'a [u8],
}

impl<'a> ResourceSpansRef<'a> {
    /// The bytes of the `Resource` message; empty when there is none. (A resource sent in pieces
    /// counts only with its last piece; no encoder does that.)
    pub fn resource(&self) -> Result<&'a [u8], WireError> {
        let mut resource: &[u8] = &[];
        for found in sub_messages(self.raw, 1) {
            resource = found?;
        }
        Ok(resource)
    }

    /// The attributes of the resource.
    pub fn resource_attributes(
        &self,
    ) -> Result<impl Iterator<Item = Result<KeyValueRef<'a>, WireError>> + use<'a>, WireError> {
        Ok(attributes(self.resource()?, 1))
    }

    /// `dropped_attributes_count` of the resource.
    pub fn resource_dropped_attributes_count(&self) -> Result<u32, WireError> {
        last_varint(self.resource()?, 2).map(|count| count as u32)
    }

    /// The scopes.
    pub fn scope_spans(
        &self,
    ) -> impl Iterator<Item = Result<ScopeSpansRef<'a>, WireError>> + use<'a> {
        sub_messages(self.raw, 2).map(|found| found.map(|raw| ScopeSpansRef { raw }))
    }
}

fn last_varint(message: &[u8], number: u32) -> Result<u64, WireError> {
    let mut value = 0;
    for field in Fields::new(message) {
        let field = field?;
        if field.number == number {
            value = field.varint()?;
        }
    }
    Ok(value)
}

/// A `ScopeSpans` message.
#[derive(Debug, Clone, Copy)]
pub struct ScopeSpansRef<'a> {
    /// Its bytes.
    pub raw: &'a [u8],
}

impl<'a> ScopeSpansRef<'a> {
    /// The instrumentation scope; empty when there is none.
    pub fn scope(&self) -> Result<ScopeRef<'a>, WireError> {
        let mut raw: &[u8] = &[];
        for found in sub_messages(self.raw, 1) {
            raw = found?;
        }
        ScopeRef::parse(raw)
    }

    /// The spans, each as the bytes of its `Span` message.
    pub fn raw_spans(&self) -> impl Iterator<Item = Result<&'a [u8], WireError>> + Clone + use<'a> {
        sub_messages(self.raw, 2)
    }

    /// The spans.
    pub fn spans(&self) -> impl Iterator<Item = Result<SpanRef<'a>, WireError>> + use<'a> {
        self.raw_spans().map(|raw| raw.and_then(SpanRef::parse))
    }
}

/// An `InstrumentationScope` message.
#[derive(Debug, Clone, Copy, Default)]
pub struct ScopeRef<'a> {
    /// Its bytes.
    pub raw: &'a [u8],
    /// Name, not yet checked to be UTF-8.
    pub name: &'a [u8],
    /// Version, not yet checked to be UTF-8.
    pub version: &'a [u8],
    /// How many attributes the sender dropped.
    pub dropped_attributes_count: u32,
}

impl<'a> ScopeRef<'a> {
    fn parse(raw: &'a [u8]) -> Result<Self, WireError> {
        let mut scope = Self {
            raw,
            ..Self::default()
        };
        for field in Fields::new(raw) {
            let field = field?;
            match field.number {
                1 => scope.name = field.message()?,
                2 => scope.version = field.message()?,
                4 => scope.dropped_attributes_count = field.varint()? as u32,
                _ => {}
            }
        }
        Ok(scope)
    }

    /// The scope's attributes.
    pub fn attributes(&self) -> impl Iterator<Item = Result<KeyValueRef<'a>, WireError>> + use<'a> {
        attributes(self.raw, 3)
    }
}

/// A `Span` message: its scalar fields read, its repeated ones read when asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct SpanRef<'a> {
    /// Its bytes.
    pub raw: &'a [u8],
    /// As sent; 16 bytes unless the sender is broken.
    pub trace_id: &'a [u8],
    /// As sent; 8 bytes unless the sender is broken.
    pub span_id: &'a [u8],
    /// As sent; empty for a root.
    pub parent_span_id: &'a [u8],
    /// W3C trace state, not yet checked to be UTF-8.
    pub trace_state: &'a [u8],
    /// Name, not yet checked to be UTF-8.
    pub name: &'a [u8],
    /// OTLP span kind, 0 to 5.
    pub kind: i32,
    /// Nanoseconds since the epoch.
    pub start_time_unix_nano: u64,
    /// Nanoseconds since the epoch.
    pub end_time_unix_nano: u64,
    /// How many attributes the sender dropped.
    pub dropped_attributes_count: u32,
    /// How many events the sender dropped.
    pub dropped_events_count: u32,
    /// How many links the sender dropped.
    pub dropped_links_count: u32,
    /// OTLP status code: 0 unset, 1 ok, 2 error.
    pub status_code: i32,
    /// Status message, not yet checked to be UTF-8.
    pub status_message: &'a [u8],
    /// W3C flags and OTLP's own.
    pub flags: u32,
}

impl<'a> SpanRef<'a> {
    /// Reads a `Span` message in one scan.
    pub fn parse(raw: &'a [u8]) -> Result<Self, WireError> {
        let mut span = Self {
            raw,
            ..Self::default()
        };
        for field in Fields::new(raw) {
            let field = field?;
            match field.number {
                1 => span.trace_id = field.message()?,
                2 => span.span_id = field.message()?,
                3 => span.trace_state = field.message()?,
                4 => span.parent_span_id = field.message()?,
                5 => span.name = field.message()?,
                6 => span.kind = field.varint()? as i32,
                7 => span.start_time_unix_nano = field.fixed64()?,
                8 => span.end_time_unix_nano = field.fixed64()?,
                10 => span.dropped_attributes_count = field.varint()? as u32,
                12 => span.dropped_events_count = field.varint()? as u32,
                14 => span.dropped_links_count = field.varint()? as u32,
                15 => {
                    for status in Fields::new(field.message()?) {
                        let status = status?;
                        match status.number {
                            2 => span.status_message = status.message()?,
                            3 => span.status_code = status.varint()? as i32,
                            _ => {}
                        }
                    }
                }
                16 => span.flags = field.fixed32()?,
                _ => {}
            }
        }
        Ok(span)
    }

    /// Only the trace id of a `Span` message; stops at the field, which encoders write first.
    #[inline]
    pub fn trace_id_of(raw: &'a [u8]) -> Result<&'a [u8], WireError> {
        for field in Fields::new(raw) {
            let field = field?;
            if field.number == 1 {
                return field.message();
            }
        }
        Ok(&[])
    }

    /// The span's attributes.
    pub fn attributes(&self) -> impl Iterator<Item = Result<KeyValueRef<'a>, WireError>> + use<'a> {
        attributes(self.raw, 9)
    }

    /// The span's events.
    pub fn events(&self) -> impl Iterator<Item = Result<EventRef<'a>, WireError>> + use<'a> {
        sub_messages(self.raw, 11).map(|found| found.and_then(EventRef::parse))
    }

    /// The span's links.
    pub fn links(&self) -> impl Iterator<Item = Result<LinkRef<'a>, WireError>> + use<'a> {
        sub_messages(self.raw, 13).map(|found| found.and_then(LinkRef::parse))
    }
}

/// A `Span.Event` message.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventRef<'a> {
    /// Its bytes.
    pub raw: &'a [u8],
    /// Nanoseconds since the epoch.
    pub time_unix_nano: u64,
    /// Name, not yet checked to be UTF-8.
    pub name: &'a [u8],
    /// How many attributes the sender dropped.
    pub dropped_attributes_count: u32,
}

impl<'a> EventRef<'a> {
    fn parse(raw: &'a [u8]) -> Result<Self, WireError> {
        let mut event = Self {
            raw,
            ..Self::default()
        };
        for field in Fields::new(raw) {
            let field = field?;
            match field.number {
                1 => event.time_unix_nano = field.fixed64()?,
                2 => event.name = field.message()?,
                4 => event.dropped_attributes_count = field.varint()? as u32,
                _ => {}
            }
        }
        Ok(event)
    }

    /// The event's attributes.
    pub fn attributes(&self) -> impl Iterator<Item = Result<KeyValueRef<'a>, WireError>> + use<'a> {
        attributes(self.raw, 3)
    }
}

/// A `Span.Link` message.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinkRef<'a> {
    /// Its bytes.
    pub raw: &'a [u8],
    /// Trace id of the linked span, as sent.
    pub trace_id: &'a [u8],
    /// Span id of the linked span, as sent.
    pub span_id: &'a [u8],
    /// W3C trace state, not yet checked to be UTF-8.
    pub trace_state: &'a [u8],
    /// How many attributes the sender dropped.
    pub dropped_attributes_count: u32,
    /// W3C flags and OTLP's own.
    pub flags: u32,
}

impl<'a> LinkRef<'a> {
    fn parse(raw: &'a [u8]) -> Result<Self, WireError> {
        let mut link = Self {
            raw,
            ..Self::default()
        };
        for field in Fields::new(raw) {
            let field = field?;
            match field.number {
                1 => link.trace_id = field.message()?,
                2 => link.span_id = field.message()?,
                3 => link.trace_state = field.message()?,
                5 => link.dropped_attributes_count = field.varint()? as u32,
                6 => link.flags = field.fixed32()?,
                _ => {}
            }
        }
        Ok(link)
    }

    /// The link's attributes.
    pub fn attributes(&self) -> impl Iterator<Item = Result<KeyValueRef<'a>, WireError>> + use<'a> {
        attributes(self.raw, 4)
    }
}
