//! `-target=querier`: runs the jobs that it takes from query-frontends, on blocks itself and on
//! recent data by asking live-stores.

use std::sync::Arc;

use tempo_backend::TenantIndexRole;
use tempo_config::Config;
use tempo_querier::{BlockSource, Querier, Recent, Worker};

use super::{Storage, first_poll, now_nanos};
use crate::{
    process::{AppError, Assembly, Base, Stage},
    settings,
};

pub(super) async fn open(base: &Base, config: &Config) -> Result<Assembly, AppError> {
    let registry = &base.registry;
    // What may be refused for its settings comes before what takes time.
    let worker_config = settings::worker(config)?;
    let storage = Storage::open(base, config, TenantIndexRole::Reader).await?;

    tracing::warn!(
        "memberlist.join_members is empty: live-stores cannot be found, queries are answered from \
         blocks alone"
    );
    let recent = Recent::Nowhere;
    first_poll(&storage.poller).await;
    let querier = Querier::build(
        settings::querier(config),
        tempo_querier::Deps {
            blocks: Some(BlockSource {
                backend: storage.backend,
                blocklist: storage.blocklist,
                cache: storage.cache,
                now_nanos: Arc::new(now_nanos),
            }),
            recent,
            registry,
        },
    )?;
    let worker = Worker::build(worker_config, querier)?;
    let poller = storage.poller;
    Ok(Assembly {
        before_servers: Stage::default().with("querier", |token| worker.run(token)),
        after_servers: vec![Stage::default().with("poller", |token| poller.run(token))],
        ..Assembly::default()
    })
}
