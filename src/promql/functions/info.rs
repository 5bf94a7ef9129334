//! `info(v, {selector})`: series with the labels of what describes them.
//!
//! An info series, such as `target_info`, belongs to all series with the same `instance` and `job`.
//! Its other labels are added to theirs, at each step those of the info series present there. The
//! rules are Prometheus' (`promql/info.go`).

use super::super::eval::{EvalError, Operand, Site};
use super::super::merge::Merger;
use super::super::plan::{Kind, Node, Place, Selector};
use super::super::row::{Bits, Row, SeriesRow, Vector};
use super::super::selector::{self, Time};
use crate::storage::{MatchOp, Matcher};
use larum_storage_format::Labels;
use larum_storage_format::labels::METRIC_NAME;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The labels that say what a series describes.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// The info metric if none is named.
const TARGET_INFO: &str = "target_info";

/// The values of the identifying labels, empty if missing.
type Identity = [String; IDENTIFYING.len()];

fn identity(labels: &Labels) -> Identity {
    IDENTIFYING.map(|name| labels.get(name).unwrap_or("").to_owned())
}

/// `info(v, {selector})`
pub(super) fn info(site: &Site<'_, '_>) -> Result<Operand, EvalError> {
    let base = site.evaluator.vector(&site.args[0], &site.steps)?;
    let matchers: &[Matcher] = match site.args.get(1).map(|arg| &arg.kind) {
        Some(Kind::Selector(selector)) => selector.matchers,
        _ => &[],
    };
    let (names, data): (Vec<&Matcher>, Vec<&Matcher>) =
        matchers.iter().partition(|matcher| matcher.name() == METRIC_NAME);
    let default = Matcher::equal(METRIC_NAME, TARGET_INFO);
    let any_info = Matcher::new(MatchOp::Regex, METRIC_NAME, ".+_info")
        .map_err(|error| EvalError::Execution(error.to_string()))?;
    let mut names = names;
    let positive = names.iter().any(|matcher| matches!(matcher.op(), MatchOp::Equal | MatchOp::Regex));
    match (site.args.len(), positive) {
        (1, _) => names.push(&default),
        // What is excluded is excluded from what looks like info metrics.
        (_, false) if !names.is_empty() => names.push(&any_info),
        _ => {}
    }
    // What is an info series itself is left alone, if it is said which are.
    let leaves_alone = site.args.len() == 1 || positive;
    let is_info = |series: &SeriesRow| {
        let name = series.labels.metric_name().unwrap_or("");
        leaves_alone && names.iter().all(|matcher| matcher.matches(name))
    };
    let (ignored, base): (Vector, Vector) = base.into_iter().partition(is_info);
    if names.is_empty() {
        names.push(&default);
    }
    let all: Vec<Matcher> = names.into_iter().chain(data.iter().copied()).cloned().collect();
    let infos = Infos::load(site, &base, all)?;
    let enrich = Enrichment { site, data, infos };
    let mut out = Merger::default();
    ignored.into_iter().try_for_each(|series| out.add(series))?;
    for series in base {
        enrich.series(series, &mut out)?;
    }
    Ok(Operand::Vector(out.finish()))
}

/// When the samples of the first selector within `node` are looked for: so are those of info series.
fn place_within(node: &Node<'_>, outer: Place) -> Option<Place> {
    let inside = |inner: &Place| match inner.at_ms {
        Some(_) => *inner,
        None => Place { at_ms: outer.at_ms, offset_ms: outer.offset_ms.saturating_add(inner.offset_ms) },
    };
    match &node.kind {
        Kind::Number(_) | Kind::Text(_) => None,
        Kind::Selector(selector) | Kind::Matrix { selector, .. } => Some(inside(&selector.place)),
        Kind::Subquery(subquery) => place_within(&subquery.expr, inside(&subquery.place)),
        Kind::Call { args, .. } => args.iter().find_map(|arg| place_within(arg, outer)),
        Kind::Aggregate { expr, param, .. } => {
            place_within(expr, outer).or_else(|| place_within(param.as_deref()?, outer))
        }
        Kind::Negate(inner) => place_within(inner, outer),
        Kind::Binary { lhs, rhs, .. } => place_within(lhs, outer).or_else(|| place_within(rhs, outer)),
    }
}

/// At each step the number of an info series, if there is one.
type PerStep = Vec<Option<u32>>;

/// Info series, and at which steps which of them counts.
struct Infos {
    labels: Vec<Labels>,
    /// By identity and metric name.
    current: HashMap<Identity, BTreeMap<String, PerStep>>,
}

