//! Which targets a session goes to. That is decided when it begins, and never changes.
//!
//! The targets of all transfers have one number each. A transfer's sessions go to all of its
//! targets, or, where these have different shares of the sessions, to some. Each such set of
//! targets is a *fan*, and a session keeps the number of its own. The shares are nested: a session
//! that goes to the target with the smaller share also goes to that with the larger.

use crate::params::{Params, Target};
use wire::{Addr, Endpoint, Flow, Nanos};

/// A fan, and the share of its transfer's sessions that go to it or to a larger one.
#[derive(Clone, Copy, Debug)]
struct Level {
    share: f64,
    fan: u16,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct Fans {
    targets: Vec<Target>,
    /// For each transfer its fans, those of the smallest share first.
    levels: Vec<Vec<Level>>,
    /// For each fan its targets.
    fans: Vec<Vec<u16>>,
}

impl Fans {
    pub fn new(params: &Params) -> Self {
        let mut all = Self {
            targets: Vec::new(),
            levels: Vec::new(),
            fans: Vec::new(),
        };
        for transfer in &params.transfers {
            let first = all.targets.len();
            all.targets.extend(transfer.to.iter().map(|t| Target {
                copies: Some(t.copies.unwrap_or(params.copies)),
                percent: Some(t.percent.unwrap_or(params.percent)),
                ..*t
            }));
            let own = first..all.targets.len();
            let percent = |i: usize| all.targets[i].percent.unwrap_or(0.0);
            let mut shares: Vec<f64> = own.clone().map(percent).collect();
            shares.sort_by(f64::total_cmp);
            shares.dedup();
            let mut levels = Vec::with_capacity(shares.len());
            for least in shares {
                let fan = own.clone().filter(|i| percent(*i) >= least);
                levels.push(Level {
                    share: least / 100.0,
                    fan: all.fans.len() as u16,
                });
                all.fans.push(fan.map(|i| i as u16).collect());
            }
            all.levels.push(levels);
        }
        all
    }

    /// The fan of the session of `flow`, client to server; `None` if it goes to no target. The
    /// answer for one connection never changes, but for the ramp.
    #[inline]
    pub fn of_session(
        &self,
        params: &Params,
        transfer: u16,
        flow: &Flow,
        now: Nanos,
    ) -> Option<u16> {
        if !params.shard.has(flow) {
            return None;
        }
        let levels = &self.levels[usize::from(transfer)];
        let mut grown = 1.0;
        if params.ramp > 0 {
            grown = (now.saturating_sub(params.start) as f64 / params.ramp as f64).min(1.0);
        } else if let [Level { share: 1.0, fan }] = levels[..] {
            return Some(fan);
        }
        let client = f64::from(wire::rss::client_hash(&flow.src));
        let has = |share: f64| share >= 1.0 || client < share * f64::from(u32::MAX);
        let level = levels.iter().find(|l| has(l.share * grown))?;
        Some(level.fan)
    }

    /// The fan of a transfer that has all of its targets.
    pub fn largest(&self, transfer: u16) -> u16 {
        let levels = &self.levels[usize::from(transfer)];
        levels.first().map_or(0, |l| l.fan)
    }

    /// The targets of a fan.
    #[inline]
    pub fn targets(&self, fan: u16) -> &[u16] {
        &self.fans[usize::from(fan)]
    }

    /// All targets, by number.
    pub fn all(&self) -> &[Target] {
        &self.targets
    }

    /// The targets of all fans.
    pub fn fans(&self) -> &[Vec<u16>] {
        &self.fans
    }

    /// What is known of a target.
    #[inline]
    pub fn target(&self, target: u16) -> &Target {
        &self.targets[usize::from(target)]
    }

    /// The address of a target.
    #[inline]
    pub fn addr(&self, target: u16) -> Addr {
        self.target(target).to.addr
    }

    /// Where a session with this server in production is replayed to.
    #[inline]
    pub fn end(&self, target: u16, server: &Endpoint) -> Endpoint {
        let to = self.target(target).to;
        Endpoint {
            port: if to.port == 0 { server.port } else { to.port },
            ..to
        }
    }

    /// Replicas that a session should have at a target.
    #[inline]
    pub fn copies(&self, target: u16) -> u16 {
        self.target(target).copies.unwrap_or(1)
    }

    /// Most targets that a session has.
    pub fn width(&self) -> usize {
        self.fans.iter().map(Vec::len).max().unwrap_or(1).max(1)
    }

    /// Most replicas that a session should have, at all its targets.
    pub fn replicas(&self) -> usize {
        let of = |fan: &Vec<u16>| fan.iter().map(|t| usize::from(self.copies(*t))).sum();
        self.fans.iter().map(of).max().unwrap_or(1).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Transfer;

    const SERVER: Endpoint = Endpoint::new(Addr::v4([10, 10, 0, 2]), 80);

    fn target(last: u8, percent: f64) -> Target {
        Target {
            percent: Some(percent),
            ..Target::new(Endpoint::new(Addr::v4([10, 20, 0, last]), 8080))
        }
    }

    fn params(to: Vec<Target>) -> Params {
        let mut transfer = Transfer::new(SERVER, to[0].to);
        transfer.to = to;
        Params::new(vec![transfer], 16, 64)
    }

    fn shares(params: &Params, now: Nanos) -> Vec<u32> {
        let fans = Fans::new(params);
        let mut got = vec![0; fans.all().len()];
        for client in 0..10_000 {
            let client = Addr::v4([192, 0, (client >> 8) as u8, client as u8]);
            let flow = Flow {
                src: Endpoint::new(client, 4_000),
                dst: SERVER,
            };
            let fan = fans.of_session(params, 0, &flow, now);
            for target in fan.into_iter().flat_map(|fan| fans.targets(fan)) {
                got[usize::from(*target)] += 1;
            }
        }
        got
    }

    #[test]
    fn each_target_gets_its_share_and_the_shares_are_nested() {
        let to = vec![target(2, 100.0), target(3, 20.0), target(4, 50.0)];
        let params = params(to);
        let fans = Fans::new(&params);
        assert_eq!(fans.fans(), [vec![0, 1, 2], vec![0, 2], vec![0]]);
        assert_eq!((fans.width(), fans.replicas()), (3, 3));
        let got = shares(&params, 0);
        assert_eq!(got[0], 10_000);
        assert!((1_700..2_300).contains(&got[1]), "{got:?}");
        assert!((4_600..5_400).contains(&got[2]), "{got:?}");
    }

    #[test]
    fn shares_grow_together() {
        let mut params = params(vec![target(2, 100.0), target(3, 50.0)]);
        (params.start, params.ramp) = (1_000, 100);
        assert_eq!(shares(&params, 1_000), [0, 0]);
        let half = shares(&params, 1_050);
        assert!((4_600..5_400).contains(&half[0]), "{half:?}");
        assert!((2_200..2_800).contains(&half[1]), "{half:?}");
        assert_eq!(shares(&params, 1_100)[0], 10_000);
    }

    #[test]
    fn a_target_without_a_port_has_the_servers() {
        let mut params = params(vec![target(2, 100.0), target(3, 100.0)]);
        params.transfers[0].to[1].to.port = 0;
        let fans = Fans::new(&params);
        assert_eq!(fans.end(0, &SERVER).port, 8080);
        assert_eq!(fans.end(1, &SERVER), Endpoint::new(fans.addr(1), 80));
    }
}
