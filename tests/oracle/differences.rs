//! What is known to differ between our trees and those of promql-parser 0.11.1, and why.

use serde_json::{Value, json};

/// A known difference.
pub struct Difference {
    /// What it is called.
    pub name: &'static str,
    /// Why the trees differ, and who is right.
    pub reason: &'static str,
    /// Makes both trees the same in this respect; says whether they were not.
    pub apply: fn(query: &str, ours: &mut Value, theirs: &mut Value) -> bool,
}

pub const DIFFERENCES: &[Difference] = &[
    Difference {
        name: "bytes that are no UTF-8",
        reason: "\"\\xff\" is a byte in Prometheus, and told as U+FFFD; promql-parser makes it the character U+00FF",
        apply: |_, ours, theirs| same_texts(ours, theirs),
    },
    Difference {
        name: "unary plus",
        reason: "promql-parser leaves it out of the tree; Prometheus keeps it",
        apply: |_, ours, _| {
            change(ours, &mut |node| {
                let plus = node["type"] == json!("unaryExpr") && node["op"] == json!("+");
                if plus {
                    *node = node["expr"].take();
                }
                plus
            })
        },
    },
];

/// Makes theirs of each text ours, where they differ in nothing but bytes that are no UTF-8.
fn same_texts(ours: &Value, theirs: &mut Value) -> bool {
    match (ours, theirs) {
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.iter().zip(theirs).fold(false, |any, (ours, theirs)| same_texts(ours, theirs) | any)
        }
        (Value::Object(ours), Value::Object(theirs)) => ours.iter().fold(false, |any, (name, ours)| {
            theirs.get_mut(name).is_some_and(|theirs| same_texts(ours, theirs)) | any
        }),
        (Value::String(ours), Value::String(theirs)) if ours != theirs => {
            let plain = |text: &str, stand_in: fn(char) -> bool| text.replace(stand_in, "");
            let same =
                plain(ours, |c| c == '\u{fffd}') == plain(theirs, |c| ('\u{80}'..='\u{ff}').contains(&c));
            if same {
                theirs.clone_from(ours);
            }
            same
        }
        _ => false,
    }
}

/// Applies `change` to `value` and all it contains, the innermost first; says whether anything was.
fn change(value: &mut Value, to: &mut impl FnMut(&mut Value) -> bool) -> bool {
    let inner = match value {
        Value::Array(items) => items.iter_mut().fold(false, |any, item| change(item, to) | any),
        Value::Object(fields) => fields.values_mut().fold(false, |any, field| change(field, to) | any),
        _ => false,
    };
    to(value) | inner
}
