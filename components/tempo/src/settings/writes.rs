//! Receiving and keeping.

use std::path::PathBuf;

use tempo_config::{
    Config,
    blocks::{
        distributor::LogSpans,
        receivers::{self, ReceiverTls},
    },
};
use tempo_distributor::{
    GrpcReceiver, HttpReceiver, ReceivedSpansMetric, Receivers, SpanLog, Tags, UdpReceiver,
    ZipkinReceiver,
};
use tempo_runtime::tls::{ClientAuth, Tls, TlsVersion};

use super::{UnusableSetting, block, not_zero, queries::asked_of_live_stores};

pub(crate) fn distributor(config: &Config) -> Result<tempo_distributor::Config, UnusableSetting> {
    let distributor = &config.distributor;
    let defaults = tempo_distributor::Config::default();
    Ok(tempo_distributor::Config {
        receivers: receivers(config)?,
        multitenancy_enabled: config.multitenancy(),
        retry_after_on_resource_exhausted: distributor.retry_after_on_resource_exhausted.0,
        max_attribute_bytes: distributor.max_attribute_bytes as usize,
        artificial_delay: distributor.artificial_delay.0,
        log_received_spans: span_log(&distributor.log_received_spans),
        log_discarded_spans: span_log(&distributor.log_discarded_spans),
        metric_received_spans: ReceivedSpansMetric {
            enabled: distributor.metric_received_spans.enabled,
            root_only: distributor.metric_received_spans.root_only,
        },
        shutdown_grace: config.server.graceful_shutdown_timeout.0,
        ..defaults
    })
}

fn span_log(log: &LogSpans) -> SpanLog {
    SpanLog {
        enabled: log.enabled,
        include_all_attributes: log.include_all_attributes,
        filter_by_status_error: log.filter_by_status_error,
    }
}

fn receivers(config: &Config) -> Result<Receivers, UnusableSetting> {
    let effective = config.distributor.receivers.effective();
    let otlp = effective.otlp.0.unwrap_or_default().protocols;
    let jaeger = effective.jaeger.0.unwrap_or_default().protocols;
    Ok(Receivers {
        otlp_grpc: otlp.grpc.0.as_ref().map(otlp_grpc).transpose()?,
        otlp_http: otlp.http.0.as_ref().map(otlp_http).transpose()?,
        jaeger_grpc: jaeger.grpc.0.as_ref().map(jaeger_grpc).transpose()?,
        jaeger_thrift_http: jaeger
            .thrift_http
            .0
            .as_ref()
            .map(jaeger_thrift_http)
            .transpose()?,
        jaeger_thrift_binary: jaeger
            .thrift_binary
            .0
            .as_ref()
            .map(|udp| jaeger_udp(udp, "localhost:6832")),
        jaeger_thrift_compact: jaeger
            .thrift_compact
            .0
            .as_ref()
            .map(|udp| jaeger_udp(udp, "localhost:6831")),
        zipkin: effective.zipkin.0.as_ref().map(zipkin).transpose()?,
    })
}

/// The configured endpoint, or the protocol's own where there is none.
fn endpoint(configured: &str, own: &str) -> String {
    match configured {
        "" => own.to_owned(),
        configured => configured.to_owned(),
    }
}

/// The configured size, or the usual one where it is 0.
fn size(configured: u64, usual: usize) -> usize {
    match configured {
        0 => usual,
        bytes => bytes as usize,
    }
}

fn otlp_grpc(grpc: &receivers::OtlpGrpc) -> Result<GrpcReceiver, UnusableSetting> {
    let defaults = GrpcReceiver::default();
    let lifetime = grpc
        .keepalive
        .as_ref()
        .and_then(|keepalive| keepalive.server_parameters.as_ref());
    Ok(GrpcReceiver {
        endpoint: grpc.endpoint.clone(),
        max_message_bytes: size(
            u64::from(grpc.max_recv_msg_size_mib) << 20,
            defaults.max_message_bytes,
        ),
        max_concurrent_streams: match grpc.max_concurrent_streams {
            0 => defaults.max_concurrent_streams,
            streams => streams,
        },
        tls: tls(
            grpc.tls.as_ref(),
            "distributor.receivers.otlp.protocols.grpc.tls",
        )?,
        max_connection_age: lifetime.and_then(|lifetime| not_zero(lifetime.max_connection_age.0)),
        max_connection_age_grace: lifetime
            .and_then(|lifetime| not_zero(lifetime.max_connection_age_grace.0)),
        ..defaults
    })
}

fn otlp_http(http: &receivers::OtlpHttp) -> Result<HttpReceiver, UnusableSetting> {
    let defaults = HttpReceiver::default();
    Ok(HttpReceiver {
        endpoint: http.endpoint.clone(),
        traces_url_path: http.traces_url_path.clone(),
        max_request_body_bytes: size(
            http.max_request_body_size.0,
            defaults.max_request_body_bytes,
        ),
        tls: tls(
            http.tls.as_ref(),
            "distributor.receivers.otlp.protocols.http.tls",
        )?,
        max_connection_age: not_zero(http.max_connection_age.0),
        ..defaults
    })
}

