//! The log on a simulated disk, against a model of what it was told and what it reported durable.

mod basics;
mod bridge;
mod crash;
mod damage;
mod files;
mod harness;
mod model;
mod moving;
mod real;
mod unknown;
mod unreadable;
mod walk;
