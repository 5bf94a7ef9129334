//! Freeing what has expired: partitions of which nothing is shown any more are dropped, those of which
//! much is not are written anew. What has expired is hidden long before; this is about bytes.

use super::catalog::Live;
use super::compaction::Levels;
use super::disk::DiskState;
use super::engine::Inner;
use super::expiry::{Expiry, Share};
use super::jobs::JobKind;
use super::part::Part;
use super::policy::{Borders, Policies, PolicySets};
use super::retention_status::{Expected, RetentionShares, RetentionStatus, Shares, Times};
use super::series_set::Columns;
use super::time::TimeRange;
use larum_storage_format::DecodeError;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

/// What somebody canceled is left alone for so long.
const DECLINED_MS: i64 = 24 * 60 * 60 * 1000;

/// What is known of how partitions expire, as long as the policies stay the same.
#[derive(Debug, Default)]
pub(crate) struct Expiring {
    policies: Arc<Policies>,
    /// `None` where the index is damaged: nobody reads it again and again.
    shares: BTreeMap<u64, Option<Arc<Shares>>>,
    /// Until when partitions are left alone, since somebody canceled their job.
    declined_ms: BTreeMap<u64, i64>,
}

impl Inner {
    /// Keeps something else from now on.
    pub fn set_retention(&self, policies: Policies) {
        let mut retention = self.retention();
        if **retention.policies() != policies {
            let _change = self.head.touched().range(TimeRange::ALL);
            retention.set(policies);
            let policies = retention.policies().clone();
            *self.levels.lock().unwrap_or_else(PoisonError::into_inner) = Levels::new(policies.keeps_ms());
            self.head.set_policies(&policies);
        }
    }

    /// What has expired by then may be removed. `None`: nothing at present, since the clock is not
    /// believed, or the time for it has not come.
    pub fn cleanup_until_ms(&self) -> Option<i64> {
        let believed_ms = self.believed_ms(self.now());
        if self.retention().is_paused() {
            return None;
        }
        let until_ms = self.cleanups.lock().unwrap_or_else(PoisonError::into_inner).until_ms(believed_ms);
        // Where space is low, nobody waits for a schedule.
        if self.disk.status().state == DiskState::Enough { until_ms } else { Some(believed_ms) }
    }

    /// What merges leave out: nothing while the clock is not believed.
    pub fn expired_borders(&self) -> Option<Borders> {
        let borders = self.borders(self.now());
        (!self.retention().is_paused()).then_some(borders)
    }

    /// Drops the partitions of which all series have expired.
    pub fn drop_expired(&self) -> io::Result<()> {
        let Some(until_ms) = self.cleanup_until_ms() else { return Ok(()) };
        let policies = self.retention().policies().clone();
        let borders = Borders::new(&policies, until_ms);
        let (may_go, mut expired): (Vec<Live>, Vec<u64>) = {
            let catalog = self.catalog();
            let missing = catalog.missing().iter().filter(|p| p.max_ms < borders.oldest_ms);
            let may_go = catalog.live().iter().filter(|p| p.meta.max_ms < borders.newest_ms());
            (may_go.cloned().collect(), missing.map(|p| p.number).collect())
        };
        let is_over = |p: &&Live| expiry_of(p, &policies).drop_at_ms.is_some_and(|at_ms| at_ms <= until_ms);
        expired.extend(may_go.iter().filter(is_over).map(|p| p.meta.number));
        if expired.is_empty() {
            return Ok(());
        }
        let catalog = self.catalog();
        self.check_held()?;
        let missing = catalog.missing().iter().map(|p| p.number).collect::<Vec<_>>();
        expired.retain(|number| catalog.get(*number).is_some() || missing.contains(number));
        let dropped = self.drop_partitions(catalog, expired)?;
        self.counters.expired.fetch_add(dropped.len() as u64, Relaxed);
        Ok(())
    }

