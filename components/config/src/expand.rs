//! `${VAR}` in the text of the configuration, for `-config.expand-env`.
//!
//! The forms are those of the library that Tempo uses, a subset of the shell's: `${V}`,
//! `${V:-default}` (also `:=` and `=`; the default counts when the variable is empty or unset),
//! `${V^}` `${V^^}` `${V,}` `${V,,}`, `${#V}`, `${V:position}` and `${V:position:length}`,
//! `${V#pattern}` `##` `%` `%%`, `${V/old/new}` `//` `/#` `/%`. A bare `$V` stays, `$$` is `$`,
//! and `\\` and `\/` lose a backslash. Defaults and arguments may hold `${…}` themselves.
//!
//! In addition `${V:default}` takes a default that is no position. A number is a default only
//! when the variable is empty, unset or too short for the position; write `:-` to be sure.

use crate::document::Mark;
use crate::error::{Error, Issue};

/// `${…}` within each other.
const MAX_EXPANSION_DEPTH: usize = 16;

/// Expands the text; `variable` answers what is set.
pub fn expand(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, Error> {
    let mut expander = Expander {
        text,
        at: 0,
        variable,
    };
    expander.text_until(None, 0).map_err(|(at, message)| {
        let before = text.get(..at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let mark = Mark {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        };
        Error::Expansion(Issue::at(mark, message))
    })
}

struct Expander<'a> {
    text: &'a str,
    at: usize,
    variable: &'a dyn Fn(&str) -> Option<String>,
}

/// What is wrong, and at which byte.
type Expanded<T> = Result<T, (usize, String)>;

impl<'a> Expander<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, prefix: &str) -> bool {
        let found = self.rest().starts_with(prefix);
        if found {
            self.at += prefix.len();
        }
        found
    }

    fn take_char(&mut self) -> Option<char> {
        let c = self.rest().chars().next()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Text up to one of the characters, or to the end of everything.
    fn text_until(&mut self, stop: Option<&[char]>, depth: usize) -> Expanded<String> {
        let mut out = String::new();
        loop {
            let rest = self.rest();
            let Some(c) = rest.chars().next() else {
                return match stop {
                    None => Ok(out),
                    Some(_) => Err((self.at, "`${` without `}`".to_owned())),
                };
            };
            if stop.is_some_and(|stop| stop.contains(&c)) {
                return Ok(out);
            }
            if self.take("${") {
                out.push_str(&self.substitution(depth)?);
            } else if self.take("$$") {
                out.push('$');
            } else if self.take("\\\\") {
                out.push('\\');
            } else if self.take("\\/") {
                out.push('/');
            } else {
                out.push(c);
                self.at += c.len_utf8();
            }
        }
    }

    /// What follows `${`, up to and including `}`.
    fn substitution(&mut self, depth: usize) -> Expanded<String> {
        let start = self.at - 2;
        if depth >= MAX_EXPANSION_DEPTH {
            let message = format!("more than {MAX_EXPANSION_DEPTH} `${{` within each other");
            return Err((start, message));
        }
        if self.take("#") {
            let name = self.name(start)?;
            let value = self.value(&name);
            return self.end(start, value.len().to_string());
        }
        let name = self.name(start)?;
        let value = self.value(&name);
        let operators = [
            ":-", ":=", ":?", ":+", "=", ":", "^^", "^", ",,", ",", "##", "#", "%%", "%", "//",
            "/#", "/%", "/",
        ];
        let operator = operators.into_iter().find(|operator| self.take(operator));
        let depth = depth + 1;
        let expanded = match operator {
            None => value,
            Some(":-" | ":=" | ":?" | ":+" | "=") => {
                let default = self.text_until(Some(&['}']), depth)?;
                if value.is_empty() { default } else { value }
            }
            Some(":") => self.position_or_default(value, depth)?,
            Some("^^") => value.to_uppercase(),
            Some("^") => first_char(&value, |c| c.to_uppercase().collect()),
            Some(",,") => value.to_lowercase(),
            Some(",") => first_char(&value, |c| c.to_lowercase().collect()),
            Some(cut @ ("##" | "#" | "%%" | "%")) => {
                let pattern = self.text_until(Some(&['}']), depth)?;
                cut_matching(&value, cut, &pattern)
            }
            Some(replace) => {
                let old = self.text_until(Some(&['/', '}']), depth)?;
                let new = if self.take("/") {
                    self.text_until(Some(&['}']), depth)?
                } else {
                    String::new()
                };
                replaced(&value, replace, &old, &new)
            }
        };
        self.end(start, expanded)
    }

    fn name(&mut self, start: usize) -> Expanded<String> {
        let rest = self.rest();
        let len = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        if len == 0 {
            return Err((start, "`${` without the name of a variable".to_owned()));
        }
        self.at += len;
        Ok(rest[..len].to_owned())
    }

    fn value(&self, name: &str) -> String {
        (self.variable)(name).unwrap_or_default()
    }

    fn end(&mut self, start: usize, value: String) -> Expanded<String> {
        match self.take_char() {
            Some('}') => Ok(value),
            Some(_) => Err((start, "a form of `${…}` that is not known".to_owned())),
            None => Err((start, "`${` without `}`".to_owned())),
        }
    }

    /// `${V:position}`, `${V:position:length}` or `${V:default}`.
    fn position_or_default(&mut self, value: String, depth: usize) -> Expanded<String> {
        let first = self.text_until(Some(&[':', '}']), depth)?;
        let Ok(position) = first.trim().parse::<i64>() else {
            let mut default = first;
            while self.take(":") {
                default.push(':');
                default.push_str(&self.text_until(Some(&[':', '}']), depth)?);
            }
            return Ok(if value.is_empty() { default } else { value });
        };
        let len = value.len() as i64;
        let from = if position < 0 {
            (len + position).max(0)
        } else {
            position
        };
        if self.take(":") {
            let count = self.text_until(Some(&['}']), depth)?;
            let Ok(count) = count.trim().parse::<i64>() else {
                return Ok(value);
            };
            return Ok(slice(&value, from, from.saturating_add(count.max(0))));
        }
        Ok(match from {
            _ if value.is_empty() => first,
            from if from < len => slice(&value, from, len),
            _ => value,
        })
    }
}

