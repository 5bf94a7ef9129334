//! The commands of a script: text to [`Command`]s.

use super::expect::Expectations;
use super::{ScriptError, parse_time};
use crate::promql::duration::parse_duration;
use crate::promql::parse::series::{SequenceValue, parse_series};
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
    Eval(Eval),
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
    let mut commands = Vec::new();
    let mut lines = text.lines().enumerate().map(|(i, line)| {
        let line = line.trim();
        // A comment is as good as an empty line: it ends a block.
        (i + 1, if line.starts_with('#') { "" } else { line })
    });
    while let Some((line, first)) = lines.next() {
        if first.is_empty() {
            continue;
        }
        // A `clear` has no block; a command may stand right below it.
        let block: Vec<(usize, &str)> = if first == "clear" {
            Vec::new()
        } else {
            lines.by_ref().take_while(|(_, line)| !line.is_empty()).collect()
        };
        commands.push(Command { line, kind: parse_command(line, first, &block)? });
    }
    Ok(commands)
}

fn parse_command(line: usize, first: &str, block: &[(usize, &str)]) -> Result<CommandKind, ScriptError> {
    let (word, rest) = first.split_once(char::is_whitespace).unwrap_or((first, ""));
    match word.to_ascii_lowercase().as_str() {
        "clear" => Ok(CommandKind::Clear),
        "load" => parse_load(line, rest, false, block).map(CommandKind::Load),
        "load_with_nhcb" => parse_load(line, rest, true, block).map(CommandKind::Load),
        command if command.starts_with("eval") => {
            let head = EvalHead::parse(first).ok_or_else(|| {
                ScriptError::new(
                    line,
                    "expected eval instant at TIME QUERY or eval range \
                                                        from TIME to TIME step DURATION QUERY",
                )
            })?;
            let time = head.time().map_err(|message| ScriptError::new(line, message))?;
            let expectations = Expectations::parse(head.suffix, block)?;
            Ok(CommandKind::Eval(Eval { time, query: head.query.to_owned(), expectations }))
        }
        _ => Err(ScriptError::new(line, format!("unknown command {word:?}"))),
    }
}

fn parse_load(
    line: usize,
    step: &str,
    with_nhcb: bool,
    block: &[(usize, &str)],
) -> Result<Load, ScriptError> {
    let step_ms = parse_duration(step.trim()).map_err(|error| ScriptError::new(line, error.to_string()))?;
    let mut series: Vec<LoadSeries> = Vec::new();
    let mut starts: Option<(Labels, Vec<Option<i64>>)> = None;
    for &(line, text) in block {
        let failed = |message: String| ScriptError::new(line, message);
        if let Some((metric, offsets)) = split_start_timestamps(text) {
            let labels = crate::promql::parse::parse_metric(metric).map_err(|e| failed(e.to_string()))?;
            starts = Some((labels, parse_offsets(offsets).map_err(failed)?));
            continue;
        }
        let described = parse_series(text).map_err(|error| failed(error.to_string()))?;
        let start_offsets_ms = match starts.take() {
            Some((labels, _)) if labels != described.labels => {
                return Err(failed(format!(
                    "start timestamps of {labels} are followed by {}",
                    described.labels
                )));
            }
            Some((_, offsets)) if offsets.len() != described.values.len() => {
                let (n, m) = (offsets.len(), described.values.len());
                return Err(failed(format!("{n} start timestamps for {m} values")));
            }
            Some((_, offsets)) => offsets,
            None => Vec::new(),
        };
        series.retain(|earlier| earlier.labels != described.labels);
        series.push(LoadSeries { labels: described.labels, values: described.values, start_offsets_ms });
    }
    Ok(Load { step_ms, with_nhcb, series })
}

/// `m{a="b"}@st -1m`: the metric and the offsets.
fn split_start_timestamps(text: &str) -> Option<(&str, &str)> {
    let (metric, offsets) = text.split_once("@st")?;
    let ends = offsets.is_empty() || offsets.starts_with(char::is_whitespace);
    ends.then_some((metric, offsets))
}

/// `_ _x3 -1m 5sx2 1m+10sx4`
fn parse_offsets(text: &str) -> Result<Vec<Option<i64>>, String> {
    let mut offsets = Vec::new();
    for item in text.split_whitespace() {
        let (values, times) = match item.split_once('x') {
            Some((values, times)) => {
                let times: usize = times.parse().map_err(|_| format!("invalid repetition in {item:?}"))?;
                (values, times.min(crate::promql::parse::series::MAX_VALUES))
            }
            None => (item, 0),
        };
        if values == "_" {
            offsets.extend(std::iter::repeat_n(None, if item.contains('x') { times } else { 1 }));
            continue;
        }
        let split = values.get(1..).and_then(|rest| rest.find(['+', '-'])).map(|i| i + 1);
        let (first, step) = match split {
            Some(at) => (&values[..at], parse_signed_duration(&values[at..])?),
            None => (values, 0),
        };
        let mut offset = parse_signed_duration(first)?;
        for _ in 0..=times {
            offsets.push(Some(offset));
            offset += step;
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
            [start, end, step] => Ok(EvalTime::Range {
                start_ms: parse_time(start)?,
                end_ms: parse_time(end)?,
                step_ms: parse_time(step)?,
            }),
            _ => Err("an eval has one time or three".to_owned()),
        }
    }
}

fn next_word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}
