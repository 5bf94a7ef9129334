//! `/api/v1/rules`, `/api/v1/alerts`.

use super::super::app::App;
use super::super::error::{ApiError, ErrorKind};
use super::super::http::params::Params;
use super::super::json;
use super::selectors::matcher_sets;
use super::status::rfc3339;
use crate::promql::number::{Form, write_float};
use crate::rules::{AlertState, AlertStatus, GroupStatus, RuleStatus};
use crate::storage::{Matcher, Timestamp};
use axum::extract::{Request, State};
use axum::response::Response;
use larum_storage_format::Labels;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::Arc;

/// `GET /api/v1/alerts`
pub async fn alerts(State(app): State<Arc<App>>) -> Response {
    #[derive(Serialize)]
    struct Data<'a> {
        alerts: Vec<AlertTwin<'a>>,
    }
    let alerts = app.rules().map(|rules| rules.alerts()).unwrap_or_default();
    let data = Data { alerts: alerts.iter().map(AlertTwin::new).collect() };
    json::success(|out| json::serialized(out, &data))
}

/// `GET /api/v1/rules`
pub async fn rules(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request, &app).await?;
    let filter = Filter::new(&params)?;
    let groups = app.rules().map(|rules| rules.groups()).unwrap_or_default();
    let mut shown: Vec<GroupTwin> = groups.iter().filter_map(|group| filter.group(group)).collect();
    let next = page(&mut shown, &params)?;
    let data = Data { groups: shown, next };
    let warnings = app.rules().map(|rules| rules.warnings()).unwrap_or_default();
    Ok(json::success(|out| {
        json::serialized(out, &data);
        json::notes(out, "warnings", &warnings);
    }))
}

/// Cuts the groups to the page that is asked for; gives the token of the next one.
fn page(groups: &mut Vec<GroupTwin<'_>>, params: &Params) -> Result<Option<String>, ApiError> {
    let token = |group: &GroupTwin| format!("{};{}", group.file, group.name);
    let limit = match params.get("group_limit").map(str::parse::<usize>) {
        None => None,
        Some(Ok(limit)) if limit > 0 => Some(limit),
        Some(_) => return Err(ApiError::parameter("group_limit", "it must be a number above 0")),
    };
    if let Some(from) = params.get("group_next_token") {
        if limit.is_none() {
            return Err(ApiError::parameter("group_limit", "it must go with group_next_token"));
        }
        let Some(start) = groups.iter().position(|group| token(group) == from) else {
            let message = "the group is gone; begin again without it";
            return Err(ApiError::new(
                ErrorKind::BadData,
                format!("invalid parameter \"group_next_token\": {message}"),
            ));
        };
        groups.drain(..start);
    }
    let next = limit.and_then(|limit| groups.get(limit)).map(token);
    groups.truncate(limit.unwrap_or(usize::MAX));
    Ok(next)
}

/// Which rules are asked for.
struct Filter {
    alerting: bool,
    recording: bool,
    names: Vec<String>,
    groups: Vec<String>,
    files: Vec<String>,
    matchers: Vec<Vec<Matcher>>,
    with_alerts: bool,
}

impl Filter {
    fn new(params: &Params) -> Result<Filter, ApiError> {
        let kind = params.get("type").map(str::to_ascii_lowercase);
        if !matches!(kind.as_deref(), None | Some("alert" | "record")) {
            return Err(ApiError::parameter("type", format!("not supported value {:?}", params.get("type"))));
        }
        let exclude_alerts = match params.get("exclude_alerts") {
            None => false,
            Some(text) => text.parse().map_err(|_| {
                ApiError::parameter("exclude_alerts", format!("error converting exclude_alerts: {text:?}"))
            })?,
        };
        let all = |name| params.all(name).map(str::to_owned).collect();
        Ok(Filter {
            alerting: kind.as_deref() != Some("record"),
            recording: kind.as_deref() != Some("alert"),
            names: all("rule_name[]"),
            groups: all("rule_group[]"),
            files: all("file[]"),
            matchers: matcher_sets(params)?,
            with_alerts: !exclude_alerts,
        })
    }

