//! The Kafka log, and building blocks from it.

use std::{path::PathBuf, time::Duration};

use tempo_block_builder::{Assignment, BlockSettings, MAX_RUNS, section_limit_bytes};
use tempo_config::{Config, blocks::clients::ClientTls, blocks::ingest::Kafka};
use tempo_ingest::{
    Compression, Credentials, KafkaConfig, MAX_RECORD_BYTES, MIN_RECORD_BYTES, Sasl, Tls,
    TokenSource,
};

use super::{UnusableSetting, block, host_name};

/// The settings of every Kafka client.
pub(crate) fn kafka(config: &Config) -> Result<KafkaConfig, UnusableSetting> {
    let kafka = &config.ingest.kafka;
    if kafka.topic.is_empty() {
        return Err(UnusableSetting::new(
            "ingest.kafka.topic",
            "the Kafka topic has not been configured",
        ));
    }
    if kafka.address.is_empty() {
        return Err(UnusableSetting::new(
            "ingest.kafka.address",
            "not set: name host and port of a broker",
        ));
    }
    let max_record_bytes = usize::try_from(kafka.producer_max_record_size_bytes.0)
        .ok()
        .filter(|bytes| (MIN_RECORD_BYTES..=MAX_RECORD_BYTES).contains(bytes))
        .ok_or_else(|| {
            UnusableSetting::new(
                "ingest.kafka.producer_max_record_size_bytes",
                format!("must be between {MIN_RECORD_BYTES} and {MAX_RECORD_BYTES}"),
            )
        })?;
    Ok(KafkaConfig {
        address: kafka.address.clone(),
        topic: kafka.topic.clone(),
        client_id: kafka.client_id.clone(),
        client_rack: kafka.client_rack.clone(),
        dial_timeout: kafka.dial_timeout.0,
        write_timeout: kafka.write_timeout.0,
        sasl: sasl(kafka)?,
        tls: kafka.tls_enabled.then(|| tls(&kafka.tls)).transpose()?,
        offset_timeout: kafka.last_produced_offset_retry_timeout.0,
        auto_create_partitions: kafka
            .auto_create_topic_enabled
            .then_some(kafka.auto_create_topic_default_partitions),
        max_record_bytes,
        max_buffered_bytes: kafka.producer_max_buffered_bytes.0,
        compression: compression(&kafka.producer_compression)?,
        lag_update_interval: kafka.consumer_group_lag_metric_update_interval.0,
        telemetry: !kafka.disable_kafka_telemetry,
    })
}

fn compression(name: &str) -> Result<Compression, UnusableSetting> {
    Ok(match name.trim().to_ascii_lowercase().as_str() {
        "none" => Compression::None,
        "gzip" => Compression::Gzip,
        "" | "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        other => {
            return Err(UnusableSetting::new(
                "ingest.kafka.producer_compression",
                format!("{other}: use none, gzip, snappy, lz4 or zstd"),
            ));
        }
    })
}

fn sasl(kafka: &Kafka) -> Result<Sasl, UnusableSetting> {
    let (username, password) = (&kafka.sasl_username, kafka.sasl_password.reveal());
    let credentials = || {
        if username.is_empty() || password.is_empty() {
            return Err(UnusableSetting::new(
                "ingest.kafka.sasl_username",
                "user name and password must both be set",
            ));
        }
        Ok(Credentials {
            username: username.clone(),
            password: password.to_owned(),
        })
    };
    Ok(match kafka.sasl_mechanism.as_str() {
        "PLAIN" | "" if username.is_empty() && password.is_empty() => Sasl::Off,
        "PLAIN" | "" => Sasl::Plain(credentials()?),
        "SCRAM-SHA-256" => Sasl::ScramSha256(credentials()?),
        "SCRAM-SHA-512" => Sasl::ScramSha512(credentials()?),
        "OAUTHBEARER" => Sasl::OAuthBearer(token_source(kafka)?),
        "AWS_MSK_IAM" => {
            return Err(UnusableSetting::new(
                "ingest.kafka.sasl_mechanism",
                "AWS_MSK_IAM is not part of this version; brokers of MSK also take SCRAM-SHA-512",
            ));
        }
        other => {
            return Err(UnusableSetting::new(
                "ingest.kafka.sasl_mechanism",
                format!("{other}: use PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"),
            ));
        }
    })
}

