//! Which partitions are merged. Pure decisions over what the MANIFEST knows.
//!
//! 1. Within a window (two hours, or a day that was cut as one) the four newest partitions of like
//!    size become one. Sizes grow by tiers, so that a burst of cuts costs a logarithm of merges and
//!    leaves few partitions to read.
//! 2. When a day is over and its last window was cut, its partitions become one. What comes late
//!    waits until it is worth writing the day again.
//! 3. A merge takes every partition that overlaps it in time and stands between its inputs by
//!    sequence, and its output has the highest of their sequences; so which value wins never
//!    changes.

use super::cut::{DAY_MS, HOUR_MS, WINDOW_MS, aligned};
use larum_storage_format::manifest::LivePartition;
use std::collections::BTreeMap;
use std::ops::Range;

/// So many partitions of like size in one window are merged.
const FAN_IN: usize = 4;

/// A day is merged so long after its end.
const DAY_GRACE_MS: i64 = 2 * HOUR_MS + HOUR_MS / 2;

/// A merge with more input than this is not begun: files stay below 8 GiB.
const INPUT_BYTES_MAX: u64 = 8 << 30;

/// Over this many partitions in one window, appends are refused until merges catch up.
pub(crate) const OVERLAPPING_MAX: usize = 32;

/// A merge to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Merge {
    /// The numbers of the inputs, by rising sequence.
    pub inputs: Vec<u64>,
    /// The window of the output.
    pub window_ms: Range<i64>,
}

/// The next merge that is worth doing in the background.
pub(crate) fn plan(live: &[LivePartition], now_ms: i64) -> Option<Merge> {
    let days = by_window(live, DAY_MS).into_iter().filter(|(day, group)| {
        let over = day.end.saturating_add(DAY_GRACE_MS) <= now_ms;
        let total: u64 = group.iter().map(|p| p.byte_len).sum();
        let largest = group.iter().map(|p| p.byte_len).max().unwrap_or(0);
        over && group.len() > 1 && (group.len() >= FAN_IN || largest <= total / 2)
    });
    let fresh = by_window(live, WINDOW_MS).into_iter().filter_map(|(window, mut group)| {
        group.sort_by_key(|p| std::cmp::Reverse((p.sequence, p.number)));
        let mut taken_bytes = 0;
        let like = group.iter().enumerate().take_while(|(i, p)| {
            // The first few may differ a little; one that outweighs all taken so far ends the row.
            let few = *i < FAN_IN - 1 && p.byte_len <= taken_bytes * 4;
            let fits = *i == 0 || few || p.byte_len <= taken_bytes;
            taken_bytes += p.byte_len;
            fits
        });
        let count = like.count();
        group.truncate(count);
        (count >= FAN_IN).then_some((window, group))
    });
    fresh.chain(days).find_map(|(window, group)| closed(live, group, window))
}

/// The next merge when everything is to be merged and deletions are to be applied: as [`plan`], but
/// any two partitions in a window are enough, a day need not be over, and a partition with
/// tombstones is written anew.
pub(crate) fn plan_all(live: &[LivePartition], _now_ms: i64) -> Option<Merge> {
    let days = by_window(live, DAY_MS).into_iter();
    let windows = days.chain(by_window(live, WINDOW_MS));
    let merge =
        windows.filter(|(_, group)| group.len() > 1).find_map(|(window, group)| closed(live, group, window));
    merge.or_else(|| {
        let mut deleted_from = live.iter().filter(|p| p.tombstones.is_some());
        deleted_from.find_map(|p| closed(live, vec![p], window_around(p)))
    })
}

/// How many partitions the fullest window of two hours has.
pub(crate) fn most_overlapping(live: &[LivePartition]) -> usize {
    by_window(live, WINDOW_MS).values().map(Vec::len).max().unwrap_or(0)
}

