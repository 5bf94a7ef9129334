//! Parts of a benchmark that run in processes of their own, so that each starts as a server would.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// What a child is told to do, by the variable of this name.
const TASK: &str = "LARUM_BENCH_TASK";

/// What this process is to do, if it is a child: the task's words.
pub fn task() -> Option<Vec<String>> {
    let task = std::env::var(TASK).ok()?;
    Some(task.split(' ').map(str::to_owned).collect())
}

/// Runs this program with a task and a folder, and returns the figures of the line that it prints: a word,
/// then figures. Then it is killed, unless it `ends` by itself.
pub fn run(task: &str, path: &Path, ends: bool) -> Vec<f64> {
    let mut child = Command::new(std::env::current_exe().expect("this program has a path"))
        .env(TASK, task)
        .arg(path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("this program runs again");
    let out = BufReader::new(child.stdout.take().expect("it was asked for"));
    let line = out.lines().next().expect("the child prints a line").expect("it is text");
    if !ends {
        child.kill().expect("the child is ours");
    }
    child.wait().expect("the child is ours");
    line.split(' ').skip(1).map(|word| word.parse().expect("it is a figure")).collect()
}

/// Anonymous resident memory of this process, in MB; 0 where the system does not tell.
pub fn memory_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kb = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kb.unwrap_or(0.0) / 1e3
}
