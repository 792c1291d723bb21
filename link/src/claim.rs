//! Claims: how an engine's core says which responses are its own.

use crate::Error;
use crate::codec::{Reader, put_addr, put_endpoint};
use std::fmt;
use std::ops::RangeInclusive;
use wire::{Endpoint, Flow, Prefix};

/// Responses of one target to a prefix of client addresses and a range of client ports.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Claim {
    /// Client addresses.
    pub prefix: Prefix,
    /// Client ports, both ends included.
    pub ports: RangeInclusive<u16>,
    /// Who answers: the source of the responses. Of the same family as the prefix.
    pub target: Endpoint,
    /// The engine's worker core that claims; it comes back with every response.
    pub owner: u16,
}

impl Claim {
    /// The claim of size one: the responses of one connection, which is the flow `client` →
    /// `target`.
    pub fn exact(client: Endpoint, target: Endpoint, owner: u16) -> Self {
        Self {
            prefix: Prefix::host(client.addr),
            ports: client.port..=client.port,
            target,
            owner,
        }
    }

    /// For a claim of size one, the flow of its responses: from the target to the client.
    pub fn response_flow(&self) -> Option<Flow> {
        let single = self.prefix.is_host() && self.ports.start() == self.ports.end();
        single.then(|| Flow {
            src: self.target,
            dst: Endpoint::new(self.prefix.addr(), *self.ports.start()),
        })
    }

    /// True if a response of this flow (from target to client) belongs to the claim.
    #[inline]
    pub fn covers(&self, response: &Flow) -> bool {
        response.src == self.target
            && self.ports.contains(&response.dst.port)
            && self.prefix.contains(&response.dst.addr)
    }

    /// True if both are for the same responses, whichever core owns them.
    pub fn is_for_same(&self, other: &Self) -> bool {
        self.prefix == other.prefix && self.ports == other.ports && self.target == other.target
    }

    /// True if some response could belong to both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.target == other.target
            && self.ports.start() <= other.ports.end()
            && other.ports.start() <= self.ports.end()
            && self.prefix.overlaps(&other.prefix)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let v6 = !self.prefix.is_v4();
        out.push(if v6 { 6 } else { 4 });
        out.push(self.prefix.bits());
        put_addr(out, &self.prefix.addr(), v6);
        out.extend_from_slice(&self.ports.start().to_be_bytes());
        out.extend_from_slice(&self.ports.end().to_be_bytes());
        put_endpoint(out, &self.target, v6);
        out.extend_from_slice(&self.owner.to_be_bytes());
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Error> {
        let v6 = match r.u8()? {
            4 => false,
            6 => true,
            found => {
                return Err(Error::Invalid {
                    what: "a claim's address family",
                    found: found.into(),
                    accepted: "4 or 6",
                });
            }
        };
        let len = r.u8()?;
        if len > Prefix::max_len(!v6) {
            return Err(Error::Invalid {
                what: "a claim's prefix length",
                found: len.into(),
                accepted: "0–32 for IPv4, 0–128 for IPv6",
            });
        }
        let addr = r.addr(v6)?;
        let (first, last) = (r.u16()?, r.u16()?);
        if first > last {
            return Err(Error::Invalid {
                what: "a claim's first port",
                found: first.into(),
                accepted: "at most the last port",
            });
        }
        let target = r.endpoint(v6)?;
        if v6 && (addr.is_v4() || target.addr.is_v4()) {
            return Err(Error::Invalid {
                what: "a claim's address family",
                found: 6,
                accepted: "4 for addresses that are IPv4",
            });
        }
        Ok(Self {
            prefix: Prefix::new(addr, len),
            ports: first..=last,
            target,
            owner: r.u16()?,
        })
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.ports.start(), self.ports.end());
        write!(
            f,
            "{} ports {first}\u{2013}{last} from {}",
            self.prefix, self.target
        )
    }
}
