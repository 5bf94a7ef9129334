//! The memory of the process as the system sees it: how much it may have, by its control group or the
//! machine; how much it holds; and giving back what is free. The library asks nothing of this by itself.

use std::fs;
use std::path::Path;

/// What the system allows the process, in bytes: the lowest limit of its control groups (version 1 or
/// 2), or the machine's memory if that is less. `None` where it cannot be told.
pub fn memory_bytes() -> Option<u64> {
    in_tree(Path::new("/"))
}

/// As [`memory_bytes`], with `/proc` and `/sys` below `root`.
fn in_tree(root: &Path) -> Option<u64> {
    let read = |path: &str| fs::read_to_string(root.join(path.trim_start_matches('/'))).ok();
    let machine = read("/proc/meminfo").and_then(|text| machine_bytes(&text));
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|file| limit_bytes(&read(&file)?));
    limits.chain(machine).min()
}

/// `MemTotal` of `/proc/meminfo`.
fn machine_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The files that may limit a process, by its `/proc/self/cgroup`: those of its groups and of all above
/// them. In a container the path may not be visible; then the root of what is mounted is its group.
fn limit_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (mount, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|c| c == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            files.push(format!("{mount}{path}/{file}"));
            let Some((above, _)) = path.rsplit_once('/') else { break };
            path = above;
        }
    }
    files
}

/// The limit in such a file; `None` if it is `max`, or so large that version 1 means none by it.
fn limit_bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|&bytes| bytes < 1 << 60)
}

/// What the process holds of memory of its own, in bytes: without mapped files, which the system takes
/// back when it needs to. `None` elsewhere than on Linux.
pub fn held_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    held_pages(&statm).map(|pages| pages * rustix::param::page_size() as u64)
}

/// All resident pages but those of files (proc(5): size, resident, shared).
fn held_pages(statm: &str) -> Option<u64> {
    let mut fields = statm.split_whitespace().skip(1).map(str::parse::<u64>);
    let (resident, shared) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some(resident.saturating_sub(shared))
}

/// Gives memory that is free again back to the system. To be called after work that took much memory for a while. The allocator of glibc keeps what was
/// freed below an allocation that lives on; after a cut that is most of what the generation took.
/// Who allocates waits meanwhile, up to some 15 ms for each 10 MiB in small pieces.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: the signature is that of glibc's malloc.h, and it may be called at any time from
        // any thread. Where another allocator is in use, it finds nothing to give back.
        unsafe { malloc_trim(0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn the_lowest_limit_counts() {
        const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:        1024 kB\nMemFree: 5 kB\n");
        const V2: (&str, &str) = ("proc/self/cgroup", "0::/system.slice/larum.service\n");
        const V1: (&str, &str) = ("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/docker/x\n0::/\n");
        type Files<'a> = &'a [(&'a str, &'a str)];
        let cases: [(Files<'_>, Option<u64>, &str); 9] = [
            (&[], None, "nothing is known"),
            (&[MEMINFO], Some(1 << 20), "no groups"),
            (&[MEMINFO, V2], Some(1 << 20), "no limit"),
            (
                &[MEMINFO, V2, ("sys/fs/cgroup/system.slice/larum.service/memory.max", "4096\n")],
                Some(4096),
                "version 2",
            ),
            (
                &[MEMINFO, V2, ("sys/fs/cgroup/system.slice/memory.max", "8192\n")],
                Some(8192),
                "of a group above",
            ),
            (
                &[
                    MEMINFO,
                    V2,
                    ("sys/fs/cgroup/system.slice/larum.service/memory.max", "max\n"),
                    ("sys/fs/cgroup/memory.max", "9000\n"),
                ],
                Some(9000),
                "in a container",
            ),
            (
                &[MEMINFO, V1, ("sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "5000\n")],
                Some(5000),
                "version 1",
            ),
            (
                &[MEMINFO, V1, ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")],
                Some(1 << 20),
                "version 1 without a limit",
            ),
            (&[MEMINFO, V2, ("sys/fs/cgroup/memory.max", "2097152\n")], Some(1 << 20), "more than there is"),
        ];
        for (files, expected, what) in cases {
            assert_eq!(in_tree(tree(files).path()), expected, "{what}");
        }
    }

    #[test]
    fn mapped_files_are_not_held() {
        assert_eq!(held_pages("1000 500 120 3 0 77 0\n"), Some(380));
        assert_eq!(held_pages("1000"), None);
    }
}
