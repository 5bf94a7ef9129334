//! The background work: cutting, merging, dropping. Decisions are made elsewhere; this does them.
//!
//! Two threads, since a merge of a day may take minutes and a cut must not wait for it. Each looks
//! for work once a second, and waits longer after a failure.

use super::catalog::{Change, Live};
use super::compaction::{self, Merge};
use super::cut;
use super::cutter::Cut;
use super::engine::Inner;
use super::merger::{self, Merged};
use super::part::Part;
use super::time::Timestamp;
use crossbeam::channel::{RecvTimeoutError, Sender, bounded};
use larum_storage_format::manifest::{LivePartition, Manifest};
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a thread looks for work.
const TICK: Duration = Duration::from_secs(1);

/// The longest wait after a failure.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What a thread does again and again.
type Job = fn(&Inner) -> io::Result<()>;

/// The background threads. Dropping them stops and joins them.
pub(crate) struct Workers {
    /// Never sends; a dropped sender ends the threads' waiting.
    stop: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts the threads.
    pub fn start(inner: &Arc<Inner>) -> io::Result<Workers> {
        let (stop, stopped) = bounded::<()>(0);
        let mut workers = Workers { stop: Some(stop), threads: Vec::new() };
        let jobs: [(&str, Job); 2] = [
            ("larum-cut", |inner| inner.drop_expired().and_then(|()| inner.cut_if_due())),
            ("larum-merge", |inner| inner.merge_while(compaction::plan)),
        ];
        for (name, job) in jobs {
            let (inner, stopped) = (inner.clone(), stopped.clone());
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
                let mut wait = TICK;
                while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(wait) {
                    wait = match guarded(job, &inner) {
                        Ok(()) => TICK,
                        Err(e) if is_interrupted(&e) => TICK,
                        Err(error) => {
                            tracing::warn!(thread = name, %error, "background work failed, it is tried again");
                            (wait * 2).min(WAIT_MAX)
                        }
                    };
                }
            });
            workers.threads.push(thread?);
        }
        Ok(workers)
    }
}

/// Does a job. One that panics is tried again as if it had failed: without its thread, WAL and
/// partitions would grow for ever.
fn guarded(job: Job, inner: &Inner) -> io::Result<()> {
    catch_unwind(AssertUnwindSafe(|| job(inner)))
        .unwrap_or_else(|_| Err(io::Error::other("the background work panicked")))
}

