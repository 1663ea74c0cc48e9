//! A bucket with patience: what everything above long-term storage talks to.
//!
//! Around any other bucket it limits the time of every request, tries again what may yet succeed
//! with a growing, random wait and out of a budget, stops asking a store that does not answer
//! (`breaker.rs`), settles open outcomes by reading, and reads large ranges in parallel. Its laws are
//! those of [`Bucket`], stronger in these points:
//!
//! - a put is `Ok` exactly when the object is there with these very bytes, whoever put them;
//!   `AlreadyExists` means that it has others;
//! - a read that came short is read again before it counts as `Damaged`;
//! - every operation ends in bounded time.
//!
//! `Unavailable` still leaves open whether a put or delete happened.

mod breaker;
mod patience;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use common::limits::MIB;
use common::{Clock, Rng};
use futures::future::{BoxFuture, Either, select};
use futures::{StreamExt, TryStreamExt, stream};

use self::breaker::{Breaker, Pass};
pub use self::breaker::{BreakerState, BreakerStatus};
use self::patience::{RetryBudget, backoff};
use crate::settings::Settings;
use crate::timer::Timer;
use crate::{Bucket, Error, ErrorKind, Leftover, Listed, ObjectPath, Operation, Page, Payload};

/// Bytes of one ranged request of a large read: enough to pay for the way there and back.
const PART_BYTES: u64 = 8 * MIB as u64;

/// Reads that a short answer gets before it counts as damage.
const SHORT_READS_MAX: u32 = 3;

/// Paths for which one more `timeout` is granted in a batch of deletions: some stores delete one
/// by one.
const DELETES_PER_TIMEOUT: u32 = 100;

/// What happened, told as it happens: for metrics. Must be quick and not call back.
pub type Observer = Arc<dyn Fn(&Observation) + Send + Sync>;

/// See [`Observer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// One request ended; `bytes` is what it carried, if it succeeded.
    Attempt { operation: Operation, outcome: Result<(), ErrorKind>, bytes: u64, took: Duration },
    /// A request is made once more.
    Retry { operation: Operation },
    /// The circuit breaker changed its state.
    Breaker { state: BreakerState },
}

/// See the module.
pub struct Guarded {
    bucket: Arc<dyn Bucket>,
    clock: Arc<dyn Clock>,
    timer: Arc<dyn Timer>,
    settings: Settings,
    state: Mutex<State>,
    observer: Observer,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    breaker: Breaker,
    budget: RetryBudget,
    last_error: Option<Error>,
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

/// Whose bytes an object has.
enum Stored {
    These,
    Others,
    Nothing,
}

impl Guarded {
    pub fn new(
        bucket: Arc<dyn Bucket>,
        settings: &Settings,
        clock: Arc<dyn Clock>,
        timer: Arc<dyn Timer>,
        rng: Rng,
        observer: Observer,
    ) -> Self {
        let state = State {
            rng,
            breaker: Breaker::default(),
            budget: RetryBudget::default(),
            last_error: None,
        };
        let (settings, state) = (settings.clone(), Mutex::new(state));
        Self { bucket, clock, timer, settings, state, observer }
    }

    /// Whether the store answers, since when, and why not.
    pub fn breaker(&self) -> BreakerStatus {
        let state = self.state();
        state.breaker.status(self.clock.monotonic(), state.last_error.as_ref())
    }

    /// All bytes of the range, read in parallel where it is large.
    pub async fn read(&self, path: &ObjectPath, range: Range<u64>) -> Result<Payload, Error> {
        let starts = range.clone().step_by(PART_BYTES as usize);
        let parts = starts.map(|start| start..range.end.min(start + PART_BYTES));
        let reads = stream::iter(parts).map(|part| self.get_part(path, part));
        let pieces: Vec<Bytes> = reads.buffered(self.settings.parallel_reads).try_collect().await?;
        Ok(pieces.into_iter().collect())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(
        &self,
        kind: ErrorKind,
        operation: Operation,
        subject: &str,
        why: impl fmt::Display,
    ) -> Error {
        Error::new(kind, operation, subject, self.url(), why)
    }

    /// Makes attempts until one succeeds, fails for good, or patience ends.
    async fn attempts<'a, T>(
        &'a self,
        operation: Operation,
        subject: &str,
        limit: Limit,
        attempt: impl Fn() -> BoxFuture<'a, Result<T, Error>>,
    ) -> Result<T, Error> {
        let (mut number, mut short) = (1, 0);
        loop {
            let error = match self.once(operation, subject, limit, attempt()).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            short += u32::from(error.kind() == ErrorKind::Damaged);
            let passing = match error.kind() {
                ErrorKind::Unavailable => true,
                ErrorKind::Damaged => short < SHORT_READS_MAX,
                _ => false,
            };
            if !passing || number >= self.settings.attempts {
                return Err(error);
            }
            self.wait(operation, number, error).await?;
            number += 1;
        }
    }

