//! From the session core's segments to frames on the wires of the replay ports: next hop, headers,
//! checksums, transmit queue; and from its claims to the control links.
//!
//! A frame can only be built for one of the configured targets: the core names it by its number. A
//! target has one wire, over which it is reached.

use crate::claims::Claims;
use replay::{Egress, Refused};
use std::ops::Range;
use wire::build::{LinkHeader, tcp};
use wire::head::HeaderBuf;
use wire::host::{FrameBuf, Host, Received};
use wire::io::{Payload, Tx, TxError};
use wire::{Addr, Endpoint, Flow, Head, Nanos};

/// Time to live and hop limit of what we send (RFC 1700's recommendation, Linux's default).
const TTL: u8 = 64;

/// What could not be sent, by reason. A segment that was refused is tried again, so these are no
/// losses.
#[derive(Clone, Copy, Default)]
pub struct EgressCounters {
    /// The next hop has not answered ARP or ND.
    pub unreachable: u64,
    /// The transmit queue was full.
    pub full: u64,
    /// No mbuf for the headers.
    pub no_buffer: u64,
    /// Longer than the port's MTU.
    pub too_long: u64,
    /// Claims that could not be made: a ring to a control link was full, or as many connections
    /// were claimed as may be. These connections are not opened.
    pub claims_dropped: u64,
    /// Frames of ARP, ND and ping that were sent.
    pub control_sent: u64,
}

/// One replay port's transmit side on one core.
pub struct Wire<T> {
    tx: T,
    /// Resolves next hops, answers ARP, ND and ping.
    pub host: Host,
}

impl<T: Tx> Wire<T> {
    /// The wire that `tx` sends on, with the host that we are there.
    pub const fn new(tx: T, host: Host) -> Self {
        Self { tx, host }
    }

    /// The transmit queue.
    pub const fn tx(&mut self) -> &mut T {
        &mut self.tx
    }
}

/// The target of a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// Its address; with port 0 if it has the port of production.
    pub to: Endpoint,
    /// The wire over which it is reached, by its place in the list of wires.
    pub wire: usize,
}

/// The replay ports' transmit side on one core.
pub struct Outlet<T> {
    wires: Vec<Wire<T>>,
    targets: Vec<Target>,
    claims: Option<Claims>,
    ident: u16,
    headers: HeaderBuf,
    /// Buffers are short: new sessions are shed.
    pub pressure: bool,
    /// What could not be sent.
    pub counters: EgressCounters,
}

impl<T: Tx> Outlet<T> {
    /// `targets` are the transfers' by number; `claims` are there in remote mode; `ident` is the IPv4
    /// identification to begin with.
    pub fn new(
        wires: Vec<Wire<T>>,
        targets: Vec<Target>,
        claims: Option<Claims>,
        ident: u16,
    ) -> Self {
        Self {
            wires,
            targets,
            claims,
            ident,
            headers: HeaderBuf::new(),
            pressure: false,
            counters: EgressCounters::default(),
        }
    }

    /// An outlet of one wire, over which these targets are reached. It has no control links.
    pub fn of_one(wire: Wire<T>, targets: &[Endpoint], ident: u16) -> Self {
        let targets = targets.iter().map(|to| Target { to: *to, wire: 0 });
        Self::new(vec![wire], targets.collect(), None, ident)
    }

    /// The wires, by index.
    #[inline]
    pub fn wires(&mut self) -> &mut [Wire<T>] {
        &mut self.wires
    }

    /// Next hops that do not answer, of any wire.
    pub fn unresolved(&self) -> impl Iterator<Item = Addr> + '_ {
        self.wires.iter().flat_map(|wire| wire.host.unresolved())
    }

    /// The next record of a response that came over a link.
    #[inline]
    pub fn next_record(&mut self) -> Option<link::Record> {
        self.claims.as_mut()?.next_record()
    }

    /// True if there is one.
    pub fn has_record(&self) -> bool {
        self.claims.as_ref().is_some_and(Claims::has_record)
    }

    /// A frame of ARP, ND or ICMP came in on a wire. `proxied` says for which addresses besides its
    /// own the host answers there.
    pub fn receive_control(
        &mut self,
        now: Nanos,
        wire: usize,
        frame: &[u8],
        proxied: &dyn Fn(&Addr) -> bool,
        buffer: &mut FrameBuf,
    ) -> Received {
        let wire = &mut self.wires[wire];
        let received = wire.host.receive(now, frame, proxied, buffer);
        if received.replied {
            self.counters.control_sent += send_control(&mut wire.tx, buffer);
        }
        received
    }

    /// Asks for next hops that are due.
    pub fn poll_hosts(&mut self, now: Nanos, buffer: &mut FrameBuf) {
        for wire in &mut self.wires {
            while wire.host.poll(now, buffer) {
                self.counters.control_sent += send_control(&mut wire.tx, buffer);
            }
        }
    }

    /// Hands everything to the driver and to the links. With `wake`, links that sleep are woken for
    /// claims.
    pub fn flush(&mut self, wake: bool) -> usize {
        if let Some(claims) = &mut self.claims {
            claims.flush(wake);
        }
        self.wires.iter_mut().map(|wire| wire.tx.flush()).sum()
    }

    /// The control links are used, rather than the replay ports, for responses.
    pub fn is_remote(&self) -> bool {
        self.claims.is_some()
    }
}

/// Sends a frame of ARP, ND or ping. Returns how many were sent: a lost one is asked for again.
fn send_control<T: Tx>(tx: &mut T, frame: &FrameBuf) -> u64 {
    tx.send(frame, None).is_ok().into()
}

impl<T: Tx> Egress<T::Payload> for Outlet<T> {
    #[inline]
    fn send(
        &mut self,
        target: u16,
        head: &Head,
        payload: Option<(&mut T::Payload, Range<usize>)>,
    ) -> Result<(), Refused> {
        let Target { to, wire } = self.targets[usize::from(target)];
        debug_assert_eq!(head.flow.dst.addr, to.addr);
        debug_assert!(to.port == 0 || to.port == head.flow.dst.port);
        let wire = &mut self.wires[wire];
        let Some(dst) = wire.host.next_hop(&to.addr) else {
            self.counters.unreachable += 1;
            return Err(Refused::Unreachable);
        };
        self.ident = self.ident.wrapping_add(1);
        let bytes = payload
            .as_ref()
            .and_then(|(p, range)| p.bytes().get(range.clone()))
            .unwrap_or(&[]);
        tcp(
            &mut self.headers,
            &LinkHeader {
                dst,
                src: wire.host.mac(),
            },
            head,
            TTL,
            self.ident,
            bytes,
        );
        wire.tx.send(&self.headers, payload).map_err(|e| {
            match e {
                TxError::Full => self.counters.full += 1,
                TxError::NoBuffer => self.counters.no_buffer += 1,
                TxError::TooLong => self.counters.too_long += 1,
            }
            Refused::Busy
        })
    }

    fn claim(&mut self, connection: &Flow) -> bool {
        let made = self
            .claims
            .as_mut()
            .is_none_or(|claims| claims.claim(connection));
        self.counters.claims_dropped += u64::from(!made);
        made
    }

    fn release(&mut self, connection: &Flow) {
        if let Some(claims) = &mut self.claims {
            claims.release(connection);
        }
    }

    fn accepts_sessions(&self) -> bool {
        self.claims.as_ref().is_none_or(Claims::is_up)
    }

    fn is_short(&self) -> bool {
        self.pressure
    }

    #[inline]
    fn prefetch<X>(of: &X) {
        T::prefetch(of);
    }
}
