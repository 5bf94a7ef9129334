//! Go's syntax of regular expressions, read into a tree (`regexp/syntax` with the flags `Perl`).
//!
//! The parser keeps open groups on a stack of its own, so that nesting costs no call stack, and
//! counts what it builds, so that a short pattern cannot ask for much memory.

use super::{Groups, MAX_PATTERN_BYTES, RegexError, class};
use regex_syntax::hir::{Capture, Class, ClassUnicode, ClassUnicodeRange, Dot, Hir, Look, Repetition};

/// The largest count in a repetition, and the largest product of nested ones.
const MAX_REPEAT: u32 = 1000;
/// Groups and repetitions may nest this deep. (Go allows 1,000; compiling recurses.)
const MAX_DEPTH: u32 = 250;
/// Classes may have this many ranges in all, nodes counting as one.
const MAX_RANGES: usize = 1 << 20;

/// What `(?flags)` changes, and what a pattern starts with.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flags {
    /// `i`
    pub fold_case: bool,
    /// `m`
    pub multi_line: bool,
    /// `s`
    pub dot_matches_newline: bool,
    /// `U`
    pub ungreedy: bool,
}

/// A pattern's tree and the names of its groups, by number; the whole match is number 0.
pub(super) struct Parsed {
    pub hir: Hir,
    pub groups: Vec<Option<String>>,
}

/// Reads `pattern`, with its groups or as if none of them captured.
pub(super) fn parse(pattern: &str, flags: Flags, groups: Groups) -> Result<Parsed, RegexError> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(RegexError::too_large(pattern));
    }
    let mut parser = Parser {
        pattern,
        rest: pattern,
        flags,
        open: vec![Group::default()],
        keep_groups: groups == Groups::All,
        groups: vec![None],
        ranges: 0,
    };
    parser.run()?;
    let Some(group) = parser.open.pop().filter(|_| parser.open.is_empty()) else {
        return Err(RegexError::new("missing closing )", pattern));
    };
    let node = group.finish();
    parser.check(&node)?;
    Ok(Parsed { hir: node.hir, groups: parser.groups })
}

/// A subtree with what limits look at.
struct Node {
    hir: Hir,
    depth: u32,
    /// The largest product of nested repetition counts.
    repeats: u32,
}

impl Node {
    fn leaf(hir: Hir) -> Node {
        Node { hir, depth: 1, repeats: 1 }
    }

    /// Joins nodes by `join`, unless there is just one.
    fn join(mut nodes: Vec<Node>, join: fn(Vec<Hir>) -> Hir) -> Node {
        if nodes.len() == 1
            && let Some(only) = nodes.pop()
        {
            return only;
        }
        let depth = 1 + nodes.iter().map(|n| n.depth).max().unwrap_or(0);
        let repeats = nodes.iter().map(|n| n.repeats).max().unwrap_or(1);
        Node { hir: join(nodes.into_iter().map(|n| n.hir).collect()), depth, repeats }
    }
}

/// An open group: alternatives so far, and the nodes of the current one.
#[derive(Default)]
struct Group {
    /// The flags to return to.
    flags: Flags,
    capture: Option<u32>,
    alternatives: Vec<Node>,
    nodes: Vec<Node>,
    /// Plain characters after `nodes`, not yet a node.
    literal: String,
}

impl Group {
    fn push(&mut self, node: Node) {
        self.flush();
        self.nodes.push(node);
    }

    fn flush(&mut self) {
        if !self.literal.is_empty() {
            let bytes = std::mem::take(&mut self.literal).into_bytes();
            self.nodes.push(Node::leaf(Hir::literal(bytes)));
        }
    }

    /// The node a repetition applies to: the last character or node.
    fn pop(&mut self) -> Option<Node> {
        match self.literal.pop() {
            Some(c) => Some(Node::leaf(Hir::literal(c.to_string().into_bytes()))),
            None => self.nodes.pop(),
        }
    }

    fn end_alternative(&mut self) {
        self.flush();
        let nodes = std::mem::take(&mut self.nodes);
        self.alternatives.push(Node::join(nodes, Hir::concat));
    }

    fn finish(mut self) -> Node {
        self.end_alternative();
        Node::join(self.alternatives, Hir::alternation)
    }
}

struct Parser<'p> {
    pattern: &'p str,
    rest: &'p str,
    flags: Flags,
    /// Never empty while running: the first is the pattern itself.
    open: Vec<Group>,
    keep_groups: bool,
    groups: Vec<Option<String>>,
    ranges: usize,
}

