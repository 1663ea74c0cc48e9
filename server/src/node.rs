//! The roles of one node, joined.
//!
//! Owner of the log, the groups, the segment store and the controller of this process, and of the
//! order in which they start and stop. Every group has one voter here: this node.

mod stores;