fn is_interrupted(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::Interrupted
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Inner {
    /// Cuts if the WAL is long enough, a border of windows passed, or a cut failed before.
    pub fn cut_if_due(&self) -> io::Result<()> {
        let now_ms = self.now().wall_ms;
        self.head.tidy(Timestamp::from_millis(now_ms));
        let due = self.head.frozen().is_some()
            || self.head.wal_bytes() > self.options.wal_bytes
                && self.head.wal_bytes() > self.wal_bound_bytes()
            || cut::border_passed(self.begun_ms.load(Relaxed), now_ms);
        if due { self.cut() } else { Ok(()) }
    }

    /// Cuts until all that is in the head now is in partitions.
    pub fn cut_all(&self) -> io::Result<()> {
        let last = self.head.active().number();
        while self.head.generations().iter().any(|g| g.number() <= last && g.time_range().is_some()) {
            self.cut()?;
        }
        Ok(())
    }

    /// Cuts the frozen generation, if a cut failed before; else the active one.
    fn cut(&self) -> io::Result<()> {
        let _one_at_a_time = self.cutting.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_held()?;
        let started = Instant::now();
        let outcome = self.cut_locked();
        self.counters.worked(started.elapsed());
        match &outcome {
            Ok(_) => self.counters.cuts.fetch_add(1, Relaxed),
            Err(_) => self.counters.cut_failures.fetch_add(1, Relaxed),
        };
        outcome
    }

    fn cut_locked(&self) -> io::Result<()> {
        let now_ms = self.now().wall_ms;
        if self.head.frozen().is_none() {
            self.begun_ms.store(now_ms, Relaxed);
            if self.head.active().time_range().is_none() {
                return Ok(());
            }
        }
        let generation = self.head.switch()?;
        let series = generation.series();
        let (seed, sequence) = {
            let catalog = self.catalog();
            (catalog.manifest().seed, catalog.next_sequence())
        };
        let cut =
            Cut { fs: &*self.fs, folder: &self.folder, seed, generation: &generation, now_ms, sequence };
        let windows = cut.windows(&series);
        let first_number = self.catalog().take_numbers(windows.len() as u64);
        let written = cut.write(&series, &windows, first_number).and_then(|numbers| {
            let open = |number| Live::open(&*self.fs, &self.folder, number);
            let add = numbers.into_iter().map(open).collect::<io::Result<Vec<Live>>>()?;
            let first_generation = Some(generation.number() + 1);
            self.commit(Change { first_generation, add, ..Change::default() })
        });
        if let Err(error) = written {
            self.abandon(first_number..first_number + windows.len() as u64);
            return Err(error);
        }
        self.abandon(0..0);
        tracing::info!(
            generation = generation.number(),
            series = series.len(),
            partitions = windows.len(),
            "the head was cut"
        );
        drop(generation);
        self.head.release(Timestamp::from_millis(now_ms))
    }

    /// Merges as long as `plan` finds something.
    pub fn merge_while(&self, plan: fn(&[LivePartition], i64) -> Option<Merge>) -> io::Result<()> {
        let _one_at_a_time = self.merging.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            self.check_held()?;
            let next = plan(&self.catalog().manifest().partitions, self.now().wall_ms);
            let Some(merge) = next else { return Ok(()) };
            let started = Instant::now();
            let outcome = self.merge(merge);
            self.counters.worked(started.elapsed());
            match &outcome {
                Ok(()) => self.counters.merges.fetch_add(1, Relaxed),
                // Its inputs changed: plan again.
                Err(e) if is_interrupted(e) && !self.closing.load(Acquire) => continue,
                Err(e) if is_interrupted(e) => 0,
                Err(_) => self.counters.merge_failures.fetch_add(1, Relaxed),
            };
            outcome?;
        }
    }

    fn merge(&self, merge: Merge) -> io::Result<()> {
        let (inputs, seed, number) = {
            let mut catalog = self.catalog();
            let inputs: Option<Vec<Live>> = merge.inputs.iter().map(|&n| catalog.get(n).cloned()).collect();
            let Some(inputs) = inputs else { return Ok(()) };
            (inputs, catalog.manifest().seed, catalog.take_numbers(1))
        };
        let job = merger::Job {
            fs: &*self.fs,
            folder: &self.folder,
            seed,
            inputs: &inputs,
            window_ms: merge.window_ms,
            number,
        };
        let merged = job.run(&|| self.closing.load(Acquire)).and_then(|merged| {
            self.replace(&inputs, merged.written.then_some(number))?;
            Ok(merged)
        });
        match merged {
            Ok(merged) => {
                tracing::info!(inputs = inputs.len(), output = number, "partitions were merged");
                self.remove_files(&inputs, &merged);
                self.abandon(0..0);
                Ok(())
            }
            Err(error) => {
                self.abandon(number..number + 1);
                Err(error)
            }
        }
    }

    /// Commits a merge.
    fn replace(&self, inputs: &[Live], output: Option<u64>) -> io::Result<()> {
        let add = output.map(|number| Live::open(&*self.fs, &self.folder, number)).transpose()?;
        let mut catalog = self.catalog();
        // If something was deleted from an input, or it expired, while it was merged, the output
        // would bring it back. The next round merges what is there then.
        let unchanged = |p: &Live| catalog.get(p.meta.number).is_some_and(|now| now.meta == p.meta);
        if !inputs.iter().all(unchanged) {
            let why = "an input of the merge changed meanwhile";
            return Err(io::Error::new(io::ErrorKind::Interrupted, why));
        }
        let remove = inputs.iter().map(|p| p.meta.number).collect();
        let change = Change { remove, add: add.into_iter().collect(), ..Change::default() };
        catalog.commit(&*self.fs, &self.folder, change)?;
        self.publish(&catalog);
        Ok(())
    }

    /// Removes the files of work that failed, so that a full disk does not fill with them; but not
    /// while the MANIFEST on disk names them, as it may when only its last sync failed. Those go
    /// after the next commit.
    fn abandon(&self, numbers: Range<u64>) {
        let mut abandoned = self.abandoned.lock().unwrap_or_else(PoisonError::into_inner);
        abandoned.extend(numbers);
        if abandoned.is_empty() {
            return;
        }
        let read = self.fs.read(&self.folder.manifest());
        let Ok(Ok(manifest)) = read.map(|bytes| Manifest::decode(&bytes)) else { return };
        abandoned.retain(|&number| {
            let is_named = manifest.partitions.iter().any(|p| p.number == number);
            // A file that was never written is not there to be removed.
            let is_gone = |e: io::Error| e.kind() == io::ErrorKind::NotFound;
            is_named || !self.fs.remove(&self.folder.partition(number)).map_or_else(is_gone, |()| true)
        });
    }

    /// Drops the partitions that lie before the border of retention as a whole.
    pub fn drop_expired(&self) -> io::Result<()> {
        let now = self.now();
        let (border_ms, paused) = {
            let border_ms = self.border_ms(now);
            (border_ms, self.retention().is_paused())
        };
        if paused || border_ms == i64::MIN {
            return Ok(());
        }
        let mut catalog = self.catalog();
        self.check_held()?;
        let expired: Vec<Live> =
            catalog.live().iter().filter(|p| p.meta.max_ms < border_ms).cloned().collect();
        if expired.is_empty() {
            return Ok(());
        }
        let remove = expired.iter().map(|p| p.meta.number).collect();
        catalog.commit(&*self.fs, &self.folder, Change { remove, ..Change::default() })?;
        self.publish(&catalog);
        drop(catalog);
        self.counters.expired.fetch_add(expired.len() as u64, Relaxed);
        self.remove_files(&expired, &Merged::default());
        Ok(())
    }

    /// Commits a change and shows it to readers.
    pub fn commit(&self, change: Change) -> io::Result<()> {
        let mut catalog = self.catalog();
        catalog.commit(&*self.fs, &self.folder, change)?;
        self.publish(&catalog);
        Ok(())
    }

    /// Removes the files of partitions that are no longer live; who still reads them keeps them. A
    /// damaged input of a merge is set aside instead. What cannot be removed goes at the next start.
    fn remove_files(&self, partitions: &[Live], merged: &Merged) {
        for p in partitions {
            let damaged = merged.damaged.contains(&p.meta.number);
            let outcome = match damaged {
                true => self.folder.set_aside(&*self.fs, p.partition.path()),
                false => self.fs.remove(p.partition.path()),
            };
            let tombstones = p.meta.tombstones.map(|n| self.folder.tombstones(p.meta.number, n));
            let outcome = outcome.and(tombstones.map_or(Ok(()), |path| self.fs.remove(&path)));
            if let Err(error) = outcome {
                tracing::warn!(%error, "a file that is no longer needed cannot be removed");
            }
            if damaged {
                self.counters.damaged.fetch_add(1, Relaxed);
                tracing::error!(file = %p.partition.path().display(),
                    "samples of a damaged partition were lost in a merge; the file is in quarantine");
            }
        }
    }
}
