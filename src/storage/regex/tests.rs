//! What Go answers, pattern by pattern, as `promtool` 2.42 (Go 1.19) gave it.

use super::*;
use proptest::prelude::*;

/// The texts that match all over, and those that do not; or the error.
type Answer = Result<(&'static [&'static str], &'static [&'static str]), &'static str>;

#[rustfmt::skip]
const GO: &[(&str, Answer)] = &[
    ("\\d", Ok((&["5"], &["٣", "a"]))),
    ("\\w+", Ok((&["abc_1"], &["é"]))),
    ("\\s", Ok((&[" ", "\t"], &["\u{b}", "\u{a0}"]))),
    (".\\b.", Ok((&["a-"], &["ab", "é-"]))),
    ("a\\Bb", Ok((&["ab"], &[]))),
    ("[a&&b]", Ok((&["a", "&", "b"], &["&&"]))),
    ("[a~~b]", Ok((&["~", "a"], &[]))),
    ("\\<a", Ok((&["<a"], &["a"]))),
    ("\\>", Ok((&[">"], &[]))),
    ("\\Qa.b\\E", Ok((&["a.b"], &["axb"]))),
    ("\\Qa.b", Ok((&["a.b"], &[]))),
    ("\\Qab\\E*", Ok((&["abbb", "a"], &["abab"]))),
    ("\\123\\07", Ok((&["S\u{7}"], &[]))),
    ("\\0", Ok((&["\u{0}"], &[]))),
    ("\\1", Err("invalid escape sequence: `\\1`")),
    ("\\18", Err("invalid escape sequence: `\\1`")),
    ("a{", Ok((&["a{"], &[]))),
    ("a{,5}", Ok((&["a{,5}"], &["aa"]))),
    ("{", Ok((&["{"], &[]))),
    ("a{2}", Ok((&["aa"], &["a"]))),
    ("a{2,}", Ok((&["aaa"], &["a"]))),
    ("a{2,3}", Ok((&["aa"], &["aaaa"]))),
    ("a{02}", Ok((&["a{02}"], &[]))),
    ("a{1,", Ok((&["a{1,"], &[]))),
    ("[[]", Ok((&["["], &[]))),
    ("[\\d-z]", Ok((&["-", "5", "z"], &["b"]))),
    ("[a-\\d]", Err("invalid escape sequence: `\\d`")),
    ("\\p{^Greek}", Ok((&["a"], &["α"]))),
    ("\\p{Greek}", Ok((&["α"], &["a"]))),
    ("\\P{Greek}", Ok((&["a"], &["α"]))),
    ("\\P{^Greek}", Ok((&["α"], &[]))),
    ("\\pN", Ok((&["5", "٣", "Ⅷ"], &["a"]))),
    ("\\pL+", Ok((&["aé"], &["5"]))),
    ("\\p{Lu}", Ok((&["A"], &["a"]))),
    ("(?i)\\p{Lu}", Ok((&["a", "A"], &["1"]))),
    ("[a--b]", Err("invalid character class range: `a--`")),
    ("(?x)a", Err("invalid or unsupported Perl syntax: `(?x`")),
    ("(?R)", Err("invalid or unsupported Perl syntax: `(?R`")),
    ("(?u)a", Err("invalid or unsupported Perl syntax: `(?u`")),
    ("\\u00e9", Err("invalid escape sequence: `\\u`")),
    ("a**", Err("invalid nested repetition operator: `**`")),
    ("x*+", Err("invalid nested repetition operator: `*+`")),
    ("a{2}{3}", Err("invalid nested repetition operator: `{2}{3}`")),
    ("a{1001}", Err("invalid repeat count: `{1001}`")),
    ("a{3,2}", Err("invalid repeat count: `{3,2}`")),
    ("(a{500}){3}", Err("invalid repeat count: `{3}`")),
    ("a{99999999999}", Err("invalid repeat count: `{99999999999}`")),
    ("\\p{IsGreek}", Err("invalid character class range: `\\p{IsGreek}`")),
    ("\\p{Foo}", Err("invalid character class range: `\\p{Foo}`")),
    ("\\pX", Err("invalid character class range: `\\pX`")),
    ("\\p", Err("invalid character class range: `\\p`")),
    ("\\p{Lu", Err("invalid character class range: `\\p{Lu`")),
    ("(?P<n>a)b", Ok((&["ab"], &[]))),
    ("(?P<n", Err("invalid named capture: `(?P<n`")),
    ("(?P<1-2>a)", Err("invalid named capture: `(?P<1-2>`")),
    ("(?P=n)", Err("invalid or unsupported Perl syntax: `(?P`")),
    ("(?i)k", Ok((&["K", "k", "\u{212a}"], &[]))),
    ("(?i)straße", Ok((&["STRAßE"], &["STRASSE"]))),
    ("(?i)[k-l]", Ok((&["\u{212a}", "K"], &[]))),
    ("(?i)\\w", Ok((&["\u{212a}", "ſ"], &[]))),
    ("(?i)[[:upper:]]", Ok((&["a"], &["1"]))),
    ("(?i)[^k]", Ok((&["a"], &["K", "\u{212a}"]))),
    ("\\Aab\\z", Ok((&["ab"], &["abc"]))),
    ("(?U)a+", Ok((&["aaa"], &[]))),
    ("(?m)^a$", Ok((&["a"], &["b\na"]))),
    ("(?m)a$\\nb", Ok((&["a\nb"], &[]))),
    ("a.b", Ok((&["a\nb", "axb"], &["ab"]))),
    ("(?-s)a.b", Ok((&["axb"], &["a\nb"]))),
    ("(?-s:.)b", Ok((&["ab"], &["\nb"]))),
    ("[[:alpha:]]", Ok((&["a"], &["é", ":"]))),
    ("[[:^alpha:]]", Ok((&["1"], &["a"]))),
    ("[[:foo:]]", Err("invalid character class range: `[:foo:]`")),
    ("[:alpha:]", Ok((&["a"], &["z"]))),
    ("[]a]", Ok((&["]", "a"], &[]))),
    ("[^]a]", Ok((&["b"], &["]"]))),
    ("\\_\\-\\/\\@", Ok((&["_-/@"], &[]))),
    ("\\C", Err("invalid escape sequence: `\\C`")),
    ("\\Z", Err("invalid escape sequence: `\\Z`")),
    ("\\R", Err("invalid escape sequence: `\\R`")),
    ("\\X", Err("invalid escape sequence: `\\X`")),
    ("\\h", Err("invalid escape sequence: `\\h`")),
    ("(?=a)", Err("invalid or unsupported Perl syntax: `(?=`")),
    ("(?!a)", Err("invalid or unsupported Perl syntax: `(?!`")),
    ("(a)\\1", Err("invalid escape sequence: `\\1`")),
    ("\\e", Err("invalid escape sequence: `\\e`")),
    ("\\", Err("trailing backslash at end of expression: ``")),
    ("a(", Err("missing closing ): `a(`")),
    ("a)", Err("unexpected ): `a)`")),
    ("[", Err("missing closing ]: `[`")),
    ("[a", Err("missing closing ]: `[a`")),
    ("[z-a]", Err("invalid character class range: `z-a`")),
    ("*", Err("missing argument to repetition operator: `*`")),
    ("a|*", Err("missing argument to repetition operator: `*`")),
    ("(*)", Err("missing argument to repetition operator: `*`")),
    ("(?i)*", Err("missing argument to repetition operator: `*`")),
    ("+", Err("missing argument to repetition operator: `+`")),
    ("?a", Err("missing argument to repetition operator: `?`")),
    ("{1}", Err("missing argument to repetition operator: `{1}`")),
    ("a??b", Ok((&["ab", "b"], &[]))),
    ("(?i", Err("invalid or unsupported Perl syntax: `(?i`")),
    ("(?", Err("invalid or unsupported Perl syntax: `(?`")),
    ("(?-)", Err("invalid or unsupported Perl syntax: `(?-)`")),
    ("(?i-)a", Err("invalid or unsupported Perl syntax: `(?i-)`")),
    ("(?--i)a", Err("invalid or unsupported Perl syntax: `(?--`")),
    ("(?ii)a", Ok((&["A"], &[]))),
    ("(?i)a(?-i)b", Ok((&["Ab"], &["AB"]))),
    ("(?i:a)b", Ok((&["Ab"], &["AB"]))),
    ("\\x41\\x{42}", Ok((&["AB"], &[]))),
    ("\\x4", Err("invalid escape sequence: `\\x4`")),
    ("\\x{110000}", Err("invalid escape sequence: `\\x{110000`")),
    ("\\x{}", Err("invalid escape sequence: `\\x{}`")),
    ("\\xzz", Err("invalid escape sequence: `\\xzz`")),
    ("[\\x00-\\x{10FFFF}]", Ok((&["a", "\n"], &[]))),
    ("[^\\x00-\\x{10FFFF}]", Ok((&[], &["a", ""]))),
    ("\\a\\f\\n\\r\\t\\v", Ok((&["\u{7}\u{c}\n\r\t\u{b}"], &[]))),
    ("", Ok((&[""], &["a"]))),
    ("|", Ok((&[""], &["a"]))),
    ("a|", Ok((&["", "a"], &[]))),
    ("()", Ok((&[""], &[]))),
    ("foo|bar|baz", Ok((&["foo", "bar"], &["ba", "fo"]))),
    ("foo-(a|b)", Ok((&["foo-a", "foo-b"], &["foo-", "foo-c"]))),
    ("fo{1}o?", Ok((&["foo", "fo"], &["fooo"]))),
    ("(foo|bar)x?", Ok((&["foo", "barx"], &["x"]))),
    ("^foo$", Ok((&["foo"], &[]))),
    ("^foo|bar$", Ok((&["foo", "bar"], &["foobar"]))),
    ("a^b", Ok((&[], &["ab"]))),
    ("^*a", Ok((&["a"], &[]))),
    ("$a", Ok((&[], &["a"]))),
    (".*", Ok((&["", "a\nb"], &[]))),
    (".+", Ok((&["é"], &[""]))),
    ("foo.*", Ok((&["foo", "foobar"], &["fo"]))),
    ("foo.+", Ok((&["foob"], &["foo"]))),
    (".*foo", Ok((&["foo", "xfoo"], &["foox"]))),
    (".*foo.*", Ok((&["afoob"], &["fo"]))),
    ("a.+b.*c", Ok((&["axbc", "abbc", "axbxc"], &["abc", "axb"]))),
    ("a.+a", Ok((&["aaa"], &["aa"]))),
    ("(.*)-(.*)", Ok((&["a-b", "-"], &["ab"]))),
    ("[^a]", Ok((&["b", "\n"], &["a"]))),
    ("[a-c]x", Ok((&["ax", "bx"], &["dx"]))),
    ("é+", Ok((&["éé"], &["e"]))),
    ("\\b", Ok((&[], &[""]))),
    ("\\B", Ok((&[""], &[]))),
    ("[\\w.]+", Ok((&["a.b"], &["a-b"]))),
    ("[\\W]", Ok((&["-"], &["a"]))),
    ("[^\\W\\d]", Ok((&["a"], &["5", "-"]))),
    ("[\\]]", Ok((&["]"], &[]))),
    ("[a\\-z]", Ok((&["-"], &["b"]))),
    ("[a-]", Ok((&["-", "a"], &[]))),
    ("[-a]", Ok((&["-"], &[]))),
    ("[a-c-e]", Ok((&["-", "e"], &["d"]))),
    ("\\p{L}\\p{Nd}", Ok((&["a1"], &[]))),
    ("[\\p{Lu}\\pN]", Ok((&["A", "1"], &["a"]))),
    ("[^\\pN]", Ok((&["a"], &["1"]))),
    ("(?s).", Ok((&["\n"], &[]))),
    ("(a|b)*c|(a|ab)*c", Ok((&["abc", "ac"], &["acc"]))),
    ("\\$\\^\\.\\*\\+\\?\\(\\)\\[\\]\\{\\}\\|\\\\", Ok((&["$^.*+?()[]{}|\\"], &[]))),
    ("\\\"", Ok((&["\""], &[]))),
    ("\\é", Err("invalid escape sequence: `\\é`")),
    ("a{0}", Ok((&[""], &["a"]))),
    ("a{0,0}b", Ok((&["b"], &[]))),
    ("(a{1000}){0}", Ok((&[""], &[]))),
    ("((((((((((((((((((((((((((((((a))))))))))))))))))))))))))))))", Ok((&["a"], &[]))),
    ("\\x{d800}", Ok((&[], &["a"]))),
    // Later versions of Go know these too.
    ("(?<n>a)b", Ok((&["ab"], &[]))),
    ("\\p{greek}\\p{Letter}", Ok((&["αa"], &["aα"]))),
    ("\\p{Any}\\p{ASCII}", Ok((&["éa"], &["aé"]))),
];

