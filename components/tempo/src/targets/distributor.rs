//! `-target=distributor`: what is received goes to Kafka.

use std::sync::Arc;

use tempo_config::{Config, blocks::overrides::RateStrategy};
use tempo_distributor::TenantLimits;
use tempo_ingest::{Producer, admin};
use tempo_membership::Membership;

use crate::{
    connect_kafka::KafkaSink,
    limits::Limits,
    process::{AppError, Assembly, Base, Stage},
    ring_page, settings,
    targets::gossip_stage,
};

/// What distributors tell others that they are.
const DISTRIBUTOR: &str = "distributor";

/// Limits whose rates all distributors share: each takes its part. The burst is everybody's.
struct Shared {
    limits: Limits,
    membership: Membership,
}

impl tempo_distributor::Limits for Shared {
    fn limits(&self, tenant: &str) -> TenantLimits {
        let limits = tempo_distributor::Limits::limits(&self.limits, tenant);
        // This one is among them, once it has begun to gossip.
        let distributors = self.membership.alive(DISTRIBUTOR).max(1) as u64;
        let rate_limit_bytes = limits.rate_limit_bytes / distributors;
        TenantLimits {
            rate_limit_bytes,
            global_rate_limit_bytes: rate_limit_bytes.saturating_mul(distributors),
            ..limits
        }
    }
}

pub(super) async fn open(base: &Base, config: &Config) -> Result<Assembly, AppError> {
    let registry = &base.registry;
    // What may be refused for its settings comes before what takes time.
    let distributor_config = settings::distributor(config)?;
    let kafka = settings::kafka(config)?;
    let membership_config = tempo_membership::Config {
        role: DISTRIBUTOR,
        ..settings::membership(config)?
    };

    admin::ensure_topic(&kafka).await?;
    let producer = Producer::new(kafka, registry)?;
    let (membership, gossip) = tempo_membership::build(membership_config, registry).await?;
    let discarded = tempo_distributor::discarded_spans_counter()?;
    registry.register(Box::new(discarded.clone()))?;
    let sink = KafkaSink::new(
        producer.clone(),
        membership.clone(),
        base.limits.overrides.clone(),
        registry,
    )?;
    let limits: Arc<dyn tempo_distributor::Limits> =
        match config.overrides.defaults.ingestion.rate_strategy {
            RateStrategy::Global => Arc::new(Shared {
                limits: base.limits.clone(),
                membership: membership.clone(),
            }),
            RateStrategy::Local | RateStrategy::Unset => Arc::new(base.limits.clone()),
        };
    let (_, distributor) = tempo_distributor::build(
        distributor_config,
        tempo_distributor::Deps {
            sink: Arc::new(sink),
            limits,
            registry,
            discarded_spans: discarded,
        },
    )?;
    Ok(Assembly {
        http: ring_page::router(membership),
        before_servers: Stage::default().with("distributor", |token| async move {
            if let Err(error) = distributor.run(token).await {
                tracing::error!(%error, "distributor failed");
            }
            // Records of clients that have gone may still be on their way.
            let _ = tokio::task::spawn_blocking(move || producer.flush()).await;
        }),
        after_servers: vec![gossip_stage(gossip)],
        ..Assembly::default()
    })
}
