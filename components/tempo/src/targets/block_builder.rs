//! `-target=block-builder`: blocks from Kafka.

use std::sync::Arc;

use tempo_backend::Backend;
use tempo_config::Config;

use crate::{
    allocations::keep_freed_c_memory,
    connect_kafka::RingPartitions,
    process::{AppError, Assembly, Base, Stage},
    ring_page, settings,
    targets::gossip_stage,
};

pub(super) async fn open(base: &Base, config: &Config) -> Result<Assembly, AppError> {
    keep_freed_c_memory();
    let registry = &base.registry;
    // What may be refused for its settings comes before what takes time.
    let builder_config = settings::block_builder(config)?;
    let membership_config = settings::membership(config)?;
    let backend = Backend::open(&settings::backend(config)?, registry).await?;

    let (membership, gossip) = tempo_membership::build(membership_config, registry).await?;
    let (_, builder) = tempo_block_builder::build(
        builder_config,
        tempo_block_builder::Dependencies {
            backend,
            limits: Arc::new(base.limits.clone()),
            partitions: Arc::new(RingPartitions(membership.clone())),
            registry,
        },
    )
    .await?;
    Ok(Assembly {
        http: ring_page::router(membership),
        before_servers: Stage::default().with("block-builder", |token| builder.run(token)),
        after_servers: vec![gossip_stage(gossip)],
        ..Assembly::default()
    })
}
