use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use common::WriterSession;
use proto::error::reason_of;
use proto::v1::{
    AppendBlock, AppendBlocks, AppendRequest, AppendResponse, BlockAck, CloseSessions, Hello,
    OpenSegment, OpenSessions, Reason, SessionFailure, append_request::Message,
};
use replica::{OutcomeSink, ProposeError};
use tonic::Code;

use super::{AppendConnection, SessionBudget};
use crate::limits::{
    ANSWER_BYTES_MAX, BLOCK_COST_BYTES, SLOT_COST_BYTES, UNREAD_ANSWER_BYTES_MAX,
    ZERO_COPY_BYTES_MIN,
};
use crate::operation::Command;
use crate::permits::BytePermits;
use crate::settings::Settings;
use crate::testing::{
    CONTAINER, FakeContainer, HOUR, command, identity, segment, session, successor, writer,
};

struct Fixture {
    container: Arc<FakeContainer>,
    permits: BytePermits,
    connection: Arc<AppendConnection>,
}

fn hello(min: u32, max: u32) -> Message {
    let (library, version) = ("test".to_owned(), "1".to_owned());
    let (protocol_min, protocol_max) = (min, max);
    Message::Hello(Hello { library, version, protocol_min, protocol_max, ..Hello::default() })
}

fn open(who: u128, as_of: WriterSession, slots: &[(u32, u32)]) -> Message {
    let segment = |&(slot, number): &(u32, u32)| OpenSegment {
        slot,
        segment: Some(segment(number).into()),
        container: CONTAINER.0,
        resuming: false,
    };
    Message::Open(OpenSessions {
        writer: proto::convert::writer_bytes(writer(who)),
        session: Some(as_of.into()),
        segments: slots.iter().map(segment).collect(),
        named: false,
    })
}

fn block(slot: u32, previous: u64, last: u64, data: impl Into<Bytes>) -> AppendBlock {
    AppendBlock {
        slot,
        previous_number: previous,
        last_number: last,
        events: (last - previous) as u32,
        data: data.into(),
        ..AppendBlock::default()
    }
}

fn blocks(blocks: Vec<AppendBlock>) -> Message {
    Message::Blocks(AppendBlocks { blocks })
}

impl Fixture {
    /// A greeted connection to a container with segments 1 and 2.
    fn new() -> Self {
        let fixture = Self::silent();
        fixture.send(hello(1, 1));
        assert!(fixture.take().hello.is_some());
        fixture
    }

    fn silent() -> Self {
        Self::with_sessions(&SessionBudget::default())
    }

    fn with_sessions(sessions: &SessionBudget) -> Self {
        let container = FakeContainer::new(&Settings::default());
        for number in [1, 2] {
            let create = Command::Create(Box::new(identity(number)));
            container.driver().give(command(1, 1, number), create).unwrap();
        }
        let connection = AppendConnection::new(container.containers(), Arc::default(), sessions);
        Self { container, permits: BytePermits::new(10_000_000), connection }
    }

    /// With slot 1 open on segment 1 and slot 2 on segment 2, for writer 1 under 1:1.
    fn opened() -> Self {
        let fixture = Self::new();
        fixture.send(open(1, session(1, 1), &[(1, 1), (2, 2)]));
        fixture.container.round();
        assert_eq!(fixture.take().opened.len(), 2);
        fixture
    }

    fn try_send(&self, message: Message) -> Result<(), tonic::Status> {
        let request = AppendRequest { message: Some(message) };
        let permit = self.permits.try_acquire(AppendConnection::bytes_of(&request)).unwrap();
        self.connection.on_request(request, permit)
    }

    fn send(&self, message: Message) {
        self.try_send(message).unwrap();
    }

    fn take(&self) -> AppendResponse {
        self.connection.take_response().expect("there is something to tell")
    }

    fn failure(&self) -> SessionFailure {
        let mut response = self.take();
        assert_eq!(response.failures.len(), 1, "{response:?}");
        response.failures.remove(0)
    }

