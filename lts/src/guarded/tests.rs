//! Patience, settled outcomes and the breaker, against planned faults.

use common::{ByteSize, MonotonicTime, WallTime};

use super::*;
use crate::test_support::{path, pattern, payload};
use crate::{Fault, FaultRates, Faults, Faulty, Memory, TokioTimer};

/// The clock of a paused runtime.
#[derive(Debug)]
struct PausedClock(tokio::time::Instant);

impl Clock for PausedClock {
    fn wall(&self) -> WallTime {
        WallTime(self.monotonic().0)
    }

    fn monotonic(&self) -> MonotonicTime {
        MonotonicTime(self.0.elapsed().as_micros() as u64)
    }
}

struct Fixture {
    guarded: Guarded,
    memory: Memory,
    faults: Arc<Faults>,
    seen: Arc<Mutex<Vec<Observation>>>,
}

fn fixture() -> Fixture {
    fixture_with(&Settings::default(), 1)
}

fn fixture_with(settings: &Settings, seed: u64) -> Fixture {
    let clock: Arc<dyn Clock> = Arc::new(PausedClock(tokio::time::Instant::now()));
    let timer: Arc<dyn Timer> = Arc::new(TokioTimer);
    let mut rng = Rng::from_seed(seed);
    let memory = Memory::new(clock.clone());
    let faulty = Faulty::new(Arc::new(memory.clone()), timer.clone(), rng.fork("faults"));
    let faults = faulty.faults();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let observer: Observer = Arc::new(move |seen: &Observation| log.lock().unwrap().push(*seen));
    let rng = rng.fork("guarded");
    let guarded = Guarded::new(Arc::new(faulty), settings, clock, timer, rng, observer);
    Fixture { guarded, memory, faults, seen }
}

impl Fixture {
    fn attempts(&self) -> usize {
        let attempt = |seen: &&Observation| matches!(seen, Observation::Attempt { .. });
        self.seen.lock().unwrap().iter().filter(attempt).count()
    }
}

const UNAVAILABLE: Fault = Fault::Error(ErrorKind::Unavailable);

