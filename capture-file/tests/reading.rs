//! Every format is read: what comes out is what was written.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on is to fail there"
)]

mod write;

use capture_file::{Error, Frame, Nanos, Reader};
use proptest::prelude::*;
use std::io::{Cursor, Read};
use write::{BIG, LITTLE, Order, gzip, zstd};

const S: Nanos = 1_000_000_000;

/// A frame that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    at: Option<Nanos>,
    link: u16,
    interface: u32,
    len: u32,
    bytes: Vec<u8>,
}

fn keep(f: Frame<'_>) -> Kept {
    Kept {
        at: f.at,
        link: f.link,
        interface: f.interface,
        len: f.len,
        bytes: f.bytes.to_vec(),
    }
}

fn kept(at: Option<Nanos>, link: u16, interface: u32, len: u32, bytes: &[u8]) -> Kept {
    Kept {
        at,
        link,
        interface,
        len,
        bytes: bytes.to_vec(),
    }
}

fn read_from(input: impl Read + Send + 'static) -> (Vec<Kept>, Option<Error>) {
    let mut all = Vec::new();
    let mut r = match Reader::new("a.pcap", Box::new(input)) {
        Ok(r) => r,
        Err(e) => return (all, Some(e)),
    };
    loop {
        match r.advance() {
            Ok(true) => all.push(keep(r.frame())),
            Ok(false) => return (all, None),
            Err(e) => {
                assert!(!r.advance().unwrap(), "nothing comes behind an error");
                return (all, Some(e));
            }
        }
    }
}

fn read(file: &[u8]) -> Vec<Kept> {
    let (all, error) = read_from(Cursor::new(file.to_vec()));
    assert!(error.is_none(), "{}", error.unwrap());
    all
}

#[test]
fn pcap_in_every_variant() {
    let (a, b) = ([1; 60], [2; 1_500]);
    for order in [LITTLE, BIG] {
        for (magic, part, at) in [
            (0xa1b2_c3d4, 250_000, S / 4),
            (0xa1b2_3c4d, 250_000_001, S / 4 + 1),
        ] {
            // The upper half of the link type is no part of it.
            let file = [
                order.pcap(magic, 0x1400_0071),
                order.record(7, part, 60, &a),
                order.record(8, 0, 9_000, &b),
                order.record(9, 0, 0, &[]),
            ];
            let expected = [
                kept(Some(7 * S + at), 113, 0, 60, &a),
                kept(Some(8 * S), 113, 0, 9_000, &b),
                kept(Some(9 * S), 113, 0, 0, &[]),
            ];
            assert_eq!(read(&file.concat()), expected, "{order:?} {magic:x}");
        }
        let more = |mut r: Vec<u8>| {
            r.splice(16..16, [9; 8]);
            r
        };
        let file = [
            order.pcap(0xa1b2_cd34, 1),
            more(order.record(7, 5, 80, &a)),
            more(order.record(8, 0, 1_500, &b)),
        ];
        let expected = [
            kept(Some(7 * S + 5_000), 1, 0, 80, &a),
            kept(Some(8 * S), 1, 0, 1_500, &b),
        ];
        assert_eq!(read(&file.concat()), expected, "modified, {order:?}");
        // Lengths in the other order, before version 2.3 and by chance in it.
        for minor in [2, 3] {
            let mut record = order.record(7, 5, 80, &a);
            let (x, y) = record[8..16].split_at_mut(4);
            x.swap_with_slice(y);
            let file = [order.pcap_version(0xa1b2_c3d4, 1, 2, minor), record];
            let expected = [kept(Some(7 * S + 5_000), 1, 0, 80, &a)];
            assert_eq!(read(&file.concat()), expected, "2.{minor}");
        }
    }
}

