//! Alerts that fire on written samples reach a real Alertmanager. Larum is killed with -9 while one
//! fires, and it goes on as if nothing had happened; and an Alertmanager that speaks TLS and asks for a
//! password is found by a file, while secrets and files change.

mod support;

use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::{
    Larum, Process, free_port, get, listen_for_posts, now_ms, post, real_server, remote_write, wait_until,
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
    let (_alertmanager, port) = start_alertmanager(&alertmanager, dir, hook_port, &[]);
    let alertmanager_url = format!("http://127.0.0.1:{port}");
    wait_until("alertmanager is ready", Duration::from_secs(30), || {
        get(&format!("{alertmanager_url}/-/ready")).is_some_and(|r| r.status == 200)
    });
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

/// `open sesame`, as bcrypt hashes it.
const HASH: &str = "$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy";

const SECURE: &str = r#"
global:
  evaluation_interval: 1s
  external_labels: {dc: north, replica: r1}
rule_files: [rules.yml]
alerting:
  alert_relabel_configs:
  - {regex: replica, action: labeldrop}
  - {source_labels: [severity], regex: page, target_label: severity, replacement: wake-WHOM}
  alertmanagers:
  - scheme: https
    basic_auth: {username: larum, password_file: secrets/password}
    tls_config: {ca_file: secrets/ca.pem}
    relabel_configs: [{source_labels: [state], regex: retired, action: drop}]
    alert_relabel_configs: [{target_label: via, replacement: tls}]
    file_sd_configs: [{files: ['targets/*.yml', 'targets/*.json'], refresh_interval: 200ms}]
  - static_configs: [{targets: ['127.0.0.1:1']}]
"#;

#[test]
fn an_alertmanager_behind_tls_and_a_password_is_found_by_a_file_and_told_of_what_relabelling_leaves() {
    let Some(alertmanager) = real_server("prometheus-alertmanager") else { return };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let dir = dir.path();
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().expect("it has a folder")).expect("the folder is made");
        // In one step, as whoever reads it must never see a half.
        let new = dir.join("new");
        std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &path)).expect("the file is written");
    };

    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    write("server.pem", &made.cert.pem());
    write("server.key", &made.signing_key.serialize_pem());
    write(
        "web.yml",
        &format!(
            "tls_server_config: {{cert_file: server.pem, key_file: server.key}}\n\
             basic_auth_users: {{larum: {HASH}}}\n"
        ),
    );
    let (hook_port, notifications) = listen_for_posts();
    let web = format!("--web.config.file={}", dir.join("web.yml").display());
    let (_alertmanager, alertmanager_port) = start_alertmanager(&alertmanager, dir, hook_port, &[&web]);

    write("secrets/ca.pem", &made.cert.pem());
    write("secrets/password", "a wrong one\n");
    write("targets/old.json", r#"[{"targets": ["retired:9093"], "labels": {"state": "retired"}}]"#);
    write("rules.yml", RULES);
    write("larum.yml", SECURE.replace("WHOM", "me").as_str());
    let port = free_port();
    let config = format!("--config.file={}", dir.join("larum.yml").display());
    let external = format!("--web.external-url=http://127.0.0.1:{port}");
    let flags =
        [config.as_str(), external.as_str(), "--rules.alert.resend-delay=1s", "--web.enable-lifecycle"];
    let larum = Larum::start_on(port, dir, &flags);
    let url = larum.url.clone();
    let known = || get(&format!("{url}/api/v1/alertmanagers")).expect("Larum answers").json()["data"].clone();
    let dead = "http://127.0.0.1:1/api/v2/alerts";
    assert_eq!(known()["activeAlertmanagers"], json!([{ "url": dead }]));
    assert_eq!(known()["droppedAlertmanagers"], json!([{ "url": "https://retired:9093/api/v2/alerts" }]));

    // A file brings the Alertmanager, and a broken one beside it changes nothing.
    write("targets/new.yml", &format!("- targets: ['127.0.0.1:{alertmanager_port}']\n"));
    let secure = format!("https://127.0.0.1:{alertmanager_port}/api/v2/alerts");
    let both = json!([{ "url": secure }, { "url": dead }]);
    wait_until("the file is read", PATIENCE, || known()["activeAlertmanagers"] == both);
    write("targets/new.yml", "- targetz: []\n");
    wait_until("the broken file is counted", PATIENCE, || {
        metric(&url, "prometheus_sd_file_read_errors_total") > 0.0
    });
    assert_eq!(known()["activeAlertmanagers"], both);
    assert!(larum.process.log().contains("new.yml:1:3: unknown field `targetz`"), "the log names the place");

    // The wrong password loses nothing: once it is right, the alert arrives.
    let errors = format!("prometheus_notifications_errors_total{{alertmanager=\"{secure}\"}}");
    wait_until("the wrong password is refused", PATIENCE, || {
        heat(&url, 35.25);
        metric(&url, &errors) > 0.0
    });
    assert!(notifications.try_recv().is_err());
    write("secrets/password", "open sesame\n");
    let mut first = None;
    wait_until("the alert arrives", PATIENCE, || {
        heat(&url, 35.25);
        first = notifications.try_recv().ok();
        first.is_some()
    });
    let alert = first.expect("it arrived")["alerts"][0].clone();
    let labels = json!({
        "alertname": "TooHot", "dc": "north", "room": "attic", "severity": "wake-me", "via": "tls",
    });
    assert_eq!(alert["labels"], labels);
    assert_eq!(alert["annotations"], json!({ "summary": "attic is at 35.2 degrees" }));
    let shown =
        get(&format!("{url}/api/v1/alerts")).expect("Larum answers").json()["data"]["alerts"][0].clone();
    let ms = |time: &Value| {
        time.as_str().and_then(|t| t.parse::<jiff::Timestamp>().ok()).map(|t| t.as_millisecond())
    };
    let (started, active) = (ms(&alert["startsAt"]), ms(&shown["activeAt"]));
    let pending_ms = started.zip(active).map(|(started, active)| started - active);
    assert!(pending_ms.is_some_and(|ms| (2_000..10_000).contains(&ms)), "{alert} {shown}");
    let link = alert["generatorURL"].as_str().expect("a link");
    assert_eq!(link, format!("{url}/graph?g0.expr=room_temperature_celsius+%3E+30&g0.tab=1"));
    assert_eq!(get(link).map(|page| page.status), Some(200), "the link opens a page");
    let sent = format!("prometheus_notifications_sent_total{{alertmanager=\"{secure}\"}}");
    assert!(metric(&url, &sent) >= 1.0);
    assert!(!larum.process.log().contains("sesame"), "no secret is logged");

    // A section that is broken leaves the old one; a good one is in force as a whole.
    write("larum.yml", &SECURE.replace("action: labeldrop", "action: labeldrops"));
    let refused = post(&format!("{url}/-/reload"), &[], b"").expect("Larum answers");
    assert_eq!(refused.status, 500);
    assert!(
        refused.body.contains("larum.yml:8:30: unknown relabel action \"labeldrops\""),
        "{}",
        refused.body
    );
    assert_eq!(known()["activeAlertmanagers"], both);
    write("larum.yml", &SECURE.replace("regex: retired", "regex: nobody").replace("WHOM", "north"));
    larum.process.signal("HUP");
    wait_until("the new configuration is in force", PATIENCE, || {
        known()["droppedAlertmanagers"] == json!([])
    });
    wait_until("the alert arrives with the new label", PATIENCE, || {
        heat(&url, 35.25);
        let alerts =
            notifications.try_iter().flat_map(|n| n["alerts"].as_array().cloned().unwrap_or_default());
        alerts.into_iter().any(|alert| alert["labels"]["severity"] == "wake-north")
    });
    let stopped = larum.process.stop(Duration::from_secs(20));
    assert_eq!(stopped, Some(0), "it stops though one Alertmanager is dead");
}

