//! Which partitions are merged. Pure decisions over what the MANIFEST knows.
//!
//! 1. Windows have levels: two hours, a day, and up to a tenth of the retention (at most 31 days).
//!    Where series are kept for different times, a window waits until those have expired that are kept
//!    for less than ten times its length: the merge then drops them, and nothing is written again only
//!    because they expire.
//! 2. Within a window the four newest partitions of like size become one. Sizes grow by tiers, so
//!    that a burst of cuts costs a logarithm of merges and leaves few partitions to read.
//! 3. When a window of a higher level is over and its last part was cut, its partitions become one.
//!    What comes late waits, merged by tiers, until it is worth writing the window again.
//! 4. A merge takes every partition that overlaps it in time and stands between its inputs by
//!    sequence, and its outputs have the highest of their sequences; so which value wins never
//!    changes.
//! 5. Where the size of the data folder is limited, wide windows are merged up to a tenth of that
//!    only: what is dropped when the folder is full should not be half of what there is.
//! 6. A merge that would write too long a file is left out where its inputs do not overlap: they
//!    stay on their level. Where they do, it writes several files, split by time.

use super::cut::{DAY_MS, HOUR_MS, WIDEST_MS, WINDOW_MS, aligned};
use larum_storage_format::manifest::LivePartition;
use std::collections::BTreeMap;
use std::ops::Range;

/// So many partitions of like size in one window are merged.
const FAN_IN: usize = 4;

/// A window of a higher level is merged so long after its end.
const GRACE_MS: i64 = 2 * HOUR_MS + HOUR_MS / 2;

/// Of the retention, so much may a window take: as long may a sample stay on disk after its time.
const RETENTION_SHARE: i64 = 10;

/// Of the limit on the size of the folder, so much may be merged from several windows into one.
const SIZE_SHARE: u64 = 10;

/// Of what is merged into one file; so it stays below 8 GiB.
pub(crate) const FILE_BYTES_MAX: u64 = 8 << 30;

/// Where a merge writes several files, they are longer than this on average.
const SPLIT_BYTES: u64 = FILE_BYTES_MAX / 8;

/// Over this many partitions in one window, appends are refused until merges catch up.
pub(crate) const OVERLAPPING_MAX: usize = 32;

/// A merge to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Merge {
    /// The numbers of the inputs, by rising sequence.
    pub inputs: Vec<u64>,
    /// The window of the outputs together.
    pub window_ms: Range<i64>,
    /// Into how many equal parts of the window the outputs are split.
    pub outputs: u32,
}

/// The lengths of the windows that are merged, rising: each a multiple of the one before, or a
/// number of days.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Levels {
    lengths_ms: Vec<i64>,
    /// Of each, how long after its end a window is merged.
    waits_ms: Vec<i64>,
    /// Several windows are merged into a wider one up to so much.
    wide_bytes_max: u64,
}

impl Levels {
    /// The levels where series are kept so long; `None` is for ever.
    pub fn new(keeps_ms: impl IntoIterator<Item = Option<i64>>) -> Levels {
        let keeps_ms: Vec<i64> = keeps_ms.into_iter().map(|keep_ms| keep_ms.unwrap_or(i64::MAX)).collect();
        let widest_ms =
            |keep_ms: Option<i64>| keep_ms.map_or(WIDEST_MS, |ms| (ms / RETENTION_SHARE).min(WIDEST_MS));
        let (shortest_ms, longest_ms) =
            (widest_ms(keeps_ms.iter().copied().min()), widest_ms(keeps_ms.iter().copied().max()));
        let hours = |most_ms: i64| {
            [24, 12, 8, 6, 4].map(|hours| hours * HOUR_MS).into_iter().find(|&ms| ms <= most_ms)
        };
        let days = Some(longest_ms / DAY_MS).filter(|&days| days > 1).map(|days| days * DAY_MS);
        let mut lengths_ms = vec![WINDOW_MS];
        lengths_ms.extend(hours(shortest_ms));
        // Shorter than a day, those of several times do not fit into each other.
        lengths_ms.extend(hours(longest_ms).filter(|&ms| ms == DAY_MS || shortest_ms < 4 * HOUR_MS));
        lengths_ms.extend(days);
        lengths_ms.dedup();
        let wait_ms = |&len_ms: &i64| {
            let shorter = keeps_ms.iter().filter(|&&keep_ms| keep_ms / RETENTION_SHARE < len_ms);
            shorter.max().map_or(GRACE_MS, |&keep_ms| keep_ms.max(GRACE_MS))
        };
        let waits_ms = lengths_ms.iter().map(wait_ms).collect();
        Levels { lengths_ms, waits_ms, wide_bytes_max: u64::MAX }
    }

