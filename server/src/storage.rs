//! Long-term storage of this node: opened, looked at before anything relies on it, and claimed.
//!
//! A node whose cluster has no bucket yet starts only when the bucket is free, keeps the laws and
//! has been claimed: the marker is in `STORE` before it is in the bucket, and `STORE` says that the
//! bucket is claimed only when the log exists, so that a crash at any step is found out. From then
//! on a start never needs long-term storage: while that does not answer the node serves, goes on
//! asking, and is not [`ready`](Storage::ready), which is what tiering and deletions wait for. The
//! marker is looked at for as long as the node serves ([`Owner`]). When the bucket turns out to be
//! another cluster's, or that of a recovery, the node stops.
//!
//! Everything asked of the bucket is asked on one event loop ([`EventLoop`]).

mod counts;
mod event_loop;

use std::sync::Arc;
use std::time::Duration;

use common::{Clock, Rng};
use lts::{
    BreakerStatus, ClusterMarker, ErrorKind, Guarded, Observer, OpenError, Owner, Refused, StoreUrl,
};
use replica::Held;
use tokio::sync::watch;

pub(crate) use self::counts::{Counts, OperationCounts};
pub(crate) use self::event_loop::EventLoop;
pub use self::event_loop::Stopped;
use crate::error::ServerError;
use crate::identity::{DataDir, Uuid};
use crate::settings::Settings;

/// How long the start of a node that has a bucket waits for it.
const START_PATIENCE: Duration = Duration::from_secs(2);

/// How long after a look that failed the next one begins, at first and at most.
const LOOK_AGAIN_FIRST: Duration = Duration::from_millis(500);
const LOOK_AGAIN_LONGEST: Duration = Duration::from_secs(30);

/// How often the marker is looked at while there is nothing to put: a lost node that nobody writes to
/// any more should not be read from for long either.
const OWNER_LOOK: Duration = Duration::from_secs(10);

/// Opens a bucket by its URL.
pub(crate) type OpenBucket = Box<
    dyn Fn(&StoreUrl, &lts::Settings, Arc<dyn Clock>, Rng, Observer) -> Result<Guarded, OpenError>
        + Send,
>;

/// What is known of the bucket.
#[derive(Debug, Clone)]
enum Standing {
    /// Nothing yet.
    Unknown,
    /// It could not be asked; it is asked again.
    Failing(Refused),
    /// It is this cluster's and keeps the laws.
    Good,
    /// It is not to be used.
    Refused(Refused),
}

/// Long-term storage as the node uses it. Clones share everything.
#[derive(Debug, Clone)]
pub struct Storage {
    bucket: Arc<Guarded>,
    url: StoreUrl,
    owner: Arc<Owner>,
    standing: watch::Sender<Standing>,
    ready: watch::Sender<bool>,
    counts: Arc<Counts>,
    event_loop: Arc<EventLoop>,
    /// Memory of the groups' jobs with it.
    held: Held,
}

/// What people see of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StorageStatus {
    pub(crate) url: String,
    pub(crate) ready: bool,
    pub(crate) breaker: BreakerStatus,
    /// Why it is not ready, where an answer said so.
    pub(crate) not_ready: Option<String>,
}

impl Storage {
    /// Opens the bucket that the settings name and looks at it; `None` where they name none.
    pub(crate) async fn open(
        settings: &Settings,
        data: &mut DataDir,
        clock: Arc<dyn Clock>,
        mut rng: Rng,
        open_bucket: &OpenBucket,
    ) -> Result<Option<Self>, ServerError> {
        let claimed = data.identity().lts_claimed;
        let Some(url) = settings.lts_url() else {
            let dir = data.path().to_owned();
            return if claimed { Err(ServerError::StorageNeeded { dir }) } else { Ok(None) };
        };
        if claimed && !data.has_log()? {
            return Err(ServerError::LogGone { dir: data.path().to_owned(), url });
        }
        let marker = marker_of(data, &mut rng)?;
        let counts = Arc::new(Counts::default());
        let bucket = open_bucket(
            &url,
            &settings.lts_store(),
            clock.clone(),
            rng.fork("bucket"),
            Counts::observer(&counts),
        )?;
        let (standing, ready) = (watch::Sender::new(Standing::Unknown), watch::Sender::new(false));
        let event_loop = Arc::new(EventLoop::start()?);
        let bucket = Arc::new(bucket);
        let owner = Arc::new(Owner::new(bucket.clone(), clock, marker));
        let held = Held::default();
        let storage = Self { bucket, url, owner, standing, ready, counts, event_loop, held };
        let rng = rng.fork("probe");
        if claimed {
            storage.look(rng).await?
        } else {
            storage.probe_unclaimed(rng).await?
        }
        Ok(Some(storage))
    }

