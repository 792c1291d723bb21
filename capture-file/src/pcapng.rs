//! The pcapng format (draft-ietf-opsawg-pcapng).
//!
//! A block's lengths are checked here, before anything is made of it; what is in the blocks is
//! read by `pcap-parser`. What that crate does not do is done here: the obsolete packet block,
//! times in powers of two, and an offset of times in a big-endian section.

use crate::{MAX_FRAME, Nanos, What};
use pcap_parser::pcapng::{
    InterfaceDescriptionBlock, parse_enhancedpacketblock_be, parse_enhancedpacketblock_le,
    parse_interfacedescriptionblock_be, parse_interfacedescriptionblock_le,
    parse_sectionheaderblock,
};
use pcap_parser::traits::PcapNGPacketBlock;
use std::ops::Range;

/// The block that a section begins with, the same in both byte orders.
pub(crate) const SECTION: u32 = 0x0a0d_0d0a;
/// The longest block of those that are read as a whole: the longest frame, and options.
pub(crate) const MAX_BLOCK: u32 = 4 << 20;
/// Most interfaces of a section.
const MAX_INTERFACES: usize = 65_536;

const INTERFACE: u32 = 1;
const PACKET: u32 = 2;
const SIMPLE: u32 = 3;
const ENHANCED: u32 = 6;
/// Option if_tsoffset of an interface (section 4.2).
const TS_OFFSET: u16 = 14;

const ORDER: u32 = 0x1a2b_3c4d;

/// What is kept of an interface.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link: u16,
    /// Bytes captured of a frame at most; 0 is no limit.
    snaplen: u32,
    unit: Unit,
    /// Seconds to be added.
    offset: i64,
}

/// How long a unit of an interface's time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// This many ns.
    Nanos(u64),
    /// A second is this many.
    PerSecond(u128),
    /// A resolution that no time can be made of.
    Unknown,
}

impl Unit {
    /// By option if_tsresol: a negative power of 10, or, with the upper bit set, of 2.
    fn new(resolution: u8) -> Self {
        let power = u32::from(resolution & 0x7f);
        match resolution {
            0..=9 => Self::Nanos(10u64.pow(9 - power)),
            10..=38 => Self::PerSecond(10u128.pow(power)),
            39..=127 => Self::Unknown,
            _ => Self::PerSecond(1u128 << power),
        }
    }

    #[inline]
    fn nanos(self, ticks: u64) -> Option<u128> {
        match self {
            Self::Nanos(unit) => Some(u128::from(ticks) * u128::from(unit)),
            Self::PerSecond(per) => {
                let (seconds, rest) = (u128::from(ticks) / per, u128::from(ticks) % per);
                // `rest` is below 2^64, so the product is below 2^94.
                Some(seconds * 1_000_000_000 + rest * 1_000_000_000 / per)
            }
            Self::Unknown => None,
        }
    }
}

/// A section of a file, as far as it is read.
#[derive(Debug, Default)]
pub(crate) struct Section {
    pub big: bool,
    interfaces: Vec<Interface>,
}

/// What a block's beginning says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub kind: u32,
    pub len: u32,
}

/// What a block turned out to be.
pub(crate) enum Block {
    /// A frame: where in the block its bytes are, and what is said of it.
    Frame(Range<usize>, Packet),
    /// Something else.
    Other,
}

/// What is said of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub at: Option<Nanos>,
    pub link: u16,
    pub interface: u32,
    pub len: u32,
}

impl Section {
    fn word(&self, b: [u8; 4]) -> u32 {
        if self.big {
            u32::from_be_bytes(b)
        } else {
            u32::from_le_bytes(b)
        }
    }

