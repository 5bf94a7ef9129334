//! `larum test rules`: runs [`crate::rules::unit_test`]s and says what fails and how many pass.

use crate::promql::Syntax;
use crate::rules::file as rule_file;
use crate::rules::unit_test::{self, Failure, FileReport};
use regex_automata::meta::Regex;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How tests are run and told.
#[derive(Debug, Clone, clap::Args)]
pub struct RuleTests {
    /// Files of tests.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Run only tests whose names match this regular expression (anywhere); may be repeated.
    #[arg(long = "run", value_name = "REGEX", value_parser = regex)]
    run: Vec<Regex>,
    /// Show what differs line by line, `-` for what was expected and `+` for what came.
    #[arg(long)]
    diff: bool,
    /// Leave out fields of rule files that nobody knows, with a warning.
    #[arg(long)]
    ignore_unknown_fields: bool,
    /// Write a report in JUnit's XML format too.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

fn regex(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|e| e.syntax_error().map_or_else(|| e.to_string(), |e| e.to_string()))
}

/// Runs the tests.
pub fn run(tests: &RuleTests) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    match run_all(tests, &mut out).and_then(|passed| out.flush().map(|()| passed)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("larum: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all passed.
fn run_all(tests: &RuleTests, out: &mut impl Write) -> io::Result<bool> {
    let selected = |name: &str| tests.run.is_empty() || tests.run.iter().any(|regex| regex.is_match(name));
    let load = |path: &Path| match tests.ignore_unknown_fields {
        true => rule_file::load_without_unknown_fields(path, Syntax::default()),
        false => rule_file::load(path, Syntax::default()),
    };
    let (mut passed, mut failed) = (0, 0);
    let mut reports = Vec::new();
    for file in &tests.files {
        match unit_test::run_file_with(file, &load, selected) {
            Ok(report) => {
                let bad = report.tests.iter().filter(|test| !test.failures.is_empty()).count();
                (passed, failed) = (passed + report.tests.len() - bad, failed + bad);
                tell(&report, tests.diff, out)?;
                reports.push(report);
            }
            Err(error) => {
                failed += 1;
                writeln!(out, "{}: FAILED\n  {error}", file.display())?;
                reports.push(unreadable(file, error.to_string()));
            }
        }
    }
    writeln!(out, "{passed} passed, {failed} failed")?;
    if let Some(path) = &tests.junit {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        fs::write(path, unit_test::junit(&reports)).map_err(named)?;
    }
    Ok(failed == 0)
}

fn tell(report: &FileReport, diff: bool, out: &mut impl Write) -> io::Result<()> {
    let path = report.path.display();
    writeln!(out, "{path}: {}", if report.passed() { "SUCCESS" } else { "FAILED" })?;
    for warning in &report.warnings {
        writeln!(out, "  warning: {warning}")?;
    }
    for test in &report.tests {
        for failure in &test.failures {
            let name = if test.name.is_empty() { String::new() } else { format!("name: {}, ", test.name) };
            writeln!(out, "  {path}:{}: {name}{}", failure.line, failure.what)?;
            for line in if diff { differences(failure) } else { side_by_side(failure) } {
                writeln!(out, "      {line}")?;
            }
        }
    }
    Ok(())
}

/// All that was expected, and all that came.
fn side_by_side(failure: &Failure) -> Vec<String> {
    if failure.expected.is_empty() && failure.got.is_empty() {
        return Vec::new();
    }
    let lines = |title: &str, items: &[String]| -> Vec<String> {
        match items {
            [] => vec![format!("{title} nothing")],
            items => items.iter().map(|item| format!("{title} {item}")).collect(),
        }
    };
    [lines("exp:", &failure.expected), lines("got:", &failure.got)].concat()
}

/// What both have, only the first, only the second; both are sorted.
fn differences(failure: &Failure) -> Vec<String> {
    let mut lines: Vec<(&String, char)> = Vec::new();
    let mut left = failure.got.iter().collect::<Vec<_>>();
    for item in &failure.expected {
        match left.iter().position(|got| *got == item) {
            Some(at) => lines.push((left.remove(at), ' ')),
            None => lines.push((item, '-')),
        }
    }
    lines.extend(left.into_iter().map(|item| (item, '+')));
    lines.sort_by_key(|(item, _)| *item);
    lines.into_iter().map(|(item, sign)| format!("{sign} {item}")).collect()
}

fn unreadable(file: &Path, error: String) -> FileReport {
    let failure = Failure { line: 1, what: error, expected: Vec::new(), got: Vec::new() };
    let test = unit_test::TestReport { name: "file".to_owned(), line: 1, failures: vec![failure] };
    FileReport { path: file.to_owned(), warnings: Vec::new(), tests: vec![test] }
}
