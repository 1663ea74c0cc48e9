use rstest::rstest;

use super::{Anomaly, check};
use crate::history::{Answer, EventRef, Moved, Operation, Recorder, Seen, SegmentRef, What};

const SEGMENT: SegmentRef = SegmentRef { stream: 1, segment: 0 };
const OTHER: SegmentRef = SegmentRef { stream: 1, segment: 1 };

/// A history in the making. Every step takes one unit of time; every event takes ten bytes.
#[derive(Default)]
struct Story {
    recorder: Recorder,
    now: u64,
}

enum End {
    Ok,
    Refused,
    Unknown,
}
use End::{Ok, Refused, Unknown};

impl Story {
    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn op(mut self, operation: Operation, end: End) -> Self {
        let at = self.tick();
        let op = self.recorder.invoke(at, 0, operation);
        let what = match end {
            Ok => What::Ok { answer: Answer::Done },
            Refused => What::Fail { reason: "OFFSET_MISMATCH".to_owned() },
            Unknown => What::Unknown,
        };
        let at = self.tick();
        self.recorder.end(at, 0, op, what);
        self
    }

    /// Writer 1 appends `numbers` as one batch, each with key 7.
    fn append(self, numbers: &[u64], end: End) -> Self {
        self.append_as(1, numbers, None, end)
    }

    fn append_as(
        self,
        writer: u32,
        numbers: &[u64],
        expected_offset: Option<u64>,
        end: End,
    ) -> Self {
        let events = numbers.iter().map(|number| EventRef { number: *number, key: 7 }).collect();
        self.op(Operation::Append { segment: SEGMENT, writer, events, expected_offset }, end)
    }

    /// A read to the tail of `segment`, which starts at `start` and holds (writer, number) pairs.
    fn read_of(
        mut self,
        segment: SegmentRef,
        start: u64,
        events: &[(u32, u64)],
        last: bool,
    ) -> Self {
        let at = self.tick();
        let op = self.recorder.invoke(at, 9, Operation::Read { segment, from: 0, last });
        let seen = |(position, (writer, number)): (usize, &(u32, u64))| {
            let offset = start + 10 * position as u64;
            Seen { offset, writer: *writer, number: *number, key: 7, intact: true }
        };
        let events: Vec<Seen> = events.iter().enumerate().map(seen).collect();
        let next = start + 10 * events.len() as u64;
        let at = self.tick();
        let answer = Answer::Read { start, next, at_tail: true, events };
        self.recorder.end(at, 9, op, What::Ok { answer });
        self
    }

    fn read(self, numbers: &[u64]) -> Self {
        let events: Vec<_> = numbers.iter().map(|number| (1, *number)).collect();
        self.read_of(SEGMENT, 0, &events, true)
    }

    fn look(self, numbers: &[u64]) -> Self {
        let events: Vec<_> = numbers.iter().map(|number| (1, *number)).collect();
        self.read_of(SEGMENT, 0, &events, false)
    }

    fn anomalies(&self) -> Vec<Anomaly> {
        let (_, violations) = check(self.recorder.lines());
        let mut anomalies: Vec<_> = violations.iter().map(|v| v.anomaly).collect();
        anomalies.dedup();
        anomalies
    }
}

fn story(tell: impl FnOnce(Story) -> Story) -> Story {
    tell(Story::default())
}

fn recover(until: u64) -> Operation {
    Operation::Recover { segment: SEGMENT, until }
}

/// Key 7 goes on in the other segment.
fn scale() -> Operation {
    Operation::Scale { stream: 1, moved: vec![Moved { key: 7, from: 0, to: 1 }] }
}

fn truncate(offset: u64) -> Operation {
    Operation::Truncate { segment: SEGMENT, offset }
}

