//! What comes back.

use std::time::Duration;

use common::MonotonicTime;
use proto::error::Reason;
use proto::v1;

use super::forgotten::Absence;
use super::segment::{Segment, State};
use super::{LinkId, Timer, WriterCore};
use crate::error::ClientError;

impl WriterCore {
    /// Takes a message that arrived on a link. Answers to sessions that are over are ignored.
    pub fn on_response(&mut self, link: LinkId, response: v1::AppendResponse, now: MonotonicTime) {
        if let Some(hello) = response.hello {
            self.on_hello(link, &hello);
        }
        for slot in response.closed {
            self.closing.remove(&(link, slot));
        }
        for ack in &response.acks {
            self.on_ack(link, ack);
        }
        for opened in response.opened {
            self.on_opened(link, opened, now);
        }
        for failure in response.failures {
            self.on_failure(link, failure, now);
        }
    }

    /// The link's connection is gone, with every session on it; `problem` says why. What still
    /// wants something of the store may have moved to another one meanwhile.
    pub fn on_disconnect(&mut self, link: LinkId, problem: &str) {
        self.links[link.0].slots.clear();
        self.closing.retain(|(closing, _)| *closing != link);
        for index in 0..self.segments.len() {
            let segment = &self.segments[index];
            if segment.link == link && matches!(segment.state, State::Opening(_) | State::Open(_)) {
                self.leave_session(index);
                self.reopen_if_needed(index);
            }
        }
        let wants = |segment: &Segment| segment.link == link && segment.state == State::WantsOpen;
        self.relocate |= self.segments.iter().any(wants);
        let waits = |segment: &Segment| segment.link == link && segment.has_data();
        if !self.resume.is_done() || self.segments.iter().any(waits) {
            self.trouble = Some(problem.to_owned());
        }
    }

    /// How long the store remembers a writer, where it says so.
    pub(crate) fn on_hello(&mut self, link: LinkId, hello: &v1::Hello) {
        if hello.writer_kept_micros > 0 {
            self.links[link.0].writer_kept = Duration::from_micros(hello.writer_kept_micros);
        }
    }

    fn on_ack(&mut self, link: LinkId, ack: &v1::BlockAck) {
        let Some(&index) = self.links[link.0].slots.get(&ack.slot) else { return };
        let segment = &mut self.segments[index];
        if ack.last_number > segment.chain {
            self.fail(ClientError::protocol("a number that was never sent is acknowledged"));
            return;
        }
        segment.failures = 0;
        segment.last_used = self.boot_time;
        segment.length = segment.length.max(ack.length);
        self.settle_through(index, ack.last_number);
        self.trouble = None;
        self.offer(index);
    }

    /// Everything up to `last` is durable in the segment.
    pub(super) fn settle_through(&mut self, index: usize, last: u64) {
        let segment = &mut self.segments[index];
        segment.acknowledged = segment.acknowledged.max(last);
        segment.durable = segment.durable.max(last);
        while segment.queue.front().is_some_and(|block| block.last <= last) {
            let Some(block) = segment.queue.pop_front() else { break };
            self.memory_used -= block.data.len();
            segment.bytes -= block.data.len();
            let sum = &mut segment.acknowledged_sum.value;
            *sum = sum.wrapping_add(block.sum);
            segment.widen_window(block.data.len());
            if segment.in_flight > 0 {
                segment.in_flight -= 1;
                segment.in_flight_bytes -= block.data.len();
            }
            self.pool.give_back(block.data);
        }
        segment.waiters.take_through(segment.durable, &mut self.woken);
        self.note_front(index);
    }

