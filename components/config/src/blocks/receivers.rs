//! `distributor.receivers`: the collector's map of receivers.

use std::collections::BTreeMap;

use crate::block::block;
use crate::units::{Anything, ByteSize, Enabled, GoDuration, Secret};

block! {
    /// TLS of a receiver.
    pub struct ReceiverTls {
        /// File of the certificate (PEM).
        used cert_file: String = "",
        /// Certificate (PEM) in place.
        later cert_pem: String = "",
        /// File of the key (PEM).
        used key_file: String = "",
        /// Key (PEM) in place.
        later key_pem: Secret = Secret::default(),
        /// File of the certificates to trust (PEM).
        later ca_file: String = "",
        /// Certificates to trust (PEM) in place.
        later ca_pem: String = "",
        /// File of the certificates to trust for clients (PEM); set, clients must show one.
        used client_ca_file: String = "",
        /// Read the certificates for clients again when the file changes.
        later client_ca_file_reload: bool = false,
        /// Oldest version: 1.2 or 1.3.
        used min_version: String = "",
        /// Newest version.
        later max_version: String = "",
        /// Time after which certificates are read again.
        later reload_interval: GoDuration = GoDuration::ZERO,
        /// Cipher suites.
        ignored cipher_suites: Vec<String> = [""; 0],
        /// Key exchanges.
        ignored curve_preferences: Vec<String> = [""; 0],
        /// Trust the system's certificates, too.
        later include_system_ca_certs_pool: bool = false,
    }
}

block! {
    /// How long connections live.
    pub struct KeepaliveServerParameters {
        /// Time that an idle connection stays open; 0 means for ever.
        later max_connection_idle: GoDuration = GoDuration::ZERO,
        /// Time that a connection stays open; 0 means for ever.
        used max_connection_age: GoDuration = GoDuration::ZERO,
        /// Time to finish requests when a connection gets too old; 0 means as long as they take.
        used max_connection_age_grace: GoDuration = GoDuration::ZERO,
        /// Silence after which the client is asked whether it is alive.
        later time: GoDuration = GoDuration::ZERO,
        /// Time for its answer.
        later timeout: GoDuration = GoDuration::ZERO,
    }
}

block! {
    /// How often clients may ask whether the server is alive.
    pub struct KeepaliveEnforcementPolicy {
        /// Shortest time between pings of a client.
        later min_time: GoDuration = GoDuration::ZERO,
        /// Let clients ping without a request under way.
        later permit_without_stream: bool = false,
    }
}

block! {
    /// Keeping connections alive, and letting them go.
    pub struct Keepalive {
        /// How long connections live.
        used server_parameters: Option<KeepaliveServerParameters> = None,
        /// How often clients may ask whether the server is alive.
        used enforcement_policy: Option<KeepaliveEnforcementPolicy> = None,
    }
}

block! {
    /// OTLP over gRPC.
    pub struct OtlpGrpc {
        /// Address and port.
        used endpoint: String = "localhost:4317",
        /// Kind of network.
        later transport: String = "tcp",
        /// TLS.
        used tls: Option<ReceiverTls> = None,
        /// Largest message in MiB; 0 means 4.
        used max_recv_msg_size_mib: u32 = 0u32,
        /// Streams at once in a connection; 0 means 100.
        used max_concurrent_streams: u32 = 0u32,
        /// Read buffer of a connection.
        ignored read_buffer_size: ByteSize = ByteSize(524_288),
        /// Write buffer of a connection.
        ignored write_buffer_size: ByteSize = ByteSize(0),
        /// Keeping connections alive, and letting them go.
        used keepalive: Option<Keepalive> = None,
        /// Authentication by a collector extension.
        ignored auth: Anything = Anything::default(),
        /// Pass headers on; they always are.
        ignored include_metadata: bool = false,
        /// Middlewares of the collector.
        ignored middlewares: Anything = Anything::default(),
    }
}