#[tokio::test(start_paused = true)]
async fn passing_failures_are_tried_again_and_lasting_ones_are_not() {
    let fixture = fixture();
    let guarded = &fixture.guarded;
    guarded.put(&path("a"), payload("a")).await.unwrap();
    for _ in 0..3 {
        fixture.faults.plan_fault(Operation::Get, "a", 0, UNAVAILABLE);
    }
    assert_eq!(guarded.get(&path("a"), 0..1).await.unwrap(), "a");
    assert_eq!(fixture.attempts(), 5);
    for kind in [ErrorKind::Denied, ErrorKind::Full, ErrorKind::Unsupported] {
        fixture.faults.plan_fault(Operation::Put, "b", 0, Fault::Error(kind));
        let error = guarded.put(&path("b"), payload("b")).await.unwrap_err();
        assert_eq!(error.kind(), kind);
    }
    let missing = guarded.head(&path("b")).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert_eq!(fixture.attempts(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_put_whose_answer_was_lost_is_found_to_have_happened() {
    for lost in [Fault::LostAnswer, Fault::HangAfter] {
        let fixture = fixture();
        fixture.faults.plan_fault(Operation::Put, "a", 0, lost);
        let whole = pattern(20 << 20);
        fixture.guarded.put(&path("a"), whole.clone().into()).await.unwrap();
        let length = whole.len() as u64;
        assert_eq!(fixture.guarded.get(&path("a"), 0..length).await.unwrap(), whole);
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_by_other_bytes_is_told_from_one_with_these() {
    let fixture = fixture();
    let guarded = &fixture.guarded;
    guarded.put(&path("a"), payload("these")).await.unwrap();
    guarded.put(&path("a"), payload("these")).await.unwrap();
    for others in ["others", "thesf", ""] {
        let error = guarded.put(&path("a"), payload(others)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{others}");
    }
    // The answer of the put that found it taken is lost, too.
    fixture.faults.plan_fault(Operation::Put, "a", 0, Fault::LostAnswer);
    let error = guarded.put(&path("a"), payload("others")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(guarded.get(&path("a"), 0..5).await.unwrap(), "these");
}

#[tokio::test(start_paused = true)]
async fn a_conflict_that_stored_nothing_is_tried_again() {
    let fixture = fixture();
    // As 409 of S3 arrives.
    let conflict = Fault::Error(ErrorKind::AlreadyExists);
    fixture.faults.plan_fault(Operation::Put, "a", 0, conflict);
    fixture.guarded.put(&path("a"), payload("a")).await.unwrap();
    assert_eq!(fixture.guarded.get(&path("a"), 0..1).await.unwrap(), "a");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_answer_in_time_is_given_up_and_time_grows_with_the_bytes() {
    let fixture = fixture();
    let guarded = &fixture.guarded;
    fixture.faults.plan_fault(Operation::Head, "a", 0, Fault::Hang);
    let began = tokio::time::Instant::now();
    assert_eq!(guarded.head(&path("a")).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(began.elapsed().as_secs(), 10);

    // 8 MiB at 1 MiB/s: 8 seconds more.
    guarded.put(&path("a"), pattern(8 << 20).into()).await.unwrap();
    let slow = Fault::SlowBody(ByteSize::kib(500));
    fixture.faults.plan_fault(Operation::Get, "a", 0, slow);
    assert_eq!(guarded.get(&path("a"), 0..8 << 20).await.unwrap().len(), 8 << 20);
    assert_eq!(fixture.attempts(), 4);
    let slow = Fault::SlowBody(ByteSize::kib(400));
    fixture.faults.plan_fault(Operation::Get, "a", 0, slow);
    assert_eq!(guarded.get(&path("a"), 0..8 << 20).await.unwrap().len(), 8 << 20);
    assert_eq!(fixture.attempts(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_short_answer_is_read_again_and_a_short_object_is_damaged() {
    let fixture = fixture();
    let guarded = &fixture.guarded;
    guarded.put(&path("a"), payload("12345")).await.unwrap();
    fixture.faults.plan_fault(Operation::Get, "a", 0, Fault::ShortBody(2));
    assert_eq!(guarded.get(&path("a"), 0..5).await.unwrap(), "12345");
    fixture.memory.tamper(&path("a"), |bytes| bytes.truncate(3));
    let short = guarded.get(&path("a"), 0..5).await.unwrap_err();
    assert_eq!(short.kind(), ErrorKind::Damaged);
    assert!(short.to_string().contains("`a`"), "{short}");
    assert_eq!(guarded.breaker().state, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn large_ranges_are_read_in_parallel_and_arrive_in_order() {
    let fixture = fixture();
    let whole = pattern(60 << 20);
    fixture.guarded.put(&path("a"), whole.clone().into()).await.unwrap();
    let rates =
        FaultRates { delay: 1_000, delay_max: Duration::from_secs(1), ..FaultRates::default() };
    fixture.faults.set_rates(rates);
    let began = tokio::time::Instant::now();
    let (start, end) = (3, whole.len() as u64 - 5);
    let read = fixture.guarded.read(&path("a"), start..end).await.unwrap();
    assert_eq!(read.len(), end - start);
    assert!(read.into_bytes() == whole[start as usize..end as usize]);
    assert!(began.elapsed() < Duration::from_secs(1), "one after the other takes longer");
    assert!(fixture.guarded.read(&path("a"), 7..7).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_out_is_left_alone_and_used_again_when_it_answers() {
    let fixture = fixture();
    let guarded = &fixture.guarded;
    fixture.faults.set_outage(Some(ErrorKind::Unavailable));
    let error = guarded.put(&path("a"), payload("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let status = guarded.breaker();
    assert_eq!((status.state, status.failures), (BreakerState::Open, 5));
    assert!(status.last_error.unwrap().contains("planned"));

    let asked = fixture.attempts();
    let refused = guarded.head(&path("a")).await.unwrap_err();
    assert!(refused.after().is_some() && refused.reason().contains("planned"), "{refused}");
    assert_eq!(fixture.attempts(), asked, "nothing was sent");

    fixture.faults.set_outage(None);
    tokio::time::sleep(refused.after().unwrap()).await;
    guarded.put(&path("a"), payload("a")).await.unwrap();
    assert_eq!(guarded.breaker().state, BreakerState::Closed);
    assert_eq!(guarded.breaker().last_error, None);
    let seen = fixture.seen.lock().unwrap();
    let states = seen.iter().filter_map(|seen| match seen {
        Observation::Breaker { state } => Some(*state),
        _ => None,
    });
    let expected = [BreakerState::Open, BreakerState::HalfOpen, BreakerState::Closed];
    assert_eq!(states.collect::<Vec<_>>(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_trial_whose_caller_goes_away_does_not_keep_the_breaker_open() {
    let fixture = fixture();
    let guarded = &fixture.guarded;
    fixture.faults.set_outage(Some(ErrorKind::Unavailable));
    let error = guarded.put(&path("a"), payload("a")).await.unwrap_err();
    fixture.faults.set_outage(None);
    tokio::time::sleep(error.after().unwrap_or(Duration::from_secs(2))).await;
    fixture.faults.plan_fault(Operation::Head, "a", 0, Fault::Hang);
    let given_up = tokio::time::timeout(Duration::from_secs(1), guarded.head(&path("a"))).await;
    assert!(given_up.is_err());
    assert_eq!(guarded.head(&path("a")).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn retries_come_out_of_a_budget_that_successes_fill() {
    let fixture = fixture();
    let guarded = &fixture.guarded;
    guarded.put(&path("a"), payload("a")).await.unwrap();
    // Between failures the store answers: the breaker stays closed, and the budget runs out.
    let mut failed = 0;
    for _ in 0..300 {
        fixture.faults.plan_fault(Operation::Get, "a", 0, UNAVAILABLE);
        failed += u32::from(guarded.get(&path("a"), 0..1).await.is_err());
        guarded.head(&path("a")).await.unwrap();
    }
    assert!((150..200).contains(&failed), "{failed}");
    assert_eq!(guarded.breaker().state, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_busy_store_is_given_the_time_it_asks_for() {
    let fixture = fixture();
    let busy = Fault::Busy(Duration::from_secs(7));
    fixture.faults.plan_fault(Operation::Put, "a", 0, busy);
    let began = tokio::time::Instant::now();
    fixture.guarded.put(&path("a"), payload("a")).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 7);
}

/// Whatever strikes, a put that says it succeeded is there with its bytes, one that says the name
/// is taken is right, and reads are exact or fail.
#[tokio::test(start_paused = true)]
async fn under_drawn_faults_every_answer_is_true_and_a_seed_gives_the_same_ones_twice() {
    async fn run(seed: u64) -> Vec<String> {
        let fixture = fixture_with(&Settings::default(), seed);
        fixture.faults.set_rates(FaultRates {
            delay: 100,
            delay_max: Duration::from_secs(12),
            error: 100,
            lost_answer: 100,
            busy: 50,
            slow_body: 50,
            short_body: 100,
            hang: 20,
            flip_bit: 0,
        });
        let mut outcomes = Vec::new();
        for number in 0..60 {
            let name = path(&(number % 20).to_string());
            let text = number.to_string();
            let put = fixture.guarded.put(&name, payload(&text)).await;
            let mut stored = String::new();
            fixture
                .memory
                .tamper(&name, |bytes| stored = String::from_utf8(bytes.clone()).unwrap());
            match &put {
                Ok(()) => assert_eq!(stored, text),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    assert!(!stored.is_empty() && stored != text);
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
            }
            if let Ok(read) = fixture.guarded.get(&name, 0..stored.len().max(1) as u64).await {
                assert_eq!(read, stored.as_bytes());
            }
            outcomes.push(format!("{put:?} {stored} {:?}", fixture.guarded.breaker()));
        }
        outcomes
    }
    for seed in 0..30 {
        let first = run(seed).await;
        assert_eq!(first, run(seed).await, "{seed}");
    }
}
