//! `larum tsdb dump`: samples as text, one a line, a series after the other.
//!
//! In memory are the WAL, as in a server, and one series.

use super::super::api::selectors::selector;
use super::super::args::{DumpFormat, LogFormat, LogLevel};
use super::super::http::params::parse_time;
use super::super::logging;
use super::Failure;
use crate::promql::{histogram, number};
use crate::storage::inspect::Inspection;
use crate::storage::series_set::Columns;
use crate::storage::{Matcher, Source, TimeRange};
use larum_storage_format::labels::{is_legacy_metric_name, is_legacy_name};
use larum_storage_format::{Labels, Samples, is_stale};
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// So many timestamps are remembered from series to series.
const TIMESTAMPS_KEPT: usize = 2 << 20;

/// What is to be dumped.
pub struct Dump {
    /// A series is dumped if it passes all matchers of any of the sets.
    sets: Vec<Vec<Matcher>>,
    range: TimeRange,
    format: DumpFormat,
}

impl Dump {
    /// Reads the arguments.
    pub fn new(
        selectors: &[String],
        start: Option<&str>,
        end: Option<&str>,
        format: DumpFormat,
    ) -> Result<Dump, Failure> {
        let set = |text: &String| selector(text).map_err(|e| Failure::Argument(format!("--match: {e}")));
        let mut sets = selectors.iter().map(set).collect::<Result<Vec<_>, _>>()?;
        if sets.is_empty() {
            sets.push(Vec::new());
        }
        let at = |flag: &str, text: Option<&str>, otherwise: i64| match text.map(parse_time).transpose() {
            Ok(time) => Ok(time.map_or(otherwise, |t| t.as_millis())),
            Err(e) => Err(Failure::Argument(format!("{flag}: {e}"))),
        };
        let range = TimeRange::new(at("--start", start, i64::MIN)?, at("--end", end, i64::MAX)?);
        if range.is_empty() {
            return Err(Failure::Argument("--end: it is before --start".to_owned()));
        }
        Ok(Dump { sets, range, format })
    }

    /// Prints the samples.
    pub fn run(&self, folder: &Path, out: &mut impl Write) -> Result<ExitCode, Failure> {
        // What of the WAL is damaged is logged.
        logging::init(LogLevel::Warn, LogFormat::Logfmt);
        let mut inspection = Inspection::open_alone(folder)?;
        let (view, mut missing) = inspection.view()?;
        let (mut columns, mut left_out) = (Columns::default(), 0);
        for (i, set) in self.sets.iter().enumerate() {
            let selected = view.select(set, self.range)?;
            let mut labels = selected.label_reader(None);
            for index in 0..selected.len() {
                let labels = labels(index);
                let passes = |set: &Vec<Matcher>| set.iter().all(|matcher| matcher.matches_series(&labels));
                if self.sets[..i].iter().any(passes) {
                    continue;
                }
                let samples = selected.load(index, &mut columns)?;
                left_out += self.series(&labels, &samples, out)?;
                columns.forget_beyond(TIMESTAMPS_KEPT);
            }
            missing.extend(selected.warnings());
        }
        if self.format == DumpFormat::Openmetrics {
            writeln!(out, "# EOF")?;
        }
        if left_out > 0 {
            eprintln!("larum: left out: {left_out} native histograms, which OpenMetrics text cannot hold");
        }
        for sentence in &missing {
            eprintln!("larum: {sentence}");
        }
        Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Prints a series; tells how many histograms the format cannot hold.
    fn series(&self, labels: &Labels, samples: &Samples, out: &mut impl Write) -> io::Result<u64> {
        let is_openmetrics = self.format == DumpFormat::Openmetrics;
        let name = if is_openmetrics { openmetrics_name(labels) } else { labels.to_string() };
        let mut histograms = samples.histograms.iter().peekable();
        let mut left_out = 0;
        let mut line = String::new();
        for (i, (&t_ms, &value)) in (0u32..).zip(samples.timestamps.iter().zip(&samples.floats)) {
            let histogram = histograms.next_if(|(at, _)| *at == i).map(|(_, histogram)| histogram);
            if is_openmetrics && (histogram.is_some() || is_stale(value)) {
                left_out += u64::from(histogram.is_some());
                continue;
            }
            line.clear();
            line.push_str(&name);
            line.push(' ');
            // Writing to a string does not fail.
            let _ = match (histogram, is_openmetrics) {
                (Some(histogram), _) => write!(line, "{} {t_ms}", histogram::text(histogram)),
                (None, true) => openmetrics_sample(&mut line, value, t_ms),
                (None, false) => promtool_sample(&mut line, value, t_ms),
            };
            line.push('\n');
            out.write_all(line.as_bytes())?;
        }
        Ok(left_out)
    }
}

fn promtool_sample(line: &mut String, value: f64, t_ms: i64) -> fmt::Result {
    number::write_float(line, value, number::Form::General, None)?;
    write!(line, " {t_ms}")
}

fn openmetrics_sample(line: &mut String, value: f64, t_ms: i64) -> fmt::Result {
    number::write_sample_value(line, value)?;
    line.push(' ');
    number::write_timestamp(line, t_ms)
}

/// `name{label="value"}`; a name that is not a classic one stands quoted among the labels.
fn openmetrics_name(labels: &Labels) -> String {
    let mut out = String::new();
    let mut parts = Vec::new();
    match labels.metric_name() {
        Some(name) if is_legacy_metric_name(name) => out.push_str(name),
        Some(name) => parts.push(quoted(name)),
        None => {}
    }
    for (name, value) in labels.iter().filter(|(name, _)| *name != "__name__") {
        let name = if is_legacy_name(name) { name.to_owned() } else { quoted(name) };
        parts.push(format!("{name}={}", quoted(value)));
    }
    if !parts.is_empty() {
        let _ = write!(out, "{{{}}}", parts.join(","));
    }
    out
}

/// OpenMetrics knows three escapes.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_names_are_quoted_where_they_must_be() {
        for (pairs, expected) in [
            (vec![("__name__", "up")], "up"),
            (vec![("__name__", "up"), ("a", "x\"\\\n")], r#"up{a="x\"\\\n"}"#),
            (vec![("__name__", "http.status"), ("a.b", "c")], r#"{"http.status","a.b"="c"}"#),
        ] {
            assert_eq!(openmetrics_name(&Labels::from_pairs(pairs).unwrap()), expected);
        }
    }

    #[test]
    fn arguments_that_make_no_sense_are_named() {
        let new = |selector: &str, start, end| {
            let dump = Dump::new(&[selector.to_owned()], start, end, DumpFormat::Promtool);
            dump.err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert_eq!(new("up", Some("1"), Some("2026-11-21T00:00:00Z")), "");
        assert!(new("up +", None, None).starts_with("--match: "));
        assert!(new("up", Some("soon"), None).starts_with("--start: "));
        assert!(new("up", Some("2"), Some("1")).starts_with("--end: "));
    }
}
