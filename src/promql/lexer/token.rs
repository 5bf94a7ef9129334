//! Tokens: their kinds, and how errors describe them.

use super::super::ast::{AggregateOp, BinaryOp, Pos};
use larum_storage_format::labels::write_quoted;

/// A piece of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Where it stands.
    pub pos: Pos,
}

/// The kinds of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// The end of the text.
    Eof,
    /// A name without a colon that is no keyword.
    Identifier,
    /// A name with a colon.
    MetricIdentifier,
    /// A quoted text, quotes included.
    String,
    /// A number, `Inf` and `NaN` included.
    Number,
    /// A number with units.
    Duration,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    /// `=`
    Equal,
    /// `=~`
    EqualRegex,
    /// `!~`
    NotEqualRegex,
    At,
    Binary(BinaryOp),
    Aggregate(AggregateOp),
    Keyword(Keyword),
}

/// The words that have a meaning besides being names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keyword {
    Anchored,
    Bool,
    By,
    End,
    Fill,
    FillLeft,
    FillRight,
    GroupLeft,
    GroupRight,
    Ignoring,
    MaxOf,
    MinOf,
    Offset,
    On,
    Range,
    Smoothed,
    Start,
    Step,
    Without,
}

/// Keywords and operators that are words, ascending by name.
const WORDS: [(&str, TokenKind); 25] = {
    use Keyword as K;
    use TokenKind::{Binary, Keyword as Word, Number};
    [
        ("anchored", Word(K::Anchored)),
        ("and", Binary(BinaryOp::And)),
        ("atan2", Binary(BinaryOp::Atan2)),
        ("bool", Word(K::Bool)),
        ("by", Word(K::By)),
        ("end", Word(K::End)),
        ("fill", Word(K::Fill)),
        ("fill_left", Word(K::FillLeft)),
        ("fill_right", Word(K::FillRight)),
        ("group_left", Word(K::GroupLeft)),
        ("group_right", Word(K::GroupRight)),
        ("ignoring", Word(K::Ignoring)),
        ("inf", Number),
        ("max_of", Word(K::MaxOf)),
        ("min_of", Word(K::MinOf)),
        ("nan", Number),
        ("offset", Word(K::Offset)),
        ("on", Word(K::On)),
        ("or", Binary(BinaryOp::Or)),
        ("range", Word(K::Range)),
        ("smoothed", Word(K::Smoothed)),
        ("start", Word(K::Start)),
        ("step", Word(K::Step)),
        ("unless", Binary(BinaryOp::Unless)),
        ("without", Word(K::Without)),
    ]
};

/// What a word stands for, if it is no mere name. Case does not matter.
pub(super) fn keyword(word: &str) -> Option<TokenKind> {
    const LONGEST: usize = "count_values".len();
    if word.len() > LONGEST {
        return None;
    }
    let lower = word.to_ascii_lowercase();
    if let Ok(found) = WORDS.binary_search_by(|(name, _)| (*name).cmp(&lower)) {
        return Some(WORDS[found].1);
    }
    AggregateOp::ALL.into_iter().find(|op| op.name() == lower).map(TokenKind::Aggregate)
}

impl TokenKind {
    /// Whether a metric may be called like that without quotes.
    pub fn is_metric_name(self) -> bool {
        use Keyword as K;
        match self {
            TokenKind::Identifier | TokenKind::MetricIdentifier | TokenKind::Aggregate(_) => true,
            TokenKind::Binary(op) => op.is_set(),
            TokenKind::Keyword(word) => {
                !matches!(word, K::Bool | K::On | K::Ignoring | K::GroupLeft | K::GroupRight)
            }
            _ => false,
        }
    }

    /// Whether a label may be called like that after `by`, `on` and their like, without quotes.
    pub fn is_label_name(self) -> bool {
        matches!(self, TokenKind::Keyword(_) | TokenKind::Binary(BinaryOp::Atan2)) || self.is_metric_name()
    }
}

impl Token {
    /// The text it was read from.
    pub fn text(self, query: &str) -> &str {
        query.get(self.pos.start as usize..self.pos.end as usize).unwrap_or("")
    }

    /// How an error about it names it, `<op:+>` or `identifier "foo"`.
    pub fn describe(self, query: &str) -> String {
        let text = self.text(query);
        match self.kind {
            TokenKind::Eof => "end of input".to_owned(),
            TokenKind::Identifier => format!("identifier {}", quote(text)),
            TokenKind::MetricIdentifier => format!("metric identifier {}", quote(text)),
            TokenKind::String => format!("string {}", quote_shortened(text)),
            TokenKind::Number => format!("number {}", quote_shortened(text)),
            TokenKind::Duration => format!("duration {}", quote_shortened(text)),
            TokenKind::Binary(_) | TokenKind::EqualRegex | TokenKind::NotEqualRegex | TokenKind::At => {
                format!("<op:{text}>")
            }
            TokenKind::Aggregate(_) => format!("<aggr:{text}>"),
            TokenKind::Keyword(word) => match word {
                // Prometheus counts these as preprocessors, and describes them by their text.
                Keyword::Start
                | Keyword::End
                | Keyword::Step
                | Keyword::Range
                | Keyword::MinOf
                | Keyword::MaxOf => quote_shortened(text),
                _ => format!("<{text}>"),
            },
            _ => quote_shortened(text),
        }
    }
}

/// `text` in double quotes, as Go's `%q`.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    write_quoted(&mut out, text).expect("writing to a string does not fail");
    out
}

/// A long text is cut after ten characters.
fn quote_shortened(text: &str) -> String {
    if text.len() <= 10 {
        return quote(text);
    }
    format!("{}...", quote(&text.chars().take(10).collect::<String>()))
}

/// A character in single quotes, as Go's `%q`; the end of the text is a replacement character.
pub(super) fn quote_char(c: Option<char>) -> String {
    match c.unwrap_or(char::REPLACEMENT_CHARACTER) {
        '\'' => r"'\''".to_owned(),
        '"' => "'\"'".to_owned(),
        c => {
            let quoted = quote(c.encode_utf8(&mut [0; 4]));
            format!("'{}'", &quoted[1..quoted.len() - 1])
        }
    }
}
