//! Regular expressions as Tempo reads them.
//!
//! Patterns are in RE2's syntax as Go implements it, match the whole string, and `.` matches a
//! newline. The `regex` crate reads almost the same syntax; this module rewrites what differs:
//! braces that are no repetition (`/users/{id}` is common in routes), character classes (in Go
//! `[` and `&&` are plain there), classes and word boundaries that Go keeps to ASCII, octal
//! escapes and `\Q…\E`.

use std::fmt::Write;

/// The largest repetition count that Go accepts.
const MAX_REPETITIONS: u32 = 1000;
/// Parentheses in a pattern; the compiler recurses over them.
const MAX_PATTERN_NESTING_DEPTH: u32 = 250;
/// Text of a pattern. Before its size is known, a class of letters takes a thousand times its text.
const MAX_PATTERN_BYTES: usize = 32 * 1024;
/// What a compiled pattern may take, from what nearly all need to what a list of 500 ids of 36
/// characters needs. A pattern is compiled for the first that suffices.
const COMPILED_PATTERN_BYTES: [usize; 3] = [32 * 1024, 512 * 1024, 4 * 1024 * 1024];

/// A compiled pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    regex: regex::Regex,
    max_compiled_bytes: usize,
}

/// The pattern does not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid regex: {reason}")]
pub struct PatternError {
    reason: String,
    /// A limit of ours is to blame, not the syntax.
    pub(crate) is_too_large: bool,
}

impl PatternError {
    fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            is_too_large: false,
        }
    }

    fn too_large(reason: String) -> Self {
        Self {
            reason,
            is_too_large: true,
        }
    }
}

impl Pattern {
    /// Compiles a pattern.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(PatternError::too_large(format!(
                "expression is longer than {MAX_PATTERN_BYTES} bytes"
            )));
        }
        let pattern = anchored(pattern)?;
        let mut too_large = PatternError::new("");
        for max_compiled_bytes in COMPILED_PATTERN_BYTES {
            match compile(&pattern, max_compiled_bytes) {
                Ok(regex) => {
                    return Ok(Self {
                        regex,
                        max_compiled_bytes,
                    });
                }
                Err(regex::Error::CompiledTooBig(limit)) => {
                    too_large = PatternError::too_large(format!(
                        "expression takes more than {limit} bytes when compiled; repeat less, or \
                         classes with fewer characters"
                    ));
                }
                Err(error) => return Err(PatternError::new(error.to_string())),
            }
        }
        Err(too_large)
    }

    /// Bytes that the compiled expression does not exceed.
    pub fn max_compiled_bytes(&self) -> usize {
        self.max_compiled_bytes
    }

    /// Whether the whole text matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The compiled expression, anchored at both ends.
    pub fn regex(&self) -> &regex::Regex {
        &self.regex
    }
}

fn compile(pattern: &str, max_bytes: usize) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(pattern)
        .nest_limit(MAX_PATTERN_NESTING_DEPTH + 2)
        .size_limit(max_bytes)
        .build()
}

/// The pattern in the syntax of the `regex` crate, anchored at both ends.
pub fn anchored(pattern: &str) -> Result<String, PatternError> {
    Ok(format!("^(?s:{})$", translate(pattern)?))
}

/// The pattern in the syntax of the `regex` crate.
fn translate(pattern: &str) -> Result<String, PatternError> {
    let mut translator = Translator {
        rest: pattern,
        out: String::with_capacity(pattern.len() + 16),
    };
    translator.run()?;
    Ok(translator.out)
}

struct Translator<'a> {
    rest: &'a str,
    out: String,
}