fn jaeger_grpc(grpc: &receivers::JaegerTcp) -> Result<GrpcReceiver, UnusableSetting> {
    let defaults = GrpcReceiver::default();
    Ok(GrpcReceiver {
        endpoint: endpoint(&grpc.endpoint, "localhost:14250"),
        max_message_bytes: size(
            u64::from(grpc.max_recv_msg_size_mib) << 20,
            defaults.max_message_bytes,
        ),
        max_concurrent_streams: match grpc.max_concurrent_streams {
            0 => defaults.max_concurrent_streams,
            streams => streams,
        },
        tls: tls(
            grpc.tls.as_ref(),
            "distributor.receivers.jaeger.protocols.grpc.tls",
        )?,
        ..defaults
    })
}

fn jaeger_thrift_http(http: &receivers::JaegerTcp) -> Result<HttpReceiver, UnusableSetting> {
    let defaults = HttpReceiver::default();
    Ok(HttpReceiver {
        endpoint: endpoint(&http.endpoint, "localhost:14268"),
        max_request_body_bytes: size(
            http.max_request_body_size.0,
            defaults.max_request_body_bytes,
        ),
        tls: tls(
            http.tls.as_ref(),
            "distributor.receivers.jaeger.protocols.thrift_http.tls",
        )?,
        ..defaults
    })
}

fn jaeger_udp(udp: &receivers::JaegerUdp, own_endpoint: &str) -> UdpReceiver {
    UdpReceiver {
        endpoint: endpoint(&udp.endpoint, own_endpoint),
        max_waiting_packets: udp.queue_size.max(1) as usize,
        max_packet_bytes: udp.max_packet_size as usize,
        workers: udp.workers.max(1) as usize,
    }
}

fn zipkin(zipkin: &receivers::Zipkin) -> Result<ZipkinReceiver, UnusableSetting> {
    let defaults = HttpReceiver::default();
    Ok(ZipkinReceiver {
        http: HttpReceiver {
            endpoint: zipkin.endpoint.clone(),
            max_request_body_bytes: size(
                zipkin.max_request_body_size.0,
                defaults.max_request_body_bytes,
            ),
            tls: tls(zipkin.tls.as_ref(), "distributor.receivers.zipkin.tls")?,
            ..defaults
        },
        tags: if zipkin.parse_string_tags {
            Tags::Parsed
        } else {
            Tags::Text
        },
    })
}

fn tls(
    configured: Option<&ReceiverTls>,
    key: &'static str,
) -> Result<Option<Tls>, UnusableSetting> {
    let Some(tls) = configured else {
        return Ok(None);
    };
    if tls.cert_file.is_empty() || tls.key_file.is_empty() {
        return Err(UnusableSetting::new(
            key,
            "cert_file and key_file are both needed",
        ));
    }
    let min_version = match tls.min_version.as_str() {
        "" | "1.2" => TlsVersion::V1_2,
        "1.3" => TlsVersion::V1_3,
        other => {
            return Err(UnusableSetting::new(
                key,
                format!("min_version {other:?} is not supported; use \"1.2\" or \"1.3\""),
            ));
        }
    };
    Ok(Some(Tls {
        cert_file: PathBuf::from(&tls.cert_file),
        key_file: PathBuf::from(&tls.key_file),
        client_auth: if tls.client_ca_file.is_empty() {
            ClientAuth::None
        } else {
            ClientAuth::Required(PathBuf::from(&tls.client_ca_file))
        },
        min_version,
    }))
}

pub(super) fn live_store(config: &Config) -> Result<tempo_live_store::Config, UnusableSetting> {
    let live_store = &config.live_store;
    Ok(tempo_live_store::Config {
        data_path: PathBuf::from(&live_store.wal.path),
        flush_check_period: live_store.flush_check_period.0,
        max_trace_idle: live_store.max_trace_idle.0,
        max_trace_live: live_store.max_trace_live.0,
        max_live_traces_bytes: live_store.max_live_traces_bytes.0,
        max_block_duration: live_store.max_block_duration.0,
        max_block_bytes: live_store.max_block_bytes.0,
        complete_block_timeout: live_store.complete_block_timeout.0,
        min_flushed_block_age: asked_of_live_stores(config)
            + config.storage.trace.blocklist_poll.0 * 2,
        complete_block_concurrency: live_store.complete_block_concurrency as usize,
        ingestion_time_range_slack: live_store.wal.ingestion_time_range_slack.0,
        block: block(config)?,
        ..tempo_live_store::Config::default()
    })
}
