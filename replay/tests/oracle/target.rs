//! The target: smoltcp's TCP behind an application that answers by a rule. What a host does beside
//! TCP proper (listening again on a port that is in TIME-WAIT, challenging a SYN on a live
//! connection) is done here, as Linux does it.

use crate::packet;
use crate::plan::{Answers, Mood, Plan};
use crate::script::{self, Exchange, Script};
use crate::world::MS;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};
use std::cell::Cell;
use std::collections::VecDeque;
use wire::{Endpoint, Flags, Head, Nanos, Seq};

thread_local! {
    /// The target's timestamp clock, which smoltcp asks for without saying who asks.
    static CLOCK: Cell<u32> = const { Cell::new(0) };
}

/// A network device in memory.
struct Wire {
    rx: VecDeque<Vec<u8>>,
    tx: VecDeque<Vec<u8>>,
    mtu: usize,
}

struct Received(Vec<u8>);

struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let packet = self.rx.pop_front()?;
        Some((Received(packet), Sending(&mut self.tx)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ip;
        caps.max_transmission_unit = self.mtu;
        caps
    }
}

/// One connection, as the application saw it.
pub struct Conn {
    /// The client.
    pub peer: Endpoint,
    /// Which conversation it carries.
    pub talk: usize,
    /// The client's initial sequence number.
    pub isn: Seq,
    /// Everything the application read.
    pub read: Vec<u8>,
    /// It read to the client's FIN.
    pub finished: bool,
    handle: SocketHandle,
    /// The socket was taken away: the port was used again.
    gone: bool,
    greeted: bool,
    next: usize,
    to_send: usize,
    /// Bytes of answers that it was to send in all.
    pub answered: usize,
    /// When the next part of an answer goes.
    pause_to: Nanos,
    closed: bool,
    /// The last segment sent, for challenges.
    last: Option<Head>,
}

/// See the module's documentation.
pub struct Target {
    iface: Interface,
    device: Wire,
    sockets: SocketSet<'static>,
    /// In the order in which they were opened.
    pub conns: Vec<Conn>,
    plan: Plan,
    scripts: Vec<Script>,
    refusals: u32,
    /// Connections it refused.
    pub refused: u32,
    /// The conversations' moods have had their effect.
    pub acted: Vec<bool>,
    /// It answers nothing any more.
    pub dead: bool,
    /// Resets it has sent.
    pub resets: u32,
    next_look: Nanos,
}

fn instant(now: Nanos) -> Instant {
    Instant::from_micros((now / 1_000) as i64)
}

