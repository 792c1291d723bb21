//! The replay ports: what each of them is and how it is read, from `[replay]` or from `[[wire]]`
//! tables.
//!
//! Holds always, in what [`read`] returned: there is at least one wire. Either it is the only one
//! and has no name, or all have names, none twice.

use std::net::IpAddr;

use ipnet::IpNet;
use toml::de::DeTable;

use super::{Wire, values};
use crate::Error;
use crate::doc::{Doc, Found, Item, Section};
use crate::shared;
use crate::value::{self, Device};

/// A replay port with the places of its values.
pub(super) struct FoundWire<'a> {
    /// Its table, as errors call it.
    pub table: String,
    /// What transfers call it; `[replay]` has none.
    pub name: Option<Found<'a, String>>,
    pub device: Found<'a, Device>,
    pub addresses: Vec<Found<'a, IpNet>>,
    pub gateways: Vec<Found<'a, IpAddr>>,
    pub next_hop_mac: Option<[u8; 6]>,
}

/// The wires of the file.
pub(super) fn read<'a>(doc: &Doc<'a>, root: &'a DeTable<'a>) -> Result<Vec<FoundWire<'a>>, Error> {
    let single = doc.section(root, "replay")?;
    let tables = doc.sections(root, "wire")?;
    let Some(first) = tables.first() else {
        return Ok(vec![FoundWire::read(&single, None)?]);
    };
    if single.is_given() {
        return Err(first.fail(
            "cannot be given together with [replay]; write each replay port as a [[wire]], or the only one as [replay]",
        ));
    }
    let mut wires: Vec<FoundWire<'a>> = Vec::with_capacity(tables.len());
    for section in &tables {
        let item = section.need("name", format_args!("give {}", value::NAME))?;
        let name = Found {
            value: item.parsed(value::NAME, value::name)?,
            item,
        };
        let same = |wire: &&FoundWire<'_>| wire.named(&name.value);
        if let Some(other) = wires.iter().find(same) {
            let reason = format_args!(
                "is the name of {} already; give each wire its own",
                other.table
            );
            return Err(name.item.fail(reason));
        }
        wires.push(FoundWire::read(section, Some(name))?);
    }
    Ok(wires)
}

/// The names of all, for a sentence.
fn names(wires: &[FoundWire<'_>]) -> String {
    let names = wires.iter().filter_map(|wire| wire.name.as_ref());
    let names: Vec<String> = names.map(|name| format!("{:?}", name.value)).collect();
    names.join(" or ")
}

/// The place of the wire that a `wire` names.
pub(super) fn named(item: &Item<'_>, wires: &[FoundWire<'_>]) -> Result<usize, Error> {
    if wires.iter().all(|wire| wire.name.is_none()) {
        let reason = "is for [[wire]] tables, and [replay] is the only wire; leave it out";
        return Err(item.fail(reason));
    }
    let name = item.parsed(value::NAME, value::name)?;
    let place = wires.iter().position(|wire| wire.named(&name));
    let reason = || format!("is the name of no [[wire]]; give {}", names(wires));
    place.ok_or_else(|| item.fail(reason()))
}

/// The place of the only wire, for a transfer that names none.
pub(super) fn only(transfer: &Section<'_>, wires: &[FoundWire<'_>]) -> Result<usize, Error> {
    match wires {
        [_] => Ok(0),
        _ => Err(transfer.missing(
            "wire",
            format_args!(
                "is missing; say over which [[wire]] the target is reached, {}",
                names(wires)
            ),
        )),
    }
}

impl<'a> FoundWire<'a> {
    fn named(&self, name: &str) -> bool {
        self.name.as_ref().is_some_and(|n| n.value == name)
    }

    /// The keys of one table, but for its name.
    fn read(section: &Section<'a>, name: Option<Found<'a, String>>) -> Result<Self, Error> {
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
            name,
            device,
            addresses,
            gateways,
            next_hop_mac,
        })
    }

    pub(super) fn wire(self) -> Wire {
        Wire {
            table: self.table,
            name: self.name.map(|name| name.value),
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
