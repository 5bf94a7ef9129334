//! A disk in memory whose power can be cut, behind [`Fs`].
//!
//! It keeps what a process sees (the cache) apart from what the device holds. What is not synced is
//! up to chance when the power goes:
//!
//! - the bytes of a file are lost, kept, cut anywhere, or kept in some of their blocks of 512 or
//!   4,096 bytes, while the others hold zeros, noise, or what lay in blocks of files that were
//!   removed from the same folder (no file system shows that which journals or copies on write, nor
//!   where blocks were reserved; others do);
//! - the changes of names are lost, kept, kept up to one of them (a journal), kept up to one of them
//!   in each folder, or each name stands on its own (no journal).
//!
//! The disk does only what it is told: syncing a file does not sync its name. It watches that nobody
//! maps a file that is not synced, or changes one that was mapped.

use super::rng::Rng;
use super::site::{Before, Site};
use crate::storage::fs::{FileUse, Fs, Lock, ReadFile, Space, WriteFile, at_path};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The operations that change something, or make a change durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    CreateDir,
    SyncDir,
    Create,
    Rename,
    HardLink,
    Remove,
    Lock,
    Append,
    WriteAt,
    Sync,
    Truncate,
    Preallocate,
}

/// What a disk says that it holds, and what is free where it says that it is full.
const CAPACITY_BYTES: u64 = 1 << 30;
const FULL_BYTES: u64 = 1 << 20;

/// A disk. Clones are the same disk.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    nodes: Vec<Node>,
    /// As processes see it.
    names: Names,
    /// As the device holds it.
    durable: Names,
    /// What makes `names` of `durable`, in order.
    changes: Vec<Change>,
    locks: BTreeSet<PathBuf>,
    /// Operations so far.
    ops: u64,
    /// At this one the process ends.
    end_at: Option<u64>,
    ended: bool,
    before: Before,
    /// Whether it says that it is full.
    full: bool,
    omitted: Option<Site>,
    sites: BTreeSet<Site>,
    violations: Vec<String>,
    /// A hash of all operations, to compare two runs.
    trace: u64,
}

type Names = BTreeMap<PathBuf, Entry>;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Folder,
    File(usize),
}

/// What an operation did to a name.
#[derive(Debug, Clone)]
struct Change {
    op: u64,
    name: PathBuf,
    entry: Option<Entry>,
}

/// The content of a file.
#[derive(Debug, Default)]
struct Node {
    content: Vec<u8>,
    durable: Vec<u8>,
    /// Whether all of it was synced, as far as who wrote it knows.
    synced: bool,
    mapped: bool,
    /// The folder in which it was created, or the device knew it last.
    folder: Option<PathBuf>,
}

