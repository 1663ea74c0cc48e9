//! Scopes: namespaces of streams.

use std::collections::BTreeMap;

use common::{ScopeName, StreamId, StreamName, WallTime};

use crate::machine::ControllerMachine;
use crate::machine::records::Key;
use crate::outcome::{Accepted, Outcome, Refusal};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    pub created: WallTime,
    /// By name; an index over the streams, not saved. A stream stays in it until it is deleted to
    /// the end.
    pub streams: BTreeMap<StreamName, StreamId>,
}

impl ControllerMachine {
    pub(super) fn create_scope(&mut self, scope: &ScopeName, now: WallTime) -> Outcome {
        self.initialized()?;
        let created = !self.state.scopes.contains_key(scope);
        if created {
            self.add_scope(scope, now);
        }
        Ok(Accepted::ScopeCreated { created })
    }

    pub(super) fn add_scope(&mut self, scope: &ScopeName, now: WallTime) {
        let made = Scope { created: now, streams: BTreeMap::new() };
        self.state.scopes.insert(scope.clone(), made);
        self.dirty.insert(Key::Scope(scope.clone()));
    }

    pub(super) fn delete_scope(&mut self, scope: &ScopeName) -> Outcome {
        let streams = self.streams_of(scope)?;
        if let Some((first, _)) = streams.first_key_value() {
            return Err(Refusal::ScopeNotEmpty {
                scope: scope.clone(),
                streams: streams.len(),
                first: first.to_string(),
            });
        }
        self.state.scopes.remove(scope);
        self.dirty.insert(Key::Scope(scope.clone()));
        Ok(Accepted::ScopeDeleted)
    }
}