block! {
    /// Requests of browsers from other sites.
    pub struct Cors {
        /// Sites that may send.
        later allowed_origins: Vec<String> = [""; 0],
        /// Headers that they may set.
        later allowed_headers: Vec<String> = [""; 0],
        /// Headers that they may read.
        later exposed_headers: Vec<String> = [""; 0],
        /// Seconds that the browser may remember this.
        later max_age: i64 = 0,
    }
}

block! {
    /// OTLP over HTTP.
    pub struct OtlpHttp {
        /// Address and port.
        used endpoint: String = "localhost:4318",
        /// Kind of network.
        later transport: String = "tcp",
        /// TLS.
        used tls: Option<ReceiverTls> = None,
        /// Requests of browsers from other sites.
        used cors: Option<Cors> = None,
        /// Authentication by a collector extension.
        ignored auth: Anything = Anything::default(),
        /// Largest body, compressed or not; 0 means 20 MiB.
        used max_request_body_size: ByteSize = ByteSize(0),
        /// Pass headers on; they always are.
        ignored include_metadata: bool = false,
        /// Headers of every answer.
        later response_headers: BTreeMap<String, String> = BTreeMap::new(),
        /// Compressions to accept; empty means all.
        later compression_algorithms: Vec<String> = [""; 0],
        /// Longest time to read the head of a request.
        later read_header_timeout: GoDuration = GoDuration::minutes(1),
        /// Longest time to read a request.
        later read_timeout: GoDuration = GoDuration::ZERO,
        /// Longest time to write an answer.
        later write_timeout: GoDuration = GoDuration::seconds(30),
        /// Time that an idle connection stays open.
        later idle_timeout: GoDuration = GoDuration::minutes(1),
        /// Keep connections open.
        later keep_alives_enabled: bool = true,
        /// Time that a connection stays open; 0 means for ever. Tempo has no such key.
        used max_connection_age: GoDuration = GoDuration::ZERO,
        /// Path of traces.
        used traces_url_path: String = "/v1/traces",
        /// Path of metrics, which are not received.
        ignored metrics_url_path: String = "/v1/metrics",
        /// Path of logs, which are not received.
        ignored logs_url_path: String = "/v1/logs",
        /// Middlewares of the collector.
        ignored middlewares: Anything = Anything::default(),
    }
}

block! {
    /// Protocols of the OTLP receiver; each that is named is on, even with nothing behind it.
    pub struct OtlpProtocols {
        /// OTLP over gRPC.
        used grpc: Enabled<OtlpGrpc> = Enabled(None),
        /// OTLP over HTTP.
        used http: Enabled<OtlpHttp> = Enabled(None),
    }
}

block! {
    /// The OTLP receiver.
    pub struct Otlp {
        /// Protocols to open.
        used protocols: OtlpProtocols = OtlpProtocols::default(),
    }
}

block! {
    /// A Jaeger protocol over HTTP or gRPC.
    pub struct JaegerTcp {
        /// Address and port; empty means the protocol's own port on localhost.
        used endpoint: String = "",
        /// Kind of network.
        later transport: String = "tcp",
        /// TLS.
        used tls: Option<ReceiverTls> = None,
        /// Requests of browsers from other sites.
        used cors: Option<Cors> = None,
        /// Largest body.
        used max_request_body_size: ByteSize = ByteSize(0),
        /// Largest message in MiB.
        used max_recv_msg_size_mib: u32 = 0u32,
        /// Streams at once in a connection.
        used max_concurrent_streams: u32 = 0u32,
        /// Read buffer of a connection.
        ignored read_buffer_size: ByteSize = ByteSize(0),
        /// Write buffer of a connection.
        ignored write_buffer_size: ByteSize = ByteSize(0),
        /// Keeping connections alive.
        ignored keepalive: Anything = Anything::default(),
        /// Authentication by a collector extension.
        ignored auth: Anything = Anything::default(),
        /// Pass headers on.
        ignored include_metadata: bool = false,
        /// Headers of every answer.
        later response_headers: BTreeMap<String, String> = BTreeMap::new(),
        /// Compressions to accept.
        later compression_algorithms: Vec<String> = [""; 0],
        /// Middlewares of the collector.
        ignored middlewares: Anything = Anything::default(),
    }
}

