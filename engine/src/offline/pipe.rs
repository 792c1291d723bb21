//! Standard input and named pipes: read as they are filled, and no longer than the engine runs.

use capture_file::{Error, Input, STDIN, What};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How often it is looked whether the engine stops.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// A pipe that ends when its writer is done, or when the engine stops.
struct Pipe {
    source: File,
    stop: Arc<AtomicBool>,
}

/// Opens a pipe, which may have no writer yet; `stop` ends it early.
///
/// # Errors
/// It cannot be opened.
pub fn open(path: &Path, stop: &Arc<AtomicBool>) -> Result<Input, Error> {
    let fail = |e| Error::new(&path.display().to_string(), What::Open(e));
    let source = if path == Path::new(STDIN) {
        // Not by way of `Stdin`, which would keep what it has read ahead from being polled for.
        File::from(io::stdin().as_fd().try_clone_to_owned().map_err(fail)?)
    } else {
        // Opened so, a pipe without a writer is not waited for here, where nothing could end that.
        let opened = File::options()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
            .open(path);
        opened.map_err(fail)?
    };
    let stop = Arc::clone(stop);
    Ok(Box::new(Pipe { source, stop }))
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(0);
            }
            // A pipe that has had no writer yet is not ready; one whose writer is gone is.
            let mut fds = [PollFd::new(&self.source, PollFlags::IN)];
            match poll(&mut fds, Some(&LOOK)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(e) => return Err(e.into()),
            }
            match self.source.read(into) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }
}
