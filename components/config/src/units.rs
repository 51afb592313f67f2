//! Settings with a unit or a set of spellings.

use std::ops::Deref;
use std::time::Duration;

use tempo_traceql::duration;

use crate::document::{Content, Node};
use crate::render::{Rendered, is_json_literal};
use crate::value::{Decoder, Value, integer, scalar};

/// A duration in Go's spelling: `1h30m`, `1.5s`, `0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct GoDuration(pub Duration);

/// A duration in Prometheus' spelling, which has days, weeks and years: `1d12h`, `2w`, `0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct PrometheusDuration(pub Duration);

/// A duration in Go's spelling, or a whole number of nanoseconds, as JSON may have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct DurationOrNanos(pub Duration);

fn parse_go_or_nanos(text: &str) -> Result<i64, String> {
    match integer(text).map(i64::try_from) {
        Some(Ok(nanos)) => Ok(nanos),
        _ => duration::parse_go(text).map_err(|error| error.to_string()),
    }
}

macro_rules! duration_type {
    ($name:ident, $parse:path, $type_name:literal, $expected:literal) => {
        impl $name {
            /// Nothing, which often means off.
            pub const ZERO: Self = Self(Duration::ZERO);

            /// So many seconds.
            pub const fn seconds(seconds: u64) -> Self {
                Self(Duration::from_secs(seconds))
            }
        }

        impl Deref for $name {
            type Target = Duration;
            fn deref(&self) -> &Duration {
                &self.0
            }
        }

        impl From<$name> for Duration {
            fn from(duration: $name) -> Self {
                duration.0
            }
        }

        impl std::fmt::Display for $name {
            /// In Go's spelling.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let nanos = i64::try_from(self.0.as_nanos()).unwrap_or(i64::MAX);
                duration::GoDuration { nanos }.fmt(f)
            }
        }

        impl Value for $name {
            fn merge(&mut self, node: &Node, decoder: &mut Decoder<'_>) {
                let Some(text) = scalar(node, $expected, decoder) else {
                    return;
                };
                match $parse(text) {
                    Ok(nanos) => match u64::try_from(nanos) {
                        Ok(nanos) => self.0 = Duration::from_nanos(nanos),
                        Err(_) => decoder.expected("a duration that is not negative", node),
                    },
                    Err(error) => {
                        decoder.issue(node.mark, format!("expected {}: {error}", $expected));
                    }
                }
            }
            fn render(&self) -> Rendered {
                Rendered::Bare(self.to_string())
            }
            fn type_name(&self) -> String {
                $type_name.to_owned()
            }
        }
    };
}

duration_type!(
    GoDuration,
    duration::parse_go,
    "duration",
    "a duration such as 1h30m or 500ms"
);
duration_type!(
    DurationOrNanos,
    parse_go_or_nanos,
    "duration, or nanoseconds",
    "a duration such as 30s"
);
duration_type!(
    PrometheusDuration,
    duration::parse_prometheus,
    "duration, days too",
    "a duration such as 1d12h or 30s"
);

impl GoDuration {
    /// The longest one, which stands for "never".
    pub(crate) const INFINITE: Self = Self(Duration::from_nanos(i64::MAX as u64));

    pub(crate) const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
    pub(crate) const fn minutes(minutes: u64) -> Self {
        Self::seconds(minutes * 60)
    }
    pub(crate) const fn hours(hours: u64) -> Self {
        Self::seconds(hours * 60 * 60)
    }
}

/// A number of bytes: a whole number, or numbers with units (`1GiB`, `100MB`, `63KiB1023B`).
/// Units with an `i` are powers of 1024, the others of 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ByteSize(pub u64);

impl Deref for ByteSize {
    type Target = u64;
    fn deref(&self) -> &u64 {
        &self.0
    }
}

