//! When a segment, or a writer, is given up.

use super::proving::Replay;
use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn look(core: &mut WriterCore, seconds: u64) -> bool {
    core.check_deadline(NOW.plus(Duration::from_secs(seconds)), PATIENCE)
}

fn given_up(core: &WriterCore) -> Option<u64> {
    core.first_failure().map(|(number, error)| {
        assert!(matches!(error, ClientError::Stalled { .. }), "{error}");
        number.0
    })
}

#[test]
fn a_segment_has_its_time_anew_with_each_acknowledgement() {
    let (mut core, _) = opened_core();
    push(&mut core, b"two").unwrap();
    assert!(look(&mut core, 0) && look(&mut core, 9));
    let ack = v1::BlockAck { slot: 0, last_number: 1, length: 12 };
    core.on_response(LINK, v1::AppendResponse { acks: vec![ack], ..Default::default() }, NOW);
    for seconds in [9, 15, 18] {
        assert!(look(&mut core, seconds));
        assert_eq!(given_up(&core), None, "after {seconds} s");
    }
    assert!(look(&mut core, 19), "the writer itself goes on");
    assert_eq!(given_up(&core), Some(2));
}

#[test]
fn a_segment_is_not_given_up_while_it_waits_for_the_source_to_be_proven() {
    let mut replay = Replay::begin();
    replay.push(0, b"one").unwrap();
    replay.push(0, b"two").unwrap();
    for seconds in [0, 100, 200] {
        assert!(look(&mut replay.core, seconds));
        assert_eq!(given_up(&replay.core), None);
    }
    replay.push(1, b"three").unwrap();
    assert!(look(&mut replay.core, 200) && look(&mut replay.core, 209));
    assert_eq!(given_up(&replay.core), None);
    assert!(look(&mut replay.core, 210));
    assert_eq!(given_up(&replay.core), Some(2));
}

#[test]
fn a_named_writer_is_given_up_when_no_further_segment_tells_what_it_stored() {
    let store = model::ModelStore::new(2, &[""]);
    let identity = WriterIdentity { mode: Mode::Continue, ..WriterIdentity::anonymous(1) };
    let mut core = core_over(store.active(), identity);
    let mut slots = Slots::default();
    assert_eq!(core.poll_open(LINK, &mut slots).unwrap().segments.len(), 2);
    assert!(look(&mut core, 0) && look(&mut core, 9));
    let opened = v1::SessionOpened { slot: 1, ..Default::default() };
    core.on_response(LINK, v1::AppendResponse { opened: vec![opened], ..Default::default() }, NOW);
    assert!(look(&mut core, 9) && look(&mut core, 18));
    assert!(!look(&mut core, 19));
}
