//! How a setting takes what the text says, and shows itself again.

use std::collections::BTreeMap;

use crate::document::{Content, Mark, Node};
use crate::error::{Issue, Place};
use crate::nearest::nearest;
use crate::render::Rendered;
use crate::retired;

/// What a key does in this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    /// It is honoured.
    Used,
    /// It is known and checked, and belongs to a component that does not exist yet.
    Later,
    /// It is known and checked, and has no meaning here.
    Ignored,
}

/// A setting, or a block of settings.
pub(crate) trait Value {
    /// Takes what the node says; what it does not say stays as it is.
    fn merge(&mut self, node: &Node, decoder: &mut Decoder<'_>);
    /// The value for the effective configuration; secrets are masked.
    fn render(&self) -> Rendered;
    /// What may be written, in words: `duration`, `list of text`.
    fn type_name(&self) -> String;
    /// The keys below.
    fn block(&self) -> Option<&dyn Block> {
        None
    }
    /// The keys of an item, for lists, maps and optional blocks of settings, and how the
    /// reference writes an item: `[]`, `.<name>` or nothing.
    fn item(&self) -> Option<(&'static str, Box<dyn Value>)> {
        None
    }
}

/// Settings under one key.
pub(crate) trait Block {
    /// What the block is for.
    fn meaning(&self) -> &'static [&'static str];
    /// All keys.
    fn fields(&self) -> Vec<Field<'_>>;
    /// One key.
    fn field_mut(&mut self, key: &str) -> Option<(Status, &mut dyn Value)>;
}

/// A key of a [`Block`].
pub(crate) struct Field<'a> {
    pub(crate) key: &'static str,
    pub(crate) meaning: &'static [&'static str],
    pub(crate) status: Status,
    pub(crate) value: &'a dyn Value,
}

/// A key that was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetKey {
    pub(crate) path: String,
    pub(crate) status: Status,
}

/// Goes down the tree with the text and keeps what there is to tell.
pub(crate) struct Decoder<'a> {
    /// The flag that is decoded, instead of a text.
    pub(crate) flag: Option<&'a str>,
    path: Vec<String>,
    statuses: Vec<Status>,
    pub(crate) issues: Vec<Issue>,
    pub(crate) set: Vec<SetKey>,
    /// Whether unknown keys are left out rather than issues.
    is_lenient: bool,
    /// The unknown keys that were left out.
    pub(crate) left_out: Vec<String>,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(flag: Option<&'a str>) -> Self {
        Self {
            flag,
            path: Vec::new(),
            statuses: Vec::new(),
            issues: Vec::new(),
            set: Vec::new(),
            is_lenient: false,
            left_out: Vec::new(),
        }
    }

    /// One that leaves out keys it does not know.
    pub(crate) fn lenient() -> Self {
        Self {
            is_lenient: true,
            ..Self::new(None)
        }
    }

    /// Decodes below a key.
    pub(crate) fn within(&mut self, key: &str, status: Status, decode: impl FnOnce(&mut Self)) {
        let status = self.status().max(status);
        self.path.push(key.to_owned());
        self.statuses.push(status);
        decode(self);
        self.statuses.pop();
        self.path.pop();
    }

    fn status(&self) -> Status {
        self.statuses.last().copied().unwrap_or(Status::Used)
    }

    pub(crate) fn path(&self) -> String {
        let mut path = String::new();
        for part in &self.path {
            if !path.is_empty() && !part.starts_with('[') {
                path.push('.');
            }
            path.push_str(part);
        }
        path
    }

    /// The value here has been set.
    pub(crate) fn set(&mut self) {
        let key = SetKey {
            path: self.path(),
            status: self.status(),
        };
        self.set.push(key);
    }

    pub(crate) fn issue(&mut self, mark: Mark, message: String) {
        let place = match self.flag {
            Some(name) => Place::Flag(name.to_owned()),
            None => Place::Text {
                line: mark.line,
                column: mark.column,
            },
        };
        self.issues.push(Issue {
            path: self.path(),
            place,
            message,
        });
    }

    /// The value here is of the wrong kind.
    pub(crate) fn expected(&mut self, expected: &str, node: &Node) {
        let found = match &node.content {
            Content::Scalar { text, .. } => format!("{text:?}"),
            other => other.kind().to_owned(),
        };
        self.issue(node.mark, format!("expected {expected}, found {found}"));
    }

    /// The key is none of the block.
    pub(crate) fn unknown_key(&mut self, key: &str, mark: Mark, known: &[&'static str]) {
        let mut path = self.path();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
        if self.is_lenient {
            self.left_out.push(path);
            return;
        }
        let message = match retired::reason(&path) {
            Some(reason) => reason.to_owned(),
            None => match nearest(key, known.iter().copied()) {
                Some(near) => format!("unknown key; did you mean {near:?}?"),
                None if known.len() <= 12 => {
                    format!("unknown key; known here: {}", known.join(", "))
                }
                None => "unknown key".to_owned(),
            },
        };
        let count = self.issues.len();
        self.issue(mark, message);
        if let Some(issue) = self.issues.get_mut(count) {
            issue.path = path;
        }
    }
}

