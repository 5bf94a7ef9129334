//! What of the language may be used that Prometheus hides behind feature flags.

use super::{ParseError, Parser};
use crate::promql::ast::Pos;

/// The parts of the language that Prometheus 3.14 refuses unless a feature is switched on, and whether they
/// may be used. All may by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syntax {
    /// Functions such as `info`, and the aggregations `limitk` and `limit_ratio`
    /// (`promql-experimental-functions`).
    pub experimental_functions: bool,
    /// `fill`, `fill_left` and `fill_right` (`promql-binop-fill-modifiers`).
    pub fill_modifiers: bool,
    /// `anchored` and `smoothed` (`promql-extended-range-selectors`).
    pub extended_range_selectors: bool,
}

impl Default for Syntax {
    fn default() -> Syntax {
        Syntax { experimental_functions: true, fill_modifiers: true, extended_range_selectors: true }
    }
}

impl Syntax {
    /// What Prometheus allows with the features for which `enabled` is true.
    pub fn strict(enabled: impl Fn(&str) -> bool) -> Syntax {
        Syntax {
            experimental_functions: enabled(Gate::Functions.feature()),
            fill_modifiers: enabled(Gate::Fill.feature()),
            extended_range_selectors: enabled(Gate::Ranges.feature()),
        }
    }
}

/// A part of the language that may be refused.
#[derive(Debug, Clone, Copy)]
pub(super) enum Gate {
    Functions,
    Fill,
    Ranges,
}

impl Gate {
    /// The feature of Prometheus that opens it.
    fn feature(self) -> &'static str {
        match self {
            Gate::Functions => "promql-experimental-functions",
            Gate::Fill => "promql-binop-fill-modifiers",
            Gate::Ranges => "promql-extended-range-selectors",
        }
    }
}

impl Parser<'_> {
    /// Complains of what stands at `pos` if it may not be used. `complaint` are Prometheus' words.
    pub(super) fn pass(
        &self,
        gate: Gate,
        pos: Pos,
        complaint: impl FnOnce() -> String,
    ) -> Result<(), ParseError> {
        let open = match gate {
            Gate::Functions => self.syntax.experimental_functions,
            Gate::Fill => self.syntax.fill_modifiers,
            Gate::Ranges => self.syntax.extended_range_selectors,
        };
        if open {
            return Ok(());
        }
        let (complaint, feature) = (complaint(), gate.feature());
        let message =
            format!("{complaint} (--query.strict-prometheus is set, without --enable-feature={feature})");
        Err(self.error_at(pos, message))
    }
}
