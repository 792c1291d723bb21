//! Which checksums pass, and what a driver's word is worth.

use super::*;
use crate::checksum::{Sum, checksum};

/// As a port of our own would verify it.
fn strict(bytes: &[u8], frame_len: usize) -> Result<Packet, Skip> {
    verified_on(LinkType::Ethernet, bytes, frame_len)
}

/// The checksum of a frame without tags and IP options is one that a sender leaves to its hardware,
/// or that of a segment as short as a damaged length says. One in 65,536 is so by chance.
fn sums_up_by_chance(frame: &[u8]) -> bool {
    let v6 = frame[12] == 0x86;
    let (addresses, tcp) = if v6 { (22..54, 54) } else { (26..34, 34) };
    let whole = frame.len() - tcp;
    let stated = if v6 {
        whole.min(usize::from(u16::from_be_bytes([frame[18], frame[19]])))
    } else {
        whole
    };
    let pseudo = |len: usize| {
        let len = (len as u16).to_be_bytes();
        [&frame[addresses.clone()], &6u16.to_be_bytes(), &len].concat()
    };
    let segment = &frame[tcp..tcp + stated];
    let found = u16::from_be_bytes([frame[tcp + 16], frame[tcp + 17]]);
    let unfinished = [0, !checksum(&pseudo(stated)), !checksum(&pseudo(0))].contains(&found);
    let pseudo = pseudo(stated);
    unfinished || (stated < whole && checksum(&[&pseudo, segment].concat()) == 0)
}

proptest! {
    #[test]
    fn a_damaged_segment_is_refused(
        (head, payload) in samples::segment(),
        at in any::<proptest::sample::Index>(),
        flip in 1u8..=255,
    ) {
        let sound = samples::frame(&head, &payload);
        prop_assert!(matches!(local(&sound, sound.len()), Local::Tcp(_)));
        for read in [mirrored, strict] {
            prop_assert!(read(&sound, sound.len()).is_ok());
        }
        let mut damaged = sound.clone();
        let v6 = sound[12] == 0x86;
        // Not covered: what stands before IPv6's addresses, but for the length. An IPv4 checksum of
        // zero would mean that there is none.
        let places: Vec<usize> = (14..sound.len())
            .filter(|at| if v6 { (18..20).contains(at) || *at >= 22 } else { !(24..26).contains(at) })
            .collect();
        let at = places[at.index(places.len())];
        damaged[at] ^= flip;
        prop_assume!(!sums_up_by_chance(&sound) && !sums_up_by_chance(&damaged));
        // An IPv6 length of zero says that it is left to the hardware: the frame's own is taken.
        prop_assume!(!v6 || damaged[18..20] != [0, 0]);
        prop_assert!(!matches!(local(&damaged, damaged.len()), Local::Tcp(_)), "byte {} of {}", at, sound.len());
        // A mirror takes a frame that is shorter than it says for one that was cut.
        for read in [mirrored, strict] {
            let got = read(&damaged, damaged.len());
            prop_assert!(got.is_err() || got.is_ok_and(|p| p.is_truncated()));
        }
    }
}

/// `frame` with what `change` makes of its TCP checksum and of the pseudo-header's sum with and
/// without the length.
fn with_checksum(head: &Head, frame: &[u8], change: impl Fn(u16, u16, u16) -> u16) -> Vec<u8> {
    let tcp = if head.flow.src.addr.is_v4() { 34 } else { 54 };
    let sum = |len: usize| {
        let pseudo =
            Sum::new().pseudo_header(&head.flow.src.addr, &head.flow.dst.addr, 6, len as u32);
        !pseudo.finish()
    };
    let mut frame = frame.to_vec();
    let right = u16::from_be_bytes([frame[tcp + 16], frame[tcp + 17]]);
    let changed = change(right, sum(frame.len() - tcp), sum(0));
    frame[tcp + 16..tcp + 18].copy_from_slice(&changed.to_be_bytes());
    frame
}

