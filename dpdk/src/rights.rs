//! The capabilities (capabilities(7)) that kernel interfaces take. They are looked for before a
//! driver fails over them, in words that do not name them.

/// A capability: its bit, and its name.
type Capability = (u32, &'static str);

/// `CAP_NET_ADMIN`: net_af_packet sets the flags of its interface when a port is started.
pub(crate) const NET_ADMIN: Capability = (12, "CAP_NET_ADMIN");
/// `CAP_NET_RAW`: packet sockets.
pub(crate) const NET_RAW: Capability = (13, "CAP_NET_RAW");

/// Those that this thread needs and does not have. None, if that cannot be told.
pub(crate) fn missing(needed: &[Capability]) -> Vec<&'static str> {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    missing_in(&status, needed)
}

/// The same by the text of proc_pid_status(5).
fn missing_in(status: &str, needed: &[Capability]) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .unwrap_or(u64::MAX);
    let lacks = |(bit, _): &&Capability| effective >> bit & 1 == 0;
    needed.iter().filter(lacks).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let both = [NET_RAW, NET_ADMIN];
        for (status, lacks) in [
            ("CapEff:\t0000000000003000\n", vec![]),
            (
                "CapPrm:\t0000000000003000\nCapEff:\t0000000000002000\n",
                vec!["CAP_NET_ADMIN"],
            ),
            ("CapEff:\t0000000000001000", vec!["CAP_NET_RAW"]),
            (
                "CapEff:\t0000000000000000",
                vec!["CAP_NET_RAW", "CAP_NET_ADMIN"],
            ),
            ("CapEff:\t000001ffffffffff", vec![]),
            // A kernel that does not say is asked by the driver.
            ("", vec![]),
            ("CapEff:\tx", vec![]),
        ] {
            assert_eq!(missing_in(status, &both), lacks, "{status:?}");
        }
    }
}
