//! The writing half of exactly once: everything a writer decides, without I/O, clock or tasks.
//!
//! [`WriterCore`] takes events ([`WriterCore::push`]), gives out messages to send
//! ([`WriterCore::poll_open`], [`WriterCore::poll_blocks`]), and is told what came back
//! ([`WriterCore::on_response`], [`WriterCore::on_disconnect`]). A driver task and the simulation
//! run the same code.
//!
//! What it guarantees, given a store that keeps its side of the chain (design, section 6):
//! - each event is stored exactly once, in the order of numbers per routing key;
//! - [`WriterCore::acknowledged`] never decreases and never names an event that is not durable;
//! - it never has unacknowledged events in a successor and in a predecessor that it does not know
//!   to be sealed;
//! - memory stays within its limit: [`WriterCore::push`] says [`Pushed::Full`] instead.
//! - what a segment keeps from being acknowledged concerns its own keys only: events of others
//!   find memory, and are acknowledged.
//!
//! Every `Open` uses a new attempt. Blocks are cut once and keep their edges; what an `Open` says
//! is stored is dropped, the rest is sent again in order. A block of an earlier session, or an
//! answer to one, cannot do harm: slots are never used twice on one connection.

mod block;
mod close;
mod forgotten;
mod identity;
mod outcome;
mod proof;
mod push;
mod receive;
mod relocate;
mod resume;
mod room;
mod route;
mod seal;
mod segment;
mod send;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::task::Waker;
use std::time::Duration;

use common::limits::{APPEND_BLOCK_BYTES_TARGET, EVENT_BYTES_MAX, MIB};
use common::{Attempt, EventNumber, MonotonicTime, Rng, ScopedStream, SegmentId};
use proto::convert::SegmentPlace;

use crate::error::{ClientError, Result};
use crate::succession::Succession;
use block::Pool;
pub(crate) use forgotten::TRACE_KEPT;
pub use identity::{Mode, WriterIdentity};
pub(crate) use outcome::Awaited;
use proof::Proof;
use resume::Resume;
use route::Router;
use segment::{Segment, State};

/// Bounds of a writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterLimits {
    /// Bytes of events that are not acknowledged, over all segments.
    pub memory_bytes: usize,
    /// Bytes at which a block is closed.
    pub block_bytes: usize,
    /// Bytes sent to one segment and not acknowledged.
    pub window_bytes: usize,
    /// The first pause before a segment is tried again.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
}

impl Default for WriterLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 16 * MIB,
            block_bytes: APPEND_BLOCK_BYTES_TARGET,
            window_bytes: 8 * MIB,
            backoff_min: Duration::from_millis(5),
            backoff_max: Duration::from_secs(1),
        }
    }
}

/// What became of an event that was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It will be sent; its number (of a batch, the last one's).
    Taken(EventNumber),
    /// An earlier process of the writer stored it; it has this number and is not sent.
    Stored(EventNumber),
    /// There is no memory for it now; it has no number.
    Full,
}

/// A connection to one store, as an index: see [`WriterCore::endpoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub usize);

/// Slots of the sessions on a link: each is given out once.
#[derive(Debug, Default)]
pub struct Slots(u32);

impl Slots {
    pub(crate) fn next(&mut self) -> u32 {
        let slot = self.0;
        self.0 = slot.checked_add(1).expect("a link ends before 2^32 sessions");
        slot
    }

    /// How many were given out.
    pub fn given_out(&self) -> u32 {
        self.0
    }
}

/// What a segment waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// To be opened again.
    Retry,
    /// To be asked whether it is sealed, because a successor waits for that.
    Probe,
}

#[derive(Debug)]
struct Link {
    endpoint: String,
    /// Segments that want a session.
    opens: VecDeque<usize>,
    /// Segments that may send a block.
    ready: VecDeque<usize>,
    /// Current slots. Only looked up, never iterated.
    slots: HashMap<u32, usize>,
    announced: bool,
    /// How long the store remembers a writer that it does not hear of.
    writer_kept: Duration,
}

/// As long as a store has not said how long it remembers a writer.
const WRITER_KEPT: Duration = Duration::from_secs(60 * 60);

