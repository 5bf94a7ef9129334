//! `larum tsdb analyze`: the metrics and labels that cost most, by bytes.

use super::{Failure, time};
use crate::storage::inspect::{Cost, Inspection};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// Prints at most `limit` lines a list.
pub fn run(folder: &Path, limit: usize, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let mut inspection = Inspection::open(folder)?;
    let wal = inspection.wal()?;
    let costs = inspection.costs(limit)?;
    for left_out in &costs.left_out {
        eprintln!("larum: left out: {left_out}");
    }
    let total = &costs.total;
    writeln!(
        out,
        "{} partitions, {} series ({} ended), {} samples, {} bytes of chunks",
        costs.partitions, total.series, total.ended, total.samples, total.bytes
    )?;
    if let Some(range) = costs.range {
        writeln!(out, "from {} to {}", time(range.min_ms), time(range.max_ms))?;
    }
    let sections: Vec<String> =
        costs.sections.iter().map(|(name, bytes)| format!("{name} {bytes}")).collect();
    if !sections.is_empty() {
        writeln!(out, "bytes of all sections: {}", sections.join(", "))?;
    }
    writeln!(out, "not counted: {} bytes of WAL", wal.bytes)?;
    writeln!(out, "ended: the last sample is more than an hour older than the newest of all")?;
    if costs.is_bound {
        writeln!(out, "there are very many metrics or labels: some may cost more than it says here")?;
    }
    list(out, "METRIC", &costs.metrics, total)?;
    list(out, "LABEL", &costs.labels, total)?;
    writeln!(out, "\n{:>12} {:>14}  LABEL NAME", "VALUES", "BYTES")?;
    for name in &costs.names {
        writeln!(out, "{:>12} {:>14}  {}", name.values, name.bytes, name.name)?;
    }
    Ok(if costs.left_out.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn list(out: &mut impl Write, what: &str, costs: &[Cost], total: &Cost) -> io::Result<()> {
    writeln!(
        out,
        "\n{:>14} {:>6} {:>10} {:>10} {:>14} {:>8}  {what}",
        "BYTES", "SHARE", "SERIES", "ENDED", "SAMPLES", "B/SAMPLE"
    )?;
    for cost in costs {
        let share = 100.0 * cost.bytes as f64 / total.bytes.max(1) as f64;
        let each = cost.bytes as f64 / cost.samples.max(1) as f64;
        writeln!(
            out,
            "{:>14} {share:>5.1}% {:>10} {:>10} {:>14} {each:>8.2}  {}",
            cost.bytes, cost.series, cost.ended, cost.samples, cost.name
        )?;
    }
    Ok(())
}
