//! How small chunks are, and how fast: bytes a sample, encoding and decoding in million samples a
//! second on one core, for made-up series with a fixed seed.
//!
//! `cargo bench -p larum-storage-format --bench chunk`

use larum_storage_format::IdentitySeed;
use larum_storage_format::STALE_NAN;
use larum_storage_format::chunk::{Packing, decode_floats, encode_floats};
use larum_storage_format::timestamps::{TimestampReader, TimestampWriter};
use std::time::{Duration, Instant};

/// Samples of each set, cut into chunks.
const SAMPLES: usize = 1 << 18;
/// Each measurement is the best of so many passes: other work on the machine only adds time.
const PASSES: usize = 7;

/// xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

type Step = Box<dyn FnMut(f64, &mut Random) -> f64>;

fn sets() -> Vec<(&'static str, Vec<f64>)> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut set = |name, mut step: Step| {
        let mut value = 1000.0;
        let values = (0..SAMPLES)
            .map(|_| {
                value = step(value, &mut random);
                value
            })
            .collect();
        (name, values)
    };
    vec![
        set("constant", Box::new(|v, _| v)),
        set(
            "slow counter",
            Box::new(|v, r| v + if r.below(50) == 0 { 1.0 + r.below(5) as f64 } else { 0.0 }),
        ),
        set("busy counter", Box::new(|v, r| v + r.below(200) as f64)),
        set(
            "bursty counter",
            Box::new(|v, r| v + if r.below(8) == 0 { r.below(3000) } else { r.below(12) } as f64),
        ),
        set("gauge, 1 decimal", Box::new(|v, r| ((v * 10.0).round() + r.below(11) as f64 - 5.0) / 10.0)),
        set("gauge, 2 decimals", Box::new(|v, r| ((v * 100.0).round() + r.below(101) as f64 - 50.0) / 100.0)),
        set("memory in pages", Box::new(|v, r| ((v / 4096.0).round() + r.below(65) as f64 - 32.0) * 4096.0)),
        set("sum of durations", Box::new(|v, r| v + r.below(5_000_000) as f64 / 1e9)),
        set("histogram bucket", {
            // A burst of requests every now and then.
            let mut burst = 0;
            Box::new(move |v, r| {
                burst = if r.below(100) == 0 { 20 } else { burst - burst.min(1) };
                v + if burst > 0 { r.below(40) } else { r.below(100) / 97 * r.below(9) } as f64
            })
        }),
        set("NaN, stale, Inf, -0", {
            let mut walk = 1000i64;
            Box::new(move |_, r| {
                walk += r.below(11) as i64 - 5;
                match r.below(1000) {
                    0 => f64::NAN,
                    1..4 => STALE_NAN,
                    4 => f64::INFINITY,
                    5 => -0.0,
                    _ => walk as f64 / 10.0,
                }
            })
        }),
        set("random walk", Box::new(|v, r| v + r.unit() - 0.5)),
        set("ratio", Box::new(|_, r| (12_000_000 + r.below(65_536)) as f64 / 15_728_640.0)),
        set("float from f32", Box::new(|_, r| f64::from(r.unit() as f32))),
        set("noise", Box::new(|_, r| r.unit())),
    ]
}

fn best(mut f: impl FnMut()) -> Duration {
    (0..PASSES)
        .map(|_| {
            let start = Instant::now();
            f();
            start.elapsed()
        })
        .min()
        .unwrap_or_default()
}

fn millions_per_second(samples: usize, time: Duration) -> f64 {
    samples as f64 / time.as_secs_f64() / 1e6
}

fn main() {
    println!(
        "{:<20} {:>6} {:>8} {:>10} {:>10} {:>10}",
        "floats", "chunk", "packing", "B/sample", "enc M/s", "dec M/s"
    );
    let packings = [("fast", Packing::FAST), ("kept", Packing::KEPT)];
    for (name, values) in sets() {
        for (n, (how, packing)) in
            [16, 120, 480, 1000, 4096].into_iter().flat_map(|n| packings.map(|p| (n, p)))
        {
            let mut bytes = Vec::new();
            let mut ends = Vec::new();
            let encode = best(|| {
                bytes.clear();
                ends.clear();
                for chunk in values.chunks(n) {
                    encode_floats(chunk, packing, &mut bytes);
                    ends.push(bytes.len());
                }
            });
            let mut decoded = Vec::with_capacity(n);
            let decode = best(|| {
                let mut from = 0;
                for (&end, chunk) in ends.iter().zip(values.chunks(n)) {
                    decoded.clear();
                    decode_floats(&bytes[from..end], chunk.len(), &mut decoded).expect("own chunks");
                    from = end;
                }
                std::hint::black_box(&decoded);
            });
            println!(
                "{name:<20} {n:>6} {how:>8} {:>10.3} {:>10.1} {:>10.0}",
                bytes.len() as f64 / values.len() as f64,
                millions_per_second(values.len(), encode),
                millions_per_second(values.len(), decode),
            );
        }
    }
    timestamps();
}

/// Columns with a jitter of 0 to 5 ms, each its own.
fn timestamps() {
    let mut random = Random(7);
    let columns: Vec<Vec<i64>> =
        (0..500).map(|_| (0..480).map(|i| 15_000 * i + random.below(6) as i64).collect()).collect();
    let write = || {
        let mut writer = TimestampWriter::new(IdentitySeed(1));
        columns.iter().for_each(|column| {
            writer.add(column).expect("in memory");
        });
        writer.finish().expect("in memory")
    };
    let samples = columns.len() * 480;
    let encode = best(|| {
        std::hint::black_box(write());
    });
    let sections = write();
    let reader = TimestampReader::new(&sections.columns[..], &sections.directory[..], &sections.slices[..]);
    let reader = reader.expect("own sections");
    let mut out = Vec::with_capacity(480);
    let decode = best(|| {
        for column in 0..columns.len() as u32 {
            out.clear();
            reader.decode_column(column, &mut out).expect("own columns");
        }
    });
    println!(
        "{:<20} {:>6} {:>8} {:>10.3} {:>10.1} {:>10.0}",
        "jittered timestamps",
        480,
        "kept",
        sections.columns.len() as f64 / samples as f64,
        millions_per_second(samples, encode),
        millions_per_second(samples, decode),
    );
}
