//! From TOML to the model, key by key. What concerns several keys is in `check`.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;

use super::{
    Clients, Intercept, Limits, Mirror, Pace, Replay, ReplayPort, Shard, Source, Target, Traffic,
    Transfer, TunnelEnd, check, files,
};
use crate::doc::{Doc, Found, Schema, Section};
use crate::key::KeyReader;
use crate::shared::{self, DAY, EAL_KEYS, Eal, REPORT_KEYS, Report};
use crate::value::{self, Device, duration, size};
use crate::{Error, replay::Origin};

pub(super) const SCHEMA: Schema = &[
    (
        "mirror",
        &[
            "ports",
            "file",
            "speed",
            "loops",
            "max_idle",
            "ip_in_udp",
            "mtu",
            "verify_checksums",
            "address",
            "tunnels",
        ],
    ),
    ("replay", &["port", "address", "gateway", "next_hop_mac"]),
    (
        "transfer",
        &[
            "from",
            "to",
            "copies",
            "percent",
            "wait_for_responses",
            "rtt",
            "gate_timeout",
        ],
    ),
    (
        TARGET_TABLE,
        &[
            "address",
            "copies",
            "percent",
            "wait_for_responses",
            "rtt",
            "gate_timeout",
        ],
    ),
    ("clients", &["pool"]),
    (
        "traffic",
        &[
            "copies",
            "percent",
            "ramp",
            "shard",
            "full_sessions_only",
            "wait_for_responses",
            "rtt",
            "gate_timeout",
            "session_timeout",
            "keepalive_timeout",
        ],
    ),
    ("intercept", &["mode", "servers", "key_file", "insecure"]),
    ("limits", &["sessions", "mbufs", "session_bytes"]),
    ("report", REPORT_KEYS),
    ("eal", EAL_KEYS),
];

/// A target that says more than its address.
const TARGET_TABLE: &str = "transfer.to";

/// A transfer with the places of its ends.
pub(super) struct FoundTransfer<'a> {
    pub from: Vec<Found<'a, Origin>>,
    pub to: Vec<Found<'a, Target>>,
}

impl<'a> FoundTransfer<'a> {
    /// The production address that is in this prefix, or has it in its own.
    pub fn production(&self, net: &IpNet) -> Option<&Found<'a, Origin>> {
        let meets = |own: IpNet| own.contains(net) || net.contains(&own);
        self.from.iter().find(|o| o.value.net.is_some_and(meets))
    }
}

pub(super) fn read(text: &str, path: &str, keys: KeyReader<'_>) -> Result<Replay, Error> {
    let doc = Doc {
        path,
        text,
        schema: SCHEMA,
    };
    let root = doc.table()?;
    let root = root.get_ref();
    doc.check_tables(root)?;
    let mut warnings = Vec::new();

    let section = doc.section(root, "mirror")?;
    let (source, mirrors) = mirror(path, &section)?;
    let listening = shared::own_addresses(&section)?;
    if let (Source::Files(_), Some(item)) = (&source, section.get("address")) {
        return Err(item.fail("is for mirror.ports; nobody asks a file for an address"));
    }
    let mut mirror = Mirror {
        source,
        ip_in_udp: udp_ports(&section)?,
        mtu: mtu(&section)?,
        verify_checksums: flag(&section, "verify_checksums", true)?,
        addresses: Vec::new(),
        tunnels: tunnels(&section)?,
    };
    let section = doc.section(root, "replay")?;
    let item = section.need("port", format_args!("give {}", value::DEVICE))?;
    let device = Found {
        value: item.parsed(value::DEVICE, value::device)?,
        item,
    };
    check::devices(&mirrors, &device)?;

    let addresses = shared::own_addresses(&section)?;
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

    let traffic = traffic(&doc.section(root, "traffic")?)?;
    let mut transfers = Vec::new();
    for section in doc.sections(root, "transfer")? {
        transfers.push(transfer(&section, &traffic)?);
    }
    if transfers.is_empty() {
        let reason = "is missing; give at least one [[transfer]] with from and to";
        return Err(Error::missing(path, None, "transfer", reason));
    }
    let pool = match doc.section(root, "clients")?.get("pool") {
        Some(item) => item.list(value::PREFIX, value::prefix)?,
        None => Vec::new(),
    };

    check::gateways(&gateways, &addresses)?;
    check::transfers(&transfers, &addresses, &gateways)?;
    check::reachable(&transfers, &addresses, &gateways, next_hop_mac.is_some())?;
    check::pool(&pool, &transfers, &addresses, &gateways)?;
    check::listening(&listening, &transfers, &addresses, &gateways, &pool)?;
    mirror.addresses = values(listening);
    let mut origins = transfers.iter().flat_map(|t| &t.from);
    let any = origins.any(|o| o.value.net.is_none());
    let opened = !mirror.addresses.is_empty() || mirror.tunnels.is_some();
    if any && !opened && !mirror.ip_in_udp.is_empty() {
        warnings.push(
            "mirror.ip_in_udp opens nothing, as a transfer is from any address: list in mirror.tunnels where tunnels may end".to_owned(),
        );
    }

    let intercept = intercept(path, &doc.section(root, "intercept")?, keys, &mut warnings)?;
    Ok(Replay {
        mirror,
        replay: ReplayPort {
            port: device.value.text,
            addresses: values(addresses),
            gateways: values(gateways),
            next_hop_mac,
        },
        transfers: transfers
            .into_iter()
            .map(|t| Transfer {
                from: values(t.from),
                to: values(t.to),
            })
            .collect(),
        clients: Clients { pool: values(pool) },
        traffic,
        intercept,
        limits: limits(&doc.section(root, "limits")?)?,
        report: Report::read(&doc.section(root, "report")?)?,
        eal: Eal::read(&doc.section(root, "eal")?)?,
        warnings,
    })
}

