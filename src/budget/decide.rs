//! Who may take memory, and what is to be done as it fills. Pure decisions.
//!
//! As it fills, in this order: the head is cut early; caches shrink; merges get a smaller share, or wait;
//! large queries and large bodies are refused; then small ones too. The last tenth is for rules alone.

use super::Part;

/// From how full on, in percent of the limit, each [`Pressure`] begins.
const CUT_EARLY_PERCENT: u64 = 60;
const SHRINK_CACHES_PERCENT: u64 = 70;
const MERGES_PERCENT: u64 = 75;
/// Up to here queries and bodies may fill it.
const LARGE_PERCENT: u64 = 80;
/// Up to here small ones may: that a dashboard shows something while somebody asks for everything.
const SMALL_PERCENT: u64 = 90;
/// What is left is for rules.
const RULES_PERCENT: u64 = 10;
/// A level is left so far below where it began, so that it does not come and go.
const HYSTERESIS_PERCENT: u64 = 5;

/// A query or body is small up to this part of the limit.
const SMALL_SHARE: u64 = 64;

/// A merge with less than this would mostly read and write temporary files.
pub(crate) const MERGE_MIN_BYTES: u64 = 8 << 20;

/// What is held of a budget.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub limit: u64,
    /// By all parts.
    pub held: u64,
    /// Of this by rules.
    pub rules: u64,
}

/// How full a budget is: what is done about it. Each level includes those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// There is enough.
    #[default]
    Calm,
    /// The head is cut early.
    CutEarly,
    /// Caches are given up.
    ShrinkCaches,
    /// Merges wait.
    HoldMerges,
    /// Large queries and bodies are refused.
    Refuse,
}

impl Pressure {
    const RISING: [(Pressure, u64); 4] = [
        (Pressure::CutEarly, CUT_EARLY_PERCENT),
        (Pressure::ShrinkCaches, SHRINK_CACHES_PERCENT),
        (Pressure::HoldMerges, MERGES_PERCENT),
        (Pressure::Refuse, LARGE_PERCENT),
    ];

    /// The level at this load, after the level `before`.
    pub(super) fn of(load: &Load, before: Pressure) -> Pressure {
        let reached = |&&(level, percent): &&(Pressure, u64)| {
            let percent = if level <= before { percent - HYSTERESIS_PERCENT } else { percent };
            load.held >= of_limit(load.limit, percent)
        };
        Pressure::RISING.iter().take_while(reached).last().map_or(Pressure::Calm, |(level, _)| *level)
    }

    /// Its number in metrics, from 0.
    pub fn level(self) -> u8 {
        self as u8
    }

    /// What is done, in words.
    pub fn text(self) -> &'static str {
        match self {
            Pressure::Calm => "there is enough memory",
            Pressure::CutEarly => "the head is cut early",
            Pressure::ShrinkCaches => "caches are given up",
            Pressure::HoldMerges => "merges wait",
            Pressure::Refuse => "large queries and writes are refused",
        }
    }
}

fn of_limit(limit: u64, percent: u64) -> u64 {
    limit / 100 * percent
}

/// Up to how much a query or body is small.
pub(super) fn small_bytes(limit: u64) -> u64 {
    limit / SMALL_SHARE
}

/// What only rules may take.
pub(super) fn rules_share(limit: u64) -> u64 {
    of_limit(limit, RULES_PERCENT)
}

/// How much more a holder of a part may take that holds `own` bytes already.
pub(super) fn room(load: &Load, part: Part, own: u64) -> u64 {
    let &Load { limit, held, rules } = load;
    let share = rules_share(limit);
    // What rules hold of their share takes nothing from others.
    let others = held.saturating_sub(rules.min(share));
    let up_to = |percent| of_limit(limit, percent).saturating_sub(others);
    match part {
        // Their share is there whatever others hold.
        Part::Rules => share.saturating_sub(rules).max(limit.saturating_sub(held)),
        Part::Merges => up_to(MERGES_PERCENT),
        Part::Bodies | Part::Queries => {
            let while_small = small_bytes(limit).saturating_sub(own).min(up_to(SMALL_PERCENT));
            while_small.max(up_to(LARGE_PERCENT))
        }
        // They are there already.
        Part::Head | Part::Caches => u64::MAX,
    }
}

/// How much a merge gets that would like `wanted` bytes, where there is room for so many; `None` if it
/// had better wait.
pub(crate) fn merge_share(wanted: u64, room: u64) -> Option<u64> {
    let least = wanted.min(MERGE_MIN_BYTES);
    // Half, since the queries of the next minute want some too.
    let share = if room == u64::MAX { wanted } else { wanted.min(room / 2) };
    (share >= least).then_some(share)
}

