//! Device strings: what the configuration calls a port, checked against the machine before a driver
//! sees it.
//!
//! A string names either a port that exists already, such as the PCI address `0000:03:00.0`, or a
//! virtual device with its driver's arguments, such as `net_af_packet0,iface=eth1` or
//! `net_pcap0,rx_pcap=in.pcap`. Drivers say little about bad arguments and cut long
//! frames in silence, so interfaces, files and ring sizes are checked here.

use crate::error::Error;
use crate::mempool::{DATA_ROOM, HEADROOM};
use crate::packet_ring::RingSize;
use crate::pci::pci_address;
use crate::rights;
use std::ffi::CString;

/// Alignment that the kernel wants of ring frames (`TPACKET_ALIGNMENT`, linux/if_packet.h).
const FRAME_ALIGNMENT: u32 = 16;
/// Bytes of each ring frame that net_af_packet keeps off the data (`TPACKET2_HDRLEN - sizeof(struct
/// sockaddr_ll)`).
const RING_HEADER: u32 = 32;
/// Bytes of each ring frame that the kernel's receive side keeps off an Ethernet frame: the
/// packet's header, the address and padding (net/packet/af_packet.c, `tpacket_rcv`).
const KERNEL_HEADER: u32 = 66;
/// Ring frames per queue and direction unless the user says otherwise: 32 MiB at 2048 bytes each, a
/// quarter of a second at 60 kpps, which is what a worker on a shared core may be kept waiting.
const FRAME_COUNT: u32 = 16_384;
/// Places per queue of the driver's own rings, of which it uses the one that it sends from.
const DRIVER_FRAMES: u32 = 1_024;
/// Least size of a block of ring frames.
const BLOCK_SIZE: u32 = 65536;
const PAGE: u32 = 4096;
/// Ethernet header and two VLAN tags.
const LINK_HEADERS: u32 = 14 + 8;

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
    fn arg(&self, key: &str) -> Option<&str> {
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

    fn is_af_packet(&self) -> bool {
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

    /// Fills in what an af_packet port needs and the user left out, and checks what the user gave.
    /// `queues` is how many queue pairs are used, `data_room` the size of the buffers frames
    /// are received into, `asked` the MTU the user wants and `mtu` that which is
    /// expected otherwise. Returns the ring to receive from, and the longest IP packet that can be
    /// sent.
    pub(super) fn complete(
        &mut self,
        port: &str,
        queues: u16,
        data_room: u16,
        asked: Option<u16>,
        mtu: u16,
    ) -> Result<Option<(RingSize, u16)>, Error> {
        if !self.is_af_packet() {
            return Ok(None);
        }
        let given = |key: &'static str| -> Result<Option<u32>, Error> {
            self.arg(key)
                .map(|v| {
                    v.parse().map_err(|_| Error::Device {
                        port: port.to_owned(),
                        what: format!("{key} is {v:?}, but it must be a whole number"),
                    })
                })
                .transpose()
        };
        let option = |option: &'static str, value: u32, accepted: String| Error::Option {
            port: port.to_owned(),
            option,
            value: value.into(),
            accepted,
        };
        let qpairs = given("qpairs")?.unwrap_or(queues.max(1).into());
        if qpairs < u32::from(queues.max(1)) {
            return Err(option(
                "qpairs",
                qpairs,
                format!("at least the {queues} queues in use"),
            ));
        }

        // A frame of the ring may not be larger than the buffer it is copied into.
        let most = u32::from(data_room.saturating_sub(HEADROOM)) + RING_HEADER;
        let framesz = match given("framesz")? {
            Some(size) => {
                if size > most || size < KERNEL_HEADER + 60 || !size.is_multiple_of(FRAME_ALIGNMENT)
                {
                    let accepted = format!(
                        "a multiple of {FRAME_ALIGNMENT} up to {most}, which is what the mbufs hold"
                    );
                    return Err(option("framesz", size, accepted));
                }
                size
            }
            // Powers of two, so that blocks hold frames without a gap: the driver reckons with
            // none.
            None => ring_frame(mtu).min(match most {
                most if most.is_power_of_two() => most,
                most => most.next_power_of_two() / 2,
            }),
        };
        let carried = framesz
            .saturating_sub(LINK_HEADERS + KERNEL_HEADER)
            .min(u16::MAX.into()) as u16;
        if let Some(asked) = asked.filter(|asked| *asked > carried) {
            let accepted = format!(
                "an MTU of at most {carried} with frames of {framesz} bytes in its ring and mbufs of {data_room}"
            );
            return Err(option("mtu", asked.into(), accepted));
        }
        let block_unit = lcm(framesz, PAGE);
        let blocksz = match given("blocksz")? {
            Some(size) => {
                if size == 0 || !size.is_multiple_of(block_unit) {
                    return Err(option(
                        "blocksz",
                        size,
                        format!(
                            "a multiple of {block_unit}, which holds whole frames and whole pages"
                        ),
                    ));
                }
                size
            }
            None => block_unit * BLOCK_SIZE.div_ceil(block_unit),
        };
        let per_block = blocksz / framesz;
        let framecnt = match given("framecnt")? {
            Some(count) => {
                if count == 0 || !count.is_multiple_of(per_block) {
                    return Err(option(
                        "framecnt",
                        count,
                        format!("a multiple of the {per_block} frames in a block"),
                    ));
                }
                count
            }
            None => per_block * FRAME_COUNT.div_ceil(per_block),
        };
        // The driver maps both rings at once and counts their bytes in 32 bits.
        if u64::from(framecnt) * u64::from(framesz) * 2 > u64::from(u32::MAX >> 1) {
            return Err(option(
                "framecnt",
                framecnt,
                format!("at most {}, 1 GiB per ring", (u32::MAX >> 2) / framesz),
            ));
        }
        let Self::Virtual { args, .. } = self else {
            return Ok(None);
        };
        // The ring that frames are received from is a socket's of ours; the driver's are there to
        // send, and need not be as long.
        args.retain(|(key, _)| key != "framecnt");
        let own = framecnt.min(per_block * DRIVER_FRAMES.div_ceil(per_block));
        for (key, value) in [
            ("qpairs", qpairs),
            ("framesz", framesz),
            ("blocksz", blocksz),
            ("framecnt", own),
            // What is sent past the queueing discipline is shown to no socket, and so nobody tells
            // when it left.
            ("qdisc_bypass", 0),
        ] {
            if !args.iter().any(|(k, _)| k == key) {
                args.push((key.to_owned(), Some(value.to_string())));
            }
        }
        let ring = RingSize {
            frame: framesz,
            frames: framecnt,
            block: blocksz,
        };
        Ok(Some((ring, carried)))
    }
}

