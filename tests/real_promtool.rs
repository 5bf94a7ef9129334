//! What `larum` says of rules and their unit tests, and what Prometheus' own tool says of the same files.
#![cfg(feature = "server")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::{real_server, shared};

#[test]
fn promtool_passes_the_rules_that_come_along() {
    let Some(promtool) = real_server("promtool") else { return };
    let files = shipped(|name| !name.ends_with("_test.yaml"));
    assert!(!files.is_empty());
    let output = Command::new(promtool).args(["check", "rules"]).args(&files).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn promtool_passes_the_unit_tests_that_come_along_and_so_does_larum() {
    let files = shipped(|name| name.ends_with("_test.yaml"));
    assert!(!files.is_empty());
    assert_eq!(larum_passes(&files), Ok(()));
    let Some(promtool) = real_server("promtool") else { return };
    assert_eq!(passes(&promtool, &files), Ok(()));
}

#[test]
fn promtool_and_larum_agree_on_what_passes_and_what_fails() {
    let promtool = real_server("promtool");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("unit_rules.yml"), include_str!("rules/unit_rules.yml")).unwrap();
    let file = folder.path().join("test.yml");
    let cases = include_str!("rules/unit_tests.txt").split("\n=== ").skip(1);
    let mut must_fail = 0;
    for case in cases {
        let (title, text) = case.split_once('\n').unwrap();
        let expected = title.starts_with("pass: ");
        must_fail += usize::from(title.starts_with("fail: "));
        std::fs::write(&file, format!("rule_files: [unit_rules.yml]\n{text}")).unwrap();
        let files = [file.clone()];
        let said = larum_passes(&files);
        assert_eq!(said.is_ok(), expected, "larum, {title}: {said:?}");
        if let Some(promtool) = &promtool {
            let said = passes(promtool, &files);
            assert_eq!(said.is_ok(), expected, "promtool, {title}: {said:?}");
        }
    }
    assert!(must_fail >= 20, "{must_fail}");
}

#[test]
fn promtool_passes_what_larum_formats_whatever_form_it_had() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for name in ["alert-rules.yml", "alerts-condition.yml", "rules-bare-list.yml"] {
        let Some(path) = shared(&format!("inputs/{name}")) else { return };
        let copy = folder.path().join(name);
        std::fs::copy(path, &copy).unwrap();
        files.push(copy);
    }
    let format = |flag: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larum"));
        command.args(["rules", "format", flag]).args(&files).output().unwrap()
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let named: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
    let checked = format("--check");
    assert_eq!((text(&checked.stdout), checked.status.code()), (named.clone(), Some(1)));
    let list = files[2].display();
    assert!(
        text(&checked.stderr).contains(&format!("warning: {list}:5:13: severity is taken")),
        "{checked:?}"
    );
    let written = format("--write");
    assert_eq!((text(&written.stdout), written.status.code()), (named, Some(0)));
    let checked = format("--check");
    let nothing = (String::new(), String::new(), Some(0));
    assert_eq!((text(&checked.stdout), text(&checked.stderr), checked.status.code()), nothing);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), files.len(), "nothing else is left there");
    let Some(promtool) = real_server("promtool") else { return };
    let output = Command::new(promtool).args(["check", "rules"]).args(&files).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// The files of `rules/` with names as wanted.
fn shipped(wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.to_str().is_some_and(|name| name.ends_with(".yaml") && wanted(name))).collect()
}

/// Whether all files pass as unit tests; if not, what the tool said.
fn passes(tool: impl AsRef<std::ffi::OsStr>, files: &[PathBuf]) -> Result<(), String> {
    let output = Command::new(tool).args(["test", "rules"]).args(files).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(()) } else { Err(text(&output.stdout) + &text(&output.stderr)) }
}

/// The same, said by Larum.
fn larum_passes(files: &[PathBuf]) -> Result<(), String> {
    passes(env!("CARGO_BIN_EXE_larum"), files)
}
