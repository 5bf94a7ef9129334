//! Tests of the store as a whole: commits, `kill -9`, damage.

use super::*;
use std::fs;
use std::io::{BufRead, BufReader, Write};
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

/// Set for the child processes of the test below: what they do, and where they say how far they came.
const PHASE: &str = "LARUM_TEST_STATE_PHASE";
const PROGRESS: &str = "LARUM_TEST_STATE_PROGRESS";

/// Mounts a disk of 8 MiB that nobody else sees, and runs the phases on it.
const SMALL_DISK: &str = r#"
mount -t tmpfs -o size=8m tmpfs "$1" || exit 77
cd "$1"; binary=$2; export LARUM_TEST_STATE_PROGRESS="$3"
run() { LARUM_TEST_STATE_PHASE=$1 "$binary" --exact state::tests::child_on_a_small_disk --nocapture; }
head -c 6M /dev/zero > ballast; run fill || exit 1
head -c 6M /dev/zero > ballast; run killed; [ $? = 137 ] || exit 2
head -c 9M /dev/zero > ballast; run open-full || exit 3
rm ballast; run open || exit 4
"#;

#[test]
fn child_on_a_small_disk() {
    let Ok(phase) = std::env::var(PHASE) else { return };
    let progress = std::env::var_os(PROGRESS).unwrap();
    let state = State::open(Path::new("state")).unwrap();
    let try_put = |key: &str| {
        let entries = vec![(key.into(), Some(vec![b'x'; 1000]))];
        state.commit(BUCKET, &Changes { entries })
    };
    let is_in_memory = || matches!(*state.inner.store(), Store::Memory { .. });
    let retry_now = || match &mut *state.inner.store() {
        Store::Memory { retry_at, .. } => *retry_at = Instant::now(),
        Store::Sled(_) => {}
    };
    // How many were committed before the disk was full.
    let fill = |name: &str| {
        let full = (0..100_000).find(|i| try_put(&format!("{name} {i:05}")).is_err());
        assert!(is_in_memory());
        full.expect("the disk is small")
    };
    let count = |state: &State, name: &str| keys(state).iter().filter(|key| key.starts_with(name)).count();
    let progress_of_killed = || {
        let progress = fs::read_to_string(&progress).unwrap();
        let (before, second) = progress.split_once(' ').unwrap();
        (before.parse::<usize>().unwrap(), second.parse::<usize>().unwrap())
    };
    match phase.as_str() {
        "fill" => {
            let full = fill("first");
            assert!(full > 100);
            for i in 0..10 {
                retry_now();
                let error = try_put(&format!("later {i}")).unwrap_err().to_string();
                assert!(error.contains("kept in memory"), "{error}");
            }
            assert_eq!((count(&state, "first"), count(&state, "later")), (full + 1, 10));
            assert!(state.get(BUCKET, b"later 3").unwrap().is_some());
            let copy = state.export().unwrap();
            fs::remove_file("ballast").unwrap();
            retry_now();
            try_put("last").unwrap();
            assert!(!is_in_memory());
            assert_eq!(keys(&state).len(), full + 12);
            fs::create_dir("copy").unwrap();
            fs::write("copy/export", copy).unwrap();
            assert_eq!(keys(&State::open(Path::new("copy")).unwrap()).len(), full + 11);
            fs::remove_dir_all("copy").unwrap();
        }
        "killed" => {
            let before = count(&state, "");
            fs::write(&progress, format!("{before} {}", fill("second"))).unwrap();
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        }
        "open-full" => {
            let (_, second) = progress_of_killed();
            assert!(is_in_memory(), "sled wants space to open");
            assert!(count(&state, "second") >= second, "sled's own files are read");
            try_put("in memory").unwrap_err();
            assert!(state.get(BUCKET, b"in memory").unwrap().is_some());
            // It ends as by kill -9, so nothing of this is written.
            std::process::exit(0);
        }
        _ => {
            let (before, second) = progress_of_killed();
            assert!(!is_in_memory() && count(&state, "second") >= second);
            assert_eq!(count(&state, "") - count(&state, "second"), before);
            put(&state, "after", "1");
        }
    }
}

#[test]
fn a_full_disk_costs_nothing_that_was_committed_and_ends_when_there_is_space() {
    let (folder, progress) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let outcome = Command::new("unshare")
        .args(["--mount", "sh", "-c", SMALL_DISK, "sh"])
        .args([folder.path(), &std::env::current_exe().unwrap(), &progress.path().join("progress")])
        .output();
    let skipped = match &outcome {
        Ok(output) => !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("unshare"),
        Err(_) => true,
    };
    if skipped || outcome.as_ref().is_ok_and(|output| output.status.code() == Some(77)) {
        let _ = writeln!(std::io::stderr(), "SKIPPED: no disk may be mounted here");
        return;
    }
    let output = outcome.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
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