#[rstest]
#[case::everything(|s: Story| s.append(&[1], Ok).append(&[2, 3], Ok).read(&[1, 2, 3]))]
#[case::unknown_and_there(|s: Story| s.append(&[1], Unknown).read(&[1]))]
#[case::unknown_and_not_there(|s: Story| s.append(&[1], Unknown).read(&[]))]
#[case::refused(|s: Story| s.append_as(1, &[1], Some(5), Refused).read(&[]))]
#[case::expected(|s: Story| s.append(&[1], Ok).append_as(1, &[2], Some(10), Ok).read(&[1, 2]))]
#[case::truncated(|s: Story| {
    s.append(&[1], Ok).append(&[2], Ok).op(truncate(10), Ok).read_of(SEGMENT, 10, &[(1, 2)], true)
})]
#[case::all_truncated(|s: Story| {
    s.append(&[1], Ok).op(truncate(10), Unknown).read_of(SEGMENT, 10, &[], true)
})]
#[case::a_batch_truncated_in_its_middle(|s: Story| {
    s.append(&[1, 2], Ok).op(truncate(10), Ok).read_of(SEGMENT, 10, &[(1, 2)], true)
})]
#[case::two_writers(|s: Story| {
    s.append(&[1], Ok).append_as(2, &[1], None, Ok).read_of(SEGMENT, 0, &[(1, 1), (2, 1)], true)
})]
#[case::given_again_by_a_second_process(|s: Story| {
    s.append(&[1], Unknown).append(&[1], Ok).read(&[1])
})]
#[case::sealed(|s: Story| {
    s.append(&[1], Ok).op(Operation::Seal { stream: 1 }, Ok).append(&[2], Refused).read(&[1])
})]
#[case::deleted(|s: Story| s.append(&[1], Ok).op(Operation::Delete { stream: 1 }, Unknown))]
#[case::recovered(|s: Story| {
    s.append(&[1], Ok).append(&[2], Ok).look(&[1, 2]).op(recover(3), Ok).read(&[1])
})]
#[case::recovered_with_more_than_was_known_to_be_archived(|s: Story| {
    s.append(&[1], Ok).append(&[2], Ok).append(&[3], Ok).op(recover(5), Ok).read(&[1, 2, 3])
})]
#[case::recovered_empty(|s: Story| s.append(&[1], Ok).op(recover(0), Ok).read(&[]))]
#[case::scaled(|s: Story| {
    let s = s.append(&[1], Ok).append(&[2], Unknown).op(scale(), Ok).append(&[3], Ok);
    s.read(&[1]).read_of(OTHER, 0, &[(1, 2), (1, 3)], true)
})]
#[case::scaled_and_truncated(|s: Story| {
    let s = s.append(&[1], Ok).op(truncate(10), Ok).op(scale(), Unknown).append(&[2], Ok);
    s.read_of(SEGMENT, 10, &[], true).read_of(OTHER, 0, &[(1, 2)], true)
})]
#[case::scaled_and_recovered(|s: Story| {
    let s = s.append(&[1], Ok).op(scale(), Ok).append(&[2], Ok).op(recover(2), Ok);
    let lost = Operation::Recover { segment: OTHER, until: 4 };
    s.op(lost, Ok).read(&[1]).read_of(OTHER, 0, &[], true)
})]
fn a_history_that_keeps_every_promise_is_accepted(#[case] tell: impl FnOnce(Story) -> Story) {
    let story = story(tell);
    let (_, violations) = check(story.recorder.lines());
    assert_eq!(violations, []);
}

