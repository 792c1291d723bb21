//! What a TCP segment says apart from its payload: the one form in which segments are decoded,
//! built, sent over the control link and handed to the session core.

use crate::{Flow, Seq};
use arrayvec::ArrayVec;
use std::fmt;

/// TCP control bits (RFC 9293 section 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment field is significant.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer is significant.
    pub const URG: Self = Self(0x20);

    /// True if every bit of `other` is set.
    #[inline]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of both.
    #[inline]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// How many sequence numbers SYN and FIN take.
    #[inline]
    pub const fn sequence_len(self) -> u32 {
        (self.0 & 1) as u32 + ((self.0 >> 1) & 1) as u32
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (b'F', 1u8),
            (b'S', 2),
            (b'R', 4),
            (b'P', 8),
            (b'.', 16),
            (b'U', 32),
        ];
        for (c, bit) in names {
            if self.0 & bit != 0 {
                write!(f, "{}", c as char)?;
            }
        }
        Ok(())
    }
}

/// The options a segment carries, of those this project uses. Unknown options are skipped,
/// malformed ones end the list (RFC 9293 section 3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Maximum segment size (RFC 9293 section 3.7.1), in bytes; only on SYN.
    pub mss: Option<u16>,
    /// Window scale shift count (RFC 7323 section 2.2), at most 14; only on SYN.
    pub window_scale: Option<u8>,
    /// SACK permitted (RFC 2018 section 2); only on SYN.
    pub sack_permitted: bool,
    /// TSval and TSecr (RFC 7323 section 3.2).
    pub timestamps: Option<(u32, u32)>,
    /// SACK blocks (RFC 2018 section 3), left and right edge; the first `sack_count` are valid.
    pub sack: [(Seq, Seq); 4],
    /// How many of `sack` are valid.
    pub sack_count: u8,
}

impl Options {
    /// The SACK blocks that the segment carries.
    #[inline]
    pub fn sack_blocks(&self) -> &[(Seq, Seq)] {
        self.sack.get(..self.sack_count as usize).unwrap_or(&[])
    }

    /// Adds a SACK block; the fifth and later ones are left out, as they are on the wire.
    pub fn push_sack(&mut self, left: Seq, right: Seq) {
        if let Some(slot) = self.sack.get_mut(self.sack_count as usize) {
            *slot = (left, right);
            self.sack_count += 1;
        }
    }
}

/// A TCP segment without its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// From whom to whom.
    pub flow: Flow,
    /// Sequence number of the first byte (or of the SYN).
    pub seq: Seq,
    /// Acknowledgment number; meaningful with [`Flags::ACK`].
    pub ack: Seq,
    /// Control bits.
    pub flags: Flags,
    /// The window field as it stands on the wire, not scaled.
    pub window: u16,
    /// The urgent pointer, an offset from `seq` (RFC 9293 section 3.8.5); meaningful with
    /// [`Flags::URG`], otherwise 0.
    pub urgent: u16,
    /// Options.
    pub options: Options,
    /// Payload bytes that the IP length says the segment has, captured or not.
    pub payload_len: u32,
}

impl Head {
    /// Sequence number after the segment: payload, SYN and FIN counted.
    #[inline]
    pub fn end(&self) -> Seq {
        self.seq + self.payload_len + self.flags.sequence_len()
    }
}

/// Room for all headers of one frame: Ethernet, IPv6 and TCP with 40 bytes of options, and two VLAN
/// tags.
pub const MAX_HEADERS: usize = 14 + 8 + 40 + 60;

/// The headers of one frame, from Ethernet to the last TCP option.
pub type HeaderBuf = ArrayVec<u8, MAX_HEADERS>;
