//! Reading: a view of everything stored, held alive, and the selections made from it.
//!
//! 1. A view is a list of layers, in rising precedence: partitions by sequence, then the generations
//!    of the head. Whatever happens meanwhile, it shows what was there when it was taken (the
//!    active generation of the head goes on growing).
//! 2. A selection asks every layer that overlaps its range for matching series, and brings those
//!    of one identity together. Nothing is decoded.
//!    A layer whose index is damaged where it would have to be read is left out as a whole, with a
//!    warning: no part of its answer passes for all of it.
//! 3. Loading a series collects its runs from its layers, cuts out what was deleted from each
//!    layer, and merges the rest. Who wants nothing but the newest sample gets the newest of each
//!    layer: the newest of these is the newest of all, and each layer that holds that time has it.
//!    Layers that end before it are not asked.

use super::cutter::TIMESTAMPS_KEPT;
use super::error::ReadError;
use super::gathered::Gathered;
use super::label_sets::LabelSets;
use super::matcher::Matcher;
use super::merge::{merge, push_without};
use super::part::{Load, Part, PartLabels, Run};
use super::policy::{Borders, Kept, from};
use super::series_set::{Columns, LabelReader, Newest, ReadCost, SeriesSet, Source};
use super::time::TimeRange;
use crate::budget::{Refused, Reservation, Share};
use larum_storage_format::tombstones::Tombstones;
use larum_storage_format::{Labels, Samples, SeriesId};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// So many warnings are kept in full; the others are counted.
const WARNINGS_MAX: usize = 10;

/// Samples that are read together, and what was deleted from them.
#[derive(Clone)]
pub(crate) struct Layer {
    /// What holds the samples.
    pub part: Arc<dyn Part>,
    /// What was deleted from it.
    pub tombstones: Option<Arc<Tombstones>>,
}

/// A consistent view of everything stored: one head and a set of partitions, held alive.
pub struct View {
    partitions: Arc<[Layer]>,
    generations: Vec<Layer>,
    /// Nothing older is shown.
    borders: Borders,
    /// What selections and listings take memory from.
    memory: Option<Arc<Reservation>>,
}

impl View {
    /// A view of `partitions`, by rising sequence, and `generations`, oldest first, that shows
    /// nothing older than the `borders`.
    pub(crate) fn new(
        partitions: Arc<[Layer]>,
        generations: impl IntoIterator<Item = Arc<dyn Part>>,
        borders: Borders,
    ) -> View {
        let generations = generations.into_iter();
        let generations = generations.map(|part| Layer { part, tombstones: None }).collect();
        View { partitions, generations, borders, memory: None }
    }

    /// The same, but what is found takes its memory from a reservation.
    pub fn within(self, memory: Option<&Arc<Reservation>>) -> View {
        View { memory: memory.cloned(), ..self }
    }

    /// Nothing older is shown.
    pub(crate) fn borders(&self) -> &Borders {
        &self.borders
    }

    /// The times between which samples are stored; `None` if nothing is.
    pub fn time_range(&self) -> Option<TimeRange> {
        self.layers()
            .filter_map(|layer| layer.shown(&self.borders))
            .filter(|range| !range.is_empty())
            .reduce(|a, b| a.hull(&b))
    }

    /// The names of the labels of the series that match any of the `sets` (all series, if there is
    /// no set), sorted.
    pub fn label_names(&self, sets: &[Vec<Matcher>], range: TimeRange) -> Listing<Vec<String>> {
        self.collect(sets, range, |layer, matchers, asked| layer.label_names(matchers, asked))
    }

    /// The values of the label `name` among the series that match any of the `sets`, sorted.
    pub fn label_values(&self, name: &str, sets: &[Vec<Matcher>], range: TimeRange) -> Listing<Vec<String>> {
        self.collect(sets, range, |layer, matchers, asked| layer.label_values(name, matchers, asked))
    }