impl<'p> Parser<'p> {
    fn run(&mut self) -> Result<(), RegexError> {
        // Where the repetition stands that was just read, if the last thing read was one.
        let mut last_repeat: Option<&'p str> = None;
        while let Some(first) = self.rest.bytes().next() {
            let before = self.rest;
            let mut repeat = None;
            match first {
                b'(' if before.starts_with("(?") => self.flags_or_group()?,
                b'(' => {
                    self.take(1);
                    self.open_capture(None)?;
                }
                b'|' => {
                    self.take(1);
                    self.group().end_alternative();
                }
                b')' => {
                    self.take(1);
                    self.close()?;
                }
                b'^' => self.look(1, if self.flags.multi_line { Look::StartLF } else { Look::Start })?,
                b'$' => self.look(1, if self.flags.multi_line { Look::EndLF } else { Look::End })?,
                b'.' => {
                    self.take(1);
                    let all = self.flags.dot_matches_newline;
                    let dot = if all { Dot::AnyChar } else { Dot::AnyCharExceptLF };
                    self.push(Node::leaf(Hir::dot(dot)))?;
                }
                b'[' => self.set()?,
                b'*' | b'+' | b'?' => {
                    self.take(1);
                    let (min, max) = match first {
                        b'*' => (0, None),
                        b'+' => (1, None),
                        _ => (0, Some(1)),
                    };
                    self.repeat(before, last_repeat, min, max)?;
                    repeat = Some(before);
                }
                b'{' => match counts(before) {
                    None => {
                        self.take(1);
                        self.literal('{')?;
                    }
                    Some((counts, rest)) => {
                        let cited = &before[..before.len() - rest.len()];
                        let (min, max) =
                            counts.ok_or_else(|| RegexError::new("invalid repeat count", cited))?;
                        self.rest = rest;
                        self.repeat(before, last_repeat, min, max)?;
                        repeat = Some(before);
                    }
                },
                b'\\' => self.escape()?,
                _ => {
                    let c = self.next_char().unwrap_or_default();
                    self.literal(c)?;
                }
            }
            last_repeat = repeat;
        }
        Ok(())
    }

    fn take(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn next_char(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next();
        self.rest = chars.as_str();
        c
    }

    fn group(&mut self) -> &mut Group {
        self.open.last_mut().expect("the pattern itself stays open")
    }

    fn check(&self, node: &Node) -> Result<(), RegexError> {
        if node.depth > MAX_DEPTH {
            return Err(RegexError::new("expression nests too deeply", self.pattern));
        }
        Ok(())
    }

    fn count(&mut self, ranges: usize) -> Result<(), RegexError> {
        self.ranges += ranges;
        if self.ranges > MAX_RANGES { Err(RegexError::too_large(self.pattern)) } else { Ok(()) }
    }

    fn push(&mut self, node: Node) -> Result<(), RegexError> {
        self.count(1)?;
        self.check(&node)?;
        self.group().push(node);
        Ok(())
    }

    fn push_class(&mut self, class: ClassUnicode) -> Result<(), RegexError> {
        self.count(class.ranges().len())?;
        self.push(Node::leaf(Hir::class(Class::Unicode(class))))
    }

    fn look(&mut self, bytes: usize, look: Look) -> Result<(), RegexError> {
        self.take(bytes);
        self.push(Node::leaf(Hir::look(look)))
    }

    fn literal(&mut self, c: char) -> Result<(), RegexError> {
        if self.flags.fold_case {
            let mut class = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
            class.case_fold_simple();
            if class.ranges().len() > 1 || class.ranges().first().is_some_and(|r| r.start() != r.end()) {
                return self.push_class(class);
            }
        }
        self.group().literal.push(c);
        Ok(())
    }

    /// A code point from an escape; a surrogate is none that a text can have.
    fn code_point(&mut self, code: u32) -> Result<(), RegexError> {
        match char::from_u32(code) {
            Some(c) => self.literal(c),
            None => self.push(Node::leaf(Hir::fail())),
        }
    }

    fn repeat(
        &mut self,
        before: &'p str,
        last: Option<&'p str>,
        min: u32,
        max: Option<u32>,
    ) -> Result<(), RegexError> {
        let mut greedy = !self.flags.ungreedy;
        if self.rest.starts_with('?') {
            self.take(1);
            greedy = !greedy;
        }
        if let Some(last) = last {
            let cited = &last[..last.len() - self.rest.len()];
            return Err(RegexError::new("invalid nested repetition operator", cited));
        }
        let cited = &before[..before.len() - self.rest.len()];
        let Some(node) = self.group().pop() else {
            return Err(RegexError::new("missing argument to repetition operator", cited));
        };
        let times = match max {
            Some(0) => 0,
            Some(max) => max,
            None => min,
        };
        let repeats = if max == Some(0) { 1 } else { node.repeats * times.max(1) };
        if repeats > MAX_REPEAT {
            return Err(RegexError::new("invalid repeat count", cited));
        }
        let hir = Hir::repetition(Repetition { min, max, greedy, sub: Box::new(node.hir) });
        self.push(Node { hir, depth: node.depth + 1, repeats })
    }

    fn open_capture(&mut self, name: Option<String>) -> Result<(), RegexError> {
        if !self.keep_groups {
            return self.open_group(None);
        }
        self.groups.push(name);
        let number = self.groups.len() as u32 - 1;
        self.open_group(Some(number))
    }

    fn open_group(&mut self, capture: Option<u32>) -> Result<(), RegexError> {
        self.count(1)?;
        let flags = self.flags;
        self.open.push(Group { flags, capture, ..Group::default() });
        Ok(())
    }

    fn close(&mut self) -> Result<(), RegexError> {
        if self.open.len() < 2 {
            return Err(RegexError::new("unexpected )", self.pattern));
        }
        let Some(group) = self.open.pop() else { return Ok(()) };
        self.flags = group.flags;
        let capture = group.capture;
        let mut node = group.finish();
        node.depth += 1;
        if let Some(index) = capture {
            node.hir = Hir::capture(Capture { index, name: None, sub: Box::new(node.hir) });
        }
        self.push(node)
    }

    /// `(?P<name>`, `(?<name>`, `(?flags)`, `(?flags:`.
    fn flags_or_group(&mut self) -> Result<(), RegexError> {
        let start = self.rest;
        for opening in ["(?P<", "(?<"] {
            let Some(after) = start.strip_prefix(opening).filter(|after| !after.is_empty()) else { continue };
            let Some((name, rest)) = after.split_once('>') else {
                return Err(RegexError::new("invalid named capture", start));
            };
            if name.is_empty() || !name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()) {
                let cited = &start[..start.len() - rest.len()];
                return Err(RegexError::new("invalid named capture", cited));
            }
            self.rest = rest;
            return self.open_capture(Some(name.to_owned()));
        }
        self.take(2);
        let (mut flags, mut on, mut saw_flag) = (self.flags, true, false);
        while let Some(c) = self.next_char() {
            match c {
                'i' => flags.fold_case = on,
                'm' => flags.multi_line = on,
                's' => flags.dot_matches_newline = on,
                'U' => flags.ungreedy = on,
                '-' if on => on = false,
                ':' | ')' if on || saw_flag => {
                    if c == ':' {
                        self.open_group(None)?;
                    }
                    self.flags = flags;
                    return Ok(());
                }
                _ => break,
            }
            saw_flag = c != '-';
        }
        let cited = &start[..start.len() - self.rest.len()];
        Err(RegexError::new("invalid or unsupported Perl syntax", cited))
    }

