//! A server process that lives as long as its test.

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Longest time a server may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    process: Child,
    port: u16,
}

/// The program that an environment variable names.
pub(crate) fn program(variable: &str) -> PathBuf {
    let path = std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set; eval \"$(scripts/emulators.sh)\" sets it")
    });
    PathBuf::from(path)
}

impl Server {
    /// Starts what `command` makes for a free port and waits until it listens there.
    pub(crate) fn start(command: impl FnOnce(u16) -> Command) -> Self {
        let port = TcpListener::bind(("127.0.0.1", 0))
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let mut command = command(port);
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let mut server = Self { process, port };
        let start = Instant::now();
        while !listens(port) {
            if let Some(status) = server.process.try_wait().unwrap() {
                panic!("{command:?} ended at once: {status}");
            }
            assert!(
                start.elapsed() < START_TIMEOUT,
                "{command:?} does not listen"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// Whether someone listens. A connection from a free port may reach itself; that is nobody.
fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port))
        .and_then(|stream| Ok(stream.local_addr()? != stream.peer_addr()?))
        .unwrap_or(false)
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Makes an authority, and a certificate for 127.0.0.1 signed by it, in `directory`.
pub(crate) struct Certificates {
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificates {
    pub(crate) fn make(directory: &Path) -> Self {
        let path = |name: &str| directory.join(name);
        let (authority, certificate, key) = (path("ca.pem"), path("cert.pem"), path("key.pem"));
        let authority_key = path("ca.key");
        openssl(
            &["req", "-x509", "-subj", "/CN=test authority"],
            |command| {
                new_key(command);
                command.args(["-days", "2", "-keyout"]).arg(&authority_key);
                command.arg("-out").arg(&authority);
            },
        );
        openssl(&["req", "-x509", "-subj", "/CN=127.0.0.1"], |command| {
            new_key(command);
            command.args(["-days", "2", "-addext", "subjectAltName=IP:127.0.0.1"]);
            command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
            command
                .arg("-CA")
                .arg(&authority)
                .arg("-CAkey")
                .arg(&authority_key);
            command
                .arg("-keyout")
                .arg(&key)
                .arg("-out")
                .arg(&certificate);
        });
        Self {
            authority,
            certificate,
            key,
        }
    }
}

fn new_key(command: &mut Command) {
    command.args([
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ]);
}

fn openssl(arguments: &[&str], more: impl FnOnce(&mut Command)) {
    let mut command = Command::new("openssl");
    command.args(arguments);
    more(&mut command);
    let output = command.output().expect("openssl is needed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
