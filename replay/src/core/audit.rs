//! What always holds for a core, computed anew from all it keeps. For tests and fuzzing: it walks
//! every list, so it has no place on a packet path.

use super::Core;
use crate::capture::session::{List, Listed, Phase, Session};
use crate::counters::TargetCounters;
use crate::piece::Charge;
use crate::pos::StreamPos;
use crate::replica::data::{Feed, Replica};
use crate::slab::NIL;
use crate::tcp::State;
use wire::io::Payload;

/// What the walk over all sessions has added up.
#[derive(Default)]
struct Sums {
    sessions: usize,
    listed: usize,
    frames: usize,
    replicas: usize,
    active: usize,
    boards: usize,
    segs: usize,
    waiting: usize,
    turns: usize,
    /// Replicas that wait for their target's first answer, and for each target those that ask it.
    awaiting: usize,
    asking: Vec<usize>,
    /// For each target: segments and buffers of frames that are held, turns and bytes in flight.
    held: Vec<(usize, usize)>,
    in_flight: Vec<(u64, u64)>,
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

fn ensure_bytes(payload: Option<&impl Payload>, pos: StreamPos, len: u32) -> Result<(), String> {
    let bytes = payload.map(|p| p.bytes().len() as u32);
    ensure(bytes == Some(len) && len > 0, || {
        format!("segment at {pos:?} has {bytes:?} bytes of {len}")
    })
}

impl<P: Payload> Core<P> {
    /// Checks the books, every list and pointer, and that somebody looks again at whatever waits.
    /// `Err` says in one sentence what does not hold. Takes time in proportion to everything
    /// the core holds.
    pub fn audit(&self) -> Result<(), String> {
        self.counters().balance()?;
        let (c, r) = (&self.capture, &self.replicas);
        let mut sums = Sums {
            held: vec![(0, 0); self.targets().len()],
            in_flight: vec![(0, 0); self.targets().len()],
            ..Sums::default()
        };
        for sid in c.sessions.ids() {
            if c.sessions[sid].phase != Phase::Free {
                self.audit_session(sid, &mut sums)
                    .map_err(|e| format!("session {sid} ({}): {e}", c.sessions[sid].flow))?;
            }
        }
        let counters = self.counters();
        let pairs = [
            ("sessions", sums.sessions, c.sessions.len()),
            ("listed sessions", sums.listed, c.flows.len()),
            ("replicas", sums.replicas, r.replicas.len()),
            ("active replicas", sums.active, r.active),
            ("connections", sums.active, r.connections.len()),
            ("scoreboards", sums.boards, r.boards.len()),
            ("segments", sums.segs, r.segs.len()),
            ("waiting segments", sums.waiting, c.waiting.len()),
            ("places for waiting segments", sums.waiting, r.reserved),
            ("buffers of frames", sums.frames, r.frames),
            ("turns", sums.turns, r.turns.len()),
            // A replica that is done has no timer, and neither has a session that was removed.
            ("session timers", sums.sessions, c.timers.armed()),
        ];
        for (what, found, kept) in pairs {
            ensure(found == kept, || {
                format!("{what}: {found} are reachable, but {kept} are accounted for")
            })?;
        }
        let armed = r.timers.armed();
        ensure(armed <= sums.active, || {
            format!("{armed} timers are armed for {} replicas", sums.active)
        })?;
        for (i, t) in self.targets().iter().enumerate() {
            audit_target(t, sums.held[i], sums.in_flight[i])
                .map_err(|e| format!("target {i}: {e}"))?;
        }
        let frames = counters.held_frames as usize;
        ensure(frames == r.frames, || {
            format!("{frames} buffers of frames of targets, {} in all", r.frames)
        })?;
        let held = counters.held_segments as usize;
        ensure(held == r.held_segments(), || {
            format!("{held} segments of targets, {} in all", r.held_segments())
        })?;
        let waiting = counters.awaiting_replicas as usize;
        ensure(sums.awaiting == waiting, || {
            format!(
                "{} replicas wait for a first answer, {waiting} counted",
                sums.awaiting
            )
        })?;
        for (transfer, answered, asking) in r.canary.asking() {
            let found = sums.asking.get(usize::from(transfer)).copied();
            let found = found.unwrap_or(0);
            ensure(
                answered || (asking == found && found <= self.params.canaries),
                || format!("{found} connections under way to target {transfer}, {asking} counted"),
            )?;
        }
        let gone = counters.schedule_late.count() + counters.schedule_held.count();
        ensure(
            (counters.replayed_turns..=counters.owed_turns).contains(&gone),
            || {
                format!(
                    "{gone} turns have gone, of {} that are owed; {} are replayed",
                    counters.owed_turns, counters.replayed_turns
                )
            },
        )?;
        let used = self.slots().0;
        ensure(r.slots.is_empty() || used == sums.active, || {
            format!("{used} slots are in use by {} replicas", sums.active)
        })
    }

