//! What is kept of rules in [`crate::state`], and how it is written.
//!
//! Keys begin with a letter. `g` + file, name: the group's last committed slot. `a` + file, name,
//! rule, number, labels: one alert. Texts are a varint length and bytes; rule is a text of the texts
//! of its identity, number tells apart rules that share one.

use super::alert::AlertState;
use super::alerting::{ActiveAlert, ActiveAlerts};
use super::group::{Group, Rule};
use crate::state::Entry;
use crate::storage::Timestamp;
use larum_storage_format::Labels;
use larum_storage_format::varint::{get_uvarint, put_uvarint};
use std::collections::{BTreeMap, HashMap};

/// The first byte of an alert's value. Another one is not read: the alert then starts anew.
const VERSION: u8 = 1;

/// The key under which a group's last committed slot stands.
pub fn group_key(group: &Group) -> Vec<u8> {
    slot_key(&group.file, &group.name)
}

/// The same by file and name.
pub fn slot_key(file: &str, name: &str) -> Vec<u8> {
    let mut key = vec![b'g'];
    put_text(&mut key, file.as_bytes());
    put_text(&mut key, name.as_bytes());
    key
}

/// What the keys of all alerts of a group begin with.
pub fn alerts_prefix(group: &Group) -> Vec<u8> {
    let mut key = group_key(group);
    key[0] = b'a';
    key
}

/// What identifies each of the rules within their group.
pub fn identities(rules: &[Rule]) -> Vec<Vec<u8>> {
    let mut numbers: HashMap<Vec<(&str, &str)>, u64> = HashMap::new();
    let mut identities = Vec::with_capacity(rules.len());
    for rule in rules {
        let number = numbers.entry(rule.identity()).and_modify(|n| *n += 1).or_insert(0);
        let mut texts = Vec::new();
        for (name, value) in rule.identity() {
            put_text(&mut texts, name.as_bytes());
            put_text(&mut texts, value.as_bytes());
        }
        let mut identity = Vec::new();
        put_text(&mut identity, &texts);
        put_uvarint(&mut identity, *number);
        identities.push(identity);
    }
    identities
}

/// What the keys of all alerts of a rule begin with.
pub fn rule_prefix(group: &Group, identity: &[u8]) -> Vec<u8> {
    [alerts_prefix(group).as_slice(), identity].concat()
}

/// What was stored of a group.
#[derive(Debug, Default)]
pub struct StoredGroup {
    /// Its last committed slot.
    pub slot_ms: Option<i64>,
    /// The rules that had alerts, by their identity, and the entries of these: whole keys, the
    /// labels in them, values.
    pub rules: BTreeMap<Vec<u8>, Vec<StoredAlert>>,
}

/// What was stored of an alert.
#[derive(Debug)]
pub struct StoredAlert {
    /// Where it stands.
    pub key: Vec<u8>,
    /// Its labels, as in the key.
    pub labels: Vec<u8>,
    /// See [`encode_alert`].
    pub value: Vec<u8>,
}

/// All that was stored, by file and name of the groups. Keys that are none of ours are left out.
pub fn stored_groups(entries: Vec<Entry>) -> BTreeMap<(String, String), StoredGroup> {
    let mut groups: BTreeMap<_, StoredGroup> = BTreeMap::new();
    for (key, value) in entries {
        let Some((kind, mut rest)) = key.split_first() else { continue };
        let Some(file) = take_text(&mut rest) else { continue };
        let Some(name) = take_text(&mut rest) else { continue };
        match kind {
            b'g' if rest.is_empty() => groups.entry((file, name)).or_default().slot_ms = decode_slot(&value),
            b'a' => {
                let Some(labels) = after_identity(rest) else { continue };
                let identity = rest[..rest.len() - labels.len()].to_vec();
                let labels = labels.to_vec();
                let alerts = groups.entry((file, name)).or_default().rules.entry(identity).or_default();
                alerts.push(StoredAlert { key, labels, value });
            }
            _ => {}
        }
    }
    groups
}

/// What follows a rule's identity.
fn after_identity(bytes: &[u8]) -> Option<&[u8]> {
    let (len, n) = get_uvarint(bytes)?;
    let rest = bytes.get(n..)?.get(usize::try_from(len).ok()?..)?;
    let (_, n) = get_uvarint(rest)?;
    rest.get(n..)
}

/// The value of a group's key.
pub fn encode_slot(slot_ms: i64) -> Vec<u8> {
    slot_ms.to_le_bytes().to_vec()
}

