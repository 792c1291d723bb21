//! `intercept.toml`, the intercept's configuration: its model and how the file is read.
//!
//! Holds always, in an [`Intercept`] that [`parse`] or [`load`] returned: a link that listens beyond loopback has a key, or
//! `insecure` says that none is wanted.

use std::fmt;
use std::net::SocketAddr;

use ipnet::IpNet;

use crate::shared::{Eal, Report};

/// All of `intercept.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intercept {
    /// `[port]`
    pub port: Port,
    /// `[link]`
    pub link: Link,
    /// `[eal]`
    pub eal: Eal,
    /// `[report]`
    pub report: Report,
    /// What is allowed but unwise, a sentence each, for the log at start.
    pub warnings: Vec<String>,
}

/// `[port]`: the port that the target's responses are routed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// DPDK device: PCI address or vdev string with its arguments.
    pub device: String,
    /// Our addresses on that wire, for which ARP, ND and ping are answered; at least one.
    pub addresses: Vec<IpNet>,
}

/// `[link]`: the control link that engines connect to.
#[derive(Clone, PartialEq, Eq)]
pub struct Link {
    /// The listening address.
    pub listen: SocketAddr,
    /// The shared key. Without one `listen` is a loopback address, or `insecure` is set.
    pub key: Option<[u8; 32]>,
    /// A link without a key beyond loopback is wanted; to be logged at every start.
    pub insecure: bool,
    /// Bytes of each response's payload that are handed on, 0 to 1024.
    pub payload_prefix: u16,
}

/// The key is left out, so that a log of the configuration does not give it away.
impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("listen", &self.listen)
            .field("key", &self.key.map(|_| "(hidden)"))
            .field("insecure", &self.insecure)
            .field("payload_prefix", &self.payload_prefix)
            .finish()
    }
}