    /// The series that match any of the `sets` (all series, if there is no set) and may hold samples
    /// in `range`, sorted by labels.
    pub fn series(&self, sets: &[Vec<Matcher>], range: TimeRange) -> Listing<LabelSets> {
        let mut list: Listing<LabelSets> = Listing::default();
        let mut share = Share::of(self.memory.as_ref());
        let layers: Vec<&Layer> = self.layers_in(range).map(|(_, layer)| layer).collect();
        let mut found = Gathered::new(|a: &Found, b| a.id == b.id, |_| 2 * size_of::<Found>());
        for (place, layer) in (0..).zip(&layers) {
            let asked = Asked { range, borders: &self.borders };
            for matchers in or_everything(sets) {
                match layer.select_shown(matchers, asked) {
                    Ok(selected) => {
                        found.add(selected.into_iter().map(|(id, series)| Found {
                            id,
                            layer: place,
                            series,
                        }));
                    }
                    Err(error) => list.left_out(&error),
                }
                if let Err(refused) = share.resize(found.bytes()) {
                    return Listing { refused: Some(refused), ..list };
                }
            }
        }
        let mut found = found.finish();
        found.sort_unstable_by_key(|found| (found.layer, found.series));
        for of_layer in found.chunk_by(|a, b| a.layer == b.layer) {
            let part = &layers[of_layer[0].layer as usize].part;
            // Labels are as many as they are when they are read: each series adds a few numbers.
            let more = of_layer.len() * SET_BYTES;
            if let Err(refused) = share.resize(found_bytes(&found) + list.items.len_bytes() + more) {
                return Listing { refused: Some(refused), ..list };
            }
            part.label_sets(&mut of_layer.iter().map(|found| found.series), &mut list.items);
        }
        list.refused = share.resize(found_bytes(&found) + list.items.len_bytes()).err();
        if list.refused.is_none() {
            list.items.sort();
        }
        list.share = share;
        list
    }

    fn collect(
        &self,
        sets: &[Vec<Matcher>],
        range: TimeRange,
        ask: impl Fn(&Layer, &[Matcher], Asked<'_>) -> Result<Vec<String>, ReadError>,
    ) -> Listing<Vec<String>> {
        let mut list: Listing<Vec<String>> = Listing::default();
        let mut share = Share::of(self.memory.as_ref());
        let mut found = Gathered::new(|a, b| a == b, |text: &String| 2 * size_of::<String>() + text.len());
        let asked = Asked { range, borders: &self.borders };
        for (_, layer) in self.layers_in(range) {
            for matchers in or_everything(sets) {
                match ask(layer, matchers, asked) {
                    Ok(items) => found.add(items),
                    Err(error) => list.left_out(&error),
                }
                if let Err(refused) = share.resize(found.bytes()) {
                    return Listing { refused: Some(refused), ..list };
                }
            }
        }
        list.items = found.finish();
        list.share = share;
        list
    }

    fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.partitions.iter().chain(&self.generations)
    }

    /// The layers with samples in `range`, each with its number.
    fn layers_in(&self, range: TimeRange) -> impl Iterator<Item = (u32, &Layer)> {
        let range = self.shown(range);
        let overlaps = move |layer: &Layer| layer.part.time_range().is_some_and(|own| own.overlaps(&range));
        (0..).zip(self.layers()).filter(move |(_, layer)| !range.is_empty() && overlaps(layer))
    }

    fn shown(&self, range: TimeRange) -> TimeRange {
        self.borders.shown(range)
    }

