//! What a selection gives: series one by one, their samples in columns.

use super::error::ReadError;
use super::matcher::Matcher;
use super::time::TimeRange;
use foldhash::fast::RandomState;
use larum_storage_format::{Labels, Samples, is_stale};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Where series can be selected from: a database's view, or data made up by a test.
pub trait Source: Sync {
    /// The series that match all `matchers` and may hold samples in `range`, in any order, no
    /// label set twice. Selecting decodes nothing.
    fn select<'a>(
        &'a self,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Box<dyn SeriesSet + 'a>, ReadError>;
}

/// Selected series, addressed by position. Threads may load different series at the same time.
pub trait SeriesSet: Send + Sync {
    /// How many series were selected.
    fn len(&self) -> usize;

    /// Whether none was.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Brings the series into an order in which any two of them stand always, wherever they are stored
    /// and whatever else was selected. To be called before any index is used. What does not care leaves
    /// them as they are.
    fn in_lasting_order(&mut self) {}

    /// The labels of the series at `index`.
    ///
    /// # Panics
    /// If `index` is out of range.
    fn labels(&self, index: usize) -> Labels;

    /// Reads the labels of many series, for one thread: all of them, or those `among` some names, which
    /// ascend. Series that have the same labels among these mostly share one set.
    fn label_reader<'s>(&'s self, among: Option<&[String]>) -> LabelReader<'s> {
        let Some(names) = among.map(<[String]>::to_vec) else {
            return Box::new(move |index| self.labels(index));
        };
        Box::new(move |index| self.labels(index).without(|name| !names.iter().any(|other| other == name)))
    }

    /// The samples of the series at `index` that lie in the range of the selection, merged from
    /// wherever they are stored, stale markers included. Possibly empty.
    ///
    /// # Panics
    /// If `index` is out of range.
    fn load(&self, index: usize, columns: &mut Columns) -> Result<Samples, ReadError>;

    /// As [`SeriesSet::load`], for who wants nothing but the newest sample in the range: of those
    /// before it any may be missing. It often takes no decoding.
    fn load_newest(&self, index: usize, columns: &mut Columns) -> Result<Samples, ReadError> {
        self.load(index, columns)
    }

    /// What reading the series at `index` costs; nothing is decoded that need not be.
    ///
    /// # Panics
    /// If `index` is out of range.
    fn read_cost(&self, index: usize, columns: &mut Columns) -> Result<ReadCost, ReadError> {
        Ok(ReadCost::in_memory(self.load(index, columns)?.len()))
    }

    /// Puts what is known of the newest samples of some series in the range into `newest`, one each. Far
    /// cheaper than [`SeriesSet::load_newest`], which knows the others.
    ///
    /// # Panics
    /// If `indexes` are out of range.
    fn newest(&self, indexes: Range<usize>, _columns: &mut Columns, newest: &mut Vec<Newest>) {
        newest.clear();
        newest.resize(indexes.len(), Newest::Unknown);
    }

    /// What could not be read although it matched, one sentence each (damaged extents).
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What is to be read for series.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadCost {
    /// Chunks; what is in memory counts as one.
    pub chunks: u64,
    /// Samples of these that are asked for.
    pub samples: u64,
    /// Bytes of the chunks.
    pub bytes: u64,
}

impl ReadCost {
    /// Samples of one series that are in memory.
    pub(crate) fn in_memory(samples: usize) -> ReadCost {
        let samples = samples as u64;
        ReadCost { chunks: samples.min(1), samples, bytes: samples * size_of::<f64>() as u64 }
    }

    /// Adds what others cost.
    pub fn add(&mut self, other: &ReadCost) {
        self.chunks += other.chunks;
        self.samples += other.samples;
        self.bytes += other.bytes;
    }

