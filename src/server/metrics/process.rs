//! Figures of this process from `/proc`. Elsewhere than on Linux there are none.

use std::fs;

/// What the kernel says about this process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessStats {
    /// User and system time.
    pub cpu_seconds: f64,
    /// Bytes in memory, mapped files included.
    pub resident_bytes: u64,
    /// Bytes of address space.
    pub virtual_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// How many may be open.
    pub max_fds: u64,
    /// Threads.
    pub threads: u64,
}

/// The kernel's unit of time in `/proc`, the same on all supported machines.
const TICKS_PER_SECOND: f64 = 100.0;

/// The figures as they are now.
pub fn read() -> Option<ProcessStats> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name may hold blanks; what counts comes after the last bracket (proc(5), fields from 3 on).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    Some(ProcessStats {
        cpu_seconds: (field(14)? + field(15)?) as f64 / TICKS_PER_SECOND,
        threads: field(20)?,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * rustix::param::page_size() as u64,
        // The folder that is being read is open too.
        open_fds: fs::read_dir("/proc/self/fd").map_or(0, |fds| (fds.count() as u64).saturating_sub(1)),
        max_fds: files.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0),
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells() {
        let stats = read().unwrap();
        assert!(stats.resident_bytes > 1 << 20 && stats.virtual_bytes > stats.resident_bytes);
        assert!(stats.open_fds >= 3 && stats.max_fds >= stats.open_fds && stats.threads >= 1);
    }
}