/// Pattern, text, template, and the text with each match replaced by the filled template.
#[rustfmt::skip]
const REPLACED: &[(&str, &str, &str, &str)] = &[
    ("(a)(b)", "xabyab", "[$1-$2]", "x[a-b]y[a-b]"),
    ("a*", "baaac", "X", "XbXcX"),
    ("(?P<n>\\d+)", "a1b22", "<${n}>", "a<1>b<22>"),
    ("(a)", "a", "$1x", ""),
    ("(a)", "a", "${1}x", "ax"),
    ("(a)", "a", "$$1", "$1"),
    ("(a)", "a", "$", "$"),
    ("(a)", "a", "${1", "${1"),
    ("(a)|b", "ab", "[$1]", "[a][]"),
    ("a", "a", "$01", ""),
    ("a", "a", "$0$0", "aa"),
    ("a", "aaa", "$99", ""),
    ("", "éa", "-", "-é-a-"),
    (".", "a\nb", "x", "x\nx"),
    ("\\b", "ab cd", "|", "|ab| |cd|"),
    ("(?P<n>a)(?P<n>b)?", "a", "$n", "a"),
    ("a", "bab", "$é", "bb"),
    ("(.)", "ab", "$1_", ""),
    ("a", "a", "$ 1", "$ 1"),
    ("^a", "aa", "b", "ba"),
    ("(\\w+):(\\d+)", "host:80", "$2 at ${1}", "80 at host"),
];