    fn refused(&self, message: Message) -> (Code, Reason, String) {
        let status = self.try_send(message).unwrap_err();
        (status.code(), reason_of(&status), status.message().to_owned())
    }
}

#[test]
fn the_first_message_is_hello_and_only_the_first() {
    let fixture = Fixture::silent();
    let (_, reason, message) = fixture.refused(blocks(vec![]));
    assert_eq!(reason, Reason::InvalidArgument, "{message}");
    fixture.send(hello(1, 7));
    let answer = fixture.take().hello.unwrap();
    assert_eq!((answer.protocol_min, answer.protocol_max), (1, 1));
    assert_eq!(fixture.refused(hello(1, 1)).1, Reason::InvalidArgument);
    let empty = AppendRequest { message: None };
    let permit = fixture.permits.try_acquire(0).unwrap();
    assert!(fixture.connection.on_request(empty, permit).is_err());
}

#[test]
fn a_client_of_another_age_is_told_both_windows() {
    for (min, max) in [(0, 0), (2, 9)] {
        let (_, reason, message) = Fixture::silent().refused(hello(min, max));
        assert_eq!(reason, Reason::ProtocolUnsupported);
        assert!(message.contains(&format!("{min} to {max}")), "{message}");
    }
}

#[test]
fn acknowledgements_of_a_round_are_one_message_with_one_item_per_slot() {
    let fixture = Fixture::opened();
    fixture.send(blocks(vec![
        block(1, 0, 2, "ab"),
        block(2, 0, 1, "x"),
        block(1, 2, 3, "c"),
        block(1, 3, 9, "d"),
    ]));
    assert!(fixture.connection.take_response().is_none());
    assert_eq!(fixture.connection.unanswered(), 4);
    fixture.container.round();
    let response = fixture.take();
    let ack = |slot, last_number, length| BlockAck { slot, last_number, length };
    assert_eq!(response.acks, [ack(1, 9, 4), ack(2, 1, 1)]);
    assert!(response.failures.is_empty() && response.opened.is_empty());
    assert_eq!(fixture.connection.unanswered(), 0);
    // The next round begins a new message.
    fixture.send(blocks(vec![block(1, 9, 10, "e")]));
    fixture.container.round();
    assert_eq!(fixture.take().acks, [ack(1, 10, 5)]);
}

#[test]
fn one_entry_opens_all_segments_of_a_container() {
    let fixture = Fixture::new();
    fixture.send(open(1, session(1, 1), &[(1, 1), (2, 2), (3, 9)]));
    assert_eq!(fixture.container.queued().len(), 1);
    fixture.container.round();
    let response = fixture.take();
    let slots: Vec<_> = response.opened.iter().map(|opened| opened.slot).collect();
    assert_eq!(slots, [1, 2]);
    assert_eq!(response.failures[0].slot, 3);
    assert_eq!(response.failures[0].reason(), Reason::SegmentNotFound);
}

#[test]
fn blocks_may_follow_an_open_that_is_not_answered_yet() {
    let fixture = Fixture::new();
    fixture.send(open(1, session(1, 1), &[(1, 1)]));
    fixture.send(blocks(vec![block(1, 0, 2, "ab")]));
    fixture.container.round();
    let response = fixture.take();
    assert_eq!((response.opened.len(), response.acks.len()), (1, 1));
}

