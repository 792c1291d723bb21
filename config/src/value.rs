//! The words of the configuration: strings to addresses, durations, sizes and devices.
//!
//! Holds always: an error is a clause that says what would be right, and can stand after `key =
//! value: `. No address is an IPv4-mapped IPv6 one or has a scope: two texts for the same address
//! would make comparisons lie.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;

use crate::replay::{Origin, TunnelEnd, TunnelNetwork};

/// A duration such as `"250ms"` within bounds, both included.
pub(crate) fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let accepted = || {
        let (least, most) = (
            humantime::format_duration(least),
            humantime::format_duration(most),
        );
        format!("give a duration from \"{least}\" to \"{most}\", such as \"250ms\" or \"5s\"")
    };
    let value = humantime::parse_duration(text).map_err(|_| accepted())?;
    if value < least || value > most {
        Err(accepted())
    } else {
        Ok(value)
    }
}

/// A size such as `"64MiB"` in bytes within bounds, both included.
pub(crate) fn size(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let accepted = || {
        format!(
            "give a size from \"{}\" to \"{}\", such as \"64MiB\"",
            ByteSize(least).display().iec(),
            ByteSize(most).display().iec()
        )
    };
    let value = text.parse::<ByteSize>().map_err(|_| accepted())?.as_u64();
    if value < least || value > most {
        Err(accepted())
    } else {
        Ok(value)
    }
}

/// Refuses what can be no host's address on a wire.
pub(crate) fn host(addr: IpAddr) -> Result<IpAddr, String> {
    let what = match addr {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            return Err("is an IPv4-mapped IPv6 address, which never appears on a wire; give the IPv4 address".to_owned());
        }
        _ if addr.is_unspecified() => "the unspecified address",
        _ if addr.is_multicast() => "a multicast address",
        _ if addr.is_loopback() => "a loopback address",
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        _ => return Ok(addr),
    };
    Err(format!("is {what}; give a host's own address"))
}

fn socket(text: &str, accepted: &str) -> Result<SocketAddr, String> {
    // Socket addresses would be parsed with a scope, and a bare IPv6 address with a port is
    // ambiguous: both get the same sentence.
    let addr: SocketAddr = text.parse().map_err(|_| accepted.to_owned())?;
    match addr {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => {
            Err("has a scope (%); give the address without one".to_owned())
        }
        SocketAddr::V6(v6) => Ok(SocketAddr::V6(SocketAddrV6::new(*v6.ip(), v6.port(), 0, 0))),
        SocketAddr::V4(_) => Ok(addr),
    }
}

fn port(number: u16) -> Result<u16, String> {
    if number == 0 {
        Err("port 0 cannot be used; give a port from 1 to 65535".to_owned())
    } else {
        Ok(number)
    }
}

/// What [`origin`] reads.
pub(crate) const ORIGIN: &str = "\"address:port\" of the production service, such as \"10.10.0.2:80\" or \"[2001:db8::2]:80\", or \":port\" for any address; a prefix and a range of ports will do as well, such as \"10.10.0.0/24:8000-8099\"";
/// What [`target`] reads.
pub(crate) const TARGET: &str = "\"address:port\" of the target, such as \"10.20.0.2:8080\" or \"[2001:db8::2]:8080\", with * for the port that the client used in production; names are not resolved";
/// What [`server`] reads.
pub(crate) const SERVER: &str =
    "\"address:port\" of an intercept, such as \"10.30.0.3:36524\"; names are not resolved";
/// What [`listen`] reads.
pub(crate) const LISTEN: &str = "\"address:port\" to listen on, such as \"0.0.0.0:36524\"";
/// What [`own_address`] reads.
pub(crate) const OWN: &str =
    "an address with its prefix length, such as \"10.20.0.9/24\" or \"2001:db8::9/64\"";
