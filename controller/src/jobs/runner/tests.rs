//! The runner over a group in memory, on a paused clock.

use std::sync::Arc;
use std::time::Duration;

use common::{ContainerId, Fence, Offset, Rng, Tasks, Term};
use tokio::time::Instant;

use crate::group::{Group, GroupError};
use crate::jobs::runner::{Bootstrap, Jobs, Runner, WaitError};
use crate::machine::{ControllerMachine, StreamState};
use crate::operation::Operation;
use crate::outcome::Accepted;
use crate::settings::ControllerSettings;
use crate::stores::{JobId, StoreError};
use crate::testing::{FakeStores, LocalGroup, containers, create, cut, name, pass};

struct Node {
    group: Arc<LocalGroup>,
    stores: Arc<FakeStores>,
    jobs: Jobs,
    tasks: Tasks,
}

impl Node {
    async fn start() -> Self {
        Self::start_with(LocalGroup::leading(ControllerMachine::new(), 1), FakeStores::default())
            .await
    }

    async fn start_with(group: LocalGroup, stores: FakeStores) -> Self {
        let (group, stores, tasks) = (Arc::new(group), Arc::new(stores), Tasks::new());
        let progress = group.machine().progress();
        let mut rng = Rng::from_seed(1);
        let bootstrap = Bootstrap::single(&mut rng, containers());
        let settings = ControllerSettings::default();
        let runner = Runner::new(settings, group.clone(), stores.clone(), progress, bootstrap);
        let jobs = runner.start(&tasks);
        let node = Self { group, stores, jobs, tasks };
        if node.group.leadership().borrow().serving.is_some() {
            node.until(|machine| !machine.containers().is_empty()).await;
        }
        node
    }

    /// Advances the clock until the state is as wanted.
    async fn until(&self, wanted: impl Fn(&ControllerMachine) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(600);
        while !wanted(&self.group.machine()) {
            assert!(Instant::now() < deadline, "the state did not become what was wanted");
            tokio::time::advance(Duration::from_millis(1)).await;
        }
    }

