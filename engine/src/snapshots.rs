//! What the workers told last.
//!
//! A worker that is slow to answer does not end the replay: what it told before serves until it
//! answers.

use crate::egress::EgressCounters;
use crate::lcore::Orders;
use crate::tunnels::RefusedTunnels;
use crate::worker::WorkerCounters;
use arrayvec::ArrayVec;
use replay::{Counters, TargetCounters};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::Addr;
use wire::defragment::FragmentCounters;

/// What a worker tells when it is asked.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// The session core's counters.
    pub core: Counters,
    /// The same for each transfer's target, as many as there is room for.
    pub targets: Vec<TargetCounters>,
    /// The loop's.
    pub worker: WorkerCounters,
    /// Tunnels that were not opened.
    pub refused: RefusedTunnels,
    /// The reassembler's.
    pub fragments: FragmentCounters,
    /// The transmit side's.
    pub egress: EgressCounters,
    /// Sessions now, and handshakes of production under way.
    pub sessions: usize,
    /// See `sessions`.
    pub half_open: usize,
    /// Most places of a flow table that were walked to place a flow.
    pub longest_walk: usize,
    /// Captured segments held now.
    pub segments: usize,
    /// Pool addresses in use and in all.
    pub slots: (usize, usize),
    /// Next hops that do not answer.
    pub unresolved: ArrayVec<Addr, 4>,
    /// The worker is through with draining.
    pub drained: bool,
}

impl Snapshot {
    /// One with room for this many targets.
    pub fn with_room(targets: usize) -> Self {
        Self {
            targets: vec![TargetCounters::default(); targets],
            ..Self::default()
        }
    }
}

/// How often a ring is looked at while an answer is waited for.
const LOOK: Duration = Duration::from_micros(200);

/// One worker's questions and answers.
struct Asked {
    /// To be filled in by the worker; it has it while it is asked.
    blank: Option<Box<Snapshot>>,
    asked_at: Instant,
    /// When it told what is known of it.
    told_at: Instant,
    /// It was logged that the answer does not come.
    logged: bool,
}

/// The last snapshot of each worker.
pub struct Snapshots {
    last: Vec<Snapshot>,
    asked: Vec<Asked>,
}

/// How far workers are with ending their sessions: two that differ show that they get on.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Progress {
    /// Turns that are neither replayed nor lost.
    pub turns: u64,
    /// Bytes that are neither.
    pub bytes: u64,
    /// Bytes that the target acknowledged, turns it was sent, sessions that ended.
    replayed: u64,
    released: u64,
    ended: u64,
    sessions: u64,
}

impl Progress {
    /// What workers told last.
    pub fn of(workers: &[Snapshot]) -> Self {
        let mut all = Self::default();
        for w in workers {
            all.turns += w.core.in_flight_turns;
            all.bytes += w.core.in_flight_bytes;
            all.replayed += w.core.replayed_bytes;
            all.released += w.core.gate_timeouts + w.core.paced_turns;
            all.ended += w.core.sessions_ended + w.core.replayed_sessions;
            all.sessions += w.sessions as u64;
        }
        all
    }
}

/// What came of a round of questions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answers {
    /// All have answered.
    All,
    /// Of some there are only older figures. That was logged.
    Some,
    /// This worker has ended, and will not answer.
    Ended(usize),
}

impl Snapshots {
    /// Of this many workers, with this many targets, nothing is known.
    pub fn new(workers: usize, targets: usize) -> Self {
        let now = Instant::now();
        Self {
            last: vec![Snapshot::with_room(targets); workers],
            asked: (0..workers)
                .map(|_| Asked {
                    blank: Some(Box::new(Snapshot::with_room(targets))),
                    asked_at: now,
                    told_at: now,
                    logged: false,
                })
                .collect(),
        }
    }

    /// The last snapshot of each worker.
    pub fn last(&self) -> &[Snapshot] {
        &self.last
    }

    /// True if all workers are through with draining, as far as is known.
    pub fn all_drained(&self) -> bool {
        self.last.iter().all(|s| s.drained)
    }

