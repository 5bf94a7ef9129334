//! `larum backup` and `larum restore`: a snapshot is taken, by the server or of a folder that none has
//! open, and brought into a folder of backups; and back.

use super::api::admin::snapshot_name;
use super::args::{Backup, BackupTool, KeepBackups, LogFormat, LogLevel};
use super::client::Client;
use super::http::params::parse_time;
use super::logging;
use super::size::format_bytes;
use crate::Db;
use crate::storage::backup::{Backups, Contents, Keep};
use crate::storage::inspect::Inspection;
use crate::storage::options::Maintenance;
use crate::storage::{OpenError, Options, Timestamp};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Cutting the head of a server takes a while.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Names the snapshots that runs take, in the folder of backups, until they are removed again.
const PENDING: &str = "pending-snapshot";

/// Takes a backup, or does something else with backups.
pub fn run(what: &Backup) -> ExitCode {
    logging::init(LogLevel::Warn, LogFormat::Logfmt);
    conclude(match (&what.tool, &what.to) {
        (Some(BackupTool::List { from }), _) => list(from),
        (Some(BackupTool::Verify { from, at }), _) => verify(from, at.as_deref()),
        (Some(BackupTool::Prune { from, keep }), _) => {
            // Where there is nothing, nothing is created.
            let backups = Backups::look(from).and_then(|_| Backups::open(from));
            backups.map_err(text).and_then(|backups| prune(&backups, keep, None))
        }
        (None, Some(to)) => take(what, to),
        (None, None) => Err("--to: the folder of backups is missing".to_owned()),
    })
}

/// Makes a data folder of a backup.
pub fn restore(from: &Path, at: Option<&str>, to: &Path) -> ExitCode {
    logging::init(LogLevel::Warn, LogFormat::Logfmt);
    let restored = Backups::look(from).map_err(text).and_then(|backups| {
        let (name, contents) = find(&backups, at)?;
        backups.restore(&name, to).map_err(text)?;
        println!("backup {name} restored into {}, {}, verified", to.display(), size(&contents));
        Ok(ExitCode::SUCCESS)
    });
    conclude(restored)
}

fn conclude(outcome: Result<ExitCode, String>) -> ExitCode {
    outcome.unwrap_or_else(|what| {
        eprintln!("larum: {what}");
        ExitCode::FAILURE
    })
}

fn text(error: io::Error) -> String {
    error.to_string()
}

fn take(what: &Backup, to: &Path) -> Result<ExitCode, String> {
    let data = &what.folder.path;
    // Neither is made by mistake.
    Inspection::open(data).map_err(|e| e.to_string())?;
    let backups = Backups::open(to).map_err(text)?;
    let snapshots = data.join("snapshots");
    // What a killed run leaves would keep the space of files that are long gone. What is not there may
    // still come: a server ends what it was asked for, whoever asked was killed or not.
    let absent = remove_pending(to, &snapshots)?;
    let snapshot = format!("backup-{}", snapshot_name().map_err(|e| e.to_string())?);
    let pending = to.join(PENDING);
    let named = |e: io::Error| format!("{}: {e}", pending.display());
    fs::write(&pending, format!("{absent}{snapshot}\n")).map_err(named)?;
    let created = Timestamp::now();
    match &what.url {
        Some(url) => snapshot_of_server(url, &snapshot, &snapshots, data)?,
        None => snapshot_of_folder(&snapshots.join(&snapshot), data)?,
    }
    let name = what.name.clone().unwrap_or_else(|| {
        let time = jiff::Timestamp::from_millisecond(created.as_millis()).unwrap_or_default();
        time.strftime("%Y%m%dT%H%M%S.%3fZ").to_string()
    });
    let taken = backups.take(&snapshots.join(&snapshot), &name, created, what.full);
    remove_pending(to, &snapshots)?;
    fs::remove_file(&pending).map_err(named)?;
    let taken = taken.map_err(text)?;

    println!("backup {name} taken and verified");
    for (how, (files, bytes)) in [
        ("copied", taken.copied),
        ("unchanged since an earlier backup", taken.unchanged),
        ("copied by an earlier run that did not come to its end", taken.taken_over),
    ] {
        if files > 0 {
            println!("{files} files {how}, {}", format_bytes(bytes));
        }
    }
    if taken.missing.is_empty() {
        return prune(&backups, &what.keep, Some(&name));
    }
    for path in &taken.missing {
        eprintln!(
            "larum: {}: it is missing in the data folder, and so in the backup",
            data.join(path).display()
        );
    }
    // An earlier one may hold it.
    Err("no earlier backup was removed, for this one lacks something".to_owned())
}

