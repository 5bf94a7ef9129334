//! "Which labels does it leave with, if it may leave at all?"
//!
//! Relabelling as Prometheus 3 has it: rules that keep, drop and rewrite label sets, one after the
//! other. Names may be any UTF-8. Labels that begin with `__tmp` are left to users as scratch.

pub mod case;
#[cfg(test)]
mod tests;

use crate::storage::regex::{RegexError, Rewriter};
use larum_storage_format::Labels;
use std::collections::BTreeMap;

/// The longest text that a rule may make; a longer one leaves the label as it was.
const MADE_BYTES_MAX: usize = 1 << 20;

/// A rule as it is written. What is not written has Prometheus' default.
#[derive(Debug, Clone, Default)]
pub struct RuleText {
    /// The labels whose values, joined, are looked at.
    pub source_labels: Vec<String>,
    /// What joins them: `;`
    pub separator: Option<String>,
    /// What they must match: `(.*)`
    pub regex: Option<String>,
    /// Into how many parts `hashmod` divides.
    pub modulus: Option<u64>,
    /// The label that is set or compared.
    pub target_label: Option<String>,
    /// What it is set to: `$1`
    pub replacement: Option<String>,
    /// What is done: `replace`
    pub action: Option<String>,
}

/// The key of a rule that is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// `action`, or what stands in for it.
    Action,
    /// `regex`
    Regex,
    /// `target_label`
    TargetLabel,
    /// `replacement`
    Replacement,
}

/// Why a rule is refused; the text is Prometheus'.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RuleError {
    /// Where to look.
    pub key: Key,
    /// What is wrong.
    pub message: String,
}

/// A checked rule.
#[derive(Debug, Clone)]
pub struct Rule {
    source_labels: Vec<String>,
    separator: String,
    action: Action,
}

#[derive(Debug, Clone)]
enum Action {
    Keep(Rewriter),
    Drop(Rewriter),
    KeepEqual { target: String },
    DropEqual { target: String },
    Replace { regex: Rewriter, target: String, replacement: String },
    Lowercase { target: String },
    Uppercase { target: String },
    HashMod { target: String, modulus: u64 },
    LabelMap { regex: Rewriter, replacement: String },
    LabelDrop(Rewriter),
    LabelKeep(Rewriter),
}

const SEPARATOR: &str = ";";
const REGEX: &str = "(.*)";
const REPLACEMENT: &str = "$1";

impl Rule {
    /// Checks a rule.
    ///
    /// # Errors
    /// It is none of Prometheus'.
    pub fn new(text: RuleText) -> Result<Rule, RuleError> {
        let fault = |key, message| Err(RuleError { key, message });
        let written = text.action.as_deref().unwrap_or("replace");
        let action = written.to_ascii_lowercase();
        let action = action.as_str();
        if action.is_empty() {
            return fault(Key::Action, "relabel action cannot be empty".to_owned());
        }
        let modulus = text.modulus.unwrap_or(0);
        let target = text.target_label.unwrap_or_default();
        let has_regex = text.regex.is_some();
        let regex = text.regex.unwrap_or_else(|| REGEX.to_owned());
        let separator = text.separator.unwrap_or_else(|| SEPARATOR.to_owned());
        let replacement = text.replacement.unwrap_or_else(|| REPLACEMENT.to_owned());

        if action == "hashmod" && modulus == 0 {
            let message = "relabel configuration for hashmod requires non-zero modulus";
            return fault(Key::Action, message.to_owned());
        }
        let changes_case = matches!(action, "lowercase" | "uppercase");
        let compares = matches!(action, "keepequal" | "dropequal");
        if (compares || changes_case || matches!(action, "replace" | "hashmod")) && target.is_empty() {
            let message = format!("relabel configuration for {action} action requires 'target_label' value");
            return fault(Key::Action, message);
        }
        if action == "replace" && !is_template(&target) {
            let message = format!("{target:?} is invalid 'target_label' for {action} action");
            return fault(Key::TargetLabel, message);
        }
        if (compares || changes_case) && replacement != REPLACEMENT {
            let message = format!("'replacement' can not be set for {action} action");
            return fault(Key::Replacement, message);
        }
        if action == "labelmap" && !is_template(&replacement) {
            let message = format!("{replacement:?} is invalid 'replacement' for {action} action");
            return fault(Key::Replacement, message);
        }
        let is_plain = modulus == 0 && separator == SEPARATOR && replacement == REPLACEMENT;
        if compares && (has_regex || !is_plain) {
            let only = "requires only 'source_labels' and `target_label`, and no other fields";
            return fault(Key::Action, format!("{action} action {only}"));
        }
        let of_names = matches!(action, "labeldrop" | "labelkeep");
        if of_names && !(is_plain && target.is_empty() && text.source_labels.is_empty()) {
            return fault(Key::Action, format!("{action} action requires only 'regex', and no other fields"));
        }

        let regex = || {
            Rewriter::anchored(&regex)
                .map_err(|error: RegexError| RuleError { key: Key::Regex, message: error.to_string() })
        };
        let action = match action {
            "replace" => Action::Replace { regex: regex()?, target, replacement },
            "keep" => Action::Keep(regex()?),
            "drop" => Action::Drop(regex()?),
            "keepequal" => Action::KeepEqual { target },
            "dropequal" => Action::DropEqual { target },
            "lowercase" => Action::Lowercase { target },
            "uppercase" => Action::Uppercase { target },
            "hashmod" => Action::HashMod { target, modulus },
            "labelmap" => Action::LabelMap { regex: regex()?, replacement },
            "labeldrop" => Action::LabelDrop(regex()?),
            "labelkeep" => Action::LabelKeep(regex()?),
            _ => return fault(Key::Action, format!("unknown relabel action {written:?}")),
        };
        Ok(Rule { source_labels: text.source_labels, separator, action })
    }

