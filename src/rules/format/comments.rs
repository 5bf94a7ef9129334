//! Finds the comments of a YAML text: which `#` begins one, and which is text.

/// A comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    /// Its line, from 1.
    pub line: u64,
    /// `# ...`, without blanks at the end.
    pub text: String,
}

/// What the text goes on with at the start of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// Neither quotes nor a block.
    Nothing,
    /// Quotes of this kind that were opened in a line before.
    Quotes(char),
    /// A block scalar whose key stands at this column.
    Block(usize),
}

/// The comments of `text`, in order.
pub fn find(text: &str) -> Vec<Comment> {
    let mut found = Vec::new();
    let mut inside = Inside::Nothing;
    // How many brackets and braces are open, as far as they are YAML's.
    let mut open = 0usize;
    for (number, line) in text.lines().enumerate() {
        let content = line.trim_start_matches(' ');
        let indent = line.len() - content.len();
        if let Inside::Block(key) = inside {
            if content.trim().is_empty() || indent > key {
                continue;
            }
            inside = Inside::Nothing;
        }
        let mut scan = Scan { inside, open, begins: true, is_plain: false };
        let end = scan.comment(line);
        if let Some(at) = end {
            found.push(Comment { line: number as u64 + 1, text: line[at..].trim_end().to_owned() });
        }
        (inside, open) = (scan.inside, scan.open);
        let before = line[..end.unwrap_or(line.len())].trim_end();
        if inside == Inside::Nothing && open == 0 && opens_block(before) {
            inside = Inside::Block(key_column(line));
        }
    }
    found
}

/// The column of the key of a line, behind the dashes of lists.
fn key_column(line: &str) -> usize {
    let mut rest = line;
    loop {
        let content = rest.trim_start_matches(' ');
        match content.strip_prefix("- ") {
            Some(after) => rest = after,
            None => return line.len() - content.len(),
        }
    }
}

/// Whether a line, without its comment, ends with `|`, `>-` and the like behind a key or a dash.
fn opens_block(line: &str) -> bool {
    let Some((before, last)) = line.rsplit_once(' ') else { return false };
    let is_header =
        last.starts_with(['|', '>']) && last[1..].chars().all(|c| matches!(c, '+' | '-' | '0'..='9'));
    is_header && before.trim_end().ends_with([':', '-'])
}

struct Scan {
    inside: Inside,
    open: usize,
    /// Whether a scalar may begin here.
    begins: bool,
    /// Whether this is in a scalar without quotes.
    is_plain: bool,
}

impl Scan {
    /// Where a comment begins in `line`, if there is one.
    fn comment(&mut self, line: &str) -> Option<usize> {
        let mut chars = line.char_indices().peekable();
        let mut is_after_blank = true;
        while let Some((at, c)) = chars.next() {
            if let Inside::Quotes(quote) = self.inside {
                if quote == '"' && c == '\\' {
                    chars.next();
                } else if c == quote {
                    if quote == '\'' && chars.next_if(|(_, next)| *next == '\'').is_some() {
                        continue;
                    }
                    self.inside = Inside::Nothing;
                    self.begins = false;
                }
                is_after_blank = false;
                continue;
            }
            match c {
                ' ' | '\t' => {
                    is_after_blank = true;
                    continue;
                }
                '#' if is_after_blank => return Some(at),
                '\'' | '"' if self.begins => {
                    self.inside = Inside::Quotes(c);
                }
                '[' | '{' if self.begins => self.open += 1,
                ']' | '}' if self.open > 0 => {
                    self.open -= 1;
                    (self.begins, self.is_plain) = (false, false);
                }
                ',' if self.open > 0 => (self.begins, self.is_plain) = (true, false),
                ':' if chars.peek().is_none_or(|(_, next)| next.is_whitespace()) => {
                    (self.begins, self.is_plain) = (true, false);
                }
                '-' if self.begins && chars.peek().is_none_or(|(_, next)| *next == ' ') => {}
                _ if self.begins => (self.begins, self.is_plain) = (false, true),
                _ => {}
            }
            is_after_blank = false;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_told_from_text() {
        let text = r##"# first
groups: # behind a key
- name: "a # b" # behind quotes
  rules:
  - expr: up{job="x # y"}#z > 1 # behind a plain text
  - expr: |  # behind the sign of a block
      # not this one
      up

      # nor this
    for: 5m
    # before a key
    labels: {a: 'it''s # no', b: "\" # no", # in braces
      c: d}
  - expr: >-
      a # b
  -   alert: it's # after an apostrophe
      x: "two
        # lines" # done
"##;
        let found: Vec<(u64, String)> = find(text).into_iter().map(|c| (c.line, c.text)).collect();
        let expected = [
            (1, "# first"),
            (2, "# behind a key"),
            (3, "# behind quotes"),
            (5, "# y\"}#z > 1 # behind a plain text"),
            (6, "# behind the sign of a block"),
            (12, "# before a key"),
            (13, "# in braces"),
            (17, "# after an apostrophe"),
            (19, "# done"),
        ];
        // YAML ends a plain text at a blank and a `#`, wherever they stand.
        assert_eq!(found, expected.map(|(line, text)| (line, text.to_owned())));
    }
}