#[test]
fn a_full_container_breaks_only_the_session_it_refused() {
    let fixture = Fixture::opened();
    let retry_after = Duration::from_millis(70);
    *fixture.container.refuse.lock().unwrap() = Some(ProposeError::Full { retry_after });
    fixture.send(blocks(vec![block(1, 0, 2, "ab")]));
    let failure = fixture.failure();
    assert_eq!((failure.slot, failure.reason()), (1, Reason::ResourceExhausted));
    assert_eq!(failure.retry_after_millis, 70);

    *fixture.container.refuse.lock().unwrap() = None;
    fixture.send(blocks(vec![block(1, 2, 3, "c"), block(2, 0, 1, "x")]));
    assert_eq!(fixture.container.queued().len(), 1, "what is behind a refused block is dropped");
    fixture.container.round();
    let response = fixture.take();
    assert_eq!((response.acks[0].slot, response.acks.len()), (2, 1));
    assert!(response.failures.is_empty(), "a broken session is told once");

    fixture.send(open(1, session(1, 2), &[(3, 1)]));
    fixture.send(blocks(vec![block(3, 0, 3, "abc")]));
    fixture.container.round();
    assert_eq!(fixture.take().acks[0].last_number, 3);
    assert_eq!(fixture.permits.free_bytes(), 10_000_000);
}

#[test]
fn a_lost_proposal_breaks_the_session_and_what_was_behind_it_is_not_stored() {
    let fixture = Fixture::opened();
    fixture.send(blocks(vec![block(1, 0, 1, "a"), block(1, 1, 2, "b"), block(1, 2, 3, "c")]));
    fixture.container.lose(1);
    fixture.container.round();
    let response = fixture.take();
    assert_eq!(response.failures.len(), 1);
    assert_eq!(response.failures[0].reason(), Reason::SessionBroken);
    assert_eq!(fixture.container.driver().bytes_of(1).1, b"a");
    assert_eq!(fixture.connection.unanswered(), 0);
}

#[test]
fn a_refused_open_tells_each_slot_why() {
    let fixture = Fixture::new();
    *fixture.container.refuse.lock().unwrap() = Some(ProposeError::NotLeader { hint: Some(2) });
    fixture.send(open(1, session(1, 1), &[(1, 1), (2, 2)]));
    let failures = fixture.take().failures;
    assert_eq!(failures.len(), 2);
    assert!(failures.iter().all(|f| f.reason() == Reason::NotLeader && f.retry_after_millis > 0));
    assert_eq!(fixture.connection.unanswered(), 0);

    let Message::Open(mut elsewhere) = open(1, session(1, 2), &[(3, 1)]) else { unreachable!() };
    elsewhere.segments[0].container = 77;
    fixture.send(Message::Open(elsewhere));
    let failure = fixture.failure();
    assert_eq!(failure.reason(), Reason::NotLeader);
    assert!(failure.message.contains("container 77"), "{}", failure.message);
}

#[test]
fn a_fenced_writer_is_told_the_current_session() {
    let fixture = Fixture::opened();
    fixture.send(open(1, session(1, 7), &[(5, 1)]));
    fixture.send(blocks(vec![block(1, 0, 1, "a")]));
    fixture.container.round();
    let failure = fixture.failure();
    assert_eq!((failure.slot, failure.reason()), (1, Reason::WriterFenced));
    assert_eq!(failure.current, Some(session(1, 7).into()));
}

#[test]
fn a_sealed_segment_tells_its_successors_on_open_and_on_a_block() {
    let fixture = Fixture::opened();
    let seal = Command::Seal { segment: segment(1), successors: vec![successor(3)] };
    fixture.container.driver().give(command(1, 2, 1), seal).unwrap();
    fixture.send(blocks(vec![block(1, 0, 1, "a")]));
    fixture.container.round();
    let failure = fixture.failure();
    assert_eq!(failure.reason(), Reason::SegmentSealed);
    assert_eq!(failure.successors, [successor(3).place()]);
    fixture.send(open(1, session(1, 2), &[(5, 1)]));
    fixture.container.round();
    let opened = fixture.take().opened.remove(0);
    assert!(opened.sealed && !opened.has_more_successors);
    assert_eq!(opened.successors, [successor(3).place()]);
}

