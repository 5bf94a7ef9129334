//! YAML files as users write them: every error names file, line and column.
//!
//! The only place that knows the YAML package. Rule files and the configuration come through here.

use crate::promql::duration::parse_duration;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A value together with the line and column where it stands.
pub use serde_saphyr::Spanned;

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// Line and column, from 1, where the fault has a place.
    pub position: Option<(u64, u64)>,
    /// What is wrong and, where it is not obvious, what to do.
    pub message: String,
}

impl FileError {
    /// A fault of the file as a whole.
    pub fn of_file(path: &Path, message: impl fmt::Display) -> FileError {
        FileError { path: path.to_owned(), position: None, message: message.to_string() }
    }

    /// A fault at a value of the file.
    pub fn at<T>(path: &Path, value: &Spanned<T>, message: impl fmt::Display) -> FileError {
        let (line, column) = (value.referenced.line(), value.referenced.column());
        let position = (line > 0).then_some((line, column));
        FileError { path: path.to_owned(), position, message: message.to_string() }
    }
}

/// `file:line:column: message`.
impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for FileError {}

/// The largest file that is read: some hundred thousand rules.
const MAX_FILE_BYTES: u64 = 32 << 20;

/// Who writes a file in its place is done with it if nothing changes for so long.
const SETTLES: Duration = Duration::from_millis(100);
/// How often a file is read that changes all the time.
const MAX_READS: usize = 20;

/// The text of the file at `path`. One that was written a moment ago is read again until it stays the same, for
/// half a file may well be valid.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    let (mut bytes, mut is_new) = read_bytes(path)?;
    for read in 1.. {
        if !is_new {
            break;
        }
        if read == MAX_READS {
            return Err(FileError::of_file(
                path,
                "it changes while it is read; load it again when it is whole",
            ));
        }
        std::thread::sleep(SETTLES);
        let before = bytes;
        (bytes, is_new) = read_bytes(path)?;
        if bytes == before {
            break;
        }
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        FileError::of_file(path, format!("not UTF-8: byte {at} of the file begins no character"))
    })
}

/// What the file holds, and whether it changed while it was read or just before.
fn read_bytes(path: &Path) -> Result<(Vec<u8>, bool), FileError> {
    let io_error = |e: std::io::Error| FileError::of_file(path, e);
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(io_error)?;
    (&file).take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io_error)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let limit = MAX_FILE_BYTES >> 20;
        return Err(FileError::of_file(
            path,
            format!("larger than {limit} MiB; split it into several files"),
        ));
    }
    // A time to come is one too, by a clock that was set back.
    let modified = file.metadata().and_then(|metadata| metadata.modified()).map_err(io_error)?;
    Ok((bytes, modified.elapsed().map_or(true, |age| age < SETTLES)))
}

/// Reads YAML text that came from the file at `path`.
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, FileError> {
    // A rule file of some ten thousand rules is legitimate; the default budget stops at a tenth.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: 5_000_000,
            max_events: 20_000_000,
        },
    };
    let text = if is_blank(text) { "{}" } else { text };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let error = error.without_snippet();
        let position = error.location().filter(|l| l.line() > 0).map(|l| (l.line(), l.column()));
        // Advice for programmers is of no use to the author of the file.
        let mut message = error.to_string().replace(", set DuplicateKeyPolicy in Options if acceptable", "");
        // The position stands before the message already.
        if let Some((line, column)) = position {
            for place in [
                format!(" at line {line}, column {column}"),
                format!("line {line} column {column}: "),
                format!(" at {line}:{column}"),
            ] {
                message = message.replacen(&place, "", 1);
            }
        }
        FileError { path: path.to_owned(), position, message }
    })
}

/// Whether YAML text says nothing.
pub fn is_blank(text: &str) -> bool {
    text.lines().all(|line| line.trim().is_empty() || line.starts_with('#') || line == "---")
}

/// A duration as Prometheus writes them, `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct PromDuration(pub Duration);

impl<'de> Deserialize<'de> for PromDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PromDuration, D::Error> {
        let text = String::deserialize(deserializer)?;
        let ms = parse_duration(&text).map_err(D::Error::custom)?;
        Ok(PromDuration(Duration::from_millis(ms.unsigned_abs())))
    }
}

/// Reads `key:` with nothing behind it as the default, as Prometheus does.
pub fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq, Default)]
    #[serde(deny_unknown_fields, default)]
    struct Example {
        #[serde(deserialize_with = "null_as_default")]
        names: Vec<String>,
        every: Option<PromDuration>,
        nested: Option<Box<Example>>,
    }

    fn error(text: &str) -> String {
        parse::<Example>(Path::new("a.yml"), text).unwrap_err().to_string()
    }

    #[test]
    fn faults_name_file_line_and_column() {
        let cases = [
            ("names: []\nnope: 1\n", "a.yml:2:1: unknown field `nope`, expected one of names, every, nested"),
            ("nested:\n  every: 1x\n", "a.yml:2:10: unknown unit \"x\" in duration \"1x\""),
            ("names: []\nnames: []\n", "a.yml:2:1: duplicate mapping key: names"),
        ];
        for (text, expected) in cases {
            assert_eq!(error(text), expected);
        }
        assert!(error("nested:\n\tevery: 1s\n").starts_with("a.yml:2:"), "a tab");
        assert!(error("names: [").starts_with("a.yml:1:"), "an open bracket");
    }

    #[test]
    fn a_file_that_is_too_large_is_refused_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.yml");
        std::fs::File::create(&path).unwrap().set_len(100 << 20).unwrap();
        let error = read_text(&path).unwrap_err().to_string();
        assert_eq!(error, format!("{}: larger than 32 MiB; split it into several files", path.display()));
    }

    #[test]
    fn a_file_that_is_written_in_its_place_is_read_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.yml");
        let texts = ["groups: []\n".repeat(1000), "# other\n".repeat(500)];
        std::fs::write(&path, &texts[0]).unwrap();
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // In two parts, with a moment between them in which the file is half.
                for text in texts.iter().cycle() {
                    if is_over.load(std::sync::atomic::Ordering::Relaxed) {
                        return;
                    }
                    let (first, second) = text.split_at(text.len() / 2);
                    std::fs::write(&path, first).unwrap();
                    std::thread::park_timeout(Duration::from_millis(30));
                    let mut file = std::fs::File::options().append(true).open(&path).unwrap();
                    std::io::Write::write_all(&mut file, second.as_bytes()).unwrap();
                    std::thread::park_timeout(Duration::from_millis(300));
                }
            });
            for _ in 0..5 {
                let text = read_text(&path);
                assert!(
                    text.is_err() || texts.contains(text.as_ref().unwrap()),
                    "{} bytes",
                    text.unwrap().len()
                );
            }
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let settled = read_text(&path).unwrap();
        assert!(texts.contains(&settled));
    }

    #[test]
    fn nothing_is_an_empty_mapping_and_null_a_default() {
        for text in ["", "# only a comment\n", "---\n", "names:\n"] {
            assert_eq!(parse::<Example>(Path::new("a.yml"), text), Ok(Example::default()), "{text:?}");
        }
    }
}
