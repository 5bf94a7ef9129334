//! Files of users, and files with faults.

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    let env = |name: &str| (name == "REGION").then(|| "north".to_owned());
    Config::parse(Path::new("dir/p.yml"), text, env).map_err(|e| e.to_string())
}

#[test]
fn the_sections_that_matter_are_read() {
    let config = parse(
        "global:\n  scrape_interval: 15s\n  evaluation_interval: 30s\n  external_labels: {region: '${REGION}-1', \
         cost: $$5}\nrule_files: [a.yml]\nscrape_configs:\n- job_name: node\n  static_configs:\n  - targets: \
         ['host:9100']\nalerting:\n  alertmanagers:\n  - path_prefix: /am/\n    timeout: 3s\n    basic_auth: \
         {username: Aladdin, password: open sesame}\n    static_configs:\n    - targets: ['am:9093', bare]\n\
         storage:\n  retention: [{match: '{job=\"ci\"}', keep: 3d}, {match: billing, keep: 0s}]\n  cleanup_schedule: \
         CRON_TZ=Europe/Berlin 0 2 * * *\n  tsdb: {retention: {time: 30d, size: 10GB, percentage: 12.5}}\nremote_write: [{url: 'http://x/'}]\n",
    )
    .unwrap();
    assert_eq!(config.evaluation_interval, Duration::from_secs(30));
    assert_eq!(config.external_labels.to_string(), r#"{cost="$5", region="north-1"}"#);
    assert_eq!(config.rule_files, [PathBuf::from("dir/a.yml")]);
    let time = Some(Duration::from_secs(30 * 86_400));
    let retention = RetentionConfig { time, size: Some(10 << 30), percentage: Some(12.5) };
    assert_eq!(config.retention, retention);
    let policies = config.retention_policies.iter().map(|p| (p.to_string(), p.keep));
    let three_days = Some(Duration::from_secs(3 * 86_400));
    let expected = [("{job=\"ci\"}".to_owned(), three_days), ("{__name__=\"billing\"}".to_owned(), None)];
    assert_eq!(policies.collect::<Vec<_>>(), expected);
    let schedule = config.cleanup_schedule.map(|schedule| schedule.to_string());
    assert_eq!(schedule.as_deref(), Some("CRON_TZ=Europe/Berlin 0 2 * * *"));
    assert_eq!(config.scrape_jobs, ["node"]);
    assert_eq!(config.notes.len(), 2, "{:?}", config.notes);
    let alertmanager = &config.alertmanagers[0];
    assert_eq!(alertmanager.url, "http://am:9093/am/api/v2/alerts");
    assert_eq!(alertmanager.timeout, Duration::from_secs(3));
    assert_eq!(alertmanager.authorization.as_deref(), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
    assert_eq!(config.alertmanagers[1].url, "http://bare:80/am/api/v2/alerts");
    assert!(!config.shown.contains("open sesame"));
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config.evaluation_interval, Duration::from_secs(60));
    assert!(config.alertmanagers.is_empty() && config.notes.is_empty());
}

#[test]
fn faults_are_named_with_their_place() {
    let cases = [
        ("globl: {}\n", "dir/p.yml:1:1: unknown field `globl`"),
        ("global:\n  evaluation_interval: 0s\n", "dir/p.yml:2:24: evaluation_interval must be longer than 0"),
        (
            "storage: {tsdb: {retention: {size: 10}}}\n",
            "dir/p.yml:1:36: \"10\" needs a unit: B, KB, MB, GB, TB, PB or EB",
        ),
        (
            "storage: {tsdb: {retention: {percentage: 101}}}\n",
            "dir/p.yml:1:42: a percentage is from 0 to 100, not 101",
        ),
        (
            "storage: {cleanup_schedule: '0 25 * * *'}\n",
            "dir/p.yml:1:29: cleanup_schedule: \"0 25 * * *\" is no schedule: value must be in range 0..=23",
        ),
        (
            "storage:\n  cleanup_schedule: CRON_TZ=Mars 0 2 * * *\n",
            "dir/p.yml:2:21: cleanup_schedule: \"CRON_TZ=Mars 0 2 * * *\" is no schedule: the time zone \"Mars\" is",
        ),
        (
            "storage:\n  retention:\n  - {match: 'up', keep: 3d}\n  - {match: '{}', keep: 3d}\n",
            "dir/p.yml:4:13: match: 1:1: parse error: vector selector must contain at least one non-empty matcher",
        ),
        (
            "storage: {retention: [{match: 'up[5m]', keep: 3d}]}\n",
            "dir/p.yml:1:31: match: \"up[5m]\" is no series",
        ),
        ("storage: {retention: [{match: up}]}\n", "dir/p.yml:1:24: missing field `keep`"),
        (
            "storage: {retention: [{match: up, keep: 3}]}\n",
            "dir/p.yml:1:41: not a valid duration string: \"3\"",
        ),
        ("global: {scrape_interval: 10}\n", "dir/p.yml:1:27: not a valid duration string: \"10\""),
        ("global:\n  scrape_timeout: 2m\n", "dir/p.yml:2:19: scrape_timeout is longer than scrape_interval"),
        (
            "scrape_configs:\n- job_name: a\n- job_name: a\n",
            "dir/p.yml:3:13: two scrape_configs have the job_name \"a\"",
        ),
        (
            "scrape_configs:\n- job_name: a\n  static_configs: [{targets: ['http://x/']}]\n",
            "dir/p.yml:3:31: target \"http://x/\" is a URL",
        ),
        (
            "alerting:\n  alertmanagers:\n  - scheme: https\n",
            "dir/p.yml:3:13: https to an Alertmanager is not supported yet",
        ),
        (
            "alerting:\n  alertmanagers:\n  - file_sd_configs: [{files: [a]}]\n",
            "dir/p.yml:3:22: file_sd_configs of an Alertmanager is not supported yet",
        ),
        ("alerting:\n  alert_relabel_configs: [{action: drop}]\n", "dir/p.yml:2:27: alert_relabel_configs"),
    ];
    for (text, expected) in cases {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(expected), "{text}\n gave {error}\n not {expected}");
    }
}

#[test]
fn the_configuration_that_users_have_loads_as_it_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/inputs/prometheus.yml");
    if !path.exists() {
        eprintln!("SKIPPED: {} is not there", path.display());
        return;
    }
    let config = Config::load(&path).unwrap();
    assert_eq!(config.evaluation_interval, Duration::from_secs(15));
    assert_eq!(config.rule_files, [path.with_file_name("alert-rules.yml")]);
    assert_eq!(config.alertmanagers[0].url, "http://alertmanager:9093/api/v2/alerts");
    assert_eq!(config.scrape_jobs, ["zerotrace-agent", "zerotrace-enrichment", "zerotrace-api"]);
}

#[test]
fn rule_files_have_the_same_name_from_whatever_folder_they_are_loaded() {
    let seen = |folder: &str, path: &str| absolute(Path::new(folder), Path::new(path));
    for (folder, path) in [
        ("/etc/larum", "a.yml"),
        ("/etc/larum", "./a.yml"),
        ("/etc", "larum/a.yml"),
        ("/var/lib", "../../etc/larum/a.yml"),
        ("/", "../etc/larum/a.yml"),
        ("/tmp", "/etc/larum/a.yml"),
    ] {
        assert_eq!(seen(folder, path).to_str(), Some("/etc/larum/a.yml"), "{path} in {folder}");
    }
}