    /// The same in a folder that may take so much.
    pub fn within(&self, limit_bytes: Option<u64>) -> Levels {
        let wide_bytes_max = limit_bytes.map_or(u64::MAX, |bytes| bytes / SIZE_SHARE);
        Levels { wide_bytes_max, ..self.clone() }
    }

    /// The same where several windows must not have more than so much.
    pub fn up_to(&self, bytes: u64) -> Levels {
        Levels { wide_bytes_max: self.wide_bytes_max.min(bytes), ..self.clone() }
    }

    /// The next merge that is worth doing in the background.
    pub fn plan(&self, live: &[LivePartition], now_ms: i64) -> Option<Merge> {
        let fresh = self.by_own_window(live).into_iter();
        let fresh = fresh.map(|(window, group)| (window, fitting(newest_alike(group))));
        let higher = self.lengths_ms.iter().zip(&self.waits_ms).skip(1);
        let over = higher
            .flat_map(|(&len_ms, &wait_ms)| {
                by_window(live, len_ms).into_iter().map(move |group| (wait_ms, group))
            })
            .filter_map(|(wait_ms, (window, group))| {
                let over = window.end.saturating_add(wait_ms) <= now_ms;
                let total = bytes_of(&group);
                let largest = group.iter().map(|p| p.byte_len).max().unwrap_or(0);
                let whole = group.len() > 1 && largest <= total / 2 && total <= FILE_BYTES_MAX;
                let group = if whole { group } else { newest_alike(group) };
                (over && bytes_of(&group) <= self.wide_bytes_max).then_some((window, group))
            });
        let worth = fresh.chain(over).filter(|(_, group)| group.len() > 1);
        worth.filter_map(|(window, group)| self.closed(live, group, window)).next()
    }

    /// The next merge when everything is to be merged and deletions are to be applied: any two
    /// partitions in a window are enough, the window need not be over, and a partition with
    /// tombstones is written anew.
    pub fn plan_all(&self, live: &[LivePartition], _now_ms: i64) -> Option<Merge> {
        let wide = self.lengths_ms.iter().rev().flat_map(|&len_ms| by_window(live, len_ms));
        let wide = wide.filter(|(_, group)| bytes_of(group) <= self.wide_bytes_max);
        let several = wide.chain(self.by_own_window(live)).filter(|(_, group)| group.len() > 1);
        let merge = several.filter_map(|(window, group)| self.closed(live, group, window)).next();
        merge.or_else(|| {
            let mut deleted_from = live.iter().filter(|p| p.tombstones.is_some());
            deleted_from.find_map(|p| self.rewrite(live, p.number))
        })
    }

    /// Writes one partition anew, without what was deleted from it or cannot be read. `None` if it is
    /// not live.
    pub fn rewrite(&self, live: &[LivePartition], number: u64) -> Option<Merge> {
        let p = live.iter().find(|p| p.number == number)?;
        self.closed(live, vec![p], self.own_window(p))
    }

    /// How many partitions the fullest window has, of those that fit no shorter window and can still
    /// become fewer: what was split, since it was too much for one file, does not count.
    pub fn most_overlapping(&self, live: &[LivePartition]) -> usize {
        let mergeable =
            |group: &Vec<&LivePartition>| group.iter().filter(|p| p.byte_len < SPLIT_BYTES).count();
        self.by_own_window(live).values().map(mergeable).max().unwrap_or(0)
    }

