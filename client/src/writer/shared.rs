//! A writer's core behind its lock, between the application, the links and the attending task.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use common::{EventNumber, MonotonicTime, SegmentId};
use proto::v1;
use tokio::sync::Notify;

use super::progress::{Progress, Reached};
use crate::append_link::AppendLink;
use crate::client::Inner;
use crate::error::{ClientError, Result};
use crate::session::{LinkId, WriterCore};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Shared {
    core: Mutex<WriterCore>,
    progress: Arc<Progress>,
    /// The append connection, and the writer's number on it, for each of the core's links.
    links: Mutex<Vec<(Arc<AppendLink>, usize)>>,
    waiting: Mutex<Waiting>,
    /// Something for the attending task: a timer, a question to the controller, the end.
    pub(super) attention: Notify,
    /// Appends that were told that there is no room may try again.
    pub(super) room: Notify,
    /// The last session that was to be closed is.
    closed: Notify,
    this: Weak<Shared>,
    client: Weak<Inner>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The application waits for what earlier processes stored.
    for_ready: Option<Waker>,
    /// When the attending task wakes up.
    timer: Option<MonotonicTime>,
}

impl Shared {
    pub(super) fn new(core: WriterCore, client: &Arc<Inner>) -> Arc<Self> {
        let progress = Progress::default();
        progress.advance(core.acknowledged());
        let shared = Arc::new_cyclic(|this| Self {
            core: Mutex::new(core),
            progress: Arc::new(progress),
            links: Mutex::default(),
            waiting: Mutex::default(),
            attention: Notify::new(),
            room: Notify::new(),
            closed: Notify::new(),
            this: this.clone(),
            client: Arc::downgrade(client),
        });
        shared.settle(shared.core());
        shared
    }

