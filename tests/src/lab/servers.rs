//! Real servers in the lab: nginx, redis and exim as Debian ships them, alone or behind a recorder.
//!
//! A recorded server listens on a loopback port of its namespace and the recorder on the public
//! addresses of both families; without a recorder the server listens there itself. Each has its own
//! folder in the lab's, and nothing of the host's configuration is read.

use super::process::{Process, binary, wait_until};
use super::{Family, Lab, Node};
use crate::record::{self, Record};
use anyhow::{Context, Result};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const START: Duration = Duration::from_secs(10);

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// nginx: `GET /` answers a small page, `POST /post` reads the whole body before it answers.
    Http,
    /// redis-server without persistence.
    Redis,
    /// exim, which accepts every message and throws it away.
    Smtp,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Http, Self::Redis, Self::Smtp];

    /// Its port on the production server.
    pub const fn production_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Redis => 6379,
            Self::Smtp => 25,
        }
    }

    /// Its port on the target: another one for HTTP, so that ports are seen to be rewritten.
    pub const fn target_port(self) -> u16 {
        match self {
            Self::Http => 8080,
            Self::Redis => 6379,
            Self::Smtp => 25,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Http => "nginx",
            Self::Redis => "redis",
            Self::Smtp => "exim",
        }
    }

    /// Where clients reach it.
    pub const fn on_production(self, family: Family) -> SocketAddr {
        SocketAddr::new(family.production(), self.production_port())
    }

    /// Where the appliance reaches it.
    pub const fn on_target(self, family: Family) -> SocketAddr {
        SocketAddr::new(family.target(), self.target_port())
    }
}

/// A side of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The production server.
    Production,
    /// The server under test.
    Target,
}

impl Side {
    const fn node(self) -> Node {
        match self {
            Self::Production => Node::Production,
            Self::Target => Node::Target,
        }
    }
}

/// A running server, with its recorder if it has one.
#[derive(Debug)]
pub struct Server {
    recorder: Option<(Process, PathBuf)>,
    process: Process,
    access_log: PathBuf,
}

impl Server {
    /// Starts a server on one side, on both families' addresses.
    ///
    /// # Errors
    /// It isn't installed, or does not come up in time; its log's last lines are in the error.
    pub fn start(lab: &Lab, side: Side, service: Service, recorded: bool) -> Result<Self> {
        let port = match side {
            Side::Production => service.production_port(),
            Side::Target => service.target_port(),
        };
        let public = [Family::V4, Family::V6].map(|family| match side {
            Side::Production => SocketAddr::new(family.production(), port),
            Side::Target => SocketAddr::new(family.target(), port),
        });
        let private = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 20_000 + port);
        let listen: &[SocketAddr] = if recorded { &[private] } else { &public };

        let name = server_name(service, side);
        let dir = lab.file(&name);
        std::fs::create_dir_all(&dir)
            .with_context(|| format!("{}: cannot be made", dir.display()))?;
        let command = match service {
            Service::Http => nginx(lab, side, &dir, listen),
            Service::Redis => redis(lab, side, &dir, listen),
            Service::Smtp => exim(lab, side, &dir, listen),
        }?;
        let mut process = lab.spawn(&name, command)?;
        let inode_of = lab.namespace(side.node());
        for address in listen {
            wait_until(&format!("{name}: listening on {address}"), START, || {
                if let Some(status) = process.status()? {
                    anyhow::bail!("{name}: ended ({status}); its log:\n{}", process.tail());
                }
                listening(&inode_of, *address)
            })?;
        }
        let recorder = if recorded {
            Some(recorder(lab, side, &name, &public, private)?)
        } else {
            None
        };
        Ok(Self {
            recorder,
            process,
            access_log: dir.join("access.log"),
        })
    }

    /// The records of connections that have ended so far; empty without a recorder.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn records(&self) -> Result<Vec<Record>> {
        self.recorder
            .as_ref()
            .map_or_else(|| Ok(Vec::new()), |(_, path)| record::read(path))
    }

    /// Waits until that many connections have ended. Returns what there is when the time is over.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn records_when(&self, count: usize, limit: Duration) -> Result<Vec<Record>> {
        let enough = || {
            self.records()
                .map(|records| (records.len() >= count).then_some(records))
        };
        wait_until("records", limit, enough).or_else(|_| self.records())
    }

    /// Ends the recorder and returns all records, those of open connections included.
    ///
    /// # Errors
    /// The recorder had ended before or does not end.
    pub fn stop(mut self) -> Result<Vec<Record>> {
        let records = match self.recorder.take() {
            Some((mut process, path)) => {
                process.terminate(Duration::from_secs(5))?;
                record::read(&path)
            }
            None => Ok(Vec::new()),
        };
        self.process.terminate(Duration::from_secs(5))?;
        records
    }

    /// Requests in nginx's access log; 0 for other servers.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn access_count(&self) -> Result<usize> {
        if !self.access_log.exists() {
            return Ok(0);
        }
        let text = std::fs::read(&self.access_log)
            .with_context(|| format!("{}: cannot be read", self.access_log.display()))?;
        Ok(text.iter().filter(|b| **b == b'\n').count())
    }
}

fn kept_folder(lab: &Lab, name: &str) -> PathBuf {
    lab.file(&format!("{name}.bytes"))
}

/// What the client of a recorded connection said, in a lab whose recorders keep it.
///
/// # Errors
/// The file can't be read: the recorder did not keep it, or the record is another server's.
pub fn kept(lab: &Lab, side: Side, service: Service, record: &Record) -> Result<Vec<u8>> {
    let name = server_name(service, side);
    let path = kept_folder(lab, &name).join(record.kept_name());
    std::fs::read(&path).with_context(|| format!("{}: cannot be read", path.display()))
}

