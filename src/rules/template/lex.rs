//! A template's text cut into tokens, by Go's rules (`text/template/parse/lex.go`).

use super::quote::{is_print, quote};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Error,
    Assign,
    Bool,
    Char,
    CharConstant,
    Complex,
    Declare,
    Eof,
    Field,
    Identifier,
    LeftDelim,
    LeftParen,
    Number,
    Pipe,
    RawString,
    RightDelim,
    RightParen,
    Space,
    String,
    Text,
    Variable,
    // Keywords.
    Block,
    Break,
    Continue,
    Dot,
    Define,
    Else,
    End,
    If,
    Nil,
    Range,
    Template,
    With,
}

/// A token with its place and text; of an error, the error's text.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub token: Token,
    pub pos: usize,
    pub line: usize,
    pub text: String,
}

impl Item {
    /// The token as errors cite it.
    pub(super) fn cited(&self) -> String {
        match self.token {
            Token::Eof => "EOF".to_owned(),
            Token::Error => self.text.clone(),
            _ if keyword(&self.text) == Some(self.token) => format!("<{}>", self.text),
            _ if self.text.len() > 10 => {
                format!("{}...", quote(&self.text.chars().take(10).collect::<String>()))
            }
            _ => quote(&self.text),
        }
    }
}

fn keyword(word: &str) -> Option<Token> {
    Some(match word {
        "." => Token::Dot,
        "block" => Token::Block,
        "break" => Token::Break,
        "continue" => Token::Continue,
        "define" => Token::Define,
        "else" => Token::Else,
        "end" => Token::End,
        "if" => Token::If,
        "nil" => Token::Nil,
        "range" => Token::Range,
        "template" => Token::Template,
        "with" => Token::With,
        _ => return None,
    })
}

const SPACES: [char; 4] = [' ', '\t', '\r', '\n'];

fn is_space(c: char) -> bool {
    SPACES.contains(&c)
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// All tokens of `input`; the last is `Eof` or `Error`.
pub(super) fn lex(input: &str) -> Vec<Item> {
    let mut lexer = Lexer { input, pos: 0, start: 0, line: 1, counted: 0, items: Vec::new() };
    if let Err(text) = lexer.text() {
        lexer.push(Token::Error, lexer.start, text);
    }
    lexer.items
}

struct Lexer<'i> {
    input: &'i str,
    pos: usize,
    start: usize,
    /// The line of offset `counted`.
    line: usize,
    counted: usize,
    items: Vec<Item>,
}

