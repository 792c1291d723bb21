//! What the recorder writes: one line of JSON for each connection it carried, and how such lists
//! are compared.
//!
//! The recorder stands in front of a server and sees the client's byte stream as the server's TCP
//! delivered it, so two equal records mean that two servers were told the same.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

/// How the client's side of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The client closed its side in order.
    Fin,
    /// The client reset the connection.
    Rst,
    /// The recorder ended first.
    Open,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Address and port the client came from.
    pub peer: SocketAddr,
    /// Address and port it came to.
    pub local: SocketAddr,
    /// Bytes the client sent.
    pub bytes: u64,
    /// SHA-256 of these bytes, in hex.
    pub sha256: String,
    /// Bytes the server answered.
    pub answered: u64,
    /// How many of these had been handed to the kernel when each of the client's requests began,
    /// if the recorder itself answers.
    #[serde(default)]
    pub asked_at: Vec<u64>,
    /// How the client's side ended.
    pub end: End,
    /// When the connection was accepted, in µs since the epoch.
    pub opened_us: u64,
    /// When it ended, in µs since the epoch.
    pub closed_us: u64,
}

impl Record {
    /// The name of the file that keeps the client's bytes, if the recorder keeps them.
    pub fn kept_name(&self) -> String {
        format!("{}-{}-{}", self.peer.ip(), self.peer.port(), self.opened_us)
    }
}

/// Which connections of two lists belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// Those with the same client address and port. A client that uses its port again, while at the
    /// target the connection before is not over, may come from another port for this once.
    Endpoint,
    /// Any with the same bytes: the client has another address at the target.
    Bytes,
}

/// Reads a recorder's file. A last line that is still being written is left out.
///
/// # Errors
/// The file can't be read, or a line in it is no record.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{}: cannot be read", path.display()))?;
    let mut records = Vec::new();
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if !line.ends_with('\n') {
            break;
        }
        let record = serde_json::from_str(line)
            .with_context(|| format!("{} line {}: is no record", path.display(), number + 1))?;
        records.push(record);
    }
    Ok(records)
}

type Key<'a> = (Option<SocketAddr>, u64, &'a str);

fn count(records: &[Record], mode: Match) -> BTreeMap<Key<'_>, usize> {
    let mut counts = BTreeMap::new();
    for r in records {
        let peer = (mode == Match::Endpoint).then_some(r.peer);
        *counts
            .entry((peer, r.bytes, r.sha256.as_str()))
            .or_insert(0) += 1;
    }
    counts
}

