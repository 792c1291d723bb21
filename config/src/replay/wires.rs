//! The replay ports: what each of them is and how it is read.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Wire, values};
use crate::Error;
use crate::doc::{Found, Section};
use crate::shared;
use crate::value::{self, Device};

/// A replay port with the places of its values.
pub(super) struct FoundWire<'a> {
    /// Its table, as errors call it.
    pub table: String,
    pub device: Found<'a, Device>,
    pub addresses: Vec<Found<'a, IpNet>>,
    pub gateways: Vec<Found<'a, IpAddr>>,
    pub next_hop_mac: Option<[u8; 6]>,
}

impl<'a> FoundWire<'a> {
    /// The keys of one table.
    pub(super) fn read(section: &Section<'a>) -> Result<Self, Error> {
        let item = section.need("port", format_args!("give {}", value::DEVICE))?;
        let device = Found {
            value: item.parsed(value::DEVICE, value::device)?,
            item,
        };
        let addresses = shared::own_addresses(section)?;
        let gateways = match section.get("gateway") {
            Some(item) => item.list(value::GATEWAY, value::gateway)?,
            None => Vec::new(),
        };
        let next_hop_mac = section
            .get("next_hop_mac")
            .map(|item| item.parsed(value::MAC, value::mac))
            .transpose()?;
        if addresses.is_empty() && next_hop_mac.is_none() {
            return Err(section.missing(
                "address",
                format_args!("is missing or empty; give a list, each {}", value::OWN),
            ));
        }
        Ok(Self {
            table: section.name().to_owned(),
            device,
            addresses,
            gateways,
            next_hop_mac,
        })
    }

    pub(super) fn wire(self) -> Wire {
        Wire {
            table: self.table,
            port: self.device.value.text,
            addresses: values(self.addresses),
            gateways: values(self.gateways),
            next_hop_mac: self.next_hop_mac,
        }
    }
}

/// Our addresses on all wires.
pub(super) fn addresses<'w, 'a>(
    wires: &'w [FoundWire<'a>],
) -> impl Iterator<Item = &'w Found<'a, IpNet>> {
    wires.iter().flat_map(|wire| &wire.addresses)
}

/// The routers on all wires.
pub(super) fn gateways<'w, 'a>(
    wires: &'w [FoundWire<'a>],
) -> impl Iterator<Item = &'w Found<'a, IpAddr>> {
    wires.iter().flat_map(|wire| &wire.gateways)
}
