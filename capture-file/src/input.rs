//! Where a file's bytes come from: read ahead into a bounded window, unpacked if they are
//! compressed, which their first bytes say.

use crate::{Error, What};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes read at a time.
const CHUNK: usize = 256 << 10;
/// How much memory a zstd stream may ask for, as a power of two: what `zstd -d` allows.
const ZSTD_WINDOW: u32 = 27;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A source of bytes.
pub type Input = Box<dyn Read + Send>;

/// Opens a file, which may be a pipe: then this waits for its writer.
///
/// # Errors
/// It cannot be opened, or it is a folder.
pub fn open(path: &Path) -> Result<Input, Error> {
    let name = path.display().to_string();
    let fail = |e| Error::new(&name, What::Open(e));
    let file = File::open(path).map_err(fail)?;
    if file.metadata().map_err(fail)?.is_dir() {
        return Err(Error::new(&name, What::Folder));
    }
    Ok(Box::new(file))
}

/// Counts what is read.
struct Counted {
    input: Input,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(into)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// How much of what was asked for there is.
pub(crate) enum Filled {
    /// All of it.
    Whole,
    /// The file ends before that.
    End,
}

/// A window onto the contents of a file. It grows with what there is, never with what is asked for.
pub(crate) struct Window {
    input: Input,
    packed: Option<&'static str>,
    buffer: Vec<u8>,
    /// The part of the buffer that is read and not used yet.
    from: usize,
    to: usize,
    /// Where in the contents `from` is.
    at: u64,
    /// Bytes read of the file itself.
    read: Arc<AtomicU64>,
}

impl Window {
    /// A window onto `input`, unpacked.
    pub fn new(input: Input) -> Result<Self, What> {
        let read = Arc::new(AtomicU64::new(0));
        let mut input = Counted {
            input,
            read: Arc::clone(&read),
        };
        let mut head = Vec::with_capacity(4);
        (&mut input)
            .take(4)
            .read_to_end(&mut head)
            .map_err(|e| What::Read(0, e))?;
        let packed = match head[..] {
            [a, b, ..] if [a, b] == GZIP => Some("gzip"),
            [a, b, c, d] if [a, b, c, d] == ZSTD => Some("zstd"),
            _ => None,
        };
        let whole = Cursor::new(head).chain(input);
        let input: Input = match packed {
            Some("gzip") => Box::new(MultiGzDecoder::new(io::BufReader::with_capacity(
                CHUNK, whole,
            ))),
            Some(_) => {
                let mut decoder = zstd::Decoder::new(whole).map_err(|e| What::Read(0, e))?;
                decoder
                    .window_log_max(ZSTD_WINDOW)
                    .map_err(|e| What::Read(0, e))?;
                Box::new(decoder)
            }
            None => Box::new(whole),
        };
        Ok(Self {
            input,
            packed,
            buffer: vec![0; CHUNK],
            from: 0,
            to: 0,
            at: 0,
            read,
        })
    }

    /// Bytes read of the file itself so far, for whoever wants to follow.
    pub fn count(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read)
    }

    /// Where in the contents the window begins.
    pub const fn at(&self) -> u64 {
        self.at
    }

    /// What is in the window.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.from..self.to).unwrap_or(&[])
    }

    /// Makes the window at least `len` bytes long, if the file goes on for so long.
    #[inline]
    pub fn fill(&mut self, len: usize) -> Result<Filled, io::Error> {
        if self.to - self.from >= len {
            return Ok(Filled::Whole);
        }
        self.read_more(len)
    }

    #[cold]
    fn read_more(&mut self, len: usize) -> Result<Filled, io::Error> {
        self.buffer.copy_within(self.from..self.to, 0);
        self.to -= self.from;
        self.from = 0;
        while self.to < len {
            if self.to == self.buffer.len() {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
            let room = self.buffer.get_mut(self.to..).unwrap_or(&mut []);
            match self.input.read(room) {
                Ok(0) => return Ok(Filled::End),
                Ok(n) => self.to += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Filled::Whole)
    }

    /// Moves on by `n` bytes of the window.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        let n = n.min(self.to - self.from);
        self.from += n;
        self.at += n as u64;
    }

    /// What an error of the input means. `frames` were read before.
    pub fn failed(&self, why: io::Error, frames: u64) -> What {
        let at = self.at + (self.to - self.from) as u64;
        match (self.packed, why.kind()) {
            (Some(how), io::ErrorKind::UnexpectedEof) => What::CutInside { how, at, frames },
            (Some(how), _) if why.raw_os_error().is_none() => What::Compressed { how, at, why },
            _ => What::Read(at, why),
        }
    }
}
