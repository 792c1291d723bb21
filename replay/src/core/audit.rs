//! What always holds for a core, computed anew from all it keeps. For tests and fuzzing: it walks
//! every list, so it has no place on a packet path.

use super::Core;
use crate::session::{List, Phase, Replica, Session};
use crate::slab::NIL;
use crate::tcp::State;
use wire::Seq;
use wire::io::Payload;

/// What the walk over all sessions has added up.
#[derive(Default)]
struct Sums {
    sessions: usize,
    listed: usize,
    replicas: usize,
    active: usize,
    boards: usize,
    segs: usize,
    turns: usize,
    in_flight_turns: u64,
    in_flight_bytes: u64,
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

impl<P: Payload> Core<P> {
    /// Checks the books, every list and pointer, and that somebody looks again at whatever waits.
    /// `Err` says in one sentence what does not hold. Takes time in proportion to everything
    /// the core holds.
    pub fn audit(&self) -> Result<(), String> {
        self.counters.balance(u64::from(self.params.copies))?;
        let mut sums = Sums::default();
        for sid in self.sessions.ids() {
            if self.sessions[sid].phase != Phase::Free {
                self.audit_session(sid, &mut sums)
                    .map_err(|e| format!("session {sid} ({}): {e}", self.sessions[sid].flow))?;
            }
        }
        let c = &self.counters;
        let pairs = [
            ("sessions", sums.sessions, self.sessions.len()),
            ("listed sessions", sums.listed, self.flows.len()),
            ("replicas", sums.replicas, self.replicas.len()),
            ("active replicas", sums.active, self.active),
            ("connections", sums.active, self.connections.len()),
            ("scoreboards", sums.boards, self.boards.len()),
            ("segments", sums.segs, self.segs.len()),
            ("turns", sums.turns, self.turns.len()),
            // A replica that is done has no timer, and neither has a session that was removed.
            ("session timers", sums.sessions, self.session_timers.armed()),
            (
                "turns in flight",
                sums.in_flight_turns as usize,
                c.in_flight_turns as usize,
            ),
            (
                "bytes in flight",
                sums.in_flight_bytes as usize,
                c.in_flight_bytes as usize,
            ),
        ];
        for (what, found, kept) in pairs {
            ensure(found == kept, || {
                format!("{what}: {found} are reachable, but {kept} are accounted for")
            })?;
        }
        let armed = self.replica_timers.armed();
        ensure(armed <= sums.active, || {
            format!("{armed} timers are armed for {} replicas", sums.active)
        })?;
        let used = self.slots().0;
        ensure(self.slots.is_empty() || used == sums.active, || {
            format!("{used} slots are in use by {} replicas", sums.active)
        })
    }

    fn audit_session(&self, sid: u32, sums: &mut Sums) -> Result<(), String> {
        let s = &self.sessions[sid];
        sums.sessions += 1;
        if s.listed {
            sums.listed += 1;
            ensure(self.session_by_flow(&s.flow) == Some(sid), || {
                "its flow leads elsewhere".into()
            })?;
        }
        ensure(self.session_timers.deadline(sid).is_some(), || {
            "no timer looks at it".into()
        })?;
        let segs = self.seg_ids(s.segs)?;
        let beyond = self.seg_ids(s.beyond)?;
        let early = self.seg_ids(s.early)?;
        ensure(early.is_empty() || s.phase == Phase::Joining, || {
            "it keeps what came before its SYN, though it is in step".into()
        })?;
        let turns = self.turn_ids(s.turns)?;
        sums.segs += segs.len() + beyond.len() + early.len();
        sums.turns += turns.len();
        let held: u32 = segs
            .iter()
            .chain(&beyond)
            .chain(&early)
            .map(|&id| self.segs[id].len)
            .sum();
        ensure(held == s.held, || {
            format!("{} bytes held, {held} in its lists", s.held)
        })?;
        self.audit_order(s, &segs, &beyond)?;
        ensure(
            s.turn_open == turns.last().is_some_and(|&t| !self.turns[t].closed),
            || "its open turn and its last turn disagree".into(),
        )?;
        let (mut rid, mut replicas) = (s.first_replica, Vec::new());
        while rid != NIL {
            ensure(replicas.len() < self.replicas.len(), || {
                "its replicas form a circle".into()
            })?;
            replicas.push(rid);
            rid = self.replicas[rid].next;
        }
        ensure(replicas.len() == usize::from(s.replica_count), || {
            format!("{} replicas, not {}", replicas.len(), s.replica_count)
        })?;
        sums.replicas += replicas.len();
        for (at, &id) in segs.iter().enumerate() {
            let holders = replicas
                .iter()
                .filter(|&&r| position(&segs, self.replicas[r].una) <= at)
                .count();
            let kept = usize::from(self.segs[id].holders);
            ensure(holders == kept, || {
                format!(
                    "segment at {:?}: {kept} holders, not {holders}",
                    self.segs[id].seq
                )
            })?;
        }
        for (at, &id) in turns.iter().enumerate() {
            let open = replicas
                .iter()
                .filter(|&&r| position(&turns, self.replicas[r].turn) <= at)
                .count();
            let kept = usize::from(self.turns[id].open_for);
            ensure(open == kept, || {
                format!(
                    "turn {}: open for {kept}, not {open}",
                    self.turns[id].number
                )
            })?;
        }
        for rid in replicas {
            self.audit_replica(rid, &segs, &turns, sums)
                .map_err(|e| format!("replica {rid}: {e}"))?;
        }
        Ok(())
    }

