//! What the kernel counts at the packet sockets of a net_af_packet port.
//!
//! The driver reads a ring that the kernel fills. A frame that finds it full is dropped, and only
//! the socket's own statistics tell (packet(7)): the driver hands out neither them nor its sockets.
//! So these are the ones that were opened while the driver made the port and that are bound to its
//! interface. They stay open until the port is stopped.

use super::device::Device;
use dpdk_sys as sys;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

/// What came for the sockets of a port since they were opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    /// Frames.
    pub(super) frames: u64,
    /// Of these, the ones that found the ring full.
    pub(super) dropped: u64,
}

/// The sockets of a port; none unless its driver is net_af_packet.
#[derive(Debug, Default)]
pub(super) struct Rings {
    sockets: Vec<RawFd>,
    /// Those that receive in place of the driver's.
    instead: Vec<Arc<OwnedFd>>,
    /// The kernel counts from zero again whenever it is asked.
    counts: Mutex<Counts>,
}

impl Rings {
    /// The files that this process has open, before the port of `device` is made; empty if its
    /// driver is another one.
    pub(super) fn open_files(device: &Device) -> BTreeSet<RawFd> {
        device.interface().map(|_| files()).unwrap_or_default()
    }

    /// The sockets that were opened since then.
    pub(super) fn find(device: &Device, before: &BTreeSet<RawFd>) -> Self {
        let name = device.interface().and_then(|i| CString::new(i).ok());
        let Some(name) = name else {
            return Self::default();
        };
        // SAFETY: a C string that lives during the call.
        let index = unsafe { sys::shim_interface_index(name.as_ptr()) };
        let bound = |fd: &RawFd| {
            // SAFETY: a question about a file's number, whatever file that is.
            u32::try_from(unsafe { sys::shim_packet_interface(*fd) }).ok() == Some(index)
        };
        Self {
            sockets: files().difference(before).copied().filter(bound).collect(),
            instead: Vec::new(),
            counts: Mutex::default(),
        }
    }

    /// The driver's sockets are given nothing from now on: others receive in their place.
    pub(super) fn mute(&mut self, instead: Vec<Arc<OwnedFd>>) {
        for socket in &self.sockets {
            // SAFETY: the socket is the driver's and open as long as the port is.
            let result = unsafe { sys::shim_packet_mute(*socket) };
            if result < 0 {
                log::debug!(
                    "a packet socket of the driver's stays open: errno {}",
                    -result
                );
            }
        }
        self.instead = instead;
    }

    /// What came so far.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let instead: Vec<RawFd> = self.instead.iter().map(|s| s.as_raw_fd()).collect();
        let sockets = if instead.is_empty() {
            &self.sockets
        } else {
            &instead
        };
        for socket in sockets {
            let (mut frames, mut dropped) = (0, 0);
            // SAFETY: two writable integers. The socket is open as long as the port is, which has
            // this.
            if unsafe { sys::shim_packet_statistics(*socket, &mut frames, &mut dropped) } == 0 {
                counts.frames += u64::from(frames);
                counts.dropped += u64::from(dropped);
            }
        }
        *counts
    }
}

/// The numbers of the files that this process has open.
fn files() -> BTreeSet<RawFd> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect()
}
