//! The configuration file: Prometheus' own, read whole, checked, and turned into what is used of it.

mod file;
mod mask;

use super::api::selectors::selector;
use super::args::check_percentage;
use crate::storage::{CleanupSchedule, RetentionPolicy};
use crate::yaml::{self, FileError, PromDuration, Spanned};
use larum_storage_format::Labels;
use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a configuration file says, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// How often rule groups without an interval of their own are evaluated.
    pub evaluation_interval: Duration,
    /// How far in the past rules are evaluated.
    pub rule_query_offset: Duration,
    /// Added to alerts that leave this server.
    pub external_labels: Labels,
    /// The rule files that exist by name or fit a pattern, in the order of the file.
    pub rule_files: Vec<PathBuf>,
    /// Who is told of alerts.
    pub alertmanagers: Vec<AlertmanagerConfig>,
    /// `storage.tsdb.retention`.
    pub retention: RetentionConfig,
    /// `storage.retention`: how long the series of selectors are kept.
    pub retention_policies: Vec<RetentionPolicy>,
    /// `storage.cleanup_schedule`. It wins over its flag.
    pub cleanup_schedule: Option<CleanupSchedule>,
    /// The jobs that would be scraped.
    pub scrape_jobs: Vec<String>,
    /// What is in the file and has no effect yet, one sentence each.
    pub notes: Vec<String>,
    /// The file as it may be shown, secrets masked.
    pub shown: String,
}

/// What is kept. Each wins over its flag.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RetentionConfig {
    /// How long samples are kept; 0 is for ever.
    pub time: Option<Duration>,
    /// How many bytes the data folder may take; 0 is no limit.
    pub size: Option<u64>,
    /// How many percent of its file system; 0 is no limit.
    pub percentage: Option<f64>,
}

/// One Alertmanager.
#[derive(Clone, PartialEq, Eq)]
pub struct AlertmanagerConfig {
    /// Where alerts are posted: `http://host:port/prefix/api/v2/alerts`.
    pub url: String,
    /// How long one post may take.
    pub timeout: Duration,
    /// The value of the header `Authorization`, if any.
    pub authorization: Option<String>,
}

/// Without the secret.
impl fmt::Debug for AlertmanagerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlertmanagerConfig({}, {:?})", self.url, self.timeout)
    }
}

/// Prometheus' defaults: without a file nothing is evaluated and nobody told.
impl Default for Config {
    fn default() -> Config {
        Config {
            evaluation_interval: DEFAULT_INTERVAL,
            rule_query_offset: Duration::ZERO,
            external_labels: Labels::empty(),
            rule_files: Vec::new(),
            alertmanagers: Vec::new(),
            retention: RetentionConfig::default(),
            retention_policies: Vec::new(),
            cleanup_schedule: None,
            scrape_jobs: Vec::new(),
            notes: Vec::new(),
            shown: String::new(),
        }
    }
}

const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);

impl Config {
    /// Reads and checks the file at `path`. Relative paths in it count from its folder. The names of
    /// rule files are absolute: alerts are kept under them, from whatever folder the server starts.
    pub fn load(path: &Path) -> Result<Config, FileError> {
        let text = yaml::read_text(path)?;
        let mut config = Config::parse(path, &text, |name| std::env::var(name).ok())?;
        let folder = std::env::current_dir().map_err(|e| FileError::of_file(path, e))?;
        config.rule_files.iter_mut().for_each(|file| *file = absolute(&folder, file));
        Ok(config)
    }

