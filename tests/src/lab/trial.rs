//! One run of the whole appliance: real servers on both sides behind recorders, the engine,
//! workloads, and the comparison.
//!
//! A trial proves three things at once: the target was told byte for byte what production was told,
//! nothing was lost, and the engine's books balanced in every report it wrote on the way.

use super::appliance::{Clients, Engine, EngineOptions, Intercept, InterceptOptions};
use super::report::Report;
use super::servers::{Server, Service, Side};
use super::{Family, Lab, LabOptions, Responses};
use crate::load::{Talk, Workload};
use crate::record::{Match, Record, check_byte_exact};
use anyhow::{Context, Result, bail};
use std::time::Duration;

/// How long a trial waits for the replay to be over after the load is. Of 20,000 connections that
/// lose 5 % of their packets each way, one may have lost its SYN and its request five times: with
/// RFC 6298's three seconds after a lost SYN, doubled each time, that takes 93 s.
const SETTLE: Duration = Duration::from_secs(120);

/// A run in the making.
#[derive(Debug)]
pub struct Trial {
    parts: Parts,
    options: EngineOptions,
    turns: u64,
    connections: usize,
    /// The lab it runs in; last, so that it goes last.
    pub lab: Lab,
}

/// What runs in the lab.
#[derive(Debug)]
struct Parts {
    /// Each service with its servers in production and as the target.
    services: Vec<(Service, Server, Server)>,
    intercept: Option<Intercept>,
    engine: Engine,
}

/// What came of a run that passed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The engine's last report.
    pub report: Report,
    /// Connections that were compared.
    pub connections: usize,
    /// What the target's recorders wrote down of each.
    pub target: Vec<Record>,
}

impl Trial {
    /// Builds a lab, starts the services on both sides, the intercept if responses are absorbed
    /// remotely, and the engine.
    ///
    /// # Errors
    /// Something of it does not come up.
    pub fn start(lab: LabOptions, options: EngineOptions) -> Result<Self> {
        Self::start_in(Lab::start(lab)?, options)
    }

    /// The same in a lab that is there already.
    ///
    /// # Errors
    /// As [`Trial::start`].
    pub fn start_in(lab: Lab, options: EngineOptions) -> Result<Self> {
        match Parts::start(&lab, &options) {
            Ok(parts) => Ok(Self {
                parts,
                options,
                turns: 0,
                connections: 0,
                lab,
            }),
            Err(e) => {
                lab.failed();
                Err(e)
            }
        }
    }

    /// The engine.
    pub const fn engine(&mut self) -> &mut Engine {
        &mut self.parts.engine
    }

    /// Runs a workload to its end. Production has to answer all of it.
    ///
    /// # Errors
    /// Production did not, which says nothing about the appliance unless it disturbs production.
    pub fn load(&mut self, workload: &Workload) -> Result<()> {
        let summary = self.lab.load(workload)?;
        if let Some(error) = summary.first_error {
            bail!(
                "production failed its clients in {} of {} connections: {error}",
                summary.errors,
                workload.connections
            );
        }
        self.turns += turns(workload);
        self.connections += workload.connections;
        Ok(())
    }

    /// Waits until everything is replayed, ends it all and compares.
    ///
    /// # Errors
    /// The first thing that is not as it should be, with what is needed to find out why.
    pub fn finish(self) -> Result<Outcome> {
        Ok(self.finish_beside(|| Ok(()))?.0)
    }

    /// The same, and ends what goes on beside the trial as long as its lab is there.
    ///
    /// # Errors
    /// As [`Trial::finish`], and what `beside` fails with.
    pub fn finish_beside<T>(self, beside: impl FnOnce() -> Result<T>) -> Result<(Outcome, T)> {
        let Self {
            parts,
            options,
            turns,
            connections,
            lab,
        } = self;
        let outcome = parts
            .finish(&options, turns, connections)
            .and_then(|outcome| Ok((outcome, beside()?)));
        if outcome.is_err() {
            lab.failed();
        }
        outcome
    }
}