    /// Reads the first 12 bytes of a block. At the beginning of a section the byte order is that of
    /// the section.
    pub fn head(&mut self, bytes: &[u8; 12], at: u64) -> Result<Head, What> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *bytes;
        let is_section = u32::from_le_bytes([a, b, c, d]) == SECTION;
        if is_section {
            self.big = match u32::from_le_bytes([i, j, k, l]) {
                ORDER => false,
                o if o.swap_bytes() == ORDER => true,
                _ => {
                    return Err(What::Block {
                        at,
                        kind: "the head of a section without a byte order",
                    });
                }
            };
        }
        let head = Head {
            kind: self.word([a, b, c, d]),
            len: self.word([e, f, g, h]),
        };
        // A section's head has 28 bytes.
        let least = if is_section { 28 } else { 12 };
        if head.len < least || !head.len.is_multiple_of(4) {
            return Err(What::BlockLength {
                at,
                len: head.len,
                most: None,
            });
        }
        if head.is_read() && head.len > MAX_BLOCK {
            return Err(What::BlockLength {
                at,
                len: head.len,
                most: Some(MAX_BLOCK),
            });
        }
        Ok(head)
    }

    /// Checks the length at the end of a block.
    #[inline]
    pub fn tail(&self, head: Head, tail: [u8; 4], at: u64) -> Result<(), What> {
        let (first, second) = (head.len, self.word(tail));
        if first == second {
            Ok(())
        } else {
            Err(What::TwoLengths { at, first, second })
        }
    }

    /// Reads a whole block of one of the kinds that are read, `number` frames into the file.
    pub fn block(&mut self, head: Head, bytes: &[u8], at: u64, number: u64) -> Result<Block, What> {
        match head.kind {
            SECTION => self.section(bytes, at),
            INTERFACE => self.interface(bytes, at),
            ENHANCED => self.enhanced(bytes, at, number),
            SIMPLE => self.simple(bytes, at, number),
            PACKET => self.packet(bytes, at, number),
            _ => Ok(Block::Other),
        }
    }

    fn section(&mut self, bytes: &[u8], at: u64) -> Result<Block, What> {
        let short = What::Block {
            at,
            kind: "the head of a section",
        };
        let Ok((_, h)) = parse_sectionheaderblock(bytes) else {
            return Err(short);
        };
        if h.major_version != 1 {
            return Err(What::Version {
                format: "pcapng",
                found: (h.major_version, h.minor_version),
                read: "1.0",
            });
        }
        self.interfaces.clear();
        Ok(Block::Other)
    }

    fn interface(&mut self, bytes: &[u8], at: u64) -> Result<Block, What> {
        let parsed = if self.big {
            parse_interfacedescriptionblock_be(bytes)
        } else {
            parse_interfacedescriptionblock_le(bytes)
        };
        let Ok((_, i)) = parsed else {
            return Err(What::Block {
                at,
                kind: "the description of an interface",
            });
        };
        if self.interfaces.len() == MAX_INTERFACES {
            return Err(What::Interfaces {
                at,
                most: MAX_INTERFACES,
            });
        }
        self.interfaces.push(Interface {
            link: i.linktype.0 as u16,
            snaplen: i.snaplen,
            unit: Unit::new(i.if_tsresol),
            offset: self.offset(&i),
        });
        Ok(Block::Other)
    }

    /// Seconds that are to be added to an interface's times.
    fn offset(&self, interface: &InterfaceDescriptionBlock<'_>) -> i64 {
        let option = interface.options.iter().find(|o| o.code.0 == TS_OFFSET);
        let value = option.and_then(|o| o.as_bytes().ok()?.first_chunk::<8>().copied());
        value.map_or(0, |b| {
            if self.big {
                i64::from_be_bytes(b)
            } else {
                i64::from_le_bytes(b)
            }
        })
    }

    fn of(&self, interface: u32, at: u64) -> Result<Interface, What> {
        let known = self.interfaces.len();
        let found = self.interfaces.get(interface as usize);
        found.copied().ok_or(What::Interface {
            at,
            interface,
            known,
        })
    }

    fn enhanced(&self, bytes: &[u8], at: u64, number: u64) -> Result<Block, What> {
        let parsed = if self.big {
            parse_enhancedpacketblock_be(bytes)
        } else {
            parse_enhancedpacketblock_le(bytes)
        };
        let Ok((_, p)) = parsed else {
            return Err(What::Block {
                at,
                kind: "the block of a frame",
            });
        };
        let captured = p.packet_data().len();
        let i = self.of(p.if_id, at)?;
        // The data follows 28 bytes of the block's own.
        let ticks = u64::from(p.ts_high) << 32 | u64::from(p.ts_low);
        frame(28, captured, at, number).map(|range| {
            Block::Frame(
                range,
                Packet {
                    at: time(&i, ticks),
                    link: i.link,
                    interface: p.if_id,
                    len: p.origlen.max(captured as u32),
                },
            )
        })
    }

    /// Has no time, and is always of the first interface.
    fn simple(&self, bytes: &[u8], at: u64, number: u64) -> Result<Block, What> {
        let kind = "the block of a frame";
        let short = || What::Block { at, kind };
        let len = *bytes
            .get(8..)
            .and_then(<[u8]>::first_chunk)
            .ok_or_else(short)?;
        let len = self.word(len);
        let i = self.of(0, at)?;
        // Block type, length, original length, data, length.
        let room = bytes.len().checked_sub(16).ok_or_else(short)?;
        let limit = if i.snaplen == 0 { u32::MAX } else { i.snaplen };
        let captured = len.min(limit) as usize;
        if captured > room {
            return Err(short());
        }
        frame(12, captured, at, number).map(|range| {
            Block::Frame(
                range,
                Packet {
                    at: None,
                    link: i.link,
                    interface: 0,
                    len,
                },
            )
        })
    }

    /// The obsolete packet block (appendix A).
    fn packet(&self, bytes: &[u8], at: u64, number: u64) -> Result<Block, What> {
        let kind = "the obsolete block of a frame";
        let short = || What::Block { at, kind };
        let b = bytes
            .get(8..)
            .and_then(<[u8]>::first_chunk::<20>)
            .ok_or_else(short)?;
        let interface = if self.big {
            u16::from_be_bytes([b[0], b[1]])
        } else {
            u16::from_le_bytes([b[0], b[1]])
        };
        let word = |at: usize| self.word([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let ticks = u64::from(word(4)) << 32 | u64::from(word(8));
        let (captured, len) = (word(12) as usize, word(16));
        let i = self.of(u32::from(interface), at)?;
        let end = captured.checked_add(28 + 4);
        if end.is_none_or(|end| end > bytes.len()) {
            return Err(short());
        }
        frame(28, captured, at, number).map(|range| {
            Block::Frame(
                range,
                Packet {
                    at: time(&i, ticks),
                    link: i.link,
                    interface: u32::from(interface),
                    len: len.max(captured as u32),
                },
            )
        })
    }
}

/// Where a frame is in its block, if it is no longer than one can be.
fn frame(from: usize, captured: usize, at: u64, number: u64) -> Result<Range<usize>, What> {
    if captured > MAX_FRAME {
        return Err(What::FrameLength {
            at,
            frame: number + 1,
            len: captured as u32,
        });
    }
    Ok(from..from + captured)
}

impl Head {
    /// Blocks of other kinds are passed over, and need not be held.
    pub const fn is_read(self) -> bool {
        matches!(self.kind, SECTION | INTERFACE | ENHANCED | SIMPLE | PACKET)
    }
}

/// An interface's time in ns since 1970, as far as such a number goes.
#[inline]
fn time(i: &Interface, ticks: u64) -> Option<Nanos> {
    if let (Unit::Nanos(unit), 0) = (i.unit, i.offset) {
        return Some(ticks.saturating_mul(unit));
    }
    let nanos = i128::try_from(i.unit.nanos(ticks)?).unwrap_or(i128::MAX);
    let nanos = nanos.saturating_add(i128::from(i.offset) * 1_000_000_000);
    Some(nanos.clamp(0, i128::from(u64::MAX)) as Nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_of_time_is_a_power_of_ten_or_of_two() {
        for (resolution, ticks, nanos) in [
            (6, 1_500_000, Some(1_500_000_000)),
            (9, 7, Some(7)),
            (0, 3, Some(3_000_000_000)),
            (3, 3, Some(3_000_000)),
            (12, 5_500, Some(5)),
            (19, u64::MAX, Some(1_844_674_407)),
            (0x80 | 10, 512, Some(500_000_000)),
            (0x80 | 32, 3 << 31, Some(1_500_000_000)),
            (0x80, 2, Some(2_000_000_000)),
            (0x80 | 127, u64::MAX, Some(0)),
            (39, 1, None),
            (127, 1, None),
        ] {
            assert_eq!(Unit::new(resolution).nanos(ticks), nanos, "{resolution}");
        }
    }

    #[test]
    fn an_offset_moves_times_and_none_is_before_1970() {
        let at = |resolution, offset, ticks| {
            let i = Interface {
                link: 1,
                snaplen: 0,
                unit: Unit::new(resolution),
                offset,
            };
            time(&i, ticks)
        };
        assert_eq!(at(6, 10, 5), Some(10_000_005_000));
        assert_eq!(at(6, -10, 15_000_000), Some(5_000_000_000));
        assert_eq!(at(6, -10, 5), Some(0));
        assert_eq!(at(6, i64::MAX, 5), Some(u64::MAX));
        assert_eq!(at(0, 0, u64::MAX), Some(u64::MAX));
        assert_eq!(at(99, 5, 5), None);
    }
}
