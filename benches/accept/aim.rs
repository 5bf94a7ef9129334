//! What a figure should be, and whether it is.

use std::fmt;

/// An aim.
#[derive(Debug, Clone, Copy)]
pub enum Aim {
    /// The figure is at most this.
    Max(f64),
    /// The figure is at least this.
    Min(f64),
    /// The figure is at most so many times VictoriaMetrics'.
    MaxTimes(f64),
    /// The figure is at least so many times VictoriaMetrics'.
    MinTimes(f64),
    /// The figure is at most so many times that of the peer that is better.
    MaxTimesBest(f64),
}

/// Whether the aim is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Met,
    /// It is, but the better peer's figure is better than ours.
    MetBehind,
    /// It is not.
    Missed,
    /// It is not, and the better peer's figure is better than ours.
    MissedBehind,
    /// Ours, or the one it is compared with, is not there.
    NotMeasured,
}

impl Aim {
    /// The peers' figure that ratios are taken to.
    pub fn peer(self, victoria_metrics: Option<f64>, peers: &[f64]) -> Option<f64> {
        match self {
            Aim::MaxTimesBest(_) => peers.iter().copied().min_by(f64::total_cmp),
            _ => victoria_metrics,
        }
    }

    /// Judges our figure by VictoriaMetrics' and by all peers'.
    pub fn verdict(self, ours: Option<f64>, victoria_metrics: Option<f64>, peers: &[f64]) -> Verdict {
        let Some(ours) = ours else { return Verdict::NotMeasured };
        let less_is_better = matches!(self, Aim::Max(_) | Aim::MaxTimes(_) | Aim::MaxTimesBest(_));
        let (border, factor) = match self {
            Aim::Max(border) | Aim::Min(border) => (Some(border), 1.0),
            Aim::MaxTimes(factor) | Aim::MinTimes(factor) => (victoria_metrics, factor),
            Aim::MaxTimesBest(factor) => (self.peer(victoria_metrics, peers), factor),
        };
        let Some(border) = border.map(|border| border * factor) else { return Verdict::NotMeasured };
        let beats = |a: f64, b: f64| if less_is_better { a < b } else { a > b };
        match (!beats(border, ours), peers.iter().any(|&peer| beats(peer, ours))) {
            (true, false) => Verdict::Met,
            (true, true) => Verdict::MetBehind,
            (false, false) => Verdict::Missed,
            (false, true) => Verdict::MissedBehind,
        }
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Aim::Max(border) => write!(f, "<= {border}"),
            Aim::Min(border) => write!(f, ">= {border}"),
            Aim::MaxTimes(factor) => write!(f, "<= {factor} x VM"),
            Aim::MinTimes(factor) => write!(f, ">= {factor} x VM"),
            Aim::MaxTimesBest(factor) => write!(f, "<= {factor} x the better peer"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Met => "met",
            Verdict::MetBehind => "met, behind a peer",
            Verdict::Missed => "missed",
            Verdict::MissedBehind => "MISSED, behind a peer",
            Verdict::NotMeasured => "not measured",
        })
    }
}
