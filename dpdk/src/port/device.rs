//! Device strings: what the configuration calls a port, checked against the machine before a driver
//! sees it.
//!
//! A string names either a port that exists already, such as the PCI address `0000:03:00.0`, or a
//! virtual device with its driver's arguments, such as `net_af_packet0,iface=eth1` or
//! `net_pcap0,rx_pcap=in.pcap`. Drivers say little about bad arguments, so interfaces and files are
//! checked here.

use crate::error::Error;
use crate::pci::pci_address;
use crate::rights;
use std::ffi::CString;

/// A device string, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Device {
    /// A port that a bus scan has found.
    Existing(String),
    /// A port that its driver makes.
    Virtual {
        /// Driver name and a number.
        name: String,
        /// Arguments in their order; one without `=` has no value.
        args: Vec<(String, Option<String>)>,
    },
}

impl Device {
    /// Takes `text` apart. `role` ("mirror port") goes into errors.
    pub(super) fn parse(role: &str, text: &str) -> Result<Self, Error> {
        let fail = |what: &str| {
            Err(Error::Device {
                port: format!("{role} {text:?}"),
                what: what.to_owned(),
            })
        };
        let mut parts = text.split(',').map(str::trim);
        let name = parts.next().unwrap_or_default().to_owned();
        if name.is_empty() {
            return fail(
                "it names no device; give a PCI address or a virtual device such as net_af_packet0,iface=eth1",
            );
        }
        if name.len() > 63 || !name.bytes().all(|b| b.is_ascii_graphic()) {
            return fail("a device name has at most 63 printable ASCII characters without blanks");
        }
        if text.contains('\0') {
            return fail("it contains a NUL byte; remove it");
        }
        let args: Vec<_> = parts
            .filter(|p| !p.is_empty())
            .map(|p| match p.split_once('=') {
                Some((k, v)) => (k.trim().to_owned(), Some(v.trim().to_owned())),
                None => (p.to_owned(), None),
            })
            .collect();
        if ["net_", "eth_", "virtio_user"]
            .iter()
            .any(|p| name.starts_with(p))
        {
            return Ok(Self::Virtual { name, args });
        }
        // A NIC's arguments were given to the EAL with its address.
        Ok(Self::Existing(pci_address(&name).unwrap_or(name)))
    }

    /// Name of the port.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Existing(name) | Self::Virtual { name, .. } => name,
        }
    }

    /// The value of an argument.
    pub(super) fn arg(&self, key: &str) -> Option<&str> {
        match self {
            Self::Existing(_) => None,
            Self::Virtual { args, .. } => args
                .iter()
                .find(|(k, _)| k == key)
                .and_then(|(_, v)| v.as_deref()),
        }
    }

    /// The kernel's interface that an af_packet port uses.
    pub(super) fn interface(&self) -> Option<&str> {
        if self.is_af_packet() {
            self.arg("iface")
        } else {
            None
        }
    }

    /// The kernel's interface that the port receives from, if it does.
    pub(super) fn receives_from(&self) -> Option<&str> {
        if self.is_pcap() {
            return ["iface", "rx_iface", "rx_iface_in"]
                .iter()
                .find_map(|key| self.arg(key));
        }
        self.interface()
    }

    pub(super) fn is_af_packet(&self) -> bool {
        self.name().starts_with("net_af_packet") || self.name().starts_with("eth_af_packet")
    }

    fn is_pcap(&self) -> bool {
        self.name().starts_with("net_pcap") || self.name().starts_with("eth_pcap")
    }

    /// The arguments as the driver takes them.
    pub(super) fn args(&self) -> String {
        match self {
            Self::Existing(_) => String::new(),
            Self::Virtual { args, .. } => args
                .iter()
                .map(|(k, v)| v.as_ref().map_or_else(|| k.clone(), |v| format!("{k}={v}")))
                .collect::<Vec<_>>()
                .join(","),
        }
    }

    /// Checks that the interfaces and files named exist. `port` names the port in errors.
    pub(super) fn check(&self, port: &str) -> Result<(), Error> {
        let Self::Virtual { args, .. } = self else {
            return Ok(());
        };
        if self.is_af_packet() && self.arg("iface").is_none() {
            return Err(Error::Device {
                port: port.to_owned(),
                what: "it needs an interface; write for example net_af_packet0,iface=eth1"
                    .to_owned(),
            });
        }
        let pcap = self.is_pcap();
        let missing = if self.is_af_packet() {
            rights::missing(&[rights::NET_RAW, rights::NET_ADMIN])
        } else if pcap && args.iter().any(|(key, _)| key.contains("iface")) {
            rights::missing(&[rights::NET_RAW])
        } else {
            Vec::new()
        };
        let file_error = |path: &str, e: std::io::Error| Error::File {
            port: port.to_owned(),
            path: path.to_owned(),
            reason: e.to_string(),
        };
        for (key, value) in args {
            let value = value.as_deref().unwrap_or_default();
            match key.as_str() {
                "iface" | "rx_iface" | "tx_iface" | "rx_iface_in"
                    if pcap || self.is_af_packet() =>
                {
                    check_interface(port, value)?;
                }
                "rx_pcap" if pcap => {
                    let file = std::fs::File::open(value)
                        .and_then(|f| f.metadata())
                        .map_err(|e| file_error(value, e))?;
                    if file.is_dir() {
                        return Err(file_error(
                            value,
                            std::io::Error::other("it is a folder, not a capture file"),
                        ));
                    }
                }
                "tx_pcap" if pcap => {
                    let path = std::path::Path::new(value);
                    if path.is_symlink() {
                        // The driver would empty what it leads to.
                        return Err(file_error(
                            value,
                            std::io::Error::other("it is a symbolic link; name the file itself"),
                        ));
                    }
                    let folder = path
                        .parent()
                        .filter(|p| !p.as_os_str().is_empty())
                        .unwrap_or(std::path::Path::new("."));
                    if !std::fs::metadata(folder)
                        .map_err(|e| file_error(value, e))?
                        .is_dir()
                        || path.is_dir()
                    {
                        return Err(file_error(
                            value,
                            std::io::Error::other("it is not a file inside of a folder"),
                        ));
                    }
                }
                _ => {}
            }
        }
        if !missing.is_empty() {
            return Err(Error::Rights {
                port: port.to_owned(),
                missing: missing.join(" and "),
            });
        }
        Ok(())
    }
}