/// See the module's documentation.
#[derive(Debug)]
pub struct WriterCore {
    stream: ScopedStream,
    identity: WriterIdentity,
    limits: WriterLimits,
    rng: Rng,
    attempt: Attempt,
    next_number: u64,
    segments: Vec<Segment>,
    by_id: BTreeMap<SegmentId, usize>,
    router: Router,
    succession: Succession,
    links: Vec<Link>,
    wakes: Vec<LinkId>,
    /// The first unacknowledged number of each segment that has one.
    outstanding: BTreeSet<(u64, usize)>,
    memory_used: usize,
    pool: Pool,
    timers: BTreeSet<(MonotonicTime, usize, Timer)>,
    lookups: Vec<SegmentId>,
    relocate: bool,
    resume: Resume,
    proof: Proof,
    already_stored: u64,
    /// The clock that counts through sleep.
    boot_time: MonotonicTime,
    /// An append was told that the memory is used up, and comes again when no more than this is.
    full_above: Option<usize>,
    /// Segments of which an append was told so.
    full_segments: Vec<usize>,
    /// Those who waited for an acknowledgement that has come, or will never come.
    woken: Vec<Waker>,
    /// Sessions whose end was asked for and not answered yet.
    closing: BTreeSet<(LinkId, u32)>,
    /// Segments that had answered at a time, before the writer was ready.
    opening: Option<(usize, MonotonicTime)>,
    trouble: Option<String>,
    /// The last event was taken: the writer is about to be closed.
    ending: bool,
    failed: Option<ClientError>,
}

impl WriterCore {
    /// A writer whose first event gets the number 1, or, of one that continues, the number behind
    /// the highest stored one. `places` tile the key space: the active segments for a writer of
    /// which nothing is stored, else those of the first epoch; a named writer follows successors
    /// and opens everything before [`WriterCore::is_ready`].
    pub fn new(
        stream: ScopedStream,
        identity: WriterIdentity,
        limits: WriterLimits,
        places: Vec<SegmentPlace>,
        rng: Rng,
    ) -> Result<Self> {
        let router = Router::new(&places)?;
        let resume = Resume::new(identity.is_named());
        let limits = WriterLimits {
            memory_bytes: limits.memory_bytes.max(EVENT_BYTES_MAX),
            block_bytes: limits.block_bytes.clamp(1, APPEND_BLOCK_BYTES_TARGET),
            ..limits
        };
        let mut core = Self {
            stream,
            identity,
            pool: Pool::new(limits.block_bytes, limits.memory_bytes),
            limits,
            rng,
            attempt: Attempt(0),
            next_number: 1,
            segments: Vec::with_capacity(places.len()),
            by_id: BTreeMap::new(),
            router,
            succession: Succession::new(),
            links: Vec::new(),
            wakes: Vec::new(),
            outstanding: BTreeSet::new(),
            memory_used: 0,
            timers: BTreeSet::new(),
            lookups: Vec::new(),
            relocate: false,
            resume,
            proof: Proof::default(),
            already_stored: 0,
            boot_time: MonotonicTime::default(),
            full_above: None,
            full_segments: Vec::new(),
            woken: Vec::new(),
            closing: BTreeSet::new(),
            opening: None,
            trouble: None,
            ending: false,
            failed: None,
        };
        for place in places {
            core.succession.begin(&place);
            core.add_segment(place, false);
        }
        core.check_resumed();
        Ok(core)
    }

    /// Every event up to this number is durable.
    pub fn acknowledged(&self) -> EventNumber {
        EventNumber(self.outstanding.first().map_or(self.next_number, |(first, _)| *first) - 1)
    }

    /// The number that the next event gets.
    pub fn next_number(&self) -> EventNumber {
        EventNumber(self.next_number)
    }

