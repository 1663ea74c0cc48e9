//! A bucket that is taken over while a node uses it.

use common::clock::ManualClock;
use common::{Incarnation, Rng};

use super::*;
use crate::cluster::claim;
use crate::{ErrorKind, Guarded, Memory, Observation, Operation, Settings, TokioTimer};

struct Fixture {
    clock: Arc<ManualClock>,
    memory: Memory,
    asked: Arc<Mutex<Vec<Operation>>>,
    owner: Owner,
}

fn marker(incarnation: u16, marker: u128) -> ClusterMarker {
    ClusterMarker { incarnation: Incarnation(incarnation), marker }
}

impl Fixture {
    /// A bucket that is the owner's.
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let memory = Memory::new(clock.clone());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let told = asked.clone();
        let bucket = Guarded::new(
            Arc::new(memory.clone()),
            &Settings::default(),
            clock.clone(),
            Arc::new(TokioTimer),
            Rng::from_seed(1),
            Arc::new(move |observation| {
                if let Observation::Attempt { operation, .. } = observation {
                    told.lock().unwrap().push(*operation);
                }
            }),
        );
        let owner = Owner::new(Arc::new(bucket), clock.clone(), marker(1, 7));
        claim(&memory, marker(1, 7)).await.unwrap();
        Self { clock, memory, asked, owner }
    }

    fn asked(&self) -> Vec<Operation> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

#[tokio::test]
async fn a_look_is_shared_for_a_while_and_is_one_listing_from_then_on() {
    let found = Fixture::new().await;
    found.owner.look_lately().await.unwrap();
    assert_eq!(found.asked(), [Operation::List, Operation::Head, Operation::Get]);
    found.clock.advance(LATELY - Duration::from_micros(1));
    found.owner.look_lately().await.unwrap();
    assert_eq!(found.asked(), []);
    found.clock.advance(Duration::from_micros(1));
    found.owner.look_lately().await.unwrap();
    found.owner.look().await.unwrap();
    assert_eq!(found.asked(), [Operation::List; 2]);
}

#[tokio::test]
async fn a_bucket_that_was_taken_over_is_lost_for_ever() {
    let found = Fixture::new().await;
    found.owner.look().await.unwrap();
    claim(&found.memory, marker(2, 8)).await.unwrap();
    found.owner.look_lately().await.expect("it was looked at a moment ago");
    assert!(found.owner.refused().is_none());
    found.clock.advance(LATELY);
    let refused = found.owner.look_lately().await.unwrap_err();
    assert!(matches!(refused, Refused::Superseded { .. }), "{refused}");
    for part in ["taken over by a recovery", "incarnation 2", "incarnation 1", "`braid recover`"] {
        assert!(refused.to_string().contains(part), "{refused}");
    }
    let paths = [ClusterMarker::path(Incarnation(2))];
    found.memory.delete(&paths).await.unwrap();
    assert!(found.owner.look().await.is_err());
    assert!(found.owner.look_lately().await.is_err());
    assert_eq!(found.owner.lost().await.to_string(), refused.to_string());
}

#[tokio::test]
async fn another_marker_of_the_same_incarnation_is_another_cluster_s() {
    let found = Fixture::new().await;
    found.owner.look().await.unwrap();
    let paths = [ClusterMarker::path(Incarnation(1))];
    found.memory.delete(&paths).await.unwrap();
    found.clock.advance(Duration::from_secs(1));
    claim(&found.memory, marker(1, 8)).await.unwrap();
    let refused = found.owner.look().await.unwrap_err();
    assert!(matches!(refused, Refused::Foreign { .. }), "{refused}");
    assert!(found.owner.refused().is_some());
}

#[tokio::test]
async fn a_bucket_without_its_marker_may_come_back() {
    let found = Fixture::new().await;
    found.owner.look().await.unwrap();
    let paths = [ClusterMarker::path(Incarnation(1))];
    found.memory.delete(&paths).await.unwrap();
    found.clock.advance(LATELY);
    for _ in 0..2 {
        let missing = found.owner.look_lately().await.unwrap_err();
        assert!(matches!(missing, Refused::MarkerMissing { .. }), "{missing}");
    }
    assert!(found.owner.refused().is_none());
    claim(&found.memory, marker(1, 7)).await.unwrap();
    found.owner.look_lately().await.unwrap();
}

#[tokio::test]
async fn a_bucket_that_does_not_answer_says_nothing_of_its_owner() {
    let found = Fixture::new().await;
    found.owner.look().await.unwrap();
    found.memory.tamper(&ClusterMarker::path(Incarnation(1)), |bytes| bytes[20] ^= 1);
    found.owner.seen().marker = None;
    let failed = found.owner.look().await.unwrap_err();
    assert_eq!(failed.failed(), Some(ErrorKind::Damaged));
    assert!(found.owner.refused().is_none());
    found.owner.look_lately().await.expect("what was seen a moment ago is not undone");
}