impl ByteSize {
    pub(crate) fn parse(text: &str) -> Option<u64> {
        let plain = text.replace('_', "");
        if let Some(bytes) = integer(&plain) {
            return u64::try_from(bytes).ok();
        }
        let mut rest = &*plain;
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let number_len = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(rest.len());
            let (number, after) = rest.split_at(number_len);
            let unit_len = after
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(after.len());
            let (unit, next) = after.split_at(unit_len);
            let factor = unit_bytes(unit.trim())?;
            let bytes = match number.parse::<u64>() {
                Ok(number) => number.checked_mul(factor)?,
                Err(_) => {
                    let bytes = number.parse::<f64>().ok()? * factor as f64;
                    if !(0.0..u64::MAX as f64).contains(&bytes) {
                        return None;
                    }
                    bytes.round() as u64
                }
            };
            total = total.checked_add(bytes)?;
            rest = next.trim_start();
        }
        (!plain.is_empty()).then_some(total)
    }
}

fn unit_bytes(unit: &str) -> Option<u64> {
    Some(match unit {
        "B" => 1,
        "KiB" | "Ki" => 1 << 10,
        "MiB" | "Mi" => 1 << 20,
        "GiB" | "Gi" => 1 << 30,
        "TiB" | "Ti" => 1 << 40,
        "PiB" | "Pi" => 1 << 50,
        "KB" | "kB" | "K" | "k" => 1_000,
        "MB" | "M" => 1_000_000,
        "GB" | "G" => 1_000_000_000,
        "TB" | "T" => 1_000_000_000_000,
        "PB" | "P" => 1_000_000_000_000_000,
        _ => return None,
    })
}

impl Value for ByteSize {
    fn merge(&mut self, node: &Node, decoder: &mut Decoder<'_>) {
        const EXPECTED: &str = "a number of bytes such as 1048576, 1MiB or 100MB";
        let Some(text) = scalar(node, EXPECTED, decoder) else {
            return;
        };
        match Self::parse(text) {
            Some(bytes) => self.0 = bytes,
            None => decoder.expected(EXPECTED, node),
        }
    }
    fn render(&self) -> Rendered {
        Rendered::Bare(self.0.to_string())
    }
    fn type_name(&self) -> String {
        "bytes".to_owned()
    }
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// The text itself. Not to be logged or shown.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// What stands for a secret wherever settings are shown.
pub(crate) const MASK: &str = "<secret>";

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { MASK })
    }
}

impl Value for Secret {
    fn merge(&mut self, node: &Node, decoder: &mut Decoder<'_>) {
        match &node.content {
            Content::Null => {}
            Content::Scalar { text, .. } => {
                decoder.set();
                text.clone_into(&mut self.0);
            }
            other => {
                let found = other.kind();
                decoder.issue(node.mark, format!("expected text, found {found}"));
            }
        }
    }
    fn render(&self) -> Rendered {
        Rendered::text(if self.0.is_empty() { "" } else { MASK })
    }
    fn type_name(&self) -> String {
        "secret text".to_owned()
    }
}

/// Texts, written as a list or as a single text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TextList(pub Vec<String>);

impl Deref for TextList {
    type Target = [String];
    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl Value for TextList {
    fn merge(&mut self, node: &Node, decoder: &mut Decoder<'_>) {
        match &node.content {
            Content::Scalar { text, .. } => {
                decoder.set();
                self.0.clear();
                if !text.is_empty() {
                    self.0.push(text.clone());
                }
            }
            _ => self.0.merge(node, decoder),
        }
    }
    fn render(&self) -> Rendered {
        self.0.render()
    }
    fn type_name(&self) -> String {
        "list of text, or one text".to_owned()
    }
}

/// Texts in one, separated by commas; a list is taken as well.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommaList(pub Vec<String>);

impl Deref for CommaList {
    type Target = [String];
    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl Value for CommaList {
    fn merge(&mut self, node: &Node, decoder: &mut Decoder<'_>) {
        match &node.content {
            Content::Scalar { text, .. } => {
                decoder.set();
                self.0 = text
                    .split(',')
                    .filter(|part| !part.is_empty())
                    .map(str::to_owned)
                    .collect();
            }
            _ => self.0.merge(node, decoder),
        }
    }
    fn render(&self) -> Rendered {
        Rendered::text(&self.0.join(","))
    }
    fn type_name(&self) -> String {
        "text, separated by commas".to_owned()
    }
}

/// A single value whose kind is what it looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scalar {
    /// Text.
    Text(String),
    /// A number, `true` or `false`, as it is written.
    Literal(String),
}

impl Default for Scalar {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl Value for Scalar {
    fn merge(&mut self, node: &Node, decoder: &mut Decoder<'_>) {
        match &node.content {
            Content::Null => {}
            Content::Scalar { text, quoted } => {
                decoder.set();
                *self = if *quoted || !is_json_literal(text) {
                    Self::Text(text.clone())
                } else {
                    Self::Literal(text.clone())
                };
            }
            _ => decoder.expected("text, a number, or true or false", node),
        }
    }
    fn render(&self) -> Rendered {
        match self {
            Self::Text(text) => Rendered::text(text),
            Self::Literal(text) => Rendered::Bare(text.clone()),
        }
    }
    fn type_name(&self) -> String {
        "text, number, or true or false".to_owned()
    }
}

/// Any YAML: settings of others that are only passed on or not read at all.
#[derive(Clone, PartialEq, Default)]
pub struct Anything(pub(crate) Option<Rendered>);

/// What stands for settings of others wherever settings are shown: they may hold secrets.
const NOT_SHOWN: &str = "<not shown>";

impl std::fmt::Debug for Anything {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_none() { "null" } else { NOT_SHOWN })
    }
}

