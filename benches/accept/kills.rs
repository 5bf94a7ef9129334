//! Kills Larum under load again and again, and counts what it acknowledged and no longer has.

use crate::support::{self, Larum, WriteSeries, get_with, post, write_request};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Connections that write at once.
const WRITERS: usize = 4;
/// Series of a writer; a request holds one sample of each.
const SERIES: u64 = 100;
/// Sample time from one request of a writer to its next.
const INTERVAL_MS: u64 = 200;
/// The first sample is so much older than now: time for all requests, some of it in other partitions.
const SPAN_MS: i64 = 12 * 3_600_000;

/// One writer's series: request n, counted from 1, holds the value n for time n.
struct Writer {
    name: String,
    first_ms: i64,
    /// So many requests were acknowledged.
    acknowledged: AtomicU64,
    /// So many of them were found again after the last kill.
    found: u64,
}

/// Kills the server `times` times; gives the samples lost in all.
///
/// # Panics
/// If the server does not come up again, or answers what it must not.
pub fn lost(times: u64) -> u64 {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let first_ms = support::now_ms() - SPAN_MS;
    let writer = |number| Writer {
        name: format!("writer-{number}"),
        first_ms,
        acknowledged: AtomicU64::new(0),
        found: 0,
    };
    let mut writers: Vec<Writer> = (0..WRITERS).map(writer).collect();
    let mut lost = 0;
    for kill in 1..=times {
        let larum = start(dir.path());
        // From a moment after the start to one that has seen cuts and merges.
        let life = Duration::from_millis(50 + 37 * (kill * 17 % 29));
        load_until_killed(larum, &writers, life);
        let larum = start(dir.path());
        lost += writers.iter_mut().map(|writer| writer.missing(&larum.url)).sum::<u64>();
        eprintln!("accept: kill {kill} of {times}: {lost} samples lost");
        larum.process.kill_9();
    }
    // What was there after its kill must not have been lost by later ones, nor by a clean stop.
    let larum = start(dir.path());
    assert_eq!(larum.process.stop(Duration::from_secs(60)), Some(0), "a clean stop");
    let larum = start(dir.path());
    let acknowledged: u64 = writers.iter().map(|writer| writer.found * SERIES).sum();
    writers.iter_mut().for_each(|writer| writer.found = 0);
    let missing: u64 = writers.iter_mut().map(|writer| writer.missing(&larum.url)).sum();
    eprintln!("accept: {acknowledged} samples acknowledged over {times} kills, {missing} missing at the end");
    lost.max(missing)
}

fn start(dir: &std::path::Path) -> Larum {
    Larum::start(dir, &["--web.enable-admin-api", "--storage.tsdb.retention.time=100y", "--log.level=warn"])
}

/// Writes with all writers, and cuts and merges, for as long as the server lives.
fn load_until_killed(larum: Larum, writers: &[Writer], life: Duration) {
    let dead = AtomicBool::new(false);
    let url = larum.url.clone();
    thread::scope(|scope| {
        for writer in writers {
            scope.spawn(|| while writer.send_next(&url) {});
        }
        scope.spawn(|| {
            for path in ["flush", "compact"].iter().cycle().take_while(|_| !dead.load(Ordering::Relaxed)) {
                post(&format!("{url}/api/v1/admin/tsdb/{path}"), &[], b"");
                thread::sleep(Duration::from_millis(20));
            }
        });
        let end = Instant::now() + life;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            thread::sleep(left);
        }
        larum.process.kill_9();
        dead.store(true, Ordering::Relaxed);
    });
}

impl Writer {
    fn time_ms(&self, request: u64) -> i64 {
        self.first_ms + (request * INTERVAL_MS) as i64
    }

    /// Sends the request after the last acknowledged one; false if the server is gone. What was
    /// under way when the server was killed is thereby sent again, as senders of remote write do.
    fn send_next(&self, url: &str) -> bool {
        let request = self.acknowledged.load(Ordering::Relaxed) + 1;
        let numbers: Vec<String> = (0..SERIES).map(|number| number.to_string()).collect();
        let labels: Vec<_> = numbers
            .iter()
            .map(|number| [("__name__", "kills"), ("number", number), ("writer", self.name.as_str())])
            .collect();
        let sample = [(self.time_ms(request), request as f64)];
        let series: Vec<WriteSeries> = labels.iter().map(|labels| (&labels[..], &sample[..])).collect();
        let body =
            snap::raw::Encoder::new().compress_vec(&write_request(&series)).expect("snappy compresses");
        let headers = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
        match post(&format!("{url}/api/v1/write"), &headers, &body) {
            None => false,
            Some(answer) if answer.status == 204 => {
                self.acknowledged.store(request, Ordering::Relaxed);
                true
            }
            // Busy: again.
            Some(answer) => {
                assert_eq!(answer.status, 503, "{}", answer.body);
                thread::sleep(Duration::from_millis(20));
                true
            }
        }
    }

    /// Counts what was acknowledged since the last call and is not there, or with another value.
    fn missing(&mut self, url: &str) -> u64 {
        let acknowledged = self.acknowledged.load(Ordering::Relaxed);
        let news = acknowledged - self.found;
        if news == 0 {
            return 0;
        }
        let (name, range_ms) = (&self.name, news * INTERVAL_MS);
        let ask = |function: &str| -> f64 {
            let query = format!("sum({function}(kills{{writer=\"{name}\"}}[{range_ms}ms]))");
            let time = format!("{}", self.time_ms(acknowledged) as f64 / 1e3);
            let answer = get_with(&format!("{url}/api/v1/query"), &[("query", &query), ("time", &time)]);
            let answer = answer.expect("the server answers").json();
            // No series is a sum of nothing.
            let value =
                answer["data"]["result"].get(0).map_or("0", |sum| sum["value"][1].as_str().unwrap_or("0"));
            value.parse().expect("a number")
        };
        let (count, sum) = (ask("count_over_time"), ask("sum_over_time"));
        let expected_sum = SERIES * (self.found + 1..=acknowledged).sum::<u64>();
        self.found = acknowledged;
        let missing = (SERIES * news).saturating_sub(count as u64);
        if missing == 0 && sum != expected_sum as f64 {
            eprintln!("accept: the values of {name} sum up to {sum}, not to {expected_sum}");
            return 1;
        }
        missing
    }
}
