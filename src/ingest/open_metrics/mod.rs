//! OpenMetrics text: what `promtool tsdb dump-openmetrics`, exporters and backfill scripts write.
//!
//! The text comes in pieces of any length. Of each, the whole lines become a batch that takes the text
//! over, as in [`super::remote_write`]: the decoder checks where names and values lie, and labels are
//! parsed only for series that the storage does not know.
//!
//! Comments (`# TYPE`, `# HELP`, `# UNIT`) are passed over, exemplars are counted. The text must end with
//! `# EOF`: without it nobody knows whether it was cut.

mod number;
mod series;

pub use series::parse_labels;

use crate::storage::Batch;
use series::{Fault, Scan};

/// Longest line. A label set may take 64 KiB unless somebody raised the limit.
const MAX_LINE_BYTES: usize = 1 << 20;

/// Text that is no OpenMetrics.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {what}")]
pub struct TextError {
    /// The line, from 1.
    pub line: u64,
    /// The byte in it, from 1.
    pub column: usize,
    /// What is wrong, and what to do.
    pub what: String,
}

/// Decodes one text, piece by piece.
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    default_timestamp_ms: Option<i64>,
    lines: u64,
    exemplars: u64,
    ended: bool,
}

impl Decoder {
    /// A decoder that gives samples without a timestamp this one; `None` refuses them.
    pub fn new(default_timestamp_ms: Option<i64>) -> Decoder {
        Decoder { default_timestamp_ms, ..Decoder::default() }
    }

    /// How many exemplars were passed over.
    pub fn exemplars(&self) -> u64 {
        self.exemplars
    }

    /// Decodes the whole lines of `text` into `batch`, which loses its former content and takes `text`
    /// over. Gives the bytes behind the last line's end, to be put before the next piece.
    ///
    /// # Errors
    /// The first line that is wrong. The lines before it are in the batch.
    pub fn decode(&mut self, mut text: Vec<u8>, batch: &mut Batch) -> Result<Vec<u8>, TextError> {
        batch.reset(parse_labels, Vec::new());
        let whole = text.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let rest = text.split_off(whole);
        let outcome = self.lines(&text, batch);
        batch.set_text(text);
        outcome?;
        if rest.len() > MAX_LINE_BYTES {
            return Err(TextError {
                line: self.lines + 1,
                column: MAX_LINE_BYTES + 1,
                what: format!("the line is longer than {MAX_LINE_BYTES} bytes"),
            });
        }
        Ok(rest)
    }

    /// Decodes what [`Decoder::decode`] gave last, when nothing follows it.
    ///
    /// # Errors
    /// As there, or the text does not end with `# EOF`.
    pub fn finish(&mut self, mut rest: Vec<u8>, batch: &mut Batch) -> Result<(), TextError> {
        if rest.last().is_some_and(|last| *last != b'\n') {
            rest.push(b'\n');
        }
        self.decode(rest, batch)?;
        if self.ended {
            return Ok(());
        }
        let what = "the text does not end with \"# EOF\": it was cut short, or is not OpenMetrics";
        Err(TextError { line: self.lines + 1, column: 1, what: what.to_owned() })
    }

    fn lines(&mut self, text: &[u8], batch: &mut Batch) -> Result<(), TextError> {
        let mut start = 0;
        let mut last_series = 0..0;
        while let Some(len) = text[start..].iter().position(|&b| b == b'\n') {
            let line = &text[start..start + len];
            self.lines += 1;
            self.line(line, start, text, &mut last_series, batch).map_err(|fault| TextError {
                line: self.lines,
                column: fault.at + 1,
                what: fault.what,
            })?;
            start += len + 1;
        }
        Ok(())
    }

    /// Decodes the line that lies at `start` in `text`.
    fn line(
        &mut self,
        line: &[u8],
        start: usize,
        text: &[u8],
        last_series: &mut std::ops::Range<usize>,
        batch: &mut Batch,
    ) -> Result<(), Fault> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = std::str::from_utf8(line)
            .map_err(|e| Fault { at: e.valid_up_to(), what: "this is not UTF-8".to_owned() })?;
        if line.is_empty() {
            return Ok(());
        }
        if self.ended {
            return Err(Fault { at: 0, what: "text after \"# EOF\"".to_owned() });
        }
        if line.starts_with('#') {
            self.ended = line == "# EOF";
            return Ok(());
        }
        let mut scan = Scan::new(line);
        scan.series(&mut |_, _| {})?;
        let series = start..start + scan.at();
        scan.space("a space and a value")?;
        let value = scan.number(number::value, "value")?;
        let mut t_ms = None;
        if scan.skip_spaces() && !scan.is_at_end() && !scan.is_at(b'#') {
            t_ms = Some(scan.number(number::timestamp_ms, "timestamp in seconds")?);
            scan.skip_spaces();
        }
        if scan.is_at(b'#') {
            scan.exemplar()?;
            self.exemplars += 1;
        }
        scan.end()?;
        let t_ms = t_ms.or(self.default_timestamp_ms).ok_or_else(|| Fault {
            at: line.len(),
            what: "the sample has no timestamp; say when such samples were taken (timestamp)".to_owned(),
        })?;
        // Texts mostly hold the samples of a series one after the other.
        if last_series.start == last_series.end || text[last_series.clone()] != text[series.clone()] {
            batch.begin_series(series.clone());
            *last_series = series;
        }
        batch.sample(t_ms, value);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
