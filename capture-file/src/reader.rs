//! One capture file, frame by frame.

use crate::input::{Filled, Input, Window};
use crate::pcap::{self, Pcap};
use crate::pcapng::{Block, Head, Packet, SECTION, Section};
use crate::{Error, Frame, MAX_FRAME, What};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Kinds of file that are taken for captures: how they begin, what they are, what to do.
const FOREIGN: [(&[u8], &str, &str); 9] = [
    (b"snoop\0", "a snoop capture", CONVERT),
    (b"GMBU", "a capture of Microsoft's Network Monitor", CONVERT),
    (b"RTSS", "a capture of Microsoft's Network Monitor", CONVERT),
    (b"TRSN", "a capture of NetXray or a Sniffer", CONVERT),
    (b"XCP\0", "a capture of NetXray or a Sniffer", CONVERT),
    (b"\xfd7zX", "compressed by xz", UNPACK),
    (b"BZh", "compressed by bzip2", UNPACK),
    (b"\x04\x22\x4d\x18", "compressed by lz4", UNPACK),
    (b"PK\x03\x04", "a zip archive", UNPACK),
];
const CONVERT: &str = "convert it (editcap -F pcapng)";
const UNPACK: &str = "unpack it, or compress it by gzip or zstd";

enum Format {
    Pcap(Pcap),
    /// A pcapng section, and what is left of a block that is passed over.
    PcapNg(Section),
}

/// Reads one file. [`Reader::advance`] goes on to the next frame, [`Reader::frame`] has it.
pub struct Reader {
    name: String,
    window: Window,
    format: Format,
    /// The current frame's record, in the window, and where in it the frame is.
    record: usize,
    range: Range<usize>,
    packet: Packet,
    frames: u64,
    over: bool,
}

impl Reader {
    /// Reads the header of `input`, which is called `name` in errors.
    ///
    /// # Errors
    /// It is no capture file.
    pub fn new(name: &str, input: Input) -> Result<Self, Error> {
        let fail = |what| Error::new(name, what);
        let mut window = Window::new(input).map_err(fail)?;
        let format = begin(&mut window).map_err(fail)?;
        Ok(Self {
            name: name.to_owned(),
            window,
            format,
            record: 0,
            range: 0..0,
            packet: Packet {
                at: None,
                link: 0,
                interface: 0,
                len: 0,
            },
            frames: 0,
            over: false,
        })
    }

    /// The file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The link type of all frames, if the file has but one.
    pub const fn link(&self) -> Option<u16> {
        match &self.format {
            Format::Pcap(p) => Some(p.link),
            Format::PcapNg(_) => None,
        }
    }

    /// Frames read so far.
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// Bytes read of the file itself, for whoever wants to follow.
    pub fn count(&self) -> Arc<AtomicU64> {
        self.window.count()
    }

    /// Goes on to the next frame. False at the end of the file, and ever after, as behind an error.
    ///
    /// # Errors
    /// The file is damaged or cut here. What comes behind is not read.
    #[inline]
    pub fn advance(&mut self) -> Result<bool, Error> {
        if self.over {
            return Ok(false);
        }
        self.window.advance(std::mem::take(&mut self.record));
        self.range = 0..0;
        let found = match &mut self.format {
            Format::Pcap(p) => {
                let p = *p;
                self.record(p)
            }
            Format::PcapNg(_) => self.blocks(),
        };
        match found {
            Ok(true) => {
                self.frames += 1;
                Ok(true)
            }
            Ok(false) => {
                self.over = true;
                Ok(false)
            }
            Err(what) => {
                self.over = true;
                Err(Error::new(&self.name, what))
            }
        }
    }