impl Disk {
    /// An empty disk with the folder `/disk`.
    pub fn new(seed: u64) -> Disk {
        let names: Names = ["/", "/disk"].map(|name| (PathBuf::from(name), Entry::Folder)).into();
        let state = State {
            rng: Rng::new(seed),
            nodes: Vec::new(),
            names: names.clone(),
            durable: names,
            changes: Vec::new(),
            locks: BTreeSet::new(),
            ops: 0,
            end_at: None,
            ended: false,
            before: Before { op: Op::CreateDir, path: PathBuf::new(), synced: false, opens: true },
            full: false,
            omitted: None,
            sites: BTreeSet::new(),
            violations: Vec::new(),
            trace: 0,
        };
        Disk { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the syncs of this site do nothing.
    pub fn omit(&self, site: Site) {
        self.state().omitted = Some(site);
    }

    /// Says that it is full, or that it is not; nothing is refused for it.
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// Whether it says that it is full.
    pub fn is_full(&self) -> bool {
        self.state().full
    }

    /// The process ends `after` so many operations more; `None`: it does not.
    pub fn end_after(&self, after: Option<u64>) {
        let mut state = self.state();
        state.end_at = after.map(|after| state.ops + after);
    }

    /// The process ends now.
    pub fn end(&self) {
        self.state().ended = true;
    }

    /// Whether the process has ended. All it asks for fails from then on.
    pub fn has_ended(&self) -> bool {
        self.state().ended
    }

    /// The next process begins, with all that the one before wrote.
    pub fn restart(&self) {
        let mut state = self.state();
        (state.ended, state.end_at) = (false, None);
        state.locks.clear();
        state.nodes.iter_mut().for_each(|node| node.mapped = false);
    }

    /// The power is cut and comes back, and the next process begins.
    pub fn cut_power(&self) {
        self.restart();
        self.state().forget_unsynced();
    }

    /// Flips bits of a byte of a synced file, at what the number says from its start. `None`: there
    /// is no such file. Twice gives the file back as it was.
    pub fn flip(&self, path: &Path, at: u64, bits: u8) -> Option<()> {
        let mut state = self.state();
        let node = state.file(path).ok()?;
        let node = &mut state.nodes[node];
        if node.content.is_empty() || node.content != node.durable {
            return None;
        }
        let at = (at % node.content.len() as u64) as usize;
        node.content[at] ^= bits;
        node.durable[at] ^= bits;
        Some(())
    }

    /// Whether the device holds a file as processes see it, under its name.
    pub fn is_durable(&self, path: &Path) -> bool {
        let state = self.state();
        let is_synced = |node: usize| state.nodes[node].content == state.nodes[node].durable;
        state
            .file(path)
            .is_ok_and(|node| state.durable.get(path) == Some(&Entry::File(node)) && is_synced(node))
    }

    /// Operations so far.
    pub fn ops(&self) -> u64 {
        self.state().ops
    }

    /// A hash of all operations so far.
    pub fn trace(&self) -> u64 {
        self.state().trace
    }

    /// The sites that synced so far.
    pub fn sites(&self) -> BTreeSet<Site> {
        self.state().sites.clone()
    }

    /// What was done to mapped files that must not be done.
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// Runs an operation, if the process is alive. The one at which it ends may do its work or not.
    fn run<T>(
        &self,
        op: Op,
        path: &Path,
        bytes: &[u8],
        work: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut guard = self.state();
        let state = &mut *guard;
        state.check_alive()?;
        state.ops += 1;
        state.trace = xxh3_64_with_seed(bytes, state.trace ^ op as u64);
        state.trace = xxh3_64_with_seed(path.as_os_str().as_encoded_bytes(), state.trace);
        if state.end_at.is_some() && state.leaves_strays(op, path) {
            state.end_at = Some(state.ops);
        }
        if state.end_at == Some(state.ops) {
            state.ended = true;
            let done = state.rng.one_in(2).then(|| work(state));
            // A lock is given back to the disk.
            drop(guard);
            drop(done);
            return Err(io::Error::other("the process has ended"));
        }
        let outcome = work(state).map_err(at_path(path));
        let before = &mut state.before;
        match op {
            Op::SyncDir => before.synced = true,
            _ => *before = Before { op, path: path.to_owned(), synced: false, opens: before.opens },
        }
        match op {
            Op::CreateDir => before.opens = true,
            Op::Create => before.opens = false,
            _ => {}
        }
        outcome
    }
}

impl State {
    fn check_alive(&self) -> io::Result<()> {
        if self.ended { Err(io::Error::other("the process has ended")) } else { Ok(()) }
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.names.get(path) {
            Some(Entry::File(node)) => Ok(*node),
            Some(Entry::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn folder(&self, path: &Path) -> io::Result<()> {
        match self.names.get(path) {
            Some(Entry::Folder) => Ok(()),
            Some(Entry::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn change(&mut self, name: &Path, entry: Option<Entry>) {
        match entry {
            Some(entry) => drop(self.names.insert(name.to_owned(), entry)),
            None => drop(self.names.remove(name)),
        }
        self.changes.push(Change { op: self.ops, name: name.to_owned(), entry });
    }

    fn add(&mut self, name: &Path, entry: Entry) -> io::Result<()> {
        self.folder(parent(name))?;
        if self.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change(name, Some(entry));
        Ok(())
    }

    /// Whether the site syncs; it is noted that it was met. If the process is to end at some time, it
    /// often does soon after a sync that was left out, where its loss can be seen.
    fn is_done(&mut self, site: Site) -> bool {
        self.sites.insert(site);
        let is_omitted = self.omitted == Some(site);
        if is_omitted
            && let Some(end_at) = &mut self.end_at
            && self.rng.one_in(2)
        {
            let reach = if self.rng.one_in(2) { 8 } else { 24 };
            *end_at = (*end_at).min(self.ops + 1 + self.rng.below(reach));
        }
        !is_omitted
    }

    /// Whether the process ends where it would remove a partition, for the next one to do it.
    fn leaves_strays(&mut self, op: Op, path: &Path) -> bool {
        self.omitted == Some(Site::StraysFolder)
            && op == Op::Remove
            && path.extension().is_some_and(|extension| extension == "part")
            && !self.before.opens
            && self.rng.one_in(2)
    }

    /// A change of a name reaches the device.
    fn keep(&mut self, change: &Change) {
        match change.entry {
            Some(entry) => drop(self.durable.insert(change.name.clone(), entry)),
            None => drop(self.durable.remove(&change.name)),
        }
        if let Some(Entry::File(node)) = change.entry {
            self.nodes[node].folder = Some(parent(&change.name).to_owned());
        }
    }

    fn write(&mut self, node: usize, path: &Path, work: impl FnOnce(&mut Vec<u8>)) {
        let node = &mut self.nodes[node];
        if node.mapped {
            self.violations.push(format!("{} is mapped and was changed", path.display()));
        }
        node.synced = false;
        work(&mut node.content);
    }

    /// What is left when the power was cut.
    fn forget_unsynced(&mut self) {
        let kept = self.kept_changes();
        for change in std::mem::take(&mut self.changes).into_iter().zip(kept).filter(|(_, kept)| *kept) {
            self.keep(&change.0);
        }
        // What lies in a folder that is not there is lost with it.
        let durable = std::mem::take(&mut self.durable);
        for (name, entry) in durable {
            // Names sort behind their folders.
            if name == Path::new("/") || self.durable.contains_key(parent(&name)) {
                self.durable.insert(name, entry);
            }
        }
        // The blocks of a file that just lost its name were its own until now.
        let mut named = files(&self.names);
        self.names = self.durable.clone();
        named.extend(files(&self.names));
        for at in 0..self.nodes.len() {
            let node = &self.nodes[at];
            if node.content != node.durable {
                let others = self.nodes.iter().enumerate().filter(|(other, _)| !named.contains(other));
                let freed = others.filter(|(_, other)| other.folder == node.folder);
                let freed: Vec<&[u8]> = freed.map(|(_, other)| &*other.durable).collect();
                let left = torn(&mut self.rng, &node.durable, &node.content, &freed);
                self.nodes[at].durable = left;
            }
            let node = &mut self.nodes[at];
            node.content.clone_from(&node.durable);
            node.synced = true;
        }
    }

    /// Which of the changes of names reached the device.
    fn kept_changes(&mut self) -> Vec<bool> {
        let count = self.changes.len();
        let order = self.rng.below(5);
        if order < 2 || count == 0 {
            return vec![order == 0; count];
        }
        // One border for all, for each folder, or for each name: changes before it are kept.
        let (first, last) = (self.changes[0].op, self.ops);
        let mut borders: BTreeMap<PathBuf, u64> = BTreeMap::new();
        let mut kept = Vec::with_capacity(count);
        for change in &self.changes {
            let key = match order {
                2 => PathBuf::new(),
                3 => parent(&change.name).to_owned(),
                _ => change.name.clone(),
            };
            let rng = &mut self.rng;
            let border = *borders.entry(key).or_insert_with(|| match rng.below(3) {
                0 => first,
                1 => last + 1,
                _ => first + rng.below(last - first + 2),
            });
            kept.push(change.op < border);
        }
        kept
    }
}

/// The files that have names.
fn files(names: &Names) -> BTreeSet<usize> {
    let file = |entry: &Entry| match entry {
        Entry::File(node) => Some(*node),
        Entry::Folder => None,
    };
    names.values().filter_map(file).collect()
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// What a file holds of `new`, where `old` was synced, in blocks that were `freed` perhaps.
fn torn(rng: &mut Rng, old: &[u8], new: &[u8], freed: &[&[u8]]) -> Vec<u8> {
    let style = rng.below(6);
    if style < 2 {
        return if style == 0 { old.to_vec() } else { new.to_vec() };
    }
    let (short, long) = (old.len().min(new.len()), old.len().max(new.len()));
    if style == 2 {
        // Cut anywhere.
        let len = short + rng.below((long - short + 1) as u64) as usize;
        let mut out = new[..len.min(new.len())].to_vec();
        out.extend_from_slice(old.get(out.len()..len).unwrap_or_default());
        return out;
    }
    let block = if rng.one_in(2) { 512 } else { 4096 };
    let len = match rng.below(3) {
        0 => new.len(),
        1 => (short + rng.below((long - short + 1) as u64) as usize).next_multiple_of(block).min(long),
        _ => long,
    };
    let filling = rng.below(3);
    let one_in = 1 + rng.below(4);
    let mut out = Vec::with_capacity(len);
    while out.len() < len {
        let piece = out.len()..(out.len() + block).min(len);
        if rng.one_in(one_in) {
            out.extend_from_slice(new.get(piece.start..piece.end.min(new.len())).unwrap_or_default());
        }
        // Bytes that are on the device already lie in the same block, before and after.
        let held = out.len()..piece.end.min(old.len());
        out.extend_from_slice(old.get(held).unwrap_or_default());
        match filling {
            0 => out.extend((out.len()..piece.end).map(|_| rng.next() as u8)),
            1 if !freed.is_empty() => {
                let left = freed[rng.below(freed.len() as u64) as usize];
                // Files of one kind are alike at the same place, above all where they begin.
                let place = match rng.one_in(2) {
                    true => piece.start,
                    false => rng.below((left.len() / block + 1) as u64) as usize * block,
                };
                let within = place + (out.len() - piece.start)..place + (piece.end - piece.start);
                out.extend_from_slice(left.get(within.start..within.end.min(left.len())).unwrap_or_default());
            }
            _ => {}
        }
        out.resize(piece.end, 0);
    }
    out
}

impl Fs for Disk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.run(Op::CreateDir, dir, &[], |state| {
            let mut missing: Vec<&Path> = dir.ancestors().collect();
            missing.retain(|dir| !state.names.contains_key(*dir));
            for dir in missing.into_iter().rev() {
                state.add(dir, Entry::Folder)?;
            }
            state.folder(dir)
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.check_alive()?;
        state.folder(dir).map_err(at_path(dir))?;
        let inside = state.names.keys().filter(|name| name.parent() == Some(dir));
        Ok(inside.filter_map(|name| Some(name.file_name()?.to_str()?.to_owned())).collect())
    }

    fn usage(&self, dir: &Path) -> io::Result<Vec<FileUse>> {
        let state = self.state();
        state.check_alive()?;
        let below = state.names.iter().filter(|(name, _)| name.starts_with(dir));
        let files = below.filter_map(|(name, entry)| match *entry {
            Entry::Folder => None,
            Entry::File(node) => {
                let bytes = state.nodes[node].content.len() as u64;
                Some(FileUse { path: name.clone(), file: (0, node as u64), bytes })
            }
        });
        Ok(files.collect())
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let taken_bytes: u64 = self.usage(dir)?.iter().map(|file| file.bytes).sum();
        let free_bytes = match self.is_full() {
            true => FULL_BYTES,
            false => CAPACITY_BYTES.saturating_sub(taken_bytes),
        };
        Ok(Space { capacity_bytes: CAPACITY_BYTES, free_bytes })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.run(Op::SyncDir, dir, &[], |state| {
            state.folder(dir)?;
            let content = |path: &Path| state.file(path).map_or(&[][..], |node| &state.nodes[node].content);
            let site = Site::of_folder(dir, &state.before, content);
            if state.is_done(site) {
                let (inside, others) = std::mem::take(&mut state.changes)
                    .into_iter()
                    .partition(|change| change.name.parent() == Some(dir));
                state.changes = others;
                let inside: Vec<Change> = inside;
                inside.iter().for_each(|change| state.keep(change));
            }
            Ok(())
        })
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let node = self.run(Op::Create, path, &[], |state| {
            state.add(path, Entry::File(state.nodes.len()))?;
            state.nodes.push(Node { folder: Some(parent(path).to_owned()), ..Node::default() });
            Ok(state.nodes.len() - 1)
        })?;
        Ok(Box::new(DiskFile { disk: self.clone(), path: path.to_owned(), node }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state();
        state.check_alive()?;
        let node = state.file(path).map_err(at_path(path))?;
        Ok(state.nodes[node].content.clone())
    }

    fn map(&self, path: &Path) -> io::Result<Bytes> {
        let mut state = self.state();
        state.check_alive()?;
        let node = state.file(path).map_err(at_path(path))?;
        let node = &mut state.nodes[node];
        node.mapped = true;
        let (synced, bytes) = (node.synced, Bytes::copy_from_slice(&node.content));
        if !synced {
            state.violations.push(format!("{} is mapped before it is synced", path.display()));
        }
        Ok(bytes)
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let state = self.state();
        state.check_alive()?;
        let node = state.file(path).map_err(at_path(path))?;
        Ok(Box::new(DiskFile { disk: self.clone(), path: path.to_owned(), node }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.state();
        state.check_alive()?;
        Ok(state.names.contains_key(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(Op::Rename, to, &[], |state| {
            let node = state.file(from)?;
            state.folder(parent(to))?;
            state.change(to, Some(Entry::File(node)));
            state.change(from, None);
            Ok(())
        })
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(Op::HardLink, to, &[], |state| {
            let node = state.file(from)?;
            state.add(to, Entry::File(node))
        })
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        self.run(Op::Truncate, path, &[], |state| {
            let node = state.file(path)?;
            state.write(node, path, |content| content.resize(len as usize, 0));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.run(Op::Remove, path, &[], |state| {
            state.file(path)?;
            state.change(path, None);
            Ok(())
        })
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.run(Op::Remove, dir, &[], |state| {
            state.folder(dir)?;
            if state.names.keys().any(|name| name.parent() == Some(dir)) {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            state.change(dir, None);
            Ok(())
        })
    }

    // The content names the process: its length would make two runs of a seed differ.
    fn lock(&self, path: &Path, _content: &str) -> io::Result<Option<Lock>> {
        self.run(Op::Lock, path, &[], |state| {
            if state.locks.contains(path) {
                return Ok(None);
            }
            let node = match state.file(path) {
                Ok(node) => node,
                Err(_) => {
                    state.add(path, Entry::File(state.nodes.len()))?;
                    state.nodes.push(Node::default());
                    state.nodes.len() - 1
                }
            };
            state.nodes[node].content = b"1234\n".to_vec();
            state.locks.insert(path.to_owned());
            Ok(Some(Lock::new(Held { disk: self.clone(), path: path.to_owned() })))
        })
    }
}

/// Gives a lock back.
#[derive(Debug)]
struct Held {
    disk: Disk,
    path: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.disk.state().locks.remove(&self.path);
    }
}

#[derive(Debug)]
struct DiskFile {
    disk: Disk,
    path: PathBuf,
    node: usize,
}

impl WriteFile for DiskFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.disk.run(Op::Append, &self.path, bytes, |state| {
            // The end of the process may come in the middle of a write.
            let len = match state.ended {
                true => state.rng.below(bytes.len() as u64 + 1) as usize,
                false => bytes.len(),
            };
            state.write(self.node, &self.path, |content| content.extend_from_slice(&bytes[..len]));
            Ok(())
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.run(Op::WriteAt, &self.path, bytes, |state| {
            let place = offset as usize..offset as usize + bytes.len();
            state.write(self.node, &self.path, |content| {
                content.resize(content.len().max(place.end), 0);
                content[place].copy_from_slice(bytes);
            });
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.run(Op::Sync, &self.path, &[], |state| {
            let site = Site::of_file(&self.path, &state.nodes[self.node].content);
            let is_done = state.is_done(site);
            let node = &mut state.nodes[self.node];
            node.synced = true;
            if is_done {
                node.durable.clone_from(&node.content);
            }
            Ok(())
        })
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk.run(Op::Truncate, &self.path, &[], |state| {
            state.write(self.node, &self.path, |content| content.resize(len as usize, 0));
            Ok(())
        })
    }

    fn preallocate(&self, _len: u64) -> io::Result<()> {
        // Reserved blocks hold zeros or noise, as those of a file that just grows.
        self.disk.run(Op::Preallocate, &self.path, &[], |_| Ok(()))
    }
}

impl ReadFile for DiskFile {
    fn byte_len(&self) -> io::Result<u64> {
        let state = self.disk.state();
        state.check_alive()?;
        Ok(state.nodes[self.node].content.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.state();
        state.check_alive()?;
        let piece = offset as usize..offset as usize + bytes.len();
        let piece = state.nodes[self.node].content.get(piece).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(piece);
        Ok(())
    }

    fn forget(&self, _range: Range<u64>) {}
}
