//! The demonstration: nginx in production, nginx as the target, wrk as the clients, the engine
//! between them, and then the counts of all of them side by side.
//!
//! Three parties count independently: production's access log, the target's access log and the
//! engine. The demonstration succeeds if they agree and nothing was lost.

use super::appliance::{Engine, EngineOptions};
use super::process::{Process, wait_until};
use super::report::Report;
use super::servers::{Server, Service, Side};
use super::{Family, Lab, LabOptions, Node};
use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// wrk has no rate of its own: its script makes each connection wait, in ms, so that one machine
/// can carry all parties.
const PACE: &str =
    "function delay() return math.random(1, 2 * tonumber(os.getenv('PACE_MS')) - 1) end\n";

const SETTLE: Duration = Duration::from_secs(20);

/// A wrk: connections, mean wait in ms before each request, and whether each request has a
/// connection of its own.
struct Clients {
    name: &'static str,
    connections: u32,
    pace_ms: u32,
    short: bool,
}

const CLIENTS: [Clients; 2] = [
    Clients {
        name: "short",
        connections: 8,
        pace_ms: 15,
        short: true,
    },
    Clients {
        name: "keep-alive",
        connections: 20,
        pace_ms: 10,
        short: false,
    },
];

/// What the three parties counted.
struct Counts {
    production_log: u64,
    target_log: u64,
    report: Report,
}

/// Runs the demonstration and prints its table. Returns the reason if the counts disagree.
///
/// # Errors
/// Something of it can't be run, or a signal ended it. Whatever happens, nothing is left behind.
pub fn run(seconds: u32) -> Result<Option<String>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let style = Style::of_stdout();
    println!(
        "{}building the lab: clients, a production server with a mirror port, a target",
        style.dim("· ")
    );
    let lab = Lab::start(LabOptions::default())?;
    let counts = replay(&lab, seconds, &stop, &style).inspect_err(|_| lab.failed())?;
    let reason = disagreement(&counts)?;
    table(&counts, &style)?;
    match &reason {
        None => println!(
            "{}",
            style.good("production, target and appliance agree; nothing was lost")
        ),
        Some(reason) => println!("{}", style.bad(reason)),
    }
    Ok(reason)
}

fn replay(lab: &Lab, seconds: u32, stop: &AtomicBool, style: &Style) -> Result<Counts> {
    let production = Server::start(lab, Side::Production, Service::Http, false)?;
    let target = Server::start(lab, Side::Target, Service::Http, false)?;
    let mut engine = Engine::start(lab, &EngineOptions::default())?;
    println!(
        "{}engine is ready: {} -> {}",
        style.dim("· "),
        Service::Http.on_production(Family::V4),
        Service::Http.on_target(Family::V4)
    );
    println!(
        "{}wrk asks production for {seconds} s, with short and with kept-alive connections",
        style.dim("· ")
    );
    let script = lab.file("pace.lua");
    std::fs::write(&script, PACE)?;
    let mut clients = Vec::new();
    for c in CLIENTS {
        let mut command = lab.command(Node::Client, "wrk");
        command
            .arg("-t1")
            .arg(format!("-c{}", c.connections))
            .arg(format!("-d{seconds}s"))
            .arg("-s")
            .arg(&script);
        if c.short {
            command.args(["-H", "Connection: close"]);
        }
        command.env("PACE_MS", c.pace_ms.to_string()).arg(format!(
            "http://{}/",
            Service::Http.on_production(Family::V4)
        ));
        clients.push(lab.spawn(&format!("wrk-{}", c.name), command)?);
    }
    wait_for(
        &mut clients,
        Duration::from_secs(u64::from(seconds) + 30),
        stop,
    )?;
    println!("{}waiting until all of it is replayed", style.dim("· "));
    // The servers write their logs as they go; what they have counted is compared when none of it
    // changes any more.
    let expected = production.access_count()? as u64;
    engine
        .settle(expected, 1, SETTLE)
        .context("the replay did not come to its end")?;
    let report = engine.stop()?;
    let settled = || Ok((target.access_count()? >= expected as usize).then_some(()));
    let _ = wait_until("the target's access log", Duration::from_secs(2), settled);
    Ok(Counts {
        production_log: production.access_count()? as u64,
        target_log: target.access_count()? as u64,
        report,
    })
}