    fn escape(&mut self) -> Result<(), RegexError> {
        match self.rest.as_bytes().get(1) {
            Some(b'A') => return self.look(2, Look::Start),
            Some(b'z') => return self.look(2, Look::End),
            Some(b'b') => return self.look(2, Look::WordAscii),
            Some(b'B') => return self.look(2, Look::WordAsciiNegate),
            Some(b'Q') => {
                let quoted = &self.rest[2..];
                let (literal, rest) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
                self.rest = rest;
                return literal.chars().try_for_each(|c| self.literal(c));
            }
            _ => {}
        }
        let mut class = class::empty();
        if self.class_escape(&mut class)? {
            return self.push_class(class);
        }
        let code = self.char_escape()?;
        self.code_point(code)
    }

    /// Reads `\d`, `\pL`, `\p{Greek}` and their like into `class`; false if there is none.
    fn class_escape(&mut self, class: &mut ClassUnicode) -> Result<bool, RegexError> {
        let [b'\\', letter, ..] = self.rest.as_bytes() else { return Ok(false) };
        let fold = self.flags.fold_case;
        if let Some((group, negated)) = class::perl(*letter) {
            self.take(2);
            class::add(class, group, fold, negated);
            return Ok(true);
        }
        if !matches!(letter, b'p' | b'P') {
            return Ok(false);
        }
        let (start, mut negated) = (self.rest, *letter == b'P');
        let unknown = |cited: &str| RegexError::new("invalid character class range", cited);
        self.take(2);
        let name = match self.next_char() {
            Some('{') => {
                let (name, rest) = self.rest.split_once('}').ok_or_else(|| unknown(start))?;
                self.rest = rest;
                name
            }
            _ => &start[2..start.len() - self.rest.len()],
        };
        let mut plain = name;
        if let Some(rest) = name.strip_prefix('^') {
            (negated, plain) = (!negated, rest);
        }
        let group = class::unicode(plain).ok_or_else(|| unknown(&start[..start.len() - self.rest.len()]))?;
        self.count(group.ranges().len())?;
        class::add(class, group, fold, negated);
        Ok(true)
    }

