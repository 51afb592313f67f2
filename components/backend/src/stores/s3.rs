//! Amazon S3 and what speaks its protocol.

use base64::{Engine, engine::general_purpose::STANDARD};
use object_store::{
    Attribute, Attributes, Certificate, ClientOptions, TagSet,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
};

use super::{
    Environment, Hints, MAX_PARTS, PARTS_IN_FLIGHT, Remote, client_options, connector, credentials,
    describe, not_built, part_bytes, required, retry_config,
};
use crate::{
    Backend, BackendConfig, BucketLookup, Error, S3Config, S3Encryption, TlsConfig,
    backend::{StoreKind, WriteSettings},
    metrics::RequestMetrics,
};

/// Variables that name the machine's identity, handed to the library as they are.
const IDENTITY_VARIABLES: [&str; 7] = [
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_ENDPOINT_URL_STS",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];

/// Bytes of a customer's encryption key.
const CUSTOMER_KEY_BYTES: usize = 32;

pub(super) async fn open(
    config: &BackendConfig,
    s3: &S3Config,
    metrics: RequestMetrics,
    environment: Environment<'_>,
) -> Result<Backend, Error> {
    let section = config.section.as_str();
    let bucket = required(section, "s3.bucket", &s3.bucket)?;
    let endpoint = Endpoint::of(s3);
    let options = with_tls(client_options(), &s3.tls, section)?;
    let region = match endpoint.region(s3, environment) {
        Some(region) => region,
        None if endpoint.amazon => discover_region(bucket, &options).await,
        None => DEFAULT_REGION.to_owned(),
    };
    let options = options.with_allow_http(endpoint.url.as_deref().is_some_and(is_plain));
    let connector = connector(metrics, s3.hedge);
    let last_status = connector.last_status.clone();
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(&region)
        .with_client_options(options)
        .with_retry(retry_config(&s3.retry))
        .with_http_connector(connector)
        // Single deletions work with every server and need no further permission.
        .with_disable_bulk_delete(true);
    let in_host = endpoint.bucket_in_host(s3);
    builder = builder.with_virtual_hosted_style_request(in_host);
    if let Some(url) = endpoint.resolve(s3, bucket, &region, in_host) {
        builder = builder.with_endpoint(url);
    }
    builder = with_credentials(builder, s3, environment, section)?;
    builder = with_encryption(builder, &s3.encryption, section)?;
    let store = builder
        .build()
        .map_err(|error| not_built(section, "s3", &error))?;
    let remote = Remote {
        store,
        kind: StoreKind::S3,
        prefix: s3.prefix.clone(),
        writes: write_settings(s3),
        list_blocks_concurrency: s3.list_blocks_concurrency,
        last_status,
    };
    let hints = Hints {
        endpoint: "s3.endpoint",
        bucket: "s3.bucket",
        credentials: "s3.access_key",
        tls: "s3.insecure and s3.tls_ca_path",
    };
    remote.check(config, hints).await
}

const DEFAULT_REGION: &str = "us-east-1";

/// The configured endpoint, read.
struct Endpoint {
    /// Scheme, host and port; none: Amazon's of the region.
    url: Option<String>,
    /// Whether it is Amazon's.
    amazon: bool,
}

impl Endpoint {
    fn of(s3: &S3Config) -> Self {
        if s3.endpoint.is_empty() {
            return Self {
                url: None,
                amazon: true,
            };
        }
        let given = s3.endpoint.trim_end_matches('/');
        let url = if given.contains("://") {
            given.to_owned()
        } else if s3.insecure {
            format!("http://{given}")
        } else {
            format!("https://{given}")
        };
        let amazon = host(&url).ends_with(".amazonaws.com");
        Self {
            url: Some(url),
            amazon,
        }
    }

    /// The region that settings, environment or Amazon's host name give.
    fn region(&self, s3: &S3Config, environment: Environment<'_>) -> Option<String> {
        if !s3.region.is_empty() {
            return Some(s3.region.clone());
        }
        let from_environment = ["AWS_REGION", "AWS_DEFAULT_REGION"]
            .iter()
            .find_map(|name| environment(name))
            .filter(|region| !region.is_empty());
        from_environment.or_else(|| {
            let host = host(self.url.as_deref()?);
            let name = host.strip_suffix(".amazonaws.com")?.strip_prefix("s3")?;
            let name = name.trim_start_matches(['.', '-']);
            let region = name.strip_prefix("dualstack.").unwrap_or(name);
            (!region.is_empty()).then(|| region.to_owned())
        })
    }

    fn bucket_in_host(&self, s3: &S3Config) -> bool {
        match s3.bucket_lookup {
            BucketLookup::Dns => true,
            BucketLookup::Path => false,
            // A certificate for *.s3.amazonaws.com does not cover names with dots.
            BucketLookup::Auto => {
                let google = self
                    .url
                    .as_deref()
                    .is_some_and(|url| host(url) == "storage.googleapis.com");
                (self.amazon || google) && !s3.bucket.contains('.')
            }
        }
    }

    /// The URL in the form that the library wants: with the bucket when it is in the host; none
    /// for the library's own idea of Amazon's.
    fn resolve(&self, s3: &S3Config, bucket: &str, region: &str, in_host: bool) -> Option<String> {
        let url = match &self.url {
            _ if self.amazon && s3.dual_stack => {
                format!("https://s3.dualstack.{region}.amazonaws.com")
            }
            // The global host redirects to the region's; go there at once.
            Some(url) if host(url) == "s3.amazonaws.com" => return None,
            Some(url) => url.clone(),
            None => return None,
        };
        if !in_host {
            return Some(url);
        }
        let (scheme, rest) = url.split_once("://").unwrap_or(("https", &url));
        Some(format!("{scheme}://{bucket}.{rest}"))
    }
}

fn is_plain(url: &str) -> bool {
    url.starts_with("http://")
}

fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host)
}

