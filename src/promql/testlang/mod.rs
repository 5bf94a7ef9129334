//! The script language of Prometheus' PromQL tests (`promqltest`), and its runner.
//!
//! A script loads samples, evaluates queries and says what is expected of them. Like Prometheus'
//! own runner, this one evaluates each instant query once more as a range query, and with `@` put
//! on all its selectors at other times; the answers have to be the same.

mod compare;
mod expect;
mod memory;
mod nhcb;
mod pin;
mod script;

pub use memory::Memory;

use super::eval::{EvalError, EvalOptions, evaluate};
use super::steps::Steps;
use super::value::{Answer, Value};
use super::{duration, parse};
use crate::storage::Timestamp;
use expect::RangeVector;
use script::{Command, CommandKind, Eval, EvalTime, Load};
use std::fmt::{self, Display};
use std::time::Duration;

/// What came of a script.
#[derive(Debug, Default)]
pub struct Report {
    /// How many queries there are.
    pub evals: usize,
    /// The queries whose answer is not the expected one.
    pub failures: Vec<Failure>,
}

/// A query whose answer is not the expected one.
#[derive(Debug)]
pub struct Failure {
    /// The line of the command, from 1.
    pub line: usize,
    /// The query.
    pub query: String,
    /// What is wrong with the answer.
    pub difference: Difference,
}

/// How an answer differs from the expected one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The line that says what is expected, if it is one line.
    pub line: Option<usize>,
    /// What is expected.
    pub expected: String,
    /// What came.
    pub got: String,
    /// How the query was evaluated, if not just as it stands.
    pub how: String,
}

impl Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, got {}", self.expected, self.got)?;
        if !self.how.is_empty() {
            write!(f, " ({})", self.how)?;
        }
        Ok(())
    }
}

impl Difference {
    fn of_error(message: String) -> Difference {
        Difference { line: None, expected: "a value".to_owned(), got: message, how: String::new() }
    }

    fn when(self, how: impl Display) -> Difference {
        let how = if self.how.is_empty() { how.to_string() } else { format!("{how}, {}", self.how) };
        Difference { how, ..self }
    }
}

/// Why a script cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ScriptError {
    /// The line at fault, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

impl ScriptError {
    fn new(line: usize, message: impl Into<String>) -> ScriptError {
        ScriptError { line, message: message.into() }
    }
}

/// The settings of the engine that the scripts of Prometheus assume.
pub fn options() -> EvalOptions {
    EvalOptions {
        max_samples: 10_000,
        delayed_name_removal: true,
        use_start_timestamps: true,
        ..EvalOptions::default()
    }
}

/// The first line of a script in which metrics lose their names in each operation, as in a server,
/// instead of at the end of the query, as Prometheus' own scripts have it.
const NAMES_AT_ONCE: &str = "# names: dropped at once";

/// The settings that a script assumes.
pub fn options_of(script: &str) -> EvalOptions {
    let at_once = script.lines().next().is_some_and(|line| line.trim() == NAMES_AT_ONCE);
    EvalOptions { delayed_name_removal: !at_once, ..options() }
}

/// Runs a script with an empty storage.
pub fn run(script: &str, options: &EvalOptions) -> Result<Report, ScriptError> {
    let mut memory = Memory::default();
    let mut report = Report::default();
    for Command { line, kind } in script::parse_script(script)? {
        match kind {
            CommandKind::Clear => memory.clear(),
            CommandKind::Load(load) => {
                fill(&mut memory, &load).map_err(|message| ScriptError::new(line, message))?;
            }
            CommandKind::Eval(eval) => {
                report.evals += 1;
                if let Err(difference) = check(&memory, &eval, options) {
                    report.failures.push(Failure { line, query: eval.query, difference });
                }
            }
        }
    }
    Ok(report)
}

/// The query of an `eval` line.
pub fn query_of(line: &str) -> Option<&str> {
    script::EvalHead::parse(line).map(|head| head.query)
}

/// A time of a script, in milliseconds since the epoch: a duration.
fn parse_time(text: &str) -> Result<i64, String> {
    duration::parse_duration(text).map_err(|error| error.to_string())
}