/// Bytes of the text, widened to whole characters.
fn slice(text: &str, from: i64, to: i64) -> String {
    let bound = |at: i64| {
        usize::try_from(at.max(0))
            .unwrap_or(usize::MAX)
            .min(text.len())
    };
    let bytes = text
        .as_bytes()
        .get(bound(from)..bound(to))
        .unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

fn first_char(text: &str, change: impl Fn(char) -> String) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => change(first) + chars.as_str(),
        None => String::new(),
    }
}

fn replaced(value: &str, how: &str, old: &str, new: &str) -> String {
    match how {
        "//" => value.replace(old, new),
        "/#" => match value.strip_prefix(old) {
            Some(rest) => format!("{new}{rest}"),
            None => value.to_owned(),
        },
        "/%" => match value.strip_suffix(old) {
            Some(rest) => format!("{rest}{new}"),
            None => value.to_owned(),
        },
        _ => value.replacen(old, new, 1),
    }
}

/// The value without what matches the pattern at its begin (`#`) or end (`%`): the shortest part,
/// or the longest where the sign is doubled.
fn cut_matching(value: &str, how: &str, pattern: &str) -> String {
    let pattern: Vec<char> = pattern.chars().collect();
    let chars: Vec<char> = value.chars().collect();
    let at_begin = how.starts_with('#');
    let longest = how.len() == 2;
    let lengths: Box<dyn Iterator<Item = usize>> = if longest {
        Box::new((1..=chars.len()).rev())
    } else {
        Box::new(1..=chars.len())
    };
    for len in lengths {
        let (cut, rest) = if at_begin {
            chars.split_at(len)
        } else {
            let (rest, cut) = chars.split_at(chars.len() - len);
            (cut, rest)
        };
        if matches(&pattern, cut) {
            return rest.iter().collect();
        }
    }
    value.to_owned()
}

