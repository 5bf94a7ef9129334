//! `larum test promql`: runs scripts of [`crate::promql::testlang`], says what fails and how many pass.

use crate::promql::testlang::{self, Failure};
use std::fmt::Display;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What files in folders are called that are scripts.
const EXTENSION: &str = "test";

/// The deepest folder that is searched, counted from the one that was named.
const MAX_DEPTH: usize = 32;

/// Runs all scripts at `paths`.
pub fn run(paths: &[PathBuf]) -> ExitCode {
    let mut tests = Tests { out: BufWriter::new(io::stdout().lock()), passed: 0, failed: 0 };
    match paths.iter().try_for_each(|path| tests.run_path(path)).and_then(|()| tests.end()) {
        Ok(()) if tests.failed == 0 => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("larum: stdout: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Scripts on their way.
struct Tests<W> {
    out: W,
    /// Queries that were answered as expected.
    passed: usize,
    /// Queries that were not, and files that could not be read.
    failed: usize,
}

impl<W: Write> Tests<W> {
    /// Runs the script at `path`, or those in and below it.
    fn run_path(&mut self, path: &Path) -> io::Result<()> {
        match scripts(path, 0) {
            Ok(found) if found.is_empty() => self.unreadable(format_args!(
                "{}: there is no *.{EXTENSION} file in or below it",
                path.display()
            )),
            Ok(found) => found.iter().try_for_each(|script| self.run_script(script)),
            Err(error) => self.unreadable(error),
        }
    }

    fn run_script(&mut self, script: &Path) -> io::Result<()> {
        let name = script.display();
        let text = match fs::read_to_string(script) {
            Ok(text) => text,
            Err(error) => return self.unreadable(format_args!("{name}: {error}")),
        };
        match testlang::run(&text, &testlang::options_of(&text)) {
            Ok(report) => {
                self.failed += report.failures.len();
                self.passed += report.evals - report.failures.len();
                report.failures.iter().try_for_each(|failure| self.tell(script, failure))
            }
            Err(error) => self.unreadable(format_args!("{name}:{}: {}", error.line, error.message)),
        }
    }

    fn unreadable(&mut self, error: impl Display) -> io::Result<()> {
        self.failed += 1;
        writeln!(self.out, "{error}")
    }

    fn tell(&mut self, script: &Path, failure: &Failure) -> io::Result<()> {
        let Failure { line, query, difference } = failure;
        writeln!(self.out, "{}:{line}: {query}", script.display())?;
        match difference.line {
            Some(line) => writeln!(self.out, "    expected {} (line {line})", difference.expected)?,
            None => writeln!(self.out, "    expected {}", difference.expected)?,
        }
        writeln!(self.out, "    got      {}", difference.got)?;
        if !difference.how.is_empty() {
            writeln!(self.out, "    {}", difference.how)?;
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        writeln!(self.out, "{} passed, {} failed", self.passed, self.failed)?;
        self.out.flush()
    }
}

/// The scripts at `path`, sorted within each folder.
fn scripts(path: &Path, depth: usize) -> Result<Vec<PathBuf>, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    if depth > MAX_DEPTH {
        return Err(format!("{}: more than {MAX_DEPTH} folders in one another", path.display()));
    }
    let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(failed)?;
    let mut entries: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        if entry.is_dir() || entry.extension().is_some_and(|extension| extension == EXTENSION) {
            found.extend(scripts(&entry, depth + 1)?);
        }
    }
    Ok(found)
}
