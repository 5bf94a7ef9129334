//! Runs the acceptance scripts of Prometheus and our own, and compares how many queries are
//! answered as expected with `tests/promql/passing.txt`.

use larum::promql::{EvalOptions, testlang};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The number of passing queries per script: `name passed of`.
fn listed_passes(path: &Path) -> BTreeMap<String, (usize, usize)> {
    let text = std::fs::read_to_string(path).expect("the list of passing scripts is checked in");
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, passed, of] = words.as_slice() else { panic!("{line:?}: expected NAME PASSED OF") };
            ((*name).to_owned(), (passed.parse().expect("a number"), of.parse().expect("a number")))
        })
        .collect()
}

fn scripts(folder: &Path) -> Vec<PathBuf> {
    let Ok(files) = std::fs::read_dir(folder) else {
        eprintln!("SKIPPED: the scripts in {} are absent", folder.display());
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "test"));
    paths.sort();
    paths
}

#[test]
fn scripts_pass_as_often_as_they_did() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = root.join("tests/promql/passing.txt");
    let listed = listed_passes(&list);
    let shown = std::env::var("PROMQL_FAILURES").unwrap_or_default();
    let (mut fewer, mut more) = (Vec::new(), Vec::new());
    let folders = [root.join("../shared/promqltest"), root.join("tests/promql")];
    for path in folders.iter().flat_map(|folder| scripts(folder)) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("the script can be read");
        let report = testlang::run(&text, &testlang::options_of(&text))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (passed, of) = (report.evals - report.failures.len(), report.evals);
        println!("{name} {passed} {of}");
        let (listed_passed, listed_of) = listed.get(&name).copied().unwrap_or_default();
        if passed < listed_passed || of < listed_of {
            fewer.push(format!("{name} {passed} {of}, listed are {listed_passed} of {listed_of}"));
        } else if (passed, of) != (listed_passed, listed_of) {
            more.push(format!("{name} {passed} {of}"));
        }
        if passed < listed_passed || !shown.is_empty() && name.contains(&shown) {
            for failure in report.failures {
                println!("{}:{}: {}", path.display(), failure.line, failure.query);
                println!("    {}", failure.difference);
            }
        }
    }
    if !more.is_empty() {
        println!("More pass than {} says; raise the numbers there:\n{}", list.display(), more.join("\n"));
    }
    assert!(fewer.is_empty(), "fewer pass than {} says:\n{}", list.display(), fewer.join("\n"));
}

/// Queries of Prometheus' scripts whose answers are others if names are dropped at once: labels for
/// type and unit go with the name, and then partners are no longer found.
const DEPEND_ON_NAMES: [(&str, usize); 1] = [("type_and_unit.test", 4)];

#[test]
fn scripts_pass_as_often_with_names_dropped_at_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let at_once = EvalOptions { delayed_name_removal: false, ..testlang::options() };
    for path in scripts(&root.join("../shared/promqltest")) {
        let text = std::fs::read_to_string(&path).expect("the script can be read");
        let failures =
            |options: &EvalOptions| testlang::run(&text, options).expect("the script can be run").failures;
        let known: Vec<usize> = failures(&testlang::options()).iter().map(|failure| failure.line).collect();
        let mut new = failures(&at_once);
        // Annotations tell the name, if it is still there.
        new.retain(|f| {
            let of_annotations =
                ["a warning ", "an info "].iter().any(|kind| f.difference.expected.starts_with(kind));
            !known.contains(&f.line) && !of_annotations
        });
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let allowed = DEPEND_ON_NAMES.iter().find(|(script, _)| *script == name).map_or(0, |(_, n)| *n);
        assert!(new.len() <= allowed, "{name} with names dropped at once: {new:#?}");
    }
}

#[test]
fn the_deepest_queries_are_evaluated_on_a_small_stack() {
    const DEPTH: usize = larum::promql::parse::MAX_DEPTH - 5;
    let nested =
        |before: &str, after: &str, n: usize| format!("{}vector(1){}", before.repeat(n), after.repeat(n));
    let queries = [
        nested("abs(", ")", DEPTH),
        nested("sum(", ")", DEPTH),
        nested("-", "", DEPTH),
        nested("(", ")", DEPTH),
        nested("", "+1", DEPTH),
        nested("1+(", ")", DEPTH / 2),
        nested("max_over_time(", "[1m:])", DEPTH / 2),
    ];
    // As much as the threads have that serve requests.
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
        let (memory, options) = (testlang::Memory::default(), testlang::options());
        for query in queries {
            let expr = larum::promql::parse(&query).expect("it is not too deep");
            let steps = larum::promql::Steps::instant(larum::storage::Timestamp::from_millis(0));
            if let Err(error) = larum::promql::evaluate(&expr, &memory, steps, &options) {
                // Subqueries in subqueries ask for more samples than are allowed.
                assert!(error.to_string().contains("too many samples"), "{error}");
            }
        }
    });
    thread.expect("a thread can be started").join().expect("no query ends the thread");
}