fn wait_for(clients: &mut [Process], limit: Duration, stop: &AtomicBool) -> Result<()> {
    for client in clients {
        let status = wait_until("wrk's end", limit, || {
            if stop.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            client.status()
        })?;
        if !status.success() {
            bail!("wrk: {status}:\n{}", client.tail());
        }
    }
    Ok(())
}

fn disagreement(c: &Counts) -> Result<Option<String>> {
    let (seen, replayed, lost) = (
        c.report.number("production.turns")?,
        c.report.number("replayed.turns")?,
        c.report.number("lost.turns")?,
    );
    if c.production_log == 0 {
        return Ok(Some(
            "production answered no request: nothing was shown".to_owned(),
        ));
    }
    let all = [c.production_log, seen, replayed, c.target_log];
    if lost == 0 && all.iter().all(|n| *n == c.production_log) {
        return Ok(None);
    }
    Ok(Some(format!(
        "the counts disagree: production answered {} requests, the appliance saw {seen}, replayed {replayed} and lost {lost}, the target answered {}",
        c.production_log, c.target_log
    )))
}

fn table(c: &Counts, style: &Style) -> Result<()> {
    let number = |path: &str| c.report.number(path).map(grouped);
    println!();
    println!(
        "{}",
        style.strong(&format!(
            "{:<24}{:>16}{:>16}{:>16}",
            "", "production", "replayed", "lost"
        ))
    );
    println!(
        "{:<24}{:>16}{:>16}{:>16}",
        "sessions",
        number("production.sessions")?,
        number("replayed.sessions")?,
        ""
    );
    for what in ["turns", "bytes"] {
        let of = |part: &str| number(&format!("{part}.{what}"));
        println!(
            "{what:<24}{:>16}{:>16}{:>16}",
            of("production")?,
            of("replayed")?,
            of("lost")?
        );
    }
    println!();
    println!(
        "{}",
        style.strong(&format!(
            "{:<24}{:>16}{:>16}{:>16}",
            "requests counted by", "production", "the appliance", "the target"
        ))
    );
    println!(
        "{:<24}{:>16}{:>16}{:>16}",
        "",
        grouped(c.production_log),
        number("replayed.turns")?,
        grouped(c.target_log)
    );
    println!();
    println!(
        "{}",
        style.strong(&format!(
            "{:<24}{:>16}{:>16}{:>16}{:>16}",
            "latency in µs", "p50", "p90", "p99", "max"
        ))
    );
    for side in ["production", "target"] {
        let of = |p: &str| number(&format!("latency.{side}.{p}_us"));
        println!(
            "{side:<24}{:>16}{:>16}{:>16}{:>16}",
            of("p50")?,
            of("p90")?,
            of("p99")?,
            of("max")?
        );
    }
    println!();
    Ok(())
}

/// A number with a comma between thousands.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Colours, or none: only a terminal gets them, and not if `NO_COLOR` is set.
struct Style {
    colour: bool,
}

impl Style {
    fn of_stdout() -> Self {
        Self {
            colour: std::io::stdout().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    fn strong(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn good(&self, text: &str) -> String {
        self.paint("1;32", text)
    }

    fn bad(&self, text: &str) -> String {
        self.paint("1;31", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(seen: u64, replayed: u64, lost: u64, target_log: u64) -> Counts {
        let text = format!(
            r#"{{"production": {{"turns": {seen}}}, "replayed": {{"turns": {replayed}}}, "lost": {{"turns": {lost}}}}}"#
        );
        Counts {
            production_log: 7,
            target_log,
            report: Report::parse(&text).unwrap(),
        }
    }

    #[test]
    fn every_disagreement_is_found() {
        assert_eq!(disagreement(&counts(7, 7, 0, 7)).unwrap(), None);
        for bad in [
            counts(6, 7, 0, 7),
            counts(7, 6, 0, 7),
            counts(7, 7, 1, 7),
            counts(7, 7, 0, 8),
        ] {
            assert!(disagreement(&bad).unwrap().is_some());
        }
        assert!(
            disagreement(&Counts {
                production_log: 0,
                ..counts(0, 0, 0, 0)
            })
            .unwrap()
            .is_some()
        );
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
