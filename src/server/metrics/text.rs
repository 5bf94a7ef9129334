//! Prometheus' text format, 0.0.4.

use super::{Kind, Metric};
use crate::promql::number::{Form, write_float};
use std::fmt::Write;

/// Takes the samples of one metric. Its head is written with the first of them.
pub(super) struct Samples<'a> {
    out: &'a mut String,
    metric: &'a Metric,
    /// Labels that each sample has.
    own: &'a [(&'a str, &'a str)],
    begun: bool,
}

impl<'a> Samples<'a> {
    pub fn new(out: &'a mut String, metric: &'a Metric, own: &'a [(&'a str, &'a str)]) -> Samples<'a> {
        Samples { out, metric, own, begun: false }
    }

    /// Adds a sample without labels.
    pub fn value(&mut self, value: f64) {
        self.with(&[], value);
    }

    /// Adds a sample with labels.
    pub fn with(&mut self, labels: &[(&str, &str)], value: f64) {
        self.suffixed("", labels, value);
    }

    /// Adds a sample whose name has a suffix: `_sum`, `_count` or `_bucket`.
    pub fn suffixed(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let Metric { name, kind, help, .. } = self.metric;
        if !std::mem::replace(&mut self.begun, true) {
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
                Kind::Summary => "summary",
            };
            let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
        self.out.push_str(name);
        self.out.push_str(suffix);
        for (i, (name, value)) in labels.iter().chain(self.own).enumerate() {
            self.out.push(if i == 0 { '{' } else { ',' });
            self.out.push_str(name);
            self.out.push_str("=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    c => self.out.push(c),
                }
            }
            self.out.push('"');
        }
        if !labels.is_empty() || !self.own.is_empty() {
            self.out.push('}');
        }
        self.out.push(' ');
        let _ = write_float(self.out, value, Form::General, None);
        self.out.push('\n');
    }

    /// Adds a histogram from counts per bucket, in the order of their `bounds`.
    pub fn histogram(
        &mut self,
        labels: &[(&str, &str)],
        bounds: &[f64],
        counts: &[u64],
        sum: f64,
        count: u64,
    ) {
        let mut so_far = 0;
        let mut bound_text = String::new();
        for (bound, in_bucket) in bounds.iter().zip(counts) {
            so_far += in_bucket;
            bound_text.clear();
            let _ = write_float(&mut bound_text, *bound, Form::General, None);
            let labels = [labels, &[("le", bound_text.as_str())]].concat();
            self.suffixed("_bucket", &labels, so_far as f64);
        }
        let labels_of_all = [labels, &[("le", "+Inf")]].concat();
        self.suffixed("_bucket", &labels_of_all, count as f64);
        self.suffixed("_sum", labels, sum);
        self.suffixed("_count", labels, count as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_written_as_scrapers_read_them() {
        let metric =
            Metric { name: "took_seconds", kind: Kind::Histogram, help: "Time.", samples: |_, _| {} };
        let mut out = String::new();
        let mut samples = Samples::new(&mut out, &metric, &[("job", "larum")]);
        samples.histogram(&[("handler", "a\"b\\c\nd")], &[0.1, 1.0], &[2, 1], 2.5, 4);
        let labels = r#"handler="a\"b\\c\nd""#;
        let own = r#"job="larum""#;
        let expected = format!(
            "# HELP took_seconds Time.\n# TYPE took_seconds histogram\n\
             took_seconds_bucket{{{labels},le=\"0.1\",{own}}} 2\ntook_seconds_bucket{{{labels},le=\"1\",{own}}} 3\n\
             took_seconds_bucket{{{labels},le=\"+Inf\",{own}}} 4\ntook_seconds_sum{{{labels},{own}}} 2.5\n\
             took_seconds_count{{{labels},{own}}} 4\n"
        );
        assert_eq!(out, expected);
    }

    #[test]
    fn a_metric_without_samples_leaves_no_trace() {
        let metric = Metric { name: "none", kind: Kind::Gauge, help: "Nothing.", samples: |_, _| {} };
        let mut out = String::new();
        Samples::new(&mut out, &metric, &[("job", "larum")]);
        assert_eq!(out, "");
    }
}
