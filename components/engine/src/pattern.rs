//! Patterns on texts.
//!
//! Most patterns that people write are texts with `.*` in between. Those need no regular
//! expression: `.*` matches anything, so it suffices to find the texts in their order.

use std::sync::Arc;

use hashbrown::HashMap;
use memchr::memmem::Finder;
use tempo_traceql::{Pattern, PatternError};

use crate::error::PlanError;

/// A pattern that a whole text matches or not.
#[derive(Debug, Clone)]
pub(crate) enum TextPattern {
    /// Texts with gaps in between.
    Gapped(Gapped),
    /// Anything else.
    Regex(Pattern),
}

/// The compiled patterns of a query, together.
const MAX_COMPILED_BYTES_PER_QUERY: usize = 16 * 1024 * 1024;

/// The patterns of a query: each is compiled once, however many tests have it.
#[derive(Default)]
pub(crate) struct Patterns {
    known: HashMap<Box<str>, Arc<TextPattern>, foldhash::fast::RandomState>,
    compiled_bytes: usize,
}

impl Patterns {
    pub(crate) fn get(&mut self, pattern: &str) -> Result<Arc<TextPattern>, PlanError> {
        if let Some(known) = self.known.get(pattern) {
            return Ok(Arc::clone(known));
        }
        let compiled = Arc::new(TextPattern::new(pattern)?);
        if let TextPattern::Regex(regex) = &*compiled {
            self.compiled_bytes += regex.max_compiled_bytes();
        }
        if self.compiled_bytes > MAX_COMPILED_BYTES_PER_QUERY {
            return Err(PlanError::TooManyPatterns {
                limit_bytes: MAX_COMPILED_BYTES_PER_QUERY,
            });
        }
        self.known.insert(pattern.into(), Arc::clone(&compiled));
        Ok(compiled)
    }
}

/// Texts in a given order, with gaps in between.
#[derive(Debug, Clone)]
pub(crate) struct Gapped {
    prefix: Box<[u8]>,
    /// Each with the gap before it.
    inner: Vec<(Gap, Finder<'static>)>,
    /// With the gap before it; `None` when the prefix is all there is.
    suffix: Option<(Gap, Box<[u8]>)>,
}

/// `.*` or `.+`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    Any,
    /// At least one character.
    Some,
}

impl TextPattern {
    pub(crate) fn new(pattern: &str) -> Result<Self, PatternError> {
        // Compiles in any case: what is no pattern must not pass for a text.
        let regex = Pattern::new(pattern)?;
        Ok(match Gapped::new(pattern) {
            Some(gapped) => Self::Gapped(gapped),
            None => Self::Regex(regex),
        })
    }

    pub(crate) fn is_match(&self, text: &[u8]) -> bool {
        match self {
            Self::Gapped(gapped) => gapped.is_match(text),
            Self::Regex(regex) => regex.is_match(&String::from_utf8_lossy(text)),
        }
    }
}

impl TextPattern {
    /// A text without which nothing matches, when searching for it in many texts at once is worth
    /// it.
    pub(crate) fn needle(&self) -> Option<&Finder<'static>> {
        match self {
            Self::Gapped(gapped) => gapped
                .inner
                .iter()
                .map(|(_, finder)| finder)
                .max_by_key(|finder| finder.needle().len())
                .filter(|finder| !finder.needle().is_empty()),
            Self::Regex(_) => None,
        }
    }
}

