//! The WAL's hex examples in FORMAT.md are what this crate writes and reads.

use larum_storage_format::wal::frame::{FRAME_PREFIX_BYTES, Found, seal};
use larum_storage_format::wal::{Contents, FrameEncoder, Frames, SegmentHeader, SeriesDeclaration};
use larum_storage_format::{IdentitySeed, Labels, SeriesId};

const HEADER: SegmentHeader = SegmentHeader { seed: IdentitySeed(7), generation: 3, segment: 1 };

fn example(name: &str) -> Vec<u8> {
    let document = include_str!("../FORMAT.md");
    let begin = format!("```hex {name}\n");
    let start = document.find(&begin).unwrap_or_else(|| panic!("no example {name}")) + begin.len();
    let lines = document[start..].lines().take_while(|line| *line != "```");
    lines
        .flat_map(|line| line.split(';').next().unwrap_or("").split_whitespace())
        .map(|byte| u8::from_str_radix(byte, 16).unwrap_or_else(|_| panic!("{name}: {byte:?}")))
        .collect()
}

fn declaration() -> SeriesDeclaration {
    let labels = Labels::from_pairs([("__name__", "up"), ("job", "api")]).unwrap();
    SeriesDeclaration { series: 0, id: SeriesId::of(&labels, IdentitySeed(7)), group: 0, labels }
}

#[test]
fn the_header_is_as_specified() {
    assert_eq!(example("wal-header"), HEADER.encode(), "{:02x?}", HEADER.encode());
    assert_eq!(SegmentHeader::decode(&example("wal-header")), Ok(HEADER));
}

#[test]
fn the_frame_is_as_specified() {
    let mut encoder = FrameEncoder::default();
    encoder.series([declaration()].iter());
    encoder.samples(&[0], &[60_000], &[1.5]);
    let frame = encoder.finish().unwrap();
    seal(frame, HEADER);
    assert_eq!(example("wal-frame"), frame, "{frame:02x?}");

    let segment = [HEADER.encode().as_slice(), frame].concat();
    let found: Vec<Found<'_>> = Frames::new(&segment, HEADER).collect();
    let payload = &frame[FRAME_PREFIX_BYTES..];
    assert_eq!(found, [Found::Frame { offset: SegmentHeader::BYTES, payload }]);
    let mut contents = Contents::default();
    contents.decode(payload).unwrap();
    assert_eq!((&contents.series[..], &contents.refs[..]), (&[declaration()][..], &[0][..]));
    assert_eq!((&contents.timestamps[..], &contents.values[..]), (&[60_000][..], &[1.5][..]));
}
