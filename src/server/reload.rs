//! Loading configuration and rules, at start and again while running.

use super::app::App;
use super::args::Args;
use super::config::Config;
use super::query_log;
use super::self_monitoring;
use crate::promql::EvalOptions;
use crate::rules::{self, Group, RuleOptions};
use crate::yaml::FileError;
use std::fs::File;
use std::sync::{Mutex, PoisonError};

/// A configuration with the rules it names, all of it checked.
pub struct Checked {
    /// The configuration.
    pub config: Config,
    /// The groups of all its rule files.
    pub groups: Vec<Group>,
    /// What loads but is probably not meant, one sentence each.
    pub warnings: Vec<String>,
}

/// Loads what `--config.file` names; without one, the defaults and no rules.
pub fn check(args: &Args) -> Result<Checked, FileError> {
    let config = match &args.config_file {
        Some(path) => Config::load(path)?,
        None => Config::default(),
    };
    let mut warnings = config.notes.clone();
    let mut groups = Vec::new();
    for path in &config.rule_files {
        let loaded = rules::file::load(path, args.syntax())?;
        warnings.extend(loaded.warnings.iter().map(ToString::to_string));
        groups.extend(loaded.groups);
    }
    Ok(Checked { config, groups, warnings })
}

/// Opens the query log that a configuration names.
///
/// # Errors
/// It cannot be written: names the place in the configuration.
pub fn open_query_log(args: &Args, config: &Config) -> Result<Option<File>, FileError> {
    let (Some(path), Some(named)) = (&args.config_file, &config.query_log_file) else { return Ok(None) };
    let opened = query_log::open(&named.value).map_err(|error| {
        FileError::at(path, named, format!("query_log_file: {}: {error}", named.value.display()))
    });
    opened.map(Some)
}

/// Puts what `--config.file` says now in force. If it cannot be loaded, the old one stays.
pub fn reload(app: &App) -> Result<(), FileError> {
    // Else who read an older file might put it in force last.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one_at_a_time = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let checked = check(&app.args).and_then(|checked| {
        let log = open_query_log(&app.args, &checked.config)?;
        Ok((checked, log))
    });
    let (mut checked, log) = checked.inspect_err(|error| {
        app.config_failed();
        // The lines that follow show the place in the file, which does not suit a log.
        let error = error.to_string();
        let error = error.lines().next().unwrap_or_default();
        tracing::error!("the configuration was not loaded, the old one stays in force: {error}");
    })?;
    checked.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let options = rule_options(app, &checked.config);
    self_monitoring::add_pack(app, &mut checked.groups);
    put_in_force(app, checked.config, log);
    if let Some(rules) = app.rules() {
        rules.reload(checked.groups, options);
    }
    tracing::info!("the configuration was loaded");
    Ok(())
}

/// Puts a checked configuration in force, save for what rules take from it. Queries are logged to `log`.
pub fn put_in_force(app: &App, config: Config, log: Option<File>) {
    let log = config.query_log_file.as_ref().map(|named| named.value.clone()).zip(log);
    if let Err(error) = app.query_log.write_to(&app.queries, log) {
        tracing::error!("query_log_file: no thread for it: {error}");
    }
    app.delivery.configure(&config.alerting, &config.external_labels);
    app.set_config(config);
    if let Some(db) = app.db() {
        db.set_retention(app.retention(), app.config().config.retention_policies.clone());
        db.set_cleanup_schedule(app.cleanup_schedule());
        db.set_size_limit(app.size_limit());
    }
}

/// How rules are evaluated under `config`.
pub fn rule_options(app: &App, config: &Config) -> RuleOptions {
    RuleOptions {
        evaluation_interval: config.evaluation_interval,
        query_offset: config.rule_query_offset,
        resend_delay: app.args.resend_delay,
        outage_tolerance: app.args.for_outage_tolerance,
        grace_period: app.args.for_grace_period,
        start_grace: app.args.start_grace,
        max_concurrent_evals: app.args.max_concurrent_evals as usize,
        query_timeout: app.args.query_timeout,
        syntax: app.args.syntax(),
        eval: EvalOptions { default_subquery_step: config.evaluation_interval, ..app.eval_options() },
        queries: app.queries.clone(),
        external_labels: config.external_labels.clone(),
        external_url: app.external_url.clone(),
        unstored: app.unstored.clone(),
    }
}
