//! Building and removing the lab's namespaces, bridges, links, routes and its mirror.
//!
//! Each step is one batch of `ip` or one shell script in a namespace, so that a lab is up in about
//! a second. No neighbour entry is static: who wants to be reached answers ARP and ND. Names carry
//! the owner's process id and start time, so that nobody takes a lab for dead whose owner lives, or
//! for alive because its owner's id was given away again.

use super::process::output;
use super::{LabOptions, Node, Responses, Span};
use anyhow::{Context, Result, anyhow, bail};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The last group of the first further IPv6 client address.
pub(super) const MORE_V6: u16 = 0x101;

const PREFIX: &str = "rl";
const FOLDER: &str = "replay-lab-";

/// The clock tick at which a process started, from `/proc/PID/stat` (proc(5), field 22).
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in brackets and may have spaces.
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

/// The name of this process's lab number `n`.
pub(super) fn own_name(n: u32) -> Result<String> {
    let pid = std::process::id();
    let start = started(pid)
        .ok_or_else(|| anyhow!("/proc/{pid}/stat: cannot be read; is /proc mounted?"))?;
    Ok(format!("{PREFIX}{pid}.{start}.{n}"))
}

/// A caller's name, if namespaces can have it and nobody takes it for one of [`own_name`]'s.
pub(super) fn checked_name(name: &str) -> Result<String> {
    let plain =
        !name.is_empty() && name.len() <= 32 && name.bytes().all(|b| b.is_ascii_alphanumeric());
    if plain && owner(&format!("{name}-cl")).is_none() {
        return Ok(name.to_owned());
    }
    bail!("lab name {name:?}: use 1 to 32 letters and digits")
}

/// Process id and start time of the owner of a namespace with this name, if it is a lab's.
fn owner(namespace: &str) -> Option<(u32, u64)> {
    let (lab, _) = namespace.strip_prefix(PREFIX)?.split_once('-')?;
    let mut parts = lab.split('.');
    let (pid, start, _n) = (
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
        parts.next()?.parse::<u32>().ok()?,
    );
    parts.next().is_none().then_some((pid, start))
}

fn namespaces() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/run/netns") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .collect()
}