impl Translator<'_> {
    fn run(&mut self) -> Result<(), PatternError> {
        let mut depth: u32 = 0;
        // Go refuses `a**` and `a{2}{3}`.
        let mut after_repetition = false;
        while let Some(c) = self.take() {
            let mut is_repetition = false;
            match c {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '{' => match self.repetition()? {
                    Some(repetition) => {
                        is_repetition = true;
                        self.out.push_str(&repetition);
                    }
                    None => self.out.push_str("\\{"),
                },
                '}' => self.out.push_str("\\}"),
                '*' | '+' | '?' => {
                    is_repetition = true;
                    self.out.push(c);
                }
                '(' => {
                    depth += 1;
                    if depth > MAX_PATTERN_NESTING_DEPTH {
                        return Err(PatternError::new("expression nests too deeply"));
                    }
                    self.out.push('(');
                    if let Some(flags) = self.rest.strip_prefix('?') {
                        self.group_flags(flags)?;
                    }
                }
                ')' => {
                    // Unbalanced here, it would close the group that anchors the pattern.
                    depth = depth
                        .checked_sub(1)
                        .ok_or_else(|| PatternError::new("unexpected )"))?;
                    self.out.push(')');
                }
                c => self.out.push(c),
            }
            if is_repetition {
                if after_repetition {
                    return Err(PatternError::new("invalid nested repetition operator"));
                }
                if self.rest.starts_with('?') {
                    self.take();
                    self.out.push('?');
                }
            }
            after_repetition = is_repetition;
        }
        if depth > 0 {
            return Err(PatternError::new("missing closing )"));
        }
        Ok(())
    }

    fn take(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn take_if(&mut self, accept: impl Fn(char) -> bool) -> Option<char> {
        let c = self.rest.chars().next().filter(|c| accept(*c))?;
        self.take();
        Some(c)
    }

    /// Go knows the flags `imsU`, and names; look-around and comments do not exist.
    fn group_flags(&mut self, flags: &str) -> Result<(), PatternError> {
        if flags.starts_with("P<") || flags.starts_with('<') {
            return Ok(());
        }
        let end = flags
            .find([':', ')'])
            .ok_or_else(|| PatternError::new("missing argument to group"))?;
        if flags[..end].chars().all(|c| "imsU-".contains(c)) {
            Ok(())
        } else {
            Err(PatternError::new("invalid or unsupported Perl syntax"))
        }
    }

    /// What follows `{`, when it is a repetition.
    fn repetition(&mut self) -> Result<Option<String>, PatternError> {
        let Some((body, after)) = self.rest.split_once('}') else {
            return Ok(None);
        };
        let (low, high) = match body.split_once(',') {
            None => (body, Some(body)),
            Some((low, "")) => (low, None),
            Some((low, high)) => (low, Some(high)),
        };
        let is_count = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|b| b.is_ascii_digit())
                && (text == "0" || !text.starts_with('0'))
        };
        if !is_count(low) || !high.is_none_or(is_count) {
            return Ok(None);
        }
        let count = |text: &str| text.parse::<u32>().ok().filter(|n| *n <= MAX_REPETITIONS);
        let invalid = || PatternError::new(format!("invalid repeat count: {{{body}}}"));
        let low = count(low).ok_or_else(invalid)?;
        if let Some(high) = high
            && count(high).is_none_or(|high| high < low)
        {
            return Err(invalid());
        }
        let repetition = format!("{{{body}}}");
        self.rest = after;
        Ok(Some(repetition))
    }

    fn escape(&mut self) -> Result<(), PatternError> {
        let trailing = || PatternError::new("trailing backslash at end of expression");
        let c = self.take().ok_or_else(trailing)?;
        match c {
            'Q' => {
                let literal = match self.rest.split_once("\\E") {
                    Some((literal, after)) => {
                        self.rest = after;
                        literal
                    }
                    None => std::mem::take(&mut self.rest),
                };
                self.out.push_str(&regex::escape(literal));
            }
            'A' => self.out.push_str("\\A"),
            'z' => self.out.push_str("\\z"),
            'b' => self.out.push_str("(?-u:\\b)"),
            'B' => self.out.push_str("(?-u:\\B)"),
            'd' => self.out.push_str("[0-9]"),
            'D' => self.out.push_str("[^0-9]"),
            'w' => self.out.push_str("[0-9A-Za-z_]"),
            'W' => self.out.push_str("[^0-9A-Za-z_]"),
            's' => self.out.push_str("[\\t\\n\\x0C\\r ]"),
            'S' => self.out.push_str("[^\\t\\n\\x0C\\r ]"),
            'p' | 'P' => self.unicode_class(c)?,
            c => {
                let literal = self.escaped_char(c)?;
                push_literal(&mut self.out, literal);
            }
        }
        Ok(())
    }

    /// The character behind a backslash, where it is one.
    fn escaped_char(&mut self, c: char) -> Result<char, PatternError> {
        let invalid = || PatternError::new(format!("invalid escape sequence: \\{c}"));
        Ok(match c {
            'a' => '\u{7}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            // Octal; one digit but zero would be a back reference, which does not exist.
            '1'..='7' if !self.rest.starts_with(|c| ('0'..='7').contains(&c)) => {
                return Err(invalid());
            }
            '0'..='7' => {
                let mut code = c.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    match self.take_if(|c| c.is_digit(8)) {
                        Some(digit) => code = code * 8 + digit.to_digit(8).unwrap_or(0),
                        None => break,
                    }
                }
                char::from_u32(code).ok_or_else(invalid)?
            }
            'x' => {
                let code = if self.take_if(|c| c == '{').is_some() {
                    let (digits, after) = self.rest.split_once('}').ok_or_else(invalid)?;
                    self.rest = after;
                    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                        return Err(invalid());
                    }
                    u32::from_str_radix(digits, 16).map_err(|_| invalid())?
                } else {
                    let mut code = 0;
                    for _ in 0..2 {
                        let digit = self
                            .take_if(|c| c.is_ascii_hexdigit())
                            .and_then(|c| c.to_digit(16))
                            .ok_or_else(invalid)?;
                        code = code * 16 + digit;
                    }
                    code
                };
                char::from_u32(code).ok_or_else(invalid)?
            }
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => c,
            _ => return Err(invalid()),
        })
    }

    /// `\pN`, `\p{Greek}`, `\p{^Greek}`.
    fn unicode_class(&mut self, p: char) -> Result<(), PatternError> {
        let invalid = || PatternError::new("invalid character class range");
        let name: String = match self.take().ok_or_else(invalid)? {
            '{' => {
                let (name, after) = self.rest.split_once('}').ok_or_else(invalid)?;
                self.rest = after;
                name.to_owned()
            }
            letter => letter.to_string(),
        };
        let (negated, name) = match name.strip_prefix('^') {
            Some(name) => (p == 'p', name),
            None => (p == 'P', &*name),
        };
        // Properties by value (`sc=Greek`) are not Go's.
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(invalid());
        }
        let p = if negated { 'P' } else { 'p' };
        match name {
            "Any" if negated => self.out.push_str("[^\\x{0}-\\x{10FFFF}]"),
            "Any" => self.out.push_str("[\\x{0}-\\x{10FFFF}]"),
            name => write!(self.out, "\\{p}{{{name}}}").unwrap_or_default(),
        }
        Ok(())
    }

    /// What follows `[`.
    fn class(&mut self) -> Result<(), PatternError> {
        let missing = || PatternError::new("missing closing ]");
        self.out.push('[');
        if self.take_if(|c| c == '^').is_some() {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            if !first && self.take_if(|c| c == ']').is_some() {
                self.out.push(']');
                return Ok(());
            }
            first = false;
            if let Some(end) = self
                .rest
                .strip_prefix("[:")
                .and_then(|rest| rest.find(":]"))
            {
                let class = &self.rest[..end + 4];
                self.out.push_str(class);
                self.rest = &self.rest[end + 4..];
                continue;
            }
            let c = self.take().ok_or_else(missing)?;
            if c == '\\' {
                let escaped = self.take().ok_or_else(missing)?;
                let class = match escaped {
                    'd' => "0-9",
                    'D' => "[^0-9]",
                    'w' => "0-9A-Za-z_",
                    'W' => "[^0-9A-Za-z_]",
                    's' => "\\t\\n\\x0C\\r\\x20",
                    'S' => "[^\\t\\n\\x0C\\r\\x20]",
                    'p' | 'P' => {
                        self.unicode_class(escaped)?;
                        continue;
                    }
                    _ => {
                        let low = self.escaped_char(escaped)?;
                        self.range_from(low)?;
                        continue;
                    }
                };
                self.out.push_str(class);
            } else {
                self.range_from(c)?;
            }
        }
    }

    /// A character of a class, or the range that it starts.
    fn range_from(&mut self, low: char) -> Result<(), PatternError> {
        push_literal(&mut self.out, low);
        let is_range = self.rest.starts_with('-') && !self.rest.starts_with("-]");
        if !is_range {
            return Ok(());
        }
        self.take();
        let missing = || PatternError::new("missing closing ]");
        let high = match self.take().ok_or_else(missing)? {
            '\\' => {
                let escaped = self.take().ok_or_else(missing)?;
                self.escaped_char(escaped)?
            }
            c => c,
        };
        if high < low {
            return Err(PatternError::new("invalid character class range"));
        }
        self.out.push('-');
        push_literal(&mut self.out, high);
        Ok(())
    }
}

