//! One lab at a time, over all processes of the machine: a test runner may run each test in a
//! process of its own, and two loads at once would take each other's cores and be measured as loss.
//!
//! The lock is a name in the abstract socket namespace (unix(7)): the kernel gives it back when its
//! holder ends, however that happens, and there is no file to leave behind.

use anyhow::{Context, Result};
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

const NAME: &[u8] = b"replay-lab-turn";
const POLL: Duration = Duration::from_millis(50);

/// The right to load the machine, until it's dropped.
#[derive(Debug)]
pub struct Turn {
    _name: UnixListener,
}

impl Turn {
    /// Waits until nobody else has it. There is no limit: the test runner's holds.
    ///
    /// # Errors
    /// The system refuses for another reason.
    pub fn take() -> Result<Self> {
        loop {
            if let Some(turn) = Self::try_take(NAME)? {
                return Ok(turn);
            }
            std::thread::sleep(POLL);
        }
    }

    fn try_take(name: &[u8]) -> Result<Option<Self>> {
        let address = SocketAddr::from_abstract_name(name)?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => Ok(Some(Self { _name: listener })),
            Err(e) if e.kind() == ErrorKind::AddrInUse => Ok(None),
            Err(e) => Err(e).context("the turn of the lab's users"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let name = format!("replay-lab-turn-test-{}", std::process::id());
        let first = Turn::try_take(name.as_bytes()).unwrap();
        assert!(first.is_some());
        assert!(Turn::try_take(name.as_bytes()).unwrap().is_none());
        drop(first);
        assert!(Turn::try_take(name.as_bytes()).unwrap().is_some());
    }
}