    /// The code point of an escape that stands for one.
    fn char_escape(&mut self) -> Result<u32, RegexError> {
        let start = self.rest;
        self.take(1);
        let Some(c) = self.next_char() else {
            return Err(RegexError::new("trailing backslash at end of expression", ""));
        };
        let octal = |rest: &str| rest.bytes().next().filter(|b| (b'0'..=b'7').contains(b));
        match c {
            '0'..='7' if c == '0' || octal(self.rest).is_some() => {
                let mut code = c as u32 - '0' as u32;
                for _ in 1..3 {
                    let Some(digit) = octal(self.rest) else { break };
                    code = code * 8 + u32::from(digit - b'0');
                    self.take(1);
                }
                return Ok(code);
            }
            'x' => {
                if let Some(code) = self.hexadecimal() {
                    return Ok(code);
                }
            }
            'a' => return Ok(7),
            'f' => return Ok(12),
            'n' => return Ok(10),
            'r' => return Ok(13),
            't' => return Ok(9),
            'v' => return Ok(11),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => return Ok(c as u32),
            _ => {}
        }
        Err(RegexError::new("invalid escape sequence", &start[..start.len() - self.rest.len()]))
    }

    /// What follows `\x`: two digits, or any number in braces.
    fn hexadecimal(&mut self) -> Option<u32> {
        let first = self.next_char()?;
        if first != '{' {
            let second = self.next_char()?;
            return Some(first.to_digit(16)? * 16 + second.to_digit(16)?);
        }
        let (mut code, mut digits) = (0, 0);
        loop {
            match self.next_char()? {
                '}' if digits > 0 => return Some(code),
                c => code = code * 16 + c.to_digit(16)?,
            }
            if code > char::MAX as u32 {
                return None;
            }
            digits += 1;
        }
    }

    /// `[...]`
    fn set(&mut self) -> Result<(), RegexError> {
        let start = self.rest;
        self.take(1);
        let negated = self.rest.starts_with('^');
        self.take(usize::from(negated));
        let mut class = class::empty();
        let mut first = true;
        while first || !self.rest.starts_with(']') {
            first = false;
            if self.named(&mut class)? || self.class_escape(&mut class)? {
                continue;
            }
            let range = self.rest;
            let lo = self.set_char(start)?;
            let mut hi = lo;
            if self.rest.len() >= 2 && self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.take(1);
                hi = self.set_char(start)?;
                if hi < lo {
                    let cited = &range[..range.len() - self.rest.len()];
                    return Err(RegexError::new("invalid character class range", cited));
                }
            }
            let mut group = class::empty();
            class::push(&mut group, lo, hi);
            self.count(1)?;
            class::add(&mut class, group, self.flags.fold_case, false);
        }
        self.take(1);
        if negated {
            class.negate();
        }
        self.push_class(class)
    }

    fn set_char(&mut self, set: &str) -> Result<u32, RegexError> {
        if self.rest.starts_with('\\') {
            return self.char_escape();
        }
        self.next_char().map(u32::from).ok_or_else(|| RegexError::new("missing closing ]", set))
    }

    /// Reads `[:name:]` into `class`; false if there is none.
    fn named(&mut self, class: &mut ClassUnicode) -> Result<bool, RegexError> {
        let Some((name, rest)) = self.rest.strip_prefix("[:").and_then(|after| after.split_once(":]")) else {
            return Ok(false);
        };
        let (negated, plain) = match name.strip_prefix('^') {
            Some(plain) => (true, plain),
            None => (false, name),
        };
        let cited = &self.rest[..self.rest.len() - rest.len()];
        let group =
            class::posix(plain).ok_or_else(|| RegexError::new("invalid character class range", cited))?;
        self.rest = rest;
        class::add(class, group, self.flags.fold_case, negated);
        Ok(true)
    }
}

/// A repetition's bounds; none if they are too large or the wrong way round.
type Counts = Option<(u32, Option<u32>)>;

/// Reads `{n}`, `{n,}` or `{n,m}`; anything else is plain text. Gives what follows too.
fn counts(text: &str) -> Option<(Counts, &str)> {
    let (inside, rest) = text.strip_prefix('{')?.split_once('}')?;
    let number = |digits: &str| -> Option<u32> {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        if !plain || (digits.len() > 1 && digits.starts_with('0')) {
            return None;
        }
        Some(digits.parse().unwrap_or(u32::MAX))
    };
    let (min, max) = match inside.split_once(',') {
        None => (number(inside)?, Some(number(inside)?)),
        Some((min, "")) => (number(min)?, None),
        Some((min, max)) => (number(min)?, Some(number(max)?)),
    };
    let valid = min <= MAX_REPEAT && max.is_none_or(|max| max <= MAX_REPEAT && min <= max);
    Some((valid.then_some((min, max)), rest))
}