/// `[[transfer]]`.
fn transfer<'a>(section: &Section<'a>, traffic: &Traffic) -> Result<FoundTransfer<'a>, Error> {
    let item = section.need("from", format_args!("give {}", value::ORIGIN))?;
    let mut from = Vec::new();
    for item in item.one_or_more()? {
        from.push(Found {
            value: item.parsed(value::ORIGIN, value::origin)?,
            item,
        });
    }
    if from.is_empty() {
        return Err(item.fail(format_args!("give at least one, each {}", value::ORIGIN)));
    }
    let own = Target {
        addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        port: None,
        copies: traffic.copies,
        percent: traffic.percent,
        pace: traffic.pace,
    };
    let default = shares(section, own)?;
    let item = section.need("to", format_args!("give {}", value::TARGET))?;
    let mut to = Vec::new();
    for item in item.one_or_more()? {
        let (address, of) = match item.table(TARGET_TABLE) {
            None => (item.clone(), default),
            Some(table) => {
                let table = table?;
                let address = table.need("address", format_args!("give {}", value::TARGET))?;
                (address, shares(&table, default)?)
            }
        };
        let (addr, port) = address.parsed(value::TARGET, value::target)?;
        to.push(Found {
            item: address,
            value: Target { addr, port, ..of },
        });
    }
    match to.len() {
        0 => Err(item.fail(format_args!("give at least one, each {}", value::TARGET))),
        n if n > Transfer::MAX_TARGETS => Err(item.fail(format_args!(
            "these are {n} targets; give at most {}",
            Transfer::MAX_TARGETS
        ))),
        _ => Ok(FoundTransfer { from, to }),
    }
}

/// What a transfer or a target says of how much it gets and when, and `default` where it does not.
fn shares(section: &Section<'_>, default: Target) -> Result<Target, Error> {
    Ok(Target {
        copies: copies(section, default.copies)?,
        percent: percent(section, default.percent)?,
        pace: pace(section, default.pace)?,
        ..default
    })
}

/// `copies`.
fn copies(section: &Section<'_>, default: u16) -> Result<u16, Error> {
    let given = section.get("copies");
    given.map_or(Ok(default), |item| item.integer(1..=1023))
}

