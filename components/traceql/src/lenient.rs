//! Half-typed queries, as editors send them for completion.
//!
//! A comparison without its right side (`.b =`) becomes `true`, and a missing `}` is added; what
//! is broken in other ways stays broken. Only the text before the first `|` is repaired.

use crate::ast::Query;
use crate::error::ParseError;
use crate::lexer::Lexer;
use crate::parser;
use crate::token::{Symbol, Token};

/// The text that stands for "everything" in cache keys.
const MATCH_ALL: &str = "{}";

/// Parses a text, or what can be made of it. The query is neither validated nor rewritten.
///
/// # Errors
/// The error of the text as it was given.
pub fn parse_lenient(text: &str) -> Result<Query, ParseError> {
    parser::parse(text).or_else(|error| parser::parse(&repair(text)).map_err(|_| error))
}

/// The canonical text of a query of the autocompleter, a key for caches: everything that is no
/// filter is `{}`.
pub fn normalize(text: &str) -> String {
    let text = text.trim();
    match parse_lenient(text) {
        Ok(query) if !text.is_empty() && query.validate().is_ok() => {
            let canonical = query.to_string();
            if canonical == "{ true }" {
                MATCH_ALL.to_owned()
            } else {
                canonical
            }
        }
        _ => MATCH_ALL.to_owned(),
    }
}

/// A token and its bytes in the text.
struct Word {
    token: Token,
    start: usize,
    end: usize,
}

impl Word {
    fn symbol(&self) -> Option<Symbol> {
        match self.token {
            Token::Symbol(symbol) => Some(symbol),
            _ => None,
        }
    }
}

fn repair(text: &str) -> String {
    let (text, words) = words(text);
    let count = |symbol: Symbol| {
        words
            .iter()
            .filter(|word| word.symbol() == Some(symbol))
            .count()
    };
    let open_braces = count(Symbol::OpenBrace).saturating_sub(count(Symbol::CloseBrace));
    let filter_len = words
        .iter()
        .position(|word| word.symbol() == Some(Symbol::Pipe))
        .unwrap_or(words.len());
    let filter = words.get(..filter_len).unwrap_or(&words);

    let mut repaired = String::with_capacity(text.len() + 16);
    let mut copied = 0;
    let mut index = 0;
    while let Some(rest) = filter.get(index..).filter(|rest| !rest.is_empty()) {
        let Some(attribute_len) = attribute_len(rest) else {
            index += 1;
            continue;
        };
        let operator = rest.get(attribute_len).filter(|word| is_comparison(word));
        let Some(operator) = operator else {
            index += 1;
            continue;
        };
        if rest.get(attribute_len + 1).is_none_or(is_terminator) {
            let start = rest.first().map_or(copied, |word| word.start);
            repaired.push_str(text.get(copied..start).unwrap_or_default());
            repaired.push_str(" true ");
            copied = operator.end;
        }
        index += attribute_len + 1;
    }
    let end = words.last().map_or(0, |word| word.end);
    repaired.push_str(text.get(copied..end).unwrap_or_default());
    repaired.extend(std::iter::repeat_n(" }", open_braces));
    repaired
}

/// The tokens up to the first that can't be told.
fn words(text: &str) -> (&str, Vec<Word>) {
    let mut lexer = Lexer::new(text);
    let mut words = Vec::new();
    loop {
        let in_attribute = lexer.is_in_attribute();
        let before = lexer.offset();
        // Complaints about a token that ends nevertheless do not matter here.
        let (token, _) = lexer.next_lenient();
        match token {
            Token::End => return (lexer.text(), words),
            Token::EndAttribute => {}
            token => words.push(Word {
                token,
                start: if in_attribute {
                    before
                } else {
                    lexer.token_start()
                },
                end: lexer.offset(),
            }),
        }
    }
}

/// How many words the attribute or intrinsic has that the words start with, if they do.
fn attribute_len(words: &[Word]) -> Option<usize> {
    let first = words.first()?;
    let scopes = match (first.symbol(), words.get(1).and_then(Word::symbol)) {
        (Some(Symbol::ParentDot), Some(Symbol::SpanDot | Symbol::ResourceDot)) => 2,
        (Some(symbol), _) if symbol.starts_attribute() || symbol.starts_scoped_intrinsic() => 1,
        (Some(symbol), _) if symbol.is_intrinsic() => 0,
        (None, _) if matches!(first.token, Token::Identifier(_)) => 0,
        _ => return None,
    };
    Some(scopes + 1)
}

fn is_comparison(word: &Word) -> bool {
    matches!(
        word.symbol(),
        Some(
            Symbol::Equal
                | Symbol::NotEqual
                | Symbol::Less
                | Symbol::LessEqual
                | Symbol::Greater
                | Symbol::GreaterEqual
                | Symbol::Regex
                | Symbol::NotRegex
        )
    )
}

/// Whether the word shows that nothing stands before it.
fn is_terminator(word: &Word) -> bool {
    matches!(
        word.symbol(),
        Some(Symbol::CloseBrace | Symbol::CloseParens | Symbol::And | Symbol::Or)
    )
}
