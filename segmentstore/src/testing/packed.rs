//! Objects as tiering makes them, and a bucket that can be watched and held up.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::{ByteSize, Incarnation, LogIndex, Offset, SystemClock, Term, WallTime};
use futures::future::BoxFuture;
use lts::{Altered, Bucket, Error, Memory, ObjectName, ObjectPath, Payload};
use replica::archive::{
    EntryKind, FeatureLevel, PackedObject, RoundBuilder, RoundEntry, RoundSettings, Taken,
};
use replica::{Rested, Stamp, envelope};
use tokio::sync::watch;

use super::CONTAINER;
use crate::extent::ObjectExtent;

pub(crate) fn object_name(sequence: u64) -> ObjectName {
    let (incarnation, group) = (Incarnation(1), CONTAINER.group());
    ObjectName { incarnation, group, term: Term(1), sequence }
}

/// An entry whose whole payload has one owner.
pub(crate) fn entry(index: u64, owner: u128, payload: &[u8]) -> RoundEntry {
    let stamp = Stamp { wall: WallTime(1), up_micros: 0 };
    let (context, data) = envelope::encode(stamp, &[(b"append", payload)]);
    let owned = vec![(owner, 0..payload.len() as u32)];
    RoundEntry {
        index: LogIndex(index),
        term: Term(1),
        kind: EntryKind::Normal,
        feature_level: FeatureLevel::FIRST,
        digest: 0,
        context,
        data,
        owned,
    }
}

/// Puts a round of these runs, in order of owners, and says where those of owner 1 lie from
/// `offset` on.
pub(crate) fn put_round(
    bucket: &Memory,
    first: u64,
    offset: u64,
    object_bytes: u64,
    runs: &[(u128, Vec<u8>)],
) -> Vec<ObjectExtent> {
    let settings = RoundSettings {
        object_bytes: ByteSize(object_bytes),
        own_object_bytes: ByteSize(u64::MAX),
    };
    let mut builder = RoundBuilder::new(settings, None, LogIndex(1));
    for (index, (owner, payload)) in (1..).zip(runs) {
        assert_eq!(builder.push(&entry(index, *owner, payload)), Ok(Taken::Yes));
    }
    let round = builder.finish(object_name(first), b"").unwrap();
    let (mut extents, mut offset) = (Vec::new(), Offset(offset));
    for object in round.objects {
        let name = object.reference.name;
        let packed = PackedObject::decode(name, object.payload.clone().into_bytes()).unwrap();
        for run in packed.index.runs().filter(|run| run.owner == 1) {
            let rested = Rested { object: name, offset: run.offset, crc: run.crc };
            extents.push(ObjectExtent { offset, bytes: run.bytes, rested });
            offset = offset.plus(run.bytes.into());
        }
        put(bucket, name, object.payload);
    }
    extents
}

pub(crate) fn put(bucket: &Memory, name: ObjectName, payload: Payload) {
    let path = ObjectPath::from(name);
    let put = futures::FutureExt::now_or_never(bucket.put(&path, payload));
    put.expect("memory is ready at once").unwrap();
}

/// Neighbours in one object as one extent, as the state of a segment keeps them.
pub(crate) fn joined(extents: &[ObjectExtent]) -> ObjectExtent {
    let mut extents = extents.iter();
    let mut all = *extents.next().unwrap();
    for next in extents {
        let mut crc = crc32fast::Hasher::new_with_initial(all.rested.crc);
        let behind = crc32fast::Hasher::new_with_initial_len(next.rested.crc, next.bytes.into());
        crc.combine(&behind);
        all.rested.crc = crc.finalize();
        all.bytes += next.bytes;
    }
    all
}

/// Writes down what is read, and holds reads up while it is told to.
#[derive(Debug)]
pub(crate) struct Watched {
    inner: Arc<dyn Bucket>,
    gets: Mutex<Vec<(String, Range<u64>)>>,
    held: watch::Sender<bool>,
}

impl Watched {
    pub(crate) fn new(inner: Arc<dyn Bucket>) -> Arc<Self> {
        Arc::new(Self { inner, gets: Mutex::default(), held: watch::Sender::new(false) })
    }

    pub(crate) fn memory() -> (Memory, Arc<Self>) {
        let memory = Memory::new(SystemClock::shared());
        let watched = Self::new(Arc::new(memory.clone()));
        (memory, watched)
    }

    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Ranges read of payload since the last time, that is, without those of indices.
    pub(crate) fn take_gets(&self) -> Vec<Range<u64>> {
        let gets = std::mem::take(&mut *self.gets.lock().unwrap());
        let block = u64::from(crate::limits::OBJECT_BLOCK_BYTES);
        gets.into_iter().map(|(_, range)| range).filter(|r| r.end - r.start >= block).collect()
    }

    /// All reads so far, those of indices included.
    pub(crate) fn count(&self) -> usize {
        self.gets.lock().unwrap().len()
    }
}

impl Altered for Watched {
    fn inner(&self) -> &dyn Bucket {
        &*self.inner
    }

    fn get<'a>(
        &'a self,
        path: &'a ObjectPath,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, Error>> {
        self.gets.lock().unwrap().push((path.to_string(), range.clone()));
        Box::pin(async move {
            self.held.subscribe().wait_for(|held| !held).await.expect("the sender is here");
            self.inner.get(path, range).await
        })
    }
}