/// The partitions that lie within one window of this length each.
fn by_window(live: &[LivePartition], len_ms: i64) -> BTreeMap<Window, Vec<&LivePartition>> {
    let mut groups: BTreeMap<Window, Vec<&LivePartition>> = BTreeMap::new();
    for p in live {
        let window = aligned(p.min_ms, len_ms);
        if p.max_ms < window.end {
            groups.entry(Window { start: window.start, end: window.end }).or_default().push(p);
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

fn window_around(p: &LivePartition) -> Window {
    let fits = |len_ms| Some(aligned(p.min_ms, len_ms)).filter(|window| p.max_ms < window.end);
    let window = fits(WINDOW_MS).or(fits(DAY_MS)).unwrap_or(p.min_ms..p.max_ms.saturating_add(1));
    Window { start: window.start, end: window.end }
}

/// Adds the partitions that overlap the group and stand between its members; `None` if that is more
/// than one merge should read.
fn closed<'a>(
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
        let around = window_around(p);
        window = Window { start: window.start.min(around.start), end: window.end.max(around.end) };
        group.push(p);
    }
    if group.iter().map(|p| p.byte_len).sum::<u64>() > INPUT_BYTES_MAX {
        return None;
    }
    group.sort_by_key(|p| (p.sequence, p.number));
    Some(Merge { inputs: group.iter().map(|p| p.number).collect(), window_ms: window.start..window.end })
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
        let now = DAY + 4 * HOUR_MS;
        let mut live = vec![part(1, 10, window(0)), part(2, 12, window(0)), part(3, 9, window(0))];
        assert_eq!(plan(&live, now), None);
        live.push(part(4, 10, window(1)));
        assert_eq!(plan(&live, now), None);
        live.push(part(5, 10, window(0)));
        let merge = Merge { inputs: vec![1, 2, 3, 5], window_ms: window(0) };
        assert_eq!(plan(&live, now), Some(merge));
    }

    #[test]
    fn a_big_partition_is_not_written_again_for_three_small_ones() {
        let now = DAY + HOUR_MS;
        let mut live = vec![part(1, 1000, window(0))];
        live.extend((2..5).map(|n| part(n, 10, window(0))));
        assert_eq!(plan(&live, now), None);
        live.push(part(5, 10, window(0)));
        assert_eq!(plan(&live, now).map(|merge| merge.inputs), Some(vec![2, 3, 4, 5]));
    }

    #[test]
    fn a_day_is_merged_when_its_last_window_was_cut() {
        let live: Vec<_> = (0..3).map(|k| part(k as u64 + 1, 10, window(k))).collect();
        let end = DAY + DAY_MS;
        assert_eq!(plan(&live, end + HOUR_MS), None);
        let merge = Merge { inputs: vec![1, 2, 3], window_ms: DAY..end };
        assert_eq!(plan(&live, end + DAY_GRACE_MS), Some(merge));
        let late = [part(1, 1000, DAY..end), part(2, 10, window(3))];
        assert_eq!(plan(&late, end + DAY_GRACE_MS), None, "one late partition can wait");
    }

    #[test]
    fn what_stands_between_the_inputs_and_overlaps_them_is_merged_too() {
        let mut live: Vec<_> = [1, 2, 4, 5].map(|n| part(n, 10, window(0))).into();
        live.insert(2, part(3, 10, DAY..DAY + DAY_MS));
        live.push(part(6, 10, window(1)));
        let merge = plan(&live, DAY + HOUR_MS).unwrap();
        assert_eq!(merge, Merge { inputs: vec![1, 2, 3, 4, 5], window_ms: DAY..DAY + DAY_MS });
    }

    #[test]
    fn merging_all_ends_with_nothing_left_to_merge_and_no_tombstones() {
        let mut live = vec![part(1, 10, window(0)), part(2, 10, window(0)), part(3, 10, window(1))];
        live[2].tombstones = Some(1);
        let all = plan_all(&live, DAY).unwrap();
        assert_eq!(all, Merge { inputs: vec![1, 2, 3], window_ms: DAY..DAY + DAY_MS });
        assert_eq!(plan_all(&live[2..], DAY).map(|merge| merge.inputs), Some(vec![3]));
        live[2].tombstones = None;
        assert_eq!(plan_all(&live[2..], DAY), None);
    }

    proptest! {
        #[test]
        fn merges_end_and_bursts_of_cuts_leave_few_partitions(
            cuts in proptest::collection::vec((0..3i64, 1..20u64), 1..200),
        ) {
            let mut live: Vec<LivePartition> = Vec::new();
            for (number, (k, byte_len)) in (1..).zip(cuts) {
                live.push(part(number * 1000, byte_len, window(k)));
                let mut merges = 0;
                while let Some(merge) = plan(&live, DAY) {
                    merges += 1;
                    prop_assert!(merges < 20, "{live:?}");
                    let (inputs, rest): (Vec<_>, Vec<_>) =
                        live.into_iter().partition(|p| merge.inputs.contains(&p.number));
                    prop_assert!(inputs.len() > 1);
                    live = rest;
                    let sequence = inputs.iter().map(|p| p.sequence).max().unwrap();
                    let byte_len = inputs.iter().map(|p| p.byte_len).sum();
                    let output = part(sequence + 1, byte_len, merge.window_ms);
                    live.push(LivePartition { sequence, ..output });
                }
                prop_assert!(most_overlapping(&live) < OVERLAPPING_MAX, "{live:?}");
            }
        }
    }
}