/// Removes the snapshots that this run and killed ones took; gives the names of those that were not there.
fn remove_pending(to: &Path, snapshots: &Path) -> Result<String, String> {
    let pending = to.join(PENDING);
    let names = match fs::read_to_string(&pending) {
        Ok(names) => names,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(String::new()),
        Err(e) => return Err(format!("{}: {e}", pending.display())),
    };
    let mut absent = String::new();
    // Whatever stands there, nothing else than a snapshot for a backup goes.
    let is_ours = |name: &&str| {
        name.starts_with("backup-") && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    for name in names.lines().filter(is_ours) {
        match fs::remove_dir_all(snapshots.join(name)) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => absent += &format!("{name}\n"),
            Err(e) => return Err(format!("{}: {e}", snapshots.join(name).display())),
        }
    }
    // It is ours if nothing else is in it.
    let _ = fs::remove_dir(snapshots);
    Ok(absent)
}

fn snapshot_of_server(url: &str, name: &str, snapshots: &Path, data: &Path) -> Result<(), String> {
    let path = format!("/api/v1/admin/tsdb/snapshot?name={name}");
    let answer = Client::new(url)?.post(&path, &[], Vec::new(), SNAPSHOT_TIMEOUT)?;
    if !answer.status.is_success() {
        let hint = match answer.text.contains("admin APIs disabled") {
            true => "; start the server with --web.enable-admin-api",
            false => "",
        };
        return Err(format!("{url}: the server takes no snapshot: {}{hint}", answer.text.trim()));
    }
    if snapshots.join(name).is_dir() {
        return Ok(());
    }
    let data = data.display();
    Err(format!(
        "{data}: the server's snapshot {name} is not there; --storage.tsdb.path must be the data folder of {url}"
    ))
}

fn snapshot_of_folder(to: &Path, data: &Path) -> Result<(), String> {
    let options = Options { maintenance: Maintenance::Stepped, ..Options::default() };
    let db = Db::open(data, options).map_err(|error| match error {
        crate::db::DbOpenError::Storage(error @ OpenError::Locked { .. }) => {
            format!("{error}; name the server by --url, which then takes a snapshot while it runs")
        }
        error => error.to_string(),
    })?;
    db.snapshot(to).and_then(|()| db.close()).map_err(text)
}

fn list(from: &Path) -> Result<ExitCode, String> {
    let backups = Backups::look(from).and_then(|backups| backups.list()).map_err(text)?;
    println!("{:24} {:24} {:>8} {:>14}", "NAME", "TAKEN", "FILES", "BYTES");
    let mut exit = ExitCode::SUCCESS;
    for backup in backups {
        match backup.contents {
            Ok(contents) => println!(
                "{:24} {:24} {:>8} {:>14}",
                backup.name,
                time(contents.created),
                contents.files.len(),
                contents.byte_len()
            ),
            Err(what) => {
                println!("{:24} {what}", backup.name);
                exit = ExitCode::FAILURE;
            }
        }
    }
    Ok(exit)
}

fn verify(from: &Path, at: Option<&str>) -> Result<ExitCode, String> {
    let backups = Backups::look(from).map_err(text)?;
    let names: Vec<String> = match at {
        Some(_) => vec![find(&backups, at)?.0],
        None => backups.list().map_err(text)?.into_iter().map(|backup| backup.name).collect(),
    };
    let mut faults = 0;
    for name in &names {
        let mut found = backups.verify(name).unwrap_or_else(|error| vec![error.to_string()]);
        // What was damaged before it was copied is so in the backup.
        if found.is_empty() {
            let folder = from.join(name);
            let mut report = |fault: crate::storage::inspect::Fault| {
                found.push(format!(
                    "{}: {}; it was so when the backup was taken",
                    fault.path.display(),
                    fault.what
                ));
            };
            let verified = Inspection::open(&folder).and_then(|inspection| inspection.verify(&mut report));
            if let Err(error) = verified {
                found.push(error.to_string());
            }
        }
        println!("{name}: {} faults", found.len());
        found.iter().for_each(|fault| println!("  {fault}"));
        faults += found.len();
    }
    if faults > 0 {
        println!("take a full backup (larum backup --full), and prune those with faults");
    }
    Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn prune(backups: &Backups, keep: &KeepBackups, just_taken: Option<&str>) -> Result<ExitCode, String> {
    let keep = Keep { newest: keep.keep, within: keep.keep_for };
    for name in backups.prune(keep, Timestamp::now(), just_taken).map_err(text)? {
        println!("backup {name} removed");
    }
    Ok(ExitCode::SUCCESS)
}

/// The backup that `at` names, or the newest of that time or older, or of all.
fn find(backups: &Backups, at: Option<&str>) -> Result<(String, Contents), String> {
    let newest = Timestamp::from_millis(i64::MAX);
    let Some(at) = at else { return backups.find(None, newest).map_err(text) };
    match (backups.find(Some(at), newest), parse_time(at)) {
        (Ok(found), _) => Ok(found),
        (Err(e), Ok(time)) if e.kind() == ErrorKind::NotFound => backups.find(None, time).map_err(text),
        (Err(e), _) => Err(e.to_string()),
    }
}

fn size(contents: &Contents) -> String {
    format!("{} files, {}", contents.files.len(), format_bytes(contents.byte_len()))
}

fn time(t: Timestamp) -> String {
    let time = jiff::Timestamp::from_millisecond(t.as_millis());
    time.map_or_else(|_| t.as_millis().to_string(), |t| t.to_string())
}