/// Asks Amazon where the bucket is.
async fn discover_region(bucket: &str, options: &ClientOptions) -> String {
    match object_store::aws::resolve_bucket_region(bucket, options).await {
        Ok(region) => region,
        Err(error) => {
            tracing::warn!(
                bucket,
                error = describe(&error),
                "region of the bucket not found, taking {DEFAULT_REGION}"
            );
            DEFAULT_REGION.to_owned()
        }
    }
}

fn with_tls(
    mut options: ClientOptions,
    tls: &TlsConfig,
    section: &str,
) -> Result<ClientOptions, Error> {
    if let Some(path) = &tls.ca_path {
        let unusable = |problem: String| {
            Error::config(
                format!("{section}.s3.tls_ca_path"),
                format!("'{}': {problem}", path.display()),
            )
        };
        let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
        let authorities =
            Certificate::from_pem_bundle(&pem).map_err(|error| unusable(describe(&error)))?;
        if authorities.is_empty() {
            return Err(unusable("it holds no certificate".to_owned()));
        }
        for authority in authorities {
            options = options.with_root_certificate(authority);
        }
    }
    Ok(options.with_allow_invalid_certificates(tls.insecure_skip_verify))
}

fn with_credentials(
    mut builder: AmazonS3Builder,
    s3: &S3Config,
    environment: Environment<'_>,
    section: &str,
) -> Result<AmazonS3Builder, Error> {
    let configured = (s3.access_key.is_empty(), s3.secret_key.is_empty());
    let token = match configured {
        (false, false) => {
            builder = builder
                .with_access_key_id(&s3.access_key)
                .with_secret_access_key(s3.secret_key.expose());
            s3.session_token.clone()
        }
        (true, true) => match credentials::find(environment)? {
            Some(found) => {
                builder = builder
                    .with_access_key_id(found.access_key)
                    .with_secret_access_key(found.secret_key.expose());
                found.session_token
            }
            None => return Ok(with_identity(builder, environment)),
        },
        (true, false) => {
            return Err(Error::config(
                format!("{section}.s3.access_key"),
                "secret_key is set without it; set both or neither",
            ));
        }
        (false, true) => {
            return Err(Error::config(
                format!("{section}.s3.secret_key"),
                "access_key is set without it; set both or neither",
            ));
        }
    };
    if !token.is_empty() {
        builder = builder.with_token(token.expose());
    }
    Ok(builder)
}

fn with_identity(mut builder: AmazonS3Builder, environment: Environment<'_>) -> AmazonS3Builder {
    for name in IDENTITY_VARIABLES {
        let key: Result<AmazonS3ConfigKey, _> = name.to_ascii_lowercase().parse();
        if let (Ok(key), Some(value)) = (key, environment(name)) {
            builder = builder.with_config(key, value);
        }
    }
    // Clusters with old metadata proxies speak only the first version.
    builder.with_imdsv1_fallback()
}

fn with_encryption(
    builder: AmazonS3Builder,
    encryption: &S3Encryption,
    section: &str,
) -> Result<AmazonS3Builder, Error> {
    Ok(match encryption {
        S3Encryption::BucketDefault => builder,
        S3Encryption::S3 => {
            let key: AmazonS3ConfigKey = "aws_server_side_encryption"
                .parse()
                .map_err(|error| not_built(section, "s3.sse.type", &error))?;
            builder.with_config(key, "AES256")
        }
        S3Encryption::Kms { key_id, .. } => {
            required(section, "s3.sse.kms_key_id", key_id)?;
            builder.with_sse_kms_encryption(key_id)
        }
        S3Encryption::Customer { key } => {
            if key.expose().len() != CUSTOMER_KEY_BYTES {
                return Err(Error::config(
                    format!("{section}.s3.sse.encryption_key"),
                    format!(
                        "it has {} bytes, SSE-C takes {CUSTOMER_KEY_BYTES}",
                        key.expose().len()
                    ),
                ));
            }
            builder.with_ssec_encryption(STANDARD.encode(key.expose()))
        }
    })
}

