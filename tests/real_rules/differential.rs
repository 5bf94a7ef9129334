//! The same rules over the same samples in a real Prometheus and in Larum, once a second.
//!
//! Samples come once a second too, each in good time before it counts, and never at the moment a group
//! is evaluated. So every evaluation of a group falls between the same two samples in both servers, and
//! must find the same there; [`Run::second`] numbers these spaces. Only a group that reads what another
//! one yields may see it one evaluation later, as groups are spread over the interval by a hash.

use super::random::Random;
use super::receiver::time_ms;
use super::series::{self, Series};
use super::support::{
    Larum, Process, WriteSeries, get, get_with, now_ms, remote_write, start_prometheus, wait_until,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

const RULES: &str = include_str!("rules.yml");
/// Groups that read what another group yields are named so, followed by the name of that and a number.
const ACROSS: &str = "across ";
/// Where those follow each other as closely, it is a matter of luck which Prometheus evaluates first.
const CLOSE_MS: i64 = 150;
const INTERVAL_MS: i64 = 1000;
/// So long before its time a sample is written.
const AHEAD_MS: i64 = 5_000;
/// How long a series is seen after its last sample. Just more than whole seconds: what is as old as this is
/// seen by Prometheus 2, and not by Prometheus 3 and Larum, and so old may be what groups yield themselves.
const LOOKBACK: &str = "--query.lookback-delta=5010ms";

/// What a series shows, by second. Alerts of the same rule are told apart by the labels.
type Shown = BTreeMap<String, BTreeMap<usize, String>>;

/// Two servers, and when the samples come.
pub struct Run {
    larum: Larum,
    _prometheus: Process,
    prometheus_url: String,
    /// The time of second 0.
    base_ms: i64,
    seconds: usize,
    /// Groups that cannot be compared.
    left_out: BTreeSet<String>,
}

/// What was compared and what differed.
#[derive(Default)]
pub struct Outcome {
    /// Each with its group, where it is of one.
    differences: Vec<(Option<String>, String)>,
    /// Groups that were not compared: not evaluated every second, or too close to the one they read.
    pub left_out: BTreeSet<String>,
    pub samples: usize,
    /// How often a rule was compared as the API shows it, and how often all alerts.
    pub rules: usize,
    pub alert_lists: usize,
}

impl Outcome {
    /// What differs, save for groups that are left out.
    pub fn differences(&self) -> Vec<&str> {
        let counts = |group: &Option<String>| match group {
            Some(group) => !self.left_out.contains(group),
            None => self.left_out.is_empty(),
        };
        self.differences.iter().filter(|(group, _)| counts(group)).map(|(_, what)| what.as_str()).collect()
    }

    fn differ(&mut self, group: Option<&str>, what: String) {
        self.differences.push((group.map(str::to_owned), what));
    }
}

impl Run {
    /// Starts both servers in `dir` and waits until all groups are evaluated.
    pub fn start(prometheus: &Path, dir: &Path, seconds: usize) -> Run {
        let rules = dir.join("rules.yml");
        std::fs::write(&rules, RULES).expect("the rules are written");
        let config = format!("global: {{evaluation_interval: 1s}}\nrule_files: ['{}']\n", rules.display());
        let path = dir.join("larum.yml");
        std::fs::write(&path, &config).expect("the configuration is written");
        let (process, prometheus_url) =
            start_prometheus(prometheus, dir, |_| config, &["--web.enable-remote-write-receiver", LOOKBACK]);
        let larum = Larum::start(dir, &[&format!("--config.file={}", path.display()), LOOKBACK]);
        let left_out = BTreeSet::new();
        let mut run = Run { larum, _prometheus: process, prometheus_url, base_ms: 0, seconds, left_out };
        run.choose_base();
        run
    }

    /// Puts second 0 where no group is evaluated, as far from the next one as can be.
    fn choose_base(&mut self) {
        let groups = RULES.matches("- name:").count();
        let mut phases = Vec::new();
        wait_until("all groups were evaluated thrice", Duration::from_secs(60), || {
            let servers = self.urls().map(|url| raw(url, "slot:time", now_ms()));
            let of_series = |(labels, samples): &(Value, Vec<(i64, String)>)| {
                let (t_ms, _) = samples.get(2)?;
                Some((labels["group"].as_str()?.to_owned(), t_ms % INTERVAL_MS))
            };
            phases =
                servers.iter().map(|s| s.iter().filter_map(of_series).collect::<BTreeMap<_, _>>()).collect();
            phases.iter().all(|of_server| of_server.len() == groups)
        });
        let theirs = &phases[0];
        for (name, phase) in theirs {
            let distance = |other: &i64| (phase - other).rem_euclid(INTERVAL_MS);
            let producer = name.strip_prefix(ACROSS).and_then(|rest| theirs.get(rest.split(' ').next()?));
            if producer.map(distance).is_some_and(|ms| ms.min(INTERVAL_MS - ms) < CLOSE_MS) {
                self.left_out.insert(name.clone());
            }
        }
        let phases: BTreeSet<i64> = phases.iter().flat_map(|of_server| of_server.values().copied()).collect();
        let phases: Vec<i64> = phases.into_iter().collect();
        let next = |at: usize| phases.get(at + 1).copied().unwrap_or(phases[0] + INTERVAL_MS);
        let gap = |at: &usize| next(*at) - phases[*at];
        let widest = (0..phases.len()).max_by_key(gap).expect("there are groups");
        let phase = phases[widest] + gap(&widest) / 2;
        self.base_ms = (now_ms() + AHEAD_MS + 2 * INTERVAL_MS) / INTERVAL_MS * INTERVAL_MS + phase;
    }

    fn urls(&self) -> [&str; 2] {
        [&self.prometheus_url, &self.larum.url]
    }

    /// The second in which a time lies; `None` for times before the run.
    fn second(&self, t_ms: i64) -> Option<usize> {
        usize::try_from((t_ms - self.base_ms).div_euclid(INTERVAL_MS)).ok()
    }

    fn time_ms(&self, second: usize) -> i64 {
        self.base_ms + second as i64 * INTERVAL_MS
    }

    /// Writes all samples in time and compares what the servers show, all the while and at the end.
    pub fn compare(&self, random: &mut Random) -> Outcome {
        let all = series::series(random, self.seconds);
        let mut outcome = Outcome { left_out: self.left_out.clone(), ..Outcome::default() };
        let mut written = 0;
        for second in 0..self.seconds {
            while written < self.seconds
                && self.time_ms(written) - AHEAD_MS <= now_ms().max(self.time_ms(second))
            {
                self.write(&all, written);
                written += 1;
            }
            sleep_until(self.time_ms(second));
            self.compare_api(&mut outcome);
        }
        sleep_until(self.time_ms(self.seconds));
        self.compare_samples(&mut outcome);
        outcome
    }

    fn write(&self, all: &[Series], second: usize) {
        let due: Vec<_> = all.iter().filter_map(|series| Some((series, series.values[second]?))).collect();
        let labels: Vec<Vec<(&str, &str)>> = due
            .iter()
            .map(|(series, _)| series.labels.iter().map(|(name, value)| (*name, value.as_str())).collect())
            .collect();
        let samples: Vec<_> = due.iter().map(|(_, value)| [(self.time_ms(second), *value)]).collect();
        let request: Vec<WriteSeries> =
            labels.iter().zip(&samples).map(|(labels, samples)| (&labels[..], &samples[..])).collect();
        for url in self.urls() {
            let response = remote_write(url, &request);
            assert_eq!(response.status, 204, "{url}: {}", response.body);
        }
    }

    /// Compares the rules that both servers evaluated last in the same second.
    fn compare_api(&self, outcome: &mut Outcome) {
        let ask = || {
            let of = |url: &str| ["rules", "alerts"].map(|what| api(url, &format!("/api/v1/{what}")));
            self.urls().map(of)
        };
        let (before, servers) = (ask(), ask());
        if before != servers {
            // One of them was evaluating meanwhile.
            return;
        }
        let [[their_rules, their_alerts], [our_rules, our_alerts]] = servers;
        let theirs = list(&their_rules, "groups");
        let ours = list(&our_rules, "groups");
        let names = |groups: &[Value]| -> Vec<String> {
            groups.iter().map(|group| format!("{} of {}", group["name"], group["file"])).collect()
        };
        if names(theirs) != names(ours) {
            let what = format!("groups: {:?}, ours {:?}", names(theirs), names(ours));
            return outcome.differ(None, what);
        }
        let mut all_agree = true;
        for (theirs, ours) in theirs.iter().zip(ours) {
            all_agree &= self.compare_group(theirs, ours, outcome);
        }
        if all_agree {
            outcome.alert_lists += 1;
            let is_across = |alert: &Value| {
                alert["labels"]["alertname"].as_str().is_some_and(|name| name.starts_with("Across"))
            };
            let [theirs, ours] = [their_alerts, our_alerts].map(|data| {
                let alerts = list(&data, "alerts").iter().filter(|alert| !is_across(alert)).cloned();
                self.normal_alerts(&alerts.collect::<Vec<_>>())
            });
            if theirs != ours {
                outcome.differ(None, format!("alerts: {}\n   ours {}", json!(theirs), json!(ours)));
            }
        }
    }

    /// Compares the rules of a group. Returns whether both servers evaluated all of them in the same second.
    fn compare_group(&self, theirs: &Value, ours: &Value, outcome: &mut Outcome) -> bool {
        let name = theirs["name"].as_str();
        let is_across = name.is_some_and(|name| name.starts_with(ACROSS));
        let group = |group: &Value| without(group, &["rules", "evaluationTime", "lastEvaluation"]);
        let (their_rules, our_rules) = (list(theirs, "rules"), list(ours, "rules"));
        if group(theirs) != group(ours) || their_rules.len() != our_rules.len() {
            outcome.differ(name, format!("group: {theirs}\n   ours {ours}"));
        }
        let mut all_agree = true;
        for (theirs, ours) in their_rules.iter().zip(our_rules) {
            let last = |rule: &Value| self.second(time_ms(&rule["lastEvaluation"]));
            if last(theirs).is_none() || last(theirs) != last(ours) {
                all_agree = false;
                continue;
            }
            outcome.rules += 1;
            let second = last(theirs).unwrap_or_default();
            let [theirs, ours] = [theirs, ours].map(|rule| self.normal_rule(rule, is_across));
            if theirs != ours {
                outcome.differ(name, format!("rule at {second}: {theirs}\n   ours {ours}"));
            }
        }
        all_agree
    }

    /// A rule as the API shows it, with times as numbers of seconds.
    fn normal_rule(&self, rule: &Value, is_across: bool) -> Value {
        let mut normal = without(rule, &["evaluationTime", "lastEvaluation"]);
        if let Some(alerts) = rule["alerts"].as_array() {
            normal["alerts"] = json!(self.normal_alerts(alerts));
        }
        if is_across {
            normal = without(&normal, &["alerts", "state"]);
        }
        // Prometheus 3 shows labels also where there are none.
        if normal["labels"] == json!({}) {
            normal = without(&normal, &["labels"]);
        }
        // Of two series that exclude each other either may be named first.
        if let Some((error, _)) = rule["lastError"].as_str().and_then(|error| error.split_once(": [{")) {
            normal["lastError"] = json!(error);
        }
        normal
    }

    /// Alerts with times as numbers of seconds.
    fn normal_alerts(&self, alerts: &[Value]) -> Vec<Value> {
        let normal = |alert: &Value| {
            let mut alert = alert.clone();
            for name in ["activeAt", "keepFiringSince"] {
                if alert.get(name).is_some() {
                    alert[name] = json!(self.second(time_ms(&alert[name])));
                }
            }
            alert
        };
        let mut alerts: Vec<Value> = alerts.iter().map(normal).collect();
        alerts.sort_by_cached_key(Value::to_string);
        alerts
    }

    /// Compares all samples that the rules yielded.
    fn compare_samples(&self, outcome: &mut Outcome) {
        let [theirs, ours] = self.urls().map(|url| {
            let selector = r#"{__name__=~"ALERTS|ALERTS_FOR_STATE|.+:.+"}"#;
            raw(url, selector, self.time_ms(self.seconds))
        });
        for (series, _) in theirs.iter().chain(&ours).filter(|(labels, _)| labels["__name__"] == "slot:time")
        {
            let evaluated = |server: &[(Value, Vec<(i64, String)>)]| {
                let samples = server.iter().find(|(labels, _)| labels == series).map(|(_, samples)| samples);
                let seconds = samples.into_iter().flatten().filter_map(|(t_ms, _)| self.second(*t_ms));
                seconds.filter(|second| *second < self.seconds - 1).collect::<BTreeSet<_>>().len()
            };
            if evaluated(&theirs) < self.seconds - 1 || evaluated(&ours) < self.seconds - 1 {
                outcome.left_out.insert(series["group"].as_str().unwrap_or_default().to_owned());
            }
        }
        let groups = groups_of_rules(&self.larum.url);
        let [theirs, ours] = [theirs, ours].map(|of_server| self.shown(&of_server));
        let keys: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
        for key in keys {
            let labels: Value = serde_json::from_str(key).expect("it was JSON");
            let rule = labels["rule"].as_str().unwrap_or_default();
            let Some(group) = groups.get(rule) else {
                outcome.differ(None, format!("no rule yields {key}"));
                continue;
            };
            if outcome.left_out.contains(group) {
                continue;
            }
            let nothing = BTreeMap::new();
            let of = |shown: &Shown| shown.get(key).unwrap_or(&nothing).clone();
            let (theirs, ours) = (of(&theirs), of(&ours));
            outcome.samples += theirs.len();
            let shifts: &[isize] = if group.starts_with(ACROSS) { &[0, -1, 1] } else { &[0] };
            if !shifts.iter().any(|shift| self.agree(&theirs, &ours, *shift)) {
                let at = |second: &usize| theirs.get(second) != ours.get(second);
                let first = (0..self.seconds).find(at).unwrap_or_default();
                let text = |shown: &BTreeMap<usize, String>| {
                    let near = shown.range(first.saturating_sub(6)..first + 7);
                    near.map(|(second, value)| format!("{second}: {value}")).collect::<Vec<_>>().join(", ")
                };
                let what = format!(
                    "{key} from second {first}:\n  theirs {}\n    ours {}",
                    text(&theirs),
                    text(&ours)
                );
                outcome.differ(Some(group), what);
            }
        }
    }

    /// Whether ours is theirs, shifted by so many seconds.
    fn agree(&self, theirs: &BTreeMap<usize, String>, ours: &BTreeMap<usize, String>, shift: isize) -> bool {
        // What is near the ends may be shifted out of sight, and the last second is not over.
        let margin = shift.unsigned_abs();
        (margin..self.seconds - 1 - margin)
            .all(|second| theirs.get(&second) == ours.get(&second.saturating_add_signed(shift)))
    }

    /// Samples by second, and what does not depend on when within it a group is evaluated: for
    /// `ALERTS_FOR_STATE`, how many seconds ago it changed.
    fn shown(&self, series: &[(Value, Vec<(i64, String)>)]) -> Shown {
        let mut shown = Shown::new();
        for (labels, samples) in series {
            let name = labels["__name__"].as_str().unwrap_or_default();
            if name == "slot:time" {
                continue;
            }
            let mut key = labels.clone();
            let rule = if name.starts_with("ALERTS") { &labels["alertname"] } else { &labels["__name__"] };
            key["rule"] = rule.clone();
            let mut changed: Option<(usize, &str)> = None;
            let mut by_second = BTreeMap::new();
            for (t_ms, value) in samples {
                let Some(second) = self.second(*t_ms) else { continue };
                let mut value = value.clone();
                if name == "ALERTS_FOR_STATE" {
                    let since = match changed {
                        Some((since, before)) if before == value => since,
                        _ => second,
                    };
                    changed =
                        samples.iter().find(|(t, _)| t == t_ms).map(|(_, value)| (since, value.as_str()));
                    value = format!("for {}", second - since);
                }
                by_second.insert(second, value);
            }
            shown.insert(key.to_string(), by_second);
        }
        shown
    }
}

/// The group of each rule, by the rule's name.
fn groups_of_rules(url: &str) -> BTreeMap<String, String> {
    let rules = api(url, "/api/v1/rules");
    let name = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    let of_group = |group| list(group, "rules").iter().map(move |rule| (name(rule), name(group)));
    list(&rules, "groups").iter().flat_map(of_group).collect()
}

/// All series that a selector selects, with all their samples.
fn raw(url: &str, selector: &str, until_ms: i64) -> Vec<(Value, Vec<(i64, String)>)> {
    let (query, time) = (format!("{selector}[10m]"), format!("{}", until_ms as f64 / 1000.0));
    let answer = get_with(&format!("{url}/api/v1/query"), &[("query", &query), ("time", &time)]);
    let mut answer = answer.expect("the server answers").json();
    let Value::Array(series) = answer["data"]["result"].take() else { panic!("{url}: {answer}") };
    let sample = |sample: &Value| {
        let t_ms = (sample[0].as_f64().expect("a time") * 1000.0).round() as i64;
        (t_ms, sample[1].as_str().expect("a value").to_owned())
    };
    let of_series = |series: Value| {
        let samples = series["values"].as_array().expect("samples").iter().map(sample).collect();
        (series["metric"].clone(), samples)
    };
    series.into_iter().map(of_series).collect()
}

/// The data of an answer of the API, with alerts in an order of their own: Prometheus has none.
fn api(url: &str, path: &str) -> Value {
    let mut answer = get(&format!("{url}{path}")).expect("the server answers").json();
    let mut data = answer["data"].take();
    sort_alerts(&mut data);
    data
}

fn sort_alerts(value: &mut Value) {
    if let Some(alerts) = value.get_mut("alerts").and_then(Value::as_array_mut) {
        return alerts.sort_by_cached_key(Value::to_string);
    }
    for list in ["groups", "rules"] {
        value.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().for_each(sort_alerts);
    }
}

/// The list of a name in an answer.
fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().unwrap_or_else(|| panic!("no {name}: {value}"))
}

fn without(value: &Value, names: &[&str]) -> Value {
    let mut value = value.clone();
    if let Some(object) = value.as_object_mut() {
        names.iter().for_each(|name| drop(object.remove(*name)));
    }
    value
}

fn sleep_until(t_ms: i64) {
    while let Ok(left @ 1..) = u64::try_from(t_ms - now_ms()) {
        std::thread::sleep(Duration::from_millis(left));
    }
}
