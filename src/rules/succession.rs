//! Which rule goes on where another left off: pure matching of what ran before, in this process or one
//! before it, with what is to run now.
//!
//! A rule stays itself while its file, group, kind, name and labels stay; expression, annotations and
//! times may be edited. One that is in another group now, or whose group was renamed, is found by its
//! kind, name and labels.

use std::collections::{HashMap, HashSet};

/// A group, as far as its rules have to be found again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identities {
    /// Its file and name.
    pub group: (String, String),
    /// What identifies each of its rules within it ([`super::persist::identity`]).
    pub rules: Vec<Vec<u8>>,
}

/// For each group and rule of the new ones, which of the old ones it succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Succession {
    pub groups: Vec<Option<usize>>,
    /// By group and rule; the old one as its group and its place there.
    pub rules: Vec<Vec<Option<(usize, usize)>>>,
}

/// Matches `new` with `old`. No old rule has two successors.
pub fn match_rules(old: &[Identities], new: &[Identities]) -> Succession {
    let by_name: HashMap<_, usize> = old.iter().enumerate().map(|(i, o)| (&o.group, i)).collect();
    let mut groups: Vec<Option<usize>> = new.iter().map(|n| by_name.get(&n.group).copied()).collect();
    let mut rules: Vec<Vec<Option<(usize, usize)>>> = new.iter().map(|n| vec![None; n.rules.len()]).collect();
    let mut taken = HashSet::new();
    for (g, new) in new.iter().enumerate() {
        let Some(o) = groups[g] else { continue };
        let places: HashMap<_, usize> =
            old[o].rules.iter().enumerate().map(|(at, rule)| (rule, at)).collect();
        for (r, identity) in new.rules.iter().enumerate() {
            if let Some(&at) = places.get(identity) {
                taken.insert((o, at));
                rules[g][r] = Some((o, at));
            }
        }
    }
    // What is left, whatever its group; of several the first.
    let mut left: HashMap<&[u8], Vec<(usize, usize)>> = HashMap::new();
    for (o, group) in old.iter().enumerate().rev() {
        for (at, identity) in group.rules.iter().enumerate().rev() {
            if !taken.contains(&(o, at)) {
                left.entry(identity).or_default().push((o, at));
            }
        }
    }
    let mut has_successor: HashSet<usize> = groups.iter().flatten().copied().collect();
    for (g, new) in new.iter().enumerate() {
        for (r, identity) in new.rules.iter().enumerate() {
            if rules[g][r].is_none() {
                rules[g][r] = left.get_mut(identity.as_slice()).and_then(Vec::pop);
            }
        }
        if groups[g].is_none() {
            let renamed = rules[g].iter().flatten().map(|(o, _)| *o).find(|o| !has_successor.contains(o));
            has_successor.extend(renamed);
            groups[g] = renamed;
        }
    }
    Succession { groups, rules }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups like `name: a b b`.
    fn groups(text: &str) -> Vec<Identities> {
        let group = |line: &str| {
            let (name, rules) = line.split_once(':').unwrap();
            let rules = rules.split_whitespace().map(|rule| rule.as_bytes().to_vec()).collect();
            Identities { group: ("f".to_owned(), name.to_owned()), rules }
        };
        text.split(',').map(|line| group(line.trim())).collect()
    }

    /// Each new group as its old one and the old rules, `-` for none.
    fn matched(old: &str, new: &str) -> String {
        let (old, new) = (groups(old), groups(new));
        let Succession { groups, rules } = match_rules(&old, &new);
        let name = |o: usize| old[o].group.1.as_str();
        let rule = |found: &Option<(usize, usize)>| match found {
            Some((o, at)) => format!("{}{at}", name(*o)),
            None => "-".to_owned(),
        };
        let lines = groups.iter().zip(&rules).map(|(group, rules)| {
            let rules: Vec<String> = rules.iter().map(rule).collect();
            format!("{}: {}", group.map_or("-", name), rules.join(" "))
        });
        lines.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn rules_are_found_again_wherever_they_are() {
        for (old, new, expected) in [
            ("g: a b", "g: a b", "g: g0 g1"),
            ("g: a b", "g: b c", "g: g1 -"),
            // Renamed.
            ("g: a b", "h: a b", "g: g0 g1"),
            // A rule moved to another group, which goes on by itself.
            ("g: a b, h: c", "g: a, h: c b", "g: g0, h: h0 g1"),
            // Two groups have it; each keeps its own, and what is new starts anew.
            ("g: a, h: a", "g: a, h: a, i: a", "g: g0, h: h0, -: -"),
            // One of two was renamed.
            ("g: a, h: a", "h: a, i: a", "h: h0, g: g0"),
            // Split in two.
            ("g: a b", "x: a, y: b", "g: g0, -: g1"),
            ("g: a", "h: z", "-: -"),
        ] {
            assert_eq!(matched(old, new), expected, "{old} -> {new}");
        }
    }
}