const ACTIONS: &str = r#"
  alert_relabel_configs:
  - {source_labels: [host], regex: '(?P<name>[^:]+):(\d+)', target_label: instance, replacement: '${name}/$2'}
  - {source_labels: [owner], action: lowercase, target_label: owner}
  - {source_labels: [zone, host], separator: '@', action: Uppercase, target_label: place}
  - {source_labels: [host], action: hashmod, modulus: 97, target_label: shard}
  - {regex: 'meta_(.+)', replacement: 'about_$1', action: labelmap}
  - {regex: 'meta_.*', action: labeldrop}
  - {source_labels: [nowhere], target_label: gone, replacement: ''}
  - {target_label: __tmp_seen, replacement: 'yes'}
  - {source_labels: [alertname], regex: 'Kept(.*)', target_label: 'is_$1'}
  - {source_labels: [skip], regex: 'yes', action: drop}
  - {source_labels: [left], target_label: right, action: keepequal}
  - {source_labels: [left], target_label: unwanted, action: dropequal}
  - {source_labels: [zone], regex: 'a|b', action: keep}
  - {regex: '(host|left|right)', action: labeldrop}
  - {regex: '(alertname|instance|owner|place|shard|about_.*|__tmp.*|is_.*|zone|dc|gone)', action: labelkeep}
