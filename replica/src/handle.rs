//! What callers hold of a group: proposals, queries and status, from any thread.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use common::limits::ENTRY_BYTES_MAX;
use common::{GroupId, LogIndex, MonotonicTime, Term};
use tokio::sync::{oneshot, watch};

use crate::bell::Bell;
use crate::envelope::HEAD_BYTES;
use crate::machine::StateMachine;
use crate::propose::{Proposal, ProposeError, Refused, Reply};

/// A group of this node. Cheap to clone.
pub struct GroupHandle<M: StateMachine> {
    shared: Arc<Shared<M>>,
}

/// A group as it was after its last step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupStatus {
    pub peer: u64,
    /// The leader as far as this replica knows.
    pub leader: Option<u64>,
    /// Whether this replica leads and has applied an entry of its own term: only then it serves.
    pub serving: bool,
    /// While the state is brought back from long-term storage: the entry to which. The replica is
    /// silent until it is there.
    pub installing: Option<LogIndex>,
    pub term: Term,
    pub commit: LogIndex,
    pub applied: LogIndex,
    /// The first and the last entry in the log.
    pub first: LogIndex,
    pub last: LogIndex,
    /// Up to where the state is saved and flushed.
    pub checkpointed: LogIndex,
    /// Whether a checkpoint waits for space on the disk.
    pub checkpoint_waits: bool,
    /// The lowest index whose payload the machine still needs.
    pub oldest_live: Option<LogIndex>,
    /// Up to where the log is archived in long-term storage; 0 where nothing is, or there is none.
    pub archived: LogIndex,
    /// The newest checkpoint there that counts.
    pub archived_checkpoint: LogIndex,
    /// Bytes of log that are not archived yet, and since when the oldest of them wait.
    pub unarchived_bytes: u64,
    pub unarchived_since: Option<MonotonicTime>,
    /// Entries that a repair of the log gave up and that were not archived: what their payload was
    /// is lost. In order; remembered for good where the log is archived.
    pub lost: Vec<RangeInclusive<LogIndex>>,
    /// Why long-term storage could not be used last, while it cannot.
    pub storage_failure: Option<String>,
    /// The rolling hash over (index, outcomes) up to `applied`, saved with the state.
    pub digest: u64,
    /// Why the group stopped, where it did.
    pub quarantined: Option<String>,
}

impl GroupStatus {
    /// How many entries are lost.
    pub fn lost_entries(&self) -> u64 {
        self.lost.iter().map(|lost| lost.end().0 + 1 - lost.start().0).sum()
    }
}

/// Who leads a group, for those who do something only while they lead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The term in which this replica serves as leader; `None` while it does not.
    pub serving: Option<Term>,
    /// The leader as far as this replica knows.
    pub leader: Option<u64>,
}

/// A question to the state, or the reason why it could not be asked.
pub(crate) type Query<M> = Box<dyn FnOnce(Result<&M, ProposeError>) + Send>;

pub(crate) struct Shared<M: StateMachine> {
    pub(crate) group: GroupId,
    inbox: Mutex<Inbox<M>>,
    status: Mutex<GroupStatus>,
    leadership: watch::Sender<Leadership>,
    gate: Arc<Gate>,
    bell: Arc<Bell>,
    limits: Limits,
    /// Questions that were taken and are not answered.
    asking: Arc<AtomicUsize>,
}

/// A question that was taken: counted until it is answered or dropped.
struct Asking(Arc<AtomicUsize>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) queue_bytes_max: usize,
    pub(crate) queries_max: usize,
    pub(crate) retry_after: Duration,
}

/// Why the node as a whole takes no proposals at the moment.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    log_full: AtomicBool,
    stalled: AtomicBool,
    shut: AtomicBool,
}

struct Inbox<M: StateMachine> {
    proposals: Vec<Proposal<M::Outcome>>,
    queries: Vec<Query<M>>,
    /// Someone asked that long-term storage is looked after.
    look_after_storage: bool,
    /// Bytes of proposals taken and not yet answered.
    held: usize,
    refuse: Option<ProposeError>,
}

/// What the worker took out of an inbox.
pub(crate) struct Taken<M: StateMachine> {
    pub(crate) proposals: Vec<Proposal<M::Outcome>>,
    pub(crate) queries: Vec<Query<M>>,
    pub(crate) look_after_storage: bool,
}

