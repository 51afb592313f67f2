//! Text to tokens.
//!
//! Two things make this lexer unusual, both visible to users. An attribute name is read rune by
//! rune after `.`, `span.` and the like, so `.a-1` is one name; and operators are found by
//! appending runes while the text so far is a known token.

use crate::duration;
use crate::error::ParseError;
use crate::scanner::{Raw, Scanner};
use crate::token::{Symbol, Token, is_attribute_rune};

/// The runes that a duration may go on with behind its first number.
const DURATION_RUNES: [char; 9] = ['n', 's', 'u', 'm', 'h', '\u{b5}', 'd', 'w', 'y'];

pub(crate) struct Lexer<'a> {
    scanner: Scanner<'a>,
    /// Within `.name`, and whether a nested scope may come (after `parent.` only).
    attribute: Option<AttributeMode>,
}

#[derive(Clone, Copy, PartialEq)]
enum AttributeMode {
    Name,
    NameOrScope,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self {
            scanner: Scanner::new(text),
            attribute: None,
        }
    }

    /// The text, without a byte order mark.
    pub(crate) fn text(&self) -> &'a str {
        self.scanner.text()
    }

    /// Whether the next token belongs to the name of an attribute.
    pub(crate) fn is_in_attribute(&self) -> bool {
        self.attribute.is_some()
    }

    /// The byte behind the token read last.
    pub(crate) fn offset(&self) -> usize {
        self.scanner.offset()
    }

    /// The first byte of the token read last, unless it belongs to the name of an attribute.
    pub(crate) fn token_start(&self) -> usize {
        self.scanner.token_start()
    }

    /// An error at the token read last.
    pub(crate) fn error(&self, message: impl Into<String>) -> ParseError {
        let position = self.scanner.position();
        ParseError::new(message, position.line, position.column)
    }

    /// The next token. An error is the first complaint about the text.
    pub(crate) fn next(&mut self) -> Result<Token, ParseError> {
        let (token, error) = self.next_lenient();
        match error {
            Some(error) => Err(error),
            None => Ok(token),
        }
    }

    /// The next token as far as it can be told, [`Token::End`] when it can't, and the complaint.
    pub(crate) fn next_lenient(&mut self) -> (Token, Option<ParseError>) {
        let result = self.token();
        let complaint = self
            .scanner
            .take_error()
            .map(|(message, position)| ParseError::new(message, position.line, position.column));
        match result {
            Ok(token) => (token, complaint),
            Err(message) => {
                let error = self.error(message);
                (Token::End, complaint.or(Some(error)))
            }
        }
    }

    fn token(&mut self) -> Result<Token, String> {
        if let Some(mode) = self.attribute {
            return self.attribute_token(mode);
        }
        match self.scanner.scan() {
            Raw::End => Ok(Token::End),
            Raw::Quoted | Raw::Backquoted => unquote(self.scanner.token_text()).map(Token::String),
            Raw::Integer => match self.duration() {
                Some(nanos) => Ok(Token::Duration(nanos)),
                None => integer(self.scanner.token_text()).map(Token::Integer),
            },
            Raw::Float => match self.duration() {
                Some(nanos) => Ok(Token::Duration(nanos)),
                None => float(self.scanner.token_text()).map(Token::Float),
            },
            Raw::Word | Raw::Other => Ok(self.symbol_or_identifier()),
        }
    }

    fn attribute_token(&mut self, mode: AttributeMode) -> Result<Token, String> {
        if !self.scanner.peek().is_some_and(is_attribute_rune) {
            self.attribute = None;
            return Ok(Token::EndAttribute);
        }
        if mode == AttributeMode::NameOrScope
            && let Some(scope) = self.nested_scope()
        {
            self.attribute = Some(AttributeMode::Name);
            return Ok(Token::Symbol(scope));
        }
        self.attribute_name().map(Token::Identifier)
    }

    /// `span.` or `resource.` behind `parent.`
    fn nested_scope(&mut self) -> Option<Symbol> {
        for scope in [Symbol::SpanDot, Symbol::ResourceDot] {
            let mut ahead = self.scanner.clone();
            if scope.text().chars().all(|c| ahead.next() == Some(c)) {
                self.scanner = ahead;
                return Some(scope);
            }
        }
        None
    }

    fn attribute_name(&mut self) -> Result<String, String> {
        let mut name = String::new();
        while let Some(rune) = self.scanner.peek().filter(|rune| is_attribute_rune(*rune)) {
            self.scanner.next();
            if rune == '"' {
                self.quoted_part(&mut name)?;
            } else {
                name.push(rune);
            }
        }
        Ok(name)
    }

    fn quoted_part(&mut self, name: &mut String) -> Result<(), String> {
        loop {
            match self.scanner.next() {
                None => return Err("unexpected EOF, expecting \"".to_owned()),
                Some('"') => return Ok(()),
                Some('\\') => match self.scanner.peek() {
                    Some(escaped @ ('"' | '\\')) => {
                        self.scanner.next();
                        name.push(escaped);
                    }
                    _ => return Err("invalid escape sequence".to_owned()),
                },
                Some(rune) => name.push(rune),
            }
        }
    }

    /// The duration that the scanned number starts, if it starts one.
    fn duration(&mut self) -> Option<i64> {
        let number = self.scanner.token_text();
        let mut ahead = self.scanner.clone();
        let mut text = String::new();
        while let Some(rune) = ahead
            .peek()
            .filter(|c| c.is_numeric() || *c == '.' || DURATION_RUNES.contains(c))
        {
            ahead.next();
            if text.is_empty() {
                text.push_str(number);
            }
            text.push(rune);
        }
        if text.is_empty() {
            return None;
        }
        let nanos = duration::parse_prometheus(&text)
            .or_else(|_| duration::parse_go(&text))
            .ok()?;
        self.scanner = ahead;
        Some(nanos)
    }

    fn symbol_or_identifier(&mut self) -> Token {
        let word = self.scanner.token_text();
        let mut symbol = None;
        let mut text = word.to_owned();
        while let Some(rune) = self.scanner.peek() {
            text.push(rune);
            match Symbol::from_text(&text) {
                Some(longer) => {
                    symbol = Some(longer);
                    self.scanner.next();
                }
                None => break,
            }
        }
        let Some(symbol) = symbol.or_else(|| Symbol::from_text(word)) else {
            return Token::Identifier(word.to_owned());
        };
        if symbol.starts_attribute() {
            self.attribute = Some(if symbol == Symbol::ParentDot {
                AttributeMode::NameOrScope
            } else {
                AttributeMode::Name
            });
        }
        Token::Symbol(symbol)
    }
}

