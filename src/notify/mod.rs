//! "These alerts changed; who hears what, when?"
//!
//! Alerts go to every Alertmanager by its v2 API, relabelled. For each there is a [`Queue`], which
//! decides what to send when, and a thread of the [`Notifier`], which carries it out over a
//! [`Transport`].

pub mod message;
pub mod notifier;
pub mod queue;

pub use message::PostableAlert;
pub use notifier::{
    AlertmanagerSet, LATENCY_BOUNDS, Notifier, NotifierConfig, NotifierOptions, NotifierStats, SendError,
    TargetStats, Transport,
};
pub use queue::Queue;
