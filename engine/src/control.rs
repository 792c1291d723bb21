//! The control core: starts the workers, reports on every interval, and ends the run in good order
//! on a signal, at the end of the time asked for, or at the end of a capture file.

use crate::lcore::{self, Orders, Phase, Settings};
use crate::missed::{Missed, Unseen};
use crate::report::{self, Sources};
use crate::setup::{Job, Machine, order_all};
use crate::worker::Snapshot;
use anyhow::{Context, Result};
use config::replay::Replay;
use dpdk::{LcoreHandle, MirrorPort, PortStats, RxQueue};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often signals and workers are looked at.
const TICK: Duration = Duration::from_millis(20);
/// Time for workers to read what the mirror delivered before they drain.
const QUIESCE: Duration = Duration::from_millis(100);
/// Time for draining, beyond the gate's limit.
const DRAIN: Duration = Duration::from_secs(5);
/// Time for a worker to answer.
const ANSWER: Duration = Duration::from_secs(2);

type Handle = LcoreHandle<()>;

/// A running engine.
struct Run<'a> {
    config: &'a Replay,
    path: &'a Path,
    machine: Machine,
    orders: Vec<Arc<Orders<RxQueue>>>,
    handles: Vec<Handle>,
    snapshots: Vec<Snapshot>,
    missed: Missed,
    unseen: Unseen,
    started: Instant,
}

/// Runs until `stop` is set, `duration` is over, or a capture file is replayed.
pub fn run(
    config: &Replay,
    machine: Machine,
    jobs: Vec<Job>,
    report: &Path,
    duration: Option<Duration>,
    stop: &AtomicBool,
) -> Result<()> {
    let mut handles = Vec::new();
    let mut orders = Vec::new();
    for (
        i,
        Job {
            worker,
            player,
            orders: mine,
        },
    ) in jobs.into_iter().enumerate()
    {
        orders.push(Arc::clone(&mine));
        let (now, pool, sleep) = (machine.now, machine.pool.clone(), machine.sleep);
        let low_water = pool.size() / 8;
        let launched = machine.eal.launch(i, move || {
            let pressure = move || pool.avail() < low_water;
            let settings = Settings {
                clock: move || now.get(),
                pressure,
                sleep,
            };
            drop(lcore::run(worker, player, &mine, settings));
        });
        handles.push(launched.with_context(|| format!("worker {i} could not be started"))?);
    }
    let mut run = Run {
        config,
        path: report,
        snapshots: vec![Snapshot::default(); orders.len()],
        missed: Missed::watch(machine.mirrors.iter().map(MirrorPort::info)),
        unseen: Unseen::default(),
        machine,
        orders,
        handles,
        started: Instant::now(),
    };
    let result = run.live(duration, stop).and_then(|()| run.end());
    order_all(&run.orders, Phase::Stop);
    for handle in run.handles.drain(..) {
        handle.join().context("a worker ended before its time")?;
    }
    if let Some(links) = run.machine.links.take() {
        links.stop();
    }
    result
}

