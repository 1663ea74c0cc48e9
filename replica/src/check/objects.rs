//! Everything that the state and the archive refer to: read, and compared with what they say.
//!
//! Objects are read side by side, within a budget of bytes, and each is forgotten once it was
//! looked at.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use common::{GroupId, LogIndex};
use futures::stream::{self, StreamExt, TryStreamExt};
use lts::{Bucket, ObjectName};
use tokio::sync::Semaphore;

use super::{Finding, Observer, Progress, is_damage};
use crate::archive::{
    Archive, Checkpoint, CommittedCheckpoint, Footer, ObjectError, ObjectRef, PackedObject,
    PackedRun,
};
use crate::machine::StateMachine;
use crate::resting::Piece;
use crate::tiering::{Storage, StorageFailure};

/// Objects that are read at a time, and bytes of them: as much as two of the largest.
const READS: usize = 16;
const IN_MEMORY_KIB: u32 = 128 << 10;

const PAYLOAD: &str = "restore it from a copy of the bucket; until then reads of its events fail";
const CHECKPOINT: &str = "restore it from a copy of the bucket; without it a recovery begins with \
                          another checkpoint, if there is one that rounds lead on from";
const ROUND: &str = "restore it from a copy of the bucket; a recovery that needs it ends before it, and \
                     only with `--accept-loss`";

/// What came of it.
pub(super) struct Checked {
    pub(super) objects: u64,
    pub(super) bytes: u64,
    pub(super) findings: Vec<Finding>,
}

/// Something to be read.
enum Subject {
    Payload { reference: ObjectRef, pieces: Vec<Piece> },
    Round { footer: ObjectRef, range: RangeInclusive<LogIndex>, before: Option<ObjectRef> },
    Checkpoint(CommittedCheckpoint),
}

/// What one subject was.
#[derive(Default)]
struct Looked {
    objects: u64,
    bytes: u64,
    findings: Vec<Finding>,
}

pub(super) fn check<M: StateMachine>(
    storage: &Storage,
    group: GroupId,
    machine: &M,
    archive: &Archive,
    observer: &Observer,
) -> Result<Checked, StorageFailure> {
    let (mut pieces, mut findings) = pieces(machine, archive);
    let payload = archive.objects().iter().map(|(name, stored)| {
        let (name, length, checksum) = (*name, stored.length, stored.checksum);
        let reference = ObjectRef { name, length, checksum };
        Subject::Payload { reference, pieces: pieces.remove(&name).unwrap_or_default() }
    });
    let mut before = None;
    let rounds = archive.rounds().iter().map(|(last, round)| Subject::Round {
        footer: round.footer,
        range: round.first..=*last,
        before: before.replace(round.footer),
    });
    let checkpoints = archive.checkpoints().values();
    let checkpoints = checkpoints.map(|kept| Subject::Checkpoint(kept.committed.clone()));
    let subjects: Vec<Subject> = payload.chain(rounds).chain(checkpoints).collect();
    let mut looked = look_at_all(storage, group, subjects, observer)?;
    findings.append(&mut looked.findings);
    Ok(Checked { objects: looked.objects, bytes: looked.bytes, findings })
}

/// The places that the machine refers to, by object, and what is amiss with them as such.
fn pieces<M: StateMachine>(
    machine: &M,
    archive: &Archive,
) -> (BTreeMap<ObjectName, Vec<Piece>>, Vec<Finding>) {
    let mut by_object = BTreeMap::<ObjectName, Vec<Piece>>::new();
    let mut findings = Vec::new();
    let mut last: Option<Piece> = None;
    let mut lost = Lost::default();
    machine.resting(&mut |piece| {
        let gap = |last: Piece| {
            last.owner == piece.owner && last.position + u64::from(last.bytes) != piece.position
        };
        if let Some(entry) = piece.rested.lost_entry() {
            lost.note(entry, &piece);
            last = Some(piece);
            return;
        }
        let object = piece.rested.object;
        let what = if last.is_some_and(gap) {
            Some(format!("the bytes before {} of an owner are in no object", piece.position))
        } else if !archive.objects().contains_key(&object) {
            Some("the state refers to it, and the archive does not know it".to_owned())
        } else {
            None
        };
        findings.extend(what.map(|what| finding(object, what, "report it: this is a defect")));
        last = Some(piece);
        by_object.entry(object).or_default().push(piece);
    });
    findings.extend(lost.findings());
    (by_object, findings)
}

