//! `server`, `internal_server`: listeners and logging.

use crate::block::block;
use crate::units::{ByteSize, CommaList, GoDuration, Secret, choice};

choice! {
    /// The form of log lines.
    pub enum LogFormat {
        /// `key=value` pairs.
        #[default]
        Logfmt = "logfmt",
        /// One JSON object a line.
        Json = "json",
    }
}

choice! {
    /// The least important lines that are logged.
    pub enum LogLevel {
        /// Everything.
        Debug = "debug",
        /// What an operator wants to read.
        #[default]
        Info = "info",
        /// What needs a look.
        Warn = "warn",
        /// What failed.
        Error = "error",
    }
}

block! {
    /// TLS of a listener.
    pub struct ServerTls {
        /// Certificate (PEM) in place.
        later cert: String = "",
        /// Key (PEM) in place.
        later key: Secret = Secret::default(),
        /// Certificates to trust for clients (PEM) in place.
        later client_ca: String = "",
        /// File of the certificate (PEM).
        used cert_file: String = "",
        /// File of the key (PEM).
        used key_file: String = "",
        /// Whether clients must show a certificate, in Go's words: RequireAndVerifyClientCert and the like.
        used client_auth_type: String = "",
        /// File of the certificates to trust for clients (PEM).
        used client_ca_file: String = "",
    }
}

block! {
    /// Checks of the cluster's name in gRPC requests.
    pub struct GrpcClusterValidation {
        /// Check the name.
        later enabled: bool = false,
        /// Only log what would be refused.
        later soft_validation: bool = false,
    }
}

block! {
    /// Checks of the cluster's name in HTTP requests.
    pub struct HttpClusterValidation {
        /// Check the name.
        later enabled: bool = false,
        /// Only log what would be refused.
        later soft_validation: bool = false,
        /// Paths without check.
        later excluded_paths: CommaList = CommaList::default(),
        /// Clients without check.
        later excluded_user_agents: CommaList = CommaList::default(),
    }
}

block! {
    /// Refuses requests of another cluster.
    pub struct ClusterValidation {
        /// Name of this cluster.
        later label: String = "",
        /// Other names to accept.
        later additional_labels: CommaList = CommaList::default(),
        /// For gRPC.
        used grpc: GrpcClusterValidation = GrpcClusterValidation::default(),
        /// For HTTP.
        used http: HttpClusterValidation = HttpClusterValidation::default(),
    }
}