/// A character that stands for itself, within a class or outside.
fn push_literal(out: &mut String, c: char) {
    if c.is_alphanumeric() {
        out.push(c);
    } else {
        write!(out, "\\x{{{:X}}}", u32::from(c)).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, matching: &[&str], other: &[&str]) {
        let compiled = Pattern::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        for text in matching {
            assert!(compiled.is_match(text), "{pattern} should match {text}");
        }
        for text in other {
            assert!(
                !compiled.is_match(text),
                "{pattern} should not match {text}"
            );
        }
    }

    #[test]
    fn matches_whole_strings() {
        check("a.c", &["abc", "a\nc"], &["xabc", "abcx"]);
        check("a|b", &["a", "b"], &["ab", "ac"]);
        check("", &[""], &["a"]);
        check("^a$", &["a"], &["ab"]);
        check("(?i)GET", &["get", "GET"], &["gets"]);
        check("(?m)^a$", &["a"], &["a\nb"]);
    }

    #[test]
    fn braces_that_are_no_repetition() {
        check("/users/{id}", &["/users/{id}"], &["/users/id"]);
        check("a{2,3}", &["aa", "aaa"], &["a", "aaaa"]);
        check("a{2,}", &["aa", "aaaaa"], &["a"]);
        check("a{,2}", &["a{,2}"], &["a", "aa"]);
        check("{", &["{"], &[]);
        check("}", &["}"], &[]);
        check("x{01}", &["x{01}"], &["x"]);
    }

    #[test]
    fn classes_are_those_of_go() {
        check(r"\d+", &["12"], &["\u{661}"]);
        check(r"\w", &["a", "_"], &["é", "-"]);
        check(r"\S\s", &["x\t", "é "], &["x\u{a0}"]);
        check(r"[\d\-x]", &["1", "-", "x"], &["\\", "y"]);
        check("[a&&b]", &["a", "&", "b"], &["c"]);
        check("[[a]", &["[", "a"], &["b"]);
        check("[+--]", &["+", ",", "-"], &["."]);
        check("[]a]", &["]", "a"], &["b"]);
        check("[^]a]", &["b"], &["]", "a"]);
        check("[[:alpha:]~~]", &["q", "~"], &["1", ":"]);
        check("[^[:^digit:]]", &["1"], &["a"]);
        check(r"[\x41-\x{43}]", &["A", "C"], &["D"]);
        check("[a-]", &["a", "-"], &["b"]);
        check(r"\pL\p{Greek}\p{^Greek}", &["aβc"], &["aβγ"]);
    }

    #[test]
    fn escapes_are_those_of_go() {
        check(r"\Qa.b*\E.", &["a.b*x"], &["aab*x"]);
        check(r"\Q{", &["{"], &[]);
        check(r"\101\x42\x{43}", &["ABC"], &[]);
        check(r"a\/b\_\<\-", &["a/b_<-"], &[]);
        check(r"foo\b.*", &["foo bar", "fooé"], &["foobar"]);
        check(r"a\B.", &["ab"], &["a-"]);
        check(r"\bé", &[], &["é"]);
    }

    #[test]
    fn refused_patterns() {
        for pattern in [
            "[",
            "(",
            ")",
            "a)(b",
            "*",
            "a**",
            "a{2}{3}",
            "a{1001}",
            "a{3,2}",
            r"\",
            r"\8",
            r"\1",
            r"\Z",
            r"\C",
            r"\p{Nope}",
            r"\p{sc=Greek}",
            "(?x)a",
            "(?=a)",
            "(?#c)",
            "[b-a]",
            "[a--b]",
            "[a",
            "(?",
            r"\xZZ",
            "(?P<n>a",
            "(?P<>a)",
        ] {
            assert!(
                Pattern::new(pattern).is_err(),
                "{pattern} should be refused"
            );
        }
        assert!(Pattern::new(&"(".repeat(20_000)).is_err());
    }

    #[test]
    fn what_takes_much_when_compiled_is_refused() {
        let error = Pattern::new(r"\pL{200}").unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid regex: expression takes more than 4194304 bytes when compiled; repeat less, \
             or classes with fewer characters"
        );
        let error = Pattern::new(&r"\pL".repeat(20_000)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid regex: expression is longer than 32768 bytes"
        );
        let common = Pattern::new(r"GET /[a-z]+/\d+|POST .*").unwrap();
        assert_eq!(common.max_compiled_bytes(), COMPILED_PATTERN_BYTES[0]);
        // What people write.
        let ids: Vec<String> = (0..500_u64)
            .map(|n| {
                let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                format!(
                    "{:08x}-{:04x}-4000-8000-{n:012x}",
                    n >> 32,
                    n >> 16 & 0xffff
                )
            })
            .collect();
        check(&ids.join("|"), &[&ids[7]], &["x"]);
        check(".{1,255}", &["é"], &[""]);
        check(
            r"(?i)get /[\pL\pN_-]{1,8}/\d{1,20}",
            &["GET /ünit/7"],
            &["GET //7"],
        );
    }
}