/// Two sections in different byte orders, interfaces that differ in all they can, each kind of
/// block, and blocks of which nothing is known.
fn sections() -> (Vec<u8>, Vec<Kept>) {
    let big = vec![9; 100_000];
    let (a, b, c) = ([1u8; 61], [2u8; 62], [3u8; 63]);
    let offset = |o: Order, s: i64| o.option(14, &o.u64(s as u64));
    let mut file = Vec::new();
    for o in [BIG, LITTLE] {
        file.extend(o.section());
        file.extend(o.block(0x0bad, &big));
        file.extend(o.interface(1, 50, &[]));
        file.extend(o.interface(276, 0, &[o.option(9, &[9]), offset(o, 1_000)]));
        file.extend(o.interface(101, 0, &[o.option(2, b"eth0"), o.option(9, &[0x80 | 10])]));
        file.extend(o.enhanced(0, 3_000_001, 61, &a));
        file.extend(o.enhanced(1, 3_000_001, 9_000, &b));
        file.extend(o.enhanced(2, 1_536, 63, &c));
        file.extend(o.simple(61, &a[..50]));
        file.extend(o.simple(7, &a[..7]));
        file.extend(o.obsolete(1, 5, 62, &b));
        // Statistics of an interface.
        file.extend(o.block(5, &[0; 12]));
        // With options behind the frame.
        let mut block = o.enhanced(0, 7, 5, b"final");
        block.truncate(block.len() - 4);
        block.extend(o.option(1, b"a comment"));
        block.extend([0; 4]);
        let len = o.u32(block.len() as u32 + 4);
        block[4..8].copy_from_slice(&len);
        block.extend(len);
        file.extend(block);
    }
    let one = [
        kept(Some(3 * S + 1_000), 1, 0, 61, &a),
        kept(Some(1_000 * S + 3_000_001), 276, 1, 9_000, &b),
        kept(Some(S + S / 2), 101, 2, 63, &c),
        kept(None, 1, 0, 61, &a[..50]),
        kept(None, 1, 0, 7, &a[..7]),
        kept(Some(1_000 * S + 5), 276, 1, 62, &b),
        kept(Some(7_000), 1, 0, 5, b"final"),
    ];
    (file, [one.clone(), one].concat())
}

#[test]
fn pcapng_with_all_that_may_be_in_it() {
    let (file, expected) = sections();
    assert_eq!(read(&file), expected);
}

/// Gives bytes one by one.
struct Slow(Cursor<Vec<u8>>);

impl Read for Slow {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = into.len().min(1);
        self.0.read(&mut into[..n])
    }
}

#[test]
fn compressed_files_and_slow_pipes_give_the_same() {
    let (file, expected) = sections();
    for packed in [
        gzip(&file),
        zstd(&file),
        // Members one behind the other, as `cat a.gz b.gz` makes them.
        [gzip(&file[..1_000]), gzip(&file[1_000..])].concat(),
        [zstd(&file[..1_000]), zstd(&file[1_000..])].concat(),
    ] {
        assert_eq!(read(&packed), expected);
    }
    for bytes in [file.clone(), gzip(&file), zstd(&file)] {
        assert_eq!(read_from(Slow(Cursor::new(bytes))).0, expected);
    }
}

#[test]
fn frames_as_long_as_there_are() {
    let long: Vec<u8> = (0..capture_file::MAX_FRAME).map(|i| i as u8).collect();
    let records = [
        LITTLE.record(1, 0, 262_144, &long),
        LITTLE.record(2, 0, 3, b"end"),
    ];
    let file = [LITTLE.pcap(0xa1b2_c3d4, 1), records.concat()].concat();
    let all = read(&file);
    assert_eq!(all.len(), 2);
    assert!(all[0].bytes == long && all[1].bytes == b"end");
}

proptest! {
    /// Whatever is in a file, what is read before an error stays, and nothing panics.
    #[test]
    fn damage_anywhere_leaves_what_is_before_it(
        at in 0usize..400_000, value: u8, cut in 0usize..400_000, packed in 0..3,
    ) {
        let (mut file, expected) = sections();
        let place = at % file.len();
        file[place] = value;
        file.truncate(file.len() - cut % file.len() / 2);
        let whole = file.clone();
        let file = match packed { 0 => file, 1 => gzip(&file), _ => zstd(&file) };
        let (all, _) = read_from(Cursor::new(file));
        // Frames that lie before the damaged byte are untouched.
        let before = read_from(Cursor::new(whole[..place.min(whole.len())].to_vec())).0;
        prop_assert!(all.len() >= before.len());
        prop_assert_eq!(&all[..before.len()], &before[..]);
        prop_assert_eq!(&before[..], &expected[..before.len()]);
    }

    #[test]
    fn any_bytes_are_read_without_harm(mut bytes: Vec<u8>, magic in 0..5) {
        let magic: &[u8] = match magic {
            0 => &[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0],
            1 => &[0x0a, 0x0d, 0x0d, 0x0a],
            2 => &[0x1f, 0x8b, 8],
            3 => &[0x28, 0xb5, 0x2f, 0xfd],
            _ => &[],
        };
        bytes.splice(0..0, magic.iter().copied());
        read_from(Cursor::new(bytes));
    }
}
