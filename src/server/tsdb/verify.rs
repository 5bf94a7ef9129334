//! `larum tsdb verify [--repair]`: what is damaged, what that costs, and how to go on without it.

use super::super::args::{LogFormat, LogLevel};
use super::super::logging;
use super::{Failure, time};
use crate::storage::inspect::{Checked, Fault, Inspection};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// Prints a line for each fault; repairs them if it shall.
pub fn run(folder: &Path, repair: bool, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let inspection = if repair { Inspection::open_alone(folder)? } else { Inspection::open(folder)? };
    let (checked, faults) = verify(&inspection, out)?;
    summary(&checked, out)?;
    if faults.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if !repair {
        return Ok(ExitCode::FAILURE);
    }
    out.flush()?;
    logging::init(LogLevel::Warn, LogFormat::Logfmt);
    let mut written = Ok(());
    inspection.repair(&faults, &mut |done| {
        if written.is_ok() {
            written = writeln!(out, "repair: {done}");
        }
    })?;
    written?;
    let (checked, left) = verify(&Inspection::open(folder)?, out)?;
    write!(out, "after the repair: ")?;
    summary(&checked, out)?;
    Ok(if left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verify(inspection: &Inspection, out: &mut impl Write) -> Result<(Checked, Vec<Fault>), Failure> {
    let mut faults = Vec::new();
    let mut written = Ok(());
    let checked = inspection.verify(&mut |fault| {
        if written.is_ok() {
            written = print(&fault, out);
        }
        faults.push(fault);
    })?;
    written?;
    Ok((checked, faults))
}

fn summary(checked: &Checked, out: &mut impl Write) -> io::Result<()> {
    write!(
        out,
        "{} faults in {} partitions ({} bytes) and {} frames of WAL ({} samples)",
        checked.faults, checked.partitions, checked.partition_bytes, checked.wal_frames, checked.wal_samples
    )?;
    if checked.replaced > 0 {
        write!(out, "; {} partitions were replaced meanwhile and not verified", checked.replaced)?;
    }
    writeln!(out)
}

/// `FILE: offset N: WHAT; lost: ...`
fn print(fault: &Fault, out: &mut impl Write) -> io::Result<()> {
    write!(out, "{}: ", fault.path.display())?;
    if let Some(offset) = fault.offset {
        write!(out, "offset {offset}: ")?;
    }
    let loss = &fault.loss;
    write!(out, "{}; costs: {}", fault.what, loss.what)?;
    if let Some(series) = loss.series {
        write!(out, "; {series} series")?;
        if !loss.named.is_empty() {
            let more = if series > loss.named.len() as u64 { ", ..." } else { "" };
            write!(out, " ({}{more})", loss.named.join(", "))?;
        }
    }
    if let Some(samples) = loss.samples {
        write!(out, "; {samples} samples")?;
    }
    if let Some(range) = loss.range {
        write!(out, "; {} to {}", time(range.min_ms), time(range.max_ms))?;
    }
    writeln!(out)
}
