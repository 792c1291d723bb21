//! Whether all was seen: of the mirror, and of the targets' answers.
//!
//! What the ports say they missed is known to the frame. What was lost before it came to them, at a
//! switch, leaves holes in the streams that production acknowledged. How many frames that were is
//! an estimate: frames are taken to be missed in the same share as the clients' bytes are.

use super::{Sources, sum};
use dpdk::PortStats;
use replay::{Counters, Loss};
use serde_json::{Map, Value, json};

/// Why turns may count as lost of which the target had every byte, if its word for that was missed.
const DOUBTFUL: [Loss; 3] = [
    Loss::TargetReset,
    Loss::RetransmitTimeout,
    Loss::SessionTimeout,
];

/// What of the mirror was probably not seen.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct NotSeen {
    /// Nothing; `None` if nobody can say.
    pub(super) complete: Option<bool>,
    frames: Option<u64>,
    turns: Option<u64>,
    of_turns: u64,
}

impl NotSeen {
    /// Of all workers' counters `c`.
    pub(super) fn of(s: &Sources<'_>, c: &Counters) -> Self {
        let hole = Loss::Hole as usize;
        let (turns, bytes) = (c.lost_turns[hole], c.lost_bytes[hole]);
        let copies = s.copies.max(1);
        let (turns, bytes) = (turns.div_ceil(copies), bytes.div_ceil(copies));
        let at_ports = at_ports(s);
        let has_holes = turns + bytes + c.doubtful_bytes > 0;
        let unseen = s.unseen.turns();
        Self {
            complete: completeness(at_ports, has_holes),
            frames: at_ports.map(|n| n.max(frames_of(c, bytes)).max(turns)),
            turns: unseen.map(|unseen| unseen + turns),
            of_turns: c.turns + unseen.unwrap_or(0),
        }
    }

    /// `mirror.not_seen`.
    pub(super) fn json(&self) -> Value {
        let mut all = Map::new();
        all.insert("frames".to_owned(), self.frames.into());
        all.insert("turns".to_owned(), self.turns.into());
        all.insert("of_turns".to_owned(), self.of_turns.into());
        set_share(&mut all);
        all.into()
    }

    fn sentence(&self) -> String {
        match (self.complete, self.frames, self.turns) {
            (Some(true), ..) => "the mirror was complete".to_owned(),
            (_, Some(frames), Some(turns)) => format!(
                "the mirror was not complete: about {frames} frames and {turns} of {} requests ({:.2} %) were not seen, or not whole",
                self.of_turns,
                100.0 * share(turns, self.of_turns)
            ),
            (Some(false), ..) => {
                "the mirror was not complete, and nobody can say how much is missing".to_owned()
            }
            _ => "nobody can say whether the mirror was complete".to_owned(),
        }
    }
}

fn share(turns: u64, of: u64) -> f64 {
    turns as f64 / of.max(1) as f64
}

/// Makes `share` of `turns` and `of_turns`, where both are told.
pub(crate) fn set_share(not_seen: &mut Map<String, Value>) {
    let Some(of) = not_seen.get("of_turns").and_then(Value::as_u64) else {
        return;
    };
    let turns = not_seen.get("turns").and_then(Value::as_u64);
    let share = turns.map(|turns| share(turns, of));
    not_seen.insert("share".to_owned(), share.into());
}

/// Nothing is missing if nothing is known to be, and all would be known.
const fn completeness(missed: Option<u64>, more: bool) -> Option<bool> {
    match missed {
        _ if more => Some(false),
        Some(missed) => Some(missed == 0),
        None => None,
    }
}

/// Frames that came to the mirror ports and that nobody looked at.
fn at_ports(s: &Sources<'_>) -> Option<u64> {
    let missed = s.missed.iter().copied().sum::<Option<u64>>()?;
    let damaged: u64 = s.mirrors.iter().map(|(_, p)| damaged(p)).sum();
    Some(missed + damaged + sum(s.workers, |w| w.worker.handover_full))
}

/// Frames that the device dropped; those that were too long may be among the errors.
fn damaged(port: &PortStats) -> u64 {
    port.rx_errors.max(port.rx_too_long.unwrap_or(0))
}

