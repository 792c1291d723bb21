//! `intercept.toml`, the intercept's configuration: its model and how the file is read.
//!
//! Holds always, in an [`Intercept`] that [`parse`] or [`load`] returned: a link that listens
//! beyond loopback has a key, or `insecure` says that none is wanted.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use ipnet::IpNet;

use crate::doc::{Doc, Schema, Section};
use crate::key::KeyReader;
use crate::shared::{self, EAL_KEYS, Eal, REPORT_KEYS, Report};
use crate::{DEFAULT_LINK_PORT, Error, read_key_file, value};

const SCHEMA: Schema = &[
    ("port", &["device", "address"]),
    (
        "link",
        &["listen", "key_file", "insecure", "payload_prefix"],
    ),
    ("eal", EAL_KEYS),
    ("report", REPORT_KEYS),
];

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

/// Reads and checks the file at `path`.
///
/// # Errors
/// The first thing that is wrong, as [`Error`] has it.
pub fn load(path: &Path) -> Result<Intercept, Error> {
    parse(&shared::read_config(path)?, &path.display().to_string())
}

/// Reads and checks `text`. `path` is what errors call it; a relative `link.key_file` starts at its
/// folder, and is read from disk.
///
/// # Errors
/// The first thing that is wrong, as [`Error`] has it.
pub fn parse(text: &str, path: &str) -> Result<Intercept, Error> {
    parse_with(text, path, &read_key_file)
}

/// [`parse`] with another way to read the key file.
///
/// # Errors
/// The first thing that is wrong, as [`Error`] has it.
pub fn parse_with(text: &str, path: &str, keys: KeyReader<'_>) -> Result<Intercept, Error> {
    let doc = Doc {
        path,
        text,
        schema: SCHEMA,
    };
    let root = doc.table()?;
    let root = root.get_ref();
    doc.check_tables(root)?;
    let mut warnings = Vec::new();
    Ok(Intercept {
        port: read_port(&doc.section(root, "port")?)?,
        link: read_link(path, &doc.section(root, "link")?, keys, &mut warnings)?,
        eal: Eal::read(&doc.section(root, "eal")?)?,
        report: Report::read(&doc.section(root, "report")?)?,
        warnings,
    })
}

fn read_port(section: &Section<'_>) -> Result<Port, Error> {
    let device = section.need("device", format_args!("give {}", value::DEVICE))?;
    let device = device.parsed(value::DEVICE, value::device)?.text;
    let item = section.need("address", format_args!("give a list, each {}", value::OWN))?;
    let addresses: Vec<_> = shared::own_addresses(section)?
        .into_iter()
        .map(|f| f.value)
        .collect();
    if addresses.is_empty() {
        return Err(item.fail(format_args!("give at least one, each {}", value::OWN)));
    }
    Ok(Port { device, addresses })
}

fn read_link(
    path: &str,
    section: &Section<'_>,
    keys: KeyReader<'_>,
    warnings: &mut Vec<String>,
) -> Result<Link, Error> {
    let payload_prefix = section
        .get("payload_prefix")
        .map_or(Ok(0), |item| item.integer(0..=1024))?;
    let item = section.get("listen");
    let listen = match &item {
        Some(item) => item.parsed(value::LISTEN, value::listen)?,
        None => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), DEFAULT_LINK_PORT),
    };
    let key = shared::link_key(path, section, keys, warnings)?;
    let insecure = shared::insecure(section, &key)?;
    if key.is_none() && !insecure && !listen.ip().is_loopback() {
        let reason = "is reachable from other machines; give link.key_file, a loopback address, or link.insecure = true";
        return Err(match &item {
            Some(item) => item.fail(reason),
            None => section.missing("listen", format_args!("the default {listen} {reason}")),
        });
    }
    if insecure && !listen.ip().is_loopback() {
        warnings.push(format!(
            "link.insecure = true: everyone who reaches {listen} can read and send responses"
        ));
    }
    Ok(Link {
        listen,
        key,
        insecure,
        payload_prefix,
    })
}

#[cfg(test)]
mod tests;