    /// Checks the text of the file at `path`; `env` gives the variables for external labels.
    fn parse(path: &Path, text: &str, env: impl Fn(&str) -> Option<String>) -> Result<Config, FileError> {
        let file: file::File = yaml::parse(path, text)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let checks = Checks { path };
        let mut notes = Vec::new();

        let scrape_interval = file.global.scrape_interval.map_or(DEFAULT_INTERVAL, |d| d.0);
        let evaluation_interval = match &file.global.evaluation_interval {
            Some(interval) if interval.value.0.is_zero() => {
                return Err(FileError::at(path, interval, "evaluation_interval must be longer than 0"));
            }
            interval => interval.as_ref().map_or(DEFAULT_INTERVAL, |d| d.value.0),
        };
        checks.timeout(&file.global.scrape_timeout, scrape_interval)?;

        let mut rule_files = Vec::new();
        for pattern in &file.rule_files {
            let found = crate::rules::glob::expand(&folder.join(&pattern.value));
            if found.is_empty() {
                notes.push(format!("no file fits the pattern {:?} of rule_files", pattern.value));
            }
            rule_files.extend(found);
        }

        checks.scrape_configs(&file.scrape_configs, scrape_interval)?;
        let scrape_jobs: Vec<String> =
            file.scrape_configs.iter().map(|config| config.job_name.value.clone()).collect();
        if !scrape_jobs.is_empty() || !file.scrape_config_files.is_empty() {
            notes.push(format!(
                "scrape_configs ({}) are valid but not scraped yet; send samples by remote write",
                scrape_jobs.join(", ")
            ));
        }
        for (name, present) in [
            ("remote_write", !file.remote_write.is_empty()),
            ("remote_read", !file.remote_read.is_empty()),
            ("tracing", file.tracing.is_some()),
            ("global.query_log_file", file.global.query_log_file.is_some()),
        ] {
            if present {
                notes.push(format!("{name} is not supported yet and has no effect"));
            }
        }

        let retention = &file.storage.tsdb.retention;
        if let Some(percentage) = &retention.percentage {
            check_percentage(percentage.value).map_err(|e| FileError::at(path, percentage, e))?;
        }
        let retention = RetentionConfig {
            time: retention.time.map(|d| d.0),
            size: retention.size.map(|size| size.0),
            percentage: retention.percentage.as_ref().map(|p| p.value),
        };

        let policies = file.storage.retention.iter().map(|policy| checks.retention_policy(policy));
        let retention_policies = policies.collect::<Result<_, FileError>>()?;
        let schedule = file.storage.cleanup_schedule.as_ref().map(|text| {
            CleanupSchedule::new(&text.value)
                .map_err(|e| FileError::at(path, text, format!("cleanup_schedule: {e}")))
        });
        let cleanup_schedule = schedule.transpose()?;

        let mut alertmanagers = Vec::new();
        if let Some(first) = file.alerting.alert_relabel_configs.first() {
            return Err(FileError::at(path, first, "alert_relabel_configs are not supported yet"));
        }
        for alertmanager in &file.alerting.alertmanagers {
            alertmanagers.extend(checks.alertmanager(alertmanager, folder)?);
        }

        Ok(Config {
            evaluation_interval,
            rule_query_offset: file.global.rule_query_offset.map_or(Duration::ZERO, |d| d.0),
            external_labels: checks.external_labels(&file.global.external_labels, env)?,
            rule_files,
            alertmanagers,
            retention,
            retention_policies,
            cleanup_schedule,
            scrape_jobs,
            notes,
            shown: mask::masked(text),
        })
    }
}

/// The checks that go beyond the shape of the file.
struct Checks<'a> {
    path: &'a Path,
}

