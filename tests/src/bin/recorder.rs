//! A transparent TCP proxy that stores, for each connection, what the client sent: its length, its
//! SHA-256, how it ended.
//!
//! It stands in front of a real server, of production and of the target alike, so that the two
//! lists can be compared. It adds and changes no byte, closes each direction when that direction
//! was closed, and passes a reset on as a reset. A record is written when a connection has ended,
//! and on SIGTERM or SIGINT for those that are still open. Without a server behind it, it is a
//! sink: it reads to the client's end, answers nothing or as it was told to, and closes then.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tests::answer::{Answer, Requests, answer};
use tests::record::{End, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Records what clients send to a server.
#[derive(Parser)]
struct Args {
    /// Address and port to listen on; several are allowed.
    #[arg(long, required = true)]
    listen: Vec<SocketAddr>,
    /// Address and port of the real server; without it clients are read to their end and never
    /// answered.
    #[arg(long)]
    to: Option<SocketAddr>,
    /// File that the records are written to, one line of JSON each.
    #[arg(long)]
    out: PathBuf,
    /// Folder in which each client's bytes are kept too, as ADDRESS-PORT-TIME.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Without a server: what is answered.
    #[command(flatten)]
    answer: Answer,
}

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// How often finished records reach the file.
const FLUSH: Duration = Duration::from_millis(100);

/// A connection that is being carried.
struct Live {
    record: Record,
    hash: Sha256,
    kept: Option<File>,
    /// Without a server: where requests begin and end, and who answers them.
    asking: Option<(Requests, UnboundedSender<()>)>,
}

impl Live {
    fn take(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if let Some((requests, answers)) = &mut self.asking {
            let heard = requests.hear(bytes);
            for _ in 0..heard.begun {
                self.record.asked_at.push(self.record.answered);
            }
            for _ in 0..heard.ended {
                // A client that has reset its connection is answered no more.
                let _ = answers.send(());
            }
        }
        self.hash.update(bytes);
        self.record.bytes += bytes.len() as u64;
        self.kept
            .as_mut()
            .map_or(Ok(()), |file| file.write_all(bytes))
    }

    fn finish(mut self) -> Record {
        self.record.closed_us = now_us();
        self.record.sha256 = self
            .hash
            .finalize()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        self.record
    }
}

struct Book {
    out: BufWriter<File>,
    live: HashMap<u64, Live>,
    next: u64,
    keep: Option<PathBuf>,
}

type Shared = Rc<RefCell<Book>>;

impl Book {
    fn open(&mut self, peer: SocketAddr, local: SocketAddr) -> Result<u64> {
        let record = Record {
            peer,
            local,
            bytes: 0,
            sha256: String::new(),
            answered: 0,
            asked_at: Vec::new(),
            end: End::Open,
            opened_us: now_us(),
            closed_us: 0,
        };
        let kept = match &self.keep {
            Some(dir) => {
                let path = dir.join(record.kept_name());
                Some(
                    File::create(&path)
                        .with_context(|| format!("{}: cannot be made", path.display()))?,
                )
            }
            None => None,
        };
        self.next += 1;
        self.live.insert(
            self.next,
            Live {
                record,
                hash: Sha256::new(),
                kept,
                asking: None,
            },
        );
        Ok(self.next)
    }

    fn close(&mut self, id: u64) -> Result<()> {
        if let Some(live) = self.live.remove(&id) {
            let record = live.finish();
            serde_json::to_writer(&mut self.out, &record)?;
            self.out.write_all(b"\n")?;
        }
        Ok(())
    }

    fn close_all(&mut self) -> Result<()> {
        let ids: Vec<u64> = self.live.keys().copied().collect();
        ids.into_iter().try_for_each(|id| self.close(id))?;
        Ok(self.out.flush()?)
    }
}

fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_micros() as u64)
}

/// The client's words on their way to the server, with a note of each. Returns how the client
/// ended.
async fn upward(
    mut from: OwnedReadHalf,
    mut to: Option<OwnedWriteHalf>,
    book: Shared,
    id: u64,
) -> Result<End> {
    let mut chunk = vec![0; CHUNK];
    let end = loop {
        match from.read(&mut chunk).await {
            Ok(0) => break End::Fin,
            Ok(n) => {
                let bytes = chunk.get(..n).unwrap_or(&[]);
                if let Some(live) = book.borrow_mut().live.get_mut(&id) {
                    live.take(bytes)?;
                }
                // A server that has stopped listening does not stop the client from talking, and
                // that is to be recorded too.
                if let Some(server) = &mut to
                    && server.write_all(bytes).await.is_err()
                {
                    to = None;
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                break End::Rst;
            }
            Err(e) => return Err(e.into()),
        }
    };
    if let Some(live) = book.borrow_mut().live.get_mut(&id) {
        live.record.end = end;
        live.asking = None;
    }
    match (end, to) {
        (_, None) => {}
        (End::Rst, Some(server)) => {
            server.as_ref().set_zero_linger()?;
            server.forget();
        }
        (_, Some(mut server)) => drop(server.shutdown().await),
    }
    Ok(end)
}

/// The server's answers on their way to the client. True if the server ended in order.
async fn downward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    book: Shared,
    id: u64,
) -> Result<bool> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match from.read(&mut chunk).await {
            Ok(0) => {
                let _ = to.shutdown().await;
                return Ok(true);
            }
            Ok(n) => {
                if let Some(live) = book.borrow_mut().live.get_mut(&id) {
                    live.record.answered += n as u64;
                }
                if to.write_all(chunk.get(..n).unwrap_or(&[])).await.is_err() {
                    return Ok(true);
                }
            }
            Err(_) => {
                to.as_ref().set_zero_linger()?;
                to.forget();
                return Ok(false);
            }
        }
    }
}

