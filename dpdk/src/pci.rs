//! NICs on the PCI bus, looked at through sysfs before DPDK sees them.
//!
//! The EAL leaves out, with a line in its log at most, what it cannot drive; afterwards all that
//! can be said is that there is no such port. Here the reasons are told apart while they can be.

use crate::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

/// Kernel drivers that DPDK works beside: the device stays with them.
const BESIDE: [&str; 3] = ["mlx4_core", "mlx5_core", "mana"];
/// Kernel drivers that hand a device over and know no IOMMU.
const UIO: [&str; 2] = ["uio_pci_generic", "igb_uio"];
/// The kernel drivers that hand a device over, isolated by the IOMMU.
const VFIO: &str = "vfio-pci";
/// The class of network devices, as sysfs writes it.
const NETWORK: &str = "0x02";

/// The canonical form of a PCI address, as DPDK names its port: `0000:01:00.0` for `01:00.0` and
/// `pci:0000:01:00.0`. `None` if it is none. Arguments behind a comma do not belong to it.
pub fn pci_address(device: &str) -> Option<String> {
    let name = device.split(',').next().unwrap_or_default().trim();
    let name = name.strip_prefix("pci:").unwrap_or(name);
    let name = name.to_ascii_lowercase();
    let (rest, function) = name.rsplit_once('.')?;
    let parts: Vec<&str> = rest.split(':').collect();
    let hex = |s: &str, len: usize| s.len() == len && s.bytes().all(|b| b.is_ascii_hexdigit());
    let (domain, bus, slot) = match parts[..] {
        [bus, slot] => ("0000", bus, slot),
        [domain, bus, slot] => (domain, bus, slot),
        _ => return None,
    };
    let sound = hex(domain, 4)
        && hex(bus, 2)
        && hex(slot, 2)
        && matches!(function.as_bytes(), [b'0'..=b'7']);
    sound.then(|| format!("{domain}:{bus}:{slot}.{function}"))
}

/// The NUMA node of a NIC that a device string names, if the machine tells.
pub fn nic_node(device: &str) -> Option<u32> {
    Bus::default().node(&pci_address(device)?)
}

/// What keeps DPDK from a device, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// There is no device with this address.
    Absent,
    /// It is a device of another kind; its class as sysfs has it.
    NoNetwork(String),
    /// It is bound to no driver.
    Unbound,
    /// It is bound to a kernel driver that keeps it.
    Kernel(String),
    /// Another device of its IOMMU group is bound to a driver that keeps it.
    Group {
        /// The other device.
        other: String,
        /// Its driver.
        driver: String,
    },
    /// This process may not open its file.
    Rights(String),
    /// Another process has the file of its IOMMU group.
    Busy(String),
    /// Its driver knows no IOMMU and takes physical addresses, which ordinary pages have not.
    NoHuge(String),
    /// Its file cannot be opened for another reason.
    File(String, String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BIND: &str = "bind it with dpdk-devbind.py --bind=vfio-pci";
        match self {
            Self::Absent => f.write_str(
                "there is no PCI device with this address; dpdk-devbind.py --status lists the NICs",
            ),
            Self::NoNetwork(class) => write!(
                f,
                "it is no network device (class {class}); dpdk-devbind.py --status lists the NICs"
            ),
            Self::Unbound => write!(f, "it is bound to no driver; {BIND}"),
            Self::Kernel(driver) => {
                write!(f, "the kernel's driver {driver} has it; {BIND}")
            }
            Self::Group { other, driver } => write!(
                f,
                "{other} is in its IOMMU group, and the kernel's driver {driver} has that one; bind all of the group to vfio-pci, or put the NIC into another slot"
            ),
            Self::Rights(file) => write!(
                f,
                "this process may not open {file}; run it as root, or give the file to its user or group by a udev rule (packaging/README.md)"
            ),
            Self::Busy(file) => write!(
                f,
                "another process uses {file}, and with it this NIC or another one of its IOMMU group; end that process, or name another NIC"
            ),
            Self::NoHuge(driver) => write!(
                f,
                "its driver {driver} takes physical addresses, which memory without hugepages has not; set eal.memory = \"hugepages\", or bind it to vfio-pci"
            ),
            Self::File(file, reason) => write!(f, "{file} cannot be opened: {reason}"),
        }
    }
}

/// Where devices are looked for: `/sys` and `/dev`, unless a test has its own.
pub(crate) struct Bus {
    sys: PathBuf,
    dev: PathBuf,
}

impl Default for Bus {
    fn default() -> Self {
        Self {
            sys: "/sys".into(),
            dev: "/dev".into(),
        }
    }
}