    /// Waits before the next attempt, or fails with the last one's error where there is none.
    async fn wait(&self, operation: Operation, number: u32, error: Error) -> Result<(), Error> {
        let wait = {
            let mut state = self.state();
            if let Some(after) = state.breaker.refuses(self.clock.monotonic()) {
                return Err(error.retry_after(after));
            }
            if !state.budget.take() {
                return Err(error);
            }
            backoff(&mut state.rng, number).max(error.after().unwrap_or_default())
        };
        (self.observer)(&Observation::Retry { operation });
        self.timer.sleep(wait).await;
        Ok(())
    }

    /// One attempt, if the breaker lets it pass, in the time that it has.
    async fn once<T>(
        &self,
        operation: Operation,
        subject: &str,
        limit: Limit,
        attempt: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let pass = self.admit(operation, subject)?;
        let began = self.clock.monotonic();
        let time = self.time(limit);
        let outcome = match select(pin!(attempt), self.timer.sleep(time)).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(_) => {
                let why = format!("there was no answer within {time:?}");
                Err(self.error(ErrorKind::Unavailable, operation, subject, why))
            }
        };
        let took = self.clock.monotonic().since(began);
        pass.settle(outcome.as_ref().err());
        let told = outcome.as_ref().map(drop).map_err(Error::kind);
        let bytes = if told.is_ok() { limit.bytes } else { 0 };
        (self.observer)(&Observation::Attempt { operation, outcome: told, bytes, took });
        outcome
    }

    fn time(&self, limit: Limit) -> Duration {
        let millis = limit.bytes.saturating_mul(1_000) / self.settings.rate_min.bytes().max(1);
        self.settings.timeout.0 * limit.timeouts + Duration::from_millis(millis)
    }

    fn admit(&self, operation: Operation, subject: &str) -> Result<Attempt<'_>, Error> {
        let mut state = self.state();
        let before = state.breaker.state();
        let pass = state.breaker.admit(self.clock.monotonic());
        let after = state.breaker.state();
        let last = state.last_error.clone();
        drop(state);
        self.tell(before, after);
        match pass {
            Ok(pass) => Ok(Attempt { guarded: self, pass: Some(pass) }),
            Err(after) => {
                let last = last.as_ref().map_or("it did not answer", Error::reason);
                let why = format!("it is not asked again for {after:?}, since it failed: {last}");
                Err(self.error(ErrorKind::Unavailable, operation, subject, why).retry_after(after))
            }
        }
    }

    fn tell(&self, before: BreakerState, after: BreakerState) {
        if before == after {
            return;
        }
        (self.observer)(&Observation::Breaker { state: after });
        let url = self.url();
        match after {
            BreakerState::Closed => {
                tracing::info!(bucket = %url, "long-term storage answers again")
            }
            BreakerState::Open if before == BreakerState::Closed => {
                let last = self.state().last_error.clone();
                let error = last.as_ref().map_or("", Error::reason);
                tracing::warn!(
                    bucket = %url, error, "long-term storage does not answer; it is asked now and then"
                );
            }
            _ => {}
        }
    }

    /// Puts once and, where that leaves open whose bytes there are, looks.
    async fn put_once(&self, path: &ObjectPath, payload: &Payload) -> Result<(), Error> {
        let put = self.bucket.put(path, payload.clone());
        match self.once(Operation::Put, path.as_str(), Limit::bytes(payload.len()), put).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                match self.stored(path, payload).await.map_err(|error| self.open(&error))? {
                    Stored::These => Ok(()),
                    Stored::Others => Err(error),
                    Stored::Nothing => {
                        let why = "it competed with another put, and neither is there yet";
                        Err(self.error(ErrorKind::Unavailable, Operation::Put, path.as_str(), why))
                    }
                }
            }
            other => other,
        }
    }

    /// What kept a put from its answer. That the object could not be read whole says nothing about
    /// whose it is.
    fn open(&self, error: &Error) -> Error {
        if error.kind() != ErrorKind::Damaged {
            return error.clone();
        }
        let why = format!("whether it succeeded could not be read: {}", error.reason());
        self.error(ErrorKind::Unavailable, Operation::Put, error.subject(), why)
    }

    async fn stored(&self, path: &ObjectPath, payload: &Payload) -> Result<Stored, Error> {
        let found = match self.head(path).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Stored::Nothing),
            other => other?,
        };
        if found.length != payload.len() {
            return Ok(Stored::Others);
        }
        let mut crc = crc32fast::Hasher::new();
        for start in (0..found.length).step_by(PART_BYTES as usize) {
            // One part at a time: the payload waits in memory meanwhile.
            let part = start..found.length.min(start + PART_BYTES);
            crc.update(&self.get_part(path, part).await?);
        }
        let same = crc.finalize() == payload.crc32();
        Ok(if same { Stored::These } else { Stored::Others })
    }

    async fn get_part(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, Error> {
        let length = range.end - range.start;
        let limit = Limit::bytes(length);
        self.attempts(Operation::Get, path.as_str(), limit, || {
            let range = range.clone();
            Box::pin(async move {
                let bytes = self.bucket.get(path, range).await?;
                if bytes.len() as u64 == length {
                    return Ok(bytes);
                }
                let why = format!("{} bytes came instead of {length}", bytes.len());
                Err(self.error(ErrorKind::Damaged, Operation::Get, path.as_str(), why))
            })
        })
        .await
    }
}

