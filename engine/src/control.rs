//! The control core: starts the workers, reports on every interval, and ends the run in good order
//! on a signal, at the end of the time asked for, or at the end of a capture file.

use crate::lcore::{self, Orders, RunPhase, Settings};
use crate::offline::Tape;
use crate::progress::Progress as ProgressBar;
use crate::report::{self, ReportFile, Sources, TargetName};
use crate::rewind::Rewind;
use crate::setup::{Job, Machine, order_all};
use crate::snapshots::{Answers, Progress, Snapshots};
use crate::tunnels::RefusedLog;
use crate::unseen::Unseen;
use crate::watch::Watch;
use anyhow::{Context, Result};
use config::replay::Replay;
use dpdk::{FrameClock, LcoreHandle, MirrorPort, Port, PortStats};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use wire::Nanos;

/// How often signals and workers are looked at.
const TICK: Duration = Duration::from_millis(20);
/// How often workers are looked at while they get ready for the next pass of a capture file.
const LOOK: Duration = Duration::from_micros(200);
/// Time for workers to read what the mirror delivered before they drain.
const QUIESCE: Duration = Duration::from_millis(100);
/// Time for draining without getting on, beyond the gate's limit.
const DRAIN: Duration = Duration::from_secs(5);
/// Time for giving up what is left, without getting on.
const ABANDON: Duration = Duration::from_secs(5);
/// Time for a worker to answer before its last figures serve.
const ANSWER: Duration = Duration::from_secs(2);
/// How often the ports are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is logged that draining takes its time.
const STILL: Duration = Duration::from_secs(10);

type Handle = LcoreHandle<()>;

/// A running engine.
struct Run<'a> {
    config: &'a Replay,
    file: ReportFile,
    machine: Machine,
    orders: Vec<Arc<Orders>>,
    handles: Vec<Handle>,
    snapshots: Snapshots,
    /// A capture file is at its end, and is to be begun again.
    rewind: Option<Rewind>,
    watch: Watch,
    unseen: Unseen,
    looked_at_ports: Instant,
    refused: RefusedLog,
    /// Offline, on a terminal.
    progress: Option<ProgressBar>,
    /// All targets by their numbers, for the report.
    targets: Vec<TargetName>,
    started: Instant,
}

/// Runs until `stop` is set, `duration` is over, or a capture file is replayed.
pub fn run(
    config: &Replay,
    mut machine: Machine,
    jobs: Vec<Job>,
    report: &Path,
    duration: Option<Duration>,
    stop: &AtomicBool,
) -> Result<()> {
    let mut handles = Vec::new();
    let mut orders = Vec::new();
    let patience = longest_wait(config).as_nanos() as Nanos;
    for (
        i,
        Job {
            worker,
            player,
            rest,
            orders: mine,
        },
    ) in jobs.into_iter().enumerate()
    {
        orders.push(Arc::clone(&mine));
        let (now, pool) = (machine.now, machine.pool.clone());
        let low_water = pool.size() / 8;
        let launched = machine.eal.launch(i, move || {
            let pressure = move || pool.avail() < low_water;
            let settings = Settings {
                clock: move || now.get(),
                pressure,
                rest,
                patience,
            };
            drop(lcore::run(worker, player, &mine, settings));
        });
        handles.push(launched.with_context(|| format!("worker {i} could not be started"))?);
    }
    if let Some(tape) = &mut machine.tape {
        tape.start()?;
    }
    let mut run = Run {
        config,
        file: ReportFile::new(report.to_owned()),
        snapshots: Snapshots::new(orders.len(), config.targets().count()),
        rewind: None,
        watch: Watch::new(&machine),
        unseen: Unseen::default(),
        looked_at_ports: Instant::now(),
        refused: RefusedLog::default(),
        progress: machine
            .tape
            .as_ref()
            .and_then(|_| ProgressBar::begin(Instant::now())),
        targets: targets(config),
        machine,
        orders,
        handles,
        started: Instant::now(),
    };
    let result = run.live(duration, stop).and_then(|()| run.end());
    if let Some(progress) = &run.progress {
        progress.end();
    }
    let read = run.machine.tape.as_mut().map_or(Ok(()), Tape::stop);
    order_all(&run.orders, RunPhase::Stop);
    for handle in run.handles.drain(..) {
        handle.join().context("a worker ended before its time")?;
    }
    if let Some(links) = run.machine.links.take() {
        links.stop();
    }
    result.and(read)
}