impl<'i> Lexer<'i> {
    fn rest(&self) -> &'i str {
        self.input.get(self.pos..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    fn push(&mut self, token: Token, pos: usize, text: String) {
        let passed = self.input.get(self.counted..pos).unwrap_or_default();
        self.line += passed.bytes().filter(|b| *b == b'\n').count();
        self.counted = self.counted.max(pos);
        self.items.push(Item { token, pos, line: self.line, text });
    }

    fn emit(&mut self, token: Token) {
        let text = self.input.get(self.start..self.pos).unwrap_or_default().to_owned();
        self.push(token, self.start, text);
        self.start = self.pos;
    }

    /// `}}` or ` -}}` here: its length, and whether it trims.
    fn right_delim(&self) -> Option<(usize, bool)> {
        let rest = self.rest();
        if rest.starts_with(is_space) && rest.get(1..).is_some_and(|r| r.starts_with("-}}")) {
            return Some((4, true));
        }
        rest.starts_with("}}").then_some((2, false))
    }

    fn trim_left(&mut self) {
        let rest = self.rest();
        self.pos += rest.len() - rest.trim_start_matches(SPACES).len();
        self.start = self.pos;
    }

    fn text(&mut self) -> Result<(), String> {
        loop {
            let rest = self.rest();
            let Some(found) = rest.find("{{") else {
                self.pos = self.input.len();
                if self.pos > self.start {
                    self.emit(Token::Text);
                }
                self.emit(Token::Eof);
                return Ok(());
            };
            let delim = self.pos + found;
            let after = &self.input[delim + 2..];
            let trims = after.starts_with('-') && after.get(1..).is_some_and(|r| r.starts_with(is_space));
            let text = &self.input[self.start..delim];
            let text = if trims { text.trim_end_matches(SPACES) } else { text };
            if !text.is_empty() {
                self.pos = self.start + text.len();
                self.emit(Token::Text);
            }
            self.start = delim;
            self.pos = delim + 2;
            let marker = if trims { 2 } else { 0 };
            if after[marker..].starts_with("/*") {
                self.pos += marker;
                self.start = self.pos;
                self.comment()?;
                continue;
            }
            self.emit(Token::LeftDelim);
            self.pos += marker;
            self.start = self.pos;
            self.action()?;
        }
    }

    fn comment(&mut self) -> Result<(), String> {
        let end = self.rest().find("*/").ok_or("unclosed comment")?;
        self.pos += end + 2;
        let (length, trims) = self.right_delim().ok_or("comment ends before closing delimiter")?;
        self.pos += length;
        self.start = self.pos;
        if trims {
            self.trim_left();
        }
        Ok(())
    }

    /// The inside of an action, up to and with its right delimiter.
    fn action(&mut self) -> Result<(), String> {
        let mut parens = 0usize;
        loop {
            if let Some((length, trims)) = self.right_delim() {
                if parens > 0 {
                    return Err("unclosed left paren".to_owned());
                }
                self.pos += length - 2;
                self.start = self.pos;
                self.pos += 2;
                self.emit(Token::RightDelim);
                if trims {
                    self.trim_left();
                }
                return Ok(());
            }
            let c = self.next().ok_or("unclosed action")?;
            match c {
                c if is_space(c) => {
                    // The space of a trimming right delimiter is part of it.
                    while self.right_delim().is_none() && self.peek().is_some_and(is_space) {
                        self.next();
                    }
                    self.emit(Token::Space);
                }
                '=' => self.emit(Token::Assign),
                ':' => {
                    if self.next() != Some('=') {
                        return Err("expected :=".to_owned());
                    }
                    self.emit(Token::Declare);
                }
                '|' => self.emit(Token::Pipe),
                '"' => self.quoted('"', Token::String, "unterminated quoted string")?,
                '\'' => self.quoted('\'', Token::CharConstant, "unterminated character constant")?,
                '`' => {
                    let end = self.rest().find('`').ok_or("unterminated raw quoted string")?;
                    self.pos += end + 1;
                    self.emit(Token::RawString);
                }
                '$' => self.name(Token::Variable)?,
                '.' if !self.peek().is_some_and(|c| c.is_ascii_digit()) => self.name(Token::Field)?,
                '.' | '+' | '-' | '0'..='9' => {
                    self.pos = self.start;
                    self.number()?;
                }
                c if is_word(c) => {
                    while self.peek().is_some_and(is_word) {
                        self.next();
                    }
                    self.check_end()?;
                    let word = &self.input[self.start..self.pos];
                    self.emit(keyword(word).unwrap_or(match word {
                        "true" | "false" => Token::Bool,
                        _ => Token::Identifier,
                    }));
                }
                '(' => {
                    parens += 1;
                    self.emit(Token::LeftParen);
                }
                ')' => {
                    self.emit(Token::RightParen);
                    parens = parens.checked_sub(1).ok_or("unexpected right paren")?;
                }
                c if c.is_ascii() && is_print(c) => self.emit(Token::Char),
                c => return Err(format!("unrecognized character in action: {}", unicode(c))),
            }
        }
    }

    fn quoted(&mut self, end: char, token: Token, error: &str) -> Result<(), String> {
        loop {
            match self.next() {
                Some('\\') if !matches!(self.peek(), None | Some('\n')) => {
                    self.next();
                }
                None | Some('\n' | '\\') => return Err(error.to_owned()),
                Some(c) if c == end => break,
                Some(_) => {}
            }
        }
        self.emit(token);
        Ok(())
    }

    /// A variable or field after its first character.
    fn name(&mut self, token: Token) -> Result<(), String> {
        if self.at_end() {
            self.emit(if token == Token::Field { Token::Dot } else { token });
            return Ok(());
        }
        while self.peek().is_some_and(is_word) {
            self.next();
        }
        self.check_end()?;
        self.emit(token);
        Ok(())
    }

    /// Whether a name may end here.
    fn at_end(&self) -> bool {
        self.peek().is_none_or(|c| is_space(c) || ".,|:)(}".contains(c))
    }

    fn check_end(&self) -> Result<(), String> {
        match self.peek() {
            Some(c) if !self.at_end() => Err(format!("bad character {}", unicode(c))),
            _ => Ok(()),
        }
    }

    fn number(&mut self) -> Result<(), String> {
        let mut good = self.scan_number();
        let mut token = Token::Number;
        if good && matches!(self.peek(), Some('+' | '-')) {
            good = self.scan_number() && self.input[..self.pos].ends_with('i');
            token = Token::Complex;
        }
        if !good {
            return Err(format!("bad number syntax: {}", quote(&self.input[self.start..self.pos])));
        }
        self.emit(token);
        Ok(())
    }

    fn accept(&mut self, set: &str) -> bool {
        let found = self.peek().is_some_and(|c| set.contains(c));
        self.pos += usize::from(found);
        found
    }

    fn scan_number(&mut self) -> bool {
        self.accept("+-");
        let mut digits = "0123456789_";
        if self.accept("0") {
            if self.accept("xX") {
                digits = "0123456789abcdefABCDEF_";
            } else if self.accept("oO") {
                digits = "01234567_";
            } else if self.accept("bB") {
                digits = "01_";
            }
        }
        while self.accept(digits) {}
        if self.accept(".") {
            while self.accept(digits) {}
        }
        let exponent = if digits.len() == 23 { "pP" } else { "eE" };
        if digits.len() > 10 && self.accept(exponent) {
            self.accept("+-");
            while self.accept("0123456789_") {}
        }
        self.accept("i");
        if self.peek().is_some_and(is_word) {
            self.next();
            return false;
        }
        true
    }
}

/// A character as Go's `%#U` has it.
fn unicode(c: char) -> String {
    if is_print(c) { format!("U+{:04X} '{c}'", c as u32) } else { format!("U+{:04X}", c as u32) }
}
