//! A minimal IP host for a port whose interface has no kernel address: it answers ARP, neighbour
//! discovery and ping, and resolves next hops. Sans-IO: frames and time come in as arguments,
//! frames go out through a buffer.
//!
//! It answers for its own addresses and for those it stands in for (client pools), and never takes
//! an address that a neighbour claims: neither announcements nor probes for addresses it merely
//! stands in for are answered. It never sends an answer to its own frames or to those meant for
//! another Ethernet address, which a promiscuous port shows too.

mod neighbors;
mod resolution;
mod responder;

use crate::arp::{self, Operation};
use crate::ethernet::{self, ethertype};
use crate::icmp::{self, Message};
use crate::ipv4::protocol;
use crate::{Addr, Flow, Nanos, Prefix, Seq, Skip, ipv4, ipv6, vlan};
use arrayvec::ArrayVec;
use neighbors::Neighbors;

pub use neighbors::{ATTEMPTS, LIFETIME, MAX_NEIGHBORS, REFRESH, RETRY};
pub use responder::{Answer, Answers, Asked, Responder};

/// Room for one frame, a VLAN tag included.
pub type FrameBuf = ArrayVec<u8, 1518>;

/// Hop limit of what the host sends, and that neighbour discovery must arrive with (RFC 4861
/// section 7.1).
const DISCOVERY_HOPS: u8 = 255;
const TTL: u8 = 64;
const UNSPECIFIED_V4: Addr = Addr::v4([0; 4]);
const UNSPECIFIED_V6: Addr = Addr::v6([0; 16]);

/// What a host is made from.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// The port's Ethernet address.
    pub mac: [u8; 6],
    /// Own addresses, each with the prefix length of its network.
    pub addresses: Vec<Prefix>,
    /// Routers for what is not on the wire, the first of a family counts.
    pub gateways: Vec<Addr>,
    /// The Ethernet address to send everything to, instead of resolving.
    pub next_hop_mac: Option<[u8; 6]>,
    /// Makes the places in the table of neighbours unpredictable.
    pub seed: u64,
}

/// Where a packet goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To the destination itself: it is in the network of one of our addresses.
    OnLink,
    /// To this gateway.
    Via(Addr),
    /// Nowhere: not on the wire, and there is no gateway of its family.
    None,
}

/// What a received frame was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Not for us, or of no concern.
    Other,
    /// Broken, for this reason.
    Malformed(Skip),
    /// An ARP request or a neighbour solicitation.
    Request,
    /// An ARP reply or a neighbour advertisement.
    Reply,
    /// An echo request to us.
    EchoRequest,
    /// An echo reply from this address.
    EchoReply(Addr),
    /// An error: a segment of this connection did not get there, with the code of ICMP type 3 or
    /// ICMPv6 type 1.
    Unreachable(Option<Flow>, u8),
    /// An error: a segment of this connection, with this sequence number, was longer than this MTU
    /// in bytes (0: not said).
    TooBig(Option<(Flow, Seq)>, u32),
    /// Another machine uses this address of ours.
    Conflict(Addr),
}

/// What came of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The answer is in the buffer and is to be sent.
    pub replied: bool,
    /// An address that is new in the neighbour table, or has moved.
    pub learned: Option<(Addr, [u8; 6])>,
    /// What the frame was.
    pub kind: Kind,
}

impl Received {
    const fn new(kind: Kind) -> Self {
        Self {
            replied: false,
            learned: None,
            kind,
        }
    }
}

/// The Ethernet side of a received frame, as an answer needs it.
struct Link {
    src: [u8; 6],
    /// The tag to send back, if there was one: type and control.
    tag: Option<[u8; 4]>,
}

/// The host.
pub struct Host {
    mac: [u8; 6],
    link_local: Addr,
    networks: Vec<Prefix>,
    gateways: Vec<Addr>,
    next_hop_mac: Option<[u8; 6]>,
    neighbors: Neighbors,
}

const fn is_group_mac(mac: [u8; 6]) -> bool {
    mac[0] & 1 != 0
}

/// True for an address that one host can have.
fn is_unicast(a: &Addr) -> bool {
    if a.is_v4() {
        let b = a.v4_bytes();
        b[0] != 0 && b[0] < 224
    } else {
        a.bytes()[0] != 0xff && *a != UNSPECIFIED_V6
    }
}

fn is_link_local(a: &Addr) -> bool {
    matches!(a.bytes(), [0xfe, b, ..] if b & 0xc0 == 0x80)
}

impl Host {
    /// A host that knows no neighbours yet.
    pub fn new(config: HostConfig) -> Self {
        Self {
            mac: config.mac,
            link_local: icmp::link_local(config.mac),
            networks: config.addresses,
            gateways: config.gateways,
            next_hop_mac: config.next_hop_mac,
            neighbors: Neighbors::new(config.seed),
        }
    }

    /// The port's Ethernet address.
    pub const fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// True for an address of the host itself.
    pub fn is_own(&self, a: &Addr) -> bool {
        *a == self.link_local || self.networks.iter().any(|n| n.addr() == *a)
    }