/// What a request may take: bytes at the lowest rate, and this many times the time-out.
#[derive(Debug, Clone, Copy)]
struct Limit {
    bytes: u64,
    timeouts: u32,
}

impl Limit {
    const fn bytes(bytes: u64) -> Self {
        Self { bytes, timeouts: 1 }
    }
}

/// An attempt under way. Dropped without an outcome it lets another one try.
struct Attempt<'a> {
    guarded: &'a Guarded,
    pass: Option<Pass>,
}

impl Attempt<'_> {
    /// Anything but `Unavailable` is an answer.
    fn settle(mut self, error: Option<&Error>) {
        let Some(pass) = self.pass.take() else { return };
        let now = self.guarded.clock.monotonic();
        let mut state = self.guarded.state();
        let before = state.breaker.state();
        match error.filter(|error| error.kind() == ErrorKind::Unavailable) {
            Some(error) => {
                state.last_error = Some(error.clone());
                let State { breaker, rng, .. } = &mut *state;
                breaker.failed(pass, now, rng);
            }
            None => {
                state.breaker.succeeded();
                state.budget.earn();
            }
        }
        let after = state.breaker.state();
        drop(state);
        self.guarded.tell(before, after);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.guarded.state().breaker.abandoned(pass);
        }
    }
}

impl Bucket for Guarded {
    fn url(&self) -> String {
        self.bucket.url()
    }

    fn put<'a>(
        &'a self,
        path: &'a ObjectPath,
        payload: Payload,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let mut number = 1;
            loop {
                let error = match self.put_once(path, &payload).await {
                    Err(error) if error.kind() == ErrorKind::Unavailable => error,
                    other => return other,
                };
                if number == self.settings.attempts {
                    return Err(error);
                }
                self.wait(Operation::Put, number, error).await?;
                number += 1;
            }
        })
    }

    fn get<'a>(
        &'a self,
        path: &'a ObjectPath,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, Error>> {
        Box::pin(async move { Ok(self.read(path, range).await?.into_bytes()) })
    }

    fn head<'a>(&'a self, path: &'a ObjectPath) -> BoxFuture<'a, Result<Listed, Error>> {
        let head = move || self.bucket.head(path);
        Box::pin(self.attempts(Operation::Head, path.as_str(), Limit::bytes(0), head))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a ObjectPath>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, Error>> {
        let list = move || self.bucket.list(prefix, after, limit);
        Box::pin(self.attempts(Operation::List, prefix, Limit::bytes(0), list))
    }

    fn delete<'a>(&'a self, paths: &'a [ObjectPath]) -> BoxFuture<'a, Result<(), Error>> {
        let first = paths.first().map_or("", ObjectPath::as_str);
        let timeouts = 1 + paths.len() as u32 / DELETES_PER_TIMEOUT;
        let limit = Limit { bytes: 0, timeouts };
        Box::pin(self.attempts(Operation::Delete, first, limit, || self.bucket.delete(paths)))
    }

    fn leftovers(&self, age: Duration) -> BoxFuture<'_, Result<Vec<Leftover>, Error>> {
        let look = move || self.bucket.leftovers(age);
        Box::pin(self.attempts(Operation::Maintain, "leftovers", Limit::bytes(0), look))
    }

    fn remove_leftovers<'a>(
        &'a self,
        leftovers: &'a [Leftover],
    ) -> BoxFuture<'a, Result<(), Error>> {
        let remove = move || self.bucket.remove_leftovers(leftovers);
        Box::pin(self.attempts(Operation::Maintain, "leftovers", Limit::bytes(0), remove))
    }
}
