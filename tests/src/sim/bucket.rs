//! The simulated bucket: objects in memory, with the shipped patience over faults in front of them.
//!
//! Waiting takes no time of the world's: the bucket has a clock of its own, which its waits move on,
//! and whoever asked hears of the outcome so much later.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use common::clock::ManualClock;
use common::{Clock, GroupId, Incarnation, MonotonicTime, Period, Rng, Term, WallTime};
use futures::future::{BoxFuture, ready};
use lts::{
    Altered, Bucket, ClusterMarker, Error, ErrorKind, FaultRates, Faults, Faulty, Guarded, Listed,
    ManualTimer, Memory, ObjectName, ObjectPath, Owner, Payload,
};
use replica::archive::Kind;
use replica::restore::Listing;
use replica::{Inline, Storage, TieringSettings};

use super::plan::BucketPlan;

/// What survives every process and every machine.
#[derive(Debug, Clone)]
pub(super) struct SimBucket {
    pub(super) memory: Memory,
    faulty: Faulty,
    faults: Arc<Faults>,
    clock: Arc<ManualClock>,
    settings: TieringSettings,
    /// Whose it is now.
    pub(super) marker: ClusterMarker,
}

impl SimBucket {
    pub(super) fn new(plan: &BucketPlan, wall: WallTime, rng: &mut Rng) -> Self {
        let clock = Arc::new(ManualClock::new(wall));
        let memory = Memory::new(clock.clone());
        let timer = Arc::new(ManualTimer(clock.clone()));
        let faulty = Faulty::new(Arc::new(memory.clone()), timer, rng.fork("bucket faults"));
        let faults = faulty.faults();
        let marker = ClusterMarker { incarnation: Incarnation(1), marker: rng.u128() };
        let settings = plan.settings();
        let mut bucket = Self { memory, faulty, faults, clock, settings, marker };
        bucket.claim(marker);
        bucket
    }

    fn claim(&mut self, marker: ClusterMarker) {
        self.marker = marker;
        now(lts::cluster::claim(&self.memory, marker)).expect("nobody else claims it");
    }

    /// Another machine takes it over.
    pub(super) fn take_over(&mut self, rng: &mut Rng) {
        let incarnation = Incarnation(self.marker.incarnation.0 + 1);
        self.claim(ClusterMarker { incarnation, marker: rng.u128() });
    }

    /// As a process sees it: patience is a process's own.
    pub(super) fn storage(&self, rng: &mut Rng) -> Storage {
        let timer = Arc::new(ManualTimer(self.clock.clone()));
        let settings =
            lts::Settings { timeout: Period::seconds(1), attempts: 3, ..lts::Settings::default() };
        let guarded = Guarded::new(
            Arc::new(self.faulty.clone()),
            &settings,
            self.clock.clone(),
            timer,
            rng.fork("patience"),
            Arc::new(|_| ()),
        );
        self.storage_over(Arc::new(guarded))
    }

    /// As a process sees it that does not know yet that it is gone.
    pub(super) fn storage_of_gone(&self, sent: Sent) -> Storage {
        self.storage_over(Arc::new(Sender { memory: self.memory.clone(), sent }))
    }

    fn storage_over(&self, bucket: Arc<dyn Bucket>) -> Storage {
        let owner = Owner::new(bucket.clone(), self.clock.clone(), self.marker);
        Storage {
            bucket,
            waiter: Arc::new(Inline),
            settings: self.settings.clone(),
            owner: Some(Arc::new(owner)),
            ready: tokio::sync::watch::channel(true).1,
            held: replica::Held::default(),
        }
    }

    /// Time has passed in the world.
    pub(super) fn follow(&self, now: MonotonicTime) {
        self.clock.advance(now.since(self.clock.monotonic()));
    }

    /// The bucket's own time, to be compared before and after.
    pub(super) fn time(&self) -> MonotonicTime {
        self.clock.monotonic()
    }

    pub(super) fn set_rates(&self, rates: FaultRates) {
        self.faults.set_rates(rates);
    }

    pub(super) fn set_outage(&self, kind: Option<ErrorKind>) {
        self.faults.set_outage(kind);
    }

    /// Something that was sent long ago arrives; whether it changed anything.
    pub(super) fn arrive(&self, request: Request) -> bool {
        match request {
            Request::Put(path, payload) => now(self.memory.put(&path, payload)).is_ok(),
            Request::Delete(paths) => now(self.memory.delete(&paths)).is_ok(),
        }
    }

    /// Whether the object is a copy of a state.
    pub(super) fn is_copy(&self, name: ObjectName) -> bool {
        let head = now(self.memory.get(&name.into(), 0..Kind::PEEK_BYTES as u64));
        head.is_ok_and(|head| matches!(Kind::peek(name, &head), Ok(Kind::Checkpoint)))
    }

    /// All objects that have an object's name, with their lengths.
    pub(super) fn listing(&self) -> Listing {
        let mut found = Listing::new();
        let mut after: Option<ObjectPath> = None;
        loop {
            let page = now(self.memory.list("", after.as_ref(), lts::bucket::PAGE_OBJECTS_MAX));
            let page = page.expect("memory answers");
            let named = |listed: &Listed| Some((listed.path.as_str().parse().ok()?, listed.length));
            found.extend(page.objects.iter().filter_map(named));
            after = page.objects.last().map(|last| last.path.clone());
            if !page.more {
                return found;
            }
        }
    }
}

/// Names given to one job, by what is the same in all of them.
pub(super) fn job_of(name: ObjectName) -> (GroupId, Term, u64) {
    (name.group, name.term, name.sequence >> 20)
}

/// The outcome of a future of the memory, which is always ready.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut context = Context::from_waker(Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        Poll::Ready(done) => done,
        Poll::Pending => unreachable!("memory answers at once"),
    }
}

/// A change of the bucket on its way.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Put(ObjectPath, Payload),
    Delete(Vec<ObjectPath>),
}

/// What a process sent, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Sent(Arc<Mutex<Vec<Request>>>);

impl Sent {
    fn push(&self, request: Request) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    }

    pub(super) fn take(&self) -> Vec<Request> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Keeps changes instead of making them, and says that they are made.
#[derive(Debug)]
struct Sender {
    memory: Memory,
    sent: Sent,
}

impl Altered for Sender {
    fn inner(&self) -> &dyn Bucket {
        &self.memory
    }

    fn put<'a>(
        &'a self,
        path: &'a ObjectPath,
        payload: Payload,
    ) -> BoxFuture<'a, Result<(), Error>> {
        self.sent.push(Request::Put(path.clone(), payload));
        Box::pin(ready(Ok(())))
    }

    fn delete<'a>(&'a self, paths: &'a [ObjectPath]) -> BoxFuture<'a, Result<(), Error>> {
        self.sent.push(Request::Delete(paths.to_vec()));
        Box::pin(ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_sent_arrives_when_it_is_let() {
        let mut rng = Rng::from_seed(1);
        let bucket = SimBucket::new(&BucketPlan::draw(&mut rng), WallTime(0), &mut rng);
        let sent = Sent::default();
        let storage = bucket.storage_of_gone(sent.clone());
        let name = ObjectName {
            incarnation: Incarnation(1),
            group: GroupId(2),
            term: Term(1),
            sequence: 4,
        };
        now(storage.bucket.put(&name.into(), Payload::from("late"))).unwrap();
        assert!(bucket.listing().is_empty());
        let mut requests = sent.take().into_iter();
        assert!(bucket.arrive(requests.next().unwrap()));
        assert_eq!(bucket.listing(), Listing::from([(name, 4)]));
        assert!(requests.next().is_none());
    }
}
