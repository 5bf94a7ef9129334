//! What the scrub reads next, and when. Pure functions.

use larum_storage_format::manifest::LivePartition;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// No more is read in a second, however much there is: a round takes longer then than it should.
const BYTES_PER_SECOND_MAX: u64 = 32 << 20;

/// The first pause is not longer, or a process that ends every day would never get to read.
const FIRST_PAUSE_MAX_MS: i64 = 10 * 60 * 1000;

/// Where the scrub stands: in which partition, and behind which of its bytes. All before were read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub partition: u64,
    pub offset: u64,
    /// When the last round was over, in milliseconds since the epoch; 0: none was.
    pub round_ended_ms: i64,
}

/// What is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    pub partition: u64,
    pub offset: u64,
    /// Whether a round begins with it.
    pub begins_round: bool,
}

impl Position {
    /// Partitions, which ascend by number, are read one after the other: the one at hand, or the next,
    /// or the first again. `None` if there is none.
    pub fn next(&self, partitions: &[LivePartition]) -> Option<Next> {
        let at = partitions.partition_point(|p| p.number < self.partition);
        match partitions.get(at) {
            Some(p) if p.number > self.partition => {
                Some(Next { partition: p.number, offset: 0, begins_round: self.partition == 0 })
            }
            // A partition that was read is left behind by `read`.
            Some(p) => Some(Next { partition: p.number, offset: self.offset, begins_round: false }),
            None => {
                let first = partitions.first()?;
                Some(Next { partition: first.number, offset: 0, begins_round: true })
            }
        }
    }

    /// A partition was read up to `offset`; `None`: to its end.
    pub fn read(&mut self, partition: u64, offset: Option<u64>) {
        (self.partition, self.offset) = match offset {
            Some(offset) => (partition, offset),
            None => (partition.saturating_add(1), 0),
        };
    }
}

/// One line: partition, offset, end of the last round.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} {}", self.partition, self.offset, self.round_ended_ms)
    }
}

impl FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Position, ()> {
        let mut words = text.split_ascii_whitespace();
        let mut word = || words.next().ok_or(());
        let position = Position {
            partition: word()?.parse().map_err(drop)?,
            offset: word()?.parse().map_err(drop)?,
            round_ended_ms: word()?.parse().map_err(drop)?,
        };
        if words.next().is_none() { Ok(position) } else { Err(()) }
    }
}

/// In what rhythm slices are read: after so many bytes of all a pause, so that all of it takes the
/// interval.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    last_ms: i64,
    /// Bytes read then; `None` before the first slice.
    bytes: Option<u64>,
}

impl Pace {
    /// Begins now.
    pub fn new(now_ms: i64) -> Pace {
        Pace { last_ms: now_ms, bytes: None }
    }

    /// A slice was read.
    pub fn read(&mut self, now_ms: i64, bytes: u64) {
        (self.last_ms, self.bytes) = (now_ms, Some(bytes));
    }