#[test]
fn a_checksum_that_hardware_was_to_finish_is_none() {
    type Change = fn(u16, u16, u16) -> u16;
    // What passes on a port of our own, and on a mirror.
    let cases: [(Change, bool, bool); 6] = [
        (|right, _, _| right, true, true),
        (|_, with_len, _| with_len, true, true),
        (|_, _, without| without, false, true),
        (|_, _, _| 0, false, true),
        (|right, _, _| right ^ 1, false, false),
        (|_, with_len, _| with_len ^ 1, false, false),
    ];
    let long = [7; 3000];
    for (head, frame) in [
        samples::plain(b"abc"),
        samples::plain6(b"abc"),
        samples::plain(&long),
        samples::plain6(&long),
    ] {
        for (i, (change, ours, mirrors)) in cases.into_iter().enumerate() {
            let f = with_checksum(&head, &frame, change);
            let bad = Local::Skip(Skip::BadChecksum);
            assert_eq!(local(&f, f.len()) != bad, ours, "case {i}");
            assert_eq!(strict(&f, f.len()).is_ok(), ours, "case {i}");
            let got = mirrored(&f, f.len()).map(|p| p.head);
            let want = if mirrors {
                Ok(head)
            } else {
                Err(Skip::BadChecksum)
            };
            assert_eq!(got, want, "case {i}");
        }
    }
}

#[test]
fn a_header_checksum_is_right_or_left_out() {
    let (head, f) = samples::plain(b"abc");
    let with = |sum: [u8; 2]| {
        let mut f = f.clone();
        f[24..26].copy_from_slice(&sum);
        mirrored(&f, f.len()).map(|p| p.head)
    };
    assert_eq!(with([f[24], f[25]]), Ok(head));
    assert_eq!(with([0, 0]), Ok(head));
    assert_eq!(with([f[24], f[25] ^ 1]), Err(Skip::BadChecksum));
}

#[test]
fn what_is_not_verified_is_read() {
    let (head, f) = samples::plain(b"abc");
    let f = with_checksum(&head, &f, |right, _, _| right ^ 1);
    assert_eq!(mirrored(&f, f.len()), Err(Skip::BadChecksum));
    assert_eq!(unverified(&f, f.len()).unwrap().head, head);
}

/// Where packets are sent by way of others, the pseudo-header has the last address (RFC 8200
/// section 8.1, RFC 791 section 3.1), which is not looked for.
#[test]
fn a_segment_on_a_source_route_is_not_verified() {
    let (head, f) = samples::plain6(b"abc");
    let with = |next: u8, header: &[u8; 8]| {
        let mut f = [&f[..54], header, &f[54..]].concat();
        f[20] = next;
        f[19] += 8;
        f[70] ^= 1;
        mirrored(&f, f.len()).is_ok()
    };
    assert!(!with(0, &[6, 0, 1, 4, 0, 0, 0, 0]), "hop-by-hop options");
    assert!(with(43, &[6, 0, 4, 1, 0, 0, 0, 0]), "a route");
    assert!(
        !with(43, &[6, 0, 4, 0, 0, 0, 0, 0]),
        "a route that is used up"
    );
    assert!(with(60, &[6, 0, 1, 4, 0, 0, 0, 0]), "destination options");

    let (_, f) = samples::plain(b"abc");
    for (pointer, read) in [(4, true), (8, false)] {
        let route = [131, 7, pointer, 10, 0, 0, 9, 0];
        let mut f = [&f[..34], &route, &f[34..]].concat();
        f[14] = 0x47;
        f[17] += 8;
        f[24..26].fill(0);
        f[60] ^= 1;
        assert_eq!(mirrored(&f, f.len()).is_ok(), read);
    }
    assert_eq!(
        mirrored(&f, f.len()).unwrap().head.flow.dst.addr,
        Addr::v4([10, 0, 0, 2])
    );
    assert_eq!(head.payload_len, 3);
}

