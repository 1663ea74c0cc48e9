//! A bucket that does what it is told to do wrong: delays, errors, lost answers, refusals, slow,
//! short and rotten bodies, requests that never end. It wraps any other and keeps its laws wherever
//! no fault strikes.
//!
//! Faults are planned one by one, or drawn: every kind from a generator of its own, so that one more
//! draw of one does not move the others.

use std::collections::BTreeMap;
use std::future::pending;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::{ByteSize, Rng};
use futures::future::BoxFuture;

use crate::timer::Timer;
use crate::{Bucket, Error, ErrorKind, Leftover, Listed, ObjectPath, Operation, Page, Payload};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The answer takes longer.
    Delay(Duration),
    /// The operation fails without having happened.
    Error(ErrorKind),
    /// The operation happens, and its answer is lost.
    LostAnswer,
    /// The store asks to come back after this time (503 with `Retry-After`).
    Busy(Duration),
    /// Bytes come and go at this rate a second.
    SlowBody(ByteSize),
    /// A read answers with only so many bytes.
    ShortBody(usize),
    /// A read answers with this bit (counted over the range) flipped.
    FlipBit(u64),
    /// The operation never happens, and nobody says so.
    Hang,
    /// The operation happens, and nobody ever says so.
    HangAfter,
}

/// How often, in a thousand, an operation meets a fault of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultRates {
    pub delay: u64,
    /// The longest delay that is drawn.
    pub delay_max: Duration,
    pub error: u64,
    pub lost_answer: u64,
    pub busy: u64,
    pub slow_body: u64,
    pub short_body: u64,
    pub flip_bit: u64,
    pub hang: u64,
}

#[derive(Debug)]
struct Planned {
    operation: Operation,
    prefix: String,
    skip: u64,
    fault: Fault,
}

#[derive(Debug)]
struct Plan {
    planned: Vec<Planned>,
    rates: FaultRates,
    outage: Option<ErrorKind>,
    draws: BTreeMap<&'static str, Rng>,
    struck: u64,
}

const KINDS: [&str; 8] = ["delay", "error", "lost", "busy", "slow", "short", "flip", "hang"];

/// The faults of a [`Faulty`] bucket: what is planned and what has struck.
#[derive(Debug)]
pub struct Faults(Mutex<Plan>);

impl Faults {
    fn new(mut rng: Rng) -> Self {
        let draws = KINDS.into_iter().map(|kind| (kind, rng.fork(kind))).collect();
        Self(Mutex::new(Plan {
            planned: Vec::new(),
            rates: FaultRates::default(),
            outage: None,
            draws,
            struck: 0,
        }))
    }

    /// Plans a fault for the operation on a path that begins with `prefix`, after `skip` matching
    /// ones have passed. It strikes once.
    pub fn plan_fault(&self, operation: Operation, prefix: &str, skip: u64, fault: Fault) {
        let prefix = prefix.to_owned();
        self.plan().planned.push(Planned { operation, prefix, skip, fault });
    }

    /// Draws faults from now on.
    pub fn set_rates(&self, rates: FaultRates) {
        self.plan().rates = rates;
    }

    /// Every operation fails with this kind, or none does any more. `Full` and `Denied` refuse only
    /// what would change the store, as a full disk and the right to read do.
    pub fn set_outage(&self, kind: Option<ErrorKind>) {
        self.plan().outage = kind;
    }

    /// How many faults have struck.
    pub fn struck(&self) -> u64 {
        self.plan().struck
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, operation: Operation, subject: &str) -> Option<Fault> {
        let mut plan = self.plan();
        let fault = plan.outage(operation).or_else(|| plan.due(operation, subject));
        let fault = fault.or_else(|| plan.draw(operation));
        plan.struck += u64::from(fault.is_some());
        fault
    }
}

