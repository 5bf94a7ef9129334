//! The configuration as it may be shown: its secrets replaced.

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Any YAML, keys in the order of the file.
enum Tree {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

/// What stands in place of a secret, as in Prometheus.
const MASK: &str = "<secret>";

/// The keys whose values are secrets, wherever they stand.
const SECRETS: [&str; 10] = [
    "password",
    "credentials",
    "bearer_token",
    "client_secret",
    "secret_key",
    "secret",
    "token",
    "application_credential_secret",
    "consumer_key",
    "application_secret",
];

/// `text` formatted anew, with secrets masked. What cannot be read is not shown.
pub(super) fn masked(text: &str) -> String {
    let mut tree: Tree = match serde_saphyr::from_str(text) {
        Ok(tree) => tree,
        Err(_) => return String::new(),
    };
    if matches!(tree, Tree::Null) {
        return String::new();
    }
    tree.mask();
    serde_saphyr::to_string(&tree).unwrap_or_default()
}

impl Tree {
    fn mask(&mut self) {
        match self {
            Tree::Map(entries) => {
                for (key, value) in entries {
                    match key.as_str() {
                        key if SECRETS.contains(&key) => value.hide(),
                        "proxy_connect_header" => value.hide(),
                        "http_headers" => value.hide_within(2, "secrets"),
                        "tls_config" => {
                            value.hide_within(1, "key");
                            value.mask();
                        }
                        _ => value.mask(),
                    }
                }
            }
            Tree::List(items) => items.iter_mut().for_each(Tree::mask),
            Tree::Text(text) => mask_url(text),
            Tree::Null | Tree::Bool(_) | Tree::Int(_) | Tree::Float(_) => {}
        }
    }
}

impl Tree {
    /// Puts the mask in place of every text.
    fn hide(&mut self) {
        match self {
            Tree::Null => {}
            Tree::List(items) => items.iter_mut().for_each(Tree::hide),
            Tree::Map(entries) => entries.iter_mut().for_each(|(_, value)| value.hide()),
            value => *value = Tree::Text(MASK.to_owned()),
        }
    }

    /// Hides what stands under `name`, so many mappings deep.
    fn hide_within(&mut self, depth: usize, name: &str) {
        let Tree::Map(entries) = self else { return };
        for (key, value) in entries {
            match depth {
                1 if key == name => value.hide(),
                1 => {}
                depth => value.hide_within(depth - 1, name),
            }
        }
    }
}

/// Masks the password of `scheme://user:password@host`.
fn mask_url(text: &mut String) {
    let Some(start) = text.find("://").map(|at| at + 3) else { return };
    let authority = text[start..].split(['/', '?', '#']).next().unwrap_or("");
    let Some(at) = authority.rfind('@') else { return };
    let Some(colon) = authority[..at].find(':') else { return };
    text.replace_range(start + colon + 1..start + at, MASK);
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
        struct AnyYaml;
        impl<'de> Visitor<'de> for AnyYaml {
            type Value = Tree;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("YAML")
            }
            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Null)
            }
            fn visit_none<E>(self) -> Result<Tree, E> {
                Ok(Tree::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Tree, D::Error> {
                Tree::deserialize(inner)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
                Ok(Tree::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
                Ok(Tree::Int(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
                Ok(i64::try_from(value).map_or(Tree::Float(value as f64), Tree::Int))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
                Ok(Tree::Float(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
                Ok(Tree::Text(value.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Tree::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
                let mut map = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    map.push(entry);
                }
                Ok(Tree::Map(map))
            }
        }
        deserializer.deserialize_any(AnyYaml)
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Tree::Null => serializer.serialize_unit(),
            Tree::Bool(value) => serializer.serialize_bool(*value),
            Tree::Int(value) => serializer.serialize_i64(*value),
            Tree::Float(value) => serializer.serialize_f64(*value),
            Tree::Text(value) => serializer.serialize_str(value),
            Tree::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Tree::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                entries.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_the_rest_is_kept() {
        let text = "global: {scrape_interval: 15s}\nalerting:\n  alertmanagers:\n  - basic_auth:\n      \
                    username: me\n      password: hunter2\n    proxy_url: http://a:hunter2@proxy:1/x\n    \
                    authorization: {credentials: hunter2, type: Bearer}\n    tls_config: {key: hunter2, key_file: \
                    a.key}\n    http_headers: {X-Id: {values: [shown], secrets: [hunter2]}}\n";
        let shown = masked(text);
        assert!(!shown.contains("hunter2"), "{shown}");
        for kept in [
            "scrape_interval: 15s",
            "username: me",
            "http://a:<secret>@proxy:1/x",
            "type: Bearer",
            "key_file: a.key",
            "shown",
        ] {
            assert!(shown.contains(kept), "{kept} in {shown}");
        }
        assert_eq!(masked(""), "");
        assert_eq!(masked("a: ["), "");
    }
}
