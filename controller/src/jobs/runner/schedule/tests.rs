use super::*;

const A: ContainerId = ContainerId(2);
const B: ContainerId = ContainerId(3);

fn schedule() -> Schedule {
    Schedule::new(&ControllerSettings { steps_per_container_max: 4, ..Default::default() })
}

fn both() -> Vec<ContainerId> {
    vec![A, B]
}

/// Begins all that is ready; what needs looking at needs `containers`.
fn begin_ready(
    schedule: &mut Schedule,
    containers: impl Fn(JobId) -> Vec<ContainerId>,
    now: Instant,
) -> Vec<JobId> {
    let ready = schedule.ready(now, 1_000);
    ready.into_iter().filter(|job| schedule.begin(*job, containers(*job), now)).collect()
}

#[tokio::test(start_paused = true)]
async fn the_oldest_jobs_go_first_as_many_as_their_container_has_slots() {
    let (mut schedule, now) = (schedule(), Instant::now());
    (1..=6).for_each(|job| schedule.learn(JobId(job)));
    let begun = begin_ready(&mut schedule, |_| vec![A], now);
    assert_eq!(begun, [1, 2, 3, 4].map(JobId));
    assert!(schedule.ready(now, 1_000).is_empty());
    schedule.answered(A, now);
    schedule.moved_on(JobId(2));
    schedule.forget(JobId(2));
    assert_eq!(schedule.ready(now, 1_000), [JobId(5)]);
    assert_eq!(begin_ready(&mut schedule, |_| vec![A], now), [JobId(5)]);
}

#[tokio::test(start_paused = true)]
async fn a_step_over_two_busy_containers_gets_its_turn_beside_any_number_of_small_ones() {
    let (mut schedule, now) = (schedule(), Instant::now());
    const WIDE: JobId = JobId(9);
    let containers = |job: JobId| match job {
        WIDE => both(),
        JobId(number) if number % 2 == 0 => vec![A],
        _ => vec![B],
    };
    (1..=8).for_each(|job| schedule.learn(JobId(job)));
    let mut running = begin_ready(&mut schedule, containers, now);
    assert_eq!(running.len(), 8);
    // Both are at work: each has answered.
    (9..=2_000).for_each(|job| schedule.learn(JobId(job)));
    begin_ready(&mut schedule, containers, now);
    let mut ended = 0;
    while !running.contains(&WIDE) {
        // One at a time, so that there is never a slot free in both.
        let job = running.remove(0);
        schedule.answered(containers(job)[0], now);
        schedule.forget(job);
        ended += 1;
        assert!(ended <= 8, "younger jobs overtake it for ever");
        running.extend(begin_ready(&mut schedule, containers, now));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_free_for_a_job_whose_other_container_does_not_answer() {
    let (mut schedule, now) = (schedule(), Instant::now());
    (1..=20).for_each(|job| schedule.learn(JobId(job)));
    // Four wide ones take all slots of A, which does not answer; B answers.
    let begun = begin_ready(&mut schedule, |_| both(), now);
    assert_eq!(begun.len(), 4);
    (0..4).for_each(|_| schedule.answered(B, now));
    assert!(schedule.ready(now, 1_000).is_empty(), "the others need A, too");
    (21..=24).for_each(|job| schedule.learn(JobId(job)));
    assert_eq!(begin_ready(&mut schedule, |_| vec![B], now), [21, 22, 23, 24].map(JobId));
}

#[tokio::test(start_paused = true)]
async fn a_container_that_fails_is_left_alone_for_longer_each_time_until_it_succeeds() {
    let (mut schedule, mut now) = (schedule(), Instant::now());
    (1..=3).for_each(|job| schedule.learn(JobId(job)));
    let begun = begin_ready(&mut schedule, |_| vec![A], now);
    // Three fail together, which is one failure.
    for job in begun {
        schedule.failed(A, now);
        schedule.again(job, vec![A]);
    }
    let mut delays = Vec::new();
    for _ in 0..9 {
        assert!(schedule.ready(now, 1_000).is_empty());
        let due = schedule.next_time(now).unwrap();
        delays.push((due - now).as_millis());
        now = due;
        assert_eq!(begin_ready(&mut schedule, |_| vec![A], now), [JobId(1)], "one tries");
        schedule.failed(A, now);
        schedule.again(JobId(1), vec![A]);
    }
    assert_eq!(delays, [20, 40, 80, 160, 320, 640, 1_280, 2_000, 2_000]);
    now = schedule.next_time(now).unwrap();
    assert_eq!(begin_ready(&mut schedule, |_| vec![A], now), [JobId(1)]);
    schedule.answered(A, now);
    schedule.moved_on(JobId(1));
    assert_eq!(begin_ready(&mut schedule, |_| vec![A], now), [1, 2, 3].map(JobId));
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_learns_of_all_jobs_anew_but_those_under_way() {
    let (mut schedule, now) = (schedule(), Instant::now());
    (1..=3).for_each(|job| schedule.learn(JobId(job)));
    assert!(schedule.begin(JobId(1), vec![A], now));
    schedule.rest(JobId(2), Duration::from_secs(9), now);
    schedule.begin_anew();
    assert!(schedule.ready(now, 1_000).is_empty());
    (1..=3).for_each(|job| schedule.learn(JobId(job)));
    assert_eq!(schedule.ready(now, 1_000), [2, 3].map(JobId));
}