/// Whether the whole text matches a pattern with `*`, `?` and `[…]`. Linear in the text for each
/// `*`, without recursion.
fn matches(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when nothing fits: behind the last `*`, one character later.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(p) {
            Some('*') => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            None if t == text.len() => return true,
            None => None,
            Some(_) => text.get(t).and_then(|c| one(&pattern[p..], *c)),
        };
        match (step, retry) {
            (Some(len), _) => {
                p += len;
                t += 1;
            }
            (None, Some((behind, from))) if from < text.len() => {
                retry = Some((behind, from + 1));
                (p, t) = (behind, from + 1);
            }
            (None, _) => return false,
        }
    }
}

/// How much of the pattern one character matches, if it does.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '\\' if pattern.len() > 1 => (pattern[1] == c).then_some(2),
        '[' => {
            let close = pattern.iter().skip(2).position(|c| *c == ']')? + 2;
            let (negated, set) = match pattern.get(1..close)? {
                ['!' | '^', set @ ..] => (true, set),
                set => (false, set),
            };
            let mut found = false;
            let mut rest = set;
            while let Some((low, after)) = rest.split_first() {
                if let ['-', high, after @ ..] = after {
                    found |= (*low..=*high).contains(&c);
                    rest = after;
                } else {
                    found |= *low == c;
                    rest = after;
                }
            }
            (found != negated).then_some(close + 1)
        }
        literal => (*literal == c).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<String, String> {
        let variable = |name: &str| {
            Some(
                match name {
                    "HOST" => "store.example.org",
                    "EMPTY" => "",
                    "WORD" => "tempo",
                    "PORT" => "8080",
                    "PATHS" => "/a/b/a.tar.gz",
                    _ => return None,
                }
                .to_owned(),
            )
        };
        expand(text, &variable).map_err(|error| error.to_string())
    }

    #[test]
    fn forms() {
        for (text, expanded) in [
            ("a ${HOST} b", "a store.example.org b"),
            ("$HOST ${UNSET}.", "$HOST ."),
            ("$$ $${HOST} a$b", "$ ${HOST} a$b"),
            (r"a\\b \/ \n", r"a\b / \n"),
            ("${UNSET:-x y}|${EMPTY:-d}|${WORD:-d}", "x y|d|tempo"),
            ("${UNSET:=d}|${UNSET=d}|${EMPTY=d}", "d|d|d"),
            ("${UNSET:-${WORD:-x}}", "tempo"),
            ("${UNSET:-http://a:1/b}", "http://a:1/b"),
            (
                "${WORD^} ${WORD^^} ${HOST,,} ${WORD,}",
                "Tempo TEMPO store.example.org tempo",
            ),
            ("${#WORD}${#UNSET}", "50"),
            (
                "${WORD:1} ${WORD:1:2} ${WORD:-2} ${WORD: -2}",
                "empo em tempo po",
            ),
            ("${PATHS#*/} ${PATHS##*/}", "a/b/a.tar.gz a.tar.gz"),
            ("${PATHS%.*} ${PATHS%%.*}", "/a/b/a.tar /a/b/a"),
            ("${WORD%p?} ${WORD#[a-t]} ${WORD#x}", "tem empo tempo"),
            ("${PATHS/a/x} ${PATHS//a/x}", "/x/b/a.tar.gz /x/b/x.txr.gz"),
            ("${WORD/#te/x} ${WORD/%po/x} ${WORD//e}", "xmpo temx tmpo"),
            // Defaults without a dash.
            ("${UNSET:default}|${WORD:default}", "default|tempo"),
            ("${UNSET:http://a:1}", "http://a:1"),
            ("${UNSET:3200}|${PORT:3200}", "3200|8080"),
        ] {
            assert_eq!(run(text), Ok(expanded.to_owned()), "{text}");
        }
    }

    #[test]
    fn broken_forms() {
        for (text, message) in [
            (
                "a\nb ${",
                "line 2, column 3: `${` without the name of a variable",
            ),
            ("${HOST", "line 1, column 1: `${` without `}`"),
            (
                "${HOST!}",
                "line 1, column 1: a form of `${…}` that is not known",
            ),
            ("${HOST:-a", "line 1, column 10: `${` without `}`"),
        ] {
            assert_eq!(run(text), Err(message.to_owned()), "{text}");
        }
        assert!(run(&"${A:-".repeat(1000)).is_err());
        let stars = format!("${{WORD#{}}}", "*a".repeat(500));
        assert_eq!(run(&stars), Ok("tempo".to_owned()));
    }
}