impl Checks<'_> {
    fn retention_policy(&self, policy: &file::PolicySection) -> Result<RetentionPolicy, FileError> {
        let matchers = selector(&policy.selector.value)
            .map_err(|e| FileError::at(self.path, &policy.selector, format!("match: {e}")))?;
        // As everywhere, 0 is for ever.
        Ok(RetentionPolicy { matchers, keep: Some(policy.keep.0).filter(|keep| !keep.is_zero()) })
    }

    fn timeout(&self, timeout: &Option<Spanned<PromDuration>>, interval: Duration) -> Result<(), FileError> {
        match timeout {
            Some(timeout) if timeout.value.0 > interval => {
                Err(FileError::at(self.path, timeout, "scrape_timeout is longer than scrape_interval"))
            }
            _ => Ok(()),
        }
    }

    fn scheme(&self, scheme: &Option<Spanned<String>>) -> Result<(), FileError> {
        match scheme {
            Some(scheme) if !matches!(scheme.value.as_str(), "http" | "https") => {
                let message = format!("scheme {:?} is neither http nor https", scheme.value);
                Err(FileError::at(self.path, scheme, message))
            }
            _ => Ok(()),
        }
    }

    fn scrape_configs(&self, configs: &[file::ScrapeConfig], interval: Duration) -> Result<(), FileError> {
        let mut seen = HashSet::new();
        for config in configs {
            let name = &config.job_name;
            if name.value.is_empty() {
                return Err(FileError::at(self.path, name, "job_name is empty"));
            }
            if !seen.insert(name.value.as_str()) {
                let message = format!("two scrape_configs have the job_name {:?}", name.value);
                return Err(FileError::at(self.path, name, message));
            }
            let interval = config.scrape_interval.map_or(interval, |d| d.0);
            self.timeout(&config.scrape_timeout, interval)?;
            self.scheme(&config.scheme)?;
            for target in config.static_configs.iter().flat_map(|c| &c.targets) {
                self.target(target)?;
            }
        }
        Ok(())
    }

    /// A target is `host` or `host:port`, never a URL.
    fn target(&self, target: &Spanned<String>) -> Result<(), FileError> {
        let text = &target.value;
        let problem = if text.contains('/') {
            "is a URL or has a path; write host:port"
        } else if text.is_empty() || text.contains(char::is_whitespace) {
            "is no host:port"
        } else {
            return Ok(());
        };
        Err(FileError::at(self.path, target, format!("target {text:?} {problem}")))
    }

    fn alertmanager(
        &self,
        config: &file::Alertmanager,
        folder: &Path,
    ) -> Result<Vec<AlertmanagerConfig>, FileError> {
        for (name, value) in [
            ("bearer_token_file", &config.bearer_token_file),
            ("oauth2", &config.oauth2),
            ("sigv4", &config.sigv4),
            ("tls_config", &config.tls_config),
            ("proxy_url", &config.proxy_url),
            ("proxy_from_environment", &config.proxy_from_environment),
            ("http_headers", &config.http_headers),
            ("relabel_configs", &config.relabel_configs),
            ("alert_relabel_configs", &config.alert_relabel_configs),
            ("dns_sd_configs", &config.dns_sd_configs),
            ("file_sd_configs", &config.file_sd_configs),
            ("http_sd_configs", &config.http_sd_configs),
            ("consul_sd_configs", &config.consul_sd_configs),
            ("kubernetes_sd_configs", &config.kubernetes_sd_configs),
        ] {
            if let Some(value) = value {
                let message = format!("{name} of an Alertmanager is not supported yet; use static_configs");
                return Err(FileError::at(self.path, value, message));
            }
        }
        self.scheme(&config.scheme)?;
        if let Some(scheme) = &config.scheme
            && scheme.value == "https"
        {
            let message = "https to an Alertmanager is not supported yet; use http";
            return Err(FileError::at(self.path, scheme, message));
        }
        if let Some(version) = &config.api_version
            && version.value != "v2"
        {
            let message = format!("api_version {:?}: only v2 is supported", version.value);
            return Err(FileError::at(self.path, version, message));
        }
        let authorization = self.authorization(config, folder)?;
        let prefix = config.path_prefix.as_deref().unwrap_or("").trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
        let mut found = Vec::new();
        for target in config.static_configs.iter().flat_map(|c| &c.targets) {
            self.target(target)?;
            let host = &target.value;
            // As Prometheus: without a port it is the scheme's.
            let port = if host.rsplit_once(':').is_some_and(|(_, p)| !p.ends_with(']')) { "" } else { ":80" };
            let url = format!("http://{host}{port}{prefix}/api/v2/alerts");
            if url.parse::<axum::http::Uri>().is_err() {
                return Err(FileError::at(self.path, target, format!("target {host:?} is no host:port")));
            }
            found.push(AlertmanagerConfig {
                url,
                timeout: config.timeout.map_or(Duration::from_secs(10), |d| d.0),
                authorization: authorization.clone(),
            });
        }
        Ok(found)
    }

    fn authorization(&self, config: &file::Alertmanager, folder: &Path) -> Result<Option<String>, FileError> {
        let secret = |text: &Option<String>, from: &Option<Spanned<String>>| match from {
            Some(from) => std::fs::read_to_string(folder.join(&from.value))
                .map(|text| text.trim().to_owned())
                .map_err(|e| FileError::at(self.path, from, format!("{}: {e}", from.value))),
            None => Ok(text.clone().unwrap_or_default()),
        };
        let value = if let Some(basic) = &config.basic_auth {
            let user = secret(&basic.username, &basic.username_file)?;
            let password = secret(&basic.password, &basic.password_file)?;
            format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))
        } else if let Some(authorization) = &config.authorization {
            let kind = authorization.kind.as_deref().unwrap_or("Bearer");
            format!("{kind} {}", secret(&authorization.credentials, &authorization.credentials_file)?)
        } else if let Some(token) = &config.bearer_token {
            format!("Bearer {token}")
        } else {
            return Ok(None);
        };
        if axum::http::HeaderValue::from_str(&value).is_err() {
            return Err(FileError::of_file(self.path, "credentials of an Alertmanager hold a line break"));
        }
        Ok(Some(value))
    }

    fn external_labels(
        &self,
        labels: &std::collections::BTreeMap<String, Spanned<String>>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Labels, FileError> {
        let mut pairs = Vec::new();
        for (name, value) in labels {
            if name.is_empty() {
                return Err(FileError::at(self.path, value, "a label has an empty name"));
            }
            pairs.push((name, expand_variables(&value.value, &env)));
        }
        Labels::from_pairs(pairs).map_err(|e| FileError::of_file(self.path, format!("external_labels: {e}")))
    }
}

/// `path` as seen from `folder`, which is absolute and free of symbolic links, so that each `..` at
/// the start leads to its parent.
fn absolute(folder: &Path, path: &Path) -> PathBuf {
    let (mut folder, mut rest) = (folder, path);
    while let Ok(above) = rest.strip_prefix("..") {
        (folder, rest) = (folder.parent().unwrap_or(folder), above);
    }
    folder.join(rest).components().collect()
}

/// Replaces `$NAME` and `${NAME}` by the variables of the environment (empty if unset), `$$` by `$`.
fn expand_variables(text: &str, env: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('{').and_then(|r| r.split_once('}')) {
            out.push_str(&env(name).unwrap_or_default());
            rest = after;
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            out.push_str(&env(&rest[..end]).unwrap_or_default());
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
    out
}

/// Standard base64 with padding (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0u32, |bits, (i, &b)| bits | u32::from(b) << (16 - 8 * i));
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= group.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests;