/// Removes every lab whose owner is gone. Returns how many.
///
/// # Errors
/// A namespace can't be removed.
pub fn sweep() -> Result<usize> {
    let is_dead = |name: &str| owner(name).is_some_and(|(pid, start)| started(pid) != Some(start));
    let dead: BTreeSet<String> = namespaces()
        .into_iter()
        .filter(|name| is_dead(name))
        .filter_map(|name| name.split_once('-').map(|(lab, _)| lab.to_owned()))
        .collect();
    for lab in &dead {
        remove(lab)?;
    }
    for entry in std::fs::read_dir(std::env::temp_dir())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // The folder is named like a namespace of the lab, but for the node.
        if name
            .strip_prefix(FOLDER)
            .is_some_and(|lab| is_dead(&format!("{lab}-")))
        {
            // Another process may be sweeping too; what is left comes up again the next time.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    Ok(dead.len())
}

/// Where a lab has its logs.
pub(super) fn folder(lab: &str) -> PathBuf {
    std::env::temp_dir().join(format!("{FOLDER}{lab}"))
}

/// Ends the processes in a lab's namespaces and removes these.
pub(super) fn remove(lab: &str) -> Result<()> {
    let existing = namespaces();
    let mine: Vec<String> = Node::ALL
        .iter()
        .map(|node| format!("{lab}-{}", node.suffix()))
        .filter(|name| existing.contains(name))
        .collect();
    for _ in 0..100 {
        let mut alive = 0;
        for name in &mine {
            let Ok(pids) = output(Command::new("ip").args(["netns", "pids", name])) else {
                continue;
            };
            for pid in pids
                .split_whitespace()
                .filter_map(|p| p.parse().ok())
                .filter_map(rustix::process::Pid::from_raw)
            {
                alive += 1;
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        if alive == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for name in &mine {
        // Another process may be sweeping the same lab.
        if let Err(e) = output(Command::new("ip").args(["netns", "del", name]))
            && namespaces().contains(name)
        {
            return Err(e);
        }
    }
    Ok(())
}

/// Runs a program with this text on its standard input.
fn feed(command: &mut Command, text: &str) -> Result<()> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{shown}: cannot be run; is it installed?"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes())?;
    }
    let out = child.wait_with_output()?;
    if !out.status.success() {
        bail!(
            "{shown}: {}: {}",
            out.status,
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(())
}

fn ip(namespace: &str, batch: &str) -> Result<()> {
    feed(
        Command::new("ip").args(["-n", namespace, "-batch", "-"]),
        batch,
    )
}

fn shell(namespace: &str, script: &str) -> Result<()> {
    feed(
        Command::new("ip").args(["netns", "exec", namespace, "sh", "-eu"]),
        script,
    )
}

pub(super) fn build(lab: &str, options: &LabOptions) -> Result<()> {
    let ns = |node: Node| format!("{lab}-{}", node.suffix());
    let (cl, pr, sw, ap) = (
        ns(Node::Client),
        ns(Node::Production),
        ns(Node::Switch),
        ns(Node::Appliance),
    );
    let (lan, ta, assistant) = (ns(Node::Lan), ns(Node::Target), ns(Node::Assistant));

    let add = Node::ALL.iter().fold(String::new(), |text, node| {
        text + &format!("netns add {}\n", ns(*node))
    });
    feed(Command::new("ip").args(["-batch", "-"]), &add)?;

    // Before any interface exists, as interfaces take over what `default` says: no IPv6 where no
    // kernel may speak, no duplicate address detection where one does, for it takes a second.
    for node in Node::ALL {
        let speaks = matches!(node, Node::Client | Node::Production | Node::Target);
        let script = if speaks {
            "cd /proc/sys/net\nfor i in all default; do echo 0 >ipv6/conf/$i/accept_dad; echo 0 >ipv4/conf/$i/rp_filter; done\n\
             echo 0 >ipv6/conf/default/dad_transmits\n"
        } else {
            "cd /proc/sys/net\nfor i in all default; do echo 1 >ipv6/conf/$i/disable_ipv6; echo 2 >ipv4/conf/$i/arp_ignore; done\n"
        };
        shell(&ns(node), script)?;
    }

    ip(
        &sw,
        &format!(
            "link set lo up\n\
             link add br0 type bridge forward_delay 0 mcast_snooping 0\n\
             link add swc type veth peer name eth0 address 02:00:00:00:10:01 netns {cl}\n\
             link add swp type veth peer name eth0 address 02:00:00:00:10:02 netns {pr}\n\
             link add sp0 type veth peer name span0 address 02:00:00:00:ff:09 netns {ap}\n\
             link set swc master br0 up\nlink set swp master br0 up\nlink set br0 up\nlink set sp0 up\n"
        ),
    )?;
    ip(
        &lan,
        &format!(
            "link set lo up\n\
             link add br0 type bridge forward_delay 0 mcast_snooping 0\n\
             link add lr type veth peer name replay0 address 02:00:00:00:20:09 netns {ap}\n\
             link add lt type veth peer name eth0 address 02:00:00:00:20:02 netns {ta}\n\
             link add la type veth peer name abs0 address 02:00:00:00:20:03 netns {assistant}\n\
             link set lr master br0 up\nlink set lt master br0 up\nlink set la master br0 up\nlink set br0 up\n"
        ),
    )?;
    ip(
        &ap,
        &format!(
            "link add ctl0 type veth peer name ctl0 address 02:00:00:00:30:03 netns {assistant}\n\
             link set lo up\nlink set span0 up\nlink set replay0 up\n\
             addr add 10.30.0.9/24 dev ctl0\nlink set ctl0 up\n"
        ),
    )?;
    if options.second.is_some() {
        ip(
            &sw,
            &format!(
                "link add sp1 type veth peer name span1 address 02:00:00:00:fe:09 netns {ap}\nlink set sp1 up\n"
            ),
        )?;
        ip(
            &lan,
            &format!(
                "link add lr1 type veth peer name replay1 address 02:00:00:00:20:08 netns {ap}\n\
                 link add la1 type veth peer name abs1 address 02:00:00:00:20:04 netns {assistant}\n\
                 link set lr1 master br0 up\nlink set la1 master br0 up\n"
            ),
        )?;
        ip(&ap, "link set span1 up\nlink set replay1 up\n")?;
        ip(&assistant, "link set abs1 up\n")?;
    }
    ip(
        &assistant,
        "link set lo up\nlink set abs0 up\naddr add 10.30.0.3/24 dev ctl0\nlink set ctl0 up\n",
    )?;

    let mut client = String::from(
        "link set lo up\naddr add 10.10.0.1/24 dev eth0\naddr add fd10::1/64 dev eth0 nodad\n",
    );
    for i in 0..u16::from(options.more_clients) {
        let _ = write!(
            client,
            "addr add 10.10.0.{}/24 dev eth0\naddr add fd10::{:x}/64 dev eth0 nodad\n",
            101 + i,
            MORE_V6 + i
        );
    }
    ip(&cl, &(client + "link set eth0 up\n"))?;
    ip(
        &pr,
        "link set lo up\naddr add 10.10.0.2/24 dev eth0\naddr add fd10::2/64 dev eth0 nodad\nlink set eth0 up\n",
    )?;
    let via = match options.responses {
        Responses::Embedded => "9",
        Responses::Remote => "3",
    };
    ip(
        &ta,
        &format!(
            "link set lo up\naddr add 10.20.0.2/24 dev eth0\naddr add fd20::2/64 dev eth0 nodad\nlink set eth0 up\n\
             route add 10.10.0.0/24 via 10.20.0.{via}\nroute add 62.135.200.0/24 via 10.20.0.{via}\n\
             route add fd10::/64 via fd20::{via}\nroute add fd62::/64 via fd20::{via}\n"
        ),
    )?;

    shell(&sw, &mirror(options))
}

/// The script that mirrors the production server's switch port: its egress is what the server
/// receives, its ingress what it sends.
fn mirror(options: &LabOptions) -> String {
    let ports = [("sp0", Some(options.span)), ("sp1", options.second)];
    let mut script = String::from("tc qdisc add dev swp clsact\n");
    for (port, _) in ports.iter().filter(|(_, span)| span.is_some()) {
        // The offloads go on the SPAN port alone: its peer then sees the frames as they would be on
        // a cable, while the hosts stay as they are.
        let _ = writeln!(script, "ethtool -K {port} tx off tso off gso off sg off");
    }
    for (direction, shown) in [
        ("egress", Span::ClientToServer),
        ("ingress", Span::ServerToClient),
    ] {
        let actions = ports
            .iter()
            .filter(|(_, span)| span.is_some_and(|s| s == Span::Both || s == shown))
            .fold(String::new(), |all, (port, _)| {
                all + " action mirred egress mirror dev " + port
            });
        if !actions.is_empty() {
            let _ = writeln!(
                script,
                "tc filter add dev swp {direction} protocol all pref 1 u32 match u32 0 0{actions}"
            );
        }
    }
    script
}

/// Loses TCP packets between the ports of a bridge.
pub(super) fn lose(namespace: &str, percent: u8) -> Result<()> {
    if percent > 100 {
        bail!("loss of {percent} percent: at most 100 is possible");
    }
    let rule = match percent {
        // nft refuses a comparison that always holds.
        100 => "counter drop".to_owned(),
        _ => format!("numgen random mod 100 < {percent} counter drop"),
    };
    let mut rules = String::from("table bridge loss\ndelete table bridge loss\n");
    if percent > 0 {
        let _ = writeln!(
            rules,
            "table bridge loss {{\nchain forward {{\ntype filter hook forward priority 0\n\
             meta protocol ip ip protocol tcp {rule}\nmeta protocol ip6 meta l4proto tcp {rule}\n}}\n}}"
        );
    }
    feed(
        Command::new("ip").args(["netns", "exec", namespace, "nft", "-f", "-"]),
        &rules,
    )
}

/// Packets that [`lose`] has lost so far.
pub(super) fn lost(namespace: &str) -> Result<u64> {
    let table = output(Command::new("ip").args([
        "netns", "exec", namespace, "nft", "list", "table", "bridge", "loss",
    ]))?;
    counted(&table).ok_or_else(|| anyhow!("nft shows no counter of what it drops: {table}"))
}

/// The sum of the packet counters in nft's listing; `None` if there is none.
fn counted(table: &str) -> Option<u64> {
    let counters = table.split("counter packets ").skip(1);
    counters
        .map(|c| {
            c.split_whitespace()
                .next()
                .and_then(|n| n.parse::<u64>().ok())
        })
        .reduce(|a, b| Some(a? + b?))?
}

/// The MAC addresses in a namespace, loopback's left out.
pub(super) fn macs(namespace: &str) -> Result<Vec<[u8; 6]>> {
    let text = output(Command::new("ip").args(["-n", namespace, "-br", "link"]))?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .filter_map(parse_mac)
        .filter(|m| *m != [0; 6])
        .collect())
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_owner() {
        let pid = std::process::id();
        let name = own_name(3).unwrap();
        assert_eq!(
            owner(&format!("{name}-cl")),
            Some((pid, started(pid).unwrap()))
        );
        for foreign in [
            "rl-cl",
            "rl12-cl",
            "rl1.2.x-cl",
            "rl1.2.3.4-cl",
            "other-cl",
            "rl1.2.3",
        ] {
            assert_eq!(owner(foreign), None, "{foreign}");
        }
        assert_eq!(checked_name("demo").unwrap(), "demo");
        for bad in ["", "a b", "../x", "a-b", &"x".repeat(33)] {
            assert!(checked_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn counters_are_summed() {
        let table = "ip protocol tcp numgen random mod 100 < 5 counter packets 12 bytes 900 drop\n\
                     meta l4proto tcp numgen random mod 100 < 5 counter packets 3 bytes 7 drop\n";
        assert_eq!(counted(table), Some(15));
        assert_eq!(counted("chain forward { }"), None);
    }

    #[test]
    fn macs_are_read() {
        assert_eq!(parse_mac("02:00:00:00:ff:09"), Some([2, 0, 0, 0, 0xff, 9]));
        assert_eq!(
            (
                parse_mac("02:00"),
                parse_mac("x"),
                parse_mac("02:00:00:00:ff:09:01")
            ),
            (None, None, None)
        );
    }
}
