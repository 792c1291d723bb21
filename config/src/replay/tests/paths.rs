//! Where paths lead: a configuration may come from a stranger, and what it names relative to a
//! folder stays below that folder.

use super::*;

/// Where each of these leads; `None`: it is refused.
type Table = [(&'static str, Option<&'static str>)];

/// Relative to the folder of the configuration, `conf`.
const BESIDE: &Table = &[
    ("a.pcap", Some("conf/a.pcap")),
    ("caps/a.pcap", Some("conf/caps/a.pcap")),
    ("./a.pcap", Some("conf/a.pcap")),
    // No step up, though it looks like one.
    ("caps/..a.pcap", Some("conf/caps/..a.pcap")),
    ("a..b/c", Some("conf/a..b/c")),
    ("~/a.pcap", Some("conf/~/a.pcap")),
    ("$HOME/a.pcap", Some("conf/$HOME/a.pcap")),
    ("/var/caps/a.pcap", Some("/var/caps/a.pcap")),
    // A whole path says itself where it leads.
    ("/var/caps/../a.pcap", Some("/var/caps/../a.pcap")),
    ("../a.pcap", None),
    ("caps/../../a.pcap", None),
    ("caps/../a.pcap", None),
    ("..", None),
    ("", None),
    ("a\u{0}b", None),
    ("a\nb", None),
    ("a\u{1b}[2Jb", None),
];

/// Folders, which captures may be in.
const FOLDERS: &Table = &[("caps/", Some("conf/caps")), (".", Some("conf"))];

/// The text as a TOML string.
fn quoted(text: &str) -> String {
    let escaped = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    };
    format!("\"{}\"", text.chars().map(escaped).collect::<String>())
}

fn same(got: &Path, expected: &str) -> bool {
    got.components().eq(Path::new(expected).components())
}

#[test]
fn a_capture_stays_below_the_folder_of_the_configuration() {
    // A pattern may be in a folder.
    let others = [
        ("caps/a*", Some("conf/caps/a*")),
        ("caps/*/../a", None),
        ("-", Some("-")),
    ];
    for (given, leads) in BESIDE.iter().chain(FOLDERS).chain(&others) {
        let text = with(PORTS, &format!("file = {}", quoted(given)));
        match (parse_with(&text, "conf/replay.toml", &no_keys), leads) {
            (Ok(replay), Some(leads)) => {
                let Source::Files(files) = &replay.mirror.source else {
                    panic!("{given:?} is no file")
                };
                let path = &files.names[0];
                assert!(same(path, leads), "{given:?} leads to {path:?}");
            }
            (Err(e), None) => {
                assert_eq!(e.key(), Some("mirror.file"));
                assert!(!e.to_string().contains(char::is_control), "{e:?}");
            }
            (got, _) => panic!("{given:?}: {got:?}"),
        }
    }
}

#[test]
fn a_key_stays_below_the_folder_of_the_configuration() {
    for (given, leads) in BESIDE {
        let link = format!(
            "[intercept]\nmode = \"remote\"\nservers = [\"10.30.0.3:1\"]\nkey_file = {}",
            quoted(given)
        );
        let asked = std::cell::RefCell::new(None);
        let keys = |path: &Path| {
            *asked.borrow_mut() = Some(path.to_owned());
            no_keys(path)
        };
        let error = parse_with(&and(&link), "conf/replay.toml", &keys).unwrap_err();
        assert_eq!(error.key(), Some("intercept.key_file"), "{error}");
        match (asked.take(), leads) {
            (Some(path), Some(leads)) => assert!(same(&path, leads), "{given:?}: {path:?}"),
            (None, None) => {}
            (asked, _) => panic!("{given:?}: {asked:?} was read"),
        }
    }
}

#[test]
fn a_folder_is_no_key_and_no_report() {
    for (given, _) in FOLDERS {
        let text = and(&format!("[report]\njson = {}", quoted(given)));
        let error = parse_with(&text, "conf/replay.toml", &no_keys).unwrap_err();
        assert_eq!(error.key(), Some("report.json"));
        let link = format!(
            "[intercept]\nmode = \"remote\"\nservers = [\"10.30.0.3:1\"]\nkey_file = {}",
            quoted(given)
        );
        let error = parse_with(&and(&link), "conf/replay.toml", &no_keys).unwrap_err();
        assert_eq!(error.key(), Some("intercept.key_file"), "{error}");
    }
}

#[test]
fn a_report_stays_below_the_working_directory() {
    for (given, leads) in BESIDE {
        let text = and(&format!("[report]\njson = {}", quoted(given)));
        match (parse_with(&text, "conf/replay.toml", &no_keys), leads) {
            (Ok(replay), Some(leads)) => {
                // Not beside the configuration, which may not be writable.
                let json = Path::new("conf").join(&replay.report.json);
                assert!(same(&json, leads), "{given:?} leads to {json:?}");
            }
            (Err(e), None) => assert_eq!(e.key(), Some("report.json")),
            (got, _) => panic!("{given:?}: {got:?}"),
        }
    }
}

#[test]
fn the_arguments_of_a_device_stay_below_the_working_directory() {
    for (argument, accepted) in [
        ("rx_pcap=a.pcap", true),
        ("rx_pcap=/var/caps/a.pcap", true),
        ("rx_pcap=caps/..a.pcap", true),
        ("rx_pcap=../a.pcap", false),
        ("rx_pcap=caps/../../a.pcap", false),
        ("infinite_rx=1,xdp_prog=../a.o", false),
    ] {
        let mirror = with(PORTS, &format!("ports = [\"net_pcap0,{argument}\"]"));
        let port = with(PORT, &format!("port = \"net_pcap1,{argument}\""));
        for (text, key) in [(mirror, "mirror.ports[0]"), (port, "replay.port")] {
            if accepted {
                ok(&text);
            } else {
                refused(&text, key, &["leaves the working directory"]);
            }
        }
    }
    ok(&with(PORT, "port = \"net_pcap1,tx_pcap=out.pcap\""));
    let mirror = with(PORTS, "ports = [\"net_pcap0,rx_pcap=a,tx_pcap=b\"]");
    refused(&mirror, "mirror.ports[0]", &["sends nothing", "tx_pcap"]);
}
