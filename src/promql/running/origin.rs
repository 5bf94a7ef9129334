//! Who asks: a rule, a dashboard, somebody else.

use std::net::IpAddr;

/// The longest text of somebody else's that is kept, in bytes.
const TEXT_BYTES: usize = 256;

/// Who asks a query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A rule.
    Rule(RuleOrigin),
    /// Who sent a request.
    Http(HttpOrigin),
}

/// A rule that asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RuleOrigin {
    /// The file of its group.
    pub file: String,
    /// Its group.
    pub group: String,
    /// Its name.
    pub rule: String,
}

/// Where a request came from, as far as it says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct HttpOrigin {
    /// Whence it came.
    pub address: Option<IpAddr>,
    /// `GET` or `POST`.
    pub method: String,
    /// The path that was asked.
    pub path: String,
    /// `X-Dashboard-Uid`
    pub dashboard: Option<String>,
    /// `X-Panel-Id`
    pub panel: Option<String>,
    /// `X-Grafana-Org-Id`
    pub org: Option<String>,
    /// `User-Agent`
    pub user_agent: Option<String>,
}

/// Origins whose queries are added up together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Caller {
    /// A rule.
    Rule(RuleOrigin),
    /// A panel of a dashboard, whoever looks at it.
    Dashboard {
        /// The organisation it belongs to.
        org: Option<String>,
        /// The dashboard.
        dashboard: String,
        /// The panel; `None` for what the dashboard asks itself, such as its variables.
        panel: Option<String>,
    },
    /// A program at an address.
    Client {
        /// Its address.
        address: Option<IpAddr>,
        /// What it says to be.
        user_agent: Option<String>,
    },
}

impl Origin {
    /// With whose queries this one's are added up.
    pub fn caller(&self) -> Caller {
        match self {
            Origin::Rule(rule) => Caller::Rule(rule.clone()),
            Origin::Http(HttpOrigin { dashboard: Some(dashboard), panel, org, .. }) => {
                Caller::Dashboard { org: org.clone(), dashboard: dashboard.clone(), panel: panel.clone() }
            }
            Origin::Http(HttpOrigin { address, user_agent, .. }) => {
                Caller::Client { address: *address, user_agent: user_agent.clone() }
            }
        }
    }
}

/// A text of somebody else's, cut if it is long.
pub fn bounded(text: &str) -> String {
    cut(text, TEXT_BYTES).to_owned()
}

/// At most the first `bytes` of a text, without half a character.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_looks_at_a_dashboard_does_not_matter() {
        let http = |user_agent: &str, dashboard: Option<&str>| {
            Origin::Http(HttpOrigin {
                user_agent: Some(user_agent.to_owned()),
                dashboard: dashboard.map(str::to_owned),
                ..HttpOrigin::default()
            })
        };
        assert_eq!(http("a", Some("d")).caller(), http("b", Some("d")).caller());
        assert_ne!(http("a", None).caller(), http("b", None).caller());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(bounded("short"), "short");
        assert_eq!(bounded(&"ü".repeat(200)), "ü".repeat(128));
        assert_eq!(cut("aü", 2), "a");
    }
}
