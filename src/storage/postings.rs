//! Matchers to postings: one function for every index, head or partition.
//!
//! 1. A matcher that the empty string passes says nothing about most series; it is applied by
//!    taking away the postings of the values that fail. Any other asks for a label that is there.
//! 2. Of the latter, those for single values or short lists of values are intersected first, the
//!    rarest before the others; regular expressions over many values come last.
//! 3. Matchers on one label are one step: what fails one of them fails it.
//! 4. Where only a few series are left, a costly matcher looks at their labels instead of going
//!    through all values of its label, or through all series of a value that many have.

use super::matcher::{MatchOp, Matcher};
use roaring::RoaringBitmap;

/// An index from labels to series, which are numbers that are meaningful within it only.
pub(crate) trait Index {
    /// Why the index cannot be read.
    type Error;

    /// All series.
    fn all(&self) -> RoaringBitmap;

    /// What `read` makes of the series that have the label `name` with exactly this value.
    fn postings<T>(
        &self,
        name: &str,
        value: &str,
        read: impl FnOnce(&RoaringBitmap) -> T,
    ) -> Result<T, Self::Error>;

    /// How many series that are, or a guess. Cheap.
    fn postings_len(&self, name: &str, value: &str) -> Result<u64, Self::Error>;

    /// How many values the label has, or a guess. Cheap.
    fn value_count(&self, name: &str) -> Result<u64, Self::Error>;

    /// Whether [`Index::postings`] of values that so many series have is likely to cost more than
    /// [`Index::filter`] of so many series.
    fn are_postings_dearer(&self, postings: u64, series: u64) -> bool;

    /// Whether [`Index::union`] of the values that start with `prefix` is likely to cost more than
    /// [`Index::filter`] of so many series. Costs less than either.
    fn is_union_dearer(&self, name: &str, prefix: &str, series: u64) -> Result<bool, Self::Error>;

    /// The series of all values of the label that start with `prefix` and for which `keep` says
    /// true. Each value is asked for once, in any order.
    fn union(
        &self,
        name: &str,
        prefix: &str,
        keep: &mut dyn FnMut(&str) -> bool,
    ) -> Result<RoaringBitmap, Self::Error>;

    /// Those of the series for whose value of the label, empty if it is missing, `keep` says true. It
    /// is asked about once per value and not per series.
    fn filter(
        &self,
        series: RoaringBitmap,
        name: &str,
        keep: &mut dyn FnMut(&str) -> bool,
    ) -> Result<RoaringBitmap, Self::Error>;
}

/// Cost of going through all values of a label, on top of their number: dearer than any postings,
/// as every value is looked at and many sets are put together.
const SCAN_COST: u64 = 1 << 40;

/// The series of `index` that pass all `matchers`.
pub(crate) fn select<I: Index>(index: &I, matchers: &[Matcher]) -> Result<RoaringBitmap, I::Error> {
    let mut by_name: Vec<&Matcher> = matchers.iter().filter(|matcher| !passes_everything(matcher)).collect();
    by_name.sort_by_key(|matcher| matcher.name());
    let mut present: Vec<Step<'_>> = Vec::new();
    let mut absent: Vec<Step<'_>> = Vec::new();
    for of_label in by_name.chunk_by(|a, b| a.name() == b.name()) {
        let lacking_passes = of_label.iter().all(|matcher| matcher.matches(""));
        let steps = if lacking_passes { &mut absent } else { &mut present };
        steps.push(Step::new(index, of_label, !lacking_passes)?);
    }
    present.sort_by_key(|step| step.cost);
    absent.sort_by_key(|step| step.cost);

    let mut left: Option<RoaringBitmap> = None;
    for step in &present {
        left = Some(match left {
            None => step.series(index, None)?,
            Some(left) if step.is_dearer_than(index, &left)? => {
                index.filter(left, step.name(), &mut |value| step.passes(value))?
            }
            Some(left) => step.series(index, Some(&left))?,
        });
        if left.as_ref().is_some_and(RoaringBitmap::is_empty) {
            return Ok(RoaringBitmap::new());
        }
    }
    let mut left = left.unwrap_or_else(|| index.all());
    for step in &absent {
        if left.is_empty() {
            break;
        }
        left = match step.is_dearer_than(index, &left)? {
            true => index.filter(left, step.name(), &mut |value| step.passes(value))?,
            false => {
                let failing = step.series(index, Some(&left))?;
                left - failing
            }
        };
    }
    Ok(left)
}

/// Whether no value fails the matcher, as far as that is easy to see.
fn passes_everything(matcher: &Matcher) -> bool {
    matcher.op() == MatchOp::Regex && matches!(matcher.value(), ".*" | "(.*)" | "^.*$")
}

/// The matchers on one label on their way: the values whose series are to be intersected, or taken away.
struct Step<'a> {
    /// All on the same label; not empty.
    matchers: &'a [&'a Matcher],
    /// Whether `values` are those that pass or those that fail.
    passing: bool,
    values: Values<'a>,
    cost: u64,
}

