//! Frames: magic, version, kind, length, body.

use crate::message::Kind;
use crate::{Error, MIN_VERSION, Message, VERSION};

/// Bytes before the body of a frame.
pub const HEADER_LEN: usize = 8;

/// Longest body of a plain message, in bytes.
pub const MAX_BODY: usize = 32 * 1024;

/// Longest body of any frame: a sealed message has its kind and a 16-byte tag besides.
pub(crate) const MAX_SEALED: usize = MAX_BODY + 1 + 16;

/// Longest body of a frame before the link is established, in bytes: hellos, refusals and handshake
/// messages are shorter.
pub(crate) const MAX_EARLY: usize = 1024;

const MAGIC: [u8; 4] = *b"RPLK";

/// One frame that was found at the front of a buffer.
pub(crate) struct Frame<'a> {
    pub(crate) kind: Kind,
    pub(crate) body: &'a [u8],
}

/// Finds the first frame of `bytes`. `None`: it is not complete yet. A body of more than `longest`
/// bytes, or of more than its kind may have, is an error.
///
/// What is wrong is told as soon as it can be seen, so that nobody waits for the rest of a frame
/// that will be refused.
pub(crate) fn split(bytes: &[u8], longest: usize) -> Result<Option<Frame<'_>>, Error> {
    let begin = bytes.len().min(4);
    if bytes.get(..begin) != MAGIC.get(..begin) {
        let mut found = [0; 4];
        for (to, from) in found.iter_mut().zip(bytes) {
            *to = *from;
        }
        return Err(Error::Magic { found });
    }
    let Some((header, rest)) = bytes.split_at_checked(HEADER_LEN) else {
        return Ok(None);
    };
    let [.., version, kind, high, low] = *header else {
        return Ok(None);
    };
    // Hello and refusal are read whatever the version: with them the ends tell each other that they
    // don't match.
    let known = (MIN_VERSION..=VERSION).contains(&version);
    if !known && kind != Kind::Hello as u8 && kind != Kind::Refuse as u8 {
        return Err(bad_version(version));
    }
    let kind = Kind::parse(kind)?;
    let len = usize::from(u16::from_be_bytes([high, low]));
    let max = if kind == Kind::Sealed {
        MAX_SEALED
    } else {
        MAX_BODY
    }
    .min(longest);
    if len > max {
        return Err(Error::TooLong {
            what: kind.name(),
            found: len,
            max,
        });
    }
    Ok(rest.get(..len).map(|body| Frame { kind, body }))
}

/// The error for a version that this side does not speak.
pub(crate) const fn bad_version(offered: u8) -> Error {
    Error::Version {
        offered,
        min: MIN_VERSION,
        max: VERSION,
    }
}

/// Appends a frame header and the body that `fill` writes. If the body is longer than allowed
/// nothing is appended.
pub(crate) fn put(
    out: &mut Vec<u8>,
    kind: Kind,
    fill: impl FnOnce(&mut Vec<u8>),
) -> Result<(), Error> {
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, kind as u8, 0, 0]);
    fill(out);
    let len = out.len() - start - HEADER_LEN;
    let max = if kind == Kind::Sealed {
        MAX_SEALED
    } else {
        MAX_BODY
    };
    if len > max {
        out.truncate(start);
        return Err(Error::TooLong {
            what: kind.name(),
            found: len,
            max,
        });
    }
    if let Some(field) = out.get_mut(start + 6..start + HEADER_LEN) {
        field.copy_from_slice(&(len as u16).to_be_bytes());
    }
    Ok(())
}

/// Appends `message` as one frame in the clear.
///
/// # Errors
/// [`Error::TooLong`] if the body is longer than [`MAX_BODY`]; nothing is appended then.
pub fn encode_frame(message: &Message, out: &mut Vec<u8>) -> Result<(), Error> {
    put(out, message.kind(), |out| message.encode_body(out))
}

/// Decodes the frame in the clear at the front of `bytes`: the message, and how many bytes it took.
/// `None`: not complete yet.
///
/// # Errors
/// What is wrong with the frame or its body; the stream cannot be read on after it.
pub fn decode_frame(bytes: &[u8]) -> Result<Option<(Message, usize)>, Error> {
    let Some(frame) = split(bytes, MAX_SEALED)? else {
        return Ok(None);
    };
    let message = Message::decode_body(frame.kind, frame.body)?;
    if let Message::Hello(hello) = &message
        && !(MIN_VERSION..=VERSION).contains(&hello.version)
    {
        return Err(bad_version(hello.version));
    }
    Ok(Some((message, HEADER_LEN + frame.body.len())))
}
