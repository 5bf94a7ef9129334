//! `larum test promql` from outside.
#![cfg(feature = "server")]

use std::fs;
use std::path::Path;
use std::process::Command;

/// Runs it in `folder`; what it says, and its exit code.
fn test_promql(folder: &Path, paths: &[&str]) -> (String, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larum"));
    let output = command.args(["test", "promql"]).args(paths).current_dir(folder).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

const GOOD: &str = "load 1m\n  up 1 2\n\neval instant at 1m up\n  up 2\n\neval instant at 0 1\n  1\n";

#[test]
fn scripts_in_folders_are_run_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("deep/er")).unwrap();
    fs::write(dir.path().join("one.test"), GOOD).unwrap();
    fs::write(dir.path().join("deep/er/two.test"), GOOD).unwrap();
    fs::write(dir.path().join("deep/notes.md"), "no script").unwrap();
    assert_eq!(test_promql(dir.path(), &["."]), ("4 passed, 0 failed\n".to_owned(), Some(0)));
    assert_eq!(test_promql(dir.path(), &["one.test", "deep"]), ("4 passed, 0 failed\n".to_owned(), Some(0)));
    // A file that is named is a script, whatever it is called.
    fs::write(dir.path().join("deep/notes.md"), GOOD).unwrap();
    assert_eq!(test_promql(dir.path(), &["deep/notes.md"]), ("2 passed, 0 failed\n".to_owned(), Some(0)));
}

#[test]
fn failures_are_told_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let bad = "load 1m\n  up 1 2\n\neval instant at 1m up\n  up 3\n\neval range from 0 to 1m step 1m up\n  up 1 2\n\n\
               eval instant at 0 sum(\n";
    fs::write(dir.path().join("bad.test"), bad).unwrap();
    let expected = "bad.test:4: up\n    expected {__name__=\"up\"} 3 (line 5)\n    got      2\n\
                    bad.test:10: sum(\n    expected a query that parses\n    \
                    got      1:5: parse error: unclosed left parenthesis\n\
                    1 passed, 2 failed\n";
    assert_eq!(test_promql(dir.path(), &["bad.test"]), (expected.to_owned(), Some(1)));
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_run() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    fs::write(dir.path().join("a.test"), "load 1m\n  up x\n").unwrap();
    fs::write(dir.path().join("b.test"), b"load 1m\n  up 1 \xff\n").unwrap();
    fs::write(dir.path().join("c.test"), GOOD).unwrap();
    let (said, code) = test_promql(dir.path(), &["a.test", "b.test", "none", "empty", "c.test"]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(code, Some(1));
    let begins = [
        "a.test:2: 1:4: parse error: unexpected \"x\"",
        "b.test: ",
        "none: ",
        "empty: there is no *.test file",
    ];
    for (line, begin) in lines.iter().zip(begins) {
        assert!(line.starts_with(begin), "{said}");
    }
    assert_eq!(lines[4..], ["2 passed, 4 failed"]);
}
