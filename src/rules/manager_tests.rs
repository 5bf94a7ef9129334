//! Tests of the manager over a real database, by a clock of their own.

use super::*;
use crate::promql::Value as Answered;
use crate::promql::parse::parse_metric;
use crate::rules::{AlertState, Health, file};
use crate::storage::options::Maintenance;
use crate::{Batch, Options, Value};
use larum_storage_format::sample::STALE_NAN;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicI64;
use std::sync::mpsc::channel;
use tempfile::TempDir;

/// Long after the epoch, and a multiple of every interval used here.
const START_S: i64 = 1_700_000_400;

/// A database with a clock, at seconds since `START_S`.
struct World {
    path: PathBuf,
    /// Removes the folder at the end, if it is the world's own.
    _folder: Option<TempDir>,
    clock_ms: Arc<AtomicI64>,
    db: Option<Db>,
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let world = World::at_path(folder.path());
        World { _folder: Some(folder), ..world }
    }

    fn at_path(path: &Path) -> World {
        let clock_ms = Arc::new(AtomicI64::new(START_S * 1000));
        let mut world = World { path: path.to_owned(), _folder: None, clock_ms, db: None };
        world.restart();
        world
    }

    /// Closes and opens again.
    fn restart(&mut self) {
        self.db = None;
        let clock = self.clock_ms.clone();
        let options = Options {
            clock: Arc::new(move || Timestamp::from_millis(clock.load(Ordering::Relaxed))),
            maintenance: Maintenance::Stepped,
            ..Options::default()
        };
        self.db = Some(Db::open(&self.path, options).unwrap());
    }

    fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis((START_S + second) * 1000)
    }

    /// Appends samples at a second, each like `up{job="api"} 1`, and puts the clock there.
    fn put(&self, second: i64, samples: &[&str]) {
        self.clock_ms.store(World::at(second).as_millis(), Ordering::Relaxed);
        let mut batch = Batch::new();
        for sample in samples {
            let (metric, value) = sample.rsplit_once(' ').unwrap();
            batch.push(&parse_metric(metric).unwrap(), World::at(second), value.parse().unwrap());
        }
        assert!(self.db().append(&batch).unwrap().refused.is_empty());
    }

    fn rules(&self, text: &str) -> RuleManager {
        RuleManager::new(self.db(), groups(text)).unwrap()
    }

    /// What a query yields, each element like `{job="api"} 1`, sorted.
    fn query(&self, second: i64, query: &str) -> Vec<String> {
        let Answered::Vector(vector) = self.db().query(query, World::at(second)).unwrap().value else {
            panic!("{query} is no vector");
        };
        let mut shown: Vec<String> = vector
            .iter()
            .map(|element| match &element.value {
                Value::Float(value) => format!("{} {value}", element.labels),
                Value::Histogram(_) => panic!("{query} yields histograms"),
            })
            .collect();
        shown.sort();
        shown
    }
}

fn groups(text: &str) -> Vec<Group> {
    file::parse(Path::new("r.yml"), text, Syntax::default()).unwrap_or_else(|e| panic!("{e}")).groups
}

/// Ticks at a second. The groups here have an interval of a second or more; a tick an interval
/// later evaluates each once, at a slot somewhere in between.
fn tick(rules: &RuleManager, second: i64) -> Vec<String> {
    let shown = |alert: &Alert| {
        let state = if alert.is_resolved() { "resolved" } else { "firing" };
        format!("{} {state} since {}", alert.labels, alert.fired_at.as_millis() / 1000 - START_S)
    };
    rules.tick(World::at(second)).iter().map(shown).collect()
}

const HIGH: &str = "
groups:
- name: g
  interval: 10s
  rules:
  - alert: High
    expr: load > 1
    for: 20s
    annotations: {summary: 'load {{ $value }} in {{ $labels.zone }}'}
";