#[test]
fn an_ipv4_header_with_an_impossible_option_is_malformed() {
    let (head, f) = samples::plain(b"abc");
    for (options, want) in [
        ([1, 1, 1, 0], Ok(head)),
        ([0x94, 4, 0, 0], Ok(head)),
        ([7, 0, 0, 0], Err(Skip::BadHeaderLength)),
        ([1, 7, 1, 0], Err(Skip::BadHeaderLength)),
        ([1, 1, 7, 3], Err(Skip::BadHeaderLength)),
    ] {
        let mut f = [&f[..34], &options, &f[34..]].concat();
        f[14] = 0x46;
        f[17] += 4;
        f[24..26].fill(0);
        assert_eq!(mirrored(&f, f.len()).map(|p| p.head), want, "{options:?}");
        let ours = match local(&f, f.len()) {
            Local::Tcp(p) => Ok(p.head),
            Local::Skip(s) => Err(s),
            Local::Control => panic!("TCP"),
        };
        assert_eq!(ours, want, "{options:?}");
    }
}

/// A frame in one buffer or more, and what its driver knows of it.
struct TestFrame {
    segments: Vec<Vec<u8>>,
    known: Checksum,
    shows: bool,
}

struct NoPayload;

impl crate::io::Payload for NoPayload {
    type Store = ();

    fn footprint(&self) -> usize {
        0
    }
    fn holds_frame(&self) -> bool {
        false
    }
    fn compact(self, (): &()) -> Self {
        self
    }
    fn bytes(&self) -> &[u8] {
        &[]
    }
    fn share(&self) -> Self {
        Self
    }
    fn trim_front(&mut self, _: usize) {}
    fn truncate(&mut self, _: usize) {}
}

impl Frame for TestFrame {
    type Payload = NoPayload;

    fn bytes(&self) -> &[u8] {
        &self.segments[0]
    }
    fn frame_len(&self) -> usize {
        self.segments.iter().map(Vec::len).sum()
    }
    fn split_rest(&mut self) -> Option<Self> {
        None
    }
    fn captured_at(&self) -> Option<crate::Nanos> {
        None
    }
    fn checksum(&self) -> Checksum {
        self.known
    }
    fn visit_rest(&self, visit: &mut dyn FnMut(&[u8])) -> bool {
        if self.shows {
            self.segments[1..].iter().for_each(|s| visit(s));
        }
        self.shows
    }
    fn into_payload(self, _: Range<usize>) -> NoPayload {
        NoPayload
    }
}

impl TestFrame {
    fn new(bytes: &[u8], known: Checksum) -> Self {
        Self {
            segments: vec![bytes.to_vec()],
            known,
            shows: true,
        }
    }

    fn read(&self) -> Result<Head, Skip> {
        mirrored_frame(&MirrorOptions::default(), self, |_| Use::All).map(|p| p.head)
    }
}

