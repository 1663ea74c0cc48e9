//! What of a group cannot be brought back, for the person who has to accept it.

use std::fmt;

use common::{ContainerId, GroupId, SegmentId};
use controller::ControllerMachine;
use replica::check::{Absent, absent, bring_back_along};
use replica::restore::{Loss, RestoreFailure, Salvaged};
use segmentstore::{ContainerMachine, Memory};
use serde::Serialize;

/// How far a group comes back that was archived further, and why not all of the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupLoss {
    pub group: u64,
    /// The last entry that comes back; 0 where nothing does.
    pub end: u64,
    /// The last entry that is known to have been archived; `None` where nothing says.
    pub archived_to: Option<u64>,
    /// What is missing or damaged, newest first.
    pub damage: Vec<Damage>,
    /// Payload that the group refers to where it ends, and that is gone: it was dropped by entries
    /// that do not come back, and collected.
    pub unreadable: Vec<Unreadable>,
}

/// An object without which the group ends earlier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    pub what: String,
    /// The first and the last entry that cannot be read because of it, where that is known.
    pub entries: Option<(u64, u64)>,
}

/// An object that is not there, though events of these segments are in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    pub object: String,
    pub segments: Vec<String>,
    pub bytes: u64,
}

impl GroupLoss {
    /// `None` where nothing is lost. Brings the group back in memory, to see what it refers to.
    pub(super) fn of(
        storage: &replica::Storage,
        group: GroupId,
        salvaged: Salvaged,
    ) -> Result<Option<Self>, RestoreFailure> {
        let Salvaged { chain, losses } = salvaged;
        if losses.is_empty() {
            return Ok(None);
        }
        let end = chain.as_ref().map_or(0, |chain| chain.end().0.0);
        let archived_to = losses.iter().filter_map(|loss| loss.archived_to).max();
        let absent = match chain {
            Some(chain) if group == GroupId::CONTROLLER => {
                let back = bring_back_along(storage, chain, ControllerMachine::new())?;
                absent(storage, group, &back)?
            }
            Some(chain) => {
                let memory = Memory::new(&segmentstore::Settings::default());
                let container = ContainerMachine::new(ContainerId(group.0), memory);
                let back = bring_back_along(storage, chain, container)?;
                absent(storage, group, &back)?
            }
            None => Vec::new(),
        };
        Ok(Some(Self {
            group: group.0,
            end,
            archived_to: archived_to.map(|index| index.0),
            damage: damage(&losses, end),
            unreadable: absent.into_iter().map(Unreadable::of).collect(),
        }))
    }
}

/// Each loss takes the entries from where the next older round that is whole ends.
fn damage(losses: &[Loss], end: u64) -> Vec<Damage> {
    let of = |(at, loss): (usize, &Loss)| {
        let older = losses[at + 1..].iter().find_map(|loss| loss.archived_to);
        let first = older.map_or(end, |index| index.0.max(end)) + 1;
        let last = loss.unreadable_to.map(|index| index.0).filter(|last| *last >= first);
        Damage { what: loss.what.clone(), entries: last.map(|last| (first, last)) }
    };
    losses.iter().enumerate().map(of).collect()
}

impl Unreadable {
    fn of(absent: Absent) -> Self {
        let segment = |owner: u128| SegmentId::decode(owner.to_be_bytes()).to_string();
        Self {
            object: absent.object.to_string(),
            segments: absent.owners.into_iter().map(segment).collect(),
            bytes: absent.bytes,
        }
    }
}

impl fmt::Display for GroupLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, end, archived_to, .. } = self;
        match end {
            0 => write!(f, "group {group} begins anew: nothing of it can be brought back")?,
            end => write!(f, "group {group} ends at entry {end}")?,
        }
        match archived_to {
            Some(last) if last > end => write!(f, "; it was archived up to entry {last}")?,
            _ => write!(f, "; nothing says how far it was archived")?,
        }
        for Damage { what, entries } in &self.damage {
            write!(f, "\n  {what}")?;
            if let Some((first, last)) = entries {
                write!(f, "; entries {first} to {last} cannot be read without it")?;
            }
        }
        for Unreadable { object, segments, bytes } in &self.unreadable {
            let segments = segments.join(", ");
            write!(f, "\n  object `{object}` is gone; {bytes} bytes of {segments} cannot be read")?;
        }
        Ok(())
    }
}

/// One after the other, each on its own lines.
pub(crate) fn told(losses: &[GroupLoss]) -> String {
    losses.iter().map(GroupLoss::to_string).collect::<Vec<_>>().join("\n")
}