/// A connection that has no server behind it.
async fn sink(client: TcpStream, told: &Answer, book: &Shared, id: u64) -> Result<()> {
    let (client_read, mut client_write) = client.into_split();
    if told.answer == 0 {
        upward(client_read, None, Rc::clone(book), id).await?;
        return Ok(());
    }
    let (answers, asked) = unbounded_channel();
    if let Some(live) = book.borrow_mut().live.get_mut(&id) {
        live.asking = Some((Requests::new(told), answers));
    }
    let said = |n| {
        if let Some(live) = book.borrow_mut().live.get_mut(&id) {
            live.record.answered += n;
        }
    };
    let up = upward(client_read, None, Rc::clone(book), id);
    let down = answer(told, asked, &mut client_write, said);
    tokio::pin!(up, down);
    tokio::select! {
        end = &mut up => {
            if end? == End::Fin {
                down.await?;
            }
        }
        // It ends before the client does only if the client takes no more.
        answered = &mut down => {
            let end = up.await?;
            if end == End::Fin {
                answered?;
            }
        }
    }
    Ok(())
}

async fn carry(
    client: TcpStream,
    server: Option<SocketAddr>,
    told: &Answer,
    book: &Shared,
    id: u64,
) -> Result<()> {
    client.set_nodelay(true)?;
    let Some(server) = server else {
        return sink(client, told, book, id).await;
    };
    let server = match TcpStream::connect(server).await {
        Ok(server) => server,
        Err(e) => {
            client.set_zero_linger()?;
            return Err(e).with_context(|| format!("{server}: the real server does not answer"));
        }
    };
    server.set_nodelay(true)?;
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let up = upward(client_read, Some(server_write), Rc::clone(book), id);
    let down = downward(server_read, client_write, Rc::clone(book), id);
    tokio::pin!(up, down);
    tokio::select! {
        end = &mut up => {
            // After a reset of the client there is nobody left to answer.
            if end? == End::Fin {
                down.await?;
            }
        }
        orderly = &mut down => {
            if orderly? {
                up.await?;
            }
        }
    }
    Ok(())
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket
        .bind(address)
        .with_context(|| format!("{address}: cannot be bound"))?;
    Ok(socket.listen(4096)?)
}

async fn serve(
    listener: TcpListener,
    to: Option<SocketAddr>,
    told: Rc<Answer>,
    book: Shared,
) -> Result<()> {
    loop {
        let (client, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) if e.kind() == ErrorKind::ConnectionAborted => continue,
            Err(e) => return Err(e).context("accept"),
        };
        let id = book.borrow_mut().open(peer, client.local_addr()?)?;
        let (told, book) = (Rc::clone(&told), Rc::clone(&book));
        tokio::task::spawn_local(async move {
            if let Err(e) = carry(client, to, &told, &book, id).await {
                eprintln!("recorder: {peer}: {e:#}");
            }
            if let Err(e) = book.borrow_mut().close(id) {
                eprintln!("recorder: {peer}: cannot be recorded: {e:#}");
            }
        });
    }
}

async fn run(args: Args) -> Result<()> {
    let out = File::create(&args.out)
        .with_context(|| format!("{}: cannot be made", args.out.display()))?;
    let book = Rc::new(RefCell::new(Book {
        out: BufWriter::new(out),
        live: HashMap::new(),
        next: 0,
        keep: args.keep,
    }));
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut servers = tokio::task::JoinSet::new();
    let told = Rc::new(args.answer);
    for address in args.listen {
        let (told, book) = (Rc::clone(&told), Rc::clone(&book));
        servers.spawn_local(serve(listen(address)?, args.to, told, book));
    }
    match args.to {
        Some(to) => eprintln!("ready: recording what goes to {to}"),
        None => eprintln!("ready: recording what comes"),
    }
    let mut flush = tokio::time::interval(FLUSH);
    let ended = loop {
        tokio::select! {
            _ = terminated.recv() => break Ok(()),
            _ = interrupted.recv() => break Ok(()),
            _ = flush.tick() => book.borrow_mut().out.flush()?,
            ended = servers.join_next() => break match ended {
                Some(Ok(Err(e))) => Err(e),
                _ => Err(anyhow!("a listener ended without a reason")),
            },
        }
    };
    book.borrow_mut().close_all()?;
    ended
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, run(args))
}