    /// Changes `labels`; false if they are to be dropped.
    fn apply(&self, labels: &mut BTreeMap<String, String>) -> bool {
        let value_of =
            |labels: &BTreeMap<_, String>, name: &String| labels.get(name).cloned().unwrap_or_default();
        let sources: Vec<String> = self.source_labels.iter().map(|name| value_of(labels, name)).collect();
        let value = sources.join(&self.separator);
        match &self.action {
            Action::Keep(regex) => return regex.is_match(&value),
            Action::Drop(regex) => return !regex.is_match(&value),
            Action::KeepEqual { target } => return value_of(labels, target) == value,
            Action::DropEqual { target } => return value_of(labels, target) != value,
            Action::Replace { regex, target, replacement } => {
                let fill = |template| regex.expand(&value, template, MADE_BYTES_MAX).ok().flatten();
                if let (Some(target), Some(made)) = (fill(target), fill(replacement)) {
                    set(labels, target, made);
                }
            }
            Action::Lowercase { target } => set(labels, target.clone(), case::lower(&value)),
            Action::Uppercase { target } => set(labels, target.clone(), case::upper(&value)),
            Action::HashMod { target, modulus } => {
                let digest = md5::compute(value.as_bytes()).0;
                let half = digest.iter().skip(8).fold(0u64, |half, byte| half << 8 | u64::from(*byte));
                set(labels, target.clone(), (half % modulus).to_string());
            }
            Action::LabelMap { regex, replacement } => {
                let mapped = labels.iter().filter_map(|(name, value)| {
                    let name = regex.expand(name, replacement, MADE_BYTES_MAX).ok()??;
                    Some((name, value.clone()))
                });
                for (name, value) in mapped.collect::<Vec<_>>() {
                    set(labels, name, value);
                }
            }
            Action::LabelDrop(regex) => labels.retain(|name, _| !regex.is_match(name)),
            Action::LabelKeep(regex) => labels.retain(|name, _| regex.is_match(name)),
        }
        true
    }
}

/// Sets a label; an empty value removes it. A name may not be empty.
fn set(labels: &mut BTreeMap<String, String>, name: String, value: String) {
    if value.is_empty() {
        labels.remove(&name);
    } else if !name.is_empty() {
        labels.insert(name, value);
    }
}

/// Whether `text` may make the name of a label: each `$` refers to something, and braces belong to one.
fn is_template(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find(['$', '{', '}']) {
        let after = match rest[at..].strip_prefix('$') {
            Some(reference) => reference,
            None => return false,
        };
        let (name, closing) = match after.strip_prefix('{') {
            Some(inside) => (inside, "}"),
            None => (after, ""),
        };
        let len = name.find(['$', '{', '}']).unwrap_or(name.len());
        match name[len..].strip_prefix(closing) {
            Some(after) if len > 0 => rest = after,
            _ => return false,
        }
    }
    !text.is_empty()
}

/// Applies the rules in order. `None` if one of them drops the label set.
pub fn process(rules: &[Rule], labels: &Labels) -> Option<Labels> {
    if rules.is_empty() {
        return Some(labels.clone());
    }
    let mut working = labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let keep = rules.iter().all(|rule| rule.apply(&mut working));
    keep.then(|| Labels::from_pairs(&working).expect("a map has each name once, and none is empty"))
}