    fn audit_order(&self, s: &Session, segs: &[u32], beyond: &[u32]) -> Result<(), String> {
        for pair in segs.windows(2) {
            let (a, b) = (&self.segs[pair[0]], &self.segs[pair[1]]);
            let follows = if a.turn == b.turn {
                a.end() == b.seq
            } else {
                a.end().le(b.seq) && a.turn_number < b.turn_number
            };
            ensure(follows, || {
                format!("segment at {:?} does not follow {:?}", b.seq, a.end())
            })?;
        }
        for pair in beyond.windows(2) {
            let (a, b) = (&self.segs[pair[0]], &self.segs[pair[1]]);
            ensure(a.end().le(b.seq), || {
                format!("beyond the gap {:?} overlaps {:?}", a.seq, b.seq)
            })?;
        }
        for &id in segs.iter().chain(beyond) {
            let seg = &self.segs[id];
            let bytes = seg.payload.as_ref().map(|p| p.bytes().len() as u32);
            ensure(bytes == Some(seg.len) && seg.len > 0, || {
                format!(
                    "segment at {:?} has {bytes:?} bytes of {}",
                    seg.seq, seg.len
                )
            })?;
        }
        let open = s.phase == Phase::Synced && s.shows_more();
        ensure(
            (beyond.is_empty() && !open) || s.gap_since != 0 || s.phase == Phase::Ended,
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
        let r = &self.replicas[rid];
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
        sums.in_flight_turns += open.len() as u64;
        for (i, &id) in open.iter().enumerate() {
            let t = &self.turns[id];
            let from = if i == 0 {
                ensure(t.start.le(r.settled) && r.settled.le(t.end), || {
                    format!("settled to {:?}, outside of its turn", r.settled)
                })?;
                r.settled
            } else {
                t.start
            };
            sums.in_flight_bytes += u64::from(t.end.since(from));
        }
        if r.done {
            return ensure(r.una == NIL && r.turn == NIL, || {
                "done, but it still has something to do".into()
            });
        }
        sums.active += 1;
        let flow = r.flow(self.target(r.transfer));
        ensure(self.replica_by_flow(&flow) == Some(rid), || {
            "its connection leads elsewhere".into()
        })?;
        self.audit_tcb(rid, r)
    }

    fn audit_tcb(&self, rid: u32, r: &Replica) -> Result<(), String> {
        let t = &r.tcb;
        ensure(t.snd_una.le(t.snd_nxt) && t.snd_nxt.le(t.snd_max), || {
            format!(
                "snd_una {:?}, snd_nxt {:?}, snd_max {:?} are out of order",
                t.snd_una, t.snd_nxt, t.snd_max
            )
        })?;
        let synchronized = t.state.is_synchronized();
        if synchronized && r.una != NIL && self.segs[r.una].turn_number < r.released {
            let (seg, una): (_, Seq) = (&self.segs[r.una], t.snd_una);
            ensure(seg.seq.le(una) && una.lt(seg.end()), || {
                format!(
                    "snd_una {una:?} is not in its oldest segment at {:?}",
                    seg.seq
                )
            })?;
        }
        if synchronized && r.nxt != NIL && self.segs[r.nxt].turn_number < r.released {
            let (seg, nxt) = (&self.segs[r.nxt], t.snd_nxt);
            ensure(seg.seq.le(nxt) && nxt.lt(seg.end()), || {
                format!(
                    "snd_nxt {nxt:?} is not in its next segment at {:?}",
                    seg.seq
                )
            })?;
        }
        let waits = match t.state {
            State::Closed => r.nxt != NIL,
            State::SynSent => true,
            _ => t.outstanding() || r.nxt != NIL || t.rcv.ack_due(0).is_some(),
        };
        ensure(
            !waits || self.replica_timers.deadline(rid).is_some(),
            || format!("waits in {:?}, but no timer looks at it", t.state),
        )
    }

    fn seg_ids(&self, list: List) -> Result<Vec<u32>, String> {
        walk(list, self.segs.len(), |id| self.segs[id].next)
    }

    fn turn_ids(&self, list: List) -> Result<Vec<u32>, String> {
        walk(list, self.turns.len(), |id| self.turns[id].next)
    }
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
