//! Where tunnels may end, by the configuration, and where those led that were not opened.
//!
//! Whoever can send to an address that is mirrored can send tunnels there, with any segments in
//! them. Those addressed to production are his means, and those of a mirror end somewhere else; so
//! without `mirror.tunnels` the former are refused. If production is any address (`":80"`), nothing
//! tells the two apart, and tunnels are opened only where the configuration says.
//!
//! What a worker keeps of refused tunnels is bounded: their number, and the busiest
//! [`DESTINATIONS`] of their outer destinations.

use arrayvec::ArrayVec;
use config::replay::{Replay, TunnelNetwork};
use ipnet::IpNet;
use std::time::{Duration, Instant};
use wire::scope::Network;
use wire::tunnel::{End, Ends};
use wire::{Addr, Prefix};

/// Outer destinations that a worker keeps, and that a report shows.
pub const DESTINATIONS: usize = 8;
/// How often it is logged that tunnels are refused.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Where tunnels may end.
pub fn ends(config: &Replay) -> Ends {
    let mirror = &config.mirror;
    let listed = mirror.tunnels.as_ref().map(|ends| {
        let end = |e: &config::replay::TunnelEnd| End {
            to: Prefix::new(e.to.addr().into(), e.to.prefix_len()),
            network: e.network.map(|n| match n {
                TunnelNetwork::Vni(vni) => Network::Virtual(vni),
                TunnelNetwork::Key(key) => Network::Key(key),
            }),
        };
        ends.iter().map(end).collect()
    });
    let ends = match (listed, config.production()) {
        (Some(listed), _) => Ends::at(listed),
        (None, Some(production)) => {
            let network = |n: &IpNet| Prefix::new(n.addr().into(), n.prefix_len());
            Ends::anywhere_but(&production.iter().map(network).collect::<Vec<_>>())
        }
        (None, None) => Ends::at(Vec::new()),
    };
    let own = mirror.addresses.iter().map(|a| a.addr().into());
    own.fold(ends, |ends, addr| ends.and(End::at(Prefix::host(addr))))
}

/// Frames in tunnels that were not opened, by their outer destination.
///
/// The destinations are the busiest, as the algorithm "Space-Saving" finds them (Metwally, Agrawal,
/// El Abbadi 2005): a destination that gets more than an eighth of these frames is always there.
/// One that took the place of another has that one's frames as well, so each number is how many it
/// was at most.
#[derive(Clone, Default, Debug)]
pub struct RefusedTunnels {
    destinations: ArrayVec<(Addr, u64), DESTINATIONS>,
}

impl RefusedTunnels {
    /// Counts `frames` to this destination.
    pub fn add(&mut self, to: Addr, frames: u64) {
        if let Some((_, n)) = self.destinations.iter_mut().find(|d| d.0 == to) {
            *n += frames;
        } else if self.destinations.try_push((to, frames)).is_err()
            && let Some(least) = self.destinations.iter_mut().min_by_key(|d| d.1)
        {
            *least = (to, least.1 + frames);
        }
    }

    /// The destinations of several workers together, the busiest first.
    pub fn busiest<'a>(of: impl Iterator<Item = &'a Self>) -> Vec<(Addr, u64)> {
        let mut all = Vec::<(Addr, u64)>::new();
        for (to, frames) in of.flat_map(|w| &w.destinations) {
            match all.iter_mut().find(|d| d.0 == *to) {
                Some((_, n)) => *n += frames,
                None => all.push((*to, *frames)),
            }
        }
        all.sort_by_key(|d| std::cmp::Reverse(d.1));
        all.truncate(DESTINATIONS);
        all
    }
}

/// Tells the log of refused tunnels, and which key opens them, now and then.
#[derive(Default, Debug)]
pub struct RefusedLog {
    told: u64,
    told_at: Option<Instant>,
}

