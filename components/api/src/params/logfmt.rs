//! The `tags` parameter: `key=value key="quoted value" bare`, as logfmt.

use std::collections::HashMap;

use crate::BadRequest;

/// Reads logfmt pairs; a bare key has the empty value. Errors name the position within the line.
pub fn parse_tags(text: &str) -> Result<HashMap<String, String>, BadRequest> {
    let mut tags = HashMap::new();
    for line in text.lines() {
        let mut scanner = Scanner {
            line: line.as_bytes(),
            at: 0,
        };
        while let Some((key, value)) = scanner.pair()? {
            if tags.contains_key(&key) {
                return Err(BadRequest::new(format!(
                    "invalid tags: tag {key} has been set twice"
                )));
            }
            tags.insert(key, value);
        }
    }
    Ok(tags)
}

struct Scanner<'a> {
    line: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }

    fn fail(&self, what: &str) -> BadRequest {
        BadRequest::new(format!("invalid tags: {what} at pos {}", self.at + 1))
    }

    fn unexpected(&self, byte: u8) -> BadRequest {
        self.fail(&format!("unexpected '{}'", byte as char))
    }

    fn pair(&mut self) -> Result<Option<(String, String)>, BadRequest> {
        while self.peek().is_some_and(|byte| byte <= b' ') {
            self.at += 1;
        }
        if self.peek().is_none() {
            return Ok(None);
        }
        let key = self.bare(b'"')?;
        if self.peek() != Some(b'=') {
            return Ok(Some((key, String::new())));
        }
        if key.is_empty() {
            return Err(self.unexpected(b'='));
        }
        self.at += 1;
        let value = match self.peek() {
            Some(b'"') => self.quoted()?,
            _ => {
                let value = self.bare(b'"')?;
                if let Some(byte @ b'=') = self.peek() {
                    return Err(self.unexpected(byte));
                }
                value
            }
        };
        Ok(Some((key, value)))
    }

    /// Text up to a space or an `=`; `forbidden` may not occur.
    fn bare(&mut self, forbidden: u8) -> Result<String, BadRequest> {
        let start = self.at;
        while let Some(byte) = self.peek() {
            if byte == forbidden {
                return Err(self.unexpected(byte));
            }
            if byte <= b' ' || byte == b'=' {
                break;
            }
            self.at += 1;
        }
        Ok(String::from_utf8_lossy(&self.line[start..self.at]).into_owned())
    }

    /// Text between double quotes, with JSON's escapes.
    fn quoted(&mut self) -> Result<String, BadRequest> {
        let start = self.at;
        let mut escaped = false;
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    return serde_json::from_slice(&self.line[start..self.at])
                        .map_err(|_| self.fail("invalid quoted value"));
                }
                _ => {}
            }
        }
        Err(self.fail("unterminated quoted value"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_bare_keys_and_quotes() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            (
                "service.name=foo http.url=api/search",
                &[("service.name", "foo"), ("http.url", "api/search")],
            ),
            ("service%n@me=foo", &[("service%n@me", "foo")]),
            (
                "service.name=foo error",
                &[("service.name", "foo"), ("error", "")],
            ),
            ("service.name=\"foo bar\"", &[("service.name", "foo bar")]),
            ("service.name=\"foo=bar\"", &[("service.name", "foo=bar")]),
            (
                "service.name=\"foo\\bar\"",
                &[("service.name", "foo\u{8}ar")],
            ),
            (
                "service.name=\"foo \\\"bar\\\"\"",
                &[("service.name", "foo \"bar\"")],
            ),
            ("a= b=", &[("a", ""), ("b", "")]),
            ("", &[]),
        ];
        for (text, want) in cases {
            let want: HashMap<String, String> = want
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect();
            assert_eq!(parse_tags(text).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn errors_name_the_position() {
        for (text, want) in [
            ("service.name=foo =error", "unexpected '=' at pos 18"),
            ("service.name=foo=bar", "unexpected '=' at pos 17"),
            (
                "service.name=\"foo bar",
                "unterminated quoted value at pos 22",
            ),
            ("\"service name\"=foo", "unexpected '\"' at pos 1"),
            (
                "service.name=foo service.name=bar",
                "tag service.name has been set twice",
            ),
            ("a=\"\\q\"", "invalid quoted value at pos 7"),
        ] {
            assert_eq!(
                parse_tags(text),
                Err(BadRequest(format!("invalid tags: {want}"))),
                "{text}"
            );
        }
    }
}
