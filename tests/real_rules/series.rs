//! The series that rules of a differential run are about: at random they are high, low, no number, marked
//! as gone, silent, or change their labels. One value a second.

use super::random::Random;

/// What marks a series as gone (Prometheus' stale marker, a NaN of its own).
const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

/// A series and its values, by second; `None` where nothing is written.
pub struct Series {
    /// Its name and labels, sorted by name.
    pub labels: Vec<(&'static str, String)>,
    /// One a second.
    pub values: Vec<Option<f64>>,
}

/// What a series does for some seconds.
#[derive(Clone, Copy)]
enum Spell {
    /// Each second a value between these.
    Between(f64, f64),
    NotANumber,
    /// Marked as gone.
    Gone,
    /// Nothing comes, and nobody says why.
    Silent,
}

use Spell::{Between, Gone, NotANumber, Silent};

const LEVEL: &[Spell] =
    &[Between(5.0, 9.0), Between(5.0, 9.0), Between(0.0, 4.0), Between(0.0, 4.0), NotANumber, Gone, Silent];
const FLAG: &[Spell] = &[Between(0.0, 0.0), Between(1.0, 1.0)];
const THERE: &[Spell] = &[Between(1.0, 3.0), Between(1.0, 3.0), Gone];
const RARELY_THERE: &[Spell] = &[Between(1.0, 3.0), Gone, Gone, Gone];

/// All series for so many seconds.
pub fn series(random: &mut Random, seconds: usize) -> Vec<Series> {
    let mut all = Vec::new();
    let mut add = |random: &mut Random, labels: &[(&'static str, &str)], spells| {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        all.push(Series { labels, values: spell_values(random, spells, seconds) });
    };
    for (host, zone) in [("h0", "z0"), ("h1", "z0"), ("h2", "z0"), ("h3", "z1"), ("h4", "z1"), ("h5", "z2")] {
        add(random, &[("__name__", "level"), ("host", host), ("zone", zone)], LEVEL);
    }
    for unit in ["u0", "u1", "u2"] {
        add(random, &[("__name__", "flag"), ("unit", unit)], FLAG);
    }
    for n in ["0", "1", "2", "3", "4"] {
        add(random, &[("__name__", "many"), ("n", n)], THERE);
    }
    for k in ["a", "b"] {
        add(random, &[("__name__", "left"), ("k", k)], &[Between(1.0, 1.0)]);
        add(random, &[("__name__", "right"), ("k", k), ("n", "1")], THERE);
        add(random, &[("__name__", "right"), ("k", k), ("n", "2")], RARELY_THERE);
    }
    for side in ["l", "r"] {
        add(random, &[("__name__", "twin"), ("side", side)], THERE);
    }
    add(random, &[("__name__", "rare")], RARELY_THERE);
    for host in ["v0", "v1", "v2"] {
        all.extend(versions(random, host, seconds));
    }
    all
}

/// The values of spells of 1 to 9 s, at random.
fn spell_values(random: &mut Random, spells: &[Spell], seconds: usize) -> Vec<Option<f64>> {
    let mut values = Vec::with_capacity(seconds);
    while values.len() < seconds {
        let spell = random.pick(spells);
        let until = seconds.min(values.len() + 1 + random.below(9));
        let first = values.len();
        while values.len() < until {
            values.push(match spell {
                Between(low, high) => Some(low + (high - low) * random.below(101) as f64 / 100.0),
                NotANumber => Some(f64::NAN),
                Gone if values.len() == first => Some(f64::from_bits(STALE_BITS)),
                Gone | Silent => None,
            });
        }
    }
    values
}

/// A host that runs one build after the other: of its series one is there at a time.
fn versions(random: &mut Random, host: &str, seconds: usize) -> Vec<Series> {
    const BUILDS: [&str; 3] = ["a", "b", "c"];
    let mut running = Vec::with_capacity(seconds);
    while running.len() < seconds {
        let build = random.pick(&BUILDS);
        let until = seconds.min(running.len() + 1 + random.below(9));
        running.resize(until, build);
    }
    let of_build = |build: &str| {
        let value = |second: usize| match running[second] == build {
            true => Some(1.0),
            false => (second > 0 && running[second - 1] == build).then_some(f64::from_bits(STALE_BITS)),
        };
        let labels = [("__name__", "version"), ("build", build), ("host", host)];
        let labels = labels.map(|(name, value)| (name, value.to_owned())).to_vec();
        Series { labels, values: (0..seconds).map(value).collect() }
    };
    BUILDS.into_iter().map(of_build).collect()
}
