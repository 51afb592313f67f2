//! Writing JSON text, with Go's escapes.

use std::io::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::go::format_float;

/// Appends a text between quotes, escaped as Go's `encoding/json` does: `<`, `>` and `&` too, and
/// a replacement character for what is not UTF-8.
pub(super) fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    if text.iter().all(|&byte| PLAIN[usize::from(byte)]) {
        out.extend_from_slice(text);
    } else {
        for chunk in text.utf8_chunks() {
            valid_text(out, chunk.valid());
            if !chunk.invalid().is_empty() {
                out.extend_from_slice(b"\\ufffd");
            }
        }
    }
    out.push(b'"');
}

/// ASCII that needs no escape, which is all that most texts hold.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 0x80 {
        plain[byte] = !matches!(byte as u8, b'"' | b'\\' | b'<' | b'>' | b'&');
        byte += 1;
    }
    plain
};

fn valid_text(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut plain_from = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0x08 => b"\\b",
            0x0c => b"\\f",
            b'<' | b'>' | b'&' | 0..=0x1f => b"",
            // U+2028 and U+2029 are the only characters that begin with these three bytes.
            0xe2 if matches!(bytes.get(at + 1..at + 3), Some([0x80, 0xa8 | 0xa9])) => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[plain_from..at]);
        plain_from = at + 1;
        if !escape.is_empty() {
            out.extend_from_slice(escape);
        } else if byte == 0xe2 {
            let last = bytes.get(at + 2).map_or(0, |byte| byte & 0xf);
            let _ = write!(out, "\\u202{last:x}");
            plain_from = at + 3;
        } else {
            let _ = write!(out, "\\u{byte:04x}");
        }
    }
    out.extend_from_slice(&bytes[plain_from..]);
}

/// Appends a double; what JSON cannot express as a number becomes a text.
pub(super) fn double(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 {
            b"\"Infinity\""
        } else {
            b"\"-Infinity\""
        });
    } else {
        format_float(out, value);
    }
}

/// Appends bytes in padded base64 between quotes.
pub(super) fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(BASE64_STANDARD.encode(bytes).as_bytes());
    out.push(b'"');
}

/// Appends an integer between quotes, as 64-bit ones are written.
pub(super) fn quoted_integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.push(b'"');
    integer(out, value);
    out.push(b'"');
}

/// Appends an integer.
pub(super) fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Separates the items of a list or object.
pub(super) struct Separator(bool);

impl Separator {
    pub(super) fn new() -> Self {
        Self(false)
    }

    /// Appends a comma unless this is the first item.
    pub(super) fn next(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.0, true) {
            out.push(b',');
        }
    }
}

/// Appends a list, one item after another.
pub(super) fn list<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut item: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    let mut separator = Separator::new();
    for each in items {
        separator.next(out);
        item(out, each);
    }
    out.push(b']');
}

/// An object being written. Must be closed.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    separator: Separator,
}

impl<'a> Object<'a> {
    pub(super) fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self {
            out,
            separator: Separator::new(),
        }
    }

    /// Begins a member; the caller appends its value. `name` needs no escapes.
    pub(super) fn member(&mut self, name: &str) -> &mut Vec<u8> {
        self.separator.next(self.out);
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// Begins a member whose name comes from data.
    pub(super) fn any_member(&mut self, name: &[u8]) -> &mut Vec<u8> {
        self.separator.next(self.out);
        text(self.out, name);
        self.out.push(b':');
        self.out
    }

    /// A text, left out when empty.
    pub(super) fn text(&mut self, name: &str, value: &[u8]) {
        if !value.is_empty() {
            text(self.member(name), value);
        }
    }

    /// Bytes in base64, left out when empty.
    pub(super) fn base64(&mut self, name: &str, value: &[u8]) {
        if !value.is_empty() {
            base64(self.member(name), value);
        }
    }

    /// A 32-bit integer, left out when zero.
    pub(super) fn number(&mut self, name: &str, value: u32) {
        if value != 0 {
            integer(self.member(name), value);
        }
    }

    /// A 64-bit integer as a text, left out when zero.
    pub(super) fn long(&mut self, name: &str, value: u64) {
        if value != 0 {
            quoted_integer(self.member(name), value);
        }
    }

    /// The value of an enum by name (by number when it has none), left out when zero.
    pub(super) fn named(&mut self, name: &str, value: i32, names: &[&str]) {
        if value == 0 {
            return;
        }
        match usize::try_from(value).ok().and_then(|at| names.get(at)) {
            Some(text_of) => text(self.member(name), text_of.as_bytes()),
            None => integer(self.member(name), value),
        }
    }

    pub(super) fn close(self) {
        self.out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_as_in_go() {
        let check = |input: &[u8], want: &str| {
            let mut out = Vec::new();
            text(&mut out, input);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        };
        check(b"plain", r#""plain""#);
        check(
            b"a\"\\\n\x01<&>\x08",
            r#""a\"\\\n\u0001\u003c\u0026\u003e\b""#,
        );
        check("é\u{2028}€\u{2029}".as_bytes(), "\"é\\u2028€\\u2029\"");
        check(b"a\xffb", r#""a\ufffdb""#);
    }
}