    /// How long the pause still is, where a slice has `slice_bytes` and everything `total_bytes`; none
    /// is longer than what is left. A clock that is set back makes it begin anew.
    pub fn left(&mut self, now_ms: i64, interval: Duration, slice_bytes: u64, total_bytes: u64) -> Duration {
        self.last_ms = self.last_ms.min(now_ms);
        // Where there is nothing to read, it looks again after the interval.
        let bytes = self.bytes.unwrap_or(slice_bytes).clamp(1, total_bytes.max(1));
        let share = interval.as_millis() * u128::from(bytes) / u128::from(total_bytes.max(1));
        let least = u128::from(bytes) * 1000 / u128::from(BYTES_PER_SECOND_MAX);
        let mut pause_ms = i64::try_from(share.max(least)).unwrap_or(i64::MAX);
        if self.bytes.is_none() {
            pause_ms = pause_ms.min(FIRST_PAUSE_MAX_MS);
        }
        let left_ms = self.last_ms.saturating_add(pause_ms).saturating_sub(now_ms);
        Duration::from_millis(u64::try_from(left_ms).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(numbers: &[u64]) -> Vec<LivePartition> {
        let of = |&number: &u64| LivePartition {
            number,
            sequence: number,
            byte_len: 1000,
            min_ms: 0,
            max_ms: 1,
            tombstones: None,
        };
        numbers.iter().map(of).collect()
    }

    #[test]
    fn every_partition_is_read_in_its_turn() {
        let mut position = Position::default();
        let mut order = Vec::new();
        // What is merged meanwhile is left out, and what comes of it is read in the same round.
        for numbers in [&[3, 5, 9][..], &[3, 5, 9], &[3, 9, 10], &[3, 9, 10], &[3, 10], &[3, 10], &[], &[3]] {
            let Some(next) = position.next(&live(numbers)) else {
                order.push((0, false));
                continue;
            };
            order.push((next.partition, next.begins_round));
            position.read(next.partition, None);
        }
        let expected = [(3, true), (5, false), (9, false), (10, false), (3, true), (10, false)];
        assert_eq!(order[..6], expected);
        assert_eq!(order[6..], [(0, false), (3, true)]);
    }

    #[test]
    fn a_long_partition_is_gone_on_with_unless_it_is_gone() {
        let mut position = Position::default();
        position.read(5, Some(4096));
        let at = |partition, offset, begins_round| Some(Next { partition, offset, begins_round });
        assert_eq!(position.next(&live(&[3, 5, 9])), at(5, 4096, false));
        assert_eq!(position.next(&live(&[3, 9])), at(9, 0, false));
        assert_eq!(position.next(&live(&[3])), at(3, 0, true));
        assert_eq!(position.next(&[]), None);
    }

    #[test]
    fn a_position_comes_back_from_its_line_and_nothing_else_does() {
        let position = Position { partition: 7, offset: 16_384, round_ended_ms: -5 };
        assert_eq!(position.to_string().parse(), Ok(position));
        for other in ["", "7", "7 16384", "7 16384 x", "-7 1 1", "7 1 1 1", "\0\0\0"] {
            assert_eq!(other.parse::<Position>(), Err(()), "{other:?}");
        }
    }

    #[test]
    fn all_of_it_takes_the_interval_unless_it_is_too_much() {
        const DAY_S: u64 = 86_400;
        const MIB: u64 = 1 << 20;
        // total, slice, bytes read before: the pause in ms.
        for (total, read, pause_ms) in [
            (100 * MIB, Some(MIB), DAY_S * 10),
            (1000 * MIB, Some(MIB), DAY_S),
            (1000 * MIB, Some(0), 0),
            // A single small file.
            (5_000, Some(5_000), DAY_S * 1000),
            // It shrank meanwhile.
            (5_000, Some(MIB), DAY_S * 1000),
            // More than can be read in a day.
            (u64::MAX, Some(MIB), 31),
            // Nothing is there.
            (0, Some(0), DAY_S * 1000),
            // The first slice.
            (1000 * MIB, None, DAY_S),
            (5_000, None, 600_000),
        ] {
            let mut pace = Pace::new(1_000_000);
            if let Some(bytes) = read {
                pace.read(1_000_000, bytes);
            }
            let left = |pace: &mut Pace, now_ms| {
                pace.left(now_ms, Duration::from_secs(DAY_S), MIB, total).as_millis() as u64
            };
            assert_eq!(left(&mut pace, 1_000_000), pause_ms, "{total} {read:?}");
            assert_eq!(left(&mut pace, 1_000_010), pause_ms.saturating_sub(10), "{total} {read:?}");
            assert_eq!(left(&mut pace, i64::MAX), 0);
            // The clock goes back: it waits no longer than one pause.
            assert_eq!(left(&mut pace, 0), pause_ms, "{total} {read:?}");
        }
    }
}