impl Infos {
    /// Loads what describes any series of `base`. Of several info series of one metric that describe
    /// the same, the one with the newest sample counts.
    fn load(site: &Site<'_, '_>, base: &Vector, mut matchers: Vec<Matcher>) -> Result<Infos, EvalError> {
        let mut infos = Infos { labels: Vec::new(), current: HashMap::new() };
        let mut values: [BTreeSet<String>; IDENTIFYING.len()] = Default::default();
        let count = site.steps.count();
        let mut looked_at = Bits::none(count);
        for series in base {
            looked_at.add_row(&series.row);
            for (known, value) in values.iter_mut().zip(identity(&series.labels)) {
                if !value.is_empty() {
                    known.insert(value);
                }
            }
        }
        if values.iter().all(BTreeSet::is_empty) {
            return Ok(infos);
        }
        for (name, known) in IDENTIFYING.iter().zip(&values) {
            if let (1, Some(only)) = (known.len(), known.first()) {
                matchers.push(Matcher::equal(*name, only.as_str()));
            }
        }
        let nowhere = Place { at_ms: None, offset_ms: 0 };
        let place = place_within(&site.args[0], nowhere).unwrap_or(nowhere);
        let selector =
            Selector { matchers: &matchers, place, extension: None, statistics: false, among: None };
        let evaluator = site.evaluator;
        // By number of the info series: when its sample at each step was taken.
        let mut times: Vec<Vec<f64>> = Vec::new();
        selector::each_time(evaluator, &selector, Time::SampledFloats, &site.steps, &mut |series| {
            if !series.row.histograms.is_empty() {
                return Err(EvalError::Execution("info sample should be float".to_owned()));
            }
            let identity = identity(&series.labels);
            if identity.iter().zip(&values).any(|(value, known)| !known.is_empty() && !known.contains(value))
            {
                return Ok(());
            }
            evaluator.budget.hold(2 * count as u64)?;
            let number = infos.labels.len() as u32;
            infos.labels.push(series.labels.clone());
            times.push(series.row.floats.clone());
            let name = series.labels.metric_name().unwrap_or("").to_owned();
            let by_name = infos.current.entry(identity).or_default();
            let current = by_name.entry(name).or_insert_with(|| vec![None; count]);
            for (step, current) in current.iter_mut().enumerate() {
                let Some(time) = series.row.float(step) else { continue };
                match *current {
                    Some(other) if times[other as usize][step] > time => {}
                    Some(other) if times[other as usize][step] == time && looked_at.get(step) => {
                        let t_ms = (time * 1000.0).round();
                        let (existing, new) = (&infos.labels[other as usize], &series.labels);
                        return Err(EvalError::Execution(format!(
                            "found duplicate series for info metric: existing {existing} @ {t_ms}, new {new} @ {t_ms}"
                        )));
                    }
                    _ => *current = Some(number),
                }
            }
            Ok(())
        })?;
        Ok(infos)
    }
}

/// What is added to series.
struct Enrichment<'s, 'e, 'a> {
    site: &'s Site<'e, 'a>,
    /// The matchers of labels that are to be added; all are if there is none.
    data: Vec<&'s Matcher>,
    infos: Infos,
}

impl Enrichment<'_, '_, '_> {
    /// Gives `series` to `out` with the labels it has at each step.
    fn series(&self, series: SeriesRow, out: &mut Merger) -> Result<(), EvalError> {
        self.site.evaluator.alive()?;
        let count = self.site.steps.count();
        let found: Vec<&PerStep> = self
            .infos
            .current
            .get(&identity(&series.labels))
            .into_iter()
            .flat_map(BTreeMap::values)
            .collect();
        let mut present = Bits::none(count);
        present.add_row(&series.row);
        // The steps at which the same info series describe it.
        let mut alike: BTreeMap<Vec<u32>, Bits> = BTreeMap::new();
        for step in (0..count).filter(|step| present.get(*step)) {
            let infos: Vec<u32> = found.iter().filter_map(|per_step| per_step[step]).collect();
            alike.entry(infos).or_insert_with(|| Bits::none(count)).set(step);
        }
        let only = alike.len() == 1;
        for (infos, steps) in alike {
            // Without a description, a label that has to be there is not.
            if infos.is_empty() && self.data.iter().any(|matcher| !matcher.matches("")) {
                continue;
            }
            let labels = self.labels(&series.labels, &infos)?;
            let row: Row = if only { series.row.clone() } else { series.row.clone().keep(|i| steps.get(i)) };
            self.site.evaluator.budget.hold(count as u64)?;
            out.add(SeriesRow { labels, drop_name: series.drop_name, row })?;
        }
        Ok(())
    }

    /// The labels `base` and what info series add.
    fn labels(&self, base: &Labels, infos: &[u32]) -> Result<Labels, EvalError> {
        let mut builder = base.to_builder();
        let wanted = |name: &str| self.data.is_empty() || self.data.iter().any(|m| m.name() == name);
        for &info in infos {
            for (name, value) in &self.infos.labels[info as usize] {
                if name == METRIC_NAME || !wanted(name) || base.get(name).is_some() {
                    continue;
                }
                if builder.get(name).is_some_and(|known| !known.is_empty() && known != value) {
                    return Err(EvalError::Execution(format!("conflicting label: {name}")));
                }
                builder.set(name, value);
            }
        }
        Ok(builder.build())
    }
}
