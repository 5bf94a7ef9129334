//! Operators between vectors: which series are partners, and what is wrong if there are several.

use super::super::ast::{Binary, BinaryOp, Cardinality, VectorMatching};
use super::super::eval::{EvalError, Evaluator};
use super::super::matching::Grouper;
use super::super::merge::{Merger, is_metadata, merge};
use super::super::plan::Node;
use super::super::row::{Bits, Row, SeriesRow, Vector};
use super::super::steps::Steps;
use super::elements::{Elements, is_arithmetic};
use larum_storage_format::Labels;
use std::collections::HashMap;

/// `and`, `or`, `unless`
pub(super) fn set(
    evaluator: &Evaluator<'_>,
    binary: &Binary,
    left: Vector,
    right: Vector,
    steps: &Steps,
) -> Result<Vector, EvalError> {
    let count = steps.count();
    let matching = binary.matching.clone().unwrap_or_default();
    let mut grouper = Grouper::new(matching.labels, !matching.on);
    // What the other side has, per group.
    let (seen_side, kept_side) = match binary.op {
        BinaryOp::Or => (&left, &right),
        _ => (&right, &left),
    };
    let mut seen: Vec<Bits> = Vec::new();
    for series in seen_side {
        let group = grouper.group(&series.labels, false);
        seen.resize_with(seen.len().max(group + 1), || Bits::none(count));
        seen[group].add_row(&series.row);
    }
    let wanted = binary.op == BinaryOp::And;
    let groups: Vec<usize> = kept_side.iter().map(|s| grouper.group(&s.labels, false)).collect();
    let keep = |(series, group): (SeriesRow, usize)| {
        let seen = seen.get(group);
        let row = series.row.keep(|step| seen.is_some_and(|bits| bits.get(step)) == wanted);
        SeriesRow { row, ..series }
    };
    evaluator.alive()?;
    let (mut out, kept) = match binary.op {
        BinaryOp::Or => (left, right),
        _ => (Vector::new(), left),
    };
    out.extend(kept.into_iter().zip(groups).map(keep).filter(|series| series.row.points() > 0));
    merge(out)
}

/// The series of one side by the group of their matching labels.
struct Side {
    vector: Vector,
    groups: Vec<usize>,
}

impl Side {
    fn new(vector: Vector, grouper: &mut Grouper) -> Side {
        let groups = vector.iter().map(|s| grouper.group(&s.labels, false)).collect();
        Side { vector, groups }
    }

    /// The positions of the series of each of `count` groups.
    fn by_group(&self, count: usize) -> Vec<Vec<usize>> {
        let mut by_group = vec![Vec::new(); count];
        for (i, group) in self.groups.iter().enumerate() {
            by_group[*group].push(i);
        }
        by_group
    }
}

/// Operators that calculate or compare, between vectors.
pub(super) fn combine(
    evaluator: &Evaluator<'_>,
    node: &Node<'_>,
    binary: &Binary,
    left: Vector,
    right: Vector,
    steps: &Steps,
) -> Result<Vector, EvalError> {
    let default = VectorMatching::default();
    let matching = binary.matching.as_ref().unwrap_or(&default);
    // From here on, the one side is that on which partners must be unique.
    let swapped = matching.card == Cardinality::OneToMany;
    let (many, one) = if swapped { (right, left) } else { (left, right) };
    let mut grouper = Grouper::new(matching.labels.clone(), !matching.on);
    let (many, one) = (Side::new(many, &mut grouper), Side::new(one, &mut grouper));
    let elements = Elements { evaluator, op: binary.op, return_bool: binary.return_bool, pos: node.pos };
    let ones = one.by_group(grouper.labels.len());
    let mut matcher = Matcher {
        elements,
        binary,
        matching,
        swapped,
        eager: !evaluator.options.delayed_name_removal,
        count: steps.count(),
        matched: vec![HashMap::new(); grouper.labels.len()],
        out: Merger::default(),
    };
    matcher.check_one_side(&many, &one, &ones, &grouper.labels)?;
    for (series, &group) in many.vector.iter().zip(&many.groups) {
        evaluator.alive()?;
        for &partner in &ones[group] {
            matcher.pair(group, series, &one.vector[partner], |_| true)?;
        }
        if let Some(fill) = matching.fill_right {
            let mut present = Bits::none(matcher.count);
            ones[group].iter().for_each(|&i| present.add_row(&one.vector[i].row));
            let filler = matcher.filler(&grouper.labels[group], fill);
            matcher.pair(group, series, &filler, |step| !present.get(step))?;
        }
    }
    if let Some(fill) = matching.fill_left {
        for (series, &group) in one.vector.iter().zip(&one.groups) {
            let matched = matcher.matched_steps(group);
            let filler = matcher.filler(&grouper.labels[group], fill);
            matcher.pair(group, &filler, series, |step| !matched.get(step))?;
        }
    }
    Ok(matcher.out.finish())
}