    fn audit_session(&self, sid: u32, sums: &mut Sums) -> Result<(), String> {
        let s = &self.capture.sessions[sid];
        sums.sessions += 1;
        if s.listed != Listed::No {
            sums.listed += 1;
            ensure(self.capture.is_found(sid), || {
                "its flow leads elsewhere".into()
            })?;
        }
        ensure(self.capture.timers.deadline(sid).is_some(), || {
            "no timer looks at it".into()
        })?;
        let waiting = self.waiting_ids(s.waiting)?;
        ensure(!s.early || s.phase == Phase::Joining, || {
            "it keeps what came before its SYN, though it is in step".into()
        })?;
        self.audit_waiting(s, &waiting)?;
        sums.waiting += waiting.len();
        let fan = self.fans.targets(s.fan);
        let feeds = self.replicas.feeds_of(sid);
        ensure(feeds.len() == fan.len(), || {
            format!("{} feeds for {} targets", feeds.len(), fan.len())
        })?;
        let open = |id: u32| self.replicas.feeds[id as usize].turn_open;
        let any_open = feeds.clone().any(open);
        for (i, id) in feeds.enumerate() {
            let feed = &self.replicas.feeds[id as usize];
            ensure(feed.target == fan[i], || {
                format!("feed {i} goes to target {}, not {}", feed.target, fan[i])
            })?;
            ensure(feed.missing.is_none() || !feed.turn_open, || {
                format!("feed {i} is out of step, but its turn is open")
            })?;
            ensure(feed.turn_open == any_open || feed.missing.is_some(), || {
                format!("feed {i} has no open turn, as others have")
            })?;
            // What waits beyond a gap counts at the first target.
            let waiting: &[u32] = if i == 0 { &waiting } else { &[] };
            self.audit_feed(s, feed, waiting, sums)?;
        }
        Ok(())
    }

    fn audit_feed(
        &self,
        s: &Session,
        feed: &Feed,
        waiting: &[u32],
        sums: &mut Sums,
    ) -> Result<(), String> {
        let segs = self.seg_ids(feed.segs)?;
        let turns = self.turn_ids(feed.turns)?;
        sums.segs += segs.len();
        sums.turns += turns.len();
        let here = segs.iter().map(|&id| &self.replicas.segs[id].payload);
        let there = waiting.iter().map(|&id| &self.capture.waiting[id].payload);
        let (mut held, mut frames) = (0_u64, 0);
        for payload in here.chain(there).flatten() {
            let charge = Charge::of(payload);
            held += u64::from(charge.bytes);
            frames += usize::from(charge.frame);
        }
        sums.frames += frames;
        let of = &mut sums.held[usize::from(feed.target)];
        *of = (of.0 + segs.len() + waiting.len(), of.1 + frames);
        ensure(held == u64::from(feed.held), || {
            format!("{} bytes held, {held} in its lists", feed.held)
        })?;
        self.audit_segments(&segs)?;
        let open = turns
            .last()
            .is_some_and(|&t| !self.replicas.turns[t].closed);
        ensure(feed.turn_open == open, || {
            "its open turn and its last turn disagree".into()
        })?;
        ensure(!feed.turn_fresh, || {
            "its replicas were not told of its newest turn".into()
        })?;
        let ended = s.phase == Phase::Ended;
        ensure(ended == feed.end.is_some(), || {
            "its halves disagree whether it has ended".into()
        })?;
        let replicas = self.replica_ids(feed)?;
        sums.replicas += replicas.len();
        for (at, &id) in segs.iter().enumerate() {
            let holders = replicas
                .iter()
                .filter(|&&r| position(&segs, self.replicas.replicas[r].una) <= at)
                .count();
            let seg = &self.replicas.segs[id];
            let kept = usize::from(seg.holders);
            ensure(holders == kept, || {
                format!("segment at {:?}: {kept} holders, not {holders}", seg.pos)
            })?;
        }
        for (at, &id) in turns.iter().enumerate() {
            let open = replicas
                .iter()
                .filter(|&&r| position(&turns, self.replicas.replicas[r].turn) <= at)
                .count();
            let turn = &self.replicas.turns[id];
            let kept = usize::from(turn.open_for);
            ensure(open == kept, || {
                format!("turn {}: open for {kept}, not {open}", turn.number)
            })?;
        }
        for rid in replicas {
            self.audit_replica(rid, &segs, &turns, sums)
                .map_err(|e| format!("replica {rid}: {e}"))?;
        }
        Ok(())
    }

