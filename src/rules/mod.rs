//! "Every interval, ask, record, alert."
//!
//! Rule files become [`Group`]s, a [`RuleManager`] evaluates them over a [`crate::Db`], writes what
//! recording rules yield and what alerts are active, keeps the state of alerts in
//! [`crate::state`], and hands out the [`Alert`]s that somebody has to hear of.

pub mod alert;
pub mod alerting;
mod catch_up;
mod clock;
pub mod durations;
pub mod error;
mod evaluate;
pub mod expand;
pub mod file;
pub mod format;
pub(crate) mod glob;
mod graph;
pub mod group;
pub mod manager;
mod overlap;
mod persist;
pub mod recording;
mod restore;
mod running;
pub mod schedule;
pub mod status;
mod store;
mod succession;
pub mod template;
mod twin;
pub mod unit_test;
mod unknown_fields;
pub mod unstored;

pub use alert::{Alert, AlertState};
pub use alerting::AlertingRule;
pub use error::RuleError;
pub use expand::TemplateText;
pub use group::{Group, Rule};
pub use manager::{RuleManager, RuleOptions, RunningRules};
pub use recording::RecordingRule;
pub use status::{AlertStatus, AlertingStatus, GroupStats, GroupStatus, Health, RuleStatus};
