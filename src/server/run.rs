//! The server from start to end: listen, open, serve, stop.

use super::api;
use super::app::{App, Phase};
use super::args::{Args, Check, Command, FEATURES, RuleTools, Test};
use super::config::Config;
use super::http::listen;
use super::{
    backup, deliver, logging, memory, reload, rule_format, rule_tests, scripts, self_monitoring, tsdb,
};
use crate::Db;
use crate::budget::Size;
use crate::promql::Syntax;
use crate::rules::{self, RuleManager, RunningRules};
use crate::storage::{DiskOptions, Options, options::Limits};
use crate::yaml::FileError;
use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long requests in flight may take when the server stops.
const REQUESTS_END: Duration = Duration::from_secs(10);
/// Signals to stop that come closer together than this are one: some senders signal a process and then
/// its whole group.
const ONE_SIGNAL: Duration = Duration::from_millis(500);

/// Does what the command line asks for.
pub fn main(args: Args) -> ExitCode {
    let outcome = match &args.command {
        Some(Command::Check(check)) => return run_check(check, args.syntax()),
        Some(Command::Test(Test::Promql { paths })) => return scripts::run(paths),
        Some(Command::Test(Test::Rules(tests))) => return rule_tests::run(tests),
        Some(Command::Rules(RuleTools::Format(what))) => return rule_format::run(what, args.syntax()),
        Some(Command::Tsdb(tsdb)) => return tsdb::run(tsdb),
        Some(Command::Backup(what)) => return backup::run(what),
        Some(Command::Restore { from, at, path }) => return backup::restore(from, at.as_deref(), path),
        None => serve(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("larum: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `larum check`: says of each file whether it loads, where queries are of this syntax.
fn run_check(check: &Check, syntax: Syntax) -> ExitCode {
    let (Check::Config { files, ignore_unknown_fields } | Check::Rules { files, ignore_unknown_fields }) =
        check;
    let check_rules = |path: &Path| -> Result<String, FileError> {
        let loaded = match ignore_unknown_fields {
            true => rules::file::load_without_unknown_fields(path, syntax)?,
            false => rules::file::load(path, syntax)?,
        };
        loaded.warnings.iter().for_each(|warning| println!("warning: {warning}"));
        let rules: usize = loaded.groups.iter().map(|group| group.rules.len()).sum();
        Ok(format!("{}: {} groups, {rules} rules", path.display(), loaded.groups.len()))
    };
    let check_config = |path: &Path| -> Result<String, FileError> {
        let config = Config::load(path)?;
        config.notes.iter().for_each(|note| println!("note: {note}"));
        let mut lines = vec![format!("{}: a valid configuration", path.display())];
        for rules in &config.rule_files {
            lines.push(check_rules(rules)?);
        }
        Ok(lines.join("\n"))
    };
    let check: &dyn Fn(&Path) -> _ = match check {
        Check::Config { .. } => &check_config,
        Check::Rules { .. } => &check_rules,
    };
    let mut exit = ExitCode::SUCCESS;
    for file in files {
        match check(file) {
            Ok(line) => println!("{line}"),
            Err(error) => {
                eprintln!("{error}");
                exit = ExitCode::FAILURE;
            }
        }
    }
    exit
}

/// Serves until a signal or `/-/quit` ends it. An error is one sentence that names flag or file.
fn serve(args: Args) -> Result<(), String> {
    logging::init(args.log_level, args.log_format);
    let checked = reload::check(&args).map_err(|e| format!("--config.file: {e}"))?;
    let query_log =
        reload::open_query_log(&args, &checked.config).map_err(|e| format!("--config.file: {e}"))?;
    checked.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    warn_about_flags(&args);
    prepare_folder(&args.storage_path)?;
    let mut listeners = Vec::new();
    for address in &args.listen_address {
        let listener = listen::bind(address).map_err(|e| format!("--web.listen-address={address}: {e}"))?;
        listeners.push(listener);
    }
    let addresses = listen::addresses(&listeners);
    if let Some(open) = addresses.iter().find(|address| !address.ip().is_loopback()) {
        tracing::warn!("listening on {open} without authentication: whoever reaches it can read and write");
    }

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("larum-http")
        .enable_all()
        .build()
        .map_err(|e| format!("no threads for connections: {e}"))?;
    let app = Arc::new(App::new(args, &addresses, checked.config.clone(), runtime.handle().clone()));
    match app.memory.limit_bytes() {
        Some(bytes) => tracing::info!(limit = %Size(bytes), "memory is limited (--memory.limit)"),
        None => tracing::info!("memory is not limited (--memory.limit)"),
    }
    memory::watch(&app).map_err(|e| format!("no thread for memory: {e}"))?;
    for address in &addresses {
        tracing::info!(address = %address, "listening");
    }
    runtime.block_on(async {
        let (stop, stopping) = watch::channel(false);
        for listener in listeners {
            let (app, stopping) = (app.clone(), stopping.clone());
            tokio::spawn(async move {
                let router = api::router(&app);
                app.connections.serve(listener, router, stopping).await;
            });
        }
        spawn_signals(&app);
        let of_open = app.clone();
        let opened = tokio::task::spawn_blocking(move || open(&of_open, checked, query_log)).await;
        let rules = opened.map_err(|_| "opening the data failed by a fault of the program".to_owned())??;
        tracing::info!("ready");
        if app.args.self_monitoring {
            tokio::spawn(self_monitoring::run(app.clone()));
        }

        let mut phase = app.watch_phase();
        let _ = phase.wait_for(|phase| *phase == Phase::Stopping).await;
        tracing::info!("stopping");
        stop.send_replace(true);
        if !app.connections.closed(REQUESTS_END).await {
            tracing::warn!("some requests did not end within {REQUESTS_END:?} and are cut off");
        }
        app.pool.stop();
        let of_close = app.clone();
        let closed = tokio::task::spawn_blocking(move || {
            drop(rules);
            // What the last queries were is written, too.
            let _ = of_close.query_log.write_to(&of_close.queries, None);
            of_close.delivery.notifier.stop();
            of_close.db().map_or(Ok(()), Db::close)
        });
        match closed.await {
            Ok(Ok(())) => tracing::info!("stopped"),
            Ok(Err(error)) => return Err(format!("{}: {error}", app.args.storage_path.display())),
            Err(_) => return Err("closing the data failed by a fault of the program".to_owned()),
        }
        Ok(())
    })?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

/// Opens the data, takes up the rules where they were, and lets requests in.
fn open(app: &Arc<App>, checked: reload::Checked, query_log: Option<File>) -> Result<RunningRules, String> {
    let args = &app.args;
    let options = Options {
        retention: app.retention(),
        retention_policies: checked.config.retention_policies.clone(),
        cleanup_schedule: app.cleanup_schedule(),
        size_limit: app.size_limit(),
        disk: DiskOptions {
            min_free: args.disk_min_free,
            emergency_retention: args.disk_emergency_retention,
        },
        wal_fsync: args.wal_fsync,
        merge_memory_bytes: args.merge_memory_bytes,
        memory: app.memory.clone(),
        query_cache_bytes: args.query_cache_bytes,
        scrub_interval: Some(args.scrub_interval).filter(|interval| !interval.is_zero()),
        limits: Limits {
            labels: args.max_labels,
            label_name_bytes: args.max_label_name_bytes,
            label_value_bytes: args.max_label_value_bytes,
            series_bytes: args.max_series_bytes,
        },
        max_ahead: args.max_ahead,
        ..Options::default()
    };
    let fault = |e: &dyn std::fmt::Display| format!("--storage.tsdb.path: {e}");
    let db = Db::open(&args.storage_path, options).map_err(|e| fault(&e))?;
    let rule_options = reload::rule_options(app, &checked.config);
    let mut groups = checked.groups;
    self_monitoring::add_pack(app, &mut groups);
    let manager = RuleManager::with_options(&db, groups, rule_options).map_err(|e| fault(&e))?;
    reload::put_in_force(app, checked.config, query_log);
    deliver::watch(app).map_err(|e| format!("no thread for discovery: {e}"))?;
    app.open(db, manager.clone());
    let of_rules = app.clone();
    manager
        .spawn(move |alerts| of_rules.delivery.notifier.observe(&alerts))
        .map_err(|e| format!("no thread for rules: {e}"))
}

/// SIGTERM and SIGINT stop, a second one at once; SIGHUP reloads.
fn spawn_signals(app: &Arc<App>) {
    let of_stop = app.clone();
    tokio::spawn(async move {
        let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return tracing::error!("signals cannot be received");
        };
        let mut first: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            if first.get_or_insert_with(Instant::now).elapsed() < ONE_SIGNAL && of_stop.is_stopping() {
                continue;
            }
            // Whoever asks twice does not want to wait; acknowledged samples are in the WAL. Before
            // the data is open there is nothing to close.
            if of_stop.phase() != Phase::Ready {
                tracing::warn!("stopping at once");
                std::process::exit(1);
            }
            of_stop.stop();
        }
    });
    let of_reload = app.clone();
    tokio::spawn(async move {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
        while hangup.recv().await.is_some() {
            let app = of_reload.clone();
            // What goes wrong is in the log.
            let _ = tokio::task::spawn_blocking(move || reload::reload(&app)).await;
        }
    });
}

/// Creates the data folder for nobody else to read; warns about one that others can read.
fn prepare_folder(path: &Path) -> Result<(), String> {
    let fault = |e: std::io::Error| format!("--storage.tsdb.path: {}: {e}", path.display());
    match std::fs::metadata(path) {
        Ok(found) if !found.is_dir() => {
            return Err(format!("--storage.tsdb.path: {} is no folder", path.display()));
        }
        Ok(found) => {
            let own = found.uid() == rustix::process::geteuid().as_raw();
            if own && found.mode() & 0o077 != 0 && is_empty(path) {
                let private = std::fs::Permissions::from_mode(0o700);
                std::fs::set_permissions(path, private).map_err(fault)?;
            } else if found.mode() & 0o007 != 0 {
                tracing::warn!("{} can be read by other users (chmod 700)", path.display());
            }
        }
        Err(_) => std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fault)?,
    }
    Ok(())
}

fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// Says which flags and environment variables have no effect.
fn warn_about_flags(args: &Args) {
    for feature in args.enable_feature.iter().filter(|f| !FEATURES.contains(&f.as_str()) && !f.is_empty()) {
        tracing::warn!("--enable-feature={feature} has no effect");
    }
    // No errors: container platforms set variables by the names of services.
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let unknown = Args::unknown_variables(variables);
    if !unknown.is_empty() {
        tracing::warn!("no flag belongs to the environment variables {}", unknown.join(", "));
    }
}
