//! The operator as a process of this machine: where no node runs its pod, and where it must reach the
//! API server by another way.

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use tempo_testkit::{http_client, ports};

use crate::{Failure, Outcome, command::Watchdog};

/// Time until it answers.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Time for what it is about, when it is asked to end.
const STOP_LIMIT: Duration = Duration::from_secs(35);
/// Time between two looks whether it answers.
const PACE: Duration = Duration::from_millis(50);

/// A program that is started, killed and started again with the same arguments.
#[derive(Debug)]
pub struct Process {
    /// `host:port` of its pages.
    pub address: String,
    /// Its way to the API server.
    pub kubeconfig: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Process {
    /// The operator's program, not started yet; what it says is appended to `log`.
    ///
    /// # Errors
    /// When there is no port for its pages.
    pub fn new(
        program: &Path,
        kubeconfig: &Path,
        arguments: &[&str],
        environment: &[(&str, String)],
        log: &Path,
    ) -> Outcome<Self> {
        let address = ports::free_address()?;
        let listen = format!("--listen-address={address}");
        let arguments = ["run", &listen]
            .iter()
            .chain(arguments)
            .map(|argument| (*argument).to_owned())
            .collect();
        let way = ("KUBECONFIG", kubeconfig.display().to_string());
        let environment = environment
            .iter()
            .chain([&way])
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        Ok(Self {
            address,
            kubeconfig: kubeconfig.to_owned(),
            program: program.to_owned(),
            arguments,
            environment,
            log: log.to_owned(),
            child: Mutex::default(),
        })
    }

    /// Starts it, unless it runs.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn start(&self) -> Outcome {
        let mut child = self.child();
        if child.is_some() {
            return Ok(());
        }
        let log = append(&self.log)?;
        let started = Command::new(&self.program)
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| Failure::new(format!("{}: {error}", self.program.display())))?;
        child.replace(started);
        Ok(())
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// When it ends, or is not within a minute.
    pub fn wait_ready(&self) -> Outcome {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let answer = http_client::get(&self.address, "/readyz");
            if answer.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            let ended = match self.child().as_mut() {
                Some(child) => child.try_wait()?,
                None => return Err(Failure::new("the operator is not started")),
            };
            if let Some(status) = ended {
                return Err(Failure::new(format!(
                    "the operator has ended with {status}; its log is {}",
                    self.log.display()
                )));
            }
            if Instant::now() > deadline {
                return Err(Failure::new(format!(
                    "the operator is not ready within {} s; its log is {}",
                    START_LIMIT.as_secs(),
                    self.log.display()
                )));
            }
            thread::sleep(PACE);
        }
    }

    /// Its number, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// Ends it without a word of farewell.
    pub fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// When it does not end by itself.
    pub fn stop(&self) -> Outcome {
        let Some(mut child) = self.child().take() else {
            return Ok(());
        };
        let guard = Watchdog::over(&child, STOP_LIMIT);
        Command::new("kill").arg(child.id().to_string()).status()?;
        child.wait()?;
        if guard.disarm() {
            Ok(())
        } else {
            Err(Failure::new(
                "the operator does not end when it is asked to",
            ))
        }
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When it does not run, or this system does not tell.
    pub fn memory(&self) -> Outcome<u64> {
        let id = self
            .id()
            .ok_or_else(|| Failure::new("the operator does not run"))?;
        fs::read_to_string(format!("/proc/{id}/status"))?
            .lines()
            .find_map(|line| {
                line.strip_prefix("VmRSS:")?
                    .trim()
                    .split(' ')
                    .next()?
                    .parse()
                    .ok()
            })
            .map(|kibibytes: u64| kibibytes * 1024)
            .ok_or_else(|| Failure::new("the system does not tell how much memory a process has"))
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn append(path: &Path) -> Outcome<File> {
    Ok(OpenOptions::new().create(true).append(true).open(path)?)
}

/// Writes a kubeconfig for `server`, with this description of cluster and user.
///
/// # Errors
/// When the file cannot be written.
pub fn write_kubeconfig(
    path: &Path,
    cluster: &serde_json::Value,
    user: &serde_json::Value,
) -> Outcome {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "operator",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "contexts": [{"name": "operator", "context": {"cluster": "cluster", "user": "operator"}}],
        "users": [{"name": "operator", "user": user}],
    });
    fs::write(path, config.to_string())?;
    Ok(())
}
