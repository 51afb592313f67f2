//! What every store must do.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use prometheus::Registry;
use tempo_backend::{
    Backend, BlockFormat, BlockMeta, Error, NO_COMPACT, ObjectKey, ReadStats, TenantIndex,
    Timestamp,
};
use uuid::Uuid;

/// The smallest part that S3 takes.
pub(crate) const PART_BYTES: u64 = 5 * 1024 * 1024;

/// A tenant with every kind of character that a tenant may have.
const TENANT: &str = "A-z_0.9!*'(x)";

/// `elsewhere` is the same store under another prefix.
pub(crate) async fn run(backend: &Backend, elsewhere: &Backend, registry: &Registry) {
    objects(backend, elsewhere).await;
    streams(backend).await;
    blocks(backend, elsewhere).await;
    many_blocks(backend).await;
    index(backend).await;
    requests_are_measured(registry);
}

/// Bytes that tell their place.
fn content(length: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(length + 8);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while bytes.len() < length {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

async fn objects(backend: &Backend, elsewhere: &Backend) {
    let key = ObjectKey::tenant(TENANT, "some object");
    let stats = ReadStats::new();
    assert!(backend.read(&key, &stats).await.unwrap_err().is_not_found());
    assert!(backend.size(&key).await.unwrap_err().is_not_found());
    backend.delete(&key).await.unwrap();

    let bytes = content(2_000_000);
    backend
        .write(&key, Bytes::from_static(b"old"))
        .await
        .unwrap();
    backend.write(&key, bytes.clone()).await.unwrap();
    assert_eq!(backend.size(&key).await.unwrap(), 2_000_000);
    assert_eq!(backend.read(&key, &stats).await.unwrap(), bytes);
    assert!(
        elsewhere
            .read(&key, &stats)
            .await
            .unwrap_err()
            .is_not_found()
    );

    let stats = ReadStats::new();
    let ranges = [1_999_990..2_000_000, 0..10, 500..600, 700_000..700_001];
    let parts = backend.read_ranges(&key, &ranges, &stats).await.unwrap();
    for (range, part) in ranges.iter().zip(&parts) {
        assert_eq!(part, &bytes.slice(range.start as usize..range.end as usize));
    }
    // The two near ranges are one request.
    assert_eq!(stats.requests(), 3);

    for beyond in [
        1_999_990..2_000_001,
        2_000_000..2_000_008,
        3_000_000..3_000_001,
    ] {
        let error = backend
            .read_range(&key, beyond.clone(), &stats)
            .await
            .unwrap_err();
        assert!(
            matches!(error, Error::Corrupt { .. }),
            "{beyond:?}: {error}"
        );
    }

    let (blocking, blocking_key) = (backend.clone(), key.clone());
    let part = tokio::task::spawn_blocking(move || {
        blocking.read_range_blocking(&blocking_key, 10..20, &ReadStats::new())
    })
    .await
    .unwrap();
    assert_eq!(part.unwrap(), bytes.slice(10..20));

    backend.delete(&key).await.unwrap();
    assert!(!backend.exists(&key).await.unwrap());
}

/// What [`read_seed`] expects to find, put there by other means.
pub(crate) fn seed() -> Vec<(ObjectKey, Bytes)> {
    let id = Uuid::from_u128(7);
    let json = Bytes::from(serde_json::to_vec(&meta("t", id)).unwrap());
    vec![
        (ObjectKey::meta("t", id), json.clone()),
        (ObjectKey::compacted_meta("t", id), json),
        (ObjectKey::data("t", id), content(2_000_000)),
        (ObjectKey::root("work.json"), Bytes::from_static(b"{}")),
        (ObjectKey::tenant("u", "x/y"), Bytes::from_static(b"y")),
    ]
}

/// Reads, lists and deletes, for a server that takes no writes.
pub(crate) async fn read_seed(backend: &Backend) {
    let id = Uuid::from_u128(7);
    let stats = ReadStats::new();
    assert_eq!(backend.list_tenants().await.unwrap(), ["t", "u"]);
    let listing = backend.list_blocks("t").await.unwrap();
    assert_eq!(listing.live, [id]);
    assert_eq!(listing.compacted.len(), 1);
    assert_eq!(backend.read_meta("t", id).await.unwrap(), meta("t", id));
    let data = ObjectKey::data("t", id);
    let ranges = [1_999_990..2_000_000, 0..10, 700_000..700_001];
    let parts = backend.read_ranges(&data, &ranges, &stats).await.unwrap();
    for (range, part) in ranges.iter().zip(&parts) {
        let expected = content(2_000_000).slice(range.start as usize..range.end as usize);
        assert_eq!(part, &expected);
    }
    assert_eq!(backend.size(&data).await.unwrap(), 2_000_000);
    let absent = ObjectKey::bloom("t", id, 0);
    assert!(
        backend
            .read(&absent, &stats)
            .await
            .unwrap_err()
            .is_not_found()
    );
    backend.delete_block("t", id).await.unwrap();
    backend.delete(&data).await.unwrap();
    assert!(!backend.exists(&data).await.unwrap());
    assert_eq!(backend.list_tenants().await.unwrap(), ["u"]);
}

async fn streams(backend: &Backend) {
    let key = ObjectKey::tenant(TENANT, "stream");
    let bytes = content(PART_BYTES as usize * 2 + 12_345);
    let mut writer = backend.put_stream(&key).await.unwrap();
    for chunk in bytes.chunks(1_000_000) {
        writer.write(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    assert!(!backend.exists(&key).await.unwrap());
    assert_eq!(writer.finish().await.unwrap(), bytes.len() as u64);
    assert_eq!(backend.read(&key, &ReadStats::new()).await.unwrap(), bytes);
    backend.delete(&key).await.unwrap();

    let mut aborted = backend.put_stream(&key).await.unwrap();
    aborted.write(bytes.clone()).await.unwrap();
    aborted.abort().await.unwrap();
    let mut dropped = backend.put_stream(&key).await.unwrap();
    dropped.write(bytes).await.unwrap();
    drop(dropped);
    assert!(!backend.exists(&key).await.unwrap());

    let writer = backend.put_stream(&key).await.unwrap();
    assert_eq!(writer.finish().await.unwrap(), 0);
    assert_eq!(backend.size(&key).await.unwrap(), 0);
    backend.delete(&key).await.unwrap();
}

fn meta(tenant: &str, id: Uuid) -> BlockMeta {
    BlockMeta {
        start_time: Timestamp::from_unix_nanos(1_700_000_000_123_456_789),
        end_time: Timestamp::from_unix_seconds(1_700_000_100),
        size: 3,
        ..BlockMeta::new(Arc::from(tenant), id, BlockFormat::VParquet5)
    }
}

async fn put_block(backend: &Backend, tenant: &str, id: Uuid) -> Result<(), Error> {
    let data = ObjectKey::data(tenant, id);
    backend.write(&data, Bytes::from_static(b"PAR")).await?;
    let bloom = ObjectKey::bloom(tenant, id, 0);
    backend.write(&bloom, Bytes::from_static(b"bloom")).await?;
    backend.write_meta(&meta(tenant, id)).await
}

async fn blocks(backend: &Backend, elsewhere: &Backend) {
    let live = Uuid::from_u128(u128::MAX / 5);
    let ended = Uuid::from_u128(u128::MAX - 1);
    for id in [live, ended] {
        put_block(backend, TENANT, id).await.unwrap();
    }
    backend.set_no_compact(TENANT, live).await.unwrap();
    put_block(backend, "other", Uuid::nil()).await.unwrap();
    let foreign = ObjectKey::tenant(TENANT, "not-a-block/meta.json");
    backend
        .write(&foreign, Bytes::from_static(b"{}"))
        .await
        .unwrap();
    let root = ObjectKey::root("work.json");
    backend
        .write(&root, Bytes::from_static(b"{}"))
        .await
        .unwrap();

    assert_eq!(backend.list_tenants().await.unwrap(), [TENANT, "other"]);
    assert_eq!(elsewhere.list_tenants().await.unwrap(), ["prefix"]);
    assert_eq!(
        backend.read_meta(TENANT, live).await.unwrap(),
        meta(TENANT, live)
    );

    let listing = backend.list_blocks(TENANT).await.unwrap();
    assert_eq!(listing.live, [live, ended]);
    assert!(listing.compacted.is_empty());
    assert!(listing.no_compact.contains(&live));
    assert!(
        backend
            .exists(&ObjectKey::block(TENANT, live, NO_COMPACT))
            .await
            .unwrap()
    );
    backend.clear_no_compact(TENANT, live).await.unwrap();
    assert!(!backend.has_no_compact(TENANT, live).await.unwrap());

    // The store's clock counts in seconds, and may be another machine's.
    let before = Timestamp::now().saturating_sub(std::time::Duration::from_secs(5));
    backend.mark_compacted(TENANT, ended).await.unwrap();
    backend.mark_compacted(TENANT, ended).await.unwrap();
    let listing = backend.list_blocks(TENANT).await.unwrap();
    assert_eq!(listing.live, [live]);
    let compacted = backend.read_compacted_meta(TENANT, ended).await.unwrap();
    assert_eq!(*compacted.meta, meta(TENANT, ended));
    assert!(compacted.compacted_time >= before);
    assert_eq!(
        listing.compacted,
        [(ended, compacted.compacted_time)],
        "listing and reading give one time"
    );
    assert!(
        backend
            .read_meta(TENANT, ended)
            .await
            .unwrap_err()
            .is_not_found()
    );

    for id in [live, ended] {
        backend.delete_block(TENANT, id).await.unwrap();
        assert!(!backend.exists(&ObjectKey::data(TENANT, id)).await.unwrap());
    }
    let listing = backend.list_blocks(TENANT).await.unwrap();
    assert!(listing.live.is_empty() && listing.compacted.is_empty());
    let other = backend.list_blocks("other").await.unwrap();
    assert_eq!(other.live, [Uuid::nil()]);
    backend.delete_block("other", Uuid::nil()).await.unwrap();
}

/// More objects than one page of a listing holds.
async fn many_blocks(backend: &Backend) {
    let mut ids: Vec<Uuid> = (0..400_u128)
        .map(|number| Uuid::from_u128(number.wrapping_mul(u128::MAX / 400)))
        .collect();
    stream::iter(ids.iter().copied())
        .map(|id| put_block(backend, "many", id))
        .buffer_unordered(16)
        .try_collect::<Vec<()>>()
        .await
        .unwrap();
    ids.sort_unstable();
    assert_eq!(backend.list_blocks("many").await.unwrap().live, ids);
}

async fn index(backend: &Backend) {
    let index = TenantIndex {
        created_at: Timestamp::from_unix_seconds(1_700_000_000),
        live: vec![Arc::new(meta(TENANT, Uuid::from_u128(1)))],
        compacted: vec![],
    };
    assert!(
        backend
            .read_tenant_index(TENANT)
            .await
            .unwrap_err()
            .is_not_found()
    );
    let index = Arc::new(index);
    backend
        .write_tenant_index(TENANT, Arc::clone(&index))
        .await
        .unwrap();
    assert_eq!(backend.read_tenant_index(TENANT).await.unwrap(), *index);
    backend.delete_tenant_index(TENANT).await.unwrap();
    assert!(
        backend
            .read_tenant_index(TENANT)
            .await
            .unwrap_err()
            .is_not_found()
    );
}

fn requests_are_measured(registry: &Registry) {
    let families = registry.gather();
    let durations = families
        .iter()
        .find(|family| family.name() == "tempodb_backend_request_duration_seconds")
        .expect("the metric exists");
    let count = |operation: &str, status: &str| -> u64 {
        let found = durations.get_metric().iter().find(|metric| {
            let label = |name: &str| {
                let labels = metric.get_label().iter();
                labels
                    .clone()
                    .find(|label| label.name() == name)
                    .map(|label| label.value())
            };
            label("operation") == Some(operation) && label("status_code") == Some(status)
        });
        found.map_or(0, |metric| metric.get_histogram().get_sample_count())
    };
    assert!(count("GET", "200") > 0);
    assert!(count("GET", "206") > 0);
    assert!(count("PUT", "200") + count("PUT", "201") > 0);
    assert!(count("HEAD", "404") + count("GET", "404") > 0);
}
