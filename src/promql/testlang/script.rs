//! The commands of a script: text to [`Command`]s.

use super::expect::{Expectations, Form};
use super::{ScriptError, parse_time};
use crate::promql::duration::parse_duration;
use crate::promql::parse::series::{MAX_VALUES, SequenceValue, SeriesDescription, metric_end, parse_series};
use larum_storage_format::Labels;

/// A command and where it stands.
#[derive(Debug)]
pub(super) struct Command {
    /// The line of its first word, from 1.
    pub line: usize,
    pub kind: CommandKind,
}

#[derive(Debug)]
pub(super) enum CommandKind {
    Clear,
    Load(Load),
    Eval(Box<Eval>),
}

/// `load 5m` and its series.
#[derive(Debug)]
pub(super) struct Load {
    pub step_ms: i64,
    /// Whether histograms with custom buckets are made of the classic ones.
    pub with_nhcb: bool,
    pub series: Vec<LoadSeries>,
}

#[derive(Debug)]
pub(super) struct LoadSeries {
    pub labels: Labels,
    pub values: Vec<SequenceValue>,
    /// The start timestamps, relative to those of the values.
    pub start_offsets_ms: Vec<Option<i64>>,
}

/// `eval instant at 5m up` and what is expected of it.
#[derive(Debug)]
pub(super) struct Eval {
    pub time: EvalTime,
    pub query: String,
    pub expectations: Expectations,
}

/// When a query is evaluated.
#[derive(Debug, Clone, Copy)]
pub(super) enum EvalTime {
    Instant { at_ms: i64 },
    Range { start_ms: i64, end_ms: i64, step_ms: i64 },
}

/// Parses a whole script.
pub(super) fn parse_script(text: &str) -> Result<Vec<Command>, ScriptError> {
    // A comment is as good as an empty line: it ends a block.
    let lines: Vec<(usize, &str)> = text
        .lines()
        .enumerate()
        .map(|(i, line)| (i + 1, line.trim()))
        .map(|(i, line)| (i, if line.starts_with('#') { "" } else { line }))
        .collect();
    let mut commands = Vec::new();
    let mut rest = lines.as_slice();
    while let [(line, first), after @ ..] = rest {
        rest = after;
        if first.is_empty() {
            continue;
        }
        let end = rest.iter().position(|(_, line)| line.is_empty()).unwrap_or(rest.len());
        let (kind, used) = parse_command(*line, first, &rest[..end])?;
        commands.push(Command { line: *line, kind });
        rest = &rest[used..];
    }
    Ok(commands)
}

/// The command that begins with the line `first`, and how many lines of the block after it belong to it.
fn parse_command(
    line: usize,
    first: &str,
    block: &[(usize, &str)],
) -> Result<(CommandKind, usize), ScriptError> {
    let (word, rest) = first.split_once(char::is_whitespace).unwrap_or((first, ""));
    let load = |with_nhcb| Ok((CommandKind::Load(parse_load(line, rest, with_nhcb, block)?), block.len()));
    match word.to_ascii_lowercase().as_str() {
        "clear" => Ok((CommandKind::Clear, 0)),
        "load" => load(false),
        "load_with_nhcb" => load(true),
        command if command.starts_with("eval") => {
            let (eval, used) = parse_eval(line, first, block)?;
            Ok((CommandKind::Eval(Box::new(eval)), used))
        }
        _ => Err(ScriptError::new(line, format!("unknown command {word:?}"))),
    }
}

fn parse_eval(line: usize, first: &str, block: &[(usize, &str)]) -> Result<(Eval, usize), ScriptError> {
    let failed = |message: String| ScriptError::new(line, message);
    let head = EvalHead::parse(first).ok_or_else(|| {
        failed(
            "expected eval instant at TIME QUERY or eval range from TIME to TIME step DURATION QUERY"
                .to_owned(),
        )
    })?;
    let time = head.time().map_err(failed)?;
    let instant = matches!(time, EvalTime::Instant { .. });
    let form = match head.suffix {
        None => Form::Plain,
        Some("fail") => Form::Fail,
        Some("warn") => Form::Warn,
        Some("info") => Form::Info,
        Some("ordered") if instant => Form::Ordered,
        Some(other) => return Err(failed(format!("unknown command eval_{other}"))),
    };
    let (expectations, used) = Expectations::parse(form, instant, block)?;
    Ok((Eval { time, query: head.query.to_owned(), expectations }, used))
}

fn parse_load(
    line: usize,
    step: &str,
    with_nhcb: bool,
    block: &[(usize, &str)],
) -> Result<Load, ScriptError> {
    let step_ms = parse_duration(step.trim()).map_err(|error| ScriptError::new(line, error.to_string()))?;
    let mut series: Vec<LoadSeries> = Vec::new();
    let mut starts: Option<Starts> = None;
    for &(line, text) in block {
        let failed = |message: String| ScriptError::new(line, message);
        if let Some((metric, offsets)) = split_start_timestamps(text) {
            if let Some(starts) = starts {
                return Err(starts.unused());
            }
            let labels = crate::promql::parse::parse_metric(metric).map_err(|e| failed(e.to_string()))?;
            starts = Some(Starts { line, labels, offsets_ms: parse_offsets(offsets).map_err(failed)? });
            continue;
        }
        let SeriesDescription { labels, values } =
            parse_series(text).map_err(|error| failed(error.to_string()))?;
        let start_offsets_ms = match starts.take() {
            Some(starts) => starts.of(&labels, values.len())?,
            None => Vec::new(),
        };
        series.retain(|earlier| earlier.labels != labels);
        series.push(LoadSeries { labels, values, start_offsets_ms });
    }
    match starts {
        Some(starts) => Err(starts.unused()),
        None => Ok(Load { step_ms, with_nhcb, series }),
    }
}

