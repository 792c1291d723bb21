//! Pure packet knowledge: addresses and flows, checked views, decoding of mirrored and of local
//! frames, header building, checksums, sequence arithmetic, and the traits that packet I/O
//! implements.
//!
//! Nothing here knows DPDK, a clock, a socket or randomness. No function panics on any input; a
//! decoder either returns offsets that lie inside the bytes it was given, or names the reason why
//! not.
#![forbid(unsafe_code)]

pub mod addr;
pub mod arp;
pub mod build;
pub mod checksum;
pub mod decode;
pub mod defragment;
pub mod ethernet;
pub mod hash;
pub mod head;
pub mod host;
pub mod icmp;
pub mod io;
pub mod ipv4;
pub mod ipv6;
pub mod prefix;
pub mod reasons;
pub mod rss;
#[cfg(test)]
mod samples;
pub mod scope;
pub mod seq;
pub mod skip;
pub mod tcp;
pub mod tunnel;
pub mod vlan;

pub use addr::{Addr, Endpoint, Flow};
pub use head::{Flags, Head, Options};
pub use prefix::Prefix;
pub use seq::Seq;
pub use skip::Skip;

/// Nanoseconds: an instant counted from an arbitrary start that all users of one process share, or
/// a length of time.
pub type Nanos = u64;
