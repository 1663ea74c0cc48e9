//! Model of the append session chain: how a writer's events reach segments exactly once.
//!
//! One writer (or two processes of one named writer) sends numbered events of two keys to a
//! segment, or to segments that a scale replaces under it. Messages of a connection arrive in
//! order, may be lost as proposals one by one, and an old connection's messages may arrive at any
//! later time. The store decides at apply; an answer arrives or is lost with its connection.
//!
//! Simplifications, each of which keeps the bad schedules: an answer is delivered with the apply
//! that made it (a later one equals a later apply, a lost one mutes the connection); every
//! (process, segment) has its own connection and at most one old one; the application has appended
//! all its events at the start.

mod store;
#[cfg(test)]
mod tests;
mod writer;

use stateright::{Model, Property};

pub use store::Segment;
pub use writer::{Link, LinkState, Phase, Process};

/// The rules whose absence loses, doubles or reorders events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A block is stored only if its previous number is the last stored one. Without: if its
    /// numbers are higher.
    PreviousIsLast,
    /// Every `Open` uses a new attempt. Without: the one before again.
    NewAttemptEachOpen,
    /// A block or `Open` of an older session is refused. Without: taken.
    StaleSessionRefused,
    /// The session is tested before the seal: only the current one is told successors.
    FenceBeforeSealed,
    /// A block refused for its expected offset leaves the stored number.
    MismatchKeepsNumber,
    /// On a seal, what the predecessor stored is settled by its stored number before the rest is
    /// routed to successors. Without: everything unacknowledged is routed.
    SealedSettles,
    /// A successor is held back until all its predecessors are known to be sealed.
    HoldSuccessorBack,
    /// A successor gets what is left of all predecessors in number order.
    SuccessorInNumberOrder,
    /// A resuming process opens all active segments before its first event.
    ResumeOpensAll,
    /// A resuming process asks sealed segments, too, what they stored.
    ResumeAsksSealed,
    /// A resuming process follows successors until unsealed segments cover the key space.
    ResumeFollowsSuccessors,
    /// An `Open` that resumes a forgotten entry is told so. Without: it starts at zero.
    ExpiredIsTold,
    /// The session number outlives the data that close and expiry forget.
    SessionOutlivesData,
    /// The controller publishes successors after the predecessors are sealed.
    SealBeforePublish,
}

/// The segments and who follows whom. Key 0 and key 1 stand for the two halves of the key space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One segment for ever.
    Single,
    /// Segment 0 becomes 1 (key 0) and 2 (key 1).
    Split,
    /// Segment 0 (key 0) and 1 (key 1) become 2.
    Merge,
}

impl Layout {
    pub fn segments(self) -> usize {
        if self == Layout::Single { 1 } else { 3 }
    }

    pub fn covers(self, segment: usize, key: u8) -> bool {
        match (self, segment) {
            (Layout::Split, 1) | (Layout::Merge, 0) => key == 0,
            (Layout::Split, 2) | (Layout::Merge, 1) => key == 1,
            _ => true,
        }
    }

    pub fn predecessors(self, segment: usize) -> &'static [usize] {
        match (self, segment) {
            (Layout::Split, 1 | 2) => &[0],
            (Layout::Merge, 2) => &[0, 1],
            _ => &[],
        }
    }

    pub fn is_first(self, segment: usize) -> bool {
        self.predecessors(segment).is_empty()
    }

    /// The segments that hold events of `key`, in the order in which a reader takes them.
    pub fn road(self, key: u8) -> impl Iterator<Item = usize> {
        (0..self.segments()).filter(move |segment| self.covers(*segment, key))
    }
}

/// The model: a layout, bounds for everything that may go wrong, and at most one rule taken out.
#[derive(Debug, Clone)]
pub struct SessionChain {
    pub removed: Option<Rule>,
    pub layout: Layout,
    /// Events are numbered 1 to this; odd ones have key 1, even ones key 0.
    pub events: u8,
    /// This event is stored only if the segment's length is the second number.
    pub conditional: Option<(u8, u8)>,
    /// Connections that each process may lose.
    pub reconnects: u8,
    pub second_process: bool,
    pub bounds: Bounds,
}

/// How often each mishap may still happen in all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Proposals lost one by one.
    pub losses: u8,
    /// The leader falls: everything in flight is lost and all connections break.
    pub leader_changes: u8,
    /// Appends of another writer.
    pub foreign_appends: u8,
    /// A segment forgets the writer's entry.
    pub expiries: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub segments: Vec<Segment>,
    pub processes: Vec<Process>,
    /// Predecessors that the controller has sealed so far, and whether it published the epoch.
    pub sealed: u8,
    pub published: bool,
    pub left: Bounds,
    /// A block of the first process was stored after the second had begun.
    pub fence_broken: bool,
}

