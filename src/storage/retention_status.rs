//! What retention has still to do: bytes now and afterwards, and what is dropped next. Pure.

use super::surplus::{self, Surplus};
use super::usage::{FolderUse, Measured};
use larum_storage_format::manifest::LivePartition;
use std::collections::BTreeSet;
use std::time::Duration;

/// What the data folder takes, what it may take, and what is dropped next.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RetentionStatus {
    /// What the folder takes now.
    pub usage: FolderUse,
    /// What it takes once all that is due is dropped.
    pub bytes_after: u64,
    /// What it may take, if there is a limit.
    pub limit_bytes: Option<u64>,
    /// By how much it will still be too much, with nothing left to drop.
    pub excess_bytes: u64,
    /// How long samples are kept; `None` is for ever.
    pub retention: Option<Duration>,
    /// Whether nothing expires at present, because the clock jumped or the data are old.
    pub paused: bool,
    /// What is dropped next because of its age.
    pub next_by_time: Option<NextDrop>,
    /// What is dropped next because of the limit on size.
    pub next_by_size: Option<NextDrop>,
}

/// Partitions that are dropped together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NextDrop {
    /// When, in milliseconds since the epoch, if that is known; in the past: with the next round of
    /// background work, or, for what expires while the clock is not believed, when it is again.
    pub at_ms: Option<i64>,
    /// How many partitions.
    pub partitions: usize,
    /// What they free.
    pub bytes: u64,
    /// Times of their oldest and newest samples, in milliseconds since the epoch.
    pub range_ms: (i64, i64),
}

/// What decides.
pub(crate) struct Situation<'a> {
    pub live: &'a [LivePartition],
    pub measured: &'a Measured,
    /// Of what the folder takes, so much is dropped already and only waits for its removal.
    pub retired_bytes: u64,
    pub limit_bytes: Option<u64>,
    pub retention_ms: Option<i64>,
    pub now_ms: i64,
    pub border_ms: i64,
    pub paused: bool,
}

impl Situation<'_> {
    /// What is too much.
    pub fn surplus(&self) -> Surplus {
        let total = self.measured.usage.total().saturating_sub(self.retired_bytes);
        self.limit_bytes.map_or_else(Surplus::default, |limit| {
            surplus::surplus(self.live, &self.measured.freed, total, limit, None)
        })
    }

    /// What retention has still to do.
    pub fn status(&self) -> RetentionStatus {
        let surplus = self.surplus();
        let expired = self.live.iter().filter(|p| !self.paused && p.max_ms < self.border_ms);
        let expired: BTreeSet<u64> = expired.map(|p| p.number).collect();
        let due: BTreeSet<u64> = expired.union(&surplus.numbers).copied().collect();
        let usage = self.measured.usage;
        let by_size = self.limit_bytes.and_then(|_| match surplus.numbers.is_empty() {
            false => self.drop_of(&surplus.numbers, Some(self.now_ms)),
            true => self.drop_of(&surplus::next(self.live, &self.measured.freed).numbers, None),
        });
        let by_time = self.retention_ms.and_then(|retention_ms| {
            let first = self.live.iter().min_by_key(|p| (p.max_ms, p.number))?;
            // The newest sample is shown as long as it is not older than the border.
            let at_ms = first.max_ms.saturating_add(retention_ms).saturating_add(1);
            let together = if expired.is_empty() { BTreeSet::from([first.number]) } else { expired.clone() };
            self.drop_of(&together, Some(at_ms))
        });
        RetentionStatus {
            bytes_after: usage.total().saturating_sub(self.retired_bytes + self.freed_by(&due)),
            usage,
            limit_bytes: self.limit_bytes,
            excess_bytes: surplus.excess_bytes,
            retention: self.retention_ms.map(|ms| Duration::from_millis(ms.unsigned_abs())),
            paused: self.paused,
            next_by_time: by_time,
            next_by_size: by_size,
        }
    }

    fn freed_by(&self, numbers: &BTreeSet<u64>) -> u64 {
        numbers.iter().filter_map(|number| self.measured.freed.get(number)).sum()
    }

    fn drop_of(&self, numbers: &BTreeSet<u64>, at_ms: Option<i64>) -> Option<NextDrop> {
        let these = || self.live.iter().filter(|p| numbers.contains(&p.number));
        Some(NextDrop {
            at_ms,
            partitions: numbers.len(),
            bytes: self.freed_by(numbers),
            range_ms: (these().map(|p| p.min_ms).min()?, these().map(|p| p.max_ms).max()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u64, min_ms: i64, max_ms: i64) -> LivePartition {
        LivePartition { number, sequence: number, byte_len: 10, min_ms, max_ms, tombstones: None }
    }

    /// Three partitions of 10 bytes each, and 70 bytes of the WAL.
    fn status(
        limit_bytes: Option<u64>,
        retention_ms: Option<i64>,
        now_ms: i64,
        paused: bool,
    ) -> RetentionStatus {
        let live = [part(1, 0, 9), part(2, 10, 19), part(3, 20, 29)];
        let usage = FolderUse { partitions: 30, wal: 70, ..FolderUse::default() };
        let measured = Measured { usage, freed: (1..4).map(|n| (n, 10)).collect() };
        let border_ms = retention_ms.map_or(i64::MIN, |ms| now_ms - ms);
        Situation {
            live: &live,
            measured: &measured,
            retired_bytes: 0,
            limit_bytes,
            retention_ms,
            now_ms,
            border_ms,
            paused,
        }
        .status()
    }

    #[test]
    fn the_next_drop_says_when_and_what_is_left_then() {
        let drop = |at_ms, partitions, range_ms| {
            Some(NextDrop { at_ms, partitions, bytes: 10 * partitions as u64, range_ms })
        };
        for (limit, retention, now, paused, after, excess, by_time, by_size) in [
            (None, None, 40, false, 100, 0, None, None),
            (Some(100), None, 40, false, 100, 0, None, drop(None, 1, (0, 9))),
            (Some(85), None, 40, false, 80, 0, None, drop(Some(40), 2, (0, 19))),
            (Some(60), None, 40, false, 70, 10, None, drop(Some(40), 3, (0, 29))),
            (None, Some(50), 40, false, 100, 0, drop(Some(60), 1, (0, 9)), None),
            (None, Some(50), 75, false, 80, 0, drop(Some(60), 2, (0, 19)), None),
            (None, Some(50), 75, true, 100, 0, drop(Some(60), 1, (0, 9)), None),
            (Some(85), Some(50), 65, false, 80, 0, drop(Some(60), 1, (0, 9)), drop(Some(65), 2, (0, 19))),
        ] {
            let found = status(limit, retention, now, paused);
            let case = format!("{limit:?} {retention:?} at {now}");
            assert_eq!((found.bytes_after, found.excess_bytes), (after, excess), "{case}");
            assert_eq!((found.next_by_time, found.next_by_size), (by_time, by_size), "{case}");
        }
    }
}
