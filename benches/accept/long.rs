//! Queries over long times: a year of one series, a month of a thousand.

use crate::server::Server;
use crate::support::{self, WriteSeries, get_with, remote_write, wait_until};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What is asked over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// One series for a year, a sample a minute, at a step of an hour.
    Year,
    /// A thousand series for thirty days, a sample and a step every five minutes.
    Month,
}

/// What a span is made of.
struct Shape {
    name: &'static str,
    query: &'static str,
    series: usize,
    days: i64,
    interval_s: i64,
    step_s: i64,
}

/// Samples of a request.
const BATCH_SAMPLES: usize = 2_000;
/// A median is of so many answers, after one that warms up.
const ASKED: usize = 10;

impl Span {
    /// Both.
    pub const ALL: [Span; 2] = [Span::Year, Span::Month];

    fn shape(self, quick: bool) -> Shape {
        match self {
            Span::Year => Shape {
                name: "long_year",
                query: "long_year",
                series: 1,
                days: if quick { 60 } else { 365 },
                interval_s: 60,
                step_s: 3_600,
            },
            Span::Month => Shape {
                name: "long_month_total",
                query: "sum(rate(long_month_total[15m]))",
                series: 1_000,
                days: if quick { 5 } else { 30 },
                interval_s: 300,
                step_s: 300,
            },
        }
    }
}

impl Shape {
    fn rounds(&self) -> i64 {
        self.days * 86_400 / self.interval_s
    }

    /// When the samples of a round were taken: the last ones an hour ago.
    fn time_s(&self, round: i64) -> i64 {
        static END_S: OnceLock<i64> = OnceLock::new();
        let end_s = *END_S.get_or_init(|| (support::now_ms() / 1000 - 3_600) / 3_600 * 3_600);
        end_s - (self.rounds() - 1 - round) * self.interval_s
    }

    /// A counter that never moves twice by the same.
    fn value(&self, series: usize, round: i64) -> f64 {
        let noise = (round as u64 ^ (series as u64) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
        (round * 100 + noise as i64 + series as i64 * 1_000) as f64
    }
}

/// For a person.
pub const COMMAND: &str = "cargo bench --bench accept -- --run long";

/// Runs `server` in `folder` with the data of all spans; gives the median of each query, in milliseconds.
pub fn run(server: Server, folder: &Path, quick: bool) -> Result<Vec<(Span, f64)>, String> {
    let shapes = Span::ALL.map(|span| (span, span.shape(quick)));
    // Prometheus takes in what is old from files, others by requests.
    if server == Server::Prometheus {
        for (_, shape) in &shapes {
            import(shape, folder)?;
        }
    }
    let (_process, url) = server.start(folder);
    if server != Server::Prometheus {
        shapes.iter().try_for_each(|(_, shape)| send(shape, &url))?;
    }
    shapes.iter().map(|(span, shape)| Ok((*span, median_ms(shape, &url)?))).collect()
}

/// Sends all samples by remote write, in the order of time.
fn send(shape: &Shape, url: &str) -> Result<(), String> {
    let numbers: Vec<String> = (0..shape.series).map(|series| series.to_string()).collect();
    let labels: Vec<_> = numbers.iter().map(|n| [("__name__", shape.name), ("number", n.as_str())]).collect();
    let rounds: Vec<i64> = (0..shape.rounds()).collect();
    for some in rounds.chunks((BATCH_SAMPLES / shape.series).max(1)) {
        let sample = |series, round: &i64| (shape.time_s(*round) * 1000, shape.value(series, *round));
        let samples: Vec<Vec<(i64, f64)>> = (0..shape.series)
            .map(|series| some.iter().map(|round| sample(series, round)).collect())
            .collect();
        let series: Vec<WriteSeries> = labels.iter().zip(&samples).map(|(l, s)| (&l[..], &s[..])).collect();
        let answer = remote_write(url, &series);
        if !matches!(answer.status, 200 | 204) {
            return Err(format!("{url}: {} {}", answer.status, answer.body));
        }
    }
    Ok(())
}

/// Makes blocks of all samples with promtool, where a Prometheus in `folder` will look for them.
fn import(shape: &Shape, folder: &Path) -> Result<(), String> {
    let fault = |e: std::io::Error| format!("{}: {e}", shape.name);
    let path = folder.join(format!("{}.txt", shape.name));
    let mut file = BufWriter::new(File::create(&path).map_err(fault)?);
    let family = shape.name.trim_end_matches("_total");
    let kind = if family == shape.name { "gauge" } else { "counter" };
    writeln!(file, "# TYPE {family} {kind}").map_err(fault)?;
    let mut line = String::new();
    for round in 0..shape.rounds() {
        for series in 0..shape.series {
            let (value, time) = (shape.value(series, round), shape.time_s(round));
            line.clear();
            let _ = writeln!(line, "{}{{number=\"{series}\"}} {value} {time}", shape.name);
            file.write_all(line.as_bytes()).map_err(fault)?;
        }
    }
    file.write_all(b"# EOF\n").map_err(fault)?;
    file.into_inner().map_err(|e| fault(e.into_error()))?;
    let promtool = support::servers().join("bin/promtool");
    // Blocks as wide as Prometheus' own of that age.
    let status = Command::new(&promtool)
        .args(["tsdb", "create-blocks-from", "--max-block-duration=744h", "--quiet", "openmetrics"])
        .arg(&path)
        .arg(folder.join("prometheus"))
        .stdout(Stdio::null())
        .status();
    let removed = fs::remove_file(&path);
    match status {
        Ok(status) if status.success() => removed.map_err(fault),
        Ok(status) => Err(format!("promtool ended with {status}")),
        Err(error) => Err(format!("{}: {error}", promtool.display())),
    }
}

/// Asks again and again for the whole span.
fn median_ms(shape: &Shape, url: &str) -> Result<f64, String> {
    let last_s = shape.time_s(shape.rounds() - 1);
    // What was sent can be asked a moment later.
    let newest = format!("count({})", shape.name);
    wait_until("all series are there", Duration::from_secs(60), || {
        let time = last_s.to_string();
        let answer = get_with(&format!("{url}/api/v1/query"), &[("query", &newest), ("time", &time)]);
        let count = answer.map(|answer| answer.json()["data"]["result"][0]["value"][1].clone());
        count.is_some_and(|count| count == shape.series.to_string().as_str())
    });
    let start = (last_s - shape.days * 86_400 + shape.step_s).to_string();
    let (end, step) = (last_s.to_string(), shape.step_s.to_string());
    let parameters =
        [("query", shape.query), ("start", &start), ("end", &end), ("step", &step), ("nocache", "1")];
    let steps = shape.days * 86_400 / shape.step_s;
    let mut took = Vec::new();
    for _ in 0..=ASKED {
        let begun = Instant::now();
        let answer = get_with(&format!("{url}/api/v1/query_range"), &parameters).ok_or("no answer")?;
        took.push(begun.elapsed());
        let points = answer.body.matches("\"]").count() as i64;
        // The first step has nothing before it to rise from.
        if answer.status != 200 || points < steps - 3 {
            return Err(format!("{}: {points} points of {steps}", shape.query));
        }
    }
    took.remove(0);
    took.sort_unstable();
    Ok(took[took.len() / 2].as_secs_f64() * 1000.0)
}