/// A session: writer epoch (the process), then attempt.
pub type Session = (u8, u8);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Message {
    Open { session: Session, resuming: bool },
    Block { session: Session, previous: u8, numbers: Vec<u8> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Open {
        process: usize,
        segment: usize,
    },
    Send {
        process: usize,
        segment: usize,
        skip: usize,
        count: usize,
    },
    /// The head of a connection is applied; `late`: of the old connection.
    Apply {
        process: usize,
        segment: usize,
        late: bool,
        answered: bool,
    },
    Lose {
        process: usize,
        segment: usize,
        late: bool,
    },
    Disconnect {
        process: usize,
        segment: usize,
    },
    Close {
        process: usize,
    },
    StartSecond,
    ChangeLeader,
    Seal,
    Publish,
    AppendForeign,
    Expire,
}

impl SessionChain {
    pub(crate) fn keeps(&self, rule: Rule) -> bool {
        self.removed != Some(rule)
    }

    pub(crate) fn numbers(&self) -> impl Iterator<Item = u8> + use<> {
        1..=self.events
    }

    fn predecessors_in_all(&self) -> u8 {
        match self.layout {
            Layout::Single => 0,
            Layout::Split => 1,
            Layout::Merge => 2,
        }
    }

    fn message_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (process, p) in state.processes.iter().enumerate() {
            for (segment, link) in p.links.iter().enumerate() {
                for (late, queue) in [(false, &link.current), (true, &link.late)] {
                    if queue.is_empty() {
                        continue;
                    }
                    let answered = !late && !link.muted && p.is_alive();
                    if answered {
                        actions.push(Action::Apply { process, segment, late, answered });
                    }
                    if !answered || p.reconnects > 0 {
                        actions.push(Action::Apply { process, segment, late, answered: false });
                    }
                    if state.left.losses > 0 {
                        actions.push(Action::Lose { process, segment, late });
                    }
                }
            }
        }
    }

    fn writer_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (process, p) in state.processes.iter().enumerate().filter(|(_, p)| p.is_alive()) {
            for (segment, link) in p.links.iter().enumerate() {
                if p.may_open(self, segment) {
                    actions.push(Action::Open { process, segment });
                }
                if link.is_connected() && p.reconnects > 0 {
                    actions.push(Action::Disconnect { process, segment });
                }
                for (skip, count) in p.sendable(self, segment) {
                    actions.push(Action::Send { process, segment, skip, count });
                }
            }
            if process == 1 && p.has_finished(self) && p.phase == Phase::Running {
                actions.push(Action::Close { process });
            }
        }
    }

    fn apply_head(&self, state: &mut State, at: (usize, usize), late: bool, answered: bool) {
        let (process, segment) = at;
        let second_runs = state.processes.get(1).is_some_and(|p| p.phase == Phase::Running);
        let link = &mut state.processes[process].links[segment];
        let message = if late { link.late.remove(0) } else { link.current.remove(0) };
        let before = state.segments[segment].stored.len();
        let answer = state.segments[segment].apply(self, &message);
        if process == 0 && second_runs && state.segments[segment].stored.len() > before {
            state.fence_broken = true;
        }
        if answered {
            state.processes[process].on_answer(self, segment, &message, answer);
        } else if !late {
            state.processes[process].links[segment].muted = true;
        }
    }

    fn seal_next(&self, state: &mut State) {
        state.segments[usize::from(state.sealed)].sealed = true;
        state.sealed += 1;
    }

    /// All stored numbers of `key`, in the order in which a reader gets them.
    fn read(&self, state: &State, key: u8) -> Vec<u8> {
        let stored = self.layout.road(key).flat_map(|segment| &state.segments[segment].stored);
        stored.copied().filter(|number| key_of(*number) == key).collect()
    }

    fn is_stored(&self, state: &State, number: u8) -> bool {
        state.segments.iter().any(|segment| segment.stored.contains(&number))
    }
}

pub(crate) fn key_of(number: u8) -> u8 {
    number % 2
}

