//! `tempo` as a process of its own, on free ports and a data folder that is removed afterwards.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{http_client, ports::free_address};

/// Longest wait for `/ready`.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// A configured, perhaps running `tempo`. Dropping it kills the process.
#[derive(Debug)]
pub struct Tempo {
    binary: PathBuf,
    data: PathBuf,
    config: PathBuf,
    /// HTTP API, `host:port`.
    pub http: String,
    /// Query gRPC, `host:port`.
    pub grpc: String,
    /// OTLP over gRPC, `host:port`.
    pub otlp_grpc: String,
    /// OTLP over HTTP, `host:port`.
    pub otlp_http: String,
    child: Option<Child>,
    _folder: Option<tempfile::TempDir>,
}

/// What a test may change of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// YAML appended to the top level of the configuration.
    pub extra_yaml: String,
    /// Replaces the `storage.trace` block; indented by four spaces.
    pub storage_yaml: Option<String>,
    /// Settings of `storage.trace.wal`; indented by six spaces.
    pub wal_yaml: String,
    /// Settings of the live-store; indented by two spaces.
    pub live_store_yaml: String,
    /// Settings of the server; indented by two spaces.
    pub server_yaml: String,
    /// Where data lives; a temporary folder when `None`.
    pub data: Option<PathBuf>,
    /// Whether blocks are merged; tests that count blocks want them to stay as they are.
    pub merges_blocks: bool,
}

/// No tenant has so many blocks.
const NO_MERGING: &str = "backend_scheduler:
  provider:
    compaction:
      min_input_blocks: 1000000
      max_input_blocks: 1000000
";

/// YAML for a process that asks blocks for everything, whatever its age.
pub const BACKEND_ONLY: &str = "query_frontend:
  query_end_cutoff: 0s
  search:
    query_backend_after: 0s
  metrics:
    query_backend_after: 0s
backend_worker:
  compaction:
    block_retention: 876000h
";

/// YAML for benchmarks, which measure the path and not the limits.
pub const UNLIMITED: &str = "overrides:
  defaults:
    ingestion:
      rate_limit_bytes: 1000000000
      burst_size_bytes: 1000000000
      max_traces_per_user: 0
";

/// Bytes of all files below a folder; 0 where it cannot be read.
pub fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

impl Tempo {
    /// Writes a configuration for `binary`; does not start it.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn configure(binary: &Path, options: &Options) -> io::Result<Self> {
        let (folder, data) = match &options.data {
            Some(data) => (None, data.clone()),
            None => {
                let folder = tempfile::tempdir()?;
                let data = folder.path().to_owned();
                (Some(folder), data)
            }
        };
        let [http, grpc, otlp_grpc, otlp_http] = [
            free_address()?,
            free_address()?,
            free_address()?,
            free_address()?,
        ];
        let port = |address: &str| address.rsplit(':').next().unwrap_or_default().to_owned();
        let root = data.display();
        let storage = options.storage_yaml.clone().unwrap_or_else(|| {
            format!("    backend: local\n    local:\n      path: {root}/blocks\n")
        });
        let merging = if options.merges_blocks {
            ""
        } else {
            NO_MERGING
        };
        let yaml = format!(
            "server:\n  http_listen_address: 127.0.0.1\n  http_listen_port: {}\n  grpc_listen_address: 127.0.0.1\n  grpc_listen_port: {}\n{}\
             distributor:\n  receivers:\n    otlp:\n      protocols:\n        grpc:\n          endpoint: {otlp_grpc}\n        http:\n          endpoint: {otlp_http}\n\
             live_store:\n  wal:\n    path: {root}/live-store/traces\n  shutdown_marker_dir: {root}/live-store/shutdown-marker\n{}\
             storage:\n  trace:\n{storage}    wal:\n      path: {root}/wal\n{}{merging}{}",
            port(&http),
            port(&grpc),
            options.server_yaml,
            options.live_store_yaml,
            options.wal_yaml,
            options.extra_yaml,
        );
        fs::create_dir_all(&data)?;
        let config = data.join("tempo.yaml");
        fs::write(&config, yaml)?;
        Ok(Self {
            binary: binary.to_owned(),
            data,
            config,
            http,
            grpc,
            otlp_grpc,
            otlp_http,
            child: None,
            _folder: folder,
        })
    }

    /// Where its data lives.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts the process; its log is appended to `tempo.log` in the data folder.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&mut self) -> io::Result<()> {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.data.join("tempo.log"))?;
        let child = Command::new(&self.binary)
            .arg(format!("-config.file={}", self.config.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Starts the process and waits until it is ready; returns how long that took.
    ///
    /// # Errors
    /// When it ends, or is not ready in time; with the end of its log.
    pub fn start(&mut self) -> io::Result<Duration> {
        let started = Instant::now();
        self.spawn()?;
        loop {
            if let Ok(answer) = http_client::get(&self.http, "/ready")
                && answer.status == 200
            {
                return Ok(started.elapsed());
            }
            let ended = match self.child.as_mut() {
                Some(child) => child.try_wait()?,
                None => None,
            };
            if ended.is_some() || started.elapsed() > READY_TIMEOUT {
                let state = ended.map_or("not ready in time".to_owned(), |code| code.to_string());
                return Err(io::Error::other(format!(
                    "tempo: {state}\n{}",
                    self.log_tail()
                )));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.data.join("tempo.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Sends a signal by name, such as `KILL`, `TERM` or `STOP`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, name: &str) -> io::Result<()> {
        let pid = self.pid().ok_or(io::ErrorKind::NotFound)?;
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(pid.to_string())
            .status()?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other("kill failed"))
        }
    }

    /// Waits for its end after a signal; returns the exit code, if it exited by itself.
    ///
    /// # Errors
    /// When waiting fails.
    pub fn wait(&mut self) -> io::Result<Option<i32>> {
        match self.child.take() {
            Some(mut child) => Ok(child.wait()?.code()),
            None => Ok(None),
        }
    }

    /// `kill -9`, and waits for the end.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> io::Result<()> {
        self.signal("KILL")?;
        self.wait().map(drop)
    }

    /// A value from `/proc/<pid>/status` in bytes, such as `VmHWM` or `VmRSS`.
    pub fn memory_bytes(&self, key: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    }

    /// User and system CPU seconds that it has used.
    pub fn cpu_seconds(&self) -> Option<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()?)).ok()?;
        let numbers: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: u64 =
            numbers.get(11)?.parse::<u64>().ok()? + numbers.get(12)?.parse::<u64>().ok()?;
        Some(ticks as f64 / 100.0)
    }
}

impl Drop for Tempo {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
