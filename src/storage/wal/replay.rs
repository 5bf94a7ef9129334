//! Reading the log at start.
//!
//! Every frame whose checksums are right counts, in the order of generations and segments. Bytes
//! at the end of a generation that are no frame are what a crash leaves of a write that nobody was
//! told about; they are dropped. Bytes that are no frame before others that are, are damage: it is
//! reported, and what follows is read nevertheless. What a removed segment left in blocks that are
//! used again counts as no frame, and as no header.
//!
//! One thread reads, checks and decodes frames, the caller's takes them in their order. Few
//! decoded frames are under way at a time, in buffers that go back and forth.

use super::segment::SegmentName;
use crate::storage::error::OpenError;
use crate::storage::fs::Fs;
use crossbeam::channel::{Receiver, Sender, bounded};
use larum_storage_format::wal::frame::Found;
use larum_storage_format::wal::{Contents, Frames, SegmentHeader};
use larum_storage_format::{DecodeError, DecodeErrorKind, IdentitySeed};
use std::io;
use std::path::{Path, PathBuf};

/// So many frames are decoded ahead of the one that is taken.
const AHEAD: usize = 3;
/// So many damaged places are reported one by one.
const REPORTED_MAX: usize = 64;

/// The segments to be replayed.
#[derive(Debug)]
pub(crate) struct Segments {
    dir: PathBuf,
    /// Ascending.
    names: Vec<SegmentName>,
    first_generation: u64,
}

/// What could not be read.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// Torn ends: the file, where its last frame ends, and how many bytes follow. One for each
    /// generation at most.
    torn: Vec<(PathBuf, usize, usize)>,
    /// The first damaged places.
    damaged: Vec<(PathBuf, usize, usize, Damage)>,
    /// How many more there are.
    more: usize,
}

#[derive(Debug)]
enum Damage {
    /// Bytes that are no frame.
    Bytes,
    /// A header, and what is wrong with it. The frames behind it were read.
    Header(String),
    /// An intact frame that is none of ours.
    Senseless(DecodeError),
}

impl Segments {
    /// Lists the segments in `dir` from `first_generation` on, and removes those before it unread.
    pub fn find(fs: &dyn Fs, dir: &Path, first_generation: u64) -> Result<Segments, OpenError> {
        let at_dir = |source: io::Error| OpenError::Io { path: dir.to_owned(), source };
        super::remove_before(fs, dir, first_generation).map_err(at_dir)?;
        let names = fs.list(dir).map_err(at_dir)?;
        let ours = names.iter().filter_map(|name| SegmentName::parse(name));
        // Who only looks removes nothing.
        let mut names: Vec<SegmentName> = ours.filter(|n| n.generation >= first_generation).collect();
        names.sort_unstable();
        Ok(Segments { dir: dir.to_owned(), names, first_generation })
    }