/// `percent`.
fn percent(section: &Section<'_>, default: f64) -> Result<f64, Error> {
    let Some(item) = section.get("percent") else {
        return Ok(default);
    };
    match item.number() {
        Some(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err(item.fail("give a number above 0 and at most 100")),
    }
}

fn values<T>(found: Vec<Found<'_, T>>) -> Vec<T> {
    found.into_iter().map(|f| f.value).collect()
}

fn mirror<'a>(
    path: &str,
    section: &Section<'a>,
) -> Result<(Source, Vec<Found<'a, Device>>), Error> {
    match (section.get("ports"), section.get("file")) {
        (Some(_), Some(file)) => Err(file.fail("cannot be given together with mirror.ports; give one of the two")),
        (None, None) => {
            Err(section.missing("ports", "is missing, and so is mirror.file; give one of the two, such as ports = [\"0000:01:00.0\"]"))
        }
        (Some(item), None) => {
            for key in ["speed", "loops", "max_idle"] {
                if let Some(item) = section.get(key) {
                    return Err(item.fail("is for offline replay; give it with mirror.file, not with mirror.ports"));
                }
            }
            let devices = item.list(value::DEVICE, value::device)?;
            if devices.is_empty() {
                return Err(item.fail(format_args!("give at least one, each {}", value::DEVICE)));
            }
            Ok((Source::Ports(devices.iter().map(|d| d.value.text.clone()).collect()), devices))
        }
        (None, Some(item)) => {
            Ok((Source::Files(files::read(path, section, &item)?), Vec::new()))
        }
    }
}

/// `mirror.ip_in_udp`.
fn udp_ports(section: &Section<'_>) -> Result<Vec<u16>, Error> {
    let Some(item) = section.get("ip_in_udp") else {
        return Ok(Vec::new());
    };
    let mut ports = Vec::new();
    for one in item.items("give a list of UDP ports, such as [9999]")? {
        let port = one.integer(1..=u16::MAX)?;
        if ports.contains(&port) {
            return Err(one.fail("is in the list already; give each port once"));
        }
        ports.push(port);
    }
    if ports.len() > Mirror::MAX_UDP_PORTS {
        let most = Mirror::MAX_UDP_PORTS;
        return Err(item.fail(format_args!("has too many ports; give at most {most}")));
    }
    Ok(ports)
}

/// `mirror.mtu`.
fn mtu(section: &Section<'_>) -> Result<Option<u16>, Error> {
    let Some(item) = section.get("mtu") else {
        return Ok(None);
    };
    if section.get("file").is_some() {
        return Err(item.fail("is for mirror.ports; frames of a file have the length they have"));
    }
    item.integer(Mirror::LEAST_MTU..=u16::MAX).map(Some)
}

/// `mirror.tunnels`.
fn tunnels(section: &Section<'_>) -> Result<Option<Vec<TunnelEnd>>, Error> {
    let Some(item) = section.get("tunnels") else {
        return Ok(None);
    };
    let ends = item.list(value::TUNNEL, value::tunnel_end)?;
    for (i, one) in ends.iter().enumerate() {
        if let Some(other) = ends[..i].iter().find(|o| o.value == one.value) {
            let other = &other.item.key;
            return Err(one
                .item
                .fail(format_args!("is {other} already; give each once")));
        }
    }
    if ends.len() > Mirror::MAX_TUNNELS {
        let most = Mirror::MAX_TUNNELS;
        return Err(item.fail(format_args!(
            "has too many places; give at most {most}, or a prefix for several"
        )));
    }
    Ok(Some(values(ends)))
}

/// The pace where neither the transfer nor `[traffic]` says anything.
const DEFAULT_PACE: Pace = Pace {
    wait_for_responses: true,
    rtt: None,
    gate_timeout: Duration::from_secs(5),
};

fn time(
    section: &Section<'_>,
    key: &str,
    default: Duration,
    least: Duration,
) -> Result<Duration, Error> {
    match section.get(key) {
        Some(item) => item.parsed("a duration", |s| duration(s, least, DAY)),
        None => Ok(default),
    }
}

fn flag(section: &Section<'_>, key: &str, default: bool) -> Result<bool, Error> {
    section.get(key).map_or(Ok(default), |item| item.bool())
}

/// What `[traffic]` or a `[[transfer]]` says of the pace; `default` has the rest.
fn pace(section: &Section<'_>, default: Pace) -> Result<Pace, Error> {
    let rtt = |s: &str| duration(s, Duration::from_micros(1), Duration::from_secs(60));
    Ok(Pace {
        wait_for_responses: flag(section, "wait_for_responses", default.wait_for_responses)?,
        rtt: match section.get("rtt") {
            Some(item) => Some(item.parsed("a duration", rtt)?),
            None => default.rtt,
        },
        gate_timeout: time(
            section,
            "gate_timeout",
            default.gate_timeout,
            Duration::from_millis(1),
        )?,
    })
}