#[test]
fn an_alert_fires_and_is_resolved_and_shows_in_samples() {
    let world = World::new();
    let rules = world.rules(HIGH);
    let mut heard = Vec::new();
    for second in (0..=60).step_by(5) {
        world.put(second, &[if second < 45 { r#"load{zone="a"} 3"# } else { r#"load{zone="a"} 0"# }]);
        heard.extend(rules.tick(World::at(second)));
        if second == 20 {
            assert_eq!(rules.alerts()[0].state, AlertState::Pending);
            let pending = world.query(20, "ALERTS");
            assert_eq!(
                pending,
                [r#"{__name__="ALERTS", alertname="High", alertstate="pending", zone="a"} 1"#]
            );
        }
        if second == 40 {
            let firing = world.query(40, "ALERTS");
            assert_eq!(firing, [r#"{__name__="ALERTS", alertname="High", alertstate="firing", zone="a"} 1"#]);
            assert_eq!(rules.alerts()[0].annotations["summary"], "load 3 in a");
        }
    }
    let [firing, resolved] = heard.as_slice() else { panic!("heard {heard:?}") };
    assert_eq!((firing.state, resolved.state), (AlertState::Firing, AlertState::Inactive));
    assert_eq!(firing.fired_at, resolved.fired_at);
    assert!(firing.fired_at.as_millis() - firing.active_at.as_millis() == 20_000);
    assert!(world.query(60, "ALERTS").is_empty() && rules.alerts().is_empty());
    assert!(world.query(60, "ALERTS_FOR_STATE").is_empty());
    let status = &rules.groups()[0];
    assert_eq!((status.stats.evaluations, status.stats.iterations, status.stats.failures), (6, 6, 0));
    assert_eq!(status.rules[0].health, Health::Good);
}

#[test]
fn rules_of_a_group_see_what_those_before_them_recorded() {
    let world = World::new();
    let rules = world.rules(
        "groups:\n- name: g\n  interval: 10s\n  rules:\n  - {record: a, expr: load * 2}\n  - {record: b, expr: a + 1, labels: {x: y}}\n",
    );
    rules.tick(World::at(0));
    world.put(1, &["load{zone=\"a\"} 1", "load{zone=\"b\"} 2"]);
    rules.tick(World::at(11));
    assert_eq!(
        world.query(11, "b"),
        [r#"{__name__="b", x="y", zone="a"} 3"#, r#"{__name__="b", x="y", zone="b"} 5"#]
    );
    // A series that is not recorded any more ends at once.
    world.put(12, &["load{zone=\"b\"} 2"]);
    let mut batch = Batch::new();
    batch.push(&parse_metric("load{zone=\"a\"}").unwrap(), World::at(12), STALE_NAN);
    world.db().append(&batch).unwrap();
    rules.tick(World::at(22));
    assert_eq!(world.query(22, "a"), [r#"{__name__="a", zone="b"} 4"#]);
    assert_eq!(world.query(22, "b"), [r#"{__name__="b", x="y", zone="b"} 5"#]);
}

#[test]
fn rules_see_what_other_groups_recorded_in_the_same_slot() {
    let world = World::new();
    let rules = world.rules(
        "groups:\n- name: last\n  interval: 10s\n  rules:\n  - {alert: A, expr: c > 4}\n\
         - name: middle\n  interval: 10s\n  rules:\n  - {record: c, expr: b + 1}\n  - {record: b, expr: a * 2}\n\
         - name: first\n  interval: 10s\n  rules:\n  - {record: a, expr: load}\n",
    );
    rules.tick(World::at(0));
    world.put(1, &["load 2"]);
    assert!(tick(&rules, 11).is_empty());
    assert_eq!(world.query(11, "b"), [r#"{__name__="b"} 4"#]);
    // Within a group the order of the file counts: c reads b of the evaluation before.
    assert_eq!(tick(&rules, 21).len(), 1);
    assert_eq!(world.query(21, "timestamp(a) - timestamp(c)"), ["{} 0"]);
}

#[test]
fn rules_in_a_circle_are_told_and_all_evaluated() {
    let world = World::new();
    let rules = world.rules(
        "groups:\n- name: g\n  interval: 10s\n  rules: [{record: a, expr: b or vector(0)}]\n\
         - name: h\n  interval: 10s\n  rules: [{record: b, expr: a + 1}, {record: other, expr: load}]\n",
    );
    let circles = rules.circles();
    assert!(circles[0].contains("a (group g of r.yml) <- b (group h of r.yml)"), "{circles:?}");
    rules.tick(World::at(0));
    world.put(1, &["load 2"]);
    for second in [11, 21, 31] {
        tick(&rules, second);
    }
    let found = world.query(31, r#"{__name__=~"a|b|other"}"#);
    assert_eq!(found, [r#"{__name__="a"} 2"#, r#"{__name__="b"} 3"#, r#"{__name__="other"} 2"#]);
}

#[test]
fn many_rules_on_several_threads_yield_what_they_do_on_one() {
    let text: String = (0..30)
        .map(|g| {
            let rule = |r: usize| match (g, r) {
                (0, 0) => "  - {record: r0_0, expr: load}\n".to_owned(),
                (g, 0) => format!("  - {{record: r{g}_0, expr: r{}_2 + 1}}\n", g - 1),
                (g, r) => format!("  - {{record: r{g}_{r}, expr: 'r{g}_{} + sum(r{g}_0)'}}\n", r - 1),
            };
            format!(
                "- name: g{}\n  interval: 10s\n  rules:\n{}",
                30 - g,
                (0..3).map(rule).collect::<String>()
            )
        })
        .collect();
    let recorded = |max_concurrent_evals| {
        let world = World::new();
        let options = RuleOptions { max_concurrent_evals, ..RuleOptions::default() };
        let groups = groups(&format!("groups:\n{text}"));
        let rules = RuleManager::with_options(world.db(), groups, options).unwrap();
        rules.tick(World::at(0));
        for second in (1..=41).step_by(10) {
            world.put(second, &["load 1"]);
            tick(&rules, second);
        }
        assert_eq!(rules.groups().iter().map(|group| group.stats.failures).sum::<u64>(), 0);
        world.query(41, r#"{__name__=~"r.*"}"#)
    };
    let one = recorded(1);
    assert_eq!(one.len(), 90);
    assert_eq!(recorded(8), one);
}

#[test]
fn a_restart_neither_resolves_nor_repeats_an_alert() {
    let mut world = World::new();
    let mut rules = world.rules(HIGH);
    let mut heard = Vec::new();
    for second in (0..=60).step_by(10) {
        world.put(second, &[r#"load{zone="a"} 3"#]);
        heard.extend(tick(&rules, second));
    }
    assert_eq!(heard.len(), 1, "{heard:?}");
    let before = rules.alerts().remove(0);
    for second in (70..=160).step_by(10) {
        drop(rules);
        world.restart();
        rules = world.rules(HIGH);
        assert_eq!(rules.alerts()[0].active_at, before.active_at);
        world.put(second, &[r#"load{zone="a"} 3"#]);
        heard.extend(tick(&rules, second));
    }
    let after = rules.alerts().remove(0);
    assert_eq!((after.active_at, after.state), (before.active_at, AlertState::Firing));
    // Sent again after a minute, as without restarts.
    assert_eq!(heard.len(), 3, "{heard:?}");
    assert!(heard.iter().all(|alert| *alert == heard[0]), "{heard:?}");
    drop(rules);
    world.restart();
    rules = world.rules(HIGH);
    tick(&rules, 180);
    world.put(181, &[r#"load{zone="a"} 0"#]);
    let resolved = tick(&rules, 191);
    assert_eq!(resolved, [heard[0].replace("firing", "resolved")]);
}

/// Evaluates `HIGH` with a load that is high until an alert fires at second 30 or soon after, and stops.
fn world_that_stopped_while_an_alert_fired() -> (World, AlertStatus) {
    let mut world = World::new();
    let rules = world.rules(HIGH);
    let mut heard = Vec::new();
    for second in (0..=50).step_by(10) {
        world.put(second, &[r#"load{zone="a"} 3"#]);
        heard.extend(tick(&rules, second));
    }
    assert_eq!(heard.len(), 1, "{heard:?}");
    let alert = rules.alerts().remove(0);
    drop(rules);
    world.restart();
    (world, alert)
}

#[test]
fn slots_that_passed_are_made_up_for_once_samples_arrive() {
    let (world, before) = world_that_stopped_while_an_alert_fired();
    let rules = world.rules(HIGH);
    // Nothing has come yet: the alert stays, and is sent again.
    let waiting: Vec<_> = (120..300).step_by(10).flat_map(|second| tick(&rules, second)).collect();
    assert_eq!(waiting.len(), 3, "{waiting:?}");
    assert!(waiting.iter().all(|alert| alert.contains("firing")), "{waiting:?}");
    // What a sender kept: the load was low from second 100 to 149, then high again.
    for second in (60..=300).step_by(10) {
        let load = if (100..150).contains(&second) { 0 } else { 3 };
        world.put(second, &[&format!(r#"load{{zone="a"}} {load}"#)]);
    }
    let heard = tick(&rules, 300);
    let [heard] = heard.as_slice() else { panic!("{heard:?}") };
    let (labels, since) = heard.split_once(" firing since ").unwrap();
    assert_eq!(labels, r#"{alertname="High", zone="a"}"#);
    assert!((170..=180).contains(&since.parse::<i64>().unwrap()), "{heard}");
    let after = rules.alerts().remove(0);
    assert!((150..160).contains(&(after.active_at.as_millis() / 1000 - START_S)), "{after:?}");
    assert_ne!(after.active_at, before.active_at);
    assert_eq!(rules.groups()[0].stats.missed, 0);
    // Every slot shows what was true then.
    let firing = |second| !world.query(second, r#"ALERTS{alertstate="firing"}"#).is_empty();
    assert!([60, 90, 190, 290].into_iter().all(firing));
    assert!(![120, 140, 160].into_iter().any(firing));
}

#[test]
fn a_sender_that_was_ahead_does_not_end_the_wait_for_the_others() {
    let (mut world, _) = world_that_stopped_while_an_alert_fired();
    for second in (60..=600).step_by(10) {
        world.put(second, &["other 1"]);
    }
    world.restart();
    let rules = world.rules(HIGH);
    let heard = tick(&rules, 410);
    assert!(heard.iter().all(|alert| alert.contains("firing")), "{heard:?}");
    // Nor does it that a rule goes meanwhile, whose series end now.
    let more = format!("{HIGH}- name: h\n  interval: 10s\n  rules: [{{alert: Goes, expr: other > 0}}]\n");
    rules.reload(groups(&more), RuleOptions::default());
    rules.reload(groups(HIGH), RuleOptions::default());
    let heard = tick(&rules, 420);
    assert!(heard.iter().all(|alert| alert.contains("firing")), "{heard:?}");
    assert_eq!(rules.alerts().len(), 1);
}

#[test]
fn a_rule_that_moved_to_a_new_group_is_the_same_after_a_crash_before_its_first_slot() {
    let (mut world, before) = world_that_stopped_while_an_alert_fired();
    let both = HIGH.replace("  rules:\n", "  rules:\n  - {record: x, expr: load}\n");
    let rules = world.rules(&both);
    let parts = format!(
        "groups:\n- name: g\n  interval: 10s\n  rules: [{{record: x, expr: load}}]\n{}",
        HIGH.replace("groups:\n", "").replace("name: g", "name: y")
    );
    rules.reload(groups(&parts), RuleOptions::default());
    drop(rules);
    world.restart();
    let rules = world.rules(&parts);
    let alerts = rules.alerts();
    assert_eq!((alerts[0].active_at, alerts[0].state), (before.active_at, AlertState::Firing));
}

#[test]
fn an_alert_whose_condition_cleared_meanwhile_is_resolved_at_its_true_time() {
    let (world, _) = world_that_stopped_while_an_alert_fired();
    let rules = world.rules(HIGH);
    for second in (60..=300).step_by(10) {
        world.put(second, &[if second < 100 { r#"load{zone="a"} 3"# } else { r#"load{zone="a"} 0"# }]);
    }
    let heard = rules.tick(World::at(300));
    let [resolved] = heard.as_slice() else { panic!("{heard:?}") };
    let second = resolved.resolved_at.unwrap().as_millis() / 1000 - START_S;
    assert!((100..110).contains(&second), "{second}");
}

#[test]
fn a_recorded_series_that_went_meanwhile_is_marked_stale() {
    let mut world = World::new();
    let text = "groups:\n- name: g\n  interval: 10s\n  rules: [{record: high, expr: load > 1}]\n";
    let rules = world.rules(text);
    for second in (0..=50).step_by(10) {
        world.put(second, &[r#"load{zone="a"} 3"#, r#"load{zone="b"} 3"#]);
        tick(&rules, second);
    }
    assert_eq!(world.query(50, "high").len(), 2);
    drop(rules);
    world.restart();
    let rules = world.rules(text);
    for second in (60..=120).step_by(10) {
        world.put(second, &[r#"load{zone="a"} 3"#, r#"load{zone="b"} 0"#]);
    }
    tick(&rules, 120);
    assert_eq!(world.query(120, "high"), [r#"{__name__="high", zone="a"} 3"#]);
}

#[test]
fn what_began_and_ended_meanwhile_is_in_the_samples_but_nobody_hears_of_it() {
    let (world, _) = world_that_stopped_while_an_alert_fired();
    let rules = world.rules(HIGH);
    for second in (60..=300).step_by(10) {
        let b = if (100..200).contains(&second) { 3 } else { 0 };
        world.put(second, &[r#"load{zone="a"} 3"#, &format!(r#"load{{zone="b"}} {b}"#)]);
    }
    let heard = tick(&rules, 300);
    assert!(heard.iter().all(|alert| alert.contains(r#"zone="a""#)), "{heard:?}");
    assert_eq!(world.query(180, r#"ALERTS{zone="b",alertstate="firing"}"#).len(), 1);
}

#[test]
fn time_without_any_samples_neither_resolves_an_alert_nor_makes_one_fire() {
    let (world, before) = world_that_stopped_while_an_alert_fired();
    let slow = HIGH.replace("20s", "15m").replace("High", "Slow");
    let both = format!("{HIGH}{}", &slow[slow.find("  - alert").unwrap()..]);
    // Half a minute of it is pending when everything stops, senders too, for half an hour.
    let rules = world.rules(&both);
    for second in (60..=90).step_by(10) {
        world.put(second, &[r#"load{zone="a"} 3"#]);
        tick(&rules, second);
    }
    drop(rules);
    let mut world = world;
    world.restart();
    let rules = world.rules(&both);
    world.put(1900, &[r#"load{zone="a"} 3"#]);
    let heard = tick(&rules, 1900);
    assert!(heard.iter().all(|alert| alert.contains("firing since")), "{heard:?}");
    let alerts = rules.alerts();
    let of = |name| alerts.iter().find(|alert| alert.labels.get("alertname") == Some(name)).unwrap();
    assert_eq!((of("High").active_at, of("High").state), (before.active_at, AlertState::Firing));
    assert_eq!(of("Slow").state, AlertState::Pending);
    let missed = rules.groups()[0].stats.missed;
    assert!((145..=155).contains(&missed), "what could not be told is counted: {missed}");
}

#[test]
fn a_renamed_group_and_a_moved_rule_keep_their_alerts() {
    let renamed = HIGH.replace("name: g", "name: renamed").replace("load {{", "now {{");
    let (world, before) = world_that_stopped_while_an_alert_fired();
    // While nothing ran, and while it runs.
    let rules = world.rules(&renamed);
    assert_eq!(rules.alerts()[0].active_at, before.active_at);
    for second in (60..=80).step_by(10) {
        world.put(second, &[r#"load{zone="a"} 3"#]);
        assert!(tick(&rules, second).is_empty());
    }
    let moved = format!("groups:\n- name: new\n  rules: [{{record: x, expr: '1'}}]\n{}", &HIGH[9..]);
    rules.reload(groups(&moved), RuleOptions::default());
    assert_eq!(rules.alerts()[0].active_at, before.active_at);
    assert!(!world.query(80, "ALERTS").is_empty());
    drop(rules);
    let mut world = world;
    world.restart();
    let rules = world.rules(&moved);
    assert_eq!((rules.alerts()[0].active_at, rules.alerts()[0].state), (before.active_at, before.state));
    let stored = world.db().state().scan(buckets::RULES, b"").unwrap();
    assert_eq!(stored.len(), 2, "one alert and one group; the new one has not been evaluated");
}

/// Set for the child process of the test below, to its data folder.
const CHILD: &str = "LARUM_TEST_RULES_FOLDER";

#[test]
fn child_that_evaluates_until_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let world = World::at_path(Path::new(&path));
    let rules = world.rules(HIGH);
    for second in (0..).step_by(10) {
        world.put(second, &[r#"load{zone="a"} 3"#]);
        let heard = tick(&rules, second).join("");
        println!("\nsecond {second}: {heard}");
    }
}

#[test]
fn an_alert_goes_on_firing_after_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "rules::manager::tests::child_that_evaluates_until_killed", "--nocapture"])
        .env(CHILD, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut heard = lines.filter_map(|line| line.strip_prefix("second ").map(str::to_owned));
    let firing = heard.find(|line| line.contains("firing")).expect("the alert fires");
    let last = heard.nth(30).expect("the child goes on");
    child.kill().unwrap();
    child.wait().unwrap();
    let (_, alert) = firing.split_once(": ").unwrap();
    let second: i64 = last.split_once(':').unwrap().0.parse().unwrap();

    let world = World::at_path(folder.path());
    let rules = world.rules(HIGH);
    let [before] = rules.alerts().try_into().unwrap();
    assert_eq!(before.state, AlertState::Firing);
    // The child may have gone on for some evaluations before it was killed.
    let second = second + 1000;
    world.put(second, &[r#"load{zone="a"} 3"#]);
    let mut heard = tick(&rules, second);
    for later in (10..=90).step_by(10) {
        world.put(second + later, &[r#"load{zone="a"} 3"#]);
        heard.extend(tick(&rules, second + later));
    }
    assert_eq!(heard, [alert, alert], "sent again after the stop and more than a minute later, nothing else");
    assert_eq!(rules.alerts()[0].active_at, before.active_at);
}

#[test]
fn templates_ask_the_database_and_rules_look_back() {
    let world = World::new();
    let rules = world.rules(
        r#"
groups:
- name: g
  interval: 10s
  query_offset: 30s
  rules:
  - {record: double, expr: load * 2}
  - alert: A
    expr: load > 1
    labels: {peer: '{{ with query "peer" }}{{ (index . 0).Labels.name }}{{ end }}'}
    annotations: {broken: '{{ query "sum(" }}'}
"#,
    );
    world.put(0, &["load 3", r#"peer{name="b"} 1"#]);
    tick(&rules, 25);
    assert!(tick(&rules, 29).is_empty());
    world.put(35, &["load 0", r#"peer{name="b"} 1"#]);
    let heard = rules.tick(World::at(45));
    assert_eq!(heard[0].labels.to_string(), r#"{alertname="A", peer="b"}"#);
    let broken = &heard[0].annotations["broken"];
    assert!(broken.starts_with("<error expanding template: ") && broken.contains("parse error"), "{broken}");
    assert_eq!(world.query(16, "double"), [r#"{__name__="double"} 6"#]);
    assert!(world.query(4, "double").is_empty());
}

/// The alert of `rules`, which end then, after the load was high for a quarter of an hour.
fn after_a_quarter_of_an_hour(world: &World, rules: RuleManager) -> AlertStatus {
    for minute in 0..=15 {
        world.put(minute * 60, &[r#"load{zone="a"} 3"#]);
        tick(&rules, minute * 60);
    }
    rules.alerts().remove(0)
}

#[test]
fn time_beyond_the_hour_that_is_made_up_for_does_not_count_as_pending() {
    let slow = HIGH.replace("20s", "8h").replace("10s", "60s");
    let load = [r#"load{zone="a"} 3"#];
    // Minutes without a server, though samples came all the time, and by how many the alert is then younger.
    for (stop, shift) in [(0, 0), (30, 0), (59, 0), (90, 30), (300, 240), (1000, 940)] {
        let mut world = World::new();
        let before = after_a_quarter_of_an_hour(&world, world.rules(&slow));
        world.restart();
        let rules = world.rules(&slow);
        for minute in 16..=16 + stop {
            world.put(minute * 60, &load);
        }
        assert!(tick(&rules, (16 + stop) * 60).is_empty(), "{stop} min: nothing fires");
        let after = rules.alerts().remove(0);
        assert_eq!((after.state, before.state), (AlertState::Pending, AlertState::Pending));
        let shifted = (after.active_at.as_millis() - before.active_at.as_millis()) / 60_000;
        assert!((shifted - shift).abs() <= 1, "{stop} min: shifted by {shifted} min instead of {shift}");
    }
}

#[test]
fn a_gap_beyond_the_tolerance_while_it_runs_does_not_count_as_pending() {
    let slow = HIGH.replace("20s", "8h").replace("10s", "60s");
    // Minutes that the machine sleeps, and by how many the alert is then younger.
    for (asleep, shift) in [(30, 0), (58, 0), (90, 90), (24 * 60, 24 * 60)] {
        let world = World::new();
        let rules = world.rules(&slow);
        for minute in 0..=5 {
            world.put(minute * 60, &[r#"load{zone="a"} 3"#]);
            tick(&rules, minute * 60);
        }
        let before = rules.alerts().remove(0);
        for minute in [4 + asleep, 5 + asleep] {
            world.put(minute * 60, &[r#"load{zone="a"} 3"#]);
        }
        assert!(tick(&rules, (5 + asleep) * 60).is_empty());
        let after = rules.alerts().remove(0);
        let shifted = (after.active_at.as_millis() - before.active_at.as_millis()) / 60_000;
        assert_eq!(shifted, shift, "asleep for {asleep} min");
        assert!(rules.groups()[0].stats.missed.abs_diff(asleep as u64) <= 1);
    }
}

#[test]
fn without_its_state_a_pending_alert_is_taken_up_from_its_samples() {
    type Loss = fn(&Path);
    let losses: [(&str, Loss); 2] = [
        ("deleted", |state| std::fs::remove_dir_all(state).unwrap()),
        ("store and export are garbage", |state| {
            std::fs::write(state.join("store/db"), vec![0xa5; 70_000]).unwrap();
            std::fs::write(state.join("export"), b"?").unwrap();
        }),
    ];
    let slow = HIGH.replace("20s", "30m").replace("10s", "60s");
    let load = [r#"load{zone="a"} 3"#];
    for (what, lose) in losses {
        let mut world = World::new();
        let before = after_a_quarter_of_an_hour(&world, world.rules(&slow));
        world.db = None;
        lose(&world.path.join("state"));
        world.restart();
        let rules = world.rules(&slow);
        for minute in 20..=23 {
            world.put(minute * 60, &load);
            tick(&rules, minute * 60);
        }
        let after = rules.alerts().remove(0);
        assert_eq!(after.state, AlertState::Pending, "{what}");
        let shift_s = (after.active_at.as_millis() - before.active_at.as_millis()) / 1000;
        assert!((300..=480).contains(&shift_s), "{what}: the outage does not count: {shift_s}");
    }
}

#[test]
fn a_failing_evaluation_keeps_the_alerts_and_tells_why() {
    let world = World::new();
    let rules = world.rules(
        "groups:\n- name: g\n  interval: 10s\n  rules:\n  - {alert: A, expr: load + on (zone) group_left () other > 0}\n",
    );
    rules.tick(World::at(0));
    world.put(1, &[r#"load{zone="a"} 1"#, r#"other{zone="a"} 1"#]);
    assert_eq!(tick(&rules, 11).len(), 1);
    world.put(12, &[r#"other{zone="a",x="y"} 1"#]);
    assert!(tick(&rules, 22).is_empty());
    let status = rules.groups().remove(0);
    assert_eq!((status.rules[0].health, status.stats.failures), (Health::Bad, 1));
    let error = status.rules[0].last_error.as_deref().unwrap();
    assert!(error.contains("many-to-many"), "{error}");
    assert_eq!(rules.alerts().len(), 1);
    assert_eq!(status.rules[0].alerting.as_ref().unwrap().state, Some(AlertState::Firing));
}

#[test]
fn reloading_keeps_what_stays_and_ends_what_goes() {
    let world = World::new();
    let text = "
groups:
- name: g
  interval: 10s
  rules:
  - {alert: Stays, expr: load > 1, annotations: {a: old}}
  - {alert: Goes, expr: load > 1}
  - {record: gone, expr: load}
- name: whole
  interval: 10s
  rules:
  - {record: gone_too, expr: load}
";
    let rules = world.rules(text);
    rules.tick(World::at(0));
    world.put(1, &["load 3"]);
    assert_eq!(tick(&rules, 11).len(), 2);
    let active_at = rules.alerts()[0].active_at;
    let edited = "groups:\n- name: g\n  interval: 10s\n  rules:\n  - {alert: Stays, expr: load > 2, annotations: {a: new}}\n";
    world.put(12, &["load 3"]);
    rules.reload(groups(edited), RuleOptions::default());
    assert!(world.query(12, r#"{__name__=~"gone.*"} or ALERTS{alertname="Goes"}"#).is_empty());
    assert_eq!(world.query(12, "ALERTS").len(), 1);
    assert!(tick(&rules, 22).is_empty());
    let alerts = rules.alerts();
    assert_eq!((alerts.len(), alerts[0].active_at), (1, active_at));
    assert_eq!(alerts[0].annotations["a"], "new");
    // What is gone is forgotten in the store too.
    let stored = world.db().state().scan(buckets::RULES, b"").unwrap();
    assert_eq!(stored.len(), 2, "one alert and one group");
}

#[test]
fn a_thread_evaluates_until_its_handle_is_dropped() {
    let world = World::new();
    let rules = world.rules("groups:\n- name: g\n  interval: 1s\n  rules:\n  - {alert: A, expr: load > 1}\n");
    let (heard, alerts) = channel();
    let running = rules.spawn(move |batch| heard.send(batch).unwrap()).unwrap();
    // The thread looks at the clock at least once a second, whatever it says.
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let mut second = 0;
    let batch = loop {
        second += 2;
        world.put(second, &["load 3"]);
        match alerts.recv_timeout(Duration::from_millis(500)) {
            Ok(batch) => break batch,
            Err(e) => assert!(std::time::Instant::now() < deadline, "{e}"),
        }
    };
    assert_eq!(batch[0].labels.get("alertname"), Some("A"));
    drop(running);
    assert!(alerts.recv().is_err(), "the thread has let go of its end");
}

#[test]
fn the_rules_of_a_user_fire_and_are_resolved_with_their_texts() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/inputs/alert-rules.yml");
    if !Path::new(path).exists() {
        eprintln!("skipped: {path} is not there");
        return;
    }
    // Alert, a sample for which it fires, one for which it does not, what its description says.
    let cases = [
        (
            "HighCPUUsage",
            r#"zerotrace_agent_cpu_usage_percent{agent_id="a1"}"#,
            95.5,
            20.0,
            "Agent a1 has high CPU usage: 95.5%",
        ),
        (
            "HighMemoryUsage",
            r#"zerotrace_agent_memory_usage_bytes{agent_id="a1"}"#,
            2e8,
            1e8,
            "Agent a1 has high memory usage: 2e+08 bytes",
        ),
        (
            "SlowScanPerformance",
            r#"zerotrace_scan_duration_seconds{scan_type="full"}"#,
            400.0,
            3.0,
            "Scan full is taking too long: 400s",
        ),
        (
            "EnrichmentServiceDown",
            r#"up{job="enrichment"}"#,
            0.0,
            1.0,
            "Enrichment service has been down for more than 1 minute",
        ),
        (
            "HighEnrichmentLatency",
            "zerotrace_enrichment_duration_seconds",
            31.0,
            1.0,
            "Enrichment service is experiencing high latency: 31s",
        ),
        ("APIDown", r#"up{job="api"}"#, 0.0, 1.0, "API service has been down for more than 1 minute"),
        (
            "HighAPIResponseTime",
            "zerotrace_api_request_duration_seconds",
            6.0,
            0.1,
            "API is experiencing high response times: 6s",
        ),
    ];
    let world = World::new();
    let groups = Group::load(path).unwrap();
    assert_eq!(groups[0].rules.len(), cases.len());
    let rules = RuleManager::new(world.db(), groups).unwrap();
    let mut heard = Vec::new();
    for second in (0..=540).step_by(30) {
        let good = second > 420;
        let samples: Vec<String> = cases
            .iter()
            .map(|(_, metric, bad_value, good_value, _)| {
                format!("{metric} {}", if good { good_value } else { bad_value })
            })
            .collect();
        world.put(second, &samples.iter().map(String::as_str).collect::<Vec<_>>());
        heard.extend(rules.tick(World::at(second)));
    }
    for (name, _, _, _, description) in cases {
        let of_rule: Vec<&Alert> = heard.iter().filter(|a| a.labels.get("alertname") == Some(name)).collect();
        assert!(of_rule.len() >= 2 && !of_rule[0].is_resolved(), "{name}: {of_rule:?}");
        assert!(of_rule[of_rule.len() - 1].is_resolved(), "{name}");
        assert_eq!(of_rule[0].annotations["description"], description);
        assert!(of_rule[0].labels.get("severity").is_some());
    }
}

#[path = "bad_input_tests.rs"]
mod bad_input;
