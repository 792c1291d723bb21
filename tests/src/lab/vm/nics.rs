//! A guest's NICs: which QEMU emulates, where their cables lead, and how the guest gives them to
//! VFIO.
//!
//! Each NIC has a tap device in the appliance's namespace. What comes in at the lab's interface
//! goes out at the tap and the other way round, by tc; there is no bridge, which would learn
//! addresses from mirrored frames and keep these back. The mirror's cable is laid one way alone.

use super::Memory;
use crate::lab::{Lab, Node};
use anyhow::{Result, anyhow, bail};
use std::fmt::Write as _;

/// What QEMU emulates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// Intel 82576: 16 queues, RSS.
    Igb,
    /// Intel 82574: no RSS in the emulation.
    E1000e,
    /// VMware's: 8 queues, no RSS in the emulation.
    Vmxnet3,
    /// virtio-net with that many queues, with RSS.
    Virtio(u16),
}

impl std::str::FromStr for Model {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "igb" => Ok(Self::Igb),
            "e1000e" => Ok(Self::E1000e),
            "vmxnet3" => Ok(Self::Vmxnet3),
            _ => text
                .strip_prefix("virtio")
                .and_then(|queues| queues.parse().ok())
                .filter(|queues| *queues > 0)
                .map(Self::Virtio)
                .ok_or_else(|| {
                    anyhow!("{text:?}: give igb, e1000e, vmxnet3 or, for two queues, virtio2")
                }),
        }
    }
}

/// Where a NIC's cable leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cable {
    /// To the mirror port.
    Mirror,
    /// To the replay network, in the engine's place.
    Replay,
    /// To the replay network, in the remote intercept's place.
    Assistant,
}

impl Cable {
    const fn interface(self) -> &'static str {
        match self {
            Self::Mirror => "span0",
            Self::Replay => "replay0",
            Self::Assistant => "abs0",
        }
    }
}

/// A NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nic {
    /// What it is.
    pub model: Model,
    /// Where it is plugged in.
    pub cable: Cable,
}

/// The first bus of each NUMA node: a NIC is near the node of its bus.
const FIRST: usize = 0x40;
const SECOND: usize = 0x80;

/// The PCI address of a guest's NIC with this index: each is behind a root port of its own, as NICs
/// that share one share an IOMMU group.
pub(super) fn address(index: usize, memory: Memory) -> String {
    let bus = match memory {
        Memory::TwoNodes if index % 2 == 1 => SECOND + 1 + index / 2,
        Memory::TwoNodes => FIRST + 1 + index / 2,
        _ => index + 1,
    };
    format!("0000:{bus:02x}:00.0")
}

impl std::str::FromStr for Nic {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (model, cable) = text
            .split_once(':')
            .ok_or_else(|| anyhow!("{text:?}: give a model and a cable, as in igb:mirror"))?;
        let cable = match cable {
            "mirror" => Cable::Mirror,
            "replay" => Cable::Replay,
            "assistant" => Cable::Assistant,
            _ => bail!("{cable:?}: give mirror, replay or assistant"),
        };
        Ok(Self {
            model: model.parse()?,
            cable,
        })
    }
}

impl Nic {
    /// Lays the cable. QEMU opens its end.
    pub(super) fn lay(&self, lab: &Lab, index: usize) -> Result<()> {
        let (tap, to) = (tap(index), self.cable.interface());
        let queues = match self.model {
            Model::Virtio(n) if n > 1 => " multi_queue",
            _ => "",
        };
        // QEMU is in one namespace, so the far interface has to be there as well.
        if self.cable == Cable::Assistant {
            let appliance = lab.namespace(Node::Appliance);
            let there = ["link", "set", to, "netns", &appliance];
            lab.run(Node::Assistant, "ip", &there)?;
        }
        let mut script = format!(
            "ip tuntap add dev {tap} mode tap{queues}\nip link set {to} up\n\
             ip link set {tap} txqueuelen 20000 up\n"
        );
        let mut ways = vec![(to, tap.as_str())];
        if self.cable != Cable::Mirror {
            ways.push((&tap, to));
        }
        for (from, to) in ways {
            let _ = write!(
                script,
                "tc qdisc add dev {from} clsact\n\
                 tc filter add dev {from} ingress protocol all pref 1 u32 match u32 0 0 action mirred egress redirect dev {to}\n"
            );
        }
        lab.run(Node::Appliance, "sh", &["-euc", &script]).map(drop)
    }
}

fn tap(index: usize) -> String {
    format!("vm{index}")
}

