//! One capture in many guises: compressed, in another format, by way of a pipe, split over files.
//! The replay of each is to be the same.

use super::Lab;
use super::offline::Play;
use super::pcap::{Format, Frame, link, read, write};
use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use std::path::{Path, PathBuf};

/// How a capture is given to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guise {
    /// As it is.
    Plain,
    /// Compressed by gzip.
    Gzip,
    /// Compressed by zstd.
    Zstd,
    /// As a pcapng file.
    PcapNg,
    /// On standard input.
    Stdin,
    /// Split over three files of a folder that overlap, frame by frame.
    InTurn,
    /// Split over three files of a folder, one behind the other, whose names are in another order.
    InPieces,
}

impl Guise {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Plain,
        Self::Gzip,
        Self::Zstd,
        Self::PcapNg,
        Self::Stdin,
        Self::InTurn,
        Self::InPieces,
    ];

    /// Gives `play` the capture in this guise. What it takes is written into the lab's folder.
    ///
    /// # Errors
    /// The capture cannot be read, or it cannot be written.
    pub fn put_on(self, lab: &Lab, play: &mut Play) -> Result<()> {
        let file = play.file.clone();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let to = lab.file(&format!("{name}.{self:?}"));
        match self {
            Self::Plain => return Ok(()),
            Self::Stdin => {
                play.stdin = Some(file);
                play.file = PathBuf::from("-");
                return Ok(());
            }
            Self::Gzip => {
                let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
                packed.write_all(&bytes(&file)?)?;
                std::fs::write(&to, packed.finish()?)?;
            }
            Self::Zstd => std::fs::write(&to, zstd::encode_all(&bytes(&file)?[..], 1)?)?,
            Self::PcapNg => {
                let frames = read(&file)?;
                write(&to, Format::PcapNg, kind(&frames), &frames)?;
            }
            Self::InTurn | Self::InPieces => split(&file, &to, self)?,
        }
        play.file = to;
        Ok(())
    }
}

fn bytes(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("{}: cannot be read", file.display()))
}

fn kind(frames: &[Frame]) -> u16 {
    frames.first().map_or(link::ETHERNET, |f| f.link)
}

fn split(file: &Path, folder: &Path, guise: Guise) -> Result<()> {
    let frames = read(file)?;
    let len = frames.len().div_ceil(3).max(1);
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir(folder)?;
    for part in 0..3 {
        let is_of = |i: usize| match guise {
            Guise::InTurn => i % 3 == part,
            _ => i / len == part,
        };
        let mine = (0..).zip(&frames).filter(|(i, _)| is_of(*i));
        let mine: Vec<Frame> = mine.map(|(_, f)| f.clone()).collect();
        let path = folder.join(format!("{}.pcap", 2 - part));
        write(&path, Format::Pcap, kind(&frames), &mine)?;
    }
    Ok(())
}