    pub(crate) fn core(&self) -> MutexGuard<'_, WriterCore> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn acknowledged(&self) -> EventNumber {
        self.progress.acknowledged()
    }

    /// Waits until everything up to `number` is durable.
    pub(super) fn reached(&self, number: EventNumber) -> Reached {
        self.progress.wait(number)
    }

    /// After events were pushed: tells the links that have something to send now. A push that
    /// failed may have ended the writer.
    #[inline]
    pub(super) fn pushed(&self, mut core: MutexGuard<'_, WriterCore>, failed: bool) {
        if failed {
            self.settle(core);
            return;
        }
        let wakes = core.take_wakes();
        if wakes.is_empty() && !core.is_settled() {
            return;
        }
        let acknowledged = core.acknowledged();
        drop(core);
        // Events that were stored before count at once.
        self.progress.advance(acknowledged);
        wakes.into_iter().for_each(|link| self.wake(link));
    }

    /// After anything else happened to the core: tells everybody whom it concerns.
    pub(super) fn settle(&self, core: MutexGuard<'_, WriterCore>) {
        if self.settle_but_attention(core) {
            self.attention.notify_one();
        }
    }

    /// As [`Shared::settle`], but only says whether the attending task should look.
    fn settle_but_attention(&self, mut core: MutexGuard<'_, WriterCore>) -> bool {
        let wakes = core.take_wakes();
        let woken = core.take_woken();
        let acknowledged = core.acknowledged();
        let failed = core.failed().cloned();
        let failed_from = core.first_failure().map(|(number, error)| (number, error.clone()));
        let has_room = core.take_room();
        let mut waiting = self.waiting();
        let is_ready = core.is_ready() || failed.is_some();
        let ready = if is_ready { waiting.for_ready.take() } else { None };
        let timer = waiting.timer.unwrap_or(MonotonicTime(u64::MAX));
        drop(waiting);
        let attention = core.next_time().is_some_and(|next| next < timer)
            || core.wants_attention()
            || failed.is_some();
        let is_closed = core.is_closed();
        drop(core);
        self.progress.advance(acknowledged);
        if let Some((number, error)) = failed_from {
            self.progress.fail(number, &error);
        }
        if let Some(error) = failed {
            self.progress.fail(EventNumber::NONE, &error);
        }
        if has_room {
            self.room.notify_waiters();
        }
        if is_closed {
            self.closed.notify_one();
        }
        woken.into_iter().chain(ready).for_each(Waker::wake);
        wakes.into_iter().for_each(|link| self.wake(link));
        attention
    }

    pub(crate) fn on_response(
        &self,
        link: LinkId,
        response: v1::AppendResponse,
        client: &Arc<Inner>,
    ) {
        let mut core = self.core();
        core.set_boot_time(client.boot_time());
        core.on_response(link, response, client.now());
        self.settle(core);
    }

    pub(crate) fn on_disconnect(&self, link: LinkId, problem: &str) {
        let mut core = self.core();
        core.on_disconnect(link, problem);
        self.settle(core);
    }

    pub(crate) fn fail(&self, error: ClientError) {
        let mut core = self.core();
        core.fail(error);
        self.settle(core);
    }

    /// Waits until it is known what earlier processes stored.
    pub(super) async fn ready(&self) -> Result<()> {
        poll_fn(|context| {
            let core = self.core();
            if let Some(error) = core.failed() {
                return Poll::Ready(Err(error.clone()));
            }
            if core.is_ready() {
                return Poll::Ready(Ok(()));
            }
            self.waiting().for_ready = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Does what is due; gives the questions for the controller: successors, and places, if they
    /// may be asked for now.
    pub(super) fn take_due(&self, now: MonotonicTime, may_ask: bool) -> (Vec<SegmentId>, bool) {
        // From here on every timer calls for attention, until one is set.
        self.set_timer(None);
        let mut core = self.core();
        core.on_time(now);
        let questions = (core.take_lookups(), may_ask && core.take_relocate());
        // Who asks looks at once.
        self.settle_but_attention(core);
        questions
    }

    /// When something is due next; `None` once the writer failed.
    pub(super) fn outlook(&self) -> Option<Option<MonotonicTime>> {
        let core = self.core();
        core.failed().is_none().then(|| core.next_time())
    }

    /// Gives up what has stood still for `patience`. False: the writer gets nowhere at all.
    pub(super) fn check_deadline(&self, now: MonotonicTime, patience: Duration) -> bool {
        let mut core = self.core();
        let goes_on = core.check_deadline(now, patience);
        self.settle_but_attention(core);
        goes_on
    }

    /// Notes when the attending task will look again.
    pub(super) fn set_timer(&self, timer: Option<MonotonicTime>) {
        self.waiting().timer = timer;
    }

    fn wake(&self, link: LinkId) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        while links.len() <= link.0 {
            let Some(client) = self.client.upgrade() else { return };
            let id = LinkId(links.len());
            let append_link = client.append_link(self.core().endpoint(id));
            let (member, hello) = append_link.join(self.this.clone(), id);
            if let Some(hello) = hello {
                self.core().on_hello(id, &hello);
            }
            links.push((append_link, member));
        }
        let (append_link, member) = &links[link.0];
        append_link.enqueue(*member);
    }

    /// Refuses what is appended from now on, and what waits for room.
    pub(super) fn take_no_more(&self) {
        self.core().take_no_more();
        self.room.notify_waiters();
    }

    /// Ends the writer for everybody, and asks the stores to forget it where nobody resumes it.
    pub(super) fn close(&self) {
        let mut core = self.core();
        let slots = if core.failed().is_none() { core.close_sessions() } else { BTreeMap::new() };
        drop(core);
        {
            let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            for (link, slots) in slots {
                if let Some((append_link, member)) = links.get(link.0) {
                    append_link.close_sessions(*member, slots);
                }
            }
        }
        self.fail(ClientError::Closed { what: "writer" });
    }

    /// Waits until the sessions are closed that were to be.
    pub(super) async fn closed(&self) {
        while !self.core().is_closed() {
            self.closed.notified().await;
        }
    }

    /// Nobody looks at the writer any more.
    pub(super) fn leave(&self) {
        let links = std::mem::take(&mut *self.links.lock().unwrap_or_else(PoisonError::into_inner));
        for (link, member) in links {
            link.leave(member);
        }
    }
}
