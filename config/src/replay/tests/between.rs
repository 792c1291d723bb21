//! What must hold between keys.

use super::*;

#[test]
fn replaying_to_production_is_refused() {
    let parts = &["production", "transfer[0].from", "refused"];
    refused(&with(TO, "to = \"10.10.0.2:80\""), "transfer[0].to", parts);
    // Another port of a production address is production, too.
    refused(
        &with(TO, "to = \"10.10.0.2:8080\""),
        "transfer[0].to",
        parts,
    );
    // And so is the address of another transfer, whichever comes first.
    let second = "[[transfer]]\nfrom = \"10.20.0.2:81\"\nto = \"10.20.0.4:81\"";
    refused(
        &and(second),
        "transfer[0].to",
        &["10.20.0.2:8080", "transfer[1].from"],
    );
    // Nor does another spelling get around it.
    refused(
        &with(TO, "to = \"[::ffff:10.10.0.2]:80\""),
        "transfer[0].to",
        &["IPv4-mapped"],
    );
    let v6 = with(ADDRESS, "address = [\"2001:db8::9/64\"]")
        .replace(FROM, "from = \"[2001:db8:0:0::2]:80\"");
    refused(
        &v6.replace(TO, "to = \"[2001:0db8::2]:80\""),
        "transfer[0].to",
        parts,
    );
}

#[test]
fn a_target_is_never_taken_for_production() {
    let text = with(FROM, "from = \":80\"").replace(TO, "to = \"10.20.0.2:80\"");
    let text = format!("{text}[[transfer]]\nfrom = \"10.10.0.7:80\"\nto = \"10.20.0.3:81\"\n");
    let replay = ok(&text);
    let find = |server: &str| replay.transfer_for(server.parse().unwrap());
    assert_eq!(find("10.10.0.2:80"), Some(0));
    assert_eq!(
        find("10.10.0.7:80"),
        Some(1),
        "an exact origin wins over a wildcard"
    );
    assert_eq!(
        find("10.20.0.2:80"),
        None,
        "a target would be replayed forever"
    );
    assert_eq!(find("10.20.0.3:80"), Some(0));
    assert_eq!(find("10.10.0.2:81"), None);
    assert_eq!(
        find("[2001:db8::1]:80"),
        None,
        "the client's IPv6 address cannot be kept towards an IPv4 target"
    );
    let pooled = ok(&format!("{text}[clients]\npool = [\"62.135.200.0/24\"]\n"));
    assert_eq!(
        pooled.transfer_for("[2001:db8::1]:80".parse().unwrap()),
        Some(0)
    );
}

#[test]
fn transfers_are_distinct_and_not_the_box_itself() {
    let again = "[[transfer]]\nfrom = \"10.10.0.2:80\"\nto = \"10.20.0.3:8080\"";
    refused(
        &and(again),
        "transfer[1].from",
        &["10.10.0.2:80", "transfer[0].from"],
    );
    let wild = with(FROM, "from = \":80\"");
    refused(
        &format!("{wild}[[transfer]]\nfrom = \":80\"\nto = \"10.20.0.3:1\"\n"),
        "transfer[1].from",
        &["transfer[0].from"],
    );
    refused(
        &with(TO, "to = \"10.20.0.9:80\""),
        "transfer[0].to",
        &["own address", "replay.address[0]"],
    );
    refused(
        &with(FROM, "from = \"10.20.0.9:80\""),
        "transfer[0].from",
        &["own address", "replay.address[0]"],
    );
    let gateway = with(ADDRESS, &format!("{ADDRESS}\ngateway = [\"10.20.0.1\"]"));
    refused(
        &gateway.replace(FROM, "from = \"10.20.0.1:80\""),
        "transfer[0].from",
        &["gateway"],
    );
}

#[test]
fn every_target_can_be_reached() {
    let far = with(TO, "to = \"192.0.2.1:80\"");
    refused(
        &far,
        "transfer[0].to",
        &["192.0.2.1:80", "replay.gateway", "replay.next_hop_mac"],
    );
    ok(&far.replace(ADDRESS, &format!("{ADDRESS}\ngateway = [\"10.20.0.1\"]")));
    ok(&far.replace(ADDRESS, "next_hop_mac = \"02:00:00:00:00:01\""));
    let v6 = with(FROM, "from = \":80\"").replace(TO, "to = \"[2001:db8::2]:80\"");
    refused(
        &v6,
        "transfer[0].to",
        &["2001:db8::2", "IPv6 address in replay.address"],
    );
    ok(&v6.replace(ADDRESS, "address = [\"10.20.0.9/24\", \"2001:db8::9/64\"]"));
    // A gateway of the other family doesn't help.
    let both = "address = [\"10.20.0.9/24\", \"2001:db8:1::9/64\"]\ngateway = [\"10.20.0.1\"]";
    refused(
        &v6.replace(ADDRESS, both),
        "transfer[0].to",
        &["IPv6 replay.gateway"],
    );
    refused(
        &with(TO, "to = \"10.20.0.255:80\""),
        "transfer[0].to",
        &["broadcast"],
    );
}

#[test]
fn gateways_are_on_the_wire_and_one_a_family() {
    let gateways = |list: &str| with(ADDRESS, &format!("{ADDRESS}\ngateway = [{list}]"));
    refused(
        &gateways("\"10.21.0.1\""),
        "replay.gateway[0]",
        &["10.21.0.1", "not on the wire", "replay.address"],
    );
    refused(
        &gateways("\"10.20.0.9\""),
        "replay.gateway[0]",
        &["10.20.0.9", "own address"],
    );
    refused(
        &gateways("\"10.20.0.1\", \"10.20.0.2\""),
        "replay.gateway[1]",
        &["10.20.0.2", "one a family"],
    );
    refused(
        &gateways("\"10.20.0.1/24\""),
        "replay.gateway[0]",
        &["10.20.0.1/24", "without prefix length"],
    );
    refused(
        &gateways("\"fe80::1\""),
        "replay.gateway[0]",
        &["fe80::1", "not on the wire"],
    );
}

