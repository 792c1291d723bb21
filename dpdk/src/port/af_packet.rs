//! The rings of net_af_packet: what the user left out is filled in, and what was given is checked,
//! since the driver says little about bad sizes and cuts long frames in silence.
//!
//! Frames are received from a ring of our own, whose places may be longer than a buffer. The
//! driver's rings are there to send, and it refuses those with places longer than a buffer.

use super::device::Device;
use crate::error::Error;
use crate::mempool::{DATA_ROOM, HEADROOM};
use crate::packet_ring::RingSize;

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
/// Bytes of a ring at most unless the user says otherwise.
const MOST_BYTES: u32 = 256 << 20;
/// Places per queue of the driver's own rings, of which it uses the one that it sends from.
const DRIVER_FRAMES: u32 = 1_024;
/// Least size of a block of ring frames.
const BLOCK_SIZE: u32 = 65536;
/// Largest frame of a ring: holds the longest IP packet.
const MOST_FRAME: u32 = 128 << 10;
const PAGE: u32 = 4096;
/// Ethernet header and two VLAN tags.
const LINK_HEADERS: u32 = 14 + 8;

impl Device {
    /// Fills in what an af_packet port needs and the user left out, and checks what the user gave.
    /// `queues` is how many queue pairs are used, `data_room` the size of the buffers frames
    /// are received into, `asked` the MTU the user wants and `mtu` that which is expected
    /// otherwise; `sends` says that packets of that length are sent. Returns the ring to receive
    /// from, and the longest IP packet that fits a frame of it.
    pub(super) fn complete(
        &mut self,
        port: &str,
        queues: u16,
        data_room: u16,
        asked: Option<u16>,
        mtu: u16,
        sends: bool,
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

        // A frame of the driver's may not be larger than the buffer it is copied into.
        let driver_most = u32::from(data_room.saturating_sub(HEADROOM)) + RING_HEADER;
        let most = if sends { driver_most } else { MOST_FRAME };
        let framesz = match given("framesz")? {
            Some(size) => {
                if size > most || size < KERNEL_HEADER + 60 || !size.is_multiple_of(FRAME_ALIGNMENT)
                {
                    let what = if sends {
                        "the mbufs hold"
                    } else {
                        "any frame takes"
                    };
                    let accepted = format!(
                        "a multiple of {FRAME_ALIGNMENT} up to {most}, which is what {what}"
                    );
                    return Err(option("framesz", size, accepted));
                }
                size
            }
            // Powers of two, so that blocks hold frames without a gap: the driver reckons with
            // none.
            // Without a wish they are no larger than buffers: there are many of them.
            None if sends || asked.is_none() => ring_frame(mtu).min(power_within(driver_most)),
            None => ring_frame(mtu).min(MOST_FRAME),
        };
        let carried = framesz
            .saturating_sub(LINK_HEADERS + KERNEL_HEADER)
            .min(u16::MAX.into()) as u16;
        if let Some(asked) = asked.filter(|asked| *asked > carried) {
            let accepted =
                format!("an MTU of at most {carried} with frames of {framesz} bytes in its ring");
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
            None => per_block * FRAME_COUNT.min(MOST_BYTES / framesz).div_ceil(per_block),
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
        let (mut frame, mut block, mut frames) = (framesz, blocksz, framecnt);
        if framesz > driver_most {
            args.retain(|(key, _)| key != "framesz" && key != "blocksz");
            frame = power_within(driver_most);
            let unit = lcm(frame, PAGE);
            block = unit * BLOCK_SIZE.div_ceil(unit);
            frames = DRIVER_FRAMES;
        }
        let per_block = block / frame;
        for (key, value) in [
            ("qpairs", qpairs),
            ("framesz", frame),
            ("blocksz", block),
            (
                "framecnt",
                frames.min(per_block * DRIVER_FRAMES.div_ceil(per_block)),
            ),
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

/// The greatest power of two that is not above `most`.
fn power_within(most: u32) -> u32 {
    1 << most.max(1).ilog2()
}

/// The size of mbufs that a device to send on needs, if [`DATA_ROOM`](crate::DATA_ROOM) is too
/// little: net_af_packet takes no frame size that is larger than its mbufs.
pub fn data_room(device: &str) -> u16 {
    let room = match Device::parse("port", device) {
        Ok(device) if device.is_af_packet() => {
            let given = device.arg("framesz").and_then(|size| size.parse().ok());
            given.map(|framesz: u32| u32::from(HEADROOM) + framesz.saturating_sub(RING_HEADER))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(text: &str, queues: u16, data_room: u16, mtu: u16) -> Result<String, Error> {
        let mut device = Device::parse("port", text)?;
        device.complete("port x", queues, data_room, Some(mtu), mtu, true)?;
        Ok(device.args())
    }

    /// A mirror port's ring, the longest packet in it, and the driver's arguments.
    fn mirror(text: &str, asked: Option<u16>) -> Result<(RingSize, u16, String), Error> {
        let mut device = Device::parse("mirror port", text)?;
        let mtu = asked.unwrap_or(9_000);
        let ring = device.complete("port x", 1, DATA_ROOM, asked, mtu, false)?;
        let (ring, longest) = ring.unwrap();
        Ok((ring, longest, device.args()))
    }

    #[test]
    fn a_mirror_ports_ring_holds_frames_longer_than_mbufs_and_the_drivers_does_not() {
        let driver = "qpairs=1,framesz=2048,blocksz=65536,framecnt=1024,qdisc_bypass=0";
        let args = format!("iface=a,{driver}");
        let name = "net_af_packet0,iface=a";
        for (text, asked, frame, longest) in [
            (name.to_owned(), None, 2_048, 1_960),
            (name.to_owned(), Some(9_000), 16_384, 16_296),
            (name.to_owned(), Some(u16::MAX), 131_072, u16::MAX),
            (format!("{name},framesz=4096"), None, 4_096, 4_008),
            (
                format!("{name},framesz=4096,blocksz=8192"),
                None,
                4_096,
                4_008,
            ),
        ] {
            let (ring, carried, given) = mirror(&text, asked).unwrap();
            assert_eq!((ring.frame, carried), (frame, longest), "{text}");
            assert_eq!(ring.block % ring.frame, 0, "{text}");
            assert_eq!(given, args, "{text}");
        }
        let e = mirror(&format!("{name},framesz=262144"), None).unwrap_err();
        assert!(e.to_string().contains("up to 131072"), "{e}");
        let e = mirror(&format!("{name},framesz=2048"), Some(9_000)).unwrap_err();
        assert!(e.to_string().contains("at most 1960"), "{e}");
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
    fn mbufs_are_as_large_as_the_frames_of_a_ring_to_send_on() {
        let room = |device| {
            let room = data_room(device);
            completed(device, 1, room, 1_500).unwrap();
            room
        };
        assert_eq!(room("net_af_packet0,iface=a"), DATA_ROOM);
        assert_eq!(room("net_af_packet0,iface=a,framesz=2048"), DATA_ROOM);
        let large = room("net_af_packet0,iface=a,framesz=4096");
        assert_eq!(large, HEADROOM + 4_064);
        assert_eq!(data_room("0000:01:00.0"), DATA_ROOM);
        assert_eq!(data_room("net_af_packet0,iface=a,framesz=x"), DATA_ROOM);
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
}