impl Bus {
    fn device(&self, address: &str) -> PathBuf {
        self.sys.join("bus/pci/devices").join(address)
    }

    /// The NUMA node of a device, if the machine tells.
    pub(crate) fn node(&self, address: &str) -> Option<u32> {
        let node = text(&self.device(address).join("numa_node"))?;
        node.parse().ok()
    }

    /// Looks whether DPDK can have the device at a canonical address.
    pub(crate) fn check(&self, address: &str, hugepages: bool) -> Result<(), Unusable> {
        let device = self.device(address);
        if !device.exists() {
            return Err(Unusable::Absent);
        }
        if let Some(class) = text(&device.join("class")).filter(|c| !c.starts_with(NETWORK)) {
            return Err(Unusable::NoNetwork(class));
        }
        let driver = link_name(&device.join("driver")).ok_or(Unusable::Unbound)?;
        match driver.as_str() {
            VFIO => self.check_group(address, &device),
            name if UIO.contains(&name) && !hugepages => Err(Unusable::NoHuge(driver)),
            name if UIO.contains(&name) => {
                match std::fs::read_dir(device.join("uio"))
                    .into_iter()
                    .flatten()
                    .flatten()
                    .next()
                {
                    Some(uio) => open(&self.dev.join(uio.file_name())),
                    None => Ok(()),
                }
            }
            name if BESIDE.contains(&name) => Ok(()),
            _ => Err(Unusable::Kernel(driver)),
        }
    }

    fn check_group(&self, address: &str, device: &Path) -> Result<(), Unusable> {
        let link = device.join("iommu_group");
        let Some(group) = link_name(&link) else {
            return Ok(());
        };
        let others = std::fs::read_dir(link.join("devices"));
        let mut others: Vec<_> = others.into_iter().flatten().flatten().collect();
        others.sort_by_key(std::fs::DirEntry::file_name);
        for other in others {
            let name = other.file_name().to_string_lossy().into_owned();
            // Bridges of the kernel's do no harm (vfio.rst).
            let driver = link_name(&other.path().join("driver"))
                .filter(|d| !d.starts_with("vfio") && d != "pcieport" && d != "pci-stub");
            if let Some(driver) = driver.filter(|_| name != address) {
                return Err(Unusable::Group {
                    other: name,
                    driver,
                });
            }
        }
        let file = self.dev.join("vfio").join(&group);
        // Without an IOMMU the kernel puts this before the number.
        let unsafe_one = self.dev.join("vfio").join(format!("noiommu-{group}"));
        open(if unsafe_one.exists() {
            &unsafe_one
        } else {
            &file
        })
    }
}

/// Opens a device's file and closes it again: what the EAL does, with the kernel's word for why
/// not.
fn open(file: &Path) -> Result<(), Unusable> {
    let name = || file.display().to_string();
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(file);
    opened.map(drop).map_err(|e| match e.kind() {
        std::io::ErrorKind::PermissionDenied => Unusable::Rights(name()),
        std::io::ErrorKind::ResourceBusy => Unusable::Busy(name()),
        _ => Unusable::File(name(), e.to_string()),
    })
}

/// The last part of where a link leads.
fn link_name(link: &Path) -> Option<String> {
    let to = std::fs::read_link(link).ok()?;
    Some(to.file_name()?.to_string_lossy().into_owned())
}

fn text(file: &Path) -> Option<String> {
    Some(std::fs::read_to_string(file).ok()?.trim().to_owned())
}

