//! The suite is tested, too: with a planted bug switched on, the crash runs must find a loss.

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::planted::plant;
use rstest::rstest;
use wal::CrashOutcome;

use super::*;

/// Stores, lets the power go at any of the first operations, and looks whether everything that
/// was acknowledged is there.
fn survives(operation: u64) -> bool {
    let run = || {
        let mut machine = Machine::new(operation);
        machine.settings.checkpoint_log_bytes = ByteSize::kib(16);
        machine.disk.crash_at(operation, CrashOutcome::Lost);
        let acknowledged = crash::run_until_crash(&mut machine, 0);
        machine.crash(CrashOutcome::Lost);
        let stored = serving(&mut machine).stored();
        let mut places = acknowledged.iter().enumerate();
        places.all(|(place, number)| stored.get(number) == Some(&(place as u64)))
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(false)
}

#[rstest]
#[case("acknowledge-before-sync")]
#[case("log-truncated-past-checkpoint")]
fn a_planted_bug_is_found(#[case] bug: &str) {
    assert!((20..80).all(survives), "nothing is planted yet");
    let _planted = plant(bug);
    assert!(!(20..80).all(survives), "{bug} was not found");
}

#[rstest]
#[case("footer-before-its-objects", archive::a_footer_is_put_when_what_it_names_is_there)]
#[case(
    "deletes-in-a-bucket-taken-over",
    archive::collecting::a_node_deletes_nothing_in_a_bucket_that_a_recovery_has_taken_over
)]
#[case(
    "sweeps-earlier-incarnations-before-their-adoption",
    archive::collecting::what_an_upload_of_an_earlier_incarnation_left_is_swept_after_the_adoption
)]
#[case(
    "sweep-takes-what-a-recovery-may-end-with",
    archive::taking_over::what_a_recovery_may_end_with_is_swept_when_a_later_round_counts
)]
fn a_planted_bug_fails_the_test_of_its_law(#[case] bug: &str, #[case] law: fn()) {
    let _planted = plant(bug);
    assert!(catch_unwind(law).is_err(), "{bug} was not found");
}
