//! Any bytes are a MANIFEST, tombstones or metadata, or an error; what decodes, encodes to the same.
#![no_main]

use larum_storage_format::Cursor;
use larum_storage_format::manifest::{MANIFEST_MAGIC, Manifest};
use larum_storage_format::metadata::MetricMetadata;
use larum_storage_format::tombstones::{TOMBSTONES_MAGIC, Tombstones};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Ok(manifest) = Manifest::decode(&framed(MANIFEST_MAGIC, body)) {
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
    }
    if let Ok(tombstones) = Tombstones::decode(&framed(TOMBSTONES_MAGIC, body)) {
        assert_eq!(Tombstones::decode(&tombstones.encode()), Ok(tombstones));
    }
    let _ = Manifest::decode(body);
    if let Ok(metadata) = MetricMetadata::decode(&mut Cursor::new(body)) {
        let mut again = Vec::new();
        metadata.encode(&mut again);
        assert_eq!(MetricMetadata::decode(&mut Cursor::new(&again)), Ok(metadata));
    }
});

/// The frame of the small files around a body, as FORMAT.md has it.
fn framed(magic: &[u8; 8], body: &[u8]) -> Vec<u8> {
    let mut file = magic.to_vec();
    file.extend_from_slice(&1u32.to_le_bytes());
    file.extend_from_slice(&(body.len() as u32).to_le_bytes());
    file.extend_from_slice(body);
    let crc = larum_storage_format::checksum::crc32c(&file);
    file.extend_from_slice(&crc.to_le_bytes());
    file
}