#[test]
fn bad_blocks_end_their_session_with_the_field_and_the_limit() {
    let too_large = vec![0; common::limits::EVENT_BYTES_MAX + 1];
    let cases = [
        (block(9, 0, 1, "a"), Reason::InvalidArgument, "slot 9 was never opened"),
        (block(1, 0, 1, ""), Reason::InvalidArgument, "no data"),
        (block(1, 0, 1, too_large), Reason::TooLarge, "8388608"),
        (
            AppendBlock { previous_number: 3, ..block(1, 0, 3, "a") },
            Reason::InvalidArgument,
            "`last_number` 3",
        ),
    ];
    for (bad, reason, text) in cases {
        let fixture = Fixture::opened();
        let slot = bad.slot;
        fixture.send(blocks(vec![bad, block(slot, 0, 1, "a"), block(2, 0, 1, "x")]));
        let failure = fixture.failure();
        assert_eq!((failure.slot, failure.reason()), (slot, reason));
        assert!(failure.message.contains(text), "{}", failure.message);
        assert_eq!(fixture.container.queued().len(), 1, "the other session goes on");
    }
}

#[test]
fn a_client_that_does_not_speak_the_protocol_is_cut_off() {
    let fixture = Fixture::opened();
    let (_, reason, message) = fixture.refused(open(1, session(1, 2), &[(1, 1)]));
    assert_eq!(reason, Reason::InvalidArgument);
    assert!(message.contains("slot 1 was used before"), "{message}");
    let mut cases = Vec::new();
    for change in 0..4 {
        let Message::Open(mut bad) = open(1, session(1, 3), &[(8, 1)]) else { unreachable!() };
        match change {
            0 => bad.writer = Bytes::from_static(b"short"),
            1 => bad.session = None,
            2 => bad.segments.clear(),
            _ => bad.segments[0].segment = None,
        }
        cases.push(Message::Open(bad));
    }
    for bad in cases {
        let (code, ..) = fixture.refused(bad);
        assert_eq!(code, Code::InvalidArgument);
    }
}

fn close(slots: &[u32]) -> Message {
    Message::Close(CloseSessions { slots: slots.to_vec() })
}

#[test]
fn what_was_sent_before_a_close_is_acknowledged_and_then_the_slot_is_closed() {
    let fixture = Fixture::opened();
    fixture.send(blocks(vec![block(1, 0, 3, "abc"), block(2, 0, 1, "d")]));
    fixture.send(close(&[1]));
    assert_eq!(fixture.connection.take_response(), None, "nothing is known yet");
    fixture.container.round();
    let response = fixture.take();
    assert_eq!((response.acks.len(), &response.closed[..]), (2, &[1][..]));
    assert_eq!(fixture.connection.unanswered(), 0);
    // The writer's entry is gone there, and only there.
    let writers =
        |number| fixture.container.driver().machine.view(segment(number)).unwrap().writers;
    assert_eq!((writers(1), writers(2)), (0, 1));
    // Slots without a session have nothing to wait for.
    fixture.send(close(&[1, 9]));
    assert_eq!(fixture.take().closed, [1, 9]);
    assert!(fixture.container.queued().is_empty());
}

#[test]
fn closes_of_many_slots_are_one_entry_and_a_block_behind_a_close_is_refused() {
    let fixture = Fixture::opened();
    fixture.send(close(&[1, 2]));
    fixture.send(close(&[2]));
    assert_eq!(fixture.container.queued().len(), 1);
    fixture.send(blocks(vec![block(1, 0, 1, "a")]));
    assert_eq!(fixture.failure().reason(), Reason::InvalidArgument);
    fixture.container.round();
    assert_eq!(fixture.take().closed, [1, 2]);
}

#[test]
fn a_close_that_is_not_proposed_ends_the_session_with_its_reason() {
    let fixture = Fixture::opened();
    *fixture.container.refuse.lock().unwrap() = Some(ProposeError::NotLeader { hint: None });
    fixture.send(close(&[1]));
    let failure = fixture.failure();
    assert_eq!((failure.slot, failure.reason()), (1, Reason::NotLeader));
    let (_, reason, message) = fixture.refused(close(&[]));
    assert_eq!(reason, Reason::InvalidArgument, "{message}");
}

