//! The frame of the small files (MANIFEST, tombstones): magic, version, length, body, checksum.
//!
//! Reading goes through two types: [`Unverified`] knows that the bytes claim to be the expected
//! kind of file in a known version; only [`Unverified::verify`] gives the body away.

use crate::FORMAT_VERSION;
use crate::checksum::{check_crc32c, crc32c};
use crate::cursor::{Cursor, DecodeError, DecodeErrorKind};

/// Length of what stands before the body: magic, version, length of the body.
const PREFIX_BYTES: usize = 8 + 4 + 4;

/// Puts `body` into a frame.
///
/// # Panics
/// If the body is 4 GiB or longer; the files framed here are kilobytes.
pub(crate) fn seal(magic: &[u8; 8], body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("the body of a small file is below 4 GiB");
    let mut out = Vec::with_capacity(PREFIX_BYTES + body.len() + 4);
    out.extend_from_slice(magic);
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(body);
    out.extend_from_slice(&crc32c(&out).to_le_bytes());
    out
}

/// A framed file whose magic and version are right and whose checksum nobody has looked at.
#[derive(Debug)]
pub(crate) struct Unverified<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Unverified<'a> {
    /// Checks magic and version, so that a file of another kind or of a newer version is called
    /// that and not damaged.
    pub(crate) fn open(bytes: &'a [u8], magic: &[u8; 8], what: &'static str) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(bytes);
        check_magic_and_version(&mut cursor, magic, what, bytes)?;
        Ok(Unverified { bytes, what })
    }

    /// Checks length and checksum; the cursor stands at the start of the body and ends with it.
    pub(crate) fn verify(self) -> Result<Cursor<'a>, DecodeError> {
        let what = self.what;
        let mut cursor = Cursor::new(self.bytes);
        cursor.take(12, what)?;
        let len = cursor.u32(what)? as usize;
        let body = cursor.take(len, what)?;
        let stored = cursor.u32(what)?;
        cursor.finish(what)?;
        check_crc32c(&self.bytes[..PREFIX_BYTES + len], stored, 0, what)?;
        Ok(Cursor::with_base(body, PREFIX_BYTES))
    }
}

/// Reads `magic | u32 version` at the start of `frame`, which a checksum ends, and refuses any other.
pub(crate) fn check_magic_and_version(
    cursor: &mut Cursor<'_>,
    magic: &[u8; 8],
    what: &'static str,
    frame: &[u8],
) -> Result<(), DecodeError> {
    let start = cursor.clone();
    if cursor.take(magic.len(), what)? != magic {
        return Err(start.error(what, DecodeErrorKind::Magic));
    }
    match cursor.u32(what)? {
        FORMAT_VERSION => Ok(()),
        _ if is_changed(frame) => Err(start.corrupt(what, "the version is not the one that was written")),
        found => Err(start.error(what, DecodeErrorKind::Version { found, known: FORMAT_VERSION })),
    }
}

/// Whether the checksum of a frame is right if it is of this version: then it says another because of
/// damage, and not because a newer program wrote it.
fn is_changed(frame: &[u8]) -> bool {
    let Some((content, stored)) = frame.split_last_chunk::<4>() else { return false };
    let mut content = content.to_vec();
    let Some(version) = content.get_mut(8..12) else { return false };
    version.copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    crc32c(&content) == u32::from_le_bytes(*stored)
}
