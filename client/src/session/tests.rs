//! The core against the model store, under every kind of bad luck.

mod deadlines;
mod forgetting;
pub(crate) mod model;
mod moving;
mod proving;
mod succeeding;
mod world;

use common::{MonotonicTime, Rng, WriterEpoch, WriterSession};
use proptest::prelude::*;
use proto::error::Reason;
use proto::framing::EventRef;
use proto::v1;

use self::world::{Step, World};
use super::*;
use crate::error::ErrorKind;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let link = 0_u8..2;
    let step = prop_oneof![
        4 => (1_u8..8, any::<bool>()).prop_map(|(events, keyed)| Step::Push { events, keyed }),
        1 => (1_u8..6, any::<u8>()).prop_map(|(events, key)| Step::PushBatch { events, key }),
        8 => Just(Step::Send),
        8 => link.clone().prop_map(|link| Step::Handle { link }),
        1 => link.clone().prop_map(|link| Step::Refuse { link }),
        1 => link.clone().prop_map(|link| Step::Lose { link }),
        1 => link.clone().prop_map(|link| Step::Move { link }),
        8 => link.clone().prop_map(|link| Step::Deliver { link }),
        1 => link.clone().prop_map(|link| Step::DeliverTwice { link }),
        1 => link.clone().prop_map(|link| Step::Disconnect { link }),
        1 => link.prop_map(|link| Step::Die { link }),
        1 => Just(Step::Revive),
        2 => any::<u8>().prop_map(|which| Step::HandleLate { which }),
        2 => any::<u8>().prop_map(|which| Step::DeliverLate { which }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(which, parts)| Step::Split { which, parts }),
        1 => any::<u8>().prop_map(|which| Step::Merge { which }),
        1 => Just(Step::FinishMerge),
        1 => Just(Step::Truncate),
        2 => (0_u8..20).prop_map(|millis| Step::Wait { millis }),
    ];
    prop::collection::vec(step, 1..250)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_event_is_stored_once_in_order_whatever_happens(
        segments in 1_u32..5,
        steps in steps(),
    ) {
        let mut world = World::new(segments, Mode::Anonymous);
        steps.into_iter().for_each(|step| world.step(step));
        world.finish();
        world.check_complete();
    }

    #[test]
    fn a_named_writer_that_is_restarted_stores_every_event_once(
        segments in 1_u32..4,
        replays in any::<bool>(),
        lives in prop::collection::vec(steps(), 1..4),
    ) {
        let mode = if replays { Mode::Replay } else { Mode::Continue };
        let mut world = World::new(segments, mode);
        for (i, steps) in lives.into_iter().enumerate() {
            if i > 0 {
                world.step(Step::Restart);
            }
            steps.into_iter().for_each(|step| world.step(step));
        }
        world.finish();
        world.check_complete();
    }
}

const NOW: MonotonicTime = MonotonicTime(0);
const LINK: LinkId = LinkId(0);

fn small_core() -> (model::ModelStore, WriterCore) {
    let store = model::ModelStore::new(1, &[""]);
    let core = core_over(store.active(), WriterIdentity::anonymous(1));
    (store, core)
}

fn core_over(places: Vec<SegmentPlace>, identity: WriterIdentity) -> WriterCore {
    let stream = ScopedStream::new("test", "stream").unwrap();
    let (limits, rng) = (WriterLimits::default(), Rng::from_seed(1));
    WriterCore::new(stream, identity, limits, places, rng).unwrap()
}

fn push(core: &mut WriterCore, payload: &[u8]) -> Result<Pushed> {
    core.push(&EventRef::new(payload))
}

/// A routing key of a segment.
fn key_in(place: &SegmentPlace) -> String {
    let is_in = |key: &String| place.range.contains(common::routing::position_of_key(key));
    (0..).map(|i| format!("key-{i}")).find(is_in).unwrap()
}

/// Sends everything there is and answers it; gives the number of blocks sent.
fn exchange(
    store: &mut model::ModelStore,
    connection: &mut model::ModelConnection,
    core: &mut WriterCore,
    slots: &mut Slots,
) -> usize {
    let mut blocks = 0;
    while let Some(request) = core.poll_send(LINK, slots) {
        if let Some(v1::append_request::Message::Blocks(b)) = &request.message {
            blocks += b.blocks.len();
        }
        let response = store.handle(connection, request, None);
        core.on_response(LINK, response, NOW);
    }
    blocks
}