    /// Selects without boxing.
    ///
    /// # Errors
    /// There is too little memory for what is found.
    pub(crate) fn selection(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Selection<'_>, ReadError> {
        let mut share = Share::of(self.memory.as_ref());
        let mut layers: Vec<SelectedLayer<'_>> = Vec::new();
        let mut found: Vec<Found> = Vec::new();
        let mut warnings = Warnings::default();
        let shown = self.shown(range);
        for (number, layer) in self.layers_in(range) {
            let place = layers.len() as u32;
            let selected = layer.part.select(matchers);
            match selected.and_then(|selected| Ok((selected, layer.kept(range, &self.borders)?))) {
                Ok((selected, kept)) => {
                    let found_here =
                        selected.into_iter().map(|(id, series)| Found { id, layer: place, series });
                    match &kept {
                        Some(kept) => {
                            let end_ms =
                                layer.part.time_range().map_or(i64::MAX, |own| own.max_ms.min(range.max_ms));
                            found.extend(found_here.filter(|found| kept.border_ms(found.series) <= end_ms));
                        }
                        None => found.extend(found_here),
                    }
                    layers.push(SelectedLayer { number, layer, kept });
                }
                Err(error) => warnings.add(|| left_out(&error)),
            }
            share.resize(found_bytes(&found))?;
        }
        if layers.len() > 1 {
            // Stretches of partitions are sorted; the stable sort merges them, and layers stay in order.
            found.sort_by_key(|f| f.id);
        }
        let starts = (0..found.len()).filter(|&i| i == 0 || found[i - 1].id != found[i].id);
        let starts = starts.chain([found.len()]).map(|i| i as u32).collect();
        let (range, warnings) = (shown, Mutex::new(warnings));
        Ok(Selection { layers, found, starts, range, warnings, _share: share })
    }
}

/// The sets, or one that everything passes if there is none.
fn or_everything(sets: &[Vec<Matcher>]) -> &[Vec<Matcher>] {
    if sets.is_empty() { const { &[Vec::new()] } } else { sets }
}

/// What could not be asked, in a sentence.
fn left_out(error: &ReadError) -> String {
    format!("a file is left out, series and samples may be missing: {error}")
}

/// What was found, and what could not be read for it, one sentence each.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Listing<L> {
    /// What was found, sorted.
    pub items: L,
    /// Files that are left out because they are damaged.
    pub warnings: Vec<String>,
    /// There was too little memory: what was found is not all.
    pub refused: Option<Refused>,
    /// The memory that it takes.
    share: Share,
}

/// What a label set takes in a list, as long as it is not known better.
const SET_BYTES: usize = 64;

impl<L> Listing<L> {
    /// The same list in another form, which takes over its memory.
    pub fn map<M>(self, form: impl FnOnce(L) -> M) -> Listing<M> {
        let Listing { items, warnings, refused, share } = self;
        Listing { items: form(items), warnings, refused, share }
    }

    fn left_out(&mut self, error: &ReadError) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(left_out(error));
        }
    }
}

impl Source for View {
    fn select<'a>(
        &'a self,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Box<dyn SeriesSet + 'a>, ReadError> {
        Ok(Box::new(self.selection(matchers, range)?))
    }
}

/// A selected series in one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    id: SeriesId,
    layer: u32,
    series: u32,
}

/// A layer that answered a selection.
struct SelectedLayer<'a> {
    /// Its number in the view.
    number: u32,
    layer: &'a Layer,
    /// Where its series begin, if some begin within.
    kept: Option<Kept>,
}

/// Series selected from a view.
pub(crate) struct Selection<'a> {
    layers: Vec<SelectedLayer<'a>>,
    /// By identity, then by layer.
    found: Vec<Found>,
    /// Where each series starts in `found`, and where the last one ends.
    starts: Vec<u32>,
    range: TimeRange,
    warnings: Mutex<Warnings>,
    _share: Share,
}

/// What found series take, with where each starts and what sorting them takes.
fn found_bytes(found: &Vec<Found>) -> usize {
    found.capacity() * (size_of::<Found>() + size_of::<u32>()) + found.len() * size_of::<Found>() / 2
}

#[derive(Debug, Default)]
struct Warnings {
    kept: Vec<String>,
    more: u64,
}

