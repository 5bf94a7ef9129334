//! Rules with real servers around them: what a real Prometheus makes of the same rules and samples, what
//! whoever receives alerts hears while Larum is killed again and again, and while a real Prometheus sends.
//!
//! The seed is printed; `RULES_SEED` sets it, `RULES_SECONDS` how long servers are compared, `RULES_KILLS` how
//! often Larum is killed.

#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../real_promql/random.rs"]
mod random;
#[path = "../support/mod.rs"]
mod support;

mod backlog;
mod differential;
mod receiver;
mod restarts;
mod series;

use differential::{Outcome, Run};
use random::Random;
use support::real_server;

/// Another seed finds other differences; this one keeps a run comparable with the last.
const SEED: u64 = 20_261_121;
const SECONDS: u64 = 60;
const KILLS: u64 = 12;

#[test]
fn a_real_prometheus_yields_the_same_alerts_and_recorded_series() {
    let Some(prometheus) = real_server("prometheus") else { return };
    let seed = number_from_environment("RULES_SEED", SEED);
    let seconds = number_from_environment("RULES_SECONDS", SECONDS);
    println!("RULES_SEED={seed} RULES_SECONDS={seconds}");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = Run::start(&prometheus, dir.path(), seconds as usize);
    let outcome = run.compare(&mut Random::new(seed));
    let Outcome { ref left_out, samples, rules, alert_lists, .. } = outcome;
    println!("compared {samples} samples, {rules} times a rule, {alert_lists} times all alerts");
    if !left_out.is_empty() {
        println!("left out: {left_out:?}");
    }
    let differences = outcome.differences();
    differences.iter().take(40).for_each(|what| println!("\n{what}"));
    assert!(differences.is_empty(), "{} differences", differences.len());
    assert!(left_out.len() <= 4, "the machine is too busy to compare");
    assert!(samples as u64 > 20 * seconds, "too little was compared");
    assert!(alert_lists as u64 * 4 > seconds, "the API was compared too seldom");
}

#[test]
fn alerts_and_recorded_series_are_the_same_however_often_larum_is_killed() {
    let seed = number_from_environment("RULES_SEED", SEED);
    let kills = number_from_environment("RULES_KILLS", KILLS);
    println!("RULES_SEED={seed} RULES_KILLS={kills}");
    restarts::run(&mut Random::new(seed), kills);
}

#[test]
fn an_alert_fires_on_after_half_a_minute_without_larum_while_prometheus_kept_the_samples() {
    let Some(prometheus) = real_server("prometheus") else { return };
    backlog::run(&prometheus);
}

fn number_from_environment(name: &str, default: u64) -> u64 {
    let Ok(text) = std::env::var(name) else { return default };
    text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}"))
}
