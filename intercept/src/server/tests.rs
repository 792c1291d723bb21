//! The server with real sockets and a clock that the test sets: it moves when the test says so.

use super::*;
use crate::rings::rings;
use link::{ESTABLISH_WITHIN, Role};
use link_tcp::Stream;
use rustix::net;
use std::io::{Read, Write};
use std::net::Ipv4Addr;

const KEY: [u8; 32] = [42; 32];
const LIMITS: Limits = Limits {
    exact: 8,
    ranges: 8,
    exact_a_link: 4,
    ranges_a_link: 4,
};

struct Bed {
    server: Server,
    now: Arc<AtomicU64>,
    address: SocketAddr,
}

impl Bed {
    fn new(key: Option<[u8; 32]>) -> Self {
        let (waker, sleeper) = wake::pair().unwrap();
        let (_core, end) = rings(1, waker.clone(), waker);
        let now = Arc::new(AtomicU64::new(1));
        let time = Arc::clone(&now);
        let settings = Settings {
            listen: (Ipv4Addr::UNSPECIFIED, 0).into(),
            key,
            payload_prefix: 0,
            name: "intercept".into(),
            limits: LIMITS,
        };
        let clock: Clock = Arc::new(move || time.load(Relaxed));
        let server = Server::bind(settings, vec![end], sleeper, clock).unwrap();
        let mut address = server.listener.local_addr().unwrap();
        address.set_ip(Ipv4Addr::LOCALHOST.into());
        Self {
            server,
            now,
            address,
        }
    }

    /// A connection from this loopback address that the server has accepted.
    fn stranger(&mut self, from: Ipv4Addr) -> TcpStream {
        let before = self.server.counters.accepted.load(Relaxed);
        let socket = net::socket(net::AddressFamily::INET, net::SocketType::STREAM, None).unwrap();
        net::bind(&socket, &SocketAddr::from((from, 0))).unwrap();
        net::connect(&socket, &self.address).unwrap();
        let stream = TcpStream::from(socket);
        while self.server.counters.accepted.load(Relaxed) == before {
            self.server.round();
        }
        stream
    }

    fn pass(&mut self, time: Nanos) {
        self.now.fetch_add(time, Relaxed);
    }

    /// An engine's end of a connection.
    fn engine(&mut self, key: Option<[u8; 32]>, instance: u64) -> Stream {
        let socket = self.stranger(Ipv4Addr::LOCALHOST);
        let settings = link::Settings {
            role: Role::Engine,
            name: "engine".into(),
            instance,
            payload_prefix: 0,
            key,
        };
        Stream::new(socket, settings, self.now.load(Relaxed)).unwrap()
    }

    /// Lets server and engine talk until the server says that this many engines are connected.
    fn connect(&mut self, engine: &mut Stream, engines: u64) {
        let mut buffer = [0; 4096];
        while self.server.counters.engines.load(Relaxed) != engines {
            engine.write().unwrap();
            self.server.round();
            let now = self.now.load(Relaxed);
            engine.read(&mut buffer, &|| now).unwrap();
        }
    }

    fn count(&self, counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        counter(&self.server.counters).load(Relaxed)
    }
}

fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    loop {
        match (&*stream).read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) => return e.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn connections_that_trickle_are_gone_in_time_and_keep_no_engine_out() {
    let mut bed = Bed::new(Some(KEY));
    let mut strangers: Vec<TcpStream> = Vec::new();
    // The beginning of a frame that is never finished, one byte every fifth of a second.
    let frame = *b"RPLK\x02\x01\x04\x00.........";
    for _ in 0..64 {
        strangers.push(bed.stranger(Ipv4Addr::LOCALHOST));
    }
    assert_eq!(bed.count(|c| &c.waiting), waiting::MOST_OF_ONE as u64);
    assert_eq!(bed.count(|c| c.turned_away(TurnedAway::Displaced)), 48);
    for byte in frame.iter().take(14) {
        for mut stranger in &strangers {
            // Those that are gone cannot be written to.
            let _ = stranger.write(&[*byte]);
        }
        bed.server.round();
        bed.pass(200_000_000);
    }
    assert_eq!(bed.count(|c| &c.waiting), waiting::MOST_OF_ONE as u64);
    let mut engine = bed.engine(Some(KEY), 1);
    bed.connect(&mut engine, 1);
    bed.pass(ESTABLISH_WITHIN - 14 * 200_000_000);
    bed.server.round();
    assert_eq!(bed.count(|c| &c.waiting), 0);
    assert_eq!(bed.count(|c| c.turned_away(TurnedAway::TooSlow)), 15);
    assert_eq!(bed.count(|c| c.turned_away(TurnedAway::Displaced)), 49);
    assert_eq!(bed.count(|c| &c.failed), 64);
    assert_eq!(bed.count(|c| &c.engines), 1);
    assert!(strangers.iter().all(is_closed));
}