fn write_settings(s3: &S3Config) -> WriteSettings {
    let mut attributes = Attributes::new();
    if !s3.storage_class.is_empty() {
        attributes.insert(Attribute::StorageClass, s3.storage_class.clone().into());
    }
    for (key, value) in &s3.metadata {
        attributes.insert(
            Attribute::Metadata(key.clone().into()),
            value.clone().into(),
        );
    }
    let mut tags = TagSet::default();
    for (key, value) in &s3.tags {
        tags.push(key, value);
    }
    WriteSettings {
        attributes,
        tags,
        part_bytes: part_bytes(s3.part_size_bytes),
        parts_in_flight: PARTS_IN_FLIGHT,
        max_parts: MAX_PARTS,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    fn no_environment(_: &str) -> Option<String> {
        None
    }

    #[track_caller]
    fn check(s3: S3Config, region: Option<&str>, url: Option<&str>) {
        let endpoint = Endpoint::of(&s3);
        let found = endpoint.region(&s3, &no_environment);
        assert_eq!(found.as_deref(), region);
        let in_host = endpoint.bucket_in_host(&s3);
        let region = found.unwrap_or_else(|| DEFAULT_REGION.to_owned());
        let resolved = endpoint.resolve(&s3, &s3.bucket, &region, in_host);
        assert_eq!(resolved.as_deref(), url);
    }

    fn s3(endpoint: &str) -> S3Config {
        S3Config {
            bucket: "b".to_owned(),
            endpoint: endpoint.to_owned(),
            ..S3Config::default()
        }
    }

    #[test]
    fn endpoints_become_what_the_library_wants() {
        check(s3(""), None, None);
        check(s3("s3.amazonaws.com"), None, None);
        check(
            s3("s3.eu-west-1.amazonaws.com"),
            Some("eu-west-1"),
            Some("https://b.s3.eu-west-1.amazonaws.com"),
        );
        check(
            s3("s3.dualstack.us-east-2.amazonaws.com"),
            Some("us-east-2"),
            Some("https://b.s3.dualstack.us-east-2.amazonaws.com"),
        );
        check(s3("minio:9000"), None, Some("https://minio:9000"));
        check(
            S3Config {
                insecure: true,
                bucket_lookup: BucketLookup::Dns,
                region: "r".to_owned(),
                ..s3("minio:9000/")
            },
            Some("r"),
            Some("http://b.minio:9000"),
        );
        check(
            S3Config {
                dual_stack: true,
                region: "eu-west-1".to_owned(),
                ..s3("")
            },
            Some("eu-west-1"),
            Some("https://b.s3.dualstack.eu-west-1.amazonaws.com"),
        );
        check(
            S3Config {
                bucket: "with.dots".to_owned(),
                ..s3("s3.eu-west-1.amazonaws.com")
            },
            Some("eu-west-1"),
            Some("https://s3.eu-west-1.amazonaws.com"),
        );
    }

    #[test]
    fn half_a_pair_of_keys_names_the_missing_half() {
        let half = S3Config {
            access_key: "a".to_owned(),
            ..s3("")
        };
        let error = with_credentials(
            AmazonS3Builder::new(),
            &half,
            &no_environment,
            "storage.trace",
        )
        .unwrap_err();
        assert!(error.to_string().contains("storage.trace.s3.secret_key"));
    }

    /// A server that answers the first `failures` requests with 503, and tells how many came.
    async fn moody_server(failures: usize) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                let empty_list = "<ListBucketResult></ListBucketResult>";
                let (status, body) = match counted.fetch_add(1, Ordering::SeqCst) {
                    earlier if earlier < failures => ("503 Slow Down", ""),
                    _ => ("200 OK", empty_list),
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (address, requests)
    }

    #[tokio::test]
    async fn failed_requests_are_tried_again_as_often_as_configured() {
        for (failures, max_attempts) in [(2, 3), (3, 3), (1, 1)] {
            let (address, requests) = moody_server(failures).await;
            let config = S3Config {
                insecure: true,
                access_key: "a".to_owned(),
                secret_key: crate::Secret::new("s"),
                retry: crate::RetryConfig {
                    max_attempts,
                    initial_backoff: Duration::from_millis(1),
                    max_backoff: Duration::from_millis(2),
                },
                ..s3(&address)
            };
            let backend = BackendConfig::new(crate::StoreConfig::S3(Box::new(config.clone())));
            let registry = prometheus::Registry::new();
            let metrics = RequestMetrics::register(&registry).unwrap();
            // A store in trouble is opened all the same: it may recover.
            let opened = open(&backend, &config, metrics.clone(), &no_environment).await;
            assert!(opened.is_ok(), "{failures} failures: {opened:?}");
            assert_eq!(requests.load(Ordering::SeqCst), max_attempts);
            let failed = metrics
                .duration_seconds
                .with_label_values(&["GET", "503"])
                .get_sample_count();
            assert_eq!(failed, failures as u64);
        }
    }
}
