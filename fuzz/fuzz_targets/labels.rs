//! Any bytes are a canonical label set or an error, and a set built from its own labels is the same.
#![no_main]

use larum_storage_format::{IdentitySeed, Labels, SeriesId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(labels) = Labels::from_canonical_bytes(bytes) else { return };
    let again = Labels::from_pairs(labels.iter()).expect("canonical labels are labels");
    assert_eq!(again.as_bytes(), bytes);
    let seed = IdentitySeed(1);
    assert_eq!(SeriesId::of(&labels, seed), SeriesId::of(&again, seed));
    let _ = labels.to_string();
});
