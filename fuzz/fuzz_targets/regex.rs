//! Any pattern compiles or is refused; with and without groups it matches the same texts, and a
//! match keeps what the pattern promises about prefix and set.
#![no_main]

use larum::storage::regex::{Regex, Rewriter};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (pattern, text) = input;
    let (regex, rewriter) = (Regex::new(pattern), Rewriter::anchored(pattern));
    assert_eq!(regex.as_ref().err(), rewriter.as_ref().err());
    if let (Ok(regex), Ok(rewriter)) = (regex, rewriter) {
        let matched = regex.is_match(text);
        assert_eq!(matched, rewriter.is_match(text));
        assert!(!matched || text.starts_with(regex.prefix()));
        if let Some(texts) = regex.set() {
            assert_eq!(matched, texts.iter().any(|t| t == text));
        }
    }
    if let Ok(rewriter) = Rewriter::unanchored(pattern) {
        let _ = rewriter.replace_all(text, pattern, 1 << 16);
    }
});