/// What [`prefix`] reads.
pub(crate) const PREFIX: &str = "a prefix, such as \"62.135.200.0/24\" or \"2001:db8:1::/64\"";
/// What [`gateway`] reads.
pub(crate) const GATEWAY: &str = "an address without prefix length, such as \"10.20.0.1\"";
/// What [`tunnel_end`] reads.
pub(crate) const TUNNEL: &str = "an address or a prefix that tunnels may end at, with a VNI or a GRE key if only that network's are meant, such as \"10.9.0.5\", \"10.9.0.0/24 vni 77\" or \"2001:db8::5 key 7\"";
/// What [`mac`] reads.
pub(crate) const MAC: &str = "six bytes in hex, such as \"02:00:00:00:00:01\"";
/// What [`device`] reads.
pub(crate) const DEVICE: &str =
    "a PCI address such as \"0000:01:00.0\" or a DPDK vdev such as \"net_af_packet0,iface=span0\"";

/// The digits of a port, and nothing else.
fn digits(text: &str) -> Option<u16> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

/// An address in the form that it has before a port: IPv6 in brackets.
fn before_port(text: &str) -> Option<&str> {
    match text.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').filter(|inner| inner.contains(':')),
        None => Some(text).filter(|text| !text.contains(':')),
    }
}

/// `":80"`, `"10.10.0.2:80"`, `"10.10.0.0/24:8000-8099"` or `"[2001:db8::/64]:443"`.
pub(crate) fn origin(text: &str) -> Result<Origin, String> {
    let accepted = || format!("give {ORIGIN}");
    let (place, ports) = text.rsplit_once(':').ok_or_else(accepted)?;
    let (low, high) = match ports.split_once('-') {
        Some((low, high)) => (digits(low), digits(high)),
        None => (digits(ports), digits(ports)),
    };
    let (low, high) = low.zip(high).ok_or_else(accepted)?;
    port(low)?;
    if low > high {
        return Err(format!(
            "its ports run from {low} down to {high}; give \"{high}-{low}\""
        ));
    }
    let net = match place {
        "" => None,
        place if place.contains('/') => {
            let net: IpNet = before_port(place)
                .and_then(|net| net.parse().ok())
                .ok_or_else(accepted)?;
            if net != net.trunc() {
                return Err(format!(
                    "has bits set beyond the prefix length; give \"{}\"",
                    net.trunc()
                ));
            }
            if net.prefix_len() == 0 {
                return Err(format!(
                    "is every address; give \":{ports}\" for any address"
                ));
            }
            host(net.addr())?;
            Some(net)
        }
        _ => {
            let addr = socket(&format!("{place}:{low}"), &accepted())?;
            Some(IpNet::from(host(addr.ip())?))
        }
    };
    Ok(Origin { net, low, high })
}

/// `"10.20.0.2:8080"`, or `"10.20.0.2:*"` for the port that the client used in production.
pub(crate) fn target(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    let accepted = || format!("give {TARGET}");
    let (place, number) = text.rsplit_once(':').ok_or_else(accepted)?;
    if number.contains('-') {
        return Err("is a range of ports; give one port, or * for the port that the client used in production".to_owned());
    }
    if number == "*" {
        let addr = socket(&format!("{place}:1"), &accepted())?;
        return Ok((host(addr.ip())?, None));
    }
    let addr = socket(text, &accepted())?;
    Ok((host(addr.ip())?, Some(port(addr.port())?)))
}

/// `"10.30.0.3:36524"`; loopback is fine, this goes through the kernel.
pub(crate) fn server(text: &str) -> Result<SocketAddr, String> {
    let addr = socket(text, &format!("give {SERVER}"))?;
    if !addr.ip().is_loopback() {
        host(addr.ip())?;
    }
    port(addr.port()).map(|_| addr)
}

/// `"0.0.0.0:36524"`; the kernel's addresses, so the unspecified one and loopback are fine.
pub(crate) fn listen(text: &str) -> Result<SocketAddr, String> {
    let addr = socket(text, &format!("give {LISTEN}"))?;
    if !addr.ip().is_loopback() && !addr.ip().is_unspecified() {
        host(addr.ip())?;
    }
    port(addr.port()).map(|_| addr)
}

fn net(text: &str, accepted: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_| accepted.to_owned())
}

