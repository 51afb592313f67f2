//! Where to find the first members: addresses and names, looked up again and again.

use std::{collections::BTreeSet, net::SocketAddr};

use crate::{config::DEFAULT_PORT, error::Error};

/// `host:port` of each seed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seeds(Vec<String>);

impl Seeds {
    pub(crate) fn parse(join_members: &[String]) -> Result<Self, Error> {
        let parsed: Result<Vec<String>, Error> = join_members
            .iter()
            .map(|seed| seed.trim())
            .filter(|seed| !seed.is_empty())
            .map(parse)
            .collect();
        Ok(Self(parsed?))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All addresses of all seeds. A name that is not found is told, and tried again next time.
    pub(crate) async fn look_up(&self) -> BTreeSet<SocketAddr> {
        let mut found = BTreeSet::new();
        for seed in &self.0 {
            match tokio::net::lookup_host(seed).await {
                Ok(addresses) => found.extend(addresses),
                Err(error) => {
                    tracing::warn!(seed, %error, "name of a cluster member not found, trying again");
                }
            }
        }
        found
    }
}

fn parse(seed: &str) -> Result<String, Error> {
    if seed.starts_with("dnssrv") {
        return Err(Error::Config {
            key: "memberlist.join_members",
            reason: format!("{seed}: SRV records are not looked up; use dns+<name>:<port>"),
        });
    }
    let seed = seed.strip_prefix("dns+").unwrap_or(seed);
    if seed.parse::<SocketAddr>().is_ok() {
        return Ok(seed.to_owned());
    }
    if let Ok(ip) = seed.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
        return Ok(SocketAddr::new(ip, DEFAULT_PORT).to_string());
    }
    match seed.rsplit_once(':') {
        None => Ok(format!("{seed}:{DEFAULT_PORT}")),
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(seed.to_owned())
        }
        Some(_) => Err(Error::Config {
            key: "memberlist.join_members",
            reason: format!("{seed}: not host:port"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_hosts_with_or_without_port() {
        for (written, expected) in [
            ("10.0.0.1:7000", Some("10.0.0.1:7000")),
            ("10.0.0.1", Some("10.0.0.1:7946")),
            ("[::1]", Some("[::1]:7946")),
            ("[::1]:7000", Some("[::1]:7000")),
            ("gossip-ring", Some("gossip-ring:7946")),
            (
                "dns+gossip-ring.tracing.svc:7946",
                Some("gossip-ring.tracing.svc:7946"),
            ),
            ("dnssrv+_gossip._udp.tracing", None),
            ("gossip-ring:http", None),
            (":7946", None),
        ] {
            assert_eq!(parse(written).ok().as_deref(), expected, "{written}");
        }
    }
}
