//! A group whose log has holes that its saved state covers.
//!
//! The saved state includes what every entry up to some index did. Entries up to there are never
//! replayed, only their bytes are read; so a hole below that index costs the bytes in it and
//! nothing else. A repair keeps what was found on all sides of such holes, puts *lost entries* in
//! between, and the log goes on where the state does. Nothing is replayed across a hole.
//!
//! What is archived elsewhere is a saved state, too, and has the bytes as well. Where it reaches
//! further than the state here, and a hole lies beyond that, the log begins anew behind it, with
//! what was found there; whoever runs the group brings it back up to there first.

use std::collections::VecDeque;

use common::{LogIndex, Term};

use super::replay::Loss;
use crate::format::GroupRow;
use crate::group::{Group, Place};
use crate::{LostEntries, OpenError, Saved, SavedStates, Truncated};

/// What becomes of a group when its loss is accepted.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// It ends at its first hole.
    Cut,
    Bridged(Box<Bridged>),
}

#[derive(Debug)]
pub(crate) struct Bridged {
    pub(crate) group: Group,
    /// What the log does not have up to where it goes on, archived or not.
    pub(crate) lost: Vec<LostEntries>,
    /// Whether the log goes on behind the saved state, or what came there is lost, too.
    pub(crate) goes_on: bool,
}

/// Decides what is given up of a group that counts as `kept` before its first hole.
pub(crate) fn accept(
    loss: &Loss,
    kept: &Group,
    saved: &SavedStates,
) -> Result<Accepted, OpenError> {
    let state = saved.state(loss.group);
    let covers = state.filter(|state| state.index > loss.kept);
    let bridged = covers.map(|state| bridge(loss, kept, state)).transpose()?;
    let reach = state.map_or(LogIndex(0), |state| state.index).max(loss.kept);
    let archived = saved.archive(loss.group).filter(|archived| archived.index > reach);
    Ok(match (bridged, archived) {
        (Some(bridged), _) if bridged.goes_on => Accepted::Bridged(Box::new(bridged)),
        (_, Some(archived)) => Accepted::Bridged(Box::new(begin_behind(loss, kept, archived)?)),
        (Some(bridged), None) => Accepted::Bridged(Box::new(bridged)),
        (None, None) => Accepted::Cut,
    })
}

/// The log begins behind what is archived.
fn begin_behind(loss: &Loss, kept: &Group, archived: Saved) -> Result<Bridged, OpenError> {
    let mut bridged = bridge(loss, kept, archived)?;
    let to = Truncated { index: archived.index, term: archived.term };
    bridged.group.truncate(to, &mut |_| ());
    Ok(bridged)
}

fn bridge(loss: &Loss, kept: &Group, saved: Saved) -> Result<Bridged, OpenError> {
    let (last, goes_on) = reach(&loss.pieces, saved.index);
    let truncated = kept.truncated;
    let pieces: Vec<&Group> = loss.pieces.iter().collect();
    let mut places = gather(&pieces, truncated.index, last);
    let at_saved = places.get((saved.index.0 - truncated.index.0) as usize - 1).copied().flatten();
    if let Some(place) = at_saved.filter(|place| !place.is_lost() && place.term != saved.term) {
        let (group, index, logged) = (loss.group, saved.index, place.term);
        return Err(OpenError::Unrelated { group, index, saved: saved.term, logged });
    }
    let lost = fill(&mut places, LogIndex(truncated.index.0 + 1), saved.term);
    let entries: VecDeque<Place> = places.into_iter().flatten().collect();
    let commit = pieces.iter().map(|piece| piece.hard_state.commit).max().unwrap_or_default();
    let mut group = Group::with_entries(last, entries);
    group.sequence = kept.sequence;
    group.entry_sequence = kept.entry_sequence;
    group.hard_state = kept.hard_state;
    group.hard_state.commit = commit.max(saved.index).min(last);
    group.truncated = truncated;
    group.conf =
        pieces.iter().rev().find_map(|piece| piece.conf.clone()).or_else(|| kept.conf.clone());
    group.mark.clone_from(&kept.mark);
    group.lost.clone_from(&lost);
    Ok(Bridged { group, lost, goes_on })
}

/// How far the log goes on behind the saved state without another hole, and whether that is all
/// of it.
fn reach(pieces: &[Group], saved: LogIndex) -> (LogIndex, bool) {
    let follows = |piece: &Group| {
        piece.has_entries() && piece.first().0 <= saved.0 + 1 && piece.last >= saved
    };
    let Some(at) = pieces.iter().rposition(follows) else { return (saved, false) };
    let newer = &pieces[at + 1..];
    let replaced =
        newer.iter().filter(|piece| piece.has_entries()).map(|piece| piece.first().0 - 1);
    (LogIndex(replaced.fold(pieces[at].last.0, u64::min)), newer.is_empty())
}

/// The group as a table tells it whose gaps were accepted; `None` where more is missing. What the
/// table's group began with may be gone with its file: a truncation newer than the table, or the
/// end of recovery, says whether that was right.
pub(crate) fn as_accepted(pieces: &[&Group], row: &GroupRow) -> Option<Group> {
    let after = row.truncated.index;
    let mut places = gather(pieces, after, row.last);
    for lost in &row.lost {
        for index in lost.first.0..=lost.last.0.min(row.last.0) {
            let at = index.checked_sub(after.0 + 1)?;
            *places.get_mut(at as usize)? = Some(Place::lost(lost.term));
        }
    }
    let gone = places.iter().take_while(|place| place.is_none()).count();
    let entries = places.into_iter().skip(gone).collect::<Option<VecDeque<_>>>()?;
    let mut group = Group::with_entries(row.last, entries);
    group.adopt(row);
    Some(group)
}

/// The places of the entries behind `after` up to `last` that any piece has.
fn gather(pieces: &[&Group], after: LogIndex, last: LogIndex) -> Vec<Option<Place>> {
    let mut places = vec![None; last.0.saturating_sub(after.0) as usize];
    let at = |index: LogIndex| index.0.saturating_sub(after.0 + 1) as usize;
    let within = |index: &LogIndex| *index > after && *index <= last;
    for piece in pieces {
        if piece.has_entries() {
            // What was written later replaces everything from its first index on.
            let from = at(piece.first()).min(places.len());
            places[from..].fill(None);
        }
        let copies = piece.moved().filter(|(index, _)| *index < piece.first());
        for (index, place) in copies.chain(piece.indexed()).filter(|(index, _)| within(index)) {
            places[at(index)] = Some(place);
        }
    }
    places
}

/// Puts lost entries where there are none, `first` being the index of the first place, and says
/// which.
fn fill(places: &mut [Option<Place>], first: LogIndex, last_term: Term) -> Vec<LostEntries> {
    let mut lost: Vec<LostEntries> = Vec::new();
    let mut term = last_term;
    for (at, place) in places.iter_mut().enumerate().rev() {
        if let Some(found) = place.filter(|place| !place.is_lost()) {
            term = found.term;
            continue;
        }
        *place = Some(Place::lost(term));
        let index = LogIndex(first.0 + at as u64);
        match lost.last_mut() {
            Some(range) if range.first.0 == index.0 + 1 => range.first = index,
            _ => lost.push(LostEntries { first: index, last: index, term }),
        }
    }
    lost.reverse();
    lost
}
