//! Clients: what they append, how they connect, and how they learn what became of it.

use std::sync::Arc;

use common::routing::position_of_key;
use controller::WriterMode;
use proto::v1::append_request::Message;
use proto::v1::{AppendRequest, AppendResponse, CloseSessions};

use super::core_writer::{CoreWriter, Given};
use super::network::Connection;
use super::raw_writer::{Ended, Item, Notice, RawWriter};
use super::world::{Event, World};
use super::writers::Work;
use crate::history::{Answer, EventRef, Operation, SegmentRef, What};
use crate::payload::{self, key_in, key_text};

/// Appends that a client keeps under way at most.
const WINDOW: usize = 12;
/// Routing keys of one stream.
const KEYS: u64 = 12;

pub(super) enum Kind {
    Raw(Box<RawWriter>),
    Core(Box<CoreWriter>),
}

pub(super) struct Client {
    pub(super) kind: Kind,
    pub(super) work: Work,
    pub(super) given: usize,
    connection: Option<u32>,
    /// What was sent on the last connection that broke.
    pub(super) lost: Vec<AppendRequest>,
    pub(super) epoch: u64,
    pub(super) superseded: bool,
    pub(super) gave_up: bool,
    /// Told to try again later.
    hold_until: u64,
}

impl Client {
    /// The next append; of a writer that continues under the numbers that it gets.
    fn next_given(&self) -> Given {
        let mut given = self.work.script[self.given].clone();
        if let (Kind::Core(core), Some((_, WriterMode::Continue))) = (&self.kind, &self.work.name) {
            let numbers = core.next_number()..;
            given.events.iter_mut().zip(numbers).for_each(|(event, number)| event.number = number);
        }
        given
    }

    fn pending(&self) -> usize {
        match &self.kind {
            Kind::Raw(writer) => writer.pending(),
            Kind::Core(writer) => writer.pending(),
        }
    }

    /// Whether nobody comes after it, so that it asks to be forgotten at its end.
    pub(super) fn closes(&self) -> bool {
        match &self.kind {
            Kind::Raw(raw) => !raw.named,
            Kind::Core(_) => self.work.name.is_none(),
        }
    }

    fn has_ended(&self) -> bool {
        self.gave_up
            || match &self.kind {
                Kind::Raw(writer) => writer.ended.is_some(),
                Kind::Core(writer) => writer.failure().is_some(),
            }
    }

    /// Nothing more comes from this client.
    pub(super) fn is_over(&self) -> bool {
        self.has_ended() || (self.given == self.work.script.len() && self.pending() == 0)
    }

    pub(super) fn describe(&self) -> String {
        let (given, all, pending) = (self.given, self.work.script.len(), self.pending());
        let kind = match &self.kind {
            Kind::Raw(writer) => format!("{writer:?}"),
            Kind::Core(writer) => format!("{:?}", writer.failure()),
        };
        let writer = self.work.writer;
        format!("writer {writer} gave {given} of {all}, {pending} pending: {kind}")
    }
}

impl World {
    /// What a writer is to append: numbers from 1 on, keys of `keys`.
    pub(super) fn script(&mut self, author: u32, keys: &[u32]) -> Arc<Vec<Given>> {
        let rng = &mut self.random.workload;
        let mut script = Vec::new();
        let mut number = 0;
        for _ in 0..self.plan.appends {
            let key = keys[rng.below(keys.len() as u64) as usize];
            let atomic = self.plan.atomic > 0 && rng.chance(1, self.plan.atomic);
            let count = if atomic { rng.between(2, 5) } else { 1 };
            let events = (number + 1..=number + count).map(|number| EventRef { number, key });
            let filler = rng.below(self.plan.filler_max + 1) as usize;
            script.push(Given { events: events.collect(), filler, author });
            number += count;
        }
        Arc::new(script)
    }

    pub(super) fn stream_keys(&self) -> Vec<u32> {
        (0..KEYS as u32).collect()
    }

    /// The stream is there: its writers begin.
    pub(super) fn start_clients(&mut self, stream: usize) {
        for _ in 0..self.plan.raw_writers {
            let places = self.streams[stream].places.len() as u64;
            let place = self.random.workload.below(places) as usize;
            self.start_raw(stream, place);
        }
        self.plan_core_writers(stream);
    }

    /// A writer of one segment begins.
    pub(super) fn start_raw(&mut self, stream: usize, place: usize) {
        let place = self.streams[stream].places[place].clone();
        let first = key_in(place.range, 0);
        let keys = [first, key_in(place.range, first + 1)];
        self.streams[stream].keys.extend(keys);
        let writer = self.new_writer();
        let script = self.script(writer, &keys);
        let rng = self.random.workload.fork("raw writer");
        let named = self.random.workload.chance(1, 2);
        let raw = RawWriter::new(writer, place.segment, place.container, 1, named, rng);
        let work = Work { stream, writer, script, name: None, genuine: None };
        self.add_client(Kind::Raw(Box::new(raw)), work, 1);
    }

