//! Characters to raw tokens, with the positions that Tempo reports.
//!
//! Tempo splits text with Go's `text/scanner` in Go mode; error positions come from it and are
//! part of what clients see. Hence its rules: columns count characters from 1, the position is
//! that of the last scanned token, and taking single characters ([`Scanner::next`]) forgets the
//! line but not the column.

/// What a scan found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Raw {
    End,
    Word,
    Integer,
    Float,
    Quoted,
    Backquoted,
    /// Anything else, `'…'` included.
    Other,
}

/// Where a token starts; line 0 when unknown, column 0 only before the first character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A text and how far it has been read. Cloning it is how to look ahead.
#[derive(Debug, Clone)]
pub(crate) struct Scanner<'a> {
    text: &'a str,
    /// Byte offset behind `ahead`.
    read: usize,
    /// Bytes of `ahead`; 0 at the end.
    ahead_len: usize,
    /// The next character; nothing at the end.
    ahead: Option<char>,
    line: u32,
    column: u32,
    last_line_columns: u32,
    token: Position,
    token_start: usize,
    token_end: usize,
    /// The first complaint about the text, and where.
    error: Option<(String, Position)>,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let mut scanner = Self {
            text: text.strip_prefix('\u{feff}').unwrap_or(text),
            read: 0,
            ahead_len: 0,
            ahead: None,
            line: 1,
            column: 0,
            last_line_columns: 0,
            token: Position { line: 0, column: 0 },
            token_start: 0,
            token_end: 0,
            error: None,
        };
        scanner.advance();
        scanner
    }

    /// The next character, without taking it.
    pub(crate) fn peek(&self) -> Option<char> {
        self.ahead
    }

    /// Takes the next character.
    pub(crate) fn next(&mut self) -> Option<char> {
        self.token.line = 0;
        let taken = self.ahead;
        if taken.is_some() {
            self.advance();
        }
        taken
    }

    /// Where the last scanned token started.
    pub(crate) fn position(&self) -> Position {
        self.token
    }

    /// The text that is scanned.
    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    /// The byte that comes next.
    pub(crate) fn offset(&self) -> usize {
        self.read - self.ahead_len
    }

    /// The first byte of the last scanned token.
    pub(crate) fn token_start(&self) -> usize {
        self.token_start
    }

    /// The text of the last scanned token.
    pub(crate) fn token_text(&self) -> &'a str {
        self.text
            .get(self.token_start..self.token_end)
            .unwrap_or_default()
    }

    /// The first complaint so far, and where.
    pub(crate) fn take_error(&mut self) -> Option<(String, Position)> {
        self.error.take()
    }

    /// Takes the next token, skipping white space and comments before it.
    pub(crate) fn scan(&mut self) -> Raw {
        self.token.line = 0;
        loop {
            while matches!(self.ahead, Some(' ' | '\t' | '\n' | '\r')) {
                self.advance();
            }
            self.token_start = self.offset();
            self.token = if self.column > 0 {
                Position {
                    line: self.line,
                    column: self.column,
                }
            } else {
                Position {
                    line: self.line - 1,
                    column: self.last_line_columns,
                }
            };
            let Some(first) = self.ahead else {
                self.token_end = self.read;
                return Raw::End;
            };
            let raw = match first {
                '_' => self.word(),
                letter if letter.is_alphabetic() => self.word(),
                digit if digit.is_ascii_digit() => self.number(false),
                '"' => {
                    self.quoted('"');
                    Raw::Quoted
                }
                '\'' => {
                    if self.quoted('\'') != 1 {
                        self.complain("invalid char literal");
                    }
                    Raw::Other
                }
                '`' => self.raw_string(),
                '.' => {
                    self.advance();
                    if self.ahead.is_some_and(|c| c.is_ascii_digit()) {
                        self.number(true)
                    } else {
                        Raw::Other
                    }
                }
                '/' => {
                    self.advance();
                    match self.ahead {
                        Some('/') => {
                            self.line_comment();
                            continue;
                        }
                        Some('*') => {
                            self.block_comment();
                            continue;
                        }
                        _ => Raw::Other,
                    }
                }
                _ => {
                    self.advance();
                    Raw::Other
                }
            };
            self.token_end = self.offset();
            return raw;
        }
    }

    fn complain(&mut self, message: &str) {
        if self.error.is_none() {
            self.error = Some((message.to_owned(), self.token));
        }
    }

    fn advance(&mut self) {
        self.ahead = self.text.get(self.read..).and_then(|t| t.chars().next());
        match self.ahead {
            Some(c) => {
                self.ahead_len = c.len_utf8();
                self.read += self.ahead_len;
                self.column += 1;
                if c == '\n' {
                    self.line += 1;
                    self.last_line_columns = self.column;
                    self.column = 0;
                } else if c == '\0' {
                    self.complain("invalid character NUL");
                }
            }
            None => {
                if self.ahead_len > 0 {
                    self.column += 1;
                }
                self.ahead_len = 0;
            }
        }
    }

    fn word(&mut self) -> Raw {
        while self
            .ahead
            .is_some_and(|c| c == '_' || c.is_alphabetic() || is_decimal_digit(c))
        {
            self.advance();
        }
        Raw::Word
    }

    fn line_comment(&mut self) {
        while !matches!(self.ahead, None | Some('\n')) {
            self.advance();
        }
    }

    fn block_comment(&mut self) {
        self.advance();
        loop {
            match self.ahead {
                None => return self.complain("comment not terminated"),
                Some('*') => {
                    self.advance();
                    if self.ahead == Some('/') {
                        self.advance();
                        return;
                    }
                }
                Some(_) => self.advance(),
            }
        }
    }

    /// Takes `quote … quote`; the number of characters between.
    fn quoted(&mut self, quote: char) -> usize {
        self.advance();
        let mut count = 0;
        loop {
            match self.ahead {
                Some(c) if c == quote => break,
                None | Some('\n') => {
                    self.complain("literal not terminated");
                    return count;
                }
                Some('\\') => {
                    self.advance();
                    self.escape(quote);
                }
                Some(_) => self.advance(),
            }
            count += 1;
        }
        self.advance();
        count
    }

    fn escape(&mut self, quote: char) {
        match self.ahead {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\') => self.advance(),
            Some(c) if c == quote => self.advance(),
            Some('0'..='7') => self.escape_digits(8, 3),
            Some('x') => {
                self.advance();
                self.escape_digits(16, 2);
            }
            Some('u') => {
                self.advance();
                self.escape_digits(16, 4);
            }
            Some('U') => {
                self.advance();
                self.escape_digits(16, 8);
            }
            _ => self.complain("invalid char escape"),
        }
    }

    fn escape_digits(&mut self, radix: u32, count: usize) {
        for _ in 0..count {
            if !self.ahead.is_some_and(|c| c.is_digit(radix)) {
                return self.complain("invalid char escape");
            }
            self.advance();
        }
    }

    fn raw_string(&mut self) -> Raw {
        self.advance();
        loop {
            match self.ahead {
                None => {
                    self.complain("literal not terminated");
                    return Raw::Backquoted;
                }
                Some('`') => {
                    self.advance();
                    return Raw::Backquoted;
                }
                Some(_) => self.advance(),
            }
        }
    }

    /// A number in Go's syntax, other bases and digit separators included: only the value's
    /// conversion refuses them later, with another message.
    fn number(&mut self, mut seen_dot: bool) -> Raw {
        let mut raw = Raw::Float;
        let mut radix = 10;
        // 'x', 'o', 'b', '0' for a leading zero, nothing for decimal.
        let mut prefix: Option<char> = None;
        let mut digits = Digits::default();
        if !seen_dot {
            raw = Raw::Integer;
            if self.ahead == Some('0') {
                self.advance();
                let (new_radix, new_prefix) = match self.ahead.map(|c| c.to_ascii_lowercase()) {
                    Some('x') => (16, 'x'),
                    Some('o') => (8, 'o'),
                    Some('b') => (2, 'b'),
                    _ => (8, '0'),
                };
                radix = new_radix;
                prefix = Some(new_prefix);
                if new_prefix == '0' {
                    digits.any = true;
                } else {
                    self.advance();
                }
            }
            self.digits(radix, &mut digits);
            if self.ahead == Some('.') {
                self.advance();
                seen_dot = true;
            }
        }
        if seen_dot {
            raw = Raw::Float;
            if matches!(prefix, Some('o' | 'b')) {
                self.complain(&format!("invalid radix point in {}", literal_name(prefix)));
            }
            self.digits(radix, &mut digits);
        }
        if !digits.any {
            self.complain(&format!("{} has no digits", literal_name(prefix)));
        }
        match self.ahead {
            Some(exponent @ ('e' | 'E' | 'p' | 'P')) => {
                let decimal = exponent.eq_ignore_ascii_case(&'e');
                if decimal && !matches!(prefix, None | Some('0')) {
                    self.complain(&format!("'{exponent}' exponent requires decimal mantissa"));
                } else if !decimal && prefix != Some('x') {
                    self.complain(&format!(
                        "'{exponent}' exponent requires hexadecimal mantissa"
                    ));
                }
                self.advance();
                raw = Raw::Float;
                if matches!(self.ahead, Some('+' | '-')) {
                    self.advance();
                }
                let mut exponent_digits = Digits::default();
                self.digits(10, &mut exponent_digits);
                digits.separators |= exponent_digits.separators;
                if !exponent_digits.any {
                    self.complain("exponent has no digits");
                }
            }
            _ if prefix == Some('x') && raw == Raw::Float => {
                self.complain("hexadecimal mantissa requires a 'p' exponent");
            }
            _ => {}
        }
        if raw == Raw::Integer
            && let Some(digit) = digits.invalid
        {
            self.complain(&format!(
                "invalid digit '{digit}' in {}",
                literal_name(prefix)
            ));
        }
        if digits.separators {
            self.token_end = self.offset();
            if has_stray_separator(self.token_text()) {
                self.complain("'_' must separate successive digits");
            }
        }
        raw
    }

    fn digits(&mut self, radix: u32, digits: &mut Digits) {
        // Decimal digits are taken for every smaller base too, to complain about them by name.
        let taken_radix = radix.max(10);
        while let Some(c) = self.ahead {
            if c == '_' {
                digits.separators = true;
            } else if c.is_digit(taken_radix) {
                digits.any = true;
                if !c.is_digit(radix) && digits.invalid.is_none() {
                    digits.invalid = Some(c);
                }
            } else {
                return;
            }
            self.advance();
        }
    }
}

