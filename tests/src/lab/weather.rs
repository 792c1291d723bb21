//! Hard weather on the wires: a mirror that loses frames, shows them twice or out of order, a
//! target that is far away.
//!
//! The kernel makes it (nft, tc), or a process that carries frames; nothing here touches the
//! appliance. What the weather did is known without asking it: [`holes`] compares captures of what
//! was sent with what the mirror showed.

pub mod holes;

use super::capture::Seen;
use super::process::{Process, binary};
use super::{Lab, Node};
use crate::record::{Match, Record, check_byte_exact};
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// The script that sends mirrored frames a way round, through a link of their own from `mx0` to
/// `mx1`.
const DETOUR: &str = "if ! ip link show mx0 >/dev/null 2>&1; then\n\
    ip link add mx0 type veth peer name mx1\nip link set mx0 up\nip link set mx1 up\n\
    ethtool -K mx0 tx off tso off gso off sg off\nfi\n\
    for d in egress ingress; do tc filter del dev swp $d\n\
    tc filter add dev swp $d protocol all pref 1 u32 match u32 0 0 action mirred egress mirror dev mx0; done\n";

impl Lab {
    /// From now on the mirror port loses this share of its frames, in thousandths; 0 ends it. No
    /// frame is longer than the wire's MTU from here on, so that one frame is lost at a time.
    ///
    /// A packet socket on the appliance's side sees what arrives before any hook there does, and
    /// what the kernel mirrors passes the egress hooks of the mirror port. So the mirrored
    /// frames take a way round: through a link of their own, on whose far side a hook drops some
    /// and forwards the others to the mirror port.
    ///
    /// # Errors
    /// More than 1000, or tc or nft refuse.
    pub fn lose_on_mirror(&self, per_mille: u16) -> Result<()> {
        if per_mille > 1000 {
            bail!("loss of {per_mille} thousandths: at most 1000 are possible");
        }
        self.cut_frames()?;
        let drop = match per_mille {
            0 => String::new(),
            // nft refuses a comparison that always holds.
            1000 => "drop; ".to_owned(),
            _ => format!("numgen random mod 1000 < {per_mille} drop; "),
        };
        let script = format!(
            "{DETOUR}nft 'table netdev weather; delete table netdev weather'\n\
             nft 'table netdev weather {{ chain mirror {{ type filter hook ingress device \"mx1\" priority 0; {drop}fwd to \"sp0\"; }}; }}'\n"
        );
        self.run(Node::Switch, "sh", &["-euc", &script])
            .map(std::mem::drop)
    }

    /// From now on the mirror shows every frame twice: both of the switch's ports are mirrored in
    /// both directions.
    ///
    /// # Errors
    /// tc refuses.
    pub fn mirror_twice(&self) -> Result<()> {
        let script = "tc qdisc add dev swc clsact\nfor d in egress ingress; do\n\
             tc filter add dev swc $d protocol all pref 1 u32 match u32 0 0 action mirred egress mirror dev sp0; done\n";
        self.run(Node::Switch, "sh", &["-euc", script]).map(drop)
    }

    /// From now on this share of the mirrored frames, in thousandths, overtakes up to `past`
    /// others, of the same connection and of any. The mirror does so as long as the process
    /// runs, and shows nothing afterwards.
    ///
    /// # Errors
    /// tc refuses, or the process can't be started.
    pub fn reorder_mirror(&self, per_mille: u16, past: u8) -> Result<Process> {
        self.cut_frames()?;
        self.run(Node::Switch, "sh", &["-euc", DETOUR])?;
        // What is in the line within 2 ms can be overtaken.
        let (early, past) = (per_mille.to_string(), past.to_string());
        let args = ["--ms", "2", "--early", &early, "--past", &past];
        self.line(Node::Switch, ["mx1", "sp0"], &args)
    }

    /// Moves the target away: each frame takes `ms` milliseconds to it, and as long back. The line
    /// is up as long as the process runs.
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
        self.line(Node::Lan, ["lt", "ly"], &["--ms", &ms.to_string()])
    }

    /// A delay line between two interfaces of a node.
    fn line(&self, node: Node, between: [&str; 2], args: &[&str]) -> Result<Process> {
        let mut command = self.command(node, binary("delay")?);
        command.arg("--between").args(between).args(args);
        let mut process = self.spawn("delay", command)?;
        process.wait_for("ready", Duration::from_secs(30))?;
        Ok(process)
    }

    /// Production's frames are as they would be on a cable from now on: none is longer than the
    /// MTU.
    fn cut_frames(&self) -> Result<()> {
        for node in [Node::Client, Node::Production] {
            let off = ["-K", "eth0", "tso", "off", "gso", "off", "gro", "off"];
            self.run(node, "ethtool", &off)?;
        }
        Ok(())
    }
}

/// How many of the clients' segments with payload were overtaken by a later one of the same
/// connection.
pub fn overtaken(frames: &[Seen], server: SocketAddr) -> usize {
    let mut ends: BTreeMap<SocketAddr, u32> = BTreeMap::new();
    let mut overtaken = 0;
    for frame in frames {
        let (Some(ips), Some(tcp)) = (frame.ips, frame.tcp) else {
            continue;
        };
        if SocketAddr::new(ips[1], tcp.ports[1]) != server || tcp.payload_len == 0 {
            continue;
        }
        let client = SocketAddr::new(ips[0], tcp.ports[0]);
        let end = tcp.seq.wrapping_add(tcp.payload_len);
        let highest = ends.entry(client).or_insert(end);
        let ahead = highest.wrapping_sub(end);
        // Further away is another connection of a port that is used again.
        if (1..1 << 24).contains(&ahead) {
            overtaken += 1;
        } else {
            *highest = end;
        }
    }
    overtaken
}

/// Checks that each connection of a client that is not in `but` reached the target byte for byte,
/// with the client's own address and port. Returns how many there were.
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