    pub(super) fn new_writer(&mut self) -> u32 {
        self.next_writer += 1;
        self.next_writer
    }

    pub(super) fn add_client(&mut self, kind: Kind, work: Work, epoch: u64) {
        let client = self.clients.len();
        let writer = work.writer;
        self.clients.push(Client {
            kind,
            work,
            given: 0,
            connection: None,
            lost: Vec::new(),
            epoch,
            superseded: false,
            gave_up: false,
            hold_until: 0,
        });
        self.note(format_args!("client {client} is writer {writer}, epoch {epoch}"));
        self.schedule.after(10, Event::Client { client });
    }

    pub(super) fn on_client(&mut self, client: usize) {
        if self.clients[client].is_over() {
            self.client_is_over(client);
            return;
        }
        if self.clients[client].connection.is_none() {
            self.clients[client].connection = self.connect(client);
        }
        if self.clients[client].connection.is_none() {
            let delay = self.random.network.between(1_000, 10_000);
            self.schedule.after(delay, Event::Client { client });
            return;
        }
        let burst = self.random.workload.below(5);
        for _ in 0..burst {
            self.append_next(client);
        }
        self.client_sends(client);
        let delay = self.random.workload.between(50, 4_000);
        self.schedule.after(delay, Event::Client { client });
    }

    fn client_is_over(&mut self, client: usize) {
        let text = self.clients[client].describe();
        self.note(format_args!("client {client} is over: {text}"));
        self.core_is_over(client);
        match &self.clients[client].kind {
            Kind::Raw(writer) if writer.ended == Some(Ended::Fenced) => self.coverage.fenced += 1,
            Kind::Raw(writer) if writer.ended == Some(Ended::Sealed) => self.coverage.sealed += 1,
            Kind::Core(writer) => match writer.failure() {
                Some(text) if text.starts_with("Fenced") => self.coverage.fenced += 1,
                Some(text) if text.starts_with("Conflict") => self.coverage.sealed += 1,
                _ => {}
            },
            Kind::Raw(_) => {}
        }
        if let Some(connection) = self.clients[client].connection.take() {
            let message = self.close_sessions(client, connection);
            self.hang_up(connection, message);
        }
    }

    /// A writer that nobody resumes asks the server to forget it. What it had sent may come once
    /// more behind that.
    fn close_sessions(&mut self, client: usize, connection: u32) -> Option<Message> {
        let c = &mut self.clients[client];
        if !c.closes() || c.gave_up {
            return None;
        }
        let slots = match &mut c.kind {
            Kind::Raw(raw) => raw.close(),
            Kind::Core(core) if core.failure().is_none() => core.close(),
            Kind::Core(_) => Vec::new(),
        };
        let lost = std::mem::take(&mut c.lost);
        let sent = self.connections.get_mut(&connection).map(Connection::take_sent);
        let sent = sent.unwrap_or_default();
        if slots.is_empty() {
            return None;
        }
        if self.plan.faults.late_messages {
            let again = self.random.network.chance(1, 2) && !lost.is_empty();
            let requests = if again { lost } else { sent };
            let delay = self.random.network.between(1, 100_000);
            self.schedule.after(delay, Event::Echo { requests });
        }
        Some(Message::Close(CloseSessions { slots }))
    }

    fn append_next(&mut self, client: usize) {
        let now = self.now();
        let c = &self.clients[client];
        let (ready, window) = match &c.kind {
            Kind::Raw(_) => (true, WINDOW),
            // What is stored already is acknowledged when all of it has come.
            Kind::Core(writer) if writer.is_replaying() => (writer.is_ready(), usize::MAX),
            Kind::Core(writer) => (writer.is_ready(), WINDOW),
        };
        if !ready || c.given == c.work.script.len() || c.pending() >= window || c.has_ended() {
            return;
        }
        let given = c.next_given();
        let segment = self.segment_of(c, given.events[0].key);
        let (writer, expected_offset) = (given.author, self.expected_offset(client, &given));
        let c = &mut self.clients[client];
        c.given += 1;
        let operation =
            Operation::Append { segment, writer, events: given.events.clone(), expected_offset };
        let op = self.recorder.invoke(now, client as u32, operation);
        let (taken, notices) = match &mut c.kind {
            Kind::Raw(raw) => (true, raw.push(item(op, &given, expected_offset))),
            Kind::Core(core) => (core.push(op, &given), core.take_acknowledged()),
        };
        if !taken {
            // The event has no number: a writer that refuses one takes no more.
            c.given = c.work.script.len();
            let refused = What::Fail { reason: "REFUSED".to_owned() };
            self.recorder.end(now, client as u32, op, refused);
        }
        self.client_notices(client, notices);
    }

