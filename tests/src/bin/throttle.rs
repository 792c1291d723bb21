//! A TCP proxy that reads each client's bytes slowly, out of a small receive buffer: what a server
//! looks like that can't keep up.
//!
//! Answers pass at once, and so does everything after SIGUSR1.
#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use clap::Parser;
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

/// Reads clients slowly and passes on what they say.
#[derive(Parser)]
struct Args {
    /// Address and port to listen on.
    #[arg(long)]
    listen: SocketAddr,
    /// Address and port of the server.
    #[arg(long)]
    to: SocketAddr,
    /// Bytes a second that are read of each connection.
    #[arg(long)]
    rate: u32,
    /// Receive buffer of each connection in bytes; the kernel doubles it, and has a least size of
    /// its own.
    #[arg(long)]
    buffer: u32,
}

/// How often a connection is read.
const TICK: Duration = Duration::from_millis(20);

async fn upward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    rate: u32,
    fast: Rc<Cell<bool>>,
) -> Result<()> {
    let slow = (u64::from(rate) * TICK.as_millis() as u64 / 1000).max(1) as usize;
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let at_most = if fast.get() { chunk.len() } else { slow };
        let n = from
            .read(chunk.get_mut(..at_most).unwrap_or(&mut []))
            .await?;
        if n == 0 {
            return Ok(to.shutdown().await?);
        }
        to.write_all(chunk.get(..n).unwrap_or(&[])).await?;
        if !fast.get() {
            tokio::time::sleep(TICK).await;
        }
    }
}

async fn downward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> Result<()> {
    tokio::io::copy(&mut from, &mut to).await?;
    Ok(to.shutdown().await?)
}

async fn carry(client: TcpStream, args: Rc<Args>, fast: Rc<Cell<bool>>) -> Result<()> {
    let server = TcpStream::connect(args.to).await?;
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    tokio::try_join!(
        upward(client_read, server_write, args.rate, fast),
        downward(server_read, client_write)
    )?;
    Ok(())
}

async fn run(args: Args) -> Result<()> {
    let socket = if args.listen.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    // Connections take it over from the listener, early enough for the window that the SYN|ACK
    // offers.
    socket.set_recv_buffer_size(args.buffer)?;
    let listen = args.listen;
    socket
        .bind(listen)
        .with_context(|| format!("{listen}: cannot be bound"))?;
    let listener = socket.listen(4096)?;
    let mut freed = signal(SignalKind::user_defined1())?;
    let (args, fast) = (Rc::new(args), Rc::new(Cell::new(false)));
    eprintln!(
        "ready: {} bytes a second from {listen} to {}",
        args.rate, args.to
    );
    loop {
        tokio::select! {
            _ = freed.recv() => fast.set(true),
            accepted = listener.accept() => {
                let Ok((client, peer)) = accepted else { continue };
                let (args, fast) = (Rc::clone(&args), Rc::clone(&fast));
                tokio::task::spawn_local(async move {
                    if let Err(e) = carry(client, args, fast).await {
                        eprintln!("throttle: {peer}: {e:#}");
                    }
                });
            }
        }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, run(args))
}