impl<M: StateMachine> Clone for GroupHandle<M> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<M: StateMachine> fmt::Debug for GroupHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GroupHandle").field(&self.shared.group).finish()
    }
}

impl<M: StateMachine> GroupHandle<M> {
    pub(crate) fn new(shared: Arc<Shared<M>>) -> Self {
        Self { shared }
    }

    pub fn group(&self) -> GroupId {
        self.shared.group
    }

    /// Queues an operation. Never blocks. Once taken, its reply is given exactly once.
    pub fn propose(&self, proposal: Proposal<M::Outcome>) -> Result<(), Box<Refused<M::Outcome>>> {
        match self.shared.admit(proposal) {
            Ok(wake) => {
                if wake {
                    self.shared.bell.ring();
                }
                Ok(())
            }
            Err(refused) => Err(refused),
        }
    }

    /// Replicates an operation and waits for its outcome.
    pub async fn submit(
        &self,
        operation: impl Into<Bytes>,
        payload: impl Into<Bytes>,
    ) -> Result<M::Outcome, ProposeError> {
        self.submit_proposal(Proposal::new(operation, payload)).await
    }

    /// Like [`Self::submit`], for a proposal with flags; its `reply` is replaced.
    pub async fn submit_proposal(
        &self,
        proposal: Proposal<M::Outcome>,
    ) -> Result<M::Outcome, ProposeError> {
        let (reply, outcome) = oneshot::channel();
        self.propose(proposal.reply(Reply::Once(reply))).map_err(|refused| refused.error)?;
        outcome.await.unwrap_or(Err(ProposeError::Unknown))
    }

    /// Asks the state a question whose answer includes everything acknowledged before the call.
    /// `ask` runs on the worker: keep it short.
    pub async fn query<R: Send + 'static>(
        &self,
        ask: impl FnOnce(&M) -> R + Send + 'static,
    ) -> Result<R, ProposeError> {
        let (reply, answer) = oneshot::channel();
        let asking = self.shared.may_ask()?;
        self.shared.ask(Box::new(move |machine| {
            drop(asking);
            // Whoever asked may have gone away.
            let _ = reply.send(machine.map(ask));
        }))?;
        answer.await.unwrap_or(Err(ProposeError::Stopping))
    }

    /// Lets the group look at once for compactions, and for objects that can be deleted, instead of
    /// when their time comes. `false` where it does not serve.
    pub fn look_after_storage(&self) -> bool {
        let serving = self.shared.look_after_storage();
        if serving {
            self.shared.bell.ring();
        }
        serving
    }

    pub fn status(&self) -> GroupStatus {
        lock(&self.shared.status).clone()
    }

    /// Changes of leadership. A job that only a leader may do selects on it.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.shared.leadership.subscribe()
    }

    /// Waits until this replica serves as leader and says in which term. `None` once it never
    /// will: the group is quarantined, or gone.
    pub async fn serving(&self) -> Option<Term> {
        let mut leadership = self.leadership();
        loop {
            if let Some(term) = leadership.borrow_and_update().serving {
                return Some(term);
            }
            if self.status().quarantined.is_some() {
                return None;
            }
            leadership.changed().await.ok()?;
        }
    }
}

impl<M: StateMachine> Shared<M> {
    pub(crate) fn new(group: GroupId, gate: Arc<Gate>, bell: Arc<Bell>, limits: Limits) -> Self {
        let inbox = Inbox {
            proposals: Vec::new(),
            queries: Vec::new(),
            look_after_storage: false,
            held: 0,
            refuse: Some(ProposeError::NotLeader { hint: None }),
        };
        Self {
            group,
            inbox: Mutex::new(inbox),
            status: Mutex::default(),
            leadership: watch::Sender::default(),
            gate,
            bell,
            limits,
            asking: Arc::default(),
        }
    }

    /// Counts a question in, or refuses it because too many wait.
    fn may_ask(&self) -> Result<Asking, ProposeError> {
        let before = self.asking.fetch_add(1, Ordering::Relaxed);
        let asking = Asking(self.asking.clone());
        if before >= self.limits.queries_max {
            return Err(ProposeError::Full { retry_after: self.limits.retry_after });
        }
        Ok(asking)
    }

