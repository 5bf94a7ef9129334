//! What an exporter's targets send, made up: series with ten labels each, and their values.

use larum::{Labels, Timestamp};

/// Series of a target.
pub const SERIES_PER_TARGET: usize = 500;

/// The labels of a series.
pub fn labels(n: usize) -> Labels {
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
pub fn value(series: usize, round: i64, random: u64) -> f64 {
    match series % 4 {
        0 => 1.0,
        1 => round as f64,
        2 => (round * 100 + (random % 100) as i64) as f64,
        _ => (random % 100_000) as f64 / 10.0,
    }
}

/// When a series is scraped that has this number, in the round that begins at `round_ms`. The
/// samples of a target share a timestamp; targets are scraped one after another.
pub fn time(series: usize, round_ms: i64) -> Timestamp {
    Timestamp::from_millis(round_ms + (series / SERIES_PER_TARGET) as i64 * 7)
}

/// xorshift64.
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
