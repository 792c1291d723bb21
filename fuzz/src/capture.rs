//! Capture files: whatever is in one, it is read in bounded memory and without harm, what is read
//! stands in it, and times never go back far.

use capture_file::{Clocked, MAX_FRAME, Reader, Schedule};
use std::io::Cursor;

/// Frames read of one input at most: a few bytes of gzip or zstd can hold many.
const FRAMES: usize = 20_000;
/// What frames may be out of order by, in ns.
const NEAR: u64 = 1_000_000_000;

/// Judges one input; panics if something does not hold.
pub fn run(data: &[u8]) {
    let packed = matches!(data, [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..]);
    let mut raw = Vec::new();
    let Some(mut reader) = open(data) else { return };
    let mut bytes = 0;
    let mut over = false;
    for _ in 0..FRAMES {
        match reader.advance() {
            Ok(true) => {
                assert!(!over, "a frame behind the end");
                let f = reader.frame();
                assert!(f.bytes.len() <= MAX_FRAME);
                assert!(
                    f.len as usize >= f.bytes.len(),
                    "captured more than there was"
                );
                bytes += f.bytes.len();
                raw.push((f.link, f.interface, f.len, f.bytes.len(), sum(f.bytes)));
            }
            Ok(false) => over = true,
            Err(e) => {
                assert!(!over, "an error behind the end");
                assert!(e.to_string().starts_with("input "), "{e}");
                over = true;
            }
        }
        if over && raw.len() > 3 {
            break;
        }
    }
    assert!(
        packed || bytes <= data.len(),
        "frames of bytes that are not there"
    );

    // With its times put in order a file has the same frames.
    let Some(reader) = open(data) else { return };
    let (mut clocked, mut schedule) = (Clocked::new(reader), Schedule::new(Some(10 * NEAR)));
    let mut latest = (0, 0);
    for (i, expected) in raw.iter().enumerate() {
        assert!(matches!(clocked.advance(), Ok(true)), "frame {i} is gone");
        let f = clocked.frame();
        let same = (f.link, f.interface, f.len, f.bytes.len(), sum(f.bytes));
        assert!(same == *expected, "frame {i} is another");
        let time = clocked.time();
        assert!(time.saturating_add(NEAR) >= latest.0, "time goes back");
        let (offset, at) = schedule.play(time);
        assert!(offset <= at.max(time), "{offset} {at} {time}");
        assert!(
            at.saturating_add(NEAR) >= latest.1,
            "played before what was before"
        );
        latest = (latest.0.max(time), latest.1.max(at));
    }
}

fn open(data: &[u8]) -> Option<Reader> {
    Reader::new("input", Box::new(Cursor::new(data.to_vec()))).ok()
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(bytes.len() as u64, |sum, b| {
        sum.wrapping_mul(31).wrapping_add(u64::from(*b))
    })
}