    /// Looks at a bucket that is already this cluster's, for as long as it takes, and waits a
    /// moment for what comes of it.
    async fn look(&self, rng: Rng) -> Result<(), ServerError> {
        let (storage, bucket) = (self.standings(), self.bucket.clone());
        self.event_loop.spawn("look at long-term storage", async move {
            storage.look_until_known(&bucket, rng).await;
            storage.watch().await;
        });
        let mut standing = self.standing.subscribe();
        let known = standing.wait_for(|standing| !matches!(standing, Standing::Unknown));
        match tokio::time::timeout(START_PATIENCE, known).await {
            Ok(Ok(standing)) => match &*standing {
                Standing::Refused(refused) => Err(refused.clone().into()),
                Standing::Failing(refused) if !may_pass(refused) => Err(refused.clone().into()),
                _ => Ok(()),
            },
            Ok(Err(_)) => Err(Stopped.into()),
            Err(_) => {
                tracing::warn!(
                    bucket = %self.url,
                    "long-term storage has not answered yet; the node serves without it"
                );
                Ok(())
            }
        }
    }

    /// Looks at a bucket that must be free; or it has this cluster's marker, when a crash came
    /// between the claim and its record.
    async fn probe_unclaimed(&self, mut rng: Rng) -> Result<(), ServerError> {
        let (bucket, ours) = (self.bucket.clone(), self.marker());
        let probed = self.run(async move {
            match lts::probe(&*bucket, None, &mut rng).await {
                Err(Refused::Foreign { found, .. }) if found == ours => {
                    lts::probe(&*bucket, Some(ours), &mut rng).await
                }
                other => other,
            }
        });
        Ok(probed.await??)
    }

    /// Makes the bucket the cluster's, for ever, where it is not yet. The log exists by now.
    pub(crate) async fn claim(&self, data: &mut DataDir) -> Result<(), ServerError> {
        if data.identity().lts_claimed {
            return Ok(());
        }
        let (bucket, marker) = (self.bucket.clone(), self.marker());
        self.run(async move { lts::cluster::claim(&*bucket, marker).await }).await??;
        data.change_identity(|identity| identity.lts_claimed = true)?;
        tracing::info!(bucket = %self.url, %marker, "long-term storage is claimed");
        let standings = self.standings();
        standings.found_good();
        self.event_loop.spawn("watch whose long-term storage is", async move {
            standings.watch().await;
        });
        Ok(())
    }

    /// What a task on the event loop needs: less than all of it, which holds the loop.
    fn standings(&self) -> Standings {
        let (standing, ready) = (self.standing.clone(), self.ready.clone());
        Standings { owner: self.owner.clone(), standing, ready }
    }

    /// The bucket. It is asked on the event loop only: by [`run`](Self::run), [`wait`](Self::wait)
    /// or [`spawn`](Self::spawn).
    pub fn bucket(&self) -> &Arc<Guarded> {
        &self.bucket
    }

    pub(crate) fn event_loop(&self) -> &Arc<EventLoop> {
        &self.event_loop
    }

    pub fn url(&self) -> &StoreUrl {
        &self.url
    }

    pub fn marker(&self) -> ClusterMarker {
        self.owner.marker()
    }

    pub(crate) fn owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    /// Whether the bucket is known to be this cluster's. Nothing is put or deleted before.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// What the groups' jobs have in memory, once they use it.
    pub(crate) fn held(&self) -> Held {
        self.held.clone()
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(crate) fn status(&self) -> StorageStatus {
        let not_ready = match &*self.standing.borrow() {
            Standing::Failing(refused) | Standing::Refused(refused) => Some(refused.to_string()),
            Standing::Unknown | Standing::Good => None,
        };
        StorageStatus {
            url: self.url.to_string(),
            ready: *self.ready.borrow(),
            breaker: self.bucket.breaker(),
            not_ready,
        }
    }

    /// Runs `work` on the event loop.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = Result<T, Stopped>> + Send + 'static {
        self.event_loop.run(work)
    }

