//! The end of a run: faults stop, everything heals and settles, the server crashes a last time,
//! and what it finds again is read to the end.

use controller::Operation;

use super::streams::Phase;
use super::world::{Event, World};
use crate::history::SegmentRef;

/// Virtual time in which everything must settle once faults have stopped.
const SETTLE_MICROS: u64 = 120_000_000;
/// When writers in front of a full log give up: nothing frees it.
const FULL_MICROS: u64 = 3_000_000;
const LOOK_MICROS: u64 = 20_000;

impl World {
    pub(super) fn on_chaos_ends(&mut self) {
        if self.chaos {
            self.note(format_args!("faults stop"));
            self.chaos = false;
            self.healed_at = self.now();
            self.on_space();
            self.heal_bucket();
            if self.plan.bucket.as_ref().is_some_and(|plan| plan.loses_machine) {
                self.lose_machine();
            }
        }
        if !self.settled && self.is_settled() && self.bucket_is_at_rest() {
            self.note(format_args!("settled"));
            self.check_bucket();
            self.machine.recovering = None;
            self.fall("before the last reads");
            self.settled = true;
        }
        if self.settled {
            self.read_to_the_end();
            return;
        }
        let waited = self.now() - self.healed_at;
        if waited > FULL_MICROS && self.log_is_full() {
            self.give_up();
        }
        if waited > SETTLE_MICROS {
            let open = self.clients.iter().filter(|client| !client.is_over());
            let open: Vec<String> = open.map(|client| client.describe()).collect();
            let streams: Vec<String> = self
                .streams
                .iter()
                .map(|s| format!("{}: {:?}, {} planned", s.name, s.phase, s.planned.len()))
                .collect();
            let groups = self.node.iter().flat_map(|node| node.statuses());
            let groups: Vec<String> = groups
                .map(|(id, s)| {
                    let (first, archived, applied) = (s.first, s.archived, s.applied);
                    format!("{id}: {first}..{applied}, archived to {archived}")
                })
                .collect();
            self.problem(format!("not settled: {open:?}; {streams:?}; {groups:?}"));
            return;
        }
        self.schedule.after(LOOK_MICROS, Event::ChaosEnds);
    }

    fn is_settled(&self) -> bool {
        let at_rest = |phase: &Phase| matches!(phase, Phase::Live | Phase::Sealed | Phase::Deleted);
        self.node.as_ref().is_some_and(|node| node.is_serving())
            && !self.stopping
            && self.clients_are_over()
            && self.streams.iter().all(|stream| at_rest(&stream.phase))
    }

    /// Whether something was refused for a full log just now.
    fn log_is_full(&self) -> bool {
        self.full_at.is_some_and(|at| self.now() - at < 500_000)
    }

    /// Nothing frees the log: what waits for space ends here.
    fn give_up(&mut self) {
        self.clients.iter_mut().for_each(|client| client.gave_up = true);
        for stream in &mut self.streams {
            stream.planned.clear();
            if matches!(stream.phase, Phase::Asked(Operation::CreateStream { .. })) {
                stream.phase = Phase::Deleted;
            }
        }
    }

    /// Begins the last reads as soon as the server is back.
    fn read_to_the_end(&mut self) {
        if !self.node.as_ref().is_some_and(|node| node.is_serving()) {
            self.schedule.after(LOOK_MICROS, Event::ChaosEnds);
            return;
        }
        let digests = self.node.as_ref().map(|node| node.digests());
        self.note(format_args!("digests {digests:?}"));
        let segments: Vec<SegmentRef> = self
            .streams
            .iter()
            .filter(|stream| stream.phase != Phase::Deleted)
            .flat_map(|stream| {
                let segment = |at| SegmentRef { stream: stream.number, segment: at as u32 };
                (0..stream.places.len()).map(segment)
            })
            .collect();
        self.last_reads_left = segments.len();
        self.finished = segments.is_empty();
        for segment in segments {
            self.read(segment, 0, true);
        }
    }
}
