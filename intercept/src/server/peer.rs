//! One engine at the server: its socket, its connection, and what it calls itself.

use super::{Settings, TurnedAway, stats};
use crate::rings::Batch;
use link::{Error, Message, PortReport, Role};
use link_tcp::Stream;
use rustix::event::PollFd;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use wire::Nanos;

/// Why an engine is not there any more.
#[derive(Debug)]
pub(super) enum Lost {
    /// It ended the link in order.
    Bye,
    /// The same engine has connected again.
    Displaced,
    /// It was not known to be an engine yet, and had to go for another connection.
    NoRoom,
    /// There are as many engines as may be.
    TooMany,
    /// It closed the stream without a goodbye, the stream broke, or it was refused or died.
    Stream(link_tcp::Error),
}

impl Lost {
    /// Why a connection that ends like this came to no link; `None` if it was `welcomed` to one.
    pub(super) const fn turned_away(&self, welcomed: bool) -> Option<TurnedAway> {
        use link::Error::{Dead, TooSlow};
        match self {
            Self::TooMany => Some(TurnedAway::EnginesFull),
            _ if welcomed => None,
            Self::NoRoom => Some(TurnedAway::Displaced),
            Self::Stream(link_tcp::Error::Link(TooSlow { .. } | Dead { .. })) => {
                Some(TurnedAway::TooSlow)
            }
            _ => Some(TurnedAway::Rejected),
        }
    }
}

impl From<link_tcp::Error> for Lost {
    fn from(e: link_tcp::Error) -> Self {
        Self::Stream(e)
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bye => f.write_str("it said goodbye"),
            Self::Displaced => f.write_str("it has connected again"),
            Self::NoRoom => f.write_str("there was no room for another stranger to wait"),
            Self::TooMany => f.write_str("too many engines are connected"),
            Self::Stream(link_tcp::Error::Closed) => f.write_str("it closed the connection"),
            Self::Stream(e) => e.fmt(f),
        }
    }
}

pub(super) struct Peer {
    stream: Stream,
    address: SocketAddr,
    welcomed: bool,
    sent: u64,
    dropped: u64,
}

impl Peer {
    pub(super) fn new(
        socket: TcpStream,
        address: SocketAddr,
        settings: &Settings,
        port: PortReport,
        now: Nanos,
    ) -> io::Result<Self> {
        let settings = link::Settings {
            role: Role::Intercept,
            name: settings.name.clone(),
            instance: 0,
            payload_prefix: settings.payload_prefix,
            key: settings.key,
        };
        let mut stream = Stream::new(socket, settings, now)?;
        stream.connection.set_port(port);
        Ok(Self {
            stream,
            address,
            welcomed: false,
            sent: 0,
            dropped: 0,
        })
    }

    /// What to wait for with poll(2); see [`Stream::poll_fd`].
    pub(super) fn poll_fd(&self, reading: bool) -> PollFd<'_> {
        self.stream.poll_fd(reading)
    }

    pub(super) const fn is_established(&self) -> bool {
        self.stream.connection.is_established()
    }

    /// True once, when the link has just been established.
    pub(super) const fn newly_established(&mut self) -> bool {
        let new = self.is_established() && !self.welcomed;
        self.welcomed |= new;
        new
    }

    /// True if both are connections of the same run of the same engine.
    pub(super) fn is_same_engine(&self, other: &Self) -> bool {
        let id = |p: &Self| {
            p.stream
                .connection
                .peer()
                .map(|h| (h.name.clone(), h.instance))
        };
        self.welcomed && other.welcomed && id(self) == id(other)
    }

    /// True if it was an engine once.
    pub(super) const fn was_welcomed(&self) -> bool {
        self.welcomed
    }

    /// Bytes that wait to be written.
    pub(super) fn output_len(&self) -> usize {
        self.stream.connection.output().len()
    }

    pub(super) fn wants_to_write(&self) -> bool {
        self.stream.wants_to_write()
    }

    pub(super) fn unsent_records(&self) -> u64 {
        self.stream.connection.unsent_records()
    }

    pub(super) fn next_message(&mut self) -> Option<Message> {
        self.stream.connection.next_message()
    }

    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        clock: &dyn Fn() -> Nanos,
    ) -> Result<(), Lost> {
        self.stream.read(buffer, clock)?;
        if self.stream.connection.has_ended() {
            return Err(Lost::Bye);
        }
        Ok(())
    }

    pub(super) fn write(&mut self) -> Result<(), Lost> {
        Ok(self.stream.write()?)
    }

    /// Does what is due. `port` is what it is told of the port.
    pub(super) fn poll(&mut self, now: Nanos, port: PortReport) -> Result<(), Lost> {
        if now < self.stream.connection.next_poll() {
            return Ok(());
        }
        self.stream
            .connection
            .set_stats(stats(self.sent, self.dropped));
        self.stream.connection.set_port(port);
        self.stream
            .connection
            .poll(now)
            .map_err(|e| Lost::Stream(link_tcp::Error::Link(e)))
    }

    pub(super) fn send_records(&mut self, batch: &Batch) -> Result<(), Error> {
        let records = u64::from(batch.records);
        let result = self.stream.connection.send_records(
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

    /// Tells the engine that a claim, or the link, is refused.
    pub(super) fn refuse(&mut self, reason: String) {
        // An engine that reads nothing misses it; the log and the counter have it.
        let _ = self.stream.connection.send(&Message::Refuse { reason });
    }

    pub(super) fn goodbye(&mut self) {
        // Not established or backlogged: then the end of the stream says it.
        let _ = self.stream.connection.send(&Message::Bye);
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stream.connection.peer().filter(|_| self.welcomed) {
            Some(hello) => write!(f, "{} ({})", hello.name, self.address),
            None => self.address.fmt(f),
        }
    }
}
