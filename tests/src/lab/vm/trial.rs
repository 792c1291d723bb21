//! One run of the appliance in a guest: real servers outside, the engine and perhaps the intercept
//! inside, and the comparison.
//!
//! The guest's NICs are slow, so the load is small. What a run proves is exact: the target was told
//! byte for byte what production was told, its own log has as many requests as production's, the
//! engine's report says the same, and nothing was lost.

use super::{Cable, Hangs, Job, Machine, Memory, Model, Nic, Vm, VmOptions};
use crate::lab::appliance::{EngineOptions, InterceptOptions};
use crate::lab::process::binary;
use crate::lab::report::Report;
use crate::lab::servers::{Server, Service, Side};
use crate::lab::trial::turns;
use crate::lab::{Family, Lab, LabOptions, Responses};
use crate::load::{Talk, Workload};
use crate::record::{Match, check_byte_exact};
use anyhow::{Context, Result, anyhow, bail};
use std::time::Duration;

/// DPDK's start looks at every driver and device, and a guest's CPUs are slow.
const START: Duration = Duration::from_secs(90);
/// From the end of the load until all of it is replayed.
const SETTLE: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(60);

/// What is tried.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The guest. With a cable to the assistant the intercept runs beside the engine.
    pub vm: VmOptions,
    /// Family of the replayed service.
    pub family: Family,
    /// Workers of the engine: 1 or 2.
    pub workers: usize,
    /// After the load each cable is pulled and plugged in again.
    pub pulls_cables: bool,
    /// Further replacements in the engine's configuration.
    pub edits: Vec<(&'static str, String)>,
}

/// What came of a run that passed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The engine's last report.
    pub report: Report,
    /// The remote intercept's, if there was one.
    pub intercept: Option<Report>,
    /// The engine's log.
    pub log: String,
}

impl Setup {
    /// A mirror port and a replay port of these NICs, IPv4, two workers.
    pub fn of(model: Model) -> Self {
        let nics = [Cable::Mirror, Cable::Replay].map(|cable| Nic { model, cable });
        Self {
            vm: VmOptions {
                nics: nics.to_vec(),
                memory: Memory::default(),
            },
            family: Family::V4,
            workers: 2,
            pulls_cables: false,
            edits: Vec::new(),
        }
    }

    pub(super) fn responses(&self) -> Responses {
        match self.vm.address(Cable::Assistant) {
            Some(_) => Responses::Remote,
            None => Responses::Embedded,
        }
    }

    pub(super) fn engine(&self) -> Result<EngineOptions> {
        let at = |cable| {
            self.vm
                .address(cable)
                .with_context(|| format!("no NIC leads to {cable:?}"))
        };
        let cores = match self.workers {
            1 => ("lcores = [1]", "lcores = [1]".to_owned()),
            _ => ("lcores = [0, 1]", "lcores = [1, 2]".to_owned()),
        };
        let mut edits = vec![cores, ("no-huge", "hugepages".to_owned())];
        edits.extend(self.edits.iter().cloned());
        Ok(EngineOptions {
            families: vec![self.family],
            workers: self.workers,
            mirror: at(Cable::Mirror)?,
            port: at(Cable::Replay)?,
            edits,
            ..EngineOptions::default()
        })
    }

    pub(super) fn intercept(&self) -> Option<InterceptOptions> {
        let port = self.vm.address(Cable::Assistant)?;
        Some(InterceptOptions {
            edits: vec![
                ("net_af_packet0,iface=abs0,framecnt=4096", port),
                ("no-huge", "hugepages".to_owned()),
                // The others are the engine's.
                ("lcores = [1]", "lcores = [0]".to_owned()),
            ],
            ..InterceptOptions::default()
        })
    }

    /// Runs it, once more if the guest hangs.
    ///
    /// # Errors
    /// The first thing that is not as it should be.
    pub fn run(&self, test: &str, machine: &Machine) -> Result<Outcome> {
        super::once_more(test, || {
            let lab = Lab::start(LabOptions {
                responses: self.responses(),
                ..LabOptions::default()
            })?;
            let outcome = self.run_in(&lab, machine);
            if outcome.as_ref().is_err_and(|e| !e.is::<Hangs>()) {
                lab.failed();
            }
            outcome
        })
    }

    /// Pulls each cable, one after the other, and plugs it in again as soon as the engine says that
    /// the link is down.
    fn pull_cables(&self, vm: &mut Vm, engine: &Job) -> Result<()> {
        for index in 0..self.vm.nics.len() {
            for (up, what) in [(false, "its link is down"), (true, "its link is up")] {
                vm.set_link(index, up)?;
                vm.wait_until(what, SETTLE, || {
                    Ok((said(&engine.log(), what) > index).then_some(()))
                })?;
            }
        }
        Ok(())
    }

