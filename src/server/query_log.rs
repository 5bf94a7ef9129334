//! The query log: a line of JSON for each query that is over, as Prometheus writes it.
//!
//! A thread writes; a query only hands its line over. What the thread cannot write, or has not come to
//! write while more than a few MiB wait, is dropped and counted.

use super::api::status::rfc3339;
use super::query_stats::QueryStats;
use crate::promql::running::{Ended, HttpOrigin, Origin, Queries, RuleOrigin};
use crate::storage::Timestamp;
use serde_json::json;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// So many bytes of lines may wait to be written.
const WAITING_BYTES: usize = 4 << 20;
/// So many are written at once, if they wait.
const WRITE_BYTES: usize = 64 << 10;

/// Opens a log to be appended to.
///
/// # Errors
/// It cannot be written.
pub fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

/// The log of a process, if it has one.
#[derive(Default)]
pub struct QueryLog {
    open: Mutex<Option<OpenLog>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    dropped: AtomicU64,
    waiting_bytes: AtomicUsize,
}

struct OpenLog {
    /// An empty line ends the thread.
    lines: Sender<Vec<u8>>,
    writer: JoinHandle<()>,
}

impl OpenLog {
    /// Writes what waits, and ends.
    fn end(self) {
        if self.lines.send(Vec::new()).is_ok() {
            let _ = self.writer.join();
        }
    }
}

impl QueryLog {
    /// Writes the `queries` that are over from now on to `file`; `None` ends the log. What waits is
    /// written before.
    ///
    /// # Errors
    /// There is no thread for it; the log goes on as it was.
    pub fn write_to(&self, queries: &Queries, file: Option<(PathBuf, File)>) -> io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let next = file.map(|(path, file)| self.begin(queries, path, file)).transpose()?;
        if next.is_none() {
            queries.listen(None);
        }
        let before = std::mem::replace(&mut *open, next);
        drop(open);
        if let Some(before) = before {
            before.end();
        }
        Ok(())
    }

    fn begin(&self, queries: &Queries, path: PathBuf, file: File) -> io::Result<OpenLog> {
        let (lines, received) = channel();
        let counts = self.counts.clone();
        let writer = std::thread::Builder::new()
            .name("larum-query-log".to_owned())
            .spawn(move || Writer { path, file, counts, is_broken: false }.run(&received))?;
        let (counts, of_listener) = (self.counts.clone(), lines.clone());
        queries.listen(Some(Arc::new(move |ended| counts.hand_over(&of_listener, line(ended)))));
        Ok(OpenLog { lines, writer })
    }

    /// Whether there is a log.
    pub fn is_on(&self) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// How many lines were dropped.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Relaxed)
    }
}

