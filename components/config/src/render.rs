//! Settings back to YAML.

use std::fmt::Write;

use crate::document::{Content, Node};

/// A value to be written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Rendered {
    /// Not written at all, not even its key.
    Absent,
    /// `null`
    Null,
    /// A number, a boolean, a duration: never quoted.
    Bare(String),
    /// Text, quoted where YAML would take it for something else.
    Text(String),
    List(Vec<Rendered>),
    Map(Vec<(String, Rendered)>),
}

impl Rendered {
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// The document.
    pub(crate) fn to_yaml(&self) -> String {
        let mut out = String::new();
        match self {
            Self::Map(entries) if !entries.is_empty() => write_map(&mut out, entries, 0),
            Self::List(items) if !items.is_empty() => write_list(&mut out, items, 0),
            single => {
                out.push_str(&single.inline());
                out.push('\n');
            }
        }
        out
    }

    /// The value on one line; lists and maps in flow style.
    pub(crate) fn inline(&self) -> String {
        match self {
            Self::Absent => String::new(),
            Self::Null => "null".to_owned(),
            Self::Bare(text) => text.clone(),
            Self::Text(text) => quoted(text),
            Self::List(items) => in_brackets(items, " ", Self::inline),
            Self::Map(entries) => in_braces(entries, " ", quoted, Self::inline),
        }
    }

    /// The value as JSON on one line. What YAML writes without quotes and JSON cannot, such as a
    /// duration, becomes text.
    pub(crate) fn to_json(&self) -> String {
        match self {
            Self::Absent | Self::Null => "null".to_owned(),
            Self::Bare(text) if is_json_literal(text) => text.clone(),
            Self::Bare(text) | Self::Text(text) => json_text(text),
            Self::List(items) => in_brackets(items, "", Self::to_json),
            Self::Map(entries) => in_braces(entries, "", json_text, Self::to_json),
        }
    }

    /// Without keys that have no value.
    pub(crate) fn without_nulls(self) -> Self {
        match self {
            Self::List(items) => Self::List(items.into_iter().map(Self::without_nulls).collect()),
            Self::Map(entries) => Self::Map(
                entries
                    .into_iter()
                    .filter(|(_, value)| !matches!(value, Self::Absent | Self::Null))
                    .map(|(key, value)| (key, value.without_nulls()))
                    .collect(),
            ),
            single => single,
        }
    }

    /// What differs from `base`, nothing when all is equal.
    pub(crate) fn difference(&self, base: &Self) -> Option<Self> {
        match (self, base) {
            (Self::Map(entries), Self::Map(base)) => {
                let different: Vec<(String, Self)> = entries
                    .iter()
                    .filter_map(|(key, value)| {
                        let before = base.iter().find(|(name, _)| name == key);
                        let value = match before {
                            Some((_, before)) => value.difference(before)?,
                            None => value.clone(),
                        };
                        Some((key.clone(), value))
                    })
                    .collect();
                (!different.is_empty() || (entries.is_empty() && !base.is_empty()))
                    .then_some(Self::Map(different))
            }
            _ => (self != base).then(|| self.clone()),
        }
    }
}

impl From<&Node> for Rendered {
    fn from(node: &Node) -> Self {
        match &node.content {
            Content::Null => Self::Null,
            Content::Scalar { text, quoted: true } => Self::Text(text.clone()),
            Content::Scalar { text, .. } => Self::Bare(text.clone()),
            Content::List(items) => Self::List(items.iter().map(Self::from).collect()),
            Content::Map(entries) => Self::Map(
                entries
                    .iter()
                    .map(|entry| (entry.key.clone(), Self::from(&entry.value)))
                    .collect(),
            ),
        }
    }
}

/// A list on one line, in YAML with a `space` behind each comma, in JSON without.
fn in_brackets(items: &[Rendered], space: &str, value: fn(&Rendered) -> String) -> String {
    let items: Vec<String> = items.iter().map(value).collect();
    format!("[{}]", items.join(&format!(",{space}")))
}

/// The same of a map.
fn in_braces(
    entries: &[(String, Rendered)],
    space: &str,
    text: fn(&str) -> String,
    value: fn(&Rendered) -> String,
) -> String {
    let entries: Vec<String> = entries
        .iter()
        .map(|(key, entry)| format!("{}:{space}{}", text(key), value(entry)))
        .collect();
    format!("{{{}}}", entries.join(&format!(",{space}")))
}

fn write_map(out: &mut String, entries: &[(String, Rendered)], indent: usize) {
    for (key, value) in entries {
        let _ = write!(out, "{:indent$}{}:", "", quoted(key));
        write_value(out, value, indent);
    }
}

fn write_list(out: &mut String, items: &[Rendered], indent: usize) {
    for item in items {
        let _ = write!(out, "{:indent$}-", "");
        match item {
            Rendered::Map(entries) if !entries.is_empty() => {
                // The first key stands behind the dash.
                let mut body = String::new();
                write_map(&mut body, entries, indent + 2);
                out.push(' ');
                out.push_str(body.trim_start());
            }
            item => write_value(out, item, indent),
        }
    }
}

fn write_value(out: &mut String, value: &Rendered, indent: usize) {
    match value {
        Rendered::Map(entries) if !entries.is_empty() => {
            out.push('\n');
            write_map(out, entries, indent + 4);
        }
        Rendered::List(items) if !items.is_empty() => {
            out.push('\n');
            write_list(out, items, indent + 4);
        }
        single => {
            out.push(' ');
            out.push_str(&single.inline());
            out.push('\n');
        }
    }
}

/// Whether JSON takes the text for a number, `true` or `false`.
pub(crate) fn is_json_literal(text: &str) -> bool {
    if matches!(text, "true" | "false") {
        return true;
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let whole = digits.split(['.', 'e', 'E']).next().unwrap_or_default();
    let is_number = digits.starts_with(|c: char| c.is_ascii_digit())
        && (whole.len() == 1 || !whole.starts_with('0'))
        && !digits.contains(".e")
        && !digits.contains(".E")
        && digits.ends_with(|c: char| c.is_ascii_digit());
    is_number && text.parse::<f64>().is_ok()
}

fn json_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Text as YAML must write it to be read as the same text.
fn quoted(text: &str) -> String {
    let plain = text
        .chars()
        .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':' | '+' | '@' | ' '))
        && text.starts_with(|c: char| c.is_alphabetic() || c == '/' || c == '_')
        && !text.contains(": ")
        && !text.ends_with([':', ' '])
        && !matches!(
            &*text.to_ascii_lowercase(),
            "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | "null" | "inf" | "nan"
        );
    if plain {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => {
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
