use super::*;
use proptest::prelude::*;

fn emitted(o: &Options, syn: bool) -> Vec<u8> {
    let mut b = [0xee; MAX_OPTIONS_LEN];
    let n = emit_options(o, syn, &mut b);
    b[..n].to_vec()
}

#[test]
fn a_syn_looks_like_linux() {
    let o = Options {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some((0x01020304, 0)),
        ..Options::default()
    };
    let want = [
        2, 4, 0x05, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7,
    ];
    assert_eq!(emitted(&o, true), want);
    assert_eq!(parse_options(&want, true), o);
    let plain = Options {
        timestamps: o.timestamps,
        ..Options::default()
    };
    assert_eq!(
        parse_options(&want, false),
        plain,
        "options of a SYN count only on a SYN"
    );
    assert_eq!(emitted(&o, false), [1, 1, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0]);
}

#[test]
fn three_sack_blocks_fit_beside_timestamps_and_four_without() {
    let mut o = Options::default();
    for i in 0..5 {
        o.push_sack(Seq(i * 100), Seq(i * 100 + 50));
    }
    assert_eq!(o.sack_blocks().len(), 4);
    assert_eq!(emitted(&o, false).len(), 36);
    assert_eq!(parse_options(&emitted(&o, false), false), o);
    o.timestamps = Some((1, 2));
    assert_eq!(emitted(&o, false).len(), 40);
    assert_eq!(
        parse_options(&emitted(&o, false), false).sack_blocks(),
        &o.sack_blocks()[..3]
    );
}

#[test]
fn malformed_options_end_the_list_and_odd_lengths_are_passed_over() {
    let mss = Options {
        mss: Some(536),
        ..Options::default()
    };
    assert_eq!(
        parse_options(&[2, 4, 2, 0x18, 3, 0, 1, 1], true),
        mss,
        "length zero"
    );
    assert_eq!(
        parse_options(&[2, 4, 2, 0x18, 3, 1, 1, 1], true),
        mss,
        "length one"
    );
    assert_eq!(
        parse_options(&[2, 4, 2, 0x18, 8, 10, 1, 1], true),
        mss,
        "past the end"
    );
    assert_eq!(parse_options(&[2, 4, 2, 0x18, 8], true), mss, "no length");
    assert_eq!(
        parse_options(&[2, 3, 9, 2, 4, 2, 0x18, 0], true),
        mss,
        "an MSS of three bytes"
    );
    assert_eq!(
        parse_options(&[5, 5, 9, 9, 9, 2, 4, 2, 0x18], true),
        mss,
        "half a SACK block"
    );
    assert_eq!(
        parse_options(&[253, 6, 1, 2, 3, 4, 2, 4, 2, 0x18], true),
        mss,
        "an unknown kind"
    );
    assert_eq!(
        parse_options(&[0, 2, 4, 2, 0x18], true),
        Options::default(),
        "behind the end of the list"
    );
    assert_eq!(
        parse_options(&[3, 3, 200], true).window_scale,
        Some(14),
        "RFC 7323 section 2.3"
    );
}

#[test]
fn the_data_offset_is_checked() {
    let mut b = [0u8; 24];
    b[12] = 0x40;
    assert_eq!(
        Segment::new_checked(&b).map(|s| s.header_len()),
        Err(Skip::BadHeaderLength)
    );
    b[12] = 0x60;
    assert_eq!(Segment::new_checked(&b).map(|s| s.header_len()), Ok(24));
    b[12] = 0x70;
    assert_eq!(
        Segment::new_checked(&b).map(|s| s.header_len()),
        Err(Skip::TooShort)
    );
    assert_eq!(
        Segment::new_checked(&b[..19]).map(|s| s.header_len()),
        Err(Skip::TooShort)
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(b in proptest::collection::vec(any::<u8>(), 0..60), syn in any::<bool>()) {
        let o = parse_options(&b, syn);
        prop_assert!(o.sack_count <= 4 && o.window_scale.is_none_or(|s| s <= 14));
        prop_assert_eq!(emitted(&o, syn).len() % 4, 0);
    }
}
