//! `-target=distributor`: what is received goes to Kafka.

use std::sync::Arc;

use tempo_config::Config;
use tempo_ingest::{Producer, admin};

use crate::{
    connect_kafka::KafkaSink,
    process::{AppError, Assembly, Base, Stage},
    ring_page, settings,
    targets::gossip_stage,
};

pub(super) async fn open(base: &Base, config: &Config) -> Result<Assembly, AppError> {
    let registry = &base.registry;
    // What may be refused for its settings comes before what takes time.
    let distributor_config = settings::distributor(config)?;
    let kafka = settings::kafka(config)?;
    let membership_config = settings::membership(config)?;

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
    let (_, distributor) = tempo_distributor::build(
        distributor_config,
        tempo_distributor::Deps {
            sink: Arc::new(sink),
            limits: Arc::new(base.limits.clone()),
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