impl Plan {
    fn outage(&self, operation: Operation) -> Option<Fault> {
        let kind = self.outage?;
        let strikes = match (kind, operation) {
            (ErrorKind::Full, _) => operation == Operation::Put,
            (ErrorKind::Denied, _) => matches!(operation, Operation::Put | Operation::Delete),
            _ => true,
        };
        strikes.then_some(Fault::Error(kind))
    }

    fn due(&mut self, operation: Operation, subject: &str) -> Option<Fault> {
        let mut due = None;
        for (at, planned) in self.planned.iter_mut().enumerate() {
            if planned.operation != operation || !subject.starts_with(&planned.prefix) {
                continue;
            }
            if planned.skip == 0 {
                due.get_or_insert(at);
            } else {
                planned.skip -= 1;
            }
        }
        Some(self.planned.remove(due?).fault)
    }

    /// Every generator draws for every operation, whatever comes of it.
    fn draw(&mut self, operation: Operation) -> Option<Fault> {
        let rates = self.rates;
        let mut struck = |kind: &str, rate| {
            let rng = self.draws.get_mut(kind).expect("every kind has its generator");
            let (number, hit) = (rng.u64(), rng.chance(rate, 1_000));
            hit.then_some(number)
        };
        let delay = struck("delay", rates.delay);
        let error = struck("error", rates.error);
        let lost = struck("lost", rates.lost_answer);
        let busy = struck("busy", rates.busy);
        let slow = struck("slow", rates.slow_body);
        let short = struck("short", rates.short_body);
        let flip = struck("flip", rates.flip_bit);
        let hang = struck("hang", rates.hang);
        let reads = operation == Operation::Get;
        let longest = rates.delay_max.as_micros() as u64 + 1;
        let time = |number| Duration::from_micros(number % longest);
        let hangs = |number: u64| if number & 1 == 0 { Fault::Hang } else { Fault::HangAfter };
        let drawn = [
            hang.map(hangs),
            lost.map(|_| Fault::LostAnswer),
            error.map(|_| Fault::Error(ErrorKind::Unavailable)),
            busy.map(|number| Fault::Busy(time(number))),
            short.filter(|_| reads).map(|number| Fault::ShortBody((number % 4096) as usize)),
            flip.filter(|_| reads).map(Fault::FlipBit),
            slow.map(|number| Fault::SlowBody(ByteSize::kib(64 + number % 1024))),
            delay.map(|number| Fault::Delay(time(number))),
        ];
        drawn.into_iter().flatten().next()
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Faulty {
    inner: Arc<dyn Bucket>,
    timer: Arc<dyn Timer>,
    faults: Arc<Faults>,
}

impl Faulty {
    /// Wraps `inner`; the timer is how time passes in a delay.
    pub fn new(inner: Arc<dyn Bucket>, timer: Arc<dyn Timer>, rng: Rng) -> Self {
        Self { inner, timer, faults: Arc::new(Faults::new(rng)) }
    }

    pub fn faults(&self) -> Arc<Faults> {
        self.faults.clone()
    }

    fn error(&self, kind: ErrorKind, operation: Operation, subject: &str, why: &str) -> Error {
        Error::new(kind, operation, subject, self.url(), why)
    }

    /// Does what `act` does, or what the fault makes of it; `bytes` is what a body carries.
    async fn suffer<T>(
        &self,
        operation: Operation,
        subject: &str,
        bytes: u64,
        fault: Option<Fault>,
        act: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let error = |kind, why| Err(self.error(kind, operation, subject, why));
        match fault {
            Some(Fault::Delay(time)) => self.timer.sleep(time).await,
            Some(Fault::SlowBody(rate)) => {
                let micros = bytes.saturating_mul(1_000_000) / rate.bytes().max(1);
                self.timer.sleep(Duration::from_micros(micros)).await;
            }
            Some(Fault::Error(kind)) => return error(kind, "a planned fault"),
            Some(Fault::Busy(after)) => {
                let busy = "a planned fault: 503 Slow Down";
                let busy = self.error(ErrorKind::Unavailable, operation, subject, busy);
                return Err(busy.retry_after(after));
            }
            Some(Fault::LostAnswer) => {
                // What came of it, nobody hears.
                let _ = act.await;
                return error(ErrorKind::Unavailable, "a planned fault: the answer was lost");
            }
            Some(Fault::Hang) => return pending().await,
            Some(Fault::HangAfter) => {
                let _ = act.await;
                return pending().await;
            }
            Some(Fault::ShortBody(_) | Fault::FlipBit(_)) | None => {}
        }
        act.await
    }
}

fn distort(bytes: Bytes, fault: Option<Fault>) -> Bytes {
    match fault {
        Some(Fault::ShortBody(length)) => bytes.slice(..length.min(bytes.len() - 1)),
        Some(Fault::FlipBit(bit)) => {
            let mut changed = BytesMut::from(&bytes[..]);
            let bit = bit % (bytes.len() as u64 * 8);
            changed[(bit / 8) as usize] ^= 1 << (bit % 8);
            changed.freeze()
        }
        _ => bytes,
    }
}

impl Bucket for Faulty {
    fn url(&self) -> String {
        self.inner.url()
    }

    fn put<'a>(
        &'a self,
        path: &'a ObjectPath,
        payload: Payload,
    ) -> BoxFuture<'a, Result<(), Error>> {
        let fault = self.faults.take(Operation::Put, path.as_str());
        let bytes = payload.len();
        let act = self.inner.put(path, payload);
        Box::pin(self.suffer(Operation::Put, path.as_str(), bytes, fault, act))
    }

