//! What a script says before its first event: parameters, who the clients are, where sequence
//! numbers begin.

use replay::slots::Slice;
use replay::{Pace, Params, Target, Transfer};
use std::net::IpAddr;
use wire::{Addr, Endpoint, Flow, Nanos, Seq};

pub const MS: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000 * MS;
/// When a script begins.
pub const START: Nanos = SECOND;

const PRODUCTION: Endpoint = Endpoint::new(Addr::v4([10, 10, 0, 2]), 80);
const TARGET: Endpoint = Endpoint::new(Addr::v4([10, 20, 0, 2]), 8080);
const PRODUCTION_V6: Endpoint = Endpoint::new(v6(0x10), 80);
const TARGET_V6: Endpoint = Endpoint::new(v6(0x20), 8080);

const fn v6(net: u8) -> Addr {
    Addr::v6([0x20, 1, 0xd, 0xb8, 0, net, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2])
}

/// A client's connection in production.
#[derive(Clone, Debug)]
pub struct Client {
    pub name: String,
    /// Client to server.
    pub flow: Flow,
    pub isn: Seq,
    pub server_isn: Seq,
}

impl Client {
    fn new(name: &str, at: Endpoint) -> Self {
        let v4 = at.addr.is_v4();
        Self {
            name: name.to_owned(),
            flow: Flow {
                src: at,
                dst: if v4 { PRODUCTION } else { PRODUCTION_V6 },
            },
            isn: Seq(100_000),
            server_isn: Seq(500_000),
        }
    }
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Settings {
    pub params: Params,
    /// The first is the one without a name.
    pub clients: Vec<Client>,
    /// The target's initial sequence number.
    pub target_isn: Seq,
}

impl Default for Settings {
    fn default() -> Self {
        let transfers = vec![
            Transfer::new(PRODUCTION, TARGET),
            Transfer::new(PRODUCTION_V6, TARGET_V6),
        ];
        let client = Endpoint::new(Addr::v4([192, 0, 2, 1]), 40_000);
        Self {
            params: Params {
                session_bytes: 1 << 20,
                keepalive_timeout: 720 * SECOND,
                start: START,
                ..Params::new(transfers, 16, 512)
            },
            clients: vec![Client::new("", client)],
            target_isn: Seq(900_000),
        }
    }
}

impl Settings {
    /// Takes one line.
    pub fn read(&mut self, word: &str, rest: &str) -> Result<(), String> {
        let words: Vec<_> = rest.split_whitespace().collect();
        match (word, &words[..]) {
            ("set", [key, value]) => self.set(key, value),
            ("set", [key, value, "v4"]) => self.pace(key, value, |t| t.to.addr.is_v4()),
            ("set", [key, value, "v6"]) => self.pace(key, value, |t| !t.to.addr.is_v4()),
            ("client", [at]) => self.client("", at, None),
            ("client", [name, at]) => self.client(name, at, None),
            ("client", [at, "to", server]) => self.client("", at, Some(server)),
            ("client", [name, at, "to", server]) => self.client(name, at, Some(server)),
            ("isn", [client, server]) => self.isn("", client, server),
            ("isn", [name, client, server]) => self.isn(name, client, server),
            ("set", _) => Err("'set' is followed by a parameter and its value".into()),
            ("isn", _) => Err(
                "'isn' is followed by the client's and the server's, and before them by the client's name if it has one".into(),
            ),
            _ => Err("'client' is followed by [NAME] ADDRESS.PORT [to ADDRESS.PORT]".into()),
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let p = &mut self.params;
        let whole = || {
            value
                .parse::<u64>()
                .map_err(|_| format!("'{value}' is no number for {key}"))
        };
        let small = || {
            whole()?
                .try_into()
                .map_err(|_| format!("{value} is too large for {key}"))
        };
        match key {
            "mtu" => p.mtu = small()?,
            "copies" => p.copies = small()?,
            "percent" => {
                let percent = value.parse().ok().filter(|v| *v > 0.0 && *v <= 100.0);
                p.percent = percent.ok_or_else(|| format!("'{value}' is no share up to 100"))?;
            }
            "ramp" => p.ramp = duration(value)?,
            "rtt" | "gate_timeout" | "wait_for_responses" => {
                return self.pace(key, value, |_| true);
            }
            "session_timeout" => p.session_timeout = duration(value)?,
            "keepalive_timeout" => p.keepalive_timeout = duration(value)?,
            "full_sessions_only" => p.full_sessions_only = yes(value)?,
            "session_bytes" => p.session_bytes = whole()?,
            "canaries" => p.canaries = whole()? as usize,
            "max_sessions" => p.max_sessions = whole()? as usize,
            "max_segments" => {
                p.max_segments = whole()? as usize;
                p.max_frames = p.max_segments;
            }
            "pool" => p.pool.push(slice(value)?),
            "pace" => {
                let speed = value.parse().ok().filter(|v| *v > 0.0);
                p.pace = match (value, speed) {
                    ("live", _) => Pace::Live,
                    ("unpaced", _) => Pace::Unpaced,
                    (_, Some(speed)) => Pace::Recorded(speed),
                    _ => {
                        return Err(format!(
                            "'{value}' is no pace: live, unpaced, or a number such as 0.5"
                        ));
                    }
                };
            }
            "tisn" => {
                let isn = value.parse();
                self.target_isn = Seq(isn.map_err(|_| format!("'{value}' is no ISN"))?);
            }
            _ => {
                return Err(format!(
                    "unknown parameter '{key}': one of mtu, copies, percent, ramp, rtt, gate_timeout, session_timeout, \
                     keepalive_timeout, full_sessions_only, wait_for_responses, session_bytes, max_sessions, max_segments, canaries, pool, pace, tisn"
                ));
            }
        }
        Ok(())
    }

    /// Sets what a transfer may have of its own, for those that are `meant`.
    fn pace(
        &mut self,
        key: &str,
        value: &str,
        meant: impl Fn(&Target) -> bool,
    ) -> Result<(), String> {
        let targets = self.params.transfers.iter_mut().flat_map(|t| &mut t.to);
        for t in targets.filter(|t| meant(t)) {
            match key {
                "rtt" => t.rtt = Some(duration(value)?),
                "gate_timeout" => t.gate_timeout = duration(value)?,
                "wait_for_responses" => t.wait_for_responses = yes(value)?,
                _ => return Err(format!("'{key}' is the same for all transfers")),
            }
        }
        Ok(())
    }

    fn client(&mut self, name: &str, at: &str, server: Option<&str>) -> Result<(), String> {
        let mut client = Client::new(name, endpoint(at)?);
        if let Some(server) = server {
            client.flow.dst = endpoint(server)?;
        }
        match self.clients.iter_mut().find(|c| c.name == name) {
            Some(there) => *there = client,
            None => self.clients.push(client),
        }
        Ok(())
    }

    fn isn(&mut self, name: &str, client: &str, server: &str) -> Result<(), String> {
        let Some(c) = self.clients.iter_mut().find(|c| c.name == name) else {
            return Err(format!("no 'client {name}' stands before its 'isn'"));
        };
        let parse = |s: &str| s.parse().map_err(|_| format!("'{s}' is no ISN"));
        (c.isn, c.server_isn) = (Seq(parse(client)?), Seq(parse(server)?));
        Ok(())
    }

    /// The target that stands for a production server of the client's family.
    pub fn target_of(client: &Client) -> Endpoint {
        if client.flow.src.addr.is_v4() {
            TARGET
        } else {
            TARGET_V6
        }
    }
}

/// `0`, `250us`, `10ms`, `1.5s`.
pub fn duration(text: &str) -> Result<Nanos, String> {
    if text == "0" {
        return Ok(0);
    }
    let units = [("us", 1_000), ("ms", MS), ("s", SECOND)];
    units
        .iter()
        .find_map(|(unit, nanos)| {
            let n: f64 = text.strip_suffix(unit)?.parse().ok()?;
            (n >= 0.0).then_some((n * *nanos as f64).round() as Nanos)
        })
        .ok_or_else(|| format!("'{text}' is no time: 0, 250us, 10ms, 1.5s"))
}

/// `192.0.2.1.40000`, `2001:db8::1.40000`.
pub fn endpoint(text: &str) -> Result<Endpoint, String> {
    let parse = || {
        let (addr, port) = text.rsplit_once('.')?;
        let addr: IpAddr = addr.parse().ok()?;
        Some(Endpoint::new(addr.into(), port.parse().ok()?))
    };
    parse().ok_or_else(|| format!("'{text}' is no address and port such as 192.0.2.1.40000"))
}

/// `62.135.200.0/30:1024-1033`.
fn slice(text: &str) -> Result<Slice, String> {
    let parse = || {
        let (net, ports) = text.rsplit_once(':')?;
        let (addr, prefix) = net.split_once('/')?;
        let (low, high) = ports.split_once('-')?;
        let addr: IpAddr = addr.parse().ok()?;
        let bits = if addr.is_ipv4() { 32 } else { 128 };
        let prefix: u32 = prefix.parse().ok().filter(|p| *p <= bits)?;
        Some(Slice {
            first: addr.into(),
            addresses: 1u32.checked_shl(bits - prefix)?,
            low: low.parse().ok()?,
            high: high.parse().ok()?,
        })
    };
    parse().ok_or_else(|| format!("'{text}' is no pool such as 62.135.200.0/30:1024-1033"))
}

fn yes(text: &str) -> Result<bool, String> {
    text.parse()
        .map_err(|_| format!("'{text}' is neither true nor false"))
}