impl Gapped {
    /// `None` when the pattern is more than texts and gaps.
    fn new(pattern: &str) -> Option<Self> {
        let mut texts = vec![String::new()];
        let mut gaps = Vec::new();
        let mut rest = pattern.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '.' => {
                    gaps.push(match rest.next()? {
                        '*' => Gap::Any,
                        '+' => Gap::Some,
                        _ => return None,
                    });
                    // `.**` is no pattern, `.*?` is none of ours.
                    if matches!(rest.peek(), Some('*' | '+' | '?' | '{')) {
                        return None;
                    }
                    texts.push(String::new());
                }
                '\\' => match rest.next()? {
                    c if c.is_ascii_punctuation() => texts.last_mut()?.push(c),
                    _ => return None,
                },
                '^' | '$' | '|' | '(' | ')' | '[' | ']' | '{' | '}' | '*' | '+' | '?' => {
                    return None;
                }
                c => texts.last_mut()?.push(c),
            }
            // A repeated character is no text.
            if c != '.' && matches!(rest.peek(), Some('*' | '+' | '?' | '{')) {
                return None;
            }
        }
        let bytes = |text: &String| text.as_bytes().into();
        let last = gaps.len();
        Some(Self {
            prefix: bytes(texts.first()?),
            inner: gaps
                .iter()
                .zip(&texts[1..])
                .take(last.saturating_sub(1))
                .map(|(&gap, text)| (gap, Finder::new(text.as_bytes()).into_owned()))
                .collect(),
            suffix: gaps.last().map(|&gap| (gap, bytes(&texts[last]))),
        })
    }

    fn is_match(&self, text: &[u8]) -> bool {
        let Some(rest) = text.strip_prefix(&*self.prefix) else {
            return false;
        };
        let Some((last_gap, suffix)) = &self.suffix else {
            return rest.is_empty();
        };
        let Some(mut rest) = rest.strip_suffix(&**suffix) else {
            return false;
        };
        // The first place where a text is found leaves the most for those that follow.
        for (gap, finder) in &self.inner {
            let Some(behind) = gap.skip(rest) else {
                return false;
            };
            let Some(at) = finder.find(behind) else {
                return false;
            };
            rest = &behind[at + finder.needle().len()..];
        }
        last_gap.skip(rest).is_some()
    }
}

impl Gap {
    /// What is left behind the least that the gap takes.
    fn skip(self, text: &[u8]) -> Option<&[u8]> {
        if self == Self::Any {
            return Some(text);
        }
        let (_, rest) = text.split_first()?;
        let continuation = rest.iter().take_while(|&&byte| byte & 0xc0 == 0x80).count();
        Some(&rest[continuation..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_with_gaps_agree_with_the_regular_expression() {
        let patterns = [
            "",
            "a",
            "ab",
            ".*",
            ".+",
            "a.*",
            "a.+",
            ".*a",
            ".+a",
            ".*a.*",
            ".+a.+",
            "a.*b",
            "a.+b",
            ".*a.*b.*",
            "a.*a",
            "a.+a",
            "ab.*ab",
            ".*ab.+ab.*",
            "a.*.*b",
            "a.+.+b",
            "ä.*",
            "ä.+",
            ".+ä.+",
            "a\\.b",
            "a\\.*",
            ".*\\|.*",
        ];
        let texts = [
            "", "a", "b", "ab", "ba", "aa", "aba", "abab", "abxab", "xaxbx", "a\nb", "ä", "äa",
            "aä", "aäb", "xäx", "a.b", "a.", "a|b", "|", "aab", "abb", "aaaa",
        ];
        for pattern in patterns {
            let compiled = TextPattern::new(pattern).unwrap();
            assert_eq!(
                matches!(compiled, TextPattern::Gapped(_)),
                pattern != "a\\.*",
                "{pattern}"
            );
            let regex = Pattern::new(pattern).unwrap();
            for text in texts {
                assert_eq!(
                    compiled.is_match(text.as_bytes()),
                    regex.is_match(text),
                    "{pattern} on {text:?}"
                );
            }
        }
    }

    #[test]
    fn a_pattern_is_compiled_once() {
        let mut patterns = Patterns::default();
        let first = patterns.get("a|b").unwrap();
        assert!(Arc::ptr_eq(&first, &patterns.get("a|b").unwrap()));
        assert!(!Arc::ptr_eq(&first, &patterns.get("a|c").unwrap()));
        assert!(patterns.get("(").is_err());
    }

    #[test]
    fn what_a_query_compiles_is_bounded() {
        let large = |number: usize| format!(r"\pL{{10}}x{number}");
        let mut patterns = Patterns::default();
        let error = (0..1_000).find_map(|number| {
            // The same again takes no room.
            patterns.get(&large(0)).unwrap();
            patterns.get(&large(number)).err()
        });
        assert!(
            matches!(error, Some(PlanError::TooManyPatterns { .. })),
            "{error:?}"
        );
        let mut patterns = Patterns::default();
        for number in 0..100 {
            patterns.get(&format!("a|{number}")).unwrap();
        }
    }

    #[test]
    fn other_patterns_stay_regular_expressions() {
        for pattern in [
            "a|b", "(a)", "[ab]", "a.b", "a?", "ab*", "a{2}", "^a", "a$", "\\d", ".*?a", "a+.*",
            "(?i)a", "{id}", ".",
        ] {
            assert!(Gapped::new(pattern).is_none(), "{pattern}");
        }
        assert!(TextPattern::new("a**").is_err());
        assert!(TextPattern::new("(").is_err());
    }
}
