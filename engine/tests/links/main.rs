//! The engine's control links against a real intercept server over loopback; the test plays the
//! receive core and the workers.

// Helpers of an integration test are not seen as tests by clippy.
#![allow(clippy::unwrap_used, clippy::panic)]

mod claims;
mod strangers;

use engine::links::{COMMANDS, Links, Settings, WorkerEnd};
use intercept::claims::Route;
use intercept::rings::{Command, CoreEnd, rings};
use intercept::server::{Clock, Limits, Running, Server, Settings as ServerSettings};
use link::{Claim, Message};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use wire::{Addr, Endpoint, Flags, Flow, Head, Options, Seq};

const KEY: [u8; 32] = [42; 32];
const LONG: Duration = Duration::from_secs(30);

fn clock() -> Clock {
    let start = Instant::now();
    Arc::new(move || start.elapsed().as_nanos() as u64)
}

fn server(listen: SocketAddr, key: Option<[u8; 32]>, clock: &Clock) -> (Running, CoreEnd) {
    let settings = ServerSettings {
        listen,
        key,
        payload_prefix: 16,
        name: "intercept".into(),
        limits: Limits {
            exact: 100_000,
            ranges: 16,
            exact_a_link: 100_000,
            ranges_a_link: 16,
        },
    };
    let (waker, sleeper) = wake::pair().unwrap();
    let (core, end) = rings(16, waker.clone(), waker.clone());
    // A port that was in use a moment ago may need a little until it can be had again.
    let server = Server::bind(settings, vec![end], sleeper, Arc::clone(clock)).unwrap();
    (server.spawn(waker).unwrap(), core)
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn settings(servers: &[SocketAddr], key: Option<[u8; 32]>) -> Settings {
    Settings {
        servers: servers.to_vec(),
        key,
        insecure: false,
        name: "engine".into(),
        commands: COMMANDS,
        wakers: Vec::new(),
    }
}

fn until<T>(what: &str, mut f: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(t) = f() {
            return t;
        }
        assert!(start.elapsed() < LONG, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn client(port: u16) -> Endpoint {
    Endpoint::new(Addr::v4([10, 1, 0, 1]), port)
}

fn target() -> Endpoint {
    Endpoint::new(Addr::v4([10, 2, 0, 1]), 80)
}

fn claim(port: u16, owner: u16) -> Claim {
    Claim::exact(client(port), target(), owner)
}

fn head(port: u16) -> Head {
    Head {
        flow: claim(port, 0).response_flow().unwrap(),
        seq: Seq(1),
        ack: Seq(2),
        flags: Flags::ACK,
        window: 3,
        urgent: 0,
        options: Options::default(),
        payload_len: 4,
    }
}

fn expect_claim(core: &mut CoreEnd) -> (Claim, u32) {
    match until("a claim at the core", || core.command()) {
        Command::Claim(claim, connection) => (claim, connection),
        other => panic!("expected a claim, got {other:?}"),
    }
}

fn answer(core: &mut CoreEnd, connection: u32, owner: u16, port: u16) {
    core.push(Route { connection, owner }, &head(port), 5, b"HTTP/1.1");
    core.flush_all();
    core.wake();
}

fn say(end: &WorkerEnd, message: Message) {
    for ring in &end.commands {
        ring.push(message.clone()).unwrap();
    }
    end.wake();
}

#[test]
fn responses_reach_the_worker_that_claimed_them() {
    for key in [None, Some(KEY)] {
        let clock = clock();
        let (running, mut core) = server(any_port(), key, &clock);
        let (links, ends) =
            Links::start(settings(&[running.address()], key), 2, Arc::clone(&clock)).unwrap();
        links.wait_up(LONG).unwrap();
        assert_eq!(ends[0].up.load(Relaxed), 1);
        say(&ends[0], Message::Claim(claim(1000, 0)));
        let (first, connection) = expect_claim(&mut core);
        assert_eq!(first, claim(1000, 0));
        say(&ends[1], Message::Claim(claim(1001, 1)));
        assert_eq!(expect_claim(&mut core), (claim(1001, 1), connection));
        answer(&mut core, connection, 1, 1001);
        let record = until("a record", || ends[1].responses.pop());
        assert_eq!(
            (record.head, &*record.prefix),
            (head(1001), &b"HTTP/1.1"[..])
        );
        answer(&mut core, connection, 0, 1000);
        until("a record", || ends[0].responses.pop());
        // An owner that is no worker costs the record, not the link.
        answer(&mut core, connection, 7, 1000);
        until("a dropped record", || {
            (links.stats()[0].records_dropped == 1).then_some(())
        });
        say(&ends[0], Message::Release(claim(1000, 0)));
        until("a release", || {
            core.command()
                .filter(|c| matches!(c, Command::Release(c, _) if *c == claim(1000, 0)))
        });
        let stats = links.stats()[0].clone();
        assert_eq!(
            (stats.up, stats.records, stats.claims, stats.reconnects),
            (true, 2, 1, 0)
        );
        links.stop();
        // The engine's other claim goes with it.
        until("a release", || {
            core.command()
                .filter(|c| matches!(c, Command::Release(c, _) if *c == claim(1001, 1)))
        });
        let counters = running.counters();
        assert_eq!(counters.records_sent.load(Relaxed), 3);
        until("the engine gone", || {
            (counters.engines.load(Relaxed) == 0).then_some(())
        });
        assert_eq!(
            (counters.failed.load(Relaxed), counters.claims.load(Relaxed)),
            (0, 0)
        );
        assert!(running.stop());
    }
}

#[test]
fn after_a_reconnect_everything_live_is_claimed_again() {
    let clock = clock();
    let (running, mut core) = server(any_port(), Some(KEY), &clock);
    let address = running.address();
    let (links, ends) =
        Links::start(settings(&[address], Some(KEY)), 1, Arc::clone(&clock)).unwrap();
    links.wait_up(LONG).unwrap();
    for port in 1..=5000 {
        say(&ends[0], Message::Claim(claim(port, 0)));
    }
    for _ in 1..=5000 {
        expect_claim(&mut core);
    }
    assert!(running.stop());
    until("the link down", || {
        (ends[0].up.load(Relaxed) == 0).then_some(())
    });
    // What changes in between is known after it.
    say(&ends[0], Message::Release(claim(1, 0)));
    say(&ends[0], Message::Claim(claim(6000, 0)));
    let (running, mut core) = server(address, Some(KEY), &clock);
    links.wait_up(LONG).unwrap();
    let mut ports: Vec<u16> = (0..5000)
        .map(|_| *expect_claim(&mut core).0.ports.start())
        .collect();
    ports.sort_unstable();
    let expected: Vec<u16> = (2..=5000).chain([6000]).collect();
    assert_eq!(ports, expected);
    assert_eq!(links.stats()[0].reconnects, 1);
    assert!(links.stats()[0].last_error.is_some());
    answer(&mut core, 1, 0, 6000);
    until("a record", || ends[0].responses.pop());
    links.stop();
    assert!(running.stop());
}

#[test]
fn overlapping_claims_of_two_engines_go_to_the_first() {
    let clock = clock();
    let (running, mut core) = server(any_port(), None, &clock);
    let (one, a) =
        Links::start(settings(&[running.address()], None), 1, Arc::clone(&clock)).unwrap();
    let (two, b) =
        Links::start(settings(&[running.address()], None), 1, Arc::clone(&clock)).unwrap();
    one.wait_up(LONG).unwrap();
    two.wait_up(LONG).unwrap();
    say(&a[0], Message::Claim(claim(1, 0)));
    let (_, first) = expect_claim(&mut core);
    say(&b[0], Message::Claim(claim(1, 0)));
    until("a refusal", || (two.stats()[0].refusals == 1).then_some(()));
    let reason = two.stats()[0].last_error.clone().unwrap();
    assert!(
        reason.contains("10.1.0.1/32")
            && reason.contains("has claimed some of these responses already"),
        "{reason}"
    );
    say(&b[0], Message::Claim(claim(2, 0)));
    let (_, second) = expect_claim(&mut core);
    assert_ne!(first, second);
    one.stop();
    until("the first engine's claim gone", || {
        core.command()
            .filter(|c| matches!(c, Command::Release(_, n) if *n == first))
    });
    say(&b[0], Message::Claim(claim(1, 0)));
    assert_eq!(expect_claim(&mut core), (claim(1, 0), second));
    two.stop();
    assert!(running.stop());
}

#[test]
fn claims_are_confirmed_or_the_refusal_is_said() {
    let clock = clock();
    let servers = [
        server(any_port(), Some(KEY), &clock),
        server(any_port(), Some(KEY), &clock),
    ];
    let addresses = [0, 1].map(|n: usize| servers[n].0.address());
    let start = |addresses: &[SocketAddr]| {
        let (links, ends) =
            Links::start(settings(addresses, Some(KEY)), 2, Arc::clone(&clock)).unwrap();
        links.wait_up(LONG).unwrap();
        (links, ends)
    };
    let (one, a) = start(&addresses);
    for port in 1..=3000 {
        say(
            &a[usize::from(port % 2)],
            Message::Claim(claim(port, port % 2)),
        );
    }
    one.confirm_claims(LONG).unwrap();
    for (running, _) in &servers {
        assert_eq!(running.counters().claims.load(Relaxed), 3000);
    }
    // The very last one of many is taken, at one of the two servers: not a single refusal is
    // missed.
    let (two, b) = start(&addresses[1..]);
    for port in 3001..=5000 {
        say(&b[0], Message::Claim(claim(port, 0)));
    }
    say(&b[1], Message::Claim(claim(3000, 1)));
    let e = two.confirm_claims(LONG).unwrap_err().to_string();
    assert!(
        e.contains(&addresses[1].to_string())
            && e.contains("10.1.0.1/32")
            && e.contains("has claimed some of these responses already"),
        "{e}"
    );
    two.stop();
    one.stop();
    for (running, _core) in servers {
        assert!(running.stop());
    }
    // Nobody is there to confirm.
    let nobody = TcpListener::bind(any_port()).unwrap().local_addr().unwrap();
    let (links, ends) =
        Links::start(settings(&[nobody], Some(KEY)), 1, Arc::clone(&clock)).unwrap();
    say(&ends[0], Message::Claim(claim(1, 0)));
    let e = links
        .confirm_claims(Duration::ZERO)
        .unwrap_err()
        .to_string();
    assert!(e.contains(&nobody.to_string()), "{e}");
    links.stop();
}

#[test]
fn what_is_wrong_is_said_at_the_engine() {
    let clock = clock();
    let (running, _core) = server(any_port(), Some(KEY), &clock);
    let check = |key, address: SocketAddr| {
        Links::check(&settings(&[address], key), &clock).map_err(|e| e.to_string())
    };
    assert_eq!(check(Some(KEY), running.address()), Ok(()));
    let e = check(Some([1; 32]), running.address()).unwrap_err();
    assert!(
        e.contains("does not have the same key") && e.contains(&running.address().to_string()),
        "{e}"
    );
    let e = check(None, running.address()).unwrap_err();
    assert!(e.contains("requires a key"), "{e}");
    // Nobody listens: the port is taken from one who did.
    let nobody = TcpListener::bind(any_port()).unwrap().local_addr().unwrap();
    let e = check(None, nobody).unwrap_err();
    assert!(
        e.contains("refused") && e.contains(&nobody.to_string()),
        "{e}"
    );
    // The same by the running links.
    let (links, _ends) = Links::start(
        settings(&[running.address()], Some([1; 32])),
        1,
        Arc::clone(&clock),
    )
    .unwrap();
    let down = until("an error", || links.stats()[0].last_error.clone());
    assert!(down.contains("does not have the same key"), "{down}");
    let e = links.wait_up(Duration::ZERO).unwrap_err().to_string();
    assert!(e.contains("does not have the same key"), "{e}");
    links.stop();
    assert_eq!(running.counters().engines.load(Relaxed), 0);
    assert!(running.stop());
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let start = |servers: &[&str], insecure| {
        let servers: Vec<SocketAddr> = servers.iter().map(|s| s.parse().unwrap()).collect();
        let settings = Settings {
            insecure,
            ..settings(&servers, None)
        };
        Links::start(settings, 1, clock())
            .map(|(links, _)| links.stop())
            .map_err(|e| e.to_string())
    };
    assert!(
        start(&[], false)
            .unwrap_err()
            .contains("intercept.servers is empty")
    );
    let e = start(&["127.0.0.1:1", "127.0.0.1:1"], false).unwrap_err();
    assert!(e.contains("127.0.0.1:1 twice"), "{e}");
    let e = start(&["192.0.2.1:36524"], false).unwrap_err();
    assert!(
        e.contains("192.0.2.1:36524") && e.contains("key_file") && e.contains("insecure"),
        "{e}"
    );
    assert_eq!(start(&["192.0.2.1:36524"], true), Ok(()));
}

#[test]
fn a_worker_that_takes_nothing_loses_counted_records() {
    let clock = clock();
    let (running, mut core) = server(any_port(), None, &clock);
    let (links, ends) =
        Links::start(settings(&[running.address()], None), 1, Arc::clone(&clock)).unwrap();
    links.wait_up(LONG).unwrap();
    say(&ends[0], Message::Claim(claim(1, 0)));
    let (_, connection) = expect_claim(&mut core);
    let route = Route {
        connection,
        owner: 0,
    };
    let pushed = 100_000;
    for _ in 0..pushed {
        core.push(route, &head(1), 0, &[]);
    }
    core.flush_all();
    let at_core = core.dropped();
    let stats = until("all records", || {
        let s = links.stats()[0].clone();
        (s.records + s.records_dropped + at_core == pushed).then_some(s)
    });
    let mut got = 0;
    while ends[0].responses.pop().is_some() {
        got += 1;
    }
    assert_eq!(got, stats.records);
    let counters = running.counters();
    let sent = counters.records_sent.load(Relaxed);
    assert_eq!(sent, stats.records + stats.records_dropped);
    links.stop();
    assert!(running.stop());
}

#[test]
fn responses_have_the_time_of_their_reception_on_the_engine_s_clock() {
    let later = |clock: &Clock, by: u64| -> Clock {
        let clock = Arc::clone(clock);
        Arc::new(move || clock() + by)
    };
    let ours = later(&clock(), 1_000_000_000_000);
    let theirs = later(&ours, 3_600_000_000_000);
    let (running, mut core) = server(any_port(), None, &theirs);
    let (links, ends) =
        Links::start(settings(&[running.address()], None), 1, Arc::clone(&ours)).unwrap();
    links.wait_up(LONG).unwrap();
    say(&ends[0], Message::Claim(claim(1, 0)));
    let (_, connection) = expect_claim(&mut core);
    let error = until("an echo", || links.stats()[0].clock_error_us);
    assert!(error < 1_000_000, "{error} us");
    let route = Route {
        connection,
        owner: 0,
    };
    // One was received long before it is handed on, one in the future.
    let late = 5_000_000_000;
    let (received, at) = (ours(), theirs());
    for at in [at - late, at + late] {
        core.push(route, &head(1), at, &[]);
    }
    core.flush_all();
    core.wake();
    let record = || until("a record", || ends[0].responses.pop()).received_at;
    let (first, second) = (record(), record());
    // Between the two clocks' readings above, a little time passed as well.
    let wrong = first.abs_diff(received - late);
    assert!(wrong <= 100_000_000 + error * 1_000, "{wrong} ns");
    assert!((received..=ours()).contains(&second), "{second}");
    links.stop();
    assert!(running.stop());
}
