//! Strangers at the intercept's server do not keep an engine out.

use super::{KEY, LONG, any_port, clock, server, settings, until};
use engine::links::Links;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// The beginning of a hello, which goes on for longer than anybody waits.
const BEGINNING: &[u8] = b"RPLK\x02\x01\x04\x00\x02\x00\x00\x00";

/// Keeps this many connections open that each say a byte now and then, until `stop`.
fn trickle(address: SocketAddr, connections: usize, stop: &AtomicBool) {
    let connect = || TcpStream::connect(address).map(|stream| (stream, 0));
    let mut sockets: Vec<_> = (0..connections).map(|_| connect().unwrap()).collect();
    while !stop.load(Relaxed) {
        for (socket, said) in &mut sockets {
            let byte = BEGINNING.get(*said).unwrap_or(&b'x');
            match socket.write_all(&[*byte]) {
                Ok(()) => *said += 1,
                // It was thrown out, and comes again.
                Err(_) => {
                    if let Ok(new) = connect() {
                        (*socket, *said) = new;
                    }
                }
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn sixty_four_connections_that_trickle_keep_no_engine_out() {
    let clock = clock();
    let (running, _core) = server(any_port(), Some(KEY), &clock);
    let address = running.address();
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let strangers = std::thread::spawn(move || trickle(address, 64, &flag));
    let counters = running.counters();
    until("all strangers at the door", || {
        (counters.accepted.load(Relaxed) >= 64).then_some(())
    });
    for n in 1..=3 {
        let (links, _ends) =
            Links::start(settings(&[address], Some(KEY)), 1, Arc::clone(&clock)).unwrap();
        links.wait_up(LONG).unwrap();
        assert_eq!(counters.engines.load(Relaxed), 1, "engine {n}");
        // It stays: strangers take the places of strangers alone.
        let before = counters.accepted.load(Relaxed);
        until("more strangers", || {
            (counters.accepted.load(Relaxed) >= before + 32).then_some(())
        });
        assert_eq!(counters.engines.load(Relaxed), 1, "engine {n}");
        links.stop();
        until("the engine gone", || {
            (counters.engines.load(Relaxed) == 0).then_some(())
        });
    }
    stop.store(true, Relaxed);
    strangers.join().unwrap();
    assert!(counters.log_lines_left_out.load(Relaxed) > 0);
    assert!(running.stop());
}
