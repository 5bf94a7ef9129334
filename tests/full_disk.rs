//! A disk fills while samples come, rules fire and queries run; then there is space again.
//!
//! The disk is a tmpfs of 40 MiB in a mount namespace of its own, so the test starts itself again as a
//! child in there. Where nothing may be mounted, it is skipped with a notice.

mod support;

use serde_json::Value;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use support::{Larum, get, get_with, listen_for_posts, now_ms, remote_write, wait_until};

/// Tells the child where its disk is to be mounted.
const FOLDER: &str = "FULL_DISK_TEST_FOLDER";

const PATIENCE: Duration = Duration::from_secs(60);

const MIB: usize = 1 << 20;

/// Series of a batch, one sample each.
const SERIES: usize = 10_000;

const RULES: &str = r#"
groups:
- name: always
  interval: 1s
  rules:
  - alert: Always # for a hundred series, so that there is some state
    expr: last_over_time(m{i=~"1.."}[2h]) >= 0
  - record: written
    expr: vector(1)
"#;

#[test]
fn a_full_disk_loses_nothing_acknowledged_and_is_over_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("disk")).unwrap();
    let script = r#"mount -t tmpfs -o size=40m tmpfs "$1/disk" || exit 77
        exec "$2" --exact child --ignored --nocapture"#;
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .args([dir.path(), &std::env::current_exe().unwrap()])
        .env(FOLDER, dir.path())
        .output();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) if output.status.code() != Some(77) && !text(&output.stderr).starts_with("unshare:") => {
            panic!("{}{}", text(&output.stdout), text(&output.stderr));
        }
        _ => drop(writeln!(std::io::stderr(), "SKIPPED: no disk may be mounted here")),
    }
}

#[test]
#[ignore = "the child of a_full_disk_loses_nothing_acknowledged_and_is_over_when_there_is_space"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let mut disk = SmallDisk::new(Path::new(&folder));
    disk.add_ballast(8 * MIB);
    let mut larum = disk.start();
    let mut sender = Sender::new();

    // Samples come until there is no room for more.
    let refused = loop {
        if let Err(refused) = sender.send(&larum.url) {
            break refused;
        }
        assert!(sender.acknowledged.len() < 1000, "the disk never fills");
    };
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.body.contains("the disk is full"), "{}", refused.body);
    assert!(refused.header("retry-after").is_some_and(|s| s.parse::<u32>().is_ok_and(|s| s > 0)));
    assert!(sender.acknowledged.len() > 30, "{} batches", sender.acknowledged.len());
    sender.check(&larum.url);
    let active_at = alert(&larum.url)["activeAt"].clone();

    // The log is cut, which gives space back, so it goes on again and again until the disk is full of
    // partitions.
    wait_until("two cuts gave space back, and samples are refused again", PATIENCE, || {
        while sender.send(&larum.url).is_ok() {}
        metric(&larum.url, "prometheus_tsdb_compactions_total") >= 2.0
            && metric(&larum.url, "larum_storage_disk_state{state=\"read_only\"}") == 1.0
    });

    // Something else fills the disk to the brim, the reserve too, so that not even sled can write.
    wait_until("the state of alerts is in memory only", PATIENCE, || {
        disk.fill();
        metric(&larum.url, "larum_storage_disk_reserve_bytes") == 0.0 && state_failures(&larum.url) > 0.0
    });
    sender.send(&larum.url).unwrap_err();
    sender.check(&larum.url);
    disk.check_alerts(&larum.url);
    assert_eq!(alert(&larum.url)["activeAt"], active_at);
    // What cannot be stored any more reaches the rules all the same.
    assert!(metric(&larum.url, "larum_self_monitoring_held_samples") > 0.0);
    disk.hear("LarumDiskFull");
    // Alerts are no worse for it; what is recorded is not there.
    let rules = get(&format!("{}/api/v1/rules", larum.url)).unwrap().json();
    let health = ["Always", "written"].map(|name| {
        let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap();
        rules.iter().find(|rule| rule["name"] == name).unwrap()["health"].clone()
    });
    assert_eq!(health, ["ok", "err"]);
    let status = get(&format!("{}/api/v1/status/tsdb/retention", larum.url)).unwrap().json();
    assert_eq!(status["data"]["disk"]["state"], "read_only", "{status}");

    // It starts on the full disk as well, with all there was.
    larum.process.kill_9();
    disk.fill();
    larum = disk.start();
    sender.check(&larum.url);
    sender.send(&larum.url).unwrap_err();
    disk.check_alerts(&larum.url);
    assert_eq!(alert(&larum.url)["activeAt"], active_at);

    // Somebody makes room, and nothing else.
    disk.remove_ballast();
    wait_until("samples are taken again", PATIENCE, || sender.send(&larum.url).is_ok());
    wait_until("the state of alerts is written again", PATIENCE, || {
        larum.process.log().contains("it is written again")
    });
    wait_until("own metrics are stored again", PATIENCE, || {
        metric(&larum.url, "larum_self_monitoring_held_samples") == 0.0
    });
    wait_until("the reserve is there again", PATIENCE, || {
        metric(&larum.url, "larum_storage_disk_reserve_bytes") > 0.0
    });
    sender.send(&larum.url).unwrap();
    sender.check(&larum.url);

    larum.process.kill_9();
    larum = disk.start();
    sender.check(&larum.url);
    disk.check_alerts(&larum.url);
    assert_eq!(alert(&larum.url)["activeAt"], active_at);
    assert!(!larum.process.log().contains("panicked"), "{}", larum.process.log());
    assert_eq!(larum.process.stop(PATIENCE), Some(0));
}