impl Anything {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Value for Anything {
    fn merge(&mut self, node: &Node, decoder: &mut Decoder<'_>) {
        decoder.set();
        self.0 = match node.content {
            Content::Null => None,
            _ => Some(Rendered::from(node)),
        };
    }
    fn render(&self) -> Rendered {
        match &self.0 {
            None => Rendered::Null,
            Some(_) => Rendered::text(NOT_SHOWN),
        }
    }
    fn type_name(&self) -> String {
        "any YAML".to_owned()
    }
}

/// A part that is switched on by being written, even with nothing behind its key.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Enabled<T>(pub Option<T>);

impl<T> Deref for Enabled<T> {
    type Target = Option<T>;
    fn deref(&self) -> &Option<T> {
        &self.0
    }
}

impl<T: Value + Default + 'static> Value for Enabled<T> {
    fn merge(&mut self, node: &Node, decoder: &mut Decoder<'_>) {
        decoder.set();
        self.0.get_or_insert_default().merge(node, decoder);
    }
    fn render(&self) -> Rendered {
        // Even `null` would switch it on.
        self.0.as_ref().map_or(Rendered::Absent, Value::render)
    }
    fn type_name(&self) -> String {
        self.0.type_name()
    }
    fn item(&self) -> Option<(&'static str, Box<dyn Value>)> {
        self.0.item()
    }
}

/// Settings with a fixed set of texts.
macro_rules! choice {
    ($(#[doc = $doc:literal])* pub enum $name:ident {
        $($(#[$attribute:meta])* $variant:ident = $text:literal $(| $alias:literal)*,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub enum $name {
            $($(#[$attribute])* $variant,)*
        }

        impl $name {
            /// All texts that can be written.
            pub const TEXTS: &'static [&'static str] = &[$($text),*];

            /// What a text stands for.
            pub fn from_text(text: &str) -> Option<Self> {
                match text {
                    $($text $(| $alias)* => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The text that is written.
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl $crate::value::Value for $name {
            fn merge(
                &mut self,
                node: &$crate::document::Node,
                decoder: &mut $crate::value::Decoder<'_>,
            ) {
                let expected = Self::type_name(self);
                let Some(text) = $crate::value::scalar(node, &expected, decoder) else {
                    return;
                };
                match Self::from_text(text) {
                    Some(known) => *self = known,
                    None => {
                        let near = $crate::nearest::nearest(text, Self::TEXTS.iter().copied());
                        let hint = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
                        decoder.issue(
                            node.mark,
                            format!("expected {expected}, found {text:?}{hint}"),
                        );
                    }
                }
            }
            fn render(&self) -> $crate::render::Rendered {
                $crate::render::Rendered::text(self.text())
            }
            fn type_name(&self) -> String {
                let texts: Vec<String> = Self::TEXTS
                    .iter()
                    .map(|text| if text.is_empty() { "\"\"".to_owned() } else { (*text).to_owned() })
                    .collect();
                format!("one of {}", texts.join(", "))
            }
        }
    };
}
pub(crate) use choice;
