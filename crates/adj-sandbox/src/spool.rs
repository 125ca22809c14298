//! What a supervisor remembers about its calls, so that a caller that crashed can learn what became of them.
//!
//! One folder per supervisor: `sock`, `lock` (held while somebody lives there), `plan`, and `log`, to which records are only ever appended.
//! A record is written with one call of the kernel before anything it announces happens; a torn last record counts as not written.
//! Must not know: what calls mean.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::frame::MAX_BODY_BYTES;
use crate::limits::Reached;
use crate::sys;

const MAGIC: [u8; 4] = *b"adj1";
/// Magic, kind, length of the name, length of the body, and a short sum of these.
const HEAD_BYTES: usize = 12;
const SUM_BYTES: usize = 8;

/// What became of an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It was answered; this is the reply.
    Done(Vec<u8>),
    /// It was started and ended without an answer.
    Failed(Failure),
    /// A living supervisor is at it: `call` again to wait for it.
    Running,
    /// It has certainly not happened.
    NotStarted,
    /// It was started, or may have been, and nobody can say how it ended.
    Unknown,
}

/// How a call that was started ended without a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    #[error("the worker died")]
    WorkerDied,
    #[error("the call took longer than the limit")]
    TimedOut,
    #[error("the supervisor was told to stop")]
    Stopped,
    #[error("a limit was reached: {0}")]
    LimitReached(Reached),
}

/// Whether a name can be an effect's: up to 128 letters, digits, `_` and `-`.
pub(crate) fn is_effect_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum RecordKind {
    /// A supervisor began; the body is the kernel's boot id.
    Began = 1,
    Started = 2,
    Replied = 3,
    /// The body is a [`Failure`].
    Failed = 4,
}

impl RecordKind {
    fn from_byte(byte: u8) -> Option<RecordKind> {
        [RecordKind::Began, RecordKind::Started, RecordKind::Replied, RecordKind::Failed]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// A record's place in the log.
#[derive(Debug, Clone, Copy)]
struct Place {
    kind: RecordKind,
    offset: u64,
    name_bytes: u8,
    body_bytes: u32,
}

impl Place {
    fn end(self) -> u64 {
        self.offset + HEAD_BYTES as u64 + u64::from(self.name_bytes) + u64::from(self.body_bytes) + SUM_BYTES as u64
    }
}

/// What is known of one effect.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Started by the supervisor that began last.
    is_recent: bool,
    end: Option<Place>,
}

/// What a log says when it is read from its start.
#[derive(Debug, Default)]
struct Contents {
    effects: HashMap<String, Known>,
    boots: Vec<String>,
    /// Where the last whole record ends.
    length: u64,
}

impl Contents {
    fn read(log: &mut File) -> io::Result<Contents> {
        let mut contents = Contents::default();
        let total = log.metadata()?.len();
        while let Some((place, name)) = read_head(log, contents.length, total)? {
            match place.kind {
                RecordKind::Began => {
                    contents.boots.push(String::from_utf8_lossy(&read_body(log, place)?).into_owned());
                    contents.effects.values_mut().for_each(|known| known.is_recent = false);
                }
                RecordKind::Started => {
                    // A damaged name would make a started effect look as if it never was.
                    read_body(log, place)?;
                    contents.effects.insert(name, Known { is_recent: true, end: None });
                }
                RecordKind::Replied | RecordKind::Failed => {
                    if let Some(known) = contents.effects.get_mut(&name) {
                        known.end = Some(place);
                    }
                }
            }
            contents.length = place.end();
        }
        Ok(contents)
    }
}

/// The head of the record at `offset`; `None` where no whole record lies.
fn read_head(log: &mut File, offset: u64, total: u64) -> io::Result<Option<(Place, String)>> {
    if offset + HEAD_BYTES as u64 > total {
        return Ok(None);
    }
    let mut head = [0u8; HEAD_BYTES];
    log.seek(SeekFrom::Start(offset))?;
    log.read_exact(&mut head)?;
    let [m0, m1, m2, m3, kind, name_bytes, b0, b1, b2, b3, s0, s1] = head;
    let body_bytes = u32::from_le_bytes([b0, b1, b2, b3]);
    let is_whole = [m0, m1, m2, m3] == MAGIC
        && body_bytes as usize <= MAX_BODY_BYTES
        && sum(&head[..HEAD_BYTES - 2])[..2] == [s0, s1];
    let Some(kind) = RecordKind::from_byte(kind).filter(|_| is_whole) else {
        return Err(damaged());
    };
    let place = Place { kind, offset, name_bytes, body_bytes };
    if place.end() > total {
        return Ok(None);
    }
    let mut name = vec![0u8; name_bytes.into()];
    log.read_exact(&mut name)?;
    let name = String::from_utf8(name).map_err(|_| damaged())?;
    Ok(Some((place, name)))
}

/// A record that was cut short is normal after a crash; a wrong one is not, and hides what comes after it.
fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the supervisor's log is damaged")
}

