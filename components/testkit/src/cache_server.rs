//! The real memcached and Redis, each on a port of its own; killed when dropped.

#![expect(clippy::unwrap_used, reason = "a test without its servers has to fail")]

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::ports;

/// Longest wait for a server.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A server that is running, or can be started again.
#[derive(Debug)]
pub struct CacheServer {
    /// `host:port`.
    pub address: String,
    program: &'static str,
    arguments: Vec<String>,
    process: Option<Child>,
    _folder: tempfile::TempDir,
}

impl CacheServer {
    /// Whether the programs are there.
    ///
    /// # Panics
    /// With the remedy where they are not installed.
    pub fn check() {
        for program in ["memcached", "redis-server"] {
            let found = Command::new(program).arg("--version").output();
            assert!(
                found.is_ok(),
                "{program} is not installed: run scripts/setup.sh test"
            );
        }
    }

    fn new(program: &'static str, arguments: impl FnOnce(&str, &str) -> Vec<String>) -> Self {
        Self::check();
        let port = ports::free_port().unwrap().to_string();
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self {
            address: format!("127.0.0.1:{port}"),
            program,
            arguments: arguments(&port, &folder.path().display().to_string()),
            process: None,
            _folder: folder,
        };
        server.start();
        server
    }

    /// Starts it where it was.
    ///
    /// # Panics
    /// When it does not listen in time.
    pub fn start(&mut self) {
        let process = Command::new(self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
        let begun = Instant::now();
        while TcpStream::connect(&self.address).is_err() {
            assert!(
                begun.elapsed() < READY_TIMEOUT,
                "{} is not there",
                self.program
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it at once.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Sends a command of Redis and returns its answer.
    fn command(&self, command: &str) -> String {
        let mut connection = TcpStream::connect(&self.address).unwrap();
        connection
            .write_all(format!("{command}\r\n").as_bytes())
            .unwrap();
        let mut answer = [0; 4096];
        let count = connection.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..count]).into_owned()
    }
}

impl Drop for CacheServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// memcached with 64 MiB.
pub fn memcached() -> CacheServer {
    CacheServer::new("memcached", |port, _| {
        [
            "-l",
            "127.0.0.1",
            "-p",
            port,
            "-U",
            "0",
            "-m",
            "64",
            "-u",
            "root",
        ]
        .map(str::to_owned)
        .to_vec()
    })
}

fn redis_with(more: &[&str]) -> CacheServer {
    CacheServer::new("redis-server", |port, folder| {
        let mut arguments: Vec<String> = [
            "--port",
            port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            folder,
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        arguments
    })
}

/// One Redis server; without a password when that is empty.
pub fn redis(password: &str) -> CacheServer {
    match password {
        "" => redis_with(&[]),
        password => redis_with(&["--requirepass", password]),
    }
}

/// A cluster of two Redis servers, each with half of the slots.
///
/// # Panics
/// When the cluster does not form in time.
pub fn redis_cluster() -> [CacheServer; 2] {
    let servers = [(); 2].map(|()| redis_with(&["--cluster-enabled", "yes"]));
    for (server, slots) in servers.iter().zip(["0 8191", "8192 16383"]) {
        let answer = server.command(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
        assert!(answer.starts_with("+OK"), "{answer}");
    }
    let port = servers[1].address.rsplit(':').next().unwrap();
    let answer = servers[0].command(&format!("CLUSTER MEET 127.0.0.1 {port}"));
    assert!(answer.starts_with("+OK"), "{answer}");
    let begun = Instant::now();
    for server in &servers {
        while !server.command("CLUSTER INFO").contains("cluster_state:ok")
            || !server
                .command("CLUSTER INFO")
                .contains("cluster_slots_ok:16384")
        {
            assert!(begun.elapsed() < READY_TIMEOUT, "the cluster does not form");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    servers
}