#[test]
fn an_event_alone_is_sent_at_once_and_others_gather_behind_it() {
    let (mut store, mut core) = small_core();
    let (mut connection, mut slots) = (model::ModelConnection::default(), Slots::default());
    push(&mut core, b"one").unwrap();
    assert_eq!(exchange(&mut store, &mut connection, &mut core, &mut slots), 1);
    push(&mut core, &[2; 200]).unwrap();
    assert!(core.poll_send(LINK, &mut slots).is_some());
    push(&mut core, &[3; 20]).unwrap();
    assert!(core.poll_send(LINK, &mut slots).is_none(), "little beside what is in flight");
    push(&mut core, &[4; 20]).unwrap();
    assert!(core.poll_send(LINK, &mut slots).is_some(), "a quarter of what is in flight");
}

#[test]
fn memory_bounds_what_is_taken_and_comes_back_with_acknowledgements() {
    let (mut store, mut core) = small_core();
    let (mut connection, mut slots) = (model::ModelConnection::default(), Slots::default());
    let payload = vec![0; 100_000];
    let mut taken = 0;
    while push(&mut core, &payload).unwrap() != Pushed::Full {
        taken += 1;
    }
    let limit = WriterLimits::default().memory_bytes;
    assert!(core.memory_used() <= limit && core.memory_used() + 110_000 > limit);
    while !core.is_settled() {
        exchange(&mut store, &mut connection, &mut core, &mut slots);
    }
    assert_eq!((core.memory_used(), core.acknowledged()), (0, EventNumber(taken)));
}

/// The core with one session opened, and what the session is to the server.
fn opened_core() -> (WriterCore, Slots) {
    let (_, mut core) = small_core();
    let mut slots = Slots::default();
    push(&mut core, b"one").unwrap();
    assert!(core.poll_open(LINK, &mut slots).is_some());
    let opened = v1::SessionOpened { slot: 0, ..Default::default() };
    let response = v1::AppendResponse { opened: vec![opened], ..Default::default() };
    core.on_response(LINK, response, NOW);
    assert!(core.poll_send(LINK, &mut slots).is_some());
    (core, slots)
}

fn fail(core: &mut WriterCore, slot: u32, reason: Reason, current: Option<WriterSession>) {
    let failures = vec![model::failure(slot, reason, current)];
    let response = v1::AppendResponse { failures, ..Default::default() };
    core.on_response(LINK, response, NOW);
}

/// Sends what may be sent; gives the bytes, and the last number if there is one.
fn send_all(core: &mut WriterCore, slots: &mut Slots) -> (usize, Option<u64>) {
    let (mut bytes, mut last) = (0, None);
    while let Some(request) = core.poll_send(LINK, slots) {
        if let Some(v1::append_request::Message::Blocks(blocks)) = request.message {
            bytes += blocks.blocks.iter().map(|block| block.data.len()).sum::<usize>();
            last = blocks.blocks.last().map(|block| block.last_number).or(last);
        }
    }
    (bytes, last)
}

fn fill(core: &mut WriterCore) {
    while push(core, &[0; 10_000]).unwrap() != Pushed::Full {}
}

/// Opens the session of `slot`, once its time has come.
fn open(core: &mut WriterCore, slots: &mut Slots, slot: u32) {
    core.on_time(NOW.plus(Duration::from_secs(60)));
    assert!(core.poll_open(LINK, slots).is_some());
    let opened = v1::SessionOpened { slot, ..Default::default() };
    let response = v1::AppendResponse { opened: vec![opened], ..Default::default() };
    core.on_response(LINK, response, NOW);
}

