//! What clients say, protocol by protocol, and which answers they accept.

use super::client::Client;
use super::{Pace, Summary, Talk, Workload};
use anyhow::{Context, Result, anyhow, bail};
use std::cell::RefCell;
use std::fmt::Write as _;

/// Opens, uses and closes one connection.
pub(super) async fn connection(
    w: &Workload,
    number: usize,
    pace: &Pace,
    summary: &RefCell<Summary>,
) -> Result<()> {
    let from = number
        .checked_rem(w.from.len())
        .and_then(|i| w.from.get(i))
        .copied();
    // The first request's turn in the pace is the connection's too: its SYN leaves when the request
    // may.
    pace.wait().await;
    let mut client = Client::connect(from, w.to).await?;
    let mut answered = 0;
    let outcome = match &w.talk {
        Talk::Get => http(&mut client, w, number, None, pace, &mut answered).await,
        Talk::Post(sizes) => http(&mut client, w, number, Some(sizes), pace, &mut answered).await,
        Talk::Redis { pipeline, value } => {
            redis(
                &mut client,
                w,
                number,
                *pipeline,
                *value,
                pace,
                &mut answered,
            )
            .await
        }
        Talk::Smtp => smtp(&mut client, w, number, pace, &mut answered).await,
    };
    let mut summary = summary.borrow_mut();
    summary.requests += answered;
    summary.sent += client.sent;
    summary.received += client.received;
    outcome
}

/// `len` bytes that no other request has, if there is room for it: its name, again and again.
fn unique(name: &str, len: usize) -> Vec<u8> {
    let word = format!("{name};");
    word.bytes().cycle().take(len).collect()
}

async fn http(
    c: &mut Client,
    w: &Workload,
    number: usize,
    sizes: Option<&Vec<usize>>,
    pace: &Pace,
    answered: &mut u64,
) -> Result<()> {
    for request in 0..w.requests {
        if request > 0 {
            pace.wait().await;
        }
        let last = request + 1 == w.requests;
        let name = format!("{:x}-{number}-{request}", w.seed);
        let size = sizes.map(|s| {
            s.get((number * w.requests + request) % s.len())
                .copied()
                .unwrap_or(0)
        });
        let method = if size.is_some() {
            "POST /post"
        } else {
            "GET /"
        };
        let mut text = format!("{method}?{name} HTTP/1.1\r\nHost: lab\r\nX-Request: {name}\r\n");
        if let Some(size) = size {
            let _ = write!(text, "Content-Length: {size}\r\n");
        }
        text.push_str(if last {
            "Connection: close\r\n\r\n"
        } else {
            "\r\n"
        });
        let mut bytes = text.into_bytes();
        bytes.extend(unique(&name, size.unwrap_or(0)));
        c.send(&bytes).await?;
        answer_http(c)
            .await
            .with_context(|| format!("request {request}"))?;
        *answered += 1;
    }
    c.closed().await
}

async fn answer_http(c: &mut Client) -> Result<()> {
    let head = c.until(b"\r\n\r\n").await?;
    let head = String::from_utf8_lossy(&head);
    let status = head.lines().next().unwrap_or("");
    if !status.starts_with("HTTP/1.1 200") {
        bail!("the server answered {status:?} instead of 200");
    }
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .ok_or_else(|| anyhow!("the answer has no Content-Length"))?;
    c.skip(length).await
}

async fn redis(
    c: &mut Client,
    w: &Workload,
    number: usize,
    pipeline: usize,
    value: usize,
    pace: &Pace,
    answered: &mut u64,
) -> Result<()> {
    let mut first = 0;
    while first < w.requests {
        if first > 0 {
            pace.wait().await;
        }
        let batch = pipeline.min(w.requests - first);
        let mut bytes = Vec::new();
        for request in first..first + batch {
            let name = format!("{:x}-{number}-{request}", w.seed);
            // Few keys, so that the server's memory does not grow with the run.
            let key = format!("lab:{}", request % 100);
            let value = unique(&name, value);
            bytes.extend(
                format!(
                    "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n",
                    key.len(),
                    value.len()
                )
                .into_bytes(),
            );
            bytes.extend(value);
            bytes.extend(b"\r\n");
        }
        c.send(&bytes).await?;
        for request in first..first + batch {
            let line = c
                .until(b"\r\n")
                .await
                .with_context(|| format!("command {request}"))?;
            if line != b"+OK\r\n" {
                bail!(
                    "command {request}: redis answered {:?} instead of +OK",
                    String::from_utf8_lossy(&line)
                );
            }
            *answered += 1;
        }
        first += batch;
    }
    // The client closes first here: the other way round than in HTTP.
    c.shutdown().await?;
    c.closed().await
}

async fn smtp(
    c: &mut Client,
    w: &Workload,
    number: usize,
    pace: &Pace,
    answered: &mut u64,
) -> Result<()> {
    answer_smtp(c, "220").await.context("greeting")?;
    say(c, "EHLO client.invalid\r\n", "250").await?;
    for request in 0..w.requests {
        if request > 0 {
            pace.wait().await;
        }
        let name = format!("{:x}-{number}-{request}", w.seed);
        say(c, &format!("MAIL FROM:<{name}@client.invalid>\r\n"), "250").await?;
        say(c, "RCPT TO:<someone@lab.invalid>\r\n", "250").await?;
        say(c, "DATA\r\n", "354").await?;
        let body = (0..20).fold(String::new(), |mut text, line| {
            let _ = write!(text, "line {line} of {name}\r\n");
            text
        });
        say(
            c,
            &format!("Subject: {name}\r\nMessage-Id: <{name}@client.invalid>\r\n\r\n{body}.\r\n"),
            "250",
        )
        .await?;
        *answered += 1;
    }
    say(c, "QUIT\r\n", "221").await?;
    c.closed().await
}

async fn say(c: &mut Client, words: &str, code: &str) -> Result<()> {
    c.send(words.as_bytes()).await?;
    answer_smtp(c, code)
        .await
        .with_context(|| format!("after {:?}", words.lines().next().unwrap_or("")))
}

/// An answer of one or more lines (RFC 5321 section 4.2.1): `250-` goes on, `250 ` ends it.
async fn answer_smtp(c: &mut Client, code: &str) -> Result<()> {
    loop {
        let line = c.until(b"\r\n").await?;
        let line = String::from_utf8_lossy(&line);
        match line.strip_prefix(code) {
            Some(rest) if rest.starts_with('-') => {}
            Some(_) => return Ok(()),
            None => bail!("the server answered {line:?} instead of {code}"),
        }
    }
}
