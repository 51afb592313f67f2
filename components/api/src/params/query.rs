//! The query part of a URL.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The parameters of a URL, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryParams {
    pairs: Vec<(String, String)>,
}

impl QueryParams {
    /// Reads what follows the `?` of a URL. Like Tempo's server it drops pairs that are not
    /// properly escaped or hold a `;`, instead of refusing the request.
    pub fn parse(query: &str) -> Self {
        let pairs = query
            .split('&')
            .filter(|pair| !pair.is_empty() && !pair.contains(';'))
            .filter_map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((unescape(name)?, unescape(value)?))
            })
            .collect();
        Self { pairs }
    }

    /// The value of a parameter: the first one if it is repeated; an empty one is absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }
}

/// Undoes form escaping; `None` when a `%` is not followed by two hexadecimal digits.
fn unescape(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let proper = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'%')
        .all(|(at, _)| {
            bytes
                .get(at + 1..at + 3)
                .is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
        });
    if !proper {
        return None;
    }
    let spaced = if text.contains('+') {
        Cow::Owned(text.replace('+', " "))
    } else {
        Cow::Borrowed(text)
    };
    Some(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_counts_and_empty_is_absent() {
        let params = QueryParams::parse("q=%7B+%7D&limit=&limit=5&start=1&start=2&bad=%zz&a;b=1&x");
        assert_eq!(params.get("q"), Some("{ }"));
        assert_eq!(params.get("limit"), None);
        assert_eq!(params.get("start"), Some("1"));
        assert_eq!(params.get("bad"), None);
        assert_eq!(params.get("a;b"), None);
        assert_eq!(params.get("x"), None);
        assert_eq!(QueryParams::parse("").get("q"), None);
    }
}