#[derive(Default)]
struct Digits {
    any: bool,
    separators: bool,
    invalid: Option<char>,
}

fn literal_name(prefix: Option<char>) -> &'static str {
    match prefix {
        Some('x') => "hexadecimal literal",
        Some('o' | '0') => "octal literal",
        Some('b') => "binary literal",
        _ => "decimal literal",
    }
}

/// Whether a `_` stands anywhere but between two digits (a base prefix counts as a digit).
fn has_stray_separator(number: &str) -> bool {
    let mut before_is_digit = false;
    let mut separator_open = false;
    let hexadecimal = number.starts_with("0x") || number.starts_with("0X");
    let prefix_len = if number.len() > 1 && number.starts_with('0') {
        usize::from(matches!(
            number.as_bytes()[1].to_ascii_lowercase(),
            b'x' | b'o' | b'b'
        )) * 2
    } else {
        0
    };
    if prefix_len == 2 {
        before_is_digit = true;
    }
    for c in number.chars().skip(prefix_len) {
        let is_digit = c.is_ascii_digit() || (hexadecimal && c.is_ascii_hexdigit());
        if c == '_' {
            if !before_is_digit {
                return true;
            }
            separator_open = true;
        } else if separator_open && !is_digit {
            return true;
        } else {
            separator_open = false;
        }
        before_is_digit = is_digit;
    }
    separator_open
}

/// Go's notion of a digit within a word: decimal digits of any script.
fn is_decimal_digit(c: char) -> bool {
    c.is_ascii_digit() || (!c.is_ascii() && c.is_numeric() && !c.is_alphabetic())
}