/// Who tells when frames came, for the mirror ports and for the replay ports.
fn clocks(machine: &Machine) -> Vec<FrameClock> {
    let mirrors = machine.mirrors.iter().map(|m| m.info().clock);
    let replay = machine.replay.iter().map(|p| p.info().clock);
    mirrors.chain(replay).collect()
}

/// How long nothing may change before it is plain that nothing will: a gate's limit and more.
fn longest_wait(config: &Replay) -> Duration {
    let gates = config.targets().map(|(_, t)| t.pace.gate_timeout);
    gates.max().unwrap_or_default() + DRAIN
}

impl Run<'_> {
    /// Until it is time to end.
    fn live(&mut self, duration: Option<Duration>, stop: &AtomicBool) -> Result<()> {
        self.report(false)?;
        log::info!(
            "ready: {} -> {}",
            listed(&self.mirror_names()),
            self.target_names()
        );
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
                log::info!("stopping: all of the capture is played");
                return Ok(());
            }
            if let Some(i) = self.handles.iter().position(LcoreHandle::is_finished) {
                return Err(self.worker_ended(i));
            }
            self.show_progress();
            self.look_at_ports();
            if Instant::now() >= next {
                next += self.config.report.interval;
                self.report(false)?;
            }
            std::thread::sleep(TICK);
        }
    }

    /// Looks at the ports now and then, and logs what is to be said of them.
    fn look_at_ports(&mut self) {
        if self.looked_at_ports.elapsed() >= LOOK_INTERVAL {
            self.looked_at_ports = Instant::now();
            self.watch.look(&self.machine);
        }
    }

    fn show_progress(&mut self) {
        if let (Some(progress), Some(tape)) = (&mut self.progress, &self.machine.tape) {
            let counts = tape.counts();
            let frames = counts.iter().map(|(_, stats)| stats.rx_frames).sum();
            progress.show(Instant::now(), &tape.stats(), frames);
        }
    }

    /// Why a worker's thread is no more, although nobody ordered it to stop.
    fn worker_ended(&mut self, worker: usize) -> anyhow::Error {
        let what = format!("worker {worker} ended before its time");
        match self.handles.remove(worker).join() {
            Ok(()) => anyhow::anyhow!(what),
            Err(e) => anyhow::Error::new(e).context(what),
        }
    }

    /// Offline: has the files played again as often as asked. False when that is through.
    fn play_on(&mut self) -> Result<bool> {
        let Some(tape) = &self.machine.tape else {
            return Ok(true);
        };
        if tape.has_failed() {
            anyhow::bail!("the thread that reads capture files ended before its time");
        }
        let has_played = |o: &Arc<Orders>| o.played.load(Ordering::Acquire) >= tape.pass();
        if self.rewind.is_none() && self.orders.iter().all(has_played) {
            if tape.is_last() {
                return Ok(false);
            }
            self.rewind = Some(Rewind::new(self.orders.len()));
        }
        let Some(rewind) = &mut self.rewind else {
            return Ok(true);
        };
        // Signals and reports have their turn if it takes longer.
        let until = Instant::now() + TICK;
        while !rewind.step(&self.orders) {
            if Instant::now() >= until {
                return Ok(true);
            }
            std::thread::sleep(LOOK);
        }
        self.rewind = None;
        tape.again();
        Ok(true)
    }

    /// Reads the last of the mirror, replays what was captured, gives up the rest, and reports.
    fn end(&mut self) -> Result<()> {
        order_all(&self.orders, RunPhase::Quiesce);
        std::thread::sleep(QUIESCE);
        self.watch.missed.close(&self.mirror_stats());
        order_all(&self.orders, RunPhase::Drain);
        self.wait_drained(longest_wait(self.config))?;
        // What is left is lost because the engine stops, and the last report says so.
        order_all(&self.orders, RunPhase::Abandon);
        self.wait_drained(ABANDON)?;
        self.report(true)
    }

    /// Waits until all workers are drained, for as long as they get on: until nothing has changed
    /// for `limit`.
    fn wait_drained(&mut self, limit: Duration) -> Result<()> {
        let mut progress = Progress::default();
        let (mut changed_at, mut logged_at) = (Instant::now(), Instant::now());
        loop {
            self.collect()?;
            if self.snapshots.all_drained() {
                return Ok(());
            }
            let (now, latest) = (Instant::now(), Progress::of(self.snapshots.last()));
            if latest != progress {
                (progress, changed_at) = (latest, now);
            }
            if now - changed_at >= limit {
                return Ok(());
            }
            if now - logged_at >= STILL {
                logged_at = now;
                log::info!(
                    "still draining: {} turns in flight; a second signal ends at once",
                    progress.turns
                );
            }
            std::thread::sleep(TICK);
        }
    }

    /// Asks every worker for a snapshot.
    fn collect(&mut self) -> Result<()> {
        let handles = &self.handles;
        let has_ended = |i: usize| handles.get(i).is_none_or(LcoreHandle::is_finished);
        match self.snapshots.collect(&self.orders, ANSWER, has_ended) {
            Answers::All | Answers::Some => Ok(()),
            Answers::Ended(i) => Err(self.worker_ended(i)),
        }
    }

    fn report(&mut self, is_final: bool) -> Result<()> {
        self.collect()?;
        let stats = self.mirror_stats();
        let missed = self.watch.missed.frames(&stats);
        self.unseen
            .look(report::sight(self.snapshots.last(), &missed));
        let replay: Vec<_> = self.machine.replay.iter().map(Port::stats).collect();
        let answers_missed = self.watch.answers_missed(&replay);
        let names = self.machine.replay.iter().map(|p| p.info().name.clone());
        let replay = names.zip(replay).collect();
        let (received, handed_over) = report::received(self.snapshots.last());
        if let Some(line) = self.machine.spread.judge(received, handed_over) {
            log::warn!("{line}");
        }
        let m = &self.machine;
        let sources = Sources {
            workers: self.snapshots.last(),
            cpus: &self.config.eal.lcores,
            mirrors: self.mirror_names().into_iter().zip(stats).collect(),
            capture: m.tape.as_ref().map(Tape::stats),
            missed,
            unseen: self.unseen,
            spread: m.spread.name(),
            links_up: self.watch.links(),
            clocks: clocks(m),
            targets: &self.targets,
            replay,
            answers_missed,
            links: m.links.as_ref().map(|l| l.stats()),
            copies: u64::from(self.config.traffic.copies),
            mbufs: [&m.pool, &m.small].map(|p| (p.in_use(), p.size())),
            elapsed: self.started.elapsed(),
            is_final,
            failed_writes: self.file.failed(),
        };
        for (i, s) in sources.workers.iter().enumerate() {
            if let Err(e) = s.core.balance() {
                log::error!("the books of worker {i} do not balance: {e}");
            }
            for addr in &s.unresolved {
                log::warn!(
                    "{addr} does not answer {}: nothing can be sent there",
                    if addr.is_v4() { "ARP" } else { "ND" }
                );
            }
        }
        if let Some(refused) =
            report::refused_line(sources.workers, &mut self.refused, Instant::now())
        {
            log::warn!("{refused}");
        }
        for waits in report::unconfirmed(&sources) {
            log::warn!("{waits}");
        }
        log::info!("{}", report::line(&sources));
        let report = report::json(&sources);
        if !is_final {
            self.file.try_write(&report, Instant::now());
            return Ok(());
        }
        if let Some(doubt) = report::clock_doubt(&sources) {
            log::warn!("{doubt}");
        }
        log::info!("{}", report::sentences(&sources).join("; "));
        self.file.write(&report)
    }

    /// Of each mirror port, or of each capture file.
    fn mirror_stats(&self) -> Vec<PortStats> {
        match &self.machine.tape {
            Some(tape) => tape.counts().into_iter().map(|(_, stats)| stats).collect(),
            None => self.machine.mirrors.iter().map(MirrorPort::stats).collect(),
        }
    }

    fn mirror_names(&self) -> Vec<String> {
        let ports = self.machine.mirrors.iter();
        match &self.machine.tape {
            Some(tape) => tape.counts().into_iter().map(|(name, _)| name).collect(),
            None => ports.map(|p| p.info().name.clone()).collect(),
        }
    }

    fn target_names(&self) -> String {
        let mut names: Vec<String> = self.config.targets().map(|(_, t)| t.to_string()).collect();
        names.dedup();
        listed(&names)
    }
}

/// The first few of many names.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 4;
    match names.len() {
        n if n > SHOWN => format!("{} and {} more", names[..SHOWN].join(", "), n - SHOWN),
        _ => names.join(", "),
    }
}

/// All targets by their numbers, as the configuration has them.
fn targets(config: &Replay) -> Vec<TargetName> {
    let name = |(transfer, to): (&config::replay::Transfer, &config::replay::Target)| TargetName {
        from: transfer.sources(),
        to: to.to_string(),
        copies: to.copies,
        percent: to.percent,
    };
    config.targets().map(name).collect()
}