    /// Takes a proposal or says why not; `true` means that the worker must be woken.
    fn admit(&self, proposal: Proposal<M::Outcome>) -> Result<bool, Box<Refused<M::Outcome>>> {
        let bytes = proposal.bytes();
        let mut inbox = lock(&self.inbox);
        if let Some(error) = self.refusal(&inbox, bytes, proposal.exempt) {
            drop(inbox);
            return Err(Box::new(Refused { proposal, error }));
        }
        let wake = inbox.is_empty();
        inbox.held += bytes;
        inbox.proposals.push(proposal);
        Ok(wake)
    }

    fn refusal(&self, inbox: &Inbox<M>, bytes: usize, exempt: bool) -> Option<ProposeError> {
        if let Some(error) = self.closed(inbox) {
            return Some(error);
        }
        if bytes + HEAD_BYTES > ENTRY_BYTES_MAX {
            return Some(ProposeError::TooLarge { bytes, max: ENTRY_BYTES_MAX - HEAD_BYTES });
        }
        if exempt {
            return None;
        }
        if self.gate.log_full.load(Ordering::Relaxed) {
            return Some(ProposeError::LogFull);
        }
        let full = inbox.held > 0 && inbox.held + bytes > self.limits.queue_bytes_max;
        if full || self.gate.stalled.load(Ordering::Relaxed) {
            return Some(ProposeError::Full { retry_after: self.limits.retry_after });
        }
        None
    }

    /// Why nothing at all is taken.
    fn closed(&self, inbox: &Inbox<M>) -> Option<ProposeError> {
        let shut = self.gate.shut.load(Ordering::Relaxed);
        inbox.refuse.clone().or_else(|| shut.then_some(ProposeError::Stopping))
    }

    fn ask(&self, query: Query<M>) -> Result<(), ProposeError> {
        let wake = {
            let mut inbox = lock(&self.inbox);
            if let Some(error) = self.closed(&inbox) {
                return Err(error);
            }
            let wake = inbox.is_empty();
            inbox.queries.push(query);
            wake
        };
        if wake {
            self.bell.ring();
        }
        Ok(())
    }

    fn look_after_storage(&self) -> bool {
        let mut inbox = lock(&self.inbox);
        inbox.look_after_storage |= self.closed(&inbox).is_none();
        inbox.look_after_storage
    }

    /// Takes everything queued.
    pub(crate) fn take(&self) -> Taken<M> {
        let mut inbox = lock(&self.inbox);
        Taken {
            proposals: std::mem::take(&mut inbox.proposals),
            queries: std::mem::take(&mut inbox.queries),
            look_after_storage: std::mem::take(&mut inbox.look_after_storage),
        }
    }

    /// Gives back the bytes of answered proposals.
    pub(crate) fn release(&self, bytes: usize) {
        let mut inbox = lock(&self.inbox);
        inbox.held = inbox.held.checked_sub(bytes).expect("only what was taken is given back");
    }

    /// From now on proposals and queries are refused with `error`, or taken.
    pub(crate) fn refuse(&self, error: Option<ProposeError>) {
        lock(&self.inbox).refuse = error;
    }

    pub(crate) fn publish(&self, update: impl FnOnce(&mut GroupStatus)) {
        let mut status = lock(&self.status);
        update(&mut status);
        let quarantined = status.quarantined.is_some();
        let leadership =
            Leadership { serving: status.serving.then_some(status.term), leader: status.leader };
        drop(status);
        self.leadership.send_if_modified(|now| {
            let changed = *now != leadership;
            *now = leadership;
            // Who waits for a leader must learn that there will be none.
            changed || quarantined
        });
    }
}

impl<M: StateMachine> Inbox<M> {
    fn is_empty(&self) -> bool {
        self.proposals.is_empty() && self.queries.is_empty()
    }
}

impl Gate {
    pub(crate) fn set_log_full(&self, full: bool) {
        self.log_full.store(full, Ordering::Relaxed);
    }

    pub(crate) fn set_stalled(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::Relaxed);
    }

    /// The node has failed: nobody answers any more.
    pub(crate) fn shut(&self) {
        self.shut.store(true, Ordering::Relaxed);
    }
}

/// No code that can panic runs under these locks, so a poisoned one still holds good data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