    /// The frame that [`Reader::advance`] went on to.
    #[inline]
    pub fn frame(&self) -> Frame<'_> {
        Frame {
            at: self.packet.at,
            link: self.packet.link,
            interface: self.packet.interface,
            len: self.packet.len,
            bytes: self
                .window
                .bytes()
                .get(self.range.clone())
                .unwrap_or_default(),
        }
    }

    /// Has `want` bytes in the window. False if the file ends right here; a file that ends before
    /// `want` bytes is cut. `whole` is how long the record is, as far as is known.
    #[inline]
    fn need(&mut self, want: usize, whole: u64) -> Result<bool, What> {
        match self.window.fill(want) {
            Ok(Filled::Whole) => Ok(true),
            Ok(Filled::End) => match self.window.bytes().len() as u64 {
                0 => Ok(false),
                have => Err(What::Cut {
                    at: self.window.at(),
                    want: whole,
                    have,
                    frames: self.frames,
                }),
            },
            Err(e) => Err(self.window.failed(e, self.frames)),
        }
    }

    #[inline]
    fn record(&mut self, p: Pcap) -> Result<bool, What> {
        if !self.need(p.record, p.record as u64)? {
            return Ok(false);
        }
        let at = self.window.at();
        let Some(head) = self.window.bytes().first_chunk() else {
            return Ok(false);
        };
        let r = p.record(head);
        let captured = r.captured as usize;
        if captured > MAX_FRAME {
            return Err(What::FrameLength {
                at,
                frame: self.frames + 1,
                len: r.captured,
            });
        }
        let len = p.record + captured;
        self.need(len, len as u64)?;
        self.record = len;
        self.range = p.record..len;
        self.packet = Packet {
            at: Some(r.at),
            link: p.link,
            interface: 0,
            len: r.len,
        };
        Ok(true)
    }

    /// Block after block, up to one that is a frame.
    fn blocks(&mut self) -> Result<bool, What> {
        loop {
            if !self.need(12, 12)? {
                return Ok(false);
            }
            let at = self.window.at();
            let (Format::PcapNg(section), Some(head)) =
                (&mut self.format, self.window.bytes().first_chunk())
            else {
                return Ok(false);
            };
            let head = section.head(head, at)?;
            if !head.is_read() {
                self.pass(head)?;
                continue;
            }
            let len = head.len as usize;
            self.need(len, len as u64)?;
            let bytes = self.window.bytes().get(..len).unwrap_or_default();
            let Format::PcapNg(section) = &mut self.format else {
                return Ok(false);
            };
            section.tail(head, bytes.last_chunk().copied().unwrap_or_default(), at)?;
            match section.block(head, bytes, at, self.frames)? {
                Block::Frame(range, packet) => {
                    (self.record, self.range, self.packet) = (len, range, packet);
                    return Ok(true);
                }
                Block::Other => self.window.advance(len),
            }
        }
    }

    /// Passes over a block, of any length, without holding it.
    fn pass(&mut self, head: Head) -> Result<(), What> {
        let at = self.window.at();
        let mut left = u64::from(head.len) - 4;
        while left > 0 {
            if let Err(e) = self.window.fill(1) {
                return Err(self.window.failed(e, self.frames));
            }
            let here = self.window.bytes().len() as u64;
            if here == 0 {
                break;
            }
            let n = here.min(left);
            self.window.advance(n as usize);
            left -= n;
        }
        let filled = self.window.fill(4);
        let whole = matches!(filled, Ok(Filled::Whole));
        if let Err(e) = filled {
            return Err(self.window.failed(e, self.frames));
        }
        let have = self.window.at() - at + self.window.bytes().len() as u64;
        let Some(tail) = self.window.bytes().first_chunk().filter(|_| whole).copied() else {
            return Err(What::Cut {
                at,
                want: head.len.into(),
                have,
                frames: self.frames,
            });
        };
        if let Format::PcapNg(section) = &self.format {
            section.tail(head, tail, at)?;
        }
        self.window.advance(4);
        Ok(())
    }
}

/// Reads a file's header, of a pcapng file nothing yet.
fn begin(window: &mut Window) -> Result<Format, What> {
    let filled = window.fill(pcap::HEADER);
    if let Err(e) = filled {
        return Err(window.failed(e, 0));
    }
    let bytes = window.bytes();
    let have = bytes.len() as u64;
    let Some(&magic) = bytes.first_chunk::<4>() else {
        return Err(match have {
            0 => What::Empty,
            _ => What::Head { have, want: 24 },
        });
    };
    if u32::from_le_bytes(magic) == SECTION {
        if bytes.len() < pcap::HEADER {
            return Err(What::Head { have, want: 28 });
        }
        let mut section = Section::default();
        // Says whether it begins as one does.
        if let Some(head) = bytes.first_chunk() {
            section.head(head, 0)?;
        }
        return Ok(Format::PcapNg(section));
    }
    if pcap::is_pcap(magic) {
        let Some(header) = bytes.first_chunk() else {
            return Err(What::Head { have, want: 24 });
        };
        let pcap = Pcap::new(header)?;
        window.advance(pcap::HEADER);
        return Ok(Format::Pcap(pcap));
    }
    let known = FOREIGN.iter().find(|f| bytes.starts_with(f.0));
    Err(match known {
        Some((_, kind, help)) => What::Foreign(kind, help),
        None => What::Magic(magic),
    })
}
