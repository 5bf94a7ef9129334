//! What is kept of rules in [`crate::state`], and how it is written.
//!
//! Keys begin with a letter. `g` + file, name: the group's last committed slot. `a` + file, name,
//! rule, number, labels: one alert. Texts are a varint length and bytes; rule is the texts
//! of its identity, number tells apart rules that share one.

use super::alert::AlertState;
use super::alerting::{ActiveAlert, ActiveAlerts};
use super::group::{Group, Rule};
use crate::storage::Timestamp;
use larum_storage_format::Labels;
use larum_storage_format::varint::{get_uvarint, put_uvarint};
use std::collections::BTreeMap;

/// The first byte of an alert's value. Another one is not read: the alert then starts anew.
const VERSION: u8 = 1;

/// The key under which a group's last committed slot stands.
pub fn group_key(group: &Group) -> Vec<u8> {
    let mut key = vec![b'g'];
    put_text(&mut key, group.file.as_bytes());
    put_text(&mut key, group.name.as_bytes());
    key
}

/// What the keys of all alerts of a group begin with.
pub fn alerts_prefix(group: &Group) -> Vec<u8> {
    let mut key = group_key(group);
    key[0] = b'a';
    key
}

/// What the keys of all alerts of a rule begin with. `number` counts the rules before it in the
/// group that have the same identity.
pub fn rule_prefix(group: &Group, rule: &Rule, number: u32) -> Vec<u8> {
    let mut identity = Vec::new();
    for (name, value) in rule.identity() {
        put_text(&mut identity, name.as_bytes());
        put_text(&mut identity, value.as_bytes());
    }
    let mut key = alerts_prefix(group);
    put_text(&mut key, &identity);
    put_uvarint(&mut key, number.into());
    key
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

/// The alerts among `entries` whose keys begin with `prefix`, and how many could not be read.
pub fn decode_alerts(entries: &[(Vec<u8>, Vec<u8>)], prefix: &[u8]) -> (ActiveAlerts, usize) {
    let mut alerts = ActiveAlerts::new();
    let mut unreadable = 0;
    for (key, value) in entries {
        let Some(labels) = key.strip_prefix(prefix) else { continue };
        match (Labels::from_canonical_bytes(labels), decode_alert(value)) {
            (Ok(labels), Some(alert)) => _ = alerts.insert(labels, alert),
            _ => unreadable += 1,
        }
    }
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
        }
    }
}
