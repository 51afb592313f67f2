//! Looking up the texts of attributes together.
//!
//! A dictionary is larger than the caches of a processor, and where a text stands in it has nothing to
//! do with where the one before stood: looked up one by one, texts waited for memory a tenth of the
//! time in which a block is built. So places are asked for first, and looked at when several are on
//! their way.

use tempo_model::otlp::{AnyValueRef, WireError};

use super::{
    attributes::AttributeColumns, columns::SpanColumns, interner::NO_GROUP, keys::Route,
    spans::push_value,
};

/// Texts that are looked up together, at most.
const MAX_TEXTS: usize = 16;

/// A text whose code is still to be found.
#[derive(Clone, Copy, Default)]
struct Sought<'a> {
    text: &'a [u8],
    hash: u32,
    /// Position of its column among the spare ones, or [`GENERIC`].
    column: u32,
    /// Where its code belongs among those of the column.
    at: u32,
    /// Code of its key, for [`GENERIC`].
    key: u32,
}

/// Stands for the generic attributes.
const GENERIC: u32 = u32::MAX;

/// The texts of the spans of a trace that have no code yet: columns hold any other in its place until
/// [`SoughtTexts::settle`].
#[derive(Default)]
pub(super) struct SoughtTexts<'a> {
    texts: [Sought<'a>; MAX_TEXTS],
    count: usize,
}

impl<'a> SoughtTexts<'a> {
    /// Appends an attribute to the span that is being read; `key` is the number of its key.
    ///
    /// Inlined into the walk over the span's fields: there the value stays in registers. When it goes
    /// over the stack, it is written in parts and read as a whole, for which the processor waits.
    #[inline(always)]
    pub(super) fn push(
        &mut self,
        spans: &mut SpanColumns,
        key: u32,
        value: AnyValueRef<'a>,
    ) -> Result<(), WireError> {
        match (spans.keys.route(key), value) {
            (Route::Generic, AnyValueRef::String(text)) => {
                let key = spans.keys.generic_code(key);
                let AttributeColumns { lanes, values, .. } = &mut spans.attributes;
                let code = values.again(key, text);
                let sought = || Sought {
                    text,
                    hash: values.seek(text),
                    column: GENERIC,
                    at: lanes.strings.len() as u32,
                    key,
                };
                let code = code.unwrap_or_else(|| self.add(sought()));
                lanes.push_text(key, code);
            }
            (Route::Dedicated(at), AnyValueRef::String(text))
                if spans.spare[usize::from(at)].awaits_text() =>
            {
                let column = &mut spans.spare[usize::from(at)];
                let sought = || Sought {
                    text,
                    hash: column.dict.seek(text),
                    column: u32::from(at),
                    at: column.codes.len() as u32,
                    key: NO_GROUP,
                };
                let code = column.dict.again(NO_GROUP, text);
                let code = code.unwrap_or_else(|| self.add(sought()));
                column.push_first_code(code);
            }
            (route, value) => {
                if let Route::Dedicated(at) = route
                    && spans.spare[usize::from(at)].has_value()
                {
                    // That gives way to this one: it must not get its code afterwards.
                    self.settle(spans);
                }
                let SpanColumns {
                    spare,
                    keys,
                    attributes,
                    ..
                } = &mut *spans;
                push_value(spare, keys, attributes, key, value)?;
            }
        }
        if self.count == MAX_TEXTS {
            self.settle(spans);
        }
        Ok(())
    }

    /// Returns what stands for the code.
    #[inline]
    fn add(&mut self, sought: Sought<'a>) -> u32 {
        self.texts[self.count] = sought;
        self.count += 1;
        0
    }

    /// Looks up what is left. To be called at the end of a trace.
    #[inline]
    pub(super) fn settle(&mut self, spans: &mut SpanColumns) {
        let texts = &self.texts[..std::mem::take(&mut self.count)];
        for sought in texts {
            match sought.column {
                GENERIC => spans.attributes.values.seek_text(sought.hash),
                at => spans.spare[at as usize].dict.seek_text(sought.hash),
            }
        }
        for sought in texts {
            let (dict, codes) = match sought.column {
                GENERIC => {
                    let AttributeColumns { lanes, values, .. } = &mut spans.attributes;
                    (values, &mut lanes.strings)
                }
                at => {
                    let column = &mut spans.spare[at as usize];
                    (&mut column.dict, &mut column.codes)
                }
            };
            codes[sought.at as usize] = dict.intern_sought(sought.key, sought.hash, sought.text);
        }
    }
}
