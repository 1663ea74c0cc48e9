//! Small `stateright` models of the protocols, explored exhaustively at small bounds.
//!
//! Each rule that the design marks as closing a hole is a switch of its model; the tests show that
//! the model holds with all rules and fails with any one taken out.

pub mod session_chain;
