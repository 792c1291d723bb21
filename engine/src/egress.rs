//! From the session core's segments to frames on the replay port: next hop, headers, checksums,
//! transmit queue; and from its claims to the control links.
//!
//! A frame can only be built for one of the configured targets: the core names it by its number.

use crate::claims::Claims;
use replay::{Egress, Refused};
use std::ops::Range;
use wire::build::{LinkHeader, tcp};
use wire::head::HeaderBuf;
use wire::host::{FrameBuf, Host};
use wire::io::{Payload, Tx, TxError};
use wire::{Endpoint, Flow, Head, Nanos};

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

/// The replay port's transmit side on one core.
pub struct Outlet<T> {
    tx: T,
    /// Resolves next hops, answers ARP, ND and ping.
    pub host: Host,
    mac: [u8; 6],
    targets: Vec<Endpoint>,
    claims: Option<Claims>,
    ident: u16,
    headers: HeaderBuf,
    /// Buffers are short: new sessions are shed.
    pub pressure: bool,
    /// What could not be sent.
    pub counters: EgressCounters,
}

impl<T: Tx> Outlet<T> {
    /// `mac` is the replay port's; `targets` are the transfers' targets by number, with port 0 where
    /// a target has the port of production; `claims` are there in remote mode; `ident` is the IPv4
    /// identification to begin with.
    pub fn new(
        tx: T,
        host: Host,
        mac: [u8; 6],
        targets: Vec<Endpoint>,
        claims: Option<Claims>,
        ident: u16,
    ) -> Self {
        Self {
            tx,
            host,
            mac,
            targets,
            claims,
            ident,
            headers: HeaderBuf::new(),
            pressure: false,
            counters: EgressCounters::default(),
        }
    }

    /// The transmit queue.
    pub fn tx(&mut self) -> &mut T {
        &mut self.tx
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

    /// Sends the frame of ARP, ND or ping in `frame`.
    pub fn send_control(&mut self, frame: &FrameBuf) {
        // A lost one is asked for again.
        if self.tx.send(frame, None).is_ok() {
            self.counters.control_sent += 1;
        }
    }

    /// Asks for next hops that are due.
    pub fn poll_host(&mut self, now: Nanos, buffer: &mut FrameBuf) {
        while self.host.poll(now, buffer) {
            self.send_control(buffer);
        }
    }

    /// Hands everything to the driver and to the links. With `wake`, links that sleep are woken for
    /// claims.
    pub fn flush(&mut self, wake: bool) -> usize {
        if let Some(claims) = &mut self.claims {
            claims.flush(wake);
        }
        self.tx.flush()
    }

    /// The control links are used, rather than the replay port, for responses.
    pub fn is_remote(&self) -> bool {
        self.claims.is_some()
    }
}

impl<T: Tx> Egress<T::Payload> for Outlet<T> {
    #[inline]
    fn send(
        &mut self,
        target: u16,
        head: &Head,
        payload: Option<(&mut T::Payload, Range<usize>)>,
    ) -> Result<(), Refused> {
        let to = self.targets[usize::from(target)];
        debug_assert_eq!(head.flow.dst.addr, to.addr);
        debug_assert!(to.port == 0 || to.port == head.flow.dst.port);
        let Some(dst) = self.host.next_hop(&to.addr) else {
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
            &LinkHeader { dst, src: self.mac },
            head,
            TTL,
            self.ident,
            bytes,
        );
        self.tx.send(&self.headers, payload).map_err(|e| {
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
