//! Start timestamps: when the counter or histogram of each sample began to count.
//!
//! The parameter of the head says how they are stored: 0, one for all samples; 1, that each
//! sample's is the timestamp of the sample before it, as delta temporality has it, the first given
//! in full; 2, an integer stream. 0 stands for "unknown".

use super::{KIND_BITS, KIND_ST};
use crate::cursor::{Cursor, DecodeError};
use crate::ints::{Packing, decode_ints, encode_ints};
use crate::varint::{put_uvarint, zigzag};

const CONSTANT: u8 = 0;
const PREVIOUS: u8 = 1;
const STREAM: u8 = 2;

/// Appends the start timestamps, if any is known.
///
/// # Panics
/// If there are some, but not one per timestamp.
pub(super) fn encode(timestamps: &[i64], starts: &[i64], packing: Packing, out: &mut Vec<u8>) {
    if starts.iter().all(|&st| st == 0) {
        return;
    }
    assert_eq!(timestamps.len(), starts.len(), "one start timestamp per timestamp");
    let how = if starts.iter().all(|&st| st == starts[0]) {
        CONSTANT
    } else if starts[1..].iter().zip(timestamps).all(|(st, previous)| st == previous) {
        PREVIOUS
    } else {
        STREAM
    };
    out.push(KIND_ST | how << KIND_BITS);
    match how {
        STREAM => encode_ints(starts, packing, out),
        _ => put_uvarint(out, zigzag(starts[0])),
    }
}

/// Reads what [`encode`] wrote; the cursor stands at its head.
pub(super) fn decode(
    cursor: &mut Cursor<'_>,
    timestamps: &[i64],
    out: &mut Vec<i64>,
) -> Result<(), DecodeError> {
    const WHAT: &str = "start timestamps";
    let start = cursor.clone();
    match cursor.u8(WHAT)? >> KIND_BITS {
        CONSTANT => {
            let st = cursor.ivarint(WHAT)?;
            out.resize(timestamps.len(), st);
        }
        PREVIOUS => {
            out.push(cursor.ivarint(WHAT)?);
            out.extend_from_slice(&timestamps[..timestamps.len() - 1]);
        }
        STREAM => decode_ints(cursor, timestamps.len(), out)?,
        _ => return Err(start.corrupt(WHAT, "unknown parameter")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{ChunkValues, Packing, decode_chunk, encode_chunk};

    #[test]
    fn start_timestamps_come_back_and_the_usual_ones_take_few_bytes() {
        let timestamps: Vec<i64> = (1..=100).map(|i| 1_790_000_000_000 + 15_000 * i + i * i % 5).collect();
        let values = vec![1.0; 100];
        let previous: Vec<i64> =
            std::iter::once(1_790_000_000_000).chain(timestamps[..99].iter().copied()).collect();
        let mut restart = vec![1_700_000_000_000; 100];
        restart[60..].fill(1_790_000_500_000);
        let mut unknown = vec![0; 100];
        unknown[50] = -7;
        let cases =
            [(vec![], 0), (vec![1_700_000_000_000; 100], 7), (previous, 7), (restart, 25), (unknown, 20)];
        for (starts, most) in cases {
            let mut bytes = Vec::new();
            encode_chunk(&timestamps, ChunkValues::Floats(&values), &starts, Packing::FAST, &mut bytes);
            assert!(bytes.len() <= most + 2, "{} bytes for {starts:?}", bytes.len());
            let decoded = decode_chunk(&bytes, &timestamps).unwrap();
            assert_eq!(decoded.start_timestamps, starts);
            assert_eq!(decoded.floats, values);
            for cut in 0..bytes.len() {
                assert!(decode_chunk(&bytes[..cut], &timestamps).is_err());
            }
        }
    }

    #[test]
    fn start_timestamps_stand_once_and_aliases_are_named() {
        let twice = [5, 2, 5, 2, 8, 0];
        assert!(decode_chunk(&twice, &[1]).unwrap_err().to_string().contains("twice"));
        assert!(decode_chunk(&[7, 0, 0], &[1]).unwrap_err().to_string().contains("alias"));
    }
}
