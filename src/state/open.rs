//! Opening sled with a guard around it.
//!
//! sled 0.34.7 survives `kill -9`, but not damage to its files: it refuses to open, or panics while
//! it opens or reads. What helps, in this order: snapshots that were not finished are removed
//! (they alone make it refuse); the snapshot is removed, which makes it replay its log; the store
//! is set aside and a new one starts from the last export.
//!
//! On a full disk it does not open either, since it fills a segment of its log to the end (up to
//! 512 KiB) and writes a snapshot. Nothing is damaged by that.

use super::export::Export;
use super::image::Image;
use super::{StateError, guarded, let_go};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// sled's page cache. Small facts need no more.
const CACHE_BYTES: u64 = 16 << 20;
/// sled lets go of its lock file a moment after its last handle is dropped; a store that was
/// closed just now by this process is waited for this long.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Why sled did not open.
enum Failure {
    /// The operating system or another process forbids it; the files may be sound.
    Refused(String),
    /// The disk is full; the files may be sound.
    Full(String),
    /// The files are damaged.
    Damaged(String),
}

/// Why the store did not open.
pub enum NotOpened {
    /// The disk is full.
    Full(StateError),
    /// Anything else that repairing does not help against.
    Refused(StateError),
}

impl NotOpened {
    /// What to tell.
    pub fn error(&self) -> &StateError {
        match self {
            NotOpened::Full(error) | NotOpened::Refused(error) => error,
        }
    }
}

fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The last export, if there is one that is sound.
pub fn read_export(folder: &Path) -> Option<Export> {
    sound(folder, Export::read(folder))
}

fn sound(folder: &Path, read: io::Result<Option<Export>>) -> Option<Export> {
    read.unwrap_or_else(|e| {
        tracing::warn!("state store {}: its export cannot be used: {e}", folder.display());
        None
    })
}

