//! How to reach Kafka and how to treat it.

use std::{fmt, path::PathBuf, time::Duration};

/// Largest [`KafkaConfig::max_record_bytes`]: a batch of 16 MB less what surrounds a record in it.
pub const MAX_RECORD_BYTES: usize = 16_000_000 - 16_384;

/// Smallest [`KafkaConfig::max_record_bytes`].
pub const MIN_RECORD_BYTES: usize = 1 << 20;

/// The settings of every client, resolved; the defaults are Tempo's.
#[derive(Debug, Clone)]
pub struct KafkaConfig {
    /// `host:port` of a broker, or several with commas between them.
    pub address: String,
    /// The topic.
    pub topic: String,
    /// What the brokers' logs call this client; the library's name when empty.
    pub client_id: String,
    /// Where this client stands, to read from replicas nearby.
    pub client_rack: String,
    /// Longest time to connect to a broker.
    pub dial_timeout: Duration,
    /// Longest time until a record is acknowledged.
    pub write_timeout: Duration,
    /// How to log in.
    pub sasl: Sasl,
    /// TLS; without it connections are not encrypted.
    pub tls: Option<Tls>,
    /// Longest time to ask for offsets.
    pub offset_timeout: Duration,
    /// Partitions to create a missing topic with; `None` leaves it missing.
    pub auto_create_partitions: Option<i32>,
    /// Largest record; see [`MIN_RECORD_BYTES`] and [`MAX_RECORD_BYTES`].
    pub max_record_bytes: usize,
    /// Bytes of records that wait for their acknowledgement; beyond, records are refused.
    pub max_buffered_bytes: u64,
    /// How records are compressed.
    pub compression: Compression,
    /// Time between two measurements of the lag.
    pub lag_update_interval: Duration,
    /// Whether brokers are told figures of this client, if they ask (KIP-714).
    pub telemetry: bool,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            address: "localhost:9092".to_owned(),
            topic: String::new(),
            client_id: String::new(),
            client_rack: String::new(),
            dial_timeout: Duration::from_secs(2),
            write_timeout: Duration::from_secs(10),
            sasl: Sasl::Off,
            tls: None,
            offset_timeout: Duration::from_secs(10),
            auto_create_partitions: Some(1000),
            max_record_bytes: MAX_RECORD_BYTES,
            max_buffered_bytes: 1 << 30,
            compression: Compression::Snappy,
            lag_update_interval: Duration::from_secs(60),
            telemetry: true,
        }
    }
}

/// How records are compressed on their way to the broker and in its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Snappy: Tempo's choice when none is set.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// As the library calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// A name and what proves it. The password is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub username: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// How to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sasl {
    /// Not at all.
    Off,
    /// PLAIN: the password as it is; only sensible with TLS.
    Plain(Credentials),
    /// SCRAM-SHA-256.
    ScramSha256(Credentials),
    /// SCRAM-SHA-512.
    ScramSha512(Credentials),
    /// OAUTHBEARER: a token.
    OAuthBearer(TokenSource),
}

/// Where the token of OAUTHBEARER comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// It is this.
    Static {
        /// The token.
        token: String,
    },
    /// `{"token": …}` in a file, read again whenever the token is about to expire.
    File(PathBuf),
    /// The same as the answer to an HTTP `GET /` on a Unix socket.
    Socket {
        /// The socket.
        path: PathBuf,
        /// Longest time to wait for the answer.
        timeout: Duration,
    },
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static { .. } => f.debug_struct("Static").finish_non_exhaustive(),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Socket { path, timeout } => f
                .debug_struct("Socket")
                .field("path", path)
                .field("timeout", timeout)
                .finish(),
        }
    }
}

/// TLS of the connections to brokers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the authorities that broker certificates are checked against; those of the
    /// system without it.
    pub ca_path: Option<PathBuf>,
    /// PEM files of the certificate and its key that this client shows.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// OpenSSL names of cipher suites, separated by colons; the library's choice when empty.
    pub cipher_suites: String,
    /// Takes any certificate.
    pub insecure_skip_verify: bool,
}