#[test]
fn one_source_that_connects_without_end_does_not_push_out_another() {
    let mut bed = Bed::new(Some(KEY));
    let mut quiet = bed.stranger(Ipv4Addr::new(127, 0, 0, 2));
    let mut strangers = Vec::new();
    for _ in 0..200 {
        strangers.push(bed.stranger(Ipv4Addr::LOCALHOST));
    }
    assert!(!is_closed(&quiet));
    quiet.write_all(b"?").unwrap();
    while bed.count(|c| c.turned_away(TurnedAway::Rejected)) == 0 {
        bed.server.round();
    }
    assert!(is_closed(&quiet));
    assert_eq!(bed.count(|c| &c.waiting), waiting::MOST_OF_ONE as u64);
}

#[test]
fn lines_about_strangers_are_one_a_second() {
    let mut bed = Bed::new(Some(KEY));
    for _ in 0..50 {
        let mut stranger = bed.stranger(Ipv4Addr::LOCALHOST);
        stranger.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    }
    while bed.count(|c| c.turned_away(TurnedAway::Rejected)) < 50 {
        bed.server.round();
    }
    assert_eq!(bed.count(|c| &c.log_lines_left_out), 49);
    bed.pass(1_000_000_000);
    drop(bed.stranger(Ipv4Addr::LOCALHOST));
    while bed.count(|c| &c.failed) < 51 {
        bed.server.round();
    }
    // A line of another second; those of the first are told by it or by one of their own.
    assert_eq!(bed.count(|c| &c.log_lines_left_out) - 49, 1);
}

#[test]
fn there_are_so_many_engines_and_no_more() {
    let mut bed = Bed::new(None);
    let mut engines = Vec::new();
    for n in 1..=MAX_ENGINES as u64 {
        let mut engine = bed.engine(None, n);
        bed.connect(&mut engine, n);
        engines.push(engine);
    }
    let mut one_more = bed.engine(None, 1_000);
    let mut buffer = [0; 4096];
    let error = loop {
        let _ = one_more.write();
        bed.server.round();
        if let Err(e) = one_more.read(&mut buffer, &|| 1) {
            break e;
        }
    };
    assert!(matches!(error, link_tcp::Error::Closed), "{error}");
    let Some(Message::Refuse { reason }) = one_more.connection.next_message() else {
        panic!("it is not told why")
    };
    assert!(reason.contains("64 engines"), "{reason}");
    assert_eq!(bed.count(|c| c.turned_away(TurnedAway::EnginesFull)), 1);
    assert_eq!(bed.count(|c| &c.engines), MAX_ENGINES as u64);
    // One of them that connects again takes the place of its older connection.
    let mut again = bed.engine(None, 7);
    while bed.count(|c| &c.failed) < 2 {
        let _ = again.write();
        bed.server.round();
    }
    assert_eq!(bed.count(|c| &c.engines), MAX_ENGINES as u64);
    assert_eq!(bed.count(|c| c.turned_away(TurnedAway::EnginesFull)), 1);
}

#[test]
fn an_engine_has_its_share_of_the_claims_and_is_told() {
    let mut bed = Bed::new(Some(KEY));
    let mut engine = bed.engine(Some(KEY), 1);
    bed.connect(&mut engine, 1);
    let end = |port| wire::Endpoint::new(wire::Addr::v4([10, 0, 0, 1]), port);
    for port in 0..6 {
        let claim = Claim::exact(end(port), end(80), 0);
        engine.connection.send(&Message::Claim(claim)).unwrap();
    }
    let mut refusals = 0;
    let mut buffer = [0; 4096];
    while refusals < 2 {
        engine.write().unwrap();
        bed.server.round();
        engine.read(&mut buffer, &|| 1).unwrap();
        while let Some(message) = engine.connection.next_message() {
            assert!(matches!(message, Message::Refuse { .. }));
            refusals += 1;
        }
    }
    assert_eq!(bed.count(|c| &c.claims), LIMITS.exact_a_link as u64);
    assert_eq!(bed.count(|c| c.claims_refused(ClaimRefused::LinkFull)), 2);
}