/// Size of ring frames for IP packets of this length: a power of two.
fn ring_frame(mtu: u16) -> u32 {
    let least = u32::from(mtu) + LINK_HEADERS + KERNEL_HEADER;
    least.next_power_of_two().max(2_048)
}

/// The size of mbufs that the frames of a device need, if [`DATA_ROOM`](crate::DATA_ROOM) is too
/// little: net_af_packet copies each frame of its ring into one mbuf. `mtu` is the longest packet
/// that is asked for.
pub fn data_room(device: &str, mtu: Option<u16>) -> u16 {
    let room = match Device::parse("port", device) {
        Ok(device) if device.is_af_packet() => {
            let given = device.arg("framesz").and_then(|size| size.parse().ok());
            given
                .or(mtu.map(ring_frame))
                .map(|framesz: u32| u32::from(HEADROOM) + framesz.saturating_sub(RING_HEADER))
        }
        _ => None,
    };
    room.map_or(DATA_ROOM, |room| {
        DATA_ROOM.max(u16::try_from(room).unwrap_or(u16::MAX))
    })
}

fn lcm(a: u32, b: u32) -> u32 {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x.max(1) * b
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

    fn completed(text: &str, queues: u16, data_room: u16, mtu: u16) -> Result<String, Error> {
        let mut device = Device::parse("port", text)?;
        device.complete("port x", queues, data_room, Some(mtu), mtu)?;
        Ok(device.args())
    }

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
    fn af_packet_rings_fit_the_mbufs() {
        let args = completed("net_af_packet0,iface=a", 2, HEADROOM + 2048, 1500).unwrap();
        assert_eq!(
            args,
            "iface=a,qpairs=2,framesz=2048,blocksz=65536,framecnt=1024,qdisc_bypass=0"
        );
        let args = completed(
            "net_af_packet0,iface=a,qdisc_bypass=0",
            1,
            HEADROOM + 9216,
            9000,
        )
        .unwrap_err()
        .to_string();
        assert!(
            args.contains("mtu is 9000") && args.contains("at most 8104"),
            "{args}"
        );
        let args = completed(
            "net_af_packet0,iface=a,framesz=9216,qdisc_bypass=0",
            1,
            HEADROOM + 9216,
            9000,
        )
        .unwrap();
        assert_eq!(
            args,
            "iface=a,framesz=9216,qdisc_bypass=0,qpairs=1,blocksz=73728,framecnt=1024"
        );
    }

    #[test]
    fn mbufs_are_as_large_as_the_frames_of_a_ring() {
        let room = |device, mtu| {
            let room = data_room(device, mtu);
            let (text, mtu) = (device, mtu.unwrap_or(1_500));
            completed(text, 1, room, mtu).unwrap();
            room
        };
        assert_eq!(room("net_af_packet0,iface=a", None), DATA_ROOM);
        assert_eq!(room("net_af_packet0,iface=a,framesz=2048", None), DATA_ROOM);
        assert_eq!(
            room("net_af_packet0,iface=a,framesz=4096", None),
            HEADROOM + 4_064
        );
        assert_eq!(
            room("net_af_packet0,iface=a", Some(9_000)),
            HEADROOM + 16_352
        );
        assert_eq!(data_room("0000:01:00.0", Some(9_000)), DATA_ROOM);
        assert_eq!(
            data_room("net_af_packet0,iface=a,framesz=x", None),
            DATA_ROOM
        );
    }

    #[test]
    fn af_packet_sizes_that_the_driver_would_misread_are_refused() {
        for (bad, key) in [
            ("framesz=4096", "framesz"),
            ("framesz=2040", "framesz"),
            ("blocksz=5000", "blocksz"),
            ("blocksz=0", "blocksz"),
            ("framecnt=5", "framecnt"),
            ("framecnt=1048576", "framecnt"),
            ("qpairs=1", "qpairs"),
        ] {
            match completed(
                &format!("net_af_packet0,iface=a,{bad}"),
                2,
                HEADROOM + 2048,
                1500,
            ) {
                Err(Error::Option { option, .. }) => assert_eq!(option, key, "{bad}"),
                other => panic!("{bad}: {other:?}"),
            }
        }
        assert!(matches!(
            completed("net_af_packet0,iface=a,framesz=x", 1, 2176, 1500),
            Err(Error::Device { .. })
        ));
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
