//! A history as the checker wants it: operations with their ends, found by event and by segment.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::{Anomaly, Violation, add};
use crate::history::{Answer, EventRef, Line, Moved, Operation, Seen, SegmentRef, What};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Acknowledged(u64),
    Refused,
    Unknown,
}

#[derive(Debug)]
pub(super) struct Append {
    pub(super) segment: SegmentRef,
    pub(super) writer: u32,
    pub(super) events: Vec<EventRef>,
    pub(super) expected_offset: Option<u64>,
    pub(super) invoked: u64,
    pub(super) fate: Fate,
}

impl Append {
    /// Of all of its events.
    pub(super) fn key(&self) -> u32 {
        self.events.first().map_or(0, |event| event.key)
    }
}

impl fmt::Display for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.events.first().map_or(0, |event| event.number);
        write!(f, "event {first} of writer {} to {:?}", self.writer, self.segment)?;
        if self.events.len() > 1 {
            write!(f, " (a batch of {})", self.events.len())?;
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(super) struct Read {
    pub(super) segment: SegmentRef,
    pub(super) from: u64,
    pub(super) last: bool,
    pub(super) invoked: u64,
    pub(super) ended: u64,
    pub(super) start: u64,
    pub(super) next: u64,
    pub(super) at_tail: bool,
    pub(super) events: Vec<Seen>,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) appends: Vec<Append>,
    pub(super) reads: Vec<Read>,
    /// (stream, writer, number) → append. A number that a second process of the writer gives
    /// again is the same append, begun when the first began it.
    by_event: HashMap<(u32, u32, u64), usize>,
    last_reads: BTreeMap<SegmentRef, usize>,
    /// When the last truncation of a segment ended; never, if it is unknown.
    truncated: BTreeMap<SegmentRef, u64>,
    /// The segments of a key in order, by (stream, key), where there is more than one.
    pub(super) lineages: BTreeMap<(u32, u32), Vec<SegmentRef>>,
    /// When a segment had certainly ended and others went on.
    pub(super) succeeded: BTreeMap<SegmentRef, u64>,
    /// When a stream was certainly sealed, deleted.
    pub(super) sealed: BTreeMap<u32, u64>,
    pub(super) deleted: BTreeMap<u32, u64>,
    /// Until when what a segment got was archived, where it was lost and recovered.
    pub(super) recovered: BTreeMap<SegmentRef, u64>,
    /// Streams whose deletion was begun and did not certainly fail.
    pub(super) may_be_deleted: BTreeSet<u32>,
}

struct Ended<'a> {
    invoked: u64,
    operation: &'a Operation,
    end: Option<(u64, &'a What)>,
}

impl Index {
    pub(super) fn of(lines: &[Line], violations: &mut Vec<Violation>) -> Self {
        let mut index = Index::default();
        for ended in operations(lines, violations).into_values() {
            index.take(&ended, violations);
        }
        index
    }

    pub(super) fn append_of(&self, segment: SegmentRef, seen: &Seen) -> Option<usize> {
        self.by_event.get(&(segment.stream, seen.writer, seen.number)).copied()
    }

