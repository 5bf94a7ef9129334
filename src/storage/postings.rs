//! Matchers to postings: one function for every index, head or partition.
//!
//! 1. A matcher that the empty string passes says nothing about most series; it is applied by
//!    taking away the postings of the values that fail. Any other asks for a label that is there.
//! 2. Of the latter, those for single values or short lists of values are intersected first, the
//!    rarest before the others; regular expressions over many values come last.
//! 3. Where only a few series are left, a costly matcher looks at their labels instead of going
//!    through all values of its label.

use super::matcher::{MatchOp, Matcher};
use roaring::RoaringBitmap;
use std::borrow::Cow;

/// An index from labels to series, which are numbers that are meaningful within it only.
pub(crate) trait Index {
    /// All series.
    fn all(&self) -> RoaringBitmap;

    /// The series that have the label `name` with exactly this value.
    fn postings(&self, name: &str, value: &str) -> Cow<'_, RoaringBitmap>;

    /// How many series that are, or a guess. Cheap.
    fn postings_len(&self, name: &str, value: &str) -> u64;

    /// How many values the label has, or a guess. Cheap.
    fn value_count(&self, name: &str) -> u64;

    /// Adds to `into` the series of all values of the label that start with `prefix` and for which
    /// `keep` says true. Each value is asked for once, in any order.
    fn union(&self, name: &str, prefix: &str, keep: &mut dyn FnMut(&str) -> bool, into: &mut RoaringBitmap);

    /// Whether the series passes the matcher.
    fn passes(&self, series: u32, matcher: &Matcher) -> bool;
}

/// Cost of going through all values of a label, on top of their number: dearer than any postings,
/// as every value is looked at and many sets are put together.
const SCAN_COST: u64 = 1 << 40;

/// So many series may have their labels looked at for each value that need not be gone through.
const VALUES_PER_SERIES: u64 = 4;

/// The series of `index` that pass all `matchers`.
pub(crate) fn select(index: &dyn Index, matchers: &[Matcher]) -> RoaringBitmap {
    let mut present: Vec<Step<'_>> = Vec::new();
    let mut absent: Vec<Step<'_>> = Vec::new();
    for matcher in matchers {
        if !matcher.matches("") {
            present.push(Step::new(index, matcher, true));
        } else if !passes_everything(matcher) {
            absent.push(Step::new(index, matcher, false));
        }
    }
    present.sort_by_key(|step| step.cost);
    absent.sort_by_key(|step| step.cost);

    let mut left: Option<RoaringBitmap> = None;
    for step in &present {
        left = Some(match left {
            None => step.series(index).into_owned(),
            Some(left) if step.is_dearer_than(&left) => step.filter(index, left),
            Some(left) => left & step.series(index).as_ref(),
        });
        if left.as_ref().is_some_and(RoaringBitmap::is_empty) {
            return RoaringBitmap::new();
        }
    }
    let mut left = left.unwrap_or_else(|| index.all());
    for step in &absent {
        if left.is_empty() {
            break;
        }
        left = match step.is_dearer_than(&left) {
            true => step.filter(index, left),
            false => left - step.series(index).as_ref(),
        };
    }
    left
}

/// Whether no value fails the matcher, as far as that is easy to see.
fn passes_everything(matcher: &Matcher) -> bool {
    matcher.op() == MatchOp::Regex && matches!(matcher.value(), ".*" | "(.*)" | "^.*$")
}

/// One matcher on its way: the values whose series are to be intersected, or taken away.
struct Step<'a> {
    matcher: &'a Matcher,
    /// Whether `values` are those that pass or those that fail.
    passing: bool,
    values: Values<'a>,
    cost: u64,
}

