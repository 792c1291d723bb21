//! Response records: what the intercept tells of one absorbed segment, or of a router's word about
//! the way to the target.
//!
//! The intercept's receive core encodes with [`encode_record`] straight into a batch's buffer, so a
//! record costs no allocation there.

use crate::Error;
use crate::codec::{Reader, put_endpoint};
use wire::{Flags, Flow, Head, Nanos, Options, Seq};

/// Longest prefix of a payload that a record can carry, in bytes.
pub const MAX_PREFIX: usize = 1024;

/// Most bytes that one encoded record takes: IPv6, every option, the longest prefix.
pub const MAX_RECORD: usize = 2 + 36 + 4 + 4 + 2 + 4 + 8 + (2 + 1 + 8 + 32) + 2 + MAX_PREFIX;

/// Bytes of encoded records after which a batch is sent.
pub const BATCH_BYTES: usize = 16 * 1024;

/// Records after which a batch is sent.
pub const BATCH_RECORDS: usize = 256;

/// One response segment, without its payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The segment's header, from target to client.
    pub head: Head,
    /// When the intercept received it, on the intercept's clock.
    pub received_at: Nanos,
    /// The first bytes of the payload, as many as the intercept is configured to send and as were
    /// captured: 0–[`MAX_PREFIX`]. An empty one owns no memory.
    pub prefix: Box<[u8]>,
    /// No segment, but an ICMP error: what goes the other way than `head.flow` may be no longer
    /// than this, in bytes (0: not said). `head.ack` is the sequence number of the segment that
    /// was longer; the rest of `head` is zero.
    pub path_mtu: Option<u32>,
}

const V6: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 4;
const SACK_PERMITTED: u8 = 8;
const TIMESTAMPS: u8 = 16;
const SACK_SHIFT: u8 = 5;
/// In the place of the number of SACK blocks: this is no segment.
const PATH_MTU: u8 = 7 << SACK_SHIFT;

/// Appends one record of at most [`MAX_RECORD`] bytes. A longer `prefix` is cut to [`MAX_PREFIX`].
///
/// Nothing is allocated if `out` has room for [`MAX_RECORD`] bytes.
pub fn encode_record(head: &Head, received_at: Nanos, prefix: &[u8], out: &mut Vec<u8>) {
    let v6 = !(head.flow.src.addr.is_v4() && head.flow.dst.addr.is_v4());
    let o = &head.options;
    let blocks = o.sack_blocks();
    let mut what = (blocks.len() as u8) << SACK_SHIFT;
    what |= if v6 { V6 } else { 0 };
    what |= if o.mss.is_some() { MSS } else { 0 };
    what |= if o.window_scale.is_some() {
        WINDOW_SCALE
    } else {
        0
    };
    what |= if o.sack_permitted { SACK_PERMITTED } else { 0 };
    what |= if o.timestamps.is_some() {
        TIMESTAMPS
    } else {
        0
    };
    out.extend_from_slice(&[what, head.flags.0]);
    put_endpoint(out, &head.flow.src, v6);
    put_endpoint(out, &head.flow.dst, v6);
    out.extend_from_slice(&head.seq.0.to_be_bytes());
    out.extend_from_slice(&head.ack.0.to_be_bytes());
    out.extend_from_slice(&head.window.to_be_bytes());
    out.extend_from_slice(&head.payload_len.to_be_bytes());
    out.extend_from_slice(&received_at.to_be_bytes());
    if let Some(mss) = o.mss {
        out.extend_from_slice(&mss.to_be_bytes());
    }
    if let Some(shift) = o.window_scale {
        out.push(shift);
    }
    if let Some((value, echo)) = o.timestamps {
        out.extend_from_slice(&value.to_be_bytes());
        out.extend_from_slice(&echo.to_be_bytes());
    }
    for (left, right) in blocks {
        out.extend_from_slice(&left.0.to_be_bytes());
        out.extend_from_slice(&right.0.to_be_bytes());
    }
    let prefix = prefix.get(..MAX_PREFIX).unwrap_or(prefix);
    out.extend_from_slice(&(prefix.len() as u16).to_be_bytes());
    out.extend_from_slice(prefix);
}

