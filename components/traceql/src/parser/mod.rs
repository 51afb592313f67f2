//! Tokens to syntax tree.
//!
//! Recursive descent with operator precedence. Tempo's parser is a table made from an ambiguous
//! grammar, and what the table accepts, where it stops and which tokens it then names is what
//! users see; so this parser decides at the same tokens: an opening parenthesis carries the set
//! of things that may stand inside ([`item::Allowed`]), and errors list the expected tokens
//! wherever Tempo lists them (at most four).

mod field;
mod item;
mod metrics;
mod pipeline;

use std::sync::Arc;

use crate::ast::{Attribute, Intrinsic, Kind, Query, Scope, Static, Status};
use crate::error::ParseError;
use crate::hints::Hints;
use crate::lexer::Lexer;
use crate::token::{Symbol, Token};

/// Operands behind an operator (`a ^ (b ^ c)`, `!!a`, `a || (b && c)`) within each other. What
/// stands before an operator counts no deeper, in however many parentheses: those are read in a
/// loop, and a chain of `n` operators starts with `n − 1` of them in canonical text. So the
/// canonical text of a query is never deeper than the text that the query came from.
pub const MAX_NESTING_DEPTH: usize = 128;
/// Height of the syntax tree: the longest chain of `a + b + c`, each operator being one level.
/// Chains of one `&&` or `||` are one level, however long.
pub const MAX_TREE_DEPTH: usize = 1024;
/// Regular expressions of a query: of each there is a compiled form in memory.
pub const MAX_PATTERNS_PER_QUERY: usize = 100;

type Result<T> = std::result::Result<T, ParseError>;

/// Parses a text without checking that it makes sense.
pub(crate) fn parse(text: &str) -> Result<Query> {
    Parser {
        lexer: Lexer::new(text),
        ahead: None,
        nesting_depth: 0,
        patterns: 0,
    }
    .query()
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// A token that has been read but not taken. Read as late as possible: the position of an
    /// error is that of the token read last.
    ahead: Option<Token>,
    nesting_depth: usize,
    /// Regular expressions so far.
    patterns: usize,
}