/// Which values of a label.
enum Values<'a> {
    /// These.
    Some(Vec<&'a str>),
    /// Those that start with the prefix, of which the matcher then picks.
    Scan { prefix: &'a str },
}

impl<'a> Step<'a> {
    fn new(index: &dyn Index, matcher: &'a Matcher, passing: bool) -> Step<'a> {
        // The values a matcher names are those that pass `=` and `=~`, and fail `!=` and `!~`.
        let names_passing = matches!(matcher.op(), MatchOp::Equal | MatchOp::Regex);
        let values = match matcher.regex() {
            _ if names_passing != passing => Values::Scan { prefix: "" },
            None => Values::Some(vec![matcher.value()]),
            Some(regex) => match regex.set() {
                Some(set) => Values::Some(set.iter().map(String::as_str).collect()),
                None => Values::Scan { prefix: regex.prefix() },
            },
        };
        let cost = match &values {
            Values::Some(values) => values.iter().map(|v| index.postings_len(matcher.name(), v)).sum(),
            Values::Scan { .. } => SCAN_COST + index.value_count(matcher.name()),
        };
        Step { matcher, passing, values, cost }
    }

    /// The series of the step's values.
    fn series<'i>(&self, index: &'i dyn Index) -> Cow<'i, RoaringBitmap> {
        let name = self.matcher.name();
        match &self.values {
            Values::Some(values) => match values.as_slice() {
                [value] => index.postings(name, value),
                values => {
                    let mut all = RoaringBitmap::new();
                    values.iter().for_each(|value| all |= index.postings(name, value).as_ref());
                    Cow::Owned(all)
                }
            },
            Values::Scan { prefix } => {
                let mut all = RoaringBitmap::new();
                let mut keep = |value: &str| self.matcher.matches(value) == self.passing;
                index.union(name, prefix, &mut keep, &mut all);
                Cow::Owned(all)
            }
        }
    }

    fn is_dearer_than(&self, left: &RoaringBitmap) -> bool {
        matches!(self.values, Values::Scan { .. })
            && left.len().saturating_mul(VALUES_PER_SERIES) < self.cost - SCAN_COST
    }

    fn filter(&self, index: &dyn Index, left: RoaringBitmap) -> RoaringBitmap {
        left.into_iter().filter(|&series| index.passes(series, self.matcher)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larum_storage_format::Labels;
    use proptest::prelude::*;

    struct List(Vec<Labels>);

    impl List {
        fn of(&self, mut pick: impl FnMut(&Labels) -> bool) -> RoaringBitmap {
            (0..).zip(&self.0).filter(|(_, labels)| pick(labels)).map(|(i, _)| i).collect()
        }
    }

    impl Index for List {
        fn all(&self) -> RoaringBitmap {
            self.of(|_| true)
        }

        fn postings(&self, name: &str, value: &str) -> Cow<'_, RoaringBitmap> {
            Cow::Owned(self.of(|labels| labels.get(name) == Some(value)))
        }

        fn postings_len(&self, name: &str, value: &str) -> u64 {
            self.postings(name, value).len()
        }

        fn value_count(&self, name: &str) -> u64 {
            self.of(|labels| labels.get(name).is_some()).len()
        }

        fn union(
            &self,
            name: &str,
            prefix: &str,
            keep: &mut dyn FnMut(&str) -> bool,
            into: &mut RoaringBitmap,
        ) {
            *into |= self
                .of(|labels| labels.get(name).is_some_and(|value| value.starts_with(prefix) && keep(value)));
        }

        fn passes(&self, series: u32, matcher: &Matcher) -> bool {
            matcher.matches_series(&self.0[series as usize])
        }
    }

    fn some_labels() -> impl Strategy<Value = Labels> {
        let value = || prop_oneof![Just(""), Just("a"), Just("ab"), Just("b"), Just("x-1"), Just("x-2")];
        (value(), value(), value()).prop_map(|(a, b, c)| {
            Labels::from_pairs([("__name__", "m"), ("a", a), ("b", b), ("c", c)]).unwrap()
        })
    }

    fn some_matcher() -> impl Strategy<Value = Matcher> {
        let op = prop_oneof![
            Just(MatchOp::Equal),
            Just(MatchOp::NotEqual),
            Just(MatchOp::Regex),
            Just(MatchOp::NotRegex)
        ];
        let name = prop_oneof![Just("a"), Just("b"), Just("c"), Just("missing")];
        let value = prop_oneof![
            Just(""),
            Just("a"),
            Just("a|b"),
            Just("a|"),
            Just("x-.*"),
            Just("x-.+"),
            Just(".*"),
            Just(".+"),
            Just("[^a].*"),
        ];
        (op, name, value).prop_map(|(op, name, value)| Matcher::new(op, name, value).unwrap())
    }

    proptest! {
        #[test]
        fn selecting_is_the_same_as_asking_every_series(
            series in proptest::collection::vec(some_labels(), 0..40),
            matchers in proptest::collection::vec(some_matcher(), 0..4),
        ) {
            let index = List(series);
            let expected = index.of(|labels| {
                matchers.iter().all(|m| m.matches_series(labels))
            });
            prop_assert_eq!(select(&index, &matchers), expected);
        }
    }
}
