//! Segments that forgot the writer, and those that lost what it stored.

use super::*;

#[test]
fn a_forgotten_writer_with_events_in_flight_is_told_and_never_guessed_for() {
    let (mut core, mut slots) = opened_core();
    core.on_disconnect(LINK, "gone");
    let open = core.poll_open(LINK, &mut slots).unwrap();
    assert!(open.segments[0].resuming);
    fail(&mut core, 1, Reason::WriterExpired, None);
    assert_eq!(core.first_failure().unwrap().1.kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(push(&mut core, b"two").unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    assert_eq!((core.acknowledged(), core.memory_used()), (EventNumber::NONE, 0));
}

fn acknowledged_core() -> (WriterCore, Slots) {
    let (mut core, slots) = opened_core();
    let ack = v1::BlockAck { slot: 0, last_number: 1, length: 12 };
    let response = v1::AppendResponse { acks: vec![ack], ..Default::default() };
    core.on_response(LINK, response, NOW);
    assert_eq!(core.acknowledged(), EventNumber(1));
    core.on_disconnect(LINK, "gone");
    (core, slots)
}

/// A writer of which event 1 is stored, at 12 bytes; it finds itself forgotten `away` later. Gives
/// it, and what it asks for then.
fn forgotten_core(away: Duration, reason: Reason) -> (WriterCore, Slots, Option<bool>) {
    let (mut core, mut slots) = acknowledged_core();
    core.set_boot_time(NOW.plus(away));
    push(&mut core, b"two").unwrap();
    assert!(core.poll_open(LINK, &mut slots).unwrap().segments[0].resuming);
    fail(&mut core, 1, reason, None);
    let resuming = core.poll_open(LINK, &mut slots).map(|open| open.segments[0].resuming);
    (core, slots, resuming)
}

#[test]
fn a_writer_that_was_forgotten_goes_on_unless_what_it_stored_is_lost() {
    let (soon, late) = (Duration::from_secs(9), Duration::from_secs(11));
    let cases = [
        (soon, Reason::WriterExpired, true),
        (late, Reason::WriterExpired, true),
        (late, Reason::WriterAbsent, true),
        (soon, Reason::WriterAbsent, false),
    ];
    for (away, reason, goes_on) in cases {
        let (core, _, resuming) = forgotten_core(away, reason);
        let failed = core.failed().map(ClientError::kind);
        assert_eq!(failed, (!goes_on).then_some(ErrorKind::DataDamaged), "{away:?} {reason:?}");
        assert_eq!(resuming, goes_on.then_some(false), "{away:?} {reason:?}");
    }
}

#[test]
fn a_segment_without_a_trace_of_the_writer_must_be_as_long_as_it_was() {
    for (length, lost) in [(12, false), (11, true)] {
        let late = Duration::from_secs(60);
        let (mut core, ..) = forgotten_core(late, Reason::WriterAbsent);
        let opened = v1::SessionOpened { slot: 2, length, ..Default::default() };
        let response = v1::AppendResponse { opened: vec![opened], ..Default::default() };
        core.on_response(LINK, response, NOW);
        let failed = core.failed().map(ClientError::kind);
        assert_eq!(failed, lost.then_some(ErrorKind::DataDamaged), "{length}");
    }
}

#[test]
fn a_writer_that_was_away_for_longer_than_it_is_kept_opens_anew_before_it_sends() {
    let (mut core, mut slots) = opened_core();
    let hello = v1::Hello { writer_kept_micros: 5_000_000, ..Default::default() };
    let ack = v1::BlockAck { slot: 0, last_number: 1, length: 12 };
    let response = v1::AppendResponse { hello: Some(hello), acks: vec![ack], ..Default::default() };
    core.on_response(LINK, response, NOW);
    core.set_boot_time(NOW.plus(Duration::from_millis(4_999)));
    push(&mut core, b"two").unwrap();
    let sent = core.poll_send(LINK, &mut slots).unwrap().message.unwrap();
    assert!(matches!(sent, v1::append_request::Message::Blocks(_)));
    let ack = v1::BlockAck { slot: 0, last_number: 2, length: 24 };
    core.on_response(LINK, v1::AppendResponse { acks: vec![ack], ..Default::default() }, NOW);
    core.set_boot_time(NOW.plus(Duration::from_millis(9_999)));
    push(&mut core, b"three").unwrap();
    let sent = std::iter::from_fn(|| core.poll_send(LINK, &mut slots)).next();
    let Some(v1::append_request::Message::Open(open)) = sent.and_then(|sent| sent.message) else {
        panic!("it does not open anew");
    };
    assert!(open.segments[0].resuming);
    assert!(core.poll_send(LINK, &mut slots).is_none(), "nothing is sent before the answer");
}

/// Opens a session that is told so many bytes and the last number `stored`.
fn opened(core: &mut WriterCore, slot: u32, length: u64, stored: u64) {
    let opened = v1::SessionOpened { slot, length, last_number: stored, ..Default::default() };
    core.on_response(LINK, v1::AppendResponse { opened: vec![opened], ..Default::default() }, NOW);
}

#[test]
fn less_stored_than_acknowledged_is_data_loss_however_long_the_segment_is_by_now() {
    for length in [0, 12, 1_000] {
        let (mut core, mut slots) = acknowledged_core();
        push(&mut core, b"two").unwrap();
        assert!(core.poll_open(LINK, &mut slots).is_some());
        opened(&mut core, 1, length, 0);
        let error = core.failed().unwrap();
        assert!(matches!(error, ClientError::DataLost { .. }), "{error}");
    }
}

#[test]
fn a_loss_is_told_also_where_events_are_in_flight() {
    let (mut core, mut slots) = acknowledged_core();
    push(&mut core, b"two").unwrap();
    assert!(core.poll_open(LINK, &mut slots).is_some());
    opened(&mut core, 1, 12, 1);
    assert!(core.poll_send(LINK, &mut slots).is_some(), "the event is in flight");
    core.on_disconnect(LINK, "gone");
    assert!(core.poll_open(LINK, &mut slots).is_some());
    fail(&mut core, 2, Reason::WriterAbsent, None);
    let error = core.failed().unwrap();
    assert!(matches!(error, ClientError::DataLost { .. }), "{error}");
}

#[test]
fn what_an_open_says_is_not_stored_is_not_in_doubt_any_more() {
    let (mut core, mut slots) = opened_core();
    core.on_disconnect(LINK, "gone");
    assert!(core.poll_open(LINK, &mut slots).is_some());
    opened(&mut core, 1, 0, 0);
    core.on_disconnect(LINK, "gone before the event was sent again");
    assert!(core.poll_open(LINK, &mut slots).is_some());
    fail(&mut core, 2, Reason::WriterExpired, None);
    assert_eq!(core.first_failure(), None);
    let open = core.poll_open(LINK, &mut slots).expect("it begins anew");
    assert!(!open.segments[0].resuming);
}

/// A named writer of which event 1 is stored; a minute later it has sent event 2, or wants to, and
/// the segment has no trace of it.
fn absent_core(in_doubt: bool) -> (model::ModelStore, WriterCore, Slots) {
    let store = model::ModelStore::new(1, &[""]);
    let identity = WriterIdentity { mode: Mode::Continue, ..WriterIdentity::anonymous(1) };
    let mut core = core_over(store.active(), identity);
    let mut slots = Slots::default();
    assert!(core.poll_open(LINK, &mut slots).is_some());
    opened(&mut core, 0, 0, 0);
    push(&mut core, b"one").unwrap();
    assert!(core.poll_send(LINK, &mut slots).is_some());
    let ack = v1::BlockAck { slot: 0, last_number: 1, length: 12 };
    core.on_response(LINK, v1::AppendResponse { acks: vec![ack], ..Default::default() }, NOW);
    push(&mut core, b"two").unwrap();
    if in_doubt {
        assert!(core.poll_send(LINK, &mut slots).is_some());
    }
    core.on_disconnect(LINK, "gone");
    core.set_boot_time(NOW.plus(Duration::from_secs(60)));
    assert!(core.take_relocate(), "places are asked for before it is known");
    assert!(core.poll_open(LINK, &mut slots).unwrap().segments[0].resuming);
    fail(&mut core, 1, Reason::WriterAbsent, None);
    (store, core, slots)
}

#[test]
fn a_named_writer_without_a_trace_has_lost_data_if_the_controller_still_knows_its_name() {
    for in_doubt in [false, true] {
        let (store, mut core, mut slots) = absent_core(in_doubt);
        core.on_places(&store.active());
        assert_eq!(core.failed(), None, "that answer may be older than a deletion of the name");
        assert_eq!(core.first_failure(), None);
        assert!(core.take_relocate());
        // The controller does not answer; the segment says the same again.
        core.on_time(NOW.plus(Duration::from_secs(1)));
        assert!(core.poll_open(LINK, &mut slots).unwrap().segments[0].resuming);
        fail(&mut core, 2, Reason::WriterAbsent, None);
        assert_eq!(core.failed(), None);
        assert!(core.take_relocate());
        core.on_places(&store.active());
        let lost = ClientError::DataLost {
            segment: store.active()[0].segment,
            acknowledged: EventNumber(1),
            stored: EventNumber::NONE,
        };
        assert_eq!(core.failed(), Some(&lost), "in doubt: {in_doubt}");
    }
}