#[test]
fn patterns_match_and_fail_as_in_go() {
    for (pattern, answer) in GO {
        match (Regex::new(pattern), answer) {
            (Ok(regex), Ok((matched, unmatched))) => {
                let rewriter = Rewriter::anchored(pattern).expect("the same parser");
                for (texts, expected) in [(matched, true), (unmatched, false)] {
                    for text in *texts {
                        assert_eq!(regex.is_match(text), expected, "{pattern} on {text}");
                        assert_eq!(rewriter.is_match(text), expected, "{pattern} on {text}, with groups");
                        assert!(!expected || text.starts_with(regex.prefix()), "{pattern}: prefix");
                    }
                }
            }
            (Err(error), Err(expected)) => {
                assert_eq!(error.to_string(), format!("error parsing regexp: {expected}"));
            }
            (got, _) => panic!("{pattern}: {got:?}, Go says {answer:?}"),
        }
    }
}

#[test]
fn templates_are_filled_as_in_go() {
    for (pattern, text, template, expected) in REPLACED {
        let rewriter = Rewriter::unanchored(pattern).expect("a pattern");
        assert_eq!(rewriter.replace_all(text, template, 1 << 20).as_deref(), Some(*expected), "{pattern}");
    }
    let rewriter = Rewriter::anchored("(?P<host>.*):(.*)").expect("a pattern");
    assert_eq!(rewriter.expand("a:80", "${host}-$2$3", 4), Ok(Some("a-80".to_owned())));
    assert_eq!(rewriter.expand("a", "$1", 4), Ok(None));
    assert_eq!(rewriter.replace_all("a:80", "$1$1$1$1", 3), None);
}

