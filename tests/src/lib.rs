//! Verification of the whole: models that come before their code, the history checker, and the
//! seeded simulation of a node. `docs/testing.md` says how to run and replay them.

pub mod checker;
pub mod history;
pub mod models;
pub mod payload;
#[cfg(test)]
mod planted_container;
#[cfg(test)]
mod planted_log;
pub mod sim;