    /// Whether everything pushed is durable.
    pub fn is_settled(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// Whether it is known what earlier processes stored; events may be pushed only then.
    pub fn is_ready(&self) -> bool {
        self.resume.is_done()
    }

    /// The highest number that earlier processes stored; 0: none.
    pub fn stored_through(&self) -> EventNumber {
        EventNumber(self.resume.highest())
    }

    /// Events that an earlier process stored and that were not sent again.
    pub fn already_stored(&self) -> u64 {
        self.already_stored
    }

    /// Bytes of events that are not acknowledged.
    pub fn memory_used(&self) -> usize {
        self.memory_used
    }

    /// Why the writer has ended, if it has.
    pub fn failed(&self) -> Option<&ClientError> {
        self.failed.as_ref()
    }

    /// Ends the writer; the first reason stays.
    pub fn fail(&mut self, error: ClientError) {
        self.failed.get_or_insert(error);
        for segment in &mut self.segments {
            self.woken.extend(segment.waiters.take_all());
        }
    }

    /// Where a link leads: `host:port`, or empty for the endpoint that the places came from.
    pub fn endpoint(&self, link: LinkId) -> &str {
        &self.links[link.0].endpoint
    }

    /// Links that have something to send since the last call.
    pub fn take_wakes(&mut self) -> Vec<LinkId> {
        std::mem::take(&mut self.wakes)
    }

    /// Sealed segments whose successors have to be asked for; answered by
    /// [`WriterCore::on_successors`].
    pub fn take_lookups(&mut self) -> Vec<SegmentId> {
        std::mem::take(&mut self.lookups)
    }

    /// Whether there is a question for the controller, or nothing goes forward.
    pub fn wants_attention(&self) -> bool {
        self.relocate || !self.lookups.is_empty()
    }

    /// When [`WriterCore::on_time`] has something to do.
    pub fn next_time(&self) -> Option<MonotonicTime> {
        self.timers.first().map(|(time, _, _)| *time)
    }

    /// Tells the time on the clock that counts through sleep, by which it is known what a store may
    /// have forgotten.
    pub fn set_boot_time(&mut self, now: MonotonicTime) {
        self.boot_time = self.boot_time.max(now);
    }

    /// What stands in the way, while something does.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Does what is due.
    pub fn on_time(&mut self, now: MonotonicTime) {
        while let Some(&(time, index, timer)) = self.timers.first() {
            if time > now {
                return;
            }
            self.timers.pop_first();
            match timer {
                Timer::Retry if self.segments[index].state == State::Paused => {
                    self.want_open(index);
                }
                Timer::Retry => {}
                Timer::Probe => self.probe(index, now),
            }
        }
    }

    fn add_segment(&mut self, place: SegmentPlace, held: bool) -> usize {
        let link = self.link_to(&place.endpoint);
        let index = self.segments.len();
        self.by_id.insert(place.segment, index);
        self.segments.push(Segment::new(place, link, held));
        if self.resume.is_done() {
            self.hold_back_unproven(index);
        } else {
            self.want_open(index);
        }
        index
    }

    fn link_to(&mut self, endpoint: &str) -> LinkId {
        if let Some(found) = self.links.iter().position(|link| link.endpoint == endpoint) {
            return LinkId(found);
        }
        self.links.push(Link {
            endpoint: endpoint.to_owned(),
            opens: VecDeque::new(),
            ready: VecDeque::new(),
            slots: HashMap::new(),
            announced: false,
            writer_kept: WRITER_KEPT,
        });
        LinkId(self.links.len() - 1)
    }

    fn announce(&mut self, link: LinkId) {
        if !std::mem::replace(&mut self.links[link.0].announced, true) {
            self.wakes.push(link);
        }
    }

    /// Asks for a session on the segment.
    fn want_open(&mut self, index: usize) {
        let link = self.segments[index].link;
        self.segments[index].state = State::WantsOpen;
        self.links[link.0].opens.push_back(index);
        self.announce(link);
    }

    /// Forgets the segment's session; what was in flight will be sent again.
    fn leave_session(&mut self, index: usize) {
        let segment = &mut self.segments[index];
        if let State::Opening(slot) | State::Open(slot) = segment.state {
            self.links[segment.link.0].slots.remove(&slot);
        }
        segment.unsend();
        if !matches!(segment.state, State::Sealed | State::AwaitingSuccessors | State::Failed) {
            segment.state = State::Idle;
        }
    }

    /// After [`Self::leave_session`]: asks for a new one where there is something to do.
    fn reopen_if_needed(&mut self, index: usize) {
        let segment = &self.segments[index];
        let wanted = !self.resume.is_done()
            || (segment.has_data() && !segment.held)
            || self.succession.is_blocking(segment.place.segment);
        if segment.state == State::Idle && wanted {
            self.want_open(index);
        }
    }

    /// As [`Self::reopen_if_needed`], after a pause.
    fn pause(&mut self, index: usize, at_least: Duration, now: MonotonicTime) {
        let failures = self.segments[index].failures;
        self.segments[index].failures = failures.saturating_add(1);
        let whole = self.limits.backoff_min * 2_u32.saturating_pow(failures.min(16));
        let whole = whole.min(self.limits.backoff_max).as_micros() as u64;
        let pause = Duration::from_micros(self.rng.between(whole / 2, whole)).max(at_least);
        self.segments[index].state = State::Paused;
        self.stands_still();
        self.timers.insert((now.plus(pause), index, Timer::Retry));
    }

    /// Keeps the ordered watermark: to be called when the segment's first event may have changed.
    fn note_front(&mut self, index: usize) {
        let front = self.segments[index].first_number();
        let noted = &mut self.segments[index].front;
        if *noted != front {
            if let Some(old) = *noted {
                self.outstanding.remove(&(old, index));
            }
            if let Some(new) = front {
                self.outstanding.insert((new, index));
            }
            *noted = front;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
