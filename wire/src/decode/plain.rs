//! The frames that nearly all are: Ethernet without a tag, IPv4 without options, TCP, whole.
//!
//! What always holds: where a segment is found here, the walk over all headers finds the same.

use super::verify::header_is_sound;
use super::{Place, Rules, flow};
use crate::ethernet::{self, ethertype};
use crate::io::Checksum;
use crate::ipv4::{self, protocol};
use crate::{Flow, tcp};

/// Where the IP header begins, the TCP header, and what follows its fixed part.
const IP: usize = ethernet::HEADER_LEN;
const TCP: usize = IP + ipv4::MIN_HEADER_LEN;
const FIXED: usize = TCP + tcp::MIN_HEADER_LEN;

/// The segment of such a frame.
pub(super) struct Plain<'a> {
    pub(super) place: Place,
    pub(super) tcp: tcp::Segment<'a>,
    ip: ipv4::Header<'a>,
}

impl Plain<'_> {
    /// Between whom it is. Made anew each time: a copy of what was just written waits for that.
    #[inline(always)]
    pub(super) fn flow(&self) -> Flow {
        flow((self.ip.src(), self.ip.dst()), &self.tcp)
    }
}

/// Finds the segment of such a frame; `None` leaves any other to the walk.
#[inline(always)]
pub(super) fn segment<'a>(bytes: &'a [u8], frame_len: usize, rules: &Rules) -> Option<Plain<'a>> {
    let h = bytes.first_chunk::<FIXED>()?;
    let word = |at: usize| u16::from_be_bytes([h[at], h[at + 1]]);
    let ipv4 = word(IP - 2) == ethertype::IPV4 && h[IP] == 0x45;
    let fragment = word(IP + 6) & 0x3fff != 0;
    if !ipv4 || fragment || h[IP + 9] != protocol::TCP {
        return None;
    }
    let stated = IP + usize::from(word(IP + 2));
    if stated > frame_len {
        return None;
    }
    let verify = rules.verify;
    if verify.is_some() && !header_is_sound(h.get(IP..TCP)?) {
        return None;
    }
    let place = Place {
        ip: IP,
        tcp: TCP,
        stated,
        end: stated,
        depth: 0,
        scope: rules.scope,
        verify: verify.filter(|_| rules.known != Checksum::Good),
    };
    let t = tcp::Segment::new_checked(bytes.get(TCP..stated.min(bytes.len()))?).ok()?;
    let ip = ipv4::Header::new_checked(h.get(IP..TCP)?).ok()?;
    Some(Plain { place, tcp: t, ip })
}
