//! The export: a plain copy of the whole store in one file of our own, to start from when sled's
//! files are damaged beyond repair.
//!
//! `LARUMST1`, then for every bucket: name; number of its commits; its entries as key, value; an
//! empty key at the end. An empty name ends the list. Numbers are varints, every text is a varint
//! length and bytes. Last the xxh3-64 of everything before, little endian.

use super::{COMMITS, commits_of};
use larum_storage_format::varint::{get_uvarint, put_uvarint};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 8] = b"LARUMST1";
/// The last of the magic's bytes, as a digit.
const VERSION: u8 = 1;
/// The name of the file in the store's folder.
pub const FILE: &str = "export";
const TEMPORARY: &str = "export.tmp";

/// The bytes of an export whose checksum and structure were found right.
#[derive(Default)]
pub struct Export {
    bytes: Vec<u8>,
}

/// One bucket of an export.
pub struct Bucket<'a> {
    pub name: &'a [u8],
    pub commits: u64,
    pub entries: Vec<(&'a [u8], &'a [u8])>,
}

/// Writes the export of `db` into `folder`, replacing the one before only when it is complete.
pub fn write(db: &sled::Db, folder: &Path) -> io::Result<()> {
    let bytes = encode(db).map_err(io::Error::other)?;
    let temporary = folder.join(TEMPORARY);
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    if let Err(e) = written {
        // On a full disk it would keep the little space there is.
        let _ = fs::remove_file(&temporary);
        return Err(e);
    }
    fs::rename(&temporary, folder.join(FILE))?;
    File::open(folder)?.sync_all()
}

impl Export {
    /// Reads the export in `folder`, if there is one.
    pub fn read(folder: &Path) -> io::Result<Option<Export>> {
        let bytes = match fs::read(folder.join(FILE)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        match decode(&bytes) {
            Some(_) => Ok(Some(Export { bytes })),
            None if version(&bytes).is_some_and(|version| version != VERSION) => {
                let found = version(&bytes).unwrap_or_default();
                let why = format!("format version {found}, this build reads version {VERSION}");
                Err(io::Error::new(io::ErrorKind::Unsupported, why))
            }
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "its checksum is wrong")),
        }
    }

    /// What is in it.
    pub fn buckets(&self) -> Vec<Bucket<'_>> {
        decode(&self.bytes).unwrap_or_default()
    }

    /// The first bucket of which `db` knows fewer commits than the export, so that it must have
    /// lost some.
    pub fn ahead_of(&self, db: &sled::Db) -> Result<Option<String>, sled::Error> {
        for bucket in self.buckets() {
            if commits_of(&db.open_tree(bucket.name)?)? < bucket.commits {
                return Ok(Some(String::from_utf8_lossy(bucket.name).into_owned()));
            }
        }
        Ok(None)
    }
}

/// The bytes of an export of `db`.
pub fn encode(db: &sled::Db) -> Result<Vec<u8>, sled::Error> {
    let mut writer = Writer::default();
    for name in db.tree_names() {
        let tree = db.open_tree(&name)?;
        // Read before the entries: a commit in between then makes the export look older than it is.
        writer.begin(&name, commits_of(&tree)?);
        for entry in &tree {
            let (key, value) = entry?;
            if key != COMMITS {
                writer.entry(&key, &value);
            }
        }
        writer.end();
    }
    Ok(writer.finish())
}

/// Writes an export, bucket by bucket.
pub struct Writer {
    bytes: Vec<u8>,
}

impl Default for Writer {
    fn default() -> Writer {
        Writer { bytes: MAGIC.to_vec() }
    }
}

impl Writer {
    /// Begins a bucket.
    pub fn begin(&mut self, name: &[u8], commits: u64) {
        self.text(name);
        put_uvarint(&mut self.bytes, commits);
    }

    /// An entry of the bucket.
    pub fn entry(&mut self, key: &[u8], value: &[u8]) {
        self.text(key);
        self.text(value);
    }

    /// Ends the bucket.
    pub fn end(&mut self) {
        self.text(b"");
    }

    /// The bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.text(b"");
        let checksum = xxh3_64(&self.bytes);
        self.bytes.extend_from_slice(&checksum.to_le_bytes());
        self.bytes
    }

    fn text(&mut self, text: &[u8]) {
        put_uvarint(&mut self.bytes, text.len() as u64);
        self.bytes.extend_from_slice(text);
    }
}

fn decode(bytes: &[u8]) -> Option<Vec<Bucket<'_>>> {
    let (body, checksum) = bytes.split_last_chunk::<8>()?;
    if xxh3_64(body) != u64::from_le_bytes(*checksum) {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut buckets = Vec::new();
    loop {
        let name = take_text(&mut rest)?;
        if name.is_empty() {
            return rest.is_empty().then_some(buckets);
        }
        let commits = take_number(&mut rest)?;
        let mut entries = Vec::new();
        loop {
            let key = take_text(&mut rest)?;
            if key.is_empty() {
                break;
            }
            entries.push((key, take_text(&mut rest)?));
        }
        buckets.push(Bucket { name, commits, entries });
    }
}

/// The version that an export of this or a newer program states, if its checksum is right.
fn version(bytes: &[u8]) -> Option<u8> {
    let (body, checksum) = bytes.split_last_chunk::<8>()?;
    let digit = body.strip_prefix(&MAGIC[..7])?.first()?;
    let is_right = xxh3_64(body) == u64::from_le_bytes(*checksum);
    digit.is_ascii_digit().then(|| digit - b'0').filter(|_| is_right)
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let (number, n) = get_uvarint(rest)?;
    *rest = rest.get(n..)?;
    Some(number)
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take_number(rest)?).ok()?;
    let (text, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_export_cut_or_changed_anywhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let db = sled::Config::new().path(folder.path().join("store")).open().unwrap();
        db.open_tree("a").unwrap().insert(b"key", b"value").unwrap();
        let bytes = encode(&db).unwrap();
        assert!(decode(&bytes).is_some());
        for at in 0..bytes.len() {
            assert!(decode(&bytes[..at]).is_none(), "cut at {at}");
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            assert!(decode(&changed).is_none(), "changed at {at}");
        }
    }

    proptest! {
        #[test]
        fn garbage_with_a_right_checksum_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = MAGIC.to_vec();
            bytes.extend(body);
            let checksum = xxh3_64(&bytes);
            bytes.extend_from_slice(&checksum.to_le_bytes());
            let _ = decode(&bytes);
        }
    }
}
