//! Runs the load generator of `../shared/judge`, which takes a server from an empty folder to a report.

use crate::server::Server;
use crate::support;
use larum_storage_format::partition::PartitionHeader;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Names of partition sections that hold labels; the others hold timestamps and values, and where
/// they are. VictoriaMetrics keeps the former in `indexdb`, the latter in `data`.
const LABEL_SECTIONS: [&str; 3] = ["SYMBOLS", "SERIES", "POSTINGS"];

/// A data set: how the generator is told to make it.
#[derive(Debug, PartialEq)]
pub struct Set {
    /// For a person.
    pub name: &'static str,
    /// Arguments of `judge gen`.
    pub full: &'static str,
    /// The same with --quick.
    pub quick: &'static str,
    /// Phases that a peer goes through once, for all runs of the set.
    pub peer_phases: &'static str,
}

/// What is done to a server.
#[derive(Debug, PartialEq)]
pub struct Run {
    /// The data it is loaded with.
    pub set: Set,
    /// Phases of `judge run`, for Larum.
    pub phases: &'static str,
}

impl Run {
    /// What is done to `server`.
    fn phases_of(&self, server: Server) -> &'static str {
        if server == Server::Larum { self.phases } else { self.set.peer_phases }
    }

    /// Whether the result of this run has all that `other` would give.
    pub fn stands_for(&self, other: &Run, server: Server) -> bool {
        self.set == other.set && self.phases_of(server) == other.phases_of(server)
    }
}

