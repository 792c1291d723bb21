//! Whether a segment arrived as it was sent: the checksums of IPv4 and TCP.
//!
//! A capture on a host, or a virtual switch's mirror, shows segments before hardware has finished
//! them, and after it has put several together. These forms of an *unfinished* checksum are known,
//! and pass on a mirror:
//!
//! * IPv4 header: zero (left to hardware: Windows, macOS, GSO).
//! * TCP: the sum of the pseudo-header, not complemented (`CHECKSUM_PARTIAL` on Linux, also for GSO
//!   and what GRO has put together; Windows, BSD), with the segment's length or, for segmentation
//!   offload as Windows and some drivers want it, with a length of zero.
//! * TCP: zero, which full offload leaves, and tools that write captures.
//!
//! Damage that leaves exactly one of these is as rare as damage that a checksum does not notice. A
//! port of our own takes the one form that virtual interfaces carry. What was cut cannot be
//! verified, nor can a segment whose pseudo-header has another address than its IP header.

use super::ip::address_bytes;
use crate::checksum::{Sum, checksum};
use crate::ipv4::{self, protocol};
use crate::tcp;
use std::ops::Range;

/// Which unfinished checksums pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unfinished {
    /// Those that virtual interfaces carry: the sum of the pseudo-header with its length.
    Carried,
    /// All that are known.
    Known,
}

/// The checksum of an IP header is right, or was left to hardware. IPv6 has none. An authentication
/// header may follow an IPv4 header.
#[inline]
pub(super) fn header_is_sound(bytes: &[u8]) -> bool {
    let Ok(h) = ipv4::Header::new_checked(bytes) else {
        return true;
    };
    let sum = match bytes.first_chunk::<{ ipv4::MIN_HEADER_LEN }>() {
        // Of a length that is known beforehand, as nearly always.
        Some(fixed) if h.header_len() == fixed.len() => checksum(fixed),
        _ => checksum(bytes.get(..h.header_len()).unwrap_or(bytes)),
    };
    sum == 0 || bytes.get(10..12) == Some(&[0, 0])
}

/// The checksum of a whole segment is right (RFC 9293 section 3.1), or unfinished in a form that
/// passes. `ip` begins with the IP header.
#[inline]
pub(super) fn segment_is_sound(ip: &[u8], segment: &[u8], passes: Unfinished) -> bool {
    sum_is_sound(
        ip,
        segment,
        segment.len(),
        Sum::new().bytes(segment),
        passes,
    )
}

/// [`segment_is_sound`] for a segment of `len` bytes that goes on behind `first`; `sum` is that of
/// all of it.
#[inline]
fn sum_is_sound(ip: &[u8], first: &[u8], len: usize, sum: Sum, passes: Unfinished) -> bool {
    let Some(addresses) = address_bytes(ip) else {
        return true;
    };
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    let without_len = Sum::new().pseudo_of(addresses, protocol::TCP, 0);
    let with_len = without_len.long_word(len);
    if with_len.plus(sum).finish() == 0 {
        return true;
    }
    let found = match first.get(tcp::CHECKSUM) {
        Some(&[high, low]) => u16::from_be_bytes([high, low]),
        // Too short for a header: said by who reads it.
        _ => return true,
    };
    found == !with_len.finish()
        || (passes == Unfinished::Known && (found == 0 || found == !without_len.finish()))
}

/// [`segment_is_sound`] for a segment that stands at `segment` in a frame whose first buffer is
/// `first`; `rest` shows the buffers behind it, and says whether it can.
pub(super) fn chain_is_sound(
    ip: &[u8],
    first: &[u8],
    segment: Range<usize>,
    passes: Unfinished,
    rest: impl FnOnce(&mut dyn FnMut(&[u8])) -> bool,
) -> bool {
    let Some(begun) = first.get(segment.start..) else {
        return true;
    };
    let mut sum = Sum::new().bytes(begun);
    let mut missing = segment.len().saturating_sub(begun.len());
    let shown = rest(&mut |more| {
        // Behind the segment stands padding.
        let more = more.get(..missing).unwrap_or(more);
        missing -= more.len();
        sum = sum.bytes(more);
    });
    !shown || missing > 0 || sum_is_sound(ip, begun, segment.len(), sum, passes)
}
