//! `larum backup` and `larum restore` from outside: of a folder, of a server that runs, killed in the
//! middle, damaged afterwards.
#![cfg(feature = "server")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use support::{Larum, get_with, now_ms, post, remote_write};

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn larum(&self, flags: &[&str]) -> Larum {
        Larum::start(self.dir.path(), flags)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larum"));
        command.current_dir(self.dir.path()).args(words);
        command
    }

    /// Runs the program in the folder.
    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// What a run that succeeds prints.
    fn print(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}{}", out(&output), err(&output));
        out(&output)
    }

    /// Names of the backups.
    fn backups(&self) -> Vec<String> {
        let list = self.print(&["backup", "list", "--from=backups"]);
        list.lines().skip(1).map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    }

    /// The dump of a folder.
    fn dump(&self, data: &str) -> Vec<String> {
        let dump = self.print(&["tsdb", "dump", &format!("--storage.tsdb.path={data}")]);
        let mut lines: Vec<String> = dump.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Writes so many samples of as many series, at this time.
fn write(larum: &Larum, series: usize, t_ms: i64) {
    let names: Vec<String> = (0..series).map(|i| i.to_string()).collect();
    let labels: Vec<[(&str, &str); 2]> =
        names.iter().map(|n| [("__name__", "m"), ("n", n.as_str())]).collect();
    let samples = [(t_ms, (t_ms as f64).sin())];
    let request: Vec<support::WriteSeries> = labels.iter().map(|l| (&l[..], &samples[..])).collect();
    assert_eq!(remote_write(&larum.url, &request).status, 204);
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn first_partition(backup: &Path) -> PathBuf {
    let entries = std::fs::read_dir(backup.join("partitions")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().next().unwrap()
}

#[test]
fn a_running_server_is_backed_up_and_only_what_is_new_is_copied() {
    let fixture = Fixture::new();
    let larum = fixture.larum(&["--web.enable-admin-api"]);
    let url = format!("--url={}", larum.url);
    let now = now_ms();
    // A new disk.
    std::fs::create_dir_all(fixture.path("backups/lost+found")).unwrap();
    write(&larum, 100, now - 60_000);
    let printed = fixture.print(&["backup", "--to=backups", &url, "--name=first"]);
    assert!(printed.starts_with("backup first taken and verified\n3 files copied, "), "{printed}");
    write(&larum, 100, now - 30_000);
    let printed = fixture.print(&["backup", "--to=backups", &url]);
    assert!(printed.contains("\n3 files copied, ") && printed.contains("\n1 files unchanged"), "{printed}");
    assert_eq!(fixture.backups().len(), 2);
    assert!(!fixture.path("data/snapshots").exists(), "the snapshot is gone");
    fixture.print(&["backup", "verify", "--from=backups"]);

    // The newest by default, an older one by name or time.
    let restored = fixture.print(&["restore", "--from=backups", "--storage.tsdb.path=newest"]);
    assert!(restored.contains("restored into newest, 4 files"), "{restored}");
    fixture.print(&["restore", "--from=backups", "--at=first", "--storage.tsdb.path=first"]);
    assert_eq!((fixture.dump("newest").len(), fixture.dump("first").len()), (200, 100));
    let none = fixture.run(&["restore", "--from=backups", "--at=5", "--storage.tsdb.path=none"]);
    assert!(err(&none).contains("no backup of that time or older"), "{}", err(&none));
    let refused = fixture.run(&["restore", "--from=backups", "--storage.tsdb.path=first"]);
    assert!(err(&refused).contains("into an empty folder only"), "{}", err(&refused));

    let printed = fixture.print(&["backup", "prune", "--from=backups", "--keep=1"]);
    assert_eq!(printed, "backup first removed\n");
    assert!(!fixture.run(&["backup", "prune", "--from=misspelt", "--keep=1"]).status.success());
    assert!(!fixture.path("misspelt").exists());
    fixture.print(&["backup", "verify", "--from=backups"]);
    assert_eq!(fixture.backups().len(), 1);
}

#[test]
fn a_folder_that_no_server_has_is_backed_up_with_its_wal_and_a_held_one_names_the_way() {
    let fixture = Fixture::new();
    let larum = fixture.larum(&[]);
    write(&larum, 7, now_ms());
    let held = fixture.run(&["backup", "--to=backups"]);
    assert!(err(&held).contains("name the server by --url"), "{}", err(&held));
    let disabled = fixture.run(&["backup", "--to=backups", &format!("--url={}", larum.url)]);
    assert!(err(&disabled).contains("--web.enable-admin-api"), "{}", err(&disabled));
    larum.process.kill_9();
    fixture.print(&["backup", "--to=backups", "--name=a"]);
    fixture.print(&["restore", "--from=backups", "--storage.tsdb.path=restored"]);
    assert_eq!(fixture.dump("restored"), fixture.dump("data"));
    assert_eq!(fixture.dump("restored").len(), 7);
    let twice = fixture.run(&["backup", "--to=backups", "--name=a"]);
    assert!(err(&twice).contains("there is such a backup"), "{}", err(&twice));
    let nothing = fixture.run(&["backup", "--to=backups", "--storage.tsdb.path=elsewhere"]);
    assert!(!nothing.status.success() && !fixture.path("elsewhere").exists());
    let wrong = fixture.run(&["backup", "--to=data"]);
    assert!(err(&wrong).contains("something else than backups"), "{}", err(&wrong));
}

#[test]
fn damage_in_a_backup_is_found_not_restored_and_mended_by_a_full_one() {
    let fixture = Fixture::new();
    let larum = fixture.larum(&[]);
    write(&larum, 50, now_ms());
    larum.process.kill_9();
    fixture.print(&["backup", "--to=backups", "--name=a"]);
    let damaged = first_partition(&fixture.path("backups/a"));
    flip(&damaged);
    let verified = fixture.run(&["backup", "verify", "--from=backups"]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(out(&verified).contains("it is not what was written") && out(&verified).contains("--full"));
    let restored = fixture.run(&["restore", "--from=backups", "--storage.tsdb.path=restored"]);
    assert!(err(&restored).contains("it is not what was written"), "{}", err(&restored));
    let opened = fixture.run(&["--storage.tsdb.path=restored"]);
    assert!(err(&opened).contains("was not restored to the end"), "{}", err(&opened));
    let full = fixture.print(&["backup", "--to=backups", "--name=b", "--full"]);
    assert!(!full.contains("unchanged"), "{full}");
    fixture.print(&["restore", "--from=backups", "--storage.tsdb.path=restored"]);
    assert_eq!(fixture.dump("restored").len(), 50);
}

#[test]
fn a_backup_that_lacks_a_partition_says_so_and_takes_none_of_the_earlier_ones() {
    let fixture = Fixture::new();
    let larum = fixture.larum(&[]);
    write(&larum, 5, now_ms());
    larum.process.kill_9();
    fixture.print(&["backup", "--to=backups", "--name=a"]);
    let lost = first_partition(&fixture.path("data"));
    std::fs::remove_file(&lost).unwrap();
    let taken = fixture.run(&["backup", "--to=backups", "--name=b", "--keep=1"]);
    assert_eq!(taken.status.code(), Some(1));
    let file = lost.file_name().unwrap().to_str().unwrap();
    assert!(err(&taken).contains(file) && err(&taken).contains("no earlier backup"), "{}", err(&taken));
    assert_eq!(fixture.backups(), ["a", "b"]);
    // Once it is back, everything is as before.
    std::fs::copy(first_partition(&fixture.path("backups/a")), &lost).unwrap();
    fixture.print(&["backup", "--to=backups", "--name=c", "--keep=1"]);
    assert_eq!(fixture.backups(), ["c"]);
}

#[test]
fn a_backup_that_is_killed_is_none_and_the_next_goes_on() {
    let fixture = Fixture::new();
    let larum = fixture.larum(&["--web.enable-admin-api"]);
    write(&larum, 2000, now_ms() - 60_000);
    let url = format!("--url={}", larum.url);
    for i in 0..6u64 {
        let words = ["backup", "--to=backups", &url];
        let mut child = fixture.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Not waiting for anything: it is killed at one time or another.
        std::thread::sleep(std::time::Duration::from_millis(5 + 12 * i));
        let _ = child.kill();
        child.wait().unwrap();
        if fixture.path("backups").exists() {
            fixture.print(&["backup", "verify", "--from=backups"]);
        }
    }
    fixture.print(&["backup", "--to=backups", &url]);
    fixture.print(&["backup", "verify", "--from=backups"]);
    assert!(!fixture.path("data/snapshots").exists(), "snapshots of killed runs are gone");
    for name in std::fs::read_dir(fixture.path("backups")).unwrap() {
        assert!(!name.unwrap().path().join("UNFINISHED").exists());
    }
    fixture.print(&["restore", "--from=backups", "--storage.tsdb.path=restored"]);
    assert_eq!(fixture.dump("restored").len(), 2000);
}

#[test]
fn a_firing_alert_goes_on_firing_in_what_was_restored() {
    let fixture = Fixture::new();
    let rules = "groups: [{name: g, interval: 1s, rules: [{alert: Up, expr: m > -2, for: 1s}]}]\n";
    std::fs::write(fixture.path("rules.yml"), rules).unwrap();
    std::fs::write(fixture.path("larum.yml"), "rule_files: [rules.yml]\n").unwrap();
    let config = format!("--config.file={}", fixture.path("larum.yml").display());
    let larum = fixture.larum(&["--web.enable-admin-api", &config]);
    let alert = |larum: &Larum| {
        write(larum, 1, now_ms());
        let alerts = support::get(&format!("{}/api/v1/alerts", larum.url)).unwrap().json();
        let alert = &alerts["data"]["alerts"][0];
        (alert["state"].as_str().unwrap_or("none").to_owned(), alert["activeAt"].clone())
    };
    support::wait_until("the alert fires", std::time::Duration::from_secs(20), || {
        alert(&larum).0 == "firing"
    });
    let (_, since) = alert(&larum);
    fixture.print(&["backup", "--to=backups", &format!("--url={}", larum.url)]);
    drop(larum);
    std::fs::remove_dir_all(fixture.path("data")).unwrap();
    fixture.print(&["restore", "--from=backups", "--storage.tsdb.path=data"]);
    let larum = fixture.larum(&[&config]);
    support::wait_until("the alert is back", std::time::Duration::from_secs(20), || {
        alert(&larum).0 != "none"
    });
    assert_eq!(alert(&larum), ("firing".to_owned(), since));
}

#[test]
fn the_api_names_a_snapshot_as_it_is_told() {
    let fixture = Fixture::new();
    let larum = fixture.larum(&["--web.enable-admin-api"]);
    let snapshot = |name: &str| {
        post(&format!("{}/api/v1/admin/tsdb/snapshot?name={name}", larum.url), &[], b"").unwrap()
    };
    assert_eq!(snapshot("mine").json()["data"]["name"], "mine");
    assert!(fixture.path("data/snapshots/mine/MANIFEST").is_file());
    assert!(fixture.path("data/snapshots/mine/state/export").is_file());
    assert_eq!(snapshot("mine").status, 400, "it is there");
    assert_eq!(snapshot("..%2Fmine").status, 400);
    let up = get_with(&format!("{}/api/v1/query", larum.url), &[("query", "1")]).unwrap();
    assert_eq!(up.status, 200);
}
