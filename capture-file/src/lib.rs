//! Capture files: pcap and pcapng, plain or compressed by gzip or zstd, one or many.
//!
//! A [`Reader`] reads one file, frame by frame. [`Clocked`] puts in order what a file says of
//! time. [`Merge`] makes one sequence of many files. [`find`] says which files a name means. A
//! [`Schedule`] leaves out the time in which nothing happens.
//!
//! Holds always, whatever is in a file: memory is bounded, however long the file is and whatever
//! lengths it claims; nothing panics; what stands before the place that is damaged is read; and
//! [`Error`] says what is wrong, in which file, where in it, and what would be right.
//!
//! Formats: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng, and what libpcap reads beside them.
#![forbid(unsafe_code)]

mod clocked;
mod error;
mod files;
mod input;
pub mod link;
mod merge;
mod pcap;
mod pcapng;
mod reader;
mod schedule;

pub use clocked::{Clocked, Disorder};
pub use error::{Error, What};
pub use files::{Found, STDIN, find};
pub use input::{Input, open};
pub use merge::{Merge, Opener, Stamped};
pub use reader::Reader;
pub use schedule::Schedule;

/// Nanoseconds: since 1970 for an instant.
pub type Nanos = u64;

/// The longest frame that there is, in bytes: the largest snapshot length of libpcap
/// (pcap-int.h, `MAXIMUM_SNAPLEN`). What claims to be longer is damaged.
pub const MAX_FRAME: usize = 262_144;

/// One frame of a capture file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// When it was captured; `None` if the file does not say.
    pub at: Option<Nanos>,
    /// Its link type, as LINKTYPE_ numbers have it (<https://www.tcpdump.org/linktypes.html>).
    pub link: u16,
    /// The interface that it was captured on: its number in the section of a pcapng file, 0 in a
    /// pcap file.
    pub interface: u32,
    /// How long it was; more than `bytes` if its end was not captured.
    pub len: u32,
    /// What was captured of it.
    pub bytes: &'a [u8],
}