block! {
    /// The main listeners, HTTP and gRPC, and logging.
    pub struct Server {
        /// Network of the HTTP listener: tcp, tcp4 or tcp6.
        later http_listen_network: String = "tcp",
        /// Address of the HTTP listener; empty means all.
        used http_listen_address: String = "",
        /// Port of the HTTP listener.
        used http_listen_port: u16 = 3200u16,
        /// HTTP connections at once; 0 means any number.
        used http_listen_conn_limit: u32 = 0u32,
        /// Network of the gRPC listener: tcp, tcp4 or tcp6.
        later grpc_listen_network: String = "tcp",
        /// Address of the gRPC listener; empty means all.
        used grpc_listen_address: String = "",
        /// Port of the gRPC listener.
        used grpc_listen_port: u16 = 9095u16,
        /// gRPC connections at once; 0 means any number.
        used grpc_listen_conn_limit: u32 = 0u32,
        /// Measure streams per connection.
        ignored grpc_collect_max_streams_by_conn: bool = true,
        /// Read the client's address from the PROXY protocol.
        later proxy_protocol_enabled: bool = false,
        /// Cipher suites of both listeners, separated by commas.
        ignored tls_cipher_suites: String = "",
        /// Oldest TLS version of both listeners: VersionTLS12 or VersionTLS13.
        used tls_min_version: String = "",
        /// TLS of the HTTP listener.
        used http_tls_config: ServerTls = ServerTls::default(),
        /// TLS of the gRPC listener.
        used grpc_tls_config: ServerTls = ServerTls::default(),
        /// Serve /metrics and the profiler.
        later register_instrumentation: bool = true,
        /// Name gRPC status codes in metrics, rather than success and error.
        ignored report_grpc_codes_in_instrumentation_label_enabled: bool = false,
        /// Longest time to finish requests at the end.
        used graceful_shutdown_timeout: GoDuration = GoDuration::seconds(30),
        /// Longest time to read an HTTP request.
        later http_server_read_timeout: GoDuration = GoDuration::seconds(30),
        /// Longest time to read the head of an HTTP request; 0 means that of the whole request.
        later http_server_read_header_timeout: GoDuration = GoDuration::ZERO,
        /// Longest time to write an HTTP answer.
        later http_server_write_timeout: GoDuration = GoDuration::seconds(30),
        /// Time that an idle HTTP connection stays open.
        used http_server_idle_timeout: GoDuration = GoDuration::minutes(2),
        /// Time that an HTTP connection stays open; 0 means for ever. Tempo has no such key.
        used http_server_max_connection_age: GoDuration = GoDuration::ZERO,
        /// Log connections that were closed without an answer.
        ignored http_log_closed_connections_without_response_enabled: bool = false,
        /// Largest gRPC message to receive.
        used grpc_server_max_recv_msg_size: ByteSize = ByteSize(16_777_216),
        /// Largest gRPC message to send.
        used grpc_server_max_send_msg_size: ByteSize = ByteSize(16_777_216),
        /// Streams at once in a gRPC connection.
        used grpc_server_max_concurrent_streams: u32 = 100u32,
        /// Time that an idle gRPC connection stays open.
        later grpc_server_max_connection_idle: GoDuration = GoDuration::INFINITE,
        /// Time that a gRPC connection stays open.
        used grpc_server_max_connection_age: GoDuration = GoDuration::INFINITE,
        /// Time to finish requests when a gRPC connection gets too old.
        used grpc_server_max_connection_age_grace: GoDuration = GoDuration::INFINITE,
        /// Silence after which the server asks whether the client is alive.
        used grpc_server_keepalive_time: GoDuration = GoDuration::hours(2),
        /// Time for the client's answer.
        used grpc_server_keepalive_timeout: GoDuration = GoDuration::seconds(20),
        /// Shortest time between pings of a client.
        later grpc_server_min_time_between_pings: GoDuration = GoDuration::seconds(10),
        /// Let clients ping without a request under way.
        later grpc_server_ping_without_stream_allowed: bool = true,
        /// Threads for gRPC requests.
        ignored grpc_server_num_workers: u32 = 0u32,
        /// Measure sizes of messages.
        ignored grpc_server_stats_tracking_enabled: bool = true,
        /// Use buffers again.
        ignored grpc_server_recv_buffer_pools_enabled: bool = false,
        /// Read buffer of a gRPC connection.
        ignored grpc_server_read_buffer_size: ByteSize = ByteSize(32_768),
        /// Write buffer of a gRPC connection.
        ignored grpc_server_write_buffer_size: ByteSize = ByteSize(32_768),
        /// Form of log lines.
        used log_format: LogFormat = LogFormat::Logfmt,
        /// Least important lines that are logged.
        used log_level: LogLevel = LogLevel::Info,
        /// Log addresses of clients.
        later log_source_ips_enabled: bool = false,
        /// Log all addresses that proxies have noted.
        later log_source_ips_full: bool = false,
        /// Header with the client's address.
        later log_source_ips_header: String = "",
        /// Pattern that takes the address from the header.
        later log_source_ips_regex: String = "",
        /// Log headers of requests.
        later log_request_headers: bool = false,
        /// Log requests at level info rather than debug.
        later log_request_at_info_level_enabled: bool = false,
        /// Headers that are not logged.
        later log_request_exclude_headers_list: CommaList = CommaList::default(),
        /// Put headers of requests into own traces.
        later trace_request_headers: bool = false,
        /// Headers that are not put into own traces.
        later trace_request_exclude_headers_list: CommaList = CommaList::default(),
        /// Prefix of every HTTP path, pages and metrics included.
        later http_path_prefix: String = "",
        /// Refuses requests of another cluster.
        used cluster_validation: ClusterValidation = ClusterValidation::default(),
        /// Begin a new own trace for every request.
        later create_new_traces: bool = false,
    }
}

block! {
    /// A second HTTP listener for health checks and metrics.
    pub struct InternalServer {
        /// Open the listener.
        later enable: bool = false,
        ..server: Server = Server {
            http_listen_port: 3101,
            grpc_listen_network: String::new(),
            grpc_listen_port: 0,
            grpc_collect_max_streams_by_conn: false,
            register_instrumentation: false,
            grpc_server_max_recv_msg_size: ByteSize(0),
            grpc_server_max_send_msg_size: ByteSize(0),
            grpc_server_max_concurrent_streams: 0,
            grpc_server_max_connection_idle: GoDuration::ZERO,
            grpc_server_max_connection_age: GoDuration::ZERO,
            grpc_server_max_connection_age_grace: GoDuration::ZERO,
            grpc_server_keepalive_time: GoDuration::ZERO,
            grpc_server_keepalive_timeout: GoDuration::ZERO,
            grpc_server_min_time_between_pings: GoDuration::ZERO,
            grpc_server_ping_without_stream_allowed: false,
            grpc_server_stats_tracking_enabled: false,
            grpc_server_read_buffer_size: ByteSize(0),
            grpc_server_write_buffer_size: ByteSize(0),
            ..Server::default()
        },
    }
}
