//! "Every interval, ask, record, alert."
//!
//! Rule files become [`Group`]s, a [`RuleManager`] evaluates them over a [`crate::Db`], writes what
//! recording rules yield and what alerts are active, keeps the state of alerts in
//! [`crate::state`], and hands out the [`Alert`]s that somebody has to hear of.

pub mod alert;
pub mod template;

pub use alert::{Alert, AlertState};
