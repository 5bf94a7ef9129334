//! Where the alerts of a target are posted: labels, relabelling, an address.

use crate::relabel::{self, Rule};
use crate::server::discovery::TargetGroup;
use axum::http::Uri;
use larum_storage_format::{Labels, LabelsBuilder};

const ADDRESS: &str = "__address__";
const SCHEME: &str = "__scheme__";
const PATH: &str = "__alerts_path__";

/// How an address is made of a target.
#[derive(Debug, Clone)]
pub struct TargetRules {
    /// The scheme unless a label says otherwise: `http` or `https`.
    pub scheme: String,
    /// The path unless a label says otherwise, see [`alerts_path`].
    pub path: String,
    /// `relabel_configs`
    pub relabel: Vec<Rule>,
}

/// An Alertmanager, by the address of its API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One that is told of alerts.
    Active(String),
    /// One that the rules drop.
    Dropped(String),
}

/// The path of the API behind a prefix: `/prefix/api/v2/alerts`.
pub fn alerts_path(prefix: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in prefix.split('/').chain(["api", "v2", "alerts"]) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

impl TargetRules {
    /// The Alertmanager at one target of a group.
    ///
    /// # Errors
    /// Why it has no address.
    pub fn apply(&self, group: &TargetGroup, target: &str) -> Result<Target, String> {
        let mut labels = LabelsBuilder::new();
        labels.set(SCHEME, &self.scheme).set(PATH, &self.path);
        for (name, value) in &group.labels {
            labels.set(name, value);
        }
        labels.set(ADDRESS, target);
        let before = labels.build();
        let Some(after) = relabel::process(&self.relabel, &before) else {
            return Ok(Target::Dropped(url(&before)));
        };
        let (address, scheme) = (after.get(ADDRESS).unwrap_or(""), after.get(SCHEME).unwrap_or(""));
        if address.contains('/') {
            return Err(format!("target {address:?} is a URL or has a path; write host:port"));
        }
        if !matches!(scheme, "http" | "https") {
            return Err(format!("target {address:?}: scheme {scheme:?} is neither http nor https"));
        }
        let url = url(&after);
        let is_address = url.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()));
        if is_address { Ok(Target::Active(url)) } else { Err(format!("target {address:?} is no host:port")) }
    }
}

/// The address that labels make. What a path may not hold is escaped.
fn url(labels: &Labels) -> String {
    let value = |name| labels.get(name).unwrap_or("");
    let mut url = format!("{}://{}", value(SCHEME), value(ADDRESS));
    let path = value(PATH);
    if !path.starts_with('/') {
        url.push('/');
    }
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => url.push(char::from(byte)),
            byte if b"/-_.~!$&'()*+,;=:@".contains(&byte) => url.push(char::from(byte)),
            byte => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relabel::RuleText;

    fn rule(source: &str, regex: &str, target: &str, replacement: &str, action: &str) -> Rule {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let text = RuleText {
            source_labels: vec![source.to_owned()],
            regex: some(regex),
            target_label: some(target),
            replacement: some(replacement),
            action: some(action),
            ..RuleText::default()
        };
        Rule::new(text).unwrap()
    }

    fn rules(relabel: Vec<Rule>) -> TargetRules {
        TargetRules { scheme: "http".to_owned(), path: alerts_path("/am/"), relabel }
    }

    #[test]
    fn a_path_is_the_prefix_and_that_of_the_api() {
        for (prefix, expected) in [
            ("", "/api/v2/alerts"),
            ("/", "/api/v2/alerts"),
            ("am", "/am/api/v2/alerts"),
            ("//a/./b/../c//", "/a/c/api/v2/alerts"),
        ] {
            assert_eq!(alerts_path(prefix), expected, "{prefix:?}");
        }
    }

    #[test]
    fn labels_and_rules_make_the_address() {
        let group = TargetGroup {
            targets: Vec::new(),
            labels: [("dc".to_owned(), "x".to_owned()), ("__scheme__".to_owned(), "https".to_owned())].into(),
        };
        let active = |url: &str| Ok(Target::Active(url.to_owned()));
        assert_eq!(
            rules(Vec::new()).apply(&TargetGroup::default(), "am:9093"),
            active("http://am:9093/am/api/v2/alerts")
        );
        assert_eq!(rules(Vec::new()).apply(&group, "[::1]"), active("https://[::1]/am/api/v2/alerts"));
        let relabel = vec![
            rule("__address__", "(.*)", ADDRESS, "$1:99", "replace"),
            rule("dc", "(.*)", PATH, "/for $1/é", "replace"),
        ];
        assert_eq!(rules(relabel).apply(&group, "am"), active("https://am:99/for%20x/%C3%A9"));
        let dropping = rules(vec![rule("dc", "x", "", "", "drop")]);
        let dropped = Target::Dropped("https://am:1/am/api/v2/alerts".to_owned());
        assert_eq!(dropping.apply(&group, "am:1"), Ok(dropped));
    }

    #[test]
    fn what_is_no_address_is_named() {
        let ftp = vec![rule("__address__", "", SCHEME, "ftp", "replace")];
        for (relabel, target, expected) in [
            (Vec::new(), "http://am/", "target \"http://am/\" is a URL or has a path; write host:port"),
            (Vec::new(), "a b", "target \"a b\" is no host:port"),
            (Vec::new(), "", "target \"\" is no host:port"),
            (ftp, "am", "target \"am\": scheme \"ftp\" is neither http nor https"),
        ] {
            assert_eq!(rules(relabel).apply(&TargetGroup::default(), target), Err(expected.to_owned()));
        }
    }
}
