//! Patterns that need no automaton: one text, a few texts, texts with `.*` between them.

use regex_automata::meta;
use regex_syntax::hir::{Class, Dot, Hir, HirKind, Look};

/// A set may take this many bytes beyond twice the pattern's length.
const SET_BYTES: usize = 16 << 10;

/// How a predicate over whole texts is answered.
pub(super) enum Shape {
    /// Equal to one text.
    Literal(String),
    /// One of several texts, ascending.
    Set(Vec<String>),
    /// Texts one after another, with anything between them.
    Gaps(Gaps),
    /// Anything else.
    Automaton {
        /// What each match starts with.
        prefix: String,
        /// The anchored automaton.
        regex: meta::Regex,
    },
}

impl Shape {
    /// The shape of a pattern, unless it needs an automaton.
    pub(super) fn of(hir: &Hir, pattern_bytes: usize) -> Option<Shape> {
        let mut budget = SET_BYTES + 2 * pattern_bytes;
        if let Some(mut texts) = texts(hir, &mut budget, true, true) {
            texts.sort_unstable();
            texts.dedup();
            return match texts.len() {
                1 => texts.pop().map(Shape::Literal),
                _ => Some(Shape::Set(texts)),
            };
        }
        Gaps::of(hir).map(Shape::Gaps)
    }

    #[inline]
    pub(super) fn is_match(&self, text: &str) -> bool {
        match self {
            Shape::Literal(only) => only == text,
            Shape::Set(texts) => texts.binary_search_by(|t| t.as_str().cmp(text)).is_ok(),
            Shape::Gaps(gaps) => gaps.is_match(text),
            Shape::Automaton { prefix, regex } => text.starts_with(prefix.as_str()) && regex.is_match(text),
        }
    }
}

/// All texts that `hir` matches, if they fit the budget. `first` and `last`: nothing stands before
/// or after it, so that anchors say nothing there.
fn texts(hir: &Hir, budget: &mut usize, first: bool, last: bool) -> Option<Vec<String>> {
    let mut pay = |texts: &[String]| -> Option<()> {
        let cost: usize = texts.iter().map(|t| t.len() + 8).sum();
        *budget = budget.checked_sub(cost)?;
        Some(())
    };
    match hir.kind() {
        HirKind::Empty => Some(vec![String::new()]),
        HirKind::Look(Look::Start) if first => Some(vec![String::new()]),
        HirKind::Look(Look::End) if last => Some(vec![String::new()]),
        HirKind::Look(_) => None,
        HirKind::Literal(literal) => {
            let texts = vec![std::str::from_utf8(&literal.0).ok()?.to_owned()];
            pay(&texts)?;
            Some(texts)
        }
        HirKind::Class(Class::Unicode(class)) => {
            let count: usize =
                class.iter().map(|r| (u32::from(r.end()) - u32::from(r.start())) as usize + 1).sum();
            if count > 256 {
                return None;
            }
            let texts: Vec<String> =
                class.iter().flat_map(|r| r.start()..=r.end()).map(String::from).collect();
            pay(&texts)?;
            Some(texts)
        }
        HirKind::Class(Class::Bytes(_)) => None,
        HirKind::Repetition(repetition) => match (repetition.min, repetition.max) {
            (0, Some(1)) => {
                let mut all = texts(&repetition.sub, budget, first, last)?;
                all.push(String::new());
                Some(all)
            }
            _ => None,
        },
        HirKind::Capture(capture) => texts(&capture.sub, budget, first, last),
        HirKind::Alternation(alternatives) => {
            let mut all = Vec::new();
            for alternative in alternatives {
                all.append(&mut texts(alternative, budget, first, last)?);
            }
            Some(all)
        }
        HirKind::Concat(parts) => {
            let mut all = vec![String::new()];
            for (i, part) in parts.iter().enumerate() {
                let (first, last) = (first && i == 0, last && i + 1 == parts.len());
                let tails = texts(part, budget, first, last)?;
                let bytes: usize = tails.iter().map(|t| t.len() + 8).sum::<usize>() * all.len()
                    + all.iter().map(|t| t.len()).sum::<usize>() * tails.len();
                *budget = budget.checked_sub(bytes)?;
                all = all
                    .iter()
                    .flat_map(|head| tails.iter().map(move |t| [head, t.as_str()].concat()))
                    .collect();
            }
            Some(all)
        }
    }
}

/// What every match of `hir` starts with.
pub(super) fn prefix(hir: &Hir) -> String {
    match hir.kind() {
        HirKind::Literal(literal) => String::from_utf8(literal.0.to_vec()).unwrap_or_default(),
        HirKind::Capture(capture) => prefix(&capture.sub),
        HirKind::Concat(parts) => {
            let mut parts = parts.iter().skip_while(|part| matches!(part.kind(), HirKind::Look(Look::Start)));
            parts.next().map(prefix).unwrap_or_default()
        }
        _ => String::new(),
    }
}

/// Texts with gaps between them: `a.*b.+c`.
pub(super) struct Gaps {
    /// The text before the first gap.
    first: String,
    /// The fewest characters of a gap (0 or 1), and the text after it.
    rest: Vec<(usize, String)>,
}

impl Gaps {
    fn of(hir: &Hir) -> Option<Gaps> {
        let mut gaps = Gaps { first: String::new(), rest: Vec::new() };
        let parts = match hir.kind() {
            HirKind::Concat(parts) => parts.as_slice(),
            _ => std::slice::from_ref(hir),
        };
        for part in parts {
            match part.kind() {
                HirKind::Literal(literal) => {
                    let text = std::str::from_utf8(&literal.0).ok()?;
                    gaps.rest.last_mut().map_or(&mut gaps.first, |(_, after)| after).push_str(text);
                }
                HirKind::Repetition(repetition)
                    if repetition.min <= 1
                        && repetition.max.is_none()
                        && *repetition.sub == Hir::dot(Dot::AnyChar) =>
                {
                    gaps.rest.push((repetition.min as usize, String::new()));
                }
                _ => return None,
            }
        }
        Some(gaps)
    }

    pub(super) fn prefix(&self) -> &str {
        &self.first
    }

    fn is_match(&self, text: &str) -> bool {
        let Some(mut rest) = text.strip_prefix(self.first.as_str()) else { return false };
        let Some(((last_gap, last), middle)) = self.rest.split_last() else { return rest.is_empty() };
        // Taking the earliest place for each text leaves the most for those that follow.
        for (gap, part) in middle {
            let Some(found) = skip(rest, *gap).and_then(|from| from.find(part.as_str()).map(|at| (from, at)))
            else {
                return false;
            };
            rest = &found.0[found.1 + part.len()..];
        }
        skip(rest, *last_gap).is_some_and(|rest| rest.ends_with(last.as_str()))
    }
}

/// `text` without its first `count` (0 or 1) characters.
fn skip(text: &str, count: usize) -> Option<&str> {
    if count == 0 {
        return Some(text);
    }
    let mut chars = text.chars();
    chars.next()?;
    Some(chars.as_str())
}
