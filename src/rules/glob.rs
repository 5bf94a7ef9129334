//! File name patterns of `rule_files`: `*`, `?` and `[a-z]`, in any part of the path, as in Go's
//! `filepath.Glob`.

use std::path::{Component, Path, PathBuf};

/// The files that `pattern` names, sorted. A pattern without wildcards names one file, which need
/// not exist; wildcards that match nothing name none.
pub(crate) fn expand(pattern: &Path) -> Vec<PathBuf> {
    if !has_wildcard(&pattern.to_string_lossy()) {
        return vec![pattern.to_owned()];
    }
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let part = component.as_os_str().to_string_lossy();
        if !matches!(component, Component::Normal(_)) || !has_wildcard(&part) {
            found.iter_mut().for_each(|path| path.push(component));
            continue;
        }
        let matches = |folder: &PathBuf| {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name());
            names.filter(|name| fits(part.as_bytes(), name.to_string_lossy().as_bytes())).collect::<Vec<_>>()
        };
        found = found
            .iter()
            .flat_map(|folder| matches(folder).into_iter().map(move |name| folder.join(name)))
            .collect();
    }
    found.retain(|path| path.exists());
    found.sort();
    found
}

fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Whether all of `name` fits `pattern`. Tries the shortest run for the last `*` first, so that it
/// takes at most their product in steps.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry = None;
    while n < name.len() {
        let advance = match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, n));
                p += 1;
                continue;
            }
            Some(b'?') => Some(1),
            Some(b'[') => class(&pattern[p..], name[n]),
            Some(b'\\') if pattern.get(p + 1) == Some(&name[n]) => Some(2),
            Some(&byte) if byte == name[n] => Some(1),
            _ => None,
        };
        match (advance, retry) {
            (Some(len), _) => (p, n) = (p + len, n + 1),
            (None, Some((star, from))) => {
                retry = Some((star, from + 1));
                (p, n) = (star + 1, from + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

/// The length of the class at the front of `pattern`, if it is closed and `byte` is in it.
fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let negated = pattern.get(1) == Some(&b'^');
    let start = if negated { 2 } else { 1 };
    let end = start + pattern[start..].iter().position(|&b| b == b']')?;
    let mut inside = false;
    let mut at = start;
    while at < end {
        if at + 2 < end && pattern[at + 1] == b'-' {
            inside |= (pattern[at]..=pattern[at + 2]).contains(&byte);
            at += 3;
        } else {
            inside |= pattern[at] == byte;
            at += 1;
        }
    }
    (inside != negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_go() {
        let cases = [
            ("*.yml", "a.yml", true),
            ("*.yml", "a.yaml", false),
            ("a*b*c", "aXbYbZc", true),
            ("a?c", "abc", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[ab", "a", false),
            ("\\*", "*", true),
            ("a*", "a", true),
            ("", "a", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn wildcards_name_what_exists_and_plain_names_stay() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["x/a.yml", "x/b.yml", "y/c.yml", "y/c.txt"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found = expand(&dir.path().join("*/*.yml"));
        assert_eq!(found, ["x/a.yml", "x/b.yml", "y/c.yml"].map(|n| dir.path().join(n)));
        assert_eq!(expand(Path::new("nowhere.yml")), [PathBuf::from("nowhere.yml")]);
        assert!(expand(&dir.path().join("z*/a")).is_empty());
    }
}
