//! What a bucket holds, by group and kind: told by names and by the first bytes of objects.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use common::{GroupId, Incarnation, LogIndex, Term};
use futures::stream::{self, StreamExt};
use lts::bucket::PAGE_OBJECTS_MAX;
use lts::{Listed, ObjectName, ObjectPath, Page};

use super::is_damage;
use crate::archive::{Footer, Kind};
use crate::restore;
use crate::tiering::{Storage, StorageFailure};

/// First bytes that are read at a time.
const PEEKS: usize = 32;

/// An object in the bucket.
#[derive(Debug, Clone)]
pub struct Surveyed {
    pub listed: Listed,
    /// `None` where its first bytes do not say, or where it is none of a group's.
    pub kind: Option<Kind>,
}

/// Objects, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub objects: u64,
    pub bytes: u64,
}

/// By kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kinds {
    pub payload: Tally,
    pub rounds: Tally,
    pub chunks: Tally,
    pub checkpoints: Tally,
    /// The first bytes do not say what it is.
    pub unreadable: Tally,
}

/// What there is of a group.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    pub incarnations: BTreeSet<Incarnation>,
    pub kinds: Kinds,
    newest_footer: Option<(ObjectName, u64)>,
    pub tip: Option<Tip>,
}

/// The newest round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// The last archived entry and its term.
    pub end: LogIndex,
    pub term: Term,
}

impl Kinds {
    fn of(&mut self, kind: Option<Kind>) -> &mut Tally {
        match kind {
            Some(Kind::Packed) => &mut self.payload,
            Some(Kind::Footer) => &mut self.rounds,
            Some(Kind::Chunk) => &mut self.chunks,
            Some(Kind::Checkpoint) => &mut self.checkpoints,
            None => &mut self.unreadable,
        }
    }
}

/// Looks at all objects whose paths begin with `prefix`, page by page, and gives each page to `each`.
pub fn survey(
    storage: &Storage,
    prefix: &str,
    mut each: impl FnMut(&[Surveyed]),
) -> Result<BTreeMap<GroupId, Survey>, StorageFailure> {
    let mut groups = BTreeMap::<GroupId, Survey>::new();
    let mut after: Option<ObjectPath> = None;
    loop {
        let (bucket, prefix, from) = (storage.bucket.clone(), prefix.to_owned(), after.take());
        let page = storage
            .run(async move { bucket.list(&prefix, from.as_ref(), PAGE_OBJECTS_MAX).await })??;
        let more = page.more;
        let objects = peek_all(storage, page)?;
        for object in &objects {
            take(&mut groups, object);
        }
        each(&objects);
        match objects.last() {
            Some(last) if more => after = Some(last.listed.path.clone()),
            _ => break,
        }
    }
    for survey in groups.values_mut() {
        survey.tip = survey.newest_footer.and_then(|(name, length)| tip(storage, name, length));
    }
    Ok(groups)
}

fn take(groups: &mut BTreeMap<GroupId, Survey>, object: &Surveyed) {
    let Ok(name) = object.listed.path.as_str().parse::<ObjectName>() else { return };
    let group = groups.entry(name.group).or_default();
    group.incarnations.insert(name.incarnation);
    let tally = group.kinds.of(object.kind);
    tally.objects += 1;
    tally.bytes += object.listed.length;
    if object.kind == Some(Kind::Footer) {
        group.newest_footer = group.newest_footer.max(Some((name, object.listed.length)));
    }
}

fn peek_all(storage: &Storage, page: Page) -> Result<Vec<Surveyed>, StorageFailure> {
    let bucket = storage.bucket.clone();
    Ok(storage.run(async move {
        let peeks = page.objects.into_iter().map(|listed| {
            let bucket = bucket.clone();
            async move {
                let name = listed.path.as_str().parse::<ObjectName>().ok();
                let name = name.filter(|_| listed.length >= Kind::PEEK_BYTES as u64);
                let Some(name) = name else { return Ok(Surveyed { listed, kind: None }) };
                let first = match bucket.get(&listed.path, 0..Kind::PEEK_BYTES as u64).await {
                    Ok(first) => first,
                    // It went meanwhile.
                    Err(error) if is_damage(error.kind()) => Bytes::new(),
                    Err(error) => return Err(error),
                };
                Ok(Surveyed { kind: Kind::peek(name, &first).ok(), listed })
            }
        });
        let found: Vec<Result<Surveyed, lts::Error>> =
            stream::iter(peeks).buffered(PEEKS).collect().await;
        found.into_iter().collect::<Result<Vec<_>, _>>()
    })??)
}

/// What the newest footer says; nothing where it cannot be read.
fn tip(storage: &Storage, name: ObjectName, length: u64) -> Option<Tip> {
    let bytes = restore::read(storage, name, length).ok()?;
    let footer = Footer::decode(name, &bytes).ok()?;
    Some(Tip { end: footer.last_index(), term: footer.last_term() })
}