impl RefusedLog {
    /// What to log at `now`, of so many frames since the start to these destinations, the busiest
    /// first; `None` if nothing is new, or the last word was just now.
    pub fn due(
        &mut self,
        frames: u64,
        destinations: &[(Addr, u64)],
        now: Instant,
    ) -> Option<String> {
        let recent = |at: Instant| now.saturating_duration_since(at) < WARN_EVERY;
        let (busiest, _) = destinations.first()?;
        if frames == self.told || self.told_at.is_some_and(recent) {
            return None;
        }
        let new = frames - self.told;
        (self.told, self.told_at) = (frames, Some(now));
        let others = match destinations.len() - 1 {
            0 => String::new(),
            n => format!(" and {n} or more other addresses"),
        };
        Some(format!(
            "{new} mirrored frames in tunnels to {busiest}{others} were not opened, since anybody could have sent them; if a mirror's tunnel ends there, add \"{busiest}\" to mirror.tunnels"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends_of(mirror: &str, from: &str) -> Ends {
        let text = format!(
            "[mirror]\nports = [\"net_ring0\"]\n{mirror}\n[replay]\nport = \"net_ring1\"\n\
             address = [\"10.20.0.9/24\"]\n[[transfer]]\nfrom = {from:?}\nto = \"10.20.0.2:80\"\n\
             [[transfer]]\nfrom = \"10.10.0.3:80\"\nto = \"10.20.0.2:81\"\n"
        );
        ends(&config::replay::parse(&text, "replay.toml").unwrap())
    }

    #[test]
    fn tunnels_end_where_the_configuration_says() {
        let (exact, any) = ("10.10.0.2:80", ":80");
        let (own, list) = (
            "address = [\"10.9.0.5/24\"]",
            "tunnels = [\"10.9.1.0/24\", \"10.10.0.3 vni 7\", \"192.0.2.1 key 7\"]",
        );
        let both = format!("{own}\n{list}");
        let none = format!("{own}\ntunnels = []");
        // Production, production by another transfer, ours, listed, listed with a network, another.
        for (mirror, from, opened) in [
            ("", exact, "--oo oooo"),
            ("", any, "---- ----"),
            (own, exact, "--oo oooo"),
            (own, any, "--o- ----"),
            (list, exact, "---o oo--"),
            (&both, any, "--oo oo--"),
            (&none, exact, "--o- ----"),
        ] {
            let ends = ends_of(mirror, from);
            let (vni, key) = (Some(Network::Virtual(7)), Some(Network::Key(7)));
            let asked = [
                ([10, 10, 0, 2], None),
                ([10, 10, 0, 3], None),
                ([10, 9, 0, 5], None),
                ([10, 9, 1, 77], None),
                ([192, 0, 2, 1], key),
                ([10, 9, 1, 77], vni),
                ([192, 0, 2, 1], vni),
                ([203, 0, 113, 1], None),
            ];
            let opened = opened.replace(' ', "");
            for ((to, network), opened) in asked.iter().zip(opened.chars()) {
                let got = ends.opens(&Addr::v4(*to), *network);
                assert_eq!(got, opened == 'o', "{to:?} {network:?}: {mirror:?} {from}");
            }
        }
        // A network of production that is listed is opened.
        let vni = Some(Network::Virtual(7));
        assert!(ends_of(list, exact).opens(&Addr::v4([10, 10, 0, 3]), vni));
    }

    #[test]
    fn the_busiest_destinations_stay_whatever_else_comes() {
        let busy = Addr::v4([10, 10, 0, 2]);
        let mut refused = RefusedTunnels::default();
        let mut total = 0;
        for n in 0..10_000u32 {
            refused.add(Addr::v4(n.to_be_bytes()), 1);
            total += 1;
            if n % 4 == 0 {
                refused.add(busy, 1);
                total += 1;
            }
        }
        let two = [refused.clone(), refused];
        let shown = RefusedTunnels::busiest(two.iter());
        assert_eq!(shown.len(), DESTINATIONS);
        let (to, frames) = shown[0];
        assert_eq!(to, busy);
        assert!((5_000..=2 * total / 4).contains(&frames), "{frames}");
        assert!(RefusedTunnels::busiest([].into_iter()).is_empty());
    }

    #[test]
    fn the_log_tells_once_a_minute_which_key_opens_them() {
        let (a, b) = (Addr::v4([10, 10, 0, 2]), Addr::v4([10, 10, 0, 3]));
        let (mut log, start) = (RefusedLog::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(log.due(0, &[], at(0)), None);
        let said = log.due(7, &[(a, 7)], at(1)).unwrap();
        assert!(said.starts_with("7 mirrored frames in tunnels to 10.10.0.2 were"));
        assert!(
            said.ends_with("add \"10.10.0.2\" to mirror.tunnels"),
            "{said}"
        );
        assert_eq!(log.due(9, &[(a, 9)], at(60)), None, "just now");
        let said = log.due(17, &[(b, 10), (a, 7)], at(61)).unwrap();
        assert!(said.starts_with("10 mirrored frames in tunnels to 10.10.0.3 and 1 or more other"));
        assert_eq!(log.due(17, &[(b, 10)], at(600)), None, "nothing new");
    }
}
