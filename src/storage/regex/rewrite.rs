//! Patterns whose groups fill templates: `label_replace`, and `match` and `reReplaceAll` of alerts.

use super::{Groups, RegexError, anchored, compile, parse};
use regex_automata::{Input, meta, util::captures::Captures};

/// A compiled pattern with groups.
#[derive(Debug, Clone)]
pub struct Rewriter {
    regex: meta::Regex,
    /// The groups' names, by number.
    names: Vec<Option<String>>,
}

impl Rewriter {
    /// `^(?s:PATTERN)$`, as `label_replace` has it.
    pub fn anchored(pattern: &str) -> Result<Rewriter, RegexError> {
        let flags = parse::Flags { dot_matches_newline: true, ..parse::Flags::default() };
        let parsed = parse::parse(pattern, flags, Groups::All)?;
        let regex = compile(anchored(parsed.hir), pattern, Groups::All)?;
        Ok(Rewriter { regex, names: parsed.groups })
    }

    /// `PATTERN` anywhere in a text, as Go's `regexp.Compile` has it.
    pub fn unanchored(pattern: &str) -> Result<Rewriter, RegexError> {
        let parsed = parse::parse(pattern, parse::Flags::default(), Groups::All)?;
        let regex = compile(parsed.hir, pattern, Groups::All)?;
        Ok(Rewriter { regex, names: parsed.groups })
    }

    /// Whether the pattern matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// Fills `template` from the first match, if there is one: `$1`, `$name`, `${name}`, `$$`. A
    /// group that does not exist or did not match is empty; what is no reference stands for itself.
    ///
    /// # Errors
    /// If that is longer than `limit_bytes`.
    pub fn expand(&self, text: &str, template: &str, limit_bytes: usize) -> Result<Option<String>, TooLong> {
        let mut groups = self.regex.create_captures();
        self.regex.captures(Input::new(text), &mut groups);
        if !groups.is_match() {
            return Ok(None);
        }
        let mut out = String::new();
        self.expand_into(&mut out, text, &groups, template, limit_bytes)?;
        Ok(Some(out))
    }

    /// Replaces every match by the filled template; none if the outcome exceeds `limit_bytes`.
    pub fn replace_all(&self, text: &str, template: &str, limit_bytes: usize) -> Option<String> {
        let (mut out, mut copied) = (String::new(), 0);
        for groups in self.regex.captures_iter(text) {
            let Some(found) = groups.get_match() else { continue };
            out.push_str(text.get(copied..found.start())?);
            self.expand_into(&mut out, text, &groups, template, limit_bytes).ok()?;
            copied = found.end();
        }
        out.push_str(text.get(copied..)?);
        (out.len() <= limit_bytes).then_some(out)
    }

    fn expand_into(
        &self,
        out: &mut String,
        text: &str,
        groups: &Captures,
        template: &str,
        limit_bytes: usize,
    ) -> Result<(), TooLong> {
        let mut rest = template;
        while let Some(dollar) = rest.find('$') {
            if out.len() > limit_bytes {
                return Err(TooLong);
            }
            out.push_str(&rest[..dollar]);
            rest = &rest[dollar + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                out.push('$');
                rest = after;
                continue;
            }
            let Some((name, after)) = reference(rest) else {
                out.push('$');
                continue;
            };
            rest = after;
            let span = match number(name) {
                Some(number) => groups.get_group(number),
                None => (0..self.names.len())
                    .filter(|i| self.names[*i].as_deref() == Some(name))
                    .find_map(|i| groups.get_group(i)),
            };
            if let Some(span) = span {
                out.push_str(text.get(span.start..span.end).unwrap_or_default());
            }
        }
        out.push_str(rest);
        if out.len() > limit_bytes { Err(TooLong) } else { Ok(()) }
    }
}

/// A template became longer than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// The name after a `$`, bare or in braces, and what follows it.
fn reference(text: &str) -> Option<(&str, &str)> {
    let (inside, braces) = match text.strip_prefix('{') {
        Some(inside) => (inside, true),
        None => (text, false),
    };
    let end = inside.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(inside.len());
    let (name, rest) = inside.split_at(end);
    if name.is_empty() {
        return None;
    }
    if braces { rest.strip_prefix('}').map(|rest| (name, rest)) } else { Some((name, rest)) }
}

/// A group's number: digits without a leading zero.
fn number(name: &str) -> Option<usize> {
    if !name.bytes().all(|b| b.is_ascii_digit()) || (name.len() > 1 && name.starts_with('0')) {
        return None;
    }
    name.parse().ok()
}
