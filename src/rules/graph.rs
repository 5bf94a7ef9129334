//! Which rule waits for which: pure, from what rules read and yield.
//!
//! A rule waits for those whose output it may read, in whatever group they are. Within a group the order
//! of the file says who comes first: a rule that reads what a later one yields reads what that yielded the
//! last time, as in Prometheus, and so must not come after it. Where groups wait for each other in a
//! circle, the circle is cut where the first of its rules waits, and told.

use super::alerting::{ALERTS, ALERTS_FOR_STATE};
use super::group::{Group, Rule};
use crate::storage::{MatchOp, Matcher};
use larum_storage_format::labels::METRIC_NAME;
use std::collections::{BTreeSet, HashMap};

/// A selector that may read what more rules yield than this waits for none outside its group: it asks
/// for everything, and everything cannot come first.
const PRODUCERS_MAX: usize = 1000;

/// So many circles are told. What else waits in a circle then goes by the order of the files.
const CIRCLES_MAX: usize = 100;

/// A rule as its group and its place in it.
pub type RuleAt = (usize, usize);

/// The rules of all groups and who waits for whom. Has no circles.
#[derive(Debug, Default)]
pub struct RuleGraph {
    /// The number of each group's first rule; one more at the end.
    first: Vec<usize>,
    /// By rule: those that wait for it.
    waiting: Vec<Vec<usize>>,
    /// The rules of each circle that was cut, the one first that no longer waits.
    pub circles: Vec<Vec<RuleAt>>,
}