/// The disk, what lies on it, and who hears of alerts.
struct SmallDisk {
    folder: PathBuf,
    ballast: Vec<PathBuf>,
    heard: Receiver<Value>,
}

impl SmallDisk {
    fn new(folder: &Path) -> SmallDisk {
        fs::create_dir(folder.join("disk/data")).unwrap();
        std::os::unix::fs::symlink("disk/data", folder.join("data")).unwrap();
        fs::write(folder.join("rules.yml"), RULES).unwrap();
        let (port, heard) = listen_for_posts();
        let config = format!(
            "global: {{evaluation_interval: 1s}}\nrule_files: [rules.yml]\nalerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]}}\n"
        );
        fs::write(folder.join("larum.yml"), config).unwrap();
        SmallDisk { folder: folder.to_owned(), ballast: Vec::new(), heard }
    }

    fn start(&self) -> Larum {
        let config = format!("--config.file={}", self.folder.join("larum.yml").display());
        let flags = [&config, "--rules.alert.resend-delay=1s", "--rules.self-monitoring"];
        Larum::start(&self.folder, &flags)
    }

    /// Writes a file of so many bytes, or as many as there is room for.
    fn add_ballast(&mut self, bytes: usize) {
        let path = self.folder.join(format!("disk/ballast-{}", self.ballast.len()));
        self.ballast.push(path.clone());
        let mut file = File::create(path).unwrap();
        for _ in 0..bytes / 4096 {
            if file.write_all(&[1; 4096]).is_err() {
                return;
            }
        }
    }

    fn fill(&mut self) {
        self.add_ballast(usize::MAX);
    }

    fn remove_ballast(&mut self) {
        self.ballast.drain(..).for_each(|path| fs::remove_file(path).unwrap());
    }

    /// Waits until an alert of that name is heard of that fires.
    fn hear(&self, name: &str) {
        let is_it = |alert: &Value| alert["labels"]["alertname"] == name;
        while !self
            .heard
            .recv_timeout(PATIENCE)
            .expect("alerts are sent")
            .as_array()
            .unwrap()
            .iter()
            .any(is_it)
        {}
    }

    /// The alert is heard of anew.
    fn check_alerts(&self, url: &str) {
        while self.heard.try_recv().is_ok() {}
        self.hear("Always");
        assert_eq!(alert(url)["state"], "firing");
    }
}

/// Who sends batches, each a second later than the one before.
struct Sender {
    start_ms: i64,
    next: i64,
    random: u64,
    labels: Vec<String>,
    /// The times of those that were acknowledged.
    acknowledged: Vec<i64>,
}

impl Sender {
    fn new() -> Sender {
        let start_ms = now_ms() / 1000 * 1000 - 3_600_000;
        let labels = (0..SERIES).map(|i| i.to_string()).collect();
        Sender { start_ms, next: 0, random: 88_172_645_463_325_252, labels, acknowledged: Vec::new() }
    }

    fn send(&mut self, url: &str) -> Result<(), support::Response> {
        let t_ms = self.start_ms + self.next * 1000;
        // Values that no packing makes short.
        let samples: Vec<[(i64, f64); 1]> = (0..SERIES)
            .map(|_| {
                self.random ^= self.random << 13;
                self.random ^= self.random >> 7;
                self.random ^= self.random << 17;
                [(t_ms, (self.random >> 11) as f64)]
            })
            .collect();
        let labels: Vec<[(&str, &str); 2]> =
            self.labels.iter().map(|i| [("__name__", "m"), ("i", i.as_str())]).collect();
        let series: Vec<support::WriteSeries> =
            labels.iter().zip(&samples).map(|(l, s)| (&l[..], &s[..])).collect();
        let response = remote_write(url, &series);
        if response.status != 204 {
            return Err(response);
        }
        self.acknowledged.push(t_ms);
        self.next += 1;
        Ok(())
    }

    /// All that was acknowledged is there.
    fn check(&self, url: &str) {
        let seconds = |t_ms: i64| (t_ms / 1000).to_string();
        let (first, last) = (self.acknowledged[0], self.acknowledged[self.acknowledged.len() - 1]);
        let query = [
            ("query", "sum(count_over_time(m[1s]))"),
            ("start", &seconds(first)),
            ("end", &seconds(last)),
            ("step", "1"),
        ];
        let answer = get_with(&format!("{url}/api/v1/query_range"), &query).unwrap().json();
        assert!(answer["warnings"].is_null(), "{}", answer["warnings"]);
        let values = answer["data"]["result"][0]["values"].as_array().unwrap();
        let all = SERIES.to_string();
        let there = |t_ms: &i64| {
            values
                .iter()
                .any(|v| v[0].as_f64() == Some(*t_ms as f64 / 1000.0) && v[1].as_str() == Some(all.as_str()))
        };
        let missing: Vec<&i64> = self.acknowledged.iter().filter(|t_ms| !there(t_ms)).collect();
        assert!(missing.is_empty(), "{} of {} batches: {missing:?}", missing.len(), self.acknowledged.len());
    }
}

fn alert(url: &str) -> Value {
    let mut found = Value::Null;
    wait_until("the alert is there", PATIENCE, || {
        found = get(&format!("{url}/api/v1/alerts")).unwrap().json()["data"]["alerts"][0].clone();
        !found.is_null()
    });
    found
}

/// The value of a metric without its time.
fn metric(url: &str, name: &str) -> f64 {
    let text = get(&format!("{url}/metrics")).unwrap().body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

fn state_failures(url: &str) -> f64 {
    let text = get(&format!("{url}/metrics")).unwrap().body;
    let lines = text.lines().filter(|line| line.starts_with("larum_rule_group_state_failures_total{"));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}
