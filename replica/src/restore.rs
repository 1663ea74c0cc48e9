//! From long-term storage back to a group's state: a checkpoint, and the chain of rounds behind it.
//!
//! The *tip* is the round with the highest name of which every object is there: names are led by
//! incarnation and term, and within a term a later name reaches at least as far. From it the chain
//! is walked back, link by link, to the newest checkpoint that counts, which an entry in one of the
//! rounds names, and further to the first round that the checkpoint's state does not know yet. Where
//! no checkpoint counts, the chain goes back to the group's first entry. A round behind lost entries
//! is a beginning of its own, with the checkpoint that it names, once the chain reaches that
//! ([`beginning`]).
//!
//! What is found damaged or missing on the way is told, and a way around it is taken where there is
//! one: an older checkpoint, or for the tip the round before it. A link that is broken further back
//! is done without where all that it would say is said elsewhere; else the chain ends before it, if
//! whoever asks can do with that ([`salvage`]).

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{GroupId, Incarnation, LogIndex, Term};
use lts::bucket::PAGE_OBJECTS_MAX;
use lts::{ObjectName, ObjectPath};

use crate::archive::{
    Beginning, Checkpoint, CommittedCheckpoint, EntryHeader, FRAME_BYTES, Footer, Housekeeping,
    Kind, ObjectError, ObjectRef,
};
use crate::envelope;
use crate::kv::{Applied, Changes, Kv, KvError};
use crate::tiering::{Storage, StorageFailure, of_led_key};

mod beginning;
mod named;
mod salvage;
#[cfg(test)]
mod tests;

pub use salvage::{Loss, Salvaged};

/// Why a group cannot be brought back.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RestoreFailure {
    #[error(transparent)]
    Storage(#[from] StorageFailure),
    #[error("there is no round of the group; check that it is the bucket of this cluster")]
    Nothing,
    #[error("the chain of rounds is broken: {0}")]
    Broken(String),
    #[error("write the state store: {0}")]
    Kv(#[from] KvError),
    #[error("begin the log: {0}")]
    Log(String),
    #[error("replay the archived log: {0}")]
    Replay(String),
    #[error(
        "the archived log ends at entry {end}, but the log begins behind {first}: rounds between \
         them are missing from the bucket"
    )]
    Ends { end: LogIndex, first: LogIndex },
}

impl From<ObjectError> for RestoreFailure {
    fn from(error: ObjectError) -> Self {
        Self::Storage(error.into())
    }
}

impl From<lts::Error> for RestoreFailure {
    fn from(error: lts::Error) -> Self {
        Self::Storage(error.into())
    }
}

/// The objects of a group that there are, with their lengths.
pub type Listing = BTreeMap<ObjectName, u64>;

/// What brings a group back.
#[derive(Debug)]
pub struct Chain {
    /// The checkpoint to begin with; `None` for an empty state.
    pub checkpoint: Option<(CommittedCheckpoint, Checkpoint)>,
    /// Rounds from the first that is needed to the tip.
    pub footers: Vec<Footer>,
    /// What was damaged or missing, and could be done without.
    pub problems: Vec<String>,
    /// What is damaged or missing behind the tip, and was, or may have been, a newer one.
    pub losses: Vec<Loss>,
}

/// Every group of which the bucket has objects.
pub fn groups(storage: &Storage) -> Result<Vec<GroupId>, RestoreFailure> {
    let mut groups = Vec::new();
    let mut after: Option<ObjectPath> = None;
    loop {
        let (bucket, from) = (storage.bucket.clone(), after.take());
        let page = storage
            .run(async move { bucket.list("", from.as_ref(), PAGE_OBJECTS_MAX).await })??;
        let names = page.objects.iter().filter_map(|o| o.path.as_str().parse::<ObjectName>().ok());
        groups.extend(names.map(|name| name.group));
        groups.sort_unstable();
        groups.dedup();
        match page.objects.last() {
            Some(last) if page.more => {
                // The rest of this group's objects says nothing new: go on behind all of them.
                after = Some(past_group(&last.path).unwrap_or_else(|| last.path.clone()));
            }
            _ => return Ok(groups),
        }
    }
}