/// Checks devices, named by their canonical addresses.
pub(crate) fn check(bus: &Bus, addresses: &[String], hugepages: bool) -> Result<(), Error> {
    for address in addresses {
        bus.check(address, hugepages).map_err(|why| Error::Nic {
            address: address.clone(),
            why,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    const NIC: &str = "0000:01:00.0";

    /// A machine with one NIC of this driver, in the IOMMU group 12.
    fn machine(driver: Option<&str>) -> (tempfile::TempDir, Bus) {
        let root = tempfile::tempdir().unwrap();
        let bus = Bus {
            sys: root.path().join("sys"),
            dev: root.path().join("dev"),
        };
        put(&bus, NIC, driver);
        fs::create_dir_all(bus.dev.join("vfio")).unwrap();
        fs::write(bus.dev.join("vfio/12"), "").unwrap();
        fs::write(bus.dev.join("uio0"), "").unwrap();
        (root, bus)
    }

    /// Puts a device into that group.
    fn put(bus: &Bus, address: &str, driver: Option<&str>) {
        let device = bus.device(address);
        fs::create_dir_all(device.join("uio/uio0")).unwrap();
        fs::write(device.join("class"), "0x020000\n").unwrap();
        fs::write(device.join("numa_node"), "1\n").unwrap();
        let devices = bus.sys.join("kernel/iommu_groups/12/devices");
        fs::create_dir_all(&devices).unwrap();
        symlink(&device, devices.join(address)).unwrap();
        symlink(devices.parent().unwrap(), device.join("iommu_group")).unwrap();
        if let Some(driver) = driver {
            symlink(format!("../../drivers/{driver}"), device.join("driver")).unwrap();
        }
    }

    fn said(bus: &Bus, hugepages: bool) -> String {
        let checked = check(bus, &[NIC.to_owned()], hugepages);
        checked.map_or_else(|e| e.to_string(), |()| String::new())
    }

    #[test]
    fn addresses_are_brought_to_the_form_of_port_names() {
        for (text, address) in [
            ("0000:01:00.0", Some(NIC)),
            ("01:00.0", Some(NIC)),
            ("pci:0000:01:00.0", Some(NIC)),
            ("0000:01:00.0,queues=4", Some(NIC)),
            ("0000:0A:1F.7", Some("0000:0a:1f.7")),
            ("net_af_packet0,iface=a", None),
            ("virtio_user0,path=/x:y.0", None),
            ("01:00", None),
            ("01:00.8", None),
            ("1:00.0", None),
        ] {
            assert_eq!(pci_address(text).as_deref(), address, "{text}");
        }
    }

    #[test]
    fn a_device_that_dpdk_can_have_passes() {
        for driver in ["vfio-pci", "uio_pci_generic", "mlx5_core"] {
            let (_root, bus) = machine(Some(driver));
            assert_eq!(said(&bus, true), "", "{driver}");
            assert_eq!(bus.node(NIC), Some(1));
        }
    }

    #[test]
    fn each_reason_is_told_with_what_to_do() {
        type Change = fn(&Bus);
        let table: [(Option<&str>, bool, Change, &[&str]); 8] = [
            (
                None,
                true,
                |_| (),
                &["bound to no driver", "--bind=vfio-pci"],
            ),
            (
                Some("ixgbe"),
                true,
                |_| (),
                &["driver ixgbe has it", "--bind=vfio-pci"],
            ),
            (
                Some("vfio-pci"),
                true,
                |bus| fs::remove_dir_all(bus.device(NIC)).unwrap(),
                &["no PCI device with this address", "--status"],
            ),
            (
                Some("vfio-pci"),
                true,
                |bus| fs::write(bus.device(NIC).join("class"), "0x010802").unwrap(),
                &["no network device (class 0x010802)"],
            ),
            (
                Some("vfio-pci"),
                true,
                |bus| put(bus, "0000:01:00.1", Some("e1000e")),
                &[
                    "0000:01:00.1 is in its IOMMU group",
                    "driver e1000e",
                    "bind all",
                ],
            ),
            (
                Some("vfio-pci"),
                true,
                |bus| fs::remove_file(bus.dev.join("vfio/12")).unwrap(),
                &["/vfio/12 cannot be opened: No such file"],
            ),
            (
                Some("uio_pci_generic"),
                false,
                |_| (),
                &[
                    "uio_pci_generic takes physical",
                    "eal.memory = \"hugepages\"",
                ],
            ),
            (
                Some("igb_uio"),
                true,
                |bus| fs::remove_file(bus.dev.join("uio0")).unwrap(),
                &["/uio0 cannot be opened"],
            ),
        ];
        for (driver, hugepages, change, parts) in table {
            let (_root, bus) = machine(driver);
            change(&bus);
            let said = said(&bus, hugepages);
            for part in parts.iter().chain(&[NIC]) {
                assert!(said.contains(part), "{part:?} is not in: {said}");
            }
        }
    }

    #[test]
    fn who_has_the_file_or_may_not_open_it_is_told() {
        for (why, parts) in [
            (
                Unusable::Rights("/dev/vfio/12".into()),
                ["may not open /dev/vfio/12", "udev"],
            ),
            (
                Unusable::Busy("/dev/vfio/12".into()),
                ["another process uses /dev/vfio/12", "end"],
            ),
        ] {
            let said = why.to_string();
            assert!(parts.iter().all(|p| said.contains(p)), "{said}");
        }
    }

    #[test]
    fn a_bridge_of_the_kernel_does_not_keep_a_group() {
        let (_root, bus) = machine(Some("vfio-pci"));
        put(&bus, "0000:00:01.0", Some("pcieport"));
        put(&bus, "0000:01:00.1", Some("vfio-pci"));
        put(&bus, "0000:01:00.2", None);
        assert_eq!(said(&bus, true), "");
    }
}
