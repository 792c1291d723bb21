//! The session core: everything between a decoded frame of the mirror and a segment for the target.
//!
//! A **capture flow** ([`Session`](session)) turns what the mirror shows of one client into an
//! ordered byte stream cut into **turns**; a **replica** is a TCP client endpoint that carries
//! those turns to the target over a connection of its own; a **gate** between the two lets a turn
//! go when the target has answered the one before. [`Core`] owns all of it for one worker core.
//!
//! It is sans-IO: no clock, no randomness, no sockets and no DPDK. Time and seeds are arguments,
//! segments leave through [`Egress`], payload is whatever implements [`wire::io::Payload`]. What
//! always holds:
//!
//! - `production.turns x copies = replayed.turns + lost.turns + in_flight.turns`, and the same for
//!   bytes, after every call;
//! - a byte that is sent was captured, and every captured byte is replayed, in flight, or lost with
//!   a reason;
//! - after [`Core::new`] nothing allocates: all tables, slabs and wheels have their final capacity
//!   from the start.
#![forbid(unsafe_code)]

mod capture;
pub mod core;
pub mod counters;
mod due;
mod fan;
pub mod histogram;
mod ledger;
pub mod owner;
pub mod params;
mod piece;
mod pos;
mod replica;
pub mod servers;
mod slab;
pub mod slots;
mod table;
mod tcp;
pub mod wheel;

pub use crate::core::{Core, Egress, Refused, Side};
pub use counters::{Counters, Loss, TargetCounters, Unused};
pub use owner::{HashBy, Ownership};
pub use params::{Origin, Pace, Params, Place, Shard, Target, Transfer};
pub use servers::{ServerTable, Sources};