/// Takes a map into a block.
pub(crate) fn merge_block(block: &mut dyn Block, node: &Node, decoder: &mut Decoder<'_>) {
    let entries = match &node.content {
        Content::Null => return,
        Content::Map(entries) => entries,
        _ => return decoder.expected("a map of settings", node),
    };
    for entry in entries {
        match block.field_mut(&entry.key) {
            Some((status, value)) => decoder.within(&entry.key, status, |decoder| {
                value.merge(&entry.value, decoder);
            }),
            None => {
                let known: Vec<&'static str> =
                    block.fields().iter().map(|field| field.key).collect();
                decoder.unknown_key(&entry.key, entry.mark, &known);
            }
        }
    }
}

pub(crate) fn render_block(block: &dyn Block) -> Rendered {
    Rendered::Map(
        block
            .fields()
            .iter()
            .map(|field| (field.key.to_owned(), field.value.render()))
            .filter(|(_, value)| *value != Rendered::Absent)
            .collect(),
    )
}

/// The text of a single value; nothing for `null`, which leaves the default.
pub(crate) fn scalar<'a>(
    node: &'a Node,
    expected: &str,
    decoder: &mut Decoder<'_>,
) -> Option<&'a str> {
    match &node.content {
        Content::Null => None,
        Content::Scalar { text, .. } => {
            decoder.set();
            Some(text)
        }
        _ => {
            decoder.expected(expected, node);
            None
        }
    }
}

impl Value for String {
    fn merge(&mut self, node: &Node, decoder: &mut Decoder<'_>) {
        if let Some(text) = scalar(node, "text", decoder) {
            text.clone_into(self);
        }
    }
    fn render(&self) -> Rendered {
        Rendered::text(self)
    }
    fn type_name(&self) -> String {
        "text".to_owned()
    }
}

impl Value for bool {
    fn merge(&mut self, node: &Node, decoder: &mut Decoder<'_>) {
        const EXPECTED: &str = "true or false";
        let quoted = matches!(node.content, Content::Scalar { quoted: true, .. });
        let Some(text) = scalar(node, EXPECTED, decoder) else {
            return;
        };
        match text {
            "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y"
                if !quoted =>
            {
                *self = true;
            }
            "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n"
            | "N"
                if !quoted =>
            {
                *self = false;
            }
            _ => decoder.expected(EXPECTED, node),
        }
    }
    fn render(&self) -> Rendered {
        Rendered::Bare(self.to_string())
    }
    fn type_name(&self) -> String {
        "true or false".to_owned()
    }
}

/// Up to here a float tells whole numbers apart.
const MAX_EXACT_FLOAT: f64 = 9_007_199_254_740_992.0;

/// A number as YAML writes it: sign, separators, other bases; and as tools do that know floats
/// only (`3e+07`), where it is whole.
pub(crate) fn integer(text: &str) -> Option<i128> {
    whole(text).or_else(|| {
        let is_float = text.starts_with(|c: char| c.is_ascii_digit())
            && text.contains(['e', 'E', '.'])
            && !text.contains('x');
        let value: f64 = is_float.then(|| text.parse().ok())??;
        (value.fract() == 0.0 && value <= MAX_EXACT_FLOAT).then_some(value as i128)
    })
}

fn whole(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = digits.replace('_', "");
    let (radix, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0o" | "0O") => (8, &digits[2..]),
        Some("0b" | "0B") => (2, &digits[2..]),
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, &*digits),
    };
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    Some(if negative { -value } else { value })
}