struct Matcher<'m, 'e, 'a> {
    elements: Elements<'e, 'a>,
    binary: &'m Binary,
    matching: &'m VectorMatching,
    swapped: bool,
    eager: bool,
    count: usize,
    /// Per group and, if many may match one, per label set of the result: the steps at which
    /// partners have met.
    matched: Vec<HashMap<Option<Labels>, Bits>>,
    out: Merger,
}

impl Matcher<'_, '_, '_> {
    /// Checks that on the one side no two series of a group have a value at the same step, as far
    /// as there is anything on the many side, or anything to be filled in.
    fn check_one_side(
        &self,
        many: &Side,
        one: &Side,
        ones: &[Vec<usize>],
        groups: &[Labels],
    ) -> Result<(), EvalError> {
        if ones.iter().all(|group| group.len() < 2) {
            return Ok(());
        }
        let mut looked_at = Bits::none(self.count);
        let fills = self.matching.fill_left.is_some() || self.matching.fill_right.is_some();
        if fills {
            (0..self.count).for_each(|i| looked_at.set(i));
        } else {
            many.vector.iter().for_each(|series| looked_at.add_row(&series.row));
        }
        for (members, labels) in ones.iter().zip(groups).filter(|(members, _)| members.len() > 1) {
            let mut seen: Vec<Option<usize>> = vec![None; self.count];
            for &i in members {
                let row = &one.vector[i].row;
                let mut present = Bits::none(self.count);
                present.add_row(row);
                for step in (0..self.count).filter(|step| present.get(*step) && looked_at.get(*step)) {
                    match seen[step] {
                        None => seen[step] = Some(i),
                        Some(other) => {
                            let pair = (&one.vector[i].labels, &one.vector[other].labels);
                            return Err(self.not_unique(labels, pair));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn not_unique(&self, group: &Labels, (a, b): (&Labels, &Labels)) -> EvalError {
        let side = if self.swapped { "left" } else { "right" };
        let (a, b) = (a.min(b), a.max(b));
        EvalError::Execution(format!(
            "found duplicate series for the match group {group} on the {side} hand-side of the operation: \
             [{a}, {b}];many-to-many matching not allowed: matching labels must be unique on one side"
        ))
    }

    /// A series to stand in for missing partners of a group.
    fn filler(&self, labels: &Labels, fill: f64) -> SeriesRow {
        SeriesRow { labels: labels.clone(), drop_name: false, row: Row::full(vec![fill; self.count]) }
    }

    /// All steps at which partners of a group have met.
    fn matched_steps(&self, group: usize) -> Bits {
        let mut all = Bits::none(self.count);
        self.matched[group].values().for_each(|bits| all.add(bits));
        all
    }

    /// Combines two partners at the steps for which `at` is true.
    fn pair(
        &mut self,
        group: usize,
        many: &SeriesRow,
        one: &SeriesRow,
        at: impl Fn(usize) -> bool,
    ) -> Result<(), EvalError> {
        let (left, right) = if self.swapped { (one, many) } else { (many, one) };
        let (row, matched) = self.elements.rows(&left.row, &right.row, at)?;
        let labels = self.result_labels(&many.labels, &one.labels);
        let one_to_one = self.matching.card == Cardinality::OneToOne;
        let key = (!one_to_one).then(|| labels.clone());
        let known = self.matched[group].entry(key).or_insert_with(|| Bits::none(self.count));
        if known.overlaps(&matched) {
            return Err(EvalError::Execution(
                if one_to_one {
                    "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
                } else {
                    "multiple matches for labels: grouping labels must ensure unique matches"
                }
                .to_owned(),
            ));
        }
        known.add(&matched);
        if row.points() == 0 {
            return Ok(());
        }
        self.elements.evaluator.budget.hold(self.count as u64)?;
        self.out.add(SeriesRow { labels, drop_name: self.binary.return_bool || many.drop_name, row })
    }

    /// The labels of the result of two partners.
    fn result_labels(&self, many: &Labels, one: &Labels) -> Labels {
        let nameless = is_arithmetic(self.binary.op) || self.eager && self.binary.return_bool;
        let matching = self.matching;
        let one_to_one = matching.card == Cardinality::OneToOne;
        let labels = many.without(|name| {
            nameless && is_metadata(name)
                || one_to_one && matching.labels.iter().any(|label| label == name) != matching.on
        });
        if matching.include.is_empty() {
            return labels;
        }
        let mut builder = labels.to_builder();
        for name in &matching.include {
            builder.set(name, one.get(name).unwrap_or(""));
        }
        builder.build()
    }
}
