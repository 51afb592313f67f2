//! `-target=query-frontend`: the query API. Queriers of other processes take its jobs.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::Router;
use tempo_backend::{Blocklist, TenantIndexRole};
use tempo_config::Config;
use tempo_membership::{Built, PartitionRing};
use tempo_query_frontend::{BuiltUntil, TellBuiltUntil};

use super::{Storage, first_poll, gossip_stage, now_nanos, overrides_api};
use crate::{
    process::{AppError, Assembly, Base, Stage},
    ring_page, settings,
};

/// Tenants of which is remembered what live-stores told; beyond, those without blocks are forgotten.
const MAX_REMEMBERED_TENANTS: usize = 100_000;

/// Where blocks end and live-stores begin, in a cluster.
struct Boundary {
    blocklist: Blocklist,
    /// A list that is no older has all blocks of which live-stores tell at the same time.
    fresh_list_age: Duration,
    /// An older list may lack what those have let go of who do not tell.
    max_list_age: Duration,
    /// After so long an inactive partition without owners has all of its spans in blocks.
    forgotten_after: Duration,
    told: Mutex<Told>,
}

/// What is built stays built: it counts also while no live-store is heard, or the store can't be read.
/// What was built since counts once blocks are listed.
#[derive(Default)]
struct Told {
    /// The last that was told of all partitions, in unix seconds, and when.
    last: Option<(i64, Instant)>,
    /// By tenant: the last for which its list was fresh.
    by_tenant: HashMap<Arc<str>, i64>,
    /// Tenants at which those without blocks are forgotten.
    many: usize,
}

impl Told {
    /// Takes what is told now.
    fn hear(&mut self, told: Built, blocklist: &Blocklist) {
        if let Built::UntilUnixSeconds(seconds) = told {
            self.last = Some((seconds, Instant::now()));
        }
        if self.by_tenant.len() > self.many.max(MAX_REMEMBERED_TENANTS) {
            let listed: HashSet<Arc<str>> = blocklist.tenants().into_iter().collect();
            self.by_tenant.retain(|tenant, _| listed.contains(tenant));
            self.many = 2 * self.by_tenant.len();
        }
    }

    /// Until when all blocks of a tenant are listed, as far as is known.
    fn until(
        &mut self,
        tenant: &Arc<str>,
        listed: Option<Duration>,
        fresh: Duration,
    ) -> Option<i64> {
        if let (Some((seconds, told_at)), Some(listed)) = (self.last, listed)
            && listed <= fresh.saturating_add(told_at.elapsed())
        {
            self.by_tenant.insert(Arc::clone(tenant), seconds);
        }
        self.by_tenant.get(tenant).copied()
    }
}

impl Boundary {
    /// For queries of these tenants.
    fn of(&self, tenants: &[Arc<str>], ring: &PartitionRing, now_seconds: i64) -> BuiltUntil {
        let built = ring.built(now_seconds, self.forgotten_after);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.hear(built, &self.blocklist);
        let mut earliest: Option<i64> = None;
        for tenant in tenants {
            let listed = self.blocklist.tenant_age(tenant);
            match (told.until(tenant, listed, self.fresh_list_age), built) {
                (Some(seconds), _) => {
                    earliest = Some(earliest.map_or(seconds, |others| others.min(seconds)));
                }
                (None, Built::Unknown) => return BuiltUntil::Unknown,
                // A monolith that is asked by a cluster does not tell.
                (None, Built::Untold) if listed.is_some_and(|age| age <= self.max_list_age) => {}
                (None, _) => return BuiltUntil::Outdated { listed },
            }
        }
        earliest.map_or(BuiltUntil::AsConfigured, BuiltUntil::UnixSeconds)
    }
}

pub(super) async fn open(base: &Base, config: &Config) -> Result<Assembly, AppError> {
    // What may be refused for its settings comes before what takes time.
    let membership_config = match config.memberlist.join_members.0.is_empty() {
        true => None,
        false => Some(settings::membership(config)?),
    };
    let storage = Storage::open(base, config, TenantIndexRole::Reader).await?;
    let mut gossip = None;
    let mut pages = Router::new();
    let built_until: TellBuiltUntil = match membership_config {
        None => Arc::new(|_| BuiltUntil::AsConfigured),
        Some(membership_config) => {
            let (membership, service) =
                tempo_membership::build(membership_config, &base.registry).await?;
            gossip = Some(gossip_stage(service));
            pages = ring_page::router(membership.clone());
            let boundary = Boundary {
                blocklist: storage.blocklist.clone(),
                fresh_list_age: settings::blocks_visible_after(config),
                max_list_age: settings::max_list_age(config),
                forgotten_after: settings::partition_forgotten_after(config),
                told: Mutex::default(),
            };
            Arc::new(move |tenants| {
                let now_seconds = now_nanos() / 1_000_000_000;
                boundary.of(tenants, &membership.partitions(), now_seconds)
            })
        }
    };
    let (frontend, service) = tempo_query_frontend::build(
        settings::frontend(config),
        tempo_query_frontend::Deps {
            blocklist: storage.blocklist,
            limits: Arc::new(base.limits.clone()),
            results: Some(storage.cache),
            now_nanos: Arc::new(now_nanos),
            built_until,
            registry: &base.registry,
        },
    )?;
    first_poll(&storage.poller).await;
    base.board.add_check(Box::new({
        let frontend = frontend.clone();
        move || frontend.ready()
    }));

    let queries = tonic::service::Routes::new(frontend.streaming_service()).into_axum_router();
    let mut http = frontend
        .router()
        .merge(pages)
        .merge(overrides_api::router(base, config));
    if config.stream_over_http_enabled {
        http = http.merge(queries.reset_fallback());
    }
    let grpc = tonic::service::Routes::new(frontend.streaming_service())
        .add_service(frontend.pull_service())
        .into_axum_router();
    let poller = storage.poller;
    Ok(Assembly {
        http,
        grpc,
        // Queriers stay until the last query is answered, and their streams end before the server
        // that carries them.
        with_grpc_server: Stage::default().with("query-frontend", |token| service.run(token)),
        after_servers: [Stage::default().with("poller", |token| poller.run(token))]
            .into_iter()
            .chain(gossip)
            .collect(),
        ..Assembly::default()
    })
}

