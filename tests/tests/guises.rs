//! What is read of a capture does not depend on the guise it comes in: plain, compressed, made into
//! pcapng by editcap, by way of a pipe, split over files. What follows the reader is a function of
//! the frames and their times, so that the replay of each guise is the same.
//!
//! The captures are those of `tests/cases`, and those in `REPLAY_CAPTURES`, by default
//! `../shared/captures` beside the workspace, if they are there.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on is to fail there"
)]

use capture_file::{Found, Merge, Stamped, find, open};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tests::lab::guise::Guise;
use tests::lab::pcap::{Frame, streams};

/// What is read of a capture.
struct Read {
    /// In ns, of each frame.
    times: Vec<u64>,
    frames: Vec<Frame>,
    /// It is damaged or cut.
    failed: bool,
}

fn read(name: &Path) -> Read {
    let (found, _) = find(name).unwrap();
    let look = |file: Found| Stamped::look(file, |_| true).unwrap();
    let files: Vec<Stamped> = found.into_iter().map(look).collect();
    let mut merge = Merge::new(&files, Arc::new(open));
    let mut all = Read {
        times: Vec::new(),
        frames: Vec::new(),
        failed: false,
    };
    while merge.advance() {
        let Some((at, _, frame)) = merge.frame() else {
            break;
        };
        all.times.push(at);
        all.frames.push(Frame {
            at_us: at / 1_000,
            link: frame.link,
            bytes: frame.bytes.to_vec(),
            len: frame.len as usize,
        });
    }
    all.failed = !merge.errors().is_empty();
    all
}

/// Both ends of each client's stream, and its bytes.
fn said(read: &Read) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = streams(&read.frames)
        .iter()
        .map(|s| (format!("{} {}", s.client, s.server), s.captured()))
        .collect();
    all.sort();
    all
}

fn captures() -> Vec<PathBuf> {
    let of_workspace = |path: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let shared = std::env::var_os("REPLAY_CAPTURES").map(PathBuf::from);
    let folders = [
        of_workspace("cases"),
        shared.unwrap_or_else(|| of_workspace("../../shared/captures")),
    ];
    let mut all: Vec<PathBuf> = folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains(".pcap"))
        .collect();
    all.sort();
    assert!(all.len() >= 16, "{all:?}");
    all
}

#[test]
fn every_capture_is_read_alike_in_every_guise() {
    let folder = tempfile::tempdir().unwrap();
    let mut compared = 0;
    for file in captures() {
        let plain = read(&file);
        let packed = file.extension().is_some_and(|e| e == "gz");
        let ordered = plain.frames.windows(2).all(|w| w[0].at_us < w[1].at_us);
        let known = tests::lab::pcap::read(&file).is_ok();
        for guise in Guise::all() {
            let as_it_is = matches!(guise, Guise::Gzip | Guise::Zstd | Guise::Fifo);
            let by_lab = matches!(guise, Guise::PcapNg | Guise::InTurn | Guise::InPieces);
            let twice = packed && matches!(guise, Guise::Gzip | Guise::Zstd);
            // Frames of several files are in the order of their times, if these tell one.
            let split = matches!(guise, Guise::InTurn | Guise::InPieces);
            // What rewrites a file cannot read one that is damaged. The lab's reader knows no more
            // formats than it writes.
            if (plain.failed && !as_it_is) || (by_lab && !known) || twice || (split && !ordered) {
                continue;
            }
            let case = format!("{} as {guise:?}", file.display());
            let made = guise.made_of(&file, folder.path());
            let made = made.unwrap_or_else(|e| panic!("{case}: {e:#}"));
            let other = read(&made);
            assert_eq!(other.failed, plain.failed, "{case}");
            assert_eq!(other.frames.len(), plain.frames.len(), "{case}");
            if as_it_is || guise == Guise::Editcap {
                assert!(other.times == plain.times, "{case}: other times");
                assert!(other.frames == plain.frames, "{case}: other frames");
            }
            assert!(said(&other) == said(&plain), "{case}: other streams");
            compared += 1;
        }
    }
    assert!(compared > 100, "{compared}");
}