/// `"10.20.0.9/24"`, a host's address on a wire and which others are there.
pub(crate) fn own_address(text: &str) -> Result<IpNet, String> {
    let net = net(text, &format!("give {OWN}"))?;
    host(net.addr())?;
    let (wide, whole) = match net {
        IpNet::V4(v4) => (v4.prefix_len() < 31, 32),
        IpNet::V6(_) => (false, 128),
    };
    if net.prefix_len() == 0 {
        return Err(format!(
            "a prefix length of 0 puts every address on the wire; give one from 1 to {whole}"
        ));
    }
    if wide && (net.addr() == net.network() || net.addr() == net.broadcast()) {
        return Err(format!(
            "is the network's or the broadcast address of {}; give a host's own address",
            net.trunc()
        ));
    }
    Ok(net)
}

/// `"62.135.200.0/24"`, all of whose addresses are used.
pub(crate) fn prefix(text: &str) -> Result<IpNet, String> {
    let net = net(text, &format!("give {PREFIX}"))?;
    if net != net.trunc() {
        return Err(format!(
            "has bits set beyond the prefix length; give \"{}\"",
            net.trunc()
        ));
    }
    // Whole blocks that hold no hosts (RFC 6890), and the prefixes that contain them.
    let reserved = [
        "0.0.0.0/8",
        "127.0.0.0/8",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/127",
        "::ffff:0:0/96",
        "ff00::/8",
    ];
    for block in reserved {
        if block
            .parse()
            .is_ok_and(|block: IpNet| block.contains(&net) || net.contains(&block))
        {
            return Err(format!(
                "contains addresses of {block}, which no client can have; give a prefix of host addresses"
            ));
        }
    }
    Ok(net)
}

/// `"10.20.0.1"`.
pub(crate) fn gateway(text: &str) -> Result<IpAddr, String> {
    host(text.parse().map_err(|_| format!("give {GATEWAY}"))?)
}

/// `"10.9.0.5"`, `"10.9.0.0/24 vni 77"`, `"10.9.0.5 key 0x4d"`; all of a family is `"0.0.0.0/0"` or
/// `"::/0"`.
pub(crate) fn tunnel_end(text: &str) -> Result<TunnelEnd, String> {
    let accepted = || format!("give {TUNNEL}");
    let mut words = text.split_ascii_whitespace();
    let to = words.next().ok_or_else(accepted)?;
    let to: IpNet = match to.parse::<IpAddr>() {
        Ok(addr) if addr.is_unspecified() => {
            return Err("is the unspecified address; give a host's own address, or a prefix such as \"0.0.0.0/0\"".to_owned());
        }
        Ok(addr) => addr.into(),
        Err(_) => to.parse().map_err(|_| accepted())?,
    };
    if let IpAddr::V6(v6) = to.addr()
        && v6.to_ipv4_mapped().is_some()
    {
        return Err(
            "is an IPv4-mapped IPv6 address, which never appears on a wire; give the IPv4 address"
                .to_owned(),
        );
    }
    if to != to.trunc() {
        return Err(format!(
            "has bits set beyond the prefix length; give \"{}\"",
            to.trunc()
        ));
    }
    let number = |text: &str, most: u32| {
        let (digits, radix) = match text.strip_prefix("0x") {
            Some(hex) => (hex, 16),
            None => (text, 10),
        };
        // No sign, which a number would be parsed with.
        let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
        let value = u32::from_str_radix(digits, radix).ok();
        value
            .filter(|n| plain && *n <= most)
            .ok_or_else(|| format!("{text:?} is no number from 0 to {most}; {}", accepted()))
    };
    let network = match (words.next(), words.next(), words.next()) {
        (None, ..) => None,
        (Some("vni"), Some(n), None) => Some(TunnelNetwork::Vni(number(n, 0xff_ffff)?)),
        (Some("key"), Some(n), None) => Some(TunnelNetwork::Key(number(n, u32::MAX)?)),
        _ => return Err(accepted()),
    };
    Ok(TunnelEnd { to, network })
}

/// `"02:00:00:00:00:01"`.
pub(crate) fn mac(text: &str) -> Result<[u8; 6], String> {
    let accepted = || format!("give {MAC}");
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts
            .next()
            .filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
        *byte = part
            .and_then(|p| u8::from_str_radix(p, 16).ok())
            .ok_or_else(accepted)?;
    }
    if parts.next().is_some() {
        return Err(accepted());
    }
    if bytes[0] & 1 == 1 || bytes == [0; 6] {
        return Err("is no unicast address; give the next hop's own".to_owned());
    }
    Ok(bytes)
}