    /// Writes the partitions anew of which so much has expired that it is time.
    pub fn free_expired(&self) -> io::Result<()> {
        let Some(until_ms) = self.cleanup_until_ms() else { return Ok(()) };
        let _merging = self.merging.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_held()?;
        let is_scheduled = self.cleanups.lock().unwrap_or_else(PoisonError::into_inner).schedule().is_some();
        let live = self.catalog().live().to_vec();
        self.expiring(&live).declined_ms.retain(|_, &mut rests_until_ms| rests_until_ms > until_ms);
        let newest_ms = Borders::new(&self.retention().policies().clone(), until_ms).newest_ms();
        let mut due = Vec::new();
        for p in live.iter().filter(|p| p.meta.min_ms < newest_ms) {
            // The first time, this reads the times of all chunks; appends may wait for merges. If one fails,
            // the background tries it again and tells of it.
            let _ = self.merge_urgent(&|| self.closing.load(Acquire));
            let expiry = self.expiry(p, &live, until_ms)?;
            // Who named the times wants no other ones.
            let at_ms = if is_scheduled { expiry.worth_at_ms } else { expiry.rewrite_at_ms };
            if at_ms.is_some_and(|at_ms| at_ms <= until_ms)
                && !self.expiring(&live).declined_ms.contains_key(&p.meta.number)
            {
                due.push(p.meta.number);
            }
        }
        // What is too much for the disk waits until there is space.
        let bytes_max = self.disk.merge_bytes_max();
        due.retain(|&number| self.bytes_of(&[number]) <= bytes_max);
        if due.is_empty() {
            return Ok(());
        }
        let job = self.jobs.begin(JobKind::FreeExpired, self.timestamp());
        let (outcome, left) = self.rewrite_by(&job, due);
        if job.is_canceled() {
            let rests = left.into_iter().map(|number| (number, until_ms.saturating_add(DECLINED_MS)));
            self.expiring(&live).declined_ms.extend(rests);
        }
        outcome
    }

    /// What retention has still to do, as far as it is known at `until` how the bytes are spread.
    pub fn retention_status(&self, until: Instant) -> io::Result<RetentionStatus> {
        self.resolve_limit()?;
        let measured = self.measure()?;
        let until_ms = self.cleanup_until_ms();
        let policies = self.retention().policies().clone();
        let live = self.catalog().live().to_vec();
        let mut expected = BTreeMap::new();
        for p in &live {
            let expiry = match self.has_time_for(p, &policies, &live, until) {
                true => self.expiry(p, &live, until_ms.unwrap_or(i64::MIN))?,
                false => expiry_of(p, &policies),
            };
            let shares = expiry.rewrite_at_ms.and_then(|_| self.shares(p, &policies, &live).transpose());
            let left =
                shares.transpose()?.map_or(1.0, |shares| shares.left_of_all(&policies, &expiry, until_ms));
            expected.insert(p.meta.number, Expected { expiry, left });
        }
        let times = Times {
            retention: policies.rest(),
            paused: self.retention().is_paused(),
            until_ms,
            next_cleanup_ms: self.cleanups.lock().unwrap_or_else(PoisonError::into_inner).next_ms(),
            expected: &expected,
        };
        let catalog = self.catalog();
        Ok(self.situation(&catalog, &measured).status(&times))
    }

    /// How the bytes of partitions are spread, as far as that is known at `until`.
    pub fn retention_shares(&self, limit: usize, until: Instant) -> io::Result<RetentionShares> {
        let until_ms = self.cleanup_until_ms();
        let policies = self.retention().policies().clone();
        let live = self.catalog().live().to_vec();
        let mut partitions = Vec::new();
        for p in &live {
            if self.has_time_for(p, &policies, &live, until)
                && let Some(shares) = self.shares(p, &policies, &live)?
            {
                partitions.push((shares, self.expiry(p, &live, until_ms.unwrap_or(i64::MIN))?));
            }
        }
        let uncounted_partitions = live.len() - partitions.len();
        Ok(RetentionShares {
            uncounted_partitions,
            ..RetentionShares::of(&policies, &partitions, until_ms, limit)
        })
    }

    /// Whether how the bytes of a partition are spread can be told without going beyond `until`.
    fn has_time_for(&self, p: &Live, policies: &Arc<Policies>, live: &[Live], until: Instant) -> bool {
        Instant::now() < until || self.expiring_by(policies, live).shares.contains_key(&p.meta.number)
    }

    /// What becomes of a partition, of the `live` ones; that it is written anew is known only once some
    /// of it has expired.
    pub fn expiry(&self, p: &Live, live: &[Live], until_ms: i64) -> io::Result<Expiry> {
        let policies = self.retention().policies().clone();
        let expiry = expiry_of(p, &policies);
        let has_expired = Borders::new(&policies, until_ms).newest_ms() > p.meta.min_ms;
        let present = present_keeps_ms(p, &policies);
        if !has_expired || !expiry.may_be_rewritten(p.meta.min_ms, present.into_iter()) {
            return Ok(expiry);
        }
        let shares = self.shares(p, &policies, live)?;
        Ok(shares.map_or(expiry, |shares| Expiry { drop_at_ms: expiry.drop_at_ms, ..shares.expiry }))
    }