#[test]
fn simple_patterns_show_their_texts() {
    let shape = |pattern| {
        let regex = Regex::new(pattern).expect("a pattern");
        let set = regex.set().map(|texts| texts.join(","));
        (regex.literal().map(str::to_owned), set, regex.prefix().to_owned())
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(shape("api"), (some("api"), some("api"), "api".into()));
    assert_eq!(shape("^a\\.b$"), (some("a.b"), some("a.b"), "a.b".into()));
    assert_eq!(shape(""), (some(""), some(""), "".into()));
    assert_eq!(shape("b|a|b"), (None, some("a,b"), "".into()));
    assert_eq!(shape("pod-(a|b[12]?)"), (None, some("pod-a,pod-b,pod-b1,pod-b2"), "".into()));
    assert_eq!(shape("(?i)ab"), (None, some("AB,Ab,aB,ab"), "".into()));
    assert_eq!(shape("pod-.*"), (None, None, "pod-".into()));
    assert_eq!(shape("pod-[0-9]+"), (None, None, "pod-".into()));
    assert_eq!(shape("a|b.*"), (None, None, "".into()));
    assert!(Regex::new("a?").expect("a pattern").matches_empty());
    assert!(!Regex::new(".+").expect("a pattern").matches_empty());
}

#[test]
fn patterns_that_ask_for_much_memory_are_refused() {
    let deep = format!("{}a{}", "(".repeat(100_000), ")".repeat(100_000));
    for (pattern, error) in [
        (r"((a{1000}){1000})".to_owned(), "invalid repeat count: `{1000}`"),
        (r"(\pL\pN\pS){1000}".to_owned(), "expression too large: `(\\pL\\pN\\pS){1000}`"),
        (r"[\pL\pN]".repeat(10_000), "expression too large: `[\\pL\\pN][\\pL\\pN]"),
        (deep, "expression nests too deeply: `((("),
        ("a".repeat(MAX_PATTERN_BYTES + 1), "expression too large: `aaa"),
        ("(?i)".to_owned() + &"k".repeat(MAX_PATTERN_BYTES / 2), "expression too large: `(?i)kkk"),
    ] {
        let text = Regex::new(&pattern).expect_err("a refusal").to_string();
        assert!(
            text.starts_with(&format!("error parsing regexp: {error}")),
            "{}",
            &text[..text.len().min(100)]
        );
    }
    let names: Vec<String> = (0..50_000).map(|i| format!("pod-{i}")).collect();
    let regex = Regex::new(&names.join("|")).expect("a long list is no bomb");
    assert_eq!(regex.set().map(<[String]>::len), Some(50_000));
    assert!(regex.is_match("pod-49999") && !regex.is_match("pod-50000"));
}

proptest! {
    #[test]
    fn no_pattern_makes_it_panic(pattern in r"([(){}\[\]|*+?^$.\\,:<>P!=&-]|[a-cikpLNQE0-9é]){0,24}|.*", text in ".*") {
        if let Ok(regex) = Regex::new(&pattern) {
            let matched = regex.is_match(&text);
            prop_assert_eq!(matched, Rewriter::anchored(&pattern).expect("the same parser").is_match(&text));
            prop_assert!(!matched || text.starts_with(regex.prefix()));
        }
        if let Ok(rewriter) = Rewriter::unanchored(&pattern) {
            let _ = rewriter.replace_all(&text, &pattern, 1 << 16);
        }
    }

    #[test]
    fn shapes_answer_as_the_automaton_does(pattern in r"\^?([ab]|\.\*|\.\+|a\?|\(a\|b\)|[ab]\|){0,6}\$?", text in "[ab\\n]{0,8}") {
        if let Ok(regex) = Regex::new(&pattern) {
            let rewriter = Rewriter::anchored(&pattern).expect("the same parser");
            prop_assert_eq!(regex.is_match(&text), rewriter.is_match(&text));
        }
    }
}
