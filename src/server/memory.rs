//! The memory of the process: its limit, and the thread that looks how much is held.

use super::app::{App, Phase};
use super::args::MemoryLimit;
use crate::budget::machine::{self, give_back};
use crate::budget::{MemoryBudget, Part, Pressure, Relief, Share, Size};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often the thread looks.
const LOOK: Duration = Duration::from_millis(200);
/// Memory is given back no more often than this: allocations wait meanwhile.
const GIVE_BACK: Duration = Duration::from_secs(1);

/// The budget that `--memory.limit` asks for. A percentage of what nobody knows is no limit.
pub fn budget(limit: MemoryLimit) -> MemoryBudget {
    let bytes = limit_bytes(limit, machine::memory_bytes());
    MemoryBudget::with(bytes, bytes.map(|_| relief()))
}

/// The limit in bytes, where there are so many `available`.
fn limit_bytes(limit: MemoryLimit, available: Option<u64>) -> Option<u64> {
    let bytes = match limit {
        MemoryLimit::Bytes(bytes) => bytes,
        MemoryLimit::Percent(percent) => (available? as f64 * percent / 100.0) as u64,
    };
    (bytes > 0).then_some(bytes)
}

/// Gives memory back, but not again and again.
fn relief() -> Relief {
    let last: Mutex<Option<Instant>> = Mutex::default();
    Arc::new(move || {
        // Who comes while another does so has nothing to gain either.
        let mut last = last.try_lock().ok()?;
        if last.is_some_and(|last| last.elapsed() < GIVE_BACK) {
            return None;
        }
        give_back();
        *last = Some(Instant::now());
        machine::held_bytes()
    })
}

/// Starts the thread that tells the budget what the process holds, logs when that becomes much or little,
/// and gives up what is kept only for speed.
///
/// # Errors
/// There is no thread to be had.
pub fn watch(app: &Arc<App>) -> std::io::Result<()> {
    if app.memory.limit_bytes().is_none() {
        return Ok(());
    }
    // The first look is the measure of what nobody reserves.
    let mut before = machine::held_bytes().map_or(Pressure::Calm, |bytes| app.memory.observe(bytes));
    let mut buffers = Share::of(Some(&Arc::new(app.memory.reservation(Part::Caches))));
    let app = Arc::downgrade(app);
    std::thread::Builder::new().name("larum-memory".to_owned()).spawn(move || {
        let mut given_back = Instant::now();
        loop {
            std::thread::sleep(LOOK);
            let Some(app) = app.upgrade().filter(|app| app.phase() != Phase::Stopping) else { return };
            // They are there already, so nobody refuses them.
            let _ = buffers.resize(app.writes.kept_bytes() as usize);
            let Some(held) = machine::held_bytes() else { return };
            let mut pressure = app.memory.observe(held);
            if pressure >= Pressure::ShrinkCaches && given_back.elapsed() >= GIVE_BACK {
                app.writes.forget_buffers();
                app.db().iter().for_each(|db| db.forget_results());
                give_back();
                given_back = Instant::now();
                pressure = machine::held_bytes().map_or(pressure, |bytes| app.memory.observe(bytes));
            }
            if pressure != before {
                tell(&app.memory, before, pressure);
                before = pressure;
            }
        }
    })?;
    Ok(())
}

fn tell(memory: &MemoryBudget, before: Pressure, pressure: Pressure) {
    let status = memory.status();
    let parts = Part::ALL.map(|part| format!("{}={}", part.name(), Size(status.reserved(part)))).join(" ");
    let (held, limit) = (Size(status.held_bytes), Size(status.limit_bytes.unwrap_or(0)));
    if pressure > before {
        tracing::warn!(%held, %limit, parts, "memory is short: {}", pressure.text());
    } else {
        tracing::info!(%held, %limit, parts, "memory is less short: {}", pressure.text());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_bytes_or_a_share_of_what_there_is() {
        use MemoryLimit::{Bytes, Percent};
        for (limit, available, expected) in [
            (Bytes(5), Some(1000), Some(5)),
            (Bytes(0), Some(1000), None),
            (Percent(75.0), Some(1000), Some(750)),
            (Percent(0.0), Some(1000), None),
            (Percent(75.0), None, None),
        ] {
            assert_eq!(limit_bytes(limit, available), expected, "{limit:?} of {available:?}");
        }
    }
}
