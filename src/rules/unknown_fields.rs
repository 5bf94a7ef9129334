//! Takes fields that nobody knows out of the text of a rule file, so that all else keeps its place.

/// `text` with the key at `line` and `column`, both from 1, and what belongs to it replaced by nothing. `None`
/// where the key stands within braces, or behind another.
pub fn without_key(text: &str, (line, column): (u64, u64)) -> Option<String> {
    let number = usize::try_from(line).ok()?.checked_sub(1)?;
    let at = usize::try_from(column).ok()?.checked_sub(1)?;
    let mut out = String::with_capacity(text.len());
    let mut is_inside = false;
    for (n, written) in text.split_inclusive('\n').enumerate() {
        let content = written.trim_start_matches(' ');
        let indent = written.len() - content.len();
        if n == number {
            // Only blanks and dashes are as long in bytes as in characters.
            let before = written.get(..at)?;
            if !before.bytes().all(|byte| matches!(byte, b' ' | b'-')) {
                return None;
            }
            out.push_str(before.trim_end_matches(' '));
            out.push('\n');
            is_inside = true;
        } else if is_inside && n > number {
            is_inside =
                content.trim().is_empty() || indent > at || (indent == at && content.starts_with("- "));
            out.push_str(if is_inside { "\n" } else { written });
        } else {
            out.push_str(written);
        }
    }
    Some(out)
}
