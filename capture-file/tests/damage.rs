//! Each kind of damage has its sentence, which says what is wrong, where, and what would be right;
//! what stands before it is read.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on is to fail there"
)]

mod write;

use capture_file::{Error, Reader, What, find, open};
use std::io;
use std::path::Path;
use write::{BIG, LITTLE, gzip, zstd};

/// Frames that are read of a file, and what is wrong with it.
fn read(path: &Path) -> (usize, String) {
    let name = path.file_name().unwrap().to_str().unwrap();
    let mut frames = 0;
    let all = || -> Result<(), Error> {
        let mut reader = Reader::new(name, open(path)?)?;
        while reader.advance()? {
            frames += 1;
        }
        Ok(())
    };
    let error = { all }().unwrap_err();
    (frames, error.to_string())
}

#[test]
fn each_kind_of_damage_has_its_sentence() {
    let head = LITTLE.pcap(0xa1b2_c3d4, 1);
    let record = LITTLE.record(1, 2, 60, &[5; 60]);
    let huge = [
        LITTLE.u32(1),
        LITTLE.u32(2),
        LITTLE.u32(0x7fff_ffff),
        LITTLE.u32(60),
    ]
    .concat();
    let section = LITTLE.section();
    let interface = LITTLE.interface(1, 0, &[]);
    let enhanced = LITTLE.enhanced(0, 7, 60, &[5; 60]);
    let start = [&section[..], &interface, &enhanced].concat();
    let changed = |block: &[u8], at: usize, with: [u8; 4]| {
        let mut block = block.to_vec();
        block[at..at + 4].copy_from_slice(&with);
        block
    };
    let join = |parts: &[&[u8]]| parts.concat();
    let good = join(&[&head, &record, &record]);
    let packed = gzip(&good.repeat(1));
    // Noise, which no compression makes shorter.
    let mut seed = 1u64;
    let mut noise = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as u8
    };
    let mut long = join(&[&head, &record]);
    for _ in 0..20 {
        let bytes: Vec<u8> = (0..40_000).map(|_| noise()).collect();
        long.extend(LITTLE.record(3, 0, 40_000, &bytes));
    }
    // The checksum at the end is another one.
    let mut broken = packed.clone();
    let end = broken.len();
    broken[end - 8] ^= 1;
    let dir = tempfile::tempdir().unwrap();
    for (name, file, frames, sentence) in [
        (
            "empty",
            vec![],
            0,
            "empty is empty: a capture file has a header of at least 24 bytes",
        ),
        (
            "short",
            head[..3].to_vec(),
            0,
            "short is cut in its header, which has 24 bytes: the file ends at byte 3",
        ),
        (
            "head",
            head[..10].to_vec(),
            0,
            "head is cut in its header, which has 24 bytes: the file ends at byte 10",
        ),
        (
            "ng-head",
            section[..20].to_vec(),
            0,
            "ng-head is cut in its header, which has 28 bytes: the file ends at byte 20",
        ),
        (
            "text",
            b"a text of some length".to_vec(),
            0,
            "text is no capture file, it begins with the bytes 61 20 74 65: give pcap or pcapng, plain or compressed by gzip or zstd",
        ),
        (
            "gz-text",
            gzip(b"a text of some length"),
            0,
            "gz-text is no capture file, it begins with the bytes 61 20 74 65: give pcap or pcapng, plain or compressed by gzip or zstd",
        ),
        (
            "xz",
            b"\xfd7zXZ\0more".to_vec(),
            0,
            "xz is compressed by xz, which is not read: unpack it, or compress it by gzip or zstd",
        ),
        (
            "snoop",
            b"snoop\0\0\0\0\0\0\x02".to_vec(),
            0,
            "snoop is a snoop capture, which is not read: convert it (editcap -F pcapng)",
        ),
        (
            "version",
            BIG.pcap_version(0xa1b2_c3d4, 1, 3, 1),
            0,
            "version is pcap of version 3.1, and 2.4 is what is read: convert it (editcap)",
        ),
        (
            "cut-head",
            join(&[&head, &record, &record[..7]]),
            1,
            "cut-head is cut at byte 107, 7 bytes into a record of at least 16 that begins at byte 100: 1 frame is whole before it",
        ),
        (
            "cut-record",
            join(&[&head, &record, &record, &record[..50]]),
            2,
            "cut-record is cut at byte 226, 50 bytes into a record of at least 76 that begins at byte 176: 2 frames are whole before it",
        ),
        (
            "cut-first",
            join(&[&head, &record[..50]]),
            0,
            "cut-first is cut at byte 74, 50 bytes into a record of at least 76 that begins at byte 24: no frame is whole before it",
        ),
        (
            "huge",
            join(&[&head, &record, &huge, &record]),
            1,
            "huge is damaged at byte 100: frame 2 has a length of 2147483647 bytes there, and 262144 is the most",
        ),
        (
            "ng-cut",
            join(&[&start, &enhanced[..40]]),
            1,
            "ng-cut is cut at byte 180, 40 bytes into a record of at least 92 that begins at byte 140: 1 frame is whole before it",
        ),
        (
            "ng-tiny",
            join(&[&start, &changed(&enhanced, 4, LITTLE.u32(8))]),
            1,
            "ng-tiny is damaged at byte 140: a block has a length of 8 bytes there, and must have a multiple of 4 that is at least 12",
        ),
        (
            "ng-odd",
            join(&[&start, &changed(&enhanced, 4, LITTLE.u32(93))]),
            1,
            "ng-odd is damaged at byte 140: a block has a length of 93 bytes there, and must have a multiple of 4 that is at least 12",
        ),
        (
            "ng-huge",
            join(&[&start, &changed(&enhanced, 4, LITTLE.u32(0x7fff_fffc))]),
            1,
            "ng-huge is damaged at byte 140: a block has a length of 2147483644 bytes there, and 4194304 is the most",
        ),
        (
            "ng-two",
            join(&[&start, &changed(&enhanced, 88, LITTLE.u32(96))]),
            1,
            "ng-two is damaged at byte 140: a block there has the length 92 at its beginning and 96 at its end, and must have the same",
        ),
        (
            "ng-unknown",
            join(&[
                &start,
                &changed(&LITTLE.block(0xbad, &[0; 20]), 28, LITTLE.u32(96)),
            ]),
            1,
            "ng-unknown is damaged at byte 140: a block there has the length 32 at its beginning and 96 at its end, and must have the same",
        ),
        (
            "ng-unknown-cut",
            join(&[&start, &LITTLE.block(0xbad, &[0; 20])[..30]]),
            1,
            "ng-unknown-cut is cut at byte 170, 30 bytes into a record of at least 32 that begins at byte 140: 1 frame is whole before it",
        ),
        (
            "ng-data",
            join(&[&start, &changed(&enhanced, 20, LITTLE.u32(61_000))]),
            1,
            "ng-data is damaged at byte 140: the block of a frame there is too short for what it says is in it",
        ),
        (
            "ng-obsolete",
            join(&[
                &start,
                &changed(
                    &LITTLE.obsolete(0, 7, 60, &[5; 60]),
                    20,
                    LITTLE.u32(u32::MAX),
                ),
            ]),
            1,
            "ng-obsolete is damaged at byte 140: the obsolete block of a frame there is too short for what it says is in it",
        ),
        (
            "ng-long",
            join(&[&start, &LITTLE.enhanced(0, 7, 60, &vec![5; 262_145])]),
            1,
            "ng-long is damaged at byte 140: frame 2 has a length of 262145 bytes there, and 262144 is the most",
        ),
        (
            "ng-interface",
            join(&[&start, &LITTLE.enhanced(3, 7, 60, &[5; 60])]),
            1,
            "ng-interface is damaged at byte 140: a frame is of interface 3 there, and its section has described 1",
        ),
        (
            "ng-none",
            join(&[&section, &LITTLE.simple(60, &[5; 60])]),
            0,
            "ng-none is damaged at byte 28: a frame is of interface 0 there, and its section has described 0",
        ),
        (
            "ng-order",
            changed(&start, 8, [1, 2, 3, 4]),
            0,
            "ng-order is damaged at byte 0: the head of a section without a byte order there is too short for what it says is in it",
        ),
        (
            "ng-many",
            join(&[&section, &interface.repeat(65_537)]),
            0,
            "ng-many has too many interfaces, at byte 1310748: 65536 in a section is the most",
        ),
        (
            "gz-cut",
            packed[..packed.len() - 9].to_vec(),
            2,
            "gz-cut is cut, its gzip data ends after 176 bytes of contents: 2 frames are whole there",
        ),
        (
            "zst-cut",
            {
                let z = zstd(&long);
                z[..z.len() / 2].to_vec()
            },
            0,
            "zst-cut is cut, its zstd data ends after",
        ),
        (
            "gz-damaged",
            broken,
            2,
            "gz-damaged is damaged, its gzip data cannot be unpacked beyond byte 176 of the contents (",
        ),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, file).unwrap();
        let (read, said) = read(&path);
        assert!(said.starts_with(sentence), "{name}: {said}");
        if frames > 0 || !name.starts_with("zst") {
            assert_eq!(read, frames, "{name}: {said}");
        } else {
            // A decoder gives blocks of up to 128 KiB.
            assert!((4..20).contains(&read), "{name}: {read}: {said}");
        }
    }
    let missing = read(&dir.path().join("missing")).1;
    assert!(missing.contains("missing does not exist: "), "{missing}");
    let folder = read(dir.path()).1;
    assert!(
        folder.contains(" is a folder, and a file is needed: "),
        "{folder}"
    );
    let denied = What::Open(io::ErrorKind::PermissionDenied.into());
    let denied = Error::new("x", denied).to_string();
    assert!(
        denied.starts_with("x may not be read by this user: "),
        "{denied}"
    );
}