#[test]
fn a_writer_sends_less_at_once_after_a_full_container_refused_it_and_more_again_later() {
    let (mut core, mut slots) = opened_core();
    fill(&mut core);
    let limits = WriterLimits::default();
    let (mut window, mut last) = send_all(&mut core, &mut slots);
    assert!(window + limits.block_bytes > limits.window_bytes, "{window}");
    for refused in 0..4 {
        fail(&mut core, refused, Reason::ResourceExhausted, None);
        open(&mut core, &mut slots, refused + 1);
        let before = window;
        (window, last) = send_all(&mut core, &mut slots);
        assert!(window <= before / 2 + limits.block_bytes, "{window} after {before}");
    }
    for _ in 0..100 {
        let ack = v1::BlockAck { slot: 4, last_number: last.unwrap(), length: 0 };
        core.on_response(LINK, v1::AppendResponse { acks: vec![ack], ..Default::default() }, NOW);
        fill(&mut core);
        (window, last) = send_all(&mut core, &mut slots);
    }
    assert!(window + limits.block_bytes > limits.window_bytes, "{window} at last");
    assert!(core.failed().is_none());
}

#[test]
fn a_higher_epoch_fences_for_good_and_a_higher_attempt_only_raises_the_own() {
    let (mut core, mut slots) = opened_core();
    let same = WriterSession { epoch: WriterEpoch(1), attempt: Attempt(9) };
    fail(&mut core, 0, Reason::WriterFenced, Some(same));
    core.on_time(NOW.plus(Duration::from_secs(1)));
    let open = core.poll_open(LINK, &mut slots).unwrap();
    assert_eq!(open.session.unwrap().attempt, 10);
    let higher = WriterSession { epoch: WriterEpoch(2), attempt: Attempt(1) };
    fail(&mut core, 1, Reason::WriterFenced, Some(higher));
    assert_eq!(core.failed().unwrap().kind(), ErrorKind::Fenced);
    assert!(push(&mut core, b"two").is_err());
    assert!(core.poll_send(LINK, &mut slots).is_none());
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_ends_the_writer() {
    let (mut core, _) = opened_core();
    push(&mut core, b"two").unwrap();
    let ack = v1::BlockAck { slot: 0, last_number: 2, length: 24 };
    core.on_response(LINK, v1::AppendResponse { acks: vec![ack], ..Default::default() }, NOW);
    assert_eq!(core.failed().unwrap().kind(), ErrorKind::Bug);
    assert_eq!(core.acknowledged(), EventNumber::NONE);
}

#[test]
fn a_segment_that_stored_a_part_of_a_block_has_broken_its_word() {
    let (_, mut core) = small_core();
    let mut slots = Slots::default();
    push(&mut core, b"one").unwrap();
    push(&mut core, b"two").unwrap();
    open(&mut core, &mut slots, 0);
    assert_eq!(send_all(&mut core, &mut slots).1, Some(2), "both are in one block");
    core.on_disconnect(LINK, "gone");
    assert!(core.poll_open(LINK, &mut slots).is_some());
    let opened = v1::SessionOpened { slot: 1, last_number: 1, ..Default::default() };
    core.on_response(LINK, v1::AppendResponse { opened: vec![opened], ..Default::default() }, NOW);
    assert_eq!(core.failed().unwrap().kind(), ErrorKind::Bug);
}

#[test]
fn a_sealed_stream_is_an_error_only_for_events_that_are_not_stored() {
    let (mut store, mut core) = small_core();
    let (mut connection, mut slots) = (model::ModelConnection::default(), Slots::default());
    push(&mut core, b"one").unwrap();
    exchange(&mut store, &mut connection, &mut core, &mut slots);
    store.seal(store.active()[0].segment, Vec::new());
    assert_eq!((core.is_settled(), core.failed()), (true, None));
    push(&mut core, b"two").unwrap();
    exchange(&mut store, &mut connection, &mut core, &mut slots);
    assert!(matches!(core.failed(), Some(ClientError::StreamSealed { .. })));
    assert_eq!(core.acknowledged(), EventNumber(1));
}

#[test]
fn a_batch_with_two_keys_or_no_event_or_too_many_bytes_is_refused() {
    let (_, mut core) = small_core();
    let event = |key, payload| EventRef { key, ..EventRef::new(payload) };
    let large = vec![0; EVENT_BYTES_MAX / 2];
    let cases: [&[EventRef<'_>]; 3] = [
        &[],
        &[event(Some("a"), b"1"), event(Some("b"), b"2")],
        &[event(None, &large), event(None, &large)],
    ];
    for events in cases {
        let error = core.push_batch("a", events).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    }
    assert_eq!(core.next_number(), EventNumber(1));
}
