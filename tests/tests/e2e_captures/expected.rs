//! What a correct replay of each capture delivers: the manifest's account, and where that names the
//! wrong end as the client, tshark's of the other.

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tests::lab::pcap::{self, Stream};

/// A stream that begins with a SYN inside of a tunnel, of which the manifest has `client` and
/// `server` exchanged: the SYN that acknowledges nothing comes from the end it calls the server.
/// Its `sha256` is then what the server said, so the client's is here.
struct Swapped {
    file: &'static str,
    client: &'static str,
    bytes: usize,
    sha256: &'static str,
}

/// By `tshark -r FILE -q -z follow,tcp,raw,STREAM` (4.0.17), the lines of the node that sent the
/// SYN. In every row the length is the manifest's `server_bytes`, and the other node's bytes have
/// its `sha256`.
const SWAPPED: &[Swapped] = &[
    Swapped {
        file: "erspan.pcap",
        client: "192.168.69.10:49166",
        bytes: 306,
        sha256: "41fee083a44e829b58f26ca85e37557e3d2dc3dc79fdc4d2aef5ab654b3fcc60",
    },
    Swapped {
        file: "tunnels__geneve-47101.pcap",
        client: "192.168.0.107:45474",
        bytes: 781,
        sha256: "89af2511822acd2898f359845a110be9429475d9c9e47cb37da835f9ae303625",
    },
    Swapped {
        file: "tunnels__gre-aruba.pcap",
        client: "10.37.36.92:59020",
        bytes: 416,
        sha256: "638d15bc85eea5ee77c8e856fabec6e88d7089d27190cb40ee70eafa9c67ef99",
    },
    Swapped {
        file: "tunnels__gre-aruba.pcap",
        client: "10.37.36.92:59042",
        bytes: 418,
        sha256: "230c57cce52edcb47cb5bf290d8ead8afbc188e2cf89d7a3c52d46b7ce86a76b",
    },
    Swapped {
        file: "tunnels__gre-aruba.pcap",
        client: "10.37.36.92:59051",
        bytes: 422,
        sha256: "8bf8ff2f736d7720c82b87b15c1520d3940cfe2b3ca2ea0507bffbfc3afe440b",
    },
    Swapped {
        file: "tunnels__gre-aruba.pcap",
        client: "10.37.36.92:59111",
        bytes: 314,
        sha256: "b33c2acc54d8b4ee6cbc1b31bc2eb7d8a891bf4bdcadf65917f8a5a02ac15d2d",
    },
    Swapped {
        file: "tunnels__gre-aruba.pcap",
        client: "10.37.36.92:59113",
        bytes: 3465,
        sha256: "1fbd6539e4a99db9cea4d9927a8590fcbc590f9c3ddbe022fac67232c4474d28",
    },
    Swapped {
        file: "tunnels__gre-aruba.pcap",
        client: "10.37.36.92:59134",
        bytes: 314,
        sha256: "433e4d7b65ce0dd76f29f2e1a0854e1e413f1a886fadd8cc63bc3e5dbe6c2856",
    },
    Swapped {
        file: "tunnels__gre-aruba.pcap",
        client: "10.37.36.92:59138",
        bytes: 4343,
        sha256: "e6993eea0b0e411d46b7c019c19dac2c13c806304b6d4231e8eb82b5e12edf42",
    },
    Swapped {
        file: "tunnels__gre-aruba.pcap",
        client: "10.37.36.92:59139",
        bytes: 4347,
        sha256: "43c571ed2783705a0a62b18792f67b65b320bd67dd27002850b7a3f8e6b62c54",
    },
    Swapped {
        file: "tunnels__gre-aruba.pcap",
        client: "10.37.36.92:59143",
        bytes: 2613,
        sha256: "c1a4b6ffa3e3fc0036ff971004f0278b1364c44a1e12c8029fe0584e48331b75",
    },
    Swapped {
        file: "tunnels__gre-aruba.pcap",
        client: "10.37.36.92:59167",
        bytes: 314,
        sha256: "811395af6c3cf5fce7ebe108865c89fa8086f6ee3e565b983ea6167c932aa0f0",
    },
    Swapped {
        file: "tunnels__gre-aruba.pcap",
        client: "10.37.36.92:59172",
        bytes: 426,
        sha256: "4e0ac5a4edf907de738ab93f771df2d207f4edbc839b4fa5d733677381c3c217",
    },
    Swapped {
        file: "tunnels__gre-aruba.pcap",
        client: "10.37.36.92:59173",
        bytes: 426,
        sha256: "8cee7fa5c07137a16ed3f4318de4b3536ecf57a57d55d1d51618c416c625805f",
    },
    Swapped {
        file: "tunnels__gre-aruba.pcap",
        client: "10.37.36.92:59180",
        bytes: 314,
        sha256: "41dd37d3c90de62cdfdf06cd06f84812f77c34d1005be92c84bb1c4a4ac163df",
    },
    Swapped {
        file: "tunnels__gre-aruba.pcap",
        client: "10.37.36.92:59181",
        bytes: 870,
        sha256: "c904a13383a76298ef312798b2cdaa797f13e20f5e270709afd04ae527b0f548",
    },
    Swapped {
        file: "tunnels__gre-aruba.pcap",
        client: "10.37.36.92:59182",
        bytes: 876,
        sha256: "4db901dfd078c4156d8f1bf4c97c13fbb6db61e86a6054d6bfc62c018b00c0f7",
    },
    Swapped {
        file: "tunnels__gre-aruba.pcap",
        client: "10.37.36.92:59185",
        bytes: 1293,
        sha256: "0a0df832e20a1f74a18618369f1d283d21b4b0efd0216fcd6a889e43a69be790",
    },
    Swapped {
        file: "tunnels__gre-aruba.pcap",
        client: "10.37.36.92:59186",
        bytes: 874,
        sha256: "5597be016d599022fe1881e7aefa01940604dd7951c79442419905517cdc9721",
    },
    Swapped {
        file: "tunnels__gre-over-udp-4754.pcap",
        client: "172.17.0.2:36518",
        bytes: 72,
        sha256: "de9078264e1f1e92fd551a04d8844ae108c0602e6381832a154ca73f2a1961e3",
    },
    Swapped {
        file: "tunnels__gre-sample.pcap",
        client: "66.59.111.190:40264",
        bytes: 952,
        sha256: "b986189a0c91d3aa69a527d72697ff1930364f0c9440de63ee322bfa17bc8b06",
    },
    Swapped {
        file: "tunnels__vxlan-inner-tcp-bad-checksum.pcap",
        client: "10.0.0.1:12345",
        bytes: 0,
        sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    },
];

