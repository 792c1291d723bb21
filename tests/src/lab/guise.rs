//! One capture in many guises: compressed, in another format, by way of a pipe, split over files.
//! The replay of each is to be the same.

use super::Lab;
use super::offline::Play;
use super::pcap::{Format, Frame, link, read, write};
use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

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
    /// As a pcapng file that Wireshark's editcap has made of it.
    Editcap,
    /// On standard input.
    Stdin,
    /// By way of a named pipe.
    Fifo,
    /// Split over three files of a folder that overlap, frame by frame.
    InTurn,
    /// Split over three files of a folder, one behind the other, whose names are in another order.
    InPieces,
}

impl Guise {
    /// All of them that can be had here: without editcap that is told, and it is left out.
    pub fn all() -> Vec<Self> {
        let mut all = vec![
            Self::Plain,
            Self::Gzip,
            Self::Zstd,
            Self::PcapNg,
            Self::Stdin,
            Self::Fifo,
            Self::InTurn,
            Self::InPieces,
        ];
        match Command::new("editcap").arg("--version").output() {
            Ok(_) => all.push(Self::Editcap),
            Err(e) => eprintln!(
                "SKIPPED captures as editcap makes them: editcap (package wireshark-common): {e}; nothing was proved of these"
            ),
        }
        all
    }

    /// Gives `play` the capture in this guise. What it takes is written into the lab's folder.
    ///
    /// # Errors
    /// The capture cannot be read, or it cannot be written.
    pub fn put_on(self, lab: &Lab, play: &mut Play) -> Result<()> {
        let file = play.file.clone();
        if self == Self::Stdin {
            play.stdin = Some(file);
            play.file = PathBuf::from("-");
            return Ok(());
        }
        play.file = self.made_of(&file, &lab.file(""))?;
        Ok(())
    }

    /// The name of what `file` is in this guise, which is written into `folder`. That of standard
    /// input is the file itself.
    ///
    /// # Errors
    /// The capture cannot be read, or it cannot be written.
    pub fn made_of(self, file: &Path, folder: &Path) -> Result<PathBuf> {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let to = folder.join(format!("{name}.{self:?}"));
        match self {
            Self::Plain | Self::Stdin => return Ok(file.to_owned()),
            Self::Gzip => {
                let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
                packed.write_all(&bytes(file)?)?;
                std::fs::write(&to, packed.finish()?)?;
            }
            Self::Zstd => std::fs::write(&to, zstd::encode_all(&bytes(file)?[..], 1)?)?,
            Self::PcapNg => {
                let frames = read(file)?;
                write(&to, Format::PcapNg, kind(&frames), &frames)?;
            }
            Self::Editcap => editcap(file, &to)?,
            Self::Fifo => fifo(bytes(file)?, &to)?,
            Self::InTurn | Self::InPieces => split(file, &to, self)?,
        }
        Ok(to)
    }
}

fn editcap(file: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("editcap");
    let out = command.args(["-F", "pcapng"]).arg(file).arg(to).output()?;
    if !out.status.success() {
        let says = String::from_utf8_lossy(&out.stderr);
        bail!("editcap: {}: {}", file.display(), says.trim());
    }
    Ok(())
}

/// A named pipe that gives `bytes` to who opens it.
fn fifo(bytes: Vec<u8>, to: &Path) -> Result<()> {
    let _ = std::fs::remove_file(to);
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, to, FileType::Fifo, mode, 0)?;
    let to = to.to_owned();
    // Opening it waits for the reader; one that leaves before the end breaks the pipe.
    std::thread::spawn(move || {
        let pipe = std::fs::OpenOptions::new().write(true).open(to);
        pipe.and_then(|mut pipe| {
            bytes
                .chunks(1_000)
                .try_for_each(|part| pipe.write_all(part))
        })
    });
    Ok(())
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