fn fill(memory: &mut Memory, load: &Load) -> Result<(), String> {
    let mut classic = nhcb::Collector::default();
    for series in &load.series {
        if load.with_nhcb {
            classic.take(&series.labels, &series.values, load.step_ms);
        }
        memory.insert_sequence(&series.labels, &series.values, &series.start_offsets_ms, load.step_ms);
    }
    classic.store(memory)
}

fn check(memory: &Memory, eval: &Eval, options: &EvalOptions) -> Result<(), Difference> {
    let expected = &eval.expectations;
    let (start_ms, end_ms, step_ms) = match eval.time {
        EvalTime::Instant { at_ms } => return check_instants(memory, eval, at_ms, options),
        EvalTime::Range { start_ms, end_ms, step_ms } => (start_ms, end_ms, step_ms),
    };
    let range = RangeVector { start_ms, end_ms, step_ms };
    let result = evaluate_range(memory, &eval.query, &range, options)?;
    match compare::outcome(expected, &eval.query, &result)? {
        Some(Value::Matrix(found)) => compare::matrix(expected, found, &range),
        Some(_) => Err(Difference::of_error("no range vector".to_owned())),
        None => Ok(()),
    }
}

fn check_instants(memory: &Memory, eval: &Eval, at_ms: i64, options: &EvalOptions) -> Result<(), Difference> {
    check_instant(memory, eval, &eval.query, at_ms, options)?;
    let Some(pinned) = pin::pinned(&eval.query, at_ms) else { return Ok(()) };
    let times =
        if at_ms == 0 { vec![-1000, 0, 1000] } else { vec![-10 * at_ms, 0, at_ms / 5, at_ms, 10 * at_ms] };
    for time_ms in times {
        check_instant(memory, eval, &pinned, time_ms, options)
            .map_err(|difference| difference.when(format_args!("as {pinned} at {time_ms} ms")))?;
    }
    Ok(())
}

/// Evaluates `query`, which is that of `eval` or one that has to give the same, at one time, and
/// again as a range query around this time.
fn check_instant(
    memory: &Memory,
    eval: &Eval,
    query: &str,
    at_ms: i64,
    options: &EvalOptions,
) -> Result<(), Difference> {
    let expected = &eval.expectations;
    let result = evaluate_text(memory, query, Steps::instant(Timestamp::from_millis(at_ms)), options)?;
    let Some(value) = compare::outcome(expected, query, &result)? else { return Ok(()) };
    compare::instant(expected, value)?;
    let depends_on_range = ["start()", "end()", "range()", "step()"].iter().any(|f| query.contains(f));
    let not_in_range = expected.ordered || expected.string.is_some() || expected.range_vector.is_some();
    if depends_on_range || not_in_range {
        return Ok(());
    }
    const MINUTE_MS: i64 = 60_000;
    let range = RangeVector { start_ms: at_ms - MINUTE_MS, end_ms: at_ms + MINUTE_MS, step_ms: MINUTE_MS };
    let in_range = |difference: Difference| difference.when("in a range query");
    match evaluate_range(memory, query, &range, options)? {
        Err(error) => Err(in_range(Difference::of_error(format!("the failure {:?}", error.to_string())))),
        Ok(answer) => {
            let found = compare::at_time(&answer.value, at_ms, expected.scalar.is_some());
            compare::instant(expected, &found).map_err(in_range)
        }
    }
}

fn evaluate_range(
    memory: &Memory,
    query: &str,
    range: &RangeVector,
    options: &EvalOptions,
) -> Result<Result<Answer, EvalError>, Difference> {
    let at = Timestamp::from_millis;
    let step = Duration::from_millis(range.step_ms.unsigned_abs());
    let steps = Steps::new(at(range.start_ms), at(range.end_ms), step)
        .map_err(|error| Difference::of_error(error.to_string()))?;
    evaluate_text(memory, query, steps, options)
}

fn evaluate_text(
    memory: &Memory,
    query: &str,
    steps: Steps,
    options: &EvalOptions,
) -> Result<Result<Answer, EvalError>, Difference> {
    let expr = parse(query).map_err(|error| Difference {
        expected: "a query that parses".to_owned(),
        ..Difference::of_error(error.to_string())
    })?;
    Ok(evaluate(&expr, memory, steps, options))
}

#[cfg(test)]
mod tests;
