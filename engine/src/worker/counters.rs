//! What a worker counts.

use replay::histogram::Histogram;
use wire::Skip;

/// Frames and what became of them before the session core saw them.
#[derive(Clone, Default)]
pub struct WorkerCounters {
    /// Frames received on mirror ports.
    pub mirror_frames: u64,
    /// Their bytes.
    pub mirror_bytes: u64,
    /// Mirrored frames that could not be decoded, by reason.
    pub skipped: [u64; Skip::COUNT],
    /// Mirrored frames handed to the core that owns them.
    pub handed_over: u64,
    /// Mirrored frames that other cores handed over and this one has taken. `mirror_frames +
    /// taken_over = used + dropped + handed_over + held`, at any moment.
    pub taken_over: u64,
    /// Mirrored frames dropped because the owner's ring was full.
    pub handover_full: u64,
    /// Mirrored frames that asked for an address of the mirror's and were answered, and those whose
    /// answer could not be sent. They are among `skipped`.
    pub answered: u64,
    /// See `answered`.
    pub unanswered: u64,
    /// Frames received on the replay port.
    pub replay_frames: u64,
    /// Responses of targets among them.
    pub replay_responses: u64,
    /// Responses handed to the core that owns their connection.
    pub responses_handed_over: u64,
    /// Responses dropped because the owner's ring was full.
    pub response_full: u64,
    /// ARP, ND and ICMP among them.
    pub replay_control: u64,
    /// TCP that is no response of a target, or comes although an intercept is to absorb it.
    pub replay_strays: u64,
    /// Frames on the replay port that are none of these.
    pub replay_skipped: u64,
    /// ICMP errors for segments of ours.
    pub icmp_errors: u64,
    /// Responses that came over the control links.
    pub link_responses: u64,
    /// Of each time that a mirror queue had frames, how long before it had been looked at: that much
    /// earlier they may have come. In ns.
    pub mirror_waits: Histogram,
    /// The same of the replay port's queue.
    pub replay_waits: Histogram,
    /// How long after they were due frames of capture files were played, in ns.
    pub late: Histogram,
    /// Times round the loop, and those in which there was nothing to do.
    pub loops: u64,
    /// See `loops`.
    pub idle_loops: u64,
}