    fn replica_ids(&self, feed: &Feed) -> Result<Vec<u32>, String> {
        let (mut rid, mut replicas) = (feed.first_replica, Vec::new());
        while rid != NIL {
            ensure(replicas.len() < self.replicas.replicas.len(), || {
                "its replicas form a circle".into()
            })?;
            replicas.push(rid);
            rid = self.replicas.replicas[rid].next;
        }
        ensure(replicas.len() == usize::from(feed.replica_count), || {
            format!("{} replicas, not {}", replicas.len(), feed.replica_count)
        })?;
        Ok(replicas)
    }

    fn audit_segments(&self, segs: &[u32]) -> Result<(), String> {
        let at = |id: u32| &self.replicas.segs[id];
        for pair in segs.windows(2) {
            let (a, b) = (at(pair[0]), at(pair[1]));
            let follows = if a.turn == b.turn {
                a.end() == b.pos
            } else {
                a.end() <= b.pos && a.turn_number < b.turn_number
            };
            ensure(follows, || {
                format!("segment at {:?} does not follow {:?}", b.pos, a.end())
            })?;
        }
        for &id in segs {
            let seg = at(id);
            ensure_bytes(seg.payload.as_ref(), seg.pos, seg.len)?;
        }
        Ok(())
    }

    fn audit_waiting(&self, s: &Session, waiting: &[u32]) -> Result<(), String> {
        let at = |id: u32| &self.capture.waiting[id];
        for pair in waiting.windows(2) {
            let (a, b) = (at(pair[0]), at(pair[1]));
            ensure(s.early || a.end() <= b.pos, || {
                format!("beyond the gap {:?} overlaps {:?}", a.pos, b.pos)
            })?;
        }
        for &id in waiting {
            let w = at(id);
            ensure_bytes(w.payload.as_ref(), w.pos, w.len)?;
        }
        let beyond = !s.early && !waiting.is_empty();
        let open = s.phase == Phase::Synced && s.shows_more();
        ensure(
            (!beyond && !open) || s.gap_since.is_set() || s.phase == Phase::Ended,
            || "nobody looks at its gap".into(),
        )
    }

    fn audit_replica(
        &self,
        rid: u32,
        segs: &[u32],
        turns: &[u32],
        sums: &mut Sums,
    ) -> Result<(), String> {
        let half = &self.replicas;
        let r = &half.replicas[rid];
        let in_list = |ids: &[u32], id: u32| id == NIL || ids.contains(&id);
        ensure(in_list(segs, r.una) && in_list(segs, r.nxt), || {
            "points at a segment that is not the session's".into()
        })?;
        ensure(in_list(turns, r.turn), || {
            "points at a turn that is not the session's".into()
        })?;
        ensure(position(segs, r.una) <= position(segs, r.nxt), || {
            "its next segment stands before its oldest".into()
        })?;
        sums.boards += usize::from(r.board != NIL);
        let open = turns.get(position(turns, r.turn)..).unwrap_or(&[]);
        let in_flight = &mut sums.in_flight[usize::from(r.target)];
        in_flight.0 += open.len() as u64;
        for (i, &id) in open.iter().enumerate() {
            let t = &half.turns[id];
            let from = if i == 0 {
                ensure(t.start <= r.settled && r.settled <= t.end, || {
                    format!("settled to {:?}, outside of its turn", r.settled)
                })?;
                r.settled
            } else {
                t.start
            };
            in_flight.1 += t.end.since(from);
        }
        if r.is_done() {
            return ensure(r.una == NIL && r.turn == NIL, || {
                "done, but it still has something to do".into()
            });
        }
        sums.active += 1;
        sums.awaiting += usize::from(half.canary.is_waiting(rid));
        if r.tcb.state == State::SynSent {
            let at = usize::from(half.targets.of(r.target));
            sums.asking.resize(sums.asking.len().max(at + 1), 0);
            sums.asking[at] += 1;
        }
        let flow = r.flow(half.addr(r.target));
        ensure(half.by_flow(&flow) == Some(rid), || {
            "its connection leads elsewhere".into()
        })?;
        self.audit_tcb(rid, r)
    }

