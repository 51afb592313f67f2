//! Putting a block into the object store, in the order that keeps it invisible until it is whole.

use std::fmt;

use tempo_backend::{Backend, BlockingObjectWriter, ObjectKey};

use super::{BlockBuilder, BlockOptions, FinishedBlock, WriteError};

/// Why a block was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError<E: fmt::Debug + fmt::Display> {
    /// The store.
    #[error(transparent)]
    Backend(#[from] tempo_backend::Error),
    /// The writer.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Whoever delivers the traces.
    #[error("{0}")]
    Traces(E),
    /// The runtime is shutting down.
    #[error("the block was given up: the process is shutting down")]
    Cancelled,
}

/// Puts the objects beside a `data.parquet` that is already in the store: bloom shards, index, the
/// flag that hides the block from compaction (if asked for), and `meta.json` last. Done again after
/// a failure, it overwrites what it left.
///
/// # Errors
/// The store's; the block is then not visible.
pub async fn publish(
    backend: &Backend,
    block: &FinishedBlock,
    no_compact: bool,
) -> Result<(), tempo_backend::Error> {
    let (tenant, id) = (&*block.meta.tenant_id, block.meta.block_id);
    if no_compact {
        backend.set_no_compact(tenant, id).await?;
    }
    for (shard, bloom) in (0..).zip(&block.blooms) {
        let key = ObjectKey::bloom(tenant, id, shard);
        backend.write(&key, bloom.clone()).await?;
    }
    let key = ObjectKey::index(tenant, id);
    backend.write(&key, block.index.clone()).await?;
    backend.write_meta(&block.meta).await
}

/// Builds the `data.parquet` of a block straight into the store; [`publish`] makes it a block.
/// `feed` pushes the traces, by ascending id, on a thread that may block, and may look at the
/// builder to decide when to stop.
///
/// # Errors
/// Those of the store, of the writer, and of `feed`. Nothing is left in the store then: an
/// unfinished upload is aborted.
pub async fn write_data<E, F>(
    backend: &Backend,
    options: BlockOptions,
    feed: F,
) -> Result<FinishedBlock, PublishError<E>>
where
    E: fmt::Debug + fmt::Display + Send + 'static,
    F: FnOnce(&mut BlockBuilder<BlockingObjectWriter>) -> Result<(), PublishError<E>>
        + Send
        + 'static,
{
    let key = ObjectKey::data(&options.tenant, options.block_id);
    let sink = backend.put_stream(&key).await?.into_blocking();
    let build = move || {
        let mut builder = BlockBuilder::new(options, sink)?;
        feed(&mut builder)?;
        let (block, sink) = builder.finish()?;
        sink.finish()?;
        Ok(block)
    };
    match tokio::task::spawn_blocking(build).await {
        Ok(built) => built,
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => Err(PublishError::Cancelled),
        },
    }
}

/// [`write_data`] and [`publish`].
///
/// # Errors
/// Theirs; the block is then not visible.
pub async fn write_block<E, F>(
    backend: &Backend,
    options: BlockOptions,
    no_compact: bool,
    feed: F,
) -> Result<FinishedBlock, PublishError<E>>
where
    E: fmt::Debug + fmt::Display + Send + 'static,
    F: FnOnce(&mut BlockBuilder<BlockingObjectWriter>) -> Result<(), PublishError<E>>
        + Send
        + 'static,
{
    let block = write_data(backend, options, feed).await?;
    publish(backend, &block, no_compact).await?;
    Ok(block)
}