#[cfg(test)]
mod tests {
    use tempo_backend::{
        BlockFormat, BlockMeta, Poller, PollerConfig,
        testing::{self, Operation},
    };
    use tempo_membership::{Owner, OwnerState, Partition, PartitionState};
    use uuid::Uuid;

    use super::*;

    /// However old a list is, it is young.
    const ANY: Duration = Duration::MAX;
    const NONE: Duration = Duration::ZERO;

    /// What a live-store tells.
    fn ring(built_until: i64) -> PartitionRing {
        let owner = Owner {
            instance_id: "live-store-0".to_owned(),
            grpc_addr: String::new(),
            zone: String::new(),
            state: OwnerState::Active,
            state_since: 0,
            owner_since: 0,
            alive: true,
            healthy: true,
            log_was_empty: false,
            read_only: false,
            built_until: Some(built_until),
        };
        PartitionRing::new([Partition {
            id: 0,
            state: PartitionState::Active,
            state_since: 0,
            locked: false,
            owners: vec![owner],
        }])
    }

    fn outdated(until: &BuiltUntil) -> bool {
        matches!(until, BuiltUntil::Outdated { .. })
    }

    #[tokio::test]
    async fn blocks_are_gone_by_as_far_as_they_were_told_and_listed() {
        let (backend, faults) = testing::faulty(&testing::memory());
        let tenants: Vec<Arc<str>> = vec!["a".into(), "b".into()];
        let (a, b) = (&tenants[..1], &tenants[1..]);
        for tenant in &tenants {
            let id = Uuid::from_u128(1);
            let meta = BlockMeta::new(Arc::clone(tenant), id, BlockFormat::VParquet4);
            backend.write_meta(&meta).await.unwrap();
        }
        let mut boundary = Boundary {
            blocklist: Blocklist::new(),
            fresh_list_age: ANY,
            max_list_age: ANY,
            forgotten_after: ANY,
            told: Mutex::default(),
        };
        let poller = Poller::build(
            PollerConfig::default(),
            TenantIndexRole::Builder,
            backend,
            boundary.blocklist.clone(),
            &prometheus::Registry::new(),
        )
        .unwrap();
        let until = |seconds| BuiltUntil::UnixSeconds(seconds);
        let unheard = PartitionRing::default();
        let silent = PartitionRing::new([]);
        assert_eq!(boundary.of(&tenants, &unheard, 0), BuiltUntil::Unknown);
        assert!(
            outdated(&boundary.of(&tenants, &ring(1), 0)),
            "never listed"
        );
        assert!(outdated(&boundary.of(&tenants, &silent, 0)), "never listed");

        poller.poll_once().await.unwrap();
        // What was told before is still true.
        assert_eq!(boundary.of(&tenants, &unheard, 0), until(1));
        boundary.told = Mutex::default();
        assert_eq!(boundary.of(&tenants, &unheard, 0), BuiltUntil::Unknown);
        assert_eq!(boundary.of(&tenants, &silent, 0), BuiltUntil::AsConfigured);
        assert_eq!(boundary.of(&tenants, &ring(1), 0), until(1));
        // What was told later is perhaps not listed.
        let pause = Duration::from_secs(1);
        tokio::time::sleep(pause).await;
        boundary.fresh_list_age = NONE;
        assert_eq!(boundary.of(&tenants, &ring(2), 0), until(1));
        boundary.max_list_age = NONE;
        // The store is away, or live-stores are, or one of them.
        assert_eq!(boundary.of(&tenants, &ring(2), 0), until(1));
        assert_eq!(boundary.of(&tenants, &unheard, 0), until(1));
        let mut one_is_away = ring(3);
        let away = Partition {
            id: 1,
            owners: Vec::new(),
            ..one_is_away.partitions[&0].clone()
        };
        one_is_away.partitions.insert(1, away);
        boundary.fresh_list_age = ANY;
        assert_eq!(boundary.of(&tenants, &one_is_away, 0), until(2));

        // Blocks of one tenant are listed, those of the other are not any more.
        faults.fail_on(Operation::List, "a");
        tokio::time::sleep(pause).await;
        poller.poll_once().await.unwrap();
        boundary.fresh_list_age = boundary.blocklist.tenant_age("a").unwrap() - pause / 2;
        assert_eq!(boundary.of(b, &ring(3), 0), until(3));
        assert_eq!(boundary.of(a, &ring(3), 0), until(2));
        assert_eq!(boundary.of(&tenants, &ring(3), 0), until(2));
        assert_eq!(boundary.of(b, &unheard, 0), until(3));
        // Of one that never came there is nothing older.
        assert_eq!(boundary.of(&["c".into()], &unheard, 0), until(3));
        faults.heal();
        poller.poll_once().await.unwrap();
        assert_eq!(boundary.of(&tenants, &ring(4), 0), until(4));
    }
}