    /// The segments' files.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.names.iter().map(|name| name.path(&self.dir))
    }

    /// The number of the generation that comes after all that was found.
    pub fn next_generation(&self) -> u64 {
        self.names.last().map_or(self.first_generation, |last| last.generation.saturating_add(1))
    }

    /// Reads all segments, hands the contents of each frame to `put` with its generation, and
    /// returns what could not be read.
    ///
    /// # Errors
    /// If a segment cannot be read, belongs to another folder or is of another version.
    pub fn read(
        &self,
        fs: &dyn Fs,
        seed: IdentitySeed,
        mut put: impl FnMut(u64, &Contents),
    ) -> Result<Losses, OpenError> {
        if self.names.is_empty() {
            return Ok(Losses::default());
        }
        let (decoded, to_put) = bounded(AHEAD);
        let (put_back, spare) = bounded(AHEAD);
        for _ in 0..AHEAD {
            put_back.send(Contents::default()).expect("there is room for so many");
        }
        std::thread::scope(|scope| {
            // Ends with the closure, so that the reader does not wait for ever if `put` panics.
            let put_back = put_back;
            let losses = Losses::default();
            let reader = Reader { segments: self, fs, seed, decoded, spare, buffer: None, losses };
            let reader = std::thread::Builder::new()
                .name("larum-wal-read".to_owned())
                .spawn_scoped(scope, || reader.run())
                .map_err(|source| OpenError::Io { path: self.dir.clone(), source })?;
            for (generation, contents) in to_put {
                put(generation, &contents);
                // Nobody takes it back once the last frame is read.
                let _ = put_back.send(contents);
            }
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// The thread that reads ahead.
struct Reader<'a> {
    segments: &'a Segments,
    fs: &'a dyn Fs,
    seed: IdentitySeed,
    decoded: Sender<(u64, Contents)>,
    spare: Receiver<Contents>,
    /// To be filled next.
    buffer: Option<Contents>,
    losses: Losses,
}

impl Reader<'_> {
    fn run(mut self) -> Result<Losses, OpenError> {
        let names = &self.segments.names;
        let mut bytes = Vec::new();
        for (at, &name) in names.iter().enumerate() {
            let path = name.path(&self.segments.dir);
            let read = self.fs.read_into(&path, &mut bytes);
            read.map_err(|source| OpenError::Io { path: path.clone(), source })?;
            let ends_generation = names.get(at + 1).is_none_or(|next| next.generation != name.generation);
            let own = name.header(self.seed);
            self.check_header(&path, &bytes, own, ends_generation)?;
            if !self.read_frames(own, &path, &bytes, ends_generation) {
                break;
            }
        }
        Ok(self.losses)
    }

    /// Compares the header of a segment with its `own`: what its name and the folder tell.
    fn check_header(
        &mut self,
        path: &Path,
        bytes: &[u8],
        own: SegmentHeader,
        ends_generation: bool,
    ) -> Result<(), OpenError> {
        let wrong = match SegmentHeader::decode(bytes) {
            Ok(header) if header == own => return Ok(()),
            Ok(other) => {
                // What is before the first generation is in partitions, and its blocks are free.
                let is_needed = other.seed != own.seed || other.generation >= self.segments.first_generation;
                if is_needed && !has_frame(bytes, own) && has_frame(bytes, other) {
                    return Err(of_another_name(path, other, own));
                }
                "it is that of another segment".to_owned()
            }
            Err(DecodeError { kind: DecodeErrorKind::Version { found, known }, .. }) => {
                return Err(OpenError::Version { path: path.to_owned(), found, supported: known });
            }
            Err(error) => error.to_string(),
        };
        // Else it was being made, and no frame in it was synced: its header is a part of the torn end.
        if !ends_generation || has_frame(bytes, own) {
            let len = SegmentHeader::BYTES.min(bytes.len());
            self.losses.damaged(path, 0, len, Damage::Header(wrong));
        }
        Ok(())
    }

    /// Tells whether somebody still wants frames.
    fn read_frames(&mut self, own: SegmentHeader, path: &Path, bytes: &[u8], ends_generation: bool) -> bool {
        for found in Frames::new(bytes, own) {
            match found {
                Found::Frame { offset, payload } => {
                    let Some(mut contents) = self.buffer.take().or_else(|| self.spare.recv().ok()) else {
                        return false;
                    };
                    if let Err(error) = contents.decode(payload) {
                        self.buffer = Some(contents);
                        self.losses.damaged(path, offset, payload.len(), Damage::Senseless(error));
                    } else if self.decoded.send((own.generation, contents)).is_err() {
                        return false;
                    }
                }
                Found::Tail { offset, len } if ends_generation => {
                    self.losses.torn.push((path.to_owned(), offset, len));
                }
                Found::Tail { offset, len } | Found::Damage { offset, len } => {
                    self.losses.damaged(path, offset, len, Damage::Bytes);
                }
            }
        }
        true
    }
}

fn has_frame(segment: &[u8], header: SegmentHeader) -> bool {
    Frames::new(segment, header).any(|found| matches!(found, Found::Frame { .. }))
}

fn of_another_name(path: &Path, header: SegmentHeader, own: SegmentHeader) -> OpenError {
    let what = match header.seed == own.seed {
        true => "the WAL segment was renamed (its header and its frames are of other numbers)",
        false => "the WAL segment belongs to another data folder (its identity seed differs)",
    };
    OpenError::Damaged { path: path.to_owned(), what: what.to_owned() }
}

impl Losses {
    fn damaged(&mut self, path: &Path, offset: usize, len: usize, damage: Damage) {
        if self.damaged.len() < REPORTED_MAX {
            self.damaged.push((path.to_owned(), offset, len, damage));
        } else {
            self.more += 1;
        }
    }

    /// The damaged places that were kept: file, offset, and what is wrong there.
    pub fn places(&self) -> impl Iterator<Item = (&Path, u64, String)> {
        self.damaged.iter().map(|(path, offset, bytes, damage)| {
            let what = match damage {
                Damage::Bytes => format!("{bytes} bytes are no frame"),
                Damage::Header(error) => error.to_string(),
                Damage::Senseless(error) => format!("a frame of {bytes} bytes makes no sense: {error}"),
            };
            (&**path, *offset as u64, what)
        })
    }

    /// How many damaged places there are beyond those that were kept.
    pub fn more_places(&self) -> usize {
        self.more
    }

    /// Says what was lost.
    pub fn report(&self) {
        for (path, offset, bytes, damage) in &self.damaged {
            let file = path.display();
            match damage {
                Damage::Bytes => {
                    tracing::warn!(%file, offset, bytes, "the WAL is damaged; the samples in these bytes are lost");
                }
                Damage::Header(error) => {
                    tracing::warn!(%file, %error, "the header of a WAL segment is damaged; the frames behind it are read nevertheless");
                }
                Damage::Senseless(error) => {
                    tracing::warn!(%file, offset, bytes, %error, "a WAL frame is intact but makes no sense; its samples are lost");
                }
            }
        }
        if self.more > 0 {
            tracing::warn!(places = self.more, "the WAL is damaged in more places");
        }
        for (path, offset, bytes) in &self.torn {
            tracing::warn!(file = %path.display(), offset, bytes, "dropped the torn end of the WAL: a write that was not acknowledged");
        }
    }

    /// Removes torn ends, so that the next start does not meet them again.
    pub fn remove_torn(&self, fs: &dyn Fs) {
        for (path, offset, _) in &self.torn {
            if let Err(error) = fs.truncate(path, *offset as u64) {
                tracing::warn!(%error, "the torn end of the WAL stays until the head is cut");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fs::RealFs;
    use larum_storage_format::wal::frame::{FRAME_PREFIX_BYTES, measure, seal};
    use larum_storage_format::wal::{FrameEncoder, SeriesDeclaration};
    use larum_storage_format::{Labels, SeriesId};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::ops::Range;

    const SEED: IdentitySeed = IdentitySeed(7);

    fn sealed(encoder: &mut FrameEncoder, header: SegmentHeader) -> &[u8] {
        let frame = encoder.finish().unwrap();
        seal(frame, header);
        frame
    }

    /// A log in memory.
    #[derive(Debug, Clone, Default)]
    struct Log {
        segments: BTreeMap<SegmentName, Vec<u8>>,
        /// Where each frame lies; its number is the first value in it.
        frames: Vec<(SegmentName, Range<usize>)>,
    }

    impl Log {
        /// A segment for each list of frames, which tells how many samples each has; a new generation
        /// begins where it is told so.
        fn new(shape: &[(bool, Vec<usize>)]) -> Log {
            let mut log = Log::default();
            let mut encoder = FrameEncoder::default();
            let mut name = SegmentName { generation: 1, segment: 0 };
            for (begins_generation, frames) in shape {
                if *begins_generation {
                    name = SegmentName { generation: name.generation + 1, segment: 0 };
                }
                let header = name.header(SEED);
                let mut bytes = header.encode().to_vec();
                for &samples in frames {
                    let values = vec![log.frames.len() as f64; samples];
                    encoder.clear();
                    encoder.samples(&vec![3; samples], &vec![5; samples], &values);
                    let start = bytes.len();
                    bytes.extend_from_slice(sealed(&mut encoder, header));
                    log.frames.push((name, start..bytes.len()));
                }
                log.segments.insert(name, bytes);
                name.segment += 1;
            }
            log
        }

        fn write(&self, dir: &Path) {
            for (name, bytes) in &self.segments {
                std::fs::write(name.path(dir), bytes).unwrap();
            }
        }

        /// The frames that are in `damaged` as they are here.
        fn intact_in(&self, damaged: &Log) -> Vec<usize> {
            let is_intact = |(name, range): &(SegmentName, Range<usize>)| {
                damaged.segments[name].get(range.clone()) == Some(&self.segments[name][range.clone()])
            };
            (0..self.frames.len()).filter(|&i| is_intact(&self.frames[i])).collect()
        }
    }

    fn read(dir: &Path) -> (Vec<usize>, Losses) {
        let mut found = Vec::new();
        let segments = Segments::find(&RealFs, dir, 0).unwrap();
        let losses = segments.read(&RealFs, SEED, |_, contents| found.push(contents.values[0] as usize));
        (found, losses.unwrap())
    }

    #[derive(Debug, Clone)]
    enum Harm {
        Flip(u8),
        Zero(usize),
        Cut,
        /// Zeros behind the end, as a file system may leave after a power cut.
        Lengthen(usize),
    }

    fn harm() -> impl Strategy<Value = Harm> {
        prop_oneof![
            4 => (0u8..8).prop_map(Harm::Flip),
            1 => (1usize..200).prop_map(Harm::Zero),
            2 => Just(Harm::Cut),
            1 => (1usize..100).prop_map(Harm::Lengthen),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

        #[test]
        fn every_intact_frame_of_a_damaged_log_is_found_in_order_and_torn_ends_are_met_once(
            shape in proptest::collection::vec((any::<bool>(), proptest::collection::vec(1usize..30, 0..6)), 1..6),
            harms in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), harm()), 0..5),
        ) {
            let log = Log::new(&shape);
            let mut damaged = log.clone();
            for (segment, at, harm) in &harms {
                let names: Vec<SegmentName> = damaged.segments.keys().copied().collect();
                let bytes = damaged.segments.get_mut(segment.get(&names)).unwrap();
                let at = at.index(bytes.len() + 1).min(bytes.len());
                match harm {
                    Harm::Flip(bit) => bytes[at..].iter_mut().take(1).for_each(|byte| *byte ^= 1 << bit),
                    Harm::Zero(len) => bytes[at..].iter_mut().take(*len).for_each(|byte| *byte = 0),
                    Harm::Cut => bytes.truncate(at),
                    Harm::Lengthen(len) => bytes.resize(bytes.len() + len, 0),
                }
            }
            let dir = tempfile::tempdir().unwrap();
            damaged.write(dir.path());
            let expected = log.intact_in(&damaged);

            let (found, losses) = read(dir.path());
            prop_assert_eq!(&found, &expected);
            if damaged.segments == log.segments {
                prop_assert!(losses.torn.is_empty() && losses.damaged.is_empty());
            }
            losses.report();
            losses.remove_torn(&RealFs);
            let (found, again) = read(dir.path());
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(again.torn.len(), 0);
            prop_assert_eq!(again.damaged.len(), losses.damaged.len());
        }
    }

    #[test]
    fn a_panic_of_who_takes_the_frames_ends_the_reading() {
        let log = Log::new(&[(false, vec![1; 50])]);
        let dir = tempfile::tempdir().unwrap();
        log.write(dir.path());
        let (ends, ended) = std::sync::mpsc::channel();
        let path = dir.path().to_owned();
        std::thread::spawn(move || {
            let segments = Segments::find(&RealFs, &path, 0).unwrap();
            let read = || segments.read(&RealFs, SEED, |_, _| panic!("on purpose"));
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).is_err();
            ends.send(panicked).unwrap();
        });
        assert_eq!(ended.recv_timeout(std::time::Duration::from_secs(10)), Ok(true));
    }

    #[test]
    fn many_damaged_places_are_counted_not_listed() {
        let mut log = Log::new(&[(false, vec![1; 300])]);
        for (name, range) in log.frames.clone().iter().step_by(2) {
            log.segments.get_mut(name).unwrap()[range.end - 1] ^= 1;
        }
        let dir = tempfile::tempdir().unwrap();
        log.write(dir.path());
        let (found, losses) = read(dir.path());
        assert_eq!(found.len(), 150);
        assert_eq!((losses.damaged.len(), losses.more), (REPORTED_MAX, 150 - REPORTED_MAX));
    }

    #[test]
    fn intact_frames_that_make_no_sense_do_not_stop_the_reading() {
        let mut log = Log::new(&[(false, vec![2; 12])]);
        for (name, range) in log.frames.clone().iter().take(10) {
            let frame = &mut log.segments.get_mut(name).unwrap()[range.clone()];
            frame[FRAME_PREFIX_BYTES] ^= 0xff;
            measure(frame);
            seal(frame, name.header(SEED));
        }
        let dir = tempfile::tempdir().unwrap();
        log.write(dir.path());
        let (found, losses) = read(dir.path());
        assert_eq!(found, [10, 11]);
        assert_eq!(losses.damaged.len(), 10);
    }

    /// Reads a log of one segment, of which the generations before the first are in partitions. Gives
    /// how many frames there were, what was lost, and how many torn ends the next start meets.
    fn read_one(
        first_generation: u64,
        name: SegmentName,
        bytes: &[u8],
    ) -> Result<(usize, Losses, usize), OpenError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(name.path(dir.path()), bytes).unwrap();
        let segments = Segments::find(&RealFs, dir.path(), first_generation).unwrap();
        let mut frames = 0;
        let losses = segments.read(&RealFs, SEED, |_, _| frames += 1)?;
        losses.remove_torn(&RealFs);
        let again = segments.read(&RealFs, SEED, |_, _| {}).unwrap();
        Ok((frames, losses, again.torn.len()))
    }

    #[test]
    fn what_lay_in_reused_blocks_before_is_what_a_crash_leaves() {
        const HEADER: usize = SegmentHeader::BYTES;
        let segment = |log: Log| log.segments.into_iter().next().unwrap();
        let (old_name, old) = segment(Log::new(&[(false, vec![1; 3])]));
        let (name, own) = segment(Log::new(&[(true, vec![1])]));
        assert!(old_name.generation == 1 && name.generation == 2);

        // Behind a frame, and at a place where the next would be.
        let behind = [&own, &old[own.len()..]].concat();
        let (frames, losses, again) = read_one(2, name, &behind).unwrap();
        assert_eq!((frames, losses.damaged.len(), again), (1, 0, 0));
        assert_eq!((losses.torn[0].1, losses.torn[0].2), (own.len(), old.len() - own.len()));

        // All of it.
        let (frames, losses, again) = read_one(2, name, &old).unwrap();
        assert_eq!((frames, losses.damaged.len(), losses.torn[0].1, again), (0, 0, HEADER, 0));

        // In the place of the header.
        let before = [&old[..HEADER], &own[HEADER..]].concat();
        let (frames, losses, _) = read_one(2, name, &before).unwrap();
        assert_eq!((frames, losses.torn.len()), (1, 0));
        assert!(matches!(&losses.damaged[..], [(_, 0, HEADER, Damage::Header(_))]), "{losses:?}");
    }

    #[test]
    fn a_segment_under_another_name_is_refused_unless_it_is_empty_or_not_needed() {
        let (old_name, bytes) = Log::new(&[(false, vec![1; 3])]).segments.into_iter().next().unwrap();
        let name = SegmentName { generation: 2, ..old_name };
        let refused = read_one(1, name, &bytes).err().unwrap();
        assert!(refused.to_string().contains("renamed"), "{refused}");
        for (first_generation, bytes) in [(2, &bytes[..]), (1, &bytes[..SegmentHeader::BYTES])] {
            assert_eq!(read_one(first_generation, name, bytes).unwrap().0, 0);
        }
    }

    #[test]
    fn a_frame_that_a_sender_wrote_into_a_label_is_not_replayed() {
        // The sender knows the format and the numbers, but not the seed of the folder.
        let header = SegmentHeader { seed: SEED, generation: 1, segment: 0 };
        let guess = SegmentHeader { seed: IdentitySeed(0), ..header };
        let mut encoder = FrameEncoder::default();
        let mut tries = (0..64).flat_map(|series| (0..64).map(move |t| (series, t)));
        let forged = tries.find_map(|(series, t)| {
            encoder.clear();
            encoder.samples(&[series], &[t], &[2.0]);
            String::from_utf8(sealed(&mut encoder, guess).to_vec()).ok()
        });
        let forged = forged.expect("one in about 250 frames is text");
        let labels = Labels::from_pairs([("__name__", "m"), ("evil", &forged)]).unwrap();
        let id = SeriesId::of(&labels, SEED);
        encoder.clear();
        encoder.series([SeriesDeclaration { series: 0, id, group: 0, labels }].iter());
        let carrier = sealed(&mut encoder, header).to_vec();
        encoder.clear();
        encoder.samples(&[3], &[5], &[7.0]);
        let whole = [&header.encode()[..], &carrier, sealed(&mut encoder, header)].concat();
        let met = |found: Found<'_>| matches!(found, Found::Frame { payload, .. } if forged.as_bytes().ends_with(payload));
        assert!(Frames::new(&whole, guess).any(met), "a right guess would do");

        for at in SegmentHeader::BYTES..SegmentHeader::BYTES + carrier.len() {
            let mut log = Log::default();
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            log.segments.insert(SegmentName { generation: 1, segment: 0 }, damaged);
            let dir = tempfile::tempdir().unwrap();
            log.write(dir.path());
            let (found, losses) = read(dir.path());
            assert_eq!((found, losses.damaged.len()), (vec![7], 1), "flipped at {at}");
        }
    }
}
