//! Where those are whom this server talks to.

pub mod files;

use std::collections::BTreeMap;

/// Addresses that share labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetGroup {
    /// `host:port` each, unless labels and rules make such of it.
    pub targets: Vec<String>,
    /// What is said of all of them.
    pub labels: BTreeMap<String, String>,
}