#[test]
fn link_types_are_refused_by_name() {
    for (link, part) in [
        (
            195,
            "has frames of link type 195 (IEEE 802.15.4), which carries 6LoWPAN at best: ",
        ),
        (
            252,
            "link type 252 (Wireshark's upper layers), in which the headers of TCP are gone: ",
        ),
        (189, "link type 189 (Linux USB), which carries no TCP"),
        (
            119,
            "link type 119 (IEEE 802.11 with a Prism header), which is not read: capture on",
        ),
        (150, "link type 150 (for private use), whose meaning"),
        (999, "has frames of link type 999, which carries no TCP"),
    ] {
        let e = Error::new("x.pcap", What::LinkType(link)).to_string();
        assert!(e.starts_with("x.pcap has ") && e.contains(part), "{e}");
    }
}

#[test]
fn names_of_files_patterns_and_folders() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let good = LITTLE.pcap(0xa1b2_c3d4, 1);
    let none = find(dir.path()).unwrap_err().to_string();
    assert!(
        none.ends_with(": there is no capture file in this folder"),
        "{none}"
    );
    for name in [
        "b.pcap1",
        "a.pcap",
        "b.pcap0",
        ".hidden.pcap",
        "odd[1].pcap",
    ] {
        std::fs::write(at(name), &good).unwrap();
    }
    std::fs::write(at("c.pcap.gz"), gzip(&good)).unwrap();
    std::fs::write(at("notes.txt"), b"a text").unwrap();
    std::fs::create_dir(at("d.pcap")).unwrap();
    let names = |path: &Path| {
        let (found, left) = find(path).unwrap();
        let name = |p: &Path| p.file_name().unwrap().to_str().unwrap().to_owned();
        let found: Vec<_> = found.iter().map(|f| name(f.path())).collect();
        (found.join(" "), left.len())
    };
    let all = "a.pcap b.pcap0 b.pcap1 c.pcap.gz odd[1].pcap";
    assert_eq!(names(dir.path()), (all.to_owned(), 1));
    assert_eq!(names(&at("b.*")), ("b.pcap0 b.pcap1".to_owned(), 0));
    assert_eq!(
        names(&at("?.pcap*")),
        ("a.pcap b.pcap0 b.pcap1 c.pcap.gz".to_owned(), 0)
    );
    assert_eq!(names(&at("odd[1].pcap")), ("odd[1].pcap".to_owned(), 0));
    assert_eq!(
        names(&at("notes.txt")),
        ("notes.txt".to_owned(), 0),
        "is refused when it is read"
    );
    let none = find(&at("x*")).unwrap_err().to_string();
    assert!(
        none.ends_with("x*: there is no capture file that fits this pattern"),
        "{none}"
    );
    let missing = find(&at("x")).unwrap_err().to_string();
    assert!(missing.contains("x does not exist"), "{missing}");
    // Cut in its header: it was to be a capture.
    std::fs::write(at("cut.pcap"), &good[..9]).unwrap();
    let cut = find(dir.path()).unwrap_err().to_string();
    assert!(cut.contains("cut.pcap is cut in its header"), "{cut}");
}