impl Selection<'_> {
    fn places(&self, index: usize) -> &[Found] {
        let range: Range<usize> = self.starts[index] as usize..self.starts[index + 1] as usize;
        &self.found[range]
    }

    /// Where the labels of a series are read.
    fn labels_place(&self, index: usize) -> Found {
        // All layers have the same labels under an identity; the newest is likeliest in the caches.
        let places = self.places(index);
        places[places.len() - 1]
    }

    /// The layer of a place, which is loaded from next.
    fn turn_to(&self, place: &Found, load: &mut Load<'_>) -> &Layer {
        let SelectedLayer { number, layer, kept, .. } = &self.layers[place.layer as usize];
        load.part = *number;
        let border_ms = kept.as_ref().map_or(i64::MIN, |kept| kept.border_ms(place.series));
        load.range = from(self.range, border_ms);
        layer
    }

    /// Loads what a layer has of a series.
    fn load_place(&self, place: &Found, load: &mut Load<'_>) -> Result<(), ReadError> {
        self.turn_to(place, load).load(place.id, place.series, load);
        match load.room {
            0 => Err(ReadError::SeriesTooLong { samples: load.columns.most_samples() }),
            _ => Ok(()),
        }
    }

    /// Merges what was loaded of a series.
    fn loaded(&self, index: usize, load: Load<'_>) -> Samples {
        let Load { runs, damaged, columns, .. } = load;
        if !damaged.is_empty() {
            self.warn(index, &damaged);
        }
        merge(runs, columns)
    }

    fn warn(&self, index: usize, damaged: &[ReadError]) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        for error in damaged {
            warnings.add(|| format!("samples of {} are missing: {error}", self.labels(index)));
        }
    }
}

impl Warnings {
    fn add(&mut self, text: impl FnOnce() -> String) {
        if self.kept.len() < WARNINGS_MAX {
            self.kept.push(text());
        } else {
            self.more += 1;
        }
    }
}

