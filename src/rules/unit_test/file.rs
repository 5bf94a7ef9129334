//! Files of unit tests: what they say, read and checked as a whole before anything runs.

use super::check::{AlertCheck, ExpectedAlert, QueryCheck, SampleText};
use crate::promql::parse::series::{SequenceValue, parse_series};
use crate::promql::parse::{parse, parse_metric};
use crate::rules::group::Group;
use crate::rules::{file as rule_file, glob};
use crate::yaml::{self, FileError, PromDuration, Spanned, null_as_default};
use larum_storage_format::Labels;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

const DEFAULT_INTERVAL_MS: i64 = 60_000;

/// A file that was read.
pub struct TestFile {
    /// The groups of all rule files, in the order of their evaluation.
    pub groups: Vec<Group>,
    /// How often rules are evaluated, whatever the interval of their group.
    pub interval_ms: i64,
    /// Whether floats are equal that are neighbours.
    pub fuzzy: bool,
    pub tests: Vec<Test>,
    pub warnings: Vec<FileError>,
}

/// One of the `tests:`.
pub struct Test {
    pub name: String,
    /// Where it stands.
    pub line: u64,
    /// When time begins, in milliseconds since the epoch; all other times count from there.
    pub start_ms: i64,
    /// The time between two samples of the series.
    pub interval_ms: i64,
    pub series: Vec<(Labels, Vec<SequenceValue>)>,
    /// By their times.
    pub alerts: Vec<AlertCheck>,
    pub queries: Vec<QueryCheck>,
    pub external_labels: Labels,
    pub external_url: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTwin {
    #[serde(default, deserialize_with = "null_as_default")]
    rule_files: Vec<Spanned<String>>,
    evaluation_interval: Option<Spanned<PromDuration>>,
    #[serde(default, deserialize_with = "null_as_default")]
    group_eval_order: Vec<Spanned<String>>,
    #[serde(default, deserialize_with = "null_as_default")]
    fuzzy_compare: bool,
    #[serde(default, deserialize_with = "null_as_default")]
    tests: Vec<Spanned<TestTwin>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestTwin {
    #[serde(default, deserialize_with = "null_as_default")]
    name: String,
    interval: Option<Spanned<PromDuration>>,
    start_timestamp: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "null_as_default")]
    input_series: Vec<SeriesTwin>,
    #[serde(default, deserialize_with = "null_as_default")]
    alert_rule_test: Vec<Spanned<AlertTwin>>,
    #[serde(default, deserialize_with = "null_as_default")]
    promql_expr_test: Vec<QueryTwin>,
    #[serde(default, deserialize_with = "null_as_default")]
    external_labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_as_default")]
    external_url: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeriesTwin {
    series: Spanned<String>,
    values: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AlertTwin {
    #[serde(default)]
    eval_time: PromDuration,
    #[serde(default, deserialize_with = "null_as_default")]
    alertname: String,
    #[serde(default, deserialize_with = "null_as_default")]
    exp_alerts: Vec<ExpectedAlertTwin>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedAlertTwin {
    #[serde(default, deserialize_with = "null_as_default")]
    exp_labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_as_default")]
    exp_annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueryTwin {
    expr: Spanned<String>,
    #[serde(default)]
    eval_time: PromDuration,
    #[serde(default, deserialize_with = "null_as_default")]
    exp_samples: Vec<SampleTwin>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SampleTwin {
    labels: Option<Spanned<String>>,
    #[serde(default)]
    value: f64,
    histogram: Option<Spanned<String>>,
}

/// Reads the file at `path`, and with `load` the rule files that it names, which are relative to its folder.
pub fn load(
    path: &Path,
    load: &dyn Fn(&Path) -> Result<rule_file::Loaded, FileError>,
) -> Result<TestFile, FileError> {
    let text = yaml::read_text(path)?;
    let twin: FileTwin = yaml::parse(path, &text)?;
    let mut warnings = Vec::new();
    let mut groups = read_rule_files(path, &twin.rule_files, load, &mut warnings)?;
    let order: Vec<&str> = twin.group_eval_order.iter().map(|name| name.value.as_str()).collect();
    for name in &twin.group_eval_order {
        if !groups.iter().any(|group| group.name == name.value) {
            warnings.push(FileError::at(path, name, format!("no rule file has a group {:?}", name.value)));
        }
    }
    // Stable: those that are not named stay in the order of their files, after the others.
    groups.sort_by_key(|group| order.iter().position(|name| *name == group.name).unwrap_or(order.len()));
    let interval_ms = interval(path, &twin.evaluation_interval)?.unwrap_or(DEFAULT_INTERVAL_MS);
    let tests = twin.tests.into_iter().map(|test| read_test(path, test, interval_ms));
    let tests = tests.collect::<Result<_, _>>()?;
    Ok(TestFile { groups, interval_ms, fuzzy: twin.fuzzy_compare, tests, warnings })
}

fn read_rule_files(
    path: &Path,
    patterns: &[Spanned<String>],
    load: &dyn Fn(&Path) -> Result<rule_file::Loaded, FileError>,
    warnings: &mut Vec<FileError>,
) -> Result<Vec<Group>, FileError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut files: Vec<_> = Vec::new();
    for pattern in patterns {
        let found = glob::expand(&folder.join(&pattern.value));
        if found.is_empty() {
            warnings.push(FileError::at(path, pattern, format!("no file matches {:?}", pattern.value)));
        }
        files.extend(found);
    }
    files.sort();
    files.dedup();
    let mut groups = Vec::new();
    for file in files {
        let loaded = load(&file)?;
        groups.extend(loaded.groups);
        warnings.extend(loaded.warnings);
    }
    Ok(groups)
}

fn read_test(path: &Path, twin: Spanned<TestTwin>, evaluation_ms: i64) -> Result<Test, FileError> {
    let line = twin.referenced.line();
    let twin = twin.value;
    let mut alerts = Vec::new();
    for check in twin.alert_rule_test {
        if check.value.alertname.is_empty() {
            return Err(FileError::at(path, &check, "alertname must be set"));
        }
        alerts.push(read_alert(check));
    }
    alerts.sort_by_key(|check| check.at_ms);
    Ok(Test {
        line,
        start_ms: twin.start_timestamp.map_or(Ok(0), |text| start(path, &text))?,
        interval_ms: interval(path, &twin.interval)?.unwrap_or(evaluation_ms),
        series: twin.input_series.iter().map(|s| read_series(path, s)).collect::<Result<_, _>>()?,
        alerts,
        queries: twin.promql_expr_test.into_iter().map(|q| read_query(path, q)).collect::<Result<_, _>>()?,
        external_labels: Labels::from_pairs(&twin.external_labels)
            .map_err(|e| FileError { position: Some((line, 1)), ..FileError::of_file(path, e) })?,
        external_url: twin.external_url,
        name: twin.name,
    })
}

fn read_series(path: &Path, twin: &SeriesTwin) -> Result<(Labels, Vec<SequenceValue>), FileError> {
    let labels = parse_metric(&twin.series.value).map_err(|e| FileError::at(path, &twin.series, e))?;
    let described = parse_series(&format!("{{}} {}", twin.values.value));
    let values = described.map_err(|e| FileError::at(path, &twin.values, e.message))?.values;
    Ok((labels, values))
}

fn read_alert(twin: Spanned<AlertTwin>) -> AlertCheck {
    let line = twin.referenced.line();
    let AlertTwin { eval_time, alertname, exp_alerts } = twin.value;
    let expected = exp_alerts.into_iter().map(|alert| {
        let mut labels = alert.exp_labels;
        labels.insert("alertname".to_owned(), alertname.clone());
        ExpectedAlert { labels, annotations: alert.exp_annotations }
    });
    AlertCheck { line, at_ms: millis(eval_time), expected: expected.collect(), name: alertname }
}

fn read_query(path: &Path, twin: QueryTwin) -> Result<QueryCheck, FileError> {
    let expr = parse(twin.expr.value.trim()).map_err(|e| FileError::at(path, &twin.expr, e))?;
    let mut expected = Vec::with_capacity(twin.exp_samples.len());
    for sample in twin.exp_samples {
        let labels = match &sample.labels {
            Some(text) => parse_metric(&text.value).map_err(|e| FileError::at(path, text, e))?,
            None => Labels::empty(),
        };
        let value = match &sample.histogram {
            Some(text) => SampleText::Histogram(read_histogram(path, text)?),
            None => SampleText::Float(sample.value),
        };
        expected.push((labels, value));
    }
    Ok(QueryCheck {
        line: twin.expr.referenced.line(),
        at_ms: millis(twin.eval_time),
        text: twin.expr.value.trim().to_owned(),
        expr,
        expected,
    })
}

/// A histogram as the notation has it once it was read and written.
fn read_histogram(path: &Path, text: &Spanned<String>) -> Result<String, FileError> {
    let described = parse_series(&format!("{{}} {}", text.value));
    match described.map_err(|e| FileError::at(path, text, e.message))?.values.as_slice() {
        [SequenceValue::Histogram { value, .. }] => Ok(SampleText::of_histogram(value)),
        _ => Err(FileError::at(path, text, "expected one histogram, such as {{schema:0 count:1 sum:2}}")),
    }
}

fn interval(path: &Path, given: &Option<Spanned<PromDuration>>) -> Result<Option<i64>, FileError> {
    match given {
        Some(interval) if interval.value.0.is_zero() => {
            Err(FileError::at(path, interval, "the interval must be longer than 0"))
        }
        given => Ok(given.as_ref().map(|interval| millis(interval.value))),
    }
}

/// Seconds since the epoch, or RFC 3339.
fn start(path: &Path, text: &Spanned<String>) -> Result<i64, FileError> {
    let seconds = text.value.parse::<f64>().ok().filter(|seconds| seconds.abs() < 1e13);
    let ms = seconds.map(|seconds| (seconds * 1000.0).round() as i64);
    let ms = ms.or_else(|| Some(text.value.parse::<jiff::Timestamp>().ok()?.as_millisecond()));
    ms.ok_or_else(|| FileError::at(path, text, "expected Unix seconds or RFC 3339"))
}

fn millis(duration: PromDuration) -> i64 {
    i64::try_from(duration.0.as_millis()).unwrap_or(i64::MAX)
}
