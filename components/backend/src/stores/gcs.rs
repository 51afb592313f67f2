//! Google Cloud Storage.

use std::sync::Arc;

use object_store::{
    Attribute, Attributes, StaticCredentialProvider,
    gcp::{GcpCredential, GoogleCloudStorageBuilder},
};

use super::{
    Hints, MAX_PARTS, PARTS_IN_FLIGHT, Remote, client_options, connector, not_built, part_bytes,
    required, retry_config,
};
use crate::{
    Backend, BackendConfig, Error, GcsConfig, RetryConfig,
    backend::{StoreKind, WriteSettings},
    http::MeasuredConnector,
    metrics::RequestMetrics,
};

pub(super) async fn open(
    config: &BackendConfig,
    gcs: &GcsConfig,
    metrics: RequestMetrics,
) -> Result<Backend, Error> {
    let section = config.section.as_str();
    let bucket = required(section, "gcs.bucket_name", &gcs.bucket_name)?;
    let base_url = base_url(&gcs.endpoint);
    let plain = base_url
        .as_deref()
        .is_some_and(|url| url.starts_with("http://"));
    let retry = RetryConfig {
        max_attempts: gcs.max_retries.saturating_add(1),
        ..RetryConfig::default()
    };
    let connector = MeasuredConnector {
        anonymous: gcs.insecure,
        ..connector(metrics, gcs.hedge)
    };
    let last_status = connector.last_status.clone();
    // Takes the application's default credentials from where Google's tools put them.
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(
            client_options()
                .with_allow_http(plain)
                .with_allow_invalid_certificates(gcs.insecure),
        )
        .with_retry(retry_config(&retry))
        .with_http_connector(connector);
    if gcs.insecure {
        // Keeps the library from asking the machine for credentials.
        let none = GcpCredential {
            bearer: String::new(),
        };
        builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(none)));
    }
    if let Some(url) = &base_url {
        builder = builder.with_base_url(url);
    }
    let store = builder
        .build()
        .map_err(|error| not_built(section, "gcs", &error))?;
    let remote = Remote {
        store,
        kind: StoreKind::Gcs,
        prefix: gcs.prefix.clone(),
        writes: write_settings(gcs),
        list_blocks_concurrency: gcs.list_blocks_concurrency,
        last_status,
    };
    let hints = Hints {
        endpoint: "gcs.endpoint",
        bucket: "gcs.bucket_name",
        credentials: "gcs (GOOGLE_APPLICATION_CREDENTIALS or the machine's identity)",
        tls: "gcs.insecure and gcs.endpoint",
    };
    remote.check(config, hints).await
}

/// Tempo's endpoint is that of the JSON API; this library speaks the XML API, whose root is the
/// host.
fn base_url(endpoint: &str) -> Option<String> {
    let url = endpoint.trim_end_matches('/');
    if url.is_empty() {
        return None;
    }
    let root = url.strip_suffix("/storage/v1").unwrap_or(url);
    if root.contains("://") {
        Some(root.to_owned())
    } else {
        Some(format!("https://{root}"))
    }
}

fn write_settings(gcs: &GcsConfig) -> WriteSettings {
    let mut attributes = Attributes::new();
    if !gcs.object_cache_control.is_empty() {
        attributes.insert(
            Attribute::CacheControl,
            gcs.object_cache_control.clone().into(),
        );
    }
    for (key, value) in &gcs.object_metadata {
        attributes.insert(
            Attribute::Metadata(key.clone().into()),
            value.clone().into(),
        );
    }
    WriteSettings {
        attributes,
        part_bytes: part_bytes(gcs.chunk_buffer_size_bytes),
        parts_in_flight: PARTS_IN_FLIGHT,
        max_parts: MAX_PARTS,
        ..WriteSettings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_of_the_json_api_becomes_the_root() {
        assert_eq!(base_url(""), None);
        assert_eq!(
            base_url("http://localhost:4443/storage/v1/").as_deref(),
            Some("http://localhost:4443")
        );
        assert_eq!(
            base_url("gcs.example:4443").as_deref(),
            Some("https://gcs.example:4443")
        );
    }
}
