//! Lists, prefixes and ranges in a transfer, and several targets.

use super::*;

fn transfer(from: &str, to: &str) -> String {
    with(FROM, &format!("from = {from}")).replace(TO, &format!("to = {to}"))
}

#[test]
fn origins_and_targets_in_all_their_forms_arrive() {
    let replay = ok(&transfer(
        "[\"10.10.0.2:80\", \"10.10.1.0/24:8000-8099\", \":443\"]",
        "[\"10.20.0.2:8080\", \"10.20.0.3:*\", { address = \"10.20.0.4:1\", copies = 2, percent = 10 }]",
    ));
    let [transfer] = &replay.transfers[..] else {
        panic!()
    };
    assert_eq!(
        transfer.sources(),
        "10.10.0.2:80, 10.10.1.0/24:8000-8099, :443"
    );
    let to: Vec<String> = transfer.to.iter().map(Target::to_string).collect();
    assert_eq!(to, ["10.20.0.2:8080", "10.20.0.3:*", "10.20.0.4:1"]);
    let shares: Vec<_> = transfer.to.iter().map(|t| (t.copies, t.percent)).collect();
    assert_eq!(shares, [(1, 100.0), (1, 100.0), (2, 10.0)]);
    assert_eq!(replay.production(), None, "any address");

    let v6 = ok(&transfer_v6(
        "\"[2001:db8:1::/64]:443-444\"",
        "\"[2001:db8::2]:*\"",
    ));
    assert_eq!(v6.transfers[0].sources(), "[2001:db8:1::/64]:443-444");
    assert_eq!(v6.transfers[0].to[0].to_string(), "[2001:db8::2]:*");
    assert_eq!(
        v6.production(),
        Some(vec!["2001:db8:1::/64".parse().unwrap()])
    );

    let many: Vec<String> = (0..1_000)
        .map(|p| format!("\"10.10.0.2:{}\"", 1 + p))
        .collect();
    let many = ok(&transfer_of(&many));
    assert_eq!(
        many.transfers[0].sources(),
        "10.10.0.2:1, 10.10.0.2:2, 10.10.0.2:3 and 997 more"
    );
}

fn transfer_v6(from: &str, to: &str) -> String {
    transfer(from, to).replace(ADDRESS, "address = [\"2001:db8::9/64\"]")
}

fn transfer_of(from: &[String]) -> String {
    transfer(&format!("[{}]", from.join(", ")), "\"10.20.0.2:8080\"")
}

#[test]
fn what_a_target_does_not_say_its_transfer_does_and_then_traffic() {
    let text = "[[transfer]]\nfrom = \"10.10.0.3:80\"\npercent = 50\ngate_timeout = \"2s\"\n\
        [[transfer.to]]\naddress = \"10.20.0.2:80\"\n\
        [[transfer.to]]\naddress = \"10.20.0.3:80\"\npercent = 5\ncopies = 4\nrtt = \"7ms\"\n\
        wait_for_responses = false\ngate_timeout = \"1s\"\n\
        [traffic]\ncopies = 3\n";
    let replay = ok(&and(text));
    let [plain] = replay.transfers[0].to[..] else {
        panic!()
    };
    assert_eq!((plain.copies, plain.percent), (3, 100.0));
    let [first, second] = replay.transfers[1].to[..] else {
        panic!()
    };
    assert_eq!((first.copies, first.percent), (3, 50.0));
    assert_eq!(first.pace.gate_timeout, Duration::from_secs(2));
    assert!(first.pace.wait_for_responses && first.pace.rtt.is_none());
    assert_eq!((second.copies, second.percent), (4, 5.0));
    let pace = Pace {
        wait_for_responses: false,
        rtt: Some(Duration::from_millis(7)),
        gate_timeout: Duration::from_secs(1),
    };
    assert_eq!(second.pace, pace);
}