#[test]
fn the_sum_of_a_block_comes_back_with_the_next_open_and_hello_says_how_long_it_is_kept() {
    let fixture = Fixture::silent();
    fixture.send(hello(1, 1));
    assert_eq!(fixture.take().hello.unwrap().writer_kept_micros, HOUR);
    fixture.send(open(1, session(1, 1), &[(1, 1)]));
    let summed = AppendBlock { sum: u64::MAX, sum_after: 2, ..block(1, 0, 3, "abc") };
    fixture.send(blocks(vec![summed]));
    fixture.send(open(1, session(1, 2), &[(2, 1)]));
    fixture.container.round();
    let opened = fixture.take().opened;
    assert_eq!((opened[0].sum, opened[0].sum_after), (0, 0));
    assert_eq!((opened[1].last_number, opened[1].sum, opened[1].sum_after), (3, u64::MAX, 2));
}

#[test]
fn permits_come_back_as_blocks_are_answered_even_when_the_client_is_gone() {
    let fixture = Fixture::opened();
    let total = fixture.permits.free_bytes();
    fixture.send(blocks(vec![block(1, 0, 1, "abcd"), block(2, 0, 1, "xy")]));
    assert_eq!(fixture.permits.free_bytes(), total - 6 - 2 * BLOCK_COST_BYTES);
    fixture.container.lose(0);
    assert_eq!(fixture.permits.free_bytes(), total - 2 - BLOCK_COST_BYTES);
    fixture.connection.fail(tonic::Status::cancelled("gone"));
    fixture.container.round();
    assert_eq!(fixture.permits.free_bytes(), total);
}

#[test]
fn large_blocks_keep_their_memory_and_small_ones_leave_the_receive_buffer() {
    let fixture = Fixture::opened();
    let large = Bytes::from(vec![7; ZERO_COPY_BYTES_MIN]);
    let small = Bytes::from(vec![7; ZERO_COPY_BYTES_MIN - 1]);
    fixture.send(blocks(vec![block(1, 0, 1, large.clone()), block(2, 0, 1, small.clone())]));
    let queued = fixture.container.queued();
    assert_eq!(queued[0].payload.as_ptr(), large.as_ptr());
    assert_ne!(queued[1].payload.as_ptr(), small.as_ptr());
    assert_eq!(queued[1].payload, small);
    assert!(queued[0].order_key.is_some() && queued[0].order_key != queued[1].order_key);
}

#[test]
fn the_answer_stream_waits_for_a_round_and_ends_when_all_is_answered() {
    let fixture = Fixture::opened();
    let mut context = Context::from_waker(Waker::noop());
    fixture.send(blocks(vec![block(1, 0, 1, "a")]));
    assert!(fixture.connection.poll_response(&mut context).is_pending());
    fixture.connection.finish();
    assert!(fixture.connection.poll_response(&mut context).is_pending(), "one is unanswered");
    fixture.container.round();
    let Poll::Ready(Some(Ok(response))) = fixture.connection.poll_response(&mut context) else {
        panic!("the round is over")
    };
    assert_eq!(response.acks.len(), 1);
    assert!(matches!(fixture.connection.poll_response(&mut context), Poll::Ready(None)));
}

#[test]
fn a_failed_connection_tells_what_it_knows_and_then_why_it_ends() {
    let fixture = Fixture::opened();
    let mut context = Context::from_waker(Waker::noop());
    fixture.send(blocks(vec![block(9, 0, 1, "a")]));
    fixture.connection.fail(tonic::Status::unavailable("stopping"));
    let first = fixture.connection.poll_response(&mut context);
    assert!(matches!(first, Poll::Ready(Some(Ok(_)))));
    let second = fixture.connection.poll_response(&mut context);
    assert!(matches!(second, Poll::Ready(Some(Err(_)))));
    fixture.connection.round_done();
    assert!(fixture.connection.take_response().is_none());
}

#[test]
fn a_block_costs_more_than_its_data() {
    let empty = AppendRequest { message: Some(blocks(vec![AppendBlock::default(); 1_000])) };
    assert!(AppendConnection::bytes_of(&empty) >= 256_000);
}

