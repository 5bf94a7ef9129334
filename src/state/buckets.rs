//! The buckets there are, in one place, so that no two owners take the same name.

/// A group of keys that is committed together ("tree" in sled's words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bucket(pub &'static str);

/// Alert instances and the last committed slot of each rule group. Owner: [`crate::rules`].
pub const RULES: Bucket = Bucket("rules");

/// Type, help and unit of metrics. Owner: `crate::server`.
pub const METADATA: Bucket = Bucket("metadata");
