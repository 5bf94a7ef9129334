//! The server watches itself: it evaluates alerts about itself that come along, and stores those of its own
//! metrics that they look at. Others it does not: what is stored is the users'.

use super::app::{App, Phase};
use super::metrics;
use crate::Db;
use crate::ingest::open_metrics::Decoder;
use crate::promql::Syntax;
use crate::rules::{Group, Rule, file};
use crate::storage::{AppendError, Batch, Matcher, Timestamp};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What own metrics have as `job`.
const JOB: &str = "larum";
/// Own metrics are stored at least so often.
const LONGEST_INTERVAL: Duration = Duration::from_secs(15);
/// And at most so often.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// The rules that come along, and the file name under which they are shown.
const PACK: &str = include_str!("../../rules/larum.yaml");
const PACK_FILE: &str = "built-in/larum.yaml";

/// Adds the alerts about this server, if they are wanted.
pub fn add_pack(app: &App, groups: &mut Vec<Group>) {
    if app.args.self_monitoring {
        let pack = pack(&app.instance, groups);
        groups.extend(pack);
    }
}

/// The groups that come along, about this server only: what it stores of others under the same names is no
/// business of theirs. Of an alert that a rule file of the user has too, the user's is taken.
fn pack(instance: &str, users: &[Group]) -> Vec<Group> {
    let alert = |rule: &Rule| matches!(rule, Rule::Alerting(_)).then(|| rule.name().to_owned());
    let taken: HashSet<String> = users.iter().flat_map(|group| &group.rules).filter_map(alert).collect();
    let loaded = file::parse(Path::new(PACK_FILE), PACK, Syntax::default());
    let mut groups = loaded.expect("a test reads the pack").groups;
    for group in &mut groups {
        group.rules.retain(|rule| !taken.contains(rule.name()));
        for rule in &mut group.rules {
            let (expr, query) = match rule {
                Rule::Alerting(rule) => (&mut rule.expr, &mut rule.query),
                Rule::Recording(rule) => (&mut rule.expr, &mut rule.query),
            };
            expr.change_selectors(|selector| {
                let own = [("instance", instance), ("job", JOB)];
                selector.matchers.extend(own.map(|(name, value)| Matcher::equal(name, value)));
            });
            *query = expr.to_string().into();
        }
    }
    groups.retain(|group| !group.rules.is_empty());
    groups
}

/// The names of the metrics that the alerts look at.
fn watched() -> HashSet<String> {
    let rules = pack("", &[]).into_iter().flat_map(|group| group.rules);
    let selectors = rules.flat_map(|rule| rule.expr().selectors().into_iter().cloned().collect::<Vec<_>>());
    selectors.filter_map(|selector| selector.name).collect()
}

/// Stores own metrics until the server stops.
pub async fn run(app: Arc<App>) {
    let mut phase = app.watch_phase();
    let watched = Arc::new(watched());
    let mut is_stored = true;
    loop {
        let interval = app.config().config.evaluation_interval;
        tokio::select! {
            () = tokio::time::sleep(interval.clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL)) => {}
            _ = phase.wait_for(|phase| *phase == Phase::Stopping) => return,
        }
        let (of_look, names) = (app.clone(), watched.clone());
        let stored = tokio::task::spawn_blocking(move || look(&of_look, &names)).await;
        match &stored {
            Ok(Ok(())) if !is_stored => tracing::info!("own metrics are stored again, with those since then"),
            Ok(Err(error)) if is_stored && !app.is_stopping() => {
                tracing::warn!("own metrics are held in memory for a while, where rules see them: {error}");
            }
            _ => {}
        }
        is_stored = matches!(stored, Ok(Ok(())));
    }
}

/// Stores what the metrics are now. What cannot be stored is held, for the rules and for later.
fn look(app: &App, watched: &HashSet<String>) -> Result<(), AppendError> {
    let (Some(db), Some(rules)) = (app.db(), app.rules()) else { return Ok(()) };
    if rules.is_waiting() {
        // Until the senders are back, which own samples would be taken for a sign of.
        return Ok(());
    }
    let now = db.now();
    let batch = own_metrics(app, now, watched);
    let outcome = append(app, db, &batch);
    if outcome.is_err() {
        let series = (0..batch.series_count()).filter_map(|series| {
            let value = batch.values().get(batch.series_samples(series).start)?;
            Some((batch.parse_labels(series).ok()?, *value))
        });
        app.unstored.hold(now, series);
    }
    outcome
}

fn append(app: &App, db: &Db, batch: &Batch) -> Result<(), AppendError> {
    if let Some(held) = app.unstored.batch() {
        db.append(&held)?;
        app.unstored.clear();
    }
    db.append(batch).map(drop)
}

fn own_metrics(app: &App, now: Timestamp, watched: &HashSet<String>) -> Batch {
    let own = [("instance", app.instance.as_str()), ("job", JOB)];
    let text = metrics::render(app, &own, |name| watched.contains(name));
    let mut batch = Batch::new();
    let decoded = Decoder::new(Some(now.as_millis())).decode(text.into_bytes(), &mut batch);
    debug_assert_eq!(decoded, Ok(Vec::new()));
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(groups: &[Group]) -> Vec<&str> {
        groups.iter().flat_map(|group| &group.rules).map(Rule::name).collect()
    }

    #[test]
    fn the_alerts_that_come_along_are_about_this_server() {
        let groups = pack("here:9090", &[]);
        assert!(names(&groups).len() > 15);
        for group in &groups {
            assert_eq!(group.file, "built-in/larum.yaml");
            for rule in &group.rules {
                let selectors = rule.expr().selectors().len();
                assert!(selectors > 0, "{}", rule.name());
                let own = rule.query().matches(r#"instance="here:9090",job="larum""#).count();
                assert_eq!(own, selectors, "{}", rule.query());
            }
        }
    }

    #[test]
    fn every_metric_that_the_alerts_look_at_is_one_of_ours() {
        let watched = watched();
        assert!(watched.len() > 15, "{watched:?}");
        let unknown: Vec<_> = watched.iter().filter(|name| !metrics::has(name)).collect();
        assert_eq!(unknown, Vec::<&String>::new());
    }

    #[test]
    fn who_loads_the_file_or_a_part_of_it_has_no_alert_twice() {
        let users = file::parse(Path::new("/etc/larum.yaml"), PACK, Syntax::default()).unwrap().groups;
        assert!(pack("here:9090", &users).is_empty());
        let all = pack("here:9090", &[]);
        let text = "groups: [{name: mine, rules: [{alert: LarumDiskLow, expr: up == 0}]}]";
        let users = file::parse(Path::new("mine.yaml"), text, Syntax::default()).unwrap().groups;
        let left = pack("here:9090", &users);
        assert_eq!(names(&left).len(), names(&all).len() - 1);
        assert!(!names(&left).contains(&"LarumDiskLow"));
    }
}
