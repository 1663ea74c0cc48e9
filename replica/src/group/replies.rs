//! Outcomes on their way back.

use std::sync::Arc;

use crate::propose::{OutcomeSink, ProposeError, Reply};

/// The sinks that got something in the current round.
pub(super) struct Round<O> {
    sinks: Vec<Arc<dyn OutcomeSink<O>>>,
}

impl<O> Default for Round<O> {
    fn default() -> Self {
        Self { sinks: Vec::new() }
    }
}

impl<O> Round<O> {
    pub(super) fn deliver(&mut self, reply: Reply<O>, outcome: Result<O, ProposeError>) {
        match reply {
            Reply::None => {}
            Reply::Once(sender) => {
                // Whoever waited may have gone away.
                let _ = sender.send(outcome);
            }
            Reply::Sink { sink, tag } => {
                sink.deliver(tag, outcome);
                // Runs of one connection are the rule, so the last one is looked at first.
                if !self.sinks.iter().rev().any(|known| Arc::ptr_eq(known, &sink)) {
                    self.sinks.push(sink);
                }
            }
        }
    }

    /// Tells each sink once that the round is over.
    pub(super) fn finish(&mut self) {
        self.sinks.drain(..).for_each(|sink| sink.round_done());
    }
}
