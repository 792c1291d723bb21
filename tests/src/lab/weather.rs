//! Hard weather on the wires: a mirror that loses frames or shows them twice, a target that is far away.
//!
//! The kernel makes it (nft, tc), or a process that carries frames; nothing here touches the appliance. What the weather did is known without asking
//! it: [`MirrorWatch`] compares captures of what was sent with what the mirror showed.

use super::capture::{Capture, Direction};
use super::process::{Process, binary};
use super::{Lab, Node};
use crate::record::{Match, Record, check_byte_exact};
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// Runs the full numbers (`REPLAY_FULL=1`) instead of a part that CI has the time for.
pub fn full() -> bool {
    std::env::var("REPLAY_FULL").is_ok_and(|v| v == "1")
}

/// `whole` with `REPLAY_FULL=1`, else `part`; it says aloud which.
pub fn scaled<T: std::fmt::Debug>(what: &str, whole: T, part: T) -> T {
    if full() {
        eprintln!("REPLAY_FULL=1: {what}: {whole:?}");
        return whole;
    }
    eprintln!("{what}: {part:?} of {whole:?}; REPLAY_FULL=1 runs all of it");
    part
}

impl Lab {
    /// From now on the mirror port loses this share of its frames, in thousandths; 0 ends it. No frame is longer than the wire's MTU from here on, so that
    /// one frame is lost at a time.
    ///
    /// A packet socket on the appliance's side sees what arrives before any hook there does, and what the kernel mirrors passes the egress hooks of the
    /// mirror port. So the mirrored frames take a way round: through a link of their own, on whose far side a hook drops some and forwards
    /// the others to the mirror port.
    ///
    /// # Errors
    /// More than 1000, or tc or nft refuse.
    pub fn lose_on_mirror(&self, per_mille: u16) -> Result<()> {
        if per_mille > 1000 {
            bail!("loss of {per_mille} thousandths: at most 1000 are possible");
        }
        for node in [Node::Client, Node::Production] {
            let off = ["-K", "eth0", "tso", "off", "gso", "off", "gro", "off"];
            self.run(node, "ethtool", &off)?;
        }
        let drop = match per_mille {
            0 => String::new(),
            // nft refuses a comparison that always holds.
            1000 => "drop; ".to_owned(),
            _ => format!("numgen random mod 1000 < {per_mille} drop; "),
        };
        let script = format!(
            "if ! ip link show mx0 >/dev/null 2>&1; then\n\
             ip link add mx0 type veth peer name mx1\nip link set mx0 up\nip link set mx1 up\n\
             ethtool -K mx0 tx off tso off gso off sg off\nfi\n\
             nft 'table netdev weather; delete table netdev weather'\n\
             nft 'table netdev weather {{ chain mirror {{ type filter hook ingress device \"mx1\" priority 0; {drop}fwd to \"sp0\"; }}; }}'\n\
             for d in egress ingress; do tc filter del dev swp $d\n\
             tc filter add dev swp $d protocol all pref 1 u32 match u32 0 0 action mirred egress mirror dev mx0; done\n"
        );
        self.run(Node::Switch, "sh", &["-euc", &script])
            .map(std::mem::drop)
    }

    /// From now on the mirror shows every frame twice: both of the switch's ports are mirrored in both directions.
    ///
    /// # Errors
    /// tc refuses.
    pub fn mirror_twice(&self) -> Result<()> {
        let script = "tc qdisc add dev swc clsact\nfor d in egress ingress; do\n\
             tc filter add dev swc $d protocol all pref 1 u32 match u32 0 0 action mirred egress mirror dev sp0; done\n";
        self.run(Node::Switch, "sh", &["-euc", script]).map(drop)
    }

    /// Moves the target away: each frame takes `ms` milliseconds to it, and as long back. The line is up as long as the process runs.
    ///
    /// The hosts' frames have to be whole, so the target's offloads are switched off.
    ///
    /// # Errors
    /// The line can't be laid or its process not be started.
    pub fn delay_target(&self, ms: u64) -> Result<Process> {
        let off = ["-K", "eth0", "tx", "off", "tso", "off", "gso", "off"];
        self.run(Node::Target, "ethtool", &off)?;
        let script = "ip link set lt nomaster\nip link add lx type veth peer name ly\n\
             ip link set lx master br0 up\nip link set ly up\n";
        self.run(Node::Lan, "sh", &["-euc", script])?;
        let mut command = self.command(Node::Lan, binary("delay")?);
        command.args(["--between", "lt", "ly", "--ms", &ms.to_string()]);
        let mut process = self.spawn("delay", command)?;
        process.wait_for("ready", Duration::from_secs(30))?;
        Ok(process)
    }
}

/// What the mirror did not show of each client's segments.
#[derive(Debug, Default)]
pub struct Missing {
    /// Clients of whom a segment with payload or SYN was not shown, with how many.
    pub clients: BTreeMap<SocketAddr, usize>,
    /// Ends of connections, FIN or RST, that were not shown.
    pub ends: usize,
    /// Segments of clients that were not shown, of any kind.
    pub segments: usize,
}

/// Captures at both sides of the mirror.
#[derive(Debug)]
pub struct MirrorWatch {
    clients: Capture,
    shown: Capture,
}

impl MirrorWatch {
    /// Starts to watch what clients send and what the mirror port delivers.
    ///
    /// # Errors
    /// tcpdump can't be run.
    pub fn start(lab: &Lab) -> Result<Self> {
        Ok(Self {
            clients: Capture::start(lab, Node::Switch, "swc", Direction::In)?,
            shown: Capture::start(lab, Node::Appliance, "span0", Direction::In)?,
        })
    }

    /// Ends both and tells what was not shown.
    ///
    /// # Errors
    /// A capture missed something itself.
    pub fn stop(self, server: SocketAddr) -> Result<Missing> {
        let (sent, shown) = (self.clients.stop()?, self.shown.stop()?);
        let mut left: BTreeMap<_, usize> = BTreeMap::new();
        for frame in &shown {
            *left.entry((frame.ips, frame.tcp, frame.len)).or_insert(0) += 1;
        }
        let mut missing = Missing::default();
        for frame in &sent {
            let (Some(ips), Some(tcp)) = (frame.ips, frame.tcp) else {
                continue;
            };
            if SocketAddr::new(ips[1], tcp.ports[1]) != server {
                continue;
            }
            match left.get_mut(&(frame.ips, frame.tcp, frame.len)) {
                Some(n) if *n > 0 => *n -= 1,
                _ => {
                    missing.segments += 1;
                    missing.ends += usize::from(tcp.flags & (FIN | RST) != 0);
                    if tcp.payload_len > 0 || tcp.flags & SYN != 0 {
                        let client = SocketAddr::new(ips[0], tcp.ports[0]);
                        *missing.clients.entry(client).or_insert(0) += 1;
                    }
                }
            }
        }
        Ok(missing)
    }
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;

/// Checks that each connection of a client that is not in `but` reached the target byte for byte, with the client's own address and port. Returns
/// how many there were.
///
/// # Errors
/// The first that differ; or none is left to compare.
pub fn check_others(
    production: &[Record],
    target: &[Record],
    but: &BTreeSet<SocketAddr>,
) -> Result<usize> {
    let keep = |records: &[Record]| -> Vec<Record> {
        let others = records.iter().filter(|r| !but.contains(&r.peer));
        others.cloned().collect()
    };
    let (production, target) = (keep(production), keep(target));
    check_byte_exact(&production, &target, Match::Endpoint, 1)?;
    Ok(production.len())
}
