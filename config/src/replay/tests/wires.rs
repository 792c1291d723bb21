//! Several replay ports.

use super::*;

const TWO: &str = r#"
[mirror]
ports = ["net_af_packet0,iface=span0"]
[[wire]]
name = "a"
port = "net_af_packet1,iface=replay0"
address = ["10.20.0.9/24"]
[[wire]]
name = "b"
port = "net_af_packet2,iface=replay1"
address = ["10.21.0.9/24"]
gateway = ["10.21.0.1"]
[[transfer]]
from = "10.10.0.2:80"
to = "10.20.0.2:8080"
wire = "a"
[[transfer]]
from = "10.10.0.3:80"
to = "192.0.2.2:8080"
wire = "b"
"#;

/// The file with two wires, with a text of it replaced by another.
fn but(text: &str, by: &str) -> String {
    assert!(TWO.contains(text), "{text}");
    TWO.replacen(text, by, 1)
}

#[test]
fn a_transfer_names_the_wire_of_its_target() {
    let replay = ok(TWO);
    let names: Vec<_> = replay.wires.iter().map(|w| w.name.as_deref()).collect();
    assert_eq!(names, [Some("a"), Some("b")]);
    assert_eq!(replay.wires[1].table, "wire[1]");
    assert_eq!(replay.wires[1].port, "net_af_packet2,iface=replay1");
    let wires: Vec<usize> = replay.targets().map(|(_, to)| to.wire).collect();
    assert_eq!(wires, [0, 1]);
}

#[test]
fn a_target_may_name_a_wire_of_its_own() {
    let to = "to = \"10.20.0.2:8080\"";
    let over = |list: &str| but(to, &format!("to = [{list}]"));
    let other = "{ address = \"10.21.0.2:8080\", wire = \"b\" }";
    let both = over(&format!("\"10.20.0.2:8080\", {other}"));
    let wires = |text: &str| -> Vec<usize> {
        let replay = ok(text);
        replay.targets().map(|(_, to)| to.wire).collect()
    };
    assert_eq!(wires(&both), [0, 1, 1]);
    let all = over(other).replace("wire = \"a\"\n", "");
    assert_eq!(wires(&all), [1, 1], "the transfer need not say it then");
    let unknown = both.replace("wire = \"b\" }", "wire = \"c\" }");
    let parts = ["no [[wire]]", "\"a\" or \"b\""];
    refused(&unknown, "transfer[0].to[1].wire", &parts);
    let missing = both.replace("wire = \"a\"\n", "");
    refused(&missing, "transfer[0].wire", &["is missing", parts[1]]);
}

#[test]
fn the_only_wire_need_not_be_named_by_transfers() {
    let one = MINIMAL.replace("[replay]", "[[wire]]\nname = \"a\"");
    for text in [one.clone(), format!("{one}wire = \"a\"\n")] {
        let replay = ok(&text);
        assert_eq!((replay.wires.len(), replay.transfers[0].to[0].wire), (1, 0));
    }
    let single = ok(MINIMAL);
    assert_eq!(single.wires[0].table, "replay");
    assert_eq!(single.wires[0].name, None);
}

#[test]
fn what_is_wrong_with_a_wire_is_said() {
    let both = but(
        "[[wire]]",
        "[replay]\nport = \"net_null0\"\naddress = [\"10.1.0.1/24\"]\n[[wire]]",
    );
    let of_transfer = "wire = \"b\"\n";
    for (text, key, parts) in [
        (both, "wire[0]", ["together with [replay]", "[[wire]]"]),
        (
            but("name = \"a\"\n", ""),
            "wire[0].name",
            ["is missing", "lan-a"],
        ),
        (
            but("name = \"a\"", "name = \"a b\""),
            "wire[0].name",
            ["letters", "lan-a"],
        ),
        (
            but("name = \"b\"", "name = \"a\""),
            "wire[1].name",
            ["wire[0]", "its own"],
        ),
        (
            but("port = \"net_af_packet2,iface=replay1\"\n", ""),
            "wire[1].port",
            ["is missing", "PCI"],
        ),
        (
            but("iface=replay1", "iface=replay0"),
            "wire[1].port",
            ["replay0", "wire[0].port"],
        ),
        (
            but("iface=replay1", "iface=span0"),
            "wire[1].port",
            ["mirror.ports[0]", "a port that is no mirror"],
        ),
        (
            but("address = [\"10.21.0.9/24\"]\n", ""),
            "wire[1].address",
            ["missing or empty", "10.20.0.9/24"],
        ),
        (
            but("10.21.0.9/24", "10.20.0.9/16"),
            "wire[1].address[0]",
            ["wire[0].address[0]", "its own"],
        ),
        (
            but("gateway = [\"10.21.0.1\"]", "gateway = [\"10.20.0.1\"]"),
            "wire[1].gateway[0]",
            ["not on the wire", "wire[1].address"],
        ),
        // Another wire leads there, but not the target's.
        (
            but("gateway = [\"10.21.0.1\"]\n", ""),
            "transfer[1].to",
            ["wire[1].address", "wire[1].gateway"],
        ),
        (
            but("10.20.0.2:8080", "10.21.0.2:8080"),
            "transfer[0].to",
            ["wire[0].address", "wire[0].gateway"],
        ),
        (
            but("10.20.0.2:8080", "10.21.0.9:8080"),
            "transfer[0].to",
            ["own address", "wire[1].address[0]"],
        ),
        (
            but(of_transfer, ""),
            "transfer[1].wire",
            ["is missing", "\"a\" or \"b\""],
        ),
        (
            but(of_transfer, "wire = \"c\"\n"),
            "transfer[1].wire",
            ["no [[wire]]", "\"a\" or \"b\""],
        ),
        (
            and("wire = \"a\""),
            "transfer[0].wire",
            ["[replay] is the only wire", "leave it out"],
        ),
        (
            with("[replay]", "[wire]\nname = \"a\""),
            "wire",
            ["[[wire]]", "several times"],
        ),
    ] {
        refused(&text, key, &parts);
    }
}