    /// The partitions by the shortest windows that hold them.
    fn by_own_window<'a>(&self, live: &'a [LivePartition]) -> BTreeMap<Window, Vec<&'a LivePartition>> {
        let mut groups: BTreeMap<Window, Vec<&LivePartition>> = BTreeMap::new();
        live.iter().for_each(|p| groups.entry(self.own_window(p)).or_default().push(p));
        groups
    }

    /// The shortest window that holds the partition. A day is one even where the retention is so
    /// short that it is not merged into: old samples are cut by the day.
    fn own_window(&self, p: &LivePartition) -> Window {
        let fits = |&len_ms: &i64| Some(aligned(p.min_ms, len_ms)).filter(|window| p.max_ms < window.end);
        let lengths = self.lengths_ms.iter().take_while(|&&len_ms| len_ms <= DAY_MS);
        let mut lengths = lengths.chain([&DAY_MS]).chain(&self.lengths_ms);
        lengths.find_map(fits).unwrap_or(p.min_ms..p.max_ms.saturating_add(1)).into()
    }

    /// Adds the partitions that overlap the group and stand between its members. `None` if they are
    /// too much for one file and do not overlap, so that they may stay as they are.
    fn closed<'a>(
        &self,
        live: &'a [LivePartition],
        mut group: Vec<&'a LivePartition>,
        mut window: Window,
    ) -> Option<Merge> {
        loop {
            let low = group.iter().map(|p| p.sequence).min()?;
            let high = group.iter().map(|p| p.sequence).max()?;
            let min_ms = group.iter().map(|p| p.min_ms).min()?;
            let max_ms = group.iter().map(|p| p.max_ms).max()?;
            let between = live.iter().find(|p| {
                (low..=high).contains(&p.sequence)
                    && p.min_ms <= max_ms
                    && min_ms <= p.max_ms
                    && group.iter().all(|member| member.number != p.number)
            });
            let Some(p) = between else { break };
            let around = self.own_window(p);
            window = Window { start: window.start.min(around.start), end: window.end.max(around.end) };
            group.push(p);
        }
        let total = bytes_of(&group);
        let mut outputs = 1;
        if total > FILE_BYTES_MAX {
            if group.len() > 1 && !overlap(&group) {
                return None;
            }
            // Half as long as they may be, since times are not filled evenly.
            outputs = total.div_ceil(FILE_BYTES_MAX / 2).next_power_of_two().min(1 << 16) as u32;
        }
        group.sort_by_key(|p| (p.sequence, p.number));
        let inputs = group.iter().map(|p| p.number).collect();
        Some(Merge { inputs, window_ms: window.start..window.end, outputs })
    }
}

/// Of the partitions of a window the newest, as far back as they are of like size; none if those
/// are too few to be merged.
fn newest_alike(mut group: Vec<&LivePartition>) -> Vec<&LivePartition> {
    group.sort_by_key(|p| std::cmp::Reverse((p.sequence, p.number)));
    let mut taken_bytes = 0;
    let alike = group.iter().enumerate().take_while(|(i, p)| {
        // The first few may differ a little; one that outweighs all taken so far ends the row.
        let few = *i < FAN_IN - 1 && p.byte_len <= taken_bytes * 4;
        let fits = *i == 0 || few || p.byte_len <= taken_bytes;
        taken_bytes += p.byte_len;
        fits
    });
    let count = alike.count();
    group.truncate(if count >= FAN_IN { count } else { 0 });
    group
}

/// Of partitions that are too much for one file and do not overlap, the first that fit; none if those
/// are too few to be merged. The others come later.
fn fitting(mut group: Vec<&LivePartition>) -> Vec<&LivePartition> {
    if bytes_of(&group) > FILE_BYTES_MAX && !overlap(&group) {
        let sums = group.iter().scan(0, |sum: &mut u64, p| {
            *sum += p.byte_len;
            Some(*sum)
        });
        let count = sums.take_while(|&sum| sum <= FILE_BYTES_MAX).count();
        group.truncate(if count >= FAN_IN { count } else { 0 });
    }
    group
}

/// Divides a window into equal parts.
pub(crate) fn parts(window_ms: &Range<i64>, count: u32) -> impl Iterator<Item = Range<i64>> + use<> {
    let (start, span) = (window_ms.start, i128::from(window_ms.end) - i128::from(window_ms.start));
    let border = move |part: u32| (i128::from(start) + span * i128::from(part) / i128::from(count)) as i64;
    (0..count).map(move |part| border(part)..border(part + 1))
}

fn bytes_of(group: &[&LivePartition]) -> u64 {
    group.iter().map(|p| p.byte_len).sum()
}

/// Whether any two partitions have times in common.
fn overlap(group: &[&LivePartition]) -> bool {
    let mut ranges: Vec<(i64, i64)> = group.iter().map(|p| (p.min_ms, p.max_ms)).collect();
    ranges.sort_unstable();
    ranges.windows(2).any(|pair| pair[1].0 <= pair[0].1)
}