/// Which number of a run's result a row shows.
#[derive(Debug, Clone, Copy)]
pub enum Figure {
    /// The one at a JSON pointer, times a factor.
    At(&'static str, f64),
    /// Bytes a sample of the files that hold timestamps and values, once merged, without the index of labels.
    DataBytes,
    /// Bytes a sample of the whole data folder, once merged.
    FolderBytes,
    /// The median time of the query of this name, in milliseconds; result caches are passed by.
    Query(&'static str),
}

impl Figure {
    /// The figure of `server` in the result of a run.
    pub fn of(self, result: &Value, server: Server) -> Option<f64> {
        let at = |pointer: &str| result.pointer(pointer).and_then(Value::as_f64);
        match (self, server) {
            (Figure::At(pointer, factor), _) => Some(at(pointer)? * factor),
            (Figure::DataBytes, Server::Larum) => {
                let sections = result.get("partition_sections")?.as_object()?;
                let data = sections.iter().filter(|(name, _)| !LABEL_SECTIONS.contains(&name.as_str()));
                Some(data.filter_map(|(_, bytes)| bytes.as_f64()).sum::<f64>() / at("/load/samples")?)
            }
            (Figure::DataBytes, Server::VictoriaMetrics) => {
                Some(at("/disk_after_force/by_dir/data")? / at("/load/samples")?)
            }
            // Prometheus cannot be told to merge: its blocks count, by the samples in them.
            (Figure::DataBytes, Server::Prometheus) => {
                let blocks = "/disk_after_settle/blocks";
                Some(at(&format!("{blocks}/chunk_bytes"))? / at(&format!("{blocks}/samples"))?)
            }
            (Figure::FolderBytes, Server::Prometheus) => at("/disk_after_settle/block_bytes_per_sample"),
            (Figure::FolderBytes, _) => at("/disk_after_force/bytes_per_sample"),
            (Figure::Query(name), _) => {
                let query = queries(result)?.iter().find(|query| query["name"] == name)?;
                query["p50_ms"].as_f64().filter(|_| query["error"].is_null() && query["status"] == 200)
            }
        }
    }
}

/// What came of the queries of a run, without a cache where the server can do without.
fn queries(result: &Value) -> Option<&Vec<Value>> {
    let variants = result.get("query")?;
    variants.get("nocache").or(variants.get("default"))?.as_array()
}

/// How many queries of a run have another answer than in `other`, by the digests of both; `None` if one of
/// them was not asked all that the other was.
pub fn different_answers(result: &Value, other: &Value) -> Option<usize> {
    let (ours, theirs) = (queries(result)?, queries(other)?);
    let same = |one: &Value, other: &Value| {
        let parts = ["series", "points", "labels_hash", "values_hash"];
        one["error"].is_null() && parts.iter().all(|part| one["digest"][part] == other["digest"][part])
    };
    let mut different = 0;
    for one in ours {
        let other = theirs.iter().find(|other| other["name"] == one["name"])?;
        if !same(one, other) {
            eprintln!(
                "accept: NOTICE: {}: {} and {} answer differently: {one:#} {other:#}",
                one["name"], result["target"], other["target"]
            );
            different += 1;
        }
    }
    (ours.len() == theirs.len()).then_some(different)
}

/// The load generator.
pub struct Judge {
    program: PathBuf,
    folder: PathBuf,
    quick: bool,
}

impl Judge {
    /// Takes the program that is `built` already, or builds it; data goes to `folder`.
    pub fn bring(built: Option<&Path>, folder: &Path, quick: bool) -> Result<Judge, String> {
        if !targets().is_dir() {
            return Err(format!("there is no {}", targets().display()));
        }
        let program = match built {
            Some(program) => program.to_owned(),
            None => build()?,
        };
        Ok(Judge { program: absolute(&program)?, folder: absolute(folder)?, quick })
    }

    /// Runs a server through the phases of `run`, from an empty folder.
    pub fn run(&self, run: &Run, server: Server) -> Result<Value, String> {
        let set = self.data_set(&run.set)?;
        let (work, out) = (self.folder.join("servers"), self.folder.join("result.json"));
        let mut command = Command::new(&self.program);
        command.args(["run", "--keep", "--phases", run.phases_of(server)]);
        command.arg("--target").arg(targets().join(format!("{}.toml", server.target())));
        command.arg("--bin").arg(absolute(&server.program())?);
        command.arg("--port").arg(support::free_port().to_string());
        if run.phases.contains("query") {
            // What Larum stores about itself would be among the labels that are compared.
            command.env("LARUM_RULES_SELF_MONITORING", "false");
        }
        command.arg("--file").arg(set).arg("--work").arg(&work).arg("--out").arg(&out);
        let folder = work.join(server.target());
        if let Err(error) = finish(&mut command) {
            let log = fs::read_to_string(folder.join("server.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
            return Err(error);
        }
        let result = fs::read(&out).map_err(|e| format!("{}: {e}", out.display()))?;
        let mut result: Value =
            serde_json::from_slice(&result).map_err(|e| format!("{}: {e}", out.display()))?;
        if server == Server::Larum {
            let sections = partition_sections(&folder.join("data/partitions"));
            result["partition_sections"] = json!(sections.map_err(|e| format!("partitions: {e}"))?);
        }
        if let Some(refused) = result.pointer("/load/rejected_samples").and_then(Value::as_u64)
            && refused > 0
        {
            eprintln!(
                "accept: NOTICE: {server:?} refused {refused} samples: {}",
                result["load"]["first_error"]
            );
        }
        fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(result)
    }

    /// Sends a data set to the server at `url`, so many samples a second or as fast as they are taken; gives
    /// what came of it.
    pub fn load(&self, file: &Path, url: &str, samples_a_second: Option<i64>) -> Result<Value, String> {
        let mut command = Command::new(&self.program);
        command.arg("load").arg("--file").arg(file).arg("--url").arg(format!("{url}/api/v1/write"));
        if let Some(rate) = samples_a_second {
            command.arg("--rate").arg(rate.to_string());
        }
        let output = command.stderr(Stdio::inherit()).output();
        let output = output.map_err(|e| format!("{} does not start: {e}", self.program.display()))?;
        if !output.status.success() {
            return Err(format!("{} load ended with {}", self.program.display(), output.status));
        }
        serde_json::from_slice(&output.stdout).map_err(|e| format!("what came of the load: {e}"))
    }

    /// The file of a data set, made on first use.
    fn data_set(&self, set: &Set) -> Result<PathBuf, String> {
        self.generated(if self.quick { set.quick } else { set.full })
    }

    /// The file that the generator makes when told so, made on first use.
    pub fn generated(&self, arguments: &str) -> Result<PathBuf, String> {
        let file = self.folder.join(format!("{}.bin", arguments.replace([' ', '-'], "")));
        if !file.exists() {
            let partial = file.with_extension("partial");
            finish(
                Command::new(&self.program).arg("gen").args(arguments.split(' ')).arg("--out").arg(&partial),
            )?;
            for suffix in ["", ".json"] {
                let renamed = |path: &Path| format!("{}{suffix}", path.display());
                fs::rename(renamed(&partial), renamed(&file))
                    .map_err(|e| format!("{}: {e}", file.display()))?;
            }
        }
        Ok(file)
    }
}

/// The commands that repeat a run, for a person.
pub fn command(run: &Run, quick: bool) -> String {
    format!(
        "judge gen {} --out SET; judge run --phases {} (peers: {}) --target ../shared/judge/targets/SERVER.toml \
         --bin PROGRAM --file SET --work FOLDER --out RESULT.json",
        if quick { run.set.quick } else { run.set.full },
        run.phases,
        run.set.peer_phases,
    )
}

fn targets() -> PathBuf {
    Path::new(ROOT).join("../shared/judge/targets")
}

/// Builds the load generator from a copy of its source in the user's cache folder: its own folder
/// may be read-only, and nothing of it belongs into this repository. Only the first time takes long.
fn build() -> Result<PathBuf, String> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let copy = cache.ok_or("set HOME or give --judge")?.join("larum-accept/judge");
    fs::create_dir_all(&copy).map_err(|e| format!("{}: {e}", copy.display()))?;
    let source = Path::new(ROOT).join("../shared/judge");
    finish(
        Command::new("cp").arg("-rp").args(["Cargo.toml", "src"].map(|name| source.join(name))).arg(&copy),
    )?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = copy.join("Cargo.toml");
    let flags = ["build", "--release", "--quiet", "--manifest-path"].map(OsStr::new);
    finish(Command::new(cargo).args(flags).arg(manifest).arg("--target-dir").arg(copy.join("target")))?;
    Ok(copy.join("target/release/judge"))
}

/// Runs a command to its end. What it prints goes to standard error: standard output is the table's.
fn finish(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.stdout(std::io::stderr()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{name} ended with {status}")),
        Err(error) => Err(format!("{name} does not start: {error}")),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    fs::canonicalize(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Bytes of each section, over all partitions in `folder`.
fn partition_sections(folder: &Path) -> Result<BTreeMap<&'static str, u64>, String> {
    let mut bytes = BTreeMap::new();
    let Ok(entries) = fs::read_dir(folder) else { return Ok(bytes) };
    for entry in entries {
        let path = entry.map_err(|e| e.to_string())?.path();
        if path.extension() != Some(OsStr::new("part")) {
            continue;
        }
        let mut start = Vec::new();
        let file = fs::File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        file.take(1 << 20).read_to_end(&mut start).map_err(|e| format!("{}: {e}", path.display()))?;
        let header = PartitionHeader::decode(&start).map_err(|e| format!("{}: {e}", path.display()))?;
        for (name, section_bytes) in header.section_bytes() {
            *bytes.entry(name).or_default() += section_bytes;
        }
    }
    Ok(bytes)
}
