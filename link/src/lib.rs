//! The control link between engine and intercept: what travels over it, and the state machine of
//! one connection.
//!
//! The link is a TCP byte stream. The intercept listens (port [`DEFAULT_PORT`]), the engine
//! connects, tells which responses are its own ([`Claim`]), and gets the headers of those
//! ([`Record`], in batches). Everything is sans-IO: [`Connection`] is handed the bytes that arrived
//! and the time, and yields messages and the bytes to write; it reads no clock and no socket.
//!
//! What always holds:
//! - Decoding never panics and never allocates more than the bytes it was given ask for; every
//!   error says what was wrong in one sentence.
//! - Both ends say hello first, in the clear, and refuse what they cannot speak in words. With a
//!   key, both hellos are part of the Noise handshake, so nobody between the ends can change them.
//! - Buffers are bounded: a peer that does not read costs [`Error::Backlog`], never memory. Before
//!   the link is established a peer may fill no more than a short frame, and it has
//!   [`ESTABLISH_WITHIN`] for hello and handshake.
//!
//! The one thing here that is not a function of its arguments: with a key, the Noise handshake
//! draws an ephemeral key from the operating system's random generator, through `snow`. Without a
//! key nothing is random.
//!
//! # Bytes
//!
//! All numbers are in network byte order. A frame is `magic "RPLK" (4) | version (1) | kind (1) |
//! length of the body (2) | body`. With a key, every frame after the handshake has kind 8 (sealed)
//! and its body is a Noise transport message around `kind (1) | body`.
#![forbid(unsafe_code)]

mod claim;
mod clock;
mod codec;
mod connection;
mod error;
mod frame;
mod log_rate;
mod message;
mod noise;
mod output;
mod record;

pub use claim::Claim;
pub use clock::ClockOffset;
pub use connection::{
    Connection, DEAD_AFTER, ESTABLISH_WITHIN, HEARTBEAT_EVERY, OUTPUT_LIMIT, Role, Settings,
};
pub use error::Error;
pub use frame::{HEADER_LEN, MAX_BODY, decode_frame, encode_frame};
pub use log_rate::LogRate;
pub use message::{Features, Hello, MAX_NAME, MAX_REASON, Message, PortReport, Stats};
pub use record::{
    BATCH_BYTES, BATCH_RECORDS, MAX_PREFIX, MAX_RECORD, Record, encode_path_mtu, encode_record,
};

/// The port that the intercept listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 36524;

/// The version of the protocol that this crate speaks.
pub const VERSION: u8 = 2;

/// The oldest version of the protocol that this crate understands.
pub const MIN_VERSION: u8 = 2;

#[cfg(test)]
mod tests;
