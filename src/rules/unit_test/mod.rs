//! Unit tests of rules, in the format of `promtool test rules`: series, and which alerts fire and
//! what queries answer at which time.
//!
//! Rules are evaluated as in service ([`super::running`]), but over samples in memory and by the
//! times of the test. Format: Prometheus' documentation, "Unit testing for rules".

mod check;
mod file;
mod junit;
mod run;

pub use junit::junit;

use super::file as rule_file;
use crate::promql::Syntax;
use crate::yaml::FileError;
use std::path::{Path, PathBuf};

/// How the tests of a file went.
#[derive(Debug, Clone)]
pub struct FileReport {
    /// The file.
    pub path: PathBuf,
    /// What loads but is probably not meant, in the file and in the rule files it names.
    pub warnings: Vec<FileError>,
    /// Its tests, in order, those that were not selected left out.
    pub tests: Vec<TestReport>,
}

/// How one of the `tests:` went.
#[derive(Debug, Clone)]
pub struct TestReport {
    /// Its name; empty if it has none.
    pub name: String,
    /// The line where it stands, from 1.
    pub line: u64,
    /// What is wrong; nothing if it passed.
    pub failures: Vec<Failure>,
}

/// What is wrong with one alert or query of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The line of the expectation, from 1, or of the test if no single one is at fault.
    pub line: u64,
    /// What was looked at, or which rule could not be evaluated and why.
    pub what: String,
    /// What was expected, an alert or sample an entry, sorted.
    pub expected: Vec<String>,
    /// What came, in the same form.
    pub got: Vec<String>,
}

impl FileReport {
    /// Whether all tests passed.
    pub fn passed(&self) -> bool {
        self.tests.iter().all(|test| test.failures.is_empty())
    }
}

/// Runs the tests of the file at `path` whose names are `selected`.
///
/// # Errors
/// If the file or a rule file that it names cannot be read.
pub fn run_file(path: &Path, selected: impl Fn(&str) -> bool) -> Result<FileReport, FileError> {
    run_file_with(path, &|path| rule_file::load(path, Syntax::default()), selected)
}

/// The same, with rule files read by `load`.
///
/// # Errors
/// If the file cannot be read, or those of `load`.
pub fn run_file_with(
    path: &Path,
    load: &dyn Fn(&Path) -> Result<rule_file::Loaded, FileError>,
    selected: impl Fn(&str) -> bool,
) -> Result<FileReport, FileError> {
    let file = file::load(path, load)?;
    let tests = file.tests.iter().filter(|test| selected(&test.name));
    let tests = tests.map(|test| TestReport {
        name: test.name.clone(),
        line: test.line,
        failures: run::run(&file, test),
    });
    Ok(FileReport { path: path.to_owned(), tests: tests.collect(), warnings: file.warnings })
}

#[cfg(test)]
mod tests;
