//! Several files are one: their frames come in the order of time.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on is to fail there"
)]

mod write;

use capture_file::{Found, Merge, Opener, Reader, Stamped, find};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use write::{LITTLE, gzip};

/// A capture whose frames are at these ms, each holding its own.
fn capture(ms: &[u32]) -> Vec<u8> {
    let mut file = LITTLE.pcap(0xa1b2_c3d4, 1);
    for at in ms {
        let frame = LITTLE.u32(*at);
        file.extend(LITTLE.record(1_700_000_000 + at / 1_000, at % 1_000 * 1_000, 4, &frame));
    }
    file
}

fn no_pipes() -> Opener {
    Arc::new(|_| {
        Err(capture_file::Error::new(
            "a pipe",
            capture_file::What::Empty,
        ))
    })
}

fn stamped(paths: &[PathBuf]) -> Vec<Stamped> {
    let files = paths.iter().flat_map(|p| find(p).unwrap().0);
    files.map(|f| Stamped::look(f, |_| true).unwrap()).collect()
}

/// The frames' own times, and the files they are of.
fn play(merge: &mut Merge) -> (Vec<u32>, Vec<usize>) {
    let (mut times, mut files) = (Vec::new(), Vec::new());
    while merge.advance() {
        let (_, file, frame) = merge.frame().unwrap();
        times.push(u32::from_le_bytes(frame.bytes.try_into().unwrap()));
        files.push(file);
    }
    (times, files)
}

#[test]
fn frames_of_several_files_come_in_the_order_of_time() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: Vec<u8>| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    // Two directions of one mirror, a ring whose oldest file has the highest name, one without
    // frames, one that overlaps and is compressed.
    let paths = [
        put("to", capture(&[0, 20, 40, 60])),
        put("from", capture(&[10, 30, 50, 70])),
        put("ring0", capture(&[500, 510])),
        put("ring1", capture(&[300, 310, 320])),
        put("none", capture(&[])),
        put("packed.gz", gzip(&capture(&[315, 505]))),
    ];
    let stamped = stamped(&paths);
    let mut merge = Merge::new(&stamped, no_pipes());
    let (times, files) = play(&mut merge);
    assert_eq!(
        times,
        [
            0, 10, 20, 30, 40, 50, 60, 70, 300, 310, 315, 320, 500, 505, 510
        ]
    );
    assert_eq!(files, [0, 1, 0, 1, 0, 1, 0, 1, 3, 3, 5, 3, 2, 5, 2]);
    assert!(merge.errors().is_empty());
    let all: u64 = paths.iter().map(|p| p.metadata().unwrap().len()).sum();
    assert_eq!(merge.bytes_read(), all);
    assert!(!merge.advance());
}

#[test]
fn a_damaged_file_ends_where_it_is_damaged_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut cut = capture(&[5, 15, 25]);
    cut.truncate(cut.len() - 3);
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    std::fs::write(&a, cut).unwrap();
    std::fs::write(&b, capture(&[10, 20, 30])).unwrap();
    let mut merge = Merge::new(&stamped(&[a, b]), no_pipes());
    assert_eq!(play(&mut merge).0, [5, 10, 15, 20, 30]);
    let errors: Vec<_> = merge.errors().iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("a is cut at byte "), "{errors:?}");
}

#[test]
fn a_pipe_is_merged_as_a_file_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    std::fs::write(&path, capture(&[10, 30])).unwrap();
    let (found, _) = find(Path::new("-")).unwrap();
    assert!(matches!(found[..], [Found::Pipe(_)]));
    let mut files = stamped(&[path]);
    files.push(Stamped::look(found[0].clone(), |_| true).unwrap());
    let pipes: Opener = Arc::new(|_| Ok(Box::new(Cursor::new(capture(&[20, 40])))));
    let mut merge = Merge::new(&files, pipes);
    assert_eq!(play(&mut merge).0, [10, 20, 30, 40]);
}

/// A file whose clock is an hour off for one frame does not hold up the others.
#[test]
fn a_frame_of_another_time_does_not_hold_up_the_other_files() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    std::fs::write(&a, capture(&[10, 3_600_020, 30, 50])).unwrap();
    std::fs::write(&b, capture(&[15, 25, 35])).unwrap();
    let mut merge = Merge::new(&stamped(&[a, b]), no_pipes());
    let mut last = 0;
    let mut all = Vec::new();
    while merge.advance() {
        let (time, _, frame) = merge.frame().unwrap();
        assert!(time >= last);
        last = time;
        all.push(u32::from_le_bytes(frame.bytes.try_into().unwrap()));
    }
    assert_eq!(all, [10, 3_600_020, 15, 25, 30, 35, 50]);
    assert_eq!(merge.disorder().restamped, 1);
}

#[test]
fn a_file_of_a_link_type_that_is_not_played_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    std::fs::write(&path, LITTLE.pcap(0xa1b2_c3d4, 195)).unwrap();
    let file = find(&path).unwrap().0.remove(0);
    let e = Stamped::look(file, |link| link == 1)
        .unwrap_err()
        .to_string();
    assert!(
        e.contains("has frames of link type 195 (IEEE 802.15.4)"),
        "{e}"
    );
}

/// Any file's reader can be handed to another thread.
#[test]
fn readers_can_be_sent() {
    const fn is_send<T: Send>() {}
    is_send::<Reader>();
    is_send::<Merge>();
}
