//! Any bytes decode to so many integers or to an error; any integers come back; any sections give
//! ascending timestamps or errors.
#![no_main]

use larum_storage_format::Cursor;
use larum_storage_format::ints::{Packing, decode_ints, encode_ints};
use larum_storage_format::timestamps::{MAX_CHUNK_SAMPLES, TimestampReader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((n, bytes)) = input.split_first_chunk::<2>() else { return };
    let n = usize::from(u16::from_le_bytes(*n)) % MAX_CHUNK_SAMPLES;
    let mut out = Vec::new();
    if decode_ints(&mut Cursor::new(bytes), n, &mut out).is_ok() {
        assert_eq!(out.len(), n);
    }

    let values: Vec<i64> = bytes.as_chunks::<8>().0.iter().map(|word| i64::from_le_bytes(*word)).collect();
    let mut encoded = Vec::new();
    encode_ints(&values, Packing { huffman_saving_percent: 0, huffman_from: 0, ..Packing::KEPT }, &mut encoded);
    out.clear();
    decode_ints(&mut Cursor::new(&encoded), values.len(), &mut out).expect("what was encoded decodes");
    assert_eq!(out, values);

    let Some((directory, rest)) = bytes.split_first_chunk::<16>() else { return };
    let Some((slices, columns)) = rest.split_first_chunk::<16>() else { return };
    let reader = TimestampReader::new(columns, &directory[..], &slices[..]).expect("whole entries");
    for number in 0..2 {
        let Ok(slice) = reader.slice(number) else { continue };
        let mut column = Vec::new();
        if reader.decode_column(slice.column, &mut column).is_ok() {
            assert!(column.is_sorted());
            assert!(column.len() >= usize::from(slice.start) + usize::from(slice.len));
        }
    }
});