    async fn submit(&self, operation: Operation) -> JobId {
        match self.group.submit(operation).await.unwrap().unwrap() {
            Accepted::StreamCreated { job, .. } | Accepted::Started { job, .. } => job.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    async fn wait(&self, job: JobId) -> Result<(), WaitError> {
        self.jobs.wait(job, self.jobs.deadline()).await
    }

    fn state_of(&self, stream: &str) -> StreamState {
        self.group.machine().stream(&name(stream)).unwrap().state
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_leader_gives_the_cluster_its_identity_and_later_ones_change_nothing() {
    let node = Node::start().await;
    let submitted = node.group.submitted();
    assert!(matches!(
        submitted[..],
        [Operation::Initialize { .. }, Operation::RegisterStore { .. }]
    ));
    node.group.lead(Some(2));
    let job = node.submit(create("demo/hello", 1)).await;
    node.wait(job).await.unwrap();
    assert_eq!(node.group.submitted().len(), 2 + 2, "an operation and its only step");
    node.tasks.stop().await;
    assert!(!node.tasks.failed());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_job_is_answered_when_it_is_done() {
    let node = Node::start().await;
    let job = node.submit(create("demo/hello", 4)).await;
    let (first, second) = tokio::join!(node.wait(job), node.wait(job));
    assert_eq!((first, second), (Ok(()), Ok(())));
    assert_eq!(node.state_of("demo/hello"), StreamState::Active);
    assert_eq!(node.wait(job).await, Ok(()), "after the fact, too");
}

#[tokio::test(start_paused = true)]
async fn a_step_is_tried_until_the_store_does_it() {
    let node = Node::start().await;
    let unavailable = || StoreError::Unavailable("an election".into());
    node.stores.fail_next(std::iter::repeat_with(unavailable).take(12));
    let started = Instant::now();
    let job = node.submit(create("demo/hello", 4)).await;
    node.wait(job).await.unwrap();
    assert_eq!(node.stores.inner().segments.len(), 4);
    let slowest = Duration::from_secs(5);
    assert!(Instant::now() - started < slowest, "delays grow, but stay bounded");
}

#[tokio::test(start_paused = true)]
async fn a_step_whose_outcome_was_lost_is_recorded_once() {
    let node = Node::start().await;
    let job = node.submit(create("demo/hello", 1)).await;
    *node.group.lose_outcomes.lock().unwrap() = 3;
    node.wait(job).await.unwrap();
    node.until(|machine| machine.jobs().is_empty()).await;
    assert_eq!(node.state_of("demo/hello"), StreamState::Active);
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_told_and_the_job_goes_on() {
    let node = Node::start().await;
    node.stores.inner().held = true;
    let job = node.submit(create("demo/hello", 1)).await;
    assert_eq!(node.wait(job).await, Err(WaitError::Late { job, step: 0, problem: None }));
    node.stores.inner().held = false;
    node.stores.gate.notify_waiters();
    assert_eq!(node.wait(job).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_truncation_that_the_store_refuses_is_given_up_with_its_reason() {
    let node = Node::start().await;
    let job = node.submit(create("demo/hello", 1)).await;
    node.wait(job).await.unwrap();
    let stream = node.group.machine().stream(&name("demo/hello")).unwrap().id;
    let truncate = Operation::TruncateStream { stream, cut: cut(&[(0, 0, 9)]) };
    let job = node.submit(truncate).await;
    let failed = node.wait(job).await.unwrap_err();
    assert!(failed.to_string().contains("shorter than 9"), "{failed}");
    let job = node.submit(Operation::SealStream { stream: name("demo/hello") }).await;
    assert_eq!(node.wait(job).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_lead_commands_nothing_until_it_does() {
    let group = LocalGroup::leading(crate::testing::machine(), 1);
    group.machine().apply_operation(&create("demo/hello", 2), crate::testing::NOW).unwrap();
    group.lead(None);
    let node = Node::start_with(group, FakeStores::default()).await;
    pass(Duration::from_secs(60)).await;
    assert_eq!(node.stores.inner().commands, 0);
    let job = *node.group.machine().jobs().first_key_value().unwrap().0;
    let refused = node.wait(job).await;
    assert_eq!(refused, Err(WaitError::Group(GroupError::NotLeader { hint: None })));
    node.group.lead(Some(5));
    node.until(|machine| machine.jobs().is_empty()).await;
    let fence = Fence { incarnation: 1.into(), term: Term(5) };
    assert!(node.stores.inner().fences.values().all(|known| *known == fence));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_the_stores_know_as_deposed_stays_quiet_and_the_next_one_finishes() {
    let node = Node::start().await;
    let newer = Fence { incarnation: 1.into(), term: Term(7) };
    for container in containers() {
        node.stores.inner().fences.insert(container, newer);
    }
    let job = node.submit(create("demo/hello", 4)).await;
    *node.group.deposed.lock().unwrap() = true;
    pass(Duration::from_secs(10)).await;
    assert!(node.stores.inner().segments.is_empty());
    let tried = node.stores.inner().commands;
    assert!(tried <= 4 * 6, "{tried} commands in ten seconds");
    *node.group.deposed.lock().unwrap() = false;
    node.group.lead(Some(8));
    node.until(|machine| machine.jobs().is_empty()).await;
    assert_eq!(node.wait(job).await, Ok(()));
    assert_eq!(node.group.machine().cluster().unwrap().era, 0, "nothing was lost");
}

#[tokio::test(start_paused = true)]
async fn jobs_run_side_by_side_up_to_the_limit_and_all_end() {
    let node = Node::start().await;
    node.stores.inner().held = true;
    let mut jobs = Vec::new();
    for number in 0..100 {
        jobs.push(node.submit(create(&format!("demo/s{number}"), 1)).await);
    }
    node.stores.until_waiting(100).await;
    assert_eq!(node.stores.inner().commands, 0);
    node.stores.inner().held = false;
    node.stores.gate.notify_waiters();
    for job in jobs {
        assert_eq!(node.wait(job).await, Ok(()));
    }
    assert_eq!(node.stores.inner().segments.len(), 100);
    assert!(node.stores.inner().segments.values().all(|s| s.length == Offset(0)));
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_the_runner_while_a_store_does_not_answer() {
    let node = Node::start().await;
    node.stores.inner().held = true;
    node.submit(create("demo/hello", 1)).await;
    node.stores.until_waiting(1).await;
    node.tasks.stop().await;
    assert!(!node.tasks.failed());
    assert_eq!(node.state_of("demo/hello"), StreamState::Creating);
}

/// Creates so many streams of one segment, and tells which job is about which container.
async fn make_streams(node: &Node, count: usize) -> Vec<(JobId, ContainerId)> {
    let mut made = Vec::new();
    for number in 0..count {
        let stream = format!("demo/one-{number}");
        let job = node.submit(create(&stream, 1)).await;
        let machine = node.group.machine();
        let segments = &machine.stream(&name(&stream)).unwrap().segments;
        made.push((job, segments.values().next().unwrap().container));
    }
    made
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_away_does_not_stop_jobs_of_others() {
    let silent = |node: &Node| node.stores.inner().silent = Some(containers()[0]);
    let failing = |node: &Node| {
        let error = StoreError::Unavailable("it is away".into());
        node.stores.inner().away.insert(containers()[0], error);
    };
    for takes_away in [silent as fn(&Node), failing] {
        let node = Node::start().await;
        takes_away(&node);
        for number in 0..100 {
            // Each needs all four containers.
            node.submit(create(&format!("demo/four-{number}"), 4)).await;
        }
        let made = make_streams(&node, 200).await;
        let others: Vec<_> = made.iter().filter(|(_, c)| *c != containers()[0]).collect();
        assert_eq!((others.len(), made.len()), (150, 200));
        for (job, container) in others {
            assert_eq!(node.wait(*job).await, Ok(()), "a job of container {container}");
        }
        assert_eq!(node.group.machine().jobs().len(), 150, "the rest waits");
        node.stores.inner().silent = None;
        node.stores.inner().away.clear();
        node.stores.gate.notify_waiters();
        node.until(|machine| machine.jobs().is_empty()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_away_is_asked_now_and_then_however_many_jobs_wait_for_it() {
    let node = Node::start().await;
    for container in containers() {
        let error = StoreError::Unavailable("it is away".into());
        node.stores.inner().away.insert(container, error);
    }
    make_streams(&node, 1_000).await;
    pass(Duration::from_secs(60)).await;
    let commands = node.stores.inner().commands;
    // The first steps side by side, one after each of ten growing delays, then one every 2 s.
    let most = containers().len() * (32 + 10 + 30);
    assert!(commands <= most, "{commands} commands in a minute");
    node.stores.inner().away.clear();
    node.until(|machine| machine.jobs().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_job_of_a_container_that_stopped_is_told_at_once_and_the_job_goes_on() {
    let node = Node::start().await;
    let error = StoreError::Stopped("it is quarantined".into());
    node.stores.inner().away.insert(containers()[0], error);
    let job = node.submit(create("demo/hello", 4)).await;
    let started = Instant::now();
    let stopped = node.wait(job).await.unwrap_err();
    assert!(matches!(stopped, WaitError::Stopped { .. }), "{stopped:?}");
    assert!(stopped.to_string().contains("it is quarantined"), "{stopped}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    node.stores.inner().away.clear();
    node.until(|machine| machine.jobs().is_empty()).await;
    assert_eq!(node.state_of("demo/hello"), StreamState::Active);
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_told_what_keeps_the_job() {
    let node = Node::start().await;
    let error = StoreError::Unavailable("an election".into());
    node.stores.inner().away.insert(containers()[0], error);
    let job = node.submit(create("demo/hello", 4)).await;
    let late = node.wait(job).await.unwrap_err();
    assert!(matches!(late, WaitError::Late { .. }), "{late:?}");
    assert!(late.to_string().contains("an election"), "{late}");
}

#[tokio::test(start_paused = true)]
async fn a_controller_whose_history_was_cut_goes_on_above_the_fence_that_containers_obey() {
    // The containers were commanded in terms that this history never reached.
    let lost = Fence { incarnation: 1.into(), term: Term(57) };
    let stores = FakeStores::default();
    stores.inner().fences.insert(containers()[2], lost);
    let group = LocalGroup::leading(ControllerMachine::new(), 3);
    let node = Node::start_with(group, stores).await;
    // It is noticed at the start, before anything is commanded.
    node.until(|machine| machine.cluster().is_some_and(|cluster| cluster.era == 1)).await;
    assert_eq!(node.stores.inner().commands, 0);
    let job = node.submit(create("demo/hello", 4)).await;
    assert_eq!(node.wait(job).await, Ok(()));
    let fences: Vec<Fence> = node.stores.inner().fences.values().copied().collect();
    assert!(fences.len() == 4 && fences.iter().all(|fence| *fence > lost), "{fences:?}");
    // A process of the lost history stays below, whatever its term was.
    let own = node.group.machine().cluster().unwrap().fence(Term(3));
    assert!(own > Fence { incarnation: 1.into(), term: Term(1 << 39) });
    // Ids that the lost entries may have given out are not given out again.
    let stream = node.group.machine().stream(&name("demo/hello")).unwrap().id;
    assert!(stream.counter() > 1 << 32, "{stream}");
    assert!(!node.group.machine().knew_stream(common::StreamId::new(1.into(), 5)));
}

#[tokio::test(start_paused = true)]
async fn a_higher_fence_that_shows_only_with_a_command_is_gone_above_too() {
    let node = Node::start().await;
    let lost = Fence { incarnation: 1.into(), term: Term(57) };
    node.until(|machine| !machine.containers().is_empty()).await;
    pass(Duration::from_secs(1)).await;
    for container in containers() {
        node.stores.inner().fences.insert(container, lost);
    }
    let job = node.submit(create("demo/hello", 4)).await;
    assert_eq!(node.wait(job).await, Ok(()));
    let raised = |operation: &Operation| matches!(operation, Operation::RaiseFence { .. });
    assert_eq!(node.group.submitted().iter().filter(|op| raised(op)).count(), 1);
    assert_eq!(node.group.machine().cluster().unwrap().era, 1);
}
