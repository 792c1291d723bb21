//! What must hold between keys: nothing goes to production, every target can be reached, and no
//! address has two owners.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::read::FoundTransfer;
use super::{Origin, Target, Transfer};
use crate::Error;
use crate::doc::Found;
use crate::value::{Device, link_local};

fn family(addr: IpAddr) -> &'static str {
    if addr.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn on_link(addr: IpAddr, addresses: &[Found<'_, IpNet>]) -> bool {
    let same = |own: &Found<'_, IpNet>| own.value.addr().is_ipv4() == addr.is_ipv4();
    addresses
        .iter()
        .any(|own| own.value.contains(&addr) || (link_local(addr) && same(own)))
}

/// Ports are distinct: no mirror twice, and the mirror is not the replay port.
pub(super) fn devices(
    mirrors: &[Found<'_, Device>],
    replay: &Found<'_, Device>,
) -> Result<(), Error> {
    for (i, one) in mirrors.iter().enumerate() {
        for other in &mirrors[..i] {
            if let Some(shared) = one.value.shared(&other.value) {
                let reason = format_args!(
                    "uses {shared}, as {} does; give each port once",
                    other.item.key
                );
                return Err(one.item.fail(reason));
            }
        }
    }
    for mirror in mirrors {
        if mirror.value.writes_file() {
            let reason = "a mirror port sends nothing, but tx_pcap would make its file empty; leave tx_pcap out";
            return Err(mirror.item.fail(reason));
        }
        if let Some(shared) = replay.value.shared(&mirror.value) {
            let reason = format_args!(
                "uses {shared}, as {} does; give a port that is no mirror",
                mirror.item.key
            );
            return Err(replay.item.fail(reason));
        }
    }
    Ok(())
}

/// A gateway is on the wire, is not ourselves, and is the only one of its family.
pub(super) fn gateways(
    gateways: &[Found<'_, IpAddr>],
    addresses: &[Found<'_, IpNet>],
) -> Result<(), Error> {
    for (i, one) in gateways.iter().enumerate() {
        let addr = one.value;
        if let Some(own) = addresses.iter().find(|own| own.value.addr() == addr) {
            return Err(one.item.fail(format_args!(
                "is our own address ({}); give the router's",
                own.item.key
            )));
        }
        if !on_link(addr, addresses) {
            let reason =
                "is not on the wire; give a router within the prefix of one of replay.address";
            return Err(one.item.fail(reason));
        }
        if let Some(other) = gateways[..i]
            .iter()
            .find(|o| o.value.is_ipv4() == addr.is_ipv4())
        {
            let reason = format_args!(
                "is a second {} gateway beside {}; give one a family",
                family(addr),
                other.item.key
            );
            return Err(one.item.fail(reason));
        }
    }
    Ok(())
}

/// No target is production or the box itself, or given twice; no origin is given twice or is the
/// box itself.
///
/// An origin without address (`":80"`) names no production address, so it forbids none; that a
/// target is never taken for production is then upheld by [`super::Replay::transfer_for`]. Of two
/// origins of which one is in the other the one with the longer prefix counts.
pub(super) fn transfers(
    transfers: &[FoundTransfer<'_>],
    addresses: &[Found<'_, IpNet>],
    gateways: &[Found<'_, IpAddr>],
) -> Result<(), Error> {
    // For each network its ranges of ports: by the first the last, and whose they are.
    let mut known: HashMap<Option<IpNet>, BTreeMap<u16, &Found<'_, Origin>>> = HashMap::new();
    let (mut origins, mut targets) = (0, 0);
    for one in transfers {
        for from in &one.from {
            let Origin { net, low, high } = from.value;
            let ranges = known.entry(net).or_default();
            let below = ranges.range(..=high).next_back().map(|(_, o)| *o);
            if let Some(other) = below.filter(|o| o.value.high >= low) {
                let reason = format_args!(
                    "is in {} already ({}); give each origin once",
                    other.item.key, other.value
                );
                return Err(from.item.fail(reason));
            }
            ranges.insert(low, from);
            origins += 1;
            if origins > Transfer::MAX_ORIGINS {
                return Err(from.item.fail(format_args!(
                    "there are {} origins before it; give prefixes and ranges of ports instead, at most so many",
                    Transfer::MAX_ORIGINS
                )));
            }
            let addr = from.value.addr();
            if let Some(own) = addresses.iter().find(|own| Some(own.value.addr()) == addr) {
                return Err(from.item.fail(own_address(own)));
            }
            if let Some(gateway) = gateways.iter().find(|g| Some(g.value) == addr) {
                return Err(from.item.fail(format_args!(
                    "is the replay port's gateway ({}); give the production server",
                    gateway.item.key
                )));
            }
        }
        for (i, to) in one.to.iter().enumerate() {
            let Target { addr, port, .. } = to.value;
            let same = |other: &Target| {
                other.addr == addr && (other.port == port || other.port.is_none() || port.is_none())
            };
            if let Some(other) = one.to[..i].iter().find(|o| same(&o.value)) {
                return Err(to.item.fail(format_args!(
                    "is {} already ({}); give each target once, and copies for several replicas",
                    other.item.key, other.value
                )));
            }
            targets += 1;
            if targets > Transfer::MAX_TARGETS_IN_ALL {
                return Err(to.item.fail(format_args!(
                    "there are {} targets before it, which is as many as there may be; give transfers with the same target as one, with a list in from",
                    Transfer::MAX_TARGETS_IN_ALL
                )));
            }
            if let Some(from) = transfers.iter().find_map(|t| t.production(&addr.into())) {
                let (reason, key) = (
                    "replaying to production is refused, give the server under test",
                    &from.item.key,
                );
                return Err(to.item.fail(match from.value.addr() {
                    Some(_) => format!("is a production address ({key}); {reason}"),
                    None => format!(
                        "is in the production network {} ({key}); {reason}",
                        from.value
                    ),
                }));
            }
            if let Some(own) = addresses.iter().find(|own| own.value.addr() == addr) {
                return Err(to.item.fail(own_address(own)));
            }
        }
    }
    Ok(())
}

fn own_address(own: &Found<'_, IpNet>) -> String {
    format!("is our own address ({}); give a server's", own.item.key)
}

/// Frames to every target have a next hop, and a source of its family.
pub(super) fn reachable(
    transfers: &[FoundTransfer<'_>],
    addresses: &[Found<'_, IpNet>],
    gateways: &[Found<'_, IpAddr>],
    next_hop_given: bool,
) -> Result<(), Error> {
    if next_hop_given {
        return Ok(());
    }
    for to in transfers.iter().flat_map(|t| &t.to) {
        let (addr, family) = (to.value.addr, family(to.value.addr));
        if !addresses
            .iter()
            .any(|own| own.value.addr().is_ipv4() == addr.is_ipv4())
        {
            let reason = format_args!(
                "is {family}; give an {family} address in replay.address too, or replay.next_hop_mac"
            );
            return Err(to.item.fail(reason));
        }
        if addresses.iter().any(|own| edge(&own.value, addr)) {
            let reason = "is the network's or the broadcast address of a prefix of replay.address; give a host's own address";
            return Err(to.item.fail(reason));
        }
        if !on_link(addr, addresses)
            && !gateways.iter().any(|g| g.value.is_ipv4() == addr.is_ipv4())
        {
            let reason = format_args!(
                "is not within any prefix of replay.address; give an {family} replay.gateway, or replay.next_hop_mac"
            );
            return Err(to.item.fail(reason));
        }
    }
    Ok(())
}

/// True for an IPv4 prefix's network and broadcast address.
fn edge(net: &IpNet, addr: IpAddr) -> bool {
    addr.is_ipv4() && net.prefix_len() < 31 && (net.network() == addr || net.broadcast() == addr)
}

/// Pools have every target's family, contain nobody else's address, and don't overlap. Without a
/// pool the client keeps its address, so production and target must be of one family.
pub(super) fn pool(
    pool: &[Found<'_, IpNet>],
    transfers: &[FoundTransfer<'_>],
    addresses: &[Found<'_, IpNet>],
    gateways: &[Found<'_, IpAddr>],
) -> Result<(), Error> {
    for (transfer, to) in transfers
        .iter()
        .flat_map(|t| t.to.iter().map(move |to| (t, to)))
    {
        let (addr, family) = (to.value.addr, family(to.value.addr));
        if pool.is_empty() {
            let other = |net: IpNet| net.addr().is_ipv4() != addr.is_ipv4();
            let mut origins = transfer.from.iter();
            if let Some(from) = origins.find(|o| o.value.net.is_some_and(other)) {
                let reason = format_args!(
                    "is {family}, but {} is not; give a target of the same family, or {family} addresses in clients.pool",
                    from.item.key
                );
                return Err(to.item.fail(reason));
            }
            if let Some(other) = transfer
                .to
                .iter()
                .find(|o| o.value.addr.is_ipv4() != addr.is_ipv4())
            {
                let reason = format_args!(
                    "is {family}, but {} is not; give a transfer for each family, or clients.pool",
                    other.item.key
                );
                return Err(to.item.fail(reason));
            }
        } else if !pool
            .iter()
            .any(|p| p.value.addr().is_ipv4() == addr.is_ipv4())
        {
            let reason = format_args!(
                "is {family}, but clients.pool has no {family} prefix; give one there"
            );
            return Err(to.item.fail(reason));
        }
    }
    for (i, one) in pool.iter().enumerate() {
        if let Some(other) = pool[..i]
            .iter()
            .find(|o| o.value.contains(&one.value) || one.value.contains(&o.value))
        {
            return Err(one.item.fail(format_args!(
                "overlaps {}; give prefixes without common addresses",
                other.item.key
            )));
        }
        let targets = transfers
            .iter()
            .flat_map(|t| &t.to)
            .map(|to| (to.value.addr, &to.item.key, "a target"));
        if let Some(from) = transfers.iter().find_map(|t| t.production(&one.value)) {
            let meets = match from.value.addr() {
                Some(addr) => format!("contains {addr}, which is production"),
                None => format!("has addresses of production, {}", from.value),
            };
            return Err(one.item.fail(format_args!(
                "{meets} ({}); give a prefix that nobody else uses",
                from.item.key
            )));
        }
        let own = addresses
            .iter()
            .map(|a| (a.value.addr(), &a.item.key, "our own address"));
        let routers = gateways.iter().map(|g| (g.value, &g.item.key, "a gateway"));
        if let Some((addr, key, what)) = targets
            .chain(own)
            .chain(routers)
            .find(|(addr, ..)| one.value.contains(addr))
        {
            let reason = format_args!(
                "contains {addr}, which is {what} ({key}); give a prefix that nobody else uses"
            );
            return Err(one.item.fail(reason));
        }
    }
    Ok(())
}

/// The mirror's own addresses are nobody else's: answering for production's, or for the target's,
/// would take its traffic from it.
pub(super) fn listening(
    listening: &[Found<'_, IpNet>],
    transfers: &[FoundTransfer<'_>],
    addresses: &[Found<'_, IpNet>],
    gateways: &[Found<'_, IpAddr>],
    pool: &[Found<'_, IpNet>],
) -> Result<(), Error> {
    for one in listening {
        let addr = one.value.addr();
        let origin = transfers
            .iter()
            .flat_map(|t| &t.from)
            .find(|o| o.value.addr() == Some(addr))
            .map(|o| (&o.item.key, "a production address"));
        let target = transfers
            .iter()
            .flat_map(|t| &t.to)
            .find(|to| to.value.addr == addr)
            .map(|to| (&to.item.key, "a target"));
        let own = addresses
            .iter()
            .find(|a| a.value.addr() == addr)
            .map(|a| (&a.item.key, "the replay port's own address"));
        let router = gateways
            .iter()
            .find(|g| g.value == addr)
            .map(|g| (&g.item.key, "the replay port's gateway"));
        let client = pool
            .iter()
            .find(|p| p.value.contains(&addr))
            .map(|p| (&p.item.key, "in the clients' pool"));
        if let Some((key, what)) = origin.or(target).or(own).or(router).or(client) {
            return Err(one.item.fail(format_args!(
                "is {what} ({key}); give an address that nobody else uses"
            )));
        }
    }
    Ok(())
}