fn server_name(service: Service, side: Side) -> String {
    format!("{}-{}", service.name(), side.node().suffix())
}

/// True once somebody listens there.
fn listening(namespace: &str, address: SocketAddr) -> Result<Option<()>> {
    let filter = format!("src {address}");
    let text = super::process::output(
        Command::new("ip").args(["netns", "exec", namespace, "ss", "-Hltn", &filter]),
    )?;
    Ok((!text.trim().is_empty()).then_some(()))
}

fn recorder(
    lab: &Lab,
    side: Side,
    name: &str,
    public: &[SocketAddr],
    to: SocketAddr,
) -> Result<(Process, PathBuf)> {
    let path = lab.file(&format!("{name}.records"));
    let mut command = lab.command(side.node(), binary("recorder")?);
    for address in public {
        command.arg(format!("--listen={address}"));
    }
    command.arg(format!("--to={to}")).arg("--out").arg(&path);
    if lab.options().keep_bytes || std::env::var_os("REPLAY_KEEP_BYTES").is_some() {
        let kept = kept_folder(lab, name);
        std::fs::create_dir_all(&kept)?;
        command.arg("--keep").arg(kept);
    }
    let mut process = lab.spawn(&format!("{name}-recorder"), command)?;
    process.wait_for("ready", START)?;
    Ok((process, path))
}

fn nginx(lab: &Lab, side: Side, dir: &Path, listen: &[SocketAddr]) -> Result<Command> {
    let d = dir.display();
    let listen: String = listen
        .iter()
        .map(|a| format!("listen {a} backlog=4096; "))
        .collect();
    // A `return` answers before the body has come; a proxied request is read to its end first, as
    // an application would.
    let text = format!(
        "daemon off; master_process off; worker_processes 1; pid {d}/pid; error_log stderr error;\n\
         worker_rlimit_nofile 8192;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
           access_log {d}/access.log; client_max_body_size 16m; keepalive_requests 1000000; keepalive_timeout 120s;\n\
           client_body_temp_path {d}/body; proxy_temp_path {d}/proxy; fastcgi_temp_path {d}/fastcgi;\n\
           uwsgi_temp_path {d}/uwsgi; scgi_temp_path {d}/scgi; default_type text/plain;\n\
           server {{ {listen}\n\
             location / {{ return 200 \"hello from the server, this is a small page\\n\"; }}\n\
             location /post {{ proxy_pass http://unix:{d}/sink:/; proxy_http_version 1.1; }} }}\n\
           server {{ listen unix:{d}/sink; access_log off; location / {{ return 200 \"thank you\\n\"; }} }}\n\
         }}\n"
    );
    let path = dir.join("nginx.conf");
    std::fs::write(&path, text)
        .with_context(|| format!("{}: cannot be written", path.display()))?;
    let mut command = lab.command(side.node(), "nginx");
    command
        .arg("-c")
        .arg(&path)
        .arg("-e")
        .arg("stderr")
        .arg("-p")
        .arg(dir);
    Ok(command)
}

fn redis(lab: &Lab, side: Side, dir: &Path, listen: &[SocketAddr]) -> Result<Command> {
    let mut command = lab.command(side.node(), "redis-server");
    command.args([
        "--save",
        "",
        "--appendonly",
        "no",
        "--protected-mode",
        "no",
        "--tcp-backlog",
        "511",
        "--daemonize",
        "no",
    ]);
    command.arg("--dir").arg(dir).arg("--bind");
    for address in listen {
        command.arg(address.ip().to_string());
    }
    for address in listen.iter().take(1) {
        command.arg("--port").arg(address.port().to_string());
    }
    Ok(command)
}

fn exim(lab: &Lab, side: Side, dir: &Path, listen: &[SocketAddr]) -> Result<Command> {
    let d = dir.display();
    // Exim takes `address.port` in a list with its own separator, which leaves the colons to IPv6.
    let listen: Vec<String> = listen
        .iter()
        .map(|a| format!("[{}]:{}", a.ip(), a.port()))
        .collect();
    let listen = listen.join(" ; ");
    let text = format!(
        "primary_hostname = lab.invalid\nspool_directory = {d}/spool\nlog_file_path = {d}/%slog\npid_file_path = {d}/pid\n\
         local_interfaces = <; {listen}\nhost_lookup =\nrfc1413_query_timeout = 0s\n\
         acl_smtp_rcpt = accept\nacl_smtp_data = discard\nsmtp_accept_max = 200\nsmtp_accept_max_per_host = 200\nsmtp_connect_backlog = 200\n\
         smtp_accept_reserve = 0\nkeep_environment =\ntls_advertise_hosts =\nlog_selector = -all\n\
         begin routers\nnowhere:\n  driver = redirect\n  data = :blackhole:\n"
    );
    let path = dir.join("exim.conf");
    std::fs::write(&path, text)
        .with_context(|| format!("{}: cannot be written", path.display()))?;
    std::fs::create_dir_all(dir.join("spool"))?;
    // Exim gives up root for its own user, who must be able to write here.
    super::process::output(Command::new("chown").args(["-R", "Debian-exim:"]).arg(dir))
        .context("exim's own user (package exim4-daemon-light)")?;
    super::process::output(Command::new("chown").arg("root").arg(&path))?;
    let mut command = lab.command(side.node(), "exim4");
    command.arg("-C").arg(&path).arg("-bdf");
    Ok(command)
}