/// Takes out of both lists what belongs together but for the port, where production's client used
/// its port more than once, and nobody used the other port there.
fn moved(
    production: &[Record],
    missing: &mut Vec<(Key<'_>, usize)>,
    extra: &mut Vec<(Key<'_>, usize)>,
) {
    let mut used: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for r in production {
        *used.entry(r.peer).or_insert(0) += 1;
    }
    for ((peer, bytes, hash), n) in missing.iter_mut() {
        let Some(peer) = peer.filter(|p| used.get(p).is_some_and(|n| *n > 1)) else {
            continue;
        };
        for ((other, b, h), found) in extra.iter_mut() {
            let is_stranger = |o: &SocketAddr| o.ip() == peer.ip() && !used.contains_key(o);
            if other.as_ref().is_some_and(is_stranger) && (&*b, &*h) == (&*bytes, &*hash) {
                let both = (*n).min(*found);
                *n -= both;
                *found -= both;
            }
        }
    }
    missing.retain(|(_, n)| *n > 0);
    extra.retain(|(_, n)| *n > 0);
}

/// Checks that the target's clients sent exactly what production's did, each connection `copies`
/// times.
///
/// With [`Match::Endpoint`] the first copy must come from the same address and port; further copies
/// have other ports, so use [`Match::Bytes`] for them.
///
/// # Errors
/// A sentence with the numbers, and below it up to ten connections that differ on each side.
pub fn check_byte_exact(
    production: &[Record],
    target: &[Record],
    mode: Match,
    copies: usize,
) -> Result<()> {
    if production.is_empty() {
        bail!("production recorded no connection: nothing was compared");
    }
    let want = count(production, mode);
    let got = count(target, mode);
    let mut missing = Vec::new();
    let mut extra = Vec::new();
    for (key, n) in &want {
        let expected = n * copies;
        let found = got.get(key).copied().unwrap_or(0);
        if found < expected {
            missing.push((*key, expected - found));
        } else if found > expected {
            extra.push((*key, found - expected));
        }
    }
    extra.extend(
        got.iter()
            .filter(|(key, _)| !want.contains_key(*key))
            .map(|(key, n)| (*key, *n)),
    );
    moved(production, &mut missing, &mut extra);
    if missing.is_empty() && extra.is_empty() {
        return Ok(());
    }
    let total = |list: &[(Key<'_>, usize)]| list.iter().map(|(_, n)| n).sum::<usize>();
    let mut text = format!(
        "the target did not receive what the clients sent: production {} connections, target {}, expected {}; {} missing, {} not sent by any client",
        production.len(),
        target.len(),
        production.len() * copies,
        total(&missing),
        total(&extra),
    );
    for (title, list, others) in [
        ("missing", &missing, &extra),
        ("not sent", &extra, &missing),
    ] {
        for ((peer, bytes, hash), n) in list.iter().take(10) {
            let _ = write!(
                text,
                "\n  {title}: {n} × {bytes} bytes, sha256 {}…",
                hash.get(..12).unwrap_or(hash)
            );
            if let Some(peer) = peer {
                let _ = write!(text, ", client {peer}");
                if let Some(((_, other, _), _)) =
                    others.iter().find(|((p, _, _), _)| *p == Some(*peer))
                {
                    let _ = write!(text, " (the other side has {other} bytes of it)");
                }
            }
        }
        if list.len() > 10 {
            let _ = write!(text, "\n  {title}: and {} more", list.len() - 10);
        }
    }
    bail!(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(port: u16, text: &str) -> Record {
        Record {
            peer: SocketAddr::from(([10, 10, 0, 1], port)),
            local: SocketAddr::from(([10, 10, 0, 2], 80)),
            bytes: text.len() as u64,
            sha256: format!("{text:0<64}"),
            answered: 1,
            asked_at: Vec::new(),
            end: End::Fin,
            opened_us: 1,
            closed_us: 2,
        }
    }

    #[test]
    fn equal_lists_pass_in_any_order() {
        let production = [record(1, "a"), record(2, "bb"), record(3, "bb")];
        let target = [record(3, "bb"), record(2, "bb"), record(1, "a")];
        check_byte_exact(&production, &target, Match::Endpoint, 1).unwrap();
        let pooled = [record(71, "bb"), record(72, "a"), record(73, "bb")];
        check_byte_exact(&production, &pooled, Match::Bytes, 1).unwrap();
        assert!(check_byte_exact(&production, &pooled, Match::Endpoint, 1).is_err());
        let twice = [&pooled[..], &pooled[..]].concat();
        check_byte_exact(&production, &twice, Match::Bytes, 2).unwrap();
    }

    #[test]
    fn a_port_that_is_used_again_may_be_another_one_at_the_target() {
        let check = |production: &[Record], target: &[Record]| {
            check_byte_exact(production, target, Match::Endpoint, 1).is_ok()
        };
        let again = [record(1, "a"), record(1, "bb"), record(2, "c")];
        let moved = [record(1, "a"), record(7, "bb"), record(2, "c")];
        assert!(check(&again, &moved));
        assert!(check(&moved, &moved));
        assert!(!check(&moved, &again), "no port was used again");
        let other = [record(1, "a"), record(7, "bc"), record(2, "c")];
        assert!(!check(&again, &other), "other bytes");
        let taken = [record(1, "a"), record(2, "bb"), record(2, "c")];
        assert!(!check(&again, &taken), "somebody else's port");
        let mut elsewhere = moved;
        elsewhere[1].peer.set_ip([10, 10, 0, 9].into());
        assert!(!check(&again, &elsewhere), "another address");
    }

    #[test]
    fn a_difference_is_named() {
        let production = [record(1, "a"), record(2, "bb"), record(3, "bb")];
        let error = |target: &[Record], mode| {
            format!(
                "{:#}",
                check_byte_exact(&production, target, mode, 1).unwrap_err()
            )
        };
        let short = error(
            &[record(1, "a"), record(2, "b"), record(3, "bb")],
            Match::Endpoint,
        );
        assert!(
            short.contains("1 missing, 1 not sent")
                && short.contains("10.10.0.1:2 (the other side has 1 bytes"),
            "{short}"
        );
        let lost = error(&[record(9, "a"), record(8, "bb")], Match::Bytes);
        assert!(
            lost.contains("target 2, expected 3; 1 missing, 0 not sent"),
            "{lost}"
        );
        let doubled = error(
            &[
                record(1, "a"),
                record(2, "bb"),
                record(3, "bb"),
                record(1, "a"),
            ],
            Match::Endpoint,
        );
        assert!(doubled.contains("0 missing, 1 not sent"), "{doubled}");
        assert!(
            check_byte_exact(&[], &[], Match::Bytes, 1).is_err(),
            "an empty run proves nothing"
        );
    }

    #[test]
    fn a_line_in_the_making_is_left_out_and_a_bad_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        let line = serde_json::to_string(&record(1, "a")).unwrap();
        std::fs::write(&path, format!("{line}\n{}", &line[..20])).unwrap();
        assert_eq!(read(&path).unwrap(), [record(1, "a")]);
        std::fs::write(&path, format!("{line}\nnonsense\n")).unwrap();
        assert!(format!("{:#}", read(&path).unwrap_err()).contains("line 2"));
    }
}
