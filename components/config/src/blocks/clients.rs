//! Parts that many blocks share: TLS, gRPC clients, rings and their stores, backoff.

use crate::block::block;
use crate::units::{ByteSize, GoDuration, Secret, choice};

block! {
    /// TLS of a client.
    pub struct ClientTls {
        /// File of the client certificate (PEM).
        used tls_cert_path: String = "",
        /// File of the key to the client certificate (PEM).
        used tls_key_path: String = "",
        /// File of the certificates to trust (PEM); empty means those of the system.
        used tls_ca_path: String = "",
        /// Name to expect in the server's certificate; empty means the host name.
        used tls_server_name: String = "",
        /// Accept any certificate.
        used tls_insecure_skip_verify: bool = false,
        /// Cipher suites, separated by commas; empty means those of the TLS library.
        ignored tls_cipher_suites: String = "",
        /// Oldest version: VersionTLS12 or VersionTLS13; older ones are not offered.
        used tls_min_version: String = "",
    }
}

block! {
    /// Waiting between tries: from the shortest time, doubled up to the longest.
    pub struct Backoff {
        /// First wait.
        used min_period: GoDuration = GoDuration::millis(100),
        /// Longest wait.
        used max_period: GoDuration = GoDuration::seconds(10),
        /// Tries; 0 means without end.
        used max_retries: i64 = 10,
    }
}

block! {
    /// Refuses peers of another cluster.
    pub struct ClusterLabel {
        /// Name of this cluster.
        used label: String = "",
    }
}

block! {
    /// A gRPC client.
    pub struct GrpcClient {
        /// Largest message to receive.
        used max_recv_msg_size: ByteSize = ByteSize(104_857_600),
        /// Largest message to send.
        used max_send_msg_size: ByteSize = ByteSize(104_857_600),
        /// Compression of messages: snappy, gzip, zstd or nothing.
        used grpc_compression: String = "snappy",
        /// Requests per second; 0 means any number.
        used rate_limit: f64 = 0.0,
        /// Requests at once above the rate.
        used rate_limit_burst: i64 = 0,
        /// Wait and try again when the rate is exceeded.
        used backoff_on_ratelimits: bool = false,
        /// Waiting between tries.
        used backoff_config: Backoff = Backoff::default(),
        /// Flow control window of a stream.
        used initial_stream_window_size: ByteSize = ByteSize(65_535),
        /// Flow control window of a connection.
        used initial_connection_window_size: ByteSize = ByteSize(65_535),
        /// Use TLS.
        used tls_enabled: bool = false,
        /// Longest time to connect.
        used connect_timeout: GoDuration = GoDuration::seconds(5),
        /// First wait between connects.
        used connect_backoff_base_delay: GoDuration = GoDuration::seconds(1),
        /// Longest wait between connects.
        used connect_backoff_max_delay: GoDuration = GoDuration::seconds(5),
        /// Refuses servers of another cluster.
        used cluster_validation: ClusterLabel = ClusterLabel::default(),
        ..tls: ClientTls = ClientTls::default(),
    }
}

impl GrpcClient {
    /// As the querier's worker has it.
    pub(crate) fn worker() -> Self {
        Self {
            max_send_msg_size: ByteSize(16_777_216),
            backoff_config: Backoff {
                max_period: GoDuration::seconds(1),
                max_retries: 5,
                ..Backoff::default()
            },
            initial_stream_window_size: ByteSize(0),
            initial_connection_window_size: ByteSize(0),
            connect_timeout: GoDuration::ZERO,
            connect_backoff_base_delay: GoDuration::ZERO,
            connect_backoff_max_delay: GoDuration::ZERO,
            ..Self::default()
        }
    }
}

block! {
    /// A Consul server.
    pub struct Consul {
        /// Host and port.
        ignored host: String = "localhost:8500",
        /// Token of the access control list.
        ignored acl_token: Secret = Secret::default(),
        /// Longest time for a request.
        ignored http_client_timeout: GoDuration = GoDuration::seconds(20),
        /// Read from the leader only.
        ignored consistent_reads: bool = false,
        /// Watches per second.
        ignored watch_rate_limit: f64 = 1.0,
        /// Watches at once.
        ignored watch_burst_size: i64 = 1,
        /// Wait after a lost race.
        ignored cas_retry_delay: GoDuration = GoDuration::seconds(1),
    }
}

block! {
    /// An etcd cluster.
    pub struct Etcd {
        /// Hosts and ports.
        ignored endpoints: Vec<String> = [""; 0],
        /// Longest time to connect.
        ignored dial_timeout: GoDuration = GoDuration::seconds(10),
        /// Tries.
        ignored max_retries: i64 = 10,
        /// Use TLS.
        ignored tls_enabled: bool = false,
        /// User name.
        ignored username: String = "",
        /// Password.
        ignored password: Secret = Secret::default(),
        ..tls: ClientTls = ClientTls::default(),
    }
}

block! {
    /// Two stores at once, to move from one to the other.
    pub struct MultiStore {
        /// Store that is read.
        ignored primary: String = "",
        /// Store that is written, too.
        ignored secondary: String = "",
        /// Write to the second store.
        ignored mirror_enabled: bool = false,
        /// Longest time for the second write.
        ignored mirror_timeout: GoDuration = GoDuration::seconds(2),
    }
}

choice! {
    /// Where members of a ring find each other.
    pub enum RingStore {
        /// Not at all.
        #[default]
        None = "",
        /// Gossip.
        Memberlist = "memberlist",
        /// Within the process.
        InMemory = "inmemory",
        /// Consul.
        Consul = "consul",
        /// etcd.
        Etcd = "etcd",
        /// Two of them.
        Multi = "multi",
    }
}

block! {
    /// Where members of a ring find each other. Membership is gossip here, whatever is set.
    pub struct KvStore {
        /// Kind of store.
        ignored store: RingStore = RingStore::Memberlist,
        /// Prefix of keys in the store.
        ignored prefix: String = "collectors/",
        /// Consul, when it is the store.
        ignored consul: Consul = Consul::default(),
        /// etcd, when it is the store.
        ignored etcd: Etcd = Etcd::default(),
        /// Two stores, when they are the store.
        ignored multi: MultiStore = MultiStore::default(),
    }
}

block! {
    /// How a process takes part in a ring.
    pub struct Ring {
        /// Where members find each other.
        used kvstore: KvStore = KvStore::default(),
        /// Time between signs of life.
        used heartbeat_period: GoDuration = GoDuration::seconds(5),
        /// Silence after which a member counts as gone.
        used heartbeat_timeout: GoDuration = GoDuration::minutes(1),
        /// Name of this process; the host name when empty.
        used instance_id: String = "",
        /// Network interfaces to take the own address from.
        used instance_interface_names: Vec<String> = ["eth0", "en0"],
        /// Port to announce; 0 means the gRPC port.
        used instance_port: u16 = 0u16,
        /// Address to announce; empty means that of the interface.
        used instance_addr: String = "",
        /// Announce IPv6 addresses.
        used enable_inet6: bool = false,
        /// Availability zone of this process.
        used instance_zone: String = "",
    }
}
