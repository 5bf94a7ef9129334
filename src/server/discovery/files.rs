//! Targets from files (`file_sd_configs`), which are read again as they change. A file that cannot
//! be read leaves its last good targets in force.

use super::TargetGroup;
use crate::rules::glob;
use crate::yaml::{self, FileError};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The label that says from which file a target is.
const FILE_LABEL: &str = "__meta_filepath";

/// One of `file_sd_configs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSdConfig {
    /// Files, or patterns of their names.
    pub files: Vec<PathBuf>,
    /// Files are read again after this time, even if they look the same.
    pub refresh_interval: Duration,
}

/// What is known of all files.
#[derive(Debug, Default)]
pub struct TargetFiles {
    known: BTreeMap<PathBuf, Known>,
    read_errors: u64,
}

#[derive(Debug)]
struct Known {
    groups: Vec<TargetGroup>,
    stamp: Option<Stamp>,
    read_at: Instant,
}

/// Changes whenever a file does, or nearly so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified_s: i64,
    modified_ns: i64,
    bytes: u64,
    inode: u64,
}

impl TargetFiles {
    /// Reads what is new, looks changed, or was not read for a `refresh_interval`, and forgets what is
    /// gone. Whether there are other targets now.
    pub fn refresh(&mut self, configs: &[FileSdConfig], now: Instant) -> bool {
        let mut changed = false;
        let mut before = std::mem::take(&mut self.known);
        for config in configs {
            for path in config.files.iter().flat_map(|pattern| glob::expand(pattern)) {
                if self.known.contains_key(&path) {
                    continue;
                }
                let old = before.remove(&path);
                let stamp = match std::fs::metadata(&path) {
                    Ok(found) => Some(Stamp {
                        modified_s: found.mtime(),
                        modified_ns: found.mtime_nsec(),
                        bytes: found.len(),
                        inode: found.ino(),
                    }),
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        changed |= old.is_some();
                        continue;
                    }
                    Err(_) => None,
                };
                let is_due = |old: &Known| {
                    old.stamp != stamp
                        || now.saturating_duration_since(old.read_at) >= config.refresh_interval
                };
                let known = match old {
                    Some(old) if !is_due(&old) => old,
                    old => {
                        let before = old.map_or_else(Vec::new, |old| old.groups);
                        let groups = match read(&path) {
                            Ok(groups) => groups,
                            Err(error) => {
                                self.read_errors += 1;
                                tracing::error!("{error}; the targets that this file had before stay");
                                before.clone()
                            }
                        };
                        changed |= groups != before;
                        Known { groups, stamp, read_at: now }
                    }
                };
                self.known.insert(path, known);
            }
        }
        changed |= before.values().any(|gone| !gone.groups.is_empty());
        changed
    }

    /// The targets of these files, as they were last read.
    pub fn groups(&self, config: &FileSdConfig) -> Vec<TargetGroup> {
        let paths = config.files.iter().flat_map(|pattern| glob::expand(pattern));
        let known = paths.filter_map(|path| self.known.get(&path));
        known.flat_map(|known| known.groups.iter().cloned()).collect()
    }

    /// How often a file could not be read (`prometheus_sd_file_read_errors_total`).
    pub fn read_errors(&self) -> u64 {
        self.read_errors
    }

    /// The files and when they were changed, in seconds since the epoch
    /// (`prometheus_sd_file_mtime_seconds`).
    pub fn modified(&self) -> Vec<(String, f64)> {
        let stamps = self.known.iter().filter_map(|(path, known)| Some((path, known.stamp?)));
        stamps.map(|(path, stamp)| (path.display().to_string(), stamp.modified_s as f64)).collect()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupSection {
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// The targets in the file at `path`: JSON or, by its name, YAML.
fn read(path: &Path) -> Result<Vec<TargetGroup>, FileError> {
    let text = yaml::read_text(path)?;
    let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let sections: Vec<GroupSection> = match is_json {
        true => serde_json::from_str(&text).map_err(|error| json_error(path, &error))?,
        // Nothing is no targets, but no mapping either.
        false if yaml::is_blank(&text) => Vec::new(),
        false => yaml::parse(path, &text)?,
    };
    let groups = sections.into_iter().map(|section| {
        let mut labels = section.labels.unwrap_or_default();
        labels.insert(FILE_LABEL.to_owned(), path.display().to_string());
        TargetGroup { targets: section.targets, labels }
    });
    Ok(groups.collect())
}

fn json_error(path: &Path, error: &serde_json::Error) -> FileError {
    let (line, column) = (error.line() as u64, error.column() as u64);
    let message = error.to_string().replace(&format!(" at line {line} column {column}"), "");
    FileError { path: path.to_owned(), position: (line > 0).then_some((line, column.max(1))), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Folder {
            Folder(tempfile::tempdir().unwrap())
        }

        /// Replaces a file as careful programs do.
        fn write(&self, name: &str, text: &str) {
            let new = self.0.path().join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, self.0.path().join(name)).unwrap();
        }

        fn config(&self, pattern: &str) -> FileSdConfig {
            FileSdConfig {
                files: vec![self.0.path().join(pattern)],
                refresh_interval: Duration::from_secs(300),
            }
        }
    }

    fn targets(files: &TargetFiles, config: &FileSdConfig) -> Vec<String> {
        files.groups(config).into_iter().flat_map(|group| group.targets).collect()
    }

    #[test]
    fn targets_are_read_from_json_and_yaml_with_their_labels() {
        let folder = Folder::new();
        folder
            .write("a.json", r#"[{"targets": ["one:1", "two:2"], "labels": {"dc": "x"}}, {"targets": []}]"#);
        folder.write("b.yml", "- targets: ['three:3']\n- targets: ['four:4']\n  labels:\n");
        folder.write("c.yaml", "# nobody\n");
        let config = folder.config("*.[jy]*");
        let mut files = TargetFiles::default();
        assert!(files.refresh(std::slice::from_ref(&config), Instant::now()));
        assert_eq!(targets(&files, &config), ["one:1", "two:2", "three:3", "four:4"]);
        let labels = &files.groups(&config)[0].labels;
        assert_eq!(labels["dc"], "x");
        assert!(labels[FILE_LABEL].ends_with("/a.json"), "{labels:?}");
        assert_eq!((files.read_errors(), files.modified().len()), (0, 3));
    }

    #[test]
    fn a_broken_file_keeps_its_last_good_targets_and_is_counted_once_a_change() {
        let folder = Folder::new();
        folder.write("a.yml", "- targets: ['one:1']\n");
        let configs = [folder.config("a.yml")];
        let now = Instant::now();
        let mut files = TargetFiles::default();
        assert!(files.refresh(&configs, now));
        assert!(!files.refresh(&configs, now), "nothing has changed");
        folder.write("a.yml", "- targetz: ['two:2']\n");
        for _ in 0..2 {
            assert!(!files.refresh(&configs, now));
            assert_eq!((targets(&files, &configs[0]), files.read_errors()), (vec!["one:1".to_owned()], 1));
        }
        folder.write("a.yml", "- targets: ['two:2']\n");
        assert!(files.refresh(&configs, now));
        assert_eq!(targets(&files, &configs[0]), ["two:2"]);
        std::fs::remove_file(folder.0.path().join("a.yml")).unwrap();
        assert!(files.refresh(&configs, now), "a file that is gone has no targets");
        assert!(targets(&files, &configs[0]).is_empty());
        assert_eq!(files.read_errors(), 1);
    }

    #[test]
    fn a_file_is_read_again_after_the_interval_even_if_it_looks_the_same() {
        let folder = Folder::new();
        folder.write("a.json", "[");
        let configs = [folder.config("a.json")];
        let now = Instant::now();
        let mut files = TargetFiles::default();
        files.refresh(&configs, now);
        files.refresh(&configs, now + Duration::from_secs(299));
        assert_eq!(files.read_errors(), 1);
        files.refresh(&configs, now + Duration::from_secs(300));
        assert_eq!(files.read_errors(), 2);
    }

    #[test]
    fn faults_name_file_line_and_column() {
        let folder = Folder::new();
        for (name, text, expected) in [
            (
                "a.json",
                "[\n {\"targets\": 5}]",
                "a.json:2:14: invalid type: integer `5`, expected a sequence",
            ),
            (
                "a.json",
                "[{\"target\": []}]",
                "a.json:1:10: unknown field `target`, expected `targets` or `labels`",
            ),
            ("a.json", "", "a.json:1:1: EOF while parsing a value"),
            ("a.yml", "- targets: []\n- labels: 5\n", "a.yml:2:11: "),
            ("a.yml", "targets: []\n", "a.yml:1:1: "),
        ] {
            folder.write(name, text);
            let error = read(&folder.0.path().join(name)).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?} gave {error}, not {expected}");
        }
    }
}
