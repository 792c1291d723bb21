//! Queues for answers: the narrow way out of a port that is there to receive.

use crate::tx::TxQueue;
use wire::host::{Answer, Answers};

/// A transmit queue of a [`MirrorPort`](crate::MirrorPort) that was opened to answer. It sends what
/// a [`Responder`](wire::host::Responder) answers, and nothing else can be handed to it.
///
/// ```compile_fail
/// fn send(q: &mut dpdk::AnswerQueue, frame: &[u8]) {
///     let _ = wire::io::Tx::send(q, frame, None);
/// }
/// ```
///
/// ```compile_fail
/// fn inner(q: dpdk::AnswerQueue) -> dpdk::TxQueue {
///     q.0
/// }
/// ```
#[derive(Debug)]
pub struct AnswerQueue(TxQueue);

impl AnswerQueue {
    pub(crate) const fn new(queue: TxQueue) -> Self {
        Self(queue)
    }
}

impl Answers for AnswerQueue {
    fn answer(&mut self, answer: &Answer<'_>) -> bool {
        let queued = self.0.send_whole(answer.bytes()).is_ok();
        // What the driver does not take now goes with the next.
        self.0.flush();
        queued
    }
}