impl Parser<'_> {
    fn query(mut self) -> Result<Query> {
        let body = self.root()?;
        let mut hints = Hints::default();
        while *self.peek()? == Token::Symbol(Symbol::With) {
            hints = self.hints()?;
        }
        match self.peek()? {
            Token::End => Ok(Query { body, hints }),
            _ => Err(self.unexpected(&[Symbol::With.text()])),
        }
    }

    fn peek(&mut self) -> Result<&Token> {
        let token = match self.ahead.take() {
            Some(token) => token,
            None => self.lexer.next()?,
        };
        Ok(self.ahead.insert(token))
    }

    fn peek_symbol(&mut self) -> Result<Option<Symbol>> {
        Ok(match self.peek()? {
            Token::Symbol(symbol) => Some(*symbol),
            _ => None,
        })
    }

    fn take(&mut self) -> Result<Token> {
        match self.ahead.take() {
            Some(token) => Ok(token),
            None => self.lexer.next(),
        }
    }

    /// Takes the symbol if it comes next.
    fn take_if(&mut self, symbol: Symbol) -> Result<bool> {
        let comes_next = *self.peek()? == Token::Symbol(symbol);
        if comes_next {
            self.ahead = None;
        }
        Ok(comes_next)
    }

    /// Takes the symbol, the only one that may come next.
    fn expect(&mut self, symbol: Symbol) -> Result<()> {
        if self.take_if(symbol)? {
            Ok(())
        } else {
            Err(self.unexpected(&[symbol.text()]))
        }
    }

    /// An error about the next token. `expected` is what Tempo names: nothing for more than four.
    fn unexpected(&mut self, expected: &[&str]) -> ParseError {
        let found = match self.peek() {
            Ok(token) => token.to_string(),
            Err(error) => return error,
        };
        let mut message = format!("syntax error: unexpected {found}");
        for (index, token) in expected.iter().enumerate() {
            message.push_str(if index == 0 { ", expecting " } else { " or " });
            message.push_str(token);
        }
        self.lexer.error(message)
    }

    /// Runs a rule one level deeper.
    fn nested<T>(&mut self, rule: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.nesting_depth >= MAX_NESTING_DEPTH {
            return Err(self.lexer.error(format!(
                "expression is nested more than {MAX_NESTING_DEPTH} levels deep"
            )));
        }
        self.nesting_depth += 1;
        let result = rule(self);
        self.nesting_depth -= 1;
        result
    }

    /// The height of a node above operands of these heights.
    fn above(&self, operands: impl IntoIterator<Item = usize>) -> Result<usize> {
        let height = operands.into_iter().max().unwrap_or(0) + 1;
        if height > MAX_TREE_DEPTH {
            return Err(self.lexer.error(format!(
                "expression has more than {MAX_TREE_DEPTH} operators one above the other"
            )));
        }
        Ok(height)
    }

    fn hints(&mut self) -> Result<Hints> {
        self.expect(Symbol::With)?;
        self.expect(Symbol::OpenParens)?;
        let mut entries = Vec::new();
        loop {
            let Token::Identifier(name) = self.peek()?.clone() else {
                return Err(self.unexpected(&["IDENTIFIER"]));
            };
            self.take()?;
            self.expect(Symbol::Equal)?;
            let Some(value) = self.static_value()? else {
                return Err(self.unexpected(&[]));
            };
            entries.push((Arc::from(name), value));
            if !self.list_continues()? {
                return Ok(Hints::new(entries));
            }
        }
    }

    /// Takes `,` (true) or `)` (false).
    fn list_continues(&mut self) -> Result<bool> {
        if self.take_if(Symbol::Comma)? {
            Ok(true)
        } else if self.take_if(Symbol::CloseParens)? {
            Ok(false)
        } else {
            Err(self.unexpected(&[")", ","]))
        }
    }

    /// A constant, if one comes next.
    fn static_value(&mut self) -> Result<Option<Static>> {
        let value = match self.peek()? {
            Token::String(text) => Static::String(Arc::from(&**text)),
            Token::Integer(value) => Static::Int(*value),
            Token::Float(value) => Static::Float(*value),
            Token::Duration(nanos) => Static::Duration(*nanos),
            Token::Identifier(name) => match &**name {
                "minInt" => Static::Int(i64::MIN),
                "maxInt" => Static::Int(i64::MAX),
                unknown => {
                    let message = format!("unknown identifier: {unknown}");
                    return Err(self.lexer.error(message));
                }
            },
            Token::Symbol(symbol) => match symbol {
                Symbol::True => Static::Bool(true),
                Symbol::False => Static::Bool(false),
                Symbol::Ok => Static::Status(Status::Ok),
                Symbol::Error => Static::Status(Status::Error),
                Symbol::Unset => Static::Status(Status::Unset),
                Symbol::Unspecified => Static::Kind(Kind::Unspecified),
                Symbol::Internal => Static::Kind(Kind::Internal),
                Symbol::Server => Static::Kind(Kind::Server),
                Symbol::Client => Static::Kind(Kind::Client),
                Symbol::Producer => Static::Kind(Kind::Producer),
                Symbol::Consumer => Static::Kind(Kind::Consumer),
                _ => return Ok(None),
            },
            Token::End | Token::EndAttribute => return Ok(None),
        };
        self.take()?;
        Ok(Some(value))
    }

    /// `attribute, attribute, … )`
    fn attribute_list(&mut self) -> Result<Vec<Attribute>> {
        let mut attributes = vec![self.attribute()?];
        while self.list_continues()? {
            attributes.push(self.attribute()?);
        }
        Ok(attributes)
    }

    fn attribute(&mut self) -> Result<Attribute> {
        match self.maybe_attribute()? {
            Some(attribute) => Ok(attribute),
            None => Err(self.unexpected(&[])),
        }
    }

    /// An attribute or intrinsic, if one comes next.
    fn maybe_attribute(&mut self) -> Result<Option<Attribute>> {
        let Some(symbol) = self.peek_symbol()? else {
            return Ok(None);
        };
        if symbol.starts_attribute() {
            self.take()?;
            return self.named_attribute(symbol).map(Some);
        }
        if symbol.starts_scoped_intrinsic() {
            self.take()?;
            return self.scoped_intrinsic(symbol).map(Some);
        }
        let intrinsic = match symbol {
            Symbol::Duration => Intrinsic::Duration,
            Symbol::Name => Intrinsic::Name,
            Symbol::Status => Intrinsic::Status,
            Symbol::StatusMessage => Intrinsic::StatusMessage,
            Symbol::Kind => Intrinsic::Kind,
            Symbol::Parent => Intrinsic::Parent,
            Symbol::RootName => Intrinsic::TraceRootName,
            Symbol::RootServiceName => Intrinsic::TraceRootService,
            Symbol::TraceDuration => Intrinsic::TraceDuration,
            Symbol::NestedSetLeft => Intrinsic::NestedSetLeft,
            Symbol::NestedSetRight => Intrinsic::NestedSetRight,
            Symbol::NestedSetParent => Intrinsic::NestedSetParent,
            _ => return Ok(None),
        };
        self.take()?;
        Ok(Some(Attribute::Intrinsic(intrinsic)))
    }

    fn named_attribute(&mut self, opening: Symbol) -> Result<Attribute> {
        let scope_of = |symbol: Symbol| match symbol {
            Symbol::ResourceDot => Some(Scope::Resource),
            Symbol::SpanDot => Some(Scope::Span),
            Symbol::EventDot => Some(Scope::Event),
            Symbol::LinkDot => Some(Scope::Link),
            Symbol::InstrumentationDot => Some(Scope::Instrumentation),
            _ => None,
        };
        let parent = opening == Symbol::ParentDot;
        let mut scope = scope_of(opening);
        let mut expected: &[&str] = &["IDENTIFIER"];
        if parent {
            expected = &["IDENTIFIER", "resource.", "span."];
            if let Some(nested @ (Symbol::ResourceDot | Symbol::SpanDot)) = self.peek_symbol()? {
                self.take()?;
                scope = scope_of(nested);
                expected = &["IDENTIFIER"];
            }
        }
        let Token::Identifier(name) = self.peek()?.clone() else {
            return Err(self.unexpected(expected));
        };
        self.take()?;
        if *self.peek()? != Token::EndAttribute {
            return Err(self.unexpected(&["END_ATTRIBUTE"]));
        }
        self.take()?;
        Ok(Attribute::Named {
            parent,
            scope,
            name: Arc::from(name),
        })
    }

    fn scoped_intrinsic(&mut self, scope: Symbol) -> Result<Attribute> {
        let choices: &[(Symbol, Intrinsic)] = match scope {
            Symbol::TraceColon => &[
                (Symbol::Duration, Intrinsic::TraceDuration),
                (Symbol::RootName, Intrinsic::TraceRootName),
                (Symbol::RootService, Intrinsic::TraceRootService),
                (Symbol::Id, Intrinsic::TraceId),
            ],
            Symbol::EventColon => &[
                (Symbol::Name, Intrinsic::EventName),
                (Symbol::TimeSinceStart, Intrinsic::EventTimeSinceStart),
            ],
            Symbol::LinkColon => &[
                (Symbol::TraceId, Intrinsic::LinkTraceId),
                (Symbol::SpanId, Intrinsic::LinkSpanId),
            ],
            Symbol::InstrumentationColon => &[
                (Symbol::Name, Intrinsic::InstrumentationName),
                (Symbol::Version, Intrinsic::InstrumentationVersion),
            ],
            _ => &[
                (Symbol::Duration, Intrinsic::Duration),
                (Symbol::ChildCount, Intrinsic::ChildCount),
                (Symbol::Name, Intrinsic::Name),
                (Symbol::Status, Intrinsic::Status),
                (Symbol::StatusMessage, Intrinsic::StatusMessage),
                (Symbol::Kind, Intrinsic::Kind),
                (Symbol::Id, Intrinsic::SpanId),
                (Symbol::ParentId, Intrinsic::ParentId),
            ],
        };
        let next = self.peek_symbol()?;
        let found = choices.iter().find(|(word, _)| Some(*word) == next);
        match found {
            Some((_, intrinsic)) => {
                self.take()?;
                Ok(Attribute::Intrinsic(*intrinsic))
            }
            None if choices.len() <= 4 => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| word.text()).collect();
                Err(self.unexpected(&words))
            }
            None => Err(self.unexpected(&[])),
        }
    }
}
