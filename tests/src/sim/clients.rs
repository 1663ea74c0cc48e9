//! Clients: what they append, how they connect, and how they learn what became of it.

use std::sync::Arc;

use client::session::{Mode, WriterIdentity};
use common::routing::position_of_key;
use common::{WriterEpoch, WriterId, WriterName};
use proto::v1::AppendResponse;

use super::core_writer::{CoreWriter, Given};
use super::raw_writer::{Ended, Item, Notice, RawWriter};
use super::world::{Event, World};
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
    pub(super) stream: usize,
    /// The writer's number in the history; two processes of a named writer share it.
    pub(super) writer: u32,
    pub(super) script: Arc<Vec<Given>>,
    given: usize,
    connection: Option<u32>,
    /// What a second process takes over.
    pub(super) name: Option<WriterName>,
    pub(super) epoch: u64,
    pub(super) superseded: bool,
    pub(super) gave_up: bool,
    /// Told to try again later.
    hold_until: u64,
}

/// A library writer that waits for its epoch.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) id: u64,
    pub(super) stream: usize,
    pub(super) writer: u32,
    pub(super) script: Arc<Vec<Given>>,
    pub(super) name: Option<WriterName>,
    pub(super) asked: bool,
}

impl Client {
    fn pending(&self) -> usize {
        match &self.kind {
            Kind::Raw(writer) => writer.pending(),
            Kind::Core(writer) => writer.pending(),
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
        self.has_ended() || (self.given == self.script.len() && self.pending() == 0)
    }

    pub(super) fn describe(&self) -> String {
        let (given, all, pending) = (self.given, self.script.len(), self.pending());
        let kind = match &self.kind {
            Kind::Raw(writer) => format!("{writer:?}"),
            Kind::Core(writer) => format!("{:?}", writer.failure()),
        };
        format!("writer {} gave {given} of {all}, {pending} pending: {kind}", self.writer)
    }
}

impl World {
    /// What a writer is to append: numbers from 1 on, keys that `key` draws.
    pub(super) fn script(&mut self, keys: &[u32]) -> Arc<Vec<Given>> {
        let rng = &mut self.random.workload;
        let mut script = Vec::new();
        let mut number = 0;
        for _ in 0..self.plan.appends {
            let key = keys[rng.below(keys.len() as u64) as usize];
            let atomic = self.plan.atomic > 0 && rng.chance(1, self.plan.atomic);
            let count = if atomic { rng.between(2, 5) } else { 1 };
            let events = (number + 1..=number + count).map(|number| EventRef { number, key });
            let filler = rng.below(self.plan.filler_max + 1) as usize;
            script.push(Given { events: events.collect(), filler });
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
            let places = &self.streams[stream].places;
            let at = self.random.workload.below(places.len() as u64) as usize;
            let place = places[at].clone();
            let first = key_in(place.range, 0);
            let keys = [first, key_in(place.range, first + 1)];
            let (writer, script) = (self.new_writer(), self.script(&keys));
            let rng = self.random.workload.fork("raw writer");
            let named = self.random.workload.chance(1, 2);
            let raw = RawWriter::new(writer, place.segment, place.container, 1, named, rng);
            self.add_client(Kind::Raw(Box::new(raw)), stream, writer, script, None, 1);
        }
        for i in 0..self.plan.core_writers {
            let keys = self.stream_keys();
            let (writer, script) = (self.new_writer(), self.script(&keys));
            let name = self.random.workload.chance(2, 3).then(|| {
                WriterName::new(&format!("writer-{i}")).expect("a simulated name is a good one")
            });
            self.plan_core(stream, writer, script, name);
        }
    }

    fn plan_core(
        &mut self,
        stream: usize,
        writer: u32,
        script: Arc<Vec<Given>>,
        name: Option<WriterName>,
    ) {
        self.next_planned += 1;
        let id = self.next_planned;
        self.streams[stream].planned.push(Planned {
            id,
            stream,
            writer,
            script,
            name,
            asked: false,
        });
    }

    fn new_writer(&mut self) -> u32 {
        self.next_writer += 1;
        self.next_writer
    }

    fn add_client(
        &mut self,
        kind: Kind,
        stream: usize,
        writer: u32,
        script: Arc<Vec<Given>>,
        name: Option<WriterName>,
        epoch: u64,
    ) {
        let client = self.clients.len();
        self.clients.push(Client {
            kind,
            stream,
            writer,
            script,
            given: 0,
            connection: None,
            name,
            epoch,
            superseded: false,
            gave_up: false,
            hold_until: 0,
        });
        self.note(format_args!("client {client} is writer {writer}, epoch {epoch}"));
        self.schedule.after(10, Event::Client { client });
    }