impl SeriesSet for Selection<'_> {
    fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// By identity, as where several layers are merged.
    fn in_lasting_order(&mut self) {
        if self.layers.len() == 1 && !self.found.is_sorted_by_key(|found| found.id) {
            // One place each, so that the starts stay what they are.
            self.found.sort_unstable_by_key(|found| found.id);
        }
    }

    fn labels(&self, index: usize) -> Labels {
        let place = self.labels_place(index);
        self.layers[place.layer as usize].layer.part.label_reader(None)(place.series)
    }

    fn label_reader<'s>(&'s self, among: Option<&[String]>) -> LabelReader<'s> {
        let among = among.map(<[String]>::to_vec);
        let mut readers: Vec<Option<PartLabels<'s>>> = self.layers.iter().map(|_| None).collect();
        Box::new(move |index| {
            let place = self.labels_place(index);
            let layer = place.layer as usize;
            let reader = &mut readers[layer];
            reader.get_or_insert_with(|| self.layers[layer].layer.part.label_reader(among.as_deref()))(
                place.series,
            )
        })
    }

    fn load(&self, index: usize, columns: &mut Columns) -> Result<Samples, ReadError> {
        let mut load = Load::new(self.range, columns);
        self.places(index).iter().try_for_each(|place| self.load_place(place, &mut load))?;
        Ok(self.loaded(index, load))
    }

    fn load_newest(&self, index: usize, columns: &mut Columns) -> Result<Samples, ReadError> {
        let mut load = Load { newest_only: true, ..Load::new(self.range, columns) };
        let last = |run: &Run| run.timestamps.last().copied();
        let mut newest_ms = i64::MIN;
        // From the newest layer down: mostly it has the newest sample, and the others none as new.
        for place in self.places(index).iter().rev() {
            let own = self.layers[place.layer as usize].layer.part.time_range();
            if own.is_none_or(|own| own.max_ms < newest_ms) {
                continue;
            }
            let loaded = load.runs.len();
            self.load_place(place, &mut load)?;
            // By rising precedence.
            load.runs.rotate_left(loaded);
            // Of histograms those before it tell whether its counter was reset.
            if load.runs.iter().all(|run| run.histograms.is_empty()) {
                newest_ms = load.runs.iter().filter_map(last).fold(newest_ms, i64::max);
            }
        }
        load.runs.retain(|run| last(run) >= Some(newest_ms));
        Ok(self.loaded(index, load))
    }

    fn read_cost(&self, index: usize, columns: &mut Columns) -> Result<ReadCost, ReadError> {
        let mut load = Load::new(self.range, columns);
        let mut cost = ReadCost::default();
        for place in self.places(index) {
            let part = &self.turn_to(place, &mut load).part;
            part.add_cost(place.series, &mut load, &mut cost);
        }
        Ok(cost)
    }

    fn newest(&self, indexes: Range<usize>, columns: &mut Columns, newest: &mut Vec<Newest>) {
        newest.clear();
        newest.resize(indexes.len(), Newest::None);
        // How many places of each series are still to be asked: from the newest layer down.
        let mut left: Vec<usize> = indexes.clone().map(|index| self.places(index).len()).collect();
        let (mut asked, mut series, mut found) = (Vec::new(), Vec::new(), Vec::new());
        for (number, selected) in self.layers.iter().enumerate().rev() {
            let SelectedLayer { number: part, layer, kept } = selected;
            let last_ms = layer.part.time_range().map_or(i64::MAX, |own| own.max_ms);
            asked.clear();
            series.clear();
            found.clear();
            for (at, index) in indexes.clone().enumerate() {
                let Some(place) = left[at].checked_sub(1).map(|last| self.places(index)[last]) else {
                    continue;
                };
                if place.layer as usize != number {
                    continue;
                }
                left[at] -= 1;
                match newest[at] {
                    Newest::Float { t_ms, .. } if last_ms < t_ms => {}
                    Newest::Unknown => {}
                    _ if kept.is_some() || layer.has_deleted(place.id) => newest[at] = Newest::Unknown,
                    _ => {
                        asked.push(at);
                        series.push(place.series);
                    }
                }
            }
            if !series.is_empty() {
                layer.part.newest(*part, &series, self.range, columns, &mut found);
                for (&at, &found) in asked.iter().zip(&found) {
                    newest[at] = newest[at].over(found);
                }
            }
        }
    }

    fn warnings(&self) -> Vec<String> {
        let warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = warnings.kept.clone();
        if warnings.more > 0 {
            all.push(format!("{} more stretches of samples or files are missing (damaged)", warnings.more));
        }
        all
    }
}

/// What is asked of a layer.
#[derive(Clone, Copy)]
struct Asked<'a> {
    /// The range, as it was asked for.
    range: TimeRange,
    /// Nothing older is shown.
    borders: &'a Borders,
}

impl Layer {
    /// Where its series begin, if there are policies and some begin within the `range`.
    pub fn kept(&self, range: TimeRange, borders: &Borders) -> Result<Option<Kept>, ReadError> {
        let Some(own) = self.part.time_range() else { return Ok(None) };
        let range = own.intersect(&range);
        let Some(within) = borders.within(range) else { return Ok(None) };
        Ok(Kept::new(self.part.policy_sets(&within.policies)?, within, range))
    }

    /// Between which times it may hold samples that are shown. One that cannot tell is left out, as it
    /// is by selections.
    fn shown(&self, borders: &Borders) -> Option<TimeRange> {
        let own = self.part.time_range()?;
        let first_ms = self.kept(own, borders).ok()?.and_then(|kept| kept.present().min());
        Some(from(borders.shown(own), first_ms.unwrap_or(i64::MIN)))
    }

    /// The series that match, but for those of which deletions and policies leave nothing in the range.
    fn select_shown(
        &self,
        matchers: &[Matcher],
        asked: Asked<'_>,
    ) -> Result<Vec<(SeriesId, u32)>, ReadError> {
        let mut selected = self.part.select(matchers)?;
        self.hide(&mut selected, asked)?;
        Ok(selected)
    }