    fn get<'a>(
        &'a self,
        path: &'a ObjectPath,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, Error>> {
        let fault = self.faults.take(Operation::Get, path.as_str());
        let bytes = range.end - range.start;
        let act = self.inner.get(path, range);
        Box::pin(async move {
            let got = self.suffer(Operation::Get, path.as_str(), bytes, fault, act).await?;
            Ok(distort(got, fault))
        })
    }

    fn head<'a>(&'a self, path: &'a ObjectPath) -> BoxFuture<'a, Result<Listed, Error>> {
        let fault = self.faults.take(Operation::Head, path.as_str());
        Box::pin(self.suffer(Operation::Head, path.as_str(), 0, fault, self.inner.head(path)))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a ObjectPath>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, Error>> {
        let fault = self.faults.take(Operation::List, prefix);
        let act = self.inner.list(prefix, after, limit);
        Box::pin(self.suffer(Operation::List, prefix, 0, fault, act))
    }

    fn delete<'a>(&'a self, paths: &'a [ObjectPath]) -> BoxFuture<'a, Result<(), Error>> {
        let first = paths.first().map_or("", ObjectPath::as_str);
        let fault = self.faults.take(Operation::Delete, first);
        Box::pin(self.suffer(Operation::Delete, first, 0, fault, self.inner.delete(paths)))
    }

    fn leftovers(&self, age: Duration) -> BoxFuture<'_, Result<Vec<Leftover>, Error>> {
        let fault = self.faults.take(Operation::Maintain, "");
        Box::pin(self.suffer(Operation::Maintain, "", 0, fault, self.inner.leftovers(age)))
    }

    fn remove_leftovers<'a>(
        &'a self,
        leftovers: &'a [Leftover],
    ) -> BoxFuture<'a, Result<(), Error>> {
        let fault = self.faults.take(Operation::Maintain, "");
        let act = self.inner.remove_leftovers(leftovers);
        Box::pin(self.suffer(Operation::Maintain, "", 0, fault, act))
    }
}

#[cfg(test)]
mod tests {
    use common::clock::ManualClock;
    use futures::FutureExt;

    use super::*;
    use crate::Memory;
    use crate::test_support::{path, payload};
    use crate::timer::TokioTimer;