impl Target {
    /// A target that knows the conversations it will see.
    pub fn new(plan: &Plan, scripts: &[Script]) -> Self {
        let mut device = Wire {
            rx: VecDeque::new(),
            tx: VecDeque::new(),
            mtu: plan.target_mtu,
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = 7;
        let mut iface = Interface::new(config, &mut device, instant(0));
        let target = script::target(plan.v6).addr.to_ip();
        iface.update_ip_addrs(|a| {
            let _ = a.push(IpCidr::new(target.into(), 24));
        });
        Self {
            iface,
            device,
            sockets: SocketSet::new(Vec::new()),
            conns: Vec::new(),
            refusals: match plan.talks[0].mood {
                Mood::Refuses(n) => n,
                _ => 0,
            },
            refused: 0,
            plan: plan.clone(),
            scripts: scripts.to_vec(),
            acted: vec![false; scripts.len()],
            dead: false,
            resets: 0,
            next_look: 0,
        }
    }

    /// A packet arrives. Returns the packets it sends.
    pub fn packet(&mut self, now: Nanos, bytes: Vec<u8>) -> Vec<Vec<u8>> {
        if self.dead {
            return Vec::new();
        }
        self.close_listeners();
        // What is damaged is for smoltcp to notice.
        let sound = packet::decode(&bytes).map(|p| p.head);
        let mut bytes = bytes;
        if let Some(head) = sound {
            if head.flags.has(Flags::SYN) {
                if let Some(answer) = self.syn(&head) {
                    return answer;
                }
                bytes = packet::packet(&self.strip(head), &[]);
            }
            if head.flags.has(Flags::RST) {
                self.read_all(head.flow.src);
            }
        }
        self.device.rx.push_back(bytes);
        self.poll(now)
    }

    /// A socket whose handshake was reset listens again, and would take the connection of another
    /// client.
    fn close_listeners(&mut self) {
        for conn in self.conns.iter_mut().filter(|c| !c.gone) {
            if self.sockets.get::<Socket>(conn.handle).state() == State::Listen {
                self.sockets.remove(conn.handle);
                conn.gone = true;
            }
        }
    }

    /// The SYN without the options that the plan keeps from the target.
    fn strip(&self, mut head: Head) -> Head {
        if self.plan.no_scale {
            head.options.window_scale = None;
        }
        head.options.sack_permitted &= !self.plan.no_sack;
        head
    }

    /// Reads what a connection has received: it was acknowledged, and a reset would throw it away.
    fn read_all(&mut self, peer: Endpoint) {
        for conn in self.conns.iter_mut().filter(|c| c.peer == peer && !c.gone) {
            let socket = self.sockets.get_mut::<Socket>(conn.handle);
            while socket.can_recv() {
                let taken = socket.recv(|data| (data.len(), data.to_vec()));
                conn.read.extend_from_slice(&taken.expect("bytes to read"));
            }
        }
    }

    /// Reads what all connections have received: nobody looks at them again.
    pub fn read_the_rest(&mut self) {
        let peers: Vec<_> = self.conns.iter().map(|c| c.peer).collect();
        for peer in peers {
            self.read_all(peer);
        }
    }

    /// Makes a socket for a new connection. `Some` if the SYN is answered without one.
    fn syn(&mut self, head: &Head) -> Option<Vec<Vec<u8>>> {
        let peer = head.flow.src;
        self.read_all(peer);
        let live = self
            .conns
            .iter_mut()
            .rev()
            .find(|c| c.peer == peer && !c.gone);
        if let Some(conn) = live {
            let state = self.sockets.get::<Socket>(conn.handle).state();
            match state {
                State::Closed | State::Listen | State::TimeWait => {
                    self.sockets.remove(conn.handle);
                    conn.gone = true;
                }
                _ if conn.isn == head.seq => return None,
                State::SynReceived => return Some(Vec::new()),
                _ => {
                    let challenge = conn.last.map(|last| Head {
                        seq: last.end(),
                        flags: Flags::ACK,
                        payload_len: 0,
                        options: wire::Options::default(),
                        ..last
                    });
                    return Some(challenge.iter().map(|h| packet::packet(h, &[])).collect());
                }
            }
        }
        if self.refusals > 0 {
            self.refusals -= 1;
            self.refused += 1;
            return None;
        }
        let talk = self
            .scripts
            .iter()
            .position(|s| s.accepted && s.offset(head.seq + 1).is_some())
            .expect("a SYN of a connection that production has accepted");
        let size = self.plan.receive_buffer;
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; size]),
            SocketBuffer::new(vec![0; 20_000]),
        );
        if self.plan.timestamps {
            socket.set_tsval_generator(Some(|| CLOCK.get()));
        }
        socket
            .listen(script::target(self.plan.v6).port)
            .expect("a socket that listens");
        self.conns.push(Conn {
            peer,
            talk,
            isn: head.seq,
            read: Vec::new(),
            finished: false,
            handle: self.sockets.add(socket),
            gone: false,
            greeted: false,
            next: 0,
            to_send: 0,
            answered: 0,
            pause_to: 0,
            closed: false,
            last: None,
        });
        None
    }

    /// When to call [`Target::poll`] next, at the latest.
    pub fn poll_at(&mut self, now: Nanos) -> Option<Nanos> {
        if self.dead {
            return None;
        }
        let at = self.iface.poll_at(instant(now), &self.sockets)?;
        // A look for the application's sake as long as there is a connection.
        let at = (at.total_micros().max(0) as Nanos) * 1_000;
        Some(at.max(now + 1_000))
    }

    /// Time has passed. Returns the packets it sends.
    pub fn poll(&mut self, now: Nanos) -> Vec<Vec<u8>> {
        if self.dead {
            return Vec::new();
        }
        // Near its wrap.
        CLOCK.set(((now / 1_000_000) as u32).wrapping_sub(3_000));
        self.iface
            .poll(instant(now), &mut self.device, &mut self.sockets);
        if now >= self.next_look {
            self.next_look = now + self.plan.lazy;
            for i in 0..self.conns.len() {
                self.application(now, i);
            }
            self.iface
                .poll(instant(now), &mut self.device, &mut self.sockets);
        }
        let sent: Vec<_> = self.device.tx.drain(..).collect();
        for bytes in &sent {
            // What it says of damaged packets is no TCP.
            let Some(head) = packet::decode(bytes).map(|p| p.head) else {
                continue;
            };
            self.resets += u32::from(head.flags.has(Flags::RST));
            let conn = self
                .conns
                .iter_mut()
                .rev()
                .find(|c| c.peer == head.flow.dst);
            if let Some(conn) = conn {
                conn.last = Some(head);
            }
        }
        sent
    }

    fn application(&mut self, now: Nanos, i: usize) {
        let conn = &mut self.conns[i];
        if conn.gone {
            return;
        }
        let (script, mood) = (&self.scripts[conn.talk], self.plan.talks[conn.talk].mood);
        let acted = &mut self.acted[conn.talk];
        let socket = self.sockets.get_mut::<Socket>(conn.handle);
        let before = conn.read.len();
        while socket.can_recv() {
            let taken = socket.recv(|data| (data.len(), data.to_vec()));
            conn.read.extend_from_slice(&taken.expect("bytes to read"));
        }
        if conn.closed && conn.read.len() > before {
            // Nobody reads any more.
            socket.abort();
            return;
        }
        if matches!(mood, Mood::DiesAfter(n) if conn.read.len() >= n as usize && before < conn.read.len())
        {
            self.dead = true;
            return;
        }
        conn.finished |= matches!(socket.state(), State::CloseWait | State::LastAck);
        let start = (conn.isn + 1).since(script.first);
        if !conn.greeted && socket.may_send() && !matches!(socket.state(), State::SynReceived) {
            conn.greeted = true;
            let greeting = if start == 0 { script.greeting } else { 0 };
            conn.to_send += greeting as usize;
            conn.answered += greeting as usize;
        }
        let at = start + conn.read.len() as u32;
        let early = self.plan.answers == Answers::Early;
        let begin = |next: usize| match next {
            0 => 0,
            next => script.exchanges[next - 1].end,
        };
        let is_answered = |next: usize, e: &Exchange| e.end <= at || (early && begin(next) < at);
        while let Some(e) = script.exchanges.get(conn.next)
            && is_answered(conn.next, e)
        {
            if e.end > start {
                if mood == Mood::ResetsAfter(conn.next) && !*acted {
                    *acted = true;
                    socket.abort();
                    return;
                }
                let answer = match self.plan.answers {
                    Answers::Same | Answers::Early => e.answer as usize,
                    // One segment after the other: more would take a bad wire hours.
                    Answers::Paused(_) => e.answer.min(3_000) as usize,
                    Answers::Shorter => e.answer.div_ceil(2) as usize,
                    Answers::Longer => 2 * e.answer as usize + 1,
                    Answers::None => 0,
                };
                conn.to_send += answer;
                conn.answered += answer;
            }
            conn.next += 1;
        }
        while conn.to_send > 0 && socket.can_send() && now >= conn.pause_to {
            let mut size = conn.to_send.min(4_096);
            if let Answers::Paused(ms) = self.plan.answers {
                // In three or four parts, unless it is long.
                size = size.min(conn.answered.div_ceil(3).max(1));
                conn.pause_to = now + ms * MS;
            }
            let chunk = vec![b'a'; size];
            conn.to_send -= socket.send_slice(&chunk).expect("room to send");
        }
        let leaves = matches!(mood, Mood::ClosesAfter(k) if conn.next > k) && !*acted;
        if conn.to_send == 0 && !conn.closed && (socket.state() == State::CloseWait || leaves) {
            *acted |= leaves;
            conn.closed = true;
            socket.close();
        }
    }
}
