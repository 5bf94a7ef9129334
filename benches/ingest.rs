//! How fast samples go in: 50,000 series with ten labels each, in batches of 2,000 samples, as a
//! sender of remote write would bring them, in one thread, with the WAL on and synced every
//! second. Label bytes are looked up, the frame is written, rows are filled and sealed; no HTTP.
//!
//! `cargo bench --bench ingest [ROUNDS]` appends so many samples per series, 240 unless told.

mod support;

use larum::{Batch, Db, Labels, Options, Timestamp};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SERIES: usize = 50_000;
const SERIES_PER_TARGET: usize = 500;
const BATCH_SAMPLES: usize = 2_000;
const INTERVAL_MS: i64 = 15_000;
const FIRST_MS: i64 = 1_700_000_000_000;

fn labels(n: usize) -> Labels {
    let target = n / SERIES_PER_TARGET;
    Labels::from_pairs([
        ("__name__", format!("http_requests_{}_total", n % 100)),
        ("cluster", "eu-west-1".to_owned()),
        ("code", (200 + n % 5).to_string()),
        ("container", "main".to_owned()),
        ("handler", format!("/api/v1/path/{}", n / 5 % 100)),
        ("instance", format!("10.1.{}.{}:9100", target / 250, target % 250)),
        ("job", "api".to_owned()),
        ("method", "GET".to_owned()),
        ("namespace", format!("team-{}", target % 7)),
        ("pod", format!("api-7d9f8b6c5-{target:05}")),
    ])
    .expect("the names are distinct and not empty")
}

/// A mix of what is met: constants, counters that move a little or a lot, gauges with a digit.
fn value(series: usize, round: i64, random: u64) -> f64 {
    match series % 4 {
        0 => 1.0,
        1 => round as f64,
        2 => (round * 100 + (random % 100) as i64) as f64,
        _ => (random % 100_000) as f64 / 10.0,
    }
}

fn main() {
    let rounds = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(240i64);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let end = Timestamp::from_millis(FIRST_MS + rounds * INTERVAL_MS);
    let options = Options { clock: Arc::new(move || end), ..Options::default() };
    let db = Db::open(dir.path(), options).expect("a new folder opens");

    let series: Vec<Labels> = (0..SERIES).map(labels).collect();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut batch = Batch::new();
    let (mut first, mut others) = (Duration::ZERO, Duration::ZERO);
    for round in 0..rounds {
        let mut took = Duration::ZERO;
        for (chunk, some) in series.chunks(BATCH_SAMPLES).enumerate() {
            batch.clear();
            for (i, labels) in some.iter().enumerate() {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let n = chunk * BATCH_SAMPLES + i;
                // The samples of a target share a timestamp; targets are scraped one after another.
                let t = FIRST_MS + round * INTERVAL_MS + (n / SERIES_PER_TARGET) as i64 * 7;
                batch.push(labels, Timestamp::from_millis(t), value(n, round, random));
            }
            let start = Instant::now();
            let outcome = db.append(&batch).expect("the disk has room");
            took += start.elapsed();
            assert_eq!(outcome.accepted, some.len());
        }
        *(if round == 0 { &mut first } else { &mut others }) += took;
    }
    let nanos = |time: Duration, samples: usize| time.as_nanos() as f64 / samples as f64;
    support::row("new series", nanos(first, SERIES) / 1e3, "us");
    let samples = SERIES * (rounds as usize).saturating_sub(1);
    if samples > 0 {
        support::row("known series, wal, 1 thread", 1e3 / nanos(others, samples), "Msamples/s");
    }
}
