//! An alert fires on written samples and reaches a real Alertmanager; Larum is killed with -9 while
//! it fires, and the alert goes on as if nothing had happened; then the condition clears.

mod support;

use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::{
    Larum, Process, free_port, get, listen_for_posts, now_ms, real_server, remote_write, wait_until,
};

const PATIENCE: Duration = Duration::from_secs(40);

const RULES: &str = r#"
groups:
- name: rooms
  rules:
  - alert: TooHot
    expr: room_temperature_celsius > 30
    for: 2s
    labels: {severity: page}
    annotations:
      summary: '{{ $labels.room }} is at {{ printf "%.1f" $value }} degrees'
"#;

#[test]
fn a_firing_alert_survives_kill_9_without_a_resolve_and_resolves_when_its_condition_clears() {
    let Some(alertmanager) = real_server("prometheus-alertmanager") else { return };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let dir = dir.path();

    let (hook_port, notifications) = listen_for_posts();
    let (_alertmanager, alertmanager_url) = start_alertmanager(&alertmanager, dir, hook_port);
    let config = dir.join("larum.yml");
    std::fs::write(dir.join("rules.yml"), RULES).expect("the rules are written");
    std::fs::write(
        &config,
        format!(
            "global: {{evaluation_interval: 1s}}\nrule_files: [rules.yml]\n\
             alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{}']}}]}}]}}\n",
            alertmanager_url.trim_start_matches("http://")
        ),
    )
    .expect("the configuration is written");
    let flags = [format!("--config.file={}", config.display()), "--rules.alert.resend-delay=2s".to_owned()];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let larum = Larum::start(dir, &flags);
    let (port, url) = (larum.port, larum.url.clone());

    let mut alert = Value::Null;
    wait_until("Alertmanager shows the alert", PATIENCE, || {
        heat(&url, 35.25);
        alert = alerts(&alertmanager_url)[0].clone();
        !alert.is_null()
    });
    assert_eq!(alert["labels"]["alertname"], "TooHot");
    assert_eq!(alert["labels"]["severity"], "page");
    assert_eq!(alert["labels"]["room"], "attic");
    assert_eq!(alert["annotations"]["summary"], "attic is at 35.2 degrees");
    let first = notifications.recv_timeout(PATIENCE).expect("Alertmanager notifies its receiver");
    assert_eq!(first["status"], "firing");
    let active_at = active_at(&url);
    assert_ne!(active_at, Value::Null, "Larum shows the alert as active");

    larum.process.kill_9();
    let larum = Larum::start_on(port, dir, &flags);
    let evaluated_at_start = last_evaluation(&url);
    let mut evaluations = 0;
    let mut last = evaluated_at_start;
    wait_until("the rule was evaluated eight times after the restart", PATIENCE, || {
        heat(&url, 36.0);
        let now = last_evaluation(&url);
        if now != last {
            (last, evaluations) = (now, evaluations + 1);
        }
        evaluations >= 8
    });
    assert_eq!(self::active_at(&url), active_at, "activeAt is what it was before the kill");
    let after = alerts(&alertmanager_url)[0].clone();
    assert_eq!(after["startsAt"], alert["startsAt"], "to Alertmanager it is the same alert");
    for notification in notifications.try_iter() {
        assert_eq!(notification["status"], "firing", "nothing resolved by the restart: {notification}");
    }

    wait_until("Alertmanager shows the alert no longer", PATIENCE, || {
        heat(&url, 20.0);
        alerts(&alertmanager_url).as_array().is_some_and(Vec::is_empty)
    });
    let resolved = std::iter::from_fn(|| notifications.recv_timeout(PATIENCE).ok())
        .find(|notification| notification["status"] == "resolved");
    assert!(resolved.is_some(), "Alertmanager tells its receiver that the alert is resolved");
    assert_eq!(larum.process.stop(Duration::from_secs(20)), Some(0), "a clean stop");
}

/// Writes the present temperature of the attic.
fn heat(larum_url: &str, celsius: f64) {
    let labels = [("__name__", "room_temperature_celsius"), ("room", "attic")];
    let response = remote_write(larum_url, &[(&labels, &[(now_ms(), celsius)])]);
    assert_eq!(response.status, 204, "{}", response.body);
}

fn alerts(alertmanager_url: &str) -> Value {
    get(&format!("{alertmanager_url}/api/v2/alerts")).expect("Alertmanager answers").json()
}

fn active_at(larum_url: &str) -> Value {
    let alerts = get(&format!("{larum_url}/api/v1/alerts")).expect("Larum answers").json();
    alerts["data"]["alerts"][0]["activeAt"].clone()
}

fn last_evaluation(larum_url: &str) -> Value {
    let rules = get(&format!("{larum_url}/api/v1/rules")).expect("Larum answers").json();
    let group =
        rules["data"]["groups"].as_array().and_then(|groups| groups.iter().find(|g| g["name"] == "rooms"));
    group.map_or(Value::Null, |g| g["lastEvaluation"].clone())
}

fn start_alertmanager(program: &Path, dir: &Path, hook_port: u16) -> (Process, String) {
    let port = free_port();
    let config = dir.join("alertmanager.yml");
    std::fs::write(
        &config,
        format!(
            "route: {{receiver: hook, group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}\n\
             receivers: [{{name: hook, webhook_configs: [{{url: 'http://127.0.0.1:{hook_port}/'}}]}}]\n"
        ),
    )
    .expect("the configuration is written");
    // Where its templates lie, unless it is installed; see tests/bring_servers.sh.
    let templates = Some(support::servers().join("alertmanager")).filter(|folder| folder.is_dir());
    let process = Process::start(
        "alertmanager",
        Command::new(program)
            .current_dir(templates.as_deref().unwrap_or(dir))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", dir.join("alertmanager").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address="),
        dir,
    );
    let url = format!("http://127.0.0.1:{port}");
    wait_until("alertmanager is ready", Duration::from_secs(30), || {
        get(&format!("{url}/-/ready")).is_some_and(|r| r.status == 200)
    });
    (process, url)
}