/// Which values of a label.
enum Values<'a> {
    /// These.
    Some(Vec<&'a str>),
    /// Those that start with the prefix, of which the matchers then pick.
    Scan { prefix: &'a str },
}

impl<'a> Values<'a> {
    /// Those that pass the matcher, or those that fail, and maybe others.
    fn new(matcher: &'a Matcher, passing: bool) -> Values<'a> {
        // The values a matcher names are those that pass `=` and `=~`, and fail `!=` and `!~`.
        let names_passing = matches!(matcher.op(), MatchOp::Equal | MatchOp::Regex);
        match matcher.regex() {
            _ if names_passing != passing => Values::Scan { prefix: "" },
            None => Values::Some(vec![matcher.value()]),
            Some(regex) => match regex.set() {
                Some(set) => Values::Some(set.iter().map(String::as_str).collect()),
                None => Values::Scan { prefix: regex.prefix() },
            },
        }
    }

    /// The values that are in both; of two prefixes the longer.
    fn both(self, other: Values<'a>) -> Values<'a> {
        match (self, other) {
            (Values::Some(mut values), Values::Some(others)) => {
                values.retain(|value| others.contains(value));
                Values::Some(values)
            }
            (Values::Some(values), _) | (_, Values::Some(values)) => Values::Some(values),
            (Values::Scan { prefix }, Values::Scan { prefix: other }) => {
                Values::Scan { prefix: if prefix.len() < other.len() { other } else { prefix } }
            }
        }
    }

    /// The values that are in either.
    fn either(self, other: Values<'a>) -> Values<'a> {
        match (self, other) {
            (Values::Some(mut values), Values::Some(others)) => {
                values.extend(others);
                Values::Some(values)
            }
            _ => Values::Scan { prefix: "" },
        }
    }
}

impl<'a> Step<'a> {
    fn new<I: Index>(index: &I, matchers: &'a [&'a Matcher], passing: bool) -> Result<Step<'a>, I::Error> {
        // What passes must pass all, what fails one has failed.
        let join = if passing { Values::both } else { Values::either };
        let values = matchers.iter().map(|matcher| Values::new(matcher, passing));
        let mut values = values.reduce(join).unwrap_or(Values::Scan { prefix: "" });
        if let Values::Some(values) = &mut values {
            values.retain(|value| matchers.iter().all(|matcher| matcher.matches(value)) == passing);
        }
        let mut step = Step { matchers, passing, values, cost: 0 };
        match &step.values {
            Values::Some(values) => {
                for value in values {
                    step.cost += index.postings_len(step.name(), value)?;
                }
            }
            Values::Scan { .. } => step.cost = SCAN_COST + index.value_count(step.name())?,
        }
        Ok(step)
    }

    fn name(&self) -> &'a str {
        self.matchers[0].name()
    }

    /// Whether the value passes all matchers.
    fn passes(&self, value: &str) -> bool {
        self.matchers.iter().all(|matcher| matcher.matches(value))
    }

    /// The series of the step's values; only those `among` these, if it says which.
    fn series<I: Index>(&self, index: &I, among: Option<&RoaringBitmap>) -> Result<RoaringBitmap, I::Error> {
        let name = self.name();
        let here =
            |postings: &RoaringBitmap| among.map_or_else(|| postings.clone(), |among| among & postings);
        match &self.values {
            Values::Some(values) => {
                let mut all = RoaringBitmap::new();
                for value in values {
                    let of_value = index.postings(name, value, here)?;
                    all = if all.is_empty() { of_value } else { all | of_value };
                }
                Ok(all)
            }
            Values::Scan { prefix } => {
                let mut keep = |value: &str| self.passes(value) == self.passing;
                let all = index.union(name, prefix, &mut keep)?;
                Ok(match among {
                    Some(among) => all & among,
                    None => all,
                })
            }
        }
    }

    fn is_dearer_than<I: Index>(&self, index: &I, left: &RoaringBitmap) -> Result<bool, I::Error> {
        match self.values {
            Values::Scan { prefix } => index.is_union_dearer(self.name(), prefix, left.len()),
            Values::Some(_) => Ok(index.are_postings_dearer(self.cost, left.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larum_storage_format::Labels;
    use proptest::prelude::*;
    use std::convert::Infallible;

    struct List(Vec<Labels>);

    impl List {
        fn of(&self, mut pick: impl FnMut(&Labels) -> bool) -> RoaringBitmap {
            (0..).zip(&self.0).filter(|(_, labels)| pick(labels)).map(|(i, _)| i).collect()
        }
    }

    impl Index for List {
        type Error = Infallible;

        fn all(&self) -> RoaringBitmap {
            self.of(|_| true)
        }

        fn postings<T>(
            &self,
            name: &str,
            value: &str,
            read: impl FnOnce(&RoaringBitmap) -> T,
        ) -> Result<T, Infallible> {
            Ok(read(&self.of(|labels| labels.get(name) == Some(value))))
        }

        fn postings_len(&self, name: &str, value: &str) -> Result<u64, Infallible> {
            self.postings(name, value, RoaringBitmap::len)
        }

        fn value_count(&self, name: &str) -> Result<u64, Infallible> {
            Ok(self.of(|labels| labels.get(name).is_some()).len())
        }

        fn are_postings_dearer(&self, postings: u64, series: u64) -> bool {
            postings > series
        }

        fn is_union_dearer(&self, name: &str, _: &str, series: u64) -> Result<bool, Infallible> {
            Ok(self.value_count(name)? > series)
        }

        fn union(
            &self,
            name: &str,
            prefix: &str,
            keep: &mut dyn FnMut(&str) -> bool,
        ) -> Result<RoaringBitmap, Infallible> {
            let mut has = |value: &str| value.starts_with(prefix) && keep(value);
            Ok(self.of(|labels| labels.get(name).is_some_and(&mut has)))
        }

        fn filter(
            &self,
            series: RoaringBitmap,
            name: &str,
            keep: &mut dyn FnMut(&str) -> bool,
        ) -> Result<RoaringBitmap, Infallible> {
            Ok(self.of(|labels| keep(labels.get(name).unwrap_or(""))) & series)
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
            prop_assert_eq!(select(&index, &matchers), Ok(expected));
        }
    }
}
