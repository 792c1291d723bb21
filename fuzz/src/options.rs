//! Any TCP options: read, written as Linux lays them out, and read again. What fits must come back.
use wire::tcp::{MAX_OPTIONS_LEN, emit_options, parse_options};

/// Judges one input; panics if something does not hold.
pub fn run(data: &[u8]) {
    for syn in [false, true] {
        let first = parse_options(data, syn);
        assert!(first.sack_count <= 4);
        let mut out = [0; MAX_OPTIONS_LEN];
        let len = emit_options(&first, syn, &mut out);
        assert!(len <= MAX_OPTIONS_LEN && len.is_multiple_of(4));
        let second = parse_options(&out[..len], syn);
        let kept = second.sack_blocks().len();
        assert_eq!(second.sack_blocks(), &first.sack_blocks()[..kept]);
        let (mut a, mut b) = (first, second);
        (a.sack_count, b.sack_count) = (0, 0);
        (a.sack, b.sack) = Default::default();
        assert_eq!(a, b);
    }
}