    fn audit_tcb(&self, rid: u32, r: &Replica) -> Result<(), String> {
        let (half, t) = (&self.replicas, &r.tcb);
        ensure(
            !half.canary.is_waiting(rid) || t.state == State::Closed,
            || format!("waits for a first answer in {:?}", t.state),
        )?;
        ensure(t.snd_una.le(t.snd_nxt) && t.snd_nxt.le(t.snd_max), || {
            format!(
                "snd_una {:?}, snd_nxt {:?}, snd_max {:?} are out of order",
                t.snd_una, t.snd_nxt, t.snd_max
            )
        })?;
        let synchronized = t.state.is_synchronized();
        if synchronized && r.una != NIL && half.segs[r.una].turn_number < r.released {
            let (seg, una) = (&half.segs[r.una], t.snd_una);
            let (first, end) = seg.wire();
            ensure(first.le(una) && una.lt(end), || {
                format!(
                    "snd_una {una:?} is not in its oldest segment at {:?}",
                    first
                )
            })?;
        }
        if synchronized && r.nxt != NIL && half.segs[r.nxt].turn_number < r.released {
            let (seg, nxt) = (&half.segs[r.nxt], t.snd_nxt);
            let (first, end) = seg.wire();
            ensure(first.le(nxt) && nxt.lt(end), || {
                format!("snd_nxt {nxt:?} is not in its next segment at {:?}", first)
            })?;
        }
        let waits = match t.state {
            State::Closed => r.nxt != NIL,
            State::SynSent => true,
            _ => t.outstanding() || r.nxt != NIL || t.rcv.ack_due(0).is_some(),
        };
        ensure(
            !waits || half.timers.deadline(rid).is_some() || half.is_blocked(rid),
            || format!("waits in {:?}, but no timer looks at it", t.state),
        )
    }

    fn seg_ids(&self, list: List) -> Result<Vec<u32>, String> {
        walk(list, self.replicas.segs.len(), |id| {
            self.replicas.segs[id].next
        })
    }

    fn waiting_ids(&self, list: List) -> Result<Vec<u32>, String> {
        let waiting = &self.capture.waiting;
        walk(list, waiting.len(), |id| waiting[id].next)
    }

    fn turn_ids(&self, list: List) -> Result<Vec<u32>, String> {
        walk(list, self.replicas.turns.len(), |id| {
            self.replicas.turns[id].next
        })
    }
}

/// What is owed to each replica of a target is replayed, lost or in flight, and what it holds is
/// what was found.
fn audit_target(
    t: &TargetCounters,
    held: (usize, usize),
    in_flight: (u64, u64),
) -> Result<(), String> {
    let lost = (
        t.lost_turns.iter().sum::<u64>(),
        t.lost_bytes.iter().sum::<u64>(),
    );
    let books = [
        (
            "turns",
            t.owed_turns,
            t.replayed_turns + lost.0 + in_flight.0,
        ),
        (
            "bytes",
            t.owed_bytes,
            t.replayed_bytes + lost.1 + in_flight.1,
        ),
        ("turns in flight", t.in_flight_turns, in_flight.0),
        ("bytes in flight", t.in_flight_bytes, in_flight.1),
        ("segments", t.held_segments, held.0 as u64),
        ("buffers of frames", t.held_frames, held.1 as u64),
    ];
    for (what, kept, found) in books {
        ensure(kept == found, || {
            format!("{what}: {found} were found, but {kept} are accounted for")
        })?;
    }
    Ok(())
}

/// The ids of a list, which has at most `limit` of them.
fn walk(list: List, limit: usize, next: impl Fn(u32) -> u32) -> Result<Vec<u32>, String> {
    let mut ids = Vec::new();
    let mut id = list.head;
    while id != NIL {
        ensure(ids.len() < limit, || "a list goes on for ever".into())?;
        ids.push(id);
        id = next(id);
    }
    ensure(ids.last().copied().unwrap_or(NIL) == list.tail, || {
        "a list does not end at its tail".into()
    })?;
    Ok(ids)
}

/// Where `id` stands among `ids`; behind the last if it is [`NIL`].
fn position(ids: &[u32], id: u32) -> usize {
    ids.iter().position(|&i| i == id).unwrap_or(ids.len())
}
