//! Writers expire in two stages, by up-time.

use crate::operation::Operation;
use crate::outcome::{Expired, Outcome, Refusal};
use crate::testing::{Driver, HOUR, append, open, segment, session, writer};

fn expire(driver: &mut Driver) -> Expired {
    let due = driver.machine.due_writers(driver.up, 100);
    match driver.one(Operation::Expire(due), b"") {
        Outcome::Expired(expired) => expired,
        other => panic!("{other:?}"),
    }
}

fn refusal(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refused(refusal) => *refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn first_the_data_is_forgotten_and_an_hour_later_the_session() {
    let (mut driver, who) = (Driver::with_segment(), 1);
    driver.up = 5;
    driver.open(open(1, who, session(1, 1), false)).unwrap();
    driver.append(append(1, who, session(1, 1), (0, 3)), b"abc");
    driver.up += HOUR - 1;
    assert_eq!(expire(&mut driver), Expired::default());
    driver.up += 1;
    assert_eq!(expire(&mut driver), Expired { forgotten: 1, removed: 0 });

    let late = driver.append(append(1, who, session(1, 1), (3, 4)), b"d");
    assert_eq!(refusal(late), Refusal::WriterExpired);
    let older = driver.append(append(1, who, session(0, 9), (3, 4)), b"d");
    assert_eq!(refusal(older), Refusal::WriterFenced { current: session(1, 1) });
    let resumed = driver.open(open(1, who, session(1, 2), true)).unwrap_err();
    assert_eq!(resumed, Refusal::WriterExpired);

    driver.up += HOUR - 1;
    assert_eq!(expire(&mut driver), Expired::default());
    driver.up += 1;
    assert_eq!(expire(&mut driver), Expired { forgotten: 0, removed: 1 });
    assert_eq!(driver.machine.view(segment(1)).unwrap().writers, 0);
    assert!(driver.machine.due_writers(u64::MAX, 9).is_empty());
    let absent = driver.open(open(1, who, session(1, 3), true)).unwrap_err();
    assert_eq!(absent, Refusal::WriterAbsent, "from here on nothing tells what it was");
}

#[test]
fn use_puts_expiry_off_even_when_the_leader_thought_it_due() {
    let mut driver = Driver::with_segment();
    driver.open(open(1, 1, session(1, 1), false)).unwrap();
    driver.up += HOUR - 1;
    driver.append(append(1, 1, session(1, 1), (0, 1)), b"a");
    driver.up += 1;
    assert!(driver.machine.due_writers(driver.up, 9).is_empty(), "it was put off");
    let early = driver.one(Operation::Expire(vec![(segment(1), writer(1))]), b"");
    assert_eq!(early, Outcome::Expired(Expired::default()));
    // A duplicate is a use, too.
    driver.up += HOUR - 2;
    driver.append(append(1, 1, session(1, 1), (0, 1)), b"a");
    driver.up += HOUR - 1;
    assert_eq!(expire(&mut driver), Expired::default());
    driver.up += 1;
    assert_eq!(expire(&mut driver), Expired { forgotten: 1, removed: 0 });
}

#[test]
fn an_expired_writer_may_begin_anew_under_a_higher_session() {
    let mut driver = Driver::with_segment();
    driver.open(open(1, 1, session(1, 1), false)).unwrap();
    driver.append(append(1, 1, session(1, 1), (0, 3)), b"abc");
    driver.up += HOUR;
    expire(&mut driver);
    assert!(driver.open(open(1, 1, session(1, 1), false)).is_err(), "the session number is kept");
    let opened = driver.open(open(1, 1, session(1, 2), false)).unwrap();
    assert_eq!(opened.last_number.0, 0);
    assert!(matches!(
        driver.append(append(1, 1, session(1, 2), (0, 1)), b"d"),
        Outcome::Appended { .. }
    ));
}

#[test]
fn what_a_named_writer_stored_outlives_any_time_and_what_it_only_opened_does_not() {
    let mut driver = Driver::with_segment();
    for who in [100, 101] {
        driver.open(open(1, who, session(1, 1), false)).unwrap();
    }
    driver.append(append(1, 100, session(1, 1), (0, 3)), b"abc");
    driver.up += 1_000_000 * HOUR;
    assert_eq!(driver.machine.due_writers(driver.up, 9), [(segment(1), writer(101))]);
    assert_eq!(expire(&mut driver), Expired { forgotten: 1, removed: 0 });
    let named = driver.one(Operation::Expire(vec![(segment(1), writer(100))]), b"");
    assert_eq!(named, Outcome::Expired(Expired::default()));
    let known = driver.open(open(1, 100, session(2, 1), false)).unwrap();
    assert_eq!(known.last_number.0, 3);
}

#[test]
fn a_writer_that_had_stored_nothing_resumes_after_its_expiry_and_what_was_on_its_way_is_refused() {
    let mut driver = Driver::with_segment();
    driver.open(open(1, 100, session(1, 1), false)).unwrap();
    driver.up += HOUR;
    assert_eq!(expire(&mut driver), Expired { forgotten: 1, removed: 0 });
    let late = refusal(driver.append(append(1, 100, session(1, 1), (0, 1)), b"a"));
    assert!(matches!(late, Refusal::SessionBroken { .. }), "{late:?}");
    let opened = driver.open(open(1, 100, session(1, 2), true)).unwrap();
    assert_eq!(opened.last_number.0, 0);
    driver.append(append(1, 100, session(1, 2), (0, 1)), b"a");
    assert_eq!(driver.bytes_of(1).1, b"a");
}

#[test]
fn a_writer_in_use_keeps_its_entry_through_saves_at_any_moment() {
    let mut driver = Driver::with_segment();
    driver.open(open(1, 1, session(1, 1), false)).unwrap();
    for number in 0..8 {
        driver.up += HOUR - 1;
        driver.append(append(1, 1, session(1, 1), (number, number + 1)), b"a");
        driver.save();
        driver.machine = driver.restored();
        assert!(driver.machine.due_writers(driver.up, 9).is_empty());
    }
    driver.up += HOUR;
    assert_eq!(expire(&mut driver), Expired { forgotten: 1, removed: 0 });
}
