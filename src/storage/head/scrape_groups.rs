//! Which series form a scrape group: the series of one target, which are sampled together.
//!
//! What has a `job` and an `instance` label joins the group of that pair; anything else joins
//! those that were created at the same timestamp just before. Two targets that merely shared a
//! timestamp once would be glued together, and jitter would tear holes into their rows later.

use foldhash::fast::RandomState;
use std::collections::HashMap;

/// The most series a group can have: columns fit nine bits.
pub(super) const MAX_COLUMNS: u16 = 512;

/// The place of a series: a column of a scrape group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Home(u32);

impl Home {
    /// How many groups can be told apart.
    const MAX_GROUPS: u32 = 1 << 23;

    /// The place `column` in `group`.
    pub fn new(group: u32, column: u16) -> Home {
        debug_assert!(group < Home::MAX_GROUPS && column < MAX_COLUMNS);
        Home(group << 9 | u32::from(column))
    }

    /// The number of the group.
    pub fn group(self) -> u32 {
        self.0 >> 9
    }

    /// The column in the group.
    pub fn column(self) -> u16 {
        (self.0 & 0x1ff) as u16
    }
}

/// What a series without a target belongs together with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Together {
    /// Series first seen at this timestamp, in milliseconds since the epoch.
    At(i64),
    /// The series of this group; a new one if there is none.
    With(Option<u32>),
}

/// A scrape target, by the numbers of its `job` and `instance` pairs.
pub(super) type Target = (u32, u32);

#[derive(Debug, Default)]
struct Group {
    /// Columns given away so far.
    width: u16,
    /// Columns given back.
    free: Vec<u16>,
    target: Option<Target>,
}

/// All scrape groups of a head.
#[derive(Debug, Default)]
pub(super) struct ScrapeGroups {
    groups: Vec<Group>,
    /// The groups of a target that have room.
    open: HashMap<Target, Vec<u32>, RandomState>,
    /// Groups of which all columns were given back, to be begun anew.
    vacant: Vec<u32>,
    newest_without_target: Option<(i64, u32)>,
}

impl ScrapeGroups {
    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// A place for a new series; `None` if all groups there can be are full.
    pub fn assign(&mut self, target: Option<Target>, together: Together) -> Option<Home> {
        let candidate = match (target, together) {
            (Some(target), _) => self.open.get(&target).and_then(|open| open.last().copied()),
            (None, Together::At(t)) => {
                self.newest_without_target.filter(|&(newest, _)| newest == t).map(|(_, group)| group)
            }
            (None, Together::With(group)) => group,
        };
        let group = match candidate.filter(|&group| self.has_room(group)) {
            Some(group) => group,
            None => self.start_group(target)?,
        };
        if let (None, Together::At(t)) = (target, together) {
            self.newest_without_target = Some((t, group));
        }
        let entry = &mut self.groups[group as usize];
        let column = entry.free.pop().unwrap_or_else(|| {
            entry.width += 1;
            entry.width - 1
        });
        if let Some(target) = target
            && !self.has_room(group)
            && let Some(open) = self.open.get_mut(&target)
        {
            open.retain(|&other| other != group);
        }
        Some(Home::new(group, column))
    }

    fn has_room(&self, group: u32) -> bool {
        self.groups.get(group as usize).is_some_and(|g| g.width < MAX_COLUMNS || !g.free.is_empty())
    }

    fn start_group(&mut self, target: Option<Target>) -> Option<u32> {
        let group = match self.vacant.pop() {
            Some(group) => group,
            None => {
                let group = u32::try_from(self.groups.len()).ok().filter(|&n| n < Home::MAX_GROUPS)?;
                self.groups.push(Group::default());
                group
            }
        };
        self.groups[group as usize].target = target;
        if let Some(target) = target {
            self.open.entry(target).or_default().push(group);
        }
        Some(group)
    }

    /// Gives back the place of a series that is gone. A group that nobody is left in becomes vacant:
    /// targets come and go, and their groups must not add up.
    pub fn release(&mut self, home: Home) {
        let had_room = self.has_room(home.group());
        let entry = &mut self.groups[home.group() as usize];
        entry.free.push(home.column());
        if entry.free.len() == usize::from(entry.width) {
            let target = std::mem::take(entry).target;
            if let Some(target) = target
                && let Some(open) = self.open.get_mut(&target)
            {
                open.retain(|&other| other != home.group());
                if open.is_empty() {
                    self.open.remove(&target);
                }
            }
            self.newest_without_target.take_if(|(_, group)| *group == home.group());
            self.vacant.push(home.group());
        } else if !had_room && let Some(target) = entry.target {
            self.open.entry(target).or_default().push(home.group());
        }
    }

    /// Forgets the targets that `is_gone`, whose numbers may be given to others.
    pub fn forget_targets(&mut self, is_gone: impl Fn(Target) -> bool) {
        self.open.retain(|&target, _| !is_gone(target));
        for group in &mut self.groups {
            group.target = group.target.filter(|&target| !is_gone(target));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_fills_group_after_group_and_reuses_what_is_given_back() {
        let mut groups = ScrapeGroups::default();
        let mut assign = |target| groups.assign(target, Together::At(0)).unwrap();
        let homes: Vec<Home> = (0..600).map(|_| assign(Some((1, 2)))).collect();
        assert!(homes[..512].iter().all(|home| home.group() == homes[0].group()));
        assert!(homes[512..].iter().all(|home| home.group() == homes[512].group()));
        assert_ne!(homes[0].group(), assign(Some((1, 3))).group());
        groups.release(homes[3]);
        assert_eq!(groups.assign(Some((1, 2)), Together::At(0)), Some(homes[3]));
    }

    #[test]
    fn a_group_that_nobody_is_left_in_is_begun_anew_once() {
        let mut groups = ScrapeGroups::default();
        for round in 0..100u32 {
            let target = (round % 2 == 0).then_some((round, 0));
            let homes = [0; 3].map(|_| groups.assign(target, Together::At(i64::from(round))).unwrap());
            if round % 4 == 0 {
                groups.forget_targets(|gone| Some(gone) == target);
            }
            homes.into_iter().for_each(|home| groups.release(home));
        }
        assert_eq!((groups.len(), groups.open.len()), (1, 0));
        let mut group = |target| groups.assign(target, Together::At(99)).unwrap().group();
        assert_ne!(group(Some((1, 1))), group(None));
    }

    #[test]
    fn without_a_target_the_timestamp_of_creation_decides() {
        let mut groups = ScrapeGroups::default();
        let mut assign = |t| groups.assign(None, Together::At(t)).unwrap().group();
        let first = assign(10);
        assert_eq!(assign(10), first);
        assert_ne!(assign(11), first);
        let with = groups.assign(None, Together::With(Some(first))).unwrap();
        assert_eq!(with.group(), first);
    }
}
