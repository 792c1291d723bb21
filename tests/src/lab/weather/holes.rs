//! What the mirror did not show of each session, and what that may cost at most and has to cost at
//! least: found from captures on both sides of where frames were lost, without asking the
//! appliance.
//!
//! A client segment with payload that acknowledges more than the client's payload before it begins
//! a turn. A turn of which bytes were not shown cannot be replayed, nor can the first one of a
//! session of which neither SYN was shown. Its neighbours may go with it, as nobody can tell whose
//! missing bytes were; no other turn may.

use super::super::capture::{Capture, Direction, Seen, Segment};
use super::super::{Lab, Node};
use crate::record::{End, Record};
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::collections::BTreeMap;
use std::net::SocketAddr;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;

/// Part of what a client said, in bytes from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its first byte.
    pub start: u32,
    /// The byte behind its last one.
    pub end: u32,
    /// All of it was shown.
    pub shown: bool,
}

/// A session of a client, as it was on production's wire, and what the mirror showed of it.
#[derive(Clone, Debug)]
pub struct Session {
    /// The client.
    pub client: SocketAddr,
    /// What it said, in order.
    pub turns: Vec<Turn>,
    /// Its SYN was shown, or the server's, which tells the client's number.
    pub syn_shown: bool,
    /// Its FIN or RST was shown.
    pub end_shown: bool,
    /// The client had another session with the same port, before or after.
    pub port_used_twice: bool,
    isn: u32,
    acked: u32,
    shown: Vec<(u32, u32)>,
}

impl Session {
    fn offset(&self, tcp: &Segment) -> u32 {
        tcp.seq.wrapping_sub(self.isn).wrapping_sub(1)
    }

    fn len(&self) -> u32 {
        self.turns.last().map_or(0, |t| t.end)
    }

    fn sent(&mut self, tcp: &Segment) {
        let (start, end) = (self.len(), self.offset(tcp).wrapping_add(tcp.payload_len));
        // What is sent again says nothing new.
        if tcp.payload_len == 0 || end <= start {
            return;
        }
        let newer = (tcp.ack.wrapping_sub(self.acked) as i32) > 0;
        match self.turns.last_mut() {
            Some(turn) if !newer => turn.end = end,
            _ => self.turns.push(Turn {
                start,
                end,
                shown: false,
            }),
        }
        self.acked = tcp.ack;
    }

    /// Puts together what was shown of each turn.
    fn finish(&mut self) {
        self.shown.sort_unstable();
        for turn in &mut self.turns {
            let mut at = turn.start;
            for (from, to) in &self.shown {
                if *from <= at {
                    at = at.max(*to);
                }
            }
            turn.shown = at >= turn.end;
        }
    }

    /// Nothing is missing that the replay needs.
    pub fn is_whole(&self) -> bool {
        self.syn_shown && self.turns.iter().all(|t| t.shown)
    }

    /// The mirror showed enough of it to know that it was there.
    pub fn was_seen(&self) -> bool {
        self.syn_shown || !self.shown.is_empty()
    }

    /// Turn `i` cannot be replayed.
    fn must_go(&self, i: usize) -> bool {
        self.turns
            .get(i)
            .is_some_and(|t| !t.shown || (i == 0 && !self.syn_shown))
    }

    /// Turn `i` may be lost: it or a neighbour can't be replayed.
    fn may_go(&self, i: usize) -> bool {
        self.must_go(i) || self.must_go(i + 1) || (i > 0 && self.must_go(i - 1))
    }

    /// How many lost turns have to be counted of it at least, and may be at most. Of turns that
    /// were not shown nobody knows how many they were, so each stretch of turns that may go
    /// counts once at least.
    pub fn price(&self) -> (u64, u64) {
        if !self.was_seen() {
            return (0, 0);
        }
        let may: Vec<bool> = (0..self.turns.len()).map(|i| self.may_go(i)).collect();
        let stretches = may.chunk_by(|a, b| a == b).filter(|c| c[0]).count();
        let turns = may.iter().filter(|m| **m).count();
        (stretches as u64, turns as u64)
    }

    /// Checks what the target's recorder has of this session, in the order of its connections:
    /// whole turns, each once at most, in order, none that can't have been replayed, and all
    /// that had to be. The last turn of a connection that was reset may be in part there. Returns
    /// how many turns arrived.
    ///
    /// # Errors
    /// It's not so.
    pub fn check_arrived(&self, said: &[u8], arrived: &[(Record, Vec<u8>)]) -> Result<usize> {
        ensure!(
            said.len() == self.len() as usize,
            "{}: the capture has {} bytes of it and production's recorder {}",
            self.client,
            self.len(),
            said.len()
        );
        let turns: Vec<&[u8]> = self
            .turns
            .iter()
            .map(|t| said.get(t.start as usize..t.end as usize).unwrap_or(&[]))
            .collect();
        let mut there = vec![false; turns.len()];
        let mut next = 0;
        for (record, bytes) in arrived {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let whole = (next..turns.len()).find(|i| rest.starts_with(turns[*i]));
                if let Some(i) = whole {
                    ensure!(
                        !self.must_go(i),
                        "{}: turn {i} arrived, though the mirror did not show all of it: {self:?}",
                        self.client
                    );
                    there[i] = true;
                    next = i + 1;
                    rest = &rest[turns[i].len()..];
                    continue;
                }
                let part = (next..turns.len())
                    .find(|i| self.may_go(*i) && turns[*i].starts_with(rest))
                    .filter(|_| record.end == End::Rst);
                let Some(i) = part else {
                    bail!(
                        "{}: {} bytes arrived at {} that are no turn of it: {:?}",
                        self.client,
                        rest.len(),
                        bytes.len() - rest.len(),
                        String::from_utf8_lossy(rest.get(..80).unwrap_or(rest))
                    );
                };
                next = i + 1;
                break;
            }
        }
        if let Some(i) = (0..turns.len()).find(|i| !there[*i] && !self.may_go(*i)) {
            bail!(
                "{}: turn {i} did not arrive, though the mirror showed all of it and its neighbours: {self:?}",
                self.client
            );
        }
        Ok(there.iter().filter(|t| **t).count())
    }
}

