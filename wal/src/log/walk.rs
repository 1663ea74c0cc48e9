//! Reading the entries of many groups in one pass over the files.
//!
//! Groups share files, and what one wrote lies between what the others wrote: read one group after
//! the other, every file would be read once for each. A walk reads the files in the order in which
//! they lie there, a run at a time, and deals out what a run holds. The entries of one group come
//! in the order of their indexes, wherever they are: a run begins with the entry that lies furthest
//! to the front of all that are next in their group.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use common::{GroupId, LogIndex};

use super::read::{Wanted, check, near, read_range, sectors};
use super::{Log, State};
use crate::files::Pin;
use crate::group::Place;
use crate::{LogEntry, ReadError};

/// Bytes of one run, unless one entry is larger: enough for the disk's full speed.
const RUN_BYTES: u64 = 1024 * 1024;

/// Entries of one group, in order.
type Dealt = (GroupId, Result<Vec<LogEntry>, ReadError>);

/// See [`Log::walk`]. A run is in memory at a time.
pub struct Walk<'a> {
    log: &'a Log,
    cursors: Vec<Cursor>,
    /// The next entry of each group that has one, the one furthest to the front first.
    next: BinaryHeap<Reverse<Next>>,
    /// Of which the next entry cannot be read.
    ended: Vec<usize>,
    dealt: VecDeque<Dealt>,
}

struct Cursor {
    group: GroupId,
    left: Range<u64>,
    /// Where the entry before was, and how often the group went back from there.
    at: (u32, u32),
    sweep: u32,
}

/// Ordered by place. Where entries were moved, a group goes back to older files in between: it waits
/// there until the others come, and all go through them together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Next {
    sweep: u32,
    file: u32,
    offset: u32,
    cursor: usize,
}

/// An entry of a run.
struct Taken {
    cursor: usize,
    wanted: Wanted,
}

impl Log {
    /// Reads these entries of these groups, every byte of the files once. Each step gives some of
    /// one group, behind those that it gave before; an error is the last that comes of its group,
    /// and does not touch the others. What comes has hardly more bytes in memory than its own.
    pub fn walk(&self, wanted: impl IntoIterator<Item = (GroupId, Range<LogIndex>)>) -> Walk<'_> {
        let cursor = |(group, range): (_, Range<LogIndex>)| Cursor {
            group,
            left: range.start.0..range.end.0,
            at: (0, 0),
            sweep: 0,
        };
        let cursors: Vec<Cursor> = wanted.into_iter().map(cursor).collect();
        let (next, ended, dealt) = (BinaryHeap::new(), Vec::new(), VecDeque::new());
        let mut walk = Walk { log: self, cursors, next, ended, dealt };
        let state = self.state();
        (0..walk.cursors.len()).for_each(|cursor| walk.look_ahead(&state, cursor));
        drop(state);
        walk
    }
}

impl Iterator for Walk<'_> {
    type Item = Dealt;

    fn next(&mut self) -> Option<Dealt> {
        while self.dealt.is_empty() {
            let run = self.gather();
            if run.is_empty() && self.ended.is_empty() {
                return None;
            }
            self.deal(&run);
            for cursor in std::mem::take(&mut self.ended) {
                // It says why.
                let index = LogIndex(self.cursors[cursor].left.start);
                self.one_by_one(cursor, index, index);
            }
        }
        self.dealt.pop_front()
    }
}

