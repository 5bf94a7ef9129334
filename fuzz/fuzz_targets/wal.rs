//! Any bytes are a WAL segment of frames, damage and a torn end; any payload is records or an error.
#![no_main]

use larum_storage_format::IdentitySeed;
use larum_storage_format::wal::frame::Found;
use larum_storage_format::wal::{Contents, Frames, SegmentHeader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let other = SegmentHeader { seed: IdentitySeed(7), generation: 3, segment: 1 };
    let header = SegmentHeader::decode(input).unwrap_or(other);
    let mut contents = Contents::default();
    let mut end = SegmentHeader::BYTES.min(input.len());
    for found in Frames::new(input, header) {
        let (offset, len) = match found {
            Found::Frame { offset, payload } => {
                let _ = contents.decode(payload);
                (offset, 12 + payload.len())
            }
            Found::Damage { offset, len } | Found::Tail { offset, len } => (offset, len),
        };
        assert_eq!(offset, end, "nothing is skipped and nothing seen twice");
        end = offset + len;
    }
    assert_eq!(end, input.len());

    // The fuzzer hardly finds checksums: the input is a payload too, and one that is not packed.
    let _ = contents.decode(input);
    let packed = snap::raw::Encoder::new().compress_vec(input).expect("inputs are below 4 GiB");
    if contents.decode(&packed).is_ok() {
        let samples = contents.refs.len();
        assert!(contents.timestamps.len() == samples && contents.values.len() == samples);
        assert!(contents.histograms.iter().all(|(at, _)| (*at as usize) < samples));
        assert!(contents.start_timestamps.iter().all(|(at, _)| (*at as usize) < samples));
    }
});
