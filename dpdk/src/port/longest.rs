//! How long frames a NIC receives (rte_ethdev.h, `rte_eth_dev_info`).
//!
//! A frame that is longer than the NIC was told is dropped, and not every driver counts it. So a
//! mirror port is told the most that it can.

use super::{DEFAULT_MTU, LINK_HEADERS, PortOptions};
use crate::error::Error;
use dpdk_sys as sys;

/// What jumbo frames are as a rule.
const JUMBO: u16 = 9_000;
/// Ethernet header and checksum, which drivers add to the MTU where they do not say what they add.
const OVERHEAD: u32 = 14 + 4;

/// What a device can.
#[derive(Clone, Copy, Debug)]
pub(super) struct Can {
    max_mtu: u16,
    max_frame: u32,
    scatter: bool,
}

impl Can {
    /// What it says of itself.
    pub(super) const fn of(raw: &sys::rte_eth_dev_info) -> Self {
        Self {
            max_mtu: raw.max_mtu,
            max_frame: raw.max_rx_pktlen,
            scatter: raw.rx_offload_capa & sys::SHIM_RX_OFFLOAD_SCATTER != 0,
        }
    }

    /// The greatest MTU, with buffers of `room` bytes.
    fn most(self, room: u16) -> u16 {
        // As rte_ethdev.c reckons it (eth_dev_get_overhead_len).
        let overhead = if self.max_mtu != u16::MAX && self.max_frame > self.max_mtu.into() {
            self.max_frame - u32::from(self.max_mtu)
        } else {
            OVERHEAD
        };
        let mut most = self
            .max_frame
            .saturating_sub(overhead)
            .min(self.max_mtu.into());
        if !self.scatter {
            most = most.min(u32::from(room).saturating_sub(LINK_HEADERS));
        }
        most.min(u16::MAX.into()) as u16
    }
}

/// The MTUs to try, the best first: drivers do not always take what they say they can.
pub(super) fn candidates(
    can: &Can,
    options: &PortOptions,
    room: u16,
    port: &str,
) -> Result<Vec<u16>, Error> {
    let most = can.most(room);
    if let Some(asked) = options.mtu {
        if asked > most {
            return Err(Error::Option {
                port: port.to_owned(),
                option: "the MTU",
                value: asked.into(),
                accepted: format!("at most {most}"),
            });
        }
        return Ok(vec![asked]);
    }
    if !options.longest {
        return Ok(vec![DEFAULT_MTU]);
    }
    let mut mtus = vec![most.max(DEFAULT_MTU)];
    mtus.extend([JUMBO, DEFAULT_MTU].into_iter().filter(|mtu| *mtu < most));
    Ok(mtus)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: u16 = 2_048;

    fn longest(max_mtu: u16, max_frame: u32, scatter: bool) -> Vec<u16> {
        let can = Can {
            max_mtu,
            max_frame,
            scatter,
        };
        let options = PortOptions {
            longest: true,
            ..PortOptions::default()
        };
        candidates(&can, &options, ROOM, "p").unwrap()
    }

    #[test]
    fn a_mirror_takes_as_much_as_the_device_can() {
        // igb: 16383 bytes with header, checksum and two tags.
        assert_eq!(longest(16_357, 16_383, true), [16_357, 9_000, 1_500]);
        // It does not say what the greatest MTU is.
        assert_eq!(longest(u16::MAX, 9_728, true), [9_710, 9_000, 1_500]);
        // Without scatter a frame is as long as a buffer.
        assert_eq!(longest(16_357, 16_383, false), [2_026, 1_500]);
        assert_eq!(longest(1_500, 1_518, true), [1_500]);
    }

    #[test]
    fn an_mtu_that_was_asked_for_is_taken_or_refused() {
        let can = Can {
            max_mtu: 2_000,
            max_frame: 2_018,
            scatter: true,
        };
        let asked = |mtu| PortOptions {
            mtu: Some(mtu),
            longest: true,
            ..PortOptions::default()
        };
        assert_eq!(candidates(&can, &asked(1_700), ROOM, "p"), Ok(vec![1_700]));
        let e = candidates(&can, &asked(9_000), ROOM, "mirror port x").unwrap_err();
        assert_eq!(
            e.to_string(),
            "mirror port x: the MTU is 9000, but this device takes at most 2000"
        );
        assert_eq!(
            candidates(&can, &PortOptions::default(), ROOM, "p"),
            Ok(vec![1_500])
        );
    }
}