/// Whether the samples in memory are so many that they are to be cut before their time.
pub(crate) fn head_is_large(limit: Option<u64>, samples_bytes: u64, pressure: Pressure) -> bool {
    // Many small cuts would only make work for merges.
    let share = if pressure >= Pressure::CutEarly { 32 } else { 8 };
    limit.is_some_and(|limit| samples_bytes > limit / share)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const LIMIT: u64 = 6400;

    fn load(held: u64, rules: u64) -> Load {
        Load { limit: LIMIT, held, rules }
    }

    #[test]
    fn levels_come_in_order_and_go_a_little_later() {
        use Pressure::*;
        let percent = |p: u64| load(LIMIT / 100 * p, 0);
        for (held, before, expected) in [
            (0, Calm, Calm),
            (59, Calm, Calm),
            (60, Calm, CutEarly),
            (70, Calm, ShrinkCaches),
            (75, Calm, HoldMerges),
            (80, Calm, Refuse),
            (200, Calm, Refuse),
            (76, Refuse, Refuse),
            (74, Refuse, HoldMerges),
            (69, Refuse, ShrinkCaches),
            (56, Refuse, CutEarly),
            (54, Refuse, Calm),
            (69, CutEarly, CutEarly),
        ] {
            assert_eq!(Pressure::of(&percent(held), before), expected, "{held} after {before:?}");
        }
    }

    #[test]
    fn queries_and_bodies_stop_before_the_share_of_rules() {
        // A small one is at most 100 (a sixty-fourth).
        for (held, rules, part, own, expected, why) in [
            (0, 0, Part::Queries, 0, 5120, "80 %"),
            (5000, 0, Part::Queries, 4000, 120, "up to 80 %"),
            (5120, 0, Part::Queries, 4000, 0, "a large one is at its end"),
            (5120, 0, Part::Queries, 0, 100, "a small one is not"),
            (5120, 0, Part::Queries, 30, 70, "as long as it stays small"),
            (5120, 0, Part::Bodies, 30, 70, "bodies are alike"),
            (5700, 0, Part::Queries, 0, 60, "up to 90 %"),
            (5760, 0, Part::Queries, 0, 0, "and no further"),
            (6000, 0, Part::Bodies, 0, 0, "whatever happens"),
            (5120 + 640, 640, Part::Queries, 0, 100, "what rules hold of their share is not counted"),
            (5800, 700, Part::Queries, 4000, 0, "what they hold beyond is"),
            (4000, 0, Part::Merges, 0, 800, "75 %"),
            (4800, 0, Part::Merges, 0, 0, "merges stop before queries"),
        ] {
            assert_eq!(room(&load(held, rules), part, own), expected, "{why}");
        }
    }

    #[test]
    fn rules_have_their_share_whatever_others_hold() {
        for (held, rules, expected) in
            [(0, 0, 6400), (6400, 0, 640), (9000, 600, 40), (9000, 640, 0), (6000, 640, 400)]
        {
            assert_eq!(room(&load(held, rules), Part::Rules, rules), expected, "{held} {rules}");
        }
    }

    #[test]
    fn a_merge_takes_what_it_wants_or_less_or_waits() {
        for (wanted, room, expected) in [
            (64, u64::MAX, Some(64)),
            (64, 512, Some(64)),
            (64, 100, Some(50)),
            (64, 16, Some(8)),
            (64, 15, None),
            (4, 8, Some(4)),
            (4, 7, None),
            (64, 0, None),
        ] {
            let in_bytes = if room == u64::MAX { room } else { room * MIB };
            let share = merge_share(wanted * MIB, in_bytes).map(|bytes| bytes / MIB);
            assert_eq!(share, expected, "{wanted} of {room}");
        }
    }

    #[test]
    fn a_head_is_large_sooner_under_pressure() {
        let limit = Some(256 * MIB);
        for (samples, pressure, expected) in [
            (32, Pressure::Calm, false),
            (33, Pressure::Calm, true),
            (8, Pressure::CutEarly, false),
            (9, Pressure::CutEarly, true),
            (9, Pressure::Refuse, true),
        ] {
            assert_eq!(head_is_large(limit, samples * MIB, pressure), expected, "{samples} {pressure:?}");
        }
        assert!(!head_is_large(None, u64::MAX, Pressure::Calm));
    }
}