    /// The segments that may have an append, in order: the one that it was given to, and those that
    /// its key went on in.
    pub(super) fn homes(&self, append: &Append) -> impl Iterator<Item = SegmentRef> + '_ {
        let key = (append.segment.stream, append.key());
        let lineage = self.lineages.get(&key).map_or(&[][..], Vec::as_slice);
        let first = append.segment;
        let behind = lineage.iter().skip_while(move |segment| **segment != first).skip(1);
        std::iter::once(first).chain(behind.copied())
    }

    pub(super) fn last_read(&self, segment: SegmentRef) -> Option<&Read> {
        self.last_reads.get(&segment).map(|read| &self.reads[*read])
    }

    pub(super) fn truncated_until(&self, segment: SegmentRef) -> Option<u64> {
        self.truncated.get(&segment).copied()
    }

    fn take(&mut self, ended: &Ended<'_>, violations: &mut Vec<Violation>) {
        let done = match ended.end {
            Some((at, What::Ok { .. })) => Some(at),
            _ => None,
        };
        let certainly_not = matches!(ended.end, Some((_, What::Fail { .. })));
        match ended.operation {
            Operation::Append { segment, writer, events, expected_offset } => {
                let fate = match (done, certainly_not) {
                    (Some(at), _) => Fate::Acknowledged(at),
                    (None, true) => Fate::Refused,
                    (None, false) => Fate::Unknown,
                };
                let append = Append {
                    segment: *segment,
                    writer: *writer,
                    events: events.clone(),
                    expected_offset: *expected_offset,
                    invoked: ended.invoked,
                    fate,
                };
                self.take_append(append, violations);
            }
            Operation::Read { segment, from, last } => {
                if let Some((at, What::Ok { answer })) = ended.end {
                    self.take_read(*segment, (*from, *last), (ended.invoked, at), answer);
                }
            }
            Operation::Truncate { segment, .. } if !certainly_not => {
                let until = self.truncated.entry(*segment).or_default();
                *until = (*until).max(done.unwrap_or(u64::MAX));
            }
            Operation::Scale { stream, moved } => self.take_scale(*stream, moved, done),
            Operation::Seal { stream } => first(&mut self.sealed, *stream, done),
            Operation::Delete { stream } => {
                first(&mut self.deleted, *stream, done);
                if !certainly_not {
                    self.may_be_deleted.insert(*stream);
                }
            }
            Operation::Recover { segment, until } => {
                let first = self.recovered.entry(*segment).or_insert(*until);
                *first = (*first).min(*until);
            }
            Operation::Truncate { .. } => {}
        }
    }

    /// Once it has begun, whoever follows may be where the key goes on.
    fn take_scale(&mut self, stream: u32, moved: &[Moved], done: Option<u64>) {
        for Moved { key, from, to } in moved {
            let [from, to] = [from, to].map(|segment| SegmentRef { stream, segment: *segment });
            self.lineages.entry((stream, *key)).or_insert_with(|| vec![from]).push(to);
            first(&mut self.succeeded, from, done);
        }
    }

    fn take_append(&mut self, append: Append, violations: &mut Vec<Violation>) {
        let id = self.appends.len();
        for event in &append.events {
            let name = (append.segment.stream, append.writer, event.number);
            let Some(before) = self.by_event.get(&name).copied() else {
                self.by_event.insert(name, id);
                continue;
            };
            let before = &mut self.appends[before];
            if before.events != append.events || before.segment != append.segment {
                let evidence = format!("{append} is not what it was before");
                add(violations, Anomaly::Malformed, evidence);
            }
            before.fate = match (before.fate, append.fate) {
                (Fate::Acknowledged(a), Fate::Acknowledged(b)) => Fate::Acknowledged(a.min(b)),
                (Fate::Acknowledged(a), _) | (_, Fate::Acknowledged(a)) => Fate::Acknowledged(a),
                (Fate::Refused, Fate::Refused) => Fate::Refused,
                _ => Fate::Unknown,
            };
            return;
        }
        self.appends.push(append);
    }

    fn take_read(
        &mut self,
        segment: SegmentRef,
        (from, last): (u64, bool),
        (invoked, ended): (u64, u64),
        answer: &Answer,
    ) {
        let Answer::Read { start, next, at_tail, events } = answer else { return };
        let id = self.reads.len();
        self.reads.push(Read {
            segment,
            from,
            last,
            invoked,
            ended,
            start: *start,
            next: *next,
            at_tail: *at_tail,
            events: events.clone(),
        });
        if last {
            self.last_reads.insert(segment, id);
        }
    }
}

fn first<K: Ord>(times: &mut BTreeMap<K, u64>, what: K, done: Option<u64>) {
    if let Some(at) = done {
        let first = times.entry(what).or_insert(at);
        *first = at.min(*first);
    }
}

fn operations<'a>(lines: &'a [Line], violations: &mut Vec<Violation>) -> BTreeMap<u64, Ended<'a>> {
    let mut operations: BTreeMap<u64, Ended<'a>> = BTreeMap::new();
    for line in lines {
        if let What::Invoke { operation } = &line.what {
            let ended = Ended { invoked: line.at, operation, end: None };
            if operations.insert(line.op, ended).is_some() {
                add(violations, Anomaly::Malformed, format!("operation {} began twice", line.op));
            }
            continue;
        }
        match operations.get_mut(&line.op) {
            Some(ended @ Ended { end: None, .. }) => ended.end = Some((line.at, &line.what)),
            Some(_) => {
                add(violations, Anomaly::Malformed, format!("operation {} ended twice", line.op));
            }
            None => {
                add(violations, Anomaly::Malformed, format!("operation {} never began", line.op));
            }
        }
    }
    operations
}