    /// Runs `work` on the event loop and blocks this thread, which is none of an event loop.
    pub fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Stopped> {
        self.event_loop.wait(work)
    }

    /// Runs a task on the event loop until it ends or the storage is stopped.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.event_loop.spawn(name, task);
    }

    /// Returns when the node must not go on with this bucket, with the reason.
    pub(crate) async fn failed(&self) -> ServerError {
        let mut standing = self.standing.subscribe();
        tokio::select! {
            biased;
            // Seen by whoever wanted to put or delete something.
            refused = self.owner.lost() => refused.into(),
            refused = standing.wait_for(|standing| matches!(standing, Standing::Refused(_))) => {
                match refused.as_deref() {
                    Ok(Standing::Refused(refused)) => refused.clone().into(),
                    _ => Stopped.into(),
                }
            }
            // It is also cancelled by a stop, which comes later.
            () = self.event_loop.cancelled() => ServerError::Fatal {
                message: "a task of long-term storage panicked; this is a defect".to_owned(),
            },
        }
    }

    /// Ends what is under way; what was asked and not answered may or may not have happened.
    pub(crate) async fn stop(&self) {
        self.event_loop.stop().await;
    }
}

/// The marker of the cluster's bucket, made and kept where there is none yet.
fn marker_of(data: &mut DataDir, rng: &mut Rng) -> Result<ClusterMarker, ServerError> {
    let incarnation = data.identity().incarnation;
    let marker = match data.identity().lts_marker {
        Some(Uuid(marker)) => marker,
        None => {
            let ClusterMarker { marker, .. } = ClusterMarker::new(incarnation, rng);
            data.change_identity(|identity| identity.lts_marker = Some(Uuid(marker)))?;
            marker
        }
    };
    Ok(ClusterMarker { incarnation, marker })
}

/// Whether the failure of a look at this cluster's own bucket is no reason not to start: the bucket
/// does not answer, or takes nothing more, and what it has is as good as it was.
fn may_pass(refused: &Refused) -> bool {
    matches!(refused.failed(), Some(ErrorKind::Unavailable | ErrorKind::Full))
}

/// The part of the storage that looks at it.
struct Standings {
    owner: Arc<Owner>,
    standing: watch::Sender<Standing>,
    ready: watch::Sender<bool>,
}

impl Standings {
    /// Looks until the bucket is known to be this cluster's, or not to be.
    async fn look_until_known(&self, bucket: &Guarded, mut rng: Rng) {
        let mut pause = LOOK_AGAIN_FIRST;
        loop {
            match lts::probe(bucket, Some(self.owner.marker()), &mut rng).await {
                Ok(()) => {
                    tracing::info!(bucket = %lts::Bucket::url(bucket), "long-term storage is ready");
                    return self.found_good();
                }
                Err(refused @ Refused::Failed(_)) => {
                    let before = self.standing.send_replace(Standing::Failing(refused.clone()));
                    if matches!(before, Standing::Unknown) {
                        tracing::warn!(%refused, "the node serves without long-term storage");
                    }
                }
                Err(refused) => {
                    self.standing.send_replace(Standing::Refused(refused));
                    return;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_AGAIN_LONGEST);
        }
    }

    /// Looks at the marker again and again, until the bucket is not to be used any more.
    async fn watch(&self) {
        while !matches!(*self.standing.borrow(), Standing::Refused(_)) {
            tokio::time::sleep(OWNER_LOOK).await;
            match self.owner.look().await {
                Ok(()) => self.found_good(),
                // Whether it answers is told by the breaker.
                Err(Refused::Failed(_)) => {}
                Err(refused) if refused.is_taken() => {
                    self.standing.send_replace(Standing::Refused(refused));
                }
                // A mount that is away may come back.
                Err(refused) => {
                    if self.ready.send_replace(false) {
                        tracing::error!(%refused, "nothing is put into long-term storage meanwhile");
                    }
                    self.standing.send_replace(Standing::Failing(refused));
                }
            }
        }
    }

    fn found_good(&self) {
        self.standing.send_replace(Standing::Good);
        self.ready.send_replace(true);
    }
}

#[cfg(test)]
mod tests;