impl Run<'_> {
    /// Until it is time to end.
    fn live(&mut self, duration: Option<Duration>, stop: &AtomicBool) -> Result<()> {
        self.report(false)?;
        log::info!("ready: {} -> {}", self.mirror_names(), self.target_names());
        let mut next = self.started + self.config.report.interval;
        loop {
            if stop.load(Ordering::Relaxed) {
                log::info!("stopping: a signal was received");
                return Ok(());
            }
            if duration.is_some_and(|d| self.started.elapsed() >= d) {
                log::info!("stopping: the time asked for is over");
                return Ok(());
            }
            if !self.play_on()? {
                log::info!("stopping: the capture file is replayed");
                return Ok(());
            }
            if let Some(i) = self.handles.iter().position(LcoreHandle::is_finished) {
                self.handles
                    .remove(i)
                    .join()
                    .context("a worker ended before its time")?;
            }
            if Instant::now() >= next {
                next += self.config.report.interval;
                self.report(false)?;
            }
            std::thread::sleep(TICK);
        }
    }

    /// Offline: begins the file again as often as asked. False when it is through.
    fn play_on(&mut self) -> Result<bool> {
        let (Some(tape), Some(first)) = (self.machine.tape.as_mut(), self.orders.first()) else {
            return Ok(true);
        };
        let Some(spent) = first.spent.pop() else {
            return Ok(true);
        };
        drop(spent);
        if tape.left == 0 {
            return Ok(false);
        }
        self.machine.mirrors.clear();
        for o in &self.orders {
            o.end_sessions();
        }
        let (port, queue) = tape.open(&self.machine.eal, &self.machine.pool)?;
        self.machine.mirrors.push(port);
        // Workers end their sessions before the first of them comes again.
        std::thread::sleep(TICK);
        let _ = first.fresh.push(queue);
        Ok(true)
    }

    /// Reads the last of the mirror, replays what was captured, gives up the rest, and reports.
    fn end(&mut self) -> Result<()> {
        order_all(&self.orders, Phase::Quiesce);
        std::thread::sleep(QUIESCE);
        self.missed.close(&self.mirror_stats());
        order_all(&self.orders, Phase::Drain);
        let limit = Instant::now() + self.config.traffic.gate_timeout + DRAIN;
        loop {
            self.collect()?;
            if self.snapshots.iter().all(|s| s.drained) || Instant::now() >= limit {
                break;
            }
            std::thread::sleep(TICK);
        }
        // What is left is lost because the engine stops, and the last report says so.
        order_all(&self.orders, Phase::Abandon);
        let limit = Instant::now() + ANSWER;
        while !self.snapshots.iter().all(|s| s.drained) && Instant::now() < limit {
            self.collect()?;
        }
        self.report(true)
    }

    /// Asks every worker for a snapshot.
    fn collect(&mut self) -> Result<()> {
        for (o, s) in self.orders.iter().zip(&mut self.snapshots) {
            let _ = o.empty.push(Box::new(std::mem::take(s)));
        }
        let limit = Instant::now() + ANSWER;
        for (i, (o, s)) in self.orders.iter().zip(&mut self.snapshots).enumerate() {
            loop {
                if let Some(filled) = o.full.pop() {
                    *s = *filled;
                    break;
                }
                if Instant::now() >= limit {
                    anyhow::bail!("worker {i} did not answer within {ANSWER:?}");
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        Ok(())
    }

    fn report(&mut self, is_final: bool) -> Result<()> {
        self.collect()?;
        let stats = self.mirror_stats();
        let missed = self.missed.frames(&stats);
        self.unseen.look(report::sight(&self.snapshots, &missed));
        let m = &self.machine;
        let names = m.mirrors.iter().map(|p| p.info().name.clone());
        let sources = Sources {
            workers: &self.snapshots,
            cpus: &self.config.eal.lcores,
            mirrors: names.zip(stats).collect(),
            missed,
            unseen: self.unseen,
            replay: (m.replay.info().name.clone(), m.replay.stats()),
            links: m.links.as_ref().map(|l| l.stats()),
            copies: u64::from(self.config.traffic.copies),
            mbufs: (m.pool.in_use(), m.pool.size()),
            elapsed: self.started.elapsed(),
            is_final,
        };
        for (i, s) in self.snapshots.iter().enumerate() {
            if let Err(e) = s.core.balance(sources.copies) {
                log::error!("the books of worker {i} do not balance: {e}");
            }
            for addr in &s.unresolved {
                log::warn!(
                    "{addr} does not answer {}: nothing can be sent there",
                    if addr.is_v4() { "ARP" } else { "ND" }
                );
            }
        }
        log::info!("{}", report::line(&sources));
        report::write(self.path, &report::json(&sources))
            .with_context(|| format!("report {} cannot be written", self.path.display()))
    }

    fn mirror_stats(&self) -> Vec<PortStats> {
        self.machine.mirrors.iter().map(MirrorPort::stats).collect()
    }

    fn mirror_names(&self) -> String {
        self.machine
            .mirrors
            .iter()
            .map(|p: &MirrorPort| p.info().name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn target_names(&self) -> String {
        self.config
            .transfers
            .iter()
            .map(|t| t.to.to_string())
            .collect::<Vec<_>>()
            .join(", ")
    }
}