/// The last path that an object of the same group and incarnation can have.
fn past_group(path: &ObjectPath) -> Option<ObjectPath> {
    let name: ObjectName = path.as_str().parse().ok()?;
    Some(ObjectName { term: Term(u64::MAX), sequence: u64::MAX, ..name }.into())
}

/// The group's objects of all incarnations.
pub fn list(storage: &Storage, group: GroupId) -> Result<Listing, RestoreFailure> {
    let newest = match storage.marker() {
        Some(marker) => marker.incarnation,
        None => Incarnation::FIRST,
    };
    let mut listing = Listing::new();
    for incarnation in 1..=newest.0 {
        let prefix = ObjectName::group_prefix(Incarnation(incarnation), group);
        let mut after: Option<ObjectPath> = None;
        loop {
            let (bucket, prefix, from) = (storage.bucket.clone(), prefix.clone(), after.take());
            let page = storage.run(async move {
                bucket.list(&prefix, from.as_ref(), PAGE_OBJECTS_MAX).await
            })??;
            for object in &page.objects {
                if let Ok(name) = object.path.as_str().parse() {
                    listing.insert(name, object.length);
                }
            }
            match page.objects.last() {
                Some(last) if page.more => after = Some(last.path.clone()),
                _ => break,
            }
        }
    }
    Ok(listing)
}

/// All bytes of an object.
pub fn read(storage: &Storage, name: ObjectName, length: u64) -> Result<Bytes, StorageFailure> {
    let bucket = storage.bucket.clone();
    Ok(storage.run(async move { bucket.get(&name.into(), 0..length).await })??)
}

impl Chain {
    /// The last archived entry and its term.
    pub fn end(&self) -> (LogIndex, Term) {
        let tip = self.footers.last().expect("a chain has a tip");
        (tip.last_index(), tip.last_term())
    }

    pub fn group(&self) -> GroupId {
        self.footers.last().expect("a chain has a tip").reference.name.group
    }

    /// The membership behind the last entry, as recorded.
    pub fn membership(&self) -> Bytes {
        self.footers.last().expect("a chain has a tip").membership.clone()
    }

