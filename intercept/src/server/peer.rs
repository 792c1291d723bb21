//! One engine at the server: its socket, its connection, and what it calls itself.

use super::{Settings, stats};
use crate::rings::Batch;
use link::{Connection, Error, Message, Role};
use log::warn;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use wire::Nanos;

/// Pieces read from one engine before the others have their turn.
const READS: usize = 16;

/// Refused claims of one engine that are logged; all are counted and told to the engine.
const LOGGED_REFUSALS: u32 = 5;

/// Why an engine is not there any more.
#[derive(Debug)]
pub(super) enum Lost {
    /// It ended the link in order.
    Bye,
    /// Its end of the stream was closed without a goodbye.
    Closed,
    /// The same engine has connected again.
    Displaced,
    /// The stream broke.
    Io(io::Error),
    /// It was refused or died.
    Link(Error),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bye => f.write_str("it said goodbye"),
            Self::Closed => f.write_str("it closed the connection"),
            Self::Displaced => f.write_str("it has connected again"),
            Self::Io(e) => e.fmt(f),
            Self::Link(e) => e.fmt(f),
        }
    }
}

pub(super) struct Peer {
    stream: TcpStream,
    address: SocketAddr,
    connection: Connection,
    welcomed: bool,
    refusals: u32,
    sent: u64,
    dropped: u64,
}

impl Peer {
    pub(super) fn new(
        stream: TcpStream,
        address: SocketAddr,
        settings: &Settings,
        now: Nanos,
    ) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let settings = link::Settings {
            role: Role::Intercept,
            name: settings.name.clone(),
            instance: 0,
            payload_prefix: settings.payload_prefix,
            key: settings.key,
        };
        Ok(Self {
            stream,
            address,
            connection: Connection::new(settings, now),
            welcomed: false,
            refusals: 0,
            sent: 0,
            dropped: 0,
        })
    }

    pub(super) const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(super) const fn is_established(&self) -> bool {
        self.connection.is_established()
    }

    /// True once, when the link has just been established.
    pub(super) const fn newly_established(&mut self) -> bool {
        let new = self.is_established() && !self.welcomed;
        self.welcomed |= new;
        new
    }

    /// True if both are connections of the same run of the same engine.
    pub(super) fn is_same_engine(&self, other: &Self) -> bool {
        let id = |p: &Self| p.connection.peer().map(|h| (h.name.clone(), h.instance));
        self.welcomed && other.welcomed && id(self) == id(other)
    }

    pub(super) fn wants_to_write(&self) -> bool {
        !self.connection.output().is_empty()
    }

    pub(super) fn unsent_records(&self) -> u64 {
        self.connection.unsent_records()
    }

    pub(super) fn next_message(&mut self) -> Option<Message> {
        self.connection.next_message()
    }

    pub(super) fn read(&mut self, buffer: &mut [u8], now: Nanos) -> Result<(), Lost> {
        for _ in 0..READS {
            match self.stream.read(buffer) {
                Ok(0) => return Err(Lost::Closed),
                Ok(n) => {
                    let bytes = buffer.get(..n).unwrap_or_default();
                    self.connection.receive(bytes, now).map_err(Lost::Link)?;
                    if self.connection.has_ended() {
                        return Err(Lost::Bye);
                    }
                    if n < buffer.len() {
                        return Ok(());
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Lost::Io(e)),
            }
        }
        Ok(())
    }

    pub(super) fn write(&mut self) -> Result<(), Lost> {
        while !self.connection.output().is_empty() {
            match self.stream.write(self.connection.output()) {
                Ok(0) => return Err(Lost::Closed),
                Ok(n) => self.connection.consume(n),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Lost::Io(e)),
            }
        }
        Ok(())
    }

    pub(super) fn poll(&mut self, now: Nanos) -> Result<(), Lost> {
        if now < self.connection.next_poll() {
            return Ok(());
        }
        self.connection.set_stats(stats(self.sent, self.dropped));
        self.connection.poll(now).map_err(Lost::Link)
    }

    pub(super) fn send_records(&mut self, batch: &Batch) -> Result<(), Error> {
        let records = u64::from(batch.records);
        let result = self.connection.send_records(
            batch.route.owner,
            usize::from(batch.records),
            &batch.bytes,
        );
        if result.is_ok() {
            self.sent += records;
        } else {
            self.dropped += records;
        }
        result
    }

    /// Tells the engine that a claim is refused.
    pub(super) fn refuse(&mut self, reason: String) {
        if self.refusals < LOGGED_REFUSALS {
            warn!("engine {self}: refused {reason}");
        }
        self.refusals = self.refusals.saturating_add(1);
        // An engine that reads nothing misses it; the log and the counter have it.
        let _ = self.connection.send(&Message::Refuse { reason });
    }

    pub(super) fn goodbye(&mut self) {
        // Not established or backlogged: then the end of the stream says it.
        let _ = self.connection.send(&Message::Bye);
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.connection.peer().filter(|_| self.welcomed) {
            Some(hello) => write!(f, "{} ({})", hello.name, self.address),
            None => self.address.fmt(f),
        }
    }
}