    fn run_in(&self, lab: &Lab, machine: &Machine) -> Result<Outcome> {
        let production = Server::start(lab, Side::Production, Service::Http, true)?;
        let target = Server::start(lab, Side::Target, Service::Http, true)?;
        let mut vm = Vm::start(lab, machine, &self.vm)?;

        let intercept = match self.intercept() {
            None => None,
            Some(options) => {
                vm.run("ip addr add 10.30.0.3/32 dev lo")?;
                let config = options.write(lab)?;
                let args = ["--config", &config.display().to_string()];
                let job = vm.program("intercept", &binary("intercept")?, &args)?;
                vm.wait_ready(&job, START)?;
                Some(job)
            }
        };
        let config = self.engine()?.write(lab)?;
        let args = ["--config", &config.display().to_string()];
        let engine = vm.program("engine", &binary("engine")?, &args)?;
        vm.wait_ready(&engine, START)?;

        let (mut requests, mut connections) = (0, 0);
        for workload in load(self.family) {
            let summary = lab.load(&workload)?;
            if let Some(error) = summary.first_error {
                bail!(
                    "production failed its clients in {} of {} connections: {error}",
                    summary.errors,
                    workload.connections
                );
            }
            requests += turns(&workload);
            connections += workload.connections;
        }

        let path = lab.file("report.json");
        let settled = vm.wait_until("every request replayed", SETTLE, || {
            if let Some(code) = engine.code()? {
                bail!("engine: exit code {code}; its log:\n{}", engine.tail());
            }
            if !path.exists() {
                return Ok(None);
            }
            let report = Report::read(&path)?;
            report.check_books(1)?;
            let done = report.number("production.turns")? >= requests
                && report.number("in_flight.turns")? == 0;
            Ok(done.then_some(()))
        });
        let settled = match settled {
            Err(e) if e.is::<Hangs>() => return Err(e),
            other => other,
        };
        target.records_when(connections, Duration::from_secs(20))?;
        if self.pulls_cables {
            self.pull_cables(&mut vm, &engine)?;
        }
        for job in std::iter::once(&engine).chain(&intercept) {
            let code = vm.terminate(job, STOP)?;
            if code != 0 {
                bail!("exit code {code} after SIGTERM; its log:\n{}", job.tail());
            }
        }
        drop(vm);

        let report = Report::read(&path)?;
        let asked = [&production, &target].map(Server::access_count);
        let (production, target) = (production.stop()?, target.stop()?);
        check_byte_exact(&production, &target, Match::Bytes, 1)
            .map_err(|e| anyhow!("{e:#}\n{report}"))?;
        settled?;
        report.check_books(1)?;
        report.check_nothing_lost()?;
        for (what, found) in [
            (
                "requests in production's log",
                asked[0].as_ref().ok().map(|n| *n as u64),
            ),
            (
                "requests in the target's log",
                asked[1].as_ref().ok().map(|n| *n as u64),
            ),
            ("production.turns", Some(report.number("production.turns")?)),
            ("replayed.turns", Some(report.number("replayed.turns")?)),
        ] {
            if found != Some(requests) {
                bail!("{what}: {found:?} instead of {requests}:\n{report}");
            }
        }
        if production.len() != connections {
            bail!(
                "production recorded {} connections of {connections} that clients made",
                production.len()
            );
        }
        let intercept = match intercept {
            None => None,
            Some(_) => Some(Report::read(&lab.file("intercept-report.json"))?),
        };
        Ok(Outcome {
            report,
            intercept,
            log: engine.log(),
        })
    }
}

/// How often a log's lines say this.
fn said(log: &str, what: &str) -> usize {
    log.lines().filter(|line| line.contains(what)).count()
}

/// What clients ask for: 200 small requests a second, and bodies of a byte, of a segment and of
/// many.
pub(super) fn load(family: Family) -> Vec<Workload> {
    let base = |talk, connections, requests, rate, seed| Workload {
        to: Service::Http.on_production(family),
        from: Vec::new(),
        talk,
        connections,
        requests,
        concurrency: 10,
        rate,
        seed,
    };
    vec![
        base(Talk::Get, 300, 2, 200, 1),
        base(Talk::Post(vec![1, 1460, 20_000]), 30, 3, 40, 2),
    ]
}
