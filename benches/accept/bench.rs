//! Runs a bench of this package and reads its rows (`benches/support`).

use std::path::Path;
use std::process::{Command, Stdio};

/// The command that runs `bench`, for a person.
pub fn command(bench: &str) -> String {
    format!("cargo bench --bench {bench}")
}

/// Runs `bench`, a `quick` one with less data where it knows that; gives names and figures of its rows.
pub fn run(bench: &str, quick: bool) -> Result<Vec<(String, f64)>, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["bench", "--quiet", "--bench", bench])
        .envs(quick.then_some(("LARUM_BENCH_QUICK", "1")))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cargo does not start: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    eprint!("{text}");
    if !output.status.success() {
        return Err(format!("{} ended with {}", command(bench), output.status));
    }
    Ok(text.lines().filter_map(row).collect())
}

/// The name and the figure of a line that is a row: `name  figure unit`.
fn row(line: &str) -> Option<(String, f64)> {
    let (rest, _unit) = line.trim_end().rsplit_once(' ')?;
    let (name, figure) = rest.trim_end().rsplit_once(' ')?;
    Some((name.trim().to_owned(), figure.parse().ok()?))
}
