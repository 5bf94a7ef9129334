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

/// All of them; the first are made away with first.
pub const DIFFERENCES: &[Difference] = &[
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
    Difference {
        name: "bytes that are no UTF-8",
        reason: "\"\\xff\" is a byte in Prometheus, and told as U+FFFD; promql-parser makes it the character U+00FF",
        apply: same_texts,
    },
];

/// Makes theirs of each text ours, where they differ in nothing but bytes that escapes stand for.
fn same_texts(query: &str, ours: &mut Value, theirs: &mut Value) -> bool {
    match (ours, theirs) {
        (Value::Array(ours), Value::Array(theirs)) => ours
            .iter_mut()
            .zip(theirs)
            .fold(false, |any, (ours, theirs)| same_texts(query, ours, theirs) | any),
        (Value::Object(ours), Value::Object(theirs)) => ours.iter_mut().fold(false, |any, (name, ours)| {
            theirs.get_mut(name).is_some_and(|theirs| same_texts(query, ours, theirs)) | any
        }),
        (Value::String(ours), Value::String(theirs)) if ours != theirs => {
            // Bytes may make a character in ours, too: "\xc3\xa9" is one.
            let ascii = |text: &str| text.replace(|c: char| !c.is_ascii(), "");
            let same = query.contains('\\') && ascii(ours) == ascii(theirs);
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
