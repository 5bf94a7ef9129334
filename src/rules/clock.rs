//! Whether the clock went on as time did.

use std::time::{Duration, Instant};

/// What a clock may be off by between two looks without being told.
const TOLERANCE_MS: i64 = 30_000;
/// How long a jump is told of.
const TOLD: Duration = Duration::from_secs(3600);

/// Compares the clock with a time that nobody sets, and that stands still while the machine sleeps.
#[derive(Debug, Default)]
pub struct ClockWatch {
    last: Option<(Instant, i64)>,
    jumps: u64,
    told: Option<(Instant, i64)>,
}

impl ClockWatch {
    /// By how many milliseconds the clock, which shows `now_ms`, has jumped since the last look.
    pub fn look(&mut self, now: Instant, now_ms: i64) -> Option<i64> {
        let (before, before_ms) = self.last.replace((now, now_ms))?;
        let passed_ms = i64::try_from(now.saturating_duration_since(before).as_millis()).unwrap_or(i64::MAX);
        let jump_ms = now_ms.saturating_sub(before_ms).saturating_sub(passed_ms);
        if jump_ms.saturating_abs() < TOLERANCE_MS {
            return None;
        }
        self.jumps += 1;
        self.told = Some((now, jump_ms));
        Some(jump_ms)
    }

    /// How often it jumped.
    pub fn jumps(&self) -> u64 {
        self.jumps
    }

    /// The last jump as a sentence, for an hour.
    pub fn text(&self, now: Instant) -> Option<String> {
        let (at, jump_ms) = self.told?;
        let since = now.saturating_duration_since(at);
        (since < TOLD).then(|| format!("{}, {} s ago", sentence(jump_ms), since.as_secs()))
    }
}

/// A jump as a sentence.
pub fn sentence(jump_ms: i64) -> String {
    let seconds = jump_ms.unsigned_abs() / 1000;
    match jump_ms > 0 {
        true => format!("the clock jumped forward by {seconds} s: it was set, or the machine slept"),
        false => format!("the clock jumped back by {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_are_told_from_time_that_passes() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let mut clock = ClockWatch::default();
        let day_ms = 86_400_000;
        for (second, now_ms, expected) in [
            (0, 1_000_000, None),
            (1, 1_001_000, None),
            (500, 1_500_500, None),
            (501, 1_501_000 + day_ms, Some(day_ms - 500)),
            (502, 1_502_000 + day_ms, None),
            (503, 1_503_000, Some(-day_ms)),
            (504, 1_504_000, None),
            // An hour of sleep, of which time knows nothing.
            (505, 1_505_000 + 3_600_000, Some(3_600_000)),
        ] {
            assert_eq!(clock.look(at(second), now_ms), expected, "at {second}");
        }
        assert_eq!(clock.jumps(), 3);
        let told = clock.text(at(510)).unwrap();
        assert_eq!(told, "the clock jumped forward by 3600 s: it was set, or the machine slept, 5 s ago");
        assert_eq!(clock.text(at(505 + 3600)), None);
    }
}