    /// What became of appends.
    fn client_notices(&mut self, client: usize, notices: Vec<Notice>) {
        let now = self.now();
        for notice in notices {
            let (op, what) = match notice {
                Notice::Acknowledged { op } => (op, What::Ok { answer: Answer::Done }),
                Notice::Refused { op, reason } => {
                    self.coverage.offset_mismatches += u64::from(reason == "OFFSET_MISMATCH");
                    (op, What::Fail { reason: reason.to_owned() })
                }
            };
            self.recorder.end(now, client as u32, op, what);
        }
    }

    /// Now and then a raw writer appends only at an offset: where it believes the end to be, or
    /// somewhere else.
    fn expected_offset(&mut self, client: usize, given: &Given) -> Option<u64> {
        let Kind::Raw(raw) = &self.clients[client].kind else { return None };
        let rng = &mut self.random.workload;
        let wanted = self.plan.conditional > 0 && rng.chance(1, self.plan.conditional);
        if !wanted || given.events.len() > 1 || self.clients[client].superseded {
            return None;
        }
        Some(if rng.chance(1, 4) { rng.below(5_000) } else { raw.known_length })
    }

    /// Where the history says an append goes: to the writer's segment, or to the one of the first
    /// epoch, from which those that follow are known.
    fn segment_of(&self, client: &Client, key: u32) -> SegmentRef {
        let position = position_of_key(&key_text(key));
        let stream = &self.streams[client.work.stream];
        let at = match &client.kind {
            Kind::Raw(raw) => stream.places.iter().position(|place| place.segment == raw.segment),
            Kind::Core(_) => stream.places.iter().position(|place| place.range.contains(position)),
        };
        SegmentRef { stream: stream.number, segment: at.unwrap_or_default() as u32 }
    }

    fn client_sends(&mut self, client: usize) {
        let now = self.monotonic();
        let Some(connection) = self.clients[client].connection else { return };
        if self.clients[client].hold_until > self.now() {
            return;
        }
        let mut requests = Vec::new();
        let stream = self.clients[client].work.stream;
        match &mut self.clients[client].kind {
            Kind::Raw(raw) => requests.extend(std::iter::from_fn(|| raw.poll_send())),
            Kind::Core(core) => {
                let lookups = core.on_time(now);
                for segment in lookups {
                    let successors = self.streams[stream].successors_of(segment);
                    core.on_successors(segment, successors, now);
                }
                requests.extend(std::iter::from_fn(|| core.poll_send()));
            }
        }
        for request in requests {
            self.send(connection, request);
        }
    }

    pub(super) fn client_hears(&mut self, client: usize, response: AppendResponse) {
        let (at, now) = (self.now(), self.monotonic());
        let full = proto::v1::Reason::ResourceExhausted;
        if response.failures.iter().any(|failure| failure.reason() == full) {
            self.coverage.refused_full += 1;
            self.full_at = Some(at);
            self.clients[client].hold_until = at + 30_000;
        }
        let notices = match &mut self.clients[client].kind {
            Kind::Raw(raw) => raw.on_response(&response),
            Kind::Core(core) => core.on_response(response, now),
        };
        self.client_notices(client, notices);
        // What a client hears makes it act at once.
        if self.random.workload.chance(1, 2) {
            self.client_sends(client);
        }
    }

    pub(super) fn client_loses(&mut self, client: usize, connection: u32) {
        let c = &mut self.clients[client];
        if c.connection != Some(connection) {
            return;
        }
        c.connection = None;
        match &mut c.kind {
            Kind::Raw(raw) => raw.on_disconnect(),
            Kind::Core(core) => core.on_disconnect(),
        }
    }

    /// Whether every writer has come to its end.
    pub(super) fn clients_are_over(&self) -> bool {
        self.clients.iter().all(Client::is_over)
            && self.streams.iter().all(|stream| stream.planned.is_empty())
    }
}

fn item(op: u64, given: &Given, expected_offset: Option<u64>) -> Item {
    let mut data = bytes::BytesMut::new();
    for event in &given.events {
        data.extend_from_slice(&payload::frame(
            given.author,
            event.number,
            event.key,
            given.filler,
        ));
    }
    Item { op, events: given.events.clone(), data: data.freeze(), expected_offset }
}
