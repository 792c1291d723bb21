//! Reading and writing of fields in network byte order. A [`Reader`] never reads beyond its bytes
//! and names what it was reading.

use crate::Error;
use wire::{Addr, Endpoint};

/// A cursor over the body of one message.
pub(crate) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, which are a `what` in error messages.
    pub(crate) const fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], Error> {
        let Some((head, rest)) = self.rest.split_at_checked(n) else {
            return Err(Error::Truncated {
                what: self.what,
                needed: n,
                left: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Error> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Error> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// An address of the family that the message has told before.
    pub(crate) fn addr(&mut self, v6: bool) -> Result<Addr, Error> {
        Ok(if v6 {
            Addr::v6(self.array()?)
        } else {
            Addr::v4(self.array()?)
        })
    }

    pub(crate) fn endpoint(&mut self, v6: bool) -> Result<Endpoint, Error> {
        Ok(Endpoint::new(self.addr(v6)?, self.u16()?))
    }

    /// A text with its length in 16 bits before it. What is no UTF-8 and control characters are
    /// replaced, since texts end up in logs; what gets longer than `max` bytes by that is cut.
    pub(crate) fn text(
        &mut self,
        field: &'static str,
        max: usize,
        accepted: &'static str,
    ) -> Result<String, Error> {
        let len = usize::from(self.u16()?);
        if len > max {
            return Err(Error::Invalid {
                what: field,
                found: len as u64,
                accepted,
            });
        }
        let text = String::from_utf8_lossy(self.take(len)?);
        let mut text: String = text
            .chars()
            .map(|c| {
                if c.is_control() {
                    char::REPLACEMENT_CHARACTER
                } else {
                    c
                }
            })
            .collect();
        text.truncate(fitting(&text, max));
        Ok(text)
    }

    /// The message has ended: nothing may be left.
    pub(crate) const fn finish(self) -> Result<(), Error> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Error::Trailing {
                what: self.what,
                left: self.rest.len(),
            })
        }
    }
}

/// Appends an address in the bytes of its family.
pub(crate) fn put_addr(out: &mut Vec<u8>, addr: &Addr, v6: bool) {
    if v6 {
        out.extend_from_slice(addr.bytes());
    } else {
        out.extend_from_slice(&addr.v4_bytes());
    }
}

/// Appends an endpoint: address and port.
pub(crate) fn put_endpoint(out: &mut Vec<u8>, end: &Endpoint, v6: bool) {
    put_addr(out, &end.addr, v6);
    out.extend_from_slice(&end.port.to_be_bytes());
}

/// How many bytes of a text fit in `max`, cut at a character's boundary.
fn fitting(text: &str, max: usize) -> usize {
    let mut len = text.len().min(max);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    len
}

/// Appends a text, cut to `max` bytes at a character's boundary, with its length before it.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str, max: usize) {
    let len = fitting(text, max);
    out.extend_from_slice(&(len as u16).to_be_bytes());
    out.extend_from_slice(text.get(..len).unwrap_or_default().as_bytes());
}
