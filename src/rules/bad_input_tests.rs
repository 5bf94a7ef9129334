//! What rules and clocks do wrong, each told in the status, the figures and the warnings, while the rest goes on.

use super::*;

/// A rule beside the bad one, which must not suffer.
const GOOD: &str = "- name: good\n  interval: 10s\n  rules: [{record: fine, expr: load}]\n";

/// The status of the first group, after a round in which the good rule went well.
fn status_beside_good(world: &World, rules: &RuleManager, second: i64) -> GroupStatus {
    let mut groups = rules.groups();
    let good = groups.iter().position(|group| group.name == "good").expect("the good group");
    let good = groups.remove(good);
    assert_eq!((good.rules[0].health, good.stats.failures), (Health::Good, 0));
    assert!(!world.query(second, "fine").is_empty());
    groups.remove(0)
}

#[test]
fn a_rule_that_fails_every_time_is_counted_each_time() {
    let world = World::new();
    let rules = world.rules(&format!(
        "groups:\n- name: bad\n  interval: 10s\n  rules:\n  - {{record: x, expr: load + on () load}}\n  \
         - {{record: beside, expr: load}}\n{GOOD}"
    ));
    rules.tick(World::at(0));
    for round in 1..=5 {
        world.put(10 * round - 9, &[r#"load{zone="a"} 1"#, r#"load{zone="b"} 2"#]);
        tick(&rules, 10 * round + 1);
        let status = status_beside_good(&world, &rules, 10 * round + 1);
        assert_eq!((status.stats.evaluations, status.stats.failures), (2 * round as u64, round as u64));
        assert_eq!((status.rules[0].health, status.rules[1].health), (Health::Bad, Health::Good));
        assert!(status.rules[0].last_error.as_ref().unwrap().contains("many-to-many"));
    }
    assert_eq!(world.query(51, "beside").len(), 2);
    assert!(world.query(51, "x").is_empty());
}

#[test]
fn a_template_that_loops_for_ever_costs_its_text_alone() {
    let world = World::new();
    let rules = world.rules(&format!(
        "groups:\n- name: bad\n  interval: 10s\n  rules:\n  - alert: A\n    expr: load > 0\n    annotations:\n      \
         loops: '{{{{ range 1000000 }}}}{{{{ range 1000000 }}}}{{{{ end }}}}{{{{ end }}}}'\n      \
         long: '{{{{ printf \"%1000000d\" 1 }}}}'\n      \
         many: '{{{{ query \"many\" | len }}}}'\n      fine: '{{{{ $value }}}}'\n{GOOD}"
    ));
    rules.tick(World::at(0));
    let many: Vec<String> = (0..1001).map(|i| format!("many{{i=\"{i}\"}} 1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).chain(["load 3"]).collect();
    world.put(1, &many);
    assert_eq!(tick(&rules, 11), [r#"{alertname="A"} firing since "#.to_owned() + &slot(&rules)]);
    let status = status_beside_good(&world, &rules, 11);
    assert_eq!(
        (status.rules[0].health, status.stats.failures, status.stats.template_failures),
        (Health::Good, 0, 3)
    );
    let alert = rules.alerts().remove(0);
    assert_eq!(alert.annotations["fine"], "3");
    for (name, error) in [
        ("loops", "exceeded "),
        ("long", "the text exceeds 65536 bytes"),
        ("many", "the query has 1001 results, more than 1000"),
    ] {
        let text = &alert.annotations[name];
        assert!(text.starts_with("<error expanding template: ") && text.contains(error), "{text}");
    }
    let warnings = rules.warnings();
    assert!(
        warnings[0].starts_with("A (group bad of r.yml): error executing template __alert_A: "),
        "{warnings:?}"
    );
}

/// The second of the first group's last slot.
fn slot(rules: &RuleManager) -> String {
    let group = rules.loaded().groups.iter().find(|group| group.group.name == "bad").cloned();
    (group.unwrap().last_slot_ms().unwrap() / 1000 - START_S).to_string()
}

#[test]
fn a_result_beyond_the_limit_is_an_error_of_its_rule() {
    let world = World::new();
    let rules = world.rules(&format!(
        "groups:\n- name: bad\n  interval: 10s\n  limit: 2\n  rules:\n  - {{alert: A, expr: load > 0}}\n  \
         - {{record: x, expr: load}}\n  - {{record: few, expr: sum(load)}}\n{GOOD}"
    ));
    rules.tick(World::at(0));
    world.put(1, &[r#"load{zone="a"} 1"#, r#"load{zone="b"} 1"#]);
    assert_eq!(tick(&rules, 11).len(), 2);
    world.put(12, &[r#"load{zone="a"} 1"#, r#"load{zone="b"} 1"#, r#"load{zone="c"} 1"#]);
    assert!(tick(&rules, 22).is_empty());
    let status = status_beside_good(&world, &rules, 22);
    let errors: Vec<_> = status.rules.iter().map(|rule| rule.last_error.as_deref()).collect();
    let expected =
        [Some("exceeded limit of 2 with 3 alerts"), Some("exceeded limit of 2 with 3 series"), None];
    assert_eq!((errors.as_slice(), status.stats.failures), (&expected[..], 2));
    assert!(rules.alerts().is_empty());
    assert_eq!(world.query(22, "x").len(), 2, "no stale markers");
    assert_eq!(world.query(22, "few"), [r#"{__name__="few"} 3"#]);
}

#[test]
fn rules_that_yield_the_same_series_are_told() {
    let world = World::new();
    let rules = world.rules(&format!(
        "groups:\n- name: g\n  interval: 10s\n  rules:\n  - {{record: x, expr: load}}\n  \
         - {{record: y, expr: 'load{{zone=\"a\"}}'}}\n  - {{record: y, expr: 'load{{zone=\"b\"}}'}}\n\
         - name: h\n  interval: 10s\n  rules: [{{record: x, expr: load * 2}}]\n{GOOD}"
    ));
    rules.tick(World::at(0));
    world.put(1, &[r#"load{zone="a"} 1"#, r#"load{zone="b"} 1"#]);
    tick(&rules, 11);
    status_beside_good(&world, &rules, 11);
    let expected = "x (rule 1 of group g of r.yml) and x (rule 1 of group h of r.yml) yield the same series, such as \
                    {__name__=\"x\", zone=\"a\"}; what one yields, the other overwrites";
    assert_eq!((rules.warnings(), rules.overlap_count()), (vec![expected.to_owned()], 1));
}

const DAY_S: i64 = 86_400;

#[test]
fn a_clock_that_jumps_by_a_day_and_back_is_counted_and_gone_on_with() {
    let world = World::new();
    let rules = world.rules(&format!("{}{GOOD}", HIGH.replace("    for: 20s\n", "")));
    rules.tick(World::at(0));
    let look = |second: i64| {
        world.put(second - 10, &["load 2"]);
        tick(&rules, second)
    };
    assert_eq!(look(11).len(), 1);
    assert!(look(21).is_empty());
    let missed = |rules: &RuleManager| rules.groups().iter().map(|g| g.stats.missed).max().unwrap();
    assert!(missed(&rules) <= 1);
    assert!(look(31 + DAY_S).iter().all(|alert| alert.contains(" firing ")), "nothing is resolved");
    assert!(missed(&rules) >= 8_639);
    assert_eq!(rules.alerts().len(), 1);
    let count = missed(&rules);
    for second in [41, 51, 61] {
        assert!(look(second).iter().all(|alert| alert.contains(" firing ")), "nothing is resolved");
        assert_eq!((rules.alerts().len(), rules.alerts()[0].state), (1, AlertState::Firing));
    }
    assert_eq!(missed(&rules), count, "the way back leaves nothing out");
    assert_eq!(world.query(61, "fine"), [r#"{__name__="fine"} 2"#]);
    assert!(rules.groups().iter().all(|group| group.stats.failures == 0));
}

#[test]
fn after_an_hour_of_sleep_nothing_is_resolved_before_senders_are_back() {
    let world = World::new();
    let rules = world.rules(&format!("{}{GOOD}", HIGH.replace("    for: 20s\n", "")));
    rules.tick(World::at(0));
    world.put(1, &["load 2"]);
    assert_eq!(tick(&rules, 11).len(), 1);
    // What the thread does that compares the clocks.
    let start = Instant::now();
    let clock = |second: i64| lock(&rules.inner.clock).look(start, World::at(second).as_millis());
    assert_eq!(clock(10), None);
    let jump_ms = clock(3610).unwrap();
    rules.clock_jumped(jump_ms);
    assert!(rules.is_waiting());
    world.clock_ms.store(World::at(3610).as_millis(), Ordering::Relaxed);
    let heard = tick(&rules, 3610);
    assert!(heard.iter().all(|alert| alert.contains(" firing ")), "{heard:?}");
    assert_eq!(rules.alerts().len(), 1);
    world.put(3611, &["load 2"]);
    let heard = tick(&rules, 3621);
    assert!(heard.iter().all(|alert| alert.contains(" firing ")), "{heard:?}");
    assert!(!rules.is_waiting());
    assert_eq!((rules.alerts().len(), rules.clock_jumps()), (1, 1));
    assert!(rules.warnings()[0].contains("jumped forward by 3600 s"), "{:?}", rules.warnings());
    // Whose condition ended meanwhile is resolved then.
    world.put(3622, &["load 0"]);
    assert!(tick(&rules, 3632)[0].contains(" resolved "));
}