/// About how many frames were not seen, if `bytes` of the clients' were not.
fn frames_of(c: &Counters, bytes: u64) -> u64 {
    let shown = c.bytes.saturating_sub(bytes);
    if bytes == 0 || shown == 0 {
        return 0;
    }
    (c.session_frames() as f64 * bytes as f64 / shown as f64).round() as u64
}

/// What of the targets' answers was not seen.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Answers {
    /// Frames that nobody read; `None` if nobody can say.
    missed: Option<u64>,
    /// Nothing was missed; `None` if nobody can say.
    complete: Option<bool>,
    /// Lost turns of which the target may have had every byte.
    doubtful: Option<u64>,
}

impl Answers {
    /// Of all workers' counters `c`.
    pub(super) fn of(s: &Sources<'_>, c: &Counters) -> Self {
        let full = sum(s.workers, |w| w.worker.response_full);
        let (missed, more) = match &s.links {
            None => {
                let port = s
                    .answers_missed
                    .map(|n| n + s.replay.iter().map(|(_, port)| damaged(port)).sum::<u64>());
                (port.map(|n| n + full), full > 0)
            }
            Some(links) => {
                let dropped: u64 = links
                    .iter()
                    .map(|l| l.records_dropped + l.server_dropped)
                    .sum();
                let missed = links.iter().map(|l| l.answers_missed).sum::<Option<u64>>();
                let reconnected = links.iter().any(|l| l.reconnects > 0);
                (missed.map(|n| n + dropped), reconnected || dropped > 0)
            }
        };
        let complete = completeness(missed, more);
        let lost: u64 = DOUBTFUL.iter().map(|r| c.lost_turns[*r as usize]).sum();
        let doubtful = match (complete, missed) {
            (Some(true), _) => Some(0),
            // For each of them at least one frame was missed.
            (Some(false), Some(missed)) if !more => Some(lost.min(missed)),
            (Some(false), _) => Some(lost),
            (None, _) => None,
        };
        Self {
            missed,
            complete,
            doubtful,
        }
    }

    /// Puts `answers_complete`, `answers_missed` and `doubtful_losses` to what is told of targets.
    pub(super) fn put(&self, target: &mut Value) {
        target["answers_complete"] = json!(self.complete);
        target["answers_missed"] = json!(self.missed);
        target["doubtful_losses"] = json!(self.doubtful);
    }

    fn sentence(&self) -> String {
        let Some(false) = self.complete else {
            return match self.complete {
                Some(_) => "all answers were seen".to_owned(),
                None => "nobody can say whether all answers were seen".to_owned(),
            };
        };
        let missed = match self.missed {
            Some(missed) if missed > 0 => format!("{missed} frames of answers were not seen"),
            _ => "answers were not seen".to_owned(),
        };
        match self.doubtful {
            Some(lost) if lost > 0 => format!(
                "{missed}: up to {lost} of the requests that count as lost may have arrived at the target"
            ),
            _ => missed,
        }
    }
}

/// What is to be said of both, in a sentence each.
pub fn sentences(s: &Sources<'_>) -> [String; 2] {
    let c = super::total(s.workers);
    [NotSeen::of(s, &c).sentence(), Answers::of(s, &c).sentence()]
}

/// What the line for the log ends with: nothing if all was seen.
pub(super) fn note(s: &Sources<'_>, c: &Counters) -> String {
    let mut note = String::new();
    let (mirror, answers) = (NotSeen::of(s, c), Answers::of(s, c));
    if mirror.complete != Some(true) {
        note.push_str("; ");
        note.push_str(&mirror.sentence());
    }
    if answers.complete != Some(true) {
        note.push_str("; ");
        note.push_str(&answers.sentence());
    }
    note
}

#[cfg(test)]
mod tests {
    use super::super::tests::sources;
    use super::*;
    use crate::unseen::Sight;
    use crate::worker::Snapshot;

    /// A worker that has seen 1,000 frames with 10,000 bytes in 100 turns.
    fn worker() -> Snapshot {
        let mut w = Snapshot::default();
        w.core.frames = 1_000;
        w.core.bytes = 10_000;
        w.core.turns = 100;
        w
    }

    fn not_seen(w: &Snapshot, missed: Option<u64>) -> NotSeen {
        let workers = std::slice::from_ref(w);
        let mut s = sources(workers, None);
        s.missed = vec![missed];
        s.unseen.look(Sight::new(&w.core, 1_000, missed));
        NotSeen::of(&s, &w.core)
    }

