//! The messages of the link and the bytes of their bodies.

use crate::codec::{Reader, put_text};
use crate::{BATCH_BYTES, BATCH_RECORDS, Claim, Error, MAX_PREFIX, Record};
use wire::Nanos;

/// Longest name in a hello, in bytes of UTF-8.
pub const MAX_NAME: usize = 64;

/// Longest reason in a refusal, in bytes of UTF-8.
pub const MAX_REASON: usize = 512;

/// What one end can do or asks for, a set of bits. Unknown bits are ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features(pub u32);

impl Features {
    /// The sender has a key, and requires it of the peer.
    pub const KEYED: Self = Self(1);

    /// The sender understands [`Message::Port`], or tells it.
    pub const PORT: Self = Self(2);

    /// The bits of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True if every bit of `other` is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Who speaks and what it can do. Its layout never changes, so that any two versions can tell each
/// other that they don't match.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The version of the protocol that the sender speaks.
    pub version: u8,
    /// What the sender can do.
    pub features: Features,
    /// Bytes of payload that records of this intercept carry, 0–[`MAX_PREFIX`]; 0 from an engine.
    pub payload_prefix: u16,
    /// Tells apart two runs of programs with the same name. An intercept that hears a known name
    /// and instance again drops the older connection.
    pub instance: u64,
    /// What the sender calls itself, at most [`MAX_NAME`] bytes.
    pub name: String,
}

/// What one end tells about itself with each heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Response records that went over this link, as the sender of the heartbeat counts them.
    pub records: u64,
    /// Response records of this link that the sender of the heartbeat had to drop.
    pub dropped: u64,
}

/// What an intercept tells about the port that it receives responses on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortReport {
    /// Frames that it missed or had to drop since it was started, whosever they were;
    /// [`u64::MAX`]: nobody can say.
    pub missed: u64,
    /// How much later than a response came its time may say it did, in ns; [`u64::MAX`]: not known.
    pub resolution: Nanos,
}

/// One message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// The first message of both ends.
    Hello(Hello),
    /// Something is refused: before the link is established the link itself, later a claim.
    Refuse {
        /// Why, in a sentence of at most [`MAX_REASON`] bytes.
        reason: String,
    },
    /// The engine claims responses.
    Claim(Claim),
    /// The engine gives a claim back. It is the same claim as before.
    Release(Claim),
    /// Responses for one worker core of the engine.
    Responses {
        /// The worker core, as in its claim.
        owner: u16,
        /// The records, in the order of their reception on one queue.
        records: Vec<Record>,
    },
    /// Asks the peer for an [`Message::Echo`].
    Heartbeat {
        /// Comes back in the echo: the sender's time.
        token: u64,
        /// The sender's counters.
        stats: Stats,
    },
    /// The answer to a heartbeat.
    Echo {
        /// The token of the heartbeat.
        token: u64,
        /// The time at the answering end, on its clock.
        at: Nanos,
    },
    /// The sender ends the link in order.
    Bye,
    /// The intercept tells of its port, with each heartbeat, to an engine that has
    /// [`Features::PORT`].
    Port(PortReport),
}

/// The kind byte of frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    Hello = 1,
    Refuse = 2,
    Claim = 3,
    Release = 4,
    Responses = 5,
    Heartbeat = 6,
    /// One message of the Noise handshake.
    Handshake = 7,
    /// A message inside a Noise transport message.
    Sealed = 8,
    Bye = 9,
    Echo = 10,
    Port = 11,
}

impl Kind {
    pub(crate) const fn parse(byte: u8) -> Result<Self, Error> {
        Ok(match byte {
            1 => Self::Hello,
            2 => Self::Refuse,
            3 => Self::Claim,
            4 => Self::Release,
            5 => Self::Responses,
            6 => Self::Heartbeat,
            7 => Self::Handshake,
            8 => Self::Sealed,
            9 => Self::Bye,
            10 => Self::Echo,
            11 => Self::Port,
            found => return Err(Error::Kind { found }),
        })
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Refuse => "refusal",
            Self::Claim => "claim",
            Self::Release => "release",
            Self::Responses => "batch of responses",
            Self::Heartbeat => "heartbeat",
            Self::Handshake => "handshake message",
            Self::Sealed => "sealed message",
            Self::Bye => "goodbye",
            Self::Echo => "heartbeat echo",
            Self::Port => "report of a port",
        }
    }
}

