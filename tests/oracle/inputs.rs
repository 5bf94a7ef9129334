//! Queries: those that somebody wrote, and random ones.

use crate::grammar::Grammar;
use crate::random::Random;
use std::path::Path;

/// Queries for what the scripts do not have, and for each known difference.
const OURS: &[&str] = &[
    "1 + 2 * 3 ^ 4 ^ 5 - -6 % 7 / 8 atan2 9",
    "-1 ^ 2",
    "-a ^ b * -c",
    "+a",
    "a + +b",
    "- - a",
    "a and b or c unless d and e",
    "a == bool 1 > bool 2",
    "a == on () b",
    "a + ignoring () b",
    "a / on (x, y) group_left b",
    "a / ignoring (x) group_right (y, z) b",
    "a and ignoring (x) b",
    "a or on () b",
    "a + fill (1.5) b",
    "a - on (x) group_left (y) fill_left (-1) fill_right (+2) b",
    "sum by (a, by, on) (b)",
    "sum (b) without ()",
    "SUM(b) BY (a)",
    "count_values('x', b)",
    "quantile by () (0.5, b)",
    "topk(3, a) offset 5m",
    "{__name__='a'}",
    "a{b!='', c=~'d.*', e!~\"f|g\"}",
    "{'a.b', \"c d\"='e'}",
    "a[5m] @ 1.5 offset -1h",
    "a offset 1h @ -2",
    "a @ start()",
    "a[1h30m] @ end()",
    "a[5m:1m] offset 3m @ 7",
    "max_over_time(rate(a[5m])[1h:])",
    "a[300]",
    "a offset 90",
    "0x1F + 1e3 + .5 + 5. + Inf + NaN + 1h30m",
    "'a\\'b\\n' == bool \"c\"",
    "label_replace(a, 'b', '$1', 'c', '(.*)')",
    "'\\u00e9\\x41\\101'",
    "\"\\xff\"",
    "017",
    "start + end - offset",
    "sum_over_time(a[1y2w3d4h5m6s7ms])",
    "a # comment\n + b",
    "time() - timestamp(a)",
    "((a))",
    "(-1)",
    "a{b=`c`}",
];

/// The queries above, those of our scripts, and those of Prometheus' scripts where they are.
pub fn written() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut queries: Vec<String> = OURS.iter().map(|query| (*query).to_owned()).collect();
    for folder in [root.join("tests/promql"), root.join("../shared/promqltest")] {
        let Ok(files) = std::fs::read_dir(&folder) else {
            eprintln!("SKIPPED: the scripts in {} are absent", folder.display());
            continue;
        };
        let mut paths: Vec<_> = files.flatten().map(|file| file.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "test"));
        paths.sort();
        for path in paths {
            let text = std::fs::read_to_string(&path).expect("the script can be read");
            let evals = text.lines().map(str::trim).filter(|line| line.starts_with("eval"));
            queries.extend(evals.filter_map(larum::promql::testlang::query_of).map(str::to_owned));
        }
    }
    queries
}

/// Queries of a grammar, and written ones with a piece replaced, left out, doubled or put in.
pub fn random(written: &[String], count: usize) -> Vec<String> {
    let pieces: Vec<Vec<&str>> = written.iter().map(|query| split(query)).collect();
    let mut grammar = Grammar { random: Random::new(0x1a_12), from_s: 0, to_s: 7_200 };
    let mut random = Random::new(0x0_ac1e);
    let mut queries = Vec::with_capacity(count);
    while queries.len() < count {
        if random.chance(40) {
            queries.push(grammar.question().query);
            continue;
        }
        let mut query = pieces[random.below(pieces.len())].clone();
        for _ in 0..=random.below(3) {
            let other = &pieces[random.below(pieces.len())];
            let (at, from) = (random.below(query.len()), random.below(other.len()));
            match random.below(4) {
                0 => query[at] = other[from],
                1 if query.len() > 1 => drop(query.remove(at)),
                2 => query.insert(at, query[at]),
                _ => query.insert(at, other[from]),
            }
        }
        queries.push(query.concat());
    }
    queries
}

/// Words, texts, blanks, and what stands between them.
fn split(query: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = query;
    while let Some(first) = rest.chars().next() {
        let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
        let len = match first {
            '"' | '\'' | '`' => rest[1..].find(first).map_or(rest.len(), |end| end + 2),
            c if word(c) => rest.find(|c| !word(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let (piece, after) = rest.split_at(len);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

#[test]
fn pieces_make_the_query_again() {
    let query = "sum by (a) (rate({\"b c\"='d'}[5m])) > 1.5e3";
    assert_eq!(split(query).concat(), query);
    assert!(split(query).contains(&"\"b c\""));
    assert!(split(query).contains(&"1.5e3"));
}
