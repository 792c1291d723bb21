//! What is wrong with a file, in a sentence.

use std::fmt;
use std::io;

/// What is wrong, and with which file.
#[derive(Debug)]
pub struct Error {
    /// The file's name.
    pub file: String,
    /// What is wrong with it.
    pub what: What,
}

impl Error {
    /// This is wrong with `file`.
    pub fn new(file: &str, what: What) -> Self {
        Self {
            file: file.to_owned(),
            what,
        }
    }
}

impl std::error::Error for Error {}

/// What can be wrong with a file. Places are counted in bytes from the file's beginning; in a
/// compressed file, from the beginning of its contents.
#[derive(Debug)]
pub enum What {
    /// It cannot be opened.
    Open(io::Error),
    /// It cannot be read on from this place.
    Read(u64, io::Error),
    /// It is a folder.
    Folder,
    /// There is nothing in it.
    Empty,
    /// No file of this kind is there: what was looked for.
    None(&'static str),
    /// It begins with none of the numbers that captures begin with, but with these bytes.
    Magic([u8; 4]),
    /// It is of a kind that is known and not read, and this is to be done.
    Foreign(&'static str, &'static str),
    /// It ends in its header.
    Head {
        /// Bytes there are.
        have: u64,
        /// Bytes there should be.
        want: u64,
    },
    /// A format of a version that is not known.
    Version {
        /// The format's name.
        format: &'static str,
        /// Its version, major and minor.
        found: (u16, u16),
        /// The version that is read.
        read: &'static str,
    },
    /// It ends inside of a record.
    Cut {
        /// Where the record begins.
        at: u64,
        /// Its length, as far as it is known.
        want: u64,
        /// How much of it there is.
        have: u64,
        /// Frames before it.
        frames: u64,
    },
    /// Its compressed data ends early.
    CutInside {
        /// How it is compressed.
        how: &'static str,
        /// Bytes of contents that could be had.
        at: u64,
        /// Frames in these.
        frames: u64,
    },
    /// Its compressed data is damaged.
    Compressed {
        /// How it is compressed.
        how: &'static str,
        /// Bytes of contents that could be had.
        at: u64,
        /// What the decoder says.
        why: io::Error,
    },
    /// A frame has more bytes than there can be.
    FrameLength {
        /// Where its record begins.
        at: u64,
        /// Its number, from 1.
        frame: u64,
        /// The length it claims.
        len: u32,
    },
    /// A pcapng block has a length that no block has.
    BlockLength {
        /// Where it begins.
        at: u64,
        /// The length it claims.
        len: u32,
        /// The longest that is read of its kind.
        most: Option<u32>,
    },
    /// A pcapng block states two lengths.
    TwoLengths {
        /// Where it begins.
        at: u64,
        /// The first.
        first: u32,
        /// The second.
        second: u32,
    },
    /// A pcapng block is too short for what it says is in it.
    Block {
        /// Where it begins.
        at: u64,
        /// What it is.
        kind: &'static str,
    },
    /// A frame is of an interface that its section does not describe.
    Interface {
        /// Where its block begins.
        at: u64,
        /// The interface.
        interface: u32,
        /// How many there are.
        known: usize,
    },
    /// More interfaces than are kept.
    Interfaces {
        /// Where the block of the first beyond begins.
        at: u64,
        /// Most in a section.
        most: usize,
    },
    /// All of its frames have a link type that is not replayed.
    LinkType(u16),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = &self.file;
        match &self.what {
            What::Open(e) if e.kind() == io::ErrorKind::NotFound => write!(
                f,
                "{file} does not exist: give the name of a capture file, a pattern or a folder"
            ),
            What::Open(e) if e.kind() == io::ErrorKind::PermissionDenied => write!(
                f,
                "{file} may not be read by this user: let it (chmod), or start as the file's owner"
            ),
            What::Open(e) => write!(f, "{file} cannot be opened: {e}"),
            What::Read(at, e) => write!(f, "{file} cannot be read on at byte {at}: {e}"),
            What::Folder => write!(
                f,
                "{file} is a folder, and a file is needed: give a capture file in it"
            ),
            What::Empty => write!(
                f,
                "{file} is empty: a capture file has a header of at least 24 bytes"
            ),
            What::None(what) => write!(f, "{file}: there is no {what}"),
            What::Magic([a, b, c, d]) => write!(
                f,
                "{file} is no capture file, it begins with the bytes {a:02x} {b:02x} {c:02x} {d:02x}: give pcap or pcapng, plain or compressed by gzip or zstd"
            ),
            What::Foreign(kind, help) => write!(f, "{file} is {kind}, which is not read: {help}"),
            What::Head { have, want } => write!(
                f,
                "{file} is cut in its header, which has {want} bytes: the file ends at byte {have}"
            ),
            What::Version {
                format,
                found: (major, minor),
                read,
            } => write!(
                f,
                "{file} is {format} of version {major}.{minor}, and {read} is what is read: convert it (editcap)"
            ),
            What::Cut {
                at,
                want,
                have,
                frames,
            } => write!(
                f,
                "{file} is cut at byte {}, {have} bytes into a record of at least {want} that begins at byte {at}: {} before it",
                at + have,
                whole(*frames),
            ),
            What::CutInside { how, at, frames } => write!(
                f,
                "{file} is cut, its {how} data ends after {at} bytes of contents: {} there",
                whole(*frames),
            ),
            What::Compressed { how, at, why } => write!(
                f,
                "{file} is damaged, its {how} data cannot be unpacked beyond byte {at} of the contents ({why}): copy it again from where it was made"
            ),
            What::FrameLength { at, frame, len } => write!(
                f,
                "{file} is damaged at byte {at}: frame {frame} has a length of {len} bytes there, and {} is the most",
                crate::MAX_FRAME
            ),
            What::BlockLength {
                at,
                len,
                most: Some(most),
            } => write!(
                f,
                "{file} is damaged at byte {at}: a block has a length of {len} bytes there, and {most} is the most"
            ),
            What::BlockLength {
                at,
                len,
                most: None,
            } => write!(
                f,
                "{file} is damaged at byte {at}: a block has a length of {len} bytes there, and must have a multiple of 4 that is at least 12"
            ),
            What::TwoLengths { at, first, second } => write!(
                f,
                "{file} is damaged at byte {at}: a block there has the length {first} at its beginning and {second} at its end, and must have the same"
            ),
            What::Block { at, kind } => write!(
                f,
                "{file} is damaged at byte {at}: {kind} there is too short for what it says is in it"
            ),
            What::Interface {
                at,
                interface,
                known,
            } => write!(
                f,
                "{file} is damaged at byte {at}: a frame is of interface {interface} there, and its section has described {known}"
            ),
            What::Interfaces { at, most } => write!(
                f,
                "{file} has too many interfaces, at byte {at}: {most} in a section is the most"
            ),
            What::LinkType(link) => write!(f, "{file} {}", crate::link::refusal(*link)),
        }
    }
}

fn whole(frames: u64) -> String {
    match frames {
        0 => "no frame is whole".to_owned(),
        1 => "1 frame is whole".to_owned(),
        n => format!("{n} frames are whole"),
    }
}
