//! The message: an alert as `POST /api/v2/alerts` of an Alertmanager takes it.

use crate::relabel::{self, Rule};
use crate::rules::Alert;
use crate::rules::template::link;
use crate::storage::Timestamp;
use larum_storage_format::Labels;
use larum_storage_format::labels::METRIC_NAME;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One alert in the notation of Alertmanager's API, version 2.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PostableAlert {
    /// Which alert it is of: its labels before others were added and relabelled, which may make the
    /// labels of several alerts the same.
    #[serde(skip)]
    pub identity: Labels,
    /// The alert's labels and the external labels, relabelled.
    #[serde(serialize_with = "as_map")]
    pub labels: Labels,
    /// The expanded annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it began to fire.
    #[serde(serialize_with = "as_rfc3339")]
    pub starts_at: Timestamp,
    /// When it was resolved or, while it fires, when to take it for resolved if nothing more is heard.
    #[serde(serialize_with = "as_rfc3339")]
    pub ends_at: Timestamp,
    /// Where its expression can be looked at.
    #[serde(rename = "generatorURL")]
    pub generator_url: String,
}

impl PostableAlert {
    /// The message for `alert`. External labels are added where the alert has no label of that
    /// name. `external_url` is where this server is reached from outside.
    pub fn new(alert: &Alert, external_labels: &Labels, external_url: &str) -> PostableAlert {
        let mut labels = alert.labels.to_builder();
        for (name, value) in external_labels {
            if alert.labels.get(name).is_none() {
                labels.set(name, value);
            }
        }
        labels.remove(METRIC_NAME);
        PostableAlert {
            identity: alert.labels.clone(),
            labels: labels.build(),
            annotations: alert.annotations.clone(),
            starts_at: alert.fired_at,
            ends_at: alert.resolved_at.unwrap_or(alert.valid_until),
            generator_url: expression_url(external_url, &alert.expr),
        }
    }

    /// The message with its labels relabelled, unless the rules drop it.
    pub fn relabelled(mut self, rules: &[Rule]) -> Option<PostableAlert> {
        self.labels = relabel::process(rules, &self.labels)?;
        Some(self)
    }
}

/// The body of one request: a JSON array.
pub fn body(batch: &[Arc<PostableAlert>]) -> Vec<u8> {
    let alerts: Vec<&PostableAlert> = batch.iter().map(Arc::as_ref).collect();
    serde_json::to_vec(&alerts).expect("maps with text keys are always JSON")
}

/// The page that shows `expr` as a table; the path is Prometheus' own.
pub fn expression_url(external_url: &str, expr: &str) -> String {
    format!("{}{}", external_url.trim_end_matches('/'), link(expr, 1))
}

fn as_map<S: Serializer>(labels: &Labels, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(labels)
}

fn as_rfc3339<S: Serializer>(t: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    // Beyond what a calendar can say (years -9999 to 9999) the epoch stands in.
    let t = jiff::Timestamp::from_millisecond(t.as_millis()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    serializer.collect_str(&t)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::AlertState;

    #[test]
    fn an_alert_becomes_what_alertmanager_reads() {
        let at = Timestamp::from_millis;
        let alert = Alert {
            labels: Labels::from_pairs([("alertname", "High"), ("zone", "a")]).unwrap(),
            annotations: [("summary".to_owned(), "\"é\"".to_owned())].into(),
            state: AlertState::Firing,
            active_at: at(1_000),
            fired_at: at(1_700_000_000_250),
            resolved_at: None,
            valid_until: at(1_700_000_240_000),
            value: 1.0,
            expr: "a > 1 + b{x=\"é\"}".into(),
        };
        let external = Labels::from_pairs([("zone", "x"), ("replica", "r1")]).unwrap();
        let message = Arc::new(PostableAlert::new(&alert, &external, "http://larum:9090/"));
        assert_eq!(
            String::from_utf8(body(&[message])).unwrap(),
            concat!(
                r#"[{"labels":{"alertname":"High","replica":"r1","zone":"a"},"#,
                r#""annotations":{"summary":"\"é\""},"#,
                r#""startsAt":"2023-11-14T22:13:20.25Z","endsAt":"2023-11-14T22:17:20Z","#,
                r#""generatorURL":"http://larum:9090/graph?g0.expr=a+%3E+1+%2B+b%7Bx%3D%22%C3%A9%22%7D&g0.tab=1"}]"#,
            )
        );
        let resolved =
            Alert { resolved_at: Some(at(1_700_000_100_000)), state: AlertState::Inactive, ..alert };
        let message = PostableAlert::new(&resolved, &Labels::empty(), "");
        assert_eq!(message.ends_at, at(1_700_000_100_000));
    }
}