    /// A library writer begins, under the identity that the controller gave it.
    pub(super) fn start_core(&mut self, planned: Planned, registered: Option<(WriterId, u64)>) {
        let identity = match registered {
            Some((writer, epoch)) => WriterIdentity {
                writer,
                epoch: WriterEpoch(epoch),
                routing: bytes::Bytes::from(planned.writer.to_le_bytes().to_vec()),
                mode: Mode::Replay,
            },
            None => WriterIdentity::anonymous(self.random.workload.u128()),
        };
        let epoch = identity.epoch.0;
        let (name, places) = {
            let stream = &self.streams[planned.stream];
            (stream.name.clone(), stream.places.clone())
        };
        let block = [256, 2_048, 16_384][self.random.workload.below(3) as usize];
        let rng = self.random.workload.fork("core writer");
        let core = CoreWriter::new(planned.writer, name, identity, places, block, rng);
        let Planned { stream, writer, script, name, .. } = planned;
        self.add_client(Kind::Core(Box::new(core)), stream, writer, script, name, epoch);
    }

    /// Some writer's second process begins, while the first may go on.
    pub(super) fn second_process(&mut self) {
        let may = |client: &Client| !client.superseded && !client.is_over() && client.given > 0;
        let candidates: Vec<usize> =
            (0..self.clients.len()).filter(|i| may(&self.clients[*i])).collect();
        if candidates.is_empty() {
            return;
        }
        let at = candidates[self.random.faults.below(candidates.len() as u64) as usize];
        let first = &mut self.clients[at];
        let (stream, writer, script) = (first.stream, first.writer, first.script.clone());
        match (&first.kind, &first.name) {
            (Kind::Core(_), Some(name)) => {
                let name = Some(name.clone());
                first.superseded = true;
                self.plan_core(stream, writer, script, name);
            }
            // A conditional append has one outcome: two processes must not both try it.
            (Kind::Raw(raw), _) if self.plan.conditional == 0 => {
                first.superseded = true;
                let (segment, container, epoch) = (raw.segment, raw.container, first.epoch + 1);
                let rng = self.random.workload.fork("second process");
                let raw = RawWriter::new(writer, segment, container, epoch, true, rng);
                self.add_client(Kind::Raw(Box::new(raw)), stream, writer, script, None, epoch);
            }
            _ => {}
        }
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
            self.connections.remove(&connection);
            self.schedule.after(100, Event::ServerCloses { connection });
        }
    }

    fn append_next(&mut self, client: usize) {
        let now = self.now();
        let c = &self.clients[client];
        let ready = match &c.kind {
            Kind::Raw(_) => true,
            Kind::Core(writer) => writer.is_ready(),
        };
        if !ready || c.given == c.script.len() || c.pending() >= WINDOW || c.has_ended() {
            return;
        }
        let given = c.script[c.given].clone();
        let segment = self.segment_of(c.stream, given.events[0].key);
        let (writer, expected_offset) = (c.writer, self.expected_offset(client, &given));
        let c = &mut self.clients[client];
        c.given += 1;
        let operation =
            Operation::Append { segment, writer, events: given.events.clone(), expected_offset };
        let op = self.recorder.invoke(now, client as u32, operation);
        let stored = match &mut c.kind {
            Kind::Raw(raw) => Some(raw.push(item(op, writer, &given, expected_offset))),
            Kind::Core(core) => core.push(op, &given),
        };
        let end = match stored {
            Some(false) => return,
            Some(true) => What::Ok { answer: Answer::Done },
            None => {
                // The event has no number: a writer that refuses one takes no more.
                c.given = c.script.len();
                What::Fail { reason: "REFUSED".to_owned() }
            }
        };
        self.recorder.end(now, client as u32, op, end);
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

    pub(super) fn segment_of(&self, stream: usize, key: u32) -> SegmentRef {
        let position = position_of_key(&key_text(key));
        let stream = &self.streams[stream];
        let at = stream.places.iter().position(|place| place.range.contains(position));
        SegmentRef { stream: stream.number, segment: at.unwrap_or_default() as u32 }
    }

    fn client_sends(&mut self, client: usize) {
        let now = self.monotonic();
        let Some(connection) = self.clients[client].connection else { return };
        if self.clients[client].hold_until > self.now() {
            return;
        }
        let mut requests = Vec::new();
        match &mut self.clients[client].kind {
            Kind::Raw(raw) => requests.extend(std::iter::from_fn(|| raw.poll_send())),
            Kind::Core(core) => {
                core.on_time(now);
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
        for notice in notices {
            let (op, what) = match notice {
                Notice::Acknowledged { op } => (op, What::Ok { answer: Answer::Done }),
                Notice::Refused { op, reason } => {
                    self.coverage.offset_mismatches += u64::from(reason == "OFFSET_MISMATCH");
                    (op, What::Fail { reason: reason.to_owned() })
                }
            };
            self.recorder.end(at, client as u32, op, what);
        }
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

fn item(op: u64, writer: u32, given: &Given, expected_offset: Option<u64>) -> Item {
    let mut data = bytes::BytesMut::new();
    for event in &given.events {
        data.extend_from_slice(&payload::frame(writer, event.number, event.key, given.filler));
    }
    Item { op, events: given.events.clone(), data: data.freeze(), expected_offset }
}
