//! Captures of what really was on a wire, to prove that production and its clients never meet a
//! frame of the appliance.
//!
//! tcpdump writes and this module reads: it knows Ethernet, IPv4, IPv6 and TCP on its own and
//! shares no line with the code under test. A capture that missed a frame proves nothing, so that
//! is an error.

use super::process::{Process, wait_until};
use super::{Family, Lab, Node};
use anyhow::{Context, Result, anyhow, bail};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

/// Bytes kept of each frame: all headers.
const SNAPLEN: &str = "192";

/// Which frames of an interface are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// All.
    Both,
    /// Those that the interface receives.
    In,
}

/// A frame, as far as the lab's questions go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Destination and source MAC address.
    pub macs: [[u8; 6]; 2],
    /// Source and destination IP address, or an ARP frame's.
    pub ips: Option<[IpAddr; 2]>,
    /// The TCP segment's head, if it is one.
    pub tcp: Option<Segment>,
    /// Length on the wire in bytes.
    pub len: u32,
    /// When it was captured, in µs since the epoch.
    pub at_us: u64,
}

/// A TCP segment's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Source and destination port.
    pub ports: [u16; 2],
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// Control bits.
    pub flags: u8,
    /// Bytes of payload.
    pub payload_len: u32,
}

impl Segment {
    /// True for a reset.
    pub const fn is_reset(&self) -> bool {
        self.flags & 0x04 != 0
    }
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    path: PathBuf,
}

impl Capture {
    /// Starts to capture at an interface of a node.
    ///
    /// # Errors
    /// tcpdump can't be run.
    pub fn start(lab: &Lab, node: Node, interface: &str, direction: Direction) -> Result<Self> {
        let name = format!("capture-{}-{interface}", node.suffix());
        let path = lab.file(&format!("{name}.pcap"));
        let mut command = lab.command(node, "tcpdump");
        // As root it stays root (-Z), for the folder is root's; a deep buffer (-B, KiB) for bursts.
        command
            .args([
                "-i", interface, "-s", SNAPLEN, "-B", "32768", "-n", "-U", "-Z", "root", "-w",
            ])
            .arg(&path);
        if direction == Direction::In {
            command.args(["-Q", "in"]);
        }
        let mut process = lab.spawn(&name, command)?;
        process.wait_for("listening on", Duration::from_secs(10))?;
        wait_until("the capture's file", Duration::from_secs(5), || {
            Ok(path.exists().then_some(()))
        })?;
        Ok(Self { process, path })
    }