"#;

const ACTION_RULES: &str = r#"
groups:
- name: actions
  rules:
  - {alert: Skipped, expr: vector(1), labels: {zone: a, left: x, right: x, skip: 'yes'}}
  - {alert: Unequal, expr: vector(1), labels: {zone: a, left: x, right: y}}
  - {alert: Unwanted, expr: vector(1), labels: {zone: a, left: x, right: x, unwanted: x}}
  - {alert: Elsewhere, expr: vector(1), labels: {zone: ab, left: x, right: x}}
  - {alert: KeptOne, expr: vector(1), labels: {zone: a, host: 'db-1:9100', owner: OPS, left: x, right: x, gone: y}}
  - {alert: KeptTwo, expr: vector(2), labels: {zone: b, host: 'no port', owner: Ünïx, left: x, right: x, meta_a: "1\n2",
     meta_b: é, secret: z}}
"#;

#[test]
fn relabelled_alerts_leave_as_they_leave_a_real_prometheus() {
    let Some(prometheus) = real_server("prometheus") else { return };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let dir = dir.path();
    std::fs::write(dir.join("rules.yml"), ACTION_RULES).expect("the rules are written");
    let config = |receiver: u16| {
        format!(
            "global: {{evaluation_interval: 1s, external_labels: {{dc: north, zone: none}}}}\n\
             rule_files: [rules.yml]\nalerting:{ACTIONS}  alertmanagers: [{{path_prefix: /am, static_configs: \
             [{{targets: ['127.0.0.1:{receiver}']}}]}}]\n"
        )
    };
    let (to_prometheus, by_prometheus) = listen_for_posts();
    // Until it has discovered what stands in its configuration, it drops what it should send.
    let resend = ["--rules.alert.resend-delay=1s"];
    let _prometheus = support::start_prometheus(&prometheus, dir, |_| config(to_prometheus), &resend);
    let (to_larum, by_larum) = listen_for_posts();
    std::fs::write(dir.join("larum.yml"), config(to_larum)).expect("the configuration is written");
    let _larum = Larum::start(dir, &[&format!("--config.file={}", dir.join("larum.yml").display())]);

    // The labels of all alerts up to the last of the file, by their names; each rule may come by itself.
    let sent = |posts: std::sync::mpsc::Receiver<Value>| {
        let mut alerts = std::collections::BTreeMap::new();
        while !alerts.contains_key("KeptTwo") {
            let post = posts.recv_timeout(PATIENCE).expect("alerts are sent");
            for alert in post.as_array().into_iter().flatten() {
                let labels = &alert["labels"];
                alerts.insert(labels["alertname"].as_str().unwrap_or_default().to_owned(), labels.clone());
            }
        }
        alerts
    };
    let (prometheus, larum) = (sent(by_prometheus), sent(by_larum));
    assert_eq!(larum, prometheus);
    assert_eq!(larum.keys().collect::<Vec<_>>(), ["KeptOne", "KeptTwo"]);
}

/// The value of a metric by its name and labels; 0 if it is not there.
fn metric(larum_url: &str, name: &str) -> f64 {
    let page = get(&format!("{larum_url}/metrics")).expect("Larum answers").body;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or(0.0)
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

/// Starts an Alertmanager that tells the hook of everything at once; returns its port.
fn start_alertmanager(program: &Path, dir: &Path, hook_port: u16, flags: &[&str]) -> (Process, u16) {
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
            .arg("--cluster.listen-address=")
            .args(flags),
        dir,
    );
    (process, port)
}
