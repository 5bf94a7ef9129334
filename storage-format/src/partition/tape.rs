//! Tapes: what a writer must remember to the end, written once and then read once from the start.
//!
//! The index of a partition cannot be written before the last chunk is. Of a few series it fits
//! memory; of millions it does not, and tapes go on in temporary files, which the caller brings.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::Arc;

/// Where bytes are put aside that do not fit memory.
pub trait Spill: fmt::Debug + Send + Sync {
    /// Opens a temporary file, to be appended to.
    ///
    /// # Errors
    /// Those of the file system.
    fn create(&self) -> io::Result<Box<dyn SpillFile>>;
}

/// A temporary file. Nothing is left of it once it, or what was read from it, is dropped.
pub trait SpillFile: fmt::Debug + Send + Sync {
    /// Appends all of `bytes`.
    ///
    /// # Errors
    /// Those of the file system.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// All that was appended: a mapped file, say.
    ///
    /// # Errors
    /// Those of the file system.
    fn read(self: Box<Self>) -> io::Result<Box<dyn AsRef<[u8]> + Send + Sync>>;
}

/// Where tapes go on when they do not fit memory, and how long each may be in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spool {
    spill: Option<(Arc<dyn Spill>, usize)>,
}

impl Spool {
    /// Tapes of which each keeps `bytes` in memory.
    pub(crate) fn new(spill: Arc<dyn Spill>, bytes: usize) -> Spool {
        Spool { spill: Some((spill, bytes.max(4096))) }
    }

    /// An empty tape.
    pub(crate) fn tape(&self) -> Tape {
        Tape { spool: self.clone(), memory: Vec::new(), file: None, len: 0 }
    }
}

/// Bytes under way.
#[derive(Debug)]
pub(crate) struct Tape {
    spool: Spool,
    /// What is not in the file yet.
    memory: Vec<u8>,
    file: Option<Box<dyn SpillFile>>,
    len: u64,
}

impl Tape {
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.len += bytes.len() as u64;
        if let Some((spill, most)) = &self.spool.spill
            && self.memory.len() + bytes.len() > *most
        {
            let file = match &mut self.file {
                Some(file) => file,
                None => self.file.insert(spill.create()?),
            };
            file.append(&self.memory)?;
            self.memory.clear();
            if bytes.len() > *most {
                return file.append(bytes);
            }
        }
        self.memory.extend_from_slice(bytes);
        Ok(())
    }

    pub(crate) fn append_words(&mut self, words: &[u32]) -> io::Result<()> {
        words.iter().try_for_each(|word| self.append(&word.to_le_bytes()))
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Rewinds the tape.
    pub(crate) fn finish(mut self) -> io::Result<Wound> {
        match self.file.take() {
            None => Ok(Wound(Content::Memory(self.memory))),
            Some(mut file) => {
                file.append(&self.memory)?;
                Ok(Wound(Content::File(file.read()?)))
            }
        }
    }
}

/// A tape to be read.
pub struct Wound(Content);

enum Content {
    Memory(Vec<u8>),
    File(Box<dyn AsRef<[u8]> + Send + Sync>),
}

impl Deref for Wound {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Content::Memory(bytes) => bytes,
            Content::File(bytes) => (**bytes).as_ref(),
        }
    }
}

impl fmt::Debug for Wound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

/// The little-endian words of a tape.
pub(crate) fn words(tape: &[u8]) -> impl ExactSizeIterator<Item = u32> + Clone + '_ {
    tape.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes))
}

/// The words of a tape, three by three.
pub(crate) fn triples(tape: &[u8]) -> impl ExactSizeIterator<Item = [u32; 3]> + Clone + '_ {
    let word = |[a, b, c, d]: [u8; 4]| u32::from_le_bytes([a, b, c, d]);
    let three = move |&[a, b, c, d, e, f, g, h, i, j, k, l]: &[u8; 12]| {
        [word([a, b, c, d]), word([e, f, g, h]), word([i, j, k, l])]
    };
    tape.as_chunks().0.iter().map(three)
}