    fn on_opened(&mut self, link: LinkId, opened: v1::SessionOpened, now: MonotonicTime) {
        let Some(&index) = self.links[link.0].slots.get(&opened.slot) else { return };
        if self.segments[index].state != State::Opening(opened.slot) {
            return;
        }
        let stored = opened.last_number;
        let segment = &self.segments[index];
        let is_short = segment.must_be_long && opened.length < segment.length;
        if stored < segment.acknowledged || is_short {
            self.fail_lost(index, stored);
            return;
        }
        self.settle_through(index, stored);
        if self.sums() {
            self.check_sum(index, opened.sum, opened.sum_after);
        }
        let segment = &mut self.segments[index];
        if segment.queue.front().is_some_and(|block| block.first <= stored) {
            self.fail(ClientError::protocol("a segment stored a part of a block"));
            return;
        }
        // The earlier sessions are fenced: what they did not store, they never will.
        segment.queue.iter_mut().for_each(|block| block.sent = false);
        segment.chain = stored;
        segment.chain_sum = segment.acknowledged_sum.value;
        segment.last_used = self.boot_time;
        segment.length = segment.length.max(opened.length);
        segment.must_be_long = false;
        segment.absence = Absence::None;
        segment.resuming |= stored > 0;
        if opened.sealed {
            self.on_sealed(index, opened.successors, opened.has_more_successors, now);
        } else {
            segment.state = State::Open(opened.slot);
            if self.outstanding.is_empty() {
                self.trouble = None;
            }
            self.offer(index);
            self.probe_later(index, now);
        }
        self.check_resumed();
    }

    fn on_failure(&mut self, link: LinkId, failure: v1::SessionFailure, now: MonotonicTime) {
        let Some(&index) = self.links[link.0].slots.get(&failure.slot) else { return };
        let was_open = matches!(self.segments[index].state, State::Open(_));
        if !matches!(failure.reason(), Reason::SegmentSealed | Reason::SessionBroken) {
            self.trouble = Some(failure.message.clone());
        }
        self.leave_session(index);
        match failure.reason() {
            // The answer to the next `Open` says what is stored, and the successors; it does so,
            // too, where the segment was sealed and truncated away meanwhile.
            Reason::SegmentSealed | Reason::SessionBroken | Reason::SegmentNotFound
                if was_open && self.segments[index].failures == 0 =>
            {
                self.segments[index].failures = 1;
                self.want_open(index);
            }
            Reason::SegmentSealed | Reason::SessionBroken | Reason::Unavailable => {
                self.pause(index, Duration::ZERO, now);
            }
            Reason::SegmentNotFound if was_open => self.pause(index, Duration::ZERO, now),
            Reason::NotLeader => {
                self.relocate = true;
                self.pause(index, Duration::ZERO, now);
            }
            Reason::ResourceExhausted => {
                self.segments[index].narrow_window(&self.limits);
                let wait = Duration::from_millis(failure.retry_after_millis.into());
                self.pause(index, wait, now);
            }
            Reason::WriterFenced => self.on_fenced(index, failure.current, now),
            Reason::WriterExpired | Reason::WriterAbsent => {
                // A block that is refused is not stored, and the answers before it have come.
                let in_doubt = !was_open && self.segments[index].is_uncertain();
                let without_a_trace = failure.reason() == Reason::WriterAbsent;
                self.on_forgotten(index, in_doubt, without_a_trace, now);
            }
            reason => {
                let segment = self.segments[index].place.segment;
                let message = format!("segment {segment} refuses the writer: {}", failure.message);
                self.fail(ClientError::refused(reason, message));
            }
        }
    }

    /// An own older `Open` may have come later than a newer one; only a higher epoch is another
    /// process.
    fn on_fenced(&mut self, index: usize, current: Option<v1::WriterSession>, now: MonotonicTime) {
        let current = current.map_or_else(|| self.session(), Into::into);
        if current.epoch > self.identity.epoch {
            self.fail(ClientError::Fenced { current });
            return;
        }
        self.attempt = self.attempt.max(current.attempt);
        self.pause(index, Duration::ZERO, now);
    }

    /// Asks later whether the segment is sealed, if a successor waits for that.
    pub(super) fn probe_later(&mut self, index: usize, now: MonotonicTime) {
        let id = self.segments[index].place.segment;
        if self.succession.is_blocking(id) {
            let pause = self.limits.backoff_min * 4;
            self.timers.insert((now.plus(pause), index, Timer::Probe));
        }
    }

    /// Asks whether the segment is sealed, if a successor waits for that; while blocks are in
    /// flight, their answers may tell, so it waits a little.
    pub(super) fn probe(&mut self, index: usize, now: MonotonicTime) {
        let segment = &self.segments[index];
        let id = segment.place.segment;
        if !self.succession.is_blocking(id) {
            return;
        }
        match segment.state {
            State::Idle => self.want_open(index),
            State::Open(_) if segment.in_flight == 0 => {
                self.leave_session(index);
                self.want_open(index);
            }
            State::Open(_) => self.probe_later(index, now),
            // The answer that is awaited tells.
            _ => {}
        }
    }
}
