//! Native histograms: the value type, with exponential or custom buckets.

/// What the sender knows about a counter reset before this histogram (Prometheus'
/// `CounterResetHint`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum CounterResetHint {
    /// Nothing is known; find out by comparing with the previous histogram.
    #[default]
    Unknown = 0,
    /// A reset has happened before this histogram.
    CounterReset = 1,
    /// No reset has happened.
    NotCounterReset = 2,
    /// A gauge histogram: resets mean nothing.
    Gauge = 3,
}

/// A run of consecutive buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// The first span: index of its first bucket. Later spans: gap to the span before.
    pub offset: i32,
    /// How many buckets.
    pub length: u32,
}

/// The schema number of histograms with custom bucket bounds.
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// A native histogram. Counts are absolute (not deltas) and held as floats; an integer histogram
/// is one whose `is_integer` is set and whose counts are whole numbers below 2^53.
///
/// The layout is that of Prometheus' `FloatHistogram`: bucket i of an exponential schema s covers
/// `(2^((i-1)/2^s), 2^(i/2^s)]`, the zero bucket `[-zero_threshold, zero_threshold]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// Whether the sender counts in integers.
    pub is_integer: bool,
    /// See [`CounterResetHint`].
    pub counter_reset_hint: CounterResetHint,
    /// -4 to 8, exponential; or [`CUSTOM_BUCKETS_SCHEMA`].
    pub schema: i32,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Count in the zero bucket.
    pub zero_count: f64,
    /// Count of all observations.
    pub count: f64,
    /// Sum of all observations; the stale marker here makes the sample stale.
    pub sum: f64,
    /// Where the positive buckets are.
    pub positive_spans: Vec<Span>,
    /// Counts of the positive buckets, in order; for custom buckets these are all there are.
    pub positive_buckets: Vec<f64>,
    /// Where the negative buckets are.
    pub negative_spans: Vec<Span>,
    /// Counts of the negative buckets.
    pub negative_buckets: Vec<f64>,
    /// Upper bounds of custom buckets, ascending, without +Inf; empty for exponential schemas.
    pub custom_values: Vec<f64>,
}

impl Histogram {
    /// About how many bytes of memory it takes, with all it points to.
    pub fn memory_bytes(&self) -> usize {
        let buckets = [&self.positive_buckets, &self.negative_buckets, &self.custom_values];
        let spans = self.positive_spans.len() + self.negative_spans.len();
        let buckets: usize = buckets.iter().map(|list| list.len()).sum();
        size_of::<Histogram>() + spans * size_of::<Span>() + buckets * size_of::<f64>()
    }

    /// Equality by bits of every float.
    pub fn same_bits(&self, other: &Histogram) -> bool {
        fn same(a: &[f64], b: &[f64]) -> bool {
            a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits())
        }
        self.is_integer == other.is_integer
            && self.counter_reset_hint == other.counter_reset_hint
            && self.schema == other.schema
            && same(
                &[self.zero_threshold, self.zero_count, self.count, self.sum],
                &[other.zero_threshold, other.zero_count, other.count, other.sum],
            )
            && self.positive_spans == other.positive_spans
            && self.negative_spans == other.negative_spans
            && same(&self.positive_buckets, &other.positive_buckets)
            && same(&self.negative_buckets, &other.negative_buckets)
            && same(&self.custom_values, &other.custom_values)
    }
}