    fn faulty(seed: u64) -> Faulty {
        let memory = Memory::new(Arc::new(ManualClock::default()));
        Faulty::new(Arc::new(memory), Arc::new(TokioTimer), Rng::from_seed(seed))
    }

    #[tokio::test(start_paused = true)]
    async fn planned_faults_strike_once_where_they_were_planned() {
        let bucket = faulty(1);
        let faults = bucket.faults();
        faults.plan_fault(Operation::Put, "a", 1, Fault::Error(ErrorKind::Full));
        bucket.put(&path("b"), payload("b")).await.unwrap();
        bucket.put(&path("a1"), payload("a")).await.unwrap();
        let full = bucket.put(&path("a2"), payload("a")).await.unwrap_err();
        assert_eq!(full.kind(), ErrorKind::Full);

        faults.plan_fault(Operation::Put, "a2", 0, Fault::LostAnswer);
        let lost = bucket.put(&path("a2"), payload("a")).await.unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::Unavailable);
        assert_eq!(bucket.get(&path("a2"), 0..1).await.unwrap(), "a");

        faults.plan_fault(Operation::Get, "b", 0, Fault::FlipBit(1));
        assert_eq!(bucket.get(&path("b"), 0..1).await.unwrap(), "`");
        faults.plan_fault(Operation::Get, "b", 0, Fault::ShortBody(0));
        assert!(bucket.get(&path("b"), 0..1).await.unwrap().is_empty());
        faults.plan_fault(Operation::Get, "b", 0, Fault::Busy(Duration::from_secs(3)));
        let busy = bucket.get(&path("b"), 0..1).await.unwrap_err();
        assert_eq!(busy.after(), Some(Duration::from_secs(3)));

        let began = tokio::time::Instant::now();
        faults.plan_fault(Operation::Get, "b", 0, Fault::SlowBody(ByteSize(1)));
        bucket.get(&path("b"), 0..1).await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 1);
        for hang in [Fault::Hang, Fault::HangAfter] {
            faults.plan_fault(Operation::Get, "b", 0, hang);
            assert!(bucket.get(&path("b"), 0..1).now_or_never().is_none());
        }
        assert_eq!(faults.struck(), 8);
        bucket.get(&path("b"), 0..1).await.unwrap();
    }

    #[tokio::test]
    async fn a_full_or_read_only_store_goes_on_reading_and_one_that_is_out_does_nothing() {
        let bucket = faulty(1);
        bucket.put(&path("a"), payload("a")).await.unwrap();
        for kind in [ErrorKind::Full, ErrorKind::Denied] {
            bucket.faults().set_outage(Some(kind));
            assert_eq!(bucket.put(&path("b"), payload("b")).await.unwrap_err().kind(), kind);
            bucket.get(&path("a"), 0..1).await.unwrap();
        }
        bucket.faults().set_outage(Some(ErrorKind::Unavailable));
        bucket.get(&path("a"), 0..1).await.unwrap_err();
        bucket.faults().set_outage(None);
        bucket.delete(&[path("a")]).await.unwrap();
    }

    #[tokio::test]
    async fn the_same_seed_draws_the_same_and_one_kind_does_not_move_another() {
        async fn struck(seed: u64, rates: FaultRates) -> Vec<bool> {
            let bucket = faulty(seed);
            bucket.faults().set_rates(rates);
            let mut outcomes = Vec::new();
            for number in 0..200 {
                let name = path(&number.to_string());
                let lost = bucket.put(&name, payload("x")).await;
                outcomes.push(lost.is_err_and(|error| error.reason().contains("lost")));
            }
            outcomes
        }
        let lost = FaultRates { lost_answer: 200, ..FaultRates::default() };
        let first = struck(7, lost).await;
        assert_eq!(first, struck(7, lost).await);
        assert_ne!(first, struck(8, lost).await);
        assert_eq!(first, struck(7, FaultRates { error: 500, ..lost }).await);
        assert!((20..=60).contains(&first.iter().filter(|lost| **lost).count()));
    }
}