/// Fails if this network namespace has no such interface; says so in the log if it is down.
fn check_interface(port: &str, interface: &str) -> Result<(), Error> {
    let missing = || Error::NoInterface {
        port: port.to_owned(),
        interface: interface.to_owned(),
    };
    let name = CString::new(interface).map_err(|_| missing())?;
    // SAFETY: a C string that lives during the call.
    if unsafe { dpdk_sys::shim_interface_index(name.as_ptr()) } == 0 {
        return Err(missing());
    }
    if interface_flags(interface).is_some_and(|f| f & dpdk_sys::SHIM_IFF_UP == 0) {
        log::warn!("{port}: interface {interface} is down; `ip link set {interface} up` starts it");
    }
    Ok(())
}

/// Index of an interface of this network namespace.
pub(super) fn interface_index(interface: &str) -> Option<u32> {
    let name = CString::new(interface).ok()?;
    // SAFETY: a C string that lives during the call.
    Some(unsafe { dpdk_sys::shim_interface_index(name.as_ptr()) }).filter(|i| *i > 0)
}

/// MTU of an interface of this network namespace.
pub(super) fn interface_mtu(interface: &str) -> Option<u16> {
    let name = CString::new(interface).ok()?;
    // SAFETY: a C string that lives during the call.
    let mtu = unsafe { dpdk_sys::shim_interface_mtu(name.as_ptr()) };
    // lo has 65536, more than an IP packet can be long.
    (mtu > 0).then(|| u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// Flags of an interface of this network namespace (netdevice(7)).
pub(super) fn interface_flags(interface: &str) -> Option<u32> {
    let name = CString::new(interface).ok()?;
    // SAFETY: a C string that lives during the call.
    u32::try_from(unsafe { dpdk_sys::shim_interface_flags(name.as_ptr()) }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_taken_apart() {
        let d = Device::parse("port", "net_pcap0, rx_pcap=a=b.pcap ,infinite_rx=1").unwrap();
        assert_eq!(
            (d.name(), d.args().as_str()),
            ("net_pcap0", "rx_pcap=a=b.pcap,infinite_rx=1")
        );
        assert_eq!(
            Device::parse("port", "0000:03:00.0").unwrap(),
            Device::Existing("0000:03:00.0".into())
        );
        assert_eq!(
            Device::parse("port", "pci:03:00.0,x=1").unwrap(),
            Device::Existing("0000:03:00.0".into())
        );
        for bad in ["", ",iface=x", "net null0", "net_null0,a=\0"] {
            assert!(
                matches!(Device::parse("port", bad), Err(Error::Device { .. })),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_file_is_not_written_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "untouched").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let check = |path: &std::path::Path| {
            let text = format!("net_pcap0,tx_pcap={}", path.display());
            Device::parse("port", &text).unwrap().check("port")
        };
        check(&file).unwrap();
        let e = check(&link).unwrap_err().to_string();
        assert!(e.contains("symbolic link"), "{e}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let text = |s: &str| {
            Device::parse("mirror port", s)
                .unwrap()
                .check("mirror port p")
                .unwrap_err()
                .to_string()
        };
        assert!(
            text("net_af_packet0,iface=nosuch9")
                .starts_with("mirror port p: no interface \"nosuch9\"")
        );
        assert!(text("net_af_packet0").contains("it needs an interface"));
        assert!(
            text("net_pcap0,rx_pcap=/nosuch/in.pcap")
                .contains("\"/nosuch/in.pcap\" cannot be opened: No such file")
        );
        assert!(text("net_pcap0,tx_pcap=/nosuch/out.pcap").contains("/nosuch/out.pcap"));
        assert!(text("net_pcap0,rx_pcap=/tmp").contains("folder"));
        Device::parse("port", "net_af_packet0,iface=lo")
            .unwrap()
            .check("port p")
            .unwrap();
    }
}