    /// Whether deletions or policies may hide series.
    fn may_hide(&self, asked: Asked<'_>) -> Result<bool, ReadError> {
        Ok(self.tombstones.is_some() || self.kept(asked.range, asked.borders)?.is_some())
    }

    /// Takes those out of which the deletions and policies leave nothing in the range.
    fn hide(&self, selected: &mut Vec<(SeriesId, u32)>, asked: Asked<'_>) -> Result<(), ReadError> {
        let kept = self.kept(asked.range, asked.borders)?;
        if self.tombstones.is_none() && kept.is_none() {
            return Ok(());
        }
        let own = self.part.time_range().unwrap_or(TimeRange::ALL).intersect(&asked.range);
        let mut columns = Columns::default();
        selected.retain(|&(id, series)| {
            let deleted = self.tombstones.as_ref().map_or(&[][..], |tombstones| tombstones.of(id));
            let border_ms = kept.as_ref().map_or(i64::MIN, |kept| kept.border_ms(series));
            let left = asked.borders.shown(from(own, border_ms));
            columns.forget_beyond(TIMESTAMPS_KEPT);
            let is_whole = deleted.is_empty() && border_ms <= own.min_ms;
            is_whole || !left.is_empty() && self.part.is_left(series, deleted, left, &mut columns)
        });
        Ok(())
    }

    /// The labels of those series, sorted; `None` if nothing is hidden, and the index of the part can
    /// tell the labels.
    fn labels_shown(&self, matchers: &[Matcher], asked: Asked<'_>) -> Result<Option<LabelSets>, ReadError> {
        if !self.may_hide(asked)? {
            return Ok(None);
        }
        let mut selected = self.part.select(matchers)?;
        let before = selected.len();
        self.hide(&mut selected, asked)?;
        if selected.len() == before {
            return Ok(None);
        }
        let mut series: Vec<u32> = selected.into_iter().map(|(_, series)| series).collect();
        series.sort_unstable();
        let mut sets = LabelSets::default();
        self.part.label_sets(&mut series.into_iter(), &mut sets);
        sets.sort();
        Ok(Some(sets))
    }

    fn label_names(&self, matchers: &[Matcher], asked: Asked<'_>) -> Result<Vec<String>, ReadError> {
        let Some(sets) = self.labels_shown(matchers, asked)? else { return self.part.label_names(matchers) };
        let mut names: Vec<String> = Vec::new();
        for (name, _) in sets.labels() {
            if names.last().is_none_or(|last| last != name) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        asked: Asked<'_>,
    ) -> Result<Vec<String>, ReadError> {
        let Some(sets) = self.labels_shown(matchers, asked)? else {
            return self.part.label_values(name, matchers);
        };
        Ok(sets.labels().filter(|(of, _)| *of == name).map(|(_, value)| value.to_owned()).collect())
    }

    /// Whether something was deleted of a series.
    fn has_deleted(&self, id: SeriesId) -> bool {
        self.tombstones.as_ref().is_some_and(|tombstones| !tombstones.of(id).is_empty())
    }

    /// Appends the runs of a series, without what was deleted.
    pub fn load(&self, id: SeriesId, series: u32, load: &mut Load<'_>) {
        let deleted = self.tombstones.as_ref().map_or(&[][..], |tombstones| tombstones.of(id));
        if deleted.is_empty() {
            return self.part.load(series, load);
        }
        // The newest sample may be deleted, and an older one not.
        let newest_only = std::mem::replace(&mut load.newest_only, false);
        let from = load.runs.len();
        self.part.load(series, load);
        for run in load.runs.split_off(from) {
            push_without(run, deleted, load.columns, &mut load.runs);
        }
        load.newest_only = newest_only;
    }
}

#[cfg(test)]
mod tests;