/// Payload that a repair of the log gave up before it was archived.
#[derive(Default)]
struct Lost {
    /// By owner: the entries from the first to the last, bytes of them.
    owners: BTreeMap<u128, (LogIndex, LogIndex, u64)>,
}

impl Lost {
    fn note(&mut self, entry: LogIndex, piece: &Piece) {
        let of = self.owners.entry(piece.owner).or_insert((entry, entry, 0));
        of.1 = entry;
        of.2 += u64::from(piece.bytes);
    }

    fn findings(self) -> impl Iterator<Item = Finding> {
        self.owners.into_iter().map(|(owner, (first, last, bytes))| Finding {
            subject: format!("owner {owner:032x}"),
            what: format!(
                "{bytes} bytes of it are lost: they were in entries {first} to {last} of the log, which \
                 a repair gave up before they were archived"
            ),
            advice: "nothing brings them back; readers are told, and go on behind them",
        })
    }
}

fn look_at_all(
    storage: &Storage,
    group: GroupId,
    subjects: Vec<Subject>,
    observer: &Observer,
) -> Result<Looked, StorageFailure> {
    let (bucket, observer) = (storage.bucket.clone(), observer.clone());
    let reader = Reader { bucket, room: Arc::new(Semaphore::new(IN_MEMORY_KIB as usize)) };
    let of = subjects.iter().map(Subject::objects).sum();
    Ok(storage.run(async move {
        let looks = subjects.into_iter().map(|subject| {
            let reader = reader.clone();
            async move { reader.look(subject).await }
        });
        let mut all = Looked::default();
        let mut looks = stream::iter(looks).buffer_unordered(READS);
        while let Some(looked) = looks.try_next().await? {
            all.objects += looked.objects;
            all.bytes += looked.bytes;
            all.findings.extend(looked.findings);
            observer(Progress { group, objects: all.objects, of, bytes: all.bytes });
        }
        Ok::<_, lts::Error>(all)
    })??)
}

impl Subject {
    fn objects(&self) -> u64 {
        match self {
            Self::Payload { .. } | Self::Round { .. } => 1,
            Self::Checkpoint(committed) => 1 + committed.chunks.len() as u64,
        }
    }
}

#[derive(Clone)]
struct Reader {
    bucket: Arc<dyn Bucket>,
    /// KiB that may be in memory.
    room: Arc<Semaphore>,
}

impl Reader {
    async fn look(&self, subject: Subject) -> Result<Looked, lts::Error> {
        let mut looked = Looked::default();
        match subject {
            Subject::Payload { reference, pieces } => {
                let check = |bytes| check_payload(reference, bytes, &pieces);
                self.with(&mut looked, reference, PAYLOAD, check).await?;
            }
            Subject::Round { footer, range, before } => {
                let check = |bytes| check_round(footer, &bytes, &range, before);
                self.with(&mut looked, footer, ROUND, check).await?;
            }
            Subject::Checkpoint(committed) => self.checkpoint(&mut looked, &committed).await?,
        }
        Ok(looked)
    }

    /// Chunks are read one after the other: there are other objects to be read meanwhile.
    async fn checkpoint(
        &self,
        looked: &mut Looked,
        committed: &CommittedCheckpoint,
    ) -> Result<(), lts::Error> {
        let reference = committed.reference;
        let check = |bytes: Bytes| {
            let found = Checkpoint::decode(reference.name, &bytes).map_err(|e| e.to_string())?;
            reference.expect(&found.reference).map_err(|error| error.to_string())?;
            match found.chunks.iter().map(|chunk| chunk.object).eq(committed.chunks.iter().copied())
            {
                true => Ok(found),
                false => Err("names other chunks than were committed".to_owned()),
            }
        };
        let Some(found) = self.with(looked, reference, CHECKPOINT, check).await? else {
            return Ok(());
        };
        for (ordinal, chunk) in committed.chunks.iter().enumerate() {
            let check = |bytes| found.chunk(ordinal, &bytes).map_err(|error| error.to_string());
            self.with(looked, *chunk, CHECKPOINT, check).await?;
        }
        Ok(())
    }

