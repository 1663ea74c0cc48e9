//! The library's writers: registered where they have a name, and begun again by other processes.
//!
//! A name is used in one of the two modes. One that replays gets its source again, now and then
//! another one that differs in one append: what differs is the work of an author of its own in the
//! history, so that whoever calls it stored without storing it has lost it. The numbers of one that
//! continues say nothing of its source: each process is a writer of its own in the history.

use std::sync::Arc;

use client::session::{Mode, WriterIdentity};
use common::{WriterEpoch, WriterId, WriterName};
use controller::{Accepted, Group, GroupError, Operation as Control, Outcome, WriterMode};

use super::clients::{Client, Kind};
use super::core_writer::{CoreWriter, Given};
use super::raw_writer::RawWriter;
use super::streams::Effect;
use super::world::World;

/// What a process of a writer is to do.
#[derive(Debug, Clone)]
pub(super) struct Work {
    pub(super) stream: usize,
    /// The writer's number in the history.
    pub(super) writer: u32,
    pub(super) script: Arc<Vec<Given>>,
    /// What a later process takes over.
    pub(super) name: Option<(WriterName, WriterMode)>,
    /// The writer's source, where the script is another one.
    pub(super) genuine: Option<Arc<Vec<Given>>>,
}

/// A library writer that waits for its epoch.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    id: u64,
    work: Work,
    pub(super) asked: bool,
}

impl World {
    /// A stream's library writers.
    pub(super) fn plan_core_writers(&mut self, stream: usize) {
        for i in 0..self.plan.core_writers {
            let keys = self.stream_keys();
            let writer = self.new_writer();
            let script = self.script(writer, &keys);
            let name = self.random.workload.chance(2, 3).then(|| {
                let name = WriterName::new(&format!("writer-{i}"));
                (name.expect("a simulated name is a good one"), self.plan.mode)
            });
            self.plan_core(Work { stream, writer, script, name, genuine: None });
        }
    }

    fn plan_core(&mut self, work: Work) {
        self.next_planned += 1;
        let (id, stream) = (self.next_planned, work.stream);
        self.streams[stream].planned.push(Planned { id, work, asked: false });
    }

    /// A library writer begins, under the identity that the controller gave it.
    fn start_core(&mut self, work: Work, registered: Option<(WriterId, u64)>) {
        let identity = match registered {
            Some((writer, epoch)) => WriterIdentity {
                writer,
                epoch: WriterEpoch(epoch),
                routing: bytes::Bytes::from(work.writer.to_le_bytes().to_vec()),
                mode: match work.name {
                    Some((_, WriterMode::Continue)) => Mode::Continue,
                    _ => Mode::Replay,
                },
            },
            None => WriterIdentity::anonymous(self.random.workload.u128()),
        };
        let epoch = identity.epoch.0;
        let stream = &self.streams[work.stream];
        let (name, places) = (stream.name.clone(), stream.first_places().to_vec());
        let block = [256, 2_048, 16_384][self.random.workload.below(3) as usize];
        let rng = self.random.workload.fork("core writer");
        let core = CoreWriter::new(name, identity, places, block, rng);
        self.add_client(Kind::Core(Box::new(core)), work, epoch);
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
        let (work, given) = (first.work.clone(), first.given);
        match (&first.kind, &work.name) {
            (Kind::Core(_), Some((_, mode))) => {
                let mode = *mode;
                first.superseded = true;
                match mode {
                    WriterMode::Replay => self.replay(work, given),
                    WriterMode::Continue => self.continue_behind(work),
                }
            }
            // A conditional append has one outcome: two processes must not both try it.
            (Kind::Raw(raw), _) if self.plan.conditional == 0 && raw.named => {
                first.superseded = true;
                let (segment, container, epoch) = (raw.segment, raw.container, first.epoch + 1);
                let rng = self.random.workload.fork("second process");
                let raw = RawWriter::new(work.writer, segment, container, epoch, true, rng);
                self.add_client(Kind::Raw(Box::new(raw)), work, epoch);
            }
            _ => {}
        }
    }

    /// Another process has the same source, or one that differs from it in an append among the
    /// first `given`.
    fn replay(&mut self, mut work: Work, given: usize) {
        if let Some(genuine) = work.genuine.take() {
            work.script = genuine;
        } else if self.plan.other_sources && self.random.faults.chance(1, 2) {
            let author = self.new_writer();
            let mut script = work.script.to_vec();
            script[self.random.faults.below(given as u64) as usize].author = author;
            work.genuine = Some(std::mem::replace(&mut work.script, Arc::new(script)));
            self.note(format_args!("writer {} gets another source, by {author}", work.writer));
        }
        self.plan_core(work);
    }

    fn continue_behind(&mut self, mut work: Work) {
        let keys = self.stream_keys();
        work.writer = self.new_writer();
        work.script = self.script(work.writer, &keys);
        self.plan_core(work);
    }

    /// A process has come to its end. Behind one that had another source comes one that has the
    /// writer's.
    pub(super) fn core_is_over(&mut self, client: usize) {
        let c = &self.clients[client];
        let Kind::Core(core) = &c.kind else { return };
        let differs = core.source_differs();
        self.coverage.other_sources += u64::from(differs);
        if c.work.genuine.is_some() && !c.gave_up && !c.superseded {
            let work = c.work.clone();
            self.clients[client].superseded = true;
            self.replay(work, 0);
        }
    }

    /// Asks for the epochs of writers that wait for them.
    pub(super) fn register_planned(&mut self, stream: usize) {
        let Some(node) = &self.node else { return };
        let s = &mut self.streams[stream];
        let Some(at) = s.planned.iter().position(|planned| !planned.asked) else { return };
        let Some((writer, mode)) = s.planned[at].work.name.clone() else {
            let planned = s.planned.remove(at);
            self.start_core(planned.work, None);
            return;
        };
        s.planned[at].asked = true;
        let (id, group) = (s.planned[at].id, node.controller.clone());
        let operation =
            Control::RegisterWriter { stream: s.name.clone(), writer, create: true, mode };
        self.tasks.spawn(async move {
            let outcome = group.submit(operation).await;
            Effect::Registered { stream, planned: id, outcome }
        });
        self.wake();
    }

    pub(super) fn on_registered(
        &mut self,
        stream: usize,
        id: u64,
        outcome: Result<Outcome, GroupError>,
    ) {
        self.note_full(&outcome);
        let s = &mut self.streams[stream];
        let Some(at) = s.planned.iter().position(|planned| planned.id == id) else { return };
        match outcome {
            Ok(Ok(Accepted::WriterRegistered { stream: of, writer, epoch, .. }))
                if Some(of) == s.id =>
            {
                let planned = s.planned.remove(at);
                self.start_core(planned.work, Some((writer, epoch.0)));
            }
            // Sealed or deleted meanwhile: nobody writes.
            Ok(_) => _ = s.planned.remove(at),
            Err(_) => s.planned[at].asked = false,
        }
    }
}