impl Message {
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Refuse { .. } => Kind::Refuse,
            Self::Claim(_) => Kind::Claim,
            Self::Release(_) => Kind::Release,
            Self::Responses { .. } => Kind::Responses,
            Self::Heartbeat { .. } => Kind::Heartbeat,
            Self::Echo { .. } => Kind::Echo,
            Self::Bye => Kind::Bye,
            Self::Port(_) => Kind::Port,
        }
    }

    /// What the message is called in error sentences.
    pub const fn name(&self) -> &'static str {
        self.kind().name()
    }

    pub(crate) fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => {
                out.push(hello.version);
                out.extend_from_slice(&hello.features.0.to_be_bytes());
                out.extend_from_slice(&hello.payload_prefix.to_be_bytes());
                out.extend_from_slice(&hello.instance.to_be_bytes());
                put_text(out, &hello.name, MAX_NAME);
            }
            Self::Refuse { reason } => put_text(out, reason, MAX_REASON),
            Self::Claim(claim) | Self::Release(claim) => claim.encode(out),
            Self::Responses { owner, records } => {
                put_responses_head(out, *owner, records.len());
                for record in records {
                    record.encode(out);
                }
            }
            Self::Heartbeat { token, stats } => {
                out.extend_from_slice(&token.to_be_bytes());
                out.extend_from_slice(&stats.records.to_be_bytes());
                out.extend_from_slice(&stats.dropped.to_be_bytes());
            }
            Self::Echo { token, at } => {
                out.extend_from_slice(&token.to_be_bytes());
                out.extend_from_slice(&at.to_be_bytes());
            }
            Self::Bye => {}
            Self::Port(port) => {
                out.extend_from_slice(&port.missed.to_be_bytes());
                out.extend_from_slice(&port.resolution.to_be_bytes());
            }
        }
    }

    /// Decodes the body of a frame; `kind` is none of the two that only carry Noise messages.
    pub(crate) fn decode_body(kind: Kind, body: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::new(kind.name(), body);
        let message = match kind {
            Kind::Hello => Self::Hello(decode_hello(&mut r)?),
            Kind::Refuse => Self::Refuse {
                reason: r.text("a refusal's length", MAX_REASON, "0–512 bytes")?,
            },
            Kind::Claim => Self::Claim(Claim::decode(&mut r)?),
            Kind::Release => Self::Release(Claim::decode(&mut r)?),
            Kind::Responses => decode_responses(&mut r)?,
            Kind::Heartbeat => Self::Heartbeat {
                token: r.u64()?,
                stats: Stats {
                    records: r.u64()?,
                    dropped: r.u64()?,
                },
            },
            Kind::Echo => Self::Echo {
                token: r.u64()?,
                at: r.u64()?,
            },
            Kind::Bye => Self::Bye,
            Kind::Port => Self::Port(PortReport {
                missed: r.u64()?,
                resolution: r.u64()?,
            }),
            Kind::Handshake | Kind::Sealed => {
                return Err(Error::Unexpected {
                    what: kind.name(),
                    when: "where a plain message belongs",
                });
            }
        };
        r.finish()?;
        Ok(message)
    }
}

/// What stands before the records of a batch.
pub(crate) fn put_responses_head(out: &mut Vec<u8>, owner: u16, count: usize) {
    out.extend_from_slice(&owner.to_be_bytes());
    out.extend_from_slice(&(count as u16).to_be_bytes());
}

fn decode_hello(r: &mut Reader<'_>) -> Result<Hello, Error> {
    let hello = Hello {
        version: r.u8()?,
        features: Features(r.u32()?),
        payload_prefix: r.u16()?,
        instance: r.u64()?,
        name: r.text("the length of a name in a hello", MAX_NAME, "0–64 bytes")?,
    };
    if usize::from(hello.payload_prefix) > MAX_PREFIX {
        return Err(Error::Invalid {
            what: "a hello's payload prefix",
            found: hello.payload_prefix.into(),
            accepted: "0–1024",
        });
    }
    Ok(hello)
}

fn decode_responses(r: &mut Reader<'_>) -> Result<Message, Error> {
    let owner = r.u16()?;
    let count = usize::from(r.u16()?);
    if count > BATCH_RECORDS {
        return Err(Error::Invalid {
            what: "the number of records in a batch",
            found: count as u64,
            accepted: "0–256",
        });
    }
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        records.push(Record::decode(r)?);
    }
    Ok(Message::Responses { owner, records })
}

// A full batch and the count before it must fit in one frame.
const _: () = assert!(BATCH_BYTES + 4 <= crate::MAX_BODY);