    /// What `all` cost, if this is what `some` of them cost.
    pub fn scaled(&self, all: u64, some: u64) -> ReadCost {
        let scale = |n: u64| {
            let scaled = u128::from(n) * u128::from(all) / u128::from(some.max(1));
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        let &ReadCost { chunks, samples, bytes } = self;
        ReadCost { chunks: scale(chunks), samples: scale(samples), bytes: scale(bytes) }
    }
}

/// See [`SeriesSet::label_reader`]. Panics if it is asked for an index out of range.
pub type LabelReader<'s> = Box<dyn FnMut(usize) -> Labels + 's>;

/// What is known of the newest sample of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Newest {
    /// There is none.
    None,
    /// A float, possibly a stale marker, and when it was sampled.
    Float {
        /// In milliseconds since the epoch.
        t_ms: i64,
        /// Bit by bit.
        value: f64,
    },
    /// The series must be loaded.
    Unknown,
}

impl Newest {
    /// The same, if there are older writes too, of which the newest sample is `overwritten` where it has
    /// the same time.
    pub(crate) fn over(self, overwritten: Newest) -> Newest {
        match (self, overwritten) {
            (Newest::Unknown, _) | (_, Newest::Unknown) => Newest::Unknown,
            (Newest::None, other) | (other, Newest::None) => other,
            (Newest::Float { t_ms, value }, Newest::Float { t_ms: other_ms, .. })
                if t_ms > other_ms || t_ms == other_ms && !is_stale(value) =>
            {
                self
            }
            _ => overwritten,
        }
    }
}

/// Timestamp columns met so far, so that series which share one get the same `Arc`.
///
/// One per thread and query. A key says where the timestamps came from; see [`ColumnKey`].
#[derive(Debug)]
pub struct Columns {
    known: HashMap<ColumnKey, Arc<[i64]>, RandomState>,
    /// Timestamps in them; a column under two keys counts twice.
    held: usize,
    /// See [`Columns::allow_samples`].
    most_samples: usize,
}

impl Default for Columns {
    fn default() -> Columns {
        Columns { known: HashMap::default(), held: 0, most_samples: usize::MAX }
    }
}

/// The origin of a column of timestamps: the pieces it was put together from, in order. Equal keys
/// mean equal timestamps within one query.
pub type ColumnKey = Vec<ColumnPiece>;

/// One piece of a column's origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ColumnPiece {
    /// Which head or partition, numbered within the view.
    pub part: u32,
    /// Which column there.
    pub column: u32,
    /// The first timestamp taken from the column.
    pub start: u32,
    /// How many were taken.
    pub len: u32,
}

/// A key takes about as much memory as so many timestamps.
const KEY_TIMESTAMPS: usize = 16;

impl Columns {
    /// The column of origin `key`, made by `make` if it is the first time.
    pub fn shared(&mut self, key: &[ColumnPiece], make: impl FnOnce() -> Vec<i64>) -> Arc<[i64]> {
        if let Some(known) = self.get(key) {
            return known;
        }
        let column: Arc<[i64]> = make().into();
        self.insert(key.to_vec(), column.clone());
        column
    }

    /// The column of origin `key`, if it was met before.
    pub fn get(&self, key: &[ColumnPiece]) -> Option<Arc<[i64]>> {
        self.known.get(key).cloned()
    }

    /// Says that `column` has the origin `key`.
    pub fn insert(&mut self, key: ColumnKey, column: Arc<[i64]>) {
        self.held += column.len();
        self.known.insert(key, column);
    }

    /// About how many bytes they take.
    pub fn len_bytes(&self) -> usize {
        (self.held + self.known.len() * KEY_TIMESTAMPS) * size_of::<i64>()
    }

    /// Forgets all columns.
    pub fn forget(&mut self) {
        self.known = HashMap::default();
        self.held = 0;
    }

    /// From now on a series that has more than about so many samples is not loaded, but an error.
    pub fn allow_samples(&mut self, most: usize) {
        self.most_samples = most;
    }

    /// How many samples a series may have.
    pub(crate) fn most_samples(&self) -> usize {
        self.most_samples
    }

    /// Forgets all columns if they hold more than so many timestamps, so that memory stays bounded.
    pub(crate) fn forget_beyond(&mut self, timestamps: usize) {
        // Each key counts too, for columns of few timestamps.
        if self.held + self.known.len() * KEY_TIMESTAMPS > timestamps {
            self.forget();
        }
    }

    /// How many columns are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no column is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}