#[test]
fn what_a_driver_knows_spares_the_sum_and_no_more() {
    let (head, sound) = samples::plain(b"abc");
    let wrong = with_checksum(&head, &sound, |right, _, _| right ^ 1);
    let unfinished = with_checksum(&head, &sound, |_, with_len, _| with_len);
    let tunnel = |f: &[u8]| {
        let packet = samples::tunnels::ip4(4, &f[14..]);
        samples::tunnels::eth(0x0800, &packet)
    };
    let tagged = |n: usize| [&wrong[..12], &[0x81, 0, 0, 5].repeat(n), &wrong[12..]].concat();
    let bad = Err(Skip::BadChecksum);
    for (f, known, want) in [
        (&sound, Checksum::Unknown, Ok(head)),
        (&wrong, Checksum::Unknown, bad),
        // It is taken at its word.
        (&wrong, Checksum::Good, Ok(head)),
        (&wrong, Checksum::Bad, bad),
        // Which a driver may not know.
        (&unfinished, Checksum::Bad, Ok(head)),
        (&sound, Checksum::Good, Ok(head)),
        // It may mean the outer headers.
        (&tunnel(&wrong), Checksum::Good, bad),
        (&tunnel(&sound), Checksum::Bad, Ok(head)),
        // Many a NIC looks no further than one tag.
        (&tagged(1), Checksum::Good, Ok(head)),
        (&tagged(2), Checksum::Good, bad),
    ] {
        assert_eq!(TestFrame::new(f, known).read(), want, "{known:?}");
    }
    // What is of no use is not verified, and a long segment whose payload is of none only if its
    // driver finds it damaged.
    let (long_head, long) = samples::plain(&[7; 200]);
    let long = with_checksum(&long_head, &long, |right, _, _| right ^ 1);
    for (f, known, used, ok) in [
        (&wrong, Checksum::Unknown, Use::Nothing, true),
        (&wrong, Checksum::Unknown, Use::Headers, false),
        (&long, Checksum::Unknown, Use::Headers, true),
        (&long, Checksum::Bad, Use::Headers, false),
        (&long, Checksum::Unknown, Use::All, false),
    ] {
        let frame = TestFrame::new(f, known);
        let got = mirrored_frame(&MirrorOptions::default(), &frame, |_| used);
        assert_eq!(got.is_ok(), ok, "{known:?} {used:?}");
    }
    // The IP header is no part of it.
    let mut damaged = sound.clone();
    damaged[22] ^= 1;
    assert_eq!(TestFrame::new(&damaged, Checksum::Good).read(), bad);
    for (f, known, ok) in [
        (&wrong, Checksum::Unknown, false),
        (&wrong, Checksum::Good, true),
        (&sound, Checksum::Bad, true),
    ] {
        let got = local_frame(&TestFrame::new(f, known));
        assert_eq!(
            matches!(got, Local::Tcp(p) if p.head == head),
            ok,
            "{known:?}"
        );
    }
}

proptest! {
    #[test]
    fn a_chained_frame_is_verified_to_its_end(
        (head, payload) in samples::segment(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..4),
        padding in 0usize..9,
        at in any::<proptest::sample::Index>(),
    ) {
        prop_assume!(!payload.is_empty());
        let sound = samples::frame(&head, &payload);
        let headers = sound.len() - payload.len();
        let mut bytes = [&sound[..], &vec![0xaa; padding]].concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|c| headers + c.index(bytes.len() - headers)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let frame = |bytes: &[u8]| TestFrame {
            segments: cuts.windows(2).map(|w| bytes[w[0]..w[1]].to_vec()).collect(),
            ..TestFrame::new(&[], Checksum::Unknown)
        };
        prop_assert_eq!(frame(&bytes).read(), Ok(head));
        bytes[headers + at.index(payload.len())] ^= 0x55;
        prop_assume!(!sums_up_by_chance(&sound));
        prop_assert_eq!(frame(&bytes).read(), Err(Skip::BadChecksum));
        // What cannot be seen cannot be verified.
        let mut hidden = frame(&bytes);
        hidden.shows = false;
        let covered = hidden.segments[0].len() >= sound.len();
        prop_assert_eq!(hidden.read().is_ok(), !covered);
    }
}

#[test]
fn what_is_not_all_there_cannot_be_verified() {
    let (head, mut frame) = samples::plain(&[7; 40]);
    let len = frame.len();
    frame[70] ^= 1;
    assert_eq!(local(&frame, len), Local::Skip(Skip::BadChecksum));
    for first in [len, len - 10] {
        frame.truncate(first);
        let whole = if first == len { len + 4 } else { len };
        let got = mirrored(&frame, whole).map(|p| p.head);
        let want = if first == len {
            Err(Skip::BadChecksum)
        } else {
            Ok(head)
        };
        assert_eq!(got, want);
    }
}
