//! The replay engine as a library: what its binary runs, for tests and benches to run as well.
//!
//! The worker loop ([`worker`], driven by [`lcore`]) is generic over the ports it polls: the very
//! code that runs on an lcore runs over a memory port. [`setup`] builds everything from a
//! configuration, [`control`] runs it to its end.
#![forbid(unsafe_code)]

pub mod answering;
pub mod args;
mod buffers;
pub mod claims;
pub mod control;
pub mod egress;
pub mod lcore;
pub mod links;
pub mod merge;
pub mod offline;
mod owner;
mod plan;
pub mod progress;
pub mod report;
pub mod rewind;
pub mod setup;
pub mod snapshots;
pub mod spread;
pub mod tunnels;
pub mod unseen;
pub mod watch;
pub mod wires;
pub mod worker;