    fn group<'a>(&self, group: &'a GroupStatus) -> Option<GroupTwin<'a>> {
        let wanted = |list: &[String], name: &String| list.is_empty() || list.contains(name);
        if !wanted(&self.groups, &group.name) || !wanted(&self.files, &group.file) {
            return None;
        }
        let rules: Vec<RuleTwin> = group
            .rules
            .iter()
            .filter(|rule| if rule.alerting.is_some() { self.alerting } else { self.recording })
            .filter(|rule| wanted(&self.names, &rule.name) && self.matches(rule))
            .map(|rule| RuleTwin::new(rule, self.with_alerts))
            .collect();
        // A group of which nothing is left is not shown, unless all of it is asked for.
        if rules.is_empty() && !group.rules.is_empty() {
            return None;
        }
        Some(GroupTwin {
            name: &group.name,
            file: &group.file,
            rules,
            interval: Seconds(group.interval.as_secs_f64()),
            limit: group.limit,
            evaluation_time: Seconds(group.stats.last_seconds),
            last_evaluation: time(group.stats.last_evaluation),
        })
    }

    /// Whether the labels of a rule, as they are written, fit one of the selectors.
    fn matches(&self, rule: &RuleStatus) -> bool {
        let value = |name: &str| rule.labels.get(name).map_or("", String::as_str);
        self.matchers.is_empty()
            || self
                .matchers
                .iter()
                .any(|set| set.iter().all(|matcher| matcher.matches(value(matcher.name()))))
    }
}

#[derive(Serialize)]
struct Data<'a> {
    groups: Vec<GroupTwin<'a>>,
    #[serde(rename = "groupNextToken", skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupTwin<'a> {
    name: &'a str,
    file: &'a str,
    rules: Vec<RuleTwin<'a>>,
    interval: Seconds,
    limit: usize,
    evaluation_time: Seconds,
    last_evaluation: String,
}

/// The fields of both kinds of rules, in the order of the alerting one.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RuleTwin<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    name: &'a str,
    query: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<Seconds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_firing_for: Option<Seconds>,
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alerts: Option<Vec<AlertTwin<'a>>>,
    health: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<&'a str>,
    evaluation_time: Seconds,
    last_evaluation: String,
    r#type: &'static str,
}

