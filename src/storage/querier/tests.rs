//! What a view selects and reads, of layers that are made up.

use super::*;
use crate::storage::part::is_deleted;
use crate::storage::policy::{Policies, PolicySets, RetentionPolicy};
use crate::storage::series_set::ColumnPiece;
use larum_storage_format::tombstones::Interval;
use larum_storage_format::{IdentitySeed, STALE_NAN};
use std::time::Duration;

/// The value of a layer whose index is damaged.
const UNREADABLE: f64 = -2.0;

/// Series of one name with samples on one column each.
struct Fake {
    series: Vec<(SeriesId, Labels)>,
    times: Vec<i64>,
    value: f64,
}

impl Fake {
    fn layer(jobs: &[&str], times: &[i64], value: f64) -> Layer {
        let labels = |job: &&str| Labels::from_pairs([("__name__", "m"), ("job", *job)]).unwrap();
        let with_id = |labels: Labels| (SeriesId::of(&labels, IdentitySeed(1)), labels);
        let mut series: Vec<_> = jobs.iter().map(labels).map(with_id).collect();
        series.sort();
        Layer { part: Arc::new(Fake { series, times: times.to_vec(), value }), tombstones: None }
    }
}

impl Part for Fake {
    fn time_range(&self) -> Option<TimeRange> {
        Some(TimeRange::new(*self.times.first()?, *self.times.last()?))
    }

    fn select(&self, matchers: &[Matcher]) -> Result<Vec<(SeriesId, u32)>, ReadError> {
        if self.value == UNREADABLE {
            return Err(ReadError::Canceled);
        }
        let passes = |labels: &Labels| matchers.iter().all(|m| m.matches_series(labels));
        Ok((0..).zip(&self.series).filter(|(_, s)| passes(&s.1)).map(|(i, s)| (s.0, i)).collect())
    }

    fn policy_sets(&self, policies: &Arc<Policies>) -> Result<Arc<PolicySets>, ReadError> {
        let select = |matchers: &[Matcher]| Ok(self.select(matchers)?.into_iter().map(|(_, s)| s).collect());
        policies.sets(self.series.len() as u64, select).map(Arc::new)
    }

    fn label_sets(&self, series: &mut dyn Iterator<Item = u32>, out: &mut LabelSets) {
        for series in series {
            let labels = self.series[series as usize].1.iter();
            let numbers: Vec<u32> = labels.map(|(name, value)| out.add_label(name, value)).collect();
            out.add_set(numbers);
        }
    }

    fn label_reader<'a>(&'a self, among: Option<&[String]>) -> PartLabels<'a> {
        let among = among.map(<[String]>::to_vec);
        Box::new(move |series| {
            let labels = &self.series[series as usize].1;
            let is_left_out =
                |name: &str| among.as_ref().is_some_and(|names| !names.iter().any(|n| n == name));
            labels.without(is_left_out)
        })
    }

    fn newest(
        &self,
        _part: u32,
        series: &[u32],
        range: TimeRange,
        _columns: &mut Columns,
        newest: &mut Vec<Newest>,
    ) {
        let last = self.times.iter().copied().rfind(|&t| range.contains(t));
        let of_each = match last {
            _ if self.value < 0.0 => Newest::Unknown,
            Some(t_ms) => Newest::Float { t_ms, value: self.value },
            None => Newest::None,
        };
        newest.extend(series.iter().map(|_| of_each));
    }

    fn load(&self, _series: u32, load: &mut Load<'_>) {
        let from = self.times.partition_point(|&t| t < load.range.min_ms);
        let to = self.times.partition_point(|&t| t <= load.range.max_ms).max(from);
        let piece = ColumnPiece { part: load.part, column: 0, start: from as u32, len: (to - from) as u32 };
        load.runs.push(Run {
            origin: Some(piece),
            timestamps: load.columns.shared(&[piece], || self.times[from..to].to_vec()),
            floats: vec![self.value; to - from],
            histograms: Vec::new(),
            start_timestamps: Vec::new(),
        });
        if self.value < 0.0 {
            load.damaged.push(ReadError::Canceled);
        }
    }

    fn count_left(
        &self,
        _series: u32,
        deleted: &[Interval],
        range: TimeRange,
        _columns: &mut Columns,
    ) -> Result<u64, ReadError> {
        let is_left = |&&t: &&i64| range.contains(t) && !is_deleted(deleted, t);
        Ok(self.times.iter().filter(is_left).count() as u64)
    }

    fn label_names(&self, matchers: &[Matcher]) -> Result<Vec<String>, ReadError> {
        let names = |is_any: bool| if is_any { vec!["job".into(), "__name__".into()] } else { Vec::new() };
        self.select(matchers).map(|selected| names(!selected.is_empty()))
    }

    fn label_values(&self, name: &str, matchers: &[Matcher]) -> Result<Vec<String>, ReadError> {
        let selected = self.select(matchers)?.into_iter();
        Ok(selected.filter_map(|(_, s)| self.label_reader(None)(s).get(name).map(str::to_owned)).collect())
    }
}