/// True for a relative path that goes up, and so may lead anywhere.
pub(crate) fn leaves_its_folder(path: &str) -> bool {
    !path.starts_with('/') && path.split('/').any(|part| part == "..")
}

/// A DPDK device: its text, and what tells whether two of them are the same port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// As given.
    pub text: String,
    /// Name without arguments; a PCI address with its domain, in lower case.
    name: String,
    /// The kernel's interfaces it stands on.
    interfaces: Vec<String>,
}

impl Device {
    /// True if the driver writes what is sent to a file, which it begins anew.
    pub fn writes_file(&self) -> bool {
        self.text.split(',').any(|a| a.starts_with("tx_pcap="))
    }

    /// The name or interface that two devices have in common.
    pub fn shared<'d>(&'d self, other: &'d Device) -> Option<&'d str> {
        let interface = self
            .interfaces
            .iter()
            .find(|i| other.interfaces.contains(i));
        interface
            .or(Some(&self.name).filter(|name| **name == other.name))
            .map(String::as_str)
    }
}

/// A PCI address (`"01:00.0"`, `"0000:01:00.0"`), or a vdev with its arguments
/// (`"net_af_packet0,iface=span0"`).
pub(crate) fn device(text: &str) -> Result<Device, String> {
    // RTE_DEV_NAME_MAX_LEN of rte_dev.h and IFNAMSIZ of net/if.h, both with the closing NUL.
    const NAME_MAX: usize = 63;
    const INTERFACE_MAX: usize = 15;
    let accepted = || format!("give {DEVICE}");
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("contains blanks; {}", accepted()));
    }
    let (name, arguments) = text.split_once(',').unwrap_or((text, ""));
    let pci = pci(name);
    let vdev = ["net_", "eth_", "virtio_user"]
        .iter()
        .any(|p| name.starts_with(p));
    if name.len() > NAME_MAX || (pci.is_none() && !vdev) {
        return Err(accepted());
    }
    let mut interfaces = Vec::new();
    for argument in arguments.split(',') {
        // Some are the names of files, which drivers read and write.
        if let Some((key, _)) = argument.split_once('=').filter(|a| leaves_its_folder(a.1)) {
            return Err(format!(
                "{key} leaves the working directory, where relative paths start; give a name below it, or a whole path"
            ));
        }
        if let Some((key @ ("iface" | "rx_iface" | "tx_iface" | "rx_iface_in"), interface)) =
            argument.split_once('=')
        {
            if interface.is_empty() || interface.len() > INTERFACE_MAX || interface.contains('/') {
                return Err(format!(
                    "{key} needs an interface name of 1 to {INTERFACE_MAX} characters; {}",
                    accepted()
                ));
            }
            interfaces.push(interface.to_owned());
        }
    }
    let kernel = ["net_af_packet", "net_af_xdp"]
        .iter()
        .any(|p| name.starts_with(p));
    if kernel && interfaces.is_empty() {
        return Err(format!(
            "this driver needs an interface; give \"{name},iface=NAME\""
        ));
    }
    Ok(Device {
        text: text.to_owned(),
        name: pci.unwrap_or_else(|| name.to_owned()),
        interfaces,
    })
}

/// The canonical form of a PCI address, `None` if it is none.
fn pci(name: &str) -> Option<String> {
    let name = name
        .strip_prefix("pci:")
        .unwrap_or(name)
        .to_ascii_lowercase();
    let (rest, function) = name.rsplit_once('.')?;
    let full = if rest.matches(':').count() == 1 {
        format!("0000:{rest}")
    } else {
        rest.to_owned()
    };
    let parts: Vec<&str> = full.split(':').collect();
    let hex = |s: &str, len: usize| s.len() == len && s.bytes().all(|b| b.is_ascii_hexdigit());
    let [domain, bus, slot] = parts[..] else {
        return None;
    };
    let sound = hex(domain, 4)
        && hex(bus, 2)
        && hex(slot, 2)
        && matches!(function.as_bytes(), [b'0'..=b'7']);
    sound.then(|| format!("{full}.{function}"))
}

/// True for addresses that are on every wire of their family (RFC 4291 section 2.5.6).
pub(crate) fn link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(v6) if Ipv6Addr::is_unicast_link_local(&v6))
}