/// Appends one record that tells of a path's MTU: the segment with sequence number `seq` that went
/// the other way than `flow` was longer than `mtu` bytes, 0 if that was not said.
///
/// Nothing is allocated if `out` has room for [`MAX_RECORD`] bytes.
pub fn encode_path_mtu(flow: &Flow, seq: Seq, mtu: u32, received_at: Nanos, out: &mut Vec<u8>) {
    let v6 = !(flow.src.addr.is_v4() && flow.dst.addr.is_v4());
    out.push(PATH_MTU | if v6 { V6 } else { 0 });
    put_endpoint(out, &flow.src, v6);
    put_endpoint(out, &flow.dst, v6);
    out.extend_from_slice(&seq.0.to_be_bytes());
    out.extend_from_slice(&mtu.to_be_bytes());
    out.extend_from_slice(&received_at.to_be_bytes());
}

impl Record {
    /// Appends this record, as [`encode_record`] or [`encode_path_mtu`] does.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self.path_mtu {
            Some(mtu) => {
                let head = &self.head;
                encode_path_mtu(&head.flow, head.ack, mtu, self.received_at, out);
            }
            None => encode_record(&self.head, self.received_at, &self.prefix, out),
        }
    }

    fn decode_path_mtu(what: u8, r: &mut Reader<'_>) -> Result<Self, Error> {
        let v6 = match what & !PATH_MTU {
            0 => false,
            V6 => true,
            found => {
                return Err(Error::Invalid {
                    what: "the options of a record about a path's MTU",
                    found: found.into(),
                    accepted: "none",
                });
            }
        };
        let flow = Flow {
            src: r.endpoint(v6)?,
            dst: r.endpoint(v6)?,
        };
        let ack = Seq(r.u32()?);
        let mtu = r.u32()?;
        Ok(Self {
            head: Head {
                flow,
                seq: Seq(0),
                ack,
                flags: Flags::default(),
                window: 0,
                urgent: 0,
                options: Options::default(),
                payload_len: 0,
            },
            received_at: r.u64()?,
            prefix: Box::default(),
            path_mtu: Some(mtu),
        })
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Error> {
        let what = r.u8()?;
        if what & PATH_MTU == PATH_MTU {
            return Self::decode_path_mtu(what, r);
        }
        let flags = Flags(r.u8()?);
        let v6 = what & V6 != 0;
        let flow = Flow {
            src: r.endpoint(v6)?,
            dst: r.endpoint(v6)?,
        };
        let (seq, ack) = (Seq(r.u32()?), Seq(r.u32()?));
        let window = r.u16()?;
        let payload_len = r.u32()?;
        let received_at = r.u64()?;
        let mut options = Options {
            sack_permitted: what & SACK_PERMITTED != 0,
            ..Options::default()
        };
        if what & MSS != 0 {
            options.mss = Some(r.u16()?);
        }
        if what & WINDOW_SCALE != 0 {
            options.window_scale = Some(r.u8()?);
        }
        if what & TIMESTAMPS != 0 {
            options.timestamps = Some((r.u32()?, r.u32()?));
        }
        let blocks = what >> SACK_SHIFT;
        if blocks > 4 {
            return Err(Error::Invalid {
                what: "a record's number of SACK blocks",
                found: blocks.into(),
                accepted: "0–4",
            });
        }
        for _ in 0..blocks {
            options.push_sack(Seq(r.u32()?), Seq(r.u32()?));
        }
        let len = usize::from(r.u16()?);
        if len > MAX_PREFIX {
            return Err(Error::Invalid {
                what: "a record's payload prefix length",
                found: len as u64,
                accepted: "0–1024",
            });
        }
        Ok(Self {
            head: Head {
                flow,
                seq,
                ack,
                flags,
                window,
                urgent: 0,
                options,
                payload_len,
            },
            received_at,
            prefix: r.take(len)?.into(),
            path_mtu: None,
        })
    }
}
