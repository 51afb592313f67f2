//! Which servers a cache has, and which of them holds a key.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    pool::{Server, Settings},
    redis::slot,
};

/// Servers by address, and how keys are spread over them.
#[derive(Default, Clone)]
pub(super) struct Servers {
    by_address: BTreeMap<String, Arc<Server>>,
    spread: Spread,
}

/// How keys are spread.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) enum Spread {
    /// By a hash, evenly.
    #[default]
    Hash,
    /// By a hash, so that few keys move when servers come and go at the end of the list.
    Jump,
    /// By slots: (last slot, address), ascending.
    Slots(Vec<(u16, String)>),
}

impl Servers {
    /// The servers at these addresses; those that were known keep their connections.
    pub(super) fn updated(
        &self,
        addresses: impl IntoIterator<Item = String>,
        spread: Spread,
        settings: &Arc<Settings>,
    ) -> Self {
        let by_address = addresses
            .into_iter()
            .map(|address| {
                let server = match self.by_address.get(&address) {
                    Some(known) => Arc::clone(known),
                    None => Arc::new(Server::new(address.clone(), Arc::clone(settings))),
                };
                (address, server)
            })
            .collect();
        Self { by_address, spread }
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.by_address.values()
    }

    /// The server that holds a key.
    pub(super) fn of(&self, key: &str) -> Option<&Arc<Server>> {
        let count = self.by_address.len();
        let at = match &self.spread {
            _ if count == 0 => return None,
            Spread::Hash => crc32(key) as usize % count,
            Spread::Jump => jump(twox_hash::XxHash64::oneshot(0, key.as_bytes()), count),
            Spread::Slots(slots) => {
                let slot = slot(key);
                let at = slots.partition_point(|(last, _)| *last < slot);
                return self.by_address.get(&slots.get(at)?.1);
            }
        };
        self.by_address.values().nth(at)
    }
}

/// The checksum by which clients of memcached commonly choose a server.
fn crc32(key: &str) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(key.as_bytes());
    crc.sum()
}

/// Jump consistent hash (Lamping and Veach): a bucket of `count` for a hash.
fn jump(mut hash: u64, count: usize) -> usize {
    let (mut bucket, mut next) = (0_i64, 0_i64);
    while next < count as i64 {
        bucket = next;
        hash = hash.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let share = (1_u64 << 31) as f64 / ((hash >> 33) + 1) as f64;
        next = ((bucket + 1) as f64 * share) as i64;
    }
    bucket as usize
}

/// The addresses that a list names: each `host:port` resolved, sorted. What cannot be resolved is
/// left out and told of.
pub(super) async fn resolve(names: &[String]) -> Vec<String> {
    let mut addresses = Vec::new();
    for name in names.iter().filter(|name| !name.is_empty()) {
        match tokio::net::lookup_host(name).await {
            Ok(found) => addresses.extend(found.map(|address| address.to_string())),
            Err(error) => tracing::warn!(server = name, %error, "cache server not found"),
        }
    }
    addresses.sort();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings() -> Arc<Settings> {
        Arc::new(Settings {
            timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            max_idle_connections: 1,
            breaker_failures: 1,
            breaker_pause: Duration::from_secs(1),
        })
    }

    fn of<'a>(servers: &'a Servers, key: &str) -> &'a str {
        servers.of(key).map_or("", |server| server.address())
    }

    #[test]
    fn few_keys_move_with_a_consistent_hash() {
        let names = |count: usize| (0..count).map(|server| format!("10.0.0.{server}:1"));
        let moved = |spread: Spread| {
            let five = Servers::default().updated(names(5), spread.clone(), &settings());
            let six = five.updated(names(6), spread, &settings());
            let keys: Vec<String> = (0..1_000).map(|key| format!("key {key}")).collect();
            for server in names(5) {
                let held = keys.iter().filter(|key| of(&five, key) == server).count();
                assert!((100..300).contains(&held), "{server} holds {held}");
            }
            keys.iter()
                .filter(|key| of(&five, key) != of(&six, key))
                .count()
        };
        assert!((100..250).contains(&moved(Spread::Jump)));
        assert!(moved(Spread::Hash) > 500);
        assert!(Servers::default().of("a").is_none());
    }

    #[test]
    fn slots_say_who_holds_a_key() {
        let slots = vec![(8_191, "a:1".to_owned()), (16_383, "b:1".to_owned())];
        let names = ["a:1".to_owned(), "b:1".to_owned()];
        let servers = Servers::default().updated(names, Spread::Slots(slots), &settings());
        // Slots 12,182 and 5,061.
        assert_eq!(of(&servers, "foo"), "b:1");
        assert_eq!(of(&servers, "bar"), "a:1");
    }
}
