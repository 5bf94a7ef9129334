//! OpenMetrics text from anything that can be read, in bounded memory.

use super::{ImportError, OnProgress, Target, Totals};
use crate::ingest::open_metrics::Decoder;
use crate::storage::Batch;
use std::io::{self, Read};

/// So much is read at a time: some thousand lines.
const PIECE_BYTES: usize = 512 << 10;

/// How a file begins that `gzip` wrote.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Imports a text. Samples without a timestamp get `default_timestamp_ms`; without one they are an
/// error. `len` is how long the text is, where that is known.
///
/// # Errors
/// The text is wrong or cannot be read, or samples cannot be stored. What came before is kept.
pub fn open_metrics(
    source: &mut dyn Read,
    len: Option<u64>,
    default_timestamp_ms: Option<i64>,
    target: &mut dyn Target,
    totals: &mut Totals,
    on_progress: OnProgress<'_>,
) -> Result<(), ImportError> {
    let mut decoder = Decoder::new(default_timestamp_ms);
    let mut batch = Batch::new();
    let mut text = Vec::new();
    let (mut done, exemplars) = (0u64, totals.exemplars);
    loop {
        let before = text.len();
        let mut piece = (&mut *source).take(PIECE_BYTES as u64);
        let read = piece.read_to_end(&mut text)?;
        if done == 0 && text.starts_with(&GZIP) {
            let what = "the text is compressed by gzip; decompress it first (gzip -dc FILE | larum tsdb import openmetrics -)";
            return Err(ImportError::Source(io::Error::new(io::ErrorKind::InvalidData, what)));
        }
        debug_assert_eq!(text.len(), before + read);
        done += read as u64;
        let decoded = match read {
            0 => decoder.finish(text, &mut batch).map(|()| Vec::new()),
            _ => decoder.decode(text, &mut batch),
        };
        totals.exemplars = exemplars + decoder.exemplars();
        // Of a piece with a fault, what stands before it is stored.
        if !batch.is_empty() {
            target.append(&batch, totals)?;
        }
        text = decoded?;
        if read == 0 {
            return Ok(());
        }
        on_progress(totals, len.map(|len| done as f64 / len.max(1) as f64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Keeps what it is given.
    #[derive(Default)]
    struct Kept(BTreeMap<String, Vec<(i64, f64)>>);

    impl Target for Kept {
        fn append(&mut self, batch: &Batch, totals: &mut Totals) -> Result<(), ImportError> {
            for series in 0..batch.series_count() {
                let samples = batch.series_samples(series);
                let samples = samples.map(|at| (batch.timestamps()[at], batch.values()[at]));
                self.0.entry(batch.parse_labels(series).unwrap().to_string()).or_default().extend(samples);
            }
            totals.samples += batch.len() as u64;
            Ok(())
        }
    }

    fn import(text: &str) -> (Kept, Totals, Result<(), ImportError>) {
        let (mut kept, mut totals) = (Kept::default(), Totals::default());
        let outcome = open_metrics(&mut text.as_bytes(), None, None, &mut kept, &mut totals, &mut |_, _| {});
        (kept, totals, outcome)
    }

    #[test]
    fn a_text_of_many_pieces_is_imported_whole() {
        let mut text = String::new();
        for i in 0..60_000 {
            text.push_str(&format!("m{{series=\"{}\"}} {i} {i} # {{}} 1\n", i % 7));
        }
        assert!(text.len() > 2 * PIECE_BYTES);
        let (kept, totals, outcome) = import(&(text.clone() + "# EOF\n"));
        assert!(outcome.is_ok(), "{outcome:?}");
        assert_eq!((totals.samples, totals.exemplars, totals.is_complete()), (60_000, 60_000, true));
        let third: Vec<(i64, f64)> = (3..60_000).step_by(7).map(|i| (i * 1000, i as f64)).collect();
        assert_eq!(kept.0["{__name__=\"m\", series=\"3\"}"], third);

        let (_, totals, outcome) = import(&(text + "m one 60000\n# EOF\n"));
        assert_eq!(outcome.unwrap_err().to_string(), "60001:3: expected a value, found 'o'");
        assert_eq!(totals.samples, 60_000, "what stands before the fault is kept");
    }

    #[test]
    fn a_compressed_file_is_recognized() {
        let (mut kept, mut totals) = (Kept::default(), Totals::default());
        let source = &mut &[0x1f, 0x8b, 8, 0][..];
        let outcome = open_metrics(source, None, None, &mut kept, &mut totals, &mut |_, _| {});
        assert!(outcome.unwrap_err().to_string().contains("gzip -dc"));
    }
}