    /// How the bytes of a partition are spread; `None` if its index is damaged.
    pub fn shares(
        &self,
        p: &Live,
        policies: &Arc<Policies>,
        live: &[Live],
    ) -> io::Result<Option<Arc<Shares>>> {
        if let Some(known) = self.expiring_by(policies, live).shares.get(&p.meta.number) {
            return Ok(known.clone());
        }
        let looked = match p.partition.policy_sets(policies) {
            Ok(sets) => look(p, &sets, policies, &|| self.closing.load(Acquire)).ok(),
            Err(_) => None,
        };
        let shares = match looked {
            Some(None) => {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "the database is being closed"));
            }
            Some(Some(shares)) => Some(Arc::new(shares)),
            None => None,
        };
        self.expiring_by(policies, live).shares.insert(p.meta.number, shares.clone());
        Ok(shares)
    }

    fn expiring(&self, live: &[Live]) -> MutexGuard<'_, Expiring> {
        let policies = self.retention().policies().clone();
        self.expiring_by(&policies, live)
    }

    /// What is known by these policies, of live partitions only.
    fn expiring_by(&self, policies: &Arc<Policies>, live: &[Live]) -> MutexGuard<'_, Expiring> {
        let mut expiring = self.expiring.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&expiring.policies, policies) {
            *expiring = Expiring { policies: policies.clone(), ..Expiring::default() };
        }
        if expiring.shares.len() > live.len() {
            expiring.shares.retain(|&number, _| live.iter().any(|p| p.meta.number == number));
        }
        expiring
    }
}

/// How long the series of a partition are kept: those of all policies if its index is damaged.
fn present_keeps_ms(p: &Live, policies: &Arc<Policies>) -> Vec<Option<i64>> {
    let sets = if policies.list().is_empty() { None } else { p.partition.policy_sets(policies).ok() };
    let keeps = policies.keeps_ms().enumerate();
    let present = keeps.filter(|&(policy, _)| sets.as_ref().is_none_or(|sets| sets.has(policy)));
    present.map(|(_, keep_ms)| keep_ms).collect()
}

/// When a partition is dropped.
pub(crate) fn expiry_of(p: &Live, policies: &Arc<Policies>) -> Expiry {
    Expiry::of_newest(p.meta.max_ms, present_keeps_ms(p, policies).into_iter())
}

/// Looks at all chunks of a partition, but at no value. `None` once `stop` says true.
fn look(
    p: &Live,
    sets: &PolicySets,
    policies: &Policies,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Shares>, DecodeError> {
    let file = p.partition.file();
    let range_ms = (p.meta.min_ms, p.meta.max_ms);
    let keeps_ms: Vec<Option<i64>> = policies.keeps_ms().collect();
    let mut shares = Shares { by_policy: vec![Share::new(range_ms); keeps_ms.len()], ..Shares::default() };
    let mut columns = Columns::default();
    let mut reader = file.label_reader()?;
    let mut metric: Option<(u32, String)> = None;
    let mut of_metric: Vec<u64> = vec![0; keeps_ms.len()];
    for ordinal in 0..file.series_count() {
        if ordinal % 1024 == 0 && stop() {
            return Ok(None);
        }
        // The top bits of an identity are those of the metric, so that its series are neighbours.
        let top = file.series_id(ordinal)?.map_or(0, |id| (id.0 >> 96) as u32);
        if metric.as_ref().is_none_or(|(known, _)| *known != top) {
            take_metric(&mut shares, metric.take(), &mut of_metric);
            let name = reader.labels(ordinal)?.metric_name().unwrap_or_default().to_owned();
            metric = Some((top, name));
        }
        let policy = sets.policy_of(ordinal);
        for chunk in file.chunks(ordinal)? {
            let chunk = chunk?;
            let bytes = chunk.byte_len() as u64;
            if let Some((first_ms, last_ms)) = p.partition.times_of(&chunk, &mut columns)? {
                shares.by_policy[policy].add(first_ms, last_ms, bytes);
                of_metric[policy] += bytes;
            }
        }
        columns.forget_beyond(super::cutter::TIMESTAMPS_KEPT);
    }
    take_metric(&mut shares, metric, &mut of_metric);
    shares.expiry = Expiry::of_shares(&shares.by_policy, &keeps_ms);
    Ok(Some(shares))
}

fn take_metric(shares: &mut Shares, metric: Option<(u32, String)>, of_metric: &mut [u64]) {
    let Some((_, name)) = metric else { return };
    for (policy, bytes) in of_metric.iter_mut().enumerate().filter(|(_, bytes)| **bytes > 0) {
        shares.by_metric.push((name.clone(), policy, std::mem::take(bytes)));
    }
}