/// The slot in the value of a group's key.
pub fn decode_slot(value: &[u8]) -> Option<i64> {
    Some(i64::from_le_bytes(value.try_into().ok()?))
}

/// The value of an alert's key, which is its rule's prefix and its labels.
pub fn encode_alert(alert: &ActiveAlert) -> Vec<u8> {
    let mut bytes = vec![VERSION, alert.state as u8];
    bytes.extend_from_slice(&alert.value.to_bits().to_le_bytes());
    bytes.extend_from_slice(&alert.active_at.as_millis().to_le_bytes());
    for t in [alert.fired_at, alert.resolved_at, alert.keep_firing_since, alert.last_sent] {
        bytes.push(u8::from(t.is_some()));
        bytes.extend_from_slice(&t.map_or(0, Timestamp::as_millis).to_le_bytes());
    }
    for (name, value) in &alert.annotations {
        put_text(&mut bytes, name.as_bytes());
        put_text(&mut bytes, value.as_bytes());
    }
    bytes
}

/// The alert in the value of an alert's key; `None` for bytes that are none.
pub fn decode_alert(bytes: &[u8]) -> Option<ActiveAlert> {
    let mut rest = bytes;
    let [version, state] = take(&mut rest)?;
    if version != VERSION {
        return None;
    }
    let state = [AlertState::Inactive, AlertState::Pending, AlertState::Firing]
        .into_iter()
        .find(|s| *s as u8 == state)?;
    let value = f64::from_bits(u64::from_le_bytes(take(&mut rest)?));
    let active_at = Timestamp::from_millis(i64::from_le_bytes(take(&mut rest)?));
    let mut times = [None; 4];
    for t in &mut times {
        let [is_some] = take(&mut rest)?;
        let ms = i64::from_le_bytes(take(&mut rest)?);
        *t = (is_some == 1).then_some(Timestamp::from_millis(ms));
    }
    let [fired_at, resolved_at, keep_firing_since, last_sent] = times;
    let mut annotations = BTreeMap::new();
    while !rest.is_empty() {
        let name = take_text(&mut rest)?;
        annotations.insert(name, take_text(&mut rest)?);
    }
    Some(ActiveAlert {
        state,
        annotations,
        value,
        active_at,
        fired_at,
        resolved_at,
        keep_firing_since,
        last_sent,
    })
}

/// The alerts of a rule, and how many could not be read.
pub fn decode_alerts(stored: &[StoredAlert]) -> (ActiveAlerts, usize) {
    let mut alerts = ActiveAlerts::new();
    for StoredAlert { labels, value, .. } in stored {
        if let (Ok(labels), Some(alert)) = (Labels::from_canonical_bytes(labels), decode_alert(value)) {
            alerts.insert(labels, alert);
        }
    }
    let unreadable = stored.len() - alerts.len();
    (alerts, unreadable)
}

fn put_text(bytes: &mut Vec<u8>, text: &[u8]) {
    put_uvarint(bytes, text.len() as u64);
    bytes.extend_from_slice(text);
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    let (len, n) = get_uvarint(rest)?;
    let (text, after) = rest.get(n..)?.split_at_checked(usize::try_from(len).ok()?)?;
    *rest = after;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn alerts_come_back_as_they_were(
            state in prop_oneof![Just(AlertState::Inactive), Just(AlertState::Pending), Just(AlertState::Firing)],
            value in any::<u64>().prop_map(f64::from_bits).prop_filter("NaN equals nothing", |v| !v.is_nan()),
            times in any::<(i64, Option<i64>, Option<i64>, Option<i64>, Option<i64>)>(),
            annotations in proptest::collection::btree_map("\\PC{0,20}", "\\PC{0,200}", 0..5),
        ) {
            let t = |ms: Option<i64>| ms.map(Timestamp::from_millis);
            let alert = ActiveAlert {
                state,
                annotations,
                value,
                active_at: Timestamp::from_millis(times.0),
                fired_at: t(times.1),
                resolved_at: t(times.2),
                keep_firing_since: t(times.3),
                last_sent: t(times.4),
            };
            let bytes = encode_alert(&alert);
            prop_assert_eq!(decode_alert(&bytes), Some(alert));
        }

        #[test]
        fn garbage_is_refused_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let _ = decode_alert(&bytes);
            let _ = decode_slot(&bytes);
            for kind in [b'g', b'a'] {
                let key = [&[kind][..], &bytes].concat();
                stored_groups(vec![(key, bytes.clone())]);
            }
        }
    }
}
