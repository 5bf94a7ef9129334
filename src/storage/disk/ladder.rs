//! What is to be done while the disk fills. Pure decisions.
//!
//! | free space | what is done |
//! | --- | --- |
//! | enough | nothing |
//! | low: less than it shall be | the oldest partitions go, if the user allows that, down to the floor |
//! | less than a cut of the head and another segment of the WAL take | nothing is written any more but what frees space |
//! | next to none | the reserve is given up, so that a MANIFEST and the state of alerts can be written |
//!
//! All of it is taken back when there is space again. Between the rungs up and the rungs down lies
//! some space, so that nothing goes to and fro.

use super::super::options::MinFree;

/// The file that is kept for the last steps takes so much: a MANIFEST of 20,000 partitions (1 MiB) and
/// its tombstones, and what sled writes when it opens (two segments of 512 KiB and a snapshot). Where
/// the file system cannot reserve space the file is empty, and there is none.
pub(crate) const RESERVE_BYTES: u64 = 4 << 20;

/// With less the reserve is given up, and with so much beyond it made again.
const RESERVE_MARGIN: u64 = RESERVE_BYTES / 2;

/// By default so much of the disk shall stay free, in percent, but no more than so many bytes: what
/// the WAL, its cut and the merges of a day take is about the same on large disks.
const MIN_FREE_PERCENT: f64 = 5.0;
const MIN_FREE_BYTES_MAX: u64 = 1 << 30;

/// A merge takes its inputs once more, and so much of them for temporary files.
const MERGE_EXTRA_ONE_IN: u64 = 4;

/// How much space there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum DiskState {
    /// All goes on as it should.
    #[default]
    Enough,
    /// Less than there shall be.
    Low,
    /// So little that samples are refused until there is more.
    ReadOnly,
}

impl DiskState {
    /// All states.
    pub const ALL: [DiskState; 3] = [DiskState::Enough, DiskState::Low, DiskState::ReadOnly];

    /// As metrics and status answers name it.
    pub fn name(self) -> &'static str {
        match self {
            DiskState::Enough => "enough",
            DiskState::Low => "low",
            DiskState::ReadOnly => "read_only",
        }
    }
}

/// How much of a disk of this size shall stay free.
pub(crate) fn min_free_bytes(min_free: Option<MinFree>, capacity_bytes: u64) -> u64 {
    let share = |percent: f64| (capacity_bytes as f64 * percent / 100.0) as u64;
    match min_free {
        Some(MinFree::Bytes(bytes)) => bytes,
        Some(MinFree::Percent(percent)) => share(percent),
        None => share(MIN_FREE_PERCENT).min(MIN_FREE_BYTES_MAX),
    }
}

/// What decides.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Situation {
    pub free_bytes: u64,
    /// What will be free soon: files that were removed just now and that somebody still reads, and what
    /// a merge has taken for itself.
    pub promised_bytes: u64,
    /// So much shall be free.
    pub min_free_bytes: u64,
    /// What a new segment of the WAL takes.
    pub segment_bytes: u64,
    /// What of the WAL is not in partitions yet. Its cut takes no more than that.
    pub uncut_bytes: u64,
    /// Whether the reserve is there.
    pub reserve: bool,
    /// Whether the system said lately that the disk is full.
    pub refused: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Step {
    pub state: DiskState,
    /// Whether the reserve is to be there.
    pub reserve: bool,
    /// So much is to be freed by dropping partitions.
    pub drop_bytes: u64,
}

impl Situation {
    /// With less than this, samples are refused.
    pub fn read_only_below_bytes(&self) -> u64 {
        let missing = if self.reserve { 0 } else { RESERVE_BYTES };
        missing.saturating_add(self.segment_bytes).saturating_add(self.uncut_bytes)
    }

    /// With so much, samples are taken again.
    fn resume_bytes(&self) -> u64 {
        self.read_only_below_bytes().saturating_add(self.segment_bytes)
    }

    /// With less than this, space is low.
    pub fn low_below_bytes(&self) -> u64 {
        self.min_free_bytes.max(self.resume_bytes())
    }

    /// What is to be done, where `before` was the state until now.
    pub fn step(&self, before: DiskState) -> Step {
        let low_below = self.low_below_bytes();
        let enough = low_below.saturating_add(low_below / 16);
        let free = self.free_bytes;
        let is_read_only = self.refused
            || free < self.read_only_below_bytes()
            || (before == DiskState::ReadOnly && free < self.resume_bytes());
        let state = match before {
            _ if is_read_only => DiskState::ReadOnly,
            DiskState::Enough if free >= low_below => DiskState::Enough,
            _ if free >= enough => DiskState::Enough,
            _ => DiskState::Low,
        };
        let drop_bytes = match state {
            DiskState::Enough => 0,
            _ => enough.saturating_sub(free.saturating_add(self.promised_bytes)),
        };
        Step { state, reserve: keeps_reserve(self.reserve, free), drop_bytes }
    }

    /// How much the inputs of a merge may have. What it takes until they are removed must leave room
    /// for the head's cut.
    pub fn merge_bytes_max(&self) -> u64 {
        let spare = self.free_bytes.saturating_sub(self.read_only_below_bytes());
        (u128::from(spare) * u128::from(MERGE_EXTRA_ONE_IN) / u128::from(MERGE_EXTRA_ONE_IN + 1)) as u64
    }
}

