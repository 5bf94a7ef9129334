//! The list of what a backup holds, as text that people can read:
//!
//! ```text
//! larum backup 1
//! created 1700000000000
//! 8d0b...  4096 partitions/0000000001.part
//! end 5f3c...
//! ```
//!
//! Per file its xxh3-128, its length and its path; at the end the xxh3-64 of everything before.

use crate::storage::time::Timestamp;
use std::fmt::Write;
use xxhash_rust::xxh3::xxh3_64;

const FIRST_LINE: &str = "larum backup 1";

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// When it was taken.
    pub created: Timestamp,
    /// Its files.
    pub files: Vec<ContentFile>,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentFile {
    /// Where it lies in the backup.
    pub path: String,
    /// What its bytes are known by.
    pub digest: Digest,
}

/// What bytes are known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// How many they are.
    pub byte_len: u64,
    /// Their xxh3-128.
    pub xxh3: u128,
}

impl Contents {
    /// How many bytes the files have together.
    pub fn byte_len(&self) -> u64 {
        self.files.iter().map(|file| file.digest.byte_len).sum()
    }

    /// The file at this path.
    pub(super) fn find(&self, path: &str) -> Option<&ContentFile> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The text of the list.
    pub(super) fn encode(&self) -> String {
        let mut text = format!("{FIRST_LINE}\ncreated {}\n", self.created.as_millis());
        for ContentFile { path, digest } in &self.files {
            let _ = writeln!(text, "{:032x} {} {path}", digest.xxh3, digest.byte_len);
        }
        let checksum = xxh3_64(text.as_bytes());
        let _ = writeln!(text, "end {checksum:016x}");
        text
    }

    /// Reads a list.
    pub(super) fn decode(bytes: &[u8]) -> Result<Contents, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "the list of contents is damaged")?;
        let version = text.lines().next().unwrap_or_default();
        if version != FIRST_LINE && version.starts_with("larum backup ") {
            return Err(format!("{version:?} is of another version, this build reads {FIRST_LINE:?}"));
        }
        let intact = text.rsplit_once("end ").filter(|(before, checksum)| {
            u64::from_str_radix(checksum.trim_end(), 16) == Ok(xxh3_64(before.as_bytes()))
        });
        let (before, _) = intact.ok_or("the list of contents is damaged")?;
        let mut lines = before.lines().skip(1);
        let created = lines.next().and_then(|line| line.strip_prefix("created ")?.parse().ok());
        let files: Option<Vec<ContentFile>> = lines.map(file).collect();
        match (created, files) {
            (Some(created), Some(files)) => Ok(Contents { created: Timestamp::from_millis(created), files }),
            _ => Err("the list of contents makes no sense".to_owned()),
        }
    }
}

fn file(line: &str) -> Option<ContentFile> {
    let (xxh3, rest) = line.split_once(' ')?;
    let (byte_len, path) = rest.split_once(' ')?;
    // Nothing outside of the backup.
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return None;
    }
    let digest = Digest { byte_len: byte_len.parse().ok()?, xxh3: u128::from_str_radix(xxh3, 16).ok()? };
    Some(ContentFile { path: path.to_owned(), digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(path: &str) -> Contents {
        let digest = Digest { byte_len: 4096, xxh3: 7 << 100 };
        Contents {
            created: Timestamp::from_millis(1_700_000_000_000),
            files: vec![ContentFile { path: path.to_owned(), digest }],
        }
    }

    #[test]
    fn a_list_comes_back_and_none_that_was_cut_or_changed() {
        let list = contents("partitions/0000000001.part");
        let text = list.encode();
        assert_eq!(Contents::decode(text.as_bytes()), Ok(list));
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            assert!(at == text.len() - 1 || Contents::decode(&changed).is_err(), "changed at {at}");
            assert!(at == text.len() - 1 || Contents::decode(&text.as_bytes()[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_list_of_another_version_says_so_and_none_leads_outside() {
        let later = contents("MANIFEST").encode().replace(FIRST_LINE, "larum backup 2");
        assert!(Contents::decode(later.as_bytes()).unwrap_err().contains("another version"));
        for outside in ["../x", "/etc/passwd", "a/../../b", ""] {
            assert!(Contents::decode(contents(outside).encode().as_bytes()).is_err(), "{outside}");
        }
    }
}