#[rstest]
#[case::loss(Anomaly::Loss, |s: Story| s.append(&[1], Ok).append(&[2], Ok).read(&[2]))]
#[case::loss_at_the_end(Anomaly::Loss, |s: Story| s.append(&[1], Ok).append(&[2], Ok).read(&[1]))]
#[case::loss_after_a_truncation(Anomaly::Loss, |s: Story| {
    s.append(&[1], Ok).op(truncate(10), Ok).append(&[2], Ok).read_of(SEGMENT, 10, &[], true)
})]
#[case::loss_behind_what_truncation_left(Anomaly::Loss, |s: Story| {
    s.append(&[1], Ok)
        .append(&[2], Ok)
        .append(&[3], Ok)
        .op(truncate(10), Ok)
        .read_of(SEGMENT, 10, &[(1, 2)], true)
})]
#[case::archived_and_not_recovered(Anomaly::Loss, |s: Story| {
    s.append(&[1], Ok).append(&[2], Ok).op(recover(5), Ok).read(&[1])
})]
#[case::recovered_with_a_gap(Anomaly::Loss, |s: Story| {
    s.append(&[1], Ok).append(&[2], Ok).append(&[3], Ok).op(recover(5), Ok).read(&[1, 3])
})]
#[case::recovered_with_a_gap_of_another_writer(Anomaly::Loss, |s: Story| {
    s.append(&[1], Ok)
        .append_as(2, &[1], None, Ok)
        .append_as(3, &[1], None, Unknown)
        .op(recover(1), Ok)
        .read_of(SEGMENT, 0, &[(1, 1), (3, 1)], true)
})]
#[case::recovered_and_not_what_was_read(Anomaly::Unstable, |s: Story| {
    s.append(&[1], Unknown).look(&[1]).op(recover(9), Ok).read(&[])
})]
#[case::came_back_from_nowhere(Anomaly::Phantom, |s: Story| {
    s.append(&[1], Ok).append(&[2], Ok).op(recover(2), Ok).read(&[1, 2])
})]
#[case::double(Anomaly::Double, |s: Story| s.append(&[1], Ok).read(&[1, 1]))]
#[case::never_appended(Anomaly::Phantom, |s: Story| s.append(&[1], Ok).read(&[1, 2]))]
#[case::refused_and_read(Anomaly::Phantom, |s: Story| s.append(&[1], Refused).read(&[1]))]
#[case::read_too_early(Anomaly::Phantom, |s: Story| s.look(&[1]).append(&[1], Ok).read(&[1]))]
#[case::in_another_segment(Anomaly::Phantom, |s: Story| {
    s.append(&[1], Unknown).read_of(OTHER, 0, &[(1, 1)], true)
})]
#[case::numbers_fall(Anomaly::Order, |s: Story| {
    s.append(&[1], Unknown).append(&[2], Unknown).read(&[2, 1])
})]
#[case::real_time_reversed(Anomaly::Order, |s: Story| {
    s.append(&[1], Ok).append_as(2, &[1], None, Ok).read_of(SEGMENT, 0, &[(2, 1), (1, 1)], true)
})]
#[case::half_a_batch(Anomaly::TornBatch, |s: Story| s.append(&[1, 2], Ok).read(&[1]))]
#[case::half_an_unknown_batch(Anomaly::TornBatch, |s: Story| {
    s.append(&[1, 2], Unknown).read(&[1])
})]
#[case::a_batch_with_a_stranger_inside(Anomaly::TornBatch, |s: Story| {
    s.append(&[1, 2], Ok)
        .append_as(2, &[5], None, Unknown)
        .read_of(SEGMENT, 0, &[(1, 1), (2, 5), (1, 2)], true)
})]
#[case::wrong_offset(Anomaly::WrongOffset, |s: Story| {
    s.append(&[1], Ok).append_as(1, &[2], Some(0), Ok).read(&[1, 2])
})]
#[case::changed(Anomaly::Unstable, |s: Story| {
    s.append(&[1], Unknown).append(&[2], Unknown).look(&[2]).read(&[1, 2])
})]
#[case::read_once_and_gone(Anomaly::Unstable, |s: Story| {
    s.append(&[1], Unknown).look(&[1]).read(&[])
})]
#[case::acknowledged_and_not_seen(Anomaly::Invisible, |s: Story| {
    s.append(&[1], Ok).look(&[]).read(&[1])
})]
#[case::stored_after_the_seal(Anomaly::AfterSeal, |s: Story| {
    s.op(Operation::Seal { stream: 1 }, Ok).append(&[1], Unknown).read(&[1])
})]
#[case::stored_after_the_deletion(Anomaly::AfterDelete, |s: Story| {
    s.op(Operation::Delete { stream: 1 }, Ok).append(&[1], Unknown).read(&[1])
})]
#[case::lost_between_two_segments(Anomaly::Loss, |s: Story| {
    let s = s.append(&[1], Ok).op(scale(), Ok).append(&[2], Ok);
    s.read(&[]).read_of(OTHER, 0, &[(1, 2)], true)
})]
#[case::in_both_segments(Anomaly::Double, |s: Story| {
    s.append(&[1], Ok).op(scale(), Ok).read(&[1]).read_of(OTHER, 0, &[(1, 1)], true)
})]
#[case::numbers_fall_from_segment_to_segment(Anomaly::Order, |s: Story| {
    let s = s.append(&[1], Unknown).append(&[2], Unknown).op(scale(), Ok);
    s.read(&[2]).read_of(OTHER, 0, &[(1, 1)], true)
})]
#[case::real_time_reversed_over_segments(Anomaly::Order, |s: Story| {
    let s = s.append(&[1], Ok).append_as(2, &[1], None, Ok).op(scale(), Unknown);
    s.read_of(SEGMENT, 0, &[(2, 1)], true).read_of(OTHER, 0, &[(1, 1)], true)
})]
#[case::stored_after_another_went_on(Anomaly::AfterSeal, |s: Story| {
    let s = s.op(scale(), Ok).append(&[1], Unknown);
    s.read(&[1]).read_of(OTHER, 0, &[], true)
})]
#[case::in_a_successor_of_another_key(Anomaly::Phantom, |s: Story| {
    let moved = vec![Moved { key: 8, from: 0, to: 1 }];
    let s = s.append(&[1], Ok).op(Operation::Scale { stream: 1, moved }, Ok);
    s.read(&[]).read_of(OTHER, 0, &[(1, 1)], true)
})]
#[case::a_batch_over_two_segments(Anomaly::TornBatch, |s: Story| {
    let s = s.append(&[1, 2], Ok).op(scale(), Ok);
    s.read(&[1]).read_of(OTHER, 0, &[(1, 2)], true)
})]
#[case::never_read(Anomaly::Malformed, |s: Story| s.append(&[1], Ok))]
fn each_anomaly_is_found(#[case] anomaly: Anomaly, #[case] tell: impl FnOnce(Story) -> Story) {
    let found = story(tell).anomalies();
    assert!(found.contains(&anomaly), "{found:?}");
}

#[test]
fn a_damaged_event_is_found() {
    let mut story = story(|s| s.append(&[1], Ok));
    let operation = Operation::Read { segment: SEGMENT, from: 0, last: true };
    let op = story.recorder.invoke(100, 9, operation);
    let events = vec![Seen { offset: 0, writer: 1, number: 1, key: 7, intact: false }];
    let answer = Answer::Read { start: 0, next: 10, at_tail: true, events };
    story.recorder.end(101, 9, op, What::Ok { answer });
    assert!(story.anomalies().contains(&Anomaly::Damage));
}

#[test]
fn a_long_history_is_checked_in_linear_time() {
    let mut story = Story::default();
    let numbers: Vec<u64> = (1..=100_000).collect();
    for number in &numbers {
        story = story.append(&[*number], Ok);
    }
    let story = story.read(&numbers);
    let (summary, violations) = check(story.recorder.lines());
    assert_eq!(violations, []);
    assert_eq!((summary.acknowledged, summary.read_at_the_end), (100_000, 100_000));
}
