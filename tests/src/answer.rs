//! Answers of a made-up server: so many bytes for each request, after some time, over some time.
//!
//! A server whose answers are known to the byte and to the millisecond shows when a client speaks
//! before it has heard all of them.

use anyhow::Result;
use clap::Args;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep, sleep_until};

/// Time between two pieces of an answer that takes its time.
const STEP: Duration = Duration::from_millis(5);
/// Bytes written at once.
const CHUNK: u64 = 16 * 1024;

/// How requests are told apart, and how each is answered.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Bytes of each answer; 0 for a server that says nothing.
    #[arg(long, default_value_t = 0)]
    pub answer: u64,
    /// Bytes of each request; 0 for those that end with an empty line, as an HTTP head does.
    #[arg(long, default_value_t = 0)]
    pub request: u64,
    /// Milliseconds from a request's end to its answer's beginning.
    #[arg(long, default_value_t = 0)]
    pub after_ms: u64,
    /// Milliseconds from an answer's beginning to its end.
    #[arg(long, default_value_t = 0)]
    pub over_ms: u64,
}

impl Answer {
    /// `answer` bytes at once for each request that ends with an empty line.
    pub fn of(answer: u64) -> Self {
        Self {
            answer,
            ..Self::default()
        }
    }

    /// The same as arguments of the recorder.
    pub fn args(&self) -> [String; 4] {
        [
            format!("--answer={}", self.answer),
            format!("--request={}", self.request),
            format!("--after-ms={}", self.after_ms),
            format!("--over-ms={}", self.over_ms),
        ]
    }
}

/// Finds where requests begin and end in what a client says.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    length: u64,
    /// Bytes of the request that has begun.
    inside: u64,
    /// The last four of them.
    tail: [u8; 4],
}

/// What bytes of a client came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Requests that began.
    pub begun: u64,
    /// Requests that ended.
    pub ended: u64,
}

impl Requests {
    /// For a server that answers so.
    pub fn new(answer: &Answer) -> Self {
        Self {
            length: answer.request,
            ..Self::default()
        }
    }

    /// The next bytes.
    pub fn hear(&mut self, bytes: &[u8]) -> Heard {
        let mut heard = Heard::default();
        for byte in bytes {
            heard.begun += u64::from(self.inside == 0);
            self.inside += 1;
            self.tail.rotate_left(1);
            self.tail[3] = *byte;
            let ends = if self.length > 0 {
                self.inside == self.length
            } else {
                self.inside >= 4 && &self.tail == b"\r\n\r\n"
            };
            if ends {
                heard.ended += 1;
                self.inside = 0;
            }
        }
        heard
    }
}

/// Answers each request that `asked` tells of, one after the other, until nobody can tell of more.
/// `said` is told of bytes before they are handed to the kernel, so that it is never behind.
///
/// # Errors
/// The client is gone.
pub async fn answer(
    answer: &Answer,
    mut asked: UnboundedReceiver<()>,
    to: &mut (impl AsyncWrite + Unpin),
    said: impl Fn(u64),
) -> Result<()> {
    let over = Duration::from_millis(answer.over_ms);
    let text = vec![b'.'; CHUNK as usize];
    while asked.recv().await.is_some() {
        sleep(Duration::from_millis(answer.after_ms)).await;
        let began = Instant::now();
        let steps = u64::try_from(over.as_millis() / STEP.as_millis())?.max(1);
        for step in 1..=steps {
            let mut left = answer.answer * step / steps - answer.answer * (step - 1) / steps;
            while left > 0 {
                let n = left.min(CHUNK);
                said(n);
                to.write_all(text.get(..n as usize).unwrap_or(&[])).await?;
                left -= n;
            }
            if step < steps {
                sleep_until(began + STEP * step as u32).await;
            }
        }
    }
    to.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(begun: u64, ended: u64) -> Heard {
        Heard { begun, ended }
    }

    #[test]
    fn requests_end_with_an_empty_line_or_with_their_length() {
        let mut heads = Requests::new(&Answer::of(1));
        assert_eq!(heads.hear(b"GET / HTTP/1.1\r\n"), heard(1, 0));
        assert_eq!(heads.hear(b"\r"), heard(0, 0));
        assert_eq!(heads.hear(b"\nGET /1 HTTP/1.1\r\n\r\nG"), heard(2, 2));
        let mut counted = Requests::new(&Answer {
            request: 3,
            ..Answer::of(1)
        });
        assert_eq!(counted.hear(b"ab"), heard(1, 0));
        assert_eq!(counted.hear(b"cdefg"), heard(2, 2));
    }
}