/// The body of a record, checked against its sum.
fn read_body(log: &mut File, place: Place) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0u8; (place.end() - place.offset) as usize];
    log.seek(SeekFrom::Start(place.offset))?;
    log.read_exact(&mut bytes)?;
    let expected = bytes.split_off(bytes.len() - SUM_BYTES);
    if sum(&bytes)[..] != expected[..] {
        return Err(damaged());
    }
    Ok(bytes.split_off(HEAD_BYTES + usize::from(place.name_bytes)))
}

fn sum(bytes: &[u8]) -> [u8; SUM_BYTES] {
    *blake3::hash(bytes).as_bytes().first_chunk().expect("a hash is longer than that")
}

/// Tells what became of an effect, without starting anything.
pub fn find(dir: &Path, effect: &str) -> io::Result<Finding> {
    if !is_effect_name(effect) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{effect:?} cannot be the name of an effect")));
    }
    // Asked before the log is read: a supervisor that ends in between leaves a complete log.
    let is_alive = is_occupied(dir)?;
    let mut log = match File::open(dir.join("log")) {
        Ok(log) => log,
        // The log is made durable before the first call is taken, so without one nothing was started.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Finding::NotStarted),
        Err(error) => return Err(error),
    };
    let contents = Contents::read(&mut log)?;
    let Some(known) = contents.effects.get(effect) else {
        // Appended records are not flushed to the disk one by one, so a power cut may have swallowed the last ones.
        let boot = boot_id()?;
        let is_same_boot = contents.boots.iter().all(|seen| *seen == boot);
        return Ok(if is_same_boot { Finding::NotStarted } else { Finding::Unknown });
    };
    Ok(match known.end {
        Some(place) => end_of(&mut log, place).unwrap_or(Finding::Unknown),
        None if is_alive && known.is_recent => Finding::Running,
        None => Finding::Unknown,
    })
}

fn end_of(log: &mut File, place: Place) -> Option<Finding> {
    // A damaged end is as good as none.
    let body = read_body(log, place).ok()?;
    match place.kind {
        RecordKind::Replied => Some(Finding::Done(body)),
        RecordKind::Failed => serde_json::from_slice(&body).ok().map(Finding::Failed),
        RecordKind::Began | RecordKind::Started => None,
    }
}

/// Whether a supervisor lives in the folder.
pub(crate) fn is_occupied(dir: &Path) -> io::Result<bool> {
    match OpenOptions::new().read(true).write(true).open(dir.join("lock")) {
        Ok(lock) => sys::is_locked(&lock),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Which start of the kernel this is.
fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Makes the folder if need be and refuses one that others can look into.
pub(crate) fn prepare_folder(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {
            if let Some(parent) = dir.parent() {
                File::open(parent)?.sync_all()?;
            }
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let metadata = fs::symlink_metadata(dir)?;
    let is_ours = metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw();
    if !is_ours || metadata.mode() & 0o077 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it must be a folder that only its owner, the present user, can enter",
        ));
    }
    Ok(())
}