#[test]
fn sessions_beyond_what_the_server_keeps_are_refused_and_those_of_a_connection_that_ends_given_back()
 {
    let budget = SessionBudget::new(3 * SLOT_COST_BYTES as u64, usize::MAX);
    let fixture = Fixture::with_sessions(&budget);
    fixture.send(hello(1, 1));
    fixture.send(open(1, session(1, 1), &[(1, 1), (2, 2)]));
    let (code, reason, message) = fixture.refused(open(2, session(1, 1), &[(3, 1), (4, 2)]));
    assert_eq!((code, reason), (Code::ResourceExhausted, Reason::ResourceExhausted));
    assert!(message.contains("at most 3 sessions"), "{message}");
    assert_eq!(budget.used_bytes(), 3 * SLOT_COST_BYTES as u64);
    // What is under way keeps the connection until it is answered.
    fixture.container.round();
    drop(fixture);
    assert_eq!(budget.used_bytes(), 0);
}

#[test]
fn answers_that_are_not_taken_hold_the_client_up_and_come_in_parts_in_their_order() {
    let fixture = Fixture::new();
    let mut context = Context::from_waker(Waker::noop());
    let slots: Vec<_> = (0..30_000).map(|slot| (slot, 9)).collect();
    for (attempt, some) in (1..).zip(slots.chunks(4_000)) {
        fixture.send(open(attempt, session(1, 1), some));
    }
    assert!(Box::pin(fixture.connection.room()).as_mut().poll(&mut context).is_ready());
    fixture.container.round();
    let mut room = Box::pin(fixture.connection.room());
    assert!(room.as_mut().poll(&mut context).is_pending());
    let mut told = Vec::new();
    while told.len() < slots.len() {
        let answer = fixture.take();
        let bytes: usize = answer.failures.iter().map(|failure| failure.message.len() + 8).sum();
        assert!(bytes <= ANSWER_BYTES_MAX + UNREAD_ANSWER_BYTES_MAX, "{bytes}");
        told.extend(answer.failures.iter().map(|failure| failure.slot));
    }
    assert!(room.as_mut().poll(&mut context).is_ready());
    assert!(told.iter().copied().eq(0..30_000));
}

#[test]
fn acknowledgements_are_folded_also_behind_an_answer_in_parts() {
    let fixture = Fixture::opened();
    for slot in (10..30_000).step_by(4_000) {
        let some: Vec<_> = (slot..slot + 4_000).map(|slot| (slot, 9)).collect();
        fixture.send(open(7, session(1, 1), &some));
    }
    fixture.send(blocks(vec![block(1, 0, 1, "a")]));
    fixture.container.round();
    assert_eq!(fixture.take().acks[0].last_number, 1);
    fixture.send(blocks(vec![block(1, 1, 2, "b"), block(1, 2, 3, "c"), block(2, 0, 1, "x")]));
    fixture.container.round();
    let acks = fixture.take().acks;
    assert_eq!(
        acks.iter().map(|ack| (ack.slot, ack.last_number)).collect::<Vec<_>>(),
        [(1, 3), (2, 1)]
    );
}

#[test]
fn a_client_that_takes_no_answers_asks_for_successors_itself() {
    let fixture = Fixture::new();
    let successors = (10..1_010).map(successor).collect();
    let seal = Command::Seal { segment: segment(1), successors };
    fixture.container.driver().give(command(1, 2, 1), seal).unwrap();
    for slot in 0..20 {
        fixture.send(open(slot.into(), session(1, 1), &[(slot, 1)]));
        fixture.container.round();
    }
    let mut places = 0;
    while let Some(answer) = fixture.connection.take_response() {
        for opened in answer.opened {
            assert!(
                opened.sealed && (opened.has_more_successors || opened.successors.len() == 1_000)
            );
            places += opened.successors.len();
        }
    }
    assert!((1..4_000).contains(&places), "{places}");
}
