//! The rule files that come along are valid for Prometheus' own checker too.

mod support;

use std::process::Command;
use support::real_server;

#[test]
fn promtool_passes_the_rules_that_come_along() {
    let Some(promtool) = real_server("promtool") else { return };
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/rules");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    assert!(!files.is_empty());
    let output = Command::new(promtool).args(["check", "rules"]).args(&files).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
