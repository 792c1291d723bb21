//! Bounded closed-loop clients for exact workloads: short and keep-alive HTTP, redis with and
//! without pipelining, SMTP.
//!
//! Each client waits for the complete answer before it asks again, as real clients do, and checks
//! it. Every request carries bytes of its own (seed, connection and request number), so two
//! connections never send the same and their hashes can be compared. A workload is finished when
//! all of its connections have been closed in order by both sides; whatever else happens to a
//! connection is an error that is counted and named.

mod client;
mod dialogue;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a client waits for an answer before it gives its connection up.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the clients say on each connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Talk {
    /// HTTP/1.1 GET, `requests` on each connection; the last one asks the server to close.
    Get,
    /// HTTP/1.1 POST with bodies of these sizes in bytes, taken in turn.
    Post(Vec<usize>),
    /// Redis SET with a value of `value` bytes, `pipeline` commands in one write before the answers
    /// are read.
    Redis {
        /// Commands in flight.
        pipeline: usize,
        /// Bytes of each value.
        value: usize,
    },
    /// One SMTP dialogue for each request: the server speaks first, each line waits for its answer.
    Smtp,
}

/// A bounded workload.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Server.
    pub to: SocketAddr,
    /// Addresses the clients come from, taken in turn; empty for the one the kernel picks.
    pub from: Vec<IpAddr>,
    /// What is said.
    pub talk: Talk,
    /// Connections in all.
    pub connections: usize,
    /// Requests on each connection.
    pub requests: usize,
    /// Connections at the same time.
    pub concurrency: usize,
    /// Requests started in a second, all connections together; 0 for as many as the server
    /// answers.
    pub rate: u32,
    /// Makes the bytes of this run differ from those of another one.
    pub seed: u64,
}

/// What came of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Connections that were opened, used and closed as planned.
    pub connections: u64,
    /// Requests that were answered as they should be.
    pub requests: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
    /// Connections that failed.
    pub errors: u64,
    /// The first failure, in words.
    pub first_error: Option<String>,
}

/// Starts requests no faster than a rate: the n-th at n/rate seconds, or at once when the time has
/// passed.
struct Pace {
    start: Instant,
    rate: u32,
    given: Cell<u64>,
}

impl Pace {
    async fn wait(&self) {
        let n = self.given.get();
        self.given.set(n + 1);
        if let Some(gap) = Duration::from_secs(1).checked_div(self.rate) {
            let offset = gap.as_nanos() as u64 * n;
            tokio::time::sleep_until(self.start + Duration::from_nanos(offset)).await;
        }
    }
}

/// Runs a workload to its end.
///
/// # Errors
/// The workload says nothing (no connection, no request, no client at a time, an empty list of
/// sizes). What goes wrong on the way is counted in the summary.
pub async fn run(workload: Workload) -> Result<Summary> {
    let w = &workload;
    if w.connections == 0 || w.requests == 0 || w.concurrency == 0 {
        bail!(
            "connections = {}, requests = {}, concurrency = {}: each must be at least 1",
            w.connections,
            w.requests,
            w.concurrency
        );
    }
    match &w.talk {
        Talk::Post(sizes) if sizes.is_empty() => {
            bail!("post: names no size; give at least one, in bytes")
        }
        Talk::Redis { pipeline: 0, .. } => bail!("pipeline = 0: must be at least 1"),
        _ => {}
    }
    let summary = Rc::new(RefCell::new(Summary::default()));
    let pace = Rc::new(Pace {
        start: Instant::now(),
        rate: w.rate,
        given: Cell::new(0),
    });
    let next = Rc::new(Cell::new(0));
    let shared = Rc::new(workload);
    let local = tokio::task::LocalSet::new();
    for _ in 0..shared.concurrency.min(shared.connections) {
        let (shared, summary, pace, next) = (
            Rc::clone(&shared),
            Rc::clone(&summary),
            Rc::clone(&pace),
            Rc::clone(&next),
        );
        local.spawn_local(async move {
            loop {
                let number: usize = next.get();
                if number >= shared.connections {
                    return;
                }
                next.set(number + 1);
                let outcome = dialogue::connection(&shared, number, &pace, &summary).await;
                let mut summary = summary.borrow_mut();
                match outcome {
                    Ok(()) => summary.connections += 1,
                    Err(e) => {
                        summary.errors += 1;
                        summary
                            .first_error
                            .get_or_insert_with(|| format!("connection {number}: {e:#}"));
                    }
                }
            }
        });
    }
    local.await;
    Ok(summary.take())
}