/// What a merge of such inputs takes at most until they are removed.
pub(crate) fn merge_takes_bytes(input_bytes: u64) -> u64 {
    input_bytes.saturating_add(input_bytes / MERGE_EXTRA_ONE_IN)
}

/// Whether the reserve is to be there.
pub(crate) fn keeps_reserve(is_there: bool, free_bytes: u64) -> bool {
    if is_there { free_bytes >= RESERVE_MARGIN } else { free_bytes >= RESERVE_BYTES + 2 * RESERVE_MARGIN }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DiskState::{Enough, Low, ReadOnly};
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn each_rung_comes_in_its_turn_and_goes_later_than_it_came() {
        let cases = [
            // What is free and uncut, in MiB; the state before; the state then, and what is dropped.
            ("plenty", 1000, 0, Enough, Enough, 0),
            ("as much as there shall be", 160, 0, Enough, Enough, 0),
            ("a little less", 159, 0, Enough, Low, 11),
            ("between the borders, from below", 165, 0, Low, Low, 5),
            ("between the borders, from above", 165, 0, Enough, Enough, 0),
            ("enough again", 170, 0, Low, Enough, 0),
            ("a long WAL, which wants a cut", 159, 128, Enough, Low, 11),
            ("a WAL that is too long to be cut", 135, 128, Low, ReadOnly, 35),
            ("just enough to cut it", 136, 128, Low, Low, 34),
            ("not enough to begin again", 143, 128, ReadOnly, ReadOnly, 27),
            ("enough to begin again", 144, 128, ReadOnly, Low, 26),
            ("no segment fits", 7, 0, Low, ReadOnly, 163),
            ("nothing is free", 0, 0, Enough, ReadOnly, 170),
            ("from nothing to plenty", 1000, 0, ReadOnly, Enough, 0),
        ];
        for (what, free, uncut, before, state, drop) in cases {
            let situation = Situation {
                free_bytes: free * MIB,
                min_free_bytes: 160 * MIB,
                segment_bytes: 8 * MIB,
                uncut_bytes: uncut * MIB,
                reserve: true,
                ..Situation::default()
            };
            let step = situation.step(before);
            assert_eq!((step.state, step.drop_bytes / MIB), (state, drop), "{what}");
            let refused = Situation { refused: true, ..situation }.step(before);
            assert_eq!(refused.state, ReadOnly, "{what}, but the system refused a write");
            let promised = Situation { promised_bytes: 20 * MIB, ..situation }.step(before);
            assert_eq!(promised.state, state, "what is promised is not there yet");
            assert_eq!(promised.drop_bytes, step.drop_bytes.saturating_sub(20 * MIB), "{what}");
        }
    }

    #[test]
    fn the_reserve_is_given_up_late_and_made_again_when_there_is_room_for_it_and_more() {
        for (is_there, free, keeps) in [
            (true, 1000, true),
            (true, 2, true),
            (true, 1, false),
            (true, 0, false),
            (false, 0, false),
            (false, 7, false),
            (false, 8, true),
        ] {
            assert_eq!(keeps_reserve(is_there, free * MIB), keeps, "{is_there}, {free} MiB");
        }
        // What is missing must be free before samples are taken.
        let missing = Situation { segment_bytes: 8 * MIB, ..Situation::default() };
        assert_eq!(missing.read_only_below_bytes(), 12 * MIB);
    }

    #[test]
    fn a_merge_begins_only_if_all_it_takes_is_free_beside_the_cut() {
        let situation = |free_bytes| Situation {
            free_bytes,
            segment_bytes: 8 * MIB,
            uncut_bytes: 100 * MIB,
            reserve: true,
            ..Situation::default()
        };
        for (free, inputs) in [(0, 0), (108, 0), (113, 4), (1108, 800)] {
            assert_eq!(situation(free * MIB).merge_bytes_max(), inputs * MIB, "{free}");
        }
        assert!(situation(u64::MAX).merge_bytes_max() > 1 << 60);
    }

    #[test]
    fn by_default_a_twentieth_is_to_stay_free_and_no_more_than_a_gibibyte() {
        for (min_free, capacity, expected) in [
            (None, 100 * MIB, 5 * MIB),
            (None, 10_000 * MIB, 500 * MIB),
            (None, 1 << 50, 1 << 30),
            (Some(MinFree::Bytes(7)), 1 << 50, 7),
            (Some(MinFree::Percent(12.5)), 800, 100),
            (Some(MinFree::Percent(0.0)), 800, 0),
        ] {
            assert_eq!(min_free_bytes(min_free, capacity), expected, "{min_free:?} of {capacity}");
        }
    }

    proptest! {
        #[test]
        fn a_state_that_was_reached_is_kept_while_nothing_changes(
            free_bytes: u64, min_free_bytes: u64, segment_bytes: u64, uncut_bytes: u64, reserve: bool,
            before in 0_usize..3,
        ) {
            let situation =
                Situation { free_bytes, min_free_bytes, segment_bytes, uncut_bytes, reserve, ..Situation::default() };
            let step = situation.step(DiskState::ALL[before]);
            prop_assert_eq!(situation.step(step.state), step);
            prop_assert!(keeps_reserve(step.reserve, free_bytes) == step.reserve || !step.reserve);
        }
    }
}
