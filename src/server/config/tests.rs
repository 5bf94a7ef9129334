//! Files of users, and files with faults.

use super::*;
use crate::server::deliver::Target;
use crate::server::discovery::files::FileSdConfig;

fn parse(text: &str) -> Result<Config, String> {
    let env = |name: &str| (name == "REGION").then(|| "north".to_owned());
    Config::parse(Path::new("dir/p.yml"), text, env).map_err(|e| e.to_string())
}

/// Where static targets are told of alerts.
fn urls(alertmanager: &AlertmanagerConfig) -> Vec<String> {
    let groups = alertmanager.static_groups.iter();
    let targets = groups.flat_map(|group| group.targets.iter().map(move |target| (group, target)));
    let found = targets.map(|(group, target)| match alertmanager.rules.apply(group, target).unwrap() {
        Target::Active(url) => url,
        Target::Dropped(url) => format!("dropped {url}"),
    });
    found.collect()
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
    let alertmanager = &config.alerting.alertmanagers[0];
    assert_eq!(urls(alertmanager), ["http://am:9093/am/api/v2/alerts", "http://bare/am/api/v2/alerts"]);
    assert_eq!(alertmanager.timeout, Duration::from_secs(3));
    let headers = alertmanager.http.private_headers().unwrap();
    assert_eq!(headers["authorization"], "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    assert!(!config.shown.contains("open sesame"));
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config.evaluation_interval, Duration::from_secs(60));
    assert!(config.alerting.alertmanagers.is_empty() && config.notes.is_empty());
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
    assert_eq!(urls(&config.alerting.alertmanagers[0]), ["http://alertmanager:9093/api/v2/alerts"]);
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

#[test]
fn an_alertmanager_may_be_asked_in_every_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (name, text) in [("token", " abc\n"), ("extra", "from a file\n"), ("more.yml", "[]")] {
        std::fs::write(path(name), text).unwrap();
    }
    let text = "alerting:\n  alert_relabel_configs:\n  - {regex: replica, action: labeldrop}\n  alertmanagers:\n  \
                - scheme: https\n    api_version: v2\n    follow_redirects: false\n    enable_http2: true\n    \
                authorization: {credentials_file: token}\n    http_headers: {X-Scope-OrgID: {values: [one], \
                files: [extra]}}\n    tls_config: {insecure_skip_verify: true, server_name: am.local, \
                min_version: TLS13}\n    relabel_configs:\n    - {source_labels: [__address__], regex: 'bad.*', \
                action: drop}\n    alert_relabel_configs: [{target_label: seen_by, replacement: am}]\n    \
                static_configs: [{targets: ['am:1', 'bad:1']}]\n    file_sd_configs: [{files: ['m*.yml', \
                gone.json], refresh_interval: 30s}]\n";
    let config = Config::parse(&path("p.yml"), text, |_| None).unwrap();
    assert_eq!(config.alerting.alert_relabel.len(), 1);
    let alertmanager = &config.alerting.alertmanagers[0];
    assert_eq!(urls(alertmanager), ["https://am:1/api/v2/alerts", "dropped https://bad:1/api/v2/alerts"]);
    assert_eq!(alertmanager.alert_relabel.len(), 1);
    assert!(!alertmanager.http.follow_redirects && alertmanager.http.tls.insecure_skip_verify);
    let files = vec![path("m*.yml"), path("gone.json")];
    assert_eq!(alertmanager.file_sd, [FileSdConfig { files, refresh_interval: Duration::from_secs(30) }]);
    assert_eq!(config.notes.len(), 1, "a file that is not there is told of: {:?}", config.notes);

    let headers = alertmanager.http.private_headers().unwrap();
    assert_eq!(headers["authorization"], "Bearer abc");
    assert_eq!(headers.get_all("x-scope-orgid").iter().collect::<Vec<_>>(), ["one", "from a file"]);
    std::fs::write(path("token"), "def").unwrap();
    assert_eq!(alertmanager.http.private_headers().unwrap()["authorization"], "Bearer def");
}

/// Faults of an Alertmanager's section, written at the column 5 of line 3 on.
#[test]
fn faults_of_alerting_are_named_with_their_place() {
    for (section, expected) in [
        ("scheme: ftp", "3:13: scheme \"ftp\" is neither http nor https"),
        ("timeout: 0s", "3:14: timeout must be longer than 0"),
        ("api_version: v1", "3:18: expected Alertmanager api version to be v2 but got v1"),
        ("static_configs: [{targets: ['http://a/']}]", "3:33: target \"http://a/\" is a URL or has a path"),
        ("static_configs: [{targets: ['a b']}]", "3:33: target \"a b\" is no host:port"),
        (
            "consul_sd_configs: [{}]",
            "3:24: consul_sd_configs of an Alertmanager is not supported: use static_configs",
        ),
        ("proxy_url: http://p:1", "3:16: proxy_url of an Alertmanager is not supported"),
        ("oauth2: {client_id: a}", "3:13: oauth2 of an Alertmanager is not supported"),
        (
            "file_sd_configs: [{files: []}]",
            "3:23: file service discovery config must contain at least one path",
        ),
        ("file_sd_configs: [{files: [a.txt]}]", "3:32: path name \"a.txt\" is not valid for file discovery"),
        (
            "file_sd_configs: [{files: ['*/a.yml']}]",
            "3:32: path name \"*/a.yml\" is not valid for file discovery",
        ),
        (
            "relabel_configs: [{action: keep, regex: '('}]",
            "3:45: error parsing regexp: missing closing ): `(`",
        ),
        ("relabel_configs: [{action: nothing}]", "3:32: unknown relabel action \"nothing\""),
        ("relabel_configs: [{regexp: x}]", "3:24: unknown field `regexp`"),
        (
            "alert_relabel_configs: [{}]",
            "3:29: relabel configuration for replace action requires 'target_label'",
        ),
        ("bearer_token_file: gone", "3:24: "),
        (
            "basic_auth: {password: a, password_file: b}",
            "3:46: at most one of basic_auth password & password_file",
        ),
        (
            "basic_auth: {password: \"a\\nb\"}\n    bearer_token: x",
            "4:19: at most one of basic_auth, oauth2, bearer",
        ),
        ("authorization: {type: basic}", "3:27: authorization type cannot be set to \"basic\""),
        (
            "authorization: {credentials: \"a\\nb\"}",
            "the value of the header authorization holds a line break",
        ),
        ("http_headers: {Host: {values: [a]}}", "3:26: setting header \"Host\" is not allowed"),
        ("http_headers: {X: {secrets: [\"a\\nb\"]}}", "3:34: the value of the header X holds a line break"),
        ("tls_config: {ca_file: gone}", "3:27: tls_config: "),
        ("tls_config: {ca: nothing}", "3:22: tls_config: holds no certificate in PEM"),
        ("tls_config: {cert: a}", "3:24: exactly one of key or key_file must be configured"),
        ("tls_config: {min_version: SSL3}", "3:31: unknown TLS version: SSL3"),
        ("tls_config: {max_version: TLS11}", "3:31: max_version leaves nothing"),
        ("tls_config: {server_name: 'a b'}", "3:31: server_name \"a b\" is no name of a host"),
    ] {
        let text = format!("alerting:\n  alertmanagers:\n  - {section}\n");
        let error = parse(&text).unwrap_err();
        assert!(error.contains(expected), "{section}\n gave {error}\n not {expected}");
    }
    let error =
        parse("alerting:\n  alert_relabel_configs: [{action: drop, regex: x, foo: 1}]\n").unwrap_err();
    assert!(error.starts_with("dir/p.yml:2:52: unknown field `foo`"), "{error}");
}
