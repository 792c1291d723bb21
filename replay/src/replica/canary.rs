//! Until a target has answered for the first time, few connections are opened to it.
//!
//! A route that leads elsewhere, or answers that do not come back to us, make real hosts speak to
//! one another. So the first connections to a target show whether its answers come back: a SYN that
//! was accepted or refused is such an answer. Until then all other replicas wait in a list, in
//! order, and for as long as a SYN goes unanswered at most. What they wait for then is lost, and
//! they go to the end of the list with their next turn.
//!
//! What always holds: to a target that has not answered no more than `Params::canaries` connections
//! are under way; a target that has answered once is never asked again in this way.

use super::Replicas;
use super::blocked::UNREACHABLE;
use super::targets::Targets;
use crate::core::Egress;
use crate::counters::Loss;
use crate::due::Due;
use crate::params::Params;
use crate::tcp::State;
use wire::Nanos;
use wire::io::Payload;

/// Replicas that go on in one round at most, once it has.
const AT_ONCE: usize = 64;

/// In a list of those that wait: no neighbour, the end, or a neighbour's id plus this.
const NOT_LISTED: u32 = 0;
const END: u32 = 1;
const FIRST_ID: u32 = 2;

/// What is known of one target.
#[derive(Clone, Copy, Debug)]
struct Known {
    answered: bool,
    /// Connections under way, while it has not answered.
    asking: usize,
    /// The first and the last of those that wait.
    head: u32,
    tail: u32,
}

/// See the module's documentation.
pub(crate) struct Canary {
    targets: Targets,
    /// What is known of each target.
    known: Vec<Known>,
    /// Connections that may be under way to one that has not answered.
    limit: usize,
    /// For each replica its neighbours in the list it is in. Not touched by one that never waits.
    links: Vec<(u32, u32)>,
    /// How many wait, for all targets.
    waiting: usize,
}

impl Canary {
    /// Nothing is known yet. Room for `replicas` replicas.
    pub fn new(params: &Params, targets: &Targets, replicas: usize) -> Self {
        let unknown = Known {
            answered: false,
            asking: 0,
            head: END,
            tail: END,
        };
        Self {
            targets: targets.clone(),
            known: vec![unknown; targets.len()],
            limit: params.canaries.max(1),
            links: vec![(NOT_LISTED, NOT_LISTED); replicas],
            waiting: 0,
        }
    }

    fn known(&mut self, number: u16) -> &mut Known {
        let at = self.targets.of(number);
        &mut self.known[usize::from(at)]
    }

    fn may_ask(&mut self, number: u16) -> bool {
        let limit = self.limit;
        let k = self.known(number);
        k.answered || (k.asking < limit && k.head == END)
    }

    /// The replica waits for the first answer of its target.
    pub fn is_waiting(&self, rid: u32) -> bool {
        self.links[rid as usize].0 != NOT_LISTED
    }

    fn push(&mut self, number: u16, rid: u32) {
        let link = rid + FIRST_ID;
        let k = self.known(number);
        let last = std::mem::replace(&mut k.tail, link);
        if last == END {
            k.head = link;
        } else {
            self.links[(last - FIRST_ID) as usize].1 = link;
        }
        self.links[rid as usize] = (last, END);
        self.waiting += 1;
    }

    fn remove(&mut self, number: u16, rid: u32) {
        let none = (NOT_LISTED, NOT_LISTED);
        let (before, after) = std::mem::replace(&mut self.links[rid as usize], none);
        match before {
            END => self.known(number).head = after,
            before => self.links[(before - FIRST_ID) as usize].1 = after,
        }
        match after {
            END => self.known(number).tail = before,
            after => self.links[(after - FIRST_ID) as usize].0 = before,
        }
        self.waiting -= 1;
    }

    /// For each target: whether it has answered, and how many connections are under way if not. For
    /// the audit.
    pub fn asking(&self) -> impl Iterator<Item = (u16, bool, usize)> + '_ {
        self.targets.all().map(|target| {
            let k = &self.known[usize::from(target)];
            (target, k.answered, k.asking)
        })
    }
}

impl<P: Payload> Replicas<P> {
    /// Opens a connection for the replica, or lets it wait for the target's first answer.
    pub(super) fn connect(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        if self.canary.is_waiting(rid) {
            return;
        }
        let number = self.replicas[rid].target;
        if self.canary.may_ask(number) {
            self.ask(now, rid, tx);
            return;
        }
        self.canary.push(number, rid);
        self.ledger.target(number).awaiting_replicas += 1;
        self.replicas[rid].rto_at = Due::at(now + UNREACHABLE);
        self.rearm(now, rid);
    }

    fn ask(&mut self, now: Nanos, rid: u32, tx: &mut impl Egress<P>) {
        let number = self.replicas[rid].target;
        let k = self.canary.known(number);
        if !k.answered {
            k.asking += 1;
            self.ledger.target(number).unconfirmed_cores = 1;
        }
        self.open(now, rid, tx);
    }

    /// The target has accepted or refused a connection: its answers come back to us.
    pub(super) fn confirm(&mut self, rid: u32) {
        let number = self.replicas[rid].target;
        let k = self.canary.known(number);
        if std::mem::replace(&mut k.answered, true) {
            return;
        }
        k.asking = 0;
        for t in self.targets.numbers(self.targets.of(number)) {
            self.ledger.target(*t).unconfirmed_cores = 0;
        }
    }

    /// The replica's connection, or its waiting for one, is over.
    pub(super) fn leave_canary(&mut self, rid: u32) {
        let r = &self.replicas[rid];
        let (number, asking) = (r.target, r.tcb.state == State::SynSent);
        if self.canary.is_waiting(rid) {
            self.canary.remove(number, rid);
            self.ledger.target(number).awaiting_replicas -= 1;
        } else if asking {
            let k = self.canary.known(number);
            k.asking = k.asking.saturating_sub(1);
        }
    }

    /// Lets go those that may ask now. Returns how many there were.
    pub(super) fn poll_canary(&mut self, now: Nanos, tx: &mut impl Egress<P>) -> usize {
        if self.canary.waiting == 0 {
            return 0;
        }
        let mut gone = 0;
        for at in 0..self.canary.known.len() {
            while gone < AT_ONCE {
                let k = &self.canary.known[at];
                if k.head == END || (!k.answered && k.asking >= self.canary.limit) {
                    break;
                }
                let rid = k.head - FIRST_ID;
                self.leave_canary(rid);
                self.replicas[rid].rto_at = Due::NONE;
                self.ask(now, rid, tx);
                gone += 1;
            }
        }
        gone
    }

    /// No first answer has come in time.
    pub(super) fn never_confirmed(&mut self, rid: u32) {
        self.lose_connecting(rid, Loss::TargetUnconfirmed);
        self.disconnected(rid);
    }
}