#[test]
fn pools_have_the_targets_family_and_nobody_elses_address() {
    let pool = |list: &str| and(&format!("[clients]\npool = [{list}]"));
    refused(
        &pool("\"2001:db8::/64\""),
        "transfer[0].to",
        &["10.20.0.2:8080", "no IPv4 prefix", "clients.pool"],
    );
    refused(
        &pool("\"10.20.0.0/29\""),
        "clients.pool[0]",
        &["10.20.0.0/29", "10.20.0.2", "transfer[0].to"],
    );
    refused(
        &pool("\"10.10.0.0/16\""),
        "clients.pool[0]",
        &["10.10.0.2", "production", "transfer[0].from"],
    );
    refused(
        &pool("\"10.20.0.8/31\""),
        "clients.pool[0]",
        &["10.20.0.9", "own address", "replay.address[0]"],
    );
    let gateway = format!("{ADDRESS}\ngateway = [\"10.20.0.1\"]");
    let text = pool("\"10.20.0.0/31\"").replace(ADDRESS, &gateway);
    refused(
        &text,
        "clients.pool[0]",
        &["10.20.0.1", "gateway", "replay.gateway[0]"],
    );
    refused(
        &pool("\"62.1.0.0/16\", \"62.1.2.0/24\""),
        "clients.pool[1]",
        &["62.1.2.0/24", "overlaps clients.pool[0]"],
    );
    let mixed = with(FROM, "from = \"[2001:db8::2]:80\"");
    refused(
        &mixed,
        "transfer[0].to",
        &["10.20.0.2:8080", "same family", "clients.pool"],
    );
    ok(&format!("{mixed}[clients]\npool = [\"62.135.200.0/24\"]\n"));
}

#[test]
fn ports_are_distinct() {
    let ports = |list: &str| with(PORTS, &format!("ports = [{list}]"));
    refused(
        &ports("\"net_af_packet1,iface=span0\""),
        "replay.port",
        &["net_af_packet1", "mirror.ports[0]", "no mirror"],
    );
    refused(
        &ports("\"net_af_xdp0,iface=replay0\""),
        "replay.port",
        &["uses replay0", "mirror.ports[0]"],
    );
    // Both ways of a NIC, however it is written.
    refused(
        &ports("\"01:00.0\"").replace(PORT, "port = \"0000:01:00.0\""),
        "replay.port",
        &["uses 0000:01:00.0", "mirror.ports[0]", "no mirror"],
    );
    refused(
        &ports("\"net_pcap0,rx_iface=replay0,tx_iface=x\""),
        "replay.port",
        &["uses replay0"],
    );
    let twice = "\"net_af_packet0,iface=s\", \"net_af_packet5,iface=s\"";
    refused(
        &ports(twice),
        "mirror.ports[1]",
        &["uses s", "mirror.ports[0]", "once"],
    );
    let pci = ports("\"0000:0A:00.0\"").replace(PORT, "port = \"0a:00.0\"");
    refused(&pci, "replay.port", &["0a:00.0", "mirror.ports[0]"]);
    ok(&ports(
        "\"0000:0A:00.0\", \"0a:00.1\", \"net_ring0\", \"net_null0\"",
    ));
}

#[test]
fn an_address_at_the_mirror_is_nobody_elses() {
    let text = format!("{MINIMAL}[clients]\npool = [\"62.135.200.0/24\"]\n")
        .replace(ADDRESS, &format!("{ADDRESS}\ngateway = [\"10.20.0.1\"]"));
    let listening =
        |address: &str| text.replace(PORTS, &format!("{PORTS}\naddress = [{address:?}]"));
    let ours = ok(&listening("10.9.0.5/24"));
    assert_eq!(ours.mirror.addresses, ["10.9.0.5/24".parse().unwrap()]);
    for (address, parts) in [
        ("10.10.0.2/24", ["a production address", "transfer[0].from"]),
        ("10.20.0.2/24", ["a target", "transfer[0].to"]),
        (
            "10.20.0.9/24",
            ["the replay port's own", "replay.address[0]"],
        ),
        ("10.20.0.1/24", ["gateway", "replay.gateway[0]"]),
        ("62.135.200.7/24", ["pool", "clients.pool[0]"]),
    ] {
        refused(&listening(address), "mirror.address[0]", &parts);
    }
    let file = with(PORTS, "file = \"a.pcap\"\naddress = [\"10.9.0.5/24\"]");
    refused(&file, "mirror.address", &["mirror.ports"]);
}

#[test]
fn ip_in_udp_that_nothing_can_come_through_is_told() {
    let more = |more: &str| with(PORTS, &format!("{PORTS}\nip_in_udp = [9999]\n{more}"));
    let any = |text: String| ok(&text.replace(FROM, "from = \":80\""));
    assert!(ok(&more("")).warnings.is_empty(), "production is named");
    assert_eq!(ok(&more("")).production().unwrap().len(), 1);
    let silent = any(more(""));
    assert!(silent.warnings[0].contains("mirror.tunnels"));
    assert_eq!(silent.production(), None);
    assert!(any(more("tunnels = [\"10.9.0.5\"]")).warnings.is_empty());
}
