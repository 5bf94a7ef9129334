//! What was refused for good, as told to senders and to who imports: counts by reason, and an example
//! of each.

use crate::storage::{Appended, Batch, Refusal, Refused};
use std::fmt::Write;

/// Names of the reasons for refusals, in metrics and in [`HEADER`].
pub const REASONS: [&str; 6] =
    ["invalid_labels", "no_metric_name", "limit", "too_old", "too_far_ahead", "other"];

/// The header of an answer that says how many samples were refused for which reason:
/// `too_old=3,limit=1`.
pub const HEADER: &str = "larum-refused-samples";

/// The text of an answer ends here: senders log the first 1,024 bytes.
const MAX_TEXT_BYTES: usize = 1000;
/// A series is shown up to this length.
const MAX_SERIES_BYTES: usize = 600;

fn reason_index(reason: &Refusal) -> usize {
    match reason {
        Refusal::Labels(_) => 0,
        Refusal::NoMetricName => 1,
        Refusal::TooManyLabels { .. } | Refusal::TooLong { .. } => 2,
        Refusal::TooOld { .. } => 3,
        Refusal::TooFarAhead { .. } => 4,
        _ => 5,
    }
}

/// Refused samples.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusals {
    counts: [u64; REASONS.len()],
    /// The reason and the first sample refused for it, in the order in which they came.
    examples: Vec<(usize, String)>,
}

impl Refusals {
    /// What was refused of a batch. `describe` shows labels that are no label set.
    pub fn of(batch: &Batch, appended: &Appended, describe: fn(&[u8]) -> String) -> Refusals {
        let mut refusals = Refusals::default();
        for refused in &appended.refused {
            let reason = reason_index(&refused.reason);
            refusals.add(reason, 1, || example(batch, refused, describe));
        }
        refusals
    }

    /// What another server's answer says: the value of [`HEADER`] and the text.
    pub fn told(header: &str, text: &str) -> Refusals {
        let mut refusals = Refusals::default();
        let mut lines = text.split_once(": ").map_or(text, |(_, examples)| examples).lines();
        for (name, count) in header.split(',').filter_map(|part| part.split_once('=')) {
            // A reason that this version does not know.
            let reason = REASONS.iter().position(|reason| *reason == name).unwrap_or(REASONS.len() - 1);
            refusals.add(reason, count.parse().unwrap_or(0), || lines.next().unwrap_or_default().to_owned());
        }
        refusals
    }

    /// Adds refusals that came later.
    pub fn merge(&mut self, later: &Refusals) {
        for &(reason, ref example) in &later.examples {
            self.add(reason, 0, || example.clone());
        }
        self.counts.iter_mut().zip(later.counts).for_each(|(count, more)| *count += more);
    }

    fn add(&mut self, reason: usize, count: u64, example: impl FnOnce() -> String) {
        self.counts[reason] += count;
        if self.examples.iter().all(|(known, _)| *known != reason) {
            self.examples.push((reason, example()));
        }
    }

    /// How many, in the order of [`REASONS`].
    pub fn counts(&self) -> [u64; REASONS.len()] {
        self.counts
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Reason, count and example, in the order in which they came.
    pub fn by_reason(&self) -> impl Iterator<Item = (&'static str, u64, &str)> {
        self.examples
            .iter()
            .map(|(reason, example)| (REASONS[*reason], self.counts[*reason], example.as_str()))
    }

    /// The value of [`HEADER`].
    pub fn header(&self) -> String {
        let counts: Vec<String> =
            self.by_reason().map(|(reason, count, _)| format!("{reason}={count}")).collect();
        counts.join(",")
    }

    /// `refused N of M: reason, series, timestamp` for the first refused sample of each reason.
    pub fn text(&self, of: usize) -> String {
        let mut out = format!("refused {} of {of}: ", self.total());
        for (i, (_, example)) in self.examples.iter().enumerate() {
            if out.len() + example.len() > MAX_TEXT_BYTES && i > 0 {
                break;
            }
            let _ = writeln!(out, "{example}");
        }
        truncate(&mut out, MAX_TEXT_BYTES);
        out
    }
}

fn example(batch: &Batch, refused: &Refused, describe: fn(&[u8]) -> String) -> String {
    let mut reason = refused.reason.to_string();
    truncate(&mut reason, MAX_SERIES_BYTES / 2);
    let series = refused.series as usize;
    let mut series = match batch.parse_labels(series) {
        Ok(labels) => labels.to_string(),
        Err(_) => describe(batch.series_text(series)),
    };
    truncate(&mut series, MAX_SERIES_BYTES);
    let t_ms = batch.timestamps().get(refused.sample as usize).copied().unwrap_or_default();
    format!("{reason}, series {series}, timestamp {t_ms}")
}

/// Cuts `text` to at most `bytes`, between characters, and shows that it was cut.
fn truncate(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let end = (0..=bytes - 3).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Timestamp;
    use larum_storage_format::Labels;

    /// A batch of two samples with a long label, of which these are refused.
    fn refused(reasons: &[Refusal]) -> Refusals {
        let mut batch = Batch::new();
        let long = "x".repeat(5000);
        let labels = Labels::from_pairs([("__name__", "up"), ("path", &long)]).unwrap();
        batch.push(&labels, Timestamp::from_millis(7), 1.0);
        batch.push(&labels, Timestamp::from_millis(8), 1.0);
        let refused =
            |(sample, reason): (u32, &Refusal)| Refused { sample, series: 0, reason: reason.clone() };
        let appended = Appended { accepted: 0, refused: (0..).zip(reasons).map(refused).collect() };
        Refusals::of(&batch, &appended, |_| String::new())
    }

    #[test]
    fn a_refusal_names_count_reason_series_and_time_and_is_bounded() {
        let too_old = Refusal::TooOld { border_ms: 9 };
        let text = refused(&[too_old.clone(), too_old.clone()]).text(2);
        let start =
            "refused 2 of 2: older than retention, which begins at 9, series {__name__=\"up\", path=\"xxx";
        assert!(text.starts_with(start), "{text}");
        assert!(text.ends_with("..., timestamp 7\n"), "{text}");
        assert!(refused(&[too_old, Refusal::NoMetricName]).text(2).len() <= 1024);
    }

    #[test]
    fn what_an_answer_says_is_understood_by_who_sent_the_samples() {
        let some = refused(&[Refusal::NoMetricName, Refusal::TooOld { border_ms: 9 }]);
        assert_eq!(some.header(), "no_metric_name=1,too_old=1");
        let mut told = Refusals::told(&some.header(), &some.text(2));
        assert_eq!((told.counts(), told.total()), (some.counts(), 2));
        assert!(told.by_reason().next().unwrap().2.starts_with("the label __name__ is missing, series {"));
        told.merge(&some);
        assert_eq!((told.total(), told.examples.len()), (4, 2));
        assert_eq!(
            Refusals::told("later=2", "refused 2 of 3: x\n").by_reason().next(),
            Some(("other", 2, "x"))
        );
    }
}