    #[test]
    fn a_mirror_is_complete_if_no_port_missed_and_no_stream_has_a_hole() {
        let all = not_seen(&worker(), Some(0));
        assert_eq!(
            (all.complete, all.frames, all.turns),
            (Some(true), Some(0), Some(0))
        );
        assert_eq!(all.sentence(), "the mirror was complete");
        let untold = not_seen(&worker(), None);
        assert_eq!(
            (untold.complete, untold.frames, untold.turns),
            (None, None, None)
        );
        assert_eq!(untold.json()["share"], Value::Null);

        let missed = not_seen(&worker(), Some(50));
        assert_eq!((missed.complete, missed.frames), (Some(false), Some(50)));
        // Nothing was seen whole, so turns are missed as frames are.
        assert_eq!((missed.turns, missed.of_turns), (Some(5), 105));
        assert!(
            missed
                .sentence()
                .contains("about 50 frames and 5 of 105 requests (4.76 %)")
        );

        let mut doubtful = worker();
        doubtful.core.doubtful_bytes = 70_000;
        assert_eq!(not_seen(&doubtful, Some(0)).complete, Some(false));
        let mut full = worker();
        full.worker.handover_full = 7;
        let full = not_seen(&full, Some(0));
        assert_eq!((full.complete, full.frames), (Some(false), Some(7)));
    }

    #[test]
    fn what_a_switch_dropped_is_estimated_by_the_holes() {
        let mut w = worker();
        w.core.lost_turns[Loss::Hole as usize] = 4;
        w.core.lost_bytes[Loss::Hole as usize] = 2_000;
        // A fifth of the bytes is missing, so a fifth of all frames: 250 beside the 1,000 seen.
        let upstream = not_seen(&w, Some(0));
        assert_eq!(
            (upstream.complete, upstream.frames),
            (Some(false), Some(250))
        );
        assert_eq!((upstream.turns, upstream.of_turns), (Some(4), 100));
        assert_eq!(upstream.json()["share"], 0.04);
        // Those that the ports missed are the same frames, not more.
        assert_eq!(not_seen(&w, Some(300)).frames, Some(300));
        assert_eq!(not_seen(&w, None).complete, Some(false));
    }

    #[test]
    fn losses_are_in_doubt_where_answers_were_missed() {
        let mut w = worker();
        w.core.lost_turns[Loss::TargetReset as usize] = 30;
        w.core.lost_turns[Loss::ConnectRefused as usize] = 99;
        let of = |missed, full| {
            let mut w = w.clone();
            w.worker.response_full = full;
            let workers = [w];
            let mut s = sources(&workers, None);
            s.answers_missed = missed;
            Answers::of(&s, &workers[0].core)
        };
        let told = |a: Answers| (a.complete, a.missed, a.doubtful);
        assert_eq!(told(of(Some(0), 0)), (Some(true), Some(0), Some(0)));
        assert_eq!(told(of(Some(20), 0)), (Some(false), Some(20), Some(20)));
        assert_eq!(told(of(Some(500), 0)), (Some(false), Some(500), Some(30)));
        assert_eq!(told(of(None, 0)), (None, None, None));
        assert_eq!(told(of(None, 1)), (Some(false), None, Some(30)));
        let sentence = of(Some(500), 0).sentence();
        assert!(
            sentence.starts_with("500 frames of answers were not seen: up to 30 of"),
            "{sentence}"
        );
    }

    #[test]
    fn a_remote_intercept_tells_what_it_missed() {
        let workers = [worker()];
        let with = |missed, dropped, reconnects| {
            let mut s = sources(&workers, Some(1));
            for link in s.links.iter_mut().flatten() {
                (link.answers_missed, link.server_dropped) = (missed, dropped);
                link.reconnects = reconnects;
            }
            // What the engine's own port missed is no answer.
            s.answers_missed = Some(1_000);
            let a = Answers::of(&s, &workers[0].core);
            (a.complete, a.missed)
        };
        assert_eq!(with(Some(0), 0, 0), (Some(true), Some(0)));
        assert_eq!(with(Some(3), 4, 0), (Some(false), Some(7)));
        assert_eq!(with(None, 0, 0), (None, None));
        assert_eq!(with(None, 1, 0), (Some(false), None));
        assert_eq!(
            with(Some(0), 0, 1),
            (Some(false), Some(0)),
            "lost meanwhile"
        );
    }
}