/// A line of start timestamps, which wait for their series.
struct Starts {
    line: usize,
    labels: Labels,
    offsets_ms: Vec<Option<i64>>,
}

impl Starts {
    /// The offsets, if the line that follows is that of the same series and has as many values.
    fn of(self, labels: &Labels, values: usize) -> Result<Vec<Option<i64>>, ScriptError> {
        let offsets = self.offsets_ms.len();
        if self.labels != *labels {
            let message = format!("start timestamps of {} are followed by {labels}", self.labels);
            return Err(ScriptError::new(self.line, message));
        }
        if offsets != values {
            let message = format!("{offsets} start timestamps for {values} values");
            return Err(ScriptError::new(self.line, message));
        }
        Ok(self.offsets_ms)
    }

    fn unused(&self) -> ScriptError {
        ScriptError::new(self.line, format!("start timestamps of {} are followed by no values", self.labels))
    }
}

/// `m{a="b"}@st -1m`: the metric and the offsets.
fn split_start_timestamps(text: &str) -> Option<(&str, &str)> {
    let (metric, rest) = text.split_at(metric_end(text).ok()?);
    let offsets = rest.strip_prefix("@st")?;
    let ends = offsets.is_empty() || offsets.starts_with(char::is_whitespace);
    ends.then_some((metric, offsets))
}

/// `_ _x3 -1m 5sx2 1m+10sx4`
fn parse_offsets(text: &str) -> Result<Vec<Option<i64>>, String> {
    let mut offsets = Vec::new();
    for item in text.split_whitespace() {
        let (values, times) = match item.split_once('x') {
            Some((values, times)) => {
                let times = times.parse::<usize>().map_err(|_| format!("invalid repetition in {item:?}"))?;
                (values, Some(times))
            }
            None => (item, None),
        };
        if times.unwrap_or(0).saturating_add(offsets.len()) >= MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} start timestamps"));
        }
        if values == "_" {
            offsets.extend(std::iter::repeat_n(None, times.unwrap_or(1)));
            continue;
        }
        let split = values.get(1..).and_then(|rest| rest.find(['+', '-'])).map(|i| i + 1);
        let (first, step) = match split {
            Some(_) if times.is_none() => return Err(format!("{item:?} has a step and no repetition")),
            Some(at) => (&values[..at], parse_signed_duration(&values[at..])?),
            None => (values, 0),
        };
        let mut offset = parse_signed_duration(first)?;
        for _ in 0..=times.unwrap_or(0) {
            offsets.push(Some(offset));
            offset = offset.saturating_add(step);
        }
    }
    Ok(offsets)
}

/// A duration that may have a sign, in milliseconds.
fn parse_signed_duration(text: &str) -> Result<i64, String> {
    let (sign, text) = match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    };
    parse_duration(text).map(|ms| sign * ms).map_err(|error| error.to_string())
}

/// The first line of an `eval`.
pub(super) struct EvalHead<'a> {
    /// `fail`, `warn`, `ordered` or `info`, if the command ends in one of them.
    pub suffix: Option<&'a str>,
    /// `from`, `to` and `step`, or one time.
    times: Vec<&'a str>,
    pub query: &'a str,
}

impl<'a> EvalHead<'a> {
    pub fn parse(line: &'a str) -> Option<EvalHead<'a>> {
        let (command, rest) = next_word(line)?;
        let suffix = match command.strip_prefix("eval")? {
            "" => None,
            suffix => Some(suffix.strip_prefix('_')?),
        };
        let (kind, mut rest) = next_word(rest)?;
        let names: &[&str] = match kind {
            "instant" => &["at"],
            "range" => &["from", "to", "step"],
            _ => return None,
        };
        let mut times = Vec::new();
        for name in names {
            match next_word(rest) {
                Some((word, after)) if word == *name => {
                    let (time, after) = next_word(after)?;
                    times.push(time);
                    rest = after;
                }
                // Without a time, an instant query is evaluated at 0.
                _ if kind == "instant" => times.push("0"),
                _ => return None,
            }
        }
        let query = rest.trim();
        (!query.is_empty()).then_some(EvalHead { suffix, times, query })
    }

    fn time(&self) -> Result<EvalTime, String> {
        match self.times.as_slice() {
            [at] => Ok(EvalTime::Instant { at_ms: parse_time(at)? }),
            [start, end, step] => {
                let (start_ms, end_ms, step_ms) = (parse_time(start)?, parse_time(end)?, parse_time(step)?);
                if end_ms < start_ms {
                    return Err(format!("the end {end} lies before the start {start}"));
                }
                Ok(EvalTime::Range { start_ms, end_ms, step_ms })
            }
            _ => Err("an eval has one time or three".to_owned()),
        }
    }
}

fn next_word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}
