//! The lexer: text to tokens, one at a time.
//!
//! What a character means depends on where it stands: inside braces words are label names, inside
//! brackets there are durations. The states, and the texts of the errors, are those of Prometheus'
//! lexer (`promql/parser/lex.go`).

mod string;
mod token;

pub(crate) use string::{NotUtf8, unquote};
pub(crate) use token::{Keyword, Token, TokenKind, quote};

use super::ast::{BinaryOp, Pos};
use super::parse::ParseError;
use token::{keyword, quote_char};

/// Reads tokens off a text.
pub(crate) struct Lexer<'a> {
    text: &'a str,
    /// The next byte to read.
    at: usize,
    /// Where the token that is being read began.
    start: usize,
    /// Open parentheses.
    parens: usize,
    /// Between `{` and `}`.
    in_braces: bool,
    brackets: Brackets,
}

/// Where the lexer stands in `[range:step]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Brackets {
    /// Not inside brackets.
    Outside,
    /// Before the first number.
    BeforeNumber { colon: bool },
    /// After a number.
    AfterNumber { colon: bool },
}

impl<'a> Lexer<'a> {
    /// A lexer at the beginning of `text`.
    pub fn new(text: &'a str) -> Lexer<'a> {
        Lexer { text, at: 0, start: 0, parens: 0, in_braces: false, brackets: Brackets::Outside }
    }

    /// The text it reads.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The next token; at the end [`TokenKind::Eof`], again and again.
    pub fn next_token(&mut self) -> Result<Token, ParseError> {
        self.skip_blanks();
        self.start = self.at;
        let Some(c) = self.bump() else { return self.end() };
        let kind = match (self.in_braces, self.brackets) {
            (true, _) => self.in_braces(c)?,
            (false, Brackets::BeforeNumber { colon }) => self.before_number(c, colon)?,
            (false, _) => self.statement(c)?,
        };
        Ok(Token { kind, pos: self.pos() })
    }

    fn pos(&self) -> Pos {
        Pos { start: self.start as u32, end: self.at as u32 }
    }

    fn end(&mut self) -> Result<Token, ParseError> {
        if self.in_braces {
            return Err(self.error("unexpected end of input inside braces"));
        }
        if matches!(self.brackets, Brackets::BeforeNumber { .. }) {
            return Err(self.error("unexpected end of input in duration expression"));
        }
        if self.parens > 0 {
            return Err(self.error("unclosed left parenthesis"));
        }
        if self.brackets != Brackets::Outside {
            return Err(self.error("unclosed left bracket"));
        }
        Ok(Token { kind: TokenKind::Eof, pos: self.pos() })
    }

    /// An error about the text from the beginning of this token on.
    fn error(&self, message: impl Into<String>) -> ParseError {
        let pos = Pos { start: self.start as u32, end: self.text.len() as u32 };
        ParseError::new(self.text, pos, message)
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn peek_byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Goes on while `wanted` says so.
    fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.peek_byte().is_some_and(&wanted) {
            self.at += 1;
        }
    }

    /// Goes one byte on if that is in `set`.
    fn accept(&mut self, set: &[u8]) -> bool {
        let found = self.peek_byte().is_some_and(|b| set.contains(&b));
        self.at += usize::from(found);
        found
    }

    /// Skips blanks and comments (which cannot stand where a duration has to follow).
    fn skip_blanks(&mut self) {
        loop {
            self.skip_while(is_blank);
            let comments = self.in_braces || !matches!(self.brackets, Brackets::BeforeNumber { .. });
            if self.peek_byte() != Some(b'#') || !comments {
                return;
            }
            self.skip_while(|b| b != b'\n' && b != b'\r');
        }
    }

    fn statement(&mut self, c: char) -> Result<TokenKind, ParseError> {
        let binary = |op| Ok(TokenKind::Binary(op));
        match c {
            ',' => Ok(TokenKind::Comma),
            '*' => binary(BinaryOp::Mul),
            '/' => binary(BinaryOp::Div),
            '%' => binary(BinaryOp::Mod),
            '+' => binary(BinaryOp::Add),
            '-' => binary(BinaryOp::Sub),
            '^' => binary(BinaryOp::Pow),
            '@' => Ok(TokenKind::At),
            '=' if self.accept(b"=") => binary(BinaryOp::Eq),
            '=' if self.peek() == Some('~') => Err(self.error("unexpected character after '=': '~'")),
            '=' => Ok(TokenKind::Equal),
            '!' if self.accept(b"=") => binary(BinaryOp::Ne),
            '!' => {
                let next = quote_char(self.peek());
                Err(self.error(format!("unexpected character after '!': {next}")))
            }
            '<' if self.accept(b"=") => binary(BinaryOp::Le),
            '<' if self.accept(b"/") => binary(BinaryOp::TrimUpper),
            '<' => binary(BinaryOp::Lt),
            '>' if self.accept(b"=") => binary(BinaryOp::Ge),
            '>' if self.accept(b"/") => binary(BinaryOp::TrimLower),
            '>' => binary(BinaryOp::Gt),
            '"' | '\'' | '`' => self.string(c),
            '(' => {
                self.parens += 1;
                Ok(TokenKind::LeftParen)
            }
            ')' => self.right_paren(),
            '{' => {
                self.in_braces = true;
                Ok(TokenKind::LeftBrace)
            }
            '[' if self.brackets != Brackets::Outside => Err(self.error("unexpected left bracket '['")),
            '[' => {
                self.brackets = Brackets::BeforeNumber { colon: false };
                Ok(TokenKind::LeftBracket)
            }
            ']' if self.brackets == Brackets::Outside => Err(self.error("unexpected right bracket ']'")),
            ']' => {
                self.brackets = Brackets::Outside;
                Ok(TokenKind::RightBracket)
            }
            _ if self.begins_number(c) => self.number_or_duration(),
            ':' | '_' | 'a'..='z' | 'A'..='Z' => match self.brackets {
                Brackets::Outside => Ok(self.word()),
                Brackets::AfterNumber { colon: false } if c == ':' => {
                    self.brackets = Brackets::AfterNumber { colon: true };
                    Ok(TokenKind::Colon)
                }
                _ if c == ':' => Err(self.error("unexpected colon ':'")),
                _ => self.duration_word().ok_or_else(|| {
                    self.error(format!("unexpected character: {}, expected ':'", quote_char(Some(c))))
                }),
            },
            _ => Err(self.error(format!("unexpected character: {}", quote_char(Some(c))))),
        }
    }

    /// Inside brackets, before a number has been seen.
    fn before_number(&mut self, c: char, colon: bool) -> Result<TokenKind, ParseError> {
        let binary = |op| Ok(TokenKind::Binary(op));
        match c {
            ']' => {
                self.brackets = Brackets::Outside;
                Ok(TokenKind::RightBracket)
            }
            // `[step():...]` and `[range():...]` have no number before the colon.
            ':' if colon => Err(self.error("unexpected repeated colon in duration expression")),
            ':' if self.text[..self.start].trim_end().ends_with('[') => {
                Err(self.error("unexpected colon before duration in duration expression"))
            }
            ':' => {
                self.brackets = Brackets::BeforeNumber { colon: true };
                Ok(TokenKind::Colon)
            }
            '(' => {
                self.parens += 1;
                Ok(TokenKind::LeftParen)
            }
            ')' => self.right_paren(),
            '+' => binary(BinaryOp::Add),
            '-' => binary(BinaryOp::Sub),
            '*' => binary(BinaryOp::Mul),
            '/' => binary(BinaryOp::Div),
            '%' => binary(BinaryOp::Mod),
            '^' => binary(BinaryOp::Pow),
            ',' => Ok(TokenKind::Comma),
            _ if self.begins_number(c) => {
                self.brackets = Brackets::AfterNumber { colon };
                self.number_or_duration()
            }
            _ => self.duration_word().ok_or_else(|| {
                self.error(format!("unexpected character in duration expression: {}", quote_char(Some(c))))
            }),
        }
    }

    fn in_braces(&mut self, c: char) -> Result<TokenKind, ParseError> {
        match c {
            ',' => Ok(TokenKind::Comma),
            '"' | '\'' | '`' => self.string(c),
            '=' if self.accept(b"~") => Ok(TokenKind::EqualRegex),
            '=' => Ok(TokenKind::Equal),
            '!' if self.accept(b"~") => Ok(TokenKind::NotEqualRegex),
            '!' if self.accept(b"=") => Ok(TokenKind::Binary(BinaryOp::Ne)),
            '!' => {
                let next = quote_char(self.peek());
                Err(self.error(format!("unexpected character after '!' inside braces: {next}")))
            }
            '{' => Err(self.error("unexpected left brace '{'")),
            '}' => {
                self.in_braces = false;
                Ok(TokenKind::RightBrace)
            }
            '_' | 'a'..='z' | 'A'..='Z' => {
                self.skip_while(is_alphanumeric);
                Ok(TokenKind::Identifier)
            }
            _ => Err(self.error(format!("unexpected character inside braces: {}", quote_char(Some(c))))),
        }
    }

    fn right_paren(&mut self) -> Result<TokenKind, ParseError> {
        match self.parens.checked_sub(1) {
            Some(parens) => {
                self.parens = parens;
                Ok(TokenKind::RightParen)
            }
            None => {
                self.start = self.at;
                Err(self.error("unexpected right parenthesis ')'"))
            }
        }
    }

    fn word(&mut self) -> TokenKind {
        self.skip_while(|b| is_alphanumeric(b) || b == b':');
        let word = &self.text[self.start..self.at];
        match keyword(word) {
            // These three came late: they stay names unless a value follows.
            Some(TokenKind::Keyword(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight))
                if !self.rest().trim_start_matches([' ', '\t', '\n', '\r']).starts_with('(') =>
            {
                TokenKind::Identifier
            }
            Some(kind) => kind,
            None if word.contains(':') => TokenKind::MetricIdentifier,
            None => TokenKind::Identifier,
        }
    }

    /// `step`, `range`, `min_of` or `max_of`, the only words inside brackets.
    fn duration_word(&mut self) -> Option<TokenKind> {
        self.at = self.start;
        self.skip_while(|b| b.is_ascii_alphabetic() || b == b'_');
        keyword(&self.text[self.start..self.at]).filter(|kind| {
            use Keyword::{MaxOf, MinOf, Range, Step};
            matches!(kind, TokenKind::Keyword(Step | Range | MinOf | MaxOf))
        })
    }

    fn begins_number(&self, c: char) -> bool {
        c.is_ascii_digit() || c == '.' && self.peek_byte().is_some_and(|b| b.is_ascii_digit())
    }

    fn number_or_duration(&mut self) -> Result<TokenKind, ParseError> {
        self.at = self.start;
        if self.scan_number() {
            return Ok(TokenKind::Number);
        }
        if self.scan_units() {
            return Ok(TokenKind::Duration);
        }
        let read = quote(&self.text[self.start..self.at]);
        Err(self.error(format!("bad number or duration syntax: {read}")))
    }

    /// Goes over a number; says whether it ends where one may end. Whether it is a valid one, the
    /// parser finds out.
    fn scan_number(&mut self) -> bool {
        let hexadecimal = self.accept(b"0") && self.accept(b"xX");
        if hexadecimal {
            self.accept(b"_");
        }
        let is_digit = |b: u8| if hexadecimal { b.is_ascii_hexdigit() } else { b.is_ascii_digit() };
        let (mut dot, mut exponent) = (false, false);
        while let Some(b) = self.peek_byte() {
            match b {
                _ if is_digit(b) => self.skip_while(is_digit),
                b'.' => {
                    self.at += 1;
                    // A dot comes once, before no other dot or underscore, in no hexadecimal.
                    if dot || self.accept(b"_.") || hexadecimal {
                        return false;
                    }
                    dot = true;
                }
                b'e' | b'E' => {
                    self.at += 1;
                    if exponent {
                        return false;
                    }
                    exponent = true;
                    self.accept(b"+-");
                    if self.accept(b"._eE") || self.peek_byte().is_none() {
                        return false;
                    }
                }
                b'_' => {
                    self.at += 1;
                    if self.accept(b"._eE") || self.peek_byte().is_none() {
                        return false;
                    }
                }
                _ => break,
            }
        }
        !self.peek_byte().is_some_and(is_alphanumeric)
    }

    /// Goes over what makes the digits just read a duration; says whether it ends well.
    fn scan_units(&mut self) -> bool {
        if !self.accept(b"smhdwy") {
            return false;
        }
        // The `s` of `ms`. Units that do not exist are found when the duration is parsed.
        self.accept(b"s");
        while self.peek_byte().is_some_and(|b| b.is_ascii_digit()) {
            self.skip_while(|b| b.is_ascii_digit());
            if !self.accept(b"smhdw") {
                return false;
            }
            self.accept(b"s");
        }
        let ends = !self.peek_byte().is_some_and(is_alphanumeric);
        self.at += usize::from(!ends);
        ends
    }
}

fn is_blank(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | b'\r')
}

fn is_alphanumeric(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}
