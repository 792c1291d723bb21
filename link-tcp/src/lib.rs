//! One end of a control link over a TCP socket: it carries bytes between the socket and a
//! [`link::Connection`].
//!
//! What always holds: no call blocks; one call reads a bounded number of bytes, so that a peer that
//! sends without end does not keep a thread from its other work.
#![forbid(unsafe_code)]

use link::Connection;
use rustix::event::{PollFd, PollFlags};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use wire::Nanos;

/// Buffers read by one call of [`Stream::read`] at most.
const READS: usize = 16;

/// Why a stream cannot be used any further.
#[derive(Debug)]
pub enum Error {
    /// The peer closed it.
    Closed,
    /// The system says so.
    Io(io::Error),
    /// The peer broke the protocol, or was silent for too long.
    Link(link::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the peer closed the connection"),
            Self::Io(e) => e.fmt(f),
            Self::Link(e) => e.fmt(f),
        }
    }
}

/// A socket, and the connection over it.
pub struct Stream {
    socket: TcpStream,
    /// The state of the link.
    pub connection: Connection,
}

impl Stream {
    /// Takes a connected socket at time `now`.
    ///
    /// # Errors
    /// The socket cannot be set to not blocking, or to send at once.
    pub fn new(socket: TcpStream, settings: link::Settings, now: Nanos) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Self {
            socket,
            connection: Connection::new(settings, now),
        })
    }

    /// True if bytes wait to be written.
    pub fn wants_to_write(&self) -> bool {
        !self.connection.output().is_empty()
    }

    /// What to wait for with poll(2): something to read, if `reading`, and room to write, if bytes
    /// wait for that.
    pub fn poll_fd(&self, reading: bool) -> PollFd<'_> {
        let mut events = PollFlags::empty();
        events.set(PollFlags::IN, reading);
        events.set(PollFlags::OUT, self.wants_to_write());
        PollFd::new(&self.socket, events)
    }

    /// Hands what has arrived to the connection. Returns how many bytes that were. The clock is
    /// read after each piece: a time before it would tell the peer that its heartbeat was here
    /// before it was sent.
    ///
    /// # Errors
    /// The stream is at its end, or broken, or what arrived is not what the protocol has.
    pub fn read(&mut self, buffer: &mut [u8], clock: &dyn Fn() -> Nanos) -> Result<u64, Error> {
        let mut total = 0;
        for _ in 0..READS {
            match self.socket.read(buffer) {
                Ok(0) => return Err(Error::Closed),
                Ok(n) => {
                    total += n as u64;
                    let bytes = buffer.get(..n).unwrap_or_default();
                    self.connection
                        .receive(bytes, clock())
                        .map_err(Error::Link)?;
                    if n < buffer.len() || self.connection.has_ended() {
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::Io(e)),
            }
        }
        Ok(total)
    }

    /// Writes what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// The stream is broken.
    pub fn write(&mut self) -> Result<(), Error> {
        while self.wants_to_write() {
            match self.socket.write(self.connection.output()) {
                Ok(0) => return Err(Error::Closed),
                Ok(n) => self.connection.consume(n),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::Io(e)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use link::{Message, Role, Settings};
    use std::net::TcpListener;

    fn pair() -> (Stream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        let end = |socket, role| {
            let settings = Settings {
                role,
                name: format!("{role:?}"),
                instance: 1,
                payload_prefix: 0,
                key: None,
            };
            Stream::new(socket, settings, 0).unwrap()
        };
        (end(one, Role::Engine), end(other, Role::Intercept))
    }

    /// Lets both talk until `done`.
    fn talk(a: &mut Stream, b: &mut Stream, done: impl Fn(&Stream, &Stream) -> bool) {
        let mut buffer = [0; 64];
        while !done(a, b) {
            for end in [&mut *a, &mut *b] {
                end.write().unwrap();
                end.read(&mut buffer, &|| 1).unwrap();
            }
        }
    }

    #[test]
    fn two_ends_talk_and_a_closed_socket_is_told() {
        let (mut a, mut b) = pair();
        let established =
            |a: &Stream, b: &Stream| a.connection.is_established() && b.connection.is_established();
        talk(&mut a, &mut b, established);
        a.connection.send(&Message::Bye).unwrap();
        a.write().unwrap();
        let mut buffer = [0; 64];
        while !b.connection.has_ended() {
            b.read(&mut buffer, &|| 1).unwrap();
        }
        a.socket.shutdown(std::net::Shutdown::Write).unwrap();
        let closed = loop {
            match b.read(&mut buffer, &|| 1) {
                // Not there yet, or bytes that came after the goodbye.
                Ok(_) | Err(Error::Link(_)) => {}
                Err(e) => break e,
            }
        };
        assert!(matches!(closed, Error::Closed), "{closed}");
    }

    #[test]
    fn one_call_reads_so_much_and_no_more_and_none_waits() {
        let (mut a, b) = pair();
        let mut buffer = [0; 4];
        assert_eq!(a.read(&mut buffer, &|| 1).unwrap(), 0, "nothing was sent");
        // A frame whose body is long, so that all of it is taken and none of it is a message.
        let mut frame = b"RPLK".to_vec();
        frame.extend_from_slice(&[1, 1, 4, 0]);
        frame.resize(1_024, 0);
        (&b.socket).write_all(&frame).unwrap();
        while a.read(&mut buffer, &|| 1).unwrap() < (READS * buffer.len()) as u64 {}
        assert!(a.poll_fd(true).revents().is_empty());
    }

    #[test]
    fn the_clock_is_read_after_the_bytes() {
        let (mut a, mut b) = pair();
        talk(&mut a, &mut b, |a, b| {
            a.connection.is_established() && b.connection.is_established()
        });
        let sent = std::cell::Cell::new(0);
        b.connection.hurry();
        b.connection.poll(7).unwrap();
        b.write().unwrap();
        let mut buffer = [0; 64];
        while sent.get() == 0 {
            a.read(&mut buffer, &|| {
                sent.set(9);
                9
            })
            .unwrap();
        }
        a.write().unwrap();
        while b.connection.round_trip().is_none() {
            b.read(&mut buffer, &|| 11).unwrap();
        }
        // Sent at 7, answered at 9 by the same clock, back at 11.
        let offset = b.connection.peer_clock(11).unwrap();
        assert_eq!((offset.to_local(9), offset.error()), (9, 2));
    }
}