    /// Reads an object and gives its bytes to `check`; `None` where there is a finding.
    async fn with<T>(
        &self,
        looked: &mut Looked,
        object: ObjectRef,
        advice: &'static str,
        check: impl FnOnce(Bytes) -> Result<T, String>,
    ) -> Result<Option<T>, lts::Error> {
        let kib = object.length.div_ceil(1 << 10).clamp(1, IN_MEMORY_KIB);
        let _room = self.room.acquire_many(kib).await.expect("the room is never closed");
        looked.objects += 1;
        let read = self.read(object).await?;
        looked.bytes += read.as_ref().map_or(0, Bytes::len) as u64;
        match read.and_then(check) {
            Ok(value) => Ok(Some(value)),
            Err(what) => {
                looked.findings.push(finding(object.name, what, advice));
                Ok(None)
            }
        }
    }

    /// `Err` inside for what is wrong with the object, outside for a bucket that does not answer.
    async fn read(&self, object: ObjectRef) -> Result<Result<Bytes, String>, lts::Error> {
        let path = object.name.into();
        let length = match self.bucket.head(&path).await {
            Ok(found) => found.length,
            Err(error) if error.kind() == lts::ErrorKind::NotFound => {
                return Ok(Err("is missing".to_owned()));
            }
            Err(error) => return Err(error),
        };
        if length != u64::from(object.length) {
            let of = object.length;
            return Ok(Err(format!("is damaged: it has {length} bytes of {of}")));
        }
        match self.bucket.get(&path, 0..length).await {
            Ok(bytes) => Ok(Ok(bytes)),
            Err(error) if is_damage(error.kind()) => Ok(Err(error.to_string())),
            Err(error) => Err(error),
        }
    }
}

fn finding(object: ObjectName, what: String, advice: &'static str) -> Finding {
    // Errors of objects begin with their name, which is the subject here.
    let named = format!("object `{object}` ");
    let what = what.strip_prefix(&named).unwrap_or(&what).to_owned();
    Finding { subject: object.to_string(), what, advice }
}

fn check_payload(reference: ObjectRef, bytes: Bytes, pieces: &[Piece]) -> Result<(), String> {
    let object = PackedObject::decode(reference.name, bytes).map_err(text)?;
    reference.expect(&object.reference).map_err(text)?;
    let runs: Vec<PackedRun> = object.index.runs().collect();
    pieces.iter().try_for_each(|piece| check_piece(&runs, piece))
}

/// A piece is one run or several that follow one another, with the checksum of all of them.
fn check_piece(runs: &[PackedRun], piece: &Piece) -> Result<(), String> {
    let Piece { rested, bytes, .. } = *piece;
    let range = || format!("{bytes} bytes at {}", rested.offset);
    let begins = runs.binary_search_by_key(&rested.offset, |run| run.offset);
    let begins = begins.map_err(|_| format!("has no run that begins the {}", range()))?;
    let (mut crc, mut taken) = (crc32fast::Hasher::new(), 0);
    for run in &runs[begins..] {
        if taken >= bytes {
            break;
        }
        crc.combine(&crc32fast::Hasher::new_with_initial_len(run.crc, run.bytes.into()));
        taken += run.bytes;
    }
    if taken != bytes {
        return Err(format!("has no runs that are the {}", range()));
    }
    match crc.finalize() {
        found if found == rested.crc => Ok(()),
        found => Err(format!(
            "holds other bytes than the state says: the checksum of the {} is {:08x} there and \
             {found:08x} here",
            range(),
            rested.crc
        )),
    }
}

fn check_round(
    footer: ObjectRef,
    bytes: &Bytes,
    range: &RangeInclusive<LogIndex>,
    before: Option<ObjectRef>,
) -> Result<(), String> {
    let found = Footer::decode(footer.name, bytes).map_err(text)?;
    footer.expect(&found.reference).map_err(text)?;
    if found.range() != *range {
        return Err("covers another range of the log than was committed".to_owned());
    }
    match before {
        Some(_) if found.continues != before => {
            Err("does not continue the round before it".to_owned())
        }
        _ => Ok(()),
    }
}

fn text(error: ObjectError) -> String {
    error.to_string()
}