#[test]
fn the_longest_prefix_is_the_source_whatever_the_order() {
    let more = "[[transfer]]\nfrom = \"10.10.0.7:80\"\nto = \"10.20.0.3:81\"\n\
        [[transfer]]\nfrom = \":80\"\nto = \"10.20.0.4:*\"\n";
    let text = transfer("\"10.10.0.0/24:1-99\"", "\"10.20.0.2:8080\"");
    let replay = ok(&format!("{text}{more}"));
    for (server, source) in [
        ("10.10.0.8:80", Some(0)),
        ("10.10.0.7:80", Some(1)),
        ("10.10.0.7:81", Some(0)),
        ("10.10.1.7:80", Some(2)),
        ("10.20.0.4:80", None),
        ("10.20.0.4:81", None),
    ] {
        let found = replay.transfer_for(server.parse().unwrap());
        assert_eq!(found, source, "{server}");
    }
}

#[test]
fn what_cannot_be_is_said_in_one_sentence() {
    let from = "\"10.10.0.2:80\"";
    let to = "\"10.20.0.2:8080\"";
    let second = |from: &str| {
        format!(
            "{}[[transfer]]\nfrom = {from}\nto = \"10.20.0.3:*\"\n",
            transfer("\"10.10.0.0/24:80-89\"", to)
        )
    };
    let seventeen: Vec<String> = (1..=17).map(|p| format!("\"10.20.0.2:{p}\"")).collect();
    let cases: &[(String, &str, &[&str])] = &[
        (
            transfer("[]", to),
            "transfer[0].from",
            &["[]", "give at least one", "10.10.0.2:80"],
        ),
        (
            transfer(from, "[]"),
            "transfer[0].to",
            &["[]", "give at least one", "10.20.0.2:8080"],
        ),
        (
            transfer("[80]", to),
            "transfer[0].from[0]",
            &["80", "in quotes"],
        ),
        (
            transfer(from, "[[\"10.20.0.2:1\"]]"),
            "transfer[0].to[0]",
            &["in quotes"],
        ),
        (
            transfer("\"10.10.0.2:90-80\"", to),
            "transfer[0].from",
            &["from 90 down to 80", "\"80-90\""],
        ),
        (
            transfer("\"10.10.0.2:0-80\"", to),
            "transfer[0].from",
            &["port 0"],
        ),
        (
            transfer("\"10.10.0.2:80-\"", to),
            "transfer[0].from",
            &["10.10.0.0/24:8000-8099"],
        ),
        (
            transfer("\"10.10.0.2:*\"", to),
            "transfer[0].from",
            &["10.10.0.0/24:8000-8099"],
        ),
        (
            transfer("\"10.10.0.2/24:80\"", to),
            "transfer[0].from",
            &["bits set", "\"10.10.0.0/24\""],
        ),
        (
            transfer("\"0.0.0.0/0:80\"", to),
            "transfer[0].from",
            &["every address", "\":80\""],
        ),
        (
            transfer("\"224.0.0.0/8:80\"", to),
            "transfer[0].from",
            &["multicast"],
        ),
        (
            transfer("\"2001:db8::/64:80\"", to),
            "transfer[0].from",
            &["[2001:db8::2]:80"],
        ),
        (
            transfer(from, "\"10.20.0.2:80-99\""),
            "transfer[0].to",
            &["range of ports", "give one port, or *"],
        ),
        (
            transfer(from, "\"10.20.0.0/24:80\""),
            "transfer[0].to",
            &["10.20.0.2:8080"],
        ),
        (
            transfer(from, "\"10.20.0.2\""),
            "transfer[0].to",
            &["address:port"],
        ),
        (
            transfer(
                from,
                "[\"10.20.0.2:80\", \"10.20.0.3:80\", \"10.20.0.2:80\"]",
            ),
            "transfer[0].to[2]",
            &["is transfer[0].to[0] already (10.20.0.2:80)", "copies"],
        ),
        (
            transfer(from, "[\"10.20.0.2:80\", { address = \"10.20.0.2:*\" }]"),
            "transfer[0].to[1].address",
            &["is transfer[0].to[0] already (10.20.0.2:80)"],
        ),
        (
            transfer(from, "[\"10.20.0.2:80\", \"10.10.0.2:81\"]"),
            "transfer[0].to[1]",
            &["is a production address (transfer[0].from)", "refused"],
        ),
        (
            transfer("\"10.20.0.0/28:80\"", to),
            "transfer[0].to",
            &[
                "is in the production network 10.20.0.0/28:80 (transfer[0].from)",
                "refused",
            ],
        ),
        (
            transfer(from, "{ adress = \"10.20.0.2:80\" }"),
            "transfer[0].to.adress",
            &["did you mean transfer[0].to.address?"],
        ),
        (
            transfer(from, "{ copies = 2 }"),
            "transfer[0].to.address",
            &["missing", "10.20.0.2:8080"],
        ),
        (
            transfer(from, "{ address = \"10.20.0.2:80\", copies = 0 }"),
            "transfer[0].to.copies",
            &["from 1 to 1023"],
        ),
        (
            transfer(from, "{ address = \"10.20.0.2:80\", percent = 101 }"),
            "transfer[0].to.percent",
            &["above 0 and at most 100"],
        ),
        (
            transfer(from, &format!("[{}]", seventeen.join(", "))),
            "transfer[0].to",
            &["17 targets", "at most 16"],
        ),
        (
            second("\"10.10.0.0/24:85-99\""),
            "transfer[1].from",
            &["is in transfer[0].from already (10.10.0.0/24:80-89)"],
        ),
        (
            second("[\":80\", \"10.10.0.0/24:1-80\"]"),
            "transfer[1].from[1]",
            &["is in transfer[0].from already"],
        ),
        (
            transfer("[\"10.10.0.2:80\", \"10.10.0.2:80\"]", to),
            "transfer[0].from[1]",
            &["is in transfer[0].from[0] already"],
        ),
        (
            transfer("\":80\"", "[\"10.20.0.2:80\", \"[2001:db8::2]:80\"]")
                .replace(ADDRESS, "address = [\"10.20.0.9/24\", \"2001:db8::9/64\"]"),
            "transfer[0].to[0]",
            &["is IPv4, but transfer[0].to[1] is not", "clients.pool"],
        ),
        (
            transfer("\"10.10.0.0/16:80\"", to) + "[clients]\npool = [\"10.10.3.0/24\"]\n",
            "clients.pool[0]",
            &["has addresses of production, 10.10.0.0/16:80 (transfer[0].from)"],
        ),
    ];
    for (text, key, parts) in cases {
        refused(text, key, parts);
    }
    // One in another, or beside it, is none of that.
    ok(&second("\"10.10.0.0/25:85-99\""));
    ok(&second("\"10.10.0.0/24:90-99\""));
}

#[test]
fn thousands_of_origins_and_targets_are_read_and_no_more_than_there_may_be() {
    let of = |n: u32| {
        let a = 10 << 24 | 30 << 16 | n;
        std::net::Ipv4Addr::from(a)
    };
    let origins = |n| {
        (0..n)
            .map(|i| format!("\"{}:80\"", of(i)))
            .collect::<Vec<_>>()
    };
    let most = Transfer::MAX_ORIGINS as u32;
    ok(&transfer_of(&origins(most)));
    refused(
        &transfer_of(&origins(most + 1)),
        &format!("transfer[0].from[{most}]"),
        &["16384", "prefixes"],
    );
    let targets = |n| {
        let each = |i| {
            format!(
                "[[transfer]]\nfrom = \"{}:80\"\nto = \"10.20.0.3:*\"\n",
                of(i)
            )
        };
        and(&(0..n).map(each).collect::<String>())
    };
    let most = Transfer::MAX_TARGETS_IN_ALL as u32;
    ok(&targets(most - 1));
    refused(
        &targets(most),
        &format!("transfer[{most}].to"),
        &["4096", "a list in from"],
    );
}