impl Counts {
    fn hand_over(&self, lines: &Sender<Vec<u8>>, line: Vec<u8>) {
        let len = line.len();
        let waiting = self.waiting_bytes.fetch_add(len, Relaxed) + len;
        if waiting > WAITING_BYTES || lines.send(line).is_err() {
            self.waiting_bytes.fetch_sub(len, Relaxed);
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

struct Writer {
    path: PathBuf,
    file: File,
    counts: Arc<Counts>,
    /// Whether the last line in the file may not be whole.
    is_broken: bool,
}

impl Writer {
    fn run(mut self, lines: &Receiver<Vec<u8>>) {
        self.write(lines);
        // What was handed over behind the end of the log.
        for line in lines.try_iter() {
            self.counts.waiting_bytes.fetch_sub(line.len(), Relaxed);
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }

    fn write(&mut self, lines: &Receiver<Vec<u8>>) {
        let mut bytes = Vec::new();
        let mut goes_on = true;
        while goes_on
            && let Ok(line) = lines.recv()
            && !line.is_empty()
        {
            bytes.clear();
            if self.is_broken {
                bytes.push(b'\n');
            }
            let prefix = bytes.len();
            bytes.extend_from_slice(&line);
            let mut count = 1;
            while bytes.len() < WRITE_BYTES
                && let Ok(line) = lines.try_recv()
            {
                if line.is_empty() {
                    goes_on = false;
                    break;
                }
                bytes.extend_from_slice(&line);
                count += 1;
            }
            self.counts.waiting_bytes.fetch_sub(bytes.len() - prefix, Relaxed);
            let path = self.path.display();
            match (self.file.write_all(&bytes), self.is_broken) {
                (Ok(()), true) => {
                    tracing::info!("query_log_file: {path} is written again");
                    self.is_broken = false;
                }
                (Ok(()), false) => {}
                (Err(error), was_broken) => {
                    self.counts.dropped.fetch_add(count, Relaxed);
                    if !was_broken {
                        tracing::error!(
                            "query_log_file: {path}: {error}; queries are not logged until it can be written"
                        );
                    }
                    self.is_broken = true;
                }
            }
        }
    }
}

/// The line of a query.
fn line(ended: &Ended<'_>) -> Vec<u8> {
    let Ended { query, timings, stats, error } = ended;
    let steps = &query.steps;
    let mut line = json!({
        "time": date(Timestamp::now().as_millis()),
        "level": "INFO",
        "msg": "promql query logged",
        "params": {
            "query": query.text,
            "start": date(steps.start_ms()),
            "end": date(steps.end_ms()),
            "step": steps.step_ms() / 1000,
        },
        "stats": QueryStats::new(*timings, stats, steps, false),
    });
    if let Some(error) = error {
        line["error"] = json!(error);
    }
    match &query.origin {
        Origin::Rule(RuleOrigin { file, group, rule }) => {
            line["ruleGroup"] = json!({ "file": file, "name": group, "rule": rule });
        }
        Origin::Http(HttpOrigin { address, method, path, dashboard, panel, org, .. }) => {
            line["httpRequest"] = json!({
                "clientIP": address.map_or_else(String::new, |address| address.to_string()),
                "method": method,
                "path": path,
            });
            for (name, value) in [("dashboardUid", dashboard), ("panelId", panel), ("orgId", org)] {
                if let Some(value) = value {
                    line["httpRequest"][name] = json!(value);
                }
            }
        }
    }
    let mut bytes = line.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

/// A time as Prometheus' log has it: `2026-11-21T21:14:53.730Z`.
fn date(t_ms: i64) -> String {
    let text = jiff::Timestamp::from_millisecond(t_ms);
    text.map_or_else(|_| rfc3339(t_ms), |t| format!("{t:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::Steps;
    use crate::promql::running::{Queries, Query, Timings};
    use crate::promql::value::Stats;
    use serde_json::Value;

    fn ask(queries: &Queries, text: &str, origin: Origin, error: Option<&str>) {
        let (start, end) = (Timestamp::from_millis(1_000_000), Timestamp::from_millis(1_060_500));
        let steps = Steps::new(start, end, std::time::Duration::from_millis(1500)).unwrap();
        queries.begin(Query::new(text, steps, origin, end)).finish(
            text,
            Timings::default(),
            &Stats::default(),
            error,
        );
    }

    fn rule() -> Origin {
        let [file, group, rule] = ["r.yml", "g", "Down"].map(str::to_owned);
        Origin::Rule(RuleOrigin { file, group, rule })
    }

    fn request() -> Origin {
        Origin::Http(HttpOrigin {
            address: Some([10, 0, 0, 1].into()),
            method: "GET".to_owned(),
            path: "/api/v1/query".to_owned(),
            dashboard: Some("abc".to_owned()),
            ..HttpOrigin::default()
        })
    }

    #[test]
    fn every_query_is_a_line_as_prometheus_writes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queries.log");
        let (queries, log) = (Queries::default(), QueryLog::default());
        log.write_to(&queries, Some((path.clone(), open(&path).unwrap()))).unwrap();
        ask(&queries, "up{a=\"b\"}", request(), None);
        ask(&queries, "down", rule(), Some("many-to-many"));
        log.write_to(&queries, None).unwrap();
        ask(&queries, "not logged", request(), None);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        let params = json!({
            "query": "up{a=\"b\"}", "step": 1,
            "start": "1970-01-01T00:16:40.000Z", "end": "1970-01-01T00:17:40.500Z",
        });
        assert_eq!(lines[0]["params"], params);
        let request =
            json!({"clientIP": "10.0.0.1", "method": "GET", "path": "/api/v1/query", "dashboardUid": "abc"});
        assert_eq!((&lines[0]["httpRequest"], lines[0].get("error")), (&request, None));
        assert!(lines[0]["stats"]["timings"]["execTotalTime"].is_number());
        assert_eq!(lines[1]["ruleGroup"], json!({"file": "r.yml", "name": "g", "rule": "Down"}));
        assert_eq!(
            (&lines[1]["error"], &lines[1]["msg"]),
            (&json!("many-to-many"), &json!("promql query logged"))
        );
    }

    #[test]
    fn what_cannot_be_written_is_dropped_and_counted() {
        // Every write there fails for want of space.
        let full = Path::new("/dev/full");
        if !full.exists() {
            return eprintln!("skipped: there is no /dev/full here");
        }
        let (queries, log) = (Queries::default(), QueryLog::default());
        log.write_to(&queries, Some((full.to_owned(), open(full).unwrap()))).unwrap();
        assert!(log.is_on());
        for _ in 0..3 {
            ask(&queries, "up", rule(), None);
        }
        log.write_to(&queries, None).unwrap();
        assert_eq!((log.dropped(), log.is_on()), (3, false));
    }

    #[test]
    fn lines_that_nobody_comes_to_write_are_bounded() {
        let counts = Counts::default();
        let (lines, received) = channel();
        for _ in 0..100 {
            counts.hand_over(&lines, vec![0; 100 << 10]);
        }
        assert_eq!((counts.dropped.load(Relaxed), received.try_iter().count()), (60, 40));
    }
}
