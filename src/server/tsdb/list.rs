//! `larum tsdb list`: the partitions, one a line, and what lies beside them.

use super::{Failure, time};
use crate::storage::inspect::Inspection;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Prints the list.
pub fn run(folder: &Path, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let inspection = Inspection::open(folder)?;
    if let Some(fault) = inspection.manifest_fault() {
        writeln!(out, "MANIFEST: {fault}; this is what the partitions say of themselves")?;
    }
    writeln!(
        out,
        "{:>10} {:>8} {:24} {:24} {:>10} {:>14} {:>14} {:>8}",
        "NUMBER", "SEQUENCE", "OLDEST", "NEWEST", "SERIES", "SAMPLES", "BYTES", "DELETED"
    )?;
    let (mut partitions, mut series_max, mut samples, mut bytes) = (0u64, 0, 0, 0);
    for partition in inspection.partitions() {
        let meta = &partition.meta;
        let header = partition.header.as_ref().ok();
        let figure = |figure: Option<u64>| figure.map_or("?".to_owned(), |n| n.to_string());
        writeln!(
            out,
            "{:>10} {:>8} {:24} {:24} {:>10} {:>14} {:>14} {:>8}",
            meta.number,
            meta.sequence,
            time(meta.min_ms),
            time(meta.max_ms),
            figure(header.map(|h| h.series_count.into())),
            figure(header.map(|h| h.sample_count)),
            meta.byte_len,
            figure(partition.deleted_from.as_ref().ok().copied()),
        )?;
        let faults = [partition.header.as_ref().err(), partition.deleted_from.as_ref().err()];
        for fault in faults.into_iter().flatten() {
            writeln!(out, "{:>10} {fault}", "")?;
        }
        partitions += 1;
        bytes += meta.byte_len;
        samples += header.map_or(0, |h| h.sample_count);
        series_max = series_max.max(header.map_or(0, |h| h.series_count));
    }
    writeln!(
        out,
        "{partitions} partitions, at most {series_max} series in one, {samples} samples, {bytes} bytes"
    )?;
    let wal = inspection.wal()?;
    writeln!(
        out,
        "WAL: {} segments, {} bytes; samples that are there only are not counted",
        wal.files, wal.bytes
    )?;
    let quarantine = inspection.quarantine()?;
    if quarantine.files > 0 {
        writeln!(out, "quarantine: {} files, {} bytes", quarantine.files, quarantine.bytes)?;
    }
    Ok(ExitCode::SUCCESS)
}
