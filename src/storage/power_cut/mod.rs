//! What is acknowledged survives a power cut, whenever it comes.
//!
//! A seed decides a history of appends, cuts, merges, deletions and their cleaning up, expiry, snapshots and restarts on a
//! disk in memory ([`disk`]), and the file operations at which the process ends or the power goes,
//! in the middle of an open and of a recovery too. After each, opening succeeds; what was
//! acknowledged is there, what was deleted stays deleted, what was overwritten stays overwritten;
//! what was under way is done or not, but nothing is read that was never written; nothing is warned
//! of but torn ends of the WAL; and work goes on. A seed repeats its run exactly.
//!
//! On some disks bits of partitions flip besides ([`FLIPS_IN`]). What such a file held is no longer
//! asked for then, all else as before; but the file itself must stay, in quarantine at last.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `LARUM_POWER_CUT_SEEDS` | so many seeds at least (200) |
//! | `LARUM_POWER_CUT_SECONDS` | and as many as fit into this time (30; `.ci/run` asks for 120) |
//! | `LARUM_POWER_CUT_SEED` | only this seed, as a failure names it |

mod backups;
mod disk;
mod model;
pub(crate) mod rng;
mod site;
mod warnings;
mod world;

use self::site::Site;
use self::warnings::Warnings;
use self::world::{FLIPS_IN, Outcome};
use super::options::WalFsync;
use std::collections::BTreeSet;
use std::io::{Write, stderr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Seeds that are run each time; those that follow them differ from time to time.
const FIXED: u64 = 200;

/// So many histories are tried to notice that a sync is left out.
const HISTORIES_MAX: u64 = 400;

/// Every fourth history leaves the syncs of the WAL to the rounds of background work.
fn run(seed: u64, omitted: Option<Site>) -> Outcome {
    let fsync = match seed % 4 {
        3 => WalFsync::Interval(Duration::from_secs(1)),
        _ => WalFsync::Always,
    };
    let warnings = Warnings::default();
    warnings.clone().catch(|| world::run(seed, fsync, omitted, warnings))
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_power_is_cut() {
    let begun = Instant::now();
    let seconds = variable("LARUM_POWER_CUT_SECONDS").unwrap_or(30);
    let only = variable("LARUM_POWER_CUT_SEED");
    let seeds = if only.is_some() { 1 } else { variable("LARUM_POWER_CUT_SEEDS").unwrap_or(FIXED) };
    let new = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let (mut count, mut ops, mut ends) = (0, 0, 0);
    let mut sites = BTreeSet::new();
    while count < seeds || (only.is_none() && begun.elapsed() < Duration::from_secs(seconds)) {
        let seed = only.unwrap_or(if count < FIXED { count } else { new + count });
        match catch_unwind(AssertUnwindSafe(|| run(seed, None))) {
            Ok(outcome) => {
                ops += outcome.ops;
                ends += outcome.ends;
                sites.extend(outcome.sites);
            }
            Err(panic) => {
                eprintln!("seed {seed} fails after {count} others: LARUM_POWER_CUT_SEED={seed} repeats it");
                resume_unwind(panic);
            }
        }
        count += 1;
    }
    // Not by `println`, which the test runner keeps to itself where a test passes.
    let took = begun.elapsed();
    let _ = writeln!(stderr(), "power cut: {count} seeds, {ends} ends, {ops} file operations in {took:.1?}");
    if count >= FIXED {
        assert_eq!(sites, Site::ALL.into(), "the places in storage that sync");
    }
}

#[test]
fn a_seed_repeats_its_run() {
    for seed in 0..8 {
        assert_eq!(run(seed, None).trace, run(seed, None).trace, "seed {seed}");
    }
}

/// The number of the first history in which it is noticed that a site does not sync.
fn finds(site: Site) -> Option<u64> {
    let fails = |seed: u64| catch_unwind(|| run(seed, Some(site))).is_err();
    // Only a damaged file is set aside.
    let seed = |n: u64| match site {
        Site::QuarantineFolder | Site::QuarantineParent => n * FLIPS_IN + 1,
        _ => n,
    };
    (0..HISTORIES_MAX).find(|&n| fails(seed(n)))
}

#[test]
fn leaving_out_any_sync_is_found() {
    let next = AtomicUsize::new(0);
    let look = || {
        while let Some(&site) = Site::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            let begun = Instant::now();
            let found = finds(site);
            println!("{site:?}: {found:?} in {:.1?}", begun.elapsed());
            assert!(found.is_some(), "nothing is lost if {site:?} does not sync");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(look);
        scope.spawn(look);
    });
}
