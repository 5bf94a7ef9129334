//! Letters in their other case, as Go maps them: one character by one.

/// A character's other case where that is one character.
pub fn single(c: char, mut mapped: impl Iterator<Item = char>) -> char {
    match (mapped.next(), mapped.next()) {
        (Some(only), None) => only,
        _ => c,
    }
}

/// Go's `strings.ToLower`.
pub fn lower(text: &str) -> String {
    text.chars().map(|c| single(c, c.to_lowercase())).collect()
}

/// Go's `strings.ToUpper`.
pub fn upper(text: &str) -> String {
    text.chars().map(|c| single(c, c.to_uppercase())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_becomes_one_character_or_stays() {
        assert_eq!(upper("straße é"), "STRAßE É");
        assert_eq!(lower("ÀΣ"), "àσ");
    }
}