fn traffic(section: &Section<'_>) -> Result<Traffic, Error> {
    let (millisecond, second) = (Duration::from_millis(1), Duration::from_secs(1));
    Ok(Traffic {
        copies: copies(section, 1)?,
        percent: percent(section, 100.0)?,
        ramp: time(section, "ramp", Duration::ZERO, Duration::ZERO)?,
        shard: section.get("shard").map_or(Ok(Shard::ALL), |item| {
            item.parsed("a part of a whole, such as \"3/16\"", shard)
        })?,
        full_sessions_only: flag(section, "full_sessions_only", false)?,
        pace: pace(section, DEFAULT_PACE)?,
        session_timeout: time(section, "session_timeout", 600 * second, millisecond)?,
        keepalive_timeout: time(section, "keepalive_timeout", 7_200 * second, millisecond)?,
    })
}

/// `"3/16"`.
fn shard(text: &str) -> Result<Shard, String> {
    let digits =
        |s: &str| (!s.is_empty() && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse().ok());
    let parts = text.split_once('/');
    let parts = parts.and_then(|(number, of)| Some((digits(number)??, digits(of)??)));
    match parts {
        Some((number, of)) if (1..=of).contains(&number) && of <= Shard::MOST => {
            Ok(Shard { number, of })
        }
        _ => Err(format!(
            "give a part of a whole from \"1/N\" to \"N/N\", such as \"3/16\"; N is at most {}",
            Shard::MOST
        )),
    }
}

fn intercept(
    path: &str,
    section: &Section<'_>,
    keys: KeyReader<'_>,
    warnings: &mut Vec<String>,
) -> Result<Intercept, Error> {
    let remote = section.get("mode").map_or(Ok(false), |i| {
        i.choice(&[("embedded", false), ("remote", true)])
    })?;
    if !remote {
        return match ["servers", "key_file", "insecure"]
            .iter()
            .find_map(|key| section.get(key))
        {
            Some(item) => {
                Err(item
                    .fail("is for intercept.mode = \"remote\"; an embedded intercept has no link"))
            }
            None => Ok(Intercept::Embedded),
        };
    }
    let item = section.need(
        "servers",
        format_args!(
            "intercept.mode = \"remote\" needs a list, each {}",
            value::SERVER
        ),
    )?;
    let servers = item.list(value::SERVER, value::server)?;
    if servers.is_empty() {
        return Err(item.fail(format_args!("give at least one, each {}", value::SERVER)));
    }
    for (i, one) in servers.iter().enumerate() {
        if let Some(other) = servers[..i].iter().find(|o| o.value == one.value) {
            return Err(one.item.fail(format_args!(
                "is {} already; give each once",
                other.item.key
            )));
        }
    }
    let key = shared::link_key(path, section, keys, warnings)?;
    let insecure = shared::insecure(section, &key)?;
    if let Some(far) = servers
        .iter()
        .find(|s| key.is_none() && !s.value.ip().is_loopback())
    {
        if !insecure {
            let reason = "is on another machine; give intercept.key_file, a loopback address, or intercept.insecure = true";
            return Err(far.item.fail(reason));
        }
        warnings.push(format!(
            "intercept.insecure = true: everyone on the way to {} can read and send responses",
            far.value
        ));
    }
    Ok(Intercept::Remote {
        servers: values(servers),
        key,
        insecure,
    })
}

fn limits(section: &Section<'_>) -> Result<Limits, Error> {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    let bytes = |key: &str, default: u64, least: u64| match section.get(key) {
        Some(item) => item.parsed("a size", |s| size(s, least, MIB * MIB)),
        None => Ok(default),
    };
    let mbufs_bytes = bytes("mbufs", 512 * MIB, 8 * MIB)?;
    // A virtual port's frame can be as long as an IP datagram: less would shed every session that
    // sends one.
    let session_bytes = bytes("session_bytes", 4 * MIB, 64 * KIB)?;
    if let Some(item) = section
        .get("session_bytes")
        .filter(|_| session_bytes > mbufs_bytes)
    {
        let mbufs = bytesize::ByteSize(mbufs_bytes).display().iec();
        return Err(item.fail(format_args!(
            "is more than all buffers together; give at most limits.mbufs, {mbufs}"
        )));
    }
    let sessions = section
        .get("sessions")
        .map_or(Ok(1_000_000), |item| item.integer(1..=100_000_000))?;
    Ok(Limits {
        sessions,
        mbufs_bytes,
        session_bytes,
    })
}