    /// The headers of the entries behind `after`, up to `to`.
    pub fn headers(&self, after: LogIndex, to: LogIndex) -> impl Iterator<Item = EntryHeader> + '_ {
        let wanted = move |header: &EntryHeader| header.index > after && header.index <= to;
        let footers = self.footers.iter().filter(move |footer| footer.last_index() > after);
        footers.flat_map(Footer::headers).filter(wanted)
    }

    /// Makes the group's part of the state store what the checkpoint has; without one, nothing.
    pub fn load_state(&self, storage: &Storage, kv: &dyn Kv) -> Result<(), RestoreFailure> {
        let group = self.group();
        kv.clear(group)?;
        let Some((_, checkpoint)) = &self.checkpoint else { return Ok(()) };
        let left_out = usize::from(common::planted::active("restore-leaves-a-chunk-out"));
        for (ordinal, chunk) in checkpoint.chunks.iter().enumerate().skip(left_out) {
            let bytes = read(storage, chunk.object.name, chunk.object.length.into());
            let bytes = bytes.map_err(named::gone)?;
            let chunk = checkpoint.chunk(ordinal, &bytes).map_err(broken)?;
            let mut pairs = chunk.pairs().filter_map(|(key, value)| {
                let (space, key) = of_led_key(&key)?;
                Some((space, key, value))
            });
            kv.load(group, &mut pairs)?;
        }
        kv.write(group, checkpoint.applied, Changes::default())?;
        Ok(kv.flush()?)
    }

    /// What the state is at the beginning of the chain.
    pub fn applied(&self) -> Applied {
        self.checkpoint.as_ref().map(|(_, checkpoint)| checkpoint.applied).unwrap_or_default()
    }

    /// Whether the rounds so far, tip first, reach back far enough.
    fn is_complete(&self, from: Option<LogIndex>) -> bool {
        let oldest = self.footers.last().expect("the tip was pushed");
        let first = *oldest.range().start();
        let known = match (from, &self.checkpoint) {
            (Some(from), _) => from,
            (None, Some((committed, _))) => {
                let begins = |beginning: Beginning| {
                    let knows_all_before = committed.archived.0 + 1 >= beginning.first_lost.0;
                    committed.index.0 + 1 >= first.0 && knows_all_before
                };
                if oldest.begins.is_some_and(begins) {
                    return true;
                }
                committed.index.min(committed.archived)
            }
            (None, None) => LogIndex(0),
        };
        first.0 <= known.0 + 1
    }

    /// Whether what lies before the oldest round so far would only say where payload rests, and
    /// entries of the rounds so far say that, too.
    fn does_without_earlier(&self) -> bool {
        let Some((committed, _)) = &self.checkpoint else { return false };
        let first = *self.footers.last().expect("the tip was pushed").range().start();
        if first.0 > committed.index.0 + 1 {
            return false;
        }
        let mut said_to = committed.archived;
        let rounds = self.footers.iter().rev().flat_map(Footer::headers);
        for header in rounds.filter(|header| header.index > committed.index) {
            let (named_here, range) = match said(&header) {
                Some(Housekeeping::Round(round)) => {
                    let named_here = round.recovered || round.footer.name.term == header.term;
                    (named_here, round.range().clone())
                }
                Some(Housekeeping::Skipped(skip)) => (true, skip.lost),
                _ => continue,
            };
            if named_here && range.start().0 == said_to.0 + 1 {
                said_to = *range.end();
            }
        }
        first.0 <= said_to.0 + 1
    }

    /// The newest round that suits, among those of the names that are given, all of whose objects are
    /// there.
    fn find_tip<'a>(
        &mut self,
        storage: &Storage,
        listing: &Listing,
        names: impl DoubleEndedIterator<Item = (&'a ObjectName, &'a u64)>,
        suits: impl Fn(&Footer) -> bool,
    ) -> Result<Option<Footer>, RestoreFailure> {
        for (name, length) in names.rev() {
            if *length < FRAME_BYTES as u64 {
                self.losses.push(Loss::of(format!("object `{name}` is cut short: {length} bytes")));
                continue;
            }
            match look_at_tip(storage, listing, *name) {
                Ok(Some(Ok(footer))) if suits(&footer) => return Ok(Some(footer)),
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(loss))) => self.losses.push(loss),
                Ok(None) => {}
                Err(RestoreFailure::Broken(why)) => self.losses.push(Loss::of(why)),
                Err(other) => return Err(other),
            }
        }
        Ok(None)
    }

    fn walk_back(&mut self, storage: &Storage, listing: &Listing) -> Result<(), RestoreFailure> {
        let previous = self.previous()?;
        let footer = footer(storage, listing, previous.name)?;
        previous.expect(&footer.reference).map_err(broken)?;
        self.push_before(footer)
    }

    /// The round before the oldest so far.
    fn previous(&self) -> Result<ObjectRef, RestoreFailure> {
        let oldest = self.footers.last().expect("the tip was pushed");
        if let Some(beginning) = oldest.begins {
            return Err(self.lost_before(beginning));
        }
        oldest.continues.ok_or_else(|| {
            let first = oldest.range().start().0;
            RestoreFailure::Broken(format!(
                "it begins at entry {first}, and no checkpoint includes what comes before"
            ))
        })
    }

    fn push_before(&mut self, footer: Footer) -> Result<(), RestoreFailure> {
        self.footers.last().expect("the tip was pushed").follows(&footer).map_err(broken)?;
        self.footers.push(footer);
        Ok(())
    }

    /// Looks into the oldest round so far for a checkpoint that counts and is whole.
    fn find_checkpoint(
        &mut self,
        storage: &Storage,
        listing: &Listing,
    ) -> Result<(), RestoreFailure> {
        let round = self.footers.last().expect("the tip was pushed");
        let said = |header: EntryHeader| match said(&header)? {
            Housekeeping::Checkpoint(checkpoint) => Some(checkpoint),
            _ => None,
        };
        let mut found: Vec<CommittedCheckpoint> = round.headers().filter_map(said).collect();
        let end = self.footers[0].last_index();
        while let Some(committed) = found.pop() {
            // What its entry was refused for is not said: it counts where the chain reaches it.
            if committed.index > end {
                continue;
            }
            match checkpoint(storage, listing, &committed) {
                Ok(checkpoint) => {
                    self.checkpoint = Some((committed, checkpoint));
                    break;
                }
                Err(RestoreFailure::Broken(why)) => self.problems.push(why),
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }
}

/// Reads a footer that is listed, whatever became of its round's other objects: payload below the
/// tip may have been compacted away or collected since.
fn footer(
    storage: &Storage,
    listing: &Listing,
    name: ObjectName,
) -> Result<Footer, RestoreFailure> {
    let length = *listing.get(&name).ok_or_else(|| {
        RestoreFailure::Broken(format!("object `{name}`, the footer of a round, is missing"))
    })?;
    let bytes = read(storage, name, length).map_err(named::gone)?;
    Footer::decode(name, &bytes).map_err(broken)
}

/// `None` where the object is no footer; a loss where it is one whose round is not whole.
fn look_at_tip(
    storage: &Storage,
    listing: &Listing,
    name: ObjectName,
) -> Result<Option<Result<Footer, Loss>>, RestoreFailure> {
    let head = read(storage, name, Kind::PEEK_BYTES as u64).map_err(named::gone)?;
    if Kind::peek(name, &head).map_err(broken)? != Kind::Footer {
        return Ok(None);
    }
    let footer = footer(storage, listing, name)?;
    let lost = footer.objects.iter().find_map(|object| present(listing, object).err());
    Ok(Some(match lost {
        None => Ok(footer),
        Some(what) => Err(Loss {
            what,
            unreadable_to: Some(footer.last_index()),
            archived_to: Some(footer.last_index()),
        }),
    }))
}

fn broken(error: ObjectError) -> RestoreFailure {
    RestoreFailure::Broken(error.to_string())
}

fn said(header: &EntryHeader) -> Option<Housekeeping> {
    let (_, body) = envelope::as_housekeeping(&header.context)?;
    Housekeeping::decode(&body).ok()
}

fn present(listing: &Listing, object: &ObjectRef) -> Result<(), String> {
    match listing.get(&object.name) {
        Some(length) if *length == u64::from(object.length) => Ok(()),
        Some(length) => {
            let (name, expected) = (object.name, object.length);
            Err(format!("object `{name}` has {length} bytes, not {expected}"))
        }
        None => Err(format!("object `{}` is missing", object.name)),
    }
}

fn checkpoint(
    storage: &Storage,
    listing: &Listing,
    committed: &CommittedCheckpoint,
) -> Result<Checkpoint, RestoreFailure> {
    let reference = committed.reference;
    let mut objects = std::iter::once(&reference).chain(&committed.chunks);
    let present = objects.try_for_each(|object| present(listing, object));
    present.map_err(RestoreFailure::Broken)?;
    let bytes = read(storage, reference.name, reference.length.into()).map_err(named::gone)?;
    let checkpoint = Checkpoint::decode(reference.name, &bytes).map_err(broken)?;
    reference.expect(&checkpoint.reference).map_err(broken)?;
    // An older one is of use only as long as nothing was loaded of this one.
    for (ordinal, chunk) in checkpoint.chunks.iter().enumerate() {
        let bytes = read(storage, chunk.object.name, chunk.object.length.into());
        checkpoint.chunk(ordinal, &bytes.map_err(named::gone)?).map_err(broken)?;
    }
    Ok(checkpoint)
}
