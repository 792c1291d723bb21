//! One connection of the load client: buffered reading of answers with a limit of time and size.

use super::PATIENCE;
use anyhow::{Context, Result, anyhow, bail};
use std::net::{IpAddr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Longest line or head of an answer in bytes.
const LONGEST: usize = 64 * 1024;

/// A connection, the bytes that were read ahead, and what was moved.
pub(super) struct Client {
    stream: TcpStream,
    ahead: Vec<u8>,
    pub(super) sent: u64,
    pub(super) received: u64,
}

impl Client {
    pub(super) async fn connect(from: Option<IpAddr>, to: SocketAddr) -> Result<Self> {
        let socket = if to.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        if let Some(from) = from {
            socket
                .bind(SocketAddr::new(from, 0))
                .with_context(|| format!("{from}: cannot be bound"))?;
        }
        let stream = timeout(PATIENCE, socket.connect(to))
            .await
            .map_err(|_| anyhow!("{to}: no answer to the SYN in {PATIENCE:?}"))?
            .with_context(|| format!("{to}: cannot be connected to"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            ahead: Vec::new(),
            sent: 0,
            received: 0,
        })
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes))
            .await
            .map_err(|_| anyhow!("the server took no more in {PATIENCE:?}"))?
            .context("cannot be written to")?;
        self.sent += bytes.len() as u64;
        Ok(())
    }

    /// Reads more; false at the end of the stream.
    async fn fill(&mut self) -> Result<bool> {
        let n = timeout(PATIENCE, self.stream.read_buf(&mut self.ahead))
            .await
            .map_err(|_| anyhow!("no answer in {PATIENCE:?} after {} bytes sent", self.sent))?
            .context("cannot be read from")?;
        self.received += n as u64;
        Ok(n > 0)
    }

    /// Everything up to `mark` and the mark.
    pub(super) async fn until(&mut self, mark: &[u8]) -> Result<Vec<u8>> {
        let mut seen = 0;
        loop {
            if let Some(at) = self
                .ahead
                .get(seen..)
                .and_then(|new| new.windows(mark.len()).position(|w| w == mark))
            {
                return Ok(self.ahead.drain(..seen + at + mark.len()).collect());
            }
            seen = self.ahead.len().saturating_sub(mark.len() - 1);
            if self.ahead.len() > LONGEST {
                bail!("the answer has no end within {LONGEST} bytes");
            }
            if !self.fill().await? {
                bail!(
                    "the server closed before its answer was complete: {:?}",
                    String::from_utf8_lossy(&self.ahead)
                );
            }
        }
    }

    /// Exactly this many bytes, which are thrown away.
    pub(super) async fn skip(&mut self, mut count: usize) -> Result<()> {
        loop {
            let n = count.min(self.ahead.len());
            self.ahead.drain(..n);
            count -= n;
            if count == 0 {
                return Ok(());
            }
            if !self.fill().await? {
                bail!("the server closed {count} bytes before the end of its answer");
            }
        }
    }

    /// Waits until the server closes; anything it still says is an error.
    pub(super) async fn closed(&mut self) -> Result<()> {
        if self.ahead.is_empty() && !self.fill().await? {
            return Ok(());
        }
        bail!(
            "the server said more than was asked: {:?}",
            String::from_utf8_lossy(&self.ahead)
        )
    }

    /// Closes this side.
    pub(super) async fn shutdown(&mut self) -> Result<()> {
        Ok(self.stream.shutdown().await?)
    }
}
