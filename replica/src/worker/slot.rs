//! A group as the worker holds it: whatever goes wrong in it stops it alone.
//!
//! Every call of a member goes through here. A panic, or a law that is broken, takes the group out
//! until the process is restarted: its handle says why, its log and its objects stay as they are,
//! and the others go on.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use common::GroupId;

use crate::error::{Failure, HostFailure};
use crate::group::Member;
use crate::tiering::{GivenUp, StorageJob};

/// A group, or the place of one that is quarantined.
pub(super) struct Slot {
    pub(super) id: GroupId,
    member: Option<Box<dyn Member>>,
    /// Shared with the group's jobs.
    given_up: GivenUp,
}

impl Slot {
    pub(super) fn new(id: GroupId, member: Option<Box<dyn Member>>) -> Self {
        Self { id, member, given_up: GivenUp::default() }
    }

    /// The member, for those who only look.
    pub(super) fn member(&self) -> Option<&dyn Member> {
        self.member.as_deref()
    }

    /// Asks or tells the member something, `what` it is being for the report of a panic.
    pub(super) fn ask<T>(
        &mut self,
        what: &'static str,
        call: impl FnOnce(&mut dyn Member) -> T,
    ) -> Option<T> {
        let member = self.member.as_mut()?;
        match catch_unwind(AssertUnwindSafe(|| call(&mut **member))) {
            Ok(value) => Some(value),
            Err(panic) => {
                let text = panic_text(&*panic);
                self.quarantine(&format!("{what} panicked, which is a bug: {text}"));
                None
            }
        }
    }

    /// The same where the member says itself what goes wrong.
    pub(super) fn guard<T>(
        &mut self,
        what: &'static str,
        call: impl FnOnce(&mut dyn Member) -> Result<T, Failure>,
    ) -> Result<Option<T>, HostFailure> {
        match self.ask(what, call) {
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(Failure::Host(failure))) => Err(failure),
            Some(Err(Failure::Quarantine(reason))) => {
                self.quarantine(&reason);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Takes the group out. What waits for it is answered; jobs that nobody has begun are not done.
    pub(super) fn quarantine(&mut self, reason: &str) {
        self.given_up.give_up();
        let Some(mut member) = self.member.take() else { return };
        // A broken member may break again, while it goes, too; its handle is shut by then.
        let goes = move || {
            member.quarantine(reason);
            drop(member);
        };
        if catch_unwind(AssertUnwindSafe(goes)).is_err() {
            tracing::error!(group = %self.id, "the quarantined group panicked again");
        }
    }

    /// From now on it is another member.
    pub(super) fn give_way(&mut self, next: Box<dyn Member>) {
        let before = self.member.replace(next);
        self.drop_guarded(before);
    }

    pub(super) fn clear(mut self) {
        let member = self.member.take();
        self.drop_guarded(member);
    }

    fn drop_guarded(&self, member: Option<Box<dyn Member>>) {
        if catch_unwind(AssertUnwindSafe(|| drop(member))).is_err() {
            tracing::error!(group = %self.id, "a group panicked while it was dropped");
        }
    }

    /// Jobs of the group, which are not done any more once it is quarantined.
    pub(super) fn jobs(&self, jobs: Vec<StorageJob>) -> impl Iterator<Item = StorageJob> + '_ {
        jobs.into_iter().map(|job| StorageJob { given_up: self.given_up.clone(), ..job })
    }
}

/// The message of a panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "without a message".to_owned())
}
