//! Dashboards that ask while samples come in: an open loop, in which a late answer delays no question. A
//! latency counts from the moment a question was due, so what waits behind a slow answer counts as well.

use crate::judge::Judge;
use crate::server::Server;
use serde_json::Value;
use std::path::Path;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// What is shown of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// The 99th percentile of the latencies, in milliseconds.
    P99,
    /// Samples taken in a second meanwhile.
    Ingested,
}

/// What was measured.
pub struct Figures {
    p99_ms: f64,
    samples_per_s: f64,
}

impl Figures {
    /// One of them.
    pub fn of(&self, shown: Shown) -> f64 {
        match shown {
            Shown::P99 => self.p99_ms,
            Shown::Ingested => self.samples_per_s,
        }
    }
}

/// Clients, each of which asks once a second.
const CLIENTS: u32 = 64;
/// How fast samples come in, and of how many series.
const SAMPLES_A_SECOND: i64 = 200_000;
const SERIES: i64 = 50_000;
/// From one sample of a series to the next.
const INTERVAL_S: i64 = 15;
/// What the dashboard shows: two series of each of 100 instances, over all the history.
const QUERY: &str = "node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes";
const STEP_S: i64 = 60;

/// How much there is.
struct Size {
    /// Data that is there before.
    history_s: i64,
    /// How long is asked.
    asked_s: i64,
}

impl Size {
    fn of(quick: bool) -> Size {
        if quick {
            Size { history_s: 3_600, asked_s: 20 }
        } else {
            Size { history_s: 5 * 3_600, asked_s: 60 }
        }
    }

    /// So much data comes in while it is asked.
    fn live_s(&self) -> i64 {
        self.asked_s * SAMPLES_A_SECOND / SERIES * INTERVAL_S
    }

    /// When the data begins that comes in: such that it ends about now, in all rounds at the same time.
    fn live_start_s(&self) -> i64 {
        static START_S: OnceLock<i64> = OnceLock::new();
        let live_s = self.live_s();
        *START_S.get_or_init(|| (crate::support::now_ms() / 1000 - live_s) / STEP_S * STEP_S)
    }
}

/// For a person.
pub const COMMAND: &str = "cargo bench --bench accept -- --run concurrent";

/// Runs `server` in `folder` while it is loaded and asked.
pub fn run(judge: &Judge, server: Server, folder: &Path, quick: bool) -> Result<Figures, String> {
    let size = Size::of(quick);
    let (live_s, live_start_s) = (size.live_s(), size.live_start_s());
    let data = |start_s: i64, duration_s: i64| {
        judge.generated(&format!("--targets 100 --duration {duration_s}s --start {}", start_s * 1000))
    };
    let history = data(live_start_s - size.history_s, size.history_s)?;
    let live = data(live_start_s, live_s)?;
    let (_process, url) = server.start(folder);
    judge.load(&history, &url, None)?;
    thread::scope(|scope| {
        let loading = scope.spawn(|| judge.load(&live, &url, Some(SAMPLES_A_SECOND)));
        let begun = Instant::now();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let first = begun + Duration::from_secs(1) * number / CLIENTS;
                let (url, size) = (&url, &size);
                scope.spawn(move || ask(url, size, begun, first))
            })
            .collect();
        let mut latencies: Vec<Duration> = Vec::new();
        for client in clients {
            latencies.extend(client.join().map_err(|_| "a client panicked")??);
        }
        latencies.sort_unstable();
        let p99 = latencies.get(latencies.len() * 99 / 100).ok_or("nothing was asked")?;
        let loaded = loading.join().map_err(|_| "the loading panicked")??;
        let rate = loaded.get("samples_per_s").and_then(Value::as_f64).ok_or("no rate")?;
        Ok(Figures { p99_ms: p99.as_secs_f64() * 1000.0, samples_per_s: rate })
    })
}

/// Asks once a second; gives how long each answer took from the moment it was due.
fn ask(url: &str, size: &Size, begun: Instant, first: Instant) -> Result<Vec<Duration>, String> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(60))).build().into();
    let mut latencies = Vec::new();
    for second in 0..size.asked_s {
        let due = first + Duration::from_secs(second as u64);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // The last step whose samples are there: the data comes in faster than time passes.
        let passed_s = begun.elapsed().as_secs_f64() * size.live_s() as f64 / size.asked_s as f64;
        let end_s = (size.live_start_s() + passed_s as i64) / STEP_S * STEP_S;
        let (start, end) = ((end_s - size.history_s).to_string(), end_s.to_string());
        let parameters =
            [("query", QUERY), ("start", &start), ("end", &end), ("step", "60"), ("nocache", "1")];
        let request = agent.get(format!("{url}/api/v1/query_range")).query_pairs(parameters);
        let mut answer = request.call().map_err(|e| format!("a dashboard was not answered: {e}"))?;
        let body = answer.body_mut().with_config().limit(1 << 30).read_to_vec();
        let bytes = body.map_err(|e| format!("an answer broke off: {e}"))?.len() as i64;
        // A hundred series, and some ten bytes a point at least.
        if bytes < 100 * size.history_s / STEP_S * 10 {
            return Err(format!("an answer has only {bytes} bytes"));
        }
        latencies.push(due.elapsed());
    }
    Ok(latencies)
}