fn view(border_ms: i64) -> View {
    let partitions = [Fake::layer(&["a", "b"], &[10, 20], 1.0), Fake::layer(&["b", "c"], &[20, 30], 2.0)];
    View::new(partitions.into(), [Fake::layer(&["c", "b"], &[30, 40], 3.0).part], Borders::at(border_ms))
}

fn load(view: &View, job: &str, range: TimeRange) -> Vec<(i64, f64)> {
    let set = view.select(&[Matcher::equal("job", job)], range).unwrap();
    assert!(set.len() <= 1);
    (0..set.len())
        .flat_map(|i| {
            assert_eq!(set.labels(i).get("job"), Some(job));
            let samples = set.load(i, &mut Columns::default()).unwrap();
            samples.timestamps.iter().copied().zip(samples.floats).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn a_series_is_merged_from_its_layers_and_the_newest_wins() {
    let view = view(i64::MIN);
    assert_eq!(load(&view, "a", TimeRange::ALL), [(10, 1.0), (20, 1.0)]);
    assert_eq!(load(&view, "b", TimeRange::ALL), [(10, 1.0), (20, 2.0), (30, 3.0), (40, 3.0)]);
    assert_eq!(load(&view, "b", TimeRange::new(20, 30)), [(20, 2.0), (30, 3.0)]);
    assert_eq!(view.select(&[], TimeRange::ALL).unwrap().len(), 3);
    assert_eq!(view.select(&[], TimeRange::new(0, 15)).unwrap().len(), 2);
    assert!(view.select(&[], TimeRange::new(5, 4)).unwrap().is_empty());
}

#[test]
fn what_lies_before_the_border_is_not_shown() {
    let view = view(25);
    assert_eq!(load(&view, "a", TimeRange::ALL), []);
    assert_eq!(load(&view, "b", TimeRange::ALL), [(30, 3.0), (40, 3.0)]);
    assert_eq!(view.time_range(), Some(TimeRange::new(25, 40)));
    assert_eq!(view.label_values("job", &[], TimeRange::ALL).items, ["b", "c"]);
}

/// Three layers as [`view`] has them, where a, b and c are kept from these times on.
fn view_by_policy(borders: [i64; 3]) -> View {
    let now = 1000;
    let keep = |border: i64| Some(Duration::from_millis((now - border).unsigned_abs()));
    let policy =
        |(job, border)| RetentionPolicy { matchers: vec![Matcher::equal("job", job)], keep: keep(border) };
    let policies = ["a", "b"].into_iter().zip(borders).map(policy).collect();
    let policies = Arc::new(Policies::new(keep(borders[2]), policies));
    View { borders: Borders::new(&policies, now), ..view(i64::MIN) }
}

#[test]
fn a_series_is_shown_from_the_border_of_its_policy_on() {
    for borders in [[0, 0, 0], [20, 0, 0], [0, 30, 31], [21, 31, 0], [20, 35, 30], [41, 41, 41], [0, 41, 45]]
    {
        let [a, b, c] = borders;
        let view = view_by_policy(borders);
        let all = [
            ("a", a, &[(10, 1.0), (20, 1.0)][..]),
            ("b", b, &[(10, 1.0), (20, 2.0), (30, 3.0), (40, 3.0)]),
            ("c", c, &[(20, 2.0), (30, 3.0), (40, 3.0)]),
        ];
        for range in [TimeRange::ALL, TimeRange::new(15, 30), TimeRange::new(35, 90), TimeRange::new(0, 20)] {
            let mut listed = Vec::new();
            for (job, border, samples) in all {
                let is_shown = |t: i64| t >= border && range.contains(t);
                let expected: Vec<_> = samples.iter().copied().filter(|s| is_shown(s.0)).collect();
                assert_eq!(load(&view, job, range), expected, "{job} of {borders:?} in {range:?}");
                // Without policies, a layer that overlaps the range has its series there.
                let only = [vec![Matcher::equal("job", job)]];
                let names = view.label_names(&only, TimeRange::ALL).items.len();
                assert_eq!(names, if samples.iter().any(|s| s.0 >= border) { 2 } else { 0 }, "{borders:?}");
                listed.extend((!expected.is_empty()).then_some(job));
                let set = view.select(&only[0], range).unwrap();
                for i in 0..set.len() {
                    let newest = set.load_newest(i, &mut Columns::default()).unwrap();
                    assert_eq!(newest.timestamps.last(), expected.last().map(|(t, _)| t));
                    let mut known = Vec::new();
                    set.newest(i..i + 1, &mut Columns::default(), &mut known);
                    match (known[0], expected.last()) {
                        (Newest::Unknown, _) | (Newest::None, None) => {}
                        (Newest::Float { t_ms, value }, Some(&last)) => assert_eq!((t_ms, value), last),
                        other => panic!("{other:?} of {borders:?} in {range:?}"),
                    }
                }
            }
            if range == TimeRange::ALL {
                assert_eq!(view.label_values("job", &[], range).items, listed, "{borders:?}");
                assert_eq!(view.series(&[], range).items.len(), listed.len());
                let first =
                    all.iter().flat_map(|(_, border, s)| s.iter().map(|s| s.0).find(|t| t >= border)).min();
                let shown = view.time_range();
                assert!(shown.is_none_or(|shown| first.is_none_or(|first| shown.min_ms <= first)));
                assert_eq!(shown.is_none(), first.is_none(), "{borders:?}");
            }
        }
    }
}

#[test]
fn a_deletion_hides_what_its_layer_holds_and_nothing_else() {
    let mut layers = [Fake::layer(&["a", "b"], &[10, 20], 1.0), Fake::layer(&["b", "c"], &[20, 30], 2.0)];
    let b = Labels::from_pairs([("__name__", "m"), ("job", "b")]).unwrap();
    let always = Interval { min_ms: i64::MIN, max_ms: i64::MAX };
    let tombstones = Tombstones::new(0, 1, vec![(SeriesId::of(&b, IdentitySeed(1)), always)]);
    layers[0].tombstones = Some(Arc::new(tombstones));
    let view = View::new(layers.into(), [], Borders::at(i64::MIN));
    assert_eq!(load(&view, "b", TimeRange::ALL), [(20, 2.0), (30, 2.0)]);
    assert_eq!(load(&view, "a", TimeRange::ALL), [(10, 1.0), (20, 1.0)]);
}

#[test]
fn a_series_without_a_sample_that_is_left_is_not_listed() {
    let a = Labels::from_pairs([("__name__", "m"), ("job", "a")]).unwrap();
    let all = TimeRange::ALL;
    for (deleted, range, is_listed) in [
        (vec![(10, 20)], all, false),
        (vec![(0, 11), (13, 99)], all, false),
        (vec![(10, 19)], all, true),
        (vec![(10, 19)], TimeRange::new(0, 19), false),
        (vec![(11, 20)], TimeRange::new(0, 19), true),
    ] {
        let mut layer = Fake::layer(&["a", "b"], &[10, 20], 1.0);
        let id = SeriesId::of(&a, IdentitySeed(1));
        let deleted_of = deleted.iter().map(|&(min_ms, max_ms)| (id, Interval { min_ms, max_ms }));
        layer.tombstones = Some(Arc::new(Tombstones::new(0, 1, deleted_of.collect())));
        let view = View::new([layer].into(), [], Borders::at(i64::MIN));
        let jobs: &[&str] = if is_listed { &["a", "b"] } else { &["b"] };
        assert_eq!(view.label_values("job", &[], range).items, jobs, "{deleted:?}");
        assert_eq!(view.series(&[], range).items.len(), jobs.len(), "{deleted:?}");
        let only_a = [vec![Matcher::equal("job", "a")]];
        let names: &[&str] = if is_listed { &["__name__", "job"] } else { &[] };
        assert_eq!(view.label_names(&only_a, range).items, names, "{deleted:?}");
    }
}

#[test]
fn labels_are_listed_once_and_sorted() {
    let view = view(i64::MIN);
    assert_eq!(view.label_names(&[], TimeRange::ALL).items, ["__name__", "job"]);
    let sets = [vec![Matcher::equal("job", "c")], vec![Matcher::equal("job", "a")]];
    assert_eq!(view.label_values("job", &sets, TimeRange::ALL).items, ["a", "c"]);
    let series = view.series(&sets, TimeRange::ALL).items;
    let jobs: Vec<_> = series.iter().map(|labels| labels.get("job").unwrap().to_owned()).collect();
    assert_eq!(jobs, ["a", "c"]);
}

#[test]
fn the_newest_sample_is_not_sought_where_all_is_older() {
    const DAMAGED: f64 = -1.0;
    let stale = STALE_NAN;
    for (layers, expected) in [
        ([(&[10, 20], 1.0), (&[30, 40], 2.0)], (40, 2.0)),
        ([(&[10, 40], 1.0), (&[20, 40], 2.0)], (40, 2.0)),
        ([(&[10, 40], 1.0), (&[30, 40], stale)], (40, 1.0)),
        ([(&[10, 50], 1.0), (&[20, 40], 2.0)], (50, 1.0)),
        ([(&[10, 20], DAMAGED), (&[30, 40], 2.0)], (40, 2.0)),
    ] {
        let layers = layers.map(|(times, value)| Fake::layer(&["a"], times, value));
        let view = View::new(layers.into(), [], Borders::at(i64::MIN));
        let set = view.select(&[], TimeRange::ALL).unwrap();
        let newest = set.load_newest(0, &mut Columns::default()).unwrap();
        let last = newest.timestamps.len() - 1;
        assert_eq!((newest.timestamps[last], newest.floats[last]), expected);
        let mut known = Vec::new();
        set.newest(0..1, &mut Columns::default(), &mut known);
        assert_eq!(known, [Newest::Float { t_ms: expected.0, value: expected.1 }]);
        assert!(set.warnings().is_empty(), "{:?}", set.warnings());
    }
}

#[test]
fn damage_becomes_a_warning_that_names_the_series() {
    let view = View::new([Fake::layer(&["a"], &[10], -1.0)].into(), [], Borders::at(i64::MIN));
    let set = view.select(&[], TimeRange::ALL).unwrap();
    assert!(set.warnings().is_empty());
    set.load(0, &mut Columns::default()).unwrap();
    assert!(set.warnings()[0].contains(r#"job="a""#), "{:?}", set.warnings());
}

#[test]
fn a_layer_with_a_damaged_index_is_left_out_and_told_of() {
    let layers = [Fake::layer(&["a", "b"], &[10], UNREADABLE), Fake::layer(&["b"], &[10], 1.0)];
    let view = View::new(layers.into(), [], Borders::at(i64::MIN));
    let set = view.select(&[], TimeRange::ALL).unwrap();
    assert_eq!((set.len(), set.labels(0).get("job")), (1, Some("b")));
    assert!(set.warnings()[0].contains("left out"), "{:?}", set.warnings());
    let series = view.series(&[], TimeRange::ALL);
    assert_eq!((series.items.len(), series.warnings), (1, set.warnings()));
    assert_eq!(view.label_values("job", &[], TimeRange::ALL).items, ["b"]);
    assert_eq!(view.label_names(&[], TimeRange::ALL).warnings.len(), 1);
}