    /// Asks every worker, and waits `limit` for the answers at most. `has_ended` says whether a
    /// worker's thread has.
    pub fn collect(
        &mut self,
        orders: &[Arc<Orders>],
        limit: Duration,
        has_ended: impl Fn(usize) -> bool,
    ) -> Answers {
        let start = Instant::now();
        for (i, o) in orders.iter().enumerate() {
            // An answer that came after the last round.
            self.take(i, o);
        }
        for (o, asked) in orders.iter().zip(&mut self.asked) {
            if let Some(blank) = asked.blank.take() {
                // There is one blank a worker, so the ring has room.
                let _ = o.empty.push(blank);
                asked.asked_at = start;
            }
        }
        let mut answers = Answers::All;
        for (i, o) in orders.iter().enumerate() {
            // Whether it has ended is asked first: its last answer may be on the ring.
            while self.waits(i) {
                let ended = has_ended(i);
                if self.take(i, o) {
                    break;
                }
                if ended {
                    return Answers::Ended(i);
                }
                if start.elapsed() >= limit {
                    self.log_late(i);
                    answers = Answers::Some;
                    break;
                }
                std::thread::sleep(LOOK);
            }
        }
        answers
    }

    fn waits(&self, worker: usize) -> bool {
        self.asked.get(worker).is_some_and(|a| a.blank.is_none())
    }

    /// Takes a worker's answer, if it is there.
    fn take(&mut self, worker: usize, orders: &Orders) -> bool {
        let (Some(last), Some(asked)) = (self.last.get_mut(worker), self.asked.get_mut(worker))
        else {
            return false;
        };
        let Some(mut filled) = orders.full.pop() else {
            return false;
        };
        std::mem::swap(last, &mut filled);
        asked.blank = Some(filled);
        asked.told_at = Instant::now();
        if std::mem::take(&mut asked.logged) {
            log::info!("worker {worker} answers again");
        }
        true
    }

    /// Once for each question.
    fn log_late(&mut self, worker: usize) {
        let Some(asked) = self.asked.get_mut(worker).filter(|a| !a.logged) else {
            return;
        };
        asked.logged = true;
        log::warn!(
            "worker {worker} has not answered for {:.1} s, its figures are of {:.1} s ago",
            asked.asked_at.elapsed().as_secs_f64(),
            asked.told_at.elapsed().as_secs_f64(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(5);

    fn answer(orders: &Orders, sessions: usize) {
        let mut snapshot = orders.empty.pop().unwrap();
        snapshot.sessions = sessions;
        assert!(orders.full.push(snapshot).is_ok());
    }

    fn sessions(snapshots: &Snapshots) -> Vec<usize> {
        snapshots.last().iter().map(|s| s.sessions).collect()
    }

    #[test]
    fn a_worker_that_does_not_answer_costs_its_newest_figures_alone() {
        let orders: [Arc<Orders>; 2] = [Orders::new(), Orders::new()];
        let mut snapshots = Snapshots::new(2, 0);
        let mut late = |expected: &[usize]| {
            assert_eq!(snapshots.collect(&orders, SHORT, |_| false), Answers::Some);
            assert_eq!(sessions(&snapshots), expected);
        };
        late(&[0, 0]);
        answer(&orders[0], 1);
        answer(&orders[1], 2);
        late(&[1, 2]);
        answer(&orders[0], 3);
        late(&[3, 2]);
        answer(&orders[0], 4);
        answer(&orders[1], 5);
        late(&[4, 5]);
        // Both answer while they are waited for.
        let answers = snapshots.collect(&orders, Duration::from_secs(60), |i| {
            answer(&orders[i], 6 + i);
            false
        });
        assert_eq!((answers, sessions(&snapshots)), (Answers::All, vec![6, 7]));
    }

    #[test]
    fn a_worker_that_has_ended_is_no_slow_one() {
        let orders: [Arc<Orders>; 2] = [Orders::new(), Orders::new()];
        let mut snapshots = Snapshots::new(2, 0);
        let long = Duration::from_secs(60);
        // The first answers and ends; the second ends without an answer.
        let answers = snapshots.collect(&orders, long, |i| {
            if i == 0 {
                answer(&orders[0], 1);
            }
            true
        });
        assert_eq!(answers, Answers::Ended(1));
        assert_eq!(sessions(&snapshots), [1, 0]);
    }
}