impl RuleGraph {
    /// The graph of the rules of `groups`.
    pub fn new<'a>(groups: impl IntoIterator<Item = &'a Group>) -> RuleGraph {
        let groups: Vec<&Group> = groups.into_iter().collect();
        let mut first = vec![0];
        for group in &groups {
            first.push(first[first.len() - 1] + group.rules.len());
        }
        let rules: Vec<&Rule> = groups.iter().flat_map(|group| &group.rules).collect();
        let mut graph = RuleGraph { first, waiting: Vec::new(), circles: Vec::new() };
        let edges = graph.edges(&rules);
        graph.waiting = vec![Vec::new(); rules.len()];
        for (from, to) in edges {
            graph.waiting[from].push(to);
        }
        graph.cut_circles();
        graph
    }

    /// The rules that wait for the rule `at`.
    pub fn waiting(&self, at: RuleAt) -> impl Iterator<Item = RuleAt> + '_ {
        self.waiting[self.first[at.0] + at.1].iter().map(|&number| self.at(number))
    }

    /// For each group the first of those it is connected with by rules that wait, if `may_connect` them.
    pub fn connected(&self, may_connect: impl Fn(usize, usize) -> bool) -> Vec<usize> {
        let groups = self.first.len().saturating_sub(1);
        let mut leader: Vec<usize> = (0..groups).collect();
        fn find(leader: &mut [usize], mut group: usize) -> usize {
            while leader[group] != group {
                leader[group] = leader[leader[group]];
                group = leader[group];
            }
            group
        }
        for (from, waiting) in self.waiting.iter().enumerate() {
            let (from, _) = self.at(from);
            for &to in waiting {
                let (to, _) = self.at(to);
                if from != to && may_connect(from, to) {
                    let (a, b) = (find(&mut leader, from), find(&mut leader, to));
                    leader[a.max(b)] = a.min(b);
                }
            }
        }
        (0..groups).map(|group| find(&mut leader, group)).collect()
    }

    fn at(&self, number: usize) -> RuleAt {
        // Groups may be empty: the last that begins no later.
        let group = self.first.partition_point(|&first| first <= number) - 1;
        (group, number - self.first[group])
    }

    /// Who comes before whom, directly.
    fn edges(&self, rules: &[&Rule]) -> BTreeSet<(usize, usize)> {
        let mut recorded: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut alerts: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut alerting = Vec::new();
        for (number, rule) in rules.iter().enumerate() {
            match rule {
                Rule::Recording(rule) => recorded.entry(&rule.name).or_default().push(number),
                Rule::Alerting(rule) => {
                    alerts.entry(&rule.name).or_default().push(number);
                    alerting.push(number);
                }
            }
        }
        let mut edges = BTreeSet::new();
        for (reader, rule) in rules.iter().enumerate() {
            if asks(rule) {
                // For what is not known before: the order of the file counts.
                let group = self.at(reader).0;
                let others = (self.first[group]..self.first[group + 1]).filter(|&other| other != reader);
                edges.extend(others.map(|other| (other.min(reader), other.max(reader))));
            }
            for selector in rule.expr().selectors() {
                let name =
                    selector.matchers.iter().find(|m| m.name() == METRIC_NAME && m.op() == MatchOp::Equal);
                let candidates = match name.map(Matcher::value) {
                    Some(ALERTS | ALERTS_FOR_STATE) => alerting.clone(),
                    Some(name) => recorded.get(name).cloned().unwrap_or_default(),
                    None => (0..rules.len()).collect(),
                };
                let may_yield =
                    |&number: &usize| number != reader && may_yield(rules[number], &selector.matchers);
                let producers: Vec<usize> = candidates.into_iter().filter(may_yield).collect();
                let is_everything = producers.len() > PRODUCERS_MAX;
                for producer in producers {
                    if self.at(producer).0 == self.at(reader).0 {
                        edges.insert((producer.min(reader), producer.max(reader)));
                    } else if !is_everything {
                        edges.insert((producer, reader));
                    }
                }
            }
        }
        // Of two rules of a group with one output the later must write later.
        for same in recorded.values().chain(alerts.values()) {
            let pairs = same.windows(2).filter(|pair| self.at(pair[0]).0 == self.at(pair[1]).0);
            edges.extend(pairs.map(|pair| (pair[0], pair[1])));
        }
        edges
    }

    /// Takes rules away that wait for nobody, again and again; what is left then holds a circle.
    fn cut_circles(&mut self) {
        let mut waits_for = vec![0_usize; self.waiting.len()];
        self.waiting.iter().flatten().for_each(|&to| waits_for[to] += 1);
        let mut left: BTreeSet<usize> = (0..self.waiting.len()).collect();
        let mut ready: Vec<usize> = left.iter().copied().filter(|&number| waits_for[number] == 0).collect();
        loop {
            while let Some(number) = ready.pop() {
                left.remove(&number);
                for &to in &self.waiting[number] {
                    waits_for[to] -= 1;
                    if waits_for[to] == 0 {
                        ready.push(to);
                    }
                }
            }
            if self.circles.len() == CIRCLES_MAX {
                for &from in &left {
                    self.waiting[from].retain(|&to| to > from || !left.contains(&to));
                }
                return;
            }
            let Some(circle) = self.circle(&left) else { return };
            let (first, before) = (circle[0], circle[circle.len() - 1]);
            self.waiting[before].retain(|&to| to != first);
            waits_for[first] -= 1;
            if waits_for[first] == 0 {
                ready.push(first);
            }
            self.circles.push(circle.into_iter().map(|number| self.at(number)).collect());
        }
    }

    /// A circle among those that are `left`, each of which waits for one of them; the first rule first.
    fn circle(&self, left: &BTreeSet<usize>) -> Option<Vec<usize>> {
        let mut before: HashMap<usize, usize> = HashMap::new();
        for &from in left.iter().rev() {
            before.extend(self.waiting[from].iter().map(|&to| (to, from)));
        }
        let mut way = vec![*left.first()?];
        loop {
            let from = *before.get(&way[way.len() - 1])?;
            if let Some(start) = way.iter().position(|&number| number == from) {
                let mut circle = way.split_off(start);
                circle.reverse();
                let first = (0..circle.len()).min_by_key(|&at| circle[at])?;
                circle.rotate_left(first);
                return Some(circle);
            }
            way.push(from);
        }
    }
}