/// Captures at both sides of the mirror.
#[derive(Debug)]
pub struct MirrorWatch {
    clients: Capture,
    shown: Capture,
}

/// What both captures say.
#[derive(Debug)]
pub struct Sight {
    /// All sessions of clients.
    pub sessions: Vec<Session>,
    /// Segments of clients that were not shown.
    pub not_shown: usize,
}

impl MirrorWatch {
    /// Starts to watch what clients send and what the mirror port delivers.
    ///
    /// # Errors
    /// tcpdump can't be run.
    pub fn start(lab: &Lab) -> Result<Self> {
        Ok(Self {
            clients: Capture::start(lab, Node::Switch, "swc", Direction::In)?,
            shown: Capture::start(lab, Node::Appliance, "span0", Direction::In)?,
        })
    }

    /// Ends both and tells what was shown of each session with `server`.
    ///
    /// # Errors
    /// A capture missed something itself, or they contradict each other.
    pub fn stop(self, server: SocketAddr) -> Result<Sight> {
        compare(&self.clients.stop()?, &self.shown.stop()?, server)
    }
}

fn to_server(frames: &[Seen], server: SocketAddr) -> impl Iterator<Item = (SocketAddr, Segment)> {
    frames.iter().filter_map(move |frame| {
        let (ips, tcp) = (frame.ips?, frame.tcp?);
        (SocketAddr::new(ips[1], tcp.ports[1]) == server)
            .then(|| (SocketAddr::new(ips[0], tcp.ports[0]), tcp))
    })
}

fn from_server(frames: &[Seen], server: SocketAddr) -> impl Iterator<Item = (SocketAddr, Segment)> {
    frames.iter().filter_map(move |frame| {
        let (ips, tcp) = (frame.ips?, frame.tcp?);
        (SocketAddr::new(ips[0], tcp.ports[0]) == server)
            .then(|| (SocketAddr::new(ips[1], tcp.ports[1]), tcp))
    })
}

fn compare(sent: &[Seen], shown: &[Seen], server: SocketAddr) -> Result<Sight> {
    let mut sessions: Vec<Session> = Vec::new();
    let mut of: BTreeMap<SocketAddr, Vec<usize>> = BTreeMap::new();
    for (client, tcp) in to_server(sent, server) {
        let known = of.entry(client).or_default();
        let last = known.last().and_then(|i| sessions.get_mut(*i));
        match last {
            Some(session) if tcp.flags & SYN == 0 || session.isn == tcp.seq => session.sent(&tcp),
            _ => {
                ensure!(
                    tcp.flags & SYN != 0,
                    "{client}: was there before the capture began"
                );
                known.push(sessions.len());
                sessions.push(Session {
                    client,
                    turns: Vec::new(),
                    syn_shown: false,
                    end_shown: false,
                    port_used_twice: false,
                    isn: tcp.seq,
                    acked: 0,
                    shown: Vec::new(),
                });
            }
        }
    }
    for twice in of.values().filter(|known| known.len() > 1).flatten() {
        if let Some(session) = sessions.get_mut(*twice) {
            session.port_used_twice = true;
        }
    }
    for (client, tcp) in to_server(shown, server) {
        // Of a port that was used twice: the session that has this place in its stream.
        let known = of.get(&client).map_or(&[][..], Vec::as_slice);
        let mine = |s: &Session| {
            (tcp.flags & SYN != 0 && s.isn == tcp.seq)
                || s.offset(&tcp).wrapping_add(tcp.payload_len) <= s.len() + 1
        };
        let at = known
            .iter()
            .rev()
            .find(|i| sessions.get(**i).is_some_and(mine));
        let session = at.and_then(|i| sessions.get_mut(*i)).ok_or_else(|| {
            anyhow!("{client}: the mirror showed a segment that it never sent: {tcp:?}")
        })?;
        session.syn_shown |= tcp.flags & SYN != 0;
        session.end_shown |= tcp.flags & (FIN | RST) != 0;
        if tcp.payload_len > 0 {
            let start = session.offset(&tcp);
            session.shown.push((start, start + tcp.payload_len));
        }
    }
    for (client, tcp) in from_server(shown, server).filter(|(_, tcp)| tcp.flags & SYN != 0) {
        for i in of.get(&client).map_or(&[][..], Vec::as_slice) {
            if let Some(session) = sessions.get_mut(*i) {
                session.syn_shown |= tcp.ack == session.isn.wrapping_add(1);
            }
        }
    }
    sessions.iter_mut().for_each(Session::finish);
    let count = |frames| to_server(frames, server).count();
    let not_shown = count(sent)
        .checked_sub(count(shown))
        .context("the mirror showed more than clients sent")?;
    Ok(Sight {
        sessions,
        not_shown,
    })
}

#[cfg(test)]
mod tests;
