//! Whether the bucket is still this cluster's, looked at again and again while it is used.
//!
//! A recovery takes a bucket over without asking the node before it, which may live on: cut off
//! from people, and not from its bucket. Any time may pass between a look at the marker and the
//! request that follows it, so that no look makes a request safe. What does:
//!
//! - A *put* that arrives behind the claim is of a name that the old incarnation leads, and a
//!   recovery uses none but those that it found when it had claimed. [`look_lately`] is there to end
//!   a lost node soon. What it costs that the look is old, by [`LATELY`] at most, is that such a
//!   node goes on for so long to acknowledge what the recovered cluster does not have, as it does
//!   between the claim and any look.
//! - A *deletion* is chosen first, by what is committed and in the bucket, and [`look`]s then: where
//!   that finds no claim, all that it was chosen by was there before one, and a recovery finds it.
//!   What is then deleted, however late, is nothing that leads on from there. An older look would
//!   say nothing of what was committed since.
//!
//! [`look`]: Owner::look
//! [`look_lately`]: Owner::look_lately

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::{Clock, MonotonicTime};
use tokio::sync::watch;

use crate::cluster::{newest_listed, read_marker};
use crate::probe::judge;
use crate::{Bucket, ClusterMarker, Error, Listed, Refused};

/// How old the look may be that a put is content with: one listing in so much time, whoever puts.
pub const LATELY: Duration = Duration::from_secs(3);

/// The owner of a bucket, as one process knows it. A bucket that was once seen to be another's is
/// not looked at any more.
pub struct Owner {
    bucket: Arc<dyn Bucket>,
    clock: Arc<dyn Clock>,
    ours: ClusterMarker,
    seen: Mutex<Seen>,
    lost: watch::Sender<Option<Refused>>,
}

#[derive(Debug, Default)]
struct Seen {
    /// When the last look began that found the bucket to be ours.
    at: Option<MonotonicTime>,
    /// Our marker's object. Objects are not replaced: while it is listed as the newest it need not
    /// be read again.
    marker: Option<Listed>,
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner").field("ours", &self.ours).finish_non_exhaustive()
    }
}

impl Owner {
    pub fn new(bucket: Arc<dyn Bucket>, clock: Arc<dyn Clock>, ours: ClusterMarker) -> Self {
        let (seen, lost) = (Mutex::default(), watch::Sender::new(None));
        Self { bucket, clock, ours, seen, lost }
    }

    /// What the bucket must say.
    pub fn marker(&self) -> ClusterMarker {
        self.ours
    }

    /// Asks the bucket whose it is.
    pub async fn look(&self) -> Result<(), Refused> {
        if let Some(refused) = self.refused() {
            return Err(refused);
        }
        let began = self.clock.monotonic();
        let judged = match self.newest().await {
            Ok(found) => judge(self.bucket.url(), found, Some(self.ours)),
            Err(error) => return Err(error.into()),
        };
        match &judged {
            Ok(()) => self.seen().at = Some(began),
            Err(refused) => {
                self.seen().at = None;
                if refused.is_taken() {
                    self.lost.send_replace(Some(refused.clone()));
                }
            }
        }
        judged
    }

    /// Asks the bucket whose it is, unless it was asked a moment ago and was ours.
    pub async fn look_lately(&self) -> Result<(), Refused> {
        if let Some(refused) = self.refused() {
            return Err(refused);
        }
        let now = self.clock.monotonic();
        let lately = self.seen().at.is_some_and(|at| now.since(at) < LATELY);
        if lately { Ok(()) } else { self.look().await }
    }

    /// Why the bucket is not ours any more, once that was seen.
    pub fn refused(&self) -> Option<Refused> {
        self.lost.borrow().clone()
    }

    /// Returns when the bucket was seen to be another's.
    pub async fn lost(&self) -> Refused {
        let mut lost = self.lost.subscribe();
        loop {
            if let Some(refused) = lost.borrow_and_update().clone() {
                return refused;
            }
            lost.changed().await.expect("its sender is the owner's");
        }
    }

    async fn newest(&self) -> Result<Option<ClusterMarker>, Error> {
        let Some((incarnation, listed)) = newest_listed(&*self.bucket).await? else {
            return Ok(None);
        };
        if self.seen().marker.as_ref() == Some(&listed) {
            return Ok(Some(self.ours));
        }
        let found = read_marker(&*self.bucket, incarnation).await?;
        if found == self.ours {
            self.seen().marker = Some(listed);
        }
        Ok(Some(found))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
