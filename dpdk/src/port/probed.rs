//! A port that exists: found on the bus or made by its driver, taken so that nobody opens it twice,
//! and given back.

use super::device::{self, Device};
use super::ring::Rings;
use crate::eal::Eal;
use crate::error::{Error, reason};
use dpdk_sys as sys;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Ports that have been opened here, so that none is opened twice.
static OPEN: Mutex<[bool; sys::RTE_MAX_ETHPORTS as usize]> =
    Mutex::new([false; sys::RTE_MAX_ETHPORTS as usize]);

/// A port that exists and is ours; set up or not.
#[derive(Debug)]
pub(super) struct Probed {
    pub(super) number: u16,
    /// The virtual device to remove.
    virtual_name: Option<CString>,
    /// What it receives from, if these are packet sockets.
    pub(super) rings: Rings,
    /// The kernel's interface under it was in promiscuous mode before, and is to be afterwards.
    pub(super) was_promiscuous: bool,
    eal: Eal,
}

fn lock(eal: &Eal) -> MutexGuard<'_, ()> {
    eal.inner
        .control
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

impl Probed {
    pub(super) fn probe(eal: &Eal, device: &Device, port: &str) -> Result<Self, Error> {
        let _guard = lock(eal);
        crate::logging::clear();
        let was_promiscuous = device
            .interface()
            .and_then(device::interface_flags)
            .is_some_and(|f| f & sys::SHIM_IFF_PROMISC != 0);
        let others = Rings::open_files(device);
        let bad_name = |_| Error::Device {
            port: port.to_owned(),
            what: "its name has a NUL byte".to_owned(),
        };
        let name = CString::new(device.name()).map_err(bad_name)?;
        let virtual_name = match device {
            Device::Existing(_) => None,
            Device::Virtual { .. } => {
                if find(&name).is_some() {
                    return Err(Error::Duplicate {
                        port: port.to_owned(),
                    });
                }
                let args = CString::new(device.args()).map_err(bad_name)?;
                // SAFETY: two C strings that live during the call, which copies them.
                let result = unsafe { sys::rte_vdev_init(name.as_ptr(), args.as_ptr()) };
                if result < 0 {
                    let port = port.to_owned();
                    // A driver that refuses says why in its log; without one, the bus says nothing.
                    return Err(match (result, crate::logging::said()) {
                        // net_af_packet's words where the kernel says EAGAIN (mmap(2)).
                        (_, Some(said)) if said.contains("call to mmap failed on AF_PACKET") => {
                            Error::LockedMemory { port }
                        }
                        (-1, None) => Error::UnknownDriver { port },
                        (-1, Some(reason)) => Error::Port {
                            port,
                            step: "making the virtual device",
                            reason,
                        },
                        (_, said) => {
                            let said = said.map(|s| format!(" ({s})")).unwrap_or_default();
                            Error::Port {
                                port,
                                step: "making the virtual device",
                                reason: reason(result) + &said,
                            }
                        }
                    });
                }
                Some(name.clone())
            }
        };
        let Some(number) = find(&name) else {
            if let Some(name) = &virtual_name {
                // SAFETY: the device was made above.
                unsafe { sys::rte_vdev_uninit(name.as_ptr()) };
            }
            return Err(Error::NoPort {
                port: port.to_owned(),
                reason: said_of(&eal.inner.said, device.name()),
            });
        };
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(usize::from(number)) {
            Some(slot) if !*slot => *slot = true,
            _ => {
                return Err(Error::Duplicate {
                    port: port.to_owned(),
                });
            }
        }
        Ok(Self {
            number,
            virtual_name,
            rings: Rings::find(device, &others),
            was_promiscuous,
            eal: eal.clone(),
        })
    }

    pub(super) fn raw_info(&self, port: &str) -> Result<sys::rte_eth_dev_info, Error> {
        let mut raw = MaybeUninit::<sys::rte_eth_dev_info>::zeroed();
        // SAFETY: the port exists and the structure is writable.
        let result = unsafe { sys::rte_eth_dev_info_get(self.number, raw.as_mut_ptr()) };
        if result < 0 {
            return Err(Error::Port {
                port: port.to_owned(),
                step: "asking what the device can do",
                reason: reason(result),
            });
        }
        // SAFETY: filled in by DPDK; it has integers and pointers alone, so all-zero would be a
        // value of it, too.
        Ok(unsafe { raw.assume_init() })
    }

    pub(super) fn mac(&self, port: &str) -> Result<[u8; 6], Error> {
        let mut raw = sys::rte_ether_addr { addr_bytes: [0; 6] };
        // SAFETY: the port exists and the structure is writable.
        let result = unsafe { sys::rte_eth_macaddr_get(self.number, &mut raw) };
        if result < 0 {
            return Err(Error::Port {
                port: port.to_owned(),
                step: "reading the Ethernet address",
                reason: reason(result),
            });
        }
        Ok(raw.addr_bytes)
    }
}

impl Drop for Probed {
    fn drop(&mut self) {
        let _guard = lock(&self.eal);
        // SAFETY: the port exists and is ours alone. Stopping one that was never started does
        // nothing, nor does asking for promiscuous mode where it is on.
        unsafe {
            if self.was_promiscuous {
                sys::rte_eth_promiscuous_enable(self.number);
            }
            sys::rte_eth_dev_stop(self.number);
            sys::rte_eth_dev_close(self.number);
            if let Some(name) = &self.virtual_name {
                sys::rte_vdev_uninit(name.as_ptr());
            }
        }
        if let Some(slot) = OPEN
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(usize::from(self.number))
        {
            *slot = false;
        }
    }
}

/// Number of the port with this name.
fn find(name: &CStr) -> Option<u16> {
    let mut number = 0;
    // SAFETY: a C string and a writable number.
    (unsafe { sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &mut number) } == 0)
        .then_some(number)
}

/// What DPDK said of a device while it started: lines that name it, or else those of a fault on the
/// way to it.
fn said_of(said: &[String], device: &str) -> String {
    let is_of = |line: &&String| line.contains(device);
    let is_fault = |line: &&String| {
        ["VFIO", "vfio", "PCI", "probe", "IOVA", "uio"]
            .iter()
            .any(|word| line.contains(word))
    };
    let mut told: Vec<&str> = said.iter().filter(is_of).map(String::as_str).collect();
    if told.is_empty() {
        told = said.iter().filter(is_fault).map(String::as_str).collect();
    }
    told.truncate(crate::logging::TOLD);
    if told.is_empty() {
        "it gives no reason".to_owned()
    } else {
        told.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dpdk_said_of_a_device_at_start_is_quoted() {
        let said: Vec<String> = [
            "EAL: No free 1048576 kB hugepages reported on node 0",
            "EAL: Cannot open /dev/vfio/12: Device or resource busy",
            "EAL: Requested device 0000:01:00.0 cannot be used",
        ]
        .map(String::from)
        .into();
        assert_eq!(said_of(&said, "0000:01:00.0"), said[2]);
        assert_eq!(said_of(&said, "0000:02:00.0"), said[1]);
        assert_eq!(said_of(&said[..1], "0000:02:00.0"), "it gives no reason");
    }
}
