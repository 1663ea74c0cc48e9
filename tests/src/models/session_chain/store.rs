//! The container's side: what apply decides, in the design's order of tests.

use super::{Message, Rule, Session, SessionChain};

/// One segment with the writer's entry in its writer table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Segment {
    pub sealed: bool,
    /// Numbers in the order in which they were stored.
    pub stored: Vec<u8>,
    /// Appends of others.
    pub foreign: u8,
    /// The highest session seen; (0, 0): none.
    pub session: Session,
    /// The last stored number, while the entry is remembered.
    pub last: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Opened { last: u8, sealed: bool },
    Stored { last: u8 },
    Sealed { last: u8 },
    Fenced { current: Session },
    Broken,
    Mismatch,
    Expired,
}

impl Segment {
    pub(super) fn apply(&mut self, model: &SessionChain, message: &Message) -> Answer {
        match message {
            Message::Open { session, resuming } => self.open(model, *session, *resuming),
            Message::Block { session, previous, numbers } => {
                self.append(model, *session, *previous, numbers)
            }
        }
    }

    fn open(&mut self, model: &SessionChain, session: Session, resuming: bool) -> Answer {
        let raises = session > self.session
            || (session == self.session && !model.keeps(Rule::NewAttemptEachOpen));
        if !raises && model.keeps(Rule::StaleSessionRefused) {
            return Answer::Fenced { current: self.session };
        }
        self.session = self.session.max(session);
        if resuming && self.last.is_none() && model.keeps(Rule::ExpiredIsTold) {
            return Answer::Expired;
        }
        Answer::Opened { last: *self.last.get_or_insert(0), sealed: self.sealed }
    }

    fn append(
        &mut self,
        model: &SessionChain,
        session: Session,
        previous: u8,
        numbers: &[u8],
    ) -> Answer {
        let Some(stored) = self.last else { return Answer::Broken };
        let last = numbers.last().copied().unwrap_or_default();
        if self.sealed && !model.keeps(Rule::FenceBeforeSealed) {
            return Answer::Sealed { last: stored };
        }
        if session != self.session && model.keeps(Rule::StaleSessionRefused) {
            return Answer::Fenced { current: self.session };
        }
        if last <= stored {
            return Answer::Stored { last: stored };
        }
        if self.sealed {
            return Answer::Sealed { last: stored };
        }
        if previous != stored && model.keeps(Rule::PreviousIsLast) {
            return Answer::Broken;
        }
        if let Some((_, expected)) = model.conditional.filter(|(number, _)| *number == last)
            && usize::from(expected) != self.stored.len() + usize::from(self.foreign)
        {
            if !model.keeps(Rule::MismatchKeepsNumber) {
                self.last = Some(last);
            }
            return Answer::Mismatch;
        }
        self.stored.extend(numbers.iter().filter(|number| **number > stored));
        self.last = Some(last);
        Answer::Stored { last }
    }

    /// Close or expiry: the data goes, the session number stays.
    pub(super) fn forget(&mut self, model: &SessionChain) {
        self.last = None;
        if !model.keeps(Rule::SessionOutlivesData) {
            self.session = (0, 0);
        }
    }
}