impl Walk<'_> {
    /// Finds where the next entry of a group is.
    fn look_ahead(&mut self, state: &State, cursor: usize) {
        let Cursor { group, left, at, sweep } = &mut self.cursors[cursor];
        if left.is_empty() {
            return;
        }
        let known = state.groups.get(group);
        let place = known.and_then(|known| known.place(LogIndex(left.start)));
        match place.filter(|place| !place.is_lost()) {
            Some(Place { file, offset, .. }) => {
                *sweep += u32::from((file, offset) < *at);
                *at = (file, offset);
                self.next.push(Reverse(Next { sweep: *sweep, file, offset, cursor }));
            }
            None => self.ended.push(cursor),
        }
    }

    /// The entries of the next run, in the order of their places.
    fn gather(&mut self) -> Vec<Taken> {
        let log = self.log;
        let state = log.state();
        let mut run: Vec<Taken> = Vec::new();
        while let Some(Reverse(next)) = self.next.peek().copied() {
            let cursor = &self.cursors[next.cursor];
            let (group, index) = (cursor.group, LogIndex(cursor.left.start));
            let place = state.groups.get(&group).and_then(|known| known.place(index));
            let Some(place) = place else {
                // Dropped since.
                self.next.pop();
                self.ended.push(next.cursor);
                continue;
            };
            let source = state.source(&place);
            let wanted = Wanted { index, place, source };
            let joins = |run: &[Taken]| match (run.first(), run.last()) {
                (Some(first), Some(last)) => near(&first.wanted, &last.wanted, &wanted, RUN_BYTES),
                _ => true,
            };
            if !joins(&run) {
                break;
            }
            self.next.pop();
            run.push(Taken { cursor: next.cursor, wanted });
            self.cursors[next.cursor].left.start += 1;
            self.look_ahead(&state, next.cursor);
        }
        run
    }

    /// Reads a run and deals its entries out to their groups.
    fn deal(&mut self, run: &[Taken]) {
        let Some(pin) = run.first().and_then(|first| first.wanted.pin()) else {
            // Not on the disk yet.
            return run.iter().for_each(|Taken { cursor, wanted }| {
                self.one_by_one(*cursor, wanted.index, wanted.index);
            });
        };
        let (first, last) = (&run[0].wanted.place, &run[run.len() - 1].wanted.place);
        let (start, end) = sectors(first, last);
        // An error says nothing of whom it hits.
        let bytes = read_range(pin, start, end).unwrap_or_default();
        let mut by_group: Vec<(usize, Vec<&Wanted>)> = Vec::new();
        for taken in run {
            match by_group.iter_mut().find(|(cursor, _)| *cursor == taken.cursor) {
                Some((_, wanted)) => wanted.push(&taken.wanted),
                None => by_group.push((taken.cursor, vec![&taken.wanted])),
            }
        }
        for (cursor, wanted) in by_group {
            let group = self.cursors[cursor].group;
            match checked(group, &wanted, pin, &bytes, start) {
                Some(entries) => self.dealt.push_back((group, Ok(entries))),
                None => self.one_by_one(cursor, wanted[0].index, wanted[wanted.len() - 1].index),
            }
        }
    }

    /// The slow road: as anybody reads them, with second attempts; a failure ends the group.
    fn one_by_one(&mut self, cursor: usize, low: LogIndex, high: LogIndex) {
        let group = self.cursors[cursor].group;
        let (mut entries, mut from) = (Vec::new(), low);
        while from <= high {
            match self.log.read(group, from, LogIndex(high.0 + 1), RUN_BYTES as usize) {
                Ok(more) => {
                    from = LogIndex(from.0 + more.len() as u64);
                    entries.extend(more);
                }
                Err(error) => {
                    self.cursors[cursor].left = 0..0;
                    self.next.retain(|Reverse(next)| next.cursor != cursor);
                    self.ended.retain(|ended| *ended != cursor);
                    return self.dealt.push_back((group, Err(error)));
                }
            }
        }
        self.dealt.push_back((group, Ok(entries)));
    }
}

/// A group's entries of a run, copied out of it side by side; `None` where one is not what it was.
fn checked(
    group: GroupId,
    wanted: &[&Wanted],
    pin: &Pin,
    run: &Bytes,
    start: u64,
) -> Option<Vec<LogEntry>> {
    let bytes: u64 = wanted.iter().map(|wanted| wanted.place.bytes()).sum();
    let mut copied = Vec::with_capacity(bytes as usize);
    for Wanted { place, .. } in wanted {
        let at = (u64::from(place.offset) - start) as usize;
        copied.extend_from_slice(run.get(at..at + place.bytes() as usize)?);
    }
    let (copied, mut at) = (Bytes::from(copied), 0);
    let entry = |wanted: &&Wanted| {
        let record = copied.slice(at..at + wanted.place.bytes() as usize);
        at += record.len();
        check(group, wanted.index, &wanted.place, pin.file().seed, &record)
    };
    wanted.iter().map(entry).collect()
}