    /// Ends the capture and returns its frames.
    ///
    /// # Errors
    /// tcpdump lost frames, or its file is damaged.
    pub fn stop(mut self) -> Result<Vec<Seen>> {
        // What was on the wire just now may still be in the kernel's buffer, which tcpdump is
        // handed once a second at the latest.
        std::thread::sleep(Duration::from_millis(1200));
        self.process.signal(Signal::INT)?;
        self.process.wait(Duration::from_secs(30))?;
        let log = self.process.log();
        let dropped = log
            .lines()
            .find(|l| l.ends_with("packets dropped by kernel"))
            .and_then(|l| l.split_whitespace().next())
            .and_then(|n| n.parse::<u64>().ok())
            .ok_or_else(|| anyhow!("tcpdump did not say what it missed:\n{log}"))?;
        if dropped > 0 {
            bail!("the capture missed {dropped} frames and proves nothing; lower the load's rate");
        }
        let bytes = std::fs::read(&self.path)
            .with_context(|| format!("{}: cannot be read", self.path.display()))?;
        parse(&bytes).with_context(|| format!("{}", self.path.display()))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map(u32::from_be_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..at + 2)
        .and_then(|b| b.try_into().ok())
        .map(u16::from_be_bytes)
}

fn v4(bytes: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(IpAddr::V4(Ipv4Addr::from(octets)))
}

fn v6(bytes: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
    Some(IpAddr::V6(Ipv6Addr::from(octets)))
}

/// Reads a classic pcap file of Ethernet frames in this machine's byte order, as tcpdump writes it.
fn parse(bytes: &[u8]) -> Result<Vec<Seen>> {
    let native = |at: usize| {
        bytes
            .get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .map(u32::from_ne_bytes)
    };
    if native(0) != Some(0xa1b2_c3d4) || native(20) != Some(1) {
        bail!("is no pcap file of Ethernet frames in this machine's byte order");
    }
    let mut frames = Vec::new();
    let mut at = 24;
    while at < bytes.len() {
        let cut = || anyhow!("ends in the middle of frame {}", frames.len());
        let (kept, len) = (
            native(at + 8).ok_or_else(cut)? as usize,
            native(at + 12).ok_or_else(cut)?,
        );
        let at_us = native(at)
            .zip(native(at + 4))
            .map(|(s, us)| u64::from(s) * 1_000_000 + u64::from(us))
            .ok_or_else(cut)?;
        let frame = bytes.get(at + 16..at + 16 + kept).ok_or_else(cut)?;
        frames.push(
            seen(frame, len, at_us)
                .ok_or_else(|| anyhow!("frame {}: is shorter than its headers", frames.len()))?,
        );
        at += 16 + kept;
    }
    Ok(frames)
}

fn seen(frame: &[u8], len: u32, at_us: u64) -> Option<Seen> {
    let macs = [
        frame.get(0..6)?.try_into().ok()?,
        frame.get(6..12)?.try_into().ok()?,
    ];
    let packet = frame.get(14..)?;
    let (ips, tcp) = match half(frame, 12)? {
        0x0800 => {
            let header = usize::from(*packet.first()? & 0x0f) * 4;
            let tcp = if packet.get(9)? == &6 {
                let len = usize::from(half(packet, 2)?).checked_sub(header)?;
                Some((packet.get(header..)?, len))
            } else {
                None
            };
            (Some([v4(packet, 12)?, v4(packet, 16)?]), tcp)
        }
        0x86dd => {
            let tcp = if packet.get(6)? == &6 {
                Some((packet.get(40..)?, usize::from(half(packet, 4)?)))
            } else {
                None
            };
            (Some([v6(packet, 8)?, v6(packet, 24)?]), tcp)
        }
        0x0806 => (Some([v4(packet, 14)?, v4(packet, 24)?]), None),
        _ => (None, None),
    };
    let tcp = match tcp {
        Some((t, len)) => Some(Segment {
            ports: [half(t, 0)?, half(t, 2)?],
            seq: word(t, 4)?,
            ack: word(t, 8)?,
            flags: *t.get(13)?,
            payload_len: len.checked_sub(usize::from(*t.get(12)? >> 4) * 4)? as u32,
        }),
        None => None,
    };
    Some(Seen {
        macs,
        ips,
        tcp,
        len,
        at_us,
    })
}

/// Checks that no frame at production or a client is the appliance's, the target's or the
/// assistant's: by MAC and by IP address.
///
/// # Errors
/// The first such frame, or there was no frame at all, which proves nothing.
pub fn check_untouched(lab: &Lab, frames: &[Seen]) -> Result<()> {
    if frames.iter().all(|f| f.tcp.is_none()) {
        bail!("the capture has no TCP frame: nothing was proved");
    }
    let mut foreign = Vec::new();
    for node in [Node::Appliance, Node::Target, Node::Assistant] {
        foreign.extend(lab.macs(node)?);
    }
    for (number, frame) in frames.iter().enumerate() {
        let by_mac = frame.macs.iter().any(|mac| foreign.contains(mac));
        let by_ip = frame
            .ips
            .is_some_and(|ips| ips.iter().any(|ip| is_foreign(*ip)));
        if by_mac || by_ip {
            bail!(
                "frame {number} of {} belongs to the replay side: {frame:x?}",
                frames.len()
            );
        }
    }
    Ok(())
}

/// An address of the replay network, the pool or the control network.
fn is_foreign(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(a) => matches!(a.octets(), [10, 20 | 30, 0, _] | [62, 135, 200, _]),
        IpAddr::V6(a) => matches!(a.segments()[0], 0xfd20 | 0xfd62),
    }
}

/// Checks that clients received just the segments that the production server sent, and no reset.
///
/// # Errors
/// The first segment that is not production's, a reset, or a segment that did not arrive.
pub fn check_clients_saw_production_alone(
    production: &[Seen],
    client: &[Seen],
    family: Family,
) -> Result<()> {
    let count = |frames: &[Seen]| {
        let mut counts: BTreeMap<([IpAddr; 2], Segment, u32), i64> = BTreeMap::new();
        for frame in frames {
            if let (Some(ips), Some(tcp)) = (frame.ips, frame.tcp)
                && ips[0] == family.production()
            {
                *counts.entry((ips, tcp, frame.len)).or_insert(0) += 1;
            }
        }
        counts
    };
    for frame in client {
        let (Some(ips), Some(tcp)) = (frame.ips, frame.tcp) else {
            continue;
        };
        let own = |ip: IpAddr| ip != family.production() && ip.is_ipv4() == (family == Family::V4);
        if own(ips[0]) && own(ips[1]) {
            bail!("a client saw a segment that has nothing to do with production: {frame:x?}");
        }
        if tcp.is_reset() && ips[0] == family.production() {
            bail!("a client was reset: {frame:x?}");
        }
    }
    let (sent, received) = (count(production), count(client));
    if sent.is_empty() {
        bail!("production sent nothing: nothing was proved");
    }
    let differs = sent
        .iter()
        .find(|(k, n)| received.get(*k) != Some(*n))
        .or_else(|| received.iter().find(|(k, n)| sent.get(*k) != Some(*n)));
    match differs {
        None => Ok(()),
        Some((key, _)) => bail!(
            "production sent {} and the clients received {} times this segment: {key:x?}",
            sent.get(key).unwrap_or(&0),
            received.get(key).unwrap_or(&0)
        ),
    }
}