impl Parts {
    fn start(lab: &Lab, options: &EngineOptions) -> Result<Self> {
        let mut services = Vec::new();
        for service in &options.services {
            let production = Server::start(lab, Side::Production, *service, true)?;
            let target = Server::start(lab, Side::Target, *service, true)?;
            services.push((*service, production, target));
        }
        let intercept = match lab.options().responses {
            Responses::Embedded => None,
            Responses::Remote => Some(Intercept::start(lab, &InterceptOptions::default())?),
        };
        let engine = Engine::start(lab, options)?;
        Ok(Self {
            services,
            intercept,
            engine,
        })
    }

    fn finish(
        mut self,
        options: &EngineOptions,
        turns: u64,
        connections: usize,
    ) -> Result<Outcome> {
        let copies = options.copies;
        let settled = self.engine.settle(turns, copies, SETTLE);
        for (service, production, target) in &self.services {
            let expected = production.records()?.len() * usize::from(copies);
            target
                .records_when(expected, Duration::from_secs(10))
                .with_context(|| format!("{service:?}"))?;
        }
        // The comparison says more than a report that does not settle, so it comes first.
        let mode = if options.clients == Clients::Own && copies == 1 {
            Match::Endpoint
        } else {
            Match::Bytes
        };
        let mut compared = 0;
        let mut at_target = Vec::new();
        let mut differences = Vec::new();
        let report = settled.and_then(|_| self.engine.stop());
        for (service, production, target) in self.services {
            let (production, target) = (production.stop()?, target.stop()?);
            compared += production.len();
            if production.is_empty() && target.is_empty() {
                continue;
            }
            if let Err(e) = check_byte_exact(&production, &target, mode, usize::from(copies)) {
                differences.push(format!("{service:?}: {e:#}"));
            }
            at_target.extend(target);
        }
        if !differences.is_empty() {
            let report = report.map_or_else(|e| format!("{e:#}"), |r| r.to_string());
            bail!("{}\n{report}", differences.join("\n"));
        }
        let report = report?;
        if let Some(intercept) = self.intercept {
            intercept.stop()?;
        }
        report.check_books(copies)?;
        report.check_nothing_lost()?;
        if compared != connections {
            bail!("production recorded {compared} connections of {connections} that clients made");
        }
        Ok(Outcome {
            report,
            connections: compared,
            target: at_target,
        })
    }
}

/// How many turns the clients of a workload take at least: one each time they speak after they were
/// answered.
pub fn turns(w: &Workload) -> u64 {
    let each = match w.talk {
        Talk::Get | Talk::Post(_) => w.requests,
        Talk::Redis { pipeline, .. } => w.requests.div_ceil(pipeline),
        // EHLO, QUIT, and for each message MAIL, RCPT, DATA and the text.
        Talk::Smtp => 2 + 4 * w.requests,
    };
    (each * w.connections) as u64
}

/// The workloads of the byte-exact proof, for one family: 2,000 short HTTP connections, 50 kept
/// alive with 200 requests each, POST bodies around the segment size and far above, redis with and
/// without pipelining, and SMTP, where the server speaks first.
pub fn full_load(lab: &Lab, family: Family) -> Vec<Workload> {
    let base =
        |service: Service, talk: Talk, connections: usize, requests: usize, rate: u32| Workload {
            to: service.on_production(family),
            from: lab.client_addresses(family),
            talk,
            connections,
            requests,
            concurrency: 10,
            rate,
            seed: 0,
        };
    let sizes = vec![1, 1459, 1460, 1461, 64 * 1024, 1024 * 1024];
    let mut all = vec![
        base(Service::Http, Talk::Get, 2000, 1, 500),
        Workload {
            concurrency: 50,
            ..base(Service::Http, Talk::Get, 50, 200, 4000)
        },
        Workload {
            concurrency: 3,
            ..base(Service::Http, Talk::Post(sizes.clone()), 18, 1, 40)
        },
        Workload {
            concurrency: 3,
            ..base(Service::Http, Talk::Post(sizes), 3, 6, 40)
        },
        base(
            Service::Redis,
            Talk::Redis {
                pipeline: 1,
                value: 64,
            },
            20,
            100,
            2000,
        ),
        base(
            Service::Redis,
            Talk::Redis {
                pipeline: 16,
                value: 200,
            },
            20,
            160,
            500,
        ),
        base(Service::Smtp, Talk::Smtp, 20, 2, 50),
    ];
    for (seed, workload) in all.iter_mut().enumerate() {
        workload.seed = seed as u64 + 1;
    }
    all
}
