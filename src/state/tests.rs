//! Tests of the store as a whole: commits, `kill -9`, damage.

use super::*;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

const BUCKET: Bucket = Bucket("test");

fn put(state: &State, key: &str, value: &str) {
    let entries = vec![(key.into(), Some(value.into()))];
    state.commit(BUCKET, &Changes { entries }).unwrap();
}

fn keys(state: &State) -> Vec<String> {
    let entries = state.scan(BUCKET, b"").unwrap();
    entries.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
}

#[test]
fn changes_are_read_back_by_key_and_by_prefix_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(folder.path()).unwrap();
    for key in ["b/2", "a", "b/1", "c"] {
        put(&state, key, key);
    }
    state.commit(BUCKET, &Changes { entries: vec![(b"c".to_vec(), None)] }).unwrap();
    assert_eq!(state.get(BUCKET, b"b/1").unwrap().as_deref(), Some(&b"b/1"[..]));
    assert_eq!(state.get(BUCKET, b"c").unwrap(), None);
    assert_eq!(state.get(Bucket("other"), b"a").unwrap(), None);
    let found = state.scan(BUCKET, b"b/").unwrap();
    assert_eq!(found.iter().map(|(k, _)| k.as_slice()).collect::<Vec<_>>(), [b"b/1", b"b/2"]);
}

#[test]
fn a_store_held_by_somebody_else_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(folder.path()).unwrap();
    put(&state, "a", "1");
    let refused = State::open(folder.path()).map(drop).unwrap_err();
    assert!(refused.to_string().contains("another process has it open"), "{refused}");
    assert_eq!(keys(&state), ["a"]);
    assert!(!folder.path().join("damaged-1").exists());
}

#[test]
fn damage_costs_at_most_what_came_after_the_last_export() {
    type Damage = fn(&Path);
    let damages: [(&str, bool, Damage); 6] = [
        ("an unfinished snapshot", true, |store| {
            fs::write(store.join("snap.0000000000000007.generating"), b"half").unwrap();
        }),
        ("an emptied snapshot", true, |store| {
            for entry in fs::read_dir(store).unwrap().flatten() {
                if entry.file_name().to_string_lossy().starts_with("snap.") {
                    fs::write(entry.path(), b"").unwrap();
                }
            }
        }),
        ("bytes turned over in the log", false, |store| {
            let mut bytes = fs::read(store.join("db")).unwrap();
            let used = bytes.iter().rposition(|&b| b != 0).unwrap();
            for b in &mut bytes[used / 3..used / 3 + 64] {
                *b ^= 0xff;
            }
            fs::write(store.join("db"), bytes).unwrap();
        }),
        ("garbage instead of the log", false, |store| {
            fs::write(store.join("db"), vec![0xa5; 70_000]).unwrap()
        }),
        ("garbage instead of the configuration", false, |store| fs::write(store.join("conf"), b"?").unwrap()),
        ("the store deleted", false, |store| fs::remove_dir_all(store).unwrap()),
    ];
    for (what, all_kept, damage) in damages {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        for i in 0..500 {
            put(&state, &format!("exported {i:03}"), &"x".repeat(200));
        }
        drop(state);
        let state = State::open(folder.path()).unwrap();
        put(&state, "late", "1");
        // No export when this handle goes.
        state.inner.dirty.store(false, Ordering::Release);
        drop(state);
        damage(&folder.path().join("store"));
        let state = State::open(folder.path()).unwrap_or_else(|e| panic!("{what}: {e}"));
        let keys = keys(&state);
        assert_eq!(keys.iter().filter(|k| k.starts_with("exported")).count(), 500, "{what}");
        assert!(!all_kept || keys.contains(&"late".to_owned()), "{what}");
        put(&state, "after", "1");
    }
}

#[test]
fn a_damaged_export_beside_a_damaged_store_starts_empty() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(export::FILE), b"LARUMST1 and nonsense").unwrap();
    let state = State::open(folder.path()).unwrap();
    assert!(keys(&state).is_empty());
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = State::open(&file.join("state")).map(drop).unwrap_err().to_string();
    assert!(error.contains("file/state") && error.contains("creating the folder"), "{error}");
}

/// Set for the child process of the test below, to the folder it writes to.
const CHILD: &str = "LARUM_TEST_STATE_FOLDER";

#[test]
fn child_that_commits_until_killed() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let state = State::open(Path::new(&folder)).unwrap();
    let first = keys(&state).len();
    for i in first..first + 1_000_000 {
        put(&state, &format!("{i:09}"), "value");
        println!("\ncommitted {i}");
    }
}

#[test]
fn what_was_committed_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "state::tests::child_that_commits_until_killed", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let committed: usize = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("committed ")?.parse().ok())
            .nth(150)
            .expect("the child commits");
        child.kill().unwrap();
        child.wait().unwrap();
        let state = State::open(folder.path()).unwrap();
        let keys = keys(&state);
        assert!(keys.len() > committed, "round {round}: {} of {committed} are there", keys.len());
        assert!(keys.iter().enumerate().all(|(i, key)| *key == format!("{i:09}")), "round {round}");
    }
}
