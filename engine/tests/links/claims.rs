//! Claims of a core over links that have no room: nothing stays claimed.

use super::*;
use engine::claims::Claims;
use std::collections::HashSet;

/// What one receive core of an intercept has been told is claimed.
#[derive(Default)]
struct Table(HashSet<Claim>);

impl Table {
    fn follow(&mut self, core: &mut CoreEnd) {
        while let Some(command) = core.command() {
            match command {
                Command::Claim(claim, _) => self.0.insert(claim),
                Command::Release(claim, _) => self.0.remove(&claim),
            };
        }
    }
}

fn connection(port: u16) -> Flow {
    Flow {
        src: client(port),
        dst: target(),
    }
}

#[test]
fn rings_of_one_and_two_servers_leave_no_claim_behind() {
    let clock = clock();
    let mut servers = [0, 1].map(|_| server(any_port(), Some(KEY), &clock));
    let mut tables = [Table::default(), Table::default()];
    let addresses = servers.each_ref().map(|(running, _)| running.address());
    let settings = Settings {
        commands: 1,
        ..settings(&addresses, Some(KEY))
    };
    let (links, mut ends) = Links::start(settings, 1, Arc::clone(&clock)).unwrap();
    links.wait_up(LONG).unwrap();
    let mut claims = Claims::new(ends.remove(0), 0, 64);

    // Sessions come and go; what finds no room is not opened.
    let (mut open, mut made, mut refused) = (Vec::new(), 0, 0);
    let mut port = 0;
    until("enough claims", || {
        for _ in 0..8 {
            port = if port == 2_000 { 1 } else { port + 1 };
            if open.contains(&port) {
                continue;
            }
            if claims.claim(&connection(port)) {
                made += 1;
                open.push(port);
            } else {
                refused += 1;
            }
        }
        if open.len() > 40 {
            // All at once, so that releases find rings full.
            for port in open.drain(..30) {
                claims.release(&connection(port));
            }
        }
        claims.flush(true);
        (made > 300).then_some(())
    });
    assert!(refused > 0, "the rings were never full");
    for port in open {
        claims.release(&connection(port));
    }
    until("all releases on their way", || {
        claims.flush(true);
        (claims.counts() == (0, 0)).then_some(())
    });
    until("no live claim at the engine", || {
        let stats = links.stats();
        stats.iter().all(|s| s.claims == 0).then_some(())
    });
    links.confirm_claims(LONG).unwrap();
    until("no claim at the intercepts", || {
        for ((running, core), table) in servers.iter_mut().zip(&mut tables) {
            table.follow(core);
            if running.counters().claims.load(Relaxed) > 0 || !table.0.is_empty() {
                return None;
            }
        }
        Some(())
    });
    links.stop();
    for (running, _core) in servers {
        assert!(running.stop());
    }
}