/// What the store in `folder` holds, where the disk is too full for sled to open it: read from a copy
/// in memory or on another disk. If that does not go, what its last export holds.
pub fn read_elsewhere(folder: &Path) -> Image {
    let export = read_export(folder);
    let store = folder.join("store");
    // The first is memory on Linux.
    let places = [PathBuf::from("/dev/shm"), std::env::temp_dir()];
    let found = places.iter().find_map(|place| {
        let copy = place.join(format!("larum-state-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&copy).ok()?;
        let copied =
            copy_files(&store, &copy).and_then(|()| copy_files(&store.join("blobs"), &copy.join("blobs")));
        let image = copied.ok().and_then(|()| {
            let db = attempt(&copy, export.as_ref()).ok()?;
            let image = guarded(|| Image::of_sled(&db));
            let_go(db);
            image.ok()
        });
        let _ = fs::remove_dir_all(&copy);
        image
    });
    found.unwrap_or_else(|| {
        tracing::warn!("state store {}: only its last export can be read", folder.display());
        export.map_or_else(Image::default, |export| Image::of_export(&export))
    })
}

/// Copies the files of a folder, if there is one, but not its folders.
fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    if !from.exists() {
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Opens the store in `folder`, repairing it if need be.
pub fn open(folder: &Path) -> Result<sled::Db, NotOpened> {
    let error = |what: String| StateError { path: folder.to_owned(), what };
    let io_error = |doing: &str, e: io::Error| {
        let because = error(format!("{doing} failed: {e}"));
        if is_full(&e) { NotOpened::Full(because) } else { NotOpened::Refused(because) }
    };
    let not_opened = |failure: Failure| match failure {
        Failure::Full(what) => NotOpened::Full(error(what)),
        Failure::Refused(what) | Failure::Damaged(what) => NotOpened::Refused(error(what)),
    };
    fs::create_dir_all(folder).map_err(|e| io_error("creating the folder", e))?;
    // Whoever has the store writes it now and then: it tells who that was.
    let export = match Export::read(folder) {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => {
            return Err(NotOpened::Refused(error(format!("its export has {e}"))));
        }
        read => sound(folder, read),
    };
    let store = folder.join("store");
    let is_new = !store.exists();
    remove_files(&store, |name| name.ends_with(".generating"))
        .map_err(|e| io_error("removing unfinished snapshots", e))?;

    if is_new {
        return start_new(&store, export.as_ref()).map_err(not_opened);
    }
    let damage = match attempt(&store, export.as_ref()) {
        Ok(db) => return Ok(db),
        Err(Failure::Damaged(what)) => what,
        Err(failure) => return Err(not_opened(failure)),
    };

    remove_files(&store, |name| name.starts_with("snap."))
        .map_err(|e| io_error("removing the snapshot", e))?;
    match attempt(&store, export.as_ref()) {
        Ok(db) => {
            tracing::warn!(
                "state store {}: its snapshot was damaged ({damage}); everything was read from its log instead",
                folder.display()
            );
            return Ok(db);
        }
        Err(Failure::Damaged(_)) => {}
        Err(failure) => return Err(not_opened(failure)),
    }

    let aside = free_name(folder);
    fs::rename(&store, &aside).map_err(|e| io_error("setting the damaged store aside", e))?;
    tracing::warn!(
        "state store {}: it is damaged ({damage}) and was moved to {}",
        folder.display(),
        aside.display()
    );
    start_new(&store, export.as_ref()).map_err(not_opened)
}

/// A new store that holds what the export holds. If that fails, none is left that holds less.
fn start_new(store: &Path, export: Option<&Export>) -> Result<sled::Db, Failure> {
    let started = attempt(store, None).and_then(|db| {
        let Some(export) = export else { return Ok(db) };
        match guarded(|| Image::of_export(export).write_to(&db)) {
            Ok(count) => {
                tracing::warn!(
                    "state store {}: new, with {count} entries of the last export",
                    store.display()
                );
                Ok(db)
            }
            Err(e) => {
                let_go(db);
                Err(failure(&e))
            }
        }
    });
    if started.is_err() {
        let _ = fs::remove_dir_all(store);
    }
    started
}

/// Opens and reads everything once, since sled notices damage only where it reads. Stores are
/// small (see [`super`]), and reading fills the cache. A store that lacks commits which the export
/// holds counts as damaged.
fn attempt(store: &Path, export: Option<&Export>) -> Result<sled::Db, Failure> {
    let deadline = Instant::now() + LOCK_WAIT;
    let config = sled::Config::new().path(store).cache_capacity(CACHE_BYTES).print_profile_on_drop(false);
    let db = loop {
        match guarded(|| config.open()) {
            Ok(db) => break db,
            Err(e) if is_locked(&e) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(e) => return Err(failure(&e)),
        }
    };
    let failure = match guarded(|| read_all(&db, export)) {
        Ok(None) => return Ok(db),
        Ok(Some(bucket)) => Failure::Damaged(format!("the latest commits of {bucket:?} are missing")),
        Err(e) => failure(&e),
    };
    let_go(db);
    Err(failure)
}

/// Reads everything; returns the bucket, if any, that lacks commits.
fn read_all(db: &sled::Db, export: Option<&Export>) -> Result<Option<String>, sled::Error> {
    for name in db.tree_names() {
        for entry in &db.open_tree(name)? {
            entry?;
        }
    }
    export.map_or(Ok(None), |export| export.ahead_of(db))
}

fn is_locked(e: &sled::Error) -> bool {
    matches!(e, sled::Error::Io(e) if e.to_string().contains("could not acquire lock"))
}

fn failure(e: &sled::Error) -> Failure {
    match e {
        e if is_locked(e) => Failure::Refused("another process has it open; stop that process".to_owned()),
        sled::Error::Io(e) if is_full(e) => Failure::Full(e.to_string()),
        // An error with a number came from the operating system; without one it is sled's opinion
        // of what it read.
        sled::Error::Io(e) if e.raw_os_error().is_some() => Failure::Refused(e.to_string()),
        e => Failure::Damaged(e.to_string()),
    }
}

fn remove_files(folder: &Path, which: impl Fn(&str) -> bool) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&which) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The first `damaged-<n>` that is not taken.
fn free_name(folder: &Path) -> PathBuf {
    (1u32..)
        .map(|n| folder.join(format!("damaged-{n}")))
        .find(|path| !path.exists())
        .expect("a folder cannot hold four thousand million entries")
}