fn token_source(kafka: &Kafka) -> Result<TokenSource, UnusableSetting> {
    if !kafka.sasl_oauthbearer_zid.is_empty() || !kafka.sasl_oauthbearer_extensions.is_empty() {
        return Err(UnusableSetting::new(
            "ingest.kafka.sasl_oauthbearer_zid",
            "authorization id and extensions are not part of this version; leave them empty",
        ));
    }
    let token = kafka.sasl_oauthbearer_token.reveal();
    let file = &kafka.sasl_oauthbearer_file_path;
    let socket = &kafka.sasl_oauthbearer_http_socket_path;
    match (token.is_empty(), file.is_empty(), socket.is_empty()) {
        (false, true, true) => Ok(TokenSource::Static {
            token: token.to_owned(),
        }),
        (true, false, true) => Ok(TokenSource::File(PathBuf::from(file))),
        (true, true, false) => Ok(TokenSource::Socket {
            path: PathBuf::from(socket),
            timeout: kafka.sasl_oauthbearer_http_socket_timeout.0,
        }),
        _ => Err(UnusableSetting::new(
            "ingest.kafka.sasl_oauthbearer_token",
            "set exactly one of the token, its file and its socket",
        )),
    }
}

fn tls(tls: &ClientTls) -> Result<Tls, UnusableSetting> {
    let path = |text: &String| (!text.is_empty()).then(|| PathBuf::from(text));
    if !tls.tls_server_name.is_empty() {
        return Err(UnusableSetting::new(
            "ingest.kafka.tls_server_name",
            "certificates of brokers are checked against their addresses; leave it empty",
        ));
    }
    if tls.tls_min_version == "VersionTLS13" {
        return Err(UnusableSetting::new(
            "ingest.kafka.tls_min_version",
            "cannot be raised above VersionTLS12 for Kafka; leave it empty",
        ));
    }
    let certificate = match (path(&tls.tls_cert_path), path(&tls.tls_key_path)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            return Err(UnusableSetting::new(
                "ingest.kafka.tls_cert_path",
                "certificate and key must both be set",
            ));
        }
    };
    Ok(Tls {
        ca_path: path(&tls.tls_ca_path),
        certificate,
        cipher_suites: tls.tls_cipher_suites.replace(',', ":"),
        insecure_skip_verify: tls.tls_insecure_skip_verify,
    })
}

/// The block-builder.
pub(crate) fn block_builder(
    config: &Config,
) -> Result<tempo_block_builder::Config, UnusableSetting> {
    let builder = &config.block_builder;
    let instance_id = match builder.instance_id.as_str() {
        "" => host_name(),
        name => name.to_owned(),
    };
    let assignment = Assignment::new(
        &builder.assigned_partitions,
        builder.partitions_per_instance,
        &instance_id,
    )
    .map_err(|error| {
        UnusableSetting::new("block_builder.partitions_per_instance", error.to_string())
    })?;
    if builder.consume_cycle_duration.0 < Duration::from_millis(100) {
        return Err(UnusableSetting::new(
            "block_builder.consume_cycle_duration",
            "must be at least 100ms",
        ));
    }
    let max_buffered_bytes = builder.max_buffered_bytes.0;
    let section_bytes = section_limit_bytes(builder.max_consuming_bytes.0);
    if max_buffered_bytes == 0 || section_bytes / max_buffered_bytes > MAX_RUNS {
        return Err(UnusableSetting::new(
            "block_builder.max_buffered_bytes",
            format!(
                "must be at least {}, for a round of block_builder.max_consuming_bytes to be sorted in {MAX_RUNS} pieces",
                section_bytes.div_ceil(MAX_RUNS)
            ),
        ));
    }
    let block = block(config)?;
    Ok(tempo_block_builder::Config {
        consume_cycle_duration: builder.consume_cycle_duration.0,
        max_consuming_bytes: builder.max_consuming_bytes.0,
        ingestion_time_range_slack: builder.wal.ingestion_time_range_slack.0,
        block: BlockSettings {
            version: block.version,
            row_group_size_bytes: block.row_group_size_bytes,
            bloom_false_positive: block.bloom_false_positive,
            bloom_shard_size_bytes: block.bloom_shard_size_bytes,
        },
        spill_path: PathBuf::from(&builder.wal.path),
        buffer_bytes: max_buffered_bytes,
        ..tempo_block_builder::Config::new(kafka(config)?, assignment)
    })
}