/// Whether templates of `rule` may query.
fn asks(rule: &Rule) -> bool {
    let Rule::Alerting(rule) = rule else { return false };
    let mut texts = rule.labels.iter().chain(&rule.annotations).map(|(_, text)| text.source());
    texts.any(|text| text.contains("{{") && text.contains("query"))
}

/// Whether a series that `rule` yields may match. Labels that the rule does not set may be anything.
fn may_yield(rule: &Rule, matchers: &[Matcher]) -> bool {
    let matches = |matcher: &Matcher| match (rule, matcher.name()) {
        (Rule::Recording(rule), METRIC_NAME) => matcher.matches(&rule.name),
        (Rule::Alerting(_), METRIC_NAME) => matcher.matches(ALERTS) || matcher.matches(ALERTS_FOR_STATE),
        (Rule::Alerting(rule), "alertname") => matcher.matches(&rule.name),
        (Rule::Alerting(_), "alertstate") => true,
        (_, name) => {
            let set = rule.labels().find(|(set, _)| *set == name);
            set.is_none_or(|(_, value)| value.contains("{{") || matcher.matches(value))
        }
    };
    matchers.iter().all(matches)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::parse::Syntax;
    use crate::rules::file;
    use std::path::Path;

    /// Groups like `a <- b + c; d <- a, e <- d`: groups after a comma and a blank, rules after semicolons. A rule
    /// whose name begins with a capital is an alert.
    fn groups(text: &str) -> Vec<Group> {
        let rule = |text: &str| {
            let (name, expr) = text.split_once("<-").unwrap();
            let kind = if name.trim().starts_with(char::is_uppercase) { "alert" } else { "record" };
            format!("  - {{{kind}: {}, expr: '{}'}}\n", name.trim(), expr.trim())
        };
        let group = |(i, text): (usize, &str)| {
            format!("- name: g{i}\n  rules:\n{}", text.split(';').map(rule).collect::<String>())
        };
        let text: String = text.split(", ").enumerate().map(group).collect();
        file::parse(Path::new("r.yml"), &format!("groups:\n{text}"), Syntax::default()).unwrap().groups
    }

    /// Who comes before whom, as `a<b`, sorted, and the circles.
    fn orders(text: &str) -> (String, Vec<Vec<String>>) {
        let groups = groups(text);
        let graph = RuleGraph::new(&groups);
        let name = |(g, r): RuleAt| groups[g].rules[r].name().to_owned();
        let mut orders = Vec::new();
        for (g, group) in groups.iter().enumerate() {
            for r in 0..group.rules.len() {
                orders.extend(graph.waiting((g, r)).map(|to| format!("{}<{}", name((g, r)), name(to))));
            }
        }
        orders.sort();
        let circles = graph.circles.iter().map(|circle| circle.iter().map(|&at| name(at)).collect());
        (orders.join(" "), circles.collect())
    }

    #[test]
    fn rules_wait_for_what_they_may_read() {
        for (text, expected) in [
            ("a <- x; b <- y", ""),
            ("a <- x; b <- rate(a[5m]) + 1", "a<b"),
            // In another group, before or after.
            ("b <- sum(a), a <- x", "a<b"),
            ("b <- max_over_time((a > 1)[5m:1m]), a <- x", "a<b"),
            // Within a group the earlier one reads what was there the last time.
            ("b <- a; a <- x", "b<a"),
            // Itself.
            ("a <- a offset 1m", ""),
            // By a pattern, and by alerts.
            ("b <- {__name__=~\"a.*\"}, a1 <- x, a2 <- x, c <- x", "a1<b a2<b"),
            ("b <- ALERTS{alertname=\"Up\"}, Up <- x, Down <- x", "Up<b"),
            ("b <- count(ALERTS), Up <- x, Down <- x", "Down<b Up<b"),
            ("b <- topk(scalar(n),a), a <- x, n <- x", "a<b n<b"),
            // Both write the same series.
            ("Up <- x; Up <- y", "Up<Up"),
        ] {
            assert_eq!(orders(text), (expected.to_owned(), Vec::new()), "{text}");
        }
    }

    #[test]
    fn labels_that_a_rule_sets_tell_it_apart() {
        let text = "groups:\n- name: g\n  rules:\n  - {record: a, expr: x, labels: {env: prod}}\n  \
                    - {record: a, expr: x, labels: {env: test}}\n- name: h\n  rules:\n  - {record: b, expr: 'a{env=\"test\"}'}\n";
        let groups = file::parse(Path::new("r.yml"), text, Syntax::default()).unwrap().groups;
        let graph = RuleGraph::new(&groups);
        assert_eq!(graph.waiting((0, 0)).collect::<Vec<_>>(), [(0, 1)], "both write the same name");
        assert_eq!(graph.waiting((0, 1)).collect::<Vec<_>>(), [(1, 0)]);
    }

    #[test]
    fn circles_are_cut_and_told() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (found, circles) = orders("a <- b, b <- a, c <- a");
        assert_eq!((found.as_str(), circles), ("a<b a<c", vec![names(&["a", "b"])]));
        let (found, circles) = orders("a <- c, b <- a, c <- b");
        assert_eq!((found.as_str(), circles), ("a<b b<c", vec![names(&["a", "b", "c"])]));
        // Two that touch.
        assert_eq!(orders("a <- b + c, b <- a, c <- a").1.len(), 2);
    }

    #[test]
    fn rules_whose_templates_ask_keep_their_place_in_the_group() {
        let text = "groups:\n- name: g\n  rules:\n  - {record: a, expr: x}\n  - alert: B\n    expr: y\n    annotations: \
                    {owner: '{{ with query \"a\" }}{{ . | first | value }}{{ end }}'}\n  - {record: c, expr: z}\n";
        let groups = file::parse(Path::new("r.yml"), text, Syntax::default()).unwrap().groups;
        let graph = RuleGraph::new(&groups);
        let waiting = |rule| graph.waiting((0, rule)).collect::<Vec<_>>();
        assert_eq!((waiting(0), waiting(1), waiting(2)), (vec![(0, 1)], vec![(0, 2)], vec![]));
    }

    #[test]
    fn many_circles_cost_little() {
        let text: Vec<String> = (0..300).map(|i| format!("A{i} <- count(ALERTS)")).collect();
        let groups = groups(&text.join(", "));
        let graph = RuleGraph::new(&groups);
        assert_eq!(graph.circles.len(), CIRCLES_MAX);
        // Nobody waits for ever.
        let mut waits_for = vec![0; groups.len()];
        (0..groups.len()).flat_map(|g| graph.waiting((g, 0))).for_each(|(to, _)| waits_for[to] += 1);
        let mut ready: Vec<usize> = (0..groups.len()).filter(|&g| waits_for[g] == 0).collect();
        let mut done = 0;
        while let Some(g) = ready.pop() {
            done += 1;
            for (to, _) in graph.waiting((g, 0)) {
                waits_for[to] -= 1;
                ready.extend((waits_for[to] == 0).then_some(to));
            }
        }
        assert_eq!(done, groups.len());
    }

    #[test]
    fn groups_are_connected_by_what_waits() {
        let groups = groups("a <- x, b <- a, c <- y, d <- c + b, e <- z");
        let graph = RuleGraph::new(&groups);
        assert_eq!(graph.connected(|_, _| true), [0, 0, 0, 0, 4]);
        assert_eq!(graph.connected(|from, to| (from, to) != (2, 3)), [0, 0, 2, 0, 4]);
        assert_eq!(RuleGraph::new(&[]).connected(|_, _| true), [0; 0]);
    }
}
