//! `larum tsdb import`: what others stored goes into a data folder, or to a server that runs.

use super::super::args::{Import, ImportTarget, LogFormat, LogLevel};
use super::super::client::Client;
use super::super::http::params::parse_time;
use super::super::import::{
    Blocks, FolderTarget, ImportError, ServerTarget, Target, Totals, import_blocks, open_metrics,
};
use super::super::logging;
use super::Failure;
use crate::storage::{Options, Storage, Timestamp};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often is told how far it is.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Imports, and prints what came of it.
pub fn run(import: &Import, out: &mut impl Write) -> Result<ExitCode, Failure> {
    logging::init(LogLevel::Warn, LogFormat::Logfmt);
    match import {
        Import::Openmetrics { files, timestamp, target } => {
            let default_ms = timestamp.as_deref().map(default_timestamp).transpose()?;
            into(target, out, |target, totals| {
                for path in files {
                    let (mut source, len) = open(path)?;
                    let name = path.display();
                    let mut tell = Tell::new(format!("{name}: "));
                    let on_progress = &mut |totals: &Totals, part| tell.now_and_then(totals, part);
                    open_metrics(&mut source, len, default_ms, target, totals, on_progress).map_err(
                        |error| match error {
                            ImportError::Text(error) => format!("{name}:{error}"),
                            error => format!("{name}: {error}"),
                        },
                    )?;
                }
                Ok(())
            })
        }
        Import::Prometheus { folders, target } => {
            let blocks = Blocks::find(folders).map_err(|e| Failure::Import(e.to_string()))?;
            eprintln!("{} blocks with {} samples", blocks.len(), blocks.samples());
            blocks.notes.iter().for_each(|note| eprintln!("note: {note}"));
            into(target, out, |target, totals| {
                let mut tell = Tell::new(String::new());
                let on_progress = &mut |totals: &Totals, part| tell.now_and_then(totals, part);
                import_blocks(&blocks, target, totals, on_progress).map_err(|error| error.to_string())
            })
        }
    }
}

/// Opens where the samples go, lets `work` import, and prints what came of it, even where it ended
/// early.
fn into(
    to: &ImportTarget,
    out: &mut impl Write,
    work: impl FnOnce(&mut dyn Target, &mut Totals) -> Result<(), String>,
) -> Result<ExitCode, Failure> {
    let mut totals = Totals::default();
    let done = match &to.url {
        Some(url) => {
            let client = Client::new(url).map_err(Failure::Argument)?;
            work(&mut ServerTarget::new(client), &mut totals)
        }
        None => {
            let retention = Some(to.retention_time).filter(|time| !time.is_zero());
            let storage = Storage::open(&to.path, Options { retention, ..Options::default() })?;
            let mut target = FolderTarget::new(|batch| storage.append_start(batch));
            let done = work(&mut target, &mut totals);
            // So that nothing is left in the WAL.
            let closed = storage.close().map_err(|e| format!("{}: {e}", to.path.display()));
            done.and(closed)
        }
    };
    print(&totals, out)?;
    match done {
        Ok(()) if totals.is_complete() => Ok(ExitCode::SUCCESS),
        Ok(()) => Ok(ExitCode::FAILURE),
        Err(what) => Err(Failure::Import(format!(
            "{what}\nWhat came before is imported; importing all of it again doubles nothing."
        ))),
    }
}

fn print(totals: &Totals, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{} samples imported", totals.samples)?;
    for (reason, count, example) in totals.refusals.by_reason() {
        let flag = match reason {
            "too_old" => " (--storage.tsdb.retention.time)",
            _ => "",
        };
        writeln!(out, "{count} samples refused, {reason}{flag}; the first: {example}")?;
    }
    if totals.exemplars > 0 {
        writeln!(out, "{} exemplars left out", totals.exemplars)?;
    }
    if totals.deleted > 0 {
        writeln!(out, "{} samples left out that had been deleted", totals.deleted)?;
    }
    if totals.faults > 0 {
        writeln!(out, "{} faults, which cost what they name:", totals.faults)?;
        totals.faults_told.iter().try_for_each(|fault| writeln!(out, "  {fault}"))?;
    }
    Ok(())
}

/// Tells on stderr how far an import is.
struct Tell {
    prefix: String,
    begun: Instant,
    told: Instant,
}

impl Tell {
    fn new(prefix: String) -> Tell {
        let now = Instant::now();
        Tell { prefix, begun: now, told: now }
    }

    fn now_and_then(&mut self, totals: &Totals, part: Option<f64>) {
        if self.told.elapsed() < TELL_EVERY {
            return;
        }
        self.told = Instant::now();
        let percent = part.map(|part| format!("{:.0} %, ", part * 100.0)).unwrap_or_default();
        let seconds = self.begun.elapsed().as_secs_f64();
        eprintln!("{}{percent}{} samples imported after {seconds:.0} s", self.prefix, totals.samples);
    }
}

/// A file and its length, or the standard input.
fn open(path: &Path) -> Result<(Box<dyn Read>, Option<u64>), String> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin().lock()), None));
    }
    let named = |e: io::Error| format!("{}: {e}", path.display());
    let file = File::open(path).map_err(named)?;
    let len = file.metadata().map_err(named)?.len();
    Ok((Box::new(file), Some(len).filter(|&len| len > 0)))
}

fn default_timestamp(text: &str) -> Result<i64, Failure> {
    match text {
        "now" => Ok(Timestamp::now().as_millis()),
        text => match parse_time(text) {
            Ok(time) => Ok(time.as_millis()),
            Err(e) => Err(Failure::Argument(format!("--timestamp: {e}"))),
        },
    }
}