    /// Where a packet to `dst` goes first.
    #[inline]
    pub fn route(&self, dst: &Addr) -> Route {
        if !is_unicast(dst) {
            return Route::None;
        }
        if self.networks.iter().any(|n| n.contains(dst)) || is_link_local(dst) {
            return Route::OnLink;
        }
        match self.gateways.iter().find(|g| g.is_v4() == dst.is_v4()) {
            Some(g) => Route::Via(*g),
            None => Route::None,
        }
    }

    /// The Ethernet address to send a packet to `dst` to. `None` while it is being asked for, and
    /// when there is no route.
    #[inline]
    pub fn next_hop(&mut self, dst: &Addr) -> Option<[u8; 6]> {
        if self.next_hop_mac.is_some() {
            return self.next_hop_mac;
        }
        match self.route(dst) {
            Route::OnLink => self.neighbors.resolve(dst),
            Route::Via(gateway) => self.neighbors.resolve(&gateway),
            Route::None => None,
        }
    }

    /// Takes note of a neighbour. Returns true if that is news.
    pub fn learn(&mut self, addr: Addr, mac: [u8; 6], now: Nanos) -> bool {
        let plausible = is_unicast(&addr) && !is_group_mac(mac) && mac != [0; 6] && mac != self.mac;
        plausible && !self.is_own(&addr) && self.neighbors.confirm(addr, mac, now)
    }

