//! A target that hangs makes room for others when buffers are short, and not before.

use super::*;
use crate::params::Target;
use std::collections::HashMap;

const SEGMENTS: usize = 64;
const OTHER_SERVER: Endpoint = Endpoint::new(Addr::v4([10, 10, 0, 3]), 80);
const OTHER: Endpoint = Endpoint::new(Addr::v4([10, 20, 0, 3]), 8080);

/// Two targets: the usual one, and [`OTHER`].
fn bed() -> Bed {
    Bed::with(|p| {
        p.transfers.push(Transfer::new(OTHER_SERVER, OTHER));
        p.max_sessions = 64;
        p.max_segments = SEGMENTS;
    })
}

/// A session with its connection to the target.
fn open(b: &mut Bed, port: u16, server: Endpoint) -> (Conv, Conn) {
    let mut c = Conv::new(port);
    c.flow.dst = server;
    assert_eq!(b.syn(&mut c), Ok(()));
    b.syn_ack(&mut c);
    b.ack(&c);
    let syn = b.last_syn();
    (c, b.accept_syn(&syn))
}

/// Sessions whose target never acknowledges, until one is turned away: they hold all there is.
fn fill(b: &mut Bed, server: Endpoint) -> Vec<Conv> {
    let mut all = Vec::new();
    for port in 4000.. {
        let held = b.core.segment_count();
        if held * 8 > SEGMENTS * 7 {
            break;
        }
        let (mut c, _) = open(b, port, server);
        for _ in 0..6 {
            b.say(&mut c, 100);
        }
        all.push(c);
    }
    all
}

fn lost(b: &Bed, transfer: usize) -> Vec<(&'static str, u64)> {
    let turns = b.core.targets()[transfer].lost_turns;
    let named = Loss::ALL.map(Loss::name).into_iter().zip(turns);
    named.filter(|(_, n)| *n > 0).collect()
}

fn held(b: &Bed, transfer: usize) -> u64 {
    b.core.targets()[transfer].held_segments
}

#[test]
fn a_target_that_hangs_costs_the_other_nothing() {
    let mut b = bed();
    let mut hanging = fill(&mut b, PRODUCTION);
    // What is left goes, too: nobody else needs it.
    let last = hanging.last_mut().unwrap();
    while b.core.segment_count() < SEGMENTS {
        b.say(last, 10);
    }
    assert_eq!(lost(&b, 0), []);
    // Sessions of the other target find room, each of them and all of their turns.
    for port in 5000..5020 {
        let (mut c, mut conn) = open(&mut b, port, OTHER_SERVER);
        for _ in 0..5 {
            b.exchange(&mut c, &mut conn, 100, 50);
            // The hanging one's clients go on.
            for c in &mut hanging {
                let _ = b.mirror(&c.head(Flags::PSH, 10));
                c.c += 10;
            }
        }
        b.fin(&mut c);
        assert_eq!(b.receive(&mut conn), (0, true));
        b.close(&mut conn);
    }
    assert_eq!(lost(&b, 1), []);
    let other = &b.core.targets()[1];
    assert_eq!((other.replayed_turns, other.replayed_sessions), (100, 20));
    assert!(b.lost(Loss::TargetBudget).0 > 0);
    let reasons: Vec<_> = lost(&b, 0).iter().map(|(reason, _)| *reason).collect();
    assert!(
        reasons
            .iter()
            .all(|r| ["target_budget", "buffers"].contains(r)),
        "{reasons:?}"
    );
}

#[test]
fn sessions_that_lost_what_they_held_go_on() {
    let mut b = bed();
    let mut hanging = fill(&mut b, PRODUCTION);
    let (mut c, mut conn) = open(&mut b, 5000, OTHER_SERVER);
    for _ in 0..10 {
        b.say(&mut c, 100);
    }
    b.pass(MS);
    assert!(b.lost(Loss::TargetBudget).0 > 0);
    assert!(
        b.core.segment_count() * 8 <= SEGMENTS * 7,
        "there is room again"
    );
    assert_eq!(b.receive(&mut conn), (1_000, false));
    // The target is well again: one that had lost its turn replays its next.
    let first = &mut hanging[0];
    b.answer(first, 10);
    b.take();
    b.say(first, 70);
    let mut again = b.accept();
    assert_eq!(b.receive(&mut again), (70, false));
    assert_eq!(lost(&b, 1), []);
}

#[test]
fn two_that_hang_have_half_of_it_each() {
    let mut b = bed();
    fill(&mut b, PRODUCTION);
    for port in 5000..5008 {
        let mut c = Conv::new(port);
        c.flow.dst = OTHER_SERVER;
        if b.syn(&mut c).is_err() {
            break;
        }
        b.syn_ack(&mut c);
        let _ = b.mirror(&c.head(Flags::default(), 0));
        for _ in 0..12 {
            let _ = b.mirror(&c.head(Flags::PSH, 10));
            c.c += 10;
        }
        b.pass(MS);
    }
    let (one, other) = (held(&b, 0), held(&b, 1));
    let half = SEGMENTS as u64 / 2;
    assert!(one >= half / 2 && other >= half / 2, "{one} and {other}");
    assert!(one + other <= SEGMENTS as u64);
    assert_eq!(b.counters().balance(), Ok(()));
}

