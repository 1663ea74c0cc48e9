//! Writers expire in two stages, by up-time.

use rstest::rstest;

use crate::limits::{ANONYMOUS_WRITER_TTL, NAMED_WRITER_TTL};
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

#[rstest]
#[case::anonymous(1, ANONYMOUS_WRITER_TTL)]
#[case::named(100, NAMED_WRITER_TTL)]
fn first_the_data_is_forgotten_and_an_hour_later_the_session(
    #[case] who: u128,
    #[case] ttl: std::time::Duration,
) {
    let mut driver = Driver::with_segment();
    driver.up = 5;
    driver.open(open(1, who, session(1, 1), false)).unwrap();
    driver.append(append(1, who, session(1, 1), (0, 3)), b"abc");
    driver.up += ttl.as_micros() as u64 - 1;
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
}

#[test]
fn use_puts_expiry_off_even_when_the_leader_thought_it_due() {
    let mut driver = Driver::with_segment();
    driver.open(open(1, 1, session(1, 1), false)).unwrap();
    driver.up += HOUR - 1;
    driver.append(append(1, 1, session(1, 1), (0, 1)), b"a");
    driver.up += 1;
    assert_eq!(driver.machine.due_writers(driver.up, 9), [(segment(1), writer(1))]);
    assert_eq!(expire(&mut driver), Expired::default());
    assert!(driver.machine.due_writers(driver.up, 9).is_empty(), "it was put off");
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