/// A connection that is to be delivered byte for byte.
pub struct Whole {
    /// Who said it to whom.
    pub stream: Stream,
    /// How much.
    pub bytes: usize,
    /// Its SHA-256 in hex.
    pub sha256: String,
}

/// A capture and what is to come of it.
pub struct Capture {
    /// The file's name.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Production's ports.
    pub ports: Vec<u16>,
    /// Streams whose client's side was captured to the last byte.
    pub whole: Vec<Whole>,
    /// Streams with holes or without a beginning.
    pub partial: Vec<Stream>,
    /// Streams without a SYN that the manifest names and the reference cannot read, as their IP
    /// headers have wrong checksums.
    pub unread: usize,
    /// Streams of which the manifest has the ends exchanged.
    pub swapped: usize,
}

/// The folder of captures; says so loudly if there is none.
pub fn folder(test: &str) -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/captures");
    let folder =
        std::env::var_os("REPLAY_CAPTURES").map_or_else(|| PathBuf::from(default), PathBuf::from);
    if folder.join("manifest.json").is_file() {
        return Some(folder);
    }
    eprintln!(
        "SKIPPED {test}: no manifest.json in {}; set REPLAY_CAPTURES to a folder of captures; nothing was proved",
        folder.display()
    );
    None
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// All captures of the manifest.
pub fn captures(folder: &Path) -> Vec<Capture> {
    let text = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let files = manifest.as_array().unwrap();
    files.iter().map(|file| capture(folder, file)).collect()
}

fn capture(folder: &Path, file: &Value) -> Capture {
    let name = file["file"].as_str().unwrap().to_owned();
    let path = folder.join(&name);
    let mut streams = pcap::streams(&pcap::read(&path).unwrap());
    let mut ports: Vec<u16> = streams.iter().map(|s| s.server.port()).collect();
    let mut unread = 0;
    for w in file["streams"].as_array().unwrap() {
        let end = |key: &str| w[key].as_str().map(|e| e.parse::<SocketAddr>().unwrap());
        let (Some(a), Some(b)) = (end("a"), end("b")) else {
            continue;
        };
        if !streams
            .iter()
            .any(|s| [(a, b), (b, a)].contains(&(s.client, s.server)))
        {
            unread += 1;
            ports.push(a.port().min(b.port()));
        }
    }
    ports.sort_unstable();
    ports.dedup();

    let (mut whole, mut swapped) = (Vec::new(), 0);
    let stated = file["streams"].as_array().unwrap().iter();
    for w in stated.filter(|w| w["syn"] == true && w["complete"] == true) {
        let end = |key: &str| w[key].as_str().unwrap().parse::<SocketAddr>().unwrap();
        let (client, server) = (end("client"), end("server"));
        let between = |s: &Stream, a, b| s.syn && s.client == a && s.server == b;
        let as_stated = streams.iter().position(|s| between(s, client, server));
        let exchanged = || streams.iter().position(|s| between(s, server, client));
        let Some(i) = as_stated.or_else(exchanged) else {
            panic!("{name}: there is no SYN between {client} and {server}");
        };
        let stream = streams.remove(i);
        let row = |s: &&Swapped| s.file == name && s.client == stream.client.to_string();
        let (bytes, hash) = if as_stated.is_some() {
            let bytes = w["bytes"].as_u64().unwrap() as usize;
            (bytes, w["sha256"].as_str().unwrap())
        } else {
            swapped += 1;
            let row = SWAPPED.iter().find(row).unwrap_or_else(|| {
                panic!("{name}: {client} sent no SYN, {server} did: not among those that are known")
            });
            assert_eq!(w["server_bytes"], row.bytes, "{name} {server}");
            (row.bytes, row.sha256)
        };
        whole.push(Whole {
            stream,
            bytes,
            sha256: hash.to_owned(),
        });
    }
    // The manifest counts both directions, so a stream that it calls incomplete may have all of its
    // client's words.
    let (rest, partial) = streams.into_iter().partition(Stream::is_whole);
    let rest: Vec<Stream> = rest;
    whole.extend(rest.into_iter().map(|stream| {
        let bytes = stream.captured();
        Whole {
            bytes: bytes.len(),
            sha256: sha256(&bytes),
            stream,
        }
    }));
    Capture {
        name,
        path,
        ports,
        whole,
        partial,
        unread,
        swapped,
    }
}
