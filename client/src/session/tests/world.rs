//! A writer, a model store and the connections between them, moved step by step.

mod checks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use common::{EventNumber, MonotonicTime, Rng, ScopedStream, WriterEpoch, WriterId};
use proto::convert::SegmentPlace;
use proto::error::Reason;
use proto::framing::EventRef;
use proto::v1;
use proto::v1::append_request::Message;

use super::super::{LinkId, Mode, Pushed, Slots, WriterCore, WriterIdentity, WriterLimits};
use super::model::{ModelConnection, ModelStore, failure};

#[derive(Debug, Default)]
struct Connection {
    /// The writer's process that it belonged to.
    epoch: u64,
    endpoint: String,
    server: ModelConnection,
    requests: VecDeque<v1::AppendRequest>,
    responses: VecDeque<v1::AppendResponse>,
}

/// One step of a schedule.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// Appends events with keys from a small set, or without.
    Push { events: u8, keyed: bool },
    /// Appends events of one key that are stored all or none.
    PushBatch { events: u8, key: u8 },
    /// Moves the writer's messages to the connection.
    Send,
    /// The store takes a request.
    Handle { link: u8 },
    /// The store refuses a request's blocks for lack of room.
    Refuse { link: u8 },
    /// The store's leader loses a request's blocks.
    Lose { link: u8 },
    /// The store does not lead the containers any more; another one does.
    Move { link: u8 },
    /// The writer gets an answer.
    Deliver { link: u8 },
    /// The writer gets an answer twice.
    DeliverTwice { link: u8 },
    /// The connection ends; what is on it may still arrive at the store.
    Disconnect { link: u8 },
    /// The store is gone for good; another one leads its containers.
    Die { link: u8 },
    /// The store that was gone is there again.
    Revive,
    /// A request of a connection that ended arrives at the store.
    HandleLate { which: u8 },
    /// An answer of a connection that ended arrives at the writer.
    DeliverLate { which: u8 },
    /// A segment is sealed with two or three successors.
    Split { which: u8, parts: u8 },
    /// Two neighbours get one successor; the second is sealed later.
    Merge { which: u8 },
    /// The second of a merge is sealed.
    FinishMerge,
    /// The stream is truncated to the segments that take appends.
    Truncate,
    /// Time passes.
    Wait { millis: u8 },
    /// A named writer's process is killed and started again.
    Restart,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) store: ModelStore,
    pub(super) core: WriterCore,
    connections: BTreeMap<LinkId, Connection>,
    ended: Vec<(LinkId, Connection)>,
    slots: BTreeMap<LinkId, Slots>,
    merges: VecDeque<(SegmentPlace, Vec<SegmentPlace>)>,
    now: MonotonicTime,
    epoch: u64,
    mode: Mode,
    /// The process has not been ready yet.
    is_new: bool,
    /// The first number of this process.
    first: u64,
    /// What was ever acknowledged.
    acknowledged: BTreeSet<u64>,
    /// The endpoint that nobody answers at.
    dead: Option<String>,
    /// What was appended: number of the event, key, atomic batch.
    pub(super) appended: BTreeMap<u64, (Option<String>, Option<u64>)>,
    /// What a restarted writer has to append again before anything new.
    again: VecDeque<u64>,
    watermark: EventNumber,
}

const WRITER: WriterId = WriterId(42);

fn core_of(store: &ModelStore, mode: Mode, epoch: u64) -> WriterCore {
    let (identity, places) = if mode == Mode::Anonymous {
        (WriterIdentity::anonymous(43), store.active())
    } else {
        let (epoch, routing) = (WriterEpoch(epoch), "loader".into());
        (WriterIdentity { writer: WRITER, epoch, routing, mode }, store.first())
    };
    // Small enough for schedules to come to every edge.
    let limits = WriterLimits { block_bytes: 100, window_bytes: 300, ..WriterLimits::default() };
    let stream = ScopedStream::new("test", "stream").unwrap();
    WriterCore::new(stream, identity, limits, places, Rng::from_seed(epoch)).unwrap()
}

