use std::io;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::{Error, Idle, KeyFile, Memory};

const PORT: &str =
    "[port]\ndevice = \"net_af_packet0,iface=absorb0\"\naddress = [\"10.20.0.3/24\"]\n";

fn no_keys(_: &Path) -> io::Result<KeyFile> {
    Err(io::Error::from(io::ErrorKind::NotFound))
}

#[track_caller]
fn refused(text: &str, key: &str, parts: &[&str]) -> Error {
    let Err(error) = parse_with(text, "intercept.toml", &no_keys) else {
        panic!("accepted:\n{text}")
    };
    let shown = error.to_string();
    assert_eq!(error.key(), Some(key), "{shown}");
    for part in [key].iter().chain(parts) {
        assert!(shown.contains(part), "{part:?} is not in: {shown}");
    }
    error
}

fn link(keys: &str) -> String {
    format!("{PORT}[link]\n{keys}\n")
}

#[test]
fn every_key_arrives() {
    let text = r#"
[port]
device = "0000:01:00.0"
address = ["10.20.0.3/24", "2001:db8::3/64"]
[link]
listen = "127.0.0.1:4000"
payload_prefix = 1024
[eal]
lcores = [2]
memory = "no-huge"
idle = "spin"
[report]
interval = "1s"
json = "i.json"
"#;
    let intercept = parse(text, "intercept.toml").unwrap();
    assert_eq!(intercept.port.device, "0000:01:00.0");
    assert_eq!(intercept.port.addresses[1].to_string(), "2001:db8::3/64");
    let link = Link {
        listen: "127.0.0.1:4000".parse().unwrap(),
        key: None,
        insecure: false,
        payload_prefix: 1024,
    };
    assert_eq!(intercept.link, link);
    assert_eq!(
        (intercept.eal.lcores, intercept.eal.memory),
        (vec![2], Memory::NoHuge)
    );
    assert_eq!(intercept.eal.idle, Some(Idle::Spin));
    assert_eq!(
        (intercept.report.interval, intercept.report.json),
        (Duration::from_secs(1), "i.json".into())
    );
    assert!(intercept.warnings.is_empty());
}

#[test]
fn bad_values_are_refused_with_key_value_and_what_is_accepted() {
    refused("", "port.device", &["missing", "0000:01:00.0"]);
    refused(
        "[port]\ndevice = \"eth1\"\n",
        "port.device",
        &["\"eth1\"", "PCI address", "vdev"],
    );
    refused(
        "[port]\ndevice = \"net_ring0\"\n",
        "port.address",
        &["missing", "10.20.0.9/24"],
    );
    refused(
        "[port]\ndevice = \"net_ring0\"\naddress = []",
        "port.address",
        &["[]", "at least one"],
    );
    refused(
        &link("payload_prefix = 1025"),
        "link.payload_prefix",
        &["1025", "0 to 1024"],
    );
    refused(
        &link("listen = \"36524\""),
        "link.listen",
        &["\"36524\"", "address:port"],
    );
    refused(
        &link("listen = \"127.0.0.1:0\""),
        "link.listen",
        &["127.0.0.1:0", "1 to 65535"],
    );
    refused(
        &link("lisen = \"127.0.0.1:1\""),
        "link.lisen",
        &["did you mean link.listen?"],
    );
    refused(
        &format!("{PORT}[mirror]\n"),
        "mirror",
        &["port, link, eal, report"],
    );
}

#[test]
fn a_link_beyond_loopback_needs_a_key_or_a_word() {
    for listen in ["0.0.0.0:36524", "[::]:36524", "10.30.0.3:1"] {
        let text = link(&format!("listen = \"{listen}\""));
        refused(
            &text,
            "link.listen",
            &[listen, "link.key_file", "loopback", "link.insecure = true"],
        );
        let allowed = parse_with(
            &format!("{text}insecure = true\n"),
            "intercept.toml",
            &no_keys,
        )
        .unwrap();
        assert!(
            allowed.link.insecure && allowed.warnings[0].contains(listen),
            "{:?}",
            allowed.warnings
        );
    }
    refused(
        PORT,
        "link.listen",
        &["0.0.0.0:36524", "default", "link.key_file"],
    );
    for listen in ["127.0.0.1:1", "[::1]:1"] {
        parse_with(
            &link(&format!("listen = \"{listen}\"")),
            "intercept.toml",
            &no_keys,
        )
        .unwrap();
    }
}

#[test]
fn keys_are_read_raw_in_hex_and_in_base64() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (config, file) = (
        folder.path().join("intercept.toml"),
        folder.path().join("link.key"),
    );
    std::fs::write(&config, link("key_file = \"link.key\"")).unwrap();
    let secret: [u8; 32] = std::array::from_fn(|i| i as u8 + 0xc0);
    let hex: String = secret.iter().map(|b| format!("{b:02x}")).collect();
    let base64 = "wMHCw8TFxsfIycrLzM3Oz9DR0tPU1dbX2Nna29zd3t8";
    for content in [
        secret.to_vec(),
        hex.clone().into(),
        format!("{}\n", hex.to_uppercase()).into(),
        base64.into(),
    ] {
        std::fs::write(&file, &content).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let intercept = load(&config).unwrap();
        assert_eq!(
            (intercept.link.key, intercept.warnings.len()),
            (Some(secret), 0)
        );
        assert!(
            !format!("{intercept:?}").contains("223"),
            "the key must not be shown"
        );
    }
    std::fs::write(&file, format!("{base64}=\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let intercept = load(&config).unwrap();
    assert_eq!(intercept.link.key, Some(secret));
    assert!(
        intercept.warnings[0].contains("chmod 600"),
        "{:?}",
        intercept.warnings
    );

    for bad in [
        &b""[..],
        b"secret-word",
        &[7; 32],
        &[1, 2, 3],
        &hex.as_bytes()[1..],
        &[9; 5000],
    ] {
        std::fs::write(&file, bad).unwrap();
        let error = load(&config).unwrap_err().to_string();
        assert!(
            error.contains("link.key_file = \"link.key\"") && error.contains("64 hex digits"),
            "{error}"
        );
        assert!(!error.contains("secret-word"), "{error}");
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = load(&folder.path().join("none.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("none.toml") && missing.contains("cannot be read"),
        "{missing}"
    );
    let not_file = load(folder.path()).unwrap_err().to_string();
    assert!(not_file.contains("not a regular file"), "{not_file}");
    // A device never ends: reading it would hang.
    let device = parse(&link("key_file = \"/dev/zero\""), "intercept.toml")
        .unwrap_err()
        .to_string();
    assert!(device.contains("not a regular file"), "{device}");
    let binary = folder.path().join("binary.toml");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    assert!(load(&binary).unwrap_err().to_string().contains("UTF-8"));
    std::fs::write(&binary, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(load(&binary).unwrap_err().to_string().contains("1 MiB"));
}
