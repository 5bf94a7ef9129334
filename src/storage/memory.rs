//! What the engine does about memory: it tells the budget what the head holds, cuts early, and
//! lets merges take less or wait.

use super::compaction::OVERLAPPING_MAX;
use super::engine::Inner;
use crate::budget::{MERGE_MIN_BYTES, Part, Pressure, Reservation, head_is_large, merge_share};
use std::sync::atomic::Ordering::Relaxed;

/// What a merge may take while this lives.
pub(crate) struct MergeMemory {
    pub bytes: usize,
    _held: Reservation,
}

impl Inner {
    /// Tells the budget what the head holds.
    pub fn note_head(&self) {
        self.options.memory.set(Part::Head, self.head.held_bytes());
    }

    /// Notes what the head holds, gives up buffers where memory is short, and tells whether the samples
    /// of the active generation take so much that they are to be cut.
    pub fn head_fills_memory(&self) -> bool {
        self.note_head();
        let memory = &self.options.memory;
        let pressure = memory.pressure();
        if pressure >= Pressure::ShrinkCaches {
            self.head.shrink();
        }
        head_is_large(memory.limit_bytes(), self.head.active().sample_bytes(), pressure)
    }

    /// Whether there is so little memory that merges wait. They do not when appends would soon have to
    /// wait for them.
    pub fn merges_wait(&self) -> bool {
        let wanted = self.options.merge_memory_bytes as u64;
        let room = self.options.memory.room(Part::Merges, 0);
        self.overlapping.load(Relaxed) <= OVERLAPPING_MAX / 2 && merge_share(wanted, room).is_none()
    }

    /// What a merge takes that does not wait.
    pub fn merge_memory(&self) -> MergeMemory {
        let wanted = self.options.merge_memory_bytes as u64;
        let held = self.options.memory.reservation(Part::Merges);
        let share = merge_share(wanted, held.room()).unwrap_or(wanted.min(MERGE_MIN_BYTES));
        // Where there is none, it takes the least that it can do with all the same.
        let _ = held.grow(share);
        MergeMemory { bytes: share as usize, _held: held }
    }
}
