//! What can go wrong on a link. Each error is one sentence that names what was found and what would
//! be right.

use thiserror::Error;

/// Why bytes, a message or a connection were refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The stream is not one of this protocol.
    #[error(
        "the peer does not speak the control link's protocol: a frame begins with {found:02x?}, expected \"RPLK\""
    )]
    Magic {
        /// The first bytes of the frame.
        found: [u8; 4],
    },
    /// The peer's version is not one that this side speaks.
    #[error("version {offered} offered, this side speaks {min}\u{2013}{max}")]
    Version {
        /// What the peer said.
        offered: u8,
        /// The oldest version of this side.
        min: u8,
        /// The newest version of this side.
        max: u8,
    },
    /// A kind of frame that this version does not have.
    #[error(
        "frame kind {found} is unknown, version {} has kinds 1\u{2013}11",
        crate::VERSION
    )]
    Kind {
        /// The kind byte.
        found: u8,
    },
    /// A frame longer than the protocol allows.
    #[error("a {what} frame of {found} bytes is too long, at most {max} are accepted")]
    TooLong {
        /// Which frame.
        what: &'static str,
        /// Its body's length in bytes.
        found: usize,
        /// The longest accepted.
        max: usize,
    },
    /// A body ends before the field that should follow.
    #[error("a {what} ends early: {needed} more bytes expected, {left} are there")]
    Truncated {
        /// Which message or part of it.
        what: &'static str,
        /// Bytes that the next field takes.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// A body has more bytes than its fields take.
    #[error("a {what} has {left} bytes too many at its end")]
    Trailing {
        /// Which message.
        what: &'static str,
        /// Bytes left over.
        left: usize,
    },
    /// A field has a value that it cannot have.
    #[error("{what} is {found}, accepted: {accepted}")]
    Invalid {
        /// Which message and field.
        what: &'static str,
        /// The value.
        found: u64,
        /// What would be right.
        accepted: &'static str,
    },
    /// A message that may not come in this state of the connection.
    #[error("a {what} came {when}")]
    Unexpected {
        /// Which message.
        what: &'static str,
        /// The state of the connection.
        when: &'static str,
    },
    /// The two ends have different keys.
    #[error("the peer does not have the same key: check key_file on both sides")]
    WrongKey,
    /// This side has a key and the peer has none.
    #[error(
        "the peer has no key, this side requires one: set key_file on both sides or on neither"
    )]
    PeerHasNoKey,
    /// The peer has a key and this side has none.
    #[error(
        "the peer requires a key, this side has none: set key_file on both sides or on neither"
    )]
    PeerHasKey,
    /// A sealed frame does not open: it was changed or is out of order.
    #[error("a sealed frame of the peer does not open: it was damaged or altered on its way")]
    Sealed,
    /// The Noise library failed in a way that no peer can cause.
    #[error("the Noise handshake cannot be set up: {0}")]
    Noise(String),
    /// The peer refused this side, in its words.
    #[error("the peer refused the link: {0}")]
    Refused(String),
    /// Nothing was heard from the peer for too long.
    #[error("nothing heard from the peer for {millis} ms")]
    Dead {
        /// How long it was silent.
        millis: u64,
    },
    /// The link was not established in time, whatever the peer has sent.
    #[error("hello and handshake were not over within {millis} ms")]
    TooSlow {
        /// How long they may take.
        millis: u64,
    },
    /// The peer does not read as fast as this side writes: the message was not queued.
    #[error("the peer does not read fast enough: {queued} bytes wait for it")]
    Backlog {
        /// Bytes that wait.
        queued: usize,
    },
    /// A message cannot be sent before both ends have said hello.
    #[error("the link is not established yet")]
    NotEstablished,
    /// The connection has ended; a new one is needed.
    #[error("the link has ended")]
    Ended,
}
