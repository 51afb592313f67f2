//! Writing a field anew with its oversized attribute keys and string values cut.
//!
//! A text is cut at the last character boundary within the limit, so that it stays UTF-8. Only
//! keys and direct string values are cut: not what arrays and lists hold, not names and messages.

use tempo_model::otlp::{Fields, RawField, WireError, write_len_prefixed, write_message};

/// Where an attribute belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttributeScope {
    /// A resource.
    Resource,
    /// An instrumentation scope.
    Scope,
    /// A span.
    Span,
    /// An event of a span.
    Event,
    /// A link of a span.
    Link,
}

impl AttributeScope {
    /// All of them, in the order of [`Truncations::counts`].
    pub const ALL: [Self; 5] = [
        Self::Resource,
        Self::Scope,
        Self::Span,
        Self::Event,
        Self::Link,
    ];

    /// The name that metrics and logs use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resource => "resource",
            Self::Scope => "scope",
            Self::Span => "span",
            Self::Event => "event",
            Self::Link => "link",
        }
    }
}

/// What was cut in a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Truncations {
    /// Keys and values cut, by [`AttributeScope`].
    pub counts: [u64; 5],
    /// The first of them.
    pub example: Option<TruncationExample>,
}

impl Truncations {
    fn note(
        &mut self,
        scope: AttributeScope,
        field: &'static str,
        key: &str,
        original_bytes: usize,
    ) {
        self.counts[scope as usize] += 1;
        self.example.get_or_insert_with(|| TruncationExample {
            scope,
            name: key.to_owned(),
            field,
            original_bytes,
        });
    }

    /// Whether anything was cut.
    pub fn any(&self) -> bool {
        self.example.is_some()
    }
}

/// One cut, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TruncationExample {
    /// Where the attribute belongs.
    pub scope: AttributeScope,
    /// The key, as it is after cutting.
    pub name: String,
    /// `key` or `value`.
    pub field: &'static str,
    /// Length as sent, in bytes.
    pub original_bytes: usize,
}

/// Appends a field to the output with its oversized attributes cut to this many bytes.
pub(super) type Rewrite =
    fn(&RawField<'_>, usize, &mut Vec<u8>, &mut Truncations) -> Result<(), WireError>;

/// A `Resource` field.
pub(super) fn resource(
    field: &RawField<'_>,
    max_bytes: usize,
    out: &mut Vec<u8>,
    truncations: &mut Truncations,
) -> Result<(), WireError> {
    let mut cutter = Cutter {
        max_bytes,
        truncations,
    };
    cutter.message(
        field,
        out,
        &[(1, Inside::Attribute(AttributeScope::Resource))],
    )
}

/// An `InstrumentationScope` field.
pub(super) fn scope(
    field: &RawField<'_>,
    max_bytes: usize,
    out: &mut Vec<u8>,
    truncations: &mut Truncations,
) -> Result<(), WireError> {
    let mut cutter = Cutter {
        max_bytes,
        truncations,
    };
    cutter.message(field, out, &[(3, Inside::Attribute(AttributeScope::Scope))])
}

/// A `Span` field.
pub(super) fn span(
    field: &RawField<'_>,
    max_bytes: usize,
    out: &mut Vec<u8>,
    truncations: &mut Truncations,
) -> Result<(), WireError> {
    const EVENT: &[(u32, Inside)] = &[(3, Inside::Attribute(AttributeScope::Event))];
    const LINK: &[(u32, Inside)] = &[(4, Inside::Attribute(AttributeScope::Link))];
    let mut cutter = Cutter {
        max_bytes,
        truncations,
    };
    cutter.message(
        field,
        out,
        &[
            (9, Inside::Attribute(AttributeScope::Span)),
            (11, Inside::Message(EVENT)),
            (13, Inside::Message(LINK)),
        ],
    )
}

/// What a field of a message holds, if it may hold attributes.
#[derive(Clone, Copy)]
enum Inside {
    Attribute(AttributeScope),
    Message(&'static [(u32, Inside)]),
}

struct Cutter<'a> {
    max_bytes: usize,
    truncations: &'a mut Truncations,
}

impl Cutter<'_> {
    /// Copies a message, following `interesting` fields; all others are copied as they are.
    fn message(
        &mut self,
        field: &RawField<'_>,
        out: &mut Vec<u8>,
        interesting: &[(u32, Inside)],
    ) -> Result<(), WireError> {
        write_message(out, field.number, |out| {
            for field in Fields::new(field.message()?) {
                let field = field?;
                match interesting
                    .iter()
                    .find(|(number, _)| *number == field.number)
                {
                    Some((_, Inside::Attribute(scope))) => self.key_value(&field, *scope, out)?,
                    Some((_, Inside::Message(inside))) => self.message(&field, out, inside)?,
                    None => out.extend_from_slice(field.raw),
                }
            }
            Ok(())
        })
    }

    fn key_value(
        &mut self,
        field: &RawField<'_>,
        scope: AttributeScope,
        out: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        let message = field.message()?;
        let mut key = "";
        for field in Fields::new(message) {
            let field = field?;
            if field.number == 1 {
                key = cut(field.text()?, self.max_bytes);
            }
        }
        write_message(out, field.number, |out| {
            for field in Fields::new(message) {
                let field = field?;
                match field.number {
                    1 => self.text(&field, scope, "key", key, out)?,
                    2 => write_message(out, field.number, |out| {
                        for field in Fields::new(field.message()?) {
                            let field = field?;
                            match field.number {
                                1 => self.text(&field, scope, "value", key, out)?,
                                _ => out.extend_from_slice(field.raw),
                            }
                        }
                        Ok::<_, WireError>(())
                    })?,
                    _ => out.extend_from_slice(field.raw),
                }
            }
            Ok(())
        })
    }

    fn text(
        &mut self,
        field: &RawField<'_>,
        scope: AttributeScope,
        which: &'static str,
        key: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        let text = field.text()?;
        if text.len() <= self.max_bytes {
            out.extend_from_slice(field.raw);
        } else {
            self.truncations.note(scope, which, key, text.len());
            write_len_prefixed(out, field.number, cut(text, self.max_bytes).as_bytes());
        }
        Ok(())
    }
}

/// The longest beginning of `text` that is at most `max_bytes` long and ends with a whole
/// character.
fn cut(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_a_character() {
        assert_eq!(cut("abc", 2), "ab");
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("😀😀", 7), "😀");
        assert_eq!(cut("😀", 3), "");
    }
}