    /// The addresses that packets should go to and that did not answer [`ATTEMPTS`] questions; they
    /// are asked for further on.
    pub fn unresolved(&self) -> impl Iterator<Item = Addr> + '_ {
        self.neighbors.unresolved()
    }

    /// Puts the next ARP request or neighbour solicitation that is due into `out`. Returns false if
    /// none is.
    #[inline]
    pub fn poll(&mut self, now: Nanos, out: &mut FrameBuf) -> bool {
        let Some(q) = self.neighbors.due(now) else {
            return false;
        };
        let src = self.source_for(&q.addr);
        out.clear();
        if q.addr.is_v4() {
            let m = arp::Message {
                operation: Operation::Request,
                sender_mac: self.mac,
                sender: src,
                target_mac: [0; 6],
                target: q.addr,
            };
            let dst = q.mac.unwrap_or(ethernet::BROADCAST);
            put(out, &ethernet::header(dst, self.mac, ethertype::ARP));
            put(out, &m.to_bytes());
        } else {
            let (dst, mac) = match q.mac {
                Some(mac) => (q.addr, mac),
                None => {
                    let group = icmp::solicited_node(&q.addr);
                    (group, icmp::multicast_mac(&group))
                }
            };
            put(out, &ethernet::header(mac, self.mac, ethertype::IPV6));
            let (m, len) = icmp::discovery(135, 0, &q.addr, Some(self.mac), &src, &dst);
            put(
                out,
                &ipv6::header(&src, &dst, protocol::ICMPV6, DISCOVERY_HOPS, len),
            );
            put(out, m.get(..len).unwrap_or(&[]));
        }
        true
    }

    /// The address to ask with: one in the same network, else one of the same family, else the
    /// link-local or unspecified one.
    fn source_for(&self, dst: &Addr) -> Addr {
        let same_family = |n: &&Prefix| n.is_v4() == dst.is_v4();
        let fallback = if dst.is_v4() {
            UNSPECIFIED_V4
        } else {
            self.link_local
        };
        if is_link_local(dst) {
            return fallback;
        }
        let near = self.networks.iter().find(|n| n.contains(dst));
        near.or_else(|| self.networks.iter().find(same_family))
            .map_or(fallback, Prefix::addr)
    }

    /// Acts on a frame that is not TCP. An answer is put into `out`, and only then
    /// [`Received::replied`] is true. `proxied` says for which addresses besides its own the
    /// host answers.
    pub fn receive(
        &mut self,
        now: Nanos,
        frame: &[u8],
        proxied: &dyn Fn(&Addr) -> bool,
        out: &mut FrameBuf,
    ) -> Received {
        out.clear();
        match self.dispatch(now, frame, proxied, out) {
            Ok(r) => r,
            Err(s) => Received::new(Kind::Malformed(s)),
        }
    }

    fn dispatch(
        &mut self,
        now: Nanos,
        frame: &[u8],
        proxied: &dyn Fn(&Addr) -> bool,
        out: &mut FrameBuf,
    ) -> Result<Received, Skip> {
        let eth = ethernet::Frame::new_checked(frame)?;
        let ours = eth.dst() == self.mac || is_group_mac(eth.dst());
        if !ours || eth.src() == self.mac || is_group_mac(eth.src()) {
            return Ok(Received::new(Kind::Other));
        }
        let mut link = Link {
            src: eth.src(),
            tag: None,
        };
        let (mut t, mut payload) = (eth.ether_type(), eth.payload());
        if vlan::is_tag(t) {
            let tag = vlan::Tag::new_checked(payload)?;
            if let (Some(control), [hi, lo]) = (payload.first_chunk::<2>(), t.to_be_bytes()) {
                link.tag = Some([hi, lo, control[0], control[1]]);
            }
            t = tag.inner();
            payload = payload.get(vlan::TAG_LEN..).unwrap_or(&[]);
        }
        let addressed = eth.dst() == self.mac;
        match t {
            ethertype::ARP => self.arp(now, &link, addressed, payload, proxied, out),
            ethertype::IPV4 => self.ipv4(&link, addressed, payload, proxied, out),
            ethertype::IPV6 => self.ipv6(now, &link, addressed, payload, proxied, out),
            _ => Ok(Received::new(Kind::Other)),
        }
    }

    fn ipv4(
        &self,
        link: &Link,
        addressed: bool,
        payload: &[u8],
        proxied: &dyn Fn(&Addr) -> bool,
        out: &mut FrameBuf,
    ) -> Result<Received, Skip> {
        let h = ipv4::Header::new_checked(payload)?;
        let (src, dst) = (h.src(), h.dst());
        if h.protocol() != protocol::ICMP || h.is_fragment() || !addressed {
            return Ok(Received::new(Kind::Other));
        }
        let body = payload
            .get(h.header_len()..h.total_len())
            .ok_or(Skip::TooShort)?;
        let m = icmp::parse_v4(body)?;
        self.icmp(link, &src, &dst, &m, proxied, out)
    }

    fn ipv6(
        &mut self,
        now: Nanos,
        link: &Link,
        addressed: bool,
        payload: &[u8],
        proxied: &dyn Fn(&Addr) -> bool,
        out: &mut FrameBuf,
    ) -> Result<Received, Skip> {
        let h = ipv6::Header::new_checked(payload)?;
        let (src, dst) = (h.src(), h.dst());
        let rest = payload
            .get(ipv6::HEADER_LEN..ipv6::HEADER_LEN + h.payload_len())
            .ok_or(Skip::TooShort)?;
        let e = ipv6::extensions(h.next_header(), rest)?;
        if e.protocol != protocol::ICMPV6 || e.fragment.is_some() {
            return Ok(Received::new(Kind::Other));
        }
        let m = icmp::parse_v6(rest.get(e.len..).unwrap_or(&[]), &src, &dst)?;
        match m {
            Message::Solicitation { .. } | Message::Advertisement { .. }
                if h.hop_limit() != DISCOVERY_HOPS =>
            {
                Err(Skip::BadEncapsulation)
            }
            Message::Solicitation {
                target,
                link: asker,
            } => self.solicitation(now, link, (&src, &dst), target, asker, proxied, out),
            Message::Advertisement {
                target,
                link: mac,
                solicited: _,
                overrides,
            } => Ok(self.advertisement(now, addressed, target, mac.unwrap_or(link.src), overrides)),
            _ if addressed => self.icmp(link, &src, &dst, &m, proxied, out),
            _ => Ok(Received::new(Kind::Other)),
        }
    }

    /// Echo and errors of either family.
    fn icmp(
        &self,
        link: &Link,
        src: &Addr,
        dst: &Addr,
        m: &Message<'_>,
        proxied: &dyn Fn(&Addr) -> bool,
        out: &mut FrameBuf,
    ) -> Result<Received, Skip> {
        let kind = match *m {
            Message::EchoRequest { body } => {
                let ours = is_unicast(dst) && (self.is_own(dst) || proxied(dst));
                if !ours || !is_unicast(src) || src == dst || self.is_own(src) {
                    return Ok(Received::new(Kind::Other));
                }
                let len = 4 + body.len();
                let head = icmp::echo_reply_head(body, dst, src);
                if src.is_v4() {
                    self.put_link(out, link, link.src, ethertype::IPV4);
                    put(out, &ipv4::header(dst, src, protocol::ICMP, TTL, 0, len));
                } else {
                    self.put_link(out, link, link.src, ethertype::IPV6);
                    put(out, &ipv6::header(dst, src, protocol::ICMPV6, TTL, len));
                }
                put(out, &head);
                let replied = out.try_extend_from_slice(body).is_ok();
                if !replied {
                    out.clear();
                }
                return Ok(Received {
                    replied,
                    learned: None,
                    kind: Kind::EchoRequest,
                });
            }
            Message::EchoReply { .. } => Kind::EchoReply(*src),
            Message::Unreachable { code, flow } => Kind::Unreachable(flow, code),
            Message::TooBig { mtu, segment } => Kind::TooBig(segment, mtu),
            _ => Kind::Other,
        };
        Ok(Received::new(kind))
    }

    /// The Ethernet header of an answer, with the tag that the question had.
    fn put_link(&self, out: &mut FrameBuf, link: &Link, dst: [u8; 6], ether_type: u16) {
        match link.tag {
            Some([hi, lo, c0, c1]) => {
                put(
                    out,
                    &ethernet::header(dst, self.mac, u16::from_be_bytes([hi, lo])),
                );
                let [t0, t1] = ether_type.to_be_bytes();
                put(out, &[c0, c1, t0, t1]);
            }
            None => put(out, &ethernet::header(dst, self.mac, ether_type)),
        }
    }
}

/// Appends headers, for which the buffer always has room.
fn put(out: &mut FrameBuf, bytes: &[u8]) {
    let _ = out.try_extend_from_slice(bytes);
}

#[cfg(test)]
mod tests;