#[test]
fn transfers_to_one_target_owe_nothing_to_each_other() {
    let mut b = Bed::with(|p| {
        p.transfers.push(Transfer::new(OTHER_SERVER, TARGET));
        p.max_sessions = 64;
        p.max_segments = SEGMENTS;
    });
    fill(&mut b, PRODUCTION);
    let mut c = Conv::new(5000);
    c.flow.dst = OTHER_SERVER;
    let begun = b.syn(&mut c).is_ok();
    if begun {
        b.syn_ack(&mut c);
        let _ = b.mirror(&c.head(Flags::default(), 0));
    }
    b.pass(SECOND);
    assert_eq!(b.lost(Loss::TargetBudget).0, 0);
    assert_eq!(b.counters().sessions_shed, 1);
}

/// A generator of numbers that are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// What the targets answer to what was sent: of 100 segments so many are taken by each.
fn serve(b: &mut Bed, conns: &mut HashMap<Flow, Conn>, dice: &mut Dice, takes: [u64; 2]) {
    for _ in 0..20 {
        let sent = b.take();
        if sent.is_empty() {
            return;
        }
        for h in sent {
            let well = takes[usize::from(h.flow.dst == OTHER)];
            let asks = h.flags == Flags::SYN;
            if dice.below(100) >= if asks { 5 * well } else { well } {
                continue;
            }
            if asks {
                let conn = b.accept_syn(&h);
                conns.insert(h.flow, conn);
            } else if h.flags.has(Flags::RST) {
                conns.remove(&h.flow);
            } else if let Some(conn) = conns.get_mut(&h.flow)
                && h.seq.le(conn.rcv)
                && h.end().gt(conn.rcv)
            {
                conn.rcv = h.end();
                let head = conn.head(Flags::default(), 0);
                b.respond(&head);
            }
        }
    }
}

/// Whatever two targets of three transfers do, one of which goes to both, in whatever order: every
/// list, sum and budget holds after every frame, which the bed looks at.
#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn books_and_budgets_hold_whatever_targets_do() {
    let (mut shed, mut unconfirmed) = (0, 0);
    for seed in 1..=6 {
        let mut dice = Dice(seed);
        let third = Endpoint::new(Addr::v4([10, 10, 0, 4]), 80);
        let mut b = Bed::with(|p| {
            p.transfers.push(Transfer::new(OTHER_SERVER, OTHER));
            p.transfers.push(Transfer::new(third, TARGET));
            // The last one's sessions go to both, not all of them to the second.
            let share = Some([100.0, 50.0][(seed / 2 % 2) as usize]);
            p.transfers[2].to.push(Target {
                percent: share,
                ..Target::new(OTHER)
            });
            p.max_sessions = 24;
            p.max_segments = 24;
            p.session_timeout = 600 * SECOND;
            p.copies = 1 + (seed % 2) as u16;
            p.canaries = 1 + (seed % 3) as usize;
        });
        let (mut talks, mut conns) = (Vec::<Conv>::new(), HashMap::new());
        // What each target takes, which changes now and then.
        let mut takes = [0, 0];
        for step in 0..1_200 {
            if step % 100 == 0 {
                takes = [0, 1].map(|_| [0, 10, 10, 100][dice.below(4) as usize]);
            }
            let chosen = dice.below(talks.len().max(1) as u64) as usize;
            match (dice.below(12), talks.get_mut(chosen)) {
                (0..=1, _) | (_, None) => {
                    let mut c = Conv::new(4000 + step);
                    c.flow.dst = [PRODUCTION, OTHER_SERVER, third][dice.below(3) as usize];
                    if b.syn(&mut c).is_ok() {
                        b.syn_ack(&mut c);
                        let _ = b.mirror(&c.head(Flags::default(), 0));
                        talks.push(c);
                    }
                }
                (2, Some(_)) => {
                    let c = talks.swap_remove(chosen);
                    let _ = b.mirror(&c.head(Flags::FIN, 0));
                }
                (3, Some(c)) => b.say_unseen(c, 10),
                (4, Some(c)) => {
                    // Production answers: what the client says next is another turn.
                    c.s += 20;
                    c.ack = c.s;
                }
                (5, Some(_)) if dice.below(8) == 0 => b.pass(dice.below(90 * SECOND)),
                (_, Some(c)) => {
                    let n = 1 + dice.below(60) as u32;
                    let _ = b.mirror(&c.head(Flags::PSH, n));
                    c.c += n;
                }
            }
            serve(&mut b, &mut conns, &mut dice, takes);
            b.pass(MS);
            b.audit();
        }
        shed += b.lost(Loss::TargetBudget).0;
        unconfirmed += b.lost(Loss::TargetUnconfirmed).0;
        b.core.drain(b.now, &mut b.out);
        b.core.abandon(b.now, &mut b.out);
        b.pass(MS);
        b.audit();
        assert_eq!(b.core.segment_count(), 0, "seed {seed}");
    }
    assert!(shed > 0 && unconfirmed > 0, "{shed} and {unconfirmed}");
}