impl Model for SessionChain {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            segments: vec![Segment::default(); self.layout.segments()],
            processes: vec![Process::first(self)],
            sealed: 0,
            published: false,
            left: self.bounds.clone(),
            fence_broken: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.message_actions(state, actions);
        self.writer_actions(state, actions);
        if self.second_process && state.processes.len() == 1 {
            actions.push(Action::StartSecond);
        }
        if state.left.leader_changes > 0 {
            actions.push(Action::ChangeLeader);
        }
        if state.left.foreign_appends > 0 {
            actions.push(Action::AppendForeign);
        }
        if state.left.expiries > 0 {
            actions.push(Action::Expire);
        }
        let all_sealed = state.sealed == self.predecessors_in_all();
        if !all_sealed {
            actions.push(Action::Seal);
        }
        let scales = self.layout != Layout::Single && !state.published;
        if scales && (all_sealed || !self.keeps(Rule::SealBeforePublish)) {
            actions.push(Action::Publish);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Open { process, segment } => state.processes[process].open(self, segment),
            Action::Send { process, segment, skip, count } => {
                state.processes[process].send(self, segment, skip, count);
            }
            Action::Apply { process, segment, late, answered } => {
                self.apply_head(&mut state, (process, segment), late, answered);
            }
            Action::Lose { process, segment, late } => {
                let link = &mut state.processes[process].links[segment];
                if late {
                    link.late.remove(0)
                } else {
                    link.current.remove(0)
                };
                state.left.losses -= 1;
            }
            Action::Disconnect { process, segment } => {
                state.processes[process].reconnects -= 1;
                state.processes[process].links[segment].disconnect();
            }
            Action::Close { process } => {
                state.processes[process].phase = Phase::Closed;
                state.segments.iter_mut().for_each(|segment| segment.forget(self));
            }
            Action::StartSecond => state.processes.push(Process::second(self, state.published)),
            Action::ChangeLeader => {
                state.left.leader_changes -= 1;
                let links = state.processes.iter_mut().flat_map(|p| &mut p.links);
                links.for_each(Link::fall);
            }
            Action::Seal => self.seal_next(&mut state),
            Action::Publish => state.published = true,
            Action::AppendForeign => {
                state.left.foreign_appends -= 1;
                state.segments[0].foreign += 1;
            }
            Action::Expire => {
                state.left.expiries -= 1;
                state.segments[0].forget(self);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("no acknowledged event is lost", |model: &Self, state: &State| {
                let mut acknowledged = state.processes.iter().flat_map(|p| &p.acknowledged);
                acknowledged.all(|number| model.is_stored(state, *number))
            }),
            Property::always("no event is stored twice", |model: &Self, state: &State| {
                let stored = || state.segments.iter().flat_map(|s| &s.stored);
                model.numbers().all(|number| stored().filter(|n| **n == number).count() <= 1)
            }),
            Property::always("events of a key are in order", |model: &Self, state: &State| {
                (0..2).all(|key| model.read(state, key).is_sorted())
            }),
            Property::always("no refused event is stored", |model: &Self, state: &State| {
                let mut refused = state.processes.iter().flat_map(|p| &p.refused);
                !refused.any(|number| model.is_stored(state, *number))
            }),
            Property::always("a fenced process stores nothing", |_, state: &State| {
                !state.fence_broken
            }),
            Property::sometimes(
                "everything is decided after every mishap",
                |model, state: &State| {
                    state.left == Bounds::default()
                        && state.processes.iter().any(|p| p.reconnects == 0)
                        && state.processes.iter().any(|p| p.has_finished(model))
                },
            ),
        ];
        properties.extend(self.reachability());
        properties
    }
}

impl SessionChain {
    /// What a scenario must be able to reach, so that its success means something.
    fn reachability(&self) -> Vec<Property<Self>> {
        let mut properties = Vec::new();
        if self.layout != Layout::Single {
            properties.push(Property::sometimes(
                "a scale is crossed",
                |model: &Self, state: &State| {
                    let old_and_new =
                        [0, 2].map(|segment| !state.segments[segment].stored.is_empty());
                    old_and_new == [true; 2]
                        && state.processes.iter().any(|p| p.has_finished(model))
                },
            ));
        }
        if self.second_process {
            properties.push(Property::sometimes("a process is fenced", |_, state: &State| {
                state.processes[0].phase == Phase::Fenced
            }));
            properties.push(Property::sometimes(
                "both processes stored",
                |model, state: &State| {
                    let [first, second] = &state.processes[..] else { return false };
                    !first.acknowledged.is_empty()
                        && first.acknowledged.len() < model.events.into()
                        && second.has_finished(model)
                },
            ));
        }
        if self.conditional.is_some() {
            properties.push(Property::sometimes("an offset is refused", |_, state: &State| {
                !state.processes[0].refused.is_empty()
            }));
        }
        if self.bounds.expiries > 0 {
            properties
                .push(Property::sometimes("an unknown outcome is told", |_, state: &State| {
                    state.processes[0].phase == Phase::Expired
                }));
        }
        properties
    }
}