macro_rules! integer_value {
    ($($type:ty: $words:literal),*) => {$(
        impl Value for $type {
            fn merge(&mut self, node: &Node, decoder: &mut Decoder<'_>) {
                let Some(text) = scalar(node, $words, decoder) else {
                    return;
                };
                match integer(text).map(<$type>::try_from) {
                    Some(Ok(value)) => *self = value,
                    Some(Err(_)) => {
                        let (low, high) = (<$type>::MIN, <$type>::MAX);
                        decoder.expected(&format!("{} from {low} to {high}", $words), node);
                    }
                    None => decoder.expected($words, node),
                }
            }
            fn render(&self) -> Rendered {
                Rendered::Bare(self.to_string())
            }
            fn type_name(&self) -> String {
                $words.trim_start_matches("a ").to_owned()
            }
        }
    )*};
}

integer_value!(
    u16: "a whole number",
    u32: "a whole number",
    i32: "a whole number",
    u64: "a whole number",
    i64: "a whole number"
);

impl Value for f64 {
    fn merge(&mut self, node: &Node, decoder: &mut Decoder<'_>) {
        const EXPECTED: &str = "a number";
        let Some(text) = scalar(node, EXPECTED, decoder) else {
            return;
        };
        let value = match text {
            ".inf" | "+.inf" | ".Inf" => Some(f64::INFINITY),
            "-.inf" | "-.Inf" => Some(f64::NEG_INFINITY),
            // Rust also reads `inf`, `nan` and the like.
            _ if text.contains(|c: char| c.is_ascii_alphabetic() && c != 'e' && c != 'E') => None,
            _ => text.replace('_', "").parse().ok(),
        };
        match value {
            Some(value) => *self = value,
            None => decoder.expected(EXPECTED, node),
        }
    }
    fn render(&self) -> Rendered {
        Rendered::Bare(self.to_string())
    }
    fn type_name(&self) -> String {
        "number".to_owned()
    }
}

impl<T: Value + Default + 'static> Value for Option<T> {
    fn merge(&mut self, node: &Node, decoder: &mut Decoder<'_>) {
        match node.content {
            Content::Null => *self = None,
            _ => self.get_or_insert_default().merge(node, decoder),
        }
    }
    fn render(&self) -> Rendered {
        self.as_ref().map_or(Rendered::Null, Value::render)
    }
    fn type_name(&self) -> String {
        T::default().type_name()
    }
    fn item(&self) -> Option<(&'static str, Box<dyn Value>)> {
        let item = T::default();
        item.block()
            .is_some()
            .then(|| ("", Box::new(item) as Box<dyn Value>))
    }
}

impl<T: Value + Default + 'static> Value for Vec<T> {
    fn merge(&mut self, node: &Node, decoder: &mut Decoder<'_>) {
        match &node.content {
            Content::Null => self.clear(),
            Content::List(items) => {
                self.clear();
                if items.is_empty() {
                    decoder.set();
                }
                for (index, item) in items.iter().enumerate() {
                    decoder.within(&format!("[{index}]"), Status::Used, |decoder| {
                        let mut value = T::default();
                        value.merge(item, decoder);
                        self.push(value);
                    });
                }
            }
            _ => decoder.expected(&format!("a {}", self.type_name()), node),
        }
    }
    fn render(&self) -> Rendered {
        Rendered::List(self.iter().map(Value::render).collect())
    }
    fn type_name(&self) -> String {
        format!("list of {}", T::default().type_name())
    }
    fn item(&self) -> Option<(&'static str, Box<dyn Value>)> {
        let item = T::default();
        item.block()
            .is_some()
            .then(|| ("[]", Box::new(item) as Box<dyn Value>))
    }
}

impl<T: Value + Default + 'static> Value for BTreeMap<String, T> {
    fn merge(&mut self, node: &Node, decoder: &mut Decoder<'_>) {
        match &node.content {
            Content::Null => self.clear(),
            Content::Map(entries) => {
                if entries.is_empty() {
                    decoder.set();
                }
                for entry in entries {
                    decoder.within(&entry.key, Status::Used, |decoder| {
                        let value = self.entry(entry.key.clone()).or_default();
                        value.merge(&entry.value, decoder);
                    });
                }
            }
            _ => decoder.expected(&format!("a {}", self.type_name()), node),
        }
    }
    fn render(&self) -> Rendered {
        Rendered::Map(
            self.iter()
                .map(|(key, value)| (key.clone(), value.render()))
                .collect(),
        )
    }
    fn type_name(&self) -> String {
        format!("map of {}", T::default().type_name())
    }
    fn item(&self) -> Option<(&'static str, Box<dyn Value>)> {
        let item = T::default();
        item.block()
            .is_some()
            .then(|| (".<name>", Box::new(item) as Box<dyn Value>))
    }
}