/// QEMU's arguments for two NUMA nodes with a PCI bus each.
pub(super) fn nodes() -> Vec<String> {
    let mut all = Vec::new();
    for (node, cpus, bus) in [(0, "0-1", FIRST), (1, "2", SECOND)] {
        for argument in [
            "-object".to_owned(),
            format!("memory-backend-ram,id=memory{node},size=1G"),
            "-numa".to_owned(),
            format!("node,nodeid={node},cpus={cpus},memdev=memory{node}"),
            "-device".to_owned(),
            format!("pxb-pcie,id=node{node},bus_nr={bus},numa_node={node},bus=pcie.0"),
        ] {
            all.push(argument);
        }
    }
    all
}

/// QEMU's arguments for a NIC.
pub(super) fn arguments(nic: &Nic, index: usize, memory: Memory) -> Vec<String> {
    let (mut netdev, mut device) = (String::new(), String::new());
    match nic.model {
        Model::Igb => device.push_str("igb"),
        Model::E1000e => device.push_str("e1000e"),
        Model::Vmxnet3 => device.push_str("vmxnet3"),
        Model::Virtio(queues) => {
            // Two vectors for each queue, one for the control queue and one for changes.
            let _ = write!(
                device,
                "virtio-net-pci,iommu_platform=on,disable-legacy=on,mq=on,rss=on,hash=on,vectors={}",
                2 * queues + 2
            );
            if queues > 1 {
                let _ = write!(netdev, ",queues={queues}");
            }
        }
    }
    let slot = index + 1;
    let root = match memory {
        Memory::TwoNodes => format!("node{}", index % 2),
        _ => "pcie.0".to_owned(),
    };
    vec![
        "-netdev".to_owned(),
        format!(
            "tap,id=net{index},ifname={},script=no,downscript=no{netdev}",
            tap(index)
        ),
        "-device".to_owned(),
        format!("pcie-root-port,id=port{index},bus={root},chassis={slot},slot={slot}"),
        "-device".to_owned(),
        format!(
            "{device},bus=port{index},netdev=net{index},mac=02:00:00:00:aa:{slot:02x},romfile="
        ),
    ]
}

/// The script that gives NICs to VFIO in the guest.
pub(super) fn bind(addresses: &[String]) -> String {
    format!(
        "for a in {}; do\n\
             d=/sys/bus/pci/devices/$a\n\
             echo vfio-pci >$d/driver_override || exit 1\n\
             [ ! -e $d/driver ] || echo $a >$d/driver/unbind\n\
             echo $a >/sys/bus/pci/drivers_probe\n\
             case $(readlink $d/driver) in */vfio-pci) ;; *) echo \"$a: VFIO does not take it\"; exit 1 ;; esac\n\
         done",
        addresses.join(" ")
    )
}

/// The script that fails unless the NICs are near the first and the second NUMA node in turn.
pub(super) fn is_near(addresses: &[String]) -> String {
    let mut script = String::new();
    for (index, address) in addresses.iter().enumerate() {
        let _ = writeln!(
            script,
            "node=$(cat /sys/bus/pci/devices/{address}/numa_node)\n\
             [ \"$node\" = {} ] || {{ echo \"{address}: NUMA node $node\"; exit 1; }}",
            index % 2
        );
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nics_are_read_as_they_are_written() {
        let nic = |text: &str| text.parse::<Nic>().map_err(|e| e.to_string());
        let virtio = Nic {
            model: Model::Virtio(4),
            cable: Cable::Assistant,
        };
        assert_eq!(nic("virtio4:assistant"), Ok(virtio));
        for (bad, said) in [
            ("igb", "give a model and a cable"),
            ("igb:out", "give mirror, replay or assistant"),
            ("virtio:mirror", "give igb, e1000e, vmxnet3 or"),
            ("virtio0:mirror", "give igb, e1000e, vmxnet3 or"),
        ] {
            let error = nic(bad).unwrap_err();
            assert!(error.contains(said), "{bad}: {error}");
        }
    }

    #[test]
    fn each_nic_has_a_bus_of_its_own() {
        let all = |memory| [0, 1, 2].map(|index| address(index, memory));
        assert_eq!(
            all(Memory::Mib2),
            ["0000:01:00.0", "0000:02:00.0", "0000:03:00.0"]
        );
        assert_eq!(
            all(Memory::TwoNodes),
            ["0000:41:00.0", "0000:81:00.0", "0000:42:00.0"]
        );
    }
}
