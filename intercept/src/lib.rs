//! The intercept: absorbs the target's responses, and hands their headers to the engines that
//! claimed them.
//!
//! Receive cores run [`receive::ReceiveCore`] to completion; one thread, [`server`], talks to all
//! engines. They exchange only messages over bounded rings ([`rings`]): claims to the cores,
//! batches of encoded records back. No response is ever forwarded.
//!
//! What always holds: a frame that was received is counted exactly once, as part of a record that
//! was sent or under the reason why not; a slow engine costs counted records and never holds up a
//! core.
#![forbid(unsafe_code)]

pub mod args;
pub mod claims;
mod counters;
mod hash;
mod pending;
mod port;
mod receive;
mod registry;
mod report;
pub mod rings;
pub mod run;
pub mod server;