impl<'a> RuleTwin<'a> {
    fn new(rule: &'a RuleStatus, with_alerts: bool) -> RuleTwin<'a> {
        let alerting = rule.alerting.as_ref();
        RuleTwin {
            state: alerting.map(|a| a.state.map_or("unknown", AlertState::as_str)),
            name: &rule.name,
            query: &rule.query,
            duration: alerting.map(|a| Seconds(a.hold.as_secs_f64())),
            keep_firing_for: alerting.map(|a| Seconds(a.keep_firing_for.as_secs_f64())),
            labels: &rule.labels,
            annotations: alerting.map(|a| &a.annotations),
            alerts: alerting.map(|a| {
                let alerts = if with_alerts { &a.alerts[..] } else { &[] };
                alerts.iter().map(AlertTwin::new).collect()
            }),
            health: rule.health.as_str(),
            last_error: rule.last_error.as_deref(),
            evaluation_time: Seconds(rule.evaluation_time.as_secs_f64()),
            last_evaluation: time(rule.last_evaluation),
            r#type: if alerting.is_some() { "alerting" } else { "recording" },
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AlertTwin<'a> {
    #[serde(serialize_with = "as_map")]
    labels: &'a Labels,
    annotations: &'a BTreeMap<String, String>,
    state: &'static str,
    active_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_firing_since: Option<String>,
    value: String,
}

impl<'a> AlertTwin<'a> {
    fn new(alert: &'a AlertStatus) -> AlertTwin<'a> {
        let mut value = String::new();
        let _ = write_float(&mut value, alert.value, Form::Exponent, None);
        AlertTwin {
            labels: &alert.labels,
            annotations: &alert.annotations,
            state: alert.state.as_str(),
            active_at: rfc3339(alert.active_at.as_millis()),
            keep_firing_since: alert.keep_firing_since.map(|t| rfc3339(t.as_millis())),
            value,
        }
    }
}

fn as_map<S: Serializer>(labels: &&Labels, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(*labels)
}

/// A time that may not have come yet, which Go prints as the year 1.
fn time(t: Option<Timestamp>) -> String {
    t.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |t| rfc3339(t.as_millis()))
}

/// Seconds, printed without decimals where there are none.
struct Seconds(f64);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.fract() == 0.0 && self.0.abs() < 1e15 {
            serializer.serialize_i64(self.0 as i64)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{AlertingStatus, GroupStats, Health};
    use std::time::Duration;

    fn rule(name: &str, alerting: Option<AlertingStatus>) -> RuleStatus {
        RuleStatus {
            name: name.to_owned(),
            query: "up > 0".to_owned(),
            labels: [("severity".to_owned(), "page".to_owned())].into(),
            health: Health::Good,
            last_error: None,
            evaluation_time: Duration::from_micros(1500),
            last_evaluation: Some(Timestamp::from_millis(1_700_000_000_250)),
            alerting,
        }
    }

    fn group() -> GroupStatus {
        let alert = AlertStatus {
            labels: Labels::from_pairs([("alertname", "Up")]).unwrap(),
            annotations: [("summary".to_owned(), "s".to_owned())].into(),
            state: AlertState::Firing,
            active_at: Timestamp::from_millis(1_700_000_000_000),
            keep_firing_since: None,
            value: 1.0,
        };
        let alerting = AlertingStatus {
            state: Some(AlertState::Firing),
            hold: Duration::from_secs(60),
            keep_firing_for: Duration::ZERO,
            annotations: BTreeMap::new(),
            alerts: vec![alert],
        };
        GroupStatus {
            name: "g".to_owned(),
            file: "a.yml".to_owned(),
            interval: Duration::from_millis(1500),
            limit: 0,
            rules: vec![rule("Up", Some(alerting)), rule("job:up", None)],
            stats: GroupStats::default(),
        }
    }

    fn shown(params: &str) -> Result<String, ApiError> {
        let params = Params::parse(params)?;
        let group = group();
        let mut groups: Vec<GroupTwin> = Filter::new(&params)?.group(&group).into_iter().collect();
        let next = page(&mut groups, &params)?;
        let mut out = Vec::new();
        json::serialized(&mut out, &Data { groups, next });
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn rules_are_shown_as_prometheus_does() {
        assert_eq!(
            shown("").unwrap(),
            concat!(
                r#"{"groups":[{"name":"g","file":"a.yml","rules":["#,
                r#"{"state":"firing","name":"Up","query":"up \u003e 0","duration":60,"keepFiringFor":0,"#,
                r#""labels":{"severity":"page"},"annotations":{},"alerts":[{"labels":{"alertname":"Up"},"#,
                r#""annotations":{"summary":"s"},"state":"firing","activeAt":"2023-11-14T22:13:20Z","value":"1e+00"}],"#,
                r#""health":"ok","evaluationTime":0.0015,"lastEvaluation":"2023-11-14T22:13:20.25Z","type":"alerting"},"#,
                r#"{"name":"job:up","query":"up \u003e 0","labels":{"severity":"page"},"health":"ok","#,
                r#""evaluationTime":0.0015,"lastEvaluation":"2023-11-14T22:13:20.25Z","type":"recording"}],"#,
                r#""interval":1.5,"limit":0,"evaluationTime":0,"lastEvaluation":"0001-01-01T00:00:00Z"}]}"#,
            )
        );
    }

    #[test]
    fn rules_are_chosen_by_type_name_group_file_and_labels() {
        let names = |params: &str| -> Vec<&str> {
            let text = shown(params).unwrap();
            ["\"Up\",\"query", "job:up"].into_iter().filter(|name| text.contains(name)).collect()
        };
        assert_eq!(names("type=alert").len(), 1);
        assert_eq!(names("type=record"), ["job:up"]);
        assert_eq!(names("rule_name[]=Up&rule_name[]=x").len(), 1);
        assert_eq!(names("rule_group[]=other").len(), 0);
        assert_eq!(names("file[]=a.yml").len(), 2);
        assert_eq!(names("match[]=%7Bseverity%3D%22page%22%7D").len(), 2);
        assert_eq!(names("match[]=%7Bseverity%3D%22none%22%7D").len(), 0);
        assert!(!shown("exclude_alerts=true").unwrap().contains("activeAt"));
        assert!(shown("type=x").is_err() && shown("group_next_token=a").is_err());
    }

    #[test]
    fn groups_come_page_by_page() {
        let groups = ["g", "h", "i"].map(|name| GroupStatus { name: name.to_owned(), ..group() });
        let names = |params: &str| {
            let params = Params::parse(params).unwrap();
            let filter = Filter::new(&params).unwrap();
            let mut shown: Vec<GroupTwin> = groups.iter().filter_map(|group| filter.group(group)).collect();
            let next = page(&mut shown, &params)?;
            Ok::<_, ApiError>((shown.iter().map(|group| group.name).collect::<Vec<_>>().concat(), next))
        };
        let (first, next) = names("group_limit=2").unwrap();
        assert_eq!(first, "gh");
        let (second, next) = names(&format!("group_limit=2&group_next_token={}", next.unwrap())).unwrap();
        assert_eq!((second.as_str(), next), ("i", None));
        assert_eq!(names("group_limit=3").unwrap(), ("ghi".to_owned(), None));
        for wrong in ["group_limit=0", "group_limit=x", "group_limit=1&group_next_token=gone"] {
            assert!(names(wrong).is_err(), "{wrong}");
        }
    }
}