/// The partitions that lie within one window of this length each.
fn by_window(live: &[LivePartition], len_ms: i64) -> BTreeMap<Window, Vec<&LivePartition>> {
    let mut groups: BTreeMap<Window, Vec<&LivePartition>> = BTreeMap::new();
    for p in live {
        let window = aligned(p.min_ms, len_ms);
        if p.max_ms < window.end {
            groups.entry(window.into()).or_default().push(p);
        }
    }
    groups
}

/// A range of time that sorts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Window {
    start: i64,
    end: i64,
}

impl From<Range<i64>> for Window {
    fn from(range: Range<i64>) -> Window {
        Window { start: range.start, end: range.end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A partition whose number is its sequence.
    fn part(number: u64, byte_len: u64, range_ms: Range<i64>) -> LivePartition {
        LivePartition {
            number,
            sequence: number,
            byte_len,
            min_ms: range_ms.start,
            max_ms: range_ms.end - 1,
            tombstones: None,
        }
    }

    const DAY: i64 = 100 * DAY_MS;

    fn window(k: i64) -> Range<i64> {
        DAY + k * WINDOW_MS..DAY + (k + 1) * WINDOW_MS
    }

    #[test]
    fn four_of_like_size_in_one_window_merge_at_once() {
        let levels = Levels::new([None]);
        let now = DAY + 4 * HOUR_MS;
        let mut live = vec![part(1, 10, window(0)), part(2, 12, window(0)), part(3, 9, window(0))];
        assert_eq!(levels.plan(&live, now), None);
        live.push(part(4, 10, window(1)));
        assert_eq!(levels.plan(&live, now), None);
        live.push(part(5, 10, window(0)));
        let merge = Merge { inputs: vec![1, 2, 3, 5], window_ms: window(0), outputs: 1 };
        assert_eq!(levels.plan(&live, now), Some(merge));
    }

    #[test]
    fn a_big_partition_is_not_written_again_for_three_small_ones() {
        let levels = Levels::new([None]);
        let now = DAY + HOUR_MS;
        let mut live = vec![part(1, 1000, window(0))];
        live.extend((2..5).map(|n| part(n, 10, window(0))));
        assert_eq!(levels.plan(&live, now), None);
        live.push(part(5, 10, window(0)));
        assert_eq!(levels.plan(&live, now).map(|merge| merge.inputs), Some(vec![2, 3, 4, 5]));
    }

    #[test]
    fn a_day_is_merged_when_its_last_window_was_cut() {
        let levels = Levels::new([None]);
        let live: Vec<_> = (0..3).map(|k| part(k as u64 + 1, 10, window(k))).collect();
        let end = DAY + DAY_MS;
        assert_eq!(levels.plan(&live, end + HOUR_MS), None);
        let merge = Merge { inputs: vec![1, 2, 3], window_ms: DAY..end, outputs: 1 };
        assert_eq!(levels.plan(&live, end + GRACE_MS), Some(merge));
        let late = [part(1, 1000, DAY..end), part(2, 10, window(3))];
        assert_eq!(levels.plan(&late, end + GRACE_MS), None, "one late partition can wait");
    }

    #[test]
    fn what_stands_between_the_inputs_and_overlaps_them_is_merged_too() {
        let levels = Levels::new([None]);
        let mut live: Vec<_> = [1, 2, 4, 5].map(|n| part(n, 10, window(0))).into();
        live.insert(2, part(3, 10, DAY..DAY + DAY_MS));
        live.push(part(6, 10, window(1)));
        let merge = levels.plan(&live, DAY + HOUR_MS).unwrap();
        assert_eq!(merge, Merge { inputs: vec![1, 2, 3, 4, 5], window_ms: DAY..DAY + DAY_MS, outputs: 1 });
    }

    #[test]
    fn merging_all_ends_with_nothing_left_to_merge_and_no_tombstones() {
        let levels = Levels::new([None]);
        let mut live = vec![part(1, 10, window(0)), part(2, 10, window(0)), part(3, 10, window(1))];
        live[2].tombstones = Some(1);
        let all = levels.plan_all(&live, DAY).unwrap();
        let widest = aligned(DAY, WIDEST_MS);
        assert_eq!(all, Merge { inputs: vec![1, 2, 3], window_ms: widest, outputs: 1 });
        assert_eq!(levels.plan_all(&live[2..], DAY).map(|merge| merge.inputs), Some(vec![3]));
        live[2].tombstones = None;
        assert_eq!(levels.plan_all(&live[2..], DAY), None);
    }

    #[test]
    fn a_backlog_that_is_too_much_for_one_file_is_merged_piece_by_piece() {
        let levels = Levels::new([None]);
        let mut live: Vec<_> = (0..40)
            .map(|k| part(k as u64 + 1, 256 << 20, DAY + k * 180_000..DAY + (k + 1) * 180_000))
            .collect();
        assert_eq!(levels.most_overlapping(&live), 40);
        while let Some(merge) = levels.plan(&live, DAY) {
            let inputs: Vec<_> = live.extract_if(.., |p| merge.inputs.contains(&p.number)).collect();
            let bytes: u64 = inputs.iter().map(|p| p.byte_len).sum();
            assert!(merge.outputs == 1 && bytes <= FILE_BYTES_MAX && inputs.len() >= FAN_IN, "{merge:?}");
            let range_ms = inputs.iter().map(|p| p.min_ms).min().unwrap()
                ..inputs.iter().map(|p| p.max_ms).max().unwrap() + 1;
            live.push(part(inputs.iter().map(|p| p.number).max().unwrap(), bytes, range_ms));
        }
        assert!(levels.most_overlapping(&live) < 16, "{}", levels.most_overlapping(&live));
    }

    #[test]
    fn windows_grow_to_a_tenth_of_the_retention() {
        let days = |n: i64| Some(n * DAY_MS);
        for (retention_ms, hours) in [
            (None, vec![2, 24, 31 * 24]),
            (days(3650), vec![2, 24, 31 * 24]),
            (days(100), vec![2, 24, 240]),
            (days(15), vec![2, 24]),
            (days(5), vec![2, 12]),
            (days(1), vec![2]),
            (Some(1), vec![2]),
        ] {
            let levels: Vec<i64> = hours.iter().map(|hours| hours * HOUR_MS).collect();
            assert_eq!(Levels::new([retention_ms]).lengths_ms, levels, "{retention_ms:?}");
        }
    }

    #[test]
    fn a_window_waits_for_the_end_of_what_is_kept_for_less_than_ten_of_it() {
        let days = |n: i64| Some(n * DAY_MS);
        for (keeps_ms, levels) in [
            (vec![days(15)], vec![(2, 0), (24, 0)]),
            (vec![days(3), days(365)], vec![(2, 0), (6, 0), (24, 72), (31 * 24, 72)]),
            (vec![days(365), days(3), days(30)], vec![(2, 0), (6, 0), (24, 72), (31 * 24, 30 * 24)]),
            (vec![None, days(15)], vec![(2, 0), (24, 0), (31 * 24, 15 * 24)]),
            (vec![days(1), days(15)], vec![(2, 0), (24, 24)]),
            (vec![days(3), days(5)], vec![(2, 0), (6, 0)]),
        ] {
            let found = Levels::new(keeps_ms.clone());
            let waits = found.waits_ms.iter().map(|&ms| if ms == GRACE_MS { 0 } else { ms / HOUR_MS });
            let hours = found.lengths_ms.iter().map(|ms| ms / HOUR_MS);
            // A window of two hours is never waited for.
            let found: Vec<(i64, i64)> =
                hours.zip(waits).map(|(len, wait)| (len, if len == 2 { 0 } else { wait })).collect();
            assert_eq!(found, levels, "{keeps_ms:?}");
        }
        let levels = Levels::new([days(3), None]);
        let live: Vec<_> = (0..3).map(|k| part(k as u64 + 1, 10, window(4 * k))).collect();
        let end = DAY + DAY_MS;
        assert_eq!(levels.plan(&live, end + 3 * DAY_MS - 1), None);
        let merge = Merge { inputs: vec![1, 2, 3], window_ms: DAY..end, outputs: 1 };
        assert_eq!(levels.plan(&live, end + 3 * DAY_MS), Some(merge));
    }

    #[test]
    fn days_become_a_wide_partition_when_their_window_is_over() {
        let levels = Levels::new([Some(40 * DAY_MS)]);
        let start = aligned(DAY, 4 * DAY_MS).start;
        let day = |k: i64| start + k * DAY_MS..start + (k + 1) * DAY_MS;
        let mut live: Vec<_> = (0..4).map(|k| part(k as u64 + 1, 100, day(k))).collect();
        let end = start + 4 * DAY_MS;
        assert_eq!(levels.plan(&live, end + HOUR_MS), None);
        let merge = Merge { inputs: vec![1, 2, 3, 4], window_ms: start..end, outputs: 1 };
        assert_eq!(levels.plan(&live, end + GRACE_MS), Some(merge));
        // What comes late is merged by itself, not with the wide partition.
        live = vec![part(4, 400, start..end)];
        live.extend((5..9).map(|n| part(n, 1, day(n as i64 - 5))));
        assert_eq!(levels.plan(&live, end + GRACE_MS).map(|merge| merge.inputs), Some(vec![5, 6, 7, 8]));
    }

    #[test]
    fn windows_stay_narrow_where_the_folder_may_not_take_ten_times_as_much() {
        let live: Vec<_> = (0..12).map(|k| part(k as u64 + 1, 10, window(k))).collect();
        let now = DAY + DAY_MS + GRACE_MS;
        for (limit_bytes, inputs) in [(None, 12), (Some(1200), 12), (Some(1199), 0)] {
            let levels = Levels::new([None]).within(limit_bytes);
            let found = |merge: Option<Merge>| merge.map_or(0, |merge| merge.inputs.len());
            assert_eq!(found(levels.plan(&live, now)), inputs, "{limit_bytes:?}");
            assert_eq!(found(levels.plan_all(&live, now)), inputs, "{limit_bytes:?}");
        }
        // What lies in one narrow window is merged however little the folder may take.
        let together: Vec<_> = (1..5).map(|n| part(n, 10, window(0))).collect();
        let merge = Levels::new([None]).within(Some(20)).plan(&together, now);
        assert_eq!(merge.map(|merge| merge.inputs), Some(vec![1, 2, 3, 4]));
    }

    #[test]
    fn too_much_for_one_file_stays_apart_or_is_split_where_it_overlaps() {
        let levels = Levels::new([None]);
        let now = DAY + DAY_MS + GRACE_MS;
        let apart: Vec<_> = (0..12).map(|k| part(k as u64 + 1, 1 << 30, window(k))).collect();
        assert_eq!(levels.plan(&apart, now), None);
        assert_eq!(levels.plan_all(&apart, now), None);
        let overlapping: Vec<_> = (1..5).map(|n| part(n, 3 << 30, window(0))).collect();
        let split = Merge { inputs: vec![1, 2, 3, 4], window_ms: window(0), outputs: 4 };
        assert_eq!(levels.plan(&overlapping, DAY), Some(split));
    }

    proptest! {
        #[test]
        fn merges_end_and_bursts_of_cuts_leave_few_partitions(
            cuts in proptest::collection::vec((0..3i64, 0..40i64, 1..20u64), 1..200),
            unit in prop_oneof![Just(1), Just(100 << 20), Just(300 << 20)],
            hours in 0..100i64,
            all in any::<bool>(),
        ) {
            let levels = Levels::new([None]);
            let mut live: Vec<LivePartition> = Vec::new();
            let mut next = 1;
            for (sequence, (k, day, len)) in (1..).zip(cuts) {
                let day = if day < 35 { 0 } else { day * DAY_MS };
                let range = window(k).start + day..window(k).end + day;
                live.push(LivePartition { sequence, ..part(next, len * unit, range) });
                next += 1;
                let mut merges = 0;
                let plan = if all { Levels::plan_all } else { Levels::plan };
                while let Some(merge) = plan(&levels, &live, DAY + hours * HOUR_MS) {
                    merges += 1;
                    prop_assert!(merges < 20, "{live:?}");
                    let (inputs, rest): (Vec<_>, Vec<_>) =
                        live.into_iter().partition(|p| merge.inputs.contains(&p.number));
                    prop_assert!(inputs.len() > 1);
                    live = rest;
                    let sequence = inputs.iter().map(|p| p.sequence).max().unwrap();
                    let byte_len = inputs.iter().map(|p| p.byte_len).sum::<u64>() / u64::from(merge.outputs);
                    for output in parts(&merge.window_ms, merge.outputs) {
                        let times = inputs.iter().map(|p| p.min_ms.max(output.start)..(p.max_ms + 1).min(output.end));
                        let times: Vec<_> = times.filter(|times| !times.is_empty()).collect();
                        let Some(min_ms) = times.iter().map(|times| times.start).min() else { continue };
                        let end = times.iter().map(|times| times.end).max().unwrap();
                        live.push(LivePartition { sequence, ..part(next, byte_len, min_ms..end) });
                        next += 1;
                    }
                }
                prop_assert!(levels.most_overlapping(&live) < OVERLAPPING_MAX, "{live:?}");
            }
        }
    }
}
