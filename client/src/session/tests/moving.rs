//! Segments that are at another store by now.

use super::*;

#[test]
fn a_segment_that_waits_to_be_tried_again_is_located_and_opened_at_its_new_store() {
    let mut store = model::ModelStore::new(1, &["", "other:1"]);
    let mut core = core_over(store.active(), WriterIdentity::anonymous(1));
    let (mut slots, mut other_slots) = (Slots::default(), Slots::default());
    push(&mut core, b"one").unwrap();
    assert!(core.poll_open(LINK, &mut slots).is_some());
    fail(&mut core, 0, Reason::NotLeader, None);
    assert!(core.take_relocate());
    let segment = store.active()[0].segment;
    assert_eq!(core.unsettled(), [segment]);
    store.relocate(segment);
    core.on_places(&store.active());
    let other = LinkId(1);
    assert_eq!(core.endpoint(other), "other:1");
    assert!(core.poll_open(other, &mut other_slots).is_some(), "it does not wait any more");
    // What it waited for comes to nothing.
    core.on_time(NOW.plus(Duration::from_secs(60)));
    assert!(core.poll_open(other, &mut other_slots).is_none());
    assert!(core.poll_open(LINK, &mut slots).is_none());
}

#[test]
fn a_segment_that_moves_while_its_blocks_are_in_flight_sends_them_to_its_new_store() {
    let mut store = model::ModelStore::new(1, &["", "other:1"]);
    let mut core = core_over(store.active(), WriterIdentity::anonymous(1));
    let mut slots = Slots::default();
    push(&mut core, b"one").unwrap();
    assert!(core.poll_open(LINK, &mut slots).is_some());
    let opened = |slot| v1::AppendResponse {
        opened: vec![v1::SessionOpened { slot, ..Default::default() }],
        ..Default::default()
    };
    core.on_response(LINK, opened(0), NOW);
    assert!(core.poll_send(LINK, &mut slots).is_some());
    store.relocate(store.active()[0].segment);
    core.on_places(&store.active());
    let (other, mut other_slots) = (LinkId(1), Slots::default());
    let open = core.poll_open(other, &mut other_slots).unwrap();
    assert!(open.segments[0].resuming, "the old store may have stored it");
    // An answer of the old store is nothing to the new session.
    let ack = v1::BlockAck { slot: 0, last_number: 1, length: 12 };
    core.on_response(LINK, v1::AppendResponse { acks: vec![ack], ..Default::default() }, NOW);
    assert_eq!(core.acknowledged(), EventNumber::NONE);
    core.on_response(other, opened(0), NOW);
    assert!(core.poll_send(other, &mut other_slots).is_some());
}