/// The supervisor's own handle; whoever holds it holds the lock.
#[derive(Debug)]
pub(crate) struct Spool {
    log: File,
    length: u64,
    effects: HashMap<String, Known>,
    _lock: File,
}

impl Spool {
    /// Moves in; `None` when somebody lives there. Paths are relative to the current folder.
    pub(crate) fn open(plan: &[u8]) -> io::Result<Option<Spool>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        let lock = options.open("lock")?;
        if !sys::try_lock(&lock)? {
            return Ok(None);
        }
        fs::write("plan.new", plan)?;
        fs::rename("plan.new", "plan")?;
        let mut log = options.open("log")?;
        let contents = Contents::read(&mut log)?;
        log.set_len(contents.length)?;
        let mut spool = Spool { log, length: contents.length, effects: contents.effects, _lock: lock };
        spool.effects.values_mut().for_each(|known| known.is_recent = false);
        spool.append(RecordKind::Began, "", boot_id()?.as_bytes())?;
        spool.log.sync_all()?;
        File::open(".")?.sync_all()?;
        Ok(Some(spool))
    }

    /// What is known of an effect that is not running now; `NotStarted` when it may be started.
    pub(crate) fn recall(&mut self, effect: &str) -> Finding {
        match self.effects.get(effect) {
            None => Finding::NotStarted,
            Some(Known { end: Some(place), .. }) => end_of(&mut self.log, *place).unwrap_or(Finding::Unknown),
            Some(Known { end: None, .. }) => Finding::Unknown,
        }
    }

    /// Remembers that an effect is about to start.
    pub(crate) fn start(&mut self, effect: &str) -> io::Result<()> {
        self.append(RecordKind::Started, effect, b"")?;
        self.effects.insert(effect.to_owned(), Known { is_recent: true, end: None });
        Ok(())
    }

    pub(crate) fn reply(&mut self, effect: &str, body: &[u8]) -> io::Result<()> {
        self.end(RecordKind::Replied, effect, body)
    }

    pub(crate) fn fail(&mut self, effect: &str, failure: Failure) -> io::Result<()> {
        self.end(RecordKind::Failed, effect, &serde_json::to_vec(&failure)?)
    }

    fn end(&mut self, kind: RecordKind, effect: &str, body: &[u8]) -> io::Result<()> {
        let place = self.append(kind, effect, body)?;
        self.effects.insert(effect.to_owned(), Known { is_recent: true, end: Some(place) });
        Ok(())
    }

    fn append(&mut self, kind: RecordKind, name: &str, body: &[u8]) -> io::Result<Place> {
        let place = Place {
            kind,
            offset: self.length,
            name_bytes: u8::try_from(name.len()).map_err(io::Error::other)?,
            body_bytes: u32::try_from(body.len()).map_err(io::Error::other)?,
        };
        let mut bytes = Vec::with_capacity((place.end() - place.offset) as usize);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[kind as u8, place.name_bytes]);
        bytes.extend_from_slice(&place.body_bytes.to_le_bytes());
        let head_sum = sum(&bytes);
        bytes.extend_from_slice(&head_sum[..2]);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(body);
        let sum = sum(&bytes);
        bytes.extend_from_slice(&sum);
        let written = self.log.seek(SeekFrom::Start(self.length)).and_then(|_| self.log.write_all(&bytes));
        if let Err(error) = written {
            // The next record would otherwise lie behind half of this one.
            self.log.set_len(self.length)?;
            return Err(error);
        }
        self.length = place.end();
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        let long = "x".repeat(128);
        let too_long = "x".repeat(129);
        let cases = [
            ("call-1_A", true),
            (&long, true),
            ("", false),
            (&too_long, false),
            ("../x", false),
            ("a b", false),
            ("é", false),
        ];
        for (name, is_fine) in cases {
            assert_eq!(is_effect_name(name), is_fine, "{name:?}");
        }
    }

    /// Writes the records of one or more supervisors' lives as files would show them.
    fn log_of(records: &[(RecordKind, &str, &[u8])]) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a folder");
        let options = OpenOptions::new().read(true).write(true).create(true).clone();
        let log = options.open(folder.path().join("log")).expect("a log");
        let lock = options.open(folder.path().join("lock")).expect("a lock");
        let mut spool = Spool { log, length: 0, effects: HashMap::new(), _lock: lock };
        for (kind, name, body) in records {
            spool.append(*kind, name, body).expect("a record");
        }
        fs::read(folder.path().join("log")).expect("the log")
    }

    #[test]
    fn find_says_what_the_log_proves() {
        let boot = boot_id().expect("a boot id");
        let began = (RecordKind::Began, "", boot.as_bytes());
        let began_before = (RecordKind::Began, "", b"an earlier boot".as_slice());
        let started = (RecordKind::Started, "e", b"".as_slice());
        let other = (RecordKind::Started, "other", b"".as_slice());
        let replied = (RecordKind::Replied, "e", b"answer".as_slice());
        let died = (RecordKind::Failed, "e", b"\"worker-died\"".as_slice());
        let done = Finding::Done(b"answer".to_vec());
        let gone = Finding::Failed(Failure::WorkerDied);
        let cases = [
            // log, whether a supervisor lives, bytes cut from the end, finding
            (vec![began], true, 0, Finding::NotStarted),
            (vec![began], false, 0, Finding::NotStarted),
            (vec![began, other], true, 0, Finding::NotStarted),
            (vec![began_before], false, 0, Finding::Unknown),
            (vec![began_before, began], true, 0, Finding::Unknown),
            (vec![began, started], true, 0, Finding::Running),
            (vec![began, started], false, 0, Finding::Unknown),
            (vec![began, started, began], true, 0, Finding::Unknown),
            (vec![began, started, replied], true, 0, done.clone()),
            (vec![began, started, replied], false, 0, done.clone()),
            (vec![began_before, started, replied, began], false, 0, done),
            (vec![began, started, died], false, 0, gone),
            (vec![began, started, replied], false, 1, Finding::Unknown),
            (vec![began, started, replied], true, 20, Finding::Running),
            (vec![began, started], false, 3, Finding::NotStarted),
        ];
        for (records, is_alive, cut, expected) in cases {
            let context = format!("{records:?}, alive {is_alive}, cut {cut}");
            let folder = tempfile::tempdir().expect("a folder");
            let mut bytes = log_of(&records);
            bytes.truncate(bytes.len() - cut);
            fs::write(folder.path().join("log"), bytes).expect("the log");
            let lock = File::create(folder.path().join("lock")).expect("a lock");
            if is_alive {
                assert!(sys::try_lock(&lock).expect("a lock"));
            }
            assert_eq!(find(folder.path(), "e").expect("a finding"), expected, "{context}");
        }
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_survived() {
        let boot = boot_id().expect("a boot id");
        let whole = log_of(&[
            (RecordKind::Began, "", boot.as_bytes()),
            (RecordKind::Started, "e", b""),
            (RecordKind::Replied, "e", b"answer"),
        ]);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        for index in 0..whole.len() {
            fs::write(&path, &whole[..index]).expect("a cut log");
            let found = find(folder.path(), "e").expect("a finding");
            assert!(!matches!(found, Finding::Done(_)), "cut at {index}: {found:?}");
            let mut flipped = whole.clone();
            flipped[index] ^= 0x40;
            fs::write(&path, &flipped).expect("a damaged log");
            let found = find(folder.path(), "e");
            let is_false = match &found {
                Ok(Finding::Done(body)) => body != b"answer",
                Ok(Finding::NotStarted) => true,
                Ok(_) | Err(_) => false,
            };
            assert!(!is_false, "flipped {index}: {found:?}");
        }
    }

    #[test]
    fn without_a_folder_nothing_was_started() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(find(&folder.path().join("none"), "e").expect("a finding"), Finding::NotStarted);
        assert!(find(folder.path(), "../e").is_err());
    }
}
