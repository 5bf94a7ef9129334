//! The configuration file: Prometheus' own, read whole, checked, and turned into what is used of it.

mod alerting;
mod file;
mod mask;

pub use alerting::{AlertingConfig, AlertmanagerConfig};

use super::api::selectors::selector;
use super::args::check_percentage;
use crate::storage::{CleanupSchedule, RetentionPolicy};
use crate::yaml::{self, FileError, PromDuration, Spanned};
use larum_storage_format::Labels;
use std::collections::HashSet;
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
    pub alerting: AlertingConfig,
    /// `storage.tsdb.retention`.
    pub retention: RetentionConfig,
    /// `storage.retention`: how long the series of selectors are kept.
    pub retention_policies: Vec<RetentionPolicy>,
    /// `storage.cleanup_schedule`. It wins over its flag.
    pub cleanup_schedule: Option<CleanupSchedule>,
    /// `global.query_log_file`: where queries are logged, and where in the file it says so.
    pub query_log_file: Option<Spanned<PathBuf>>,
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

/// Prometheus' defaults: without a file nothing is evaluated and nobody told.
impl Default for Config {
    fn default() -> Config {
        Config {
            evaluation_interval: DEFAULT_INTERVAL,
            rule_query_offset: Duration::ZERO,
            external_labels: Labels::empty(),
            rule_files: Vec::new(),
            alerting: AlertingConfig::default(),
            retention: RetentionConfig::default(),
            retention_policies: Vec::new(),
            cleanup_schedule: None,
            query_log_file: None,
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
        let checks = Checks { path, folder };
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

        let query_log_file = file.global.query_log_file.filter(|file| !file.value.is_empty()).map(|file| {
            Spanned { value: folder.join(&file.value), referenced: file.referenced, defined: file.defined }
        });

        let alerting = checks.alerting(file.alerting)?;
        for files in alerting.alertmanagers.iter().flat_map(|config| &config.file_sd).flat_map(|sd| &sd.files)
        {
            if crate::rules::glob::expand(files).iter().all(|file| !file.exists()) {
                notes.push(format!("no file fits the pattern {:?} of file_sd_configs", files.display()));
            }
        }

        Ok(Config {
            evaluation_interval,
            rule_query_offset: file.global.rule_query_offset.map_or(Duration::ZERO, |d| d.0),
            external_labels: checks.external_labels(&file.global.external_labels, env)?,
            rule_files,
            alerting,
            retention,
            retention_policies,
            cleanup_schedule,
            query_log_file,
            scrape_jobs,
            notes,
            shown: mask::masked(text),
        })
    }
}

/// The checks that go beyond the shape of the file.
struct Checks<'a> {
    path: &'a Path,
    /// Relative names of files count from here.
    folder: &'a Path,
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

    /// A file that the configuration names.
    fn beside(&self, name: &str) -> PathBuf {
        self.folder.join(name)
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

#[cfg(test)]
mod tests;