block! {
    /// A Jaeger protocol over UDP.
    pub struct JaegerUdp {
        /// Address and port; empty means the protocol's own port on localhost.
        used endpoint: String = "",
        /// Packets that wait.
        used queue_size: u32 = 1000u32,
        /// Largest packet in bytes.
        used max_packet_size: u32 = 65_000u32,
        /// Threads.
        used workers: u32 = 10u32,
        /// Buffer of the socket; 0 means the system's.
        later socket_buffer_size: ByteSize = ByteSize(0),
    }
}

block! {
    /// Protocols of the Jaeger receiver; each that is named is on.
    pub struct JaegerProtocols {
        /// jaeger.api_v2 over gRPC, port 14250.
        used grpc: Enabled<JaegerTcp> = Enabled(None),
        /// Thrift over HTTP, port 14268.
        used thrift_http: Enabled<JaegerTcp> = Enabled(None),
        /// Thrift binary over UDP, port 6832.
        used thrift_binary: Enabled<JaegerUdp> = Enabled(None),
        /// Thrift compact over UDP, port 6831.
        used thrift_compact: Enabled<JaegerUdp> = Enabled(None),
    }
}

block! {
    /// The Jaeger receiver.
    pub struct Jaeger {
        /// Protocols to open.
        used protocols: JaegerProtocols = JaegerProtocols::default(),
        /// Sampling strategies of Jaeger.
        ignored remote_sampling: Anything = Anything::default(),
    }
}

block! {
    /// The Zipkin receiver.
    pub struct Zipkin {
        /// Address and port.
        used endpoint: String = "localhost:9411",
        /// Take numbers and booleans from text.
        used parse_string_tags: bool = false,
        /// Protocols; only HTTP exists.
        ignored protocols: Anything = Anything::default(),
        /// TLS.
        used tls: Option<ReceiverTls> = None,
        /// Requests of browsers from other sites.
        used cors: Option<Cors> = None,
        /// Largest body.
        used max_request_body_size: ByteSize = ByteSize(0),
        /// Authentication by a collector extension.
        ignored auth: Anything = Anything::default(),
        /// Pass headers on.
        ignored include_metadata: bool = false,
        /// Headers of every answer.
        later response_headers: BTreeMap<String, String> = BTreeMap::new(),
        /// Compressions to accept.
        later compression_algorithms: Vec<String> = [""; 0],
        /// Middlewares of the collector.
        ignored middlewares: Anything = Anything::default(),
    }
}

block! {
    /// Receivers to open. Nothing at all means OTLP over gRPC and Jaeger over gRPC and HTTP.
    pub struct Receivers {
        /// OTLP.
        used otlp: Enabled<Otlp> = Enabled(None),
        /// Jaeger.
        used jaeger: Enabled<Jaeger> = Enabled(None),
        /// Zipkin.
        used zipkin: Enabled<Zipkin> = Enabled(None),
        /// Spans from a Kafka topic of the collector; the settings are the collector's.
        later kafka: Enabled<Anything> = Enabled(None),
    }
}

impl Receivers {
    /// The receivers to open: those written, or Tempo's own set when none is.
    pub fn effective(&self) -> Self {
        let is_empty = self.otlp.is_none()
            && self.jaeger.is_none()
            && self.zipkin.is_none()
            && self.kafka.is_none();
        if !is_empty {
            return self.clone();
        }
        Self {
            otlp: Enabled(Some(Otlp {
                protocols: OtlpProtocols {
                    grpc: Enabled(Some(OtlpGrpc::default())),
                    http: Enabled(None),
                },
            })),
            jaeger: Enabled(Some(Jaeger {
                protocols: JaegerProtocols {
                    grpc: Enabled(Some(JaegerTcp::default())),
                    thrift_http: Enabled(Some(JaegerTcp::default())),
                    ..JaegerProtocols::default()
                },
                ..Jaeger::default()
            })),
            ..Self::default()
        }
    }
}
