//! Character classes: Perl's and POSIX' in ASCII, Unicode's by name, sets in brackets.

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

/// A class that never matches.
pub(super) fn empty() -> ClassUnicode {
    ClassUnicode::empty()
}

/// Adds the code points `lo..=hi`. Surrogates are no characters and fall away.
pub(super) fn push(class: &mut ClassUnicode, lo: u32, hi: u32) {
    let lo = char::from_u32(lo).unwrap_or('\u{E000}');
    let hi = char::from_u32(hi).unwrap_or('\u{D7FF}');
    if lo <= hi {
        class.push(ClassUnicodeRange::new(lo, hi));
    }
}

/// Adds `group` to `class`: folded first, then negated, as RE2 does.
pub(super) fn add(class: &mut ClassUnicode, mut group: ClassUnicode, fold: bool, negated: bool) {
    if fold {
        group.case_fold_simple();
    }
    if negated {
        group.negate();
    }
    class.union(&group);
}

/// What the letter after a backslash stands for: `d`, `s`, `w`, and negated `D`, `S`, `W`.
pub(super) fn perl(letter: u8) -> Option<(ClassUnicode, bool)> {
    let ranges = match letter.to_ascii_lowercase() {
        b'd' => "09",
        b's' => "\t\n\u{c}\r  ",
        b'w' => "09AZaz__",
        _ => return None,
    };
    Some((of(ranges), letter.is_ascii_uppercase()))
}

/// The class `[:name:]`.
pub(super) fn posix(name: &str) -> Option<ClassUnicode> {
    Some(of(match name {
        "alnum" => "09AZaz",
        "alpha" => "AZaz",
        "ascii" => "\u{0}\u{7f}",
        "blank" => "\t\t  ",
        "cntrl" => "\u{0}\u{1f}\u{7f}\u{7f}",
        "digit" => "09",
        "graph" => "!~",
        "lower" => "az",
        "print" => " ~",
        "punct" => "!/:@[`{~",
        "space" => "\t\r  ",
        "upper" => "AZ",
        "word" => "09AZaz__",
        "xdigit" => "09AFaf",
        _ => return None,
    }))
}

/// A class from the pairs of first and last characters of its ranges.
fn of(pairs: &str) -> ClassUnicode {
    let chars: Vec<char> = pairs.chars().collect();
    ClassUnicode::new(chars.chunks_exact(2).map(|pair| ClassUnicodeRange::new(pair[0], pair[1])))
}

/// The Unicode general category or script of this name. Case, spaces, `_` and `-` do not matter
/// (Go 1.25); names of other properties are unknown to Go.
pub(super) fn unicode(name: &str) -> Option<ClassUnicode> {
    let plain: String =
        name.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).map(|c| c.to_ascii_lowercase()).collect();
    if plain.is_empty() || !plain.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    // The crate's own lookup would drop a leading "is".
    if plain.starts_with("is") {
        return None;
    }
    if matches!(plain.as_str(), "cs" | "surrogate") {
        return Some(empty());
    }
    ["gc", "sc"].iter().find_map(|property| {
        match regex_syntax::parse(&format!(r"\p{{{property}={plain}}}")).ok()?.into_kind() {
            HirKind::Class(Class::Unicode(class)) => Some(class),
            _ => None,
        }
    })
}
