//! Long-term storage: immutable objects that are created once under a unique name.
//!
//! What is here today is the part that other formats refer to for ever: how an object is named.

pub mod object_name;

pub use object_name::{ObjectName, ObjectNameError};
