//! Texts as YAML scalars: plain where that is safe, else quoted; several lines as a literal block, a long line
//! as a folded one.

/// Lines are folded so that they end before this column, where there are blanks to fold at.
const WIDTH: usize = 110;

/// `text` as the value of a key that stands at column `indent`: what follows the colon and the blank, and
/// further lines with their indentation. `used` columns of the first line are taken.
pub fn value(text: &str, indent: usize, used: usize) -> Vec<String> {
    let line = one_line(text);
    match line {
        None => block(text, indent).unwrap_or_else(|| vec![double_quoted(text)]),
        Some(line) if used + line.chars().count() > WIDTH => {
            folded(text, indent).unwrap_or_else(|| vec![line])
        }
        Some(line) => vec![line],
    }
}

/// `text` as a key.
pub fn key(text: &str) -> String {
    one_line(text).unwrap_or_else(|| double_quoted(text))
}

/// `None` where the text has several lines.
fn one_line(text: &str) -> Option<String> {
    if text.contains('\n') {
        return None;
    }
    Some(if is_plain(text) {
        text.to_owned()
    } else if text.chars().any(is_special) || (text.contains('\'') && !text.contains(['"', '\\'])) {
        double_quoted(text)
    } else if text.contains(['"', '\\']) {
        format!("'{}'", text.replace('\'', "''"))
    } else {
        format!("\"{text}\"")
    })
}

/// Whether a character must be escaped.
fn is_special(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{85}' | '\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Whether the text means itself without quotes, in every version of YAML.
fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else { return false };
    let word = text.to_ascii_lowercase();
    let is_other =
        matches!(word.as_str(), "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n");
    // What begins like a number may be one, or a date.
    let is_number = first.is_ascii_digit() || matches!(first, '+' | '.');
    let is_name = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '+' | ':'));
    let is_indicator = "-?:,[]{}#&*!|>'\"%@`=~<".contains(first);
    !(is_other
        || (is_number && is_name)
        || is_indicator
        || text.contains(": ")
        || text.contains(" #")
        || text.ends_with(':')
        || text.starts_with(char::is_whitespace)
        || text.ends_with(char::is_whitespace)
        || text.contains('\t')
        || text.chars().any(is_special))
}

fn double_quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_special(c) && u32::from(c) < 0x100 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if is_special(c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `None` where a literal block would not mean the same.
fn block(text: &str, indent: usize) -> Option<Vec<String>> {
    let (content, chomping) = match text.strip_suffix('\n') {
        Some(content) => (content, "|"),
        None => (text, "|-"),
    };
    let is_special = |c: char| c != '\n' && c != '\t' && is_special(c);
    if content.is_empty()
        || content.ends_with('\n')
        || content.starts_with(char::is_whitespace)
        || content.lines().any(|line| !line.is_empty() && line.trim().is_empty())
        || content.chars().any(is_special)
    {
        return None;
    }
    let blank = " ".repeat(indent + 2);
    let line = |line: &str| if line.is_empty() { String::new() } else { format!("{blank}{line}") };
    Some(std::iter::once(chomping.to_owned()).chain(content.split('\n').map(line)).collect())
}

/// `None` where there is nothing to fold at, or a folded block would not mean the same.
fn folded(text: &str, indent: usize) -> Option<Vec<String>> {
    if text.starts_with(char::is_whitespace)
        || text.ends_with(char::is_whitespace)
        || text.chars().any(is_special)
    {
        return None;
    }
    let blank = " ".repeat(indent + 2);
    let mut lines = vec![">-".to_owned()];
    let mut line = String::new();
    // Only single blanks come back as they were.
    let mut words = text.split(' ').peekable();
    while let Some(first) = words.next() {
        let mut word = first.to_owned();
        while words.peek().is_some_and(|next| next.is_empty() || next.starts_with('\t'))
            || (word.ends_with(' ') && words.peek().is_some())
        {
            word.push(' ');
            word.push_str(words.next().unwrap_or_default());
        }
        let len = line.chars().count() + 1 + word.chars().count();
        if line.is_empty() {
            line = word;
        } else if indent + 2 + len > WIDTH {
            lines.push(format!("{blank}{line}"));
            line = word;
        } else {
            line.push(' ');
            line.push_str(&word);
        }
    }
    lines.push(format!("{blank}{line}"));
    (lines.len() > 2).then_some(lines)
}
