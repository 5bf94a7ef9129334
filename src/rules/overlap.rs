//! Rules that yield the same series, so that each overwrites what the other yielded.
//!
//! Only what rules yielded tells: many record one metric, each for series of its own.

use super::group::{Group, Rule};
use super::running::RunningGroup;
use larum_storage_format::Labels;
use std::collections::HashMap;
use std::sync::Arc;

/// So many pairs are told.
const PAIRS_MAX: usize = 100;

/// The rules that record one metric, or are called like one alert, each as its group and place: of each name
/// that more than one rule has. Sorted.
pub fn namesakes(groups: &[&Group]) -> Vec<Vec<(usize, usize)>> {
    let mut of_name: HashMap<(bool, &str), Vec<(usize, usize)>> = HashMap::new();
    for (g, group) in groups.iter().enumerate() {
        for (r, rule) in group.rules.iter().enumerate() {
            let key = (matches!(rule, Rule::Alerting(_)), rule.name());
            of_name.entry(key).or_default().push((g, r));
        }
    }
    let mut found: Vec<_> = of_name.into_values().filter(|rules| rules.len() > 1).collect();
    found.sort_unstable();
    found
}

/// Of the rules of one name, each pair that yielded the same series in their last evaluations, as a sentence
/// with the first series.
pub fn overlaps(groups: &[Arc<RunningGroup>], namesakes: &[Vec<(usize, usize)>]) -> Vec<String> {
    let mut told = Vec::new();
    for rules in namesakes {
        let mut owner: HashMap<Labels, (usize, usize)> = HashMap::new();
        let mut pairs = HashMap::new();
        for &at in rules {
            for series in groups[at.0].series_of(at.1) {
                if let Some(first) = owner.get(&series) {
                    let least: &mut Labels = pairs.entry((*first, at)).or_insert_with(|| series.clone());
                    *least = series.min(std::mem::take(least));
                } else {
                    owner.insert(series, at);
                }
            }
        }
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs.sort_unstable();
        for ((first, second), series) in pairs {
            if told.len() == PAIRS_MAX {
                return told;
            }
            let place = |(g, r): (usize, usize)| {
                let Group { name, file, rules, .. } = &groups[g].group;
                format!("{} (rule {} of group {name} of {file})", rules[r].name(), r + 1)
            };
            told.push(format!(
                "{} and {} yield the same series, such as {series}; what one yields, the other overwrites",
                place(first),
                place(second)
            ));
        }
    }
    told
}
