//! `larum tsdb`: tools over a data folder. Each prints to stdout, and ends quietly when nobody reads on.

mod analyze;
mod dump;
mod import;
mod list;
mod verify;

use super::args::Tsdb;
use crate::storage::{OpenError, ReadError};
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

/// A tool could not go on.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Its output could not be written.
    #[error("stdout: {0}")]
    Output(#[from] io::Error),
    /// The folder cannot be read.
    #[error("{0}")]
    Folder(#[from] OpenError),
    /// Samples cannot be imported.
    #[error("{0}")]
    Import(String),
    /// Samples cannot be read.
    #[error("{0}")]
    Samples(#[from] ReadError),
    /// What it was asked for makes no sense.
    #[error("{0}")]
    Argument(String),
}

/// Runs a tool.
pub fn run(tool: &Tsdb) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let done = match tool {
        Tsdb::List { folder } => list::run(&folder.path, &mut out),
        Tsdb::Analyze { folder, limit } => analyze::run(&folder.path, *limit, &mut out),
        Tsdb::Import(import) => import::run(import, &mut out),
        Tsdb::Dump { folder, matchers, start, end, format } => {
            dump::Dump::new(matchers, start.as_deref(), end.as_deref(), *format)
                .and_then(|dump| dump.run(&folder.path, &mut out))
        }
        Tsdb::Verify { folder, repair } => verify::run(&folder.path, *repair, &mut out),
    };
    match done.and_then(|exit| Ok(out.flush().map(|()| exit)?)) {
        Ok(exit) => exit,
        // Whoever reads has seen enough.
        Err(Failure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("larum: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// A time as RFC 3339; at the ends of time, where there are no years, as milliseconds.
fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms}ms"), |t| t.to_string())
}