impl World {
    pub(super) fn new(segments: u32, mode: Mode) -> Self {
        let store = ModelStore::new(segments, &["", "other:1"]);
        Self {
            core: core_of(&store, mode, 1),
            store,
            connections: BTreeMap::new(),
            ended: Vec::new(),
            slots: BTreeMap::new(),
            merges: VecDeque::new(),
            now: MonotonicTime::default(),
            epoch: 1,
            mode,
            is_new: true,
            first: 1,
            acknowledged: BTreeSet::new(),
            dead: None,
            appended: BTreeMap::new(),
            again: VecDeque::new(),
            watermark: EventNumber::NONE,
        }
    }

    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Push { events, keyed } => (0..events).for_each(|i| self.push(i, keyed)),
            Step::PushBatch { events, key } => self.push_batch(events, key),
            Step::Send => self.send(),
            Step::Handle { link } => self.handle(link, None),
            Step::Refuse { link } => self.handle(link, Some(Reason::ResourceExhausted)),
            Step::Lose { link } => self.handle(link, Some(Reason::SessionBroken)),
            Step::Move { link } => self.relocate(link),
            Step::Deliver { link } => self.deliver(link, 1),
            Step::DeliverTwice { link } => self.deliver(link, 2),
            Step::Disconnect { link } => self.disconnect(link),
            Step::Die { link } => self.die(link),
            Step::Revive => self.dead = None,
            Step::HandleLate { which } => self.handle_late(which),
            Step::DeliverLate { which } => self.deliver_late(which),
            Step::Split { which, parts } => self.split(which, parts),
            Step::Merge { which } => self.merge(which),
            Step::FinishMerge => self.finish_merge(),
            Step::Truncate => self.store.truncate_to_active(),
            Step::Wait { millis } => self.wait(Duration::from_millis(millis.into())),
            Step::Restart => self.restart(),
        }
        self.check();
    }

    /// From here on nothing goes wrong, until everything is durable.
    pub(super) fn finish(&mut self) {
        self.finish_merge();
        for _ in 0..10_000 {
            while self.is_ready()
                && let Some(&number) = self.again.front()
            {
                self.push_again(number);
            }
            if self.core.is_ready() && self.core.is_settled() {
                return;
            }
            self.send();
            for link in 0..2 {
                self.handle(link, None);
                self.deliver(link, 1);
            }
            self.wait(Duration::from_millis(1));
            self.check();
        }
        panic!("the writer never comes to an end: {}", self.summary());
    }

    fn summary(&self) -> String {
        let segments = self.core.segments.iter().map(|s| {
            format!(
                "{} {} {:?} held {} queue {} in flight {} open {} ready {} link {:?}",
                s.place.segment.local_name(),
                s.place.range,
                s.state,
                s.held,
                s.queue.len(),
                s.in_flight,
                s.open.bytes(),
                s.ready,
                s.link,
            )
        });
        let segments: Vec<_> = segments.collect();
        let links = self.core.links.iter().map(|l| (&l.opens, &l.ready)).collect::<Vec<_>>();
        let blocking: Vec<_> = self.core.succession.blocking().collect();
        let timers = &self.core.timers;
        format!("{segments:#?} {links:?} {blocking:?} {timers:?} {:?}", self.core.outstanding)
    }

    fn push(&mut self, i: u8, keyed: bool) {
        if !self.is_ready() {
            return;
        }
        if let Some(&number) = self.again.front() {
            return self.push_again(number);
        }
        let number = self.core.next_number().0;
        let key = keyed.then(|| format!("key-{}", (number * 7 + u64::from(i)) % 11));
        self.appended.insert(number, (key.clone(), None));
        self.push_event(number, key.as_deref());
    }

    /// Whether the process may append. One that continues begins behind what is stored; what an
    /// earlier one had on its way is lost, and its numbers above are used again.
    fn is_ready(&mut self) -> bool {
        if self.core.is_ready() && std::mem::take(&mut self.is_new) && self.mode == Mode::Continue {
            self.first = self.core.next_number().0;
            assert_eq!(self.core.stored_through().0 + 1, self.first);
            let highest = self.stored().into_iter().map(|(_, number)| number).max().unwrap_or(0);
            assert_eq!(self.first, highest + 1, "it goes on behind the highest stored number");
            self.appended.split_off(&self.first);
            self.watermark = self.core.acknowledged();
        }
        self.core.is_ready()
    }

    fn push_event(&mut self, number: u64, key: Option<&str>) {
        let payload = number.to_le_bytes();
        let event = EventRef { key, ..EventRef::new(&payload) };
        let pushed = self.core.push(&event).unwrap();
        assert_ne!(pushed, Pushed::Full);
        assert_eq!(self.core.next_number().0, number + 1);
    }

    fn push_batch(&mut self, events: u8, key: u8) {
        if events == 0 || !self.is_ready() || !self.again.is_empty() {
            return;
        }
        let first = self.core.next_number().0;
        let key = format!("key-{}", key % 11);
        let numbers = first..first + u64::from(events);
        for number in numbers.clone() {
            self.appended.insert(number, (Some(key.clone()), Some(first)));
        }
        self.push_whole_batch(&key, numbers);
    }

    fn push_whole_batch(&mut self, key: &str, numbers: std::ops::Range<u64>) {
        let payloads: Vec<_> = numbers.map(u64::to_le_bytes).collect();
        let events: Vec<_> = payloads.iter().map(|payload| EventRef::new(payload)).collect();
        assert_ne!(self.core.push_batch(key, &events).unwrap(), Pushed::Full);
    }

    /// Appends what an earlier process appended, as it did.
    fn push_again(&mut self, number: u64) {
        let (key, batch) = self.appended[&number].clone();
        match (key, batch) {
            (Some(key), Some(first)) => {
                let same = |n: &&u64| self.appended[*n].1 == Some(first);
                let count = self.again.iter().take_while(same).count() as u64;
                self.again.drain(..count as usize);
                self.push_whole_batch(&key, number..number + count);
            }
            (key, _) => {
                self.again.pop_front();
                self.push_event(number, key.as_deref());
            }
        }
    }

    fn send(&mut self) {
        self.answer_questions();
        self.core.take_wakes();
        for link in [LinkId(0), LinkId(1)] {
            if link.0 >= self.core.links.len() {
                continue;
            }
            if self.dead.as_deref() == Some(self.core.endpoint(link)) {
                self.core.on_disconnect(link, "connection refused");
                continue;
            }
            let slots = self.slots.entry(link).or_default();
            if let Some(request) = self.core.poll_send(link, slots) {
                let connection = self.connections.entry(link).or_default();
                connection.epoch = self.epoch;
                connection.endpoint = self.core.endpoint(link).to_owned();
                connection.requests.push_back(request);
            }
        }
    }

    fn handle(&mut self, link: u8, refuse: Option<Reason>) {
        let Some(connection) = self.connections.get_mut(&LinkId(link.into())) else { return };
        let Some(request) = connection.requests.pop_front() else { return };
        let response = match (&request.message, refuse) {
            (Some(Message::Blocks(blocks)), Some(reason)) => v1::AppendResponse {
                failures: blocks.blocks.iter().map(|b| failure(b.slot, reason, None)).collect(),
                ..v1::AppendResponse::default()
            },
            _ => self.store.handle(&mut connection.server, request, Some(&connection.endpoint)),
        };
        connection.responses.push_back(response);
    }

    fn relocate(&mut self, link: u8) {
        if self.dead.is_none() {
            let moved: Vec<_> = self.store.segments.keys().copied().collect();
            moved.into_iter().for_each(|segment| self.store.relocate(segment));
        }
        self.handle(link, Some(Reason::NotLeader));
    }

    fn die(&mut self, link: u8) {
        let link_id = LinkId(link.into());
        if self.dead.is_some() || link_id.0 >= self.core.links.len() {
            return;
        }
        self.dead = Some(self.core.endpoint(link_id).to_owned());
        self.evacuate();
        self.disconnect(link);
    }

    /// Nothing stays, and nothing is made, where nobody answers.
    fn evacuate(&mut self) {
        let Some(dead) = &self.dead else { return };
        let held = self.store.segments.iter().filter(|(_, s)| s.place.endpoint == *dead);
        let held: Vec<_> = held.map(|(segment, _)| *segment).collect();
        held.into_iter().for_each(|segment| self.store.relocate(segment));
    }

    /// Answers what the writer asks the controller.
    fn answer_questions(&mut self) {
        for segment in self.core.take_lookups() {
            let successors = self.store.segments[&segment].successors.clone().unwrap();
            self.core.on_successors(segment, successors, self.now);
        }
        if self.core.take_relocate() {
            let places = self.core.unsettled().into_iter();
            let places: Vec<_> =
                places.map(|segment| self.store.segments[&segment].place.clone()).collect();
            self.core.on_places(&places);
        }
    }

    fn deliver(&mut self, link: u8, times: usize) {
        let link = LinkId(link.into());
        let Some(connection) = self.connections.get_mut(&link) else { return };
        let Some(response) = connection.responses.pop_front() else { return };
        for _ in 0..times {
            self.core.on_response(link, response.clone(), self.now);
        }
    }

    fn disconnect(&mut self, link: u8) {
        let link = LinkId(link.into());
        let Some(connection) = self.connections.remove(&link) else { return };
        self.ended.push((link, connection));
        self.core.on_disconnect(link, "gone");
    }

    fn handle_late(&mut self, which: u8) {
        if self.ended.is_empty() {
            return;
        }
        let which = usize::from(which) % self.ended.len();
        let (_, connection) = &mut self.ended[which];
        if let Some(request) = connection.requests.pop_front() {
            let at = Some(&*connection.endpoint);
            let response = self.store.handle(&mut connection.server, request, at);
            connection.responses.push_back(response);
        }
    }

    fn deliver_late(&mut self, which: u8) {
        if self.ended.is_empty() {
            return;
        }
        let which = usize::from(which) % self.ended.len();
        let (link, connection) = &mut self.ended[which];
        if connection.epoch == self.epoch
            && let Some(response) = connection.responses.pop_front()
        {
            self.core.on_response(*link, response, self.now);
        }
    }

    fn split(&mut self, which: u8, parts: u8) {
        let active = self.scalable();
        if active.is_empty() {
            return;
        }
        let old = active[usize::from(which) % active.len()].clone();
        let parts = u32::from(parts % 2 + 2);
        let successors = self.store.successors(std::slice::from_ref(&old), parts);
        self.evacuate();
        self.store.seal(old.segment, successors);
    }

    fn merge(&mut self, which: u8) {
        let active = self.scalable();
        let first = usize::from(which) % active.len().max(1);
        let Some([left, right]) = active.get(first..first + 2) else { return };
        if left.range.high().checked_add(1) != Some(right.range.low()) {
            return;
        }
        let successors = self.store.successors(&[left.clone(), right.clone()], 1);
        self.evacuate();
        self.store.seal(left.segment, successors.clone());
        self.merges.push_back((right.clone(), successors));
    }

    fn finish_merge(&mut self) {
        while let Some((place, successors)) = self.merges.pop_front() {
            self.store.seal(place.segment, successors);
        }
    }

    /// Active segments that no unfinished merge touches, by range.
    fn scalable(&self) -> Vec<SegmentPlace> {
        let busy = |place: &SegmentPlace| {
            self.merges.iter().any(|(right, successors)| {
                let successor = successors.iter().any(|s| s.segment == place.segment);
                right.segment == place.segment || successor
            })
        };
        self.store.active().into_iter().filter(|place| !busy(place)).collect()
    }

    fn wait(&mut self, duration: Duration) {
        self.now = self.now.plus(duration);
        self.core.on_time(self.now);
    }

    fn restart(&mut self) {
        if self.mode == Mode::Anonymous {
            return;
        }
        for link in 0..2 {
            self.disconnect(link);
        }
        self.epoch += 1;
        self.core = core_of(&self.store, self.mode, self.epoch);
        self.is_new = true;
        if self.mode == Mode::Replay {
            self.again = self.appended.keys().copied().collect();
        }
        self.watermark = EventNumber::NONE;
    }
}
