//! `-target=query-frontend`: the query API. Queriers of other processes take its jobs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use axum::Router;
use tempo_backend::{Blocklist, TenantIndexRole};
use tempo_config::Config;
use tempo_membership::PartitionRing;
use tempo_query_frontend::{BuiltUntil, TellBuiltUntil};

use super::{Storage, first_poll, gossip_stage, now_nanos, overrides_api};
use crate::{
    process::{AppError, Assembly, Base, Stage},
    ring_page, settings,
};

/// No live-store has told how far block-builders are.
const NEVER: i64 = i64::MIN;

/// Where blocks end and live-stores begin, in a cluster.
struct Boundary {
    blocklist: Blocklist,
    /// A list that is no older has all blocks of which live-stores tell at the same time.
    fresh_list_age: Duration,
    /// A list that is no older has all blocks of which live-stores told when it was fresh.
    max_list_age: Duration,
    /// Unix seconds. What is built stays built: it counts also while no live-store is heard, or the
    /// store can't be read. What was built since counts once blocks are listed.
    last_told: AtomicI64,
}

impl Boundary {
    /// For queries of these tenants.
    fn of(&self, tenants: &[Arc<str>], ring: &PartitionRing) -> BuiltUntil {
        let told = ring.built_until();
        let listed = self.blocklist.age();
        let is_fresh = listed.is_some_and(|age| age <= self.fresh_list_age);
        if let (true, Some(seconds)) = (is_fresh, told) {
            self.last_told.store(seconds, Ordering::Release);
        }
        // The others' lists go on while one cannot be read.
        let left_out = tenants
            .iter()
            .filter(|tenant| self.blocklist.is_left_out(tenant))
            .map(|tenant| self.blocklist.tenant_age(tenant))
            .find(|age| age.is_none_or(|age| age > self.max_list_age));
        match (self.last_told.load(Ordering::Acquire), left_out) {
            (NEVER, _) if told.is_some() => BuiltUntil::Outdated { listed },
            (NEVER, _) if !ring.is_settled => BuiltUntil::Unknown,
            (_, Some(listed)) => BuiltUntil::Outdated { listed },
            // A monolith that is asked by a cluster does not tell.
            (NEVER, None) => BuiltUntil::AsConfigured,
            (seconds, None) => BuiltUntil::UnixSeconds(seconds),
        }
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
                fresh_list_age: settings::fresh_list_age(config),
                max_list_age: settings::max_list_age(config),
                last_told: AtomicI64::new(NEVER),
            };
            Arc::new(move |tenants| boundary.of(tenants, &membership.partitions()))
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

    /// What live-stores tell, if one is heard.
    fn ring(told: Option<i64>) -> PartitionRing {
        let owner = |built_until| Owner {
            instance_id: "live-store-0".to_owned(),
            grpc_addr: String::new(),
            zone: String::new(),
            state: OwnerState::Active,
            state_since: 0,
            owner_since: 0,
            alive: true,
            healthy: true,
            log_was_empty: false,
            built_until: Some(built_until),
        };
        PartitionRing::new(told.map(|told| Partition {
            id: 0,
            state: PartitionState::Active,
            state_since: 0,
            locked: false,
            owners: vec![owner(told)],
        }))
    }

    fn outdated(until: &BuiltUntil) -> bool {
        matches!(until, BuiltUntil::Outdated { .. })
    }

    #[tokio::test]
    async fn blocks_are_gone_by_as_far_as_they_were_told_and_listed() {
        let (backend, faults) = testing::faulty(&testing::memory());
        let tenants: Vec<Arc<str>> = vec!["a".into(), "b".into()];
        for tenant in &tenants {
            let id = Uuid::from_u128(1);
            let meta = BlockMeta::new(Arc::clone(tenant), id, BlockFormat::VParquet4);
            backend.write_meta(&meta).await.unwrap();
        }
        let mut boundary = Boundary {
            blocklist: Blocklist::new(),
            fresh_list_age: ANY,
            max_list_age: ANY,
            last_told: AtomicI64::new(NEVER),
        };
        let poller = Poller::build(
            PollerConfig::default(),
            TenantIndexRole::Builder,
            backend,
            boundary.blocklist.clone(),
            &prometheus::Registry::new(),
        )
        .unwrap();
        let unheard = PartitionRing::default();
        assert_eq!(boundary.of(&tenants, &unheard), BuiltUntil::Unknown);
        assert!(
            outdated(&boundary.of(&tenants, &ring(Some(1)))),
            "never listed"
        );

        poller.poll_once().await.unwrap();
        assert_eq!(boundary.of(&tenants, &unheard), BuiltUntil::Unknown);
        let silent = ring(None);
        assert_eq!(boundary.of(&tenants, &silent), BuiltUntil::AsConfigured);
        assert_eq!(
            boundary.of(&tenants, &ring(Some(1))),
            BuiltUntil::UnixSeconds(1)
        );
        boundary.fresh_list_age = NONE;
        // Told, and perhaps not listed.
        assert_eq!(
            boundary.of(&tenants, &ring(Some(2))),
            BuiltUntil::UnixSeconds(1)
        );
        boundary.max_list_age = NONE;
        // The store is away, or live-stores are.
        assert_eq!(
            boundary.of(&tenants, &ring(Some(2))),
            BuiltUntil::UnixSeconds(1)
        );
        assert_eq!(boundary.of(&tenants, &unheard), BuiltUntil::UnixSeconds(1));

        // Blocks of one tenant were listed, those of the other were not.
        faults.fail_on(Operation::List, "a");
        poller.poll_once().await.unwrap();
        boundary.fresh_list_age = ANY;
        assert_eq!(
            boundary.of(&tenants[1..], &ring(Some(2))),
            BuiltUntil::UnixSeconds(2)
        );
        assert!(outdated(&boundary.of(&tenants, &ring(Some(2)))));
        boundary.max_list_age = ANY;
        assert_eq!(
            boundary.of(&tenants, &ring(Some(2))),
            BuiltUntil::UnixSeconds(2)
        );
    }
}
