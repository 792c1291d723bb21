//! What the host does on ARP and on neighbour discovery: which questions it answers, whom it learns
//! from, and when another machine uses one of its addresses.

use super::{DISCOVERY_HOPS, put};
use super::{
    FrameBuf, Host, Kind, Link, Received, Route, UNSPECIFIED_V6, is_group_mac, is_unicast,
};
use crate::arp::{self, Operation};
use crate::ethernet::ethertype;
use crate::icmp;
use crate::ipv4::protocol;
use crate::{Addr, Nanos, Skip, ipv6};

impl Host {
    /// True if we answer a neighbour that asks for `target`: it is ours, or we stand in for it and
    /// it is not the asker's own.
    fn answers(
        &self,
        target: &Addr,
        asker: &Addr,
        asker_mac: [u8; 6],
        proxied: &dyn Fn(&Addr) -> bool,
    ) -> bool {
        if self.is_own(target) {
            return true;
        }
        is_unicast(asker)
            && target != asker
            && self.neighbors.get(target) != Some(asker_mac)
            && proxied(target)
    }

    /// Learns an asker's or answerer's address; only of those that are on the wire, so that
    /// strangers cannot fill the table.
    fn learn_near(&mut self, addr: Addr, mac: [u8; 6], now: Nanos) -> Option<(Addr, [u8; 6])> {
        let near = self.neighbors.has(&addr)
            || self.gateways.contains(&addr)
            || self.route(&addr) == Route::OnLink;
        (near && self.learn(addr, mac, now)).then_some((addr, mac))
    }

    pub(super) fn arp(
        &mut self,
        now: Nanos,
        link: &Link,
        addressed: bool,
        payload: &[u8],
        proxied: &dyn Fn(&Addr) -> bool,
        out: &mut FrameBuf,
    ) -> Result<Received, Skip> {
        let m = arp::Message::new_checked(payload)?;
        if is_group_mac(m.sender_mac) || m.sender_mac == self.mac {
            return Ok(Received::new(Kind::Other));
        }
        if self.is_own(&m.sender) {
            return Ok(Received::new(Kind::Conflict(m.sender)));
        }
        let known = self.neighbors.has(&m.sender);
        let mut r = Received::new(match m.operation {
            Operation::Request => Kind::Request,
            Operation::Reply => Kind::Reply,
        });
        let answer = m.operation == Operation::Request
            && self.answers(&m.target, &m.sender, m.sender_mac, proxied);
        // RFC 826: what is known is corrected by any message, a new entry is made only for those
        // who talk to us.
        let to_us = answer || (m.operation == Operation::Reply && addressed);
        if known || to_us {
            r.learned = self.learn_near(m.sender, m.sender_mac, now);
        }
        if answer {
            let reply = arp::Message {
                operation: Operation::Reply,
                sender_mac: self.mac,
                sender: m.target,
                target_mac: m.sender_mac,
                target: m.sender,
            };
            self.put_link(out, link, link.src, ethertype::ARP);
            put(out, &reply.to_bytes());
            r.replied = true;
        }
        Ok(r)
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn solicitation(
        &mut self,
        now: Nanos,
        link: &Link,
        (src, dst): (&Addr, &Addr),
        target: Addr,
        asker: Option<[u8; 6]>,
        proxied: &dyn Fn(&Addr) -> bool,
        out: &mut FrameBuf,
    ) -> Result<Received, Skip> {
        let probe = *src == UNSPECIFIED_V6;
        // RFC 4861 section 7.1.1.
        if probe && (asker.is_some() || *dst != icmp::solicited_node(&target)) {
            return Err(Skip::BadEncapsulation);
        }
        if self.is_own(src) {
            return Ok(Received::new(Kind::Conflict(*src)));
        }
        let mut r = Received::new(Kind::Request);
        let mac = asker.unwrap_or(link.src);
        let answer = self.answers(&target, src, mac, proxied);
        if !probe && !is_group_mac(mac) && (answer || self.neighbors.has(src)) {
            r.learned = self.learn_near(*src, mac, now);
        }
        if answer {
            // RFC 4861 section 7.2.4: a probe is answered to all nodes. Section 7.2.8: who merely
            // stands in does not override.
            let (to, to_mac) = if probe {
                (icmp::ALL_NODES, icmp::multicast_mac(&icmp::ALL_NODES))
            } else {
                (*src, link.src)
            };
            let flags = if probe { 0 } else { 0x40 } | if self.is_own(&target) { 0x20 } else { 0 };
            self.put_link(out, link, to_mac, ethertype::IPV6);
            let (m, len) = icmp::discovery(136, flags, &target, Some(self.mac), &target, &to);
            put(
                out,
                &ipv6::header(&target, &to, protocol::ICMPV6, DISCOVERY_HOPS, len),
            );
            put(out, m.get(..len).unwrap_or(&[]));
            r.replied = true;
        }
        Ok(r)
    }

    pub(super) fn advertisement(
        &mut self,
        now: Nanos,
        addressed: bool,
        target: Addr,
        mac: [u8; 6],
        overrides: bool,
    ) -> Received {
        if self.is_own(&target) {
            return Received::new(Kind::Conflict(target));
        }
        let mut r = Received::new(Kind::Reply);
        let moved = self
            .neighbors
            .get(&target)
            .is_some_and(|known| known != mac);
        if (addressed || self.neighbors.has(&target)) && (overrides || !moved) {
            r.learned = self.learn_near(target, mac, now);
        }
        r
    }
}
