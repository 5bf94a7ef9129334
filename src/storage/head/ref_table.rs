//! A hash table of series refs whose keys lie elsewhere, in columns by ref.

/// No ref.
const EMPTY: u32 = u32::MAX;
/// Refs have so many bits; the others of a slot hold a part of the hash.
const REF_BITS: u32 = 28;
const REF: u32 = (1 << REF_BITS) - 1;

/// Refs are below this.
pub(super) const MAX_REFS: u32 = REF;

/// Open addressing with linear probing; five to six bytes a series. Hashes must be uniform: the
/// high bits decide where a ref stands, the low ones are kept beside it, so that a search in
/// crowded slots mostly looks at no other series' key.
#[derive(Debug, Default)]
pub(super) struct RefTable {
    slots: Vec<u32>,
    len: usize,
}

impl RefTable {
    fn start(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.slots.len() as u128) >> 64) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// What stands in a slot for this ref. A ref of all ones would look like [`EMPTY`].
    fn slot(hash: u64, series: u32) -> u32 {
        debug_assert!(series < MAX_REFS);
        (hash as u32) << REF_BITS | series
    }

    /// The ref for which `is_it` says true among those that may have this hash.
    pub fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let part = RefTable::slot(hash, 0);
        let mut at = self.start(hash);
        loop {
            match self.slots[at] {
                EMPTY => return None,
                slot if slot & !REF == part && is_it(slot & REF) => return Some(slot & REF),
                _ => at = self.after(at),
            }
        }
    }

    /// Adds a ref that is not there. `hash_of` tells the hash of those that are.
    pub fn insert(&mut self, hash: u64, series: u32, hash_of: impl Fn(u32) -> u64) {
        // At most four fifths full, so that a search always meets an empty slot, soon.
        if (self.len + 1) * 5 > self.slots.len() * 4 {
            self.rebuild((self.slots.len() + self.slots.len() / 4).max(16), hash_of);
        }
        self.put(hash, series);
        self.len += 1;
    }

    /// Gives most of the memory back if few slots are in use.
    pub fn shrink_if_sparse(&mut self, hash_of: impl Fn(u32) -> u64) {
        if self.len < self.slots.len() / 4 {
            self.rebuild((self.len + self.len / 2).max(16), hash_of);
        }
    }

    fn rebuild(&mut self, slots: usize, hash_of: impl Fn(u32) -> u64) {
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; slots]);
        for slot in old.into_iter().filter(|&slot| slot != EMPTY) {
            self.put(hash_of(slot & REF), slot & REF);
        }
    }

    fn put(&mut self, hash: u64, series: u32) {
        let mut at = self.start(hash);
        while self.slots[at] != EMPTY {
            at = self.after(at);
        }
        self.slots[at] = RefTable::slot(hash, series);
    }

    /// Removes a ref, if it is there, and moves those up that it had pushed aside.
    pub fn remove(&mut self, hash: u64, series: u32, hash_of: impl Fn(u32) -> u64) {
        if self.slots.is_empty() {
            return;
        }
        let slot = RefTable::slot(hash, series);
        let mut hole = self.start(hash);
        while self.slots[hole] != slot {
            if self.slots[hole] == EMPTY {
                return;
            }
            hole = self.after(hole);
        }
        let mut at = self.after(hole);
        while self.slots[at] != EMPTY {
            let start = self.start(hash_of(self.slots[at] & REF));
            // Whether `start` lies cyclically in (hole, at]: then it must stay behind the hole.
            let stays = if hole < at { hole < start && start <= at } else { hole < start || start <= at };
            if !stays {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
            at = self.after(at);
        }
        self.slots[hole] = EMPTY;
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn what_was_put_and_not_removed_is_found(
            steps in proptest::collection::vec((any::<bool>(), 0u32..60), 0..300), crowding in 0u32..64,
        ) {
            // Few distinct hashes, so that runs of slots collide and wrap.
            let hash_of = |series: u32| {
                let high = (u64::from(series) << (crowding % 58)).reverse_bits();
                high & !1 | u64::from(series & 1)
            };
            let mut table = RefTable::default();
            let mut model = HashSet::new();
            for (put, series) in steps {
                if put && model.insert(series) {
                    table.insert(hash_of(series), series, hash_of);
                } else if !put {
                    model.remove(&series);
                    table.remove(hash_of(series), series, hash_of);
                    table.shrink_if_sparse(hash_of);
                }
                for series in 0..60 {
                    let found = table.find(hash_of(series), |other| other == series);
                    prop_assert_eq!(found.is_some(), model.contains(&series));
                }
            }
        }
    }
}
