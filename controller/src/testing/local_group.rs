//! A controller group in memory: what is submitted is applied at once.

use std::sync::{Mutex, MutexGuard};

use common::Term;
use futures::future::{BoxFuture, ready};
use replica::StateMachine;
use replica::handle::Leadership;
use tokio::sync::watch;

use crate::group::{Group, GroupError, View};
use crate::machine::ControllerMachine;
use crate::operation::Operation;
use crate::outcome::Outcome;
use crate::testing::apply;

pub(crate) struct LocalGroup {
    machine: Mutex<ControllerMachine>,
    leadership: watch::Sender<Leadership>,
    submitted: Mutex<Vec<Operation>>,
    /// Another leader was elected, and this node has not heard of it.
    pub(crate) deposed: Mutex<bool>,
    /// Operations are applied, but their outcome is said to be unknown, this many times.
    pub(crate) lose_outcomes: Mutex<usize>,
}

impl LocalGroup {
    pub(crate) fn leading(machine: ControllerMachine, term: u64) -> Self {
        let leadership = Leadership { serving: Some(Term(term)), leader: Some(1) };
        Self {
            machine: Mutex::new(machine),
            leadership: watch::Sender::new(leadership),
            submitted: Mutex::default(),
            deposed: Mutex::new(false),
            lose_outcomes: Mutex::new(0),
        }
    }

    pub(crate) fn machine(&self) -> MutexGuard<'_, ControllerMachine> {
        self.machine.lock().unwrap()
    }

    pub(crate) fn lead(&self, term: Option<u64>) {
        self.leadership.send_replace(Leadership { serving: term.map(Term), leader: None });
    }

    pub(crate) fn submitted(&self) -> Vec<Operation> {
        self.submitted.lock().unwrap().clone()
    }

    fn check(&self) -> Result<(), GroupError> {
        let serving = self.leadership.borrow().serving.filter(|_| !*self.deposed.lock().unwrap());
        serving.map(|_| ()).ok_or(GroupError::NotLeader { hint: None })
    }
}

impl Group for LocalGroup {
    fn submit(&self, operation: Operation) -> BoxFuture<'_, Result<Outcome, GroupError>> {
        let outcome = self.check().and_then(|()| {
            let mut machine = self.machine();
            let outcome = apply(&mut machine, &operation);
            machine.round_done();
            self.submitted.lock().unwrap().push(operation);
            let mut lose = self.lose_outcomes.lock().unwrap();
            if *lose > 0 {
                *lose -= 1;
                return Err(GroupError::Unknown);
            }
            Ok(outcome)
        });
        Box::pin(ready(outcome))
    }

    fn view(&self, look: View) -> BoxFuture<'_, Result<(), GroupError>> {
        let looked = self.check().map(|()| look(&self.machine()));
        Box::pin(ready(looked))
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }
}