fn integer(text: &str) -> Result<i64, String> {
    text.parse::<i64>().map_err(|error| {
        let reason = match error.kind() {
            std::num::IntErrorKind::PosOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.Atoi: parsing {text:?}: {reason}")
    })
}

fn float(text: &str) -> Result<f64, String> {
    let failed = |reason| format!("strconv.ParseFloat: parsing {text:?}: {reason}");
    // Separators have been checked by the scanner; hexadecimal floats are not supported.
    let value = text.replace('_', "").parse::<f64>().ok();
    match value {
        None => Err(failed("invalid syntax")),
        Some(value) if value.is_infinite() => Err(failed("value out of range")),
        Some(value) => Ok(value),
    }
}

/// The value of a quoted string that the scanner has accepted.
fn unquote(literal: &str) -> Result<String, String> {
    let invalid = || "invalid syntax".to_owned();
    if let Some(raw) = literal.strip_prefix('`') {
        let raw = raw.strip_suffix('`').ok_or_else(invalid)?;
        return Ok(raw.replace('\r', ""));
    }
    let body = literal
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .ok_or_else(invalid)?;
    if !body.contains('\\') {
        return Ok(body.to_owned());
    }
    // Byte escapes may build UTF-8 sequences, so bytes are collected, not characters.
    let mut bytes = Vec::with_capacity(body.len());
    let mut chars = body.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escape = chars.next().ok_or_else(invalid)?;
        match escape {
            'a' => bytes.push(0x07),
            'b' => bytes.push(0x08),
            'f' => bytes.push(0x0c),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(0x0b),
            '\\' | '"' => bytes.push(escape as u8),
            '0'..='7' => {
                let first = escape.to_digit(8).unwrap_or(0);
                let code = code_point(&mut chars, 8, 2, first).ok_or_else(invalid)?;
                bytes.push(u8::try_from(code).map_err(|_| invalid())?);
            }
            'x' => {
                let code = code_point(&mut chars, 16, 2, 0).ok_or_else(invalid)?;
                bytes.push(u8::try_from(code).map_err(|_| invalid())?);
            }
            'u' | 'U' => {
                let digits = if escape == 'u' { 4 } else { 8 };
                let decoded = code_point(&mut chars, 16, digits, 0)
                    .and_then(char::from_u32)
                    .ok_or_else(invalid)?;
                bytes.extend_from_slice(decoded.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => return Err(invalid()),
        }
    }
    // Bytes that are no UTF-8 match nothing that OTLP can carry; the replacement character stands
    // for them.
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

fn code_point(
    chars: &mut std::str::Chars<'_>,
    radix: u32,
    digits: usize,
    first: u32,
) -> Option<u32> {
    (0..digits).try_fold(first, |code, _| {
        let digit = chars.next()?.to_digit(radix)?;
        code.checked_mul(radix)?.checked_add(digit)
    })
}
