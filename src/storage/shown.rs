//! From when on samples are shown: the borders of retention, by the clock as far as it is believed.

use super::engine::Inner;
use super::policy::Borders;
use super::retention::Now;
use super::time::TimeRange;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

impl Inner {
    /// The oldest times that are kept.
    pub fn borders(&self, now: Now) -> Borders {
        let believed_ms = self.believed_ms(now);
        let borders = Borders::new(self.retention().policies(), believed_ms);
        let removed_ms = self.removed_before_ms.load(SeqCst);
        if borders.newest_ms() < removed_ms {
            // The clock went back: samples would be shown again that are there no more.
            drop(self.head.touched().range(TimeRange::ALL));
            let _ = self.removed_before_ms.compare_exchange(removed_ms, i64::MIN, SeqCst, Relaxed);
        }
        borders
    }

    /// Says that a merge is about to be shown that leaves out what is before the borders.
    pub fn removes_before(&self, borders: &Borders) {
        self.removed_before_ms.fetch_max(borders.newest_ms(), SeqCst);
    }

    /// The time by which samples expire. Says so if the clock jumped.
    pub fn believed_ms(&self, now: Now) -> i64 {
        let mut retention = self.retention();
        let was_paused = retention.is_paused();
        let believed_ms = retention.believed_ms(now);
        match (was_paused, retention.is_paused()) {
            (false, true) => tracing::warn!(
                now_ms = now.wall_ms,
                believed_ms,
                "the clock jumped by more than a day: nothing expires for a day, unless it comes back"
            ),
            (true, false) => tracing::info!(believed_ms, "the clock is believed again, old samples expire"),
            _ => {}
        }
        believed_ms
    }
}
