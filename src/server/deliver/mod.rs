//! Delivery of alerts: who the Alertmanagers are, and the HTTP [`Transport`] of [`crate::notify`].

mod targets;

pub use targets::{Target, TargetRules, alerts_path};

use super::app::{App, Phase};
use super::config::{AlertingConfig, AlertmanagerConfig};
use super::discovery::files::TargetFiles;
use super::http_client::HttpClient;
use crate::notify::{AlertmanagerSet, Notifier, NotifierConfig, NotifierOptions, SendError, Transport};
use crate::relabel::Rule;
use axum::body::Bytes;
use axum::http::StatusCode;
use larum_storage_format::Labels;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Files with targets are looked at this often, or more often where they are to be refreshed so.
const LOOK: Duration = Duration::from_secs(5);
/// The least time between two looks.
const LOOK_MIN: Duration = Duration::from_millis(100);

/// Tells Alertmanagers of alerts, as the configuration says.
pub struct Delivery {
    /// Who queues and sends.
    pub notifier: Notifier,
    runtime: Handle,
    /// Held while files are read.
    state: Mutex<State>,
    discovered: Mutex<Discovered>,
}

/// The configuration in force.
#[derive(Default)]
struct State {
    external_labels: Labels,
    alert_relabel: Vec<Rule>,
    alertmanagers: Vec<(AlertmanagerConfig, Arc<HttpTransport>)>,
    files: TargetFiles,
}

/// The Alertmanagers by the addresses of their API, and how their discovery goes.
#[derive(Debug, Clone, Default)]
pub struct Discovered {
    /// Those that are told of alerts.
    pub active: Vec<String>,
    /// Those that rules dropped.
    pub dropped: Vec<String>,
    /// How often a file with targets could not be read.
    pub file_read_errors: u64,
    /// The files, and when they were changed, in seconds since the epoch.
    pub files: Vec<(String, f64)>,
}

impl Delivery {
    /// A delivery to nobody yet. Connections live on `runtime`.
    pub fn new(options: NotifierOptions, runtime: Handle) -> Delivery {
        let notifier = Notifier::new(options);
        Delivery { notifier, runtime, state: Mutex::default(), discovered: Mutex::default() }
    }

    /// Puts a configuration in force, with the targets that its files hold now.
    pub fn configure(&self, alerting: &AlertingConfig, external_labels: &Labels) {
        let mut state = lock(&self.state);
        state.external_labels = external_labels.clone();
        state.alert_relabel = alerting.alert_relabel.clone();
        let with_transport = |config: &AlertmanagerConfig| {
            let transport = HttpTransport {
                runtime: self.runtime.clone(),
                client: HttpClient::new(config.http.clone()),
                timeout: config.timeout,
            };
            (config.clone(), Arc::new(transport))
        };
        state.alertmanagers = alerting.alertmanagers.iter().map(with_transport).collect();
        state.refresh_files();
        self.apply(&state);
    }

    /// Reads the files with targets that have changed. When to look again.
    fn look(&self) -> Duration {
        let mut state = lock(&self.state);
        if state.refresh_files() {
            self.apply(&state);
        } else {
            let mut discovered = lock(&self.discovered);
            (discovered.file_read_errors, discovered.files) =
                (state.files.read_errors(), state.files.modified());
        }
        let configs = state.alertmanagers.iter().flat_map(|(config, _)| &config.file_sd);
        configs.map(|config| config.refresh_interval).fold(LOOK, Duration::min).max(LOOK_MIN)
    }

    /// Who the Alertmanagers are.
    pub fn discovered(&self) -> Discovered {
        lock(&self.discovered).clone()
    }

    /// Makes addresses of all targets, and tells the notifier.
    fn apply(&self, state: &State) {
        let (mut active, mut dropped, mut sets) = (Vec::new(), Vec::new(), Vec::new());
        for (config, transport) in &state.alertmanagers {
            let discovered = config.file_sd.iter().flat_map(|files| state.files.groups(files));
            let mut urls = Vec::new();
            for group in config.static_groups.iter().cloned().chain(discovered) {
                for target in &group.targets {
                    match config.rules.apply(&group, target) {
                        Ok(Target::Active(url)) if urls.contains(&url) => {}
                        Ok(Target::Active(url)) => urls.push(url),
                        Ok(Target::Dropped(url)) => dropped.push(url),
                        Err(error) => tracing::error!("an Alertmanager is left out: {error}"),
                    }
                }
            }
            active.extend(urls.iter().cloned());
            let (transport, alert_relabel) = (transport.clone(), config.alert_relabel.clone());
            sets.push(AlertmanagerSet { transport, alert_relabel, urls });
        }
        let (file_read_errors, files) = (state.files.read_errors(), state.files.modified());
        let discovered = Discovered { active, dropped, file_read_errors, files };
        let before = std::mem::replace(&mut *lock(&self.discovered), discovered.clone());
        if before.active != discovered.active {
            let (active, dropped) = (discovered.active.len(), discovered.dropped.len());
            tracing::info!(active, dropped, "the Alertmanagers are others now");
        }
        self.notifier.configure(NotifierConfig {
            external_labels: state.external_labels.clone(),
            alert_relabel: state.alert_relabel.clone(),
            sets,
        });
    }
}

/// Nothing here is left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn refresh_files(&mut self) -> bool {
        let configs: Vec<_> =
            self.alertmanagers.iter().flat_map(|(config, _)| config.file_sd.iter().cloned()).collect();
        self.files.refresh(&configs, Instant::now())
    }
}

/// Starts the thread that looks at files with targets.
///
/// # Errors
/// There is no thread to be had.
pub fn watch(app: &Arc<App>) -> std::io::Result<()> {
    let app = Arc::downgrade(app);
    std::thread::Builder::new().name("larum-discovery".to_owned()).spawn(move || {
        loop {
            let Some(app) = app.upgrade().filter(|app| app.phase() != Phase::Stopping) else { return };
            let pause = app.delivery.look();
            drop(app);
            std::thread::sleep(pause);
        }
    })?;
    Ok(())
}

/// Posts alerts over HTTP.
struct HttpTransport {
    runtime: Handle,
    client: HttpClient,
    timeout: Duration,
}

impl Transport for HttpTransport {
    fn send(&self, url: &str, body: Vec<u8>) -> Result<(), SendError> {
        let passing = |what: String| SendError { retry: true, what };
        let (answered, answer) = mpsc::channel();
        let (client, url, timeout) = (self.client.prepare().map_err(passing)?, url.to_owned(), self.timeout);
        // A task of its own, for it ends with the runtime, and the thread here with it.
        self.runtime.spawn(async move {
            let outcome = tokio::time::timeout(timeout, client.post_json(&url, Bytes::from(body))).await;
            let outcome = outcome.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")));
            let _ = answered.send(outcome);
        });
        let answer = answer.recv().unwrap_or_else(|_| Err("the server stops".to_owned()));
        let (status, text) = answer.map_err(passing)?;
        if status.is_success() {
            return Ok(());
        }
        let what = format!("{status}: {text}");
        // Anything else may be mended on either side, as wrong credentials are.
        let is_refused = matches!(
            status,
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY
        );
        Err(SendError { retry: !is_refused, what })
    }
}

#[cfg(test)]
mod tests;
